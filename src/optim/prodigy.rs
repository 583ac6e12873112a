//! Prodigy (Mishchenko and Defazio 2023): AdamW that finds its own learning rate, d, from how far the weights have come, for
//! step t = 1, 2, … from the weights w₀:
//!
//!   m ← β₁m + (1 − β₁)d·g;   v ← β₂v + (1 − β₂)d²·g²
//!   s ← β₃s + (d²·lr/d₀)·g;   r ← β₃r + (d²·lr/d₀)·⟨g, w₀ − w⟩        (β₃ = √β₂)
//!   w ← w·(1 − lr·d·λ) − lr·d·m/(√v + d′·ε)       (decoupled decay, matrices only)
//!   d ← d′ = max(d, largest of d_coef·r/‖s‖₁ so far), at most growth_rate·d after the first rise
//!
//! lr is 1 and multiplies d; no correction of the first moments, as the authors' program has it by default. Two kernels a step, since
//! every weight waits for two sums over all of them: the first brings m, v and s up to date and sums, the second moves w.
//!
//! State: 4 numbers a weight.

use super::attributes::{BETA1, BETA2, EPS, Moments, real, weight_decay};
use super::slope::{PIECE, Sum};
use super::{Entry, Optimizer, Step, named, within, zeros_for};
use crate::error::Result;
use crate::kernel::{Arg, Real, launch, par, reduce};
use crate::tape::{Grads, Params, Role};
use crate::tensor::Tensor;
use crate::{kernel, vectorized};

kernel! {
    ptx "prodigy";
    /// m, v, s brought up to date; partial[3(first + p)…] = Σ g·(start − w), Σ |s| and Σ u·g over piece p of 4,096 weights,
    /// with u = m/(√v + below) + decay·w from before the step. `gain` = d²·lr/d₀.
    static GATHER = prodigy_gather(
        m: out T, v: out T, s: out T, w: in T, start: in T, g: in T, partial: out T, first: val size, d: val T, beta1: val T,
        beta2: val T, beta3: val T, gain: val T, below: val T, decay: val T,
    ) blocks(m.div_ceil(4096));
    /// w = keep·w − rate·m/(√v + below).
    static MOVE = prodigy_move(w: out T, m: in T, v: in T, keep: val T, rate: val T, below: val T);
}

#[allow(clippy::too_many_arguments)]
fn prodigy_gather<T: Real>(
    m: &mut [T],
    v: &mut [T],
    s: &mut [T],
    w: &[T],
    start: &[T],
    g: &[T],
    partial: &mut [T],
    first: usize,
    d: T,
    beta1: T,
    beta2: T,
    beta3: T,
    gain: T,
    below: T,
    decay: T,
) {
    let (work, pieces) = (2 * w.len(), w.len().div_ceil(PIECE));
    let cells = &mut partial.as_chunks_mut::<3>().0[first..first + pieces];
    let c = [d, beta1, beta2, beta3, gain, below, decay];
    par::chunks_of([m, v, s], cells, work, |i, [m, v, s], sums| {
        let (from, n) = (i * par::CHUNK, m.len());
        *sums = gather_chunk(m, v, s, &w[from..][..n], &start[from..][..n], &g[from..][..n], c);
    });
}

fn prodigy_move<T: Real>(w: &mut [T], m: &[T], v: &[T], keep: T, rate: T, below: T) {
    let work = w.len();
    par::chunks_mut(w, par::CHUNK, work, |i, w| {
        let from = i * par::CHUNK;
        move_chunk(w, &m[from..][..w.len()], &v[from..][..w.len()], keep, rate, below);
    });
}

vectorized! {
    fn gather_chunk<T: Real>(
        m: &mut [T], v: &mut [T], s: &mut [T], w: &[T], start: &[T], g: &[T], c: [T; 7],
    ) -> [T; 3] {
        let [d, beta1, beta2, beta3, gain, below, decay] = c;
        let slope = reduce::sum_of([m, v, w, g], |[m, v, w, g]| (m / (v.sqrt() + below) + decay * w) * g);
        let gone = reduce::sum_of([w, start, g], |[w, start, g]| g * (start - w));
        for (((m, v), s), &g) in m.iter_mut().zip(v).zip(s.iter_mut()).zip(g) {
            *m = beta1 * *m + d * (T::ONE - beta1) * g;
            *v = beta2 * *v + d * d * (T::ONE - beta2) * (g * g);
            *s = beta3 * *s + gain * g;
        }
        [gone, reduce::sum_of([s], |[s]| s.abs()), slope]
    }

    fn move_chunk<T: Real>(w: &mut [T], m: &[T], v: &[T], keep: T, rate: T, below: T) {
        for ((w, &m), &v) in w.iter_mut().zip(m).zip(v) {
            *w = *w * keep - rate * (m / (v.sqrt() + below));
        }
    }
}

/// Prodigy and its state.
struct Prodigy {
    moments: Moments,
    weight_decay: f64,
    d0: f64,
    d_coef: f64,
    growth_rate: f64,
    /// m, v, s and the weights at the start.
    arrays: [Vec<Tensor>; 4],
    /// d, the largest estimate of it, and r.
    numbers: [f64; 3],
    t: u64,
}

const NAMES: [&str; 4] = ["m", "v", "s", "start"];

