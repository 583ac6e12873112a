//! What a model is made of, as the config file says it.

use super::SparseConfig;
use super::attention::DynamicConfig;
use super::fusion::{FusionConfig, FusionMode};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Declares a set of words that a config key takes.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }
        impl $name {
            /// Every word that the key takes.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $word),+ })
            }
        }
    };
}

pub(super) use words;

words! {
    /// Which model.
    ModelKind {
        /// Decoder-only transformer over symbols.
        Gpt = "gpt",
        /// Fully connected network.
        Mlp = "mlp",
        /// Small convolutional network.
        Cnn = "cnn",
        /// Transformers over several modalities.
        Fusion = "fusion",
        /// Two modalities as vectors of one space, for retrieval.
        Pair = "pair",
    }
}
words! {
    /// How tokens attend to each other.
    Attention {
        /// Each to all before it.
        Dense = "dense",
        /// Each to a window of fixed size.
        Window = "window",
        /// Each to windows of learned size and place, and to what a router finds: see [`DynamicConfig`].
        Dynamic = "dynamic",
    }
}
words! {
    /// The function between two linear layers.
    Activation {
        /// Exact gelu (erf).
        Gelu = "gelu",
        /// Gelu by tanh.
        GeluTanh = "gelu_tanh",
        /// max(x, 0).
        Relu = "relu",
        /// x·sigmoid(x).
        Silu = "silu",
        /// 0 up to a threshold: see [`SparseConfig`].
        Sparse = "sparse",
    }
}
words! {
    /// How a transformer knows the order of tokens.
    Positions {
        /// A learned vector for each position.
        Learned = "learned",
        /// Rotation of queries and keys.
        Rotary = "rotary",
        /// By what attention may see alone: the causal mask, windows, earlier tokens in keys.
        None = "none",
    }
}
words! {
    /// Which normalisation.
    Norm {
        /// Layer norm with weight and bias.
        Layer = "layer",
        /// RMS norm with weight.
        Rms = "rms",
    }
}

/// What a model is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Which model.
    pub kind: ModelKind,
    /// Transformer blocks, or hidden layers of an MLP, or pairs of convolutions of a CNN.
    pub layers: usize,
    /// Width: of the residual stream, of an MLP's hidden layers, of a CNN's first convolution (channels).
    pub dim: usize,
    /// Attention heads; `dim` must be divisible by them.
    pub heads: usize,
    /// Longest sequence, in symbols.
    pub context: usize,
    /// How tokens attend to each other.
    pub attention: Attention,
    /// The function between two linear layers.
    pub activation: Activation,
    /// Thresholds of `activation = "sparse"`.
    pub sparse: SparseConfig,
    /// How a transformer knows the order of tokens.
    pub positions: Positions,
    /// Which normalisation.
    pub norm: Norm,
    /// Share of activations dropped in training.
    pub dropout: f64,
    /// Use the token embedding as output layer too.
    pub tied: bool,
    /// Tokens before each of which it carries linear maps, from its embedding on.
    pub shift: usize,
    /// Queries and keys have length 1 times a learned scale.
    pub qk_norm: bool,
    /// Heads of each layer, the first ones, whose key is the query of the token before, scaled to one length, and which no
    /// position turns: they find what followed upon contexts like this one (an induction head by construction).
    pub recall_heads: usize,
    /// How queries find the blocks of keys beyond their windows: a name of [`router::ALL`](super::router::ALL), or `none`.
    pub router: String,
    /// Windows and blocks of `attention = "window"` and `"dynamic"`.
    pub dynamic: DynamicConfig,
    /// Where the modalities of `kind = "fusion"` meet.
    pub fusion: FusionMode,
    /// Its other settings.
    pub fused: FusionConfig,
}

impl Default for ModelConfig {
    fn default() -> ModelConfig {
        ModelConfig {
            kind: ModelKind::Gpt,
            layers: 4,
            dim: 128,
            heads: 4,
            context: 128,
            attention: Attention::Dense,
            activation: Activation::GeluTanh,
            sparse: SparseConfig::default(),
            positions: Positions::Learned,
            norm: Norm::Layer,
            dropout: 0.0,
            tied: false,
            shift: 0,
            qk_norm: false,
            recall_heads: 0,
            router: "none".into(),
            dynamic: DynamicConfig::default(),
            fusion: FusionMode::Early,
            fused: FusionConfig::default(),
        }
    }
}

/// Most tokens that another carries: the map of them all is dense.
const MOST_SHIFT: usize = 64;

impl ModelConfig {
    /// Errors on sizes that no model can have, naming the key and the value.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("model.layers", self.layers, 1000),
            ("model.dim", self.dim, 1 << 16),
            ("model.heads", self.heads, 1 << 12),
            ("model.context", self.context, 1 << 24),
        ];
        for (key, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(Error::config(key, format!("is {value}, but must be between 1 and {limit}")));
            }
        }
        if self.shift > MOST_SHIFT {
            let what = format!("is {}, but must be at most {MOST_SHIFT}", self.shift);
            return Err(Error::config("model.shift", what));
        }
        if self.recall_heads > self.heads {
            let what = format!("is {}, but model.heads is {}", self.recall_heads, self.heads);
            return Err(Error::config("model.recall_heads", what));
        }
        if matches!(self.kind, ModelKind::Gpt | ModelKind::Fusion | ModelKind::Pair) {
            if !self.dim.is_multiple_of(self.heads) {
                let what = format!("is {}, which is not divisible by model.heads = {}", self.dim, self.heads);
                return Err(Error::config("model.dim", what));
            }
            if self.positions == Positions::Rotary && !(self.dim / self.heads).is_multiple_of(2) {
                let what = format!(
                    "/ model.heads is {}, but rotary positions need an even width of head",
                    self.dim / self.heads
                );
                return Err(Error::config("model.dim", what));
            }
        }
        if self.attention != Attention::Dense {
            self.dynamic.validate(self)?;
        } else if self.router != "none" {
            let what = format!("is `{}`, but only model.attention = \"dynamic\" takes a router", self.router);
            return Err(Error::config("model.router", what));
        }
        self.fused.validate()?;
        if self.activation == Activation::Sparse {
            self.sparse.validate()?;
            if self.kind == ModelKind::Cnn {
                let what = "is `sparse`, which takes hidden units of a gpt or an mlp; use relu for a cnn";
                return Err(Error::config("model.activation", what));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config(
                "model.dropout",
                format!("is {}, but must be at least 0 and below 1", self.dropout),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sizes_name_their_key() {
        let bad = |c: ModelConfig| c.validate().unwrap_err().to_string();
        let base = ModelConfig::default;
        assert!(bad(ModelConfig { layers: 0, ..base() }).contains("model.layers"));
        assert!(bad(ModelConfig { dim: 130, ..base() }).contains("130"));
        assert!(bad(ModelConfig { dropout: f64::NAN, ..base() }).contains("NaN"));
        assert!(base().validate().is_ok());
    }
}
