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
//! | `parallel/` | layers that ranks share |
//! | `mlp.rs`, `cnn.rs` | classifiers and regressors |
//! | `fusion/` | classifiers of samples of several modalities |

mod activity;
pub mod attention;
mod cnn;
mod config;
mod decode;
pub mod fusion;
mod gpt;
mod layers;
mod mlp;
pub mod parallel;
mod sparse;

pub use activity::{Census, DeadUnits, LayerActivity};
pub use attention::{DynamicConfig, is_dense, router};
pub use cnn::Cnn;
pub use config::{Activation, Attention, ModelConfig, ModelKind, Norm, Positions};
pub use decode::{Cache, Sampler};
pub use fusion::{Fusion, FusionConfig, FusionMode, Modality, Pair};
pub use gpt::Gpt;
pub use layers::{Dropout, Embedding, Linear, NormLayer};
pub use mlp::Mlp;
pub use parallel::{Part, Stage};
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
    /// Samples of several modalities, a value for each: to [B, outputs].
    Modalities {
        /// What they are, in the order of the values.
        modalities: Vec<Modality>,
        /// Classes, or numbers to predict; 0 where the modalities of a sample foretell each other.
        outputs: usize,
    },
}

/// What a model makes of a batch.
pub struct Prediction<'t> {
    /// Logits or numbers: [B, T, vocabulary] or [B, outputs]; of a model for retrieval [B, B], each sample beside each.
    pub output: Var<'t>,
    /// Number of a modality and the logits of its own head, 0 for samples without it; for models of several modalities.
    pub heads: Vec<(usize, Var<'t>)>,
    /// What layers add to the loss of training, such as a price of wide windows.
    pub penalty: Option<Var<'t>>,
    /// The symbols that the logits are of, where ranks share them.
    pub symbols: Option<parallel::Vocabulary>,
}

/// A model with its parameters' names and slots; values live in [`Params`](crate::tape::Params).
pub enum Model {
    /// Decoder-only transformer over symbols.
    Gpt(Box<Gpt>),
    /// Fully connected network over flattened samples.
    Mlp(Mlp),
    /// Small convolutional network over images.
    Cnn(Cnn),
    /// Transformers over samples of several modalities.
    Fusion(Fusion),
    /// Two modalities as vectors of one space.
    Pair(Box<Pair>),
}

impl Module for Model {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        match self {
            Model::Gpt(m) => m.forward(x),
            Model::Mlp(m) => m.forward(x),
            Model::Cnn(m) => m.forward(x),
            Model::Fusion(m) => Ok(m.forward(&[Some(x.clone())], &[])?.output),
            Model::Pair(m) => Ok(m.forward(&[Some(x.clone())])?.output),
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

    /// What the model makes of `inputs`, a value for each field that it reads; None for a modality that no sample has.
    pub fn predict<'t>(&self, inputs: &[Option<Var<'t>>]) -> Result<Prediction<'t>> {
        self.predict_of(inputs, &[])
    }

    /// [`Model::predict`] where `has` says of each value which samples have it, as [`Fusion::forward`] takes it. Other models
    /// take no heed of it.
    pub fn predict_of<'t>(
        &self,
        inputs: &[Option<Var<'t>>],
        has: &[Option<Var<'t>>],
    ) -> Result<Prediction<'t>> {
        let only = || {
            let first = inputs.first().and_then(Option::as_ref);
            first.ok_or_else(|| Error::shape("model", "reads one input, and there is none"))
        };
        let (output, penalty) = match self {
            Model::Gpt(m) => m.forward_penalised(only()?)?,
            Model::Mlp(m) => m.forward_penalised(only()?)?,
            Model::Cnn(m) => (m.forward(only()?)?, None),
            Model::Fusion(m) => return m.forward(inputs, has),
            Model::Pair(m) => return m.forward(inputs),
        };
        let symbols = match self {
            Model::Gpt(m) => m.symbols().cloned(),
            _ => None,
        };
        Ok(Prediction { output, heads: vec![], penalty, symbols })
    }
}

/// The model that `config` describes for data of the form `io`; its slots are added to `params`. With `checkpoint` a
/// transformer keeps only the input of each block and recomputes the rest during backward.
pub fn build(config: &ModelConfig, io: &Io, checkpoint: bool, params: &mut ParamsBuilder) -> Result<Model> {
    build_part(config, io, checkpoint, &Part::default(), params)
}

/// [`build`] of the part that a rank has of a model that several share.
pub fn build_part(
    config: &ModelConfig,
    io: &Io,
    checkpoint: bool,
    part: &Part,
    params: &mut ParamsBuilder,
) -> Result<Model> {
    config.validate()?;
    match (config.kind, io) {
        (ModelKind::Gpt, Io::Tokens { vocabulary }) => {
            Ok(Model::Gpt(Box::new(Gpt::new(config, *vocabulary, checkpoint, part, params)?)))
        }
        (kind, _) if !part.is_whole() => {
            let what =
                format!("is {kind}, whose layers ranks cannot share; use gpt, or a mesh of data alone");
            Err(Error::config("model.kind", what))
        }
        (ModelKind::Mlp, Io::Samples { shape, outputs }) => {
            Ok(Model::Mlp(Mlp::new(config, shape, *outputs, params)?))
        }
        (ModelKind::Cnn, Io::Samples { shape, outputs }) => {
            Ok(Model::Cnn(Cnn::new(config, shape, *outputs, params)?))
        }
        (ModelKind::Fusion, Io::Modalities { modalities, outputs }) => {
            Ok(Model::Fusion(Fusion::new(config, modalities, *outputs, params)?))
        }
        (ModelKind::Pair, Io::Modalities { modalities, .. }) => {
            Ok(Model::Pair(Box::new(Pair::new(config, modalities, params)?)))
        }
        (kind, Io::Modalities { .. }) => Err(Error::config(
            "model.kind",
            format!("`{kind}` reads one field, but data.input names several; use `fusion`"),
        )),
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
