//! Checks of a running kernel: what is wrong and does not stop it.
//!
//! | file | holds |
//! |---|---|
//! | `bounds.rs` | global addresses lie in a live allocation |
//! | `written.rs` | which bytes have been written |
//! | `clock.rs` | which accesses come before which |
//! | `cells.rs` | who accessed each word last: races |
//! | `plain.rs` | the same for plain accesses of a whole warp |
//! | `pages.rs` | pages of what is known of a memory |
//! | `warps.rs` | the usual access, looked at for the whole warp |
//! | `lanes.rs` | any access, lane by lane |
//!
//! [`Checker`] watches one launch and puts what it finds into a [`Record`], which goes on from launch to launch. It
//! reports what it sees in the order in which the executor happens to run warps: a race is found when no barrier, fence
//! or atomic orders its two accesses, even when this run had them far apart.

mod bounds;
mod cells;
mod clock;
mod lanes;
mod pages;
mod plain;
mod warps;
mod written;

pub use written::Written;

use super::run::spaces::{SHARED, WINDOW};
use super::run::{Access, AccessKind, Event, Fault, FaultKind, Launch, Op, Place, Watch, Words};
use bounds::Bounds;
use cells::Cells;
use clock::{Clocks, Locations};
use lanes::One;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What goes on from launch to launch.
#[derive(Default)]
pub struct Record {
    /// Bytes of device memory that someone has written.
    pub written: Written,
    /// What was found, each kind once a line.
    pub findings: Vec<Fault>,
    reported: HashSet<(&'static str, String, u32)>,
}

impl Record {
    /// Adds a finding, unless its kind is known at its line.
    pub fn report(&mut self, fault: Fault) {
        if self.reported.insert((fault.kind, fault.file.clone(), fault.line)) {
            self.findings.push(fault);
        }
    }
}

/// Location keys of global memory; those of shared memory carry the block's number.
const GLOBAL: u32 = u32::MAX;

/// What is known of a block while it runs.
struct Block {
    number: u32,
    clocks: Clocks,
    cells: Cells,
    local: Vec<written::Lanes>,
}

impl Block {
    fn local(&mut self, warp: u32) -> &mut written::Lanes {
        let warp = warp as usize;
        if self.local.len() <= warp {
            self.local.resize_with(warp + 1, written::Lanes::default);
        }
        &mut self.local[warp]
    }
}

/// Watches one launch.
pub struct Checker {
    record: Arc<Mutex<Record>>,
    /// The block that ran last: most accesses are of the block of the one before.
    current: Option<([u32; 3], Box<Block>)>,
    /// The other blocks that are under way.
    blocks: HashMap<[u32; 3], Box<Block>>,
    /// Index of each block in the grid, by number.
    numbers: Vec<[u32; 3]>,
    global: Cells,
    locations: Locations,
    bounds: Bounds,
    /// Plain reads that race with atomics, by address, block and thread of the reader: pardoned when that thread goes on
    /// to an atomic at the same address, as in `old = *p; do { … } while (atomicCAS(p, …) != …)` of the CUDA
    /// programming guide.
    suspects: HashMap<(u64, u32, u16), Fault>,
    /// Kinds that were reported at a byte of the source: the quick half of `Record::report`.
    known: HashSet<(FaultKind, u32)>,
    /// Whether the instruction at a byte of the source releases and acquires.
    orders: HashMap<u32, bool>,
}

impl Checker {
    /// Watches a launch and reports to `record`.
    pub fn new(record: Arc<Mutex<Record>>) -> Checker {
        Checker {
            record,
            current: None,
            blocks: HashMap::new(),
            numbers: Vec::new(),
            global: Cells::default(),
            locations: Locations::default(),
            bounds: Bounds::default(),
            suspects: HashMap::new(),
            known: HashSet::new(),
            orders: HashMap::new(),
        }
    }

    /// Makes the block at `index` the current one.
    #[inline(always)]
    fn enter(&mut self, index: [u32; 3]) -> &mut Block {
        if self.current.as_ref().is_none_or(|(i, _)| *i != index) {
            self.change(index);
        }
        &mut self.current.as_mut().expect("just made the current one").1
    }

