//! A fully connected network: flatten, `layers` times (linear, activation, dropout), linear.

use super::layers::fan_in;
use super::{Activation, Dropout, Linear, ModelConfig, Module, Nonlinearity, both};
use crate::error::Result;
use crate::tape::{ParamsBuilder, Var};

/// The network.
pub struct Mlp {
    pub(super) hidden: Vec<(Linear, Nonlinearity)>,
    head: Linear,
    dropout: Dropout,
}

impl Mlp {
    /// For samples of `shape`, with slots `hidden.i` and `head`.
    pub fn new(c: &ModelConfig, shape: &[usize], outputs: usize, p: &mut ParamsBuilder) -> Result<Mlp> {
        let mut width = shape.iter().product();
        let mut hidden = Vec::new();
        for i in 0..c.layers {
            let name = format!("hidden.{i}");
            let linear = Linear::new(p, &name, width, c.dim, fan_in(width))?;
            hidden.push((linear, Nonlinearity::new(c, &name, c.dim, p)?));
            width = c.dim;
        }
        let head = Linear::new(p, "head", width, outputs, fan_in(width))?;
        Ok(Mlp { hidden, head, dropout: Dropout(c.dropout) })
    }
}

impl Mlp {
    /// [B, ..shape] to [B, elements].
    pub(super) fn flat<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let batch = x.dims().first().copied().unwrap_or(1);
        x.reshape(&[batch, x.value().len() / batch.max(1)])
    }

    /// The function behind its hidden layers.
    pub(super) fn activation(&self) -> Option<Activation> {
        self.hidden.first().map(|(_, f)| f.activation())
    }

    /// [B, ..shape] to [B, outputs], and what layers add to the loss.
    pub fn forward_penalised<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let mut h = self.flat(x)?;
        let mut penalty = None;
        for (layer, f) in &self.hidden {
            let (y, more) = f.forward(&layer.forward(&h)?)?;
            h = self.dropout.forward(&y)?;
            penalty = both(penalty, more)?;
        }
        Ok((self.head.forward(&h)?, penalty))
    }
}

impl Module for Mlp {
    /// [B, ..shape] to [B, outputs].
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        Ok(self.forward_penalised(x)?.0)
    }
}
