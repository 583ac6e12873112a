//! A timeline of the warps of a launch in the Trace Event Format, which chrome://tracing and Perfetto show.
//!
//! Time is the count of instructions: one microsecond of the timeline is one instruction of a warp. Each warp has a clock of
//! its own; at a barrier all warps of the block go on from the latest. So a warp that waits for the others, and a warp that
//! diverges and takes longer, is seen; what a chip would overlap or stall on is not.

use crate::ptx::run::{Access, Event, Launch, Op, Place, Watch};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks of a launch that are drawn: the first ones.
const DRAWN: usize = 64;

/// One warp's clock.
#[derive(Clone, Copy, Default)]
struct Clock {
    /// Where its present stretch began.
    began: u64,
    now: u64,
    /// Thread-instructions of the stretch.
    lanes: u64,
    /// Line at which it stands.
    first: u32,
    last: u32,
}

/// Draws one launch: adds its events to a list when it is dropped.
pub struct Tracer {
    into: Arc<Mutex<Vec<Value>>>,
    events: Vec<Value>,
    /// Number of the launch, and of the blocks that are drawn.
    launch: usize,
    blocks: HashMap<[u32; 3], Block>,
    seen: usize,
}

struct Block {
    id: u64,
    warps: Vec<Clock>,
}

impl Tracer {
    /// Draws launch number `launch` into `into`.
    pub fn new(into: Arc<Mutex<Vec<Value>>>, launch: usize) -> Tracer {
        Tracer { into, events: Vec::new(), launch, blocks: HashMap::new(), seen: 0 }
    }

    /// The block at `index`, when it is one of those that are drawn.
    fn block(&mut self, launch: &Launch<'_>, index: [u32; 3]) -> Option<&mut Block> {
        if !self.blocks.contains_key(&index) {
            if self.seen >= DRAWN {
                return None;
            }
            let id = (self.launch * DRAWN + self.seen) as u64;
            self.seen += 1;
            let warps = launch.block.iter().product::<u32>().div_ceil(32) as usize;
            self.blocks.insert(index, Block { id, warps: vec![Clock::default(); warps] });
            let name = format!("{} block {index:?}", launch.entry.name);
            self.events.push(json!({"ph": "M", "pid": id, "name": "process_name", "args": {"name": name}}));
        }
        self.blocks.get_mut(&index)
    }
}

/// The stretch of a warp since its last barrier.
fn stretch(id: u64, warp: usize, c: &Clock) -> Value {
    let busy = c.lanes as f64 / (32 * (c.now - c.began).max(1)) as f64;
    json!({
        "ph": "X", "pid": id, "tid": warp, "ts": c.began, "dur": c.now - c.began,
        "name": format!("lines {} to {}", c.first, c.last), "args": {"lanes_busy": busy}
    })
}

impl Watch for Tracer {
    fn step(&mut self, launch: &Launch<'_>, place: Place, op: &Op, mask: u32, _: u32) {
        let line = launch.program.line(op.at).0;
        let Some(block) = self.block(launch, place.block) else { return };
        let clock = &mut block.warps[place.warp as usize];
        if clock.now == clock.began {
            (clock.first, clock.last) = (line, line);
        }
        clock.first = clock.first.min(line);
        clock.last = clock.last.max(line);
        clock.now += 1;
        clock.lanes += u64::from(mask.count_ones());
    }

    fn access(&mut self, _: &Launch<'_>, _: Place, access: &Access<'_>) -> u32 {
        access.mask
    }

    fn event(&mut self, place: Place, _: u32, event: Event) {
        let Some(block) = self.blocks.get_mut(&place.block) else { return };
        let here = |w: usize| match event {
            Event::Passed(_, warps) => warps >> (w % 64) & 1 == 1,
            Event::Done => true,
            _ => false,
        };
        let who: Vec<usize> = (0..block.warps.len()).filter(|w| here(*w)).collect();
        let latest = who.iter().map(|w| block.warps[*w].now).max().unwrap_or(0);
        for w in who {
            let clock = &mut block.warps[w];
            self.events.push(stretch(block.id, w, clock));
            if let (Event::Passed(id, _), true) = (event, clock.now < latest) {
                let (at, dur) = (clock.now, latest - clock.now);
                let name = format!("waits at barrier {id}");
                self.events.push(
                    json!({"ph": "X", "pid": block.id, "tid": w, "ts": at, "dur": dur, "name": name, "cname": "grey"}),
                );
            }
            *clock = Clock { began: latest, now: latest, ..Clock::default() };
        }
        if event == Event::Done {
            self.blocks.remove(&place.block);
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.into.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.events);
    }
}

/// The file that a trace viewer opens.
pub fn file(events: &[Value]) -> Value {
    json!({
        "traceEvents": events,
        "otherData": {"time": "1 µs of this timeline is one instruction of a warp on a software device; it is no measurement"}
    })
}
