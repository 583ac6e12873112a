//! sub: y = a − b;  da = dy,  db = −dy.
//!
//! Operands broadcast as in NumPy; the gradient of a stretched operand is summed. Cost: one pass; bound by memory.

use super::elementwise::{Binary, Zip};
use super::{Entry, Port};
use crate::error::Result;
use crate::kernel::basic::SCALE;
use crate::kernel::reduce::SUM;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// Difference, elementwise.
#[derive(Debug, Clone, Copy)]
pub struct Sub;

impl Binary for Sub {
    const NAME: &'static str = "sub";
    const ENTRIES: [&'static str; 3] = ["sub_forward", "sub_backward_a", "sub_backward_b"];
    const CONSTANT: Option<[f64; 2]> = Some([1.0, -1.0]);
    const PTX: Option<[&'static str; 3]> = Some([
        "        sub.f32 %y, %x, %z;",
        "        mov.f32 %y, 0f3F800000;",
        "        mov.f32 %y, 0fBF800000;",
    ]);

    #[inline(always)]
    fn value<T: Real>(a: T, b: T) -> T {
        a - b
    }
    #[inline(always)]
    fn slopes<T: Real>(_: T, _: T) -> [T; 2] {
        [T::ONE, -T::ONE]
    }
}

impl<'t> Var<'t> {
    /// Difference, elementwise.
    pub fn sub(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(Zip(Sub), &[self, other])
    }
}

/// sub in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "sub",
    doc: "y = input - other",
    inputs: &[Port::real("input"), Port::real("other")],
    outputs: &["output"],
    attrs: &[],
    build: |_| Ok(Arc::new(Zip(Sub))),
    kernels: &[&Zip::<Sub>::FORWARD, &SUM, &SCALE],
    samples: super::elementwise::broadcasts,
};
