//! Matrix products: strided views in, rows split over threads. The bits do not depend on the split, since every element
//! of C is one sum over k in the micro-kernel's own order.
#![allow(unsafe_code, reason = "calls matrixmultiply, which takes raw pointers and strides")]

use super::{Real, par};

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
    fn rows_from(self, start: usize, n: usize) -> Self {
        View { data: &self.data[(start * self.row).min(self.data.len())..], rows: n, ..self }
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
}

macro_rules! gemm_of {
    ($name:ident, $t:ty) => {
        /// C = alpha·A·B + beta·C on the calling thread. With beta = 0 the old contents of C are not read.
        pub(super) fn $name(a: View<'_, $t>, b: View<'_, $t>, alpha: $t, beta: $t, c: ViewMut<'_, $t>) {
            assert!(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "gemm extents disagree");
            if c.rows == 0 || c.cols == 0 {
                return;
            }
            // SAFETY: the constructors checked that every index reached by rows, cols and strides lies in the slice, c is
            // borrowed mutably and so overlaps neither a nor b, and distinct (i, j) of c are distinct elements.
            unsafe {
                matrixmultiply::$name(
                    a.rows,
                    a.cols,
                    b.cols,
                    alpha,
                    a.data.as_ptr(),
                    a.row as isize,
                    a.col as isize,
                    b.data.as_ptr(),
                    b.row as isize,
                    b.col as isize,
                    beta,
                    c.data.as_mut_ptr(),
                    c.pitch as isize,
                    1,
                );
            }
        }
    };
}
gemm_of!(sgemm, f32);
gemm_of!(dgemm, f64);

/// C = A·B, or C += A·B when `accumulate`, with rows of C split over the thread pool when there is enough work.
pub fn matmul<T: Real>(a: View<'_, T>, b: View<'_, T>, c: &mut [T], accumulate: bool) {
    matmul_then(a, b, c, accumulate, |_| {});
}

/// [`matmul`], then `finish` on every stretch of whole rows of C while it is still in cache.
pub fn matmul_then<T: Real>(
    a: View<'_, T>,
    b: View<'_, T>,
    c: &mut [T],
    accumulate: bool,
    finish: impl Fn(&mut [T]) + Send + Sync,
) {
    let (m, n) = (a.rows, b.cols);
    assert_eq!(c.len(), m * n, "gemm output has the wrong size");
    let beta = if accumulate { T::ONE } else { T::ZERO };
    let work = m * n * a.cols / 32; // about 32 multiply-adds a nanosecond
    let threads = if par::worthwhile(work) { rayon::current_num_threads() } else { 1 };
    // A few more pieces than threads evens out a late start; each must be tall enough to reuse the packed B.
    let rows = if threads == 1 { m } else { m.div_ceil(threads * 2).next_multiple_of(8).max(32) };
    par::chunks_mut(c, rows.max(1) * n, work, |i, c| {
        let len = c.len() / n.max(1);
        T::gemm(a.rows_from(i * rows, len), b, T::ONE, beta, ViewMut::new(c, len, n));
        finish(c);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn every_layout_equals_the_plain_triple_loop() {
        let mut rng = Key::new(3, 3).rng();
        for (m, k, n) in [(1, 1, 1), (5, 7, 3), (33, 16, 17), (130, 70, 90)] {
            let a: Vec<f64> = (0..m * k).map(|_| rng.normal()).collect();
            let b: Vec<f64> = (0..k * n).map(|_| rng.normal()).collect();
            let at: Vec<f64> = (0..m * k).map(|i| a[i % m * k + i / m]).collect();
            let mut c = vec![1.0; m * n];
            matmul(View::transposed(&at, m, k), View::new(&b, k, n), &mut c, true);
            for i in 0..m {
                for j in 0..n {
                    let want = 1.0 + (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum::<f64>();
                    assert!((c[i * n + j] - want).abs() < 1e-12, "{m} {k} {n}");
                }
            }
        }
    }
}
