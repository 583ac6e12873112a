//! mish: y = x·w with w = n/(n + 2), n = e^x·(e^x + 2);  dx = dy · (w + x·w′), w′ = 4e^x·(e^x + 1)/(n + 2)².
//!
//! Cost: one pass over x and y forward, over x, dy and dx backward; an exponential and a division an element.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = x·tanh(ln(1 + e^x)).
#[derive(Debug, Clone, Copy)]
pub struct Mish;

// ANCHOR: cpu
impl Unary for Mish {
    const NAME: &'static str = "mish";
    const ENTRIES: [&'static str; 2] = ["mish_forward", "mish_backward"];
    const KEEPS: Keeps = Keeps::Input;

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        let e = x.exp();
        let n = e * (e + T::of(2.0));
        x * (n / (n + T::of(2.0)))
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, _: [T; 2]) -> T {
        let e = x.exp();
        let n = e * (e + T::of(2.0));
        let d = n + T::of(2.0);
        n / d + x * (T::of(4.0) * e * (e + T::ONE) / (d * d))
    }
}
// ANCHOR_END: cpu

// ANCHOR: entry
impl<'t> Var<'t> {
    /// x·tanh(ln(1 + e^x)), elementwise.
    pub fn mish(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Mish), &[self])
    }
}

/// mish in the table of ops.
pub static ENTRY: Entry = Map::<Mish>::entry(
    "y = x * tanh(ln(1 + e^x))",
    &[],
    |_| Ok(Arc::new(Map(Mish))),
    || {
        vec![
            Sample::new("matrix").normal(&[5, 7]),
            Sample::new("far out").input(&[6], Fill::Values(vec![-200.0, -30.0, -5.0, 5.0, 30.0, 200.0])),
            Sample::new("scalar").input(&[], Fill::Values(vec![0.0])),
            Sample::new("no rows").normal(&[0, 3]),
            Sample::new("4096 x 512").normal(&[4096, 512]).large(),
        ]
    },
);
// ANCHOR_END: entry
