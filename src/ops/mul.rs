//! mul: y = a·b;  da = dy·b,  db = dy·a.
//!
//! Operands broadcast as in NumPy; the gradient of a stretched operand is summed. Cost: one pass; bound by memory.

use super::elementwise::{Binary, Zip};
use super::{Entry, Port};
use crate::error::Result;
use crate::kernel::reduce::SUM;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// Product, elementwise.
#[derive(Debug, Clone, Copy)]
pub struct Mul;

impl Binary for Mul {
    const NAME: &'static str = "mul";
    const ENTRIES: [&'static str; 3] = ["mul_forward", "mul_backward_a", "mul_backward_b"];
    const PTX: Option<[&'static str; 3]> = Some([
        "        mul.f32 %y, %x, %z;",
        "        mov.f32 %y, %z;",
        "        mov.f32 %y, %x;",
    ]);

    // ANCHOR: mul
    #[inline(always)]
    fn value<T: Real>(a: T, b: T) -> T {
        a * b
    }
    #[inline(always)]
    fn slopes<T: Real>(a: T, b: T) -> [T; 2] {
        [b, a]
    }
    // ANCHOR_END: mul
}

impl<'t> Var<'t> {
    /// Product, elementwise.
    pub fn mul(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(Zip(Mul), &[self, other])
    }
}

/// mul in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "mul",
    doc: "y = input · other",
    inputs: &[Port::real("input"), Port::real("other")],
    outputs: &["output"],
    attrs: &[],
    build: |_| Ok(Arc::new(Zip(Mul))),
    kernels: &[&Zip::<Mul>::FORWARD, &Zip::<Mul>::BACKWARD_A, &Zip::<Mul>::BACKWARD_B, &SUM],
    samples: super::elementwise::broadcasts,
};
