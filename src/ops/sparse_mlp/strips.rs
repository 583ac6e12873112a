//! Sums over the active units of many rows. The rows that are summed are laid out anew in strips of [`STRIP`] columns, so
//! that those of a strip lie together and stay in the L2 cache while all sums over them are made: each sum grows in
//! registers, one fused multiply-add after the other, in the order of its terms. Those are the bits of the plain loop.

use super::cpu::WORD;
use crate::kernel::gemm::{Scratch, scratch};
use crate::kernel::{Real, par};
use crate::vectorized;
use std::cell::Cell;

/// Columns of a strip: four vectors of sixteen.
const STRIP: usize = 64;
const WIDE: usize = 16;
/// Rows that are summed at a time: a strip of them takes 256 KiB.
pub(super) const SOME: usize = 1024;

/// Whether laying out pays: for matrices of `units` rows of `n` that the L2 cache does not hold, if they are read often.
pub(super) fn pay(rows: usize, units: usize, n: usize) -> bool {
    rows >= 256 && units * n >= 1 << 18
}

thread_local! {
    static STRIPS: Scratch = const { Cell::new(Vec::new()) };
}

/// A matrix [rows, n] in strips: [n / STRIP, rows, STRIP], the last filled up with zeros.
pub(super) struct Strips<'a, T> {
    data: &'a [[T; STRIP]],
    rows: usize,
    n: usize,
}

impl<T: Real> Strips<'_, T> {
    /// Calls `f` with `x` [rows, n] laid out.
    pub(super) fn of<R>(x: &[T], n: usize, f: impl FnOnce(&Strips<'_, T>) -> R) -> R {
        let rows = x.len() / n;
        scratch(&STRIPS, n.div_ceil(STRIP) * rows * STRIP, |data: &mut [T]| {
            par::chunks_mut(data, rows * STRIP, x.len() / 8, |i, strip| {
                let from = i * STRIP;
                let wide = STRIP.min(n - from);
                for (to, x) in strip.as_chunks_mut::<STRIP>().0.iter_mut().zip(x.chunks_exact(n)) {
                    to[..wide].copy_from_slice(&x[from..][..wide]);
                    to[wide..].fill(T::ZERO);
                }
            });
            f(&Strips { data: data.as_chunks::<STRIP>().0, rows, n })
        })
    }

    /// Adds `terms`, of the rows from `first` on, to the sums [sums, n].
    pub(super) fn add(&self, terms: &Terms<T>, first: usize, sums: &mut [T]) {
        for (i, strip) in self.data.chunks_exact(self.rows).enumerate() {
            add_strip(terms, &strip[first..], sums, self.n, i * STRIP);
        }
    }
}

/// The terms of some sums: which row, and times what.
pub(super) struct Terms<T> {
    /// Where the terms of each sum begin, and the end of the last.
    starts: Vec<usize>,
    rows: Vec<u16>,
    values: Vec<T>,
}

/// Bits of one or two words of a mask.
#[inline(always)]
pub(super) fn bits(words: &[i32]) -> u64 {
    let high = words.get(1).map_or(0, |&w| u64::from(w as u32) << WORD);
    high | u64::from(words[0] as u32)
}

impl<T: Real> Terms<T> {
    /// Sums over units, one for each row of a mask, whose rows are `pitch` words apart and of those of `value`, which are `h`
    /// apart: of `units` units.
    pub(super) fn by_row(mask: &[i32], value: &[T], [rows, units, pitch, h]: [usize; 4]) -> Terms<T> {
        let words = units.div_ceil(WORD);
        let masks = || (0..rows).map(|t| &mask[t * pitch..][..words]);
        let mut starts = Vec::with_capacity(rows + 1);
        let mut count = 0;
        for mask in masks() {
            starts.push(count);
            count += mask.iter().map(|w| w.count_ones() as usize).sum::<usize>();
        }
        starts.push(count);
        let (mut which, mut values) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (t, mask) in masks().enumerate() {
            let value = &value[t * h..][..units];
            for (i, words) in mask.chunks(2).enumerate() {
                let mut left = bits(words);
                for _ in 0..left.count_ones() {
                    let c = i * 2 * WORD + left.trailing_zeros() as usize;
                    left &= left - 1;
                    which.push(c as u16);
                    values.push(value[c]);
                }
            }
        }
        Terms { starts, rows: which, values }
    }

