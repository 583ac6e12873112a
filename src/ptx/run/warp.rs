//! A warp: 32 lanes that run one instruction together, and what happens when they do not agree where to go.
//!
//! Lanes at the same place form a group. Of the groups that can run, the one in the deepest call and at the lowest place
//! of the code runs first, and groups that meet become one. Compilers lay code out so that places where paths join come
//! later than the paths, so this brings lanes together where hardware would, with no analysis of the control flow.
//! Instructions that need several lanes (shuffles, votes, matrix products) wait until all lanes that they name are there,
//! so results do not depend on the order of groups (PTX ISA 9.0, section 9.7.13, `.sync`).

use super::block::Env;
use super::calls::overflow;
use super::constants::fill;
use super::copies::Copies;
use super::row::{LANES, Row};
use super::spaces::Local;
use super::steps::steps;
use super::{Cx, Event, Flow, Place, Wait};

/// Instructions that a group runs while others of its warp wait, before one of them gets its turn: a lane may spin until
/// another lane of its warp writes.
const PATIENCE: u32 = 20_000;
/// Deepest nesting of calls.
pub(super) const DEEPEST: usize = 512;

/// Registers, local memory and groups of 32 lanes.
#[derive(Default)]
pub(super) struct Warp {
    pub(super) rows: Vec<Row>,
    pub(super) preds: Vec<u32>,
    pub(super) local: Local,
    pub(super) copies: Copies,
    pub(super) groups: Vec<Group>,
    /// Lanes that began.
    pub(super) began: u32,
    /// Lanes that have not exited.
    pub(super) live: u32,
    pub(super) place: Place,
    pub(super) turn: u32,
}

/// A frame of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) function: u32,
    pub(super) rows: u32,
    /// One past the last row.
    pub(super) end: u32,
    pub(super) preds: u32,
    pub(super) local: u32,
    /// The call that made it.
    pub(super) from: u32,
}

/// Lanes at one place.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) pc: u32,
    pub(super) mask: u32,
    pub(super) frames: Vec<Frame>,
    pub(super) state: State,
}

impl Group {
    fn ready(&self) -> bool {
        !matches!(self.state, State::Waits(_) | State::Gathers)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// At a barrier of the block.
    Waits(Wait),
    /// Passed a barrier whose instruction has more to do; (true lanes, threads).
    Resumes(u32, u32),
    /// Until more lanes come to the same place.
    Gathers,
    /// Has waited in vain: runs with the lanes that it has.
    Forced,
}

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// All lanes have exited or wait.
    Idle,
    /// The budget is used up.
    Budget,
    /// Something went wrong; see `Env::fault`.
    Fault,
}

/// A group at a barrier, as the block sees it.
pub(super) struct Waiting {
    pub(super) wait: Wait,
    pub(super) mask: u32,
    pub(super) pc: u32,
}

impl Warp {
    /// Begins `entry` with the first `lanes` lanes.
    pub(super) fn start(&mut self, env: &Env<'_>, function: u32, place: Place, lanes: u32) -> bool {
        let entry = &env.launch.program.functions[function as usize];
        self.place = place;
        self.local.restart();
        self.began = if lanes >= 32 { u32::MAX } else { (1 << lanes) - 1 };
        self.live = self.began;
        let frame = Frame { function, rows: 0, end: entry.rows, preds: 0, local: 0, from: u32::MAX };
        self.groups.clear();
        self.copies.clear();
        self.groups.push(Group {
            pc: entry.start,
            mask: self.live,
            frames: vec![frame],
            state: State::Ready,
        });
        self.enter(env, frame, u32::MAX)
    }

    /// Makes room for a frame and fills its constants in the lanes of `mask`.
    pub(super) fn enter(&mut self, env: &Env<'_>, frame: Frame, mask: u32) -> bool {
        let f = &env.launch.program.functions[frame.function as usize];
        let (rows, preds) = ((frame.rows + f.rows) as usize, (frame.preds + f.preds) as usize);
        if self.rows.len() < rows {
            self.rows.resize(rows, Row([0; LANES]));
        }
        if self.preds.len() < preds {
            self.preds.resize(preds, 0);
        }
        if !self.local.reserve(frame.local + f.local_bytes) {
            return false;
        }
        fill(f, env, frame.local, self.place, &mut self.rows[frame.rows as usize..], mask);
        true
    }

