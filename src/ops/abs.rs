//! abs: y = |x|;  dx = dy · sign(x), and 0 at x = 0.
//!
//! Cost: one pass over x and y forward, over x, dy and dx backward; bound by memory.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = |x|.
#[derive(Debug, Clone, Copy)]
pub struct Abs;

impl Unary for Abs {
    const NAME: &'static str = "abs";
    const ENTRIES: [&'static str; 2] = ["abs_forward", "abs_backward"];
    const KEEPS: Keeps = Keeps::Input;
    const PTX: Option<[&'static str; 2]> = Some([
        "        abs.f32 %y, %x;",
        "\
        .reg .pred %up, %down; .reg .f32 %minus;
        setp.gt.f32 %up, %x, 0f00000000;
        setp.lt.f32 %down, %x, 0f00000000;
        selp.f32 %minus, 0fBF800000, 0f00000000, %down;
        selp.f32 %y, 0f3F800000, %minus, %up;",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        x.abs()
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, _: [T; 2]) -> T {
        let down = if x < T::ZERO { -T::ONE } else { T::ZERO };
        if x > T::ZERO { T::ONE } else { down }
    }
}

impl<'t> Var<'t> {
    /// Absolute value; slope 0 at 0.
    pub fn abs(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Abs), &[self])
    }
}

/// abs in the table of ops.
pub static ENTRY: Entry = Map::<Abs>::entry("y = |x|, slope 0 at 0", &[], |_| Ok(Arc::new(Map(Abs))), || {
    vec![
        Sample::new("off the kink").input(&[5, 7], Fill::Away { std: 1.0, points: &[0.0], gap: 0.01 }),
        Sample::new("scalar").input(&[], Fill::Values(vec![-2.0])),
        Sample::new("no rows").normal(&[0, 3]),
        Sample::new("4096 x 512").normal(&[4096, 512]).large(),
    ]
});
