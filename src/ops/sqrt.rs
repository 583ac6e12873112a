//! sqrt: y = √x;  dx = dy / 2y (infinite at 0).
//!
//! Cost: one pass over x and y forward, over y, dy and dx backward; bound by memory.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = √x.
#[derive(Debug, Clone, Copy)]
pub struct Sqrt;

impl Unary for Sqrt {
    const NAME: &'static str = "sqrt";
    const ENTRIES: [&'static str; 2] = ["sqrt_forward", "sqrt_backward"];
    const KEEPS: Keeps = Keeps::Output;
    const PTX: Option<[&'static str; 2]> = Some([
        "        sqrt.rn.f32 %y, %x;",
        "        div.rn.f32 %y, 0f3F000000, %x; // kept is y",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        x.sqrt()
    }
    #[inline(always)]
    fn slope<T: Real>(y: T, _: [T; 2]) -> T {
        T::of(0.5) / y
    }
}

impl<'t> Var<'t> {
    /// Square root: NaN below 0.
    pub fn sqrt(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Sqrt), &[self])
    }
}

/// sqrt in the table of ops.
pub static ENTRY: Entry = Map::<Sqrt>::entry("y = sqrt(x)", &[], |_| Ok(Arc::new(Map(Sqrt))), || {
    vec![
        Sample::new("matrix").input(&[5, 7], Fill::Uniform(0.1, 4.0)),
        Sample::new("large and small").input(&[3], Fill::Values(vec![0.01, 1.0, 1e6])),
        Sample::new("scalar").input(&[], Fill::Values(vec![0.25])),
        Sample::new("no rows").normal(&[0, 3]),
        Sample::new("4096 x 512").input(&[4096, 512], Fill::Uniform(0.1, 4.0)).large(),
    ]
});
