//! Two modalities as vectors of one space, where those of one sample lie close (Radford et al. 2021, "CLIP"): for retrieval.
//!
//! a_i and b_i, of length 1, stand for the two sides of sample i; s_ij = e^τ·a_i·b_j with a learned τ. The loss of a batch is
//! the mean of two cross-entropies, of the rows of s (which b belongs to a_i?) and of its columns, with i as the class of i.

use super::Modality;
use super::extract::Extractor;
use super::trunk::Single;
use crate::error::{Error, Result};
use crate::nn::{ModelConfig, Prediction, both, param};
use crate::tape::{Init, ParamsBuilder, Role, Slot, Var};

/// The model.
pub struct Pair {
    sides: [(Extractor, Single); 2],
    /// τ.
    scale: Slot,
}

/// e^τ at first: 1/0.07.
const SHARPNESS: f64 = 1.0 / 0.07;
/// e^τ at most, as in the source: sharper scores are less stable.
const SHARPEST: f64 = 100.0;

impl Pair {
    /// For samples of two `modalities`. Slots `NAME.…` for each, and `logit_scale`.
    pub fn new(c: &ModelConfig, modalities: &[Modality], p: &mut ParamsBuilder) -> Result<Pair> {
        let [a, b] = modalities else {
            let what = format!("names {} fields, but a model of kind pair reads two", modalities.len());
            return Err(Error::config("data.input", what));
        };
        let mut side = |m: &Modality| -> Result<(Extractor, Single)> {
            Ok((Extractor::new(c, m, p)?, Single::new(c, &m.name, c.dim, p)?))
        };
        let sides = [side(a)?, side(b)?];
        let scale = p.add("logit_scale", &[1], Init::Constant(SHARPNESS.ln()), Role::Plain)?;
        Ok(Pair { sides, scale })
    }

    /// Vectors [B, dim] of length 1 for values [B, …] of modality `side`, 0 or 1, and what layers add to the loss.
    pub fn embed<'t>(&self, side: usize, x: &Var<'t>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let (extractor, trunk) = &self.sides[side];
        let (y, penalty) = trunk.forward(&extractor.forward(x)?)?;
        // rms_norm gives length √dim.
        let length = (y.dims()[1] as f64).sqrt();
        Ok((y.rms_norm(None, None)?.scale(1.0 / length)?, penalty))
    }

    /// s [B, B] of a batch: rows are samples of the first modality.
    pub fn forward<'t>(&self, inputs: &[Option<Var<'t>>]) -> Result<Prediction<'t>> {
        let [Some(a), Some(b)] = inputs else {
            return Err(Error::Usage("retrieval needs both modalities of each sample".into()));
        };
        let ((a, more_a), (b, more_b)) = (self.embed(0, a)?, self.embed(1, b)?);
        let scale = param(&a, self.scale).clamp(f64::NEG_INFINITY, SHARPEST.ln())?;
        let output = a.matmul_transposed(&b)?.mul(&scale.exp()?)?;
        Ok(Prediction { output, heads: vec![], penalty: both(more_a, more_b)?, symbols: None })
    }
}
