//! Sums and maxima over one axis. Seen as [outer, reduced, inner], x becomes y [outer, inner].
//!
//! The reduced axis is cut into blocks of a fixed size: each block gives a partial result, and those are combined in order.
//! Which thread does which block does not matter, so any number of threads gives the same bits, and sums of many numbers
//! lose fewer digits. Reducing several axes is one launch for each group of neighbours.

use super::lanes::LANES;
use super::{Real, par};
use crate::{kernel, vectorized};

kernel! {
    ptx "reduce";
    /// y [outer, inner] = scale·Σ_r x[outer, r, inner], or y += when `accumulate`; `extents` = [outer, reduced, inner],
    /// `partial` has [`partials`] elements of scratch.
    pub static SUM = sum_axis(
        x: in T, partial: out T, y: out T, extents: val dims, scale: val T, accumulate: val flag,
    ) blocks(device_blocks(extents));
    /// The same for scale·max_r x[outer, r, inner]; NaN where any is NaN.
    pub static MAX = max_axis(
        x: in T, partial: out T, y: out T, extents: val dims, scale: val T, accumulate: val flag,
    ) blocks(device_blocks(extents));
}

/// Blocks on a GPU: one for each long row, else one for 32 outputs (`ptx/reduce.ptx`).
fn device_blocks(extents: &[usize]) -> usize {
    let outputs = extents[0] * extents[2];
    if extents[2] == 1 && extents[1] >= 64 { outputs } else { outputs.div_ceil(32) }
}

/// Elements of a block where they lie one behind the other (inner = 1).
const RUN: usize = 1024;
/// Rows of a block otherwise.
const ROWS: usize = 128;
/// Columns summed at a time: accumulators and a few rows fit the L1 cache.
const COLUMNS: usize = 256;
/// Rows shorter than this are taken several at a time.
const NARROW: usize = 32;

/// Elements of the scratch that a launch with these extents wants: one for each block, or none where one block is all.
pub fn partials([outer, reduced, inner]: [usize; 3]) -> usize {
    let blocks = reduced.div_ceil(if inner == 1 { RUN } else { ROWS });
    if blocks > 1 { outer * blocks * inner } else { 0 }
}

/// How two numbers become one.
trait Fold {
    fn start<T: Real>() -> T;
    fn join<T: Real>(a: T, b: T) -> T;
}

struct Sum;
struct Max;

impl Fold for Sum {
    #[inline(always)]
    fn start<T: Real>() -> T {
        T::ZERO
    }
    #[inline(always)]
    fn join<T: Real>(a: T, b: T) -> T {
        a + b
    }
}

impl Fold for Max {
    #[inline(always)]
    fn start<T: Real>() -> T {
        T::NEG_INFINITY
    }
    #[inline(always)]
    fn join<T: Real>(a: T, b: T) -> T {
        b.max_nan(a)
    }
}

fn sum_axis<T: Real>(x: &[T], partial: &mut [T], y: &mut [T], extents: &[usize], scale: T, accumulate: bool) {
    fold_axis::<Sum, T>(x, partial, y, extents, scale, accumulate);
}

fn max_axis<T: Real>(x: &[T], partial: &mut [T], y: &mut [T], extents: &[usize], scale: T, accumulate: bool) {
    fold_axis::<Max, T>(x, partial, y, extents, scale, accumulate);
}

fn fold_axis<F: Fold, T: Real>(
    x: &[T],
    partial: &mut [T],
    y: &mut [T],
    extents: &[usize],
    scale: T,
    accumulate: bool,
) {
    let [outer, reduced, inner] = *extents else { unreachable!("three extents") };
    assert_eq!(partial.len(), partials([outer, reduced, inner]), "scratch of a reduction has the wrong size");
    if partial.is_empty() {
        return pass::<F, T>(x, y, [reduced, inner], reduced, scale, accumulate);
    }
    // ANCHOR: blocks
    let block = if inner == 1 { RUN } else { ROWS };
    pass::<F, T>(x, partial, [reduced, inner], block, T::ONE, false);
    let blocks = reduced.div_ceil(block);
    pass::<F, T>(partial, y, [blocks, inner], blocks, scale, accumulate);
    // ANCHOR_END: blocks
}

