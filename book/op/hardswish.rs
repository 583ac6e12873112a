//! hardswish: y = x·min(max(x + 3, 0), 6)/6;  dx = dy · (0 up to −3, (2x + 3)/6 between, 1 from 3 on).
//!
//! Cost: one pass over x and y forward, over x, dy and dx backward; bound by memory.

use ringtape::error::Result;
use ringtape::kernel::Real;
use ringtape::ops::elementwise::{Keeps, Map, Unary};
use ringtape::ops::{Entry, Fill, Sample};
use ringtape::tape::Var;
use std::sync::Arc;

/// y = x·min(max(x + 3, 0), 6)/6.
#[derive(Debug, Clone, Copy)]
pub struct Hardswish;

impl Unary for Hardswish {
    const NAME: &'static str = "hardswish";
    const ENTRIES: [&'static str; 2] = ["hardswish_forward", "hardswish_backward"];
    const KEEPS: Keeps = Keeps::Input;
    const PTX: Option<[&'static str; 2]> = Some([
        "\
        .reg .pred %nan;
        add.f32     %y, %x, 0f40400000; // 3
        max.f32     %y, %y, 0f00000000;
        min.f32     %y, %y, 0f40C00000; // 6
        mul.f32     %y, %y, %x;
        div.rn.f32  %y, %y, 0f40C00000;
        testp.notanumber.f32 %nan, %x;  // max and min drop a NaN
        selp.f32    %y, %x, %y, %nan;",
        "\
        .reg .pred %p;
        fma.rn.f32  %y, %x, 0f40000000, 0f40400000;
        div.rn.f32  %y, %y, 0f40C00000;
        setp.le.f32 %p, %x, 0fC0400000; // -3
        selp.f32    %y, 0f00000000, %y, %p;
        setp.ge.f32 %p, %x, 0f40400000;
        selp.f32    %y, 0f3F800000, %y, %p;",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        let up = x + T::of(3.0);
        let up = if up < T::ZERO { T::ZERO } else { up };
        let up = if up > T::of(6.0) { T::of(6.0) } else { up };
        x * up / T::of(6.0)
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, _: [T; 2]) -> T {
        let between = (T::of(2.0) * x + T::of(3.0)) / T::of(6.0);
        let y = if x <= T::of(-3.0) { T::ZERO } else { between };
        if x >= T::of(3.0) { T::ONE } else { y }
    }
}

/// The method on [`Var`]; inside ringtape it is an `impl Var`.
pub trait HardswishExt<'t> {
    /// x·min(max(x + 3, 0), 6)/6, elementwise.
    fn hardswish(&self) -> Result<Var<'t>>;
}

impl<'t> HardswishExt<'t> for Var<'t> {
    fn hardswish(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Hardswish), &[self])
    }
}

/// hardswish in the table of ops.
pub static ENTRY: Entry = Map::<Hardswish>::entry(
    "y = x * min(max(x + 3, 0), 6) / 6",
    &[],
    |_| Ok(Arc::new(Map(Hardswish))),
    || {
        vec![
            Sample::new("off the kinks")
                .input(&[9, 7], Fill::Away { std: 3.0, points: &[-3.0, 3.0], gap: 0.01 }),
            Sample::new("far out").input(&[4], Fill::Values(vec![-200.0, -3.5, 3.5, 200.0])),
            Sample::new("scalar").input(&[], Fill::Values(vec![0.5])),
            Sample::new("4096 x 512").normal(&[4096, 512]).large(),
        ]
    },
);
