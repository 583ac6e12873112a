//! A fully connected network: flatten, `layers` times (linear, activation, dropout), linear.

use super::layers::fan_in;
use super::{Activation, Dropout, Linear, ModelConfig, Module};
use crate::error::Result;
use crate::tape::{ParamsBuilder, Var};

/// The network.
pub struct Mlp {
    hidden: Vec<Linear>,
    head: Linear,
    activation: Activation,
    dropout: Dropout,
}

impl Mlp {
    /// For samples of `shape`, with slots `hidden.i` and `head`.
    pub fn new(c: &ModelConfig, shape: &[usize], outputs: usize, p: &mut ParamsBuilder) -> Result<Mlp> {
        let mut width = shape.iter().product();
        let mut hidden = Vec::new();
        for i in 0..c.layers {
            hidden.push(Linear::new(p, &format!("hidden.{i}"), width, c.dim, fan_in(width))?);
            width = c.dim;
        }
        let head = Linear::new(p, "head", width, outputs, fan_in(width))?;
        Ok(Mlp { hidden, head, activation: c.activation, dropout: Dropout(c.dropout) })
    }
}

impl Module for Mlp {
    /// [B, ..shape] to [B, outputs].
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let batch = x.dims().first().copied().unwrap_or(1);
        let mut h = x.reshape(&[batch, x.value().len() / batch.max(1)])?;
        for layer in &self.hidden {
            h = self.dropout.forward(&self.activation.forward(&layer.forward(&h)?)?)?;
        }
        self.head.forward(&h)
    }
}