    #[cold]
    fn change(&mut self, index: [u32; 3]) {
        if let Some((i, block)) = self.current.take() {
            self.blocks.insert(i, block);
        }
        let block = self.blocks.remove(&index).unwrap_or_else(|| {
            let number = self.numbers.len() as u32;
            self.numbers.push(index);
            Box::new(Block {
                number,
                clocks: Clocks::new(number),
                cells: Cells::default(),
                local: Vec::new(),
            })
        });
        self.current = Some((index, block));
    }

    #[cold]
    fn report(&mut self, one: &One<'_>, kind: FaultKind, what: impl FnOnce(&Checker) -> String) {
        if !self.known.insert((kind, one.op.at)) {
            return;
        }
        let fault = Fault::new(one.launch, one.place, one.op.at, kind, one.lane, one.address, what(self));
        self.record.lock().unwrap_or_else(PoisonError::into_inner).report(fault);
    }

    /// Reports the suspects of blocks that are done.
    fn charge(&mut self) {
        if self.suspects.is_empty() {
            return;
        }
        let Checker { suspects, blocks, current, numbers, record, .. } = self;
        let runs = |index: &[u32; 3]| {
            blocks.contains_key(index) || current.as_ref().is_some_and(|(i, _)| i == index)
        };
        let done = suspects.extract_if(|(_, block, _), _| !runs(&numbers[*block as usize]));
        let mut done: Vec<_> = done.collect();
        done.sort_by_key(|(who, _)| *who);
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        done.into_iter().for_each(|(_, fault)| record.report(fault));
    }

    /// True for instructions that release what they write and acquire what they read: by their suffixes.
    fn ordering(&mut self, launch: &Launch<'_>, op: &Op) -> bool {
        *self.orders.entry(op.at).or_insert_with(|| {
            let name = launch.program.opcode(op.at);
            let relaxed = name.contains(".relaxed");
            name.starts_with("mbarrier") && !relaxed
                || name.split('.').any(|s| matches!(s, "acquire" | "release" | "acq_rel" | "sc"))
        })
    }

    /// Strong accesses hand on what fences and releases made known.
    fn hand_on(&mut self, launch: &Launch<'_>, place: Place, access: &Access<'_>, mask: u32) {
        let orders = self.ordering(launch, access.op);
        let number = self.enter(place.block).number;
        let key = |a: u64| if a.wrapping_sub(SHARED) < WINDOW { (number, a & !3) } else { (GLOBAL, a & !3) };
        let mut at: Vec<_> = lanes::lanes(mask).map(|l| key(access.address[l])).collect();
        at.sort_unstable();
        at.dedup();
        let (reads, writes) = (access.kind != AccessKind::Store, access.kind != AccessKind::Load);
        if let Some((_, block)) = &mut self.current {
            block.clocks.strong(place.warp, reads, writes, orders, &at, &mut self.locations);
        }
    }
}

impl Watch for Checker {
    fn words(&mut self, launch: &Launch<'_>, place: Place, words: &Words<'_>) -> bool {
        self.plain(launch, place, words)
    }

    fn access(&mut self, launch: &Launch<'_>, place: Place, access: &Access<'_>) -> u32 {
        if self.together(launch, place, access) { access.mask } else { self.apart(launch, place, access) }
    }

    fn event(&mut self, place: Place, lanes: u32, event: Event) {
        let w = place.warp;
        let block = self.enter(place.block);
        match event {
            Event::Met => block.clocks.met(w, lanes),
            Event::Fence => block.clocks.fence(w),
            Event::Arrived(id) => block.clocks.arrive(w, id),
            Event::Passed(id, warps) => block.clocks.pass(id, warps),
            Event::Frame(at, bytes) => block.local(w).forget(at, bytes, lanes),
            Event::Copied(from, to, bytes) => block.local(w).copy(from, to, bytes, lanes),
            Event::Wrote(at, bytes) => {
                let local = block.local(w);
                lanes::lanes(lanes).for_each(|l| local.write(at.into(), bytes, l));
            }
            Event::Done => {
                self.current = None;
                self.charge();
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).report(fault);
    }
}
