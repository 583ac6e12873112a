//! One row times a transposed matrix, as in text generation token by token: each output is one dot product over memory
//! that lies together, and B is read once, so nothing is packed.
//!
//! Eight rows of B at a time: their sums hide the latency of the multiply-adds, and are folded together. A dot product
//! of 128 numbers is eight steps of AVX-512; folding sixteen sums for each row alone would take longer than those.
#![allow(
    unsafe_code,
    reason = "vector loads through raw pointers, in the loop that reads all weights for each token"
)]

use super::View;
use crate::kernel::par;
use crate::kernel::reduce::sum_of;
use crate::vectorized;

/// Rows of B at a time.
const ROWS: usize = 8;

/// x·y for eight rows y of a matrix.
///
/// # Safety
/// The processor must have the instruction set, and all rows are readable as far as x.
type Dots = unsafe fn(&[f32], [*const f32; ROWS]) -> [f32; ROWS];

/// True when `a·b` is one row of dot products.
pub(super) fn fits(a: View<'_, f32>, b: View<'_, f32>) -> bool {
    a.rows == 1 && b.row == 1 && (a.col == 1 || a.cols <= 1)
}

/// c = alpha·a·b, or c += .
pub(super) fn product(a: View<'_, f32>, b: View<'_, f32>, alpha: f32, add: bool, c: &mut [f32]) {
    let (x, c) = (&a.data[..a.cols], &mut c[..b.cols]);
    assert!(b.rows == x.len() && super::reach(b.cols, b.rows, b.col, 1) <= b.data.len(), "b is a matrix");
    let Some(dots) = kernel() else { return plain(x, b.data, b.col, alpha, add, c) };
    for (i, c) in c.chunks_mut(ROWS).enumerate() {
        let row = b.data.as_ptr().wrapping_add(i * ROWS * b.col);
        // Where there are fewer than eight, the last is taken again in place of the others.
        let rows = std::array::from_fn(|r| row.wrapping_add(r.min(c.len() - 1) * b.col));
        // SAFETY: `kernel` asked for the instruction set; these are columns i·8 and on of `b`, one for each number of `c`,
        // of as many elements as x has.
        let sums = unsafe { dots(x, rows) };
        for (c, sum) in c.iter_mut().zip(sums) {
            *c = if add { *c } else { 0.0 } + alpha * sum;
        }
    }
}

/// out[i] = x·(row `units[i]` of w), rows as long as x: with the bits of [`product`].
pub(crate) fn picked(x: &[f32], w: &[f32], units: &[usize], out: &mut [f32]) {
    let n = x.len();
    let Some(dots) = kernel() else {
        out.iter_mut()
            .zip(units)
            .for_each(|(out, &c)| plain(x, &w[c * n..][..n], n, 1.0, false, std::slice::from_mut(out)));
        return;
    };
    for (units, out) in units.chunks(ROWS).zip(out.chunks_mut(ROWS)) {
        let rows = std::array::from_fn(|r| w[units[r.min(units.len() - 1)] * n..][..n].as_ptr());
        // SAFETY: `kernel` asked for the instruction set; each row was cut from w with as many elements as x has.
        let sums = unsafe { dots(x, rows) };
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum);
    }
}

/// [`product`] with the outputs split over the thread pool.
pub(super) fn parallel(a: View<'_, f32>, b: View<'_, f32>, c: &mut [f32], add: bool) {
    let step = c.len().div_ceil(rayon::current_num_threads()).next_multiple_of(ROWS);
    // Bound by memory beyond the caches: about four numbers of B in a nanosecond.
    par::chunks_mut(c, step, a.cols * b.cols / 4, |i, c| {
        product(a, b.block(0, i * step, b.rows, c.len()), 1.0, add, c);
    });
}

/// [`Dots`] of this processor.
fn kernel() -> Option<Dots> {
    #[cfg(target_arch = "x86_64")]
    return match crate::simd::isa() {
        crate::simd::Isa::Avx512 => Some(x86::avx512),
        crate::simd::Isa::Avx2 => Some(x86::avx2),
        crate::simd::Isa::Plain => None,
    };
    #[cfg(not(target_arch = "x86_64"))]
    None
}

