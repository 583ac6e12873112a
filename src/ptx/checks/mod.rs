//! Checks of a running kernel: what is wrong and does not stop it.
//!
//! | file | holds |
//! |---|---|
//! | `bounds.rs` | global addresses lie in a live allocation |
//! | `written.rs` | which bytes have been written |
//! | `clock.rs` | which accesses come before which |
//! | `cells.rs` | who accessed each word last: races |
//!
//! [`Checker`] watches one launch and puts what it finds into a [`Record`], which goes on from launch to launch. It
//! reports what it sees in the order in which the executor happens to run warps: a race is found when no barrier, fence
//! or atomic orders its two accesses, even when this run had them far apart.

mod bounds;
mod cells;
mod clock;
mod written;

pub use written::Written;

use super::run::spaces::{LOCAL, PARAM, SHARED, WINDOW};
use super::run::{Access, AccessKind, Event, Fault, FaultKind, Launch, Op, Place, Watch};
use bounds::Bounds;
use cells::{Cells, Race};
use clock::{Clocks, Locations, Stamp};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use written::Lanes;

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
    written: Written,
    local: Vec<Lanes>,
}

impl Block {
    fn local(&mut self, warp: u32) -> &mut Lanes {
        let warp = warp as usize;
        if self.local.len() <= warp {
            self.local.resize_with(warp + 1, Lanes::default);
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

/// One lane's part of an access.
#[derive(Clone, Copy)]
struct One<'a> {
    launch: &'a Launch<'a>,
    place: Place,
    op: &'a Op,
    kind: AccessKind,
    lane: usize,
    address: u64,
    bytes: u32,
    value: u64,
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
                written: Written::default(),
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

    /// Reads of bytes that nobody wrote; what is written is noted. `all` are the lanes of one access.
    fn initialised<'a>(&mut self, all: impl Iterator<Item = One<'a>>) {
        let record = Arc::clone(&self.record);
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for one in all {
            let One { place, lane, address, bytes, .. } = one;
            let (read, write) = (one.kind != AccessKind::Store, one.kind != AccessKind::Load);
            let (missing, kind) = if address.wrapping_sub(LOCAL) < WINDOW {
                let (at, local) = (address - LOCAL, self.enter(place.block).local(place.warp));
                let missing = if read { local.missing(at, bytes, lane) } else { None };
                if write {
                    local.write(at, bytes, lane);
                }
                (missing.map(|m| m + LOCAL), FaultKind::UninitLocal)
            } else {
                let shared = address.wrapping_sub(SHARED) < WINDOW;
                let written = if shared { &mut self.enter(place.block).written } else { &mut record.written };
                let missing = if read { written.missing(address, bytes) } else { None };
                if write {
                    written.write(address, bytes.into());
                }
                (missing, if shared { FaultKind::UninitShared } else { FaultKind::UninitGlobal })
            };
            found.extend(missing.map(|first| (one, kind, first)));
        }
        drop(record);
        for (one, kind, first) in found {
            self.report(&one, kind, |_| unwritten(&one, kind, first));
        }
    }

    /// Two accesses without order.
    fn races(&mut self, one: &One<'_>, strong: bool) {
        let shared = one.address.wrapping_sub(SHARED) < WINDOW;
        let place = one.place;
        self.enter(place.block);
        let Some((_, block)) = &mut self.current else { return };
        let now = Stamp {
            block: block.number,
            time: block.clocks.now(place.warp),
            at: one.op.at,
            thread: (place.warp * 32) as u16 + one.lane as u16,
            strong,
        };
        let cells = if shared { &mut block.cells } else { &mut self.global };
        let found = cells.access(&block.clocks, now, one.kind, (one.address, one.bytes), one.value);
        let word = one.address & !3;
        if one.kind == AccessKind::Atomic && !self.suspects.is_empty() {
            self.suspects.remove(&(word, now.block, now.thread));
        }
        let Some(race) = found else { return };
        let kind = if shared { FaultKind::RaceShared } else { FaultKind::RaceGlobal };
        let reader = match (one.kind, race.wrote, race.value) {
            (AccessKind::Load, true, None) => Some(now),
            (AccessKind::Atomic, false, _) => Some(race.other),
            _ => None,
        };
        match reader {
            Some(_) if self.known.contains(&(kind, one.op.at)) => {}
            Some(reader) => {
                let what = self.race(one, race);
                let fault = Fault::new(one.launch, place, one.op.at, kind, one.lane, one.address, what);
                self.suspects.insert((word, reader.block, reader.thread), fault);
            }
            None => self.report(one, kind, |c| c.race(one, race)),
        }
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

    /// A race in words.
    fn race(&self, one: &One<'_>, race: Race) -> String {
        let launch = one.launch;
        let [x, y, _] = launch.block;
        let other = &race.other;
        let t = u32::from(other.thread);
        let thread = (t % x, t / x % y, t / x / y);
        let line = launch.program.line(other.at).0;
        let [bx, by, bz] = self.numbers[other.block as usize];
        let block = if [bx, by, bz] == one.place.block {
            String::new()
        } else {
            format!(" of block ({bx}, {by}, {bz})")
        };
        let mine = match one.kind {
            AccessKind::Load => "reads".to_owned(),
            AccessKind::Store => format!("writes {:#x} to", one.value),
            AccessKind::Atomic => "updates".to_owned(),
        };
        let theirs = match (race.wrote, race.value) {
            (true, Some(v)) => format!("wrote {v:#x}"),
            (true, None) => "updated it".to_owned(),
            _ => "read it".to_owned(),
        };
        let (address, bytes) = (within(one.address), one.bytes);
        format!(
            "{mine} {bytes} bytes at {address:#x}, where thread {thread:?}{block} {theirs} at line {line}; nothing orders the two"
        )
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
        let mut at: Vec<_> = lanes(mask).map(|l| key(access.address[l])).collect();
        at.sort_unstable();
        at.dedup();
        let (reads, writes) = (access.kind != AccessKind::Store, access.kind != AccessKind::Load);
        if let Some((_, block)) = &mut self.current {
            block.clocks.strong(place.warp, reads, writes, orders, &at, &mut self.locations);
        }
    }
}

/// What is said of a read of bytes that nobody has written, the first of them at `first`.
fn unwritten(one: &One<'_>, kind: FaultKind, first: u64) -> String {
    let (bytes, at, off) = (one.bytes, within(one.address), first - one.address);
    let (name, by) = match kind {
        FaultKind::UninitGlobal => ("global", "neither the host nor a kernel"),
        FaultKind::UninitShared => ("shared", "no thread of the block"),
        _ => ("local", "the thread itself never"),
    };
    format!("reads {bytes} bytes at {name} address {at:#x}, and byte {off} of them {by} has written")
}

/// An address as the program sees it: in its own space.
fn within(address: u64) -> u64 {
    if address < SHARED { address } else { address % WINDOW }
}

fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |l| mask >> l & 1 == 1)
}

impl Watch for Checker {
    fn access(&mut self, launch: &Launch<'_>, place: Place, access: &Access<'_>) -> u32 {
        let &Access { op, kind, bytes, .. } = access;
        let strong = access.strong || kind == AccessKind::Atomic;
        let mut may = access.mask;
        let one = |lane: usize| {
            let value = access.value.map_or(0, |v| v[lane]) & (u64::MAX >> (64 - 8 * bytes.clamp(1, 8)));
            One { launch, place, op, kind, lane, address: access.address[lane], bytes, value }
        };
        for l in lanes(access.mask) {
            if access.address[l] < SHARED
                && let Some((kind, what)) = self.bounds.wrong(launch, access.address[l], bytes)
            {
                may &= !(1 << l);
                self.report(&one(l), kind, |_| what);
            }
        }
        // What an access acquires comes before it, so that it may itself be in order.
        if strong {
            self.hand_on(launch, place, access, may);
        }
        let seen = || lanes(may).filter(|l| access.address[*l] < PARAM).map(one);
        self.initialised(seen());
        for one in seen().filter(|one| one.address < LOCAL) {
            self.races(&one, strong);
        }
        may
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
                self::lanes(lanes).for_each(|l| local.write(at.into(), bytes, l));
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
