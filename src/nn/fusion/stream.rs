//! Tokens of a modality, and which of them are there.

use crate::error::Result;
use crate::shape::Spec;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Tokens of one modality in a batch.
#[derive(Clone)]
pub(super) struct Stream<'t> {
    /// [B, T, dim].
    pub(super) x: Var<'t>,
    /// [B, 1, 1, T], added to the scores of keys: 0, or -∞ for a token that is not there. None: all are.
    pub(super) mask: Option<Var<'t>>,
    /// [B, 1]: 1 for samples that have the modality, 0 for others. None: all have it.
    pub(super) here: Option<Var<'t>>,
}

impl<'t> Stream<'t> {
    /// This stream for the samples that `here` says have it.
    pub(super) fn among(self, here: Option<Var<'t>>) -> Result<Stream<'t>> {
        let Some(here) = here else { return Ok(self) };
        let s = Stream { here: Some(here), ..self };
        let there = s.there(&s.x)?;
        let mask = match &s.mask {
            Some(mask) => mask.add(&there)?,
            None => there,
        };
        Ok(Stream { mask: Some(mask), ..s })
    }

    // ANCHOR: there
    /// The mask of tokens [B, n, dim] that are there where the modality is.
    fn there(&self, tokens: &Var<'t>) -> Result<Var<'t>> {
        let (batch, n) = (tokens.dims()[0], tokens.dims()[1]);
        let all = zeros(tokens, &[batch, 1, 1, n])?;
        match &self.here {
            // ln 1 = 0 and ln 0 = -∞.
            Some(here) => all.add(&here.log()?.reshape(&[batch, 1, 1, 1])?),
            None => Ok(all),
        }
    }
    // ANCHOR_END: there

    /// Its mask, also where all tokens are there.
    pub(super) fn whole_mask(&self) -> Result<Var<'t>> {
        self.mask.as_ref().map_or_else(|| self.there(&self.x), |mask| Ok(mask.clone()))
    }

    /// This stream with tokens [B, n, dim] in front, which are there where the modality is.
    pub(super) fn behind(&self, first: &Var<'t>) -> Result<Stream<'t>> {
        let mask = match &self.mask {
            Some(mask) => Some(Var::cat(&[&self.there(first)?, mask], 3)?),
            None => None,
        };
        Ok(Stream { x: Var::cat(&[first, &self.x], 1)?, mask, here: self.here.clone() })
    }

    /// Values [B, …] for samples that have the modality, 0 for others.
    pub(super) fn of_those_here(&self, y: Var<'t>) -> Result<Var<'t>> {
        self.here.as_ref().map_or(Ok(y.clone()), |here| y.mul(here))
    }
}

/// The masks of several streams, joined; None when all their tokens are there.
pub(super) fn masks<'t>(streams: &[&Stream<'t>]) -> Result<Option<Var<'t>>> {
    if streams.iter().all(|s| s.mask.is_none()) {
        return Ok(None);
    }
    let all = streams.iter().map(|s| s.whole_mask()).collect::<Result<Vec<_>>>()?;
    Var::cat(&all.iter().collect::<Vec<_>>(), 3).map(Some)
}

/// Zeros of `dims` where `x` is.
pub(super) fn zeros<'t>(x: &Var<'t>, dims: &[usize]) -> Result<Var<'t>> {
    let value = x.value();
    Ok(x.tape().constant(Tensor::zeros(value.device(), Spec::new(value.dtype(), dims)?)?))
}

/// A row of parameters [n, dim] for each of `batch` samples: [batch, n, dim].
pub(super) fn for_each<'t>(rows: &Var<'t>, batch: usize) -> Result<Var<'t>> {
    let &[n, dim] = rows.dims() else { unreachable!("rows of parameters have two axes") };
    zeros(rows, &[batch, n, dim])?.add(rows)
}

/// For each modality which samples keep it, [B, 1], of those that `has` says have it, while training drops modalities with
/// probability `p`, each for itself, but never all that a sample has. None: all samples do.
pub(super) fn kept<'t>(
    tape: &'t Tape,
    p: f64,
    batch: usize,
    there: &[bool],
    has: Vec<Option<Var<'t>>>,
) -> Result<Vec<Option<Var<'t>>>> {
    let mine: Vec<usize> = (0..there.len()).filter(|&m| there[m]).collect();
    if p == 0.0 || !tape.is_training() || mine.len() < 2 {
        return Ok(has);
    }
    let known = |here: &Option<Var<'t>>| here.as_ref().map(|h| h.value().to_host()?.to_f64()).transpose();
    let known = has.iter().map(known).collect::<Result<Vec<_>>>()?;
    let mut kept = vec![vec![0.0; batch]; there.len()];
    let mut rng = tape.next_key().rng();
    for b in 0..batch {
        let of_sample = |m: &&usize| known[**m].as_ref().is_none_or(|has| has[b] != 0.0);
        let mine: Vec<usize> = mine.iter().filter(of_sample).copied().collect();
        let mut any = false;
        for &m in &mine {
            let keep = rng.uniform() >= p;
            kept[m][b] = f64::from(keep);
            any |= keep;
        }
        if !mine.is_empty() {
            let saved = mine[rng.below(mine.len() as u64) as usize];
            if !any {
                kept[saved][b] = 1.0;
            }
        }
    }
    let column = |k: &Vec<f64>| Tensor::from_f64(tape.device(), tape.params().dtype(), k, &[batch, 1]);
    kept.iter().map(|k| Ok(Some(tape.constant(column(k)?)))).collect()
}
