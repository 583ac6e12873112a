//! [`Real`]: the two element types that kernels are written over.

use super::reduce::sum_of;
use super::{gemm, math};
use crate::simd;
use crate::tensor::Element;
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// f32 to run and f64 to check, under one body. No function here fuses a product with a sum, so elementwise results
/// have the same bits on every instruction set; only [`gemm`] uses fused multiply-add, and who asks for [`Real::mul_add`].
pub trait Real:
    Element
    + Debug
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// -inf.
    const NEG_INFINITY: Self;
    /// The nearest value of this type.
    fn of(x: f64) -> Self;
    /// As `f64`, exactly.
    fn f64(self) -> f64;
    /// e^x. f32: within 2 ulp.
    fn exp(self) -> Self;
    /// e^x for x ≤ 0, 0 where that is below the smallest normal number. f32: within 2 ulp.
    fn exp_nonpositive(self) -> Self;
    /// Natural logarithm. f32: within 2 ulp.
    fn ln(self) -> Self;
    /// Hyperbolic tangent. f32: within 3 ulp.
    fn tanh(self) -> Self;
    /// The standard normal distribution Φ and its density φ. f32: Φ within 6 ulp from −1 up; below,
    /// relative errors of up to 3e-7·(1 + x²/2).
    fn normal(self) -> (Self, Self);
    /// self·a + b, rounded once: an instruction where the function that it is inlined in is compiled for AVX2 or AVX-512
    /// ([`vectorized!`](crate::vectorized!)) or the processor always has it, else a call of the C library, which is slow.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Power.
    fn powf(self, e: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The larger; NaN when either is (as torch and NumPy do, unlike IEEE maxNum).
    fn max_nan(self, other: Self) -> Self;
    /// True for NaN.
    fn is_nan(self) -> bool;
    /// C = alpha·A·B on one thread, or C += when `accumulate`; see [`gemm::View`].
    fn gemm(
        a: gemm::View<'_, Self>,
        b: gemm::View<'_, Self>,
        alpha: Self,
        accumulate: bool,
        c: gemm::ViewMut<'_, Self>,
    ) {
        Self::gemm_in(gemm::Precision::F32, a, b, alpha, accumulate, c);
    }
    /// [`Real::gemm`] of operands that are rounded to `precision`; f64 are not.
    fn gemm_in(
        precision: gemm::Precision,
        a: gemm::View<'_, Self>,
        b: gemm::View<'_, Self>,
        alpha: Self,
        accumulate: bool,
        c: gemm::ViewMut<'_, Self>,
    );
    /// [`gemm::transpose`].
    fn transpose(from: gemm::View<'_, Self>, to: &mut [Self]);
    /// Bits of what exceeds a threshold: [`simd::above`].
    fn above(x: &[Self], theta: &[Self], words: &mut [i32]);
    /// `out[i]` = x·(row `units[i]` of w), rows as long as x.
    fn picked_dots(x: &[Self], w: &[Self], units: &[usize], out: &mut [Self]);
    /// [`gemm::matmul_then`] of a product that is not empty.
    fn matmul(
        precision: gemm::Precision,
        a: gemm::View<'_, Self>,
        b: gemm::View<'_, Self>,
        c: &mut [Self],
        accumulate: bool,
        finish: &(dyn Fn(&mut [Self]) + Sync),
    );

    /// 1 / (1 + e^-x), without overflow for large |x|.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        // For x < 0 e^-x may be inf, and 1/inf = 0 is the right limit; no branch is needed.
        Self::ONE / (Self::ONE + (-self).exp())
    }
}

macro_rules! common {
    ($t:ty) => {
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
        const NEG_INFINITY: Self = <$t>::NEG_INFINITY;
        #[inline(always)]
        fn of(x: f64) -> Self {
            x as $t
        }
        #[inline(always)]
        fn f64(self) -> f64 {
            self as f64
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            <$t>::mul_add(self, a, b)
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            self.sqrt()
        }
        #[inline(always)]
        fn powf(self, e: Self) -> Self {
            self.powf(e)
        }
        #[inline(always)]
        fn abs(self) -> Self {
            self.abs()
        }
        #[inline(always)]
        fn max_nan(self, other: Self) -> Self {
            if self > other || self.is_nan() { self } else { other }
        }
        #[inline(always)]
        fn is_nan(self) -> bool {
            self != self
        }
    };
}

impl Real for f32 {
    common!(f32);
    #[inline(always)]
    fn exp(self) -> f32 {
        math::exp(self)
    }
    #[inline(always)]
    fn exp_nonpositive(self) -> f32 {
        math::exp_nonpositive(self)
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        math::ln(self)
    }
    #[inline(always)]
    fn tanh(self) -> f32 {
        math::tanh(self)
    }
    #[inline(always)]
    fn normal(self) -> (f32, f32) {
        math::normal(self)
    }
    fn gemm_in(
        precision: gemm::Precision,
        a: gemm::View<'_, f32>,
        b: gemm::View<'_, f32>,
        alpha: f32,
        accumulate: bool,
        c: gemm::ViewMut<'_, f32>,
    ) {
        gemm::sgemm(precision, a, b, alpha, accumulate, c);
    }
    fn transpose(from: gemm::View<'_, f32>, to: &mut [f32]) {
        gemm::stranspose(from, to);
    }
    fn above(x: &[f32], theta: &[f32], words: &mut [i32]) {
        simd::above(x, theta, words);
    }
    fn picked_dots(x: &[f32], w: &[f32], units: &[usize], out: &mut [f32]) {
        gemm::picked(x, w, units, out);
    }
    fn matmul(
        precision: gemm::Precision,
        a: gemm::View<'_, f32>,
        b: gemm::View<'_, f32>,
        c: &mut [f32],
        accumulate: bool,
        finish: &(dyn Fn(&mut [f32]) + Sync),
    ) {
        gemm::smatmul(precision, a, b, c, accumulate, finish);
    }
}

impl Real for f64 {
    common!(f64);
    #[inline(always)]
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    #[inline(always)]
    fn exp_nonpositive(self) -> f64 {
        f64::exp(self)
    }
    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    #[inline(always)]
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    #[inline(always)]
    fn normal(self) -> (f64, f64) {
        let below = 0.5 * libm::erfc(-self * FRAC_1_SQRT_2);
        (below, (-0.5 * self * self).exp() / (2.0 * PI).sqrt())
    }
    fn gemm_in(
        _: gemm::Precision,
        a: gemm::View<'_, f64>,
        b: gemm::View<'_, f64>,
        alpha: f64,
        accumulate: bool,
        c: gemm::ViewMut<'_, f64>,
    ) {
        gemm::dgemm(a, b, alpha, accumulate, c);
    }
    fn transpose(from: gemm::View<'_, f64>, to: &mut [f64]) {
        gemm::copy(from, to);
    }
    fn above(x: &[f64], theta: &[f64], words: &mut [i32]) {
        simd::above_plain(x, theta, words);
    }
    fn picked_dots(x: &[f64], w: &[f64], units: &[usize], out: &mut [f64]) {
        for (out, &c) in out.iter_mut().zip(units) {
            *out = sum_of([x, &w[c * x.len()..][..x.len()]], |[x, y]| x * y);
        }
    }
    fn matmul(
        _: gemm::Precision,
        a: gemm::View<'_, f64>,
        b: gemm::View<'_, f64>,
        c: &mut [f64],
        accumulate: bool,
        finish: &(dyn Fn(&mut [f64]) + Sync),
    ) {
        gemm::dmatmul(a, b, c, accumulate, finish);
    }
}
