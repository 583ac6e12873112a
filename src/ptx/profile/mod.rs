//! What a launch costs, counted as it runs.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Profiler`], the watcher that counts, and [`Profile`], what it counted |
//! | `arithmetic.rs` | what an instruction computes, from its name |
//! | `traffic.rs` | sectors of global memory, banks of shared memory |
//! | `gpus.rs` | public figures of GPUs; occupancy and the least time of a launch there |
//! | `lanes.rs` | which lanes take part in each instruction |
//! | `trace.rs` | a timeline of warps for a trace viewer |
//!
//! Counts are those of this device's instructions: PTX, before a compiler for a chip unrolls, fuses and drops any. How an
//! access is cut into sectors and passes over banks follows the CUDA C++ Best Practices Guide, section 10.2.

pub mod arithmetic;
pub mod gpus;
pub mod lanes;
pub mod trace;
pub mod traffic;

use super::run::{Access, AccessKind, Counts, Event, Launch, Op, Place, Watch};
use arithmetic::Work;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use traffic::{Banks, Footprint, Request, Sectors};

/// What a launch did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Profile {
    /// Blocks that ran to their end.
    pub blocks: u64,
    /// Threads of a block.
    pub block_threads: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
    /// Instructions of warps, those that no lane takes part in included.
    pub warp_instructions: u64,
    /// Instructions of threads.
    pub thread_instructions: u64,
    /// Share of the 32 lanes that take part in an instruction.
    pub lanes_busy: f64,
    /// Instructions of warps by class.
    pub classes: BTreeMap<&'static str, u64>,
    /// Floating-point operations (of integers for `int8` and `int4`) by type: one for each add, multiply and divide, two
    /// for a fused multiply-add, 2·m·n·k for a matrix product.
    pub flops: BTreeMap<&'static str, u64>,
    /// Results of special functions.
    pub special: u64,
    /// Branches of warps.
    pub branches: u64,
    /// Branches that some lanes took and others did not.
    pub split_branches: u64,
    /// Barriers that blocks passed.
    pub barriers: u64,
    /// Loads of global memory.
    pub global_loads: Sectors,
    /// Stores to global memory.
    pub global_stores: Sectors,
    /// Atomics on global memory.
    pub global_atomics: Sectors,
    /// Loads of shared memory.
    pub shared_loads: Banks,
    /// Stores to shared memory.
    pub shared_stores: Banks,
    /// Atomics on shared memory.
    pub shared_atomics: Banks,
    /// Bytes that threads read and wrote in local memory.
    pub local_bytes: u64,
    /// Bytes of global memory that were read at all, in whole sectors: what a perfect cache would fetch.
    pub footprint_read: u64,
    /// Bytes of global memory that were written at all, in whole sectors.
    pub footprint_written: u64,
    /// Lines of the source, in their order.
    pub lines: Vec<Line>,
}

/// What a line of the source did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Line {
    /// Its number, from 1.
    pub line: u32,
    /// Its text.
    pub text: String,
    /// Instructions of warps.
    pub warps: u64,
    /// Instructions of threads.
    pub threads: u64,
    /// Times that it split a warp.
    pub splits: u64,
    /// Its accesses of global memory.
    #[serde(skip_serializing_if = "Sectors::is_empty")]
    pub global: Sectors,
    /// Its accesses of shared memory.
    #[serde(skip_serializing_if = "Banks::is_empty")]
    pub shared: Banks,
}

impl Profile {
    /// Bytes between the chip and its memory at least: each sector fetched once and written once.
    pub fn footprint(&self) -> u64 {
        self.footprint_read + self.footprint_written
    }
    /// Floating-point operations of all types.
    pub fn all_flops(&self) -> u64 {
        self.flops.values().sum()
    }
    /// Accesses of global memory of all kinds.
    pub fn global(&self) -> Sectors {
        self.global_loads + self.global_stores + self.global_atomics
    }
    /// Accesses of shared memory of all kinds.
    pub fn shared(&self) -> Banks {
        self.shared_loads + self.shared_stores + self.shared_atomics
    }
}

/// An instruction of the source, and what it did.
struct Spot {
    line: Line,
    class: Counts,
    work: Work,
    branches: bool,
}

/// Counts one launch. What it counted is in the [`Profile`] when it has been dropped.
pub struct Profiler {
    into: Arc<Mutex<Profile>>,
    counted: Profile,
    spots: Vec<Spot>,
    /// Index in `spots` by byte of the source.
    index: HashMap<u32, usize>,
    /// The request that is being put together: elements of a vector come one by one.
    pending: Option<(u32, Request)>,
    read: Footprint,
    written: Footprint,
}

