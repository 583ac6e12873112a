//! Operands as pairs of bf16: two steps of k in the place of one f32, converted while they are packed.
//!
//! The pairs of a row of A, broadcast, meet those of a row of a panel of B in one instruction that multiplies both and adds
//! both products to an f32: half the instructions, loads and packed memory of a product of f32.
#![allow(unsafe_code, reason = "hands the converting kernels pointers into checked slices")]

use super::View;
use super::micro::{Convert, Kernels};
use super::pack::{LEFT, scratch, transpose};
use super::round;

/// Pairs of a row that are converted before they change places with columns.
const STRETCH: usize = 64;

/// `b`, whose columns one panel covers, as rows of `k.width` pairs, zeros beyond.
pub(super) fn panel(k: &Kernels, convert: &Convert, b: View<'_, f32>, to: &mut [f32]) {
    let units = b.rows.div_ceil(2);
    assert!(b.cols <= k.width && to.len() >= units * k.width, "a panel has room for its pairs");
    if b.col == 1 {
        // SAFETY: `kernels` chose the function by the processor; the view reaches `rows` rows of `cols` numbers at this
        // step, and the panel has room for `units` rows of a width.
        unsafe {
            (convert.across)((b.data.as_ptr(), b.row), b.rows, b.cols, k.width, (to.as_mut_ptr(), k.width))
        };
    } else if b.row == 1 {
        let mut rows = [0.0; super::micro::WIDTH * STRETCH];
        for p in (0..units).step_by(STRETCH) {
            let some = b.block(2 * p, 0, (2 * STRETCH).min(b.rows - 2 * p), b.cols);
            for (j, to) in rows.chunks_exact_mut(STRETCH).enumerate().take(b.cols) {
                along(convert, &some.data[j * some.col..][..some.rows], to);
            }
            let high = some.rows.div_ceil(2);
            let pairs = View::strided(&rows, high, b.cols, 1, STRETCH);
            transpose(k, pairs, k.width, &mut to[p * k.width..][..high * k.width]);
        }
    } else {
        for (p, to) in to.chunks_exact_mut(k.width).enumerate().take(units) {
            to.fill(0.0);
            to[..b.cols].iter_mut().enumerate().for_each(|(j, x)| *x = pair(b.flipped(), j, p));
        }
    }
}

/// `a` as pairs for `f`, in a copy in which lies together what does so in `a`.
pub(super) fn left(convert: &Convert, a: View<'_, f32>, f: impl FnOnce(View<'_, f32>)) {
    let units = a.cols.div_ceil(2);
    // An odd number of cache lines from row to row spreads them over all sets of the cache.
    let pitch = |n: usize| (n.div_ceil(16) | 1) * 16;
    if a.row == 1 && a.col != 1 {
        let pitch = pitch(a.rows);
        return scratch(&LEFT, units * pitch, |to| {
            let (from, to_rows) = ((a.data.as_ptr(), a.col), (to.as_mut_ptr(), pitch));
            // SAFETY: `kernels` chose the function by the processor; the view reaches `cols` columns of `rows` numbers at
            // this step, and the memory holds `units` rows of `pitch` pairs.
            unsafe { (convert.across)(from, a.cols, a.rows, a.rows.next_multiple_of(16), to_rows) };
            f(View::strided(to, a.rows, units, 1, pitch));
        });
    }
    let pitch = pitch(units);
    scratch(&LEFT, a.rows * pitch, |to| {
        for (i, to) in to.chunks_exact_mut(pitch).enumerate() {
            if a.col == 1 {
                along(convert, &a.data[i * a.row..][..a.cols], to);
            } else {
                to[..units].iter_mut().enumerate().for_each(|(p, x)| *x = pair(a, i, p));
            }
        }
        f(View::strided(to, a.rows, units, pitch, 1));
    });
}

/// Numbers that lie together as pairs; the last has a zero when it is alone.
fn along(convert: &Convert, from: &[f32], to: &mut [f32]) {
    assert!(from.len().div_ceil(2) <= to.len(), "a row has room for its pairs");
    // SAFETY: `kernels` chose the function by the processor, and the slices are as long as it reads and writes.
    unsafe { (convert.along)(from.as_ptr(), from.len(), to.as_mut_ptr()) };
}

/// Pair `p` of row `i` of `a`, whatever its strides.
fn pair(a: View<'_, f32>, i: usize, p: usize) -> f32 {
    let at = |p: usize| if p < a.cols { a.data[i * a.row + p * a.col] } else { 0.0 };
    round::pair(at(2 * p), at(2 * p + 1))
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::super::micro::{Convert, Rows};
    use std::arch::x86_64::*;

    pub(in super::super) const AVX512: Convert = Convert { along, across };

    /// The lowest `n` of 16 lanes.
    fn lanes(n: usize) -> __mmask16 {
        if n >= 16 { !0 } else { (1 << n) - 1 }
    }

    /// See [`Convert::along`].
    ///
    /// # Safety
    /// With AVX-512 BW and BF16; `n` numbers are readable, half as many pairs writable.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn along(from: *const f32, n: usize, to: *mut f32) {
        // SAFETY: every load and store is inside what the caller vouches for: whole vectors up to a multiple of 32, then
        // the lanes that are left.
        unsafe {
            let whole = n / 32 * 32;
            for p in (0..whole).step_by(32) {
                let (low, high) = (_mm512_loadu_ps(from.add(p)), _mm512_loadu_ps(from.add(p + 16)));
                let pairs: __m512 = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_ps(to.add(p / 2), pairs);
            }
            let rest = n - whole;
            if rest > 0 {
                let low = _mm512_maskz_loadu_ps(lanes(rest), from.add(whole));
                let high =
                    _mm512_maskz_loadu_ps(lanes(rest.saturating_sub(16)), from.wrapping_add(whole + 16));
                let pairs: __m512 = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_mask_storeu_ps(to.add(whole / 2), lanes(rest.div_ceil(2)), pairs);
            }
        }
    }

    /// See [`Convert::across`].
    ///
    /// # Safety
    /// With AVX-512 BW and BF16; `k` rows of `n` numbers are readable at their step, half as many of `wide` pairs writable.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn across((from, step): Rows, k: usize, n: usize, wide: usize, (to, pitch): (*mut f32, usize)) {
        // A number of the first row and its neighbour of the second: 0, 16, 1, 17, …
        let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
        // SAFETY: loads are masked to the `n` numbers of a row, and there is no second row after the last; stores are whole
        // vectors of the `wide` pairs of a row.
        unsafe {
            let order = _mm512_loadu_epi16(order.as_ptr().cast());
            for p in 0..k.div_ceil(2) {
                let (first, second) = (from.add(2 * p * step), from.wrapping_add((2 * p + 1) * step));
                let to = to.add(p * pitch);
                let both = if 2 * p + 1 < k { !0 } else { 0 };
                for v in (0..wide).step_by(16) {
                    let wanted = lanes(n.saturating_sub(v));
                    let low = _mm512_maskz_loadu_ps(wanted, first.wrapping_add(v));
                    let high = _mm512_maskz_loadu_ps(wanted & both, second.wrapping_add(v));
                    let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                    let pairs = _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, pairs));
                    _mm512_storeu_ps(to.add(v), pairs);
                }
            }
        }
    }
}
