//! Accesses lane by lane: what is wrong with each, in words.

use super::Checker;
use super::cells::Race;
use super::clock::Stamp;
use crate::ptx::run::spaces::{LOCAL, PARAM, SHARED, WINDOW};
use crate::ptx::run::{Access, AccessKind, Fault, FaultKind, Launch, Op, Place};
use std::sync::{Arc, PoisonError};

/// One lane's part of an access.
#[derive(Clone, Copy)]
pub(super) struct One<'a> {
    pub(super) launch: &'a Launch<'a>,
    pub(super) place: Place,
    pub(super) op: &'a Op,
    kind: AccessKind,
    pub(super) lane: usize,
    pub(super) address: u64,
    bytes: u32,
    value: u64,
}

impl Checker {
    /// Looks at an access lane by lane; returns the lanes that may.
    pub(super) fn apart(&mut self, launch: &Launch<'_>, place: Place, access: &Access<'_>) -> u32 {
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
            } else if address.wrapping_sub(SHARED) < WINDOW {
                // Who wrote a byte of it is noted with the races.
                let cells = &mut self.enter(place.block).cells;
                (if read { cells.missing(address, bytes) } else { None }, FaultKind::UninitShared)
            } else {
                let missing = if read { record.written.missing(address, bytes) } else { None };
                if write {
                    record.written.write(address, bytes.into());
                }
                (missing, FaultKind::UninitGlobal)
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

/// Lanes of a mask.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |l| mask >> l & 1 == 1)
}