impl Prodigy {
    /// The first kernel on every segment: Σ g·(w₀ − w), ‖s‖₁ and the slope.
    fn gather(&mut self, w: &Params, g: &Grads, lr: f64) -> Result<[f64; 3]> {
        let Some(mut sums) = Sum::<3>::new(g)? else { return Ok([0.0; 3]) };
        let (d, Moments { beta1, beta2, eps }) = (self.numbers[0], self.moments);
        let gain = d * d * lr / self.d0;
        for i in 0..w.segments().len() {
            let Some(g) = g.flat(i) else { continue };
            // Before the first step nothing was moved by decay.
            let decays = self.t > 1 && w.segments()[i].role == Role::Decay;
            let decay = if decays { self.weight_decay } else { 0.0 };
            let [m, v, s, start] = &mut self.arrays;
            let outs = [m, v, s].map(|kind| Arg::Out(&mut kind[i]));
            let (partial, first) = sums.place(g.len());
            let [m, v, s] = outs;
            let numbers = [d, beta1, beta2, beta2.sqrt(), gain, d * eps, decay].map(Arg::Real);
            let [d, beta1, beta2, beta3, gain, below, decay] = numbers;
            let (w, start, g) = (Arg::In(w.segment(i)), Arg::In(&start[i]), Arg::In(g));
            let (partial, first) = (Arg::Out(partial), Arg::Size(first));
            launch(
                &GATHER,
                &mut [m, v, s, w, start, g, partial, first, d, beta1, beta2, beta3, gain, below, decay],
            )?;
        }
        sums.totals()
    }
}

impl Optimizer for Prodigy {
    fn name(&self) -> &'static str {
        "prodigy"
    }
    fn advance(&mut self, w: &mut Params, g: &Grads, how: Step<'_>) -> Result<Option<f64>> {
        self.t += 1;
        let lr = how.lr;
        let [gone, size, slope] = self.gather(w, g, lr)?;
        let [d, largest, r] = self.numbers;
        let rate = d * lr;
        let r = self.moments.beta2.sqrt() * r + d * d * lr / self.d0 * gone;
        if size > 0.0 && lr > 0.0 {
            let estimate = self.d_coef * r / size;
            // The first estimate counts whole; later ones grow by the rate that is allowed.
            let base = if d == self.d0 { d.max(estimate) } else { d };
            let largest = largest.max(estimate);
            self.numbers = [largest.min(base * self.growth_rate), largest, r];
        } else {
            self.numbers[2] = r;
        }
        let below = self.numbers[0] * self.moments.eps;
        for i in 0..w.segments().len() {
            if g.flat(i).is_none() {
                continue;
            }
            let decay = if w.segments()[i].role == Role::Decay { self.weight_decay } else { 0.0 };
            let [m, v, ..] = &self.arrays;
            let (m, v, w) = (Arg::In(&m[i]), Arg::In(&v[i]), Arg::Out(w.segment_mut(i)));
            // Where no gradient has come yet, 0/0 is no step.
            if size > 0.0 {
                let [keep, rate, below] = [1.0 - rate * decay, rate, below].map(Arg::Real);
                launch(&MOVE, &mut [w, m, v, keep, rate, below])?;
            }
        }
        Ok(Some(slope).filter(|_| how.slope && self.t > 1))
    }
    fn steps(&self) -> u64 {
        self.t
    }
    fn state(&self) -> Vec<(String, &Tensor)> {
        NAMES.iter().zip(&self.arrays).flat_map(|(name, arrays)| named(name, arrays.iter())).collect()
    }
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64) {
        let kinds = NAMES.iter().zip(&mut self.arrays);
        (kinds.flat_map(|(name, arrays)| named(name, arrays.iter_mut())).collect(), &mut self.t)
    }
    fn numbers(&mut self) -> &mut [f64] {
        &mut self.numbers
    }
}

/// prodigy in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "prodigy",
    doc: "AdamW that estimates its learning rate; lr multiplies the estimate, 1 is usual",
    state: "4 numbers a weight",
    attrs: &[
        BETA1,
        BETA2,
        EPS,
        weight_decay("0"),
        real("d0", "1e-6", "estimate at the start"),
        real("d_coef", "1", "what each estimate is multiplied by"),
        real("growth_rate", "inf", "largest growth of the estimate in a step"),
    ],
    build: |a, p| {
        let (op, positive) = ("prodigy", f64::MIN_POSITIVE);
        let mut arrays = [(); 4].map(|()| zeros_for(p, |_| true));
        if let [.., Ok(start)] = &mut arrays {
            for (i, to) in start.iter_mut().enumerate().filter(|(_, to)| to.len() > 0) {
                to.copy_from(0, p.segment(i))?;
            }
        }
        let [m, v, s, start] = arrays;
        let d0 = within(op, "d0", a.real("d0")?, positive, f64::INFINITY)?;
        let growth_rate = a.real("growth_rate")?;
        if growth_rate != f64::INFINITY {
            within(op, "growth_rate", growth_rate, 1.0, f64::INFINITY)?;
        }
        let moments = Moments::of(op, a)?;
        within(op, "eps", moments.eps, positive, f64::INFINITY)?;
        Ok(Box::new(Prodigy {
            moments,
            weight_decay: within(op, "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?,
            d0,
            d_coef: within(op, "d_coef", a.real("d_coef")?, positive, f64::INFINITY)?,
            growth_rate,
            arrays: [m?, v?, s?, start?],
            numbers: [d0, d0, 0.0],
            t: 0,
        }))
    },
    kernels: &[&GATHER, &MOVE],
};