    /// Runs until every lane waits or is done, or `budget` instructions are used up.
    pub(super) fn run(&mut self, env: &mut Env<'_>, budget: &mut u64) -> Stop {
        loop {
            if self.groups.len() > 1 {
                self.merge();
            }
            let Some(g) = self.turn() else { return Stop::Idle };
            match self.run_group(env, g, budget) {
                Flow::Fault => return Stop::Fault,
                Flow::Yield => {
                    self.turn = PATIENCE + 1;
                    return Stop::Budget;
                }
                _ if *budget == 0 => return Stop::Budget,
                _ => {}
            }
        }
    }

    /// Groups at the same place become one.
    fn merge(&mut self) {
        let mut i = 0;
        while i < self.groups.len() {
            let mut j = i + 1;
            while j < self.groups.len() {
                let (a, b) = (&self.groups[i], &self.groups[j]);
                let together = matches!(
                    (a.state, b.state),
                    (State::Ready | State::Gathers, State::Ready | State::Gathers)
                        | (State::Waits(_), State::Waits(_))
                );
                if together && a.pc == b.pc && a.frames == b.frames {
                    let b = self.groups.swap_remove(j);
                    let a = &mut self.groups[i];
                    a.mask |= b.mask;
                    a.state = match (a.state, b.state) {
                        (State::Waits(mut w), State::Waits(v)) => {
                            w.holds |= v.holds;
                            State::Waits(w)
                        }
                        _ => State::Ready,
                    };
                } else {
                    j += 1;
                }
            }
            i += 1;
        }
    }

    /// The group that runs next, in turn when one has run for long.
    fn turn(&mut self) -> Option<usize> {
        if self.turn > PATIENCE && self.groups.len() > 1 {
            self.turn = 0;
            self.groups.rotate_left(1);
            return self.groups.iter().position(Group::ready);
        }
        self.pick()
    }

    /// Of the groups that can run, the one in the deepest call, then at the lowest place.
    fn pick(&self) -> Option<usize> {
        let key = |g: &Group| (usize::MAX - g.frames.len(), g.pc);
        let ready = self.groups.iter().enumerate().filter(|(_, g)| g.ready());
        ready.min_by_key(|(_, g)| key(g)).map(|(i, _)| i)
    }

    /// Where another group waits: lanes of group `g` that come there stop, to go on together.
    fn meet(&self, g: usize) -> u32 {
        let group = &self.groups[g];
        let others = self.groups.iter().enumerate();
        others
            .filter(|(i, o)| {
                *i != g && o.frames.len() == group.frames.len() && !matches!(o.state, State::Waits(_))
            })
            .filter(|(_, o)| o.pc > group.pc)
            .map(|(_, o)| o.pc)
            .min()
            .unwrap_or(u32::MAX)
    }

    /// Runs group `g` until it parts, waits, meets another or has run for long enough.
    fn run_group(&mut self, env: &mut Env<'_>, g: usize, budget: &mut u64) -> Flow {
        let launch = env.launch;
        let code = &launch.program.code[..];
        let group = &self.groups[g];
        let meet = self.meet(g);
        let alone = self.groups.len() == 1;
        let mut limit = if alone { *budget } else { (*budget).min(u64::from(PATIENCE) + 1) };
        let limited = limit;
        let frame = *group.frames.last().expect("a group has a frame");
        let function = &launch.program.functions[frame.function as usize];
        let (pc, lanes, state) = (group.pc, group.mask, group.state);
        let mut cx = Cx {
            rows: &mut self.rows[frame.rows as usize..][..function.rows as usize],
            preds: &mut self.preds[frame.preds as usize..][..function.preds as usize],
            mask: lanes,
            live: self.live,
            began: self.began,
            local: &mut self.local,
            local_base: frame.local,
            shared: env.shared,
            copies: &mut self.copies,
            launch,
            place: self.place,
            watch: env.watch.as_deref_mut(),
            clock: env.steps,
            targets: [0; LANES],
            barrier: Wait::default(),
            fault: None,
            reduced: if let State::Resumes(holds, threads) = state { (holds, threads) } else { (0, 0) },
            resumed: matches!(state, State::Resumes(..) | State::Forced),
        };
        let (flow, pc, run_lanes) = steps(&mut cx, code, pc, meet, &mut limit);
        let (clock, mask, fault) = (cx.clock, cx.mask, cx.fault.take());
        let (targets, barrier) = (cx.targets, cx.barrier);
        env.steps = clock;
        env.lanes += run_lanes;
        env.fault = fault;
        *budget -= limited - limit;
        self.turn = if alone { 0 } else { self.turn + (limited - limit) as u32 };
        let group = &mut self.groups[g];
        (group.pc, group.state) = (pc, State::Ready);
        self.divert(env, g, flow, mask, &Ways { targets, barrier })
    }

