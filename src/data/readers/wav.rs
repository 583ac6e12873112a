//! WAV sound: one channel, as numbers from -1 to 1.

use crate::error::{Error, Result};
use hound::{SampleFormat, WavReader};
use std::path::Path;

/// One channel of sound.
#[derive(Clone, PartialEq, Debug)]
pub struct Wave {
    /// Samples a second.
    pub rate: u32,
    /// Amplitudes, from -1 to 1.
    pub samples: Vec<f32>,
}

/// Reads the bytes of a WAV file of one channel, integers of 8 to 32 bits or 32-bit floats.
pub fn read_wav(path: &Path, bytes: &[u8]) -> Result<Wave> {
    let sound = |e: hound::Error| {
        Error::data(path, None, format!("not a sound WAV file: {e}; record or fetch it anew"))
    };
    let mut reader = WavReader::new(bytes).map_err(sound)?;
    let spec = reader.spec();
    if spec.channels != 1 {
        let what =
            format!("{} channels, one is wanted; mix it down first (sox in.wav -c 1 out.wav)", spec.channels);
        return Err(Error::data(path, None, what));
    }
    if reader.len() as usize > bytes.len() {
        return Err(Error::data(
            path,
            None,
            format!("claims {} samples in {} bytes", reader.len(), bytes.len()),
        ));
    }
    let samples: std::result::Result<Vec<f32>, hound::Error> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().collect(),
        SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample.clamp(1, 32) - 1)) as f32;
            reader.samples::<i32>().map(|s| s.map(|v| v as f32 * scale)).collect()
        }
    };
    let samples = samples.map_err(sound)?;
    if let Some(k) = samples.iter().position(|s| !s.is_finite()) {
        return Err(Error::data(path, None, format!("sample {k} is not a finite number")));
    }
    Ok(Wave { rate: spec.sample_rate, samples })
}
