//! Sound: recordings of many lengths cut and filled to one, with the true length beside them.

use crate::data::header::Field;
use crate::data::pack::images::digits_classes;
use crate::data::pack::{Inputs, f32_bytes, labels, statistics};
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

/// The Free Spoken Digit Dataset as 13 coefficients a frame, the last 300 recordings held out. What is filled
/// up is the mean of the training frames, so that it is 0 once a batch has standardised it.
pub(crate) fn fsdd(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    const HELD_OUT: usize = 300;
    let input = inputs.get("digits.npz")?;
    let arrays = read_npz(&input.path, &input.bytes)?;
    let bad = |what: String| Error::data(&input.path, None, what);
    let get = |name: &str| {
        arrays.iter().find(|(n, _)| n == name).map(|(_, a)| a).ok_or_else(|| bad(format!("no array {name}")))
    };
    let (x, lengths, y) = (get("X")?, get("lengths")?.to_i32(&input.path)?, get("y")?.to_i32(&input.path)?);
    let width = x.row_shape().iter().product::<usize>();
    let total: i64 = lengths.iter().map(|&n| n as i64).sum();
    if lengths.len() != y.len() || lengths.iter().any(|&n| n < 1) || total != x.rows() as i64 || width == 0 {
        return Err(bad(format!(
            "{} lengths and {} labels for {:?} frames",
            lengths.len(),
            y.len(),
            x.shape
        )));
    }
    let frames = x.to_f32(&input.path)?;
    let n = lengths.len();
    let train = n.saturating_sub(HELD_OUT);
    let train_frames = lengths[..train].iter().map(|&n| n as usize).sum::<usize>();
    let (mean, std) = statistics(&frames[..train_frames * width], width);
    w.field(Field::samples("mfcc", DType::F32, &[FRAMES, width]).normalised(mean.clone(), std))?;
    let mut at = 0;
    for &length in &lengths {
        let end = at + length as usize * width;
        w.write(&f32_bytes(&fit(&frames[at..end], FRAMES, &mean)))?;
        at = end;
    }
    w.field(Field::samples("length", DType::U8, &[]).below(FRAMES as u32 + 1))?;
    w.write(&lengths.iter().map(|&n| n.min(FRAMES as i32) as u8).collect::<Vec<_>>())?;
    w.field(Field::samples("label", DType::U8, &[]).below(10))?;
    w.write(&labels(&input.path, &y, 10)?)?;
    w.about().classes = digits_classes();
    w.split("train", 0, train as u64);
    w.split("val", train as u64, (n - train) as u64);
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
