//! Which lanes of a warp take part in each instruction: divergence, instruction by instruction.

use crate::ptx::run::{Access, LANES, Launch, Op, Place, Watch};
use std::sync::{Arc, Mutex, PoisonError};

/// Most instructions that are kept.
const MOST: usize = 10_000;

/// An instruction that the first warp of the first block ran.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// Line of the source, from 1.
    pub line: u32,
    /// The line.
    pub text: String,
    /// A character for each lane: `#` takes part, `-` is at the instruction and its guard says no, `.` is elsewhere.
    pub lanes: String,
}

/// Keeps what the first warp of the first block runs; hands it over when it is dropped.
pub struct Microscope {
    into: Arc<Mutex<Vec<Step>>>,
    steps: Vec<Step>,
}

impl Microscope {
    /// Keeps into `into`.
    pub fn new(into: Arc<Mutex<Vec<Step>>>) -> Microscope {
        Microscope { into, steps: Vec::new() }
    }
}

impl Watch for Microscope {
    fn step(&mut self, launch: &Launch<'_>, place: Place, op: &Op, mask: u32, together: u32) {
        if (place.block, place.warp) != ([0; 3], 0) || self.steps.len() >= MOST {
            return;
        }
        let (line, text) = launch.program.line(op.at);
        let sign = |l: usize| match (mask >> l & 1, together >> l & 1) {
            (1, _) => '#',
            (_, 1) => '-',
            _ => '.',
        };
        let lanes = (0..LANES).map(sign).collect();
        self.steps.push(Step { line, text: text.to_owned(), lanes });
    }

    fn access(&mut self, _: &Launch<'_>, _: Place, access: &Access<'_>) -> u32 {
        access.mask
    }
}

impl Drop for Microscope {
    fn drop(&mut self) {
        *self.into.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut self.steps);
    }
}
