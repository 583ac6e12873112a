//! neg: y = −x;  dx = −dy.
//!
//! Cost: one pass over x and y, over dy and dx; nothing is kept.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = −x.
#[derive(Debug, Clone, Copy)]
pub struct Neg;

impl Unary for Neg {
    const NAME: &'static str = "neg";
    const ENTRIES: [&'static str; 2] = ["neg_forward", "neg_backward"];
    const KEEPS: Keeps = Keeps::Nothing;
    const PTX: Option<[&'static str; 2]> = Some([
        "        neg.f32 %y, %x;",
        "        mov.f32 %y, 0fBF800000;",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        -x
    }
    #[inline(always)]
    fn slope<T: Real>(_: T, _: [T; 2]) -> T {
        -T::ONE
    }
}

impl<'t> Var<'t> {
    /// −x.
    pub fn neg(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Neg), &[self])
    }
}

/// neg in the table of ops.
pub static ENTRY: Entry = Map::<Neg>::entry("y = -x", &[], |_| Ok(Arc::new(Map(Neg))), || {
    vec![
        Sample::new("matrix").normal(&[5, 7]),
        Sample::new("scalar").input(&[], Fill::Values(vec![-2.0])),
        Sample::new("no rows").normal(&[0, 3]),
        Sample::new("4096 x 512").normal(&[4096, 512]).large(),
    ]
});
