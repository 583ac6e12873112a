//! What watches a launch: the checks, the counters, the trace.

use super::{Fault, LANES, Launch, Op, Place};

/// A memory access of a warp, as a watcher sees it. A vector is one access for each of its elements.
pub struct Access<'a> {
    /// The instruction.
    pub op: &'a Op,
    /// Load, store or atomic.
    pub kind: AccessKind,
    /// Bytes of one lane's access.
    pub bytes: u32,
    /// Address of each lane, in the 64-bit address space.
    pub address: &'a [u64; LANES],
    /// What a store writes.
    pub value: Option<&'a [u64; LANES]>,
    /// Lanes that take part.
    pub mask: u32,
    /// Volatile and atomic accesses do not race.
    pub strong: bool,
}

/// The usual access of a warp: plain, of 32-bit words, one or several side by side a lane, aligned for all of them and in
/// bounds of their space.
pub struct Words<'a> {
    /// The instruction.
    pub op: &'a Op,
    /// Load or store.
    pub kind: AccessKind,
    /// Where the space begins in the 64-bit address space, a multiple of 4.
    pub base: u64,
    /// Word of each lane from there on, 0 for lanes that take no part.
    pub at: &'a [u32; LANES],
    /// Words a lane.
    pub count: usize,
    /// What a store writes: the first `count` of these.
    pub value: [&'a [u32; LANES]; 8],
    /// Lanes that take part.
    pub mask: u32,
}

/// Kind of an [`Access`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say it")]
pub enum AccessKind {
    Load,
    Store,
    Atomic,
}

/// What happens besides instructions and accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Lanes of a warp met: what each did before comes before what each does after. Lanes that have exited count as there.
    Met,
    /// A fence.
    Fence,
    /// The warp came to this barrier without waiting.
    Arrived(u32),
    /// All of these warps (a bit each) passed this barrier.
    Passed(u32, u64),
    /// A call made room for local variables: from this byte on, so many.
    Frame(u32, u32),
    /// Arguments or results of a call were copied in local memory: from, to, bytes.
    Copied(u32, u32, u32),
    /// The result of `printf` was written to local memory: at, bytes.
    Wrote(u32, u32),
    /// The block is done.
    Done,
}

/// Sees what a block does.
pub trait Watch {
    /// An instruction runs for the lanes of `mask`, maybe none, of those `together` that are at it.
    fn step(&mut self, _launch: &Launch<'_>, _place: Place, _op: &Op, _mask: u32, _together: u32) {}
    /// The usual access. True when it was looked at and all lanes may; false when nothing was done, and each of its words
    /// shall be shown as an access.
    fn words(&mut self, _launch: &Launch<'_>, _place: Place, _words: &Words<'_>) -> bool {
        false
    }
    /// A warp accesses memory: returns the lanes that may. `place` says who; faults are kept by the watcher.
    fn access(&mut self, launch: &Launch<'_>, place: Place, access: &Access<'_>) -> u32;
    /// Something happened to `lanes` of the warp at `place`.
    fn event(&mut self, _place: Place, _lanes: u32, _event: Event) {}
    /// A fault that the executor itself found and can go on from.
    fn fault(&mut self, _fault: Fault) {}
}

/// Several watchers of one launch. A lane may access what all of them let it.
pub struct Watchers(pub Vec<Box<dyn Watch>>);

impl Watchers {
    /// The watcher that stands for all of these, none for none.
    pub fn of(mut all: Vec<Box<dyn Watch>>) -> Option<Box<dyn Watch>> {
        match all.len() {
            0 | 1 => all.pop(),
            _ => Some(Box::new(Watchers(all))),
        }
    }
}

impl Watch for Watchers {
    fn step(&mut self, launch: &Launch<'_>, place: Place, op: &Op, mask: u32, together: u32) {
        self.0.iter_mut().for_each(|w| w.step(launch, place, op, mask, together));
    }
    fn access(&mut self, launch: &Launch<'_>, place: Place, access: &Access<'_>) -> u32 {
        self.0.iter_mut().fold(access.mask, |may, w| may & w.access(launch, place, access))
    }
    fn event(&mut self, place: Place, lanes: u32, event: Event) {
        self.0.iter_mut().for_each(|w| w.event(place, lanes, event));
    }
    fn fault(&mut self, fault: Fault) {
        // The counters and the trace keep none, so the one that checks gets it.
        self.0.iter_mut().for_each(|w| w.fault(fault.clone()));
    }
}
