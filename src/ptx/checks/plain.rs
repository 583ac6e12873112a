//! Plain accesses of words by a whole warp: those of which it is plain that they race with nobody are done with at once.

use super::cells::{Cell, Cells, PAGE, Readers};
use super::clock::{Stamp, View};
use crate::ptx::run::{LANES, Words};

crate::vectorized! {
    /// Lanes that access the same word as the one before them; and whether the upper half of the warp accesses the same
    /// words as the lower half, as in blocks that are 16 threads wide.
    fn repeats(at: &[u32; LANES], mask: u32) -> (u32, bool) {
        let (mut same, mut other) = (0, mask >> 16 ^ mask & 0xffff);
        for l in 1..LANES {
            same |= u32::from(at[l] == at[l - 1]) << l;
        }
        for l in 0..LANES / 2 {
            other |= at[l] ^ at[l + LANES / 2];
        }
        (same, other == 0)
    }
}

impl Cells {
    /// Element `k` of plain loads; `now` is that of the warp's first thread. Lanes for which it is plain that they race with
    /// nobody are done with; the others are returned, for `access`. `written`: the word must have been, by someone here.
    pub(super) fn read(
        &mut self,
        view: &View<'_>,
        now: Stamp,
        words: &Words<'_>,
        k: usize,
        written: bool,
    ) -> u32 {
        let (same, twice) = repeats(words.at, words.mask);
        let mut rest = if twice { words.mask & 0xffff } else { words.mask };
        let (mut number, mut page, mut left) = (u64::MAX, 0, 0);
        let readers = Readers::of(&now);
        while rest != 0 {
            let l = rest.trailing_zeros();
            // Lanes next to it that read the same word.
            let run = (u64::from(same) >> (l + 1)).trailing_ones();
            let mut lanes = (((2u64 << run) - 1) << l) as u32 & rest;
            rest &= !lanes;
            lanes |= if twice { lanes << 16 } else { 0 };
            let l = l as usize;
            let word = words.base / 4 + u64::from(words.at[l]) + k as u64;
            if word / PAGE != number {
                (number, page) = (word / PAGE, self.page(word / PAGE));
            }
            let cell = &mut self.pages[page][(word % PAGE) as usize];
            let write = &cell.write;
            let mine = || lanes == 1 << l && write.same(&Stamp { thread: now.thread + l as u16, ..now });
            let settled = if write.time == 0 {
                !written
            } else {
                view.covers(write.block, write.thread / 32, write.time) || mine()
            };
            if cell.split || !settled {
                left |= lanes;
                continue;
            }
            let [first, second] = &mut cell.reads;
            if second.joins(&readers) {
                second.lanes |= lanes;
            } else if first.joins(&readers) {
                first.lanes |= lanes;
            } else {
                let stale = first.time == 0 || view.covers(first.block, first.warp, first.time);
                *(if stale { first } else { second }) = Readers { lanes, ..readers };
            }
        }
        left
    }

    /// The same of element `k` of plain stores.
    pub(super) fn write(&mut self, view: &View<'_>, now: Stamp, words: &Words<'_>, k: usize) -> u32 {
        let (mut rest, mut left) = (words.mask, 0);
        let (mut number, mut page) = (u64::MAX, 0);
        while rest != 0 {
            let l = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let word = words.base / 4 + u64::from(words.at[l]) + k as u64;
            if word / PAGE != number {
                (number, page) = (word / PAGE, self.page(word / PAGE));
            }
            let cell = &mut self.pages[page][(word % PAGE) as usize];
            let now = Stamp { thread: now.thread + l as u16, ..now };
            let write = &cell.write;
            let over = |r: &Readers| {
                r.time == 0
                    || view.covers(r.block, r.warp, r.time)
                    || r.lanes == 1 << l && r.joins(&Readers::of(&now))
            };
            let settled = write.time == 0
                || view.covers(write.block, write.thread / 32, write.time)
                || write.same(&now);
            if cell.split || !settled || !over(&cell.reads[0]) || !over(&cell.reads[1]) {
                left |= 1 << l;
                continue;
            }
            *cell = Cell { write: now, value: words.value[k][l], ..Cell::default() };
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clocks;
    use super::*;
    use crate::ptx::run::AccessKind::{Load, Store};

    /// What is done with for a whole warp, `access` finds nothing wrong with either.
    #[test]
    fn what_is_plain_for_a_warp_is_right_for_each_lane() {
        let (mut c, mut cells, mut seed) = (Clocks::new(0), Cells::default(), 1u64);
        let mut draw = move |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        let op = crate::ptx::run::Op::exit(true, 0);
        let (mut plain, mut apart, mut raced) = (0, 0, 0);
        for _ in 0..20_000 {
            let w = draw(3) as u32;
            match draw(20) {
                0 => c.met(w, u32::MAX),
                1 => c.met(w, 0xf0 << draw(3)),
                2 => c.pass(0, 0b11 << draw(2)),
                3 => c.pass(0, 0b111),
                4 => c.arrive(w, 0),
                _ => {}
            }
            let (way, far) = (draw(4), draw(20) as u32);
            let at = std::array::from_fn(|l| match way {
                0 => far,
                1 => far + l as u32 % 16,
                2 => far + l as u32,
                _ => draw(40) as u32,
            });
            let kind = if draw(3) == 0 { Store } else { Load };
            let mask = if draw(2) == 0 { u32::MAX } else { draw(1 << 32) as u32 };
            let words = Words { op: &op, kind, base: 1 << 48, at: &at, count: 1, value: [&at; 8], mask };
            let (time, thread) = (c.now(w), 32 * w as u16);
            let first = Stamp { block: 0, time, at: 0, thread, strong: false };
            let mut twin = cells.clone();
            let view = c.view(w).1;
            let left = match kind {
                Load => cells.read(&view, first, &words, 0, false),
                _ => cells.write(&view, first, &words, 0),
            };
            for l in (0..32).filter(|l| mask >> l & 1 == 1) {
                let (word, now) = (
                    (4 * u64::from(at[l]) + (1 << 48), 4),
                    Stamp { thread: first.thread + l as u16, ..first },
                );
                let found = twin.access(&c, now, kind, word, at[l].into()).is_some();
                if left >> l & 1 == 0 {
                    assert!(!found, "{kind:?} of word {} by lane {l} of warp {w}", at[l]);
                    plain += 1;
                } else {
                    raced += u32::from(cells.access(&c, now, kind, word, at[l].into()).is_some());
                    apart += 1;
                }
            }
        }
        assert!(plain > 10_000 && apart > 10_000 && raced > 1000, "{plain} {apart} {raced}");
    }
}
