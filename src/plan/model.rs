//! What a GPT holds and computes, counted from its configuration.

use crate::error::{Error, Result};
use crate::nn::{Activation, Attention, ModelConfig, ModelKind, Norm, Positions};
use serde::Serialize;

/// A GPT of ringtape, as far as costs depend on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// Blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Tokens of a sample.
    pub context: usize,
    /// Symbols.
    pub vocabulary: usize,
    /// Parameters of one block.
    pub block: f64,
    /// Parameters before the blocks: embeddings.
    pub first: f64,
    /// Parameters behind them: the last norm, and the output layer where it is not the embedding.
    pub last: f64,
}

impl Model {
    /// That of a configuration, for `vocabulary` symbols. Errors on models whose costs are not known here, naming the key.
    pub fn of(c: &ModelConfig, vocabulary: usize) -> Result<Model> {
        c.validate()?;
        let plain = [
            ("model.kind", c.kind == ModelKind::Gpt, "gpt"),
            ("model.attention", c.attention == Attention::Dense, "dense"),
            ("model.activation", c.activation != Activation::Sparse, "gelu, gelu_tanh, relu or silu"),
            ("model.shift", c.shift == 0, "0"),
            ("model.recall_heads", c.recall_heads == 0, "0"),
            ("model.qk_norm", !c.qk_norm, "false"),
        ];
        if let Some((key, _, wanted)) = plain.iter().find(|(_, ok, _)| !ok) {
            return Err(Error::config(
                *key,
                format!("must be {wanted} for a plan: costs of others are not known"),
            ));
        }
        if vocabulary == 0 || vocabulary > 1 << 24 {
            let what = format!("is {vocabulary}, but must be between 1 and {}", 1 << 24);
            return Err(Error::config("--vocabulary", what));
        }
        let (d, v) = (c.dim as f64, vocabulary as f64);
        let norm = match c.norm {
            Norm::Layer => 2.0 * d,
            Norm::Rms => d,
        };
        let positions = if c.positions == Positions::Learned { c.context as f64 * d } else { 0.0 };
        Ok(Model {
            layers: c.layers,
            dim: c.dim,
            heads: c.heads,
            context: c.context,
            vocabulary,
            // ANCHOR: parameters
            // Queries, keys, values and what they become: 4d² + 4d. The MLP: 4d² + 4d and 4d² + d.
            block: 12.0 * d * d + 9.0 * d + 2.0 * norm,
            first: v * d + positions,
            last: norm + if c.tied { 0.0 } else { v * d },
            // ANCHOR_END: parameters
        })
    }

    /// Parameters in all.
    pub fn parameters(&self) -> f64 {
        self.first + self.layers as f64 * self.block + self.last
    }

    // ANCHOR: operations
    /// Operations of a block forward, for a token: two for each weight of its products; scores and their use are 4·T·d where a
    /// token sees all T, and half of that where it sees those before it.
    pub fn block_forward(&self) -> f64 {
        let (d, t) = (self.dim as f64, self.context as f64);
        24.0 * d * d + 2.0 * t * d
    }

    /// Those of the output layer.
    pub fn head_forward(&self) -> f64 {
        2.0 * self.vocabulary as f64 * self.dim as f64
    }

    /// Of training on a token: backward is twice as much as forward.
    pub fn training(&self) -> f64 {
        3.0 * (self.layers as f64 * self.block_forward() + self.head_forward())
    }
    // ANCHOR_END: operations
}

/// Numbers of width `dim` that a block keeps for backward, for each token: inputs of two norms, of attention and of the MLP (4),
/// queries, keys, values, what attention gives (4), the hidden units before and after their function (8).
pub(super) const KEPT: f64 = 16.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_refused_by_key() {
        let bad = |c: ModelConfig| Model::of(&c, 65).unwrap_err().to_string();
        let base = ModelConfig::default;
        assert!(bad(ModelConfig { kind: ModelKind::Mlp, ..base() }).contains("model.kind"));
        assert!(bad(ModelConfig { shift: 2, ..base() }).contains("model.shift"));
        assert!(bad(ModelConfig { activation: Activation::Sparse, ..base() }).contains("model.activation"));
        assert!(Model::of(&base(), 0).unwrap_err().to_string().contains("--vocabulary"));
    }

    #[test]
    fn six_operations_a_parameter_and_attention() {
        // GPT-3 (Brown et al. 2020): 96 layers of 12,288, context 2,048: 175 billion parameters.
        let c = ModelConfig { layers: 96, dim: 12288, heads: 96, context: 2048, ..ModelConfig::default() };
        let m = Model::of(&c, 50257).unwrap();
        assert!((m.parameters() / 175e9 - 1.0).abs() < 0.005, "{}", m.parameters());
        let attention = 6.0 * 96.0 * 2048.0 * 12288.0;
        assert!((m.training() / (6.0 * m.parameters() + attention) - 1.0).abs() < 0.005);
    }
}
