//! The sums over active units, on the CPU. Which units of a row are active stands in words of 32 bits, so that a loop over
//! them skips the others at a glance. Sums over units (or rows) go on in their order, one fused multiply-add after the other, as
//! the plain loop over all of them does where what is skipped is 0: same bits, for any number of threads, on any instruction
//! set. Each d is a dot product, with the bits of the dense product of its row alone, which are those of the instruction set.

use super::super::threshold_relu::cpu::{Cut, statistics};
use super::picked::{TERMS, active, add_product, add_products};
use super::strips::{self, SOME, Strips, Terms, bits};
use crate::kernel::lanes::LANES;
use crate::kernel::{Real, par};
use crate::vectorized;
use rayon::prelude::*;

/// Units of a word of the mask.
pub(super) const WORD: usize = 32;
/// Rows that are taken together in one job, at most: a block of w is read from the L2 cache for all of them.
pub(super) const ROWS: usize = 128;
/// Elements of such a block.
const BLOCK: usize = 1 << 16;
/// Units of a job that sums over rows, at least, and rows whose active units it sorts by unit at a time.
const JOB: usize = 64;
const TILE: usize = 64;

/// Units of a job that sums over rows: many, as they are read row by row. The bits do not depend on it.
fn job(units: usize) -> usize {
    (units / 8 / JOB * JOB).clamp(JOB, 4 * JOB)
}

/// Rows of a job. The bits do not depend on it.
fn some(rows: usize) -> usize {
    (rows / 8).clamp(1, ROWS)
}

/// Words of the mask whose rows of w are one block.
#[inline(always)]
fn block_words(n: usize) -> usize {
    (BLOCK / (n * WORD).max(1)).max(1)
}

