//! AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019), in the order of torch.optim.AdamW, for step t = 1, 2, …:
//!
//!   w ← w·(1 − lr·λ)                      (decoupled decay, matrices only)
//!   m ← β₁m + (1 − β₁)g;   v ← β₂v + (1 − β₂)g²
//!   w ← w − lr/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)
//!
//! One kernel, one pass: it reads w, g, m, v and writes w, m, v. State: 2 numbers a weight.

use super::{Entry, Optimizer, named, within, zeros_like};
use crate::attrs::{AttrDoc, Kind};
use crate::error::Result;
use crate::kernel::{Arg, Real, launch, par};
use crate::tape::{Grads, Params, Role};
use crate::tensor::Tensor;
use crate::{kernel, vectorized};

kernel! {
    ptx "adamw";
    /// One step over one segment. `keep` = 1 − lr·λ, `rate` = lr/(1 − β₁ᵗ), `root` = 1/√(1 − β₂ᵗ).
    pub(crate) static ADAMW = adamw_step(
        w: out T, g: in T, m: out T, v: out T, keep: val T, beta1: val T, beta2: val T, rate: val T, root: val T, eps: val T,
    );
}

#[allow(clippy::too_many_arguments)]
fn adamw_step<T: Real>(
    w: &mut [T],
    g: &[T],
    m: &mut [T],
    v: &mut [T],
    keep: T,
    beta1: T,
    beta2: T,
    rate: T,
    root: T,
    eps: T,
) {
    let c = [keep, beta1, beta2, rate, root, eps];
    let work = w.len();
    par::chunks_mut3([w, m, v], par::CHUNK, work, |i, [w, m, v]| {
        step_chunk(w, &g[i * par::CHUNK..][..w.len()], m, v, c)
    });
}

vectorized! {
    fn step_chunk<T: Real>(w: &mut [T], g: &[T], m: &mut [T], v: &mut [T], c: [T; 6]) {
        let [keep, beta1, beta2, rate, root, eps] = c;
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            *m = beta1 * *m + (T::ONE - beta1) * g;
            *v = beta2 * *v + (T::ONE - beta2) * (g * g);
            *w = *w * keep - rate * *m / (v.sqrt() * root + eps);
        }
    }
}

/// AdamW and its state.
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    m: Vec<Tensor>,
    v: Vec<Tensor>,
    t: u64,
}

impl Optimizer for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn step(&mut self, w: &mut Params, g: &Grads, lr: f64) -> Result<()> {
        self.t += 1;
        let t = self.t.min(i32::MAX as u64) as i32; // by then both corrections are 1
        let rate = lr / (1.0 - self.beta1.powi(t));
        let root = 1.0 / (1.0 - self.beta2.powi(t)).sqrt();
        for i in 0..w.segments().len() {
            let Some(g) = g.flat(i) else { continue };
            let decay = if w.segments()[i].role == Role::Decay { self.weight_decay } else { 0.0 };
            let numbers = [1.0 - lr * decay, self.beta1, self.beta2, rate, root, self.eps].map(Arg::Real);
            let [keep, beta1, beta2, rate, root, eps] = numbers;
            let (m, v) = (Arg::Out(&mut self.m[i]), Arg::Out(&mut self.v[i]));
            launch(
                &ADAMW,
                &mut [Arg::Out(w.segment_mut(i)), Arg::In(g), m, v, keep, beta1, beta2, rate, root, eps],
            )?;
        }
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.t
    }
    fn state(&self) -> Vec<(String, &Tensor)> {
        named("m", self.m.iter()).chain(named("v", self.v.iter())).collect()
    }
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64) {
        (named("m", self.m.iter_mut()).chain(named("v", self.v.iter_mut())).collect(), &mut self.t)
    }
}

/// adamw in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "adamw",
    doc: "Adam with decoupled weight decay",
    state: "2 numbers a weight",
    attrs: &[
        AttrDoc { name: "beta1", kind: Kind::Real, default: Some("0.9"), doc: "memory of the mean" },
        AttrDoc { name: "beta2", kind: Kind::Real, default: Some("0.999"), doc: "memory of the mean square" },
        AttrDoc { name: "eps", kind: Kind::Real, default: Some("1e-8"), doc: "added to the root" },
        AttrDoc { name: "weight_decay", kind: Kind::Real, default: Some("0.01"), doc: "decay of matrices" },
    ],
    build: |a, p| {
        Ok(Box::new(AdamW {
            beta1: within("adamw", "beta1", a.real("beta1")?, 0.0, 1.0)?,
            beta2: within("adamw", "beta2", a.real("beta2")?, 0.0, 1.0)?,
            eps: within("adamw", "eps", a.real("eps")?, 0.0, f64::INFINITY)?,
            weight_decay: within("adamw", "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?,
            m: zeros_like(p)?,
            v: zeros_like(p)?,
            t: 0,
        }))
    },
    kernels: &[&ADAMW],
};
