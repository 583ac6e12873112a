//! The micro-kernel: one tile of C held in registers while k runs.
//!
//! For each k one row of B is loaded as `NV` vectors and each of `MR` elements of A is broadcast, so a step of 12 × 32
//! costs 24 multiply-adds against 2 loads and 12 broadcasts: the multiply-add units are the limit, not the loads. Every
//! element of C is one chain of fused multiply-adds over k in order, on every instruction set and in a tile of any height.
//!
//! The same tile multiplies pairs of bf16: what it loads and broadcasts is then two steps of k in 32 bits.
#![allow(
    unsafe_code,
    reason = "vector loads and stores through raw pointers, in the innermost loop of all products"
)]

use super::Precision;
use crate::simd::{Isa, bf16, isa};

/// Rows of the tallest tile of any instruction set.
pub(super) const HEIGHT: usize = 12;
/// Columns of the widest.
pub(super) const WIDTH: usize = 32;
/// Wide tiles in a tile of one row.
pub(super) const LONG: usize = 4;

/// What a tile reads and writes: `c[i][j] (+)= alpha · Σ_p a[i][p]·b[p][j]`. Elements of A and B are units: numbers, or the
/// bits of pairs of bf16.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Inner extent, in units.
    pub k: usize,
    /// Element (0, 0) of A, and the steps to the next row and the next column.
    pub a: (*const f32, usize, usize),
    /// Element (0, 0) of B, whose rows are contiguous, and the step to the next row.
    pub b: (*const f32, usize),
    /// Element (0, 0) of C, whose rows are contiguous, and the step to the next row.
    pub c: (*mut f32, usize),
    /// Factor of the product.
    pub alpha: f32,
    /// Add to C; else C is overwritten unread.
    pub accumulate: bool,
}

/// Computes a tile of the height and width that it was compiled for.
///
/// # Safety
/// The processor must have the instruction set; A must be readable over height × k, B over k × width, and C writable
/// over height × width, at the strides of the tile.
pub(super) type Kernel = unsafe fn(&Tile);

/// What the units are that tiles multiply.
pub(super) enum Operands {
    /// f32.
    F32,
    /// f32 that were rounded to bf16 while they were packed.
    Rounded,
    /// Pairs of bf16.
    Pairs(Convert),
}

/// The first of some rows, and the step from one to the next.
pub(super) type Rows = (*const f32, usize);

/// Makes pairs of bf16, each the f32 of two steps of k rounded to nearest even (numbers below the normal ones to zero).
/// All are unsafe for pointers and for the instruction set.
pub(super) struct Convert {
    /// So many numbers that lie together, two and two.
    pub along: unsafe fn(*const f32, usize, *mut f32),
    /// Rows at a step, how many, numbers in each: two rows to one of so many pairs, a multiple of 16, zeros after those
    /// of the numbers; rows of pairs at a step.
    pub across: unsafe fn(Rows, usize, usize, usize, (*mut f32, usize)),
}

/// The tiles of one instruction set.
pub(super) struct Kernels {
    /// What A and B are packed to.
    pub operands: Operands,
    /// Rows of the tallest tile.
    pub height: usize,
    /// Columns of a wide tile; a narrow one has half.
    pub width: usize,
    /// 8 × 8 numbers at a step between rows, transposed to another: reads and writes all of both.
    pub transpose: unsafe fn((*const f32, usize), (*mut f32, usize)),
    /// Wide tiles of 1, 2, … `height` rows.
    pub wide: &'static [Kernel],
    /// Narrow tiles of 1, 2, … `height` rows.
    pub narrow: &'static [Kernel],
    /// One row of [`LONG`] wide tiles: with fewer sums at a time it would wait for each.
    pub long: Kernel,
}

impl Kernels {
    /// Steps of k in a unit.
    pub(super) fn depth(&self) -> usize {
        if let Operands::Pairs(_) = self.operands { 2 } else { 1 }
    }
    /// True when rows of A and B can be read where they lie.
    pub(super) fn reads_f32(&self) -> bool {
        matches!(self.operands, Operands::F32)
    }
}

/// The tiles for this processor, or none where `matrixmultiply` has better ones than a plain loop.
pub(super) fn kernels(precision: Precision) -> Option<&'static Kernels> {
    match (isa(), precision) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Precision::F32) => Some(&x86::AVX512),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Precision::Bf16) if bf16() => Some(&x86::AVX512_PAIRS),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Precision::Bf16) => Some(&x86::AVX512_ROUNDED),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Precision::F32) => Some(&x86::AVX2),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Precision::Bf16) => Some(&x86::AVX2_ROUNDED),
        _ => None,
    }
}

