//! div: y = a/b;  da = dy/b,  db = −dy·a/b².
//!
//! Operands broadcast as in NumPy; the gradient of a stretched operand is summed. Cost: one pass; bound by memory.

use super::elementwise::{Binary, Zip};
use super::{Entry, Fill, Port};
use crate::error::Result;
use crate::kernel::reduce::SUM;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// Quotient, elementwise.
#[derive(Debug, Clone, Copy)]
pub struct Div;

impl Binary for Div {
    const NAME: &'static str = "div";
    const ENTRIES: [&'static str; 3] = ["div_forward", "div_backward_a", "div_backward_b"];
    const PTX: Option<[&'static str; 3]> = Some([
        "        div.rn.f32 %y, %x, %z;",
        "        rcp.rn.f32 %y, %z;",
        "\
        div.rn.f32 %y, %x, %z;
        div.rn.f32 %y, %y, %z;
        neg.f32 %y, %y;",
    ]);

    #[inline(always)]
    fn value<T: Real>(a: T, b: T) -> T {
        a / b
    }
    #[inline(always)]
    fn slopes<T: Real>(a: T, b: T) -> [T; 2] {
        [T::ONE / b, -(a / b) / b]
    }
}

impl<'t> Var<'t> {
    /// Quotient, elementwise.
    pub fn div(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(Zip(Div), &[self, other])
    }
}

/// div in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "div",
    doc: "y = input / other",
    inputs: &[Port::real("input"), Port::real("other")],
    outputs: &["output"],
    attrs: &[],
    build: |_| Ok(Arc::new(Zip(Div))),
    kernels: &[&Zip::<Div>::FORWARD, &Zip::<Div>::BACKWARD_A, &Zip::<Div>::BACKWARD_B, &SUM],
    samples: || {
        let mut all = super::elementwise::broadcasts();
        all.iter_mut().for_each(|s| s.inputs[1].1 = Fill::Away { std: 1.0, points: &[0.0], gap: 0.3 });
        all
    },
};
