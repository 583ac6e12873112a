//! minimum: y = min(a, b);  dy goes to the smaller, half to each at a tie.
//!
//! Operands broadcast as in NumPy; the gradient of a stretched operand is summed. Cost: one pass; bound by memory.

use super::elementwise::{Binary, Zip};
use super::{Entry, Fill, Port, Sample};
use crate::error::Result;
use crate::kernel::reduce::SUM;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// The smaller, elementwise; NaN when either is.
#[derive(Debug, Clone, Copy)]
pub struct Minimum;

impl Binary for Minimum {
    const NAME: &'static str = "minimum";
    const ENTRIES: [&'static str; 3] = ["minimum_forward", "minimum_backward_a", "minimum_backward_b"];
    const PTX: Option<[&'static str; 3]> = Some([
        "\
        .reg .pred %p;
        min.f32 %y, %x, %z;
        setp.nan.f32 %p, %x, %z; // min drops a NaN
        selp.f32 %y, 0f7FC00000, %y, %p;",
        "\
        .reg .pred %p; .reg .f32 %share;
        setp.eq.f32 %p, %x, %z;
        selp.f32 %share, 0f3F000000, 0f3F800000, %p; // equal values share; with a NaN both get all
        setp.gt.f32 %p, %x, %z;
        selp.f32 %y, 0f00000000, %share, %p;",
        "\
        .reg .pred %p; .reg .f32 %share;
        setp.eq.f32 %p, %x, %z;
        selp.f32 %share, 0f3F000000, 0f3F800000, %p; // equal values share; with a NaN both get all
        setp.lt.f32 %p, %x, %z;
        selp.f32 %y, 0f00000000, %share, %p;",
    ]);

    #[inline(always)]
    fn value<T: Real>(a: T, b: T) -> T {
        -(-a).max_nan(-b)
    }
    #[inline(always)]
    fn slopes<T: Real>(a: T, b: T) -> [T; 2] {
        // With a NaN no comparison holds, and both get the gradient, as in torch. Selects, so that loops become vectors.
        let share = if a == b { T::of(0.5) } else { T::ONE };
        [if a > b { T::ZERO } else { share }, if a < b { T::ZERO } else { share }]
    }
}

impl<'t> Var<'t> {
    /// The smaller, elementwise; NaN when either is.
    pub fn minimum(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(Zip(Minimum), &[self, other])
    }
}

/// minimum in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "minimum",
    doc: "y = min(input, other)",
    inputs: &[Port::real("input"), Port::real("other")],
    outputs: &["output"],
    attrs: &[],
    build: |_| Ok(Arc::new(Zip(Minimum))),
    kernels: &[&Zip::<Minimum>::FORWARD, &Zip::<Minimum>::BACKWARD_A, &Zip::<Minimum>::BACKWARD_B, &SUM],
    samples: || {
        let mut all = super::elementwise::broadcasts();
        // Equal operands share the gradient; differences on both sides of the kink agree with half of it each.
        all.push(Sample::new("a tie").input(&[2], Fill::Values(vec![1.0, 3.0])).input(&[2], Fill::Values(vec![1.0, -2.0])));
        all
    },
};
