//! WAV sound: one channel, as numbers from -1 to 1.

use crate::data::audio::resample;
use crate::data::path::open_regular;
use crate::error::{Error, Result};
use hound::{SampleFormat, WavReader};
use std::io::{BufReader, Read};
use std::path::Path;

/// One channel of sound.
#[derive(Clone, PartialEq, Debug)]
pub struct Wave {
    /// Samples a second.
    pub rate: u32,
    /// Amplitudes, from -1 to 1.
    pub samples: Vec<f32>,
}

/// Rates that a recording may have to be resampled.
const RATES: std::ops::RangeInclusive<u32> = 1000..=768_000;

/// Reads the bytes of a WAV file of one channel, integers of 8 to 32 bits or 32-bit floats.
pub fn read_wav(path: &Path, bytes: &[u8]) -> Result<Wave> {
    let reader = open(path, bytes, bytes.len() as u64)?;
    one_channel(path, &reader)?;
    amplitudes(path, reader)
}

/// Reads the bytes of a WAV file as people have them, as one channel of `rate` samples a second: channels are averaged and
/// other rates resampled. Also gives a notice for each change. A file without samples is an error.
pub fn read_any_wav(path: &Path, bytes: &[u8], rate: u32) -> Result<(Wave, Vec<String>)> {
    let reader = open(path, bytes, bytes.len() as u64)?;
    let channels = usize::from(reader.spec().channels);
    let mut wave = amplitudes(path, reader)?;
    let mut notices = vec![];
    if channels > 1 {
        let mix = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
        wave.samples = wave.samples.chunks_exact(channels).map(mix).collect();
        notices.push(format!("{}: {channels} channels, mixed down to one", path.display()));
    }
    if wave.samples.is_empty() {
        return Err(Error::data(path, None, "holds no samples (0); record it anew"));
    }
    if wave.rate != rate {
        if !RATES.contains(&wave.rate) {
            let what = format!("{} samples a second, 1000 to 768000 can be resampled", wave.rate);
            return Err(Error::data(path, None, what));
        }
        notices.push(format!("{}: {} samples a second, resampled to {rate}", path.display(), wave.rate));
        wave = Wave { rate, samples: resample(&wave.samples, wave.rate, rate) };
    }
    Ok((wave, notices))
}

/// All samples from -1 to 1, those of several channels in turn.
fn amplitudes<R: Read>(path: &Path, mut reader: WavReader<R>) -> Result<Wave> {
    let spec = reader.spec();
    let samples: std::result::Result<Vec<f32>, hound::Error> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().collect(),
        SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample.clamp(1, 32) - 1)) as f32;
            reader.samples::<i32>().map(|s| s.map(|v| v as f32 * scale)).collect()
        }
    };
    let samples = samples.map_err(|e| unsound(path, &e))?;
    if let Some(k) = samples.iter().position(|s| !s.is_finite()) {
        return Err(Error::data(path, None, format!("sample {k} is not a finite number")));
    }
    Ok(Wave { rate: spec.sample_rate, samples })
}

/// Samples a second and number of samples that the file states, without reading them.
pub(crate) fn read_wav_head(path: &Path) -> Result<(u32, usize)> {
    let (file, len) = open_regular(path)?;
    let reader = open(path, BufReader::new(file), len)?;
    one_channel(path, &reader)?;
    Ok((reader.spec().sample_rate, reader.len() as usize))
}

fn open<R: Read>(path: &Path, from: R, len: u64) -> Result<WavReader<R>> {
    let reader = WavReader::new(from).map_err(|e| unsound(path, &e))?;
    if u64::from(reader.len()) > len {
        let what = format!("claims {} samples in {len} bytes; record or fetch it anew", reader.len());
        return Err(Error::data(path, None, what));
    }
    Ok(reader)
}

fn one_channel<R: Read>(path: &Path, reader: &WavReader<R>) -> Result<()> {
    let channels = reader.spec().channels;
    if channels == 1 {
        return Ok(());
    }
    let what = format!("{channels} channels, one is wanted; mix it down first (sox in.wav -c 1 out.wav)");
    Err(Error::data(path, None, what))
}

fn unsound(path: &Path, e: &hound::Error) -> Error {
    Error::data(path, None, format!("not a sound WAV file: {e}; record or fetch it anew"))
}
