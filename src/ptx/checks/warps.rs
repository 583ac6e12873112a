//! The usual access, looked at for the whole warp: where nothing is wrong that is all, and lanes of which this is not
//! plain are looked at one by one.

use super::Checker;
use super::clock::Stamp;
use crate::ptx::run::spaces::{SHARED, WINDOW};
use crate::ptx::run::{Access, AccessKind, LANES, Launch, Place, Words};
use std::sync::PoisonError;

crate::vectorized! {
    /// The least and the largest of the lanes of `mask`.
    fn range(at: &[u32; LANES], mask: u32) -> (u32, u32) {
        let (mut least, mut most) = (u32::MAX, 0u32);
        for l in 0..LANES {
            let on = (mask >> l & 1).wrapping_neg();
            least = least.min(at[l] | !on);
            most = most.max(at[l] & on);
        }
        (least, most)
    }
    /// Addresses as words from `base` on, 0 for lanes that are not in `mask`; the largest distance in bytes.
    fn distances(address: &[u64; LANES], base: u64, mask: u32, at: &mut [u32; LANES]) -> u64 {
        let mut most = 0;
        for l in 0..LANES {
            let bytes = address[l].wrapping_sub(base) & u64::from(mask >> l & 1).wrapping_neg();
            most = most.max(bytes);
            at[l] = (bytes >> 2) as u32;
        }
        most
    }
    /// The lower and the upper words.
    fn halves(value: &[u64; LANES], low: &mut [u32; LANES], high: &mut [u32; LANES]) {
        for l in 0..LANES {
            low[l] = value[l] as u32;
            high[l] = (value[l] >> 32) as u32;
        }
    }
}

impl Checker {
    /// Looks at the usual access. False when nothing was done, because its bytes are not all in one live allocation.
    pub(super) fn plain(&mut self, launch: &Launch<'_>, place: Place, words: &Words<'_>) -> bool {
        let &Words { op, kind, base, at, count, mask, .. } = words;
        let mut lacking = 0;
        if base != SHARED {
            let (least, most) = range(at, mask);
            let bytes = (base + 4 * u64::from(least), base + 4 * (u64::from(most) + count as u64));
            let record = || self.record.lock().unwrap_or_else(PoisonError::into_inner);
            match self.bounds.whole(launch, bytes, |start, bytes| record().written.has(start, bytes)) {
                None => return false,
                Some(true) => {}
                Some(false) if kind == AccessKind::Load => {
                    lacking = record().written.lacking(base / 4, at, count as u64, mask);
                }
                Some(false) => record().written.write_words(base / 4, at, count as u64, mask),
            }
        }
        for k in 0..count {
            self.enter(place.block);
            let Some((_, block)) = &mut self.current else { return false };
            let (time, view) = block.clocks.view(place.warp);
            let thread = (place.warp * 32) as u16;
            let now = Stamp { block: block.number, time, at: op.at, thread, strong: false };
            let cells = if base == SHARED { &mut block.cells } else { &mut self.global };
            let left = lacking
                | match kind {
                    AccessKind::Load => cells.read(&view, now, words, k, base == SHARED),
                    _ => cells.write(&view, now, words, k),
                };
            if left != 0 {
                self.rest(launch, place, words, k, left);
            }
        }
        true
    }

    /// Looks at element `k` of some lanes one by one.
    #[cold]
    fn rest(&mut self, launch: &Launch<'_>, place: Place, words: &Words<'_>, k: usize, mask: u32) {
        let &Words { op, kind, base, .. } = words;
        let address = words.at.map(|word| base + 4 * (u64::from(word) + k as u64));
        let value = words.value[k].map(u64::from);
        let value = (kind == AccessKind::Store).then_some(&value);
        self.apart(
            launch,
            place,
            &Access { op, kind, bytes: 4, address: &address, value, mask, strong: false },
        );
    }

    /// Looks at an access of words or double words that is otherwise usual. False when nothing was done.
    pub(super) fn together(&mut self, launch: &Launch<'_>, place: Place, access: &Access<'_>) -> bool {
        let &Access { op, kind, bytes, address, value, mask, strong } = access;
        if strong || kind == AccessKind::Atomic || !matches!(bytes, 4 | 8) || mask == 0 {
            return false;
        }
        let (base, end) = match address[mask.trailing_zeros() as usize] {
            first if first < SHARED => (launch.memory[0].base(), launch.memory[0].bytes().min(1 << 34)),
            _ => (SHARED, WINDOW),
        };
        let [mut at, mut low, mut high] = [[0; LANES]; 3];
        if distances(address, base, mask, &mut at) >= end {
            return false;
        }
        value.inspect(|value| halves(value, &mut low, &mut high));
        let mut value = [&low; 8];
        value[1] = &high;
        self.plain(launch, place, &Words { op, kind, base, at: &at, count: bytes as usize / 4, value, mask })
    }
}
