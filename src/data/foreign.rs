//! A user's own picture, recording or text as one sample of a field: as a batch of the set would give it.

use crate::data::audio::Features;
use crate::data::convert::normalise;
use crate::data::front_end::FrontEnd;
use crate::data::header::Field;
use crate::data::readers::{Wave, read_any_wav, read_file, read_grey_png};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::path::Path;

/// One sample, and what had to be changed to make it fit.
#[derive(Debug)]
pub struct Foreign {
    /// Shape [1, …]: f32, normalised as the field says; ids of a text are i32.
    pub value: Tensor,
    /// Changes that the user should know of, a line each.
    pub notices: Vec<String>,
}

/// The PNG at `path` as one sample of the picture field `field`, which is grey.
pub fn image(field: &Field, front_end: Option<&FrontEnd>, path: &Path) -> Result<Foreign> {
    let &[1, height, width] = &field.dims()[..] else {
        let what =
            format!("`{}` {:?} is no field of grey pictures [1, height, width]", field.name, field.shape);
        return Err(Error::Usage(what));
    };
    // Sets of old say it by their deviation alone: black is 0, white what is divided by.
    let white = match (front_end, &field.mean[..], &field.std[..]) {
        (Some(FrontEnd::Image { white }), _, _) => f32::from(*white),
        (_, [0.0], [std]) => *std,
        _ => 255.0,
    };
    let (mut pixels, mut notices) = read_grey_png(path, &read_file(path)?, height, width)?;
    pixels.iter_mut().for_each(|p| *p *= white / 255.0);
    let mean = pixels.iter().sum::<f32>() / pixels.len() as f32;
    let usual = field.mean.first().copied().unwrap_or(0.0);
    if usual < white / 2.0 && mean > white / 2.0 {
        let what = "a light picture, but the model learned from light strokes on black; invert it if it is ink on paper";
        notices.push(format!("{}: {what}", path.display()));
    }
    sample(field, pixels, notices)
}

/// The WAV at `path` as one sample of the sound field `field`: resampled, mixed down, freed of silence at its ends, and
/// cut to the frames of the field or filled up with its mean.
pub fn audio(field: &Field, front_end: Option<&FrontEnd>, path: &Path) -> Result<Foreign> {
    let Some(FrontEnd::Audio(recipe)) = front_end else {
        let what = format!(
            "the set does not say how the values of `{}` were made of sound, so no recording can be made to them; sets that \
             say it: fsdd, senses, relation and others (`ringtape data inspect SET`, front ends)",
            field.name
        );
        return Err(Error::Usage(what));
    };
    let (mut wave, mut notices) = read_any_wav(path, &read_file(path)?, recipe.rate)?;
    notices.extend(trim(&mut wave).map(|what| format!("{}: {what}", path.display())));
    let found =
        Features::new(recipe)?.frames(&wave.samples).map_err(|e| Error::data(path, None, e.to_string()))?;
    let &[frames, width] = &field.dims()[..] else {
        return Err(Error::Usage(format!("`{}` {:?} is no field of sound", field.name, field.shape)));
    };
    let n = found.count();
    if n > frames {
        let what = format!("{n} frames, the model takes {frames}: the end is left out");
        notices.push(format!("{}: {what}", path.display()));
    }
    let mut values = found.values;
    values.truncate(frames * width);
    for k in values.len()..frames * width {
        values.push(field.mean[if field.mean.len() == width { k % width } else { 0 }]);
    }
    sample(field, values, notices)
}

/// `text` as one sample of the text field `field`.
pub fn text(field: &Field, front_end: Option<&FrontEnd>, text: &str) -> Result<Foreign> {
    let Some(front_end @ FrontEnd::Text { .. }) = front_end else {
        let what = format!(
            "the set does not say which symbols the ids of `{}` are, so no text can be made to them; sets that say it: senses, \
             relation, scenes (`ringtape data inspect SET`, front ends)",
            field.name
        );
        return Err(Error::Usage(what));
    };
    let ids = front_end.encode(text, field.elements() as usize)?;
    let ids: Vec<i32> = ids.into_iter().map(i32::from).collect();
    let value = Tensor::from_slice(&Device::cpu(), &ids, &[1, ids.len()])?;
    Ok(Foreign { value, notices: vec![] })
}

fn sample(field: &Field, mut values: Vec<f32>, notices: Vec<String>) -> Result<Foreign> {
    normalise(field, &mut values);
    let dims: Vec<usize> = [1].into_iter().chain(field.dims()).collect();
    Ok(Foreign { value: Tensor::from_slice(&Device::cpu(), &values, &dims)?, notices })
}

/// Pieces of a second that are looked at for silence.
const PIECES: u32 = 100;
/// A piece is silent whose energy is below this share of the loudest's: -40 dB.
const SILENT: f32 = 1e-4;

/// Cuts silence off both ends, as the recordings that models learn from are cut. Says how much where it is heard.
fn trim(wave: &mut Wave) -> Option<String> {
    let piece = (wave.rate / PIECES).max(1) as usize;
    let energy = |p: &[f32]| p.iter().map(|v| v * v).sum::<f32>();
    let energies: Vec<f32> = wave.samples.chunks(piece).map(energy).collect();
    let loudest = energies.iter().copied().fold(0.0, f32::max);
    let loud = |e: &f32| *e > SILENT * loudest;
    let (first, last) = (energies.iter().position(loud)?, energies.iter().rposition(loud)?);
    let (start, end) = (first * piece, ((last + 1) * piece).min(wave.samples.len()));
    let cut = (wave.samples.len() - (end - start)) as f32 / wave.rate as f32;
    wave.samples.truncate(end);
    wave.samples.drain(..start);
    (cut >= 0.05).then(|| format!("{cut:.2} s of silence at its ends left out"))
}