/// All tiles for bf16 that this processor can run.
#[cfg(test)]
pub(super) fn all_bf16() -> Vec<&'static Kernels> {
    #[cfg(target_arch = "x86_64")]
    return [
        (Isa::Avx512, bf16(), &x86::AVX512_PAIRS),
        (Isa::Avx512, true, &x86::AVX512_ROUNDED),
        (Isa::Avx2, true, &x86::AVX2_ROUNDED),
    ]
    .into_iter()
    .filter_map(|(needs, also, k)| (isa() >= needs && also).then_some(k))
    .collect();
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// A vector register of f32.
trait Vector: Copy {
    /// Elements of a register.
    const LANES: usize;
    /// All lanes `x`.
    ///
    /// # Safety
    /// The processor has the instruction set of the register.
    unsafe fn splat(x: f32) -> Self;
    /// The `LANES` elements from `p`.
    ///
    /// # Safety
    /// As `splat`, and `p` is readable that far.
    unsafe fn load(p: *const f32) -> Self;
    /// To the `LANES` elements from `p`.
    ///
    /// # Safety
    /// As `splat`, and `p` is writable that far.
    unsafe fn store(self, p: *mut f32);
    /// self·x + y with one rounding.
    ///
    /// # Safety
    /// As `splat`.
    unsafe fn fma(self, x: Self, y: Self) -> Self;
    /// self·x + y of units: [`Vector::fma`], or the sum of both products of each pair.
    ///
    /// # Safety
    /// As `splat`.
    #[inline(always)]
    unsafe fn multiply_add(self, x: Self, y: Self) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { self.fma(x, y) }
    }
}

