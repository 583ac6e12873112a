//! gelu: y = x·Φ(x) with Φ the standard normal distribution;  dx = dy · (Φ(x) + x·φ(x)),
//! where Φ(x) = (1 + erf(x/√2)) / 2 and φ(x) = e^(−x²/2) / √(2π), both from one exponential.
//!
//! With `approximate = tanh`: y = x·s with s = (1 + tanh u) / 2 = 1 / (1 + e^(−2u)), u = √(2/π)·(x + 0.044715·x³);
//! dx = dy · (s + x·s(1 − s)·2u'). Writing tanh as a logistic function costs one exponential and loses no digits where y is
//! near 0. D. Hendrycks, K. Gimpel, "Gaussian error linear units (GELUs)", 2016.
//! Cost: one pass over x and y forward, over x, dy and dx backward; one exponential.

use super::elementwise::{Keeps, Map, Unary};
use super::{AttrDoc, Attrs, Entry, Fill, Kind, Sample};
use crate::error::Result;
use crate::kernel::Real;
use crate::tape::{Op, Var};
use std::f64::consts::FRAC_2_PI;
use std::sync::Arc;

/// y = x·Φ(x).
#[derive(Debug, Clone, Copy)]
pub struct Gelu;

/// The approximation of [`Gelu`] by tanh, as GPT-2 has it.
#[derive(Debug, Clone, Copy)]
pub struct GeluTanh;

impl Unary for Gelu {
    const NAME: &'static str = "gelu";
    const ENTRIES: [&'static str; 2] = ["gelu_forward", "gelu_backward"];
    const KEEPS: Keeps = Keeps::Input;
    const COST: f64 = 0.5;
    const PTX: Option<[&'static str; 2]> = Some([
        "\
        .reg .f32 %bell, %below;
        call (%bell), bell_of, (%x);
        call (%below), normal_of, (%x, %bell);
        mul.f32 %y, %x, %below;",
        "\
        .reg .f32 %bell, %below;
        call (%bell), bell_of, (%x);
        call (%below), normal_of, (%x, %bell);
        mul.f32 %bell, %bell, 0f3ECC422A; // 1/√(2π)
        fma.rn.f32 %y, %x, %bell, %below;",
    ]);

    #[inline(always)]
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        x * x.normal().0
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, _: [T; 2]) -> T {
        let (below, density) = x.normal();
        below + x * density
    }
}

const CUBE: f64 = 0.044715;

impl Unary for GeluTanh {
    const NAME: &'static str = "gelu";
    const ENTRIES: [&'static str; 2] = ["gelu_tanh_forward", "gelu_tanh_backward"];
    const KEEPS: Keeps = Keeps::Input;
    const COST: f64 = 0.7;
    const PTX: Option<[&'static str; 2]> = Some([
        "\
        .reg .f32 %u;
        mul.f32 %u, %x, %x;
        fma.rn.f32 %u, %u, %c1, %c0;
        mul.f32 %u, %u, %x;
        call (%u), sigmoid_of, (%u);
        mul.f32 %y, %x, %u;",
        "\
        .reg .f32 %cubic, %u, %s, %t;
        mul.f32 %cubic, %x, %x;
        mul.f32 %cubic, %cubic, %c1;
        add.f32 %u, %cubic, %c0;
        mul.f32 %u, %u, %x;
        call (%s), sigmoid_of, (%u);
        sub.f32 %t, 0f3F800000, %s;
        mul.f32 %t, %t, %s;
        mul.f32 %t, %t, %x;
        fma.rn.f32 %u, %cubic, 0f40400000, %c0; // 3
        fma.rn.f32 %y, %t, %u, %s;",
    ]);

    fn constants(&self) -> [f64; 2] {
        let twice = 2.0 * FRAC_2_PI.sqrt();
        [twice, twice * CUBE]
    }
    #[inline(always)]
    fn value<T: Real>(x: T, [c1, c3]: [T; 2]) -> T {
        x * (x * (c1 + c3 * (x * x))).sigmoid()
    }
    #[inline(always)]
    fn slope<T: Real>(x: T, [c1, c3]: [T; 2]) -> T {
        let cubic = c3 * (x * x);
        let s = (x * (c1 + cubic)).sigmoid();
        s + x * (s * (T::ONE - s)) * (c1 + T::of(3.0) * cubic)
    }
}

impl<'t> Var<'t> {
    /// x·Φ(x), elementwise.
    pub fn gelu(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(Gelu), &[self])
    }
    /// The approximation of [`Var::gelu`] by tanh.
    pub fn gelu_tanh(&self) -> Result<Var<'t>> {
        self.tape().apply1(Map(GeluTanh), &[self])
    }
}

const ATTRS: &[AttrDoc] = &[AttrDoc {
    name: "approximate",
    kind: Kind::Choice(&["none", "tanh"]),
    default: Some("none"),
    doc: "the error function, or its approximation by tanh",
}];

fn build(a: &Attrs) -> Result<Arc<dyn Op>> {
    Ok(if a.text("approximate") == "tanh" { Arc::new(Map(GeluTanh)) } else { Arc::new(Map(Gelu)) })
}

/// gelu in the table of ops.
pub static ENTRY: Entry = Entry {
    kernels: &[
        &Map::<Gelu>::FORWARD,
        &Map::<Gelu>::BACKWARD,
        &Map::<GeluTanh>::FORWARD,
        &Map::<GeluTanh>::BACKWARD,
    ],
    ..Map::<Gelu>::entry("y = x * Phi(x), Phi the standard normal distribution", ATTRS, build, || {
        let mut samples = Vec::new();
        for how in ["none", "tanh"] {
            let far = Fill::Values(vec![-30.0, -6.0, -3.0, 0.0, 3.0, 30.0]);
            samples.extend([
                Sample::new("matrix").attr("approximate", how).normal(&[5, 7]),
                Sample::new("both tails").attr("approximate", how).input(&[6], far),
                Sample::new("scalar").attr("approximate", how).input(&[], Fill::Values(vec![-1.0])),
                Sample::new("no rows").attr("approximate", how).normal(&[0, 3]),
                Sample::new("4096 x 512").attr("approximate", how).normal(&[4096, 512]).large(),
            ]);
        }
        samples
    })
};
