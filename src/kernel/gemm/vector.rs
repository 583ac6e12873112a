//! One row times a transposed matrix, as in text generation token by token: each output is one dot product over memory
//! that lies together, and B is read once, so nothing is packed.

use super::View;
use crate::kernel::lanes::LANES;
use crate::kernel::par;
use crate::vectorized;

/// True when `a·b` is one row of dot products.
pub(super) fn fits(a: View<'_, f32>, b: View<'_, f32>) -> bool {
    a.rows == 1 && b.row == 1 && (a.col == 1 || a.cols <= 1)
}

/// c = alpha·a·b, or c += .
pub(super) fn product(a: View<'_, f32>, b: View<'_, f32>, alpha: f32, add: bool, c: &mut [f32]) {
    dots(&a.data[..a.cols], b.data, b.col, alpha, add, &mut c[..b.cols]);
}

/// [`product`] with the outputs split over the thread pool.
pub(super) fn parallel(a: View<'_, f32>, b: View<'_, f32>, c: &mut [f32], add: bool) {
    let step = c.len().div_ceil(rayon::current_num_threads()).next_multiple_of(4);
    // Bound by memory: about four numbers of B in a nanosecond.
    par::chunks_mut(c, step, a.cols * b.cols / 4, |i, c| {
        product(a, b.block(0, i * step, b.rows, c.len()), 1.0, add, c);
    });
}

vectorized! {
    /// c[j] = alpha · x·(row j of w), rows `pitch` apart: four rows at a time hide the latency of the additions.
    fn dots(x: &[f32], w: &[f32], pitch: usize, alpha: f32, add: bool, c: &mut [f32]) {
        let row = |j: usize| &w[j * pitch..][..x.len()];
        let (fours, rest) = c.as_chunks_mut::<4>();
        let done = 4 * fours.len();
        for (j, c) in fours.iter_mut().enumerate() {
            let sums = four_dots(x, [row(4 * j), row(4 * j + 1), row(4 * j + 2), row(4 * j + 3)]);
            for l in 0..4 {
                c[l] = if add { c[l] } else { 0.0 } + alpha * sums[l];
            }
        }
        for (j, c) in rest.iter_mut().enumerate() {
            *c = if add { *c } else { 0.0 } + alpha * four_dots(x, [row(done + j); 4])[0];
        }
    }
}

/// x·y for each y, in sixteen interleaved partial sums. Four named accumulators: in an array they would live in memory.
#[inline(always)]
fn four_dots(x: &[f32], y: [&[f32]; 4]) -> [f32; 4] {
    let (whole, rest) = x.as_chunks::<LANES>();
    let n = whole.len();
    let [y0, y1, y2, y3] = y.map(|y| &y.as_chunks::<LANES>().0[..n]);
    let [mut a0, mut a1, mut a2, mut a3] = [[0.0f32; LANES]; 4];
    for i in 0..n {
        for l in 0..LANES {
            a0[l] += whole[i][l] * y0[i][l];
        }
        for l in 0..LANES {
            a1[l] += whole[i][l] * y1[i][l];
        }
        for l in 0..LANES {
            a2[l] += whole[i][l] * y2[i][l];
        }
        for l in 0..LANES {
            a3[l] += whole[i][l] * y3[i][l];
        }
    }
    let mut sums = [0.0; 4];
    for (r, mut a) in [a0, a1, a2, a3].into_iter().enumerate() {
        for (l, (x, y)) in rest.iter().zip(&y[r][n * LANES..]).enumerate() {
            a[l] += x * y;
        }
        for width in [8, 4, 2, 1] {
            for l in 0..width {
                a[l] += a[l + width];
            }
        }
        sums[r] = a[0];
    }
    sums
}
