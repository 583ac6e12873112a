//! Stochastic gradient descent with momentum, in the order of torch.optim.SGD, for step t = 1, 2, …:
//!
//!   g ← g + λw                            (decay, matrices only)
//!   b ← g at t = 1, else μb + (1 − τ)g;    d = g + μb (Nesterov) or b
//!   w ← w − lr·d
//!
//! One kernel, one pass. State: 1 number a weight (none is read without momentum).

use super::{Entry, Optimizer, named, within, zeros_like};
use crate::attrs::{AttrDoc, Kind};
use crate::error::{Error, Result};
use crate::kernel::{Arg, Real, launch, par};
use crate::tape::{Grads, Params, Role};
use crate::tensor::Tensor;
use crate::{kernel, vectorized};

kernel! {
    ptx "sgd";
    /// One step over one segment. `fresh` = 1 − τ, or 1 at the first step, whose old momentum is 0.
    pub(crate) static SGD = sgd_step(
        w: out T, g: in T, b: out T, lr: val T, momentum: val T, fresh: val T, decay: val T, nesterov: val flag,
    );
}

#[allow(clippy::too_many_arguments)]
fn sgd_step<T: Real>(
    w: &mut [T],
    g: &[T],
    b: &mut [T],
    lr: T,
    momentum: T,
    fresh: T,
    decay: T,
    nesterov: bool,
) {
    let c = [lr, momentum, fresh, decay];
    let work = w.len() / 2;
    par::chunks_mut2((w, par::CHUNK), (b, par::CHUNK), work, |i, w, b| {
        step_chunk(w, &g[i * par::CHUNK..][..w.len()], b, c, nesterov);
    });
}

vectorized! {
    fn step_chunk<T: Real>(w: &mut [T], g: &[T], b: &mut [T], c: [T; 4], nesterov: bool) {
        let [lr, momentum, fresh, decay] = c;
        for ((w, &g), b) in w.iter_mut().zip(g).zip(b) {
            let g = g + decay * *w;
            *b = momentum * *b + fresh * g;
            let d = if nesterov { g + momentum * *b } else { *b };
            *w -= lr * d;
        }
    }
}

/// SGD and its state.
pub struct Sgd {
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
    b: Vec<Tensor>,
    t: u64,
}

impl Optimizer for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn step(&mut self, w: &mut Params, g: &Grads, lr: f64) -> Result<()> {
        self.t += 1;
        let fresh = if self.t == 1 || self.momentum == 0.0 { 1.0 } else { 1.0 - self.dampening };
        for i in 0..w.segments().len() {
            let Some(g) = g.flat(i) else { continue };
            let decay = if w.segments()[i].role == Role::Decay { self.weight_decay } else { 0.0 };
            let [lr, momentum, fresh, decay] = [lr, self.momentum, fresh, decay].map(Arg::Real);
            let (b, nesterov) = (Arg::Out(&mut self.b[i]), Arg::Flag(self.nesterov));
            launch(
                &SGD,
                &mut [Arg::Out(w.segment_mut(i)), Arg::In(g), b, lr, momentum, fresh, decay, nesterov],
            )?;
        }
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.t
    }
    fn state(&self) -> Vec<(String, &Tensor)> {
        named("b", self.b.iter()).collect()
    }
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64) {
        (named("b", self.b.iter_mut()).collect(), &mut self.t)
    }
}

/// sgd in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "sgd",
    doc: "stochastic gradient descent with momentum",
    state: "1 number a weight",
    attrs: &[
        AttrDoc {
            name: "momentum",
            kind: Kind::Real,
            default: Some("0"),
            doc: "share of the last step that goes on",
        },
        AttrDoc {
            name: "dampening",
            kind: Kind::Real,
            default: Some("0"),
            doc: "share of the gradient held back",
        },
        AttrDoc { name: "weight_decay", kind: Kind::Real, default: Some("0"), doc: "decay of matrices" },
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
        Ok(Box::new(Sgd { momentum, dampening, weight_decay, nesterov, b: zeros_like(p)?, t: 0 }))
    },
    kernels: &[&SGD],
};
