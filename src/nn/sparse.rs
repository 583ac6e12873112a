//! Sparse activations: hidden units that stay at 0 unless they exceed a threshold, and the rules that find it. A rule's
//! threshold is a constant of a step: what training observes is asked for with [`Tape::defer`](crate::tape::Tape::defer), so
//! that evaluation and recomputation see what the step saw, and a snapshot holds it. (Of several micro-batches of a step the
//! last is observed.)

use super::config::words;
use super::parallel::Share;
use super::{Activation, Linear, ModelConfig, Module, join, param};
use crate::error::{Error, Result};
use crate::ops::sparse_mlp::{Path, SparseMlp};
use crate::ops::threshold_relu::{ThresholdRelu, normal_quantile};
use crate::shape::Spec;
use crate::tape::{Init, Merge, ParamsBuilder, Role, Slot, Var};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::fmt;

words! {
    /// How thresholds are found.
    Rule {
        /// Statistical top-k: of each token, its mean plus so many deviations (Spark Transformer, 2025).
        TopK = "top_k",
        /// One for the layer: a running mean of the magnitude, times what a normal distribution needs for the density.
        RunningMean = "running_mean",
        /// One for each unit, that rises while the unit fires more often than the density says and falls while less.
        Homeostatic = "homeostatic",
        /// One for each unit, learned: e^τ (JumpReLU, 2024), with a price of densities other than the configured one.
        Learned = "learned",
    }
}
words! {
    /// What is left of a unit above its threshold.
    Mode {
        /// What exceeds it.
        Soft = "soft",
        /// All of it.
        Hard = "hard",
    }
}

words! {
    /// Which kernels work on the layers of a transformer's MLP.
    Kernels {
        /// Those that skip inactive units where that measured faster.
        Auto = "auto",
        /// Those that skip.
        Sparse = "sparse",
        /// Products of matrices.
        Dense = "dense",
    }
}

/// A sparse activation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SparseConfig {
    /// How thresholds are found.
    pub rule: Rule,
    /// What is left above them.
    pub mode: Mode,
    /// Share of units that are to be active.
    pub density: f64,
    /// Running mean: share of the old mean that a step keeps.
    pub memory: f64,
    /// Homeostatic: by how much a threshold rises in a step for each share of rows in which the unit fired too often.
    pub gain: f64,
    /// Learned: width of the straight-through estimate around the threshold.
    pub bandwidth: f64,
    /// Learned: added to the loss, this times (density / configured density − 1)².
    pub penalty: f64,
    /// Which kernels work on the layers of a transformer's MLP.
    pub kernels: Kernels,
}

impl Default for SparseConfig {
    fn default() -> SparseConfig {
        SparseConfig {
            rule: Rule::TopK,
            mode: Mode::Soft,
            density: 0.1,
            memory: 0.99,
            gain: 0.01,
            bandwidth: 0.1,
            penalty: 0.01,
            kernels: Kernels::Auto,
        }
    }
}

impl SparseConfig {
    /// Errors on values that no layer can have, naming the key.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, value: f64, want: &str| {
            Err(Error::config(format!("model.sparse.{key}"), format!("is {value}, but must be {want}")))
        };
        if !(self.density > 0.0 && self.density < 1.0) {
            return bad(
                "density",
                self.density,
                "above 0 and below 1: the share of units that are to be active",
            );
        }
        if !(0.0..1.0).contains(&self.memory) {
            return bad("memory", self.memory, "at least 0 and below 1");
        }
        if !(self.gain > 0.0 && self.gain.is_finite()) {
            return bad("gain", self.gain, "above 0");
        }
        if !(self.bandwidth > 0.0 && self.bandwidth.is_finite()) {
            return bad("bandwidth", self.bandwidth, "above 0");
        }
        if !(self.penalty >= 0.0 && self.penalty.is_finite()) {
            return bad("penalty", self.penalty, "0 or more");
        }
        Ok(())
    }
}

/// The function between two linear layers, with what it remembers.
pub enum Nonlinearity {
    /// A function of one number.
    Plain(Activation),
    /// With thresholds.
    Sparse(Sparse),
}

