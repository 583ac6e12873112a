//! M-SVAG (Balles and Hennig 2018): momentum whose every weight steps by the share of its gradient that is no noise, for
//! step t = 1, 2, …:
//!
//!   g ← g + λw                            (decay through the gradient, matrices only)
//!   m ← βm + (1 − β)g;   v ← βv + (1 − β)g²;   m̂ = m/(1 − βᵗ), v̂ = v/(1 − βᵗ)
//!   ŝ = (v̂ − m̂²)/(1 − ρ), ρ = (1 − β)(1 + βᵗ)/((1 + β)(1 − βᵗ))      (an estimate of the gradient's variance; 0 at t = 1)
//!   w ← w − lr · m̂ · m̂²/(m̂² + ρŝ)         (0 where m̂ and ŝ are 0)
//!
//! ρŝ is the variance of m̂, so the factor is that by which a step along a noisy mean should be shortened. It is shown for
//! its theory: on badly scaled problems the size of gradients, which AdamW divides away, stays in the step.
//!
//! State: 2 numbers a weight.

use super::attributes::{power, real, weight_decay};
use super::rule::{Each, NUMBERS, Rule, STATES, TRAIL};
use super::{Entry, within};
use crate::kernel::Real;

/// M-SVAG with its attributes.
pub(super) struct MSvag {
    beta: f64,
    weight_decay: f64,
}

/// m̂³/(m̂² + `share`·(v̂ − m̂²)), from m, v, 1/(1 − βᵗ) and ρ/(1 − ρ).
#[inline(always)]
fn shortened<T: Real>(m: T, v: T, first: T, share: T) -> T {
    let m = m * first;
    let spread = (v * first - m * m).max_nan(T::ZERO);
    let whole = m * m + share * spread;
    // Where nothing is known the quotient would be 0/0.
    let safe = if whole > T::ZERO { whole } else { T::ONE };
    m * (m * m / safe)
}

impl MSvag {
    /// 1/(1 − βᵗ) and ρ/(1 − ρ).
    fn corrections(&self, t: u64) -> [f64; 2] {
        let (beta, decayed) = (self.beta, power(self.beta, t));
        let rho = (1.0 - beta) * (1.0 + decayed) / ((1.0 + beta) * (1.0 - decayed));
        [1.0 / (1.0 - decayed), if t == 1 { 0.0 } else { rho / (1.0 - rho) }]
    }
}

impl Rule for MSvag {
    const NAME: &'static str = "m_svag";
    const ENTRIES: [&'static str; 2] = ["m_svag_step", "m_svag_watched"];
    const STATE: &'static [&'static str] = &["m", "v"];
    const PTX: [&'static str; 2] = [
        "\
        .reg .pred %some;
        .reg .f32 %t, %d, %m, %v, %rest; // c: decay, β, lr, 1/(1 − βᵗ), ρ/(1 − ρ)
        fma.rn.f32      %d, %c0, %w, %g;
        sub.f32         %rest, 0f3F800000, %c1;
        mul.f32         %t, %rest, %d;
        fma.rn.f32      %s0, %c1, %s0, %t;
        mul.f32         %t, %d, %d;
        mul.f32         %t, %rest, %t;
        fma.rn.f32      %s1, %c1, %s1, %t;
        mul.f32         %m, %s0, %c3;
        mul.f32         %d, %m, %m;
        mul.f32         %v, %s1, %c3;
        sub.f32         %v, %v, %d;
        max.f32         %v, %v, 0f00000000;
        mul.f32         %v, %v, %c4;
        add.f32         %v, %v, %d;
        setp.gt.f32     %some, %v, 0f00000000;
        selp.f32        %v, %v, 0f3F800000, %some;
        div.rn.f32      %t, %d, %v;
        mul.f32         %t, %t, %m;
        mul.f32         %t, %t, %c2;
        sub.f32         %w, %w, %t;",
        "\
        .reg .pred %some;
        .reg .f32 %m, %d, %v; // p: 1/(1 − βᵗ), ρ/(1 − ρ)
        mul.f32         %m, %s0, %p0;
        mul.f32         %d, %m, %m;
        mul.f32         %v, %s1, %p0;
        sub.f32         %v, %v, %d;
        max.f32         %v, %v, 0f00000000;
        mul.f32         %v, %v, %p1;
        add.f32         %v, %v, %d;
        setp.gt.f32     %some, %v, 0f00000000;
        selp.f32        %v, %v, 0f3F800000, %some;
        div.rn.f32      %u, %d, %v;
        mul.f32         %u, %u, %m;",
    ];

    /// λ, β, lr, 1/(1 − βᵗ), ρ/(1 − ρ).
    fn numbers(&self, t: u64, lr: f64, decay: f64) -> [f64; NUMBERS] {
        let [first, share] = self.corrections(t);
        [decay, self.beta, lr, first, share, 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    fn decay(&self) -> f64 {
        self.weight_decay
    }
    fn trail(&self, t: u64, _: f64) -> [f64; TRAIL] {
        let [first, share] = if t < 2 { [0.0; 2] } else { self.corrections(t - 1) };
        [first, share, 0.0, 0.0]
    }
    #[inline(always)]
    fn next<T: Real>(w: T, [g, _]: [T; 2], s: &mut [T; STATES], c: &[T; NUMBERS]) -> T {
        let [decay, beta, lr, first, share, ..] = *c;
        let g = g + decay * w;
        s[0] = beta * s[0] + (T::ONE - beta) * g;
        s[1] = beta * s[1] + (T::ONE - beta) * (g * g);
        w - lr * shortened(s[0], s[1], first, share)
    }
    #[inline(always)]
    fn direction<T: Real>(_: T, [m, v, ..]: [T; STATES], [first, share, ..]: [T; TRAIL]) -> T {
        shortened(m, v, first, share)
    }
}

/// m_svag in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "m_svag",
    doc: "momentum, shortened where gradients are noise",
    state: "2 numbers a weight",
    attrs: &[real("beta", "0.9", "memory of the mean and of the mean square"), weight_decay("0")],
    build: |a, p| {
        // Without memory the variance cannot be told.
        let beta = within("m_svag", "beta", a.real("beta")?, f64::MIN_POSITIVE, 1.0)?;
        let weight_decay = within("m_svag", "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?;
        Ok(Box::new(Each::new(MSvag { beta, weight_decay }, p)?))
    },
    kernels: Each::<MSvag>::KERNELS,
};
