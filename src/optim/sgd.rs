//! Stochastic gradient descent with momentum, in the order of torch.optim.SGD, for step t = 1, 2, …:
//!
//!   g ← g + λw                            (decay, matrices only)
//!   b ← g at t = 1, else μb + (1 − τ)g;    d = g + μb (Nesterov) or b
//!   w ← w − lr·d
//!
//! State: 1 number a weight (none is read without momentum). The slope is that along b, with Nesterov too: the last
//! gradient, which d also has, is gone.

use super::attributes::{real, weight_decay};
use super::rule::{Each, NUMBERS, Rule, STATES, TRAIL};
use super::{Entry, within};
use crate::attrs::{AttrDoc, Kind};
use crate::error::Error;
use crate::kernel::Real;

/// SGD with its attributes.
pub(super) struct Sgd {
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
}

impl Rule for Sgd {
    const NAME: &'static str = "sgd";
    const ENTRIES: [&'static str; 2] = ["sgd_step", "sgd_watched"];
    const STATE: &'static [&'static str] = &["b"];
    const COST: f64 = 0.5;
    const PTX: [&'static str; 2] = [
        "\
        .reg .f32 %t, %d; // c: lr, momentum, fresh, decay, share of g, share of b
        fma.rn.f32      %t, %c3, %w, %g;
        mul.f32         %d, %c2, %t;
        fma.rn.f32      %s0, %c1, %s0, %d;
        mul.f32         %t, %c4, %t;
        fma.rn.f32      %d, %c5, %s0, %t;
        neg.f32         %d, %d;
        fma.rn.f32      %w, %c0, %d, %w;",
        "\
        mov.f32         %u, %s0;",
    ];

    /// lr, μ, 1 − τ (1 at the first step, whose old momentum is 0), λ; the shares of g and of b in d.
    fn numbers(&self, t: u64, lr: f64, decay: f64) -> [f64; NUMBERS] {
        let fresh = if t == 1 || self.momentum == 0.0 { 1.0 } else { 1.0 - self.dampening };
        let [of_g, of_b] = if self.nesterov { [1.0, self.momentum] } else { [0.0, 1.0] };
        [lr, self.momentum, fresh, decay, of_g, of_b, 0.0, 0.0, 0.0, 0.0]
    }
    fn decay(&self) -> f64 {
        self.weight_decay
    }
    fn trail(&self, _: u64, _: f64) -> [f64; TRAIL] {
        [0.0; TRAIL]
    }
    #[inline(always)]
    fn next<T: Real>(w: T, [g, _]: [T; 2], s: &mut [T; STATES], c: &[T; NUMBERS]) -> T {
        let [lr, momentum, fresh, decay, of_g, of_b, ..] = *c;
        let g = g + decay * w;
        s[0] = momentum * s[0] + fresh * g;
        w - lr * (of_g * g + of_b * s[0])
    }
    #[inline(always)]
    fn direction<T: Real>(_: T, [b, ..]: [T; STATES], _: [T; TRAIL]) -> T {
        b
    }
}

/// sgd in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "sgd",
    doc: "stochastic gradient descent with momentum",
    state: "1 number a weight",
    attrs: &[
        real("momentum", "0", "share of the last step that goes on"),
        real("dampening", "0", "share of the gradient held back"),
        weight_decay("0"),
        AttrDoc {
            name: "nesterov",
            kind: Kind::Bool,
            default: Some("false"),
            doc: "look ahead along the momentum",
        },
    ],
    build: |a, p| {
        let nesterov = a.flag("nesterov")?;
        let momentum = within("sgd", "momentum", a.real("momentum")?, 0.0, f64::INFINITY)?;
        let dampening = within("sgd", "dampening", a.real("dampening")?, 0.0, f64::INFINITY)?;
        if nesterov && (momentum == 0.0 || dampening != 0.0) {
            return Err(Error::attr("sgd", "nesterov", "needs a momentum above 0 and a dampening of 0"));
        }
        let weight_decay = within("sgd", "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?;
        Ok(Box::new(Each::new(Sgd { momentum, dampening, weight_decay, nesterov }, p)?))
    },
    kernels: Each::<Sgd>::KERNELS,
};
