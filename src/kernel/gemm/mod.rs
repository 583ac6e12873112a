//! Matrix products: strided views in, rows split over threads. The bits do not depend on the split, since every element
//! of C is one sum over k in the micro-kernel's own order.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | views, the products of f32 and f64, who computes them |
//! | `round.rs` | [`Precision`]: to what operands are rounded; rounding to bf16 |
//! | `blocked.rs` | f32 on AVX-512 and AVX2: blocks, packing, the order of tiles |
//! | `pack.rs` | operands copied in the order in which they are read |
//! | `pairs.rs` | the same as pairs of bf16 |
//! | `micro.rs` | one tile of C in registers |
//! | `vector.rs` | one row times a transposed matrix |
//!
//! f64, and f32 on other processors, go to the crate `matrixmultiply`, which has kernels for NEON too.
//!
//! With [`Precision::Tf32`] rounded copies of A and B are multiplied. With [`Precision::Bf16`] each element of A and B is rounded to the nearest bf16, ties to even, where it is packed; what
//! lies in memory stays f32. Products of two such numbers are exact in f32, and their sums are f32: rounded once for each
//! product by the fall-back (the tiles of f32), and without fused multiply-add, with sums and numbers below the smallest
//! normal f32 flushed to zero, by AVX-512 BF16, which adds two products at a time. Both differ from the exact product of the
//! rounded operands by at most k·2⁻²³·Σ|a·b|, and k·2⁻¹²⁶ more where something was flushed.
#![allow(unsafe_code, reason = "calls matrixmultiply, which takes raw pointers and strides")]

mod blocked;
mod micro;
mod pack;
mod pairs;
mod round;
mod vector;

pub(crate) use pack::{Scratch, scratch};
pub use round::Precision;
pub(super) use vector::picked;

use super::{Real, par};
use std::ops::Range;

/// A matrix in memory: `rows × cols`, element (i, j) at `i·row + j·col`.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

/// A writable row-major matrix with `pitch` elements from row to row.
pub struct ViewMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    pitch: usize,
}

/// Index one past the last element of a strided matrix (0 when it is empty).
fn reach(rows: usize, cols: usize, row: usize, col: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row + (cols - 1) * col + 1 }
}

impl<'a, T> View<'a, T> {
    /// A view with any strides. Panics when it would leave `data`: callers compute extents from checked shapes.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row: usize, col: usize) -> Self {
        assert!(reach(rows, cols, row, col) <= data.len(), "matrix view leaves its slice");
        View { data, rows, cols, row, col }
    }
    /// A dense row-major matrix.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        View::strided(data, rows, cols, cols, 1)
    }
    /// The transpose of a dense row-major `cols × rows` matrix: seen as `rows × cols`.
    pub fn transposed(data: &'a [T], rows: usize, cols: usize) -> Self {
        View::strided(data, rows, cols, 1, rows)
    }
    /// The same elements, seen with rows and columns exchanged.
    pub fn flipped(self) -> Self {
        View { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }
    /// How many columns there are.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// `cols` columns from `start` on.
    pub fn columns(self, start: usize, cols: usize) -> Self {
        let rows = self.rows;
        self.block(0, start, rows, cols)
    }
    /// `rows × cols` elements from (`i`, `j`) on.
    fn block(self, i: usize, j: usize, rows: usize, cols: usize) -> Self {
        let start = (i * self.row + j * self.col).min(self.data.len());
        View::strided(&self.data[start..], rows, cols, self.row, self.col)
    }
}

impl<'a, T> ViewMut<'a, T> {
    /// A dense row-major matrix.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        ViewMut::pitched(data, rows, cols, cols)
    }
    /// Rows `pitch` elements apart.
    pub fn pitched(data: &'a mut [T], rows: usize, cols: usize, pitch: usize) -> Self {
        assert!(
            reach(rows, cols, pitch, 1) <= data.len() && (cols <= pitch || rows <= 1),
            "matrix view leaves its slice"
        );
        ViewMut { data, rows, cols, pitch }
    }
    /// Some of the columns.
    fn columns(&mut self, cols: &Range<usize>) -> ViewMut<'_, T> {
        let start = cols.start.min(self.data.len());
        ViewMut::pitched(&mut self.data[start..], self.rows, cols.len(), self.pitch)
    }
}

/// C = alpha·A·B, or C += alpha·A·B, on the calling thread. Without `accumulate` the old contents of C are not read.
pub(super) fn sgemm(
    precision: Precision,
    a: View<'_, f32>,
    b: View<'_, f32>,
    alpha: f32,
    accumulate: bool,
    c: ViewMut<'_, f32>,
) {
    if precision == Precision::Tf32 {
        return round::operands(precision, a, b, |a, b| sgemm(Precision::F32, a, b, alpha, accumulate, c));
    }
    match micro::kernels(precision) {
        _ if precision == Precision::F32 && vector::fits(a, b) => {
            vector::product(a, b, alpha, accumulate, c.data);
        }
        Some(k) => blocked::product(k, a, b, alpha, accumulate, c),
        None => round::operands(precision, a, b, |a, b| sgemm_portable(a, b, alpha, accumulate, c)),
    }
}

