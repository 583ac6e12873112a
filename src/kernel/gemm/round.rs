//! [`Precision`] of products, and rounding to bf16 where no instruction does it.

use super::View;
use super::pack::{LEFT, RIGHT, Scratch, scratch};
use crate::vectorized;
use serde::{Deserialize, Serialize};
use std::thread::LocalKey;

/// To what a product of f32 rounds its operands. Sums, results, and all products of f64 keep their type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To bfloat16: the 8 bits of exponent of an f32, and 8 bits of precision instead of 24.
    Bf16,
}

impl Precision {
    /// Bf16 when `flag`: as kernels take it.
    pub fn bf16_if(flag: bool) -> Precision {
        if flag { Precision::Bf16 } else { Precision::F32 }
    }
    /// True for bf16.
    pub fn is_bf16(self) -> bool {
        self == Precision::Bf16
    }
}

/// The nearest bf16, ties to even; too large is infinite, NaN stays NaN.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    let bits = x.to_bits();
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    f32::from_bits(if x.is_nan() { bits | 0x0040_0000 } else { up } & 0xffff_0000)
}

/// Two numbers as a pair of bf16 in the place of one f32, the first in the lower half.
pub(super) fn pair(x: f32, y: f32) -> f32 {
    f32::from_bits(nearest(x).to_bits() >> 16 | nearest(y).to_bits())
}

vectorized! {
    /// Every number of `x` to the nearest bf16.
    pub(super) fn all(x: &mut [f32]) {
        for x in x {
            *x = nearest(*x);
        }
    }
}

/// Hands both operands to `f`, rounded in copies when `precision` asks for it.
pub(super) fn operands<R>(
    precision: Precision,
    a: View<'_, f32>,
    b: View<'_, f32>,
    f: impl FnOnce(View<'_, f32>, View<'_, f32>) -> R,
) -> R {
    match precision {
        Precision::F32 => f(a, b),
        Precision::Bf16 => copy(a, &LEFT, |a| copy(b, &RIGHT, |b| f(a, b))),
    }
}

fn copy<R>(from: View<'_, f32>, memory: &'static LocalKey<Scratch>, f: impl FnOnce(View<'_, f32>) -> R) -> R {
    // What lies together stays together.
    let turn = from.row == 1 && from.col != 1;
    let seen = if turn { from.flipped() } else { from };
    scratch(memory, seen.rows * seen.cols, |to| {
        super::copy(seen, to);
        all(to);
        let dense = View::new(to, seen.rows, seen.cols);
        f(if turn { dense.flipped() } else { dense })
    })
}
