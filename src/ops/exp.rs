//! exp: y = e^x;  dx = dy · y.
//!
//! Cost: one pass over x and y forward, over y, dy and dx backward; one exponential a number.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = e^x.
#[derive(Debug, Clone, Copy)]
pub struct Exp;

impl Unary for Exp {
    const NAME: &'static str = "exp";
    const ENTRIES: [&'static str; 2] = ["exp_forward", "exp_backward"];
    const KEEPS: Keeps = Keeps::Output;
    const COST: f64 = 0.5;
    const PTX: Option<[&'static str; 2]> = Some([
        "        call (%y), exp_of, (%x);",
        "        mov.f32 %y, %x; // kept is y",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        x.exp()
    }
    #[inline(always)]
    fn slope<T: Real>(y: T, _: [T; 2]) -> T {
        y
    }
}

impl<'t> Var<'t> {
    /// e^x, elementwise.
    pub fn exp(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Exp), &[self])
    }
}

/// exp in the table of ops.
pub static ENTRY: Entry = Map::<Exp>::entry("y = exp(x)", &[], |_| Ok(Arc::new(Map(Exp))), || {
    vec![
        Sample::new("matrix").normal(&[5, 7]),
        Sample::new("far from zero").input(&[4], Fill::Values(vec![-30.0, -3.0, 3.0, 9.0])),
        Sample::new("scalar").input(&[], Fill::Values(vec![0.0])),
        Sample::new("no rows").normal(&[0, 3]),
        Sample::new("4096 x 512").normal(&[4096, 512]).large(),
    ]
});
