//! Multimodal fusion: samples of several modalities (image, sound, text), each turned to tokens by an extractor of its own, and
//! a classifier over all of them. A modality that a sample lacks is masked out of the keys, never filled with zeros.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Fusion`]: the modes early, late, hybrid, experts |
//! | `config.rs` | [`FusionConfig`] as the config file says it |
//! | `extract.rs` | extractors: patches or a small CNN, frames, symbols |
//! | `stream.rs` | tokens of a modality with what is there of them; which modalities samples lack and training drops |
//! | `look.rs` | where tokens look |
//! | `attend.rs` | attention of tokens to tokens that are there, both directions from one affinity, blocks |
//! | `pair.rs` | [`Pair`]: two modalities as vectors of one space, for retrieval |
//! | `weigh.rs` | the sum of logits, with learned weights |
//! | `trunk.rs` | from tokens to logits: one modality, all jointly, all by bottleneck tokens |
//!
//! Modes, for M modalities of T_m tokens (costs of attention a layer):
//!
//! | mode | how | cost |
//! |---|---|---|
//! | early | one transformer over the tokens of all (or each attending to each: `cross`) | (ΣT_m)² |
//! | late | a transformer and a head for each; their logits are summed, which multiplies what they hold likely | ΣT_m² |
//! | hybrid | transformers for each that speak through B bottleneck tokens in the last half of the layers (Nagrani et al. 2021, "Attention Bottlenecks") | Σ(T_m + B)² |
//! | experts | the heads of late and that of early, summed (Madaan et al. 2024, "I2M2") | both |

mod attend;
mod config;
mod extract;
mod look;
mod pair;
mod stream;
mod trunk;
mod weigh;

pub use config::{Cross, FusionConfig, FusionMode, ImageExtractor, Weights};
pub use extract::{Form, Modality};
pub use look::Map;
pub use pair::Pair;

use super::{ModelConfig, Prediction};
use crate::error::{Error, Result};
use crate::tape::{ParamsBuilder, Var};
use extract::Extractor;
use stream::{Stream, kept};
use trunk::{Bottleneck, Encoder, Joint, Single};
use weigh::Weighed;

/// The model.
pub struct Fusion {
    extractors: Vec<Extractor>,
    /// Empty where modalities meet as they are extracted.
    encoders: Vec<Encoder>,
    singles: Vec<Single>,
    weighed: Weighed,
    joint: Option<Joint>,
    bottleneck: Option<Bottleneck>,
    drop: f64,
}

impl Fusion {
    /// For samples of `modalities` and `outputs` classes. Slots `NAME.…` for each modality, `joint.…`, `bottleneck.…`.
    pub fn new(
        c: &ModelConfig,
        modalities: &[Modality],
        outputs: usize,
        p: &mut ParamsBuilder,
    ) -> Result<Fusion> {
        if modalities.is_empty() {
            return Err(Error::config(
                "data.input",
                "names no field that is an image, frames of sound or a text",
            ));
        }
        let extractors = modalities.iter().map(|m| Extractor::new(c, m, p)).collect::<Result<Vec<_>>>()?;
        let alone = |p: &mut ParamsBuilder| -> Result<Vec<Single>> {
            modalities.iter().map(|m| Single::new(c, &m.name, outputs, p)).collect()
        };
        if c.fused.weights == Weights::Learned && !matches!(c.fusion, FusionMode::Late | FusionMode::Experts)
        {
            let what = format!("is learned, but {} fusion sums no logits of modalities' own heads", c.fusion);
            return Err(Error::config("model.fused.weights", what));
        }
        let weighed = Weighed::new(c, modalities.len(), p)?;
        let (mut singles, mut joint, mut bottleneck) = (vec![], None, None);
        let mut encoders = vec![];
        if c.fused.own_layers > 0 {
            if c.fusion != FusionMode::Early {
                let what = format!(
                    "is {}, but {} fusion has none; set it to 0, or model.fusion to early",
                    c.fused.own_layers, c.fusion
                );
                return Err(Error::config("model.fused.own_layers", what));
            }
            let each = modalities.iter().map(|m| Encoder::new(c, &m.name, p));
            encoders = each.collect::<Result<Vec<_>>>()?;
        }
        match c.fusion {
            FusionMode::Early => joint = Some(Joint::new(c, outputs, p)?),
            FusionMode::Late => singles = alone(p)?,
            FusionMode::Experts => (singles, joint) = (alone(p)?, Some(Joint::new(c, outputs, p)?)),
            FusionMode::Hybrid => bottleneck = Some(Bottleneck::new(c, modalities, outputs, p)?),
        }
        let drop = c.fused.modality_dropout;
        Ok(Fusion { extractors, encoders, singles, weighed, joint, bottleneck, drop })
    }

