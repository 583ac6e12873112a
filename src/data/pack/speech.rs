//! Sound: recordings of many lengths cut and filled to one, with the true length beside them.

use crate::data::audio::Recipe;
use crate::data::front_end::FrontEnd;
use crate::data::header::Field;
use crate::data::pack::images::digits_classes;
use crate::data::pack::{Input, Inputs, f32_bytes, labels, statistics};
use crate::data::readers::{read_npz, read_wav};
use crate::data::write::Writer;
use crate::error::{Error, Result};
use crate::shape::DType;

/// Frames kept of a recording.
const FRAMES: usize = 32;
/// Samples kept of a waveform: one second at 8 kHz.
const SECOND: usize = 8000;

/// Rows of `width`, cut to `keep` rows or filled up with `fill`.
pub(crate) fn fit(rows: &[f32], keep: usize, fill: &[f32]) -> Vec<f32> {
    let width = fill.len();
    let mut out = rows[..rows.len().min(keep * width)].to_vec();
    while out.len() < keep * width {
        out.extend_from_slice(fill);
    }
    out
}

/// Recordings of the Free Spoken Digit Dataset held out of training: the last ones.
pub(crate) const HELD_OUT: usize = 300;

/// Recordings as frames of coefficients.
pub(crate) struct Recordings {
    /// Coefficients of a frame.
    pub(crate) width: usize,
    /// Frames of all recordings, one behind the other.
    pub(crate) frames: Vec<f32>,
    /// Frames of each.
    pub(crate) lengths: Vec<usize>,
    /// Digit of each.
    pub(crate) labels: Vec<u8>,
}

impl Recordings {
    /// Reads `digits.npz`: arrays X [frames, width], lengths and y.
    pub(crate) fn read(input: &Input) -> Result<Recordings> {
        let arrays = read_npz(&input.path, &input.bytes)?;
        let bad = |what: String| Error::data(&input.path, None, what);
        let get = |name: &str| {
            let found = arrays.iter().find(|(n, _)| n == name).map(|(_, a)| a);
            found.ok_or_else(|| bad(format!("no array {name}")))
        };
        let (x, y) = (get("X")?, get("y")?.to_i32(&input.path)?);
        let lengths = get("lengths")?.to_i32(&input.path)?;
        let width = x.row_shape().iter().product::<usize>();
        let total: i64 = lengths.iter().map(|&n| n as i64).sum();
        let short = lengths.iter().any(|&n| n < 1);
        if lengths.len() != y.len() || short || total != x.rows() as i64 || width == 0 {
            let (lengths, labels) = (lengths.len(), y.len());
            return Err(bad(format!("{lengths} lengths and {labels} labels for {:?} frames", x.shape)));
        }
        let frames = x.to_f32(&input.path)?;
        let lengths = lengths.iter().map(|&n| n as usize).collect();
        Ok(Recordings { width, frames, lengths, labels: labels(&input.path, &y, 10)? })
    }

    /// Number of recordings for training.
    pub(crate) fn train(&self) -> usize {
        self.lengths.len().saturating_sub(HELD_OUT)
    }

    /// Mean and deviation of each coefficient over the frames for training.
    pub(crate) fn statistics(&self) -> (Vec<f32>, Vec<f32>) {
        let frames = self.lengths[..self.train()].iter().sum::<usize>();
        statistics(&self.frames[..frames * self.width], self.width)
    }

    /// The frames of each recording.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        let mut at = 0;
        self.lengths.iter().map(move |n| {
            let start = at;
            at += n * self.width;
            &self.frames[start..at]
        })
    }
}

/// The Free Spoken Digit Dataset as 13 coefficients a frame, the last 300 recordings held out. What is filled
/// up is the mean of the training frames, so that it is 0 once a batch has standardised it.
pub(crate) fn fsdd(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    let all = Recordings::read(inputs.get("digits.npz")?)?;
    let (mean, std) = all.statistics();
    w.field(Field::samples("mfcc", DType::F32, &[FRAMES, all.width]).normalised(mean.clone(), std))?;
    w.front_end(FrontEnd::Audio(Recipe::fsdd()));
    all.iter().try_for_each(|frames| w.write(&f32_bytes(&fit(frames, FRAMES, &mean))))?;
    w.field(Field::samples("length", DType::U8, &[]).below(FRAMES as u32 + 1))?;
    w.write(&all.lengths.iter().map(|&n| n.min(FRAMES) as u8).collect::<Vec<_>>())?;
    w.field(Field::samples("label", DType::U8, &[]).below(10))?;
    w.write(&all.labels)?;
    w.about().classes = digits_classes();
    w.split("train", 0, all.train() as u64);
    w.split("val", all.train() as u64, (all.labels.len() - all.train()) as u64);
    Ok(())
}

/// Ten digits by one voice, files `0.wav` to `9.wav`.
pub(crate) fn allison(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    w.field(Field::samples("waveform", DType::F32, &[SECOND]))?;
    let mut lengths = vec![];
    for input in inputs.iter() {
        let wave = read_wav(&input.path, &input.bytes)?;
        if wave.rate != 8000 {
            return Err(Error::data(
                &input.path,
                None,
                format!("{} samples a second, 8000 are wanted", wave.rate),
            ));
        }
        lengths.push(wave.samples.len().min(SECOND) as i32);
        w.write(&f32_bytes(&fit(&wave.samples, SECOND, &[0.0])))?;
    }
    w.field(Field::samples("length", DType::I32, &[]).below(SECOND as u32 + 1))?;
    w.write(&lengths.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>())?;
    w.field(Field::samples("label", DType::U8, &[]).below(10))?;
    w.write(&(0..lengths.len() as u8).collect::<Vec<_>>())?;
    w.about().classes = digits_classes();
    w.split("test", 0, lengths.len() as u64);
    Ok(())
}
