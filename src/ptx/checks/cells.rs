//! Who wrote and read each word last: where two threads access the same byte with no order between them, one of them
//! writing, and not both with strong accesses, there is a race.
//!
//! A cell stands for a word, until bytes of it are accessed alone: then for each byte. It remembers the last writer and
//! the lanes of two warps that read it since, which finds a race but may name another reader than the first.

use super::clock::{Clocks, Stamp};
use super::pages::Pages;
use crate::ptx::run::AccessKind;
use std::collections::HashMap;

/// Words of a page.
pub(super) const PAGE: u64 = 256;

/// Lanes of a warp that read at one time.
#[derive(Clone, Copy, Default)]
pub(super) struct Readers {
    pub(super) block: u32,
    /// 0 for nobody.
    pub(super) time: u32,
    /// Byte of the source at which the last of them read.
    pub(super) at: u32,
    pub(super) lanes: u32,
    pub(super) warp: u16,
    pub(super) strong: bool,
}

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Cell {
    pub(super) write: Stamp,
    pub(super) reads: [Readers; 2],
    /// What was written.
    pub(super) value: u32,
    /// Several threads wrote the same value, in no order.
    pub(super) many: bool,
    /// The last write was an atomic, whose value is not known here.
    pub(super) atomic: bool,
    /// The bytes have cells of their own.
    pub(super) split: bool,
}

/// Two accesses that race: the earlier of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Race {
    /// Who.
    pub(super) other: Stamp,
    /// It wrote this word or byte, unless it was an atomic.
    pub(super) wrote: bool,
    /// The value, where it is known.
    pub(super) value: Option<u32>,
}

/// Shadow of a memory.
#[derive(Clone, Default)]
pub(super) struct Cells {
    pub(super) pages: Pages<Box<[Cell; PAGE as usize]>>,
    bytes: HashMap<u64, [Cell; 4]>,
}

impl Cells {
    #[inline(always)]
    pub(super) fn page(&mut self, number: u64) -> usize {
        self.pages.place(number, || Box::new([Cell::default(); PAGE as usize]))
    }

    #[inline(always)]
    fn cell(&mut self, word: u64) -> &mut Cell {
        let page = self.page(word / PAGE);
        &mut self.pages[page][(word % PAGE) as usize]
    }

    /// An access of `bytes` at `address`, a multiple of it, by `now`. Returns a race that it is part of.
    pub(super) fn access(
        &mut self,
        clocks: &Clocks,
        now: Stamp,
        kind: AccessKind,
        (address, bytes): (u64, u32),
        value: u64,
    ) -> Option<Race> {
        let (word, from) = (address / 4, (address % 4) as usize);
        if bytes < 4 {
            let split = self.split(word);
            let mut found = None;
            for (i, cell) in split[from..(from + bytes as usize).min(4)].iter_mut().enumerate() {
                found = cell.access(clocks, now, kind, (value >> (8 * i)) as u32 & 255).or(found);
            }
            return found;
        }
        let mut found = None;
        for k in 0..u64::from(bytes / 4) {
            let cell = self.cell(word + k);
            let part = (value >> (32 * k)) as u32;
            found = if cell.split {
                let four = self.bytes.entry(word + k).or_default().iter_mut().zip(part.to_le_bytes());
                four.fold(found, |found, (cell, part)| cell.access(clocks, now, kind, part.into()).or(found))
            } else {
                cell.access(clocks, now, kind, part).or(found)
            };
        }
        found
    }

    /// The first of these bytes that nobody has written.
    pub(super) fn missing(&mut self, address: u64, bytes: u32) -> Option<u64> {
        (address..address + u64::from(bytes)).find(|at| {
            let cell = *self.cell(at / 4);
            let own = || self.bytes.get(&(at / 4)).map(|four| four[(at % 4) as usize]);
            let cell = if cell.split { own().unwrap_or(cell) } else { cell };
            cell.write.time == 0
        })
    }

    /// The cells of a word's bytes.
    fn split(&mut self, word: u64) -> &mut [Cell; 4] {
        let cell = self.cell(word);
        let whole = *cell;
        cell.split = true;
        self.bytes.entry(word).or_insert_with(|| {
            whole.value.to_le_bytes().map(|b| Cell { value: b.into(), split: false, ..whole })
        })
    }
}

impl Readers {
    pub(super) fn of(now: &Stamp) -> Readers {
        let &Stamp { block, time, at, thread, strong } = now;
        Readers { block, time, at, lanes: 1 << (thread % 32), warp: thread / 32, strong }
    }

    /// Of the same warp at the same time?
    #[inline(always)]
    pub(super) fn joins(&self, other: &Readers) -> bool {
        let who = |r: &Readers| (r.time, r.warp, r.strong, r.block);
        who(self) == who(other)
    }

    /// One of them that `now` does not come after.
    fn loose(&self, clocks: &Clocks, now: &Stamp) -> Option<Stamp> {
        if self.time == 0 {
            return None;
        }
        let &Readers { block, time, at, strong, .. } = self;
        let each = (0..32u16).filter(|l| self.lanes >> l & 1 == 1);
        let mut each = each.map(|l| Stamp { block, time, at, thread: self.warp * 32 + l, strong });
        each.find(|r| !clocks.before(r, now))
    }
}

