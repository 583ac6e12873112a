//! The sum of what modalities' own heads say, in which each may have a weight that is learned.
//!
//! Of the modalities H that a sample has, y = |H|·Σ_{m ∈ H} w_m·y_m, w = softmax over H of a learned number for each: a
//! modality that is missing takes no share, and at first, when the numbers are 0, y is the plain sum. As a sum of logits is a
//! product of what heads hold likely, a weight is a power of it (a logarithmic opinion pool: Genest and Zidek 1986).

use super::Weights;
use super::stream::{Stream, zeros};
use crate::error::Result;
use crate::nn::{ModelConfig, both, param};
use crate::tape::{Init, ParamsBuilder, Role, Slot, Var};

/// How the heads' logits are summed. The slot is [M]; None: all count alike.
pub(super) struct Weighed(Option<Slot>);

impl Weighed {
    /// Slot `weights` where they are learned, for `n` modalities.
    pub(super) fn new(c: &ModelConfig, n: usize, p: &mut ParamsBuilder) -> Result<Weighed> {
        Ok(Weighed(match c.fused.weights {
            Weights::Equal => None,
            Weights::Learned => Some(p.add("weights", &[n], Init::Constant(0.0), Role::Plain)?),
        }))
    }

    /// Of logits [B, outputs] of each stream, 0 where a sample lacks its modality.
    pub(super) fn sum<'t>(&self, streams: &[(usize, Stream<'t>)], logits: &[Var<'t>]) -> Result<Var<'t>> {
        let weighed = match self.0 {
            None => logits.to_vec(),
            Some(slot) => {
                let w = shares(&param(&logits[0], slot), streams, logits[0].dims()[0])?;
                let one = |(i, y): (usize, &Var<'t>)| y.mul(&w.narrow(1, i, 1)?);
                logits.iter().enumerate().map(one).collect::<Result<_>>()?
            }
        };
        let sum = weighed.into_iter().try_fold(None, |sum, y| both(sum, Some(y)))?;
        Ok(sum.expect("a sample has a modality"))
    }
}

/// |H|·w [B, streams] from the learned numbers `all` [M].
fn shares<'t>(all: &Var<'t>, streams: &[(usize, Stream<'t>)], batch: usize) -> Result<Var<'t>> {
    let column = |(m, _): &(usize, Stream<'t>)| zeros(all, &[batch, 1])?.add(&all.narrow(0, *m, 1)?);
    let scores = streams.iter().map(column).collect::<Result<Vec<_>>>()?;
    let scores = Var::cat(&scores.iter().collect::<Vec<_>>(), 1)?;
    if streams.iter().all(|(_, s)| s.here.is_none()) {
        return scores.softmax(-1)?.scale(streams.len() as f64);
    }
    let one = zeros(all, &[batch, 1])?.exp()?;
    let here = |(_, s): &(usize, Stream<'t>)| s.here.clone().unwrap_or_else(|| one.clone());
    let here: Vec<Var<'t>> = streams.iter().map(here).collect();
    let here = Var::cat(&here.iter().collect::<Vec<_>>(), 1)?;
    let count = here.sum_over(&[1], true)?;
    // A sample that has none is weighed as if it had all: a softmax over nothing has no value, and its logits are 0.
    let none = one.sub(&count.clamp(0.0, 1.0)?)?;
    scores.add(&here.add(&none)?.log()?)?.softmax(-1)?.mul(&count)
}
