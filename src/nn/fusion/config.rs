//! Fusion, as the config file says it.

use crate::error::{Error, Result};
use crate::nn::config::words;
use serde::{Deserialize, Serialize};
use std::fmt;

words! {
    /// Where modalities meet.
    FusionMode {
        /// Before the first layer: one transformer over the tokens of all.
        Early = "early",
        /// Behind the last: logits of each are summed.
        Late = "late",
        /// From half of the layers on, of which there are two at least, through bottleneck tokens.
        Hybrid = "hybrid",
        /// Early and late: the logits of all heads are summed.
        Experts = "experts",
    }
}
words! {
    /// How tokens of different modalities attend to each other where they meet in layers of their own.
    Cross {
        /// One attention over the tokens of all modalities.
        Joint = "joint",
        /// Each pair of modalities has one matrix of affinities, read by rows in one direction and by columns in the other.
        Affinity = "affinity",
        /// Each ordered pair has its own scores, by projections that all pairs share.
        Projections = "projections",
    }
}
words! {
    /// How much the logits of each modality's own head count where they are summed.
    Weights {
        /// All alike.
        Equal = "equal",
        /// As learned numbers say, one for each modality; of those that a sample has they sum to their number.
        Learned = "learned",
    }
}
words! {
    /// How an image becomes tokens.
    ImageExtractor {
        /// A linear map of each patch.
        Patches = "patches",
        /// Two convolutions with pooling, then a third of stride 2.
        Cnn = "cnn",
    }
}

/// Settings of `model.kind = "fusion"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FusionConfig {
    /// How modalities attend to each other in early fusion and in the joint expert.
    pub cross: Cross,
    /// An ablation: modalities take nothing from each other before their logits are added or averaged.
    pub cut: bool,
    /// How much each modality's own logits count in late fusion and among experts.
    pub weights: Weights,
    /// Bottleneck tokens of hybrid fusion.
    pub bottleneck: usize,
    /// Probability that training drops a modality of a sample; at least one stays.
    pub modality_dropout: f64,
    /// Added to the loss: this times the loss of each modality's own head.
    pub head_loss: f64,
    /// Blocks in which each modality is by itself before early fusion. 0: its tokens meet the others' as they are extracted.
    pub own_layers: usize,
    /// How an image becomes tokens.
    pub image: ImageExtractor,
    /// Side of an image's patches, in pixels.
    pub patch: usize,
    /// Frames of sound that make a token.
    pub frames: usize,
}

impl Default for FusionConfig {
    fn default() -> FusionConfig {
        FusionConfig {
            cross: Cross::Joint,
            cut: false,
            weights: Weights::Equal,
            bottleneck: 4,
            modality_dropout: 0.0,
            head_loss: 0.0,
            own_layers: 0,
            image: ImageExtractor::Patches,
            patch: 7,
            frames: 4,
        }
    }
}

impl FusionConfig {
    /// Errors on values that no model can have, naming the key.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, what: String| Err(Error::config(format!("model.fused.{key}"), what));
        for (key, value) in [("bottleneck", self.bottleneck), ("patch", self.patch), ("frames", self.frames)]
        {
            if !(1..=4096).contains(&value) {
                return bad(key, format!("is {value}, but must be between 1 and 4096"));
            }
        }
        if !(0.0..1.0).contains(&self.modality_dropout) {
            return bad(
                "modality_dropout",
                format!("is {}, but must be at least 0 and below 1", self.modality_dropout),
            );
        }
        if !(self.head_loss >= 0.0 && self.head_loss.is_finite()) {
            return bad("head_loss", format!("is {}, but must be 0 or more", self.head_loss));
        }
        Ok(())
    }
}
