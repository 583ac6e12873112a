//! Schedule-free AdamW (Defazio et al. 2024): no schedule and no horizon; what is used is a mean of the iterates. For step
//! t = 1, 2, …, with the gradient g taken at y:
//!
//!   v ← β₂v + (1 − β₂)g²;   u = g/(√v/√(1 − β₂ᵗ) + ε) + λy        (decoupled decay, matrices only)
//!   c = γ²/Σγ², γ the largest rate so far
//!   y ← (1 − c)y + cz − lr·(1 − β₁(1 − c))·u;   z ← z − lr·u
//!
//! While training the weights are y = (1 − β₁)z + β₁x. Evaluations, snapshots and what is made of them use the mean,
//! x = y + (1 − 1/β₁)(z − y); a snapshot keeps y beside the state, as `w.0`, …. A rate that is constant after the warm-up is what
//! the method is made for, and two to ten times as large as AdamW's is usual. The slope is that along x − z.
//!
//! State: 2 numbers a weight.

use super::attributes::{BETA1, BETA2, EPS, Moments, power, weight_decay};
use super::rule::{Each, NUMBERS, Rule, STATES, TRAIL};
use super::{Entry, Optimizer, Step, within};
use crate::error::Result;
use crate::kernel::{Arg, Real, launch, par};
use crate::tape::{Grads, Params};
use crate::tensor::Tensor;
use crate::{kernel, vectorized};

kernel! {
    ptx "schedule_free";
    /// x = y + c·(z − y).
    static AVERAGE = schedule_free_average(y: in T, z: in T, x: out T, c: val T);
}

fn schedule_free_average<T: Real>(y: &[T], z: &[T], x: &mut [T], c: T) {
    par::chunks_mut(x, par::CHUNK, y.len() / 2, |i, x| {
        let from = i * par::CHUNK;
        average_chunk(&y[from..][..x.len()], &z[from..][..x.len()], x, c);
    });
}

vectorized! {
    fn average_chunk<T: Real>(y: &[T], z: &[T], x: &mut [T], c: T) {
        for ((x, &y), &z) in x.iter_mut().zip(y).zip(z) {
            *x = y + c * (z - y);
        }
    }
}

/// What a step does, with its attributes and what it remembers.
struct Y {
    moments: Moments,
    weight_decay: f64,
    /// γ and Σγ².
    sums: [f64; 2],
}

impl Rule for Y {
    const NAME: &'static str = "schedule_free_adamw";
    const ENTRIES: [&'static str; 2] = ["schedule_free_adamw_step", "schedule_free_adamw_watched"];
    const STATE: &'static [&'static str] = &["z", "v"];
    const COPIES: Option<usize> = Some(0);
    const PTX: [&'static str; 2] = [
        "\
        .reg .f32 %t, %u; // c: β₂, root, eps, decay, c, lr, rate of y
        mul.f32         %t, %g, %g;
        sub.f32         %u, 0f3F800000, %c0;
        mul.f32         %t, %u, %t;
        fma.rn.f32      %s1, %c0, %s1, %t;
        sqrt.rn.f32     %u, %s1;
        fma.rn.f32      %u, %u, %c1, %c2;
        div.rn.f32      %u, %g, %u;
        fma.rn.f32      %u, %c3, %w, %u;
        sub.f32         %t, %s0, %w;
        fma.rn.f32      %w, %c4, %t, %w;
        neg.f32         %u, %u;
        fma.rn.f32      %w, %c6, %u, %w;
        fma.rn.f32      %s0, %c5, %u, %s0;",
        "\
        sub.f32         %u, %w, %s0;",
    ];

    fn begin(&mut self, _: u64, lr: f64) {
        let [largest, sum] = &mut self.sums;
        *largest = largest.max(lr);
        *sum += *largest * *largest;
    }
    fn remembered(&mut self) -> &mut [f64] {
        &mut self.sums
    }
    /// β₂, 1/√(1 − β₂ᵗ), ε, λ, c, lr, lr·(1 − β₁(1 − c)).
    fn numbers(&self, t: u64, lr: f64, decay: f64) -> [f64; NUMBERS] {
        let Moments { beta1, beta2, eps } = self.moments;
        let root = 1.0 / (1.0 - power(beta2, t)).sqrt();
        let [largest, sum] = self.sums;
        let share = if sum > 0.0 { largest * largest / sum } else { 1.0 };
        let rate = lr * (1.0 - beta1 * (1.0 - share));
        [beta2, root, eps, decay, share, lr, rate, 0.0, 0.0, 0.0]
    }
    fn decay(&self) -> f64 {
        self.weight_decay
    }
    fn trail(&self, _: u64, _: f64) -> [f64; TRAIL] {
        [0.0; TRAIL]
    }
    #[inline(always)]
    fn next<T: Real>(w: T, [g, _]: [T; 2], s: &mut [T; STATES], c: &[T; NUMBERS]) -> T {
        let [beta2, root, eps, decay, share, lr, rate, ..] = *c;
        s[1] = beta2 * s[1] + (T::ONE - beta2) * (g * g);
        let u = g / (s[1].sqrt() * root + eps) + decay * w;
        let y = w + share * (s[0] - w) - rate * u;
        s[0] -= lr * u;
        y
    }
    // x − z, up to 1/β₁.
    #[inline(always)]
    fn direction<T: Real>(y: T, [z, ..]: [T; STATES], _: [T; TRAIL]) -> T {
        y - z
    }
}

/// Schedule-free AdamW and its state.
struct ScheduleFree(Each<Y>);

impl Optimizer for ScheduleFree {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn advance(&mut self, w: &mut Params, g: &Grads, how: Step<'_>) -> Result<Option<f64>> {
        self.0.advance(w, g, how)
    }
    fn steps(&self) -> u64 {
        self.0.steps()
    }
    fn state(&self) -> Vec<(String, &Tensor)> {
        self.0.state()
    }
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64) {
        self.0.state_mut()
    }
    fn numbers(&mut self) -> &mut [f64] {
        self.0.numbers()
    }
    fn averaged(&self, y: &Params) -> Result<Option<Params>> {
        let mut x = y.deep_clone()?;
        let c = 1.0 - 1.0 / self.0.rule.moments.beta1;
        for i in 0..y.segments().len() {
            let z = self.0.array(0, i);
            if z.len() > 0 {
                let out = Arg::Out(x.segment_mut(i));
                launch(&AVERAGE, &mut [Arg::In(y.segment(i)), Arg::In(z), out, Arg::Real(c)])?;
            }
        }
        Ok(Some(x))
    }
}

/// schedule_free_adamw in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "schedule_free_adamw",
    doc: "AdamW whose iterates are averaged in place of a schedule",
    state: "2 numbers a weight",
    attrs: &[BETA1, BETA2, EPS, weight_decay("0")],
    build: |a, p| {
        let moments = Moments::of(Y::NAME, a)?;
        // The mean cannot be told from y alone.
        within(Y::NAME, "beta1", moments.beta1, 1e-3, 1.0)?;
        let weight_decay = within(Y::NAME, "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?;
        Ok(Box::new(ScheduleFree(Each::new(Y { moments, weight_decay, sums: [0.0; 2] }, p)?)))
    },
    kernels: &[&AVERAGE, Each::<Y>::KERNELS[0], Each::<Y>::KERNELS[1]],
};
