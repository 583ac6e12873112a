//! The sums over active units, on the CPU. Which units of a row are active stands in words of 32 bits, so that a loop over
//! them skips the others at a glance. Every sum goes on in the order of units (or of rows), one fused multiply-add after the
//! other, as the plain loop over all units does where what is skipped is 0: same bits, for any number of threads, on any
//! instruction set.

use super::super::threshold_relu::cpu::{Cut, slope, spread, statistics};
use crate::kernel::lanes::LANES;
use crate::kernel::{Real, par};
use crate::vectorized;
use rayon::prelude::*;

/// Units of a word of the mask.
pub(super) const WORD: usize = 32;
/// Rows that are taken together in one job.
const ROWS: usize = 16;
/// Vectors of [`LANES`] columns whose sums stay in registers: eight cover the latency of a multiply-add.
const STRIP: usize = 8;

/// The active units of words, in order.
#[inline(always)]
fn each(words: &[i32], mut f: impl FnMut(usize)) {
    for (i, &word) in words.iter().enumerate() {
        let mut bits = word as u32;
        while bits != 0 {
            f(i * WORD + bits.trailing_zeros() as usize);
            bits &= bits - 1;
        }
    }
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
    let mut wide = vec![];
    let theta = if threshold.is_empty() { threshold } else { spread(threshold, &mut wide, h) };
    let one = |i: usize, value: &mut [T], mask: &mut [i32], stats: &mut [T]| {
        select_rows(&x[i * ROWS * h..][..value.len()], theta, value, mask, stats, h, cut);
    };
    let (v, m, s) = (ROWS * h, ROWS * words, ROWS * 2);
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
        let some = n.div_ceil(rayon::current_num_threads()).next_multiple_of(LANES);
        return par::chunks_mut(y, some, work, |i, y| {
            let bias = if bias.is_empty() { bias } else { &bias[i * some..][..y.len()] };
            one_row(value, &mask[..words.min(mask.len())], &w[i * some..], bias, y, n, accumulate);
        });
    }
    par::chunks_mut(y, ROWS * n, work, |i, y| {
        let first = i * ROWS;
        let mask = &mask[(first * planes * words).min(mask.len())..];
        let value = &value[(first * h).min(value.len())..];
        some_rows(value, mask, w, bias, y, [h, n, words, planes * words], accumulate);
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
    par::chunks_mut(d, ROWS * h, d.len() * m / 64, |i, d| {
        let rows = d.len() / h;
        let (dy, mask) = (&dy[i * ROWS * m..][..rows * m], &mask[i * ROWS * words..][..rows * words]);
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
    par::chunks_mut(out, WORD * n, value.len() * n / 64, |i, out| {
        if !accumulate {
            out.fill(T::ZERO);
        }
        if n > 0 {
            outer_units(&value[(i * WORD).min(value.len())..], &mask[i.min(mask.len())..], z, out, h, n, pitch);
        }
    });
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
    let words = h.div_ceil(WORD);
    par::chunks_mut(out, WORD, value.len() / 4, |i, out| {
        let mut sums = [T::ZERO; WORD];
        for (t, row) in value.chunks_exact(h).enumerate() {
            each(&mask[(t * planes + plane) * words + i..][..1], |c| sums[c] += row[i * WORD + c]);
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = if accumulate { *out + scale * sum } else { scale * sum };
        }
    });
}

#[allow(clippy::too_many_arguments)]
pub(super) fn sparse_mlp_felt<T: Real>(
    d: &[T],
    mask: &[i32],
    stats: &[T],
    line: &mut [T],
    h: usize,
    factor: T,
    half: T,
    steep: T,
    hard: bool,
) {
    let planes = if half > T::ZERO { 2 } else { 1 };
    let words = h.div_ceil(WORD);
    par::chunks_mut(line, 2 * ROWS, d.len() / 16, |i, line| {
        for (k, line) in line.chunks_exact_mut(2).enumerate() {
            let t = i * ROWS + k;
            let (mean, deviation) = (stats[2 * t], stats[2 * t + 1]);
            let (row, mut sum) = (&d[t * h..][..h], T::ZERO);
            // A jump without a bandwidth has no slope towards its threshold.
            if !hard || planes == 2 {
                let plane = if hard { 1 } else { 0 };
                each(&mask[(t * planes + plane) * words..][..words], |c| sum += row[c]);
            }
            let felt = if hard { -((mean + factor * deviation) * steep) * sum } else { -sum };
            let [alpha, beta] = slope(mean, deviation, factor, h);
            (line[0], line[1]) = (alpha * felt, beta * felt);
        }
    });
}

pub(super) fn sparse_mlp_pairs<T: Real>(bias: &[T], pairs: &mut [T]) {
    for (pair, &b) in pairs.chunks_exact_mut(2).zip(bias) {
        (pair[0], pair[1]) = (T::ONE, b);
    }
}

pub(super) fn sparse_mlp_scaled<T: Real>(x: &[T], line: &[T], z: &mut [T], n: usize) {
    par::chunks_mut(z, ROWS * n, x.len() / 4, |i, z| {
        let rows = z.chunks_exact_mut(n).zip(x[i * ROWS * n..].chunks_exact(n));
        for ((z, x), line) in rows.zip(line[i * ROWS * 2..].chunks_exact(2)) {
            z.iter_mut().zip(x).for_each(|(z, &x)| *z = line[1] * x);
        }
    });
}

/// Bit l: x[l] is not ≤ θ(l).
#[inline(always)]
fn above<T: Real>(x: &[T; WORD], theta: &[T; WORD]) -> u32 {
    let mut bits = 0;
    for l in 0..WORD {
        bits |= u32::from(!(x[l] <= theta[l])) << l;
    }
    bits
}

/// Bit l: |x[l] − θ(l)| < half.
#[inline(always)]
fn near<T: Real>(x: &[T; WORD], theta: &[T; WORD], half: T) -> u32 {
    let mut bits = 0;
    for l in 0..WORD {
        bits |= u32::from((x[l] - theta[l]).abs() < half) << l;
    }
    bits
}

/// 32 numbers from `from` on; the rest, where a row ends, as `fill`.
#[inline(always)]
fn block<T: Real>(x: &[T], from: usize, fill: T) -> [T; WORD] {
    if let Some(whole) = x[from..].first_chunk::<WORD>() {
        return *whole;
    }
    let mut some = [fill; WORD];
    some[..x.len() - from].copy_from_slice(&x[from..]);
    some
}

/// Columns `col..` of the sums over active units, as many as registers hold.
#[inline(always)]
fn strip<T: Real, const V: usize>(value: &[T], words: &[i32], w: &[T], n: usize, col: usize) -> [[T; LANES]; V] {
    let mut acc = [[T::ZERO; LANES]; V];
    each(words, |c| {
        let (x, w) = (value[c], w[c * n + col..][..V * LANES].as_chunks::<LANES>().0);
        for v in 0..V {
            for l in 0..LANES {
                acc[v][l] = w[v][l].mul_add(x, acc[v][l]);
            }
        }
    });
    acc
}

/// sums (+ bias) to y.
#[inline(always)]
fn finish<T: Real>(y: &mut [T], sums: &[T], bias: &[T], accumulate: bool) {
    for (j, (y, &sum)) in y.iter_mut().zip(sums).enumerate() {
        let sum = if bias.is_empty() { sum } else { sum + bias[j] };
        *y = if accumulate { *y + sum } else { sum };
    }
}

vectorized! {
    fn select_rows<T: Real>(
        x: &[T], theta: &[T], value: &mut [T], mask: &mut [i32], stats: &mut [T], h: usize, cut: Cut<T>,
    ) {
        let (words, banded) = (h.div_ceil(WORD), cut.half > T::ZERO);
        let planes = if banded { 2 } else { 1 };
        let rows = x.chunks_exact(h).zip(value.chunks_exact_mut(h)).zip(mask.chunks_exact_mut(words * planes));
        for (((x, value), mask), stats) in rows.zip(stats.chunks_exact_mut(2)) {
            let own = theta.is_empty();
            let (mean, deviation) = if own { statistics(x) } else { (T::ZERO, T::ZERO) };
            (stats[0], stats[1]) = (mean, deviation);
            let mut at = [mean + cut.factor * deviation; WORD];
            for i in 0..words {
                let from = i * WORD;
                if !own {
                    at = block(theta, from, T::ZERO);
                }
                let some = block(x, from, T::NEG_INFINITY);
                // A NaN as threshold is exceeded by all, but by no unit beyond the last.
                let units = u32::MAX >> (WORD - WORD.min(h - from));
                let mut bits = above(&some, &at) & units;
                mask[i] = bits as i32;
                if banded {
                    mask[words + i] = (near(&some, &at, cut.half) & units) as i32;
                }
                while bits != 0 {
                    let l = bits.trailing_zeros() as usize;
                    value[from + l] = if cut.hard { some[l] } else { some[l] - at[l] };
                    bits &= bits - 1;
                }
            }
        }
    }

    fn some_rows<T: Real>(
        value: &[T], mask: &[i32], w: &[T], bias: &[T], y: &mut [T], extents: [usize; 4], accumulate: bool,
    ) {
        let [h, n, words, pitch] = extents;
        for (t, y) in y.chunks_exact_mut(n).enumerate() {
            // Without a mask there is no active unit.
            let (value, words) = if mask.is_empty() {
                (&[][..], &[][..])
            } else {
                (&value[t * h..][..h], &mask[t * pitch..][..words])
            };
            let mut col = 0;
            while col + STRIP * LANES <= n {
                let sums = strip::<T, STRIP>(value, words, w, n, col);
                let bias = if bias.is_empty() { bias } else { &bias[col..] };
                finish(&mut y[col..], sums.as_flattened(), bias, accumulate);
                col += STRIP * LANES;
            }
            while col + LANES <= n {
                let sums = strip::<T, 1>(value, words, w, n, col);
                let bias = if bias.is_empty() { bias } else { &bias[col..] };
                finish(&mut y[col..], sums.as_flattened(), bias, accumulate);
                col += LANES;
            }
            let mut sums = [T::ZERO; LANES];
            if col < n {
                each(words, |c| {
                    let (x, w) = (value[c], &w[c * n + col..(c + 1) * n]);
                    sums.iter_mut().zip(w).for_each(|(sum, w)| *sum = w.mul_add(x, *sum));
                });
                let bias = if bias.is_empty() { bias } else { &bias[col..] };
                finish(&mut y[col..], &sums, bias, accumulate);
            }
        }
    }

    /// One row, or some of its columns: rows of w are n long.
    fn one_row<T: Real>(value: &[T], words: &[i32], w: &[T], bias: &[T], y: &mut [T], n: usize, accumulate: bool) {
        let mut old = vec![];
        if accumulate {
            old = y.to_vec();
        }
        y.fill(T::ZERO);
        each(words, |c| {
            let (x, w) = (value[c], &w[c * n..][..y.len()]);
            y.iter_mut().zip(w).for_each(|(y, w)| *y = w.mul_add(x, *y));
        });
        bias.iter().zip(y.iter_mut()).for_each(|(&b, y)| *y += b);
        old.iter().zip(y.iter_mut()).for_each(|(&old, y)| *y = old + *y);
    }

    fn dots_rows<T: Real>(dy: &[T], w: &[T], mask: &[i32], d: &mut [T], h: usize, m: usize, planes: usize) {
        let words = h.div_ceil(WORD);
        for ((t, d), mask) in d.chunks_exact_mut(h).enumerate().zip(mask.chunks_exact(words * planes)) {
            let dy = &dy[t * m..][..m];
            for i in 0..words {
                let near = if planes == 2 { mask[words + i] } else { 0 };
                each(&[mask[i] | near], |c| d[i * WORD + c] = dot(dy, &w[(i * WORD + c) * m..][..m]));
            }
        }
    }

    /// out[c] += Σ value[t, c]·z[t] for the units c of one word; `value` and `mask` begin at it.
    fn outer_units<T: Real>(
        value: &[T], mask: &[i32], z: &[T], out: &mut [T], h: usize, n: usize, pitch: usize,
    ) {
        for (t, z) in z.chunks_exact(n).enumerate() {
            let mut bits = mask[t * pitch] as u32;
            while bits != 0 {
                let c = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let (x, out) = (value[t * h + c], &mut out[c * n..][..n]);
                out.iter_mut().zip(z).for_each(|(out, z)| *out = z.mul_add(x, *out));
            }
        }
    }
}

/// x·y: sixteen interleaved sums, then a tree.
#[inline(always)]
fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    let mut acc = [T::ZERO; LANES];
    let ((xs, xt), (ys, yt)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for l in 0..LANES {
            acc[l] = x[l].mul_add(y[l], acc[l]);
        }
    }
    for ((acc, x), &y) in acc.iter_mut().zip(xt).zip(yt) {
        *acc = x.mul_add(y, *acc);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            acc[l] += acc[l + width];
        }
        width /= 2;
    }
    acc[0]
}
