//! mish: y = x·w with w = tanh(ln(1 + e^x)) = n/d;  dx = dy · (w + x·w′), w′ = k/d². With e = e^−|x|, which cannot overflow:
//!
//! | | n | d | k |
//! |---|---|---|---|
//! | x ≥ 0 | 1 + 2e | n + 2e² | 4e²·(1 + e) |
//! | x < 0 | e·(e + 2) | n + 2 | 4e·(1 + e) |
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

// ANCHOR: fraction
/// n, d and e of the head. Both cases are computed and one is chosen, so that a loop over it becomes vector instructions.
#[inline(always)]
fn fraction<T: Real>(x: T) -> (T, T, T) {
    let two = T::of(2.0);
    let e = (-x.abs()).exp_nonpositive();
    let (right, left) = (T::ONE + two * e, e * (e + two));
    let n = if x >= T::ZERO { right } else { left };
    let rest = if x >= T::ZERO { two * e * e } else { two };
    (n, n + rest, e)
}
// ANCHOR_END: fraction

impl Unary for Mish {
    const NAME: &'static str = "mish";
    const ENTRIES: [&'static str; 2] = ["mish_forward", "mish_backward"];
    const KEEPS: Keeps = Keeps::Input;
    const COST: f64 = 1.0;
    // ANCHOR: ptx
    const PTX: Option<[&'static str; 2]> = Some([
        "\
        .reg .pred %right;
        .reg .f32  %e, %n, %d, %t;
        abs.f32     %e, %x;
        neg.f32     %e, %e;
        call (%e), exp_of, (%e);
        setp.ge.f32 %right, %x, 0f00000000;
        fma.rn.f32  %n, %e, 0f40000000, 0f3F800000; // right: 1 + 2e
        add.f32     %t, %e, 0f40000000;
        mul.f32     %t, %t, %e;                     // left: e(e + 2)
        selp.f32    %n, %n, %t, %right;
        mul.f32     %t, %e, %e;
        add.f32     %t, %t, %t;
        selp.f32    %t, %t, 0f40000000, %right;     // 2e² or 2
        add.f32     %d, %n, %t;
        div.rn.f32  %y, %n, %d;
        mul.f32     %y, %y, %x;",
        "\
        .reg .pred %right;
        .reg .f32  %e, %n, %d, %t, %k;
        abs.f32     %e, %x;
        neg.f32     %e, %e;
        call (%e), exp_of, (%e);
        setp.ge.f32 %right, %x, 0f00000000;
        fma.rn.f32  %n, %e, 0f40000000, 0f3F800000;
        add.f32     %t, %e, 0f40000000;
        mul.f32     %t, %t, %e;
        selp.f32    %n, %n, %t, %right;
        mul.f32     %k, %e, %e;
        add.f32     %t, %k, %k;
        selp.f32    %t, %t, 0f40000000, %right;
        add.f32     %d, %n, %t;
        selp.f32    %k, %k, %e, %right;             // e² or e
        fma.rn.f32  %k, %k, %e, %k;                 // times 1 + e
        mul.f32     %k, %k, 0f40800000;             // times 4
        div.rn.f32  %k, %k, %d;
        div.rn.f32  %k, %k, %d;
        div.rn.f32  %y, %n, %d;
        fma.rn.f32  %y, %k, %x, %y;",
    ]);
    // ANCHOR_END: ptx

    // ANCHOR: cpu
    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        let (n, d, _) = fraction(x);
        x * (n / d)
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, _: [T; 2]) -> T {
        let (n, d, e) = fraction(x);
        let k = T::of(4.0) * if x >= T::ZERO { e * e } else { e } * (T::ONE + e);
        n / d + x * (k / (d * d))
    }
    // ANCHOR_END: cpu
}

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
