//! scale: y = factor · x;  dx = factor · dy.
//!
//! Cost: one pass over x and y, over dy and dx; nothing is kept.

use super::elementwise::{Keeps, Map, Unary};
use super::{AttrDoc, Attrs, Entry, Fill, Kind, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::{Op, Var};
use std::sync::Arc;

/// y = factor · x.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// What every number is multiplied by.
    pub factor: f64,
}

impl Unary for Scale {
    const NAME: &'static str = "scale";
    const ENTRIES: [&'static str; 2] = ["scale_forward", "scale_backward"];
    const KEEPS: Keeps = Keeps::Nothing;
    const PTX: Option<[&'static str; 2]> = Some([
        "        mul.f32 %y, %c0, %x;",
        "        mov.f32 %y, %c0;",
    ]);
    fn constants(&self) -> [f64; 2] {
        [self.factor, 0.0]
    }

    #[inline(always)]
    fn value<T: Real>(x: T, [factor, _]: [T; 2]) -> T {
        factor * x
    }
    #[inline(always)]
    fn slope<T: Real>(_: T, [factor, _]: [T; 2]) -> T {
        factor
    }
}

impl<'t> Var<'t> {
    /// factor · x, elementwise.
    pub fn scale(&self, factor: f64) -> Result<Var<'t>> {
        self.tape().apply1(Map(Scale { factor }), &[self])
    }
}

const ATTRS: &[AttrDoc] =
    &[AttrDoc { name: "factor", kind: Kind::Real, default: None, doc: "what every number is multiplied by" }];

fn build(a: &Attrs) -> Result<Arc<dyn Op>> {
    Ok(Arc::new(Map(Scale { factor: a.real("factor")? })))
}

/// scale in the table of ops.
pub static ENTRY: Entry = Map::<Scale>::entry("y = factor * x", ATTRS, build, || {
    vec![
        Sample::new("matrix").attr("factor", 2.5).normal(&[5, 7]),
        Sample::new("by 0").attr("factor", 0).normal(&[3]),
        Sample::new("scalar").attr("factor", -0.5).input(&[], Fill::Values(vec![3.0])),
        Sample::new("no rows").attr("factor", 2).normal(&[0, 3]),
        Sample::new("4096 x 512").attr("factor", 2.5).normal(&[4096, 512]).large(),
    ]
});
