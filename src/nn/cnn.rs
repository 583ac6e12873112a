//! A small convolutional network: `layers` times (3×3 convolution, activation, 2×2 max pooling), each doubling the
//! channels, then a hidden linear layer and the head.

use super::layers::fan_in;
use super::{Activation, Dropout, Linear, ModelConfig, Module, param};
use crate::error::{Error, Result};
use crate::ops::conv2d::Conv2d;
use crate::ops::max_pool2d::Pool;
use crate::tape::{Init, ParamsBuilder, Role, Slot, Var};

/// The network.
pub struct Cnn {
    convs: Vec<(Slot, Slot)>,
    hidden: Linear,
    head: Linear,
    activation: Activation,
    dropout: Dropout,
}

/// Units of the hidden linear layer.
const HIDDEN: usize = 128;

impl Cnn {
    /// For images of `shape` [channels, height, width], with slots `conv.i`, `hidden` and `head`.
    pub fn new(c: &ModelConfig, shape: &[usize], outputs: usize, p: &mut ParamsBuilder) -> Result<Cnn> {
        let &[mut channels, mut height, mut width] = shape else {
            let what = format!(
                "`cnn` takes images [channels, height, width], but samples have shape {shape:?}; use `mlp`"
            );
            return Err(Error::config("model.kind", what));
        };
        let mut convs = Vec::new();
        for i in 0..c.layers {
            if height < 2 || width < 2 {
                let what =
                    format!("is {}, but images of shape {shape:?} can be halved {i} times only", c.layers);
                return Err(Error::config("model.layers", what));
            }
            let out = c.dim << i.min(16);
            let init = fan_in(channels * 9);
            let weight = p.add(format!("conv.{i}.weight"), &[out, channels, 3, 3], init, Role::Decay)?;
            let bias = p.add(format!("conv.{i}.bias"), &[out], Init::Constant(0.0), Role::Plain)?;
            convs.push((weight, bias));
            (channels, height, width) = (out, height / 2, width / 2);
        }
        let flat = channels * height * width;
        let hidden = Linear::new(p, "hidden", flat, HIDDEN, fan_in(flat))?;
        let head = Linear::new(p, "head", HIDDEN, outputs, fan_in(HIDDEN))?;
        Ok(Cnn { convs, hidden, head, activation: c.activation, dropout: Dropout(c.dropout) })
    }
}

impl Module for Cnn {
    /// [B, channels, height, width] to [B, outputs].
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let mut h = x.clone();
        for &(weight, bias) in &self.convs {
            let same = Conv2d { padding: [1; 2], ..Conv2d::default() };
            h = h.conv2d(&param(x, weight), Some(&param(x, bias)), same)?;
            h = self.activation.forward(&h)?.max_pool2d(Pool::square(2))?;
        }
        let batch = h.dims()[0];
        let h = h.reshape(&[batch, h.value().len() / batch.max(1)])?;
        let h = self.dropout.forward(&self.activation.forward(&self.hidden.forward(&h)?)?)?;
        self.head.forward(&h)
    }
}