macro_rules! portable {
    ($(#[$doc:meta])* $name:ident, $t:ty, $f:path) => {
        $(#[$doc])*
        pub(super) fn $name(a: View<'_, $t>, b: View<'_, $t>, alpha: $t, accumulate: bool, c: ViewMut<'_, $t>) {
            assert!(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "gemm extents disagree");
            if c.rows == 0 || c.cols == 0 {
                return;
            }
            let beta = if accumulate { 1.0 } else { 0.0 };
            let [ar, ac, br, bc] = [a.row, a.col, b.row, b.col].map(|s| s as isize);
            // SAFETY: the constructors checked that every index reached by rows, cols and strides lies in the slice, c is
            // borrowed mutably and so overlaps neither a nor b, and distinct (i, j) of c are distinct elements.
            unsafe {
                let (pa, pb, pc) = (a.data.as_ptr(), b.data.as_ptr(), c.data.as_mut_ptr());
                $f(a.rows, a.cols, b.cols, alpha, pa, ar, ac, pb, br, bc, beta, pc, c.pitch as isize, 1);
            }
        }
    };
}
portable!(
    /// [`sgemm`] by `matrixmultiply`.
    sgemm_portable, f32, matrixmultiply::sgemm
);
portable!(
    /// The same for f64.
    dgemm, f64, matrixmultiply::dgemm
);

/// Work of a product in about nanoseconds: 32 multiply-adds in one.
fn work(m: usize, k: usize, n: usize) -> usize {
    m * k * n / 32
}

/// A view as dense rows, in `to`: rows and columns change places where a column of it lies together.
pub fn transpose<T: Real>(from: View<'_, T>, to: &mut [T]) {
    assert_eq!(to.len(), from.rows * from.cols, "the copy has as many elements");
    T::transpose(from, to);
}

/// [`transpose`] of f32.
pub(super) fn stranspose(from: View<'_, f32>, to: &mut [f32]) {
    match micro::kernels(Precision::F32) {
        Some(k) if from.cols > 0 => pack::transpose(k, from, from.cols, to),
        _ => copy(from, to),
    }
}

/// A view as dense rows, one element after the other.
pub(super) fn copy<T: Real>(from: View<'_, T>, to: &mut [T]) {
    for (i, to) in to.chunks_exact_mut(from.cols.max(1)).enumerate() {
        for (j, x) in to.iter_mut().enumerate() {
            *x = from.data[i * from.row + j * from.col];
        }
    }
}

/// C = A·B, or C += A·B when `accumulate`, with rows of C split over the thread pool when there is enough work.
pub fn matmul<T: Real>(a: View<'_, T>, b: View<'_, T>, c: &mut [T], accumulate: bool) {
    matmul_in(Precision::F32, a, b, c, accumulate);
}

/// [`matmul`] of operands that are rounded to `precision`.
pub fn matmul_in<T: Real>(
    precision: Precision,
    a: View<'_, T>,
    b: View<'_, T>,
    c: &mut [T],
    accumulate: bool,
) {
    matmul_then(precision, a, b, c, accumulate, |_| {});
}

/// [`matmul_in`], then `finish` on every stretch of whole rows of C while it is still in cache.
pub fn matmul_then<T: Real>(
    precision: Precision,
    a: View<'_, T>,
    b: View<'_, T>,
    c: &mut [T],
    accumulate: bool,
    finish: impl Fn(&mut [T]) + Send + Sync,
) {
    assert!(c.len() == a.rows * b.cols && a.cols == b.rows, "gemm extents disagree");
    if !c.is_empty() {
        T::matmul(precision, a, b, c, accumulate, &finish);
    }
}

/// [`matmul_then`] of f32.
pub(super) fn smatmul(
    precision: Precision,
    a: View<'_, f32>,
    b: View<'_, f32>,
    c: &mut [f32],
    accumulate: bool,
    finish: &(dyn Fn(&mut [f32]) + Sync),
) {
    if precision == Precision::Tf32 {
        return round::operands(precision, a, b, |a, b| smatmul(Precision::F32, a, b, c, accumulate, finish));
    }
    match micro::kernels(precision) {
        _ if precision == Precision::F32 && vector::fits(a, b) => {
            vector::parallel(a, b, c, accumulate);
            finish(c);
        }
        Some(k) => blocked::parallel(k, a, b, c, accumulate, finish),
        None => round::operands(precision, a, b, |a, b| {
            matmul_rows(sgemm_portable, a, b, c, accumulate, finish);
        }),
    }
}

/// A product on one thread: A, B, alpha, whether to add, C.
type Single<T> = fn(View<'_, T>, View<'_, T>, T, bool, ViewMut<'_, T>);

/// [`matmul_then`] of f64.
pub(super) fn dmatmul(
    a: View<'_, f64>,
    b: View<'_, f64>,
    c: &mut [f64],
    accumulate: bool,
    finish: &(dyn Fn(&mut [f64]) + Sync),
) {
    matmul_rows(dgemm, a, b, c, accumulate, finish);
}

/// [`matmul_then`] by products of some rows each. They are of one kind, so that a last row alone has the bits that it has
/// among others.
fn matmul_rows<T: Real>(
    single: Single<T>,
    a: View<'_, T>,
    b: View<'_, T>,
    c: &mut [T],
    accumulate: bool,
    finish: &(dyn Fn(&mut [T]) + Sync),
) {
    let (m, n) = (a.rows, b.cols);
    let work = work(m, a.cols, n);
    let threads = if par::worthwhile(work) { rayon::current_num_threads() } else { 1 };
    // A few more pieces than threads evens out a late start; each must be tall enough to reuse the packed B.
    let rows = if threads == 1 { m } else { m.div_ceil(threads * 2).next_multiple_of(8).max(32) };
    par::chunks_mut(c, rows * n, work, |i, c| {
        let high = c.len() / n;
        single(a.block(i * rows, 0, high, a.cols), b, T::ONE, accumulate, ViewMut::new(c, high, n));
        finish(c);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    /// A·B by the triple loop, in f64.
    fn reference(a: View<'_, f32>, b: View<'_, f32>) -> Vec<f64> {
        let at = |m: &View<'_, f32>, i: usize, j: usize| m.data[i * m.row + j * m.col] as f64;
        let all = (0..a.rows).flat_map(|i| (0..b.cols).map(move |j| (i, j)));
        all.map(|(i, j)| (0..a.cols).map(|p| at(&a, i, p) * at(&b, p, j)).sum()).collect()
    }

    #[test]
    fn every_layout_equals_the_plain_triple_loop() {
        let mut rng = Key::new(3, 3).rng();
        let mut random = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        // Tile edges, several blocks of k, several parts of B, no extent at all.
        let extents = [
            (1, 1, 1),
            (1, 50, 7),
            (1, 35, 0),
            (1, 131, 203),
            (1, 650, 400),
            (5, 7, 3),
            (13, 16, 17),
            (130, 70, 90),
            (25, 700, 48),
            (96, 33, 1100),
            (3, 9000, 600),
            (2, 0, 3),
        ];
        for (m, k, n) in extents {
            let (a, b) = (random(m * k), random(k * n));
            for form in 0..8 {
                let a = if form & 1 == 0 { View::new(&a, m, k) } else { View::transposed(&a, m, k) };
                let b = if form & 2 == 0 { View::new(&b, k, n) } else { View::transposed(&b, k, n) };
                let add = form & 4 != 0;
                let start = if add { 1.0 } else { f32::NAN };
                let mut finished = vec![start; m * n];
                matmul_then(Precision::F32, a, b, &mut finished, add, |rows| {
                    rows.iter_mut().for_each(|x| *x *= 2.0)
                });
                let mut single = vec![start; m * (n + 1)];
                f32::gemm(a, b, -0.5, add, ViewMut::pitched(&mut single, m, n, n + 1));
                for (at, want) in reference(a, b).into_iter().enumerate() {
                    let begin = if add { 1.0 } else { 0.0 };
                    let close = |got: f32, want: f64| {
                        (got as f64 - want).abs() < 1e-5 * (k as f64).sqrt().max(1.0) * 4.0
                    };
                    assert!(
                        close(finished[at], 2.0 * (want + begin)),
                        "{m} {k} {n} form {form}: {} {want}",
                        finished[at]
                    );
                    assert!(
                        close(single[at / n * (n + 1) + at % n], begin - 0.5 * want),
                        "{m} {k} {n} form {form}"
                    );
                }
                assert!(
                    single.chunks(n + 1).all(|row| row[n] == start || row[n].is_nan()),
                    "wrote beyond its columns"
                );
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let mut rng = Key::new(3, 4).rng();
        let mut random = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        for (m, k, n) in [(301, 650, 75), (1, 650, 1203)] {
            let (a, b) = (random(m * k), random(k * n));
            let of = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                let mut c = vec![0.0; m * n];
                pool.install(|| matmul(View::new(&a, m, k), View::transposed(&b, k, n), &mut c, false));
                c
            };
            let one = of(1);
            assert!([2, 3, 8].into_iter().all(|t| of(t) == one));
        }
    }
}