/// One element of y for each column of each block of `block` rows of x.
fn pass<F: Fold, T: Real>(
    x: &[T],
    y: &mut [T],
    [reduced, inner]: [usize; 2],
    block: usize,
    scale: T,
    accumulate: bool,
) {
    let (work, rows) = (x.len() / 4, block.min(reduced).max(1));
    if inner == 1 && block == reduced {
        let size = (par::CHUNK / rows).max(1);
        return par::chunks_mut(y, size, work, |i, y| {
            fold_runs::<F, T>(&x[i * size * reduced..][..y.len() * reduced], reduced, y, scale, accumulate)
        });
    }
    let blocks = reduced.div_ceil(block.max(1)).max(1);
    let target = (4 * par::CHUNK / rows).clamp(COLUMNS, par::CHUNK);
    let size = if inner < target { target / inner.max(1) * inner } else { target };
    par::chunks_mut(y, size, work, |i, mut y| {
        let mut at = i * size;
        while !y.is_empty() {
            let (group, col) = (at / inner, at % inner);
            let (o, b) = (group / blocks, group % blocks);
            let rows = block.min(reduced - b * block);
            let x = &x[(o * reduced + b * block) * inner..][..rows * inner];
            let (now, rest) = y.split_at_mut((inner - col).min(y.len()));
            at += now.len();
            fold_rows::<F, T>(x, inner, col, now, scale, accumulate);
            y = rest;
        }
    });
}

#[inline(always)]
fn finish<T: Real>(y: &mut T, total: T, scale: T, accumulate: bool) {
    let total = scale * total;
    *y = if accumulate { *y + total } else { total };
}

/// Folds the sixteen accumulators: halves, quarters, and so on.
#[inline(always)]
fn tree<F: Fold, T: Real>(mut acc: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            acc[l] = F::join(acc[l], acc[l + width]);
        }
        width /= 2;
    }
    acc[0]
}

/// The sum of sixteen partial sums, as the sums here end.
#[inline(always)]
pub fn sum_lanes<T: Real>(acc: [T; LANES]) -> T {
    tree::<Sum, T>(acc)
}

/// Folds consecutive elements: sixteen interleaved accumulators, then a tree; one after the other when they are few.
#[inline(always)]
fn fold_run<F: Fold, T: Real>(x: &[T]) -> T {
    if x.len() < LANES {
        return x.iter().fold(F::start(), |a, &b| F::join(a, b));
    }
    let (whole, tail) = x.as_chunks::<LANES>();
    let mut acc = [F::start::<T>(); LANES];
    for x in whole {
        for l in 0..LANES {
            acc[l] = F::join(acc[l], x[l]);
        }
    }
    for (a, &x) in acc.iter_mut().zip(tail) {
        *a = F::join(*a, x);
    }
    tree::<F, T>(acc)
}

/// Σ f over the elements of slices of equal length, in the order of [`sum_by`](super::lanes::sum_by): with slices in its
/// hands the compiler sees whole vectors, where a sum by index checks each element against the end.
#[inline(always)]
pub fn sum_of<T: Real, S: Real, const N: usize>(x: [&[T]; N], f: impl Fn([T; N]) -> S) -> S {
    let n = x[0].len();
    let parts = x.map(|x| x[..n].as_chunks::<LANES>());
    let mut acc = [S::ZERO; LANES];
    for i in 0..n / LANES {
        let block = parts.map(|(whole, _)| &whole[i]);
        for l in 0..LANES {
            acc[l] += f(block.map(|b| b[l]));
        }
    }
    for l in 0..n % LANES {
        acc[l] += f(parts.map(|(_, tail)| tail[l]));
    }
    tree::<Sum, S>(acc)
}