impl Cell {
    fn access(&mut self, clocks: &Clocks, now: Stamp, kind: AccessKind, value: u32) -> Option<Race> {
        let loose = |past: &Stamp| past.time != 0 && !clocks.before(past, &now);
        let clash = |past: &Stamp| !(past.strong && now.strong) && loose(past);
        let told = Race { other: self.write, wrote: true, value: (!self.atomic).then_some(self.value) };
        if kind == AccessKind::Load {
            let found = !self.many && clash(&self.write);
            self.read(clocks, now);
            return found.then_some(told);
        }
        let same = kind == AccessKind::Store && !self.atomic && self.value == value;
        let past = self.write;
        self.many = same && loose(&past);
        // Of threads that write the same in no order the first stays, and each may read it meanwhile.
        if self.many {
            return None;
        }
        let found = match clash(&past) {
            true => Some(told),
            false => {
                let mut readers = self.reads.iter().filter(|r| !(r.strong && now.strong));
                let reader = readers.find_map(|r| r.loose(clocks, &now));
                reader.map(|other| Race { other, wrote: false, value: None })
            }
        };
        (self.write, self.value, self.atomic) = (now, value, kind == AccessKind::Atomic);
        self.reads = Default::default();
        found
    }

    /// Remembers a reader: with lanes of its warp, in place of readers that it comes after, or beside others.
    fn read(&mut self, clocks: &Clocks, now: Stamp) {
        let new = Readers::of(&now);
        let stale = |r: &Readers| r.loose(clocks, &now).is_none() && (r.strong || !now.strong);
        let [first, second] = &mut self.reads;
        if second.joins(&new) {
            second.lanes |= new.lanes;
        } else if first.joins(&new) {
            first.lanes |= new.lanes;
        } else if stale(first) {
            *first = new;
        } else if stale(second) || !now.strong {
            *second = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Locations;
    use super::*;
    use AccessKind::{Atomic, Load, Store};

    fn by(c: &mut Clocks, thread: u16, strong: bool) -> Stamp {
        let time = c.now(u32::from(thread / 32));
        Stamp { block: 0, time, at: u32::from(thread), thread, strong }
    }

    #[test]
    fn a_write_and_a_read_race_until_a_barrier_stands_between() {
        let (mut c, mut cells) = (Clocks::new(0), Cells::default());
        let (a, b) = (by(&mut c, 0, false), by(&mut c, 40, false));
        assert_eq!(cells.access(&c, a, Store, (8, 4), 7), None);
        assert_eq!(cells.access(&c, a, Load, (8, 4), 0), None);
        let race = Race { other: a, wrote: true, value: Some(7) };
        assert_eq!(cells.access(&c, b, Load, (8, 4), 0), Some(race));
        assert_eq!(cells.access(&c, b, Load, (12, 4), 0), None);
        assert_eq!(
            cells.access(&c, a, Store, (12, 4), 1),
            Some(Race { other: b, wrote: false, value: None })
        );
        c.pass(0, 3);
        let b = by(&mut c, 40, false);
        assert_eq!(cells.access(&c, b, Load, (8, 8), 0), None);
        assert_eq!(cells.access(&c, b, Store, (8, 8), 3), None);
    }

    #[test]
    fn two_readers_are_remembered() {
        let (mut c, mut cells) = (Clocks::new(0), Cells::default());
        let (a, b) = (by(&mut c, 0, false), by(&mut c, 40, false));
        cells.access(&c, a, Load, (0, 4), 0);
        cells.access(&c, b, Load, (0, 4), 0);
        assert_eq!(cells.access(&c, a, Store, (0, 4), 1).map(|r| r.other), Some(b));
    }

    #[test]
    fn all_lanes_of_a_warp_that_read_are_remembered() {
        let (mut c, mut cells, mut map) = (Clocks::new(0), Cells::default(), Locations::default());
        for t in [40, 0, 1] {
            let reader = by(&mut c, t, false);
            cells.access(&c, reader, Load, (0, 4), 0);
        }
        // Warp 0 learns what warp 1 did, which orders none of its own lanes.
        c.strong(1, false, true, true, &[(0, 64)], &mut map);
        c.strong(0, true, false, true, &[(0, 64)], &mut map);
        let writer = by(&mut c, 1, false);
        assert_eq!(cells.access(&c, writer, Store, (0, 4), 1).map(|r| r.other.thread), Some(0));
    }

    #[test]
    fn neighbouring_bytes_do_not_race_and_a_shared_one_does() {
        let (mut c, mut cells) = (Clocks::new(0), Cells::default());
        let (a, b) = (by(&mut c, 0, false), by(&mut c, 1, false));
        assert_eq!(cells.access(&c, a, Store, (0, 1), 1), None);
        assert_eq!(cells.access(&c, b, Store, (1, 1), 2), None);
        assert_eq!(cells.access(&c, b, Store, (2, 2), 2), None);
        assert_eq!(cells.access(&c, b, Load, (0, 4), 0).map(|r| r.other), Some(a));
        // A word that is then split keeps what was known of it.
        assert_eq!(cells.access(&c, a, Store, (4, 4), 0x0102), None);
        assert_eq!(cells.access(&c, b, Store, (5, 1), 9).map(|r| r.value), Some(Some(1)));
        assert_eq!(cells.access(&c, b, Store, (4, 1), 2), None);
    }

    #[test]
    fn the_same_value_and_strong_accesses_do_not_race() {
        let (mut c, mut cells) = (Clocks::new(0), Cells::default());
        for t in 0..64 {
            let s = by(&mut c, t, false);
            assert_eq!(cells.access(&c, s, Store, (0, 4), 5), None);
            assert_eq!(cells.access(&c, s, Load, (0, 4), 0), None, "reads what it wrote itself");
        }
        let s = by(&mut c, 3, true);
        assert_eq!(cells.access(&c, s, Atomic, (4, 4), 0), None);
        let t = by(&mut c, 50, true);
        assert_eq!(cells.access(&c, t, Atomic, (4, 4), 0), None);
        assert_eq!(cells.access(&c, s, Load, (4, 4), 0), None);
        let weak = by(&mut c, 9, false);
        assert!(cells.access(&c, weak, Store, (4, 4), 0).is_some());
    }
}