    /// Sums over rows, one for each unit.
    pub(super) fn by_unit(mask: &[i32], value: &[T], [rows, units, pitch, h]: [usize; 4]) -> Terms<T> {
        let words = units.div_ceil(WORD);
        let mut starts = vec![0; words * WORD + 1];
        for t in 0..rows {
            for (&w, counts) in mask[t * pitch..][..words].iter().zip(starts[1..].as_chunks_mut::<WORD>().0) {
                for (l, count) in counts.iter_mut().enumerate() {
                    *count += (w as u32 >> l & 1) as usize;
                }
            }
        }
        (1..starts.len()).for_each(|c| starts[c] += starts[c - 1]);
        starts.truncate(units + 1);
        let (mut next, count) = (starts.clone(), starts[units]);
        let (mut which, mut values) = (vec![0; count], vec![T::ZERO; count]);
        for t in 0..rows {
            let value = &value[t * h..][..units];
            for (i, words) in mask[t * pitch..][..words].chunks(2).enumerate() {
                let mut left = bits(words);
                for _ in 0..left.count_ones() {
                    let c = i * 2 * WORD + left.trailing_zeros() as usize;
                    left &= left - 1;
                    (which[next[c]], values[next[c]]) = (t as u16, value[c]);
                    next[c] += 1;
                }
            }
        }
        Terms { starts, rows: which, values }
    }
}

vectorized! {
    fn add_strip<T: Real>(terms: &Terms<T>, z: &[[T; STRIP]], sums: &mut [T], n: usize, from: usize) {
        for (sum, span) in sums.chunks_exact_mut(n).zip(terms.starts.windows(2)) {
            let (rows, values) = (&terms.rows[span[0]..span[1]], &terms.values[span[0]..span[1]]);
            if let Some(sum) = sum[from..].first_chunk_mut::<STRIP>() {
                add_terms(sum, z, rows, values);
            } else {
                let rest = &mut sum[from..];
                let mut whole = [T::ZERO; STRIP];
                whole[..rest.len()].copy_from_slice(rest);
                add_terms(&mut whole, z, rows, values);
                rest.copy_from_slice(&whole[..rest.len()]);
            }
        }
    }
}

/// sum += Σ value·z over the terms.
#[inline(always)]
fn add_terms<T: Real>(sum: &mut [T; STRIP], z: &[[T; STRIP]], rows: &[u16], values: &[T]) {
    let [mut a, mut b, mut c, mut d] = [[T::ZERO; WIDE]; STRIP / WIDE];
    a.copy_from_slice(&sum[..WIDE]);
    b.copy_from_slice(&sum[WIDE..2 * WIDE]);
    c.copy_from_slice(&sum[2 * WIDE..3 * WIDE]);
    d.copy_from_slice(&sum[3 * WIDE..]);
    for (&row, &x) in rows.iter().zip(values) {
        let z = &z[row as usize];
        for l in 0..WIDE {
            a[l] = z[l].mul_add(x, a[l]);
        }
        for l in 0..WIDE {
            b[l] = z[WIDE + l].mul_add(x, b[l]);
        }
        for l in 0..WIDE {
            c[l] = z[2 * WIDE + l].mul_add(x, c[l]);
        }
        for l in 0..WIDE {
            d[l] = z[3 * WIDE + l].mul_add(x, d[l]);
        }
    }
    sum[..WIDE].copy_from_slice(&a);
    sum[WIDE..2 * WIDE].copy_from_slice(&b);
    sum[2 * WIDE..3 * WIDE].copy_from_slice(&c);
    sum[3 * WIDE..].copy_from_slice(&d);
}