vectorized! {
    /// c[j] = alpha · x·(row j of w), rows `pitch` apart.
    fn plain(x: &[f32], w: &[f32], pitch: usize, alpha: f32, add: bool, c: &mut [f32]) {
        for (j, c) in c.iter_mut().enumerate() {
            *c = if add { *c } else { 0.0 } + alpha * sum_of([x, &w[j * pitch..][..x.len()]], |[x, y]| x * y);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::ROWS;
    use std::arch::x86_64::*;

    /// # Safety
    /// As [`Dots`](super::Dots), with AVX-512 F and DQ.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    pub(super) unsafe fn avx512(x: &[f32], y: [*const f32; ROWS]) -> [f32; ROWS] {
        let (whole, rest) = x.as_chunks::<16>();
        let mut sums = [_mm512_setzero_ps(); ROWS];
        // SAFETY: x is a slice, and the caller vouches that each row is readable as far; a masked load touches no more
        // than `rest`.
        unsafe {
            for (i, x) in whole.iter().enumerate() {
                let x = _mm512_loadu_ps(x.as_ptr());
                for (sum, y) in sums.iter_mut().zip(y) {
                    *sum = _mm512_fmadd_ps(x, _mm512_loadu_ps(y.add(16 * i)), *sum);
                }
            }
            if !rest.is_empty() {
                let mask = (1 << rest.len()) - 1;
                let x = _mm512_maskz_loadu_ps(mask, rest.as_ptr());
                for (sum, y) in sums.iter_mut().zip(y) {
                    *sum = _mm512_fmadd_ps(x, _mm512_maskz_loadu_ps(mask, y.add(16 * whole.len())), *sum);
                }
            }
        }
        fold(sums.map(|s| _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps::<1>(s))))
    }

    /// # Safety
    /// As [`Dots`](super::Dots), with AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(x: &[f32], y: [*const f32; ROWS]) -> [f32; ROWS] {
        let (whole, rest) = x.as_chunks::<8>();
        let mut sums = [_mm256_setzero_ps(); ROWS];
        // SAFETY: as in `avx512`.
        unsafe {
            for (i, x) in whole.iter().enumerate() {
                let x = _mm256_loadu_ps(x.as_ptr());
                for (sum, y) in sums.iter_mut().zip(y) {
                    *sum = _mm256_fmadd_ps(x, _mm256_loadu_ps(y.add(8 * i)), *sum);
                }
            }
            if !rest.is_empty() {
                let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(rest.len() as i32), lanes);
                let x = _mm256_maskload_ps(rest.as_ptr(), mask);
                for (sum, y) in sums.iter_mut().zip(y) {
                    *sum = _mm256_fmadd_ps(x, _mm256_maskload_ps(y.add(8 * whole.len()), mask), *sum);
                }
            }
        }
        fold(sums)
    }

    /// The sum of the lanes of each: lanes four apart, then two, then one, of two vectors at a time.
    #[inline]
    #[target_feature(enable = "avx")]
    fn fold(s: [__m256; ROWS]) -> [f32; ROWS] {
        // fours[r]: four lanes of row r, four of row r + 4.
        let fours: [__m256; 4] = std::array::from_fn(|r| {
            let (a, b) = (s[r], s[r + 4]);
            _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
        });
        // twos[r]: two lanes of rows 2r, 2r + 1, 2r + 4, 2r + 5.
        let twos: [__m256; 2] = std::array::from_fn(|r| {
            let (a, b) = (fours[2 * r], fours[2 * r + 1]);
            _mm256_add_ps(_mm256_shuffle_ps::<0b01_00_01_00>(a, b), _mm256_shuffle_ps::<0b11_10_11_10>(a, b))
        });
        let [a, b] = twos;
        let ones =
            _mm256_add_ps(_mm256_shuffle_ps::<0b10_00_10_00>(a, b), _mm256_shuffle_ps::<0b11_01_11_01>(a, b));
        let mut sums = [0.0; ROWS];
        // SAFETY: `sums` has eight numbers.
        unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), ones) };
        sums
    }
}
