//! clamp: y = min(max(x, min), max);  dx = dy · 1[min ≤ x ≤ max].
//!
//! Cost: one pass over x and y forward, over x, dy and dx backward; bound by memory.

use super::elementwise::{Keeps, Map, Unary};
use super::{AttrDoc, Attrs, Entry, Fill, Kind, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::{Op, Var};
use std::sync::Arc;

/// y = min(max(x, min), max): max wins where the bounds cross.
#[derive(Debug, Clone, Copy)]
pub struct Clamp {
    /// Lower bound; −inf for none.
    pub min: f64,
    /// Upper bound; inf for none.
    pub max: f64,
}

impl Unary for Clamp {
    const NAME: &'static str = "clamp";
    const ENTRIES: [&'static str; 2] = ["clamp_forward", "clamp_backward"];
    const KEEPS: Keeps = Keeps::Input;
    const PTX: Option<[&'static str; 2]> = Some([
        "\
        .reg .pred %p;
        setp.lt.f32 %p, %x, %c0; // NaN is not below, so it stays
        selp.f32 %y, %c0, %x, %p;
        setp.gt.f32 %p, %y, %c1;
        selp.f32 %y, %c1, %y, %p;",
        "\
        .reg .pred %p;
        setp.gt.f32 %p, %x, %c0;
        setp.lt.and.f32 %p, %x, %c1, %p;
        selp.f32 %y, 0f3F800000, 0f00000000, %p;",
    ]);
    fn constants(&self) -> [f64; 2] {
        [self.min, self.max]
    }

    #[inline(always)]
    fn value<T: Real>(x: T, [min, max]: [T; 2]) -> T {
        let y = if x < min { min } else { x }; // NaN is not below, so it stays
        if y > max { max } else { y }
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, [min, max]: [T; 2]) -> T {
        let below = if x < max { T::ONE } else { T::ZERO };
        if x > min { below } else { T::ZERO }
    }
}

impl<'t> Var<'t> {
    /// Between `min` and `max` (−inf and inf for no bound); the slope is 0 at the bounds, as in torch.
    pub fn clamp(&self, min: f64, max: f64) -> Result<Var<'t>> {
        self.tape().apply1(Map(Clamp { min, max }), &[self])
    }
}

const ATTRS: &[AttrDoc] = &[
    AttrDoc { name: "min", kind: Kind::Real, default: Some("-inf"), doc: "lower bound" },
    AttrDoc { name: "max", kind: Kind::Real, default: Some("inf"), doc: "upper bound" },
];

fn build(a: &Attrs) -> Result<Arc<dyn Op>> {
    Ok(Arc::new(Map(Clamp { min: a.real("min")?, max: a.real("max")? })))
}

/// Values off the bounds of the samples.
const OFF: Fill = Fill::Away { std: 1.0, points: &[-0.5, 1.0], gap: 0.01 };

/// clamp in the table of ops.
pub static ENTRY: Entry = Map::<Clamp>::entry("y = min(max(x, min), max)", ATTRS, build, || {
    vec![
        Sample::new("both bounds").attr("min", -0.5).attr("max", 1).input(&[5, 7], OFF),
        Sample::new("below only").attr("min", -0.5).input(&[9], OFF),
        Sample::new("above only").attr("max", 1).input(&[9], OFF),
        Sample::new("no bound").normal(&[3]),
        Sample::new("scalar").attr("max", 1).input(&[], Fill::Values(vec![3.0])),
        Sample::new("no rows").attr("min", 0).normal(&[0, 3]),
        Sample::new("4096 x 512").attr("min", -0.5).attr("max", 0.5).normal(&[4096, 512]).large(),
    ]
});
