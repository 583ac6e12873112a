//! Lion (Chen et al. 2023): steps of one size, in the direction of a sign:
//!
//!   u = sign(β₁m + (1 − β₁)g);   w ← w·(1 − lr·λ) − lr·u      (decoupled decay, matrices only)
//!   m ← β₂m + (1 − β₂)g
//!
//! The sign of 0 is 0. A step is about three to ten times as long as one of AdamW with the same rate, so a rate that much
//! smaller, and a decay that much larger, are usual. The slope is that along sign(m): the last gradient, which u also has,
//! is gone.
//!
//! State: 1 number a weight.

use super::attributes::{real, weight_decay};
use super::rule::{Each, NUMBERS, Rule, STATES, TRAIL};
use super::{Entry, within};
use crate::kernel::Real;

/// Lion with its attributes.
pub(super) struct Lion {
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
}

/// −1, 0 or 1. Comparisons, not branches, so that loops become vectors; 0 for NaN, which never gets here.
#[inline(always)]
fn sign<T: Real>(x: T) -> T {
    let above = if x > T::ZERO { T::ONE } else { T::ZERO };
    let below = if x < T::ZERO { T::ONE } else { T::ZERO };
    above - below
}

impl Rule for Lion {
    const NAME: &'static str = "lion";
    const ENTRIES: [&'static str; 2] = ["lion_step", "lion_watched"];
    const STATE: &'static [&'static str] = &["m"];
    const COST: f64 = 0.5;
    const PTX: [&'static str; 2] = [
        "\
        .reg .pred %zero;
        .reg .f32 %t, %u; // c: keep, β₁, β₂, lr
        sub.f32         %t, 0f3F800000, %c1;
        mul.f32         %t, %t, %g;
        fma.rn.f32      %u, %c1, %s0, %t;
        setp.eq.f32     %zero, %u, 0f00000000;
        copysign.f32    %u, %u, 0f3F800000;
        selp.f32        %u, 0f00000000, %u, %zero;
        sub.f32         %t, 0f3F800000, %c2;
        mul.f32         %t, %t, %g;
        fma.rn.f32      %s0, %c2, %s0, %t;
        mul.f32         %u, %u, %c3;
        neg.f32         %u, %u;
        fma.rn.f32      %w, %w, %c0, %u;",
        "\
        .reg .pred %zero; // p: 1 after the first step, decay
        setp.eq.f32     %zero, %s0, 0f00000000;
        copysign.f32    %u, %s0, %p0;
        selp.f32        %u, 0f00000000, %u, %zero;
        fma.rn.f32      %u, %p1, %w, %u;",
    ];

    /// 1 − lr·λ, β₁, β₂, lr.
    fn numbers(&self, _: u64, lr: f64, decay: f64) -> [f64; NUMBERS] {
        [1.0 - lr * decay, self.beta1, self.beta2, lr, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    fn decay(&self) -> f64 {
        self.weight_decay
    }
    fn trail(&self, t: u64, decay: f64) -> [f64; TRAIL] {
        [if t < 2 { 0.0 } else { 1.0 }, decay, 0.0, 0.0]
    }
    #[inline(always)]
    fn next<T: Real>(w: T, [g, _]: [T; 2], s: &mut [T; STATES], c: &[T; NUMBERS]) -> T {
        let [keep, beta1, beta2, lr, ..] = *c;
        let u = sign(beta1 * s[0] + (T::ONE - beta1) * g);
        s[0] = beta2 * s[0] + (T::ONE - beta2) * g;
        w * keep - lr * u
    }
    #[inline(always)]
    fn direction<T: Real>(w: T, [m, ..]: [T; STATES], [one, decay, ..]: [T; TRAIL]) -> T {
        one * sign(m) + decay * w
    }
}

/// lion in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "lion",
    doc: "steps of the sign of a mean gradient",
    state: "1 number a weight",
    attrs: &[
        real("beta1", "0.9", "share of the mean in the sign"),
        real("beta2", "0.99", "memory of the mean"),
        weight_decay("0"),
    ],
    build: |a, p| {
        let lion = Lion {
            beta1: within("lion", "beta1", a.real("beta1")?, 0.0, 1.0)?,
            beta2: within("lion", "beta2", a.real("beta2")?, 0.0, 1.0)?,
            weight_decay: within("lion", "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?,
        };
        Ok(Box::new(Each::new(lion, p)?))
    },
    kernels: Each::<Lion>::KERNELS,
};