    /// Names of the modalities, in the order in which [`Fusion::forward`] takes them.
    pub fn modalities(&self) -> Vec<&str> {
        self.extractors.iter().map(|e| e.name()).collect()
    }

    /// What one batch of values, each [B, …] or None where no sample has that modality, is held to be. `has` says for each value
    /// which samples have it ([B, 1]: 1, or 0 for one that does not), None or nothing at all where all do. Values of a sample
    /// that does not must be finite. A sample without any modality comes out as if there were no evidence.
    pub fn forward<'t>(&self, inputs: &[Option<Var<'t>>], has: &[Option<Var<'t>>]) -> Result<Prediction<'t>> {
        let Some(first) = inputs.iter().flatten().next() else {
            let what = format!(
                "a sample has no modality at all; give at least one of {}",
                self.modalities().join(", ")
            );
            return Err(Error::Usage(what));
        };
        let batch = first.dims()[0];
        let there: Vec<bool> = inputs.iter().map(Option::is_some).collect();
        let has = (0..there.len()).map(|m| has.get(m).cloned().flatten()).collect();
        let here = kept(first.tape(), self.drop, batch, &there, has)?;
        let (mut streams, mut penalty) = (Vec::new(), None);
        for (m, (extractor, x)) in self.extractors.iter().zip(inputs).enumerate() {
            let Some(x) = x else { continue };
            let (stream, more) = self.encode(m, extractor.forward(x)?.among(here[m].clone())?)?;
            penalty = super::both(penalty, more)?;
            streams.push((m, stream));
        }
        self.fuse(&streams, penalty)
    }

    /// The tokens of modality `m` as they come to the meeting, and what is added to the loss.
    fn encode<'t>(&self, m: usize, s: Stream<'t>) -> Result<(Stream<'t>, Option<Var<'t>>)> {
        self.encoders.get(m).map_or(Ok((s.clone(), None)), |encoder| encoder.forward(&s))
    }

    /// Where tokens look that meet those of other modalities, of one sample [1, …]; empty for late fusion.
    pub fn maps(&self, inputs: &[Option<Var<'_>>]) -> Result<Vec<Map>> {
        let mut streams = Vec::new();
        for (m, (extractor, x)) in self.extractors.iter().zip(inputs).enumerate() {
            if let Some(x) = x {
                streams.push((m, self.encode(m, extractor.forward(x)?)?.0));
            }
        }
        let own = usize::from(!self.encoders.is_empty());
        match (&self.joint, &self.bottleneck) {
            _ if streams.is_empty() => Ok(vec![]),
            (Some(joint), _) => joint.maps(&streams, &self.modalities(), own),
            (_, Some(bottleneck)) => bottleneck.maps(&streams),
            _ => Ok(vec![]),
        }
    }

    /// Rows and columns of the tokens of each modality, over an image; of others one row.
    pub fn grids(&self) -> Vec<[usize; 2]> {
        self.extractors.iter().map(Extractor::grid).collect()
    }

    fn fuse<'t>(
        &self,
        streams: &[(usize, Stream<'t>)],
        mut penalty: Option<Var<'t>>,
    ) -> Result<Prediction<'t>> {
        let mut heads = Vec::new();
        let mut logits: Option<Var<'t>> = None;
        let mut add = |y: Var<'t>, more: Option<Var<'t>>| -> Result<()> {
            logits = super::both(logits.take(), Some(y))?;
            penalty = super::both(penalty.take(), more)?;
            Ok(())
        };
        if !self.singles.is_empty() {
            let mut price = None;
            for (m, stream) in streams {
                let (y, more) = self.singles[*m].forward(stream)?;
                heads.push((*m, y));
                price = super::both(price, more)?;
            }
            let each: Vec<Var<'t>> = heads.iter().map(|(_, y)| y.clone()).collect();
            add(self.weighed.sum(streams, &each)?, price)?;
        }
        if let Some(joint) = &self.joint {
            let (y, more) = joint.forward(streams)?;
            add(y, more)?;
        }
        if let Some(bottleneck) = &self.bottleneck {
            let (y, more, each) = bottleneck.forward(streams)?;
            heads = each;
            add(y, more)?;
        }
        let logits = logits.expect("a mode has heads");
        Ok(Prediction { output: logits, heads, penalty, symbols: None })
    }
}
