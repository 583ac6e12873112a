//! Stored elements to the type of a batch, straight into the batch's memory, with the checks that ids need.

use crate::data::dataset::IGNORE;
use crate::data::header::Field;
use crate::error::{Error, Result};
use crate::shape::DType;
use half::{bf16, f16};
use std::path::Path;

/// Part of a batch's tensor that one sample fills.
pub enum Out<'a> {
    /// Real values.
    F32(&'a mut [f32]),
    /// Ids, labels, counts.
    I32(&'a mut [i32]),
}

impl Out<'_> {
    /// The same memory, lent for a shorter time.
    pub fn reborrow(&mut self) -> Out<'_> {
        match self {
            Out::F32(o) => Out::F32(o),
            Out::I32(o) => Out::I32(o),
        }
    }
    /// Zeros: a value that a sample lacks.
    pub(crate) fn clear(self) {
        match self {
            Out::F32(o) => o.fill(0.0),
            Out::I32(o) => o.fill(0),
        }
    }
}

impl Field {
    /// The element type that a batch has: f32 for reals and for whatever has statistics, i32 for other
    /// integers.
    pub fn batch_dtype(&self) -> DType {
        match self.dtype {
            DType::U8 | DType::U16 | DType::I32 if self.std.is_empty() => DType::I32,
            _ => DType::F32,
        }
    }
}

/// Widens `stored` samples of `field` (from element `first` of the field, for error texts) into `out`.
pub(crate) fn widen(path: &Path, field: &Field, first: u64, stored: &[u8], out: Out<'_>) -> Result<()> {
    let size = field.dtype.size();
    let room = match &out {
        Out::F32(o) => o.len(),
        Out::I32(o) => o.len(),
    };
    if stored.len() != room * size {
        let what = format!("`{}`: {} stored bytes do not fill {room} elements", field.name, stored.len());
        return Err(Error::dtype("batch", what));
    }
    match out {
        Out::I32(out) => {
            let worst = ids(field.dtype, stored, out).ok_or_else(|| not(field, "i32"))?;
            if field.bound > 0 && worst >= field.bound {
                return Err(out_of_bound(path, field, first, out));
            }
        }
        Out::F32(out) => {
            reals(field.dtype, stored, out).ok_or_else(|| not(field, "f32"))?;
            normalise(field, out);
        }
    }
    Ok(())
}

fn not(field: &Field, want: &str) -> Error {
    Error::dtype(
        "batch",
        format!("`{}` is stored as {} and cannot be given as {want}", field.name, field.dtype),
    )
}

/// Copies integers; gives the largest as u32, so that a negative one counts as too large.
fn ids(dtype: DType, stored: &[u8], out: &mut [i32]) -> Option<u32> {
    let mut worst = 0;
    let pairs = out.iter_mut();
    match dtype {
        DType::U8 => pairs.zip(stored).for_each(|(o, &b)| *o = b as i32),
        // ANCHOR: widen
        DType::U16 => {
            let (stored, _) = stored.as_chunks::<2>();
            pairs.zip(stored).for_each(|(o, &b)| *o = u16::from_le_bytes(b) as i32);
        }
        // ANCHOR_END: widen
        DType::I32 => {
            let (stored, _) = stored.as_chunks::<4>();
            pairs.zip(stored).for_each(|(o, &b)| *o = i32::from_le_bytes(b));
        }
        _ => return None,
    }
    for &o in out.iter() {
        // A target that is not to be foretold is no id.
        worst = worst.max(if o == IGNORE { 0 } else { o as u32 });
    }
    Some(worst)
}

fn reals(dtype: DType, stored: &[u8], out: &mut [f32]) -> Option<()> {
    fn each<const N: usize>(stored: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
        out.iter_mut().zip(stored.as_chunks::<N>().0).for_each(|(o, &b)| *o = f(b));
    }
    match dtype {
        DType::U8 => each(stored, out, |[b]| b as f32),
        DType::U16 => each(stored, out, |b| u16::from_le_bytes(b) as f32),
        DType::I32 => each(stored, out, |b| i32::from_le_bytes(b) as f32),
        DType::F32 => each(stored, out, f32::from_le_bytes),
        DType::F64 => each(stored, out, |b| f64::from_le_bytes(b) as f32),
        DType::Bf16 => each(stored, out, |b| bf16::from_le_bytes(b).to_f32()),
        DType::F16 => each(stored, out, |b| f16::from_le_bytes(b).to_f32()),
    }
    Some(())
}

/// `(stored - mean) / std`, as the field says.
pub(crate) fn normalise(field: &Field, out: &mut [f32]) {
    match (&field.mean[..], &field.std[..]) {
        ([], _) | (_, []) => {}
        ([mean], [std]) => out.iter_mut().for_each(|o| *o = (*o - mean) / std),
        (mean, std) => {
            for row in out.chunks_exact_mut(mean.len()) {
                row.iter_mut().zip(mean).zip(std).for_each(|((o, m), s)| *o = (*o - m) / s);
            }
        }
    }
}

#[cold]
fn out_of_bound(path: &Path, field: &Field, first: u64, out: &[i32]) -> Error {
    let at = out.iter().position(|&v| v as u32 >= field.bound && v != IGNORE).unwrap_or(0);
    let element = first + at as u64;
    let what = format!(
        "element {element} of `{}` is {}, but there are {} ids (0..{}); pack the set with the vocabulary \
         or classes that its ids were made with",
        field.name, out[at], field.bound, field.bound
    );
    Error::data(path, Some(field.offset + element * field.dtype.size() as u64), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_scaled_and_labels_are_ids() {
        let path = Path::new("t.rtd");
        let image = Field::samples("image", DType::U8, &[2]).normalised(vec![0.0], vec![255.0]);
        let mut out = [0.0; 2];
        widen(path, &image, 0, &[0, 255], Out::F32(&mut out)).unwrap();
        assert_eq!((out, image.batch_dtype()), ([0.0, 1.0], DType::F32));
        let label = Field::samples("label", DType::U8, &[]).below(10);
        let mut out = [0; 3];
        widen(path, &label, 0, &[3, 9, 0], Out::I32(&mut out)).unwrap();
        assert_eq!((out, label.batch_dtype()), ([3, 9, 0], DType::I32));
    }

    #[test]
    fn an_id_out_of_range_is_named_with_its_place() {
        let f = Field { offset: 64, ..Field::tokens(DType::U16, 300) };
        let stored: Vec<u8> = [5u16, 299, 300].iter().flat_map(|v| v.to_le_bytes()).collect();
        let e = widen(Path::new("t.rtd"), &f, 100, &stored, Out::I32(&mut [0; 3])).unwrap_err().to_string();
        assert!(e.contains("t.rtd at byte 268") && e.contains("element 102") && e.contains("is 300"), "{e}");
        let f = Field::samples("label", DType::I32, &[]).below(10);
        assert!(widen(Path::new("t"), &f, 0, &(-1i32).to_le_bytes(), Out::I32(&mut [0])).is_err());
    }

    #[test]
    fn statistics_go_along_the_last_axis() {
        let f = Field::samples("x", DType::F32, &[2, 2]).normalised(vec![1.0, 2.0], vec![2.0, 4.0]);
        let stored: Vec<u8> = [3.0f32, 6.0, 1.0, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = [9.0; 4];
        widen(Path::new("t"), &f, 0, &stored, Out::F32(&mut out)).unwrap();
        assert_eq!(out, [1.0, 1.0, 0.0, 0.0]);
    }
}
