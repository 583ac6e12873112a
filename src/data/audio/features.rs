//! A recording to frames, as a recipe says. All in f64 by plain arithmetic, so that what is stored as f16 is the same
//! everywhere.

use super::mel::{Band, bank};
use super::{Log, Recipe};
use crate::error::{Error, Result};
use realfft::{RealFftPlanner, RealToComplex};
use std::f64::consts::PI;
use std::sync::Arc;

/// Energies below this count as this: the logarithm of silence is finite.
const FLOOR: f64 = 1e-10;

/// Frames of coefficients, one behind the other.
#[derive(Clone, PartialEq, Debug)]
pub struct Frames {
    /// Values of a frame.
    pub width: usize,
    /// All values, row-major.
    pub values: Vec<f32>,
}

impl Frames {
    /// Number of frames.
    pub fn count(&self) -> usize {
        self.values.len() / self.width
    }
}

/// A recipe made ready: window, transform, filterbank and cosines are computed once.
pub struct Features {
    recipe: Recipe,
    window: Vec<f64>,
    transform: Arc<dyn RealToComplex<f64>>,
    bank: Vec<Band>,
    /// Rows of the orthonormal cosine transform (DCT-II), where coefficients are wanted.
    cosines: Vec<f64>,
}

impl Features {
    /// Makes `recipe` ready. Errors when it cannot be.
    pub fn new(recipe: &Recipe) -> Result<Features> {
        if let Some(fault) = recipe.fault() {
            return Err(Error::Usage(format!("the front end {fault}")));
        }
        let n = recipe.window as usize;
        // Periodic, as for spectra: one sample more would repeat the first.
        let window = (0..n).map(|k| 0.5 - 0.5 * libm::cos(2.0 * PI * k as f64 / n as f64)).collect();
        let mels = recipe.mels as usize;
        let cosine = |k: usize| {
            let norm = if k == 0 { 1.0 / mels as f64 } else { 2.0 / mels as f64 };
            (0..mels).map(move |m| norm.sqrt() * libm::cos(PI / mels as f64 * (m as f64 + 0.5) * k as f64))
        };
        Ok(Features {
            recipe: recipe.clone(),
            window,
            transform: RealFftPlanner::new().plan_fft_forward(n),
            bank: bank(recipe),
            cosines: (0..recipe.coefficients as usize).flat_map(cosine).collect(),
        })
    }

    /// Frames of a recording of any length, in samples from -1 to 1. Errors where it has none, or is shorter than a
    /// window that is not centred.
    pub fn frames(&self, samples: &[f32]) -> Result<Frames> {
        let (window, hop) = (self.window.len(), self.recipe.hop as usize);
        let before = if self.recipe.centred { window / 2 } else { 0 };
        let span = samples.len() + 2 * before;
        if samples.is_empty() || span < window {
            let what = format!(
                "a recording of {} samples, but one window takes {window}; record a longer one",
                samples.len()
            );
            return Err(Error::Usage(what));
        }
        let mut input = self.transform.make_input_vec();
        let mut spectrum = self.transform.make_output_vec();
        let mut scratch = self.transform.make_scratch_vec();
        let mut logs = vec![];
        for frame in 0..1 + (span - window) / hop {
            for (k, (x, w)) in input.iter_mut().zip(&self.window).enumerate() {
                *x = f64::from(samples[mirrored(frame * hop + k, before, samples.len())]) * w;
            }
            let done = self.transform.process_with_scratch(&mut input, &mut spectrum, &mut scratch);
            done.map_err(|e| Error::Usage(format!("the transform of a window failed: {e}")))?;
            let energies = self.bank.iter().map(|band| {
                let bins = spectrum[band.first..].iter().zip(&band.weights);
                bins.map(|(z, w)| w * (z.re * z.re + z.im * z.im)).sum::<f64>().max(FLOOR)
            });
            logs.extend(energies.map(|e| match self.recipe.log {
                Log::Natural => libm::log(e),
                Log::Decibel { .. } => 10.0 * libm::log10(e),
            }));
        }
        if let Log::Decibel { range } = self.recipe.log {
            let least = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max) - f64::from(range);
            logs.iter_mut().for_each(|v| *v = v.max(least));
        }
        Ok(Frames { width: self.recipe.width(), values: self.cosine_transform(&logs) })
    }

    /// The wanted coefficients of each row of logarithms, or these themselves.
    fn cosine_transform(&self, logs: &[f64]) -> Vec<f32> {
        if self.cosines.is_empty() {
            return logs.iter().map(|&v| v as f32).collect();
        }
        let mels = self.bank.len();
        let rows = logs.chunks_exact(mels);
        let dot = |row: &[f64], cosine: &[f64]| row.iter().zip(cosine).map(|(a, b)| a * b).sum::<f64>();
        rows.flat_map(|row| self.cosines.chunks_exact(mels).map(move |c| dot(row, c) as f32)).collect()
    }
}

/// Place in a recording of `n` samples of position `at` in the same one with `before` samples mirrored before its first:
/// the ends are not repeated, and a short one is mirrored again and again.
fn mirrored(at: usize, before: usize, n: usize) -> usize {
    if at >= before && at - before < n {
        return at - before;
    }
    let period = 2 * (n - 1).max(1);
    let folded = (at + before * (period - 1)) % period; // at - before, without going below 0
    folded.min(period - folded).min(n - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_are_mirrored_at_their_ends() {
        let at = |before, n, to| (0..to).map(|k| mirrored(k, before, n)).collect::<Vec<_>>();
        assert_eq!(at(3, 5, 11), [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]);
        assert_eq!(at(3, 2, 8), [1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(at(2, 1, 5), [0; 5]);
    }

    #[test]
    fn what_gives_no_frame_is_an_error() {
        let f = Features::new(&Recipe::log_mel(8000, 20)).unwrap();
        assert!(f.frames(&[]).unwrap_err().to_string().contains("0 samples"));
        assert!(f.frames(&[0.0; 199]).unwrap_err().to_string().contains("one window takes 200"));
        let silence = f.frames(&[0.0; 360]).unwrap();
        assert_eq!((silence.count(), silence.width), (3, 20));
        assert!(silence.values.iter().all(|&v| v == 1e-10f64.ln() as f32));
        assert!(Features::new(&Recipe::fsdd()).unwrap().frames(&[0.1]).unwrap().count() == 1);
        assert!(Features::new(&Recipe { hop: 0, ..Recipe::fsdd() }).is_err());
    }
}
