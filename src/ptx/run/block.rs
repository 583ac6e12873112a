//! A block: its warps in turn on one thread, its shared memory, its barriers.

use super::spaces::Words;
use super::warp::{Stop, Warp};
use super::{Event, Fault, FaultKind, Launch, Place, Watch};

/// Warp-instructions that a warp runs before the next one gets its turn: threads may spin until another writes.
const SLICE: u64 = 200_000;

/// Shared memory of a block.
pub struct Shared {
    /// Its words.
    pub words: Words,
    /// Bytes that the block has.
    pub bytes: u32,
}

/// What the warps of a block share while they run.
pub(super) struct Env<'a> {
    pub(super) launch: &'a Launch<'a>,
    pub(super) shared: &'a mut Shared,
    pub(super) watch: &'a mut Option<Box<dyn Watch>>,
    /// Warp-instructions so far.
    pub(super) steps: u64,
    /// Thread-instructions so far.
    pub(super) lanes: u64,
    pub(super) fault: Option<Box<Fault>>,
    /// Threads that have arrived at each barrier without waiting.
    pub(super) arrived: [u32; 16],
}

/// Memory that blocks use one after the other.
pub(super) struct Bench {
    warps: Vec<Warp>,
    shared: Shared,
    block: [u32; 3],
    steps: u64,
    lanes: u64,
    arrived: [u32; 16],
}

/// How far a block has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// It has used its slice and may spin for another block.
    More,
}

impl Bench {
    pub(super) fn new() -> Bench {
        let shared = Shared { words: Words::new(), bytes: 0 };
        Bench { warps: Vec::new(), shared, block: [0; 3], steps: 0, lanes: 0, arrived: [0; 16] }
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        (self.steps, self.lanes)
    }

    pub(super) fn place(&self) -> Place {
        Place { block: self.block, warp: 0 }
    }

    fn env<'a>(
        &'a mut self,
        launch: &'a Launch<'a>,
        watch: &'a mut Option<Box<dyn Watch>>,
    ) -> (Env<'a>, &'a mut [Warp]) {
        let Bench { warps, shared, steps, lanes, arrived, .. } = self;
        (Env { launch, shared, watch, steps: *steps, lanes: *lanes, fault: None, arrived: *arrived }, warps)
    }

    /// Prepares block `index`.
    pub(super) fn start(
        &mut self,
        launch: &Launch<'_>,
        index: [u32; 3],
        watch: &mut Option<Box<dyn Watch>>,
    ) -> Result<(), Box<Fault>> {
        (self.block, self.steps, self.lanes, self.arrived) = (index, 0, 0, [0; 16]);
        let threads: u32 = launch.block.iter().product();
        let n = threads.div_ceil(32) as usize;
        self.warps.resize_with(n, Warp::default);
        self.shared.bytes = launch.shared_bytes();
        self.shared.words.0[..self.shared.bytes.div_ceil(4) as usize].fill(0);
        let (env, warps) = self.env(launch, watch);
        for (w, warp) in warps.iter_mut().enumerate() {
            let place = Place { block: index, warp: w as u32 };
            if !warp.start(&env, launch.entry_index, place, threads - w as u32 * 32) {
                let what =
                    format!("{} bytes of local memory a thread are too many", launch.entry.local_bytes);
                let kind = FaultKind::StackOverflow;
                return Err(Box::new(Fault::new(launch, place, 0, kind, 0, 0, what)));
            }
        }
        Ok(())
    }

    /// Runs to its end, or for a while when it spins.
    pub(super) fn run(
        &mut self,
        launch: &Launch<'_>,
        watch: &mut Option<Box<dyn Watch>>,
        most: u64,
    ) -> Result<Progress, Box<Fault>> {
        let (mut env, warps) = self.env(launch, watch);
        let mut found = Ok(Progress::More);
        // A block that does not spin runs to its end: its registers and shared memory are at hand now.
        let mut turns = 8;
        while turns > 0 {
            let mut spun = false;
            let mut failed = false;
            for warp in warps.iter_mut().filter(|w| !w.done()) {
                let mut budget = SLICE;
                match warp.run(&mut env, &mut budget) {
                    Stop::Idle => {}
                    Stop::Budget => spun = true,
                    Stop::Fault => failed = true,
                }
                if failed {
                    break;
                }
            }
            if failed {
                found = Err(env.fault.take().expect("a warp that fails says why"));
                break;
            }
            if warps.iter().all(Warp::done) {
                found = Ok(Progress::Done);
                break;
            }
            if env.steps > most {
                found = Err(Box::new(timeout(launch, warps, most)));
                break;
            }
            turns -= u32::from(spun);
            if !spun && !release(&mut env, warps) {
                // Nothing runs: lanes wait for lanes that never come.
                if !warps.iter_mut().any(Warp::force) {
                    found = Err(Box::new(deadlock(launch, warps)));
                    break;
                }
            }
        }
        let (steps, lanes, arrived) = (env.steps, env.lanes, env.arrived);
        (self.steps, self.lanes, self.arrived) = (steps, lanes, arrived);
        found
    }
}