#[allow(clippy::too_many_arguments)]
pub(super) fn sparse_mlp_select<T: Real>(
    x: &[T],
    threshold: &[T],
    value: &mut [T],
    mask: &mut [i32],
    stats: &mut [T],
    h: usize,
    factor: T,
    half: T,
    hard: bool,
) {
    if value.is_empty() {
        return;
    }
    let cut = Cut { factor, half, steep: T::ZERO, hard };
    let words = h.div_ceil(WORD) * if half > T::ZERO { 2 } else { 1 };
    let rows = some(stats.len() / 2);
    let one = |i: usize, value: &mut [T], mask: &mut [i32], stats: &mut [T]| {
        select_rows(&x[i * rows * h..][..value.len()], threshold, value, mask, stats, h, cut);
    };
    let (v, m, s) = (rows * h, rows * words, rows * 2);
    if par::worthwhile(x.len() / 2) {
        let all = value.par_chunks_mut(v).zip(mask.par_chunks_mut(m)).zip(stats.par_chunks_mut(s));
        all.enumerate().for_each(|(i, ((v, m), s))| one(i, v, m, s));
    } else {
        let all = value.chunks_mut(v).zip(mask.chunks_mut(m)).zip(stats.chunks_mut(s));
        all.enumerate().for_each(|(i, ((v, m), s))| one(i, v, m, s));
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn sparse_mlp_rows<T: Real>(
    value: &[T],
    mask: &[i32],
    w: &[T],
    bias: &[T],
    y: &mut [T],
    h: usize,
    n: usize,
    planes: usize,
    accumulate: bool,
) {
    let words = h.div_ceil(WORD);
    let rows = y.len() / n.max(1);
    let work = value.len() * n / 64;
    if rows == 1 {
        // As in generation: columns are split, and each active row of w is read where it lies together.
        let cols = n.div_ceil(rayon::current_num_threads()).next_multiple_of(LANES);
        return par::chunks_mut(y, cols, work, |i, y| {
            let bias = if bias.is_empty() { bias } else { &bias[i * cols..][..y.len()] };
            some_rows(value, &mask[..words.min(mask.len())], &w[i * cols..], bias, y, [h, y.len(), n, words], accumulate);
        });
    }
    let some = some(rows);
    if strips::pay(rows, h, n) && !mask.is_empty() {
        return Strips::of(w, n, |w| {
            par::chunks_mut(y, some * n, work, |i, y| {
                let first = i * some;
                let (value, mask) = (&value[first * h..], &mask[first * planes * words..]);
                many_rows(value, mask, w, bias, y, [h, n, planes * words], accumulate);
            });
        });
    }
    par::chunks_mut(y, some * n, work, |i, y| {
        let first = i * some;
        let mask = &mask[(first * planes * words).min(mask.len())..];
        let value = &value[(first * h).min(value.len())..];
        some_rows(value, mask, w, bias, y, [h, n, n, planes * words], accumulate);
    });
}

pub(super) fn sparse_mlp_dots<T: Real>(
    dy: &[T],
    w: &[T],
    mask: &[i32],
    d: &mut [T],
    h: usize,
    m: usize,
    planes: usize,
) {
    let words = h.div_ceil(WORD) * planes;
    let some = some(d.len() / h.max(1));
    par::chunks_mut(d, some * h, d.len() * m / 64, |i, d| {
        let rows = d.len() / h;
        let (dy, mask) = (&dy[i * some * m..][..rows * m], &mask[i * some * words..][..rows * words]);
        dots_rows(dy, w, mask, d, h, m, planes);
    });
}

#[allow(clippy::too_many_arguments)]
pub(super) fn sparse_mlp_outer<T: Real>(
    value: &[T],
    mask: &[i32],
    z: &[T],
    out: &mut [T],
    h: usize,
    n: usize,
    planes: usize,
    accumulate: bool,
) {
    let pitch = h.div_ceil(WORD) * planes;
    if !accumulate {
        out.fill(T::ZERO);
    }
    // No unit, or no number in a row.
    if out.is_empty() {
        return;
    }
    if !strips::pay(z.len() / n, h, n) {
        return par::chunks_mut(out, JOB * n, value.len() * n / 64, |i, out| {
            outer_units(&value[i * JOB..], &mask[i * JOB / WORD..], z, out, h, n, pitch);
        });
    }
    let some = job(h);
    for (tile, z) in z.chunks(SOME * n).enumerate() {
        let (first, rows) = (tile * SOME, z.len() / n);
        Strips::of(z, n, |z| {
            par::chunks_mut(out, some * n, rows * h * n / 64, |i, out| {
                let (mask, value) = (&mask[first * pitch + i * some / WORD..], &value[first * h + i * some..]);
                z.add(&Terms::by_unit(mask, value, [rows, out.len() / n, pitch, h]), 0, out);
            });
        });
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn sparse_mlp_sums<T: Real>(
    value: &[T],
    mask: &[i32],
    out: &mut [T],
    h: usize,
    planes: usize,
    plane: usize,
    scale: T,
    accumulate: bool,
) {
    let (words, some) = (h.div_ceil(WORD), job(h));
    par::chunks_mut(out, some, value.len() / 4, |i, out| {
        let mut sums = vec![T::ZERO; out.len()];
        for (t, row) in value.chunks_exact(h).enumerate() {
            let mask = &mask[(t * planes + plane) * words + i * some / WORD..][..out.len().div_ceil(WORD)];
            let row = &row[i * some..][..out.len()];
            for (k, pair) in mask.chunks(2).enumerate() {
                let mut left = bits(pair);
                for _ in 0..left.count_ones() {
                    let c = k * 2 * WORD + left.trailing_zeros() as usize;
                    left &= left - 1;
                    sums[c] += row[c];
                }
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = if accumulate { *out + scale * sum } else { scale * sum };
        }
    });
}

fn select_rows<T: Real>(
    x: &[T],
    theta: &[T],
    value: &mut [T],
    mask: &mut [i32],
    stats: &mut [T],
    h: usize,
    cut: Cut<T>,
) {
    let (words, banded) = (h.div_ceil(WORD), cut.half > T::ZERO);
    let planes = if banded { 2 } else { 1 };
    let rows = x.chunks_exact(h).zip(value.chunks_exact_mut(h)).zip(mask.chunks_exact_mut(words * planes));
    for (((x, value), mask), stats) in rows.zip(stats.chunks_exact_mut(2)) {
        let own = theta.is_empty();
        let (mean, deviation) = if own { row_statistics(x) } else { (T::ZERO, T::ZERO) };
        (stats[0], stats[1]) = (mean, deviation);
        let row = [mean + cut.factor * deviation];
        let theta = if own { &row } else { theta };
        let of = |c: usize| if theta.len() == 1 { theta[0] } else { theta[c] };
        let (mask, band) = mask.split_at_mut(words);
        T::above(x, theta, mask);
        for c in active(mask) {
            value[c] = if cut.hard { x[c] } else { x[c] - of(c) };
        }
        for (i, band) in band.iter_mut().enumerate() {
            let near = |(l, &x): (usize, &T)| u32::from((x - of(i * WORD + l)).abs() < cut.half) << l;
            *band = x[i * WORD..].iter().take(WORD).enumerate().map(near).sum::<u32>() as i32;
        }
    }
}

/// Rows of y from those of w in strips; rows of the mask are `words` long.
fn many_rows<T: Real>(
    value: &[T],
    mask: &[i32],
    w: &Strips<'_, T>,
    bias: &[T],
    y: &mut [T],
    [h, n, words]: [usize; 3],
    accumulate: bool,
) {
    let mut apart = vec![];
    let sums = begin(y, &mut apart, accumulate);
    let rows = sums.len() / n;
    for first in (0..h).step_by(SOME) {
        let units = SOME.min(h - first);
        let (mask, value) = (&mask[first / WORD..], &value[first..]);
        w.add(&Terms::by_row(mask, value, [rows, units, words, h]), first, sums);
    }
    end(y, &mut apart, bias, n);
}

/// Where sums grow, from 0 on: in y, or apart from it where they will be added to what is there.
#[inline(always)]
fn begin<'a, T: Real>(y: &'a mut [T], apart: &'a mut Vec<T>, accumulate: bool) -> &'a mut [T] {
    if accumulate {
        apart.resize(y.len(), T::ZERO);
        return apart;
    }
    y.fill(T::ZERO);
    y
}

/// Adds the bias, and the sums to y if they were made apart.
#[inline(always)]
fn end<T: Real>(y: &mut [T], apart: &mut [T], bias: &[T], n: usize) {
    let sums = if apart.is_empty() { &mut *y } else { &mut *apart };
    for sums in sums.chunks_exact_mut(n) {
        sums.iter_mut().zip(bias).for_each(|(sum, &b)| *sum += b);
    }
    apart.iter().zip(y).for_each(|(&sum, y)| *y += sum);
}

/// d of some rows: a unit of one row has the bits of the dense product of that row.
fn dots_rows<T: Real>(dy: &[T], w: &[T], mask: &[i32], d: &mut [T], h: usize, m: usize, planes: usize) {
    let (words, step) = (h.div_ceil(WORD), block_words(m));
    let (mut units, mut sums) = (Vec::with_capacity(h), vec![T::ZERO; h]);
    for first in (0..words).step_by(step) {
        for ((t, d), mask) in d.chunks_exact_mut(h).enumerate().zip(mask.chunks_exact(words * planes)) {
            units.clear();
            for i in first..words.min(first + step) {
                let near = if planes == 2 { mask[words + i] } else { 0 };
                units.extend(active(&[mask[i] | near]).map(|l| i * WORD + l));
            }
            T::picked_dots(&dy[t * m..][..m], w, &units, &mut sums[..units.len()]);
            units.iter().zip(&sums).for_each(|(&c, &sum)| d[c] = sum);
        }
    }
}

/// y += Σ value[c]·w_c over active units; rows of w are `pitch` apart.
// ANCHOR: active
#[inline(always)]
fn add_active<T: Real>(y: &mut [T], value: &[T], words: &[i32], w: &[T], pitch: usize) {
    let (n, mut units, mut count) = (y.len(), [0; TERMS], 0);
    for c in active(words) {
        units[count] = c;
        count += 1;
        if count == TERMS {
            let mut some = [&w[..0]; TERMS];
            let mut x = [T::ZERO; TERMS];
            for k in 0..TERMS {
                some[k] = &w[units[k] * pitch..][..n];
                x[k] = value[units[k]];
            }
            add_products(y, some, x);
            count = 0;
        }
    }
    for &c in &units[..count] {
        add_product(y, &w[c * pitch..][..n], value[c]);
    }
}
// ANCHOR_END: active

vectorized! {
    fn row_statistics<T: Real>(x: &[T]) -> (T, T) {
        statistics(x)
    }

    /// Rows of y, or some columns of one: rows of w are `pitch` long, those of the mask `words`.
    fn some_rows<T: Real>(
        value: &[T], mask: &[i32], w: &[T], bias: &[T], y: &mut [T], extents: [usize; 4], accumulate: bool,
    ) {
        let [h, n, pitch, words] = extents;
        let (all, step) = (h.div_ceil(WORD), block_words(n));
        let mut apart = vec![];
        let sums = begin(y, &mut apart, accumulate);
        // Without a mask there is no active unit.
        for first in (0..if mask.is_empty() { 0 } else { all }).step_by(step) {
            let count = step.min(all - first);
            for (t, sums) in sums.chunks_exact_mut(n).enumerate() {
                let (value, mask) = (&value[t * h + first * WORD..], &mask[t * words + first..][..count]);
                add_active(sums, value, mask, &w[first * WORD * pitch..], pitch);
            }
        }
        end(y, &mut apart, bias, n);
    }

    /// out[c] += Σ value[t, c]·z[t] for some units; `value` and `mask` begin at them.
    fn outer_units<T: Real>(
        value: &[T], mask: &[i32], z: &[T], out: &mut [T], h: usize, n: usize, pitch: usize,
    ) {
        // Of some rows at a time, which rows each unit is active in, and its values there.
        let mut lists = [[0u8; TILE]; JOB];
        let mut values = [[T::ZERO; TILE]; JOB];
        let words = (out.len() / n).div_ceil(WORD);
        for (first, z) in z.chunks(TILE * n).enumerate() {
            let mut counts = [0; JOB];
            for t in 0..z.len() / n {
                let row = first * TILE + t;
                for c in active(&mask[row * pitch..][..words]) {
                    let k = counts[c] % TILE;
                    (lists[c][k], values[c][k]) = (t as u8, value[row * h + c]);
                    counts[c] += 1;
                }
            }
            for (c, out) in out.chunks_exact_mut(n).enumerate() {
                let (rows, x) = (&lists[c][..counts[c]], &values[c][..counts[c]]);
                let ((rows, last), (x, end)) = (rows.as_chunks::<TERMS>(), x.as_chunks::<TERMS>());
                for (rows, x) in rows.iter().zip(x) {
                    add_products(out, rows.map(|t| &z[t as usize * n..][..n]), *x);
                }
                for (&t, &x) in last.iter().zip(end) {
                    add_product(out, &z[t as usize * n..][..n], x);
                }
            }
        }
    }
}