impl Profiler {
    /// Counts into `into`.
    pub fn new(into: Arc<Mutex<Profile>>) -> Profiler {
        Profiler {
            into,
            counted: Profile::default(),
            spots: Vec::new(),
            index: HashMap::new(),
            pending: None,
            read: Footprint::default(),
            written: Footprint::default(),
        }
    }

    /// The entry for an instruction.
    fn spot(&mut self, launch: &Launch<'_>, op: &Op) -> &mut Spot {
        let at = *self.index.entry(op.at).or_insert_with(|| {
            let (line, text) = launch.program.line(op.at);
            let name = launch.program.opcode(op.at);
            self.spots.push(Spot {
                line: Line { line, text: text.to_owned(), ..Line::default() },
                class: op.class,
                work: Work::of(name),
                branches: name.split('.').next() == Some("bra"),
            });
            self.spots.len() - 1
        });
        &mut self.spots[at]
    }

    /// Counts the request that is complete.
    fn settle(&mut self) {
        let Some((at, request)) = self.pending.take() else { return };
        let Some(&spot) = self.index.get(&at) else { return };
        let line = &mut self.spots[spot].line;
        let counted = &mut self.counted;
        let (global, shared) = match request.kind {
            AccessKind::Load => (&mut counted.global_loads, &mut counted.shared_loads),
            AccessKind::Store => (&mut counted.global_stores, &mut counted.shared_stores),
            AccessKind::Atomic => (&mut counted.global_atomics, &mut counted.shared_atomics),
        };
        let sectors = request.sectors(|sector| {
            if request.kind != AccessKind::Store {
                self.read.add(sector);
            }
            if request.kind != AccessKind::Load {
                self.written.add(sector);
            }
        });
        let banks = request.banks();
        *global += sectors;
        *shared += banks;
        line.global += sectors;
        line.shared += banks;
        counted.local_bytes += request.local_bytes();
    }

    /// Everything that was counted.
    fn finish(&mut self) -> Profile {
        self.settle();
        let mut all = std::mem::take(&mut self.counted);
        for spot in &self.spots {
            let (warps, threads) = (spot.line.warps, spot.line.threads);
            all.warp_instructions += warps;
            all.thread_instructions += threads;
            *all.classes.entry(spot.class.name()).or_default() += warps;
            if let Some((kind, each)) = spot.work.flops {
                *all.flops.entry(kind).or_default() +=
                    each * if spot.work.whole_warp { warps } else { threads };
            }
            all.special += if spot.class == Counts::Special { threads } else { 0 };
            all.branches += if spot.branches { warps } else { 0 };
            all.split_branches += if spot.branches { spot.line.splits } else { 0 };
        }
        all.lanes_busy = all.thread_instructions as f64 / (32 * all.warp_instructions.max(1)) as f64;
        (all.footprint_read, all.footprint_written) = (self.read.bytes(), self.written.bytes());
        all.lines = by_line(self.spots.drain(..).map(|s| s.line));
        all
    }
}

/// Instructions of one line added up, in the order of the source.
fn by_line(spots: impl Iterator<Item = Line>) -> Vec<Line> {
    let mut lines: BTreeMap<u32, Line> = BTreeMap::new();
    for one in spots {
        match lines.get_mut(&one.line) {
            None => {
                lines.insert(one.line, one);
            }
            Some(sum) => {
                sum.warps += one.warps;
                sum.threads += one.threads;
                sum.splits += one.splits;
                sum.global += one.global;
                sum.shared += one.shared;
            }
        }
    }
    lines.into_values().collect()
}

impl Drop for Profiler {
    fn drop(&mut self) {
        let all = self.finish();
        *self.into.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

impl Watch for Profiler {
    fn step(&mut self, launch: &Launch<'_>, _: Place, op: &Op, mask: u32, together: u32) {
        self.settle();
        if self.counted.block_threads == 0 {
            self.counted.block_threads = launch.block.iter().product();
            self.counted.shared_bytes = launch.shared_bytes();
        }
        let spot = self.spot(launch, op);
        spot.line.warps += 1;
        spot.line.threads += u64::from(mask.count_ones());
        spot.line.splits += u64::from(spot.branches && mask != 0 && mask != together);
    }

    fn access(&mut self, launch: &Launch<'_>, place: Place, access: &Access<'_>) -> u32 {
        let at = access.op.at;
        if let Some((last, request)) = &mut self.pending
            && *last == at
            && request.extend(place, access)
        {
            return access.mask;
        }
        self.settle();
        self.spot(launch, access.op);
        self.pending = Some((at, Request::new(place, access)));
        access.mask
    }

    fn event(&mut self, _: Place, _: u32, event: Event) {
        match event {
            Event::Passed(..) => self.counted.barriers += 1,
            Event::Done => self.counted.blocks += 1,
            _ => {}
        }
    }
}