impl Nonlinearity {
    /// For `units` hidden units, with slots `name.…` where it has state.
    pub fn new(c: &ModelConfig, name: &str, units: usize, p: &mut ParamsBuilder) -> Result<Nonlinearity> {
        Ok(match c.activation {
            Activation::Sparse => Nonlinearity::Sparse(Sparse::new(&c.sparse, name, units, p)?),
            plain => Nonlinearity::Plain(plain),
        })
    }

    /// Which function.
    pub(super) fn activation(&self) -> Activation {
        match self {
            Nonlinearity::Plain(f) => *f,
            Nonlinearity::Sparse(_) => Activation::Sparse,
        }
    }

    /// The function, and what it adds to the loss.
    pub fn forward<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        match self {
            Nonlinearity::Plain(f) => Ok((f.forward(x)?, None)),
            Nonlinearity::Sparse(s) => {
                let theta = s.threshold(x).transpose()?;
                Ok((x.threshold_relu(theta.as_ref(), s.op)?, s.observe(x, theta.as_ref())?))
            }
        }
    }
}

/// Thresholds of a layer.
pub struct Sparse {
    c: SparseConfig,
    pub(super) op: ThresholdRelu,
    theta: Option<Slot>,
    /// Of a running mean the sum of its weights, so that its first steps count in full.
    weight: Option<Slot>,
}

/// Where learned thresholds begin.
const START: f64 = 0.1;

impl Sparse {
    fn new(c: &SparseConfig, name: &str, units: usize, p: &mut ParamsBuilder) -> Result<Sparse> {
        let (hard, learned) = (c.mode == Mode::Hard, c.rule == Rule::Learned);
        let op =
            ThresholdRelu { hard, density: c.density, bandwidth: if learned { c.bandwidth } else { 0.0 } };
        let mut slot = |what: &str, n: usize, start: f64, role: Role| {
            p.add(join(name, what), &[n], Init::Constant(start), role).map(Some)
        };
        let (theta, weight) = match c.rule {
            Rule::TopK => (None, None),
            Rule::RunningMean => {
                (slot("threshold", 1, 0.0, Role::State)?, slot("threshold_weight", 1, 0.0, Role::State)?)
            }
            Rule::Homeostatic => (slot("threshold", units, 0.0, Role::State)?, None),
            Rule::Learned => (slot("log_threshold", units, START.ln(), Role::Plain)?, None),
        };
        Ok(Sparse { c: c.clone(), op, theta, weight })
    }

    /// The threshold of this step, on the tape of `x`; None where each row has its own.
    pub(super) fn threshold<'t>(&self, x: &Var<'t>) -> Option<Result<Var<'t>>> {
        self.theta.map(|slot| {
            let theta = param(x, slot);
            if self.c.rule == Rule::Learned { theta.exp() } else { Ok(theta) }
        })
    }

    /// Looks at what the units hold, [.., units], for the thresholds of later steps; gives what is added to the loss.
    pub(super) fn observe<'t>(&self, x: &Var<'t>, theta: Option<&Var<'t>>) -> Result<Option<Var<'t>>> {
        let (tape, Some(theta), Some(slot)) = (x.tape(), theta, self.theta) else { return Ok(None) };
        let number = |v: f64| -> Result<Var<'t>> {
            let spec = Spec::new(x.value().dtype(), &[1])?;
            Ok(tape.constant(Tensor::full(x.value().device(), spec, v)?))
        };
        match self.c.rule {
            Rule::Learned if tape.is_training() && self.c.penalty > 0.0 => {
                let rate = x.detach().firing_rate(theta, self.c.bandwidth)?.mean()?;
                let off = rate.scale(1.0 / self.c.density)?.sub(&number(1.0)?)?;
                return Ok(Some(off.mul(&off)?.mean()?.scale(self.c.penalty)?));
            }
            Rule::Homeostatic if tape.updates() => {
                let off = x.detach().firing_rate(theta, 0.0)?.sub(&number(self.c.density)?)?;
                tape.defer(slot, theta.add(&off.scale(self.c.gain)?)?.into_value(), Merge::Mean);
            }
            Rule::RunningMean if tape.updates() => {
                // κ times the mean magnitude of a normal distribution is its quantile at the density.
                let kappa = -normal_quantile(self.c.density) / std::f64::consts::FRAC_2_PI.sqrt();
                let seen = x.mean_magnitude()?.mean_over(&[0], true)?.scale(kappa)?;
                let Some(weight) = self.weight else { return Ok(None) };
                let share = 1.0 - self.c.memory;
                let sum = param(x, weight).scale(self.c.memory)?.add(&number(share)?)?;
                let step = seen.sub(theta)?.div(&sum)?.scale(share)?;
                tape.defer(slot, theta.add(&step)?.into_value(), Merge::Mean);
                tape.defer(weight, sum.into_value(), Merge::Mean);
            }
            _ => {}
        }
        Ok(None)
    }
}

