//! Calls of functions: frames, and arguments that go between them by local memory.

use super::block::Env;
use super::warp::{DEEPEST, Frame, Group, Warp};
use super::{Event, Flow, Op, Place};

impl Warp {
    /// Enters function `target`: copies the arguments from the caller's local memory to the callee's.
    pub(super) fn call(&mut self, env: &mut Env<'_>, group: &mut Group, target: u32) -> bool {
        let program = env.launch.program;
        let caller = *group.frames.last().expect("a group has a frame");
        let from = &program.functions[caller.function as usize];
        let Some(callee) = program.functions.get(target as usize) else { return false };
        let rows = self.room(target, caller.rows + from.rows, callee.rows);
        let frame = Frame {
            function: target,
            rows,
            end: rows + callee.rows,
            preds: caller.preds + from.preds,
            local: (caller.local + from.local_bytes).next_multiple_of(16),
            from: group.pc,
        };
        if group.frames.len() >= DEEPEST || !self.enter(env, frame, group.mask) {
            return false;
        }
        let op = &program.code[group.pc as usize];
        self.tell(env, group.mask, Event::Frame(frame.local, callee.local_bytes));
        for (arg, param) in arguments(program, op).iter().zip(&callee.params) {
            let (from, to) = (caller.local + arg, frame.local + param.offset);
            self.local.copy(from, to, param.bytes, group.mask);
            self.tell(env, group.mask, Event::Copied(from, to, param.bytes));
        }
        group.frames.push(frame);
        group.pc = callee.start;
        true
    }

    /// First row of a frame of `function`, at `rows` where that is possible: lanes in different functions lay out their
    /// registers differently, so their frames must not overlap.
    fn room(&self, function: u32, rows: u32, count: u32) -> u32 {
        let all = || self.groups.iter().flat_map(|g| &g.frames);
        match all().any(|f| f.rows < rows + count && rows < f.end && (f.function, f.rows) != (function, rows))
        {
            true => all().map(|f| f.end).max().unwrap_or(rows).max(rows),
            false => rows,
        }
    }

    /// Leaves a function: copies what it returns to the caller. True when the entry itself returned.
    pub(super) fn ret(&mut self, env: &mut Env<'_>, group: &mut Group) -> bool {
        let program = env.launch.program;
        let frame = group.frames.pop().expect("a group has a frame");
        let Some(caller) = group.frames.last() else { return true };
        let callee = &program.functions[frame.function as usize];
        let op = &program.code[frame.from as usize];
        for (to, value) in returned(program, op).iter().zip(&callee.returns) {
            let (from, to) = (frame.local + value.offset, caller.local + to);
            self.local.copy(from, to, value.bytes, group.mask);
            self.tell(env, group.mask, Event::Copied(from, to, value.bytes));
        }
        group.pc = frame.from + 1;
        false
    }
}

/// Offsets of a call's arguments in the caller's local memory: the op's list is `n, n offsets, m, m offsets`.
fn arguments<'p>(program: &'p crate::ptx::program::Program, op: &Op) -> &'p [u32] {
    let at = op.list as usize;
    let n = program.lists[at] as usize;
    &program.lists[at + 1..][..n]
}

/// Offsets where the caller wants what the call returns.
fn returned<'p>(program: &'p crate::ptx::program::Program, op: &Op) -> &'p [u32] {
    let at = op.list as usize + 1 + program.lists[op.list as usize] as usize;
    let m = program.lists[at] as usize;
    &program.lists[at + 1..][..m]
}

#[cold]
pub(super) fn overflow(env: &mut Env<'_>, group: &Group, place: Place) -> Flow {
    let op = &env.launch.program.code[group.pc as usize];
    let what = format!("calls are nested more than {DEEPEST} deep, or local memory is used up");
    let lane = group.mask.trailing_zeros() as usize;
    let kind = super::FaultKind::StackOverflow;
    env.fault = Some(Box::new(super::Fault::new(env.launch, place, op.at, kind, lane, 0, what)));
    Flow::Fault
}
