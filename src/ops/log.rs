//! log: y = ln x;  dx = dy / x.
//!
//! Cost: one pass over x and y forward, over x, dy and dx backward; one logarithm a number.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = ln x.
#[derive(Debug, Clone, Copy)]
pub struct Log;

impl Unary for Log {
    const NAME: &'static str = "log";
    const ENTRIES: [&'static str; 2] = ["log_forward", "log_backward"];
    const KEEPS: Keeps = Keeps::Input;
    const COST: f64 = 0.5;
    const PTX: Option<[&'static str; 2]> = Some([
        "        call (%y), ln_of, (%x);",
        "        rcp.rn.f32 %y, %x;",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        x.ln()
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, _: [T; 2]) -> T {
        T::ONE / x
    }
}

impl<'t> Var<'t> {
    /// Natural logarithm: −inf at 0, NaN below.
    pub fn log(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Log), &[self])
    }
}

/// log in the table of ops.
pub static ENTRY: Entry = Map::<Log>::entry("y = ln(x)", &[], |_| Ok(Arc::new(Map(Log))), || {
    vec![
        Sample::new("matrix").input(&[5, 7], Fill::Uniform(0.1, 4.0)),
        Sample::new("large and small").input(&[3], Fill::Values(vec![0.01, 1.0, 1e6])),
        Sample::new("scalar").input(&[], Fill::Values(vec![0.5])),
        Sample::new("no rows").normal(&[0, 3]),
        Sample::new("4096 x 512").input(&[4096, 512], Fill::Uniform(0.1, 4.0)).large(),
    ]
});
