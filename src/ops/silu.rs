//! silu: y = x·s with s = 1 / (1 + e^−x);  dx = dy · s(1 + x(1 − s)).
//!
//! Cost: one pass over x and y forward, over x, dy and dx backward; one exponential a number each way.

use super::elementwise::{Keeps, Map, Unary};
use super::{Entry, Fill, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::Var;
use std::sync::Arc;

/// y = x / (1 + e^−x), also called swish.
#[derive(Debug, Clone, Copy)]
pub struct Silu;

impl Unary for Silu {
    const NAME: &'static str = "silu";
    const ENTRIES: [&'static str; 2] = ["silu_forward", "silu_backward"];
    const KEEPS: Keeps = Keeps::Input;
    const COST: f64 = 0.7;
    const PTX: Option<[&'static str; 2]> = Some([
        "\
        call (%y), sigmoid_of, (%x);
        mul.f32 %y, %y, %x;",
        "\
        .reg .f32 %s, %t;
        call (%s), sigmoid_of, (%x);
        sub.f32 %t, 0f3F800000, %s;
        fma.rn.f32 %t, %t, %x, 0f3F800000;
        mul.f32 %y, %s, %t;",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        x * x.sigmoid()
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, _: [T; 2]) -> T {
        let s = x.sigmoid();
        s * (T::ONE + x * (T::ONE - s))
    }
}

impl<'t> Var<'t> {
    /// x·sigmoid(x), elementwise.
    pub fn silu(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Silu), &[self])
    }
}

/// silu in the table of ops.
pub static ENTRY: Entry = Map::<Silu>::entry("y = x * sigmoid(x)", &[], |_| Ok(Arc::new(Map(Silu))), || {
    vec![
        Sample::new("matrix").normal(&[5, 7]),
        Sample::new("saturated").input(&[4], Fill::Values(vec![-200.0, -9.0, 9.0, 200.0])),
        Sample::new("scalar").input(&[], Fill::Values(vec![0.0])),
        Sample::new("no rows").normal(&[0, 3]),
        Sample::new("4096 x 512").normal(&[4096, 512]).large(),
    ]
});
