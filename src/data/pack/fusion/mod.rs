//! Sets whose samples are seen, heard and read: pictures, sounds and texts that belong together, made of real digits and
//! garments and of drawn ones.
//!
//! Every choice is of the counter-based generator, by the number of the sample, and all noise is made of whole numbers:
//! the same bits everywhere. A sample for training is made of sources for training alone, one held out of held-out
//! sources alone. Means and deviations are those of the split `train`.

mod drawn;
pub(crate) mod paired;
pub(crate) mod relation;
pub(crate) mod scenes;
pub(crate) mod senses;
pub(crate) mod sources;
mod words;

use crate::data::front_end::FrontEnd;
use crate::data::header::Field;
use crate::data::pack::images::digits_classes;
use crate::data::pack::moments;
use crate::data::write::Writer;
use crate::error::Result;
use crate::rng::Key;
use crate::shape::DType;
use half::f16;
use rayon::prelude::*;

/// Samples of `train` and of `test`.
pub(crate) type Counts = [u64; 2];

/// One field in the making: `make(n, out)` fills the bytes of sample `n`, which is a sample for training where `n` is
/// below the first of the counts.
pub(crate) struct Column<F> {
    /// Name, type and shape; statistics too, where they are known.
    pub(crate) field: Field,
    pub(crate) front_end: Option<FrontEnd>,
    pub(crate) statistics: Statistics,
    pub(crate) make: F,
}

/// What a field is normalised by.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Statistics {
    /// As the field says.
    Given,
    /// Mean and deviation of all values of the samples for training, which are bytes.
    One,
    /// Mean and deviation of each column of the last axis, which is f16.
    Columns,
}

impl<F: Fn(u64, &mut [u8]) + Sync> Column<F> {
    /// Makes and writes every sample.
    pub(crate) fn write(self, counts: Counts, w: &mut Writer) -> Result<()> {
        let bytes = self.field.stride() as usize;
        let part = |first: u64, count: u64| {
            let mut all = vec![0; bytes * count as usize];
            let each = all.par_chunks_exact_mut(bytes).enumerate();
            each.for_each(|(k, out)| (self.make)(first + k as u64, out));
            all
        };
        let train = part(0, counts[0]);
        let field = match self.statistics {
            Statistics::Given => self.field.clone(),
            Statistics::One => {
                let (mean, std) = moments(1, train.iter().map(|&v| [f32::from(v)].into_iter()));
                self.field.clone().normalised(mean, std)
            }
            Statistics::Columns => {
                let width = self.field.dims().last().copied().unwrap_or(1);
                let row = |row: &[u8]| row.as_chunks::<2>().0.to_vec().into_iter();
                let rows = train.chunks_exact(2 * width).map(row);
                let (mean, std) = moments(width, rows.map(|r| r.map(|b| f16::from_le_bytes(b).to_f32())));
                // Numbers of f16, so that what is filled up with the mean is 0 in a batch.
                let mean = mean.into_iter().map(|m| f16::from_f32(m).to_f32()).collect();
                self.field.clone().normalised(mean, std)
            }
        };
        w.field(field)?;
        if let Some(front_end) = &self.front_end {
            w.front_end(front_end.clone());
        }
        w.write(&train)?;
        drop(train);
        w.write(&part(counts[0], counts[1]))
    }
}

/// A column of grey pictures, normalised by one mean and deviation.
pub(crate) fn pictures<F: Fn(u64, &mut [u8]) + Sync>(side: usize, make: F) -> Column<F> {
    let field = Field::samples("image", DType::U8, &[1, side, side]);
    Column { field, front_end: Some(FrontEnd::Image { white: 255 }), statistics: Statistics::One, make }
}

/// A column of texts of `length` symbols.
pub(crate) fn texts<F: Fn(u64, &mut [u8]) + Sync>(length: usize, front_end: FrontEnd, make: F) -> Column<F> {
    let bound = match &front_end {
        FrontEnd::Text { vocabulary, .. } => vocabulary.len() as u32,
        _ => 0,
    };
    let field = Field::samples("text", DType::U8, &[length]).below(bound);
    Column { field, front_end: Some(front_end), statistics: Statistics::Given, make }
}

/// Writes the labels 0 to 9 of all samples, and names the splits.
pub(crate) fn labels(counts: Counts, label: impl Fn(u64) -> u8, w: &mut Writer) -> Result<()> {
    w.field(Field::samples("label", DType::U8, &[]).below(10))?;
    w.write(&(0..counts[0] + counts[1]).map(label).collect::<Vec<_>>())?;
    w.about().classes = digits_classes();
    splits(counts, w);
    Ok(())
}

/// Names the splits.
pub(crate) fn splits(counts: Counts, w: &mut Writer) {
    w.split("train", 0, counts[0]);
    w.split("test", counts[0], counts[1]);
}

/// Deviation of what [`noise`] gives: four bytes, each of variance (256² − 1) / 12.
const NOISE_DEVIATION: f32 = 147.801;

/// Noise of mean 0 and deviation 1, element by element: sums of four uniform bytes, nearly normal, and made of whole
/// numbers so that no library of functions has a say in it.
pub(crate) fn noise(key: Key) -> impl Iterator<Item = f32> {
    (0..).flat_map(move |index| key.block(index)).map(|word| {
        let sum: u32 = word.to_le_bytes().iter().map(|&b| u32::from(b)).sum();
        (sum as i32 - 510) as f32 / NOISE_DEVIATION
    })
}

/// `value` as the nearest byte.
pub(crate) fn byte(value: f32) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

/// Writes `values` as f16.
pub(crate) fn halves(values: impl Iterator<Item = f32>, out: &mut [u8]) {
    for (out, value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
        *out = f16::from_f32(value).to_le_bytes();
    }
}

#[cfg(test)]
mod tests;
