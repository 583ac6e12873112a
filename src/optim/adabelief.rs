//! AdaBelief (Zhuang et al. 2020): Adam that divides by how far gradients lie from their mean, for step t = 1, 2, …:
//!
//!   w ← w·(1 − lr·λ)                      (decoupled decay, matrices only)
//!   m ← β₁m + (1 − β₁)g;   s ← β₂s + (1 − β₂)(g − m)²
//!   w ← w − lr/(1 − β₁ᵗ) · m / √(s/(1 − β₂ᵗ) + ε)
//!
//! ε stands once, under the root: the authors' program adds it to s at each step as well as to the root, so that it piles
//! up. ε here is the square of what it is in Adam: 1e-16 keeps a step from dividing by less than 1e-8.
//!
//! State: 2 numbers a weight.

use super::attributes::{BETA1, BETA2, Moments, real, weight_decay};
use super::rule::{Each, NUMBERS, Rule, STATES, TRAIL};
use super::{Entry, within};
use crate::kernel::Real;

/// AdaBelief with its attributes.
pub(super) struct AdaBelief {
    moments: Moments,
    weight_decay: f64,
}

impl Rule for AdaBelief {
    const NAME: &'static str = "adabelief";
    const ENTRIES: [&'static str; 2] = ["adabelief_step", "adabelief_watched"];
    const STATE: &'static [&'static str] = &["m", "s"];
    const PTX: [&'static str; 2] = [
        "\
        .reg .f32 %t, %rest, %root; // c: keep, β₁, β₂, rate, 1/(1 − β₂ᵗ), eps
        sub.f32         %rest, 0f3F800000, %c1;
        mul.f32         %t, %rest, %g;
        fma.rn.f32      %s0, %c1, %s0, %t;
        sub.f32         %rest, 0f3F800000, %c2;
        sub.f32         %t, %g, %s0;
        mul.f32         %t, %t, %t;
        mul.f32         %t, %rest, %t;
        fma.rn.f32      %s1, %c2, %s1, %t;
        fma.rn.f32      %root, %s1, %c4, %c5;
        sqrt.rn.f32     %root, %root;
        mul.f32         %t, %s0, %c3;
        div.rn.f32      %t, %t, %root;
        neg.f32         %t, %t;
        fma.rn.f32      %w, %w, %c0, %t;",
        "\
        fma.rn.f32      %u, %s1, %p1, %p2; // p: 1/(1 − β₁ᵗ), 1/(1 − β₂ᵗ), eps, decay
        sqrt.rn.f32     %u, %u;
        div.rn.f32      %u, %s0, %u;
        mul.f32         %u, %u, %p0;
        fma.rn.f32      %u, %p3, %w, %u;",
    ];

    /// 1 − lr·λ, β₁, β₂, lr/(1 − β₁ᵗ), 1/(1 − β₂ᵗ), ε.
    fn numbers(&self, t: u64, lr: f64, decay: f64) -> [f64; NUMBERS] {
        let (first, root) = self.moments.corrections(t);
        let Moments { beta1, beta2, eps } = self.moments;
        [1.0 - lr * decay, beta1, beta2, lr / first, root * root, eps, 0.0, 0.0, 0.0, 0.0]
    }
    fn decay(&self) -> f64 {
        self.weight_decay
    }
    fn trail(&self, t: u64, decay: f64) -> [f64; TRAIL] {
        let [first, root, eps, decay] = self.moments.trail(t, decay);
        [first, root * root, eps, decay]
    }
    #[inline(always)]
    fn next<T: Real>(w: T, [g, _]: [T; 2], s: &mut [T; STATES], c: &[T; NUMBERS]) -> T {
        let [keep, beta1, beta2, rate, second, eps, ..] = *c;
        s[0] = beta1 * s[0] + (T::ONE - beta1) * g;
        let away = g - s[0];
        s[1] = beta2 * s[1] + (T::ONE - beta2) * (away * away);
        w * keep - rate * s[0] / (s[1] * second + eps).sqrt()
    }
    #[inline(always)]
    fn direction<T: Real>(w: T, [m, s, ..]: [T; STATES], [first, second, eps, decay]: [T; TRAIL]) -> T {
        first * (m / (s * second + eps).sqrt()) + decay * w
    }
}

/// adabelief in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "adabelief",
    doc: "steps of the mean gradient over the spread of gradients about it",
    state: "2 numbers a weight",
    attrs: &[BETA1, BETA2, real("eps", "1e-16", "added under the root"), weight_decay("0.01")],
    build: |a, p| {
        let weight_decay = within("adabelief", "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?;
        let moments = Moments::of("adabelief", a)?;
        within("adabelief", "eps", moments.eps, f64::MIN_POSITIVE, f64::INFINITY)?;
        Ok(Box::new(Each::new(AdaBelief { moments, weight_decay }, p)?))
    },
    kernels: Each::<AdaBelief>::KERNELS,
};
