//! What moves a statistical threshold, on the CPU.

use super::super::threshold_relu::cpu::slope;
use super::cpu::{ROWS, WORD};
use super::picked::active;
use crate::kernel::{Real, par};

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
                for c in active(&mask[(t * planes + plane) * words..][..words]) {
                    sum += row[c];
                }
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
