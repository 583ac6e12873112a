//! Windows and blocks of a layer's attention, as the config file says them.

use crate::error::{Error, Result};
use crate::nn::config::words;
use crate::nn::{Attention, ModelConfig, router};
use serde::{Deserialize, Serialize};
use std::fmt;

words! {
    /// What a window's size depends on.
    Span {
        /// Nothing: it stays as configured.
        Fixed = "fixed",
        /// The head, learned (Sukhbaatar et al. 2019).
        Head = "head",
        /// The head and the token, by a learned linear map of the token.
        Token = "token",
    }
}
words! {
    /// Where a second window stands.
    Place {
        /// There is none.
        None = "none",
        /// A learned number of tokens before the query, for each head.
        Lag = "lag",
        /// Where a small network over the query's token says (Luong et al. 2015, "local-p").
        Predicted = "predicted",
    }
}
words! {
    /// Form of the second window.
    Form {
        /// 1 over its width, then a straight fall.
        Ramp = "ramp",
        /// A bell, whose slope is nowhere 0 up to three deviations.
        Gaussian = "gaussian",
    }
}
words! {
    /// When dynamic attention is replaced by dense.
    Dense {
        /// Where the context is so short that dense attention measured faster.
        Auto = "auto",
        /// Never.
        Never = "never",
    }
}

/// Windows and blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DynamicConfig {
    /// Keys that a query sees in full, its own among them: of a fixed window always, of a learned one at first.
    pub window: usize,
    /// Largest span that can be learned, in tokens; 0: the context.
    pub limit: usize,
    /// Keys over which a window falls from 1 to 0.
    pub ramp: f64,
    /// What the size depends on.
    pub span: Span,
    /// Added to the loss: this times the mean span, in shares of the limit.
    pub penalty: f64,
    /// Where a second window stands.
    pub place: Place,
    /// Form of the second window.
    pub form: Form,
    /// Half width of the second window at first, in tokens.
    pub width: f64,
    /// Keys of a routed block.
    pub block: usize,
    /// Routed blocks of a query, at most.
    pub blocks: usize,
    /// Rounds of hashing.
    pub rounds: usize,
    /// Hashes that together make the bucket of a round.
    pub hashes: usize,
    /// Values of each hash; a round has buckets^hashes buckets.
    pub buckets: usize,
    /// Entries of a bucket's list that a query reads.
    pub reach: usize,
    /// Tokens of a chunk of the row sorted by bucket.
    pub chunk: usize,
    /// Keys are queries scaled to one length (Kitaev et al. 2020): what a query looks for then lies at a small angle to it.
    pub shared_keys: bool,
    /// Hash lengths of keys too, not only directions.
    pub lengths: bool,
    /// Heads of the scores that a router learns.
    pub index_heads: usize,
    /// Width of each of them.
    pub index_width: usize,
    /// Added to the loss: this times how far those scores are from where attention goes.
    pub index_loss: f64,
    /// When dense attention is used instead.
    pub dense: Dense,
}

impl Default for DynamicConfig {
    fn default() -> DynamicConfig {
        DynamicConfig {
            window: 64,
            limit: 0,
            ramp: 32.0,
            span: Span::Head,
            penalty: 0.0,
            place: Place::None,
            form: Form::Ramp,
            width: 8.0,
            block: 64,
            blocks: 8,
            rounds: 4,
            hashes: 2,
            buckets: 16,
            reach: 64,
            chunk: 64,
            shared_keys: false,
            lengths: false,
            index_heads: 4,
            index_width: 32,
            index_loss: 1.0,
            dense: Dense::Auto,
        }
    }
}

/// Keys a query of dynamic attention may see for each key of dense attention at equal time: forward and backward at
/// 4 heads of 64 (`benches/README.md`, "Dynamic attention"). Dense pays for half of the context.
const DEARER: f64 = 1.3;

impl DynamicConfig {
    /// Largest span, in tokens.
    pub fn limit(&self, context: usize) -> usize {
        if self.limit == 0 { context } else { self.limit }
    }

    /// Length of context below which dense attention is faster, in forward and backward.
    pub fn crossover(&self, routed: bool) -> usize {
        let keys = self.window as f64
            + self.ramp / 2.0
            + if routed { (self.blocks * self.block) as f64 } else { 0.0 };
        (2.0 * DEARER * keys) as usize
    }

    /// Errors on values that no layer can have, naming the key.
    pub fn validate(&self, model: &ModelConfig) -> Result<()> {
        let bad = |key: &str, what: String| Err(Error::config(format!("model.dynamic.{key}"), what));
        let limit = self.limit(model.context);
        let sizes = [
            ("window", self.window, 1, limit),
            ("blocks", self.blocks, 1, 32),
            ("rounds", self.rounds, 1, 64),
            ("hashes", self.hashes, 1, 64 / self.rounds.max(1)),
            ("buckets", self.buckets, 2, 256),
            ("reach", self.reach, 1, 512 / self.rounds.max(1)),
            ("chunk", self.chunk, 1, 1 << 16),
            ("index_heads", self.index_heads, 1, 256),
            ("index_width", self.index_width, 1, 1 << 12),
        ];
        for (key, value, least, most) in sizes {
            if value < least || value > most {
                let why = match key {
                    "window" => " (the largest span)",
                    "hashes" => " (64 rotations a layer in all rounds)",
                    "reach" => " (512 entries in all rounds)",
                    _ => "",
                };
                return bad(key, format!("is {value}, but must be {least} to {most}{why}"));
            }
        }
        if !self.buckets.is_multiple_of(2) || (self.buckets as u128).pow(self.hashes as u32) > 1 << 20 {
            let what = format!("is {}, but must be even, and buckets^hashes at most 2^20", self.buckets);
            return bad("buckets", what);
        }
        if !(matches!(self.block, 16 | 32)
            || self.block > 0 && self.block.is_multiple_of(64) && self.block <= 1 << 16)
        {
            return bad("block", format!("is {}, but must be 16, 32 or a multiple of 64", self.block));
        }
        let reals = [("ramp", self.ramp, 1.0), ("penalty", self.penalty, 0.0), ("width", self.width, 0.0)];
        for (key, value, least) in reals {
            if !(value >= least && value.is_finite()) {
                return bad(key, format!("is {value}, but must be {least} or more"));
            }
        }
        if !(self.index_loss > 0.0 && self.index_loss.is_finite()) {
            return bad("index_loss", format!("is {}, but must be above 0", self.index_loss));
        }
        if self.place != Place::None && self.width >= limit as f64 {
            return bad("width", format!("is {}, but must be below the largest span, {limit}", self.width));
        }
        if model.attention == Attention::Window && model.router != "none" {
            let what =
                format!("is `{}`, but only model.attention = \"dynamic\" takes a router", model.router);
            return Err(Error::config("model.router", what));
        }
        self.expect_keys(model)
    }

    /// Errors when heads are to recall that have no keys of their own.
    fn expect_keys(&self, model: &ModelConfig) -> Result<()> {
        let router = router::find(&model.router)?;
        if model.recall_heads > 0 && (self.shared_keys || router.is_some_and(|r| r.shares_keys)) {
            let what = format!(
                "is {}, but the keys of all heads are their queries already (model.dynamic.shared_keys, or the router); \
                 set it to 0",
                model.recall_heads
            );
            return Err(Error::config("model.recall_heads", what));
        }
        Ok(())
    }
}