    /// Lanes of group `g` that are in `mask` leave it as `flow` says; the others go on behind the instruction.
    fn divert(&mut self, env: &mut Env<'_>, g: usize, flow: Flow, mask: u32, ways: &Ways) -> Flow {
        let pc = self.groups[g].pc;
        let mut part = self.groups[g].clone();
        part.mask = mask;
        match flow {
            Flow::Next | Flow::Fault => return flow,
            Flow::Jump(to) => part.pc = to,
            Flow::Scatter => {
                for lane in (0..LANES).filter(|l| mask >> l & 1 == 1) {
                    (part.mask, part.pc) = (1 << lane, ways.targets[lane]);
                    self.push(part.clone());
                }
                part.mask = 0;
            }
            Flow::Exit => {
                self.live &= !mask;
                part.mask = 0;
            }
            Flow::Barrier if ways.barrier.arrive => {
                env.arrived[ways.barrier.id as usize % 16] += mask.count_ones();
                self.tell(env, mask, Event::Arrived(ways.barrier.id));
                part.pc = pc + 1;
            }
            Flow::Barrier => part.state = State::Waits(ways.barrier),
            Flow::Gather => part.state = State::Gathers,
            Flow::Yield => part.pc = pc + 1,
            Flow::Call => {
                // Lanes may call different functions: each gets its own group.
                while part.mask != 0 {
                    let target = ways.targets[part.mask.trailing_zeros() as usize];
                    let mut callers = part.clone();
                    callers.mask =
                        (0..LANES).fold(0, |m, l| m | u32::from(ways.targets[l] == target) << l) & part.mask;
                    part.mask &= !callers.mask;
                    if !self.call(env, &mut callers, target) {
                        return overflow(env, &callers, self.place);
                    }
                    self.push(callers);
                }
            }
            Flow::Return => {
                if self.ret(env, &mut part) {
                    self.live &= !mask;
                    part.mask = 0;
                }
            }
        }
        self.push(part);
        let group = &mut self.groups[g];
        group.mask &= !mask;
        group.pc = pc + 1;
        if group.mask == 0 {
            self.groups.swap_remove(g);
        }
        flow
    }

    /// Tells the watcher.
    pub(super) fn tell(&self, env: &mut Env<'_>, lanes: u32, event: Event) {
        if let Some(watch) = env.watch.as_mut() {
            watch.event(self.place, lanes, event);
        }
    }

    fn push(&mut self, group: Group) {
        if group.mask != 0 {
            self.groups.push(group);
        }
    }

    /// Groups that wait at a barrier.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Waiting> {
        self.groups.iter().filter_map(|g| match g.state {
            State::Waits(wait) => Some(Waiting { wait, mask: g.mask, pc: g.pc }),
            _ => None,
        })
    }

    /// Where the lanes are that run next.
    pub(super) fn at(&self) -> Option<u32> {
        self.pick().map(|g| self.groups[g].pc)
    }

    /// Lanes at barrier `id` go on.
    pub(super) fn release(&mut self, env: &Env<'_>, id: u32, holds: u32, threads: u32) {
        for g in &mut self.groups {
            if matches!(g.state, State::Waits(w) if w.id == id) {
                // A barrier that reduces runs again, to take its result.
                let again = env.launch.program.code[g.pc as usize].imm >> 32 & 1 == 1;
                g.state = if again { State::Resumes(holds, threads) } else { State::Ready };
                g.pc += u32::from(!again);
            }
        }
    }

    /// Lets groups that wait for other lanes in vain go on without them. True when there was one.
    pub(super) fn force(&mut self) -> bool {
        let stuck = self.groups.iter_mut().find(|g| g.state == State::Gathers);
        stuck.map(|g| g.state = State::Forced).is_some()
    }

    /// True when every lane has exited.
    pub(super) fn done(&self) -> bool {
        self.live == 0
    }
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

/// Where lanes go, from [`Cx`].
pub(super) struct Ways {
    targets: [u32; LANES],
    barrier: Wait,
}