/// Two linear layers and the function between them, from [.., dim] to [.., dim].
pub struct FeedForward(Layers);

enum Layers {
    Dense {
        up: Linear,
        f: Activation,
        down: Linear,
    },
    /// Weights and biases of both layers, each weight with a row for each hidden unit.
    Sparse {
        slots: [Slot; 4],
        sparse: Sparse,
        op: SparseMlp,
    },
}

impl FeedForward {
    /// Slots `name.up`, `name.down`, and those of thresholds. Weights of the second layer begin as `residual` says; sparse
    /// layers store them by hidden unit, [hidden, dim], so that a unit that is skipped is a stretch of memory that is skipped.
    /// Ranks of `share` have some hidden units each, but of sparse layers all.
    pub fn new(
        c: &ModelConfig,
        name: &str,
        hidden: usize,
        [narrow, residual]: [Init; 2],
        share: &Share,
        p: &mut ParamsBuilder,
    ) -> Result<FeedForward> {
        let (up, down) = (join(name, "up"), join(name, "down"));
        if c.activation != Activation::Sparse {
            let up = Linear::columns(p, &up, [c.dim, hidden], narrow, 1, share)?;
            let down = Linear::rows(p, &down, [hidden, c.dim], residual, share)?;
            return Ok(FeedForward(Layers::Dense { up, f: c.activation, down }));
        }
        let zero = Init::Constant(0.0);
        let slots = [
            p.add(join(&up, "weight"), &[hidden, c.dim], narrow, Role::Decay)?,
            p.add(join(&up, "bias"), &[hidden], zero, Role::Plain)?,
            p.add(join(&down, "weight"), &[hidden, c.dim], residual, Role::Decay)?,
            p.add(join(&down, "bias"), &[c.dim], zero, Role::Plain)?,
        ];
        let sparse = Sparse::new(&c.sparse, name, hidden, p)?;
        let path = match c.sparse.kernels {
            Kernels::Auto => Path::Auto,
            Kernels::Sparse => Path::Sparse,
            Kernels::Dense => Path::Dense,
        };
        let op = SparseMlp { relu: sparse.op, path };
        Ok(FeedForward(Layers::Sparse { slots, sparse, op }))
    }

    /// The two layers, and what they add to the loss.
    pub fn forward<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        match &self.0 {
            Layers::Dense { up, f, down } => Ok((down.forward(&f.forward(&up.forward(x)?)?)?, None)),
            Layers::Sparse { slots, sparse, op } => {
                let theta = sparse.threshold(x).transpose()?;
                let [up, up_bias, down, down_bias] = slots.map(|slot| param(x, slot));
                let (y, hidden) = x.sparse_mlp([&up, &up_bias, &down, &down_bias], theta.as_ref(), *op)?;
                Ok((y, sparse.observe(&hidden, theta.as_ref())?))
            }
        }
    }

    /// The two layers, and the hidden units between them.
    pub(super) fn look<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Var<'t>)> {
        match &self.0 {
            Layers::Dense { up, f, down } => {
                let hidden = f.forward(&up.forward(x)?)?;
                Ok((down.forward(&hidden)?, hidden))
            }
            Layers::Sparse { slots, sparse, op } => {
                let theta = sparse.threshold(x).transpose()?;
                let [up, up_bias, down, down_bias] = slots.map(|slot| param(x, slot));
                let (y, a) = x.sparse_mlp([&up, &up_bias, &down, &down_bias], theta.as_ref(), *op)?;
                Ok((y, a.threshold_relu(theta.as_ref(), op.relu)?))
            }
        }
    }

    /// The function between them.
    pub(super) fn activation(&self) -> Activation {
        match &self.0 {
            Layers::Dense { f, .. } => *f,
            Layers::Sparse { .. } => Activation::Sparse,
        }
    }
}
