//! tanh: y = tanh x;  dx = dy · (1 − y²).
//!
//! Cost: one pass over x and y forward, over y, dy and dx backward; one exponential a number forward.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = tanh x.
#[derive(Debug, Clone, Copy)]
pub struct Tanh;

impl Unary for Tanh {
    const NAME: &'static str = "tanh";
    const ENTRIES: [&'static str; 2] = ["tanh_forward", "tanh_backward"];
    const KEEPS: Keeps = Keeps::Output;
    const COST: f64 = 0.7;
    const PTX: Option<[&'static str; 2]> = Some([
        "        call (%y), tanh_of, (%x);",
        "\
        .reg .f32 %minus;
        neg.f32 %minus, %x; // kept is y
        fma.rn.f32 %y, %minus, %x, 0f3F800000;",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        x.tanh()
    }
    #[inline(always)]
    fn slope<T: Real>(y: T, _: [T; 2]) -> T {
        T::ONE - y * y
    }
}

impl<'t> Var<'t> {
    /// Hyperbolic tangent.
    pub fn tanh(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Tanh), &[self])
    }
}

/// tanh in the table of ops.
pub static ENTRY: Entry = Map::<Tanh>::entry("y = tanh(x)", &[], |_| Ok(Arc::new(Map(Tanh))), || {
    vec![
        Sample::new("matrix").normal(&[5, 7]),
        Sample::new("saturated").input(&[6], Fill::Values(vec![-40.0, -9.0, -0.6, 0.6, 9.0, 40.0])),
        Sample::new("scalar").input(&[], Fill::Values(vec![0.0])),
        Sample::new("no rows").normal(&[0, 3]),
        Sample::new("4096 x 512").normal(&[4096, 512]).large(),
    ]
});
