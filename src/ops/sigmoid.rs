//! sigmoid: y = 1 / (1 + e^−x);  dx = dy · y(1 − y).
//!
//! Cost: one pass over x and y forward, over y, dy and dx backward; one exponential a number forward.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = 1 / (1 + e^−x).
#[derive(Debug, Clone, Copy)]
pub struct Sigmoid;

impl Unary for Sigmoid {
    const NAME: &'static str = "sigmoid";
    const ENTRIES: [&'static str; 2] = ["sigmoid_forward", "sigmoid_backward"];
    const KEEPS: Keeps = Keeps::Output;
    const COST: f64 = 0.6;
    const PTX: Option<[&'static str; 2]> = Some([
        "        call (%y), sigmoid_of, (%x);",
        "\
        .reg .f32 %rest;
        sub.f32 %rest, 0f3F800000, %x; // kept is y
        mul.f32 %y, %x, %rest;",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        x.sigmoid()
    }
    #[inline(always)]
    fn slope<T: Real>(y: T, _: [T; 2]) -> T {
        y * (T::ONE - y)
    }
}

impl<'t> Var<'t> {
    /// 1 / (1 + e^−x), elementwise.
    pub fn sigmoid(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Sigmoid), &[self])
    }
}

/// sigmoid in the table of ops.
pub static ENTRY: Entry = Map::<Sigmoid>::entry("y = 1 / (1 + exp(-x))", &[], |_| Ok(Arc::new(Map(Sigmoid))), || {
    vec![
        Sample::new("matrix").normal(&[5, 7]),
        Sample::new("saturated").input(&[4], Fill::Values(vec![-200.0, -9.0, 9.0, 200.0])),
        Sample::new("scalar").input(&[], Fill::Values(vec![0.0])),
        Sample::new("no rows").normal(&[0, 3]),
        Sample::new("4096 x 512").normal(&[4096, 512]).large(),
    ]
});