/// Opens every barrier to which enough threads have come. False when there is none.
fn release(env: &mut Env<'_>, warps: &mut [Warp]) -> bool {
    let live: u32 = warps.iter().map(|w| w.live.count_ones()).sum();
    let mut opened = false;
    for id in 0..16 {
        let (mut came, mut wanted, mut holds) = (env.arrived[id as usize], 0, 0);
        let mut who = 0u64;
        for (w, warp) in warps.iter().enumerate() {
            for g in warp.waiting().filter(|g| g.wait.id == id) {
                came += g.mask.count_ones();
                wanted = if g.wait.threads == 0 { live } else { g.wait.threads };
                holds += (g.wait.holds & g.mask).count_ones();
                who |= 1 << (w % 64);
            }
        }
        if who == 0 || came < wanted {
            continue;
        }
        if env.watch.is_some() {
            divergence(env, warps, id);
        }
        warps.iter_mut().for_each(|w| w.release(env, id, holds, came));
        env.arrived[id as usize] = 0;
        if let Some(watch) = env.watch.as_mut() {
            watch.event(warps[0].place(), u32::MAX, Event::Passed(id, who));
        }
        opened = true;
    }
    opened
}

/// An aligned barrier wants all lanes of a warp at one place, and all threads of the block unless it names a number.
fn divergence(env: &mut Env<'_>, warps: &[Warp], id: u32) {
    for warp in warps {
        let here: Vec<_> = warp.waiting().filter(|g| g.wait.id == id && g.wait.aligned).collect();
        let whole = here.len() == 1 && here[0].mask == warp.began;
        let absent = here.is_empty()
            && warp.live == 0
            && warps.iter().flat_map(Warp::waiting).any(|g| g.wait.threads == 0);
        if !here.is_empty() && !whole || absent {
            let g = match here.into_iter().next() {
                Some(g) => g,
                None => {
                    match warps.iter().flat_map(Warp::waiting).find(|g| g.wait.id == id && g.wait.aligned) {
                        Some(g) => g,
                        None => continue,
                    }
                }
            };
            let missing = warp.began & !g.mask;
            let lane = if absent { 0 } else { missing.trailing_zeros() as usize };
            let what = format!(
                "{} threads of warp {} do not come to this barrier with the others",
                if absent { warp.began.count_ones() } else { missing.count_ones() },
                warp.place().warp
            );
            let at = env.launch.program.code[g.pc as usize].at;
            let fault = Fault::new(env.launch, warp.place(), at, FaultKind::BarrierDivergence, lane, 0, what);
            if let Some(watch) = env.watch.as_mut() {
                watch.fault(fault);
            }
            return;
        }
    }
}

fn timeout(launch: &Launch<'_>, warps: &[Warp], most: u64) -> Fault {
    let what = format!("still running after {most} warp-instructions of this block");
    let (warp, pc) = warps.iter().find_map(|w| Some((w, w.at()?))).unwrap_or((&warps[0], launch.entry.start));
    Fault::new(launch, warp.place(), launch.program.code[pc as usize].at, FaultKind::Timeout, 0, 0, what)
}

fn deadlock(launch: &Launch<'_>, warps: &[Warp]) -> Fault {
    let stuck = warps.iter().find_map(|w| w.waiting().next().map(|g| (w, g)));
    let (warp, at, lane, id) = match &stuck {
        Some((w, g)) => {
            let at = launch.program.code[g.pc as usize].at;
            (*w, at, g.mask.trailing_zeros() as usize, g.wait.id)
        }
        None => (&warps[0], 0, 0, 0),
    };
    let came: u32 = warps.iter().flat_map(Warp::waiting).map(|g| g.mask.count_ones()).sum();
    let what = format!("{came} threads wait at barrier {id} for others that never come");
    Fault::new(launch, warp.place(), at, FaultKind::BarrierDivergence, lane, 0, what)
}
