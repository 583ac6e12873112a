//! Loops over active units, and what is done with the row of one: everything here is inlined in functions that are compiled
//! for each instruction set.

use super::cpu::WORD;
use crate::kernel::Real;

/// Sums that grow together: what they grow in is loaded and stored once for so many terms.
pub(super) const TERMS: usize = 4;

/// The active units of words, in order. Loops over them are written as loops: a closure is compiled for the plain
/// instruction set where it is not inlined, and a fused multiply-add is a call there.
pub(super) struct Active<'a> {
    words: &'a [i32],
    /// Words looked at so far, and what is left of the last.
    next: usize,
    bits: u32,
}

#[inline(always)]
pub(super) fn active(words: &[i32]) -> Active<'_> {
    Active { words, next: 0, bits: 0 }
}

impl Iterator for Active<'_> {
    type Item = usize;
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            self.bits = *self.words.get(self.next)? as u32;
            self.next += 1;
        }
        let c = (self.next - 1) * WORD + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        Some(c)
    }
}

/// Columns that are one loop without end checks.
const STRIP: usize = 128;

/// y += x·w, element by element, each fused.
#[inline(always)]
pub(super) fn add_product<T: Real>(y: &mut [T], w: &[T], x: T) {
    let ((ys, yt), (ws, wt)) = (y.as_chunks_mut::<STRIP>(), w.as_chunks::<STRIP>());
    for (y, w) in ys.iter_mut().zip(ws) {
        for j in 0..STRIP {
            y[j] = w[j].mul_add(x, y[j]);
        }
    }
    for (y, w) in yt.iter_mut().zip(wt) {
        *y = w.mul_add(x, *y);
    }
}

/// The same for several, one after the other.
#[inline(always)]
pub(super) fn add_products<T: Real>(y: &mut [T], w: [&[T]; TERMS], x: [T; TERMS]) {
    let n = y.len();
    let (ys, yt) = y.as_chunks_mut::<STRIP>();
    let w = w.map(|w| w[..n].as_chunks::<STRIP>());
    for (i, y) in ys.iter_mut().enumerate() {
        let w = w.map(|w| &w.0[i]);
        for j in 0..STRIP {
            y[j] = w[3][j].mul_add(x[3], w[2][j].mul_add(x[2], w[1][j].mul_add(x[1], w[0][j].mul_add(x[0], y[j]))));
        }
    }
    let w = w.map(|w| &w.1[..yt.len()]);
    for (j, y) in yt.iter_mut().enumerate() {
        *y = w[3][j].mul_add(x[3], w[2][j].mul_add(x[2], w[1][j].mul_add(x[1], w[0][j].mul_add(x[0], *y))));
    }
}
