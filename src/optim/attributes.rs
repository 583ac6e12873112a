//! Attributes that several optimizers have, and what they make of them.

use super::rule::TRAIL;
use super::within;
use crate::attrs::{AttrDoc, Attrs, Kind};
use crate::error::Result;

/// A real attribute.
pub(super) const fn real(name: &'static str, default: &'static str, doc: &'static str) -> AttrDoc {
    AttrDoc { name, kind: Kind::Real, default: Some(default), doc }
}

/// `beta1` of Adam and its kin.
pub(super) const BETA1: AttrDoc = real("beta1", "0.9", "memory of the mean");
/// `beta2` of Adam and its kin.
pub(super) const BETA2: AttrDoc = real("beta2", "0.999", "memory of the mean square");
/// `eps` of Adam and its kin.
pub(super) const EPS: AttrDoc = real("eps", "1e-8", "added to the root");

/// `weight_decay` with this default.
pub(super) const fn weight_decay(default: &'static str) -> AttrDoc {
    real("weight_decay", default, "decay of matrices")
}

/// The memories of two running moments, and ε.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    /// Memory of the mean.
    pub(super) beta1: f64,
    /// Memory of the mean square.
    pub(super) beta2: f64,
    /// Added to the root, or under it.
    pub(super) eps: f64,
}

/// β to the power of `t`; by the time that `t` is too large for the power, it is 0.
pub(super) fn power(beta: f64, t: u64) -> f64 {
    beta.powi(t.min(i32::MAX as u64) as i32)
}

impl Moments {
    /// From the attributes `beta1`, `beta2` and `eps` of `op`.
    pub(super) fn of(op: &'static str, a: &Attrs) -> Result<Moments> {
        Ok(Moments {
            beta1: within(op, "beta1", a.real("beta1")?, 0.0, 1.0)?,
            beta2: within(op, "beta2", a.real("beta2")?, 0.0, 1.0)?,
            eps: within(op, "eps", a.real("eps")?, 0.0, f64::INFINITY)?,
        })
    }

    /// What step `t` divides the mean by, 1 − β₁ᵗ, and multiplies the root by, 1/√(1 − β₂ᵗ).
    pub(super) fn corrections(&self, t: u64) -> (f64, f64) {
        (1.0 - power(self.beta1, t), 1.0 / (1.0 - power(self.beta2, t)).sqrt())
    }

    /// 1/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ), ε and the decay of the step before step `t`; zeros before the first.
    pub(super) fn trail(&self, t: u64, decay: f64) -> [f64; TRAIL] {
        if t < 2 {
            return [0.0; TRAIL];
        }
        let (first, root) = self.corrections(t - 1);
        [1.0 / first, root, self.eps, decay]
    }
}
