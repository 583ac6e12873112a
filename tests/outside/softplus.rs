//! softplus: y = ln(1 + e^(βx)) / β;  dx = dy · σ(βx), with σ(z) = 1 / (1 + e^-z).
//!
//! Cost: one pass over x and y forward, over x, dy and dx backward; an exponential and a logarithm an element.

use ringtape::error::Result;
use ringtape::kernel::Real;
use ringtape::ops::elementwise::{Keeps, Map, Unary};
use ringtape::ops::{AttrDoc, Entry, Kind, Port, Sample};
use ringtape::tape::Var;
use std::sync::Arc;

/// y = ln(1 + e^(βx)) / β.
#[derive(Debug, Clone, Copy)]
pub struct Softplus {
    /// Sharpness of the bend.
    pub beta: f64,
}

impl Unary for Softplus {
    const NAME: &'static str = "softplus";
    const ENTRIES: [&'static str; 2] = ["softplus_forward", "softplus_backward"];
    const KEEPS: Keeps = Keeps::Input;
    const COST: f64 = 2.0;
    const PTX: Option<[&'static str; 2]> = Some([
        "\
        .reg .f32 %z, %e;
        mul.f32 %z, %x, %c0;
        abs.f32 %e, %z;
        neg.f32 %e, %e;
        call (%e), exp_of, (%e);
        add.f32 %e, %e, 0f3F800000; // 1
        call (%e), ln_of, (%e);
        max.f32 %z, %z, 0f00000000;
        add.f32 %y, %z, %e;
        div.rn.f32 %y, %y, %c0;",
        "\
        mul.f32 %y, %x, %c0;
        call (%y), sigmoid_of, (%y);",
    ]);

    fn constants(&self) -> [f64; 2] {
        [self.beta, 0.0]
    }
    #[inline(always)]
    fn value<T: Real>(x: T, [beta, _]: [T; 2]) -> T {
        let z = x * beta;
        // max(z, 0) + ln(1 + e^-|z|) is the same number, and e^-|z| cannot overflow.
        (z.max_nan(T::ZERO) + (T::ONE + (-z.abs()).exp()).ln()) / beta
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, [beta, _]: [T; 2]) -> T {
        (x * beta).sigmoid()
    }
}

/// The method on [`Var`]; inside ringtape it is an `impl Var`.
pub trait SoftplusExt<'t> {
    /// ln(1 + e^x), elementwise.
    fn softplus(&self) -> Result<Var<'t>>;
}

impl<'t> SoftplusExt<'t> for Var<'t> {
    fn softplus(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Softplus { beta: 1.0 }), &[self])
    }
}

/// softplus in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "softplus",
    doc: "y = ln(1 + e^(beta x)) / beta",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[AttrDoc { name: "beta", kind: Kind::Real, default: Some("1"), doc: "sharpness of the bend" }],
    build: |a| Ok(Arc::new(Map(Softplus { beta: a.real("beta")? }))),
    kernels: &[&Map::<Softplus>::FORWARD, &Map::<Softplus>::BACKWARD],
    samples: || {
        vec![
            Sample::new("matrix").normal(&[5, 7]),
            Sample::new("sharp").normal(&[4, 3]).attr("beta", 3),
            Sample::new("64 x 4096").normal(&[64, 4096]).large(),
        ]
    },
};