/// # Safety
/// As [`Kernel`], for a tile of `MR` rows and `NV` vectors.
#[inline(always)]
unsafe fn compute<V: Vector, const MR: usize, const NV: usize>(t: &Tile) {
    // SAFETY: the caller vouches for the instruction set and for every element of A, B and C within the tile; the
    // pointers move by whole rows of B and columns of A, k times.
    unsafe {
        let mut acc = [[V::splat(0.0); NV]; MR];
        let ((mut a, a_row, a_col), (mut b, b_row), (c, c_row)) = (t.a, t.b, t.c);
        // ANCHOR: step
        for _ in 0..t.k {
            let mut row = [V::splat(0.0); NV];
            for (j, r) in row.iter_mut().enumerate() {
                *r = V::load(b.add(j * V::LANES));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = V::splat(*a.add(i * a_row));
                for (acc, &r) in acc.iter_mut().zip(&row) {
                    *acc = x.multiply_add(r, *acc);
                }
            }
            a = a.wrapping_add(a_col);
            b = b.wrapping_add(b_row);
        }
        // ANCHOR_END: step
        let (alpha, zero) = (V::splat(t.alpha), V::splat(0.0));
        for (i, acc) in acc.iter().enumerate() {
            for (j, &x) in acc.iter().enumerate() {
                let p = c.add(i * c_row + j * V::LANES);
                x.fma(alpha, if t.accumulate { V::load(p) } else { zero }).store(p);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::pairs::x86 as convert;
    use super::{Kernel, Kernels, LONG, Operands, Tile, Vector, compute};
    use std::arch::x86_64::*;

    macro_rules! vector {
        ($t:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $fma:ident) => {
            impl Vector for $t {
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn splat(x: f32) -> Self {
                    // SAFETY: the caller vouches for the instruction set.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(p: *const f32) -> Self {
                    // SAFETY: the caller vouches for the instruction set and the elements.
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut f32) {
                    // SAFETY: as in `load`.
                    unsafe { $store(p, self) }
                }
                #[inline(always)]
                unsafe fn fma(self, x: Self, y: Self) -> Self {
                    // SAFETY: the caller vouches for the instruction set.
                    unsafe { $fma(self, x, y) }
                }
            }
        };
    }
    vector!(__m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps);
    vector!(__m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);

    /// Sixteen pairs of bf16, or sixteen sums.
    #[derive(Clone, Copy)]
    struct Pairs(__m512);

    impl Vector for Pairs {
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            Pairs(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller vouches for the instruction set and the elements.
            Pairs(unsafe { _mm512_loadu_ps(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: as in `load`.
            unsafe { _mm512_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn fma(self, x: Self, y: Self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            Pairs(unsafe { _mm512_fmadd_ps(self.0, x.0, y.0) })
        }
        #[inline(always)]
        unsafe fn multiply_add(self, x: Self, y: Self) -> Self {
            // SAFETY: the caller vouches for the instruction set; a register of sums and one of pairs are 64 bytes alike.
            unsafe {
                let a = std::mem::transmute::<__m512, __m512bh>(self.0);
                let b = std::mem::transmute::<__m512, __m512bh>(x.0);
                Pairs(_mm512_dpbf16_ps(y.0, a, b))
            }
        }
    }

    /// # Safety
    /// As [`Kernel`], with AVX-512 BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")]
    unsafe fn pairs<const MR: usize, const NV: usize>(t: &Tile) {
        // SAFETY: passed on to the caller.
        unsafe { compute::<Pairs, MR, NV>(t) }
    }

    /// # Safety
    /// As [`Kernel`], with AVX-512 F.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
    unsafe fn avx512<const MR: usize, const NV: usize>(t: &Tile) {
        // SAFETY: passed on to the caller.
        unsafe { compute::<__m512, MR, NV>(t) }
    }

    /// # Safety
    /// As [`Kernel`], with AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const MR: usize, const NV: usize>(t: &Tile) {
        // SAFETY: passed on to the caller.
        unsafe { compute::<__m256, MR, NV>(t) }
    }

    /// Rows of 8 become columns: pairs, then fours, then halves change places.
    ///
    /// # Safety
    /// With AVX2; both matrices span 8 rows of 8 numbers at their steps.
    #[target_feature(enable = "avx2")]
    unsafe fn transpose8((from, from_row): (*const f32, usize), (to, to_row): (*mut f32, usize)) {
        // SAFETY: the caller vouches for both extents.
        let r: [__m256; 8] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(from.add(i * from_row)) });
        let pairs: [__m256; 8] = std::array::from_fn(|i| match i % 2 {
            0 => _mm256_unpacklo_ps(r[i], r[i + 1]),
            _ => _mm256_unpackhi_ps(r[i - 1], r[i]),
        });
        // fours[4h + q] holds columns q and q + 4 (h = 0: rows 0 to 3, h = 1: rows 4 to 7) for q = 0, 1, 2, 3.
        let four = |low: __m256, high: __m256, upper: bool| match upper {
            false => _mm256_shuffle_ps::<0b0100_0100>(low, high),
            true => _mm256_shuffle_ps::<0b1110_1110>(low, high),
        };
        let fours: [__m256; 8] = std::array::from_fn(|i| {
            let (h, q) = (i / 4, i % 4);
            four(pairs[4 * h + q / 2], pairs[4 * h + q / 2 + 2], q % 2 == 1)
        });
        for q in 0..4 {
            let (low, high) = (fours[q], fours[q + 4]);
            // SAFETY: as above.
            unsafe {
                _mm256_storeu_ps(to.add(q * to_row), _mm256_permute2f128_ps::<0x20>(low, high));
                _mm256_storeu_ps(to.add((q + 4) * to_row), _mm256_permute2f128_ps::<0x31>(low, high));
            }
        }
    }

    macro_rules! heights {
        ($f:ident, $nv:literal: $($mr:literal)*) => { &[$($f::<$mr, $nv> as Kernel),*] };
    }
    // 24 of 32 registers hold the tile, and 12 of 16.
    const WIDE: Kernels = Kernels {
        operands: Operands::F32,
        height: 12,
        width: 32,
        transpose: transpose8,
        wide: heights!(avx512, 2: 1 2 3 4 5 6 7 8 9 10 11 12),
        narrow: heights!(avx512, 1: 1 2 3 4 5 6 7 8 9 10 11 12),
        long: avx512::<1, { 2 * LONG }>,
    };
    const FAIR: Kernels = Kernels {
        operands: Operands::F32,
        height: 6,
        width: 16,
        transpose: transpose8,
        wide: heights!(avx2, 2: 1 2 3 4 5 6),
        narrow: heights!(avx2, 1: 1 2 3 4 5 6),
        long: avx2::<1, { 2 * LONG }>,
    };
    pub(super) static AVX512: Kernels = WIDE;
    pub(super) static AVX2: Kernels = FAIR;
    pub(super) static AVX512_ROUNDED: Kernels = Kernels { operands: Operands::Rounded, ..WIDE };
    pub(super) static AVX2_ROUNDED: Kernels = Kernels { operands: Operands::Rounded, ..FAIR };
    pub(super) static AVX512_PAIRS: Kernels = Kernels {
        operands: Operands::Pairs(convert::AVX512),
        wide: heights!(pairs, 2: 1 2 3 4 5 6 7 8 9 10 11 12),
        narrow: heights!(pairs, 1: 1 2 3 4 5 6 7 8 9 10 11 12),
        long: pairs::<1, { 2 * LONG }>,
        ..WIDE
    };
}
