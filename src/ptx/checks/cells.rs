//! Who wrote and read each word last: where two threads access the same byte with no order between them, one of them
//! writing, and not both with strong accesses, there is a race.
//!
//! A cell stands for a word, until bytes of it are accessed alone: then for each byte. It remembers the last writer and
//! two readers since, which finds a race but may name another reader than the first.

use super::clock::{Clocks, Stamp};
use crate::ptx::run::AccessKind;
use std::collections::HashMap;

/// Words of a page.
const PAGE: u64 = 256;

#[derive(Clone, Copy, Default)]
struct Cell {
    write: Stamp,
    reads: [Stamp; 2],
    /// What was written.
    value: u32,
    /// Several threads wrote the same value, in no order.
    many: bool,
    /// The last write was an atomic, whose value is not known here.
    atomic: bool,
    /// The bytes have cells of their own.
    split: bool,
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
#[derive(Default)]
pub(super) struct Cells {
    index: HashMap<u64, usize>,
    pages: Vec<Box<[Cell]>>,
    last: Option<(u64, usize)>,
    bytes: HashMap<u64, [Cell; 4]>,
}

impl Cells {
    fn page(&mut self, number: u64) -> usize {
        if let Some((_, at)) = self.last.filter(|(n, _)| *n == number) {
            return at;
        }
        let at = *self.index.entry(number).or_insert(self.pages.len());
        if at == self.pages.len() {
            self.pages.push(vec![Cell::default(); PAGE as usize].into());
        }
        self.last = Some((number, at));
        at
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
            let page = self.page((word + k) / PAGE);
            let cell = &mut self.pages[page][((word + k) % PAGE) as usize];
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

    /// The cells of a word's bytes.
    fn split(&mut self, word: u64) -> &mut [Cell; 4] {
        let page = self.page(word / PAGE);
        let cell = &mut self.pages[page][(word % PAGE) as usize];
        let whole = *cell;
        cell.split = true;
        self.bytes.entry(word).or_insert_with(|| {
            whole.value.to_le_bytes().map(|b| Cell { value: b.into(), split: false, ..whole })
        })
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
        let reader = self.reads.iter().find(|r| clash(r));
        let found = match clash(&past) {
            true => Some(told),
            false => reader.map(|r| Race { other: *r, wrote: false, value: None }),
        };
        (self.write, self.value, self.atomic) = (now, value, kind == AccessKind::Atomic);
        self.reads = Default::default();
        found
    }

    /// Remembers a reader: in place of one that it comes after, else beside it.
    fn read(&mut self, clocks: &Clocks, now: Stamp) {
        let stale = |r: &Stamp| r.time == 0 || clocks.before(r, &now) && (r.strong || !now.strong);
        let [first, second] = &mut self.reads;
        if second.same(&now) && second.time != 0 && stale(second) {
            *second = now;
        } else if stale(first) {
            *first = now;
        } else if !first.same(&now) && (stale(second) || !now.strong) {
            *second = now;
        }
    }
}

#[cfg(test)]
mod tests {
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
