//! Sound to frames of coefficients: logarithms of mel energies, and cepstral coefficients of them.
//!
//! A recording is cut into windows that overlap; each is weighted by a Hann window and transformed; a filterbank adds the
//! energies of the spectrum in bands as wide as hearing resolves; the logarithm of a band is a coefficient, or the cosine
//! transform of all bands is (MFCC). Source of the names: Davis and Mermelstein, "Comparison of Parametric
//! Representations for Monosyllabic Word Recognition", 1980.

mod features;
mod mel;
mod resample;

pub use features::{Features, Frames};
pub(crate) use resample::resample;

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which formula the mel scale has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Scale {
    /// mel = 2595 log10(1 + f / 700), filters of height 1: HTK's, and torchaudio's default.
    Htk,
    /// Linear below 1 kHz and logarithmic above, filters of area 1 (height 2 / width in Hz): Slaney's Auditory Toolbox,
    /// and librosa's default.
    Slaney,
}

/// Which logarithm is taken of an energy, at least 1e-10.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Log {
    /// ln(energy).
    Natural,
    /// 10 log10(energy), none further below the largest of the recording than `range`.
    Decibel {
        /// dB.
        range: f32,
    },
}

/// Everything that the values of frames depend on. Lengths are in samples, frequencies in Hz.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Recipe {
    /// Samples a second.
    pub rate: u32,
    /// Samples of a window; also of the transform.
    pub window: u32,
    /// Samples from one window to the next.
    pub hop: u32,
    /// Windows lie around multiples of `hop`, the recording being mirrored at its ends; else the first begins with the
    /// first sample and none goes beyond the last.
    pub centred: bool,
    /// Bands of the filterbank.
    pub mels: u32,
    /// Lowest frequency of a band.
    pub low: f32,
    /// Highest frequency of a band.
    pub high: f32,
    /// Formula of the mel scale.
    pub scale: Scale,
    /// Logarithm of an energy.
    pub log: Log,
    /// Cepstral coefficients kept of a frame; 0 = the logarithms themselves.
    pub coefficients: u32,
}

impl Recipe {
    /// Logarithms of mel energies: windows of 25 ms every 10 ms, HTK's scale from 0 Hz to half the rate.
    pub fn log_mel(rate: u32, mels: u32) -> Recipe {
        let (window, hop) = (rate / 40, rate / 100);
        let (low, high) = (0.0, rate as f32 / 2.0);
        let (scale, log) = (Scale::Htk, Log::Natural);
        Recipe { rate, window, hop, centred: false, mels, low, high, scale, log, coefficients: 0 }
    }

    /// The 13 coefficients of the set `fsdd`, whose package says nothing of how they were made: torchaudio's defaults
    /// for recordings of 8 kHz. Windows of 50 ms every 25 ms, 128 bands on HTK's scale, dB with a range of 80.
    pub fn fsdd() -> Recipe {
        let (rate, window, hop, mels) = (8000, 400, 200, 128);
        let (scale, log) = (Scale::Htk, Log::Decibel { range: 80.0 });
        Recipe {
            rate,
            window,
            hop,
            centred: true,
            mels,
            low: 0.0,
            high: 4000.0,
            scale,
            log,
            coefficients: 13,
        }
    }

    /// Values of a frame.
    pub fn width(&self) -> usize {
        if self.coefficients == 0 { self.mels as usize } else { self.coefficients as usize }
    }

    /// What is wrong with it. The limits keep what a file says from taking much memory.
    pub(crate) fn fault(&self) -> Option<String> {
        let sound = (100..=768_000).contains(&self.rate)
            && (2..=1 << 16).contains(&self.window)
            && (1..=1 << 16).contains(&self.hop)
            && (1..=1024).contains(&self.mels)
            && self.coefficients <= self.mels
            && self.low >= 0.0
            && self.low < self.high
            && self.high <= self.rate as f32 / 2.0;
        let range = match self.log {
            Log::Natural => true,
            Log::Decibel { range } => range.is_finite() && range > 0.0,
        };
        (!sound || !range).then(|| format!("cannot be: {self}"))
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, scale) = (1e3 / self.rate as f32, format!("{:?}", self.scale));
        match self.coefficients {
            0 => write!(f, "sound: logarithms of {} mel bands ({scale})", self.mels)?,
            n => write!(f, "sound: {n} cepstral coefficients of {} mel bands ({scale})", self.mels)?,
        }
        let (window, hop) = (self.window as f32 * ms, self.hop as f32 * ms);
        write!(
            f,
            ", {} to {} Hz, windows of {window} ms every {hop} ms at {} Hz",
            self.low, self.high, self.rate
        )
    }
}
