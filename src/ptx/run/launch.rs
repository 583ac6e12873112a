//! Blocks of a grid over the thread pool.

use super::block::{Bench, Progress};
use super::{Event, Fault, Memory, Watch};
use crate::error::{Error, Result};
use crate::ptx::program::{Function, Program};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Multiprocessors that a software device says it has.
pub(super) const SMS: u32 = 8;
/// Blocks that a thread keeps under way at most, when blocks spin for one another.
const UNDER_WAY: usize = 64;

/// What to run, on what.
pub struct Launch<'a> {
    /// The program.
    pub program: &'a Program,
    /// The entry.
    pub entry: &'a Function,
    /// Its index in the program.
    pub entry_index: u32,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: u32,
    /// Parameters, laid out as the entry declares them.
    pub params: &'a [u8],
    /// Addresses of the program's variables on this device.
    pub variables: &'a [u64],
    /// The device's memory, and after it that of others which this one may access.
    pub memory: &'a [&'a Memory],
    /// What `printf` writes.
    pub printed: &'a Mutex<String>,
    /// How.
    pub options: Options,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Warp-instructions after which a block is said to hang.
    pub most_steps: u64,
    /// Each approximate instruction errs by all that its documentation allows.
    pub worst: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { most_steps: 2_000_000_000, worst: false }
    }
}

/// What ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Warp-instructions.
    pub warp_steps: u64,
    /// Thread-instructions.
    pub thread_steps: u64,
}

/// Most shared memory of a block: that of sm_90 and sm_100.
pub(super) const MOST_SHARED: u32 = 227 << 10;

impl Launch<'_> {
    /// Refuses a launch that no device could run.
    ///
    /// # Errors
    /// Names the kernel, the value and its limit.
    pub fn validate(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Fault(format!("{}: {what}", self.entry.name)));
        let threads = self.block.iter().fold(1u64, |n, &b| n.saturating_mul(b.into()));
        let blocks = self.grid.iter().fold(1u64, |n, &g| n.saturating_mul(g.into()));
        if threads == 0 || threads > 1024 {
            return refuse(format!("a block of {:?} has {threads} threads; 1 to 1024 can run", self.block));
        }
        if blocks == 0 || blocks > 1 << 40 {
            return refuse(format!("a grid of {:?} has {blocks} blocks", self.grid));
        }
        if self.entry.required_block.is_some_and(|r| r.map(|n| n.max(1)) != self.block) {
            let wants = self.entry.required_block.unwrap_or_default();
            return refuse(format!("blocks of {:?} were asked for, and .reqntid says {wants:?}", self.block));
        }
        let most = self.entry.most_threads.map(|m| m.iter().map(|&n| u64::from(n.max(1))).product::<u64>());
        if most.is_some_and(|most| threads > most) {
            return refuse(format!("{threads} threads a block are more than its .maxntid allows"));
        }
        let shared = u64::from(self.static_shared()) + u64::from(self.dynamic_shared);
        if shared > MOST_SHARED.into() {
            return refuse(format!("{shared} bytes of shared memory a block; {MOST_SHARED} are there"));
        }
        match self.params.len() == self.entry.param_bytes as usize {
            true => Ok(()),
            false => refuse(format!(
                "takes {} bytes of parameters and was given {}",
                self.entry.param_bytes,
                self.params.len()
            )),
        }
    }

    /// Shared memory of a block in bytes.
    pub fn shared_bytes(&self) -> u32 {
        self.static_shared() + self.dynamic_shared
    }
    /// Bytes of shared memory before the dynamic part.
    pub fn static_shared(&self) -> u32 {
        self.entry.shared_bytes.next_multiple_of(16)
    }
}

/// Runs all blocks of a grid. With a watcher, or where atomics make the order matter, one after the other in order; else
/// over the thread pool. The fault of the first block, in order, that has one is returned.
pub fn launch(
    launch: &Launch<'_>,
    watch: &mut Option<Box<dyn Watch>>,
) -> std::result::Result<Report, Box<Fault>> {
    let blocks: u64 = launch.grid.iter().map(|&g| u64::from(g)).product();
    let state = State {
        launch,
        blocks,
        next: AtomicU64::new(0),
        broken: AtomicBool::new(false),
        worst: Mutex::new(None),
        steps: AtomicU64::new(0),
        lanes: AtomicU64::new(0),
    };
    let threads = if watch.is_some() || launch.entry.ordered { 1 } else { rayon::current_num_threads() };
    if threads.min(blocks as usize) <= 1 {
        state.work(watch);
    } else {
        rayon::scope(|s| {
            (1..threads.min(blocks as usize)).for_each(|_| s.spawn(|_| state.work(&mut None)));
            state.work(&mut None);
        });
    }
    match state.worst.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, fault)) => Err(fault),
        None => Ok(Report { warp_steps: state.steps.into_inner(), thread_steps: state.lanes.into_inner() }),
    }
}

struct State<'a> {
    launch: &'a Launch<'a>,
    blocks: u64,
    next: AtomicU64,
    broken: AtomicBool,
    worst: Mutex<Option<(u64, Box<Fault>)>>,
    steps: AtomicU64,
    lanes: AtomicU64,
}

impl State<'_> {
    /// Takes blocks in order until there are no more. A block that spins is laid aside for the next one.
    fn work(&self, watch: &mut Option<Box<dyn Watch>>) {
        let mut under_way: VecDeque<(u64, Bench)> = VecDeque::new();
        let mut idle: Vec<Bench> = Vec::new();
        loop {
            let fresh = under_way.len() < UNDER_WAY && !self.broken.load(Relaxed);
            let new =
                if fresh { Some(self.next.fetch_add(1, Relaxed)).filter(|b| *b < self.blocks) } else { None };
            let (index, mut bench) = match new {
                Some(index) => {
                    let mut bench = idle.pop().unwrap_or_else(Bench::new);
                    let [x, y, _] = self.launch.grid.map(u64::from);
                    let at = [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32];
                    if let Err(fault) = bench.start(self.launch, at, watch) {
                        self.fail(index, fault);
                        continue;
                    }
                    (index, bench)
                }
                None => match under_way.pop_front() {
                    Some(b) => b,
                    None => return,
                },
            };
            match bench.run(self.launch, watch, self.launch.options.most_steps) {
                Ok(Progress::More) => under_way.push_back((index, bench)),
                Ok(Progress::Done) => {
                    if let Some(watch) = watch.as_mut() {
                        watch.event(bench.place(), u32::MAX, Event::Done);
                    }
                    let (steps, lanes) = bench.counts();
                    self.steps.fetch_add(steps, Relaxed);
                    self.lanes.fetch_add(lanes, Relaxed);
                    idle.push(bench);
                }
                Err(fault) => self.fail(index, fault),
            }
        }
    }

    fn fail(&self, index: u64, fault: Box<Fault>) {
        self.broken.store(true, Relaxed);
        let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        if worst.as_ref().is_none_or(|(at, _)| index < *at) {
            *worst = Some((index, fault));
        }
    }
}
