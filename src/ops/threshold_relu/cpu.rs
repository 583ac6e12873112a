//! Thresholds on the CPU.

use super::super::rows::{self, per_chunk, put};
use crate::kernel::reduce::sum_of;
use crate::kernel::{Real, par};
use crate::vectorized;

/// What a row's threshold follows from, and how it cuts.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Cut<T> {
    /// q.
    pub(in crate::ops) factor: T,
    /// ε/2.
    pub(in crate::ops) half: T,
    /// 1/ε, or 0 where the jump has no slope.
    pub(in crate::ops) steep: T,
    /// x·H instead of max(x − θ, 0).
    pub(in crate::ops) hard: bool,
}

impl<T: Real> Cut<T> {
    /// y. Not `x > θ`, which would turn a NaN to 0.
    #[inline(always)]
    pub(in crate::ops) fn value(&self, x: T, theta: T) -> T {
        let above = if self.hard { x } else { x - theta };
        if x <= theta { T::ZERO } else { above }
    }
    /// What `dy` adds to dθ.
    #[inline(always)]
    pub(in crate::ops) fn edge(&self, x: T, theta: T, dy: T) -> T {
        if self.hard {
            if (x - theta).abs() < self.half { -(theta * self.steep) * dy } else { T::ZERO }
        } else if x <= theta {
            T::ZERO
        } else {
            -dy
        }
    }
}

/// μ and σ of a row.
#[inline(always)]
pub(in crate::ops) fn statistics<T: Real>(x: &[T]) -> (T, T) {
    let n = T::of(x.len() as f64);
    let mean = sum_of([x], |[x]| x) / n;
    (mean, (sum_of([x], |[x]| (x - mean) * (x - mean)) / n).sqrt())
}

/// Slope of θ by an element: α + β·x, for dθ = 1.
// ANCHOR: slope
#[inline(always)]
pub(in crate::ops) fn slope<T: Real>(mean: T, deviation: T, factor: T, n: usize) -> [T; 2] {
    let n = T::of(n as f64);
    let beta = if deviation == T::ZERO { T::ZERO } else { factor / (n * deviation) };
    [T::ONE / n - beta * mean, beta]
}
// ANCHOR_END: slope

/// One threshold for each of n features.
pub(in crate::ops) fn spread<'a, T: Real>(threshold: &'a [T], wide: &'a mut Vec<T>, n: usize) -> &'a [T] {
    if threshold.len() == n {
        return threshold;
    }
    wide.resize(n, threshold[0]);
    wide
}

pub(super) fn threshold_relu_forward<T: Real>(
    x: &[T],
    threshold: &[T],
    y: &mut [T],
    stats: &mut [T],
    n: usize,
    factor: T,
    hard: bool,
) {
    let cut = Cut { factor, half: T::ZERO, steep: T::ZERO, hard };
    let (rows, work) = (per_chunk(n), x.len() / 4);
    if threshold.is_empty() {
        return par::chunks_mut2((y, rows * n), (stats, 2 * rows), work, |i, y, stats| {
            statistical(&x[i * rows * n..][..y.len()], y, stats, n, cut);
        });
    }
    let mut wide = vec![];
    let theta = spread(threshold, &mut wide, n);
    par::chunks_mut(y, rows * n, work, |i, y| given(&x[i * rows * n..][..y.len()], theta, y, cut));
}

#[allow(clippy::too_many_arguments)]
pub(super) fn threshold_relu_backward<T: Real>(
    x: &[T],
    threshold: &[T],
    stats: &[T],
    dy: &[T],
    dx: &mut [T],
    parts: &mut [T],
    n: usize,
    factor: T,
    half: T,
    steep: T,
    hard: bool,
    accumulate: bool,
) {
    let cut = Cut { factor, half, steep, hard };
    let mut wide = vec![];
    let theta = if threshold.is_empty() { threshold } else { spread(threshold, &mut wide, n) };
    rows::blocks(dx, parts, [x.len() / n.max(1), n, n], |at, dx, parts| {
        let (x, dy) = (&x[at.start * n..at.end * n], &dy[at.start * n..at.end * n]);
        if theta.is_empty() {
            return statistical_slopes(x, &stats[2 * at.start..2 * at.end], dy, dx, n, cut, accumulate);
        }
        if !dx.is_empty() {
            given_slopes(x, theta, dy, dx, accumulate);
        }
        if !parts.is_empty() {
            edges(x, theta, dy, parts, cut);
        }
    });
}

vectorized! {
    fn statistical<T: Real>(x: &[T], y: &mut [T], stats: &mut [T], n: usize, cut: Cut<T>) {
        for ((x, y), stats) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(stats.chunks_exact_mut(2)) {
            let (mean, deviation) = statistics(x);
            (stats[0], stats[1]) = (mean, deviation);
            let theta = mean + cut.factor * deviation;
            for (y, &x) in y.iter_mut().zip(x) {
                *y = cut.value(x, theta);
            }
        }
    }

    fn given<T: Real>(x: &[T], theta: &[T], y: &mut [T], cut: Cut<T>) {
        let n = theta.len();
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            for ((y, &x), &theta) in y.iter_mut().zip(x).zip(theta) {
                *y = cut.value(x, theta);
            }
        }
    }

    fn given_slopes<T: Real>(x: &[T], theta: &[T], dy: &[T], dx: &mut [T], accumulate: bool) {
        let n = theta.len();
        for ((x, dy), dx) in x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
            for (((dx, &x), &dy), &theta) in dx.iter_mut().zip(x).zip(dy).zip(theta) {
                let d = if x <= theta { T::ZERO } else { dy };
                *dx = if accumulate { *dx + d } else { d };
            }
        }
    }

    fn edges<T: Real>(x: &[T], theta: &[T], dy: &[T], parts: &mut [T], cut: Cut<T>) {
        parts.fill(T::ZERO);
        let n = theta.len();
        for (x, dy) in x.chunks_exact(n).zip(dy.chunks_exact(n)) {
            for (((part, &x), &dy), &theta) in parts.iter_mut().zip(x).zip(dy).zip(theta) {
                *part += cut.edge(x, theta, dy);
            }
        }
    }

    fn statistical_slopes<T: Real>(
        x: &[T], stats: &[T], dy: &[T], dx: &mut [T], n: usize, cut: Cut<T>, accumulate: bool,
    ) {
        let rows = x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)).zip(stats.chunks_exact(2));
        for (((x, dy), dx), stats) in rows {
            let (mean, deviation) = (stats[0], stats[1]);
            let theta = mean + cut.factor * deviation;
            let felt = sum_of([x, dy], |[x, dy]| cut.edge(x, theta, dy));
            let [alpha, beta] = slope(mean, deviation, cut.factor, n).map(|v| v * felt);
            if accumulate {
                row_slopes::<T, true>(x, dy, dx, theta, alpha, beta);
            } else {
                row_slopes::<T, false>(x, dy, dx, theta, alpha, beta);
            }
        }
    }
}

#[inline(always)]
fn row_slopes<T: Real, const ADD: bool>(x: &[T], dy: &[T], dx: &mut [T], theta: T, alpha: T, beta: T) {
    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        let direct = if x <= theta { T::ZERO } else { dy };
        put::<T, ADD>(dx, direct + (alpha + beta * x));
    }
}
