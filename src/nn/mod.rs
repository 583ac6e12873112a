//! Layers and models. A layer holds the [`Slot`]s of its parameters, never their values; values come from the tape.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Module`], [`build`]: a model from its config and what the data look like |
//! | `config.rs` | [`ModelConfig`] |
//! | `layers.rs` | linear, norm, embedding, activation |
//! | `attention/` | self-attention: dense, windowed, dynamic; routers |
//! | `gpt.rs` | the decoder-only transformer |
//! | `decode.rs` | generation with a key-value cache |
//! | `activity.rs` | which hidden units are at work |
//! | `sparse.rs` | thresholds of sparse activations, the two linear layers around one |
//! | `mlp.rs`, `cnn.rs` | classifiers and regressors |

mod activity;
pub mod attention;
mod cnn;
mod config;
mod decode;
mod gpt;
mod layers;
mod mlp;
mod sparse;

pub use activity::{Census, DeadUnits, LayerActivity};
pub use attention::{DynamicConfig, is_dense, router};
pub use cnn::Cnn;
pub use config::{Activation, Attention, ModelConfig, ModelKind, Norm, Positions};
pub use decode::{Cache, Sampler};
pub use gpt::Gpt;
pub use layers::{Dropout, Embedding, Linear, NormLayer};
pub use mlp::Mlp;
pub use sparse::{FeedForward, Kernels, Mode, Nonlinearity, Rule, SparseConfig};

use crate::error::{Error, Result};
use crate::tape::{ParamsBuilder, Slot, Var};

/// Something that maps a value to a value on the same tape.
pub trait Module {
    /// The output for input `x`.
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>>;
}

/// What the data look like to a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Io {
    /// Sequences of symbols, each predicted from those before it: ids [B, T] to logits [B, T, vocabulary].
    Tokens {
        /// Number of symbols.
        vocabulary: usize,
    },
    /// Samples of a fixed shape: [B, ..shape] to [B, outputs] (logits of classes, or numbers).
    Samples {
        /// Shape of one sample.
        shape: Vec<usize>,
        /// Classes, or numbers to predict.
        outputs: usize,
    },
}

/// A model with its parameters' names and slots; values live in [`Params`](crate::tape::Params).
pub enum Model {
    /// Decoder-only transformer over symbols.
    Gpt(Gpt),
    /// Fully connected network over flattened samples.
    Mlp(Mlp),
    /// Small convolutional network over images.
    Cnn(Cnn),
}

impl Module for Model {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        match self {
            Model::Gpt(m) => m.forward(x),
            Model::Mlp(m) => m.forward(x),
            Model::Cnn(m) => m.forward(x),
        }
    }
}

impl Model {
    /// What who trains or evaluates the model should know of it.
    pub fn notice(&self) -> Option<String> {
        match self {
            Model::Gpt(m) => m.router().and_then(router::Entry::notice),
            _ => None,
        }
    }

    /// The output for input `x`, and what layers add to the loss of training, such as a price of wide windows.
    pub fn forward_penalised<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        match self {
            Model::Gpt(m) => m.forward_penalised(x),
            Model::Mlp(m) => m.forward_penalised(x),
            _ => Ok((self.forward(x)?, None)),
        }
    }
}

/// The model that `config` describes for data of the form `io`; its slots are added to `params`. With `checkpoint` a
/// transformer keeps only the input of each block and recomputes the rest during backward.
pub fn build(config: &ModelConfig, io: &Io, checkpoint: bool, params: &mut ParamsBuilder) -> Result<Model> {
    config.validate()?;
    match (config.kind, io) {
        (ModelKind::Gpt, Io::Tokens { vocabulary }) => {
            Ok(Model::Gpt(Gpt::new(config, *vocabulary, checkpoint, params)?))
        }
        (ModelKind::Mlp, Io::Samples { shape, outputs }) => {
            Ok(Model::Mlp(Mlp::new(config, shape, *outputs, params)?))
        }
        (ModelKind::Cnn, Io::Samples { shape, outputs }) => {
            Ok(Model::Cnn(Cnn::new(config, shape, *outputs, params)?))
        }
        (kind, Io::Tokens { .. }) => Err(Error::config(
            "model.kind",
            format!("`{kind}` takes samples, but the data are a text; use `gpt`"),
        )),
        (kind, Io::Samples { .. }) => Err(Error::config(
            "model.kind",
            format!("`{kind}` takes text, but the data are samples; use `mlp` or `cnn`"),
        )),
    }
}

/// `a.b`, or `b` alone when `a` is empty.
fn join(a: &str, b: &str) -> String {
    if a.is_empty() { b.into() } else { format!("{a}.{b}") }
}

/// The value of `slot` on the tape of `x`.
fn param<'t>(x: &Var<'t>, slot: Slot) -> Var<'t> {
    x.tape().param(slot)
}

/// The sum of what two layers add to the loss.
fn both<'t>(a: Option<Var<'t>>, b: Option<Var<'t>>) -> Result<Option<Var<'t>>> {
    match (a, b) {
        (Some(a), Some(b)) => a.add(&b).map(Some),
        (a, b) => Ok(a.or(b)),
    }
}
