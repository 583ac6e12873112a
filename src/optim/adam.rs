//! Adam (Kingma and Ba 2015), in the order of torch.optim.Adam, for step t = 1, 2, …:
//!
//!   g ← g + λw                            (decay through the gradient, matrices only)
//!   m ← β₁m + (1 − β₁)g;   v ← β₂v + (1 − β₂)g²
//!   w ← w − lr/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)
//!
//! State: 2 numbers a weight.

use super::attributes::{BETA1, BETA2, EPS, Moments, weight_decay};
use super::rule::{Each, NUMBERS, Rule, STATES, TRAIL};
use super::{Entry, within};
use crate::kernel::Real;

/// Adam with its attributes.
pub(super) struct Adam {
    moments: Moments,
    weight_decay: f64,
}

impl Rule for Adam {
    const NAME: &'static str = "adam";
    const ENTRIES: [&'static str; 2] = ["adam_step", "adam_watched"];
    const STATE: &'static [&'static str] = &["m", "v"];
    const PTX: [&'static str; 2] = [
        "\
        .reg .f32 %t, %d, %root; // c: decay, β₁, β₂, rate, root, eps
        fma.rn.f32      %d, %c0, %w, %g;
        sub.f32         %t, 0f3F800000, %c1;
        mul.f32         %t, %t, %d;
        fma.rn.f32      %s0, %c1, %s0, %t;
        sub.f32         %root, 0f3F800000, %c2;
        mul.f32         %t, %d, %d;
        mul.f32         %t, %root, %t;
        fma.rn.f32      %s1, %c2, %s1, %t;
        sqrt.rn.f32     %root, %s1;
        fma.rn.f32      %root, %root, %c4, %c5;
        mul.f32         %t, %s0, %c3;
        div.rn.f32      %t, %t, %root;
        sub.f32         %w, %w, %t;",
        "\
        sqrt.rn.f32     %u, %s1; // p: 1/(1 − β₁ᵗ), root, eps
        fma.rn.f32      %u, %u, %p1, %p2;
        div.rn.f32      %u, %s0, %u;
        mul.f32         %u, %u, %p0;",
    ];

    /// λ, β₁, β₂, lr/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ), ε.
    fn numbers(&self, t: u64, lr: f64, decay: f64) -> [f64; NUMBERS] {
        let (first, root) = self.moments.corrections(t);
        let Moments { beta1, beta2, eps } = self.moments;
        [decay, beta1, beta2, lr / first, root, eps, 0.0, 0.0, 0.0, 0.0]
    }
    fn decay(&self) -> f64 {
        self.weight_decay
    }
    fn trail(&self, t: u64, decay: f64) -> [f64; TRAIL] {
        self.moments.trail(t, decay)
    }
    // ANCHOR: next
    #[inline(always)]
    fn next<T: Real>(w: T, [g, _]: [T; 2], s: &mut [T; STATES], c: &[T; NUMBERS]) -> T {
        let [decay, beta1, beta2, rate, root, eps, ..] = *c;
        let g = g + decay * w;
        s[0] = beta1 * s[0] + (T::ONE - beta1) * g;
        s[1] = beta2 * s[1] + (T::ONE - beta2) * (g * g);
        w - rate * s[0] / (s[1].sqrt() * root + eps)
    }
    // ANCHOR_END: next
    #[inline(always)]
    fn direction<T: Real>(_: T, [m, v, ..]: [T; STATES], [first, root, eps, _]: [T; TRAIL]) -> T {
        first * (m / (v.sqrt() * root + eps))
    }
}

/// adam in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "adam",
    doc: "steps of the mean gradient over the root of the mean square",
    state: "2 numbers a weight",
    attrs: &[BETA1, BETA2, EPS, weight_decay("0")],
    build: |a, p| {
        let weight_decay = within("adam", "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?;
        Ok(Box::new(Each::new(Adam { moments: Moments::of("adam", a)?, weight_decay }, p)?))
    },
    kernels: Each::<Adam>::KERNELS,
};
