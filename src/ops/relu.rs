//! relu: y = max(x, 0);  dx = dy · 1[x > 0], and 0 at x = 0.
//!
//! Cost: one pass over x and y forward, over y, dy and dx backward; bound by memory.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = max(x, 0).
#[derive(Debug, Clone, Copy)]
pub struct Relu;

impl Unary for Relu {
    const NAME: &'static str = "relu";
    const ENTRIES: [&'static str; 2] = ["relu_forward", "relu_backward"];
    const KEEPS: Keeps = Keeps::Output;
    const PTX: Option<[&'static str; 2]> = Some([
        "\
        .reg .pred %p;
        setp.le.f32 %p, %x, 0f00000000; // NaN is not <= 0, so it stays
        selp.f32 %y, 0f00000000, %x, %p;",
        "\
        .reg .pred %p;
        setp.gt.f32 %p, %x, 0f00000000;
        selp.f32 %y, 0f3F800000, 0f00000000, %p;",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        if x <= T::ZERO { T::ZERO } else { x } // NaN is not <= 0, so it stays
    }
    #[inline(always)]
    fn slope<T: Real>(y: T, _: [T; 2]) -> T {
        if y > T::ZERO { T::ONE } else { T::ZERO }
    }
}

impl<'t> Var<'t> {
    /// max(x, 0), elementwise.
    pub fn relu(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Relu), &[self])
    }
}

/// relu in the table of ops.
pub static ENTRY: Entry = Map::<Relu>::entry("y = max(x, 0)", &[], |_| Ok(Arc::new(Map(Relu))), || {
    vec![
        Sample::new("off the kink").input(&[5, 7], Fill::Away { std: 1.0, points: &[0.0], gap: 0.01 }),
        Sample::new("scalar").input(&[], Fill::Values(vec![-2.0])),
        Sample::new("no rows").normal(&[0, 3]),
        Sample::new("64 x 4096").normal(&[64, 4096]).large(),
    ]
});