vectorized! {
    /// y_i = fold of the i-th run of `n` elements.
    fn fold_runs<F: Fold, T: Real>(x: &[T], n: usize, y: &mut [T], scale: T, accumulate: bool) {
        for (i, y) in y.iter_mut().enumerate() {
            finish(y, fold_run::<F, T>(&x[i * n..][..n]), scale, accumulate);
        }
    }

    /// y_j = fold of column `col` + j of the rows of x, which are `pitch` long.
    fn fold_rows<F: Fold, T: Real>(x: &[T], pitch: usize, col: usize, y: &mut [T], scale: T, accumulate: bool) {
        if pitch == 1 {
            return finish(&mut y[0], fold_run::<F, T>(x), scale, accumulate);
        }
        if pitch < NARROW && y.len() == pitch {
            // As many whole rows as fit the accumulators are one wide row; its parts are folded at the end.
            let mut acc = [F::start::<T>(); 2 * NARROW];
            let wide = 2 * NARROW / pitch * pitch;
            for x in x.chunks(wide) {
                for (a, &x) in acc.iter_mut().zip(x) {
                    *a = F::join(*a, x);
                }
            }
            for (j, y) in y.iter_mut().enumerate() {
                let total = (j..wide).step_by(pitch).fold(F::start(), |a, k| F::join(a, acc[k]));
                finish(y, total, scale, accumulate);
            }
            return;
        }
        for (i, y) in y.chunks_mut(COLUMNS).enumerate() {
            let (from, n) = (col + i * COLUMNS, y.len());
            let mut acc = [F::start::<T>(); COLUMNS];
            let acc = &mut acc[..n];
            let mut fours = x.chunks_exact(4 * pitch);
            for x in &mut fours {
                let row = |r: usize| &x[r * pitch + from..][..n];
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                for j in 0..n {
                    acc[j] = F::join(acc[j], F::join(F::join(a[j], b[j]), F::join(c[j], d[j])));
                }
            }
            for x in fours.remainder().chunks_exact(pitch) {
                for (a, &x) in acc.iter_mut().zip(&x[from..]) {
                    *a = F::join(*a, x);
                }
            }
            for (y, &total) in y.iter_mut().zip(acc.iter()) {
                finish(y, total, scale, accumulate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    /// Shapes on both sides of every threshold above, against the plain double loop.
    #[test]
    fn every_path_equals_the_plain_loop() {
        let extents = [
            [1, 0, 3],
            [3, 0, 1],
            [3, 1, 1],
            [5, 7, 1],
            [3, 300, 1],
            [2, 1025, 1],
            [2, 9000, 1],
            [4, 5, 1],
            [1, 100, 2],
            [2, 1000, 3],
            [1, 300, 31],
            [2, 129, 32],
            [1, 3, 300],
            [2, 500, 70],
            [1, 130, 5000],
            [300, 2, 6],
        ];
        for e in extents {
            let [outer, reduced, inner] = e;
            let mut rng = Key::new(5, reduced as u64).rng();
            let x: Vec<f64> = (0..outer * reduced * inner).map(|_| rng.normal()).collect();
            let of = |o: usize, c: usize| (0..reduced).map(move |r| (o * reduced + r) * inner + c);
            let (mut sum, mut max) = (vec![1.0; outer * inner], vec![0.0; outer * inner]);
            let mut partial = vec![f64::NAN; partials(e)];
            sum_axis(&x, &mut partial, &mut sum, &e, 0.5, true);
            max_axis(&x, &mut partial, &mut max, &e, 1.0, false);
            for (o, c) in (0..outer).flat_map(|o| (0..inner).map(move |c| (o, c))) {
                let want = 1.0 + 0.5 * of(o, c).map(|i| x[i]).sum::<f64>();
                assert!((sum[o * inner + c] - want).abs() < 1e-10, "sum {e:?} at {o}, {c}");
                let want = of(o, c).map(|i| x[i]).fold(f64::NEG_INFINITY, f64::max);
                assert_eq!(max[o * inner + c], want, "max {e:?} at {o}, {c}");
            }
        }
    }

    #[test]
    fn a_maximum_is_nan_when_any_is_wherever_it_lies() {
        for e in [[1, 40, 1], [1, 9000, 1], [1, 300, 3], [1, 300, 40]] {
            let n = e[1] * e[2];
            for at in (0..n).step_by(97) {
                let mut x = vec![1f32; n];
                x[at] = f32::NAN;
                let (mut y, mut partial) = (vec![0.0; e[2]], vec![0.0; partials(e)]);
                max_axis(&x, &mut partial, &mut y, &e, 1.0, false);
                let nan: Vec<usize> = (0..e[2]).filter(|&c| y[c].is_nan()).collect();
                assert_eq!(nan, [at % e[2]], "{e:?}");
            }
        }
    }

    /// Blocks keep the digits that one running sum of many equal f32 would lose.
    #[test]
    fn long_sums_keep_their_digits() {
        for e in [[1, 1 << 20, 1], [1, 1 << 18, 4], [1, 1 << 14, 64]] {
            let (x, mut partial, mut y) =
                (vec![0.1f32; e[1] * e[2]], vec![0.0; partials(e)], vec![0.0; e[2]]);
            sum_axis(&x, &mut partial, &mut y, &e, 1.0, false);
            let want = e[1] as f64 * 0.1f32 as f64;
            let running = (0..e[1]).fold(0f32, |sum, _| sum + 0.1) as f64;
            assert!((running / want - 1.0).abs() > 2e-5, "{e:?} is too short to show anything");
            assert!(y.iter().all(|&y| (y as f64 / want - 1.0).abs() < 2e-6), "{e:?}: {} is not {want}", y[0]);
        }
    }
}
