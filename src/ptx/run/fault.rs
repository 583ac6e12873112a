//! What a kernel did wrong, and where.

use super::{Launch, Place};

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`name` says it")]
pub enum FaultKind {
    GlobalOutOfBounds,
    Null,
    SharedOutOfBounds,
    LocalOutOfBounds,
    Misaligned,
    UninitGlobal,
    UninitShared,
    UninitLocal,
    RaceShared,
    RaceGlobal,
    BarrierDivergence,
    AbsentLane,
    Trap,
    Timeout,
    StackOverflow,
    Unsupported,
}

impl FaultKind {
    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::GlobalOutOfBounds => "global-oob",
            FaultKind::Null => "null",
            FaultKind::SharedOutOfBounds => "shared-oob",
            FaultKind::LocalOutOfBounds => "local-oob",
            FaultKind::Misaligned => "misaligned",
            FaultKind::UninitGlobal => "uninit-global",
            FaultKind::UninitShared => "uninit-shared",
            FaultKind::UninitLocal => "uninit-local",
            FaultKind::RaceShared => "race-shared",
            FaultKind::RaceGlobal => "race-global",
            FaultKind::BarrierDivergence => "barrier-divergence",
            FaultKind::AbsentLane => "shfl-absent-lane",
            FaultKind::Trap => "trap",
            FaultKind::Timeout => "timeout",
            FaultKind::StackOverflow => "stack-overflow",
            FaultKind::Unsupported => "unsupported",
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Kind, by name.
    pub kind: &'static str,
    /// Entry that ran.
    pub kernel: String,
    /// PTX file, or another name of the text.
    pub file: String,
    /// Line of the instruction, from 1.
    pub line: u32,
    /// Block in the grid.
    pub block: [u32; 3],
    /// Thread in the block.
    pub thread: [u32; 3],
    /// Address, or 0 where there is none.
    pub address: u64,
    /// What happened, in words.
    pub what: String,
    /// The instruction.
    pub text: String,
}

impl Fault {
    /// A fault of `lane` of the warp at `place`, at byte `at` of the source.
    pub fn new(
        launch: &Launch<'_>,
        place: Place,
        at: u32,
        kind: FaultKind,
        lane: usize,
        address: u64,
        what: String,
    ) -> Fault {
        let program = launch.program;
        let (line, text) = program.line(at);
        let [x, y, _] = launch.block;
        let t = place.warp * 32 + lane as u32;
        Fault {
            kind: kind.name(),
            kernel: launch.entry.name.clone(),
            file: program.name.clone(),
            line,
            block: place.block,
            thread: [t % x, t / x % y, t / x / y],
            address,
            what,
            text: text.to_owned(),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let triple = |[x, y, z]: [u32; 3]| format!("({x}, {y}, {z})");
        write!(
            f,
            "{}:{}: {}: {} in {}, block {}, thread {}\n  | {}",
            self.file,
            self.line,
            self.kind,
            self.what,
            self.kernel,
            triple(self.block),
            triple(self.thread),
            self.text
        )
    }
}
