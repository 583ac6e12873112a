//! Arrays of a user's own: `.npy`, `.safetensors` (mapped, so of any size), `.npz` and IDX (in memory, being
//! compressed).

use crate::data::header::Field;
use crate::data::map::{Access, Bytes};
use crate::data::pack::fixed_order;
use crate::data::pack::options::{PackOptions, split};
use crate::data::path::open_regular;
use crate::data::readers::{self, Array, Stored, read_file};
use crate::data::write::Writer;
use crate::error::{Error, Result};
use crate::shape::DType;
use std::path::{Path, PathBuf};

/// What the arrays of a file lie in.
enum Holder {
    Mapped(Bytes),
    Memory(Vec<(String, Array)>),
}

impl Holder {
    fn open(path: &Path) -> Result<Holder> {
        let mapped = |path| open_regular(path).and_then(|(file, _)| Bytes::new(path, file, Access::Mmap));
        Ok(match ending(path) {
            "npy" | "safetensors" => Holder::Mapped(mapped(path)?),
            "npz" => Holder::Memory(readers::read_npz(path, &read_file(path)?)?),
            _ => Holder::Memory(vec![(String::new(), readers::read_idx(path, &read_file(path)?)?)]),
        })
    }

    /// Names and places; an array without a name has an empty one.
    fn arrays<'a>(&'a self, path: &Path, none: &'a mut Vec<u8>) -> Result<Vec<(String, Stored<'a>)>> {
        match self {
            Holder::Memory(all) => Ok(all.iter().map(|(name, a)| (name.clone(), a.into())).collect()),
            Holder::Mapped(bytes) => {
                let bytes = bytes.get(0, bytes.len() as usize, none)?;
                match ending(path) {
                    "npy" => Ok(vec![(String::new(), readers::stored_npy(path, bytes)?)]),
                    _ => readers::stored_safetensors(path, bytes),
                }
            }
        }
    }

    fn still_intact(&self) -> Result<()> {
        if let Holder::Mapped(bytes) = self { bytes.still_intact().map(drop) } else { Ok(()) }
    }
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

/// Packs the arrays of the file `path`, with labels from a file of their own where there is one.
pub(crate) fn pack(path: &Path, options: &PackOptions, w: &mut Writer) -> Result<()> {
    let holder = Holder::open(path)?;
    let labels = options.labels.clone().or_else(|| label_file(path));
    let labels = labels.map(|p| Holder::open(&p).map(|holder| (p, holder))).transpose()?;
    let (mut none, mut none_either) = (vec![], vec![]);
    let mut all = holder.arrays(path, &mut none)?;
    for (name, array) in all.iter_mut().filter(|(name, _)| name.is_empty()) {
        let image = array.dtype == DType::U8 && array.row_shape().len() >= 2;
        *name = if image { "image" } else { "x" }.into();
    }
    if let Some((path, holder)) = &labels {
        let mut found = holder.arrays(path, &mut none_either)?;
        if found.len() != 1 {
            let what = format!("{} arrays; labels are one array (.npy or IDX)", found.len());
            return Err(Error::data(path, None, what));
        }
        all.extend(found.pop().map(|(_, array)| ("label".to_string(), array)));
    }
    write(path, &all, options, w)?;
    holder.still_intact()?;
    labels.map_or(Ok(()), |(_, holder)| holder.still_intact())
}

/// `train-labels-idx1-ubyte` beside `train-images-idx3-ubyte`.
fn label_file(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let beside = path.with_file_name(&labels);
    (labels != name && beside.exists()).then_some(beside)
}

/// Named arrays with the same number of rows.
fn write(path: &Path, arrays: &[(String, Stored<'_>)], options: &PackOptions, w: &mut Writer) -> Result<()> {
    let n = arrays.first().map_or(0, |(_, a)| a.rows());
    let shapes =
        || arrays.iter().map(|(name, a)| format!("{name} {:?}", a.shape)).collect::<Vec<_>>().join(", ");
    if n == 0 || arrays.iter().any(|(_, a)| a.rows() != n || a.shape.is_empty() || a.row_elements() == 0) {
        let what = format!("{}; each array needs the same number of rows, one a sample", shapes());
        return Err(Error::data(path, None, what));
    }
    let mut scratch = vec![];
    for (name, a) in arrays {
        let mut field = Field::samples(name, a.dtype, a.row_shape());
        if a.dtype == DType::U8 && a.row_shape().len() >= 2 {
            // Images are `[channels, height, width]` in a batch.
            let one: Vec<usize> = std::iter::once(1).chain(a.row_shape().iter().copied()).collect();
            let dims = if a.row_shape().len() == 2 { &one[..] } else { a.row_shape() };
            field = Field::samples(name, a.dtype, dims).normalised(vec![0.0], vec![255.0]);
        } else if name == "label" && a.row_shape().is_empty() {
            field.bound = classes(path, a, &mut scratch)?;
            w.about().classes = (0..field.bound.min(10_000)).map(|k| k.to_string()).collect();
        } else if let Some((of, _)) = arrays.iter().find(|(of, _)| field.is_presence_of(of)) {
            field.bound = 2;
            if !a.row_shape().is_empty() || classes(path, a, &mut scratch)? > 2 {
                let what =
                    format!("`{name}` must be one number a sample: 1 where it has `{of}`, 0 where not");
                return Err(Error::data(path, None, what));
            }
        } else if a.row_shape().len() == 1 {
            field.bound = symbols(path, a, &mut scratch)?;
        }
        w.field(field)?;
        let each = a.row_elements();
        for k in fixed_order(n) {
            a.pieces(path, k * each, each, &mut scratch, |piece| w.write(piece))?;
        }
    }
    split(n as u64, options, w);
    Ok(())
}

/// Ids up to which rows of integers count as symbols.
const SYMBOLS: i32 = 1 << 16;

/// One more than the largest of rows of integers, so that models can read them as symbols; 0 for what is none.
fn symbols(path: &Path, a: &Stored<'_>, scratch: &mut Vec<u8>) -> Result<u32> {
    let size = a.dtype.size();
    if !matches!(a.dtype, DType::U8 | DType::U16 | DType::I32) {
        return Ok(0);
    }
    let (mut least, mut most) = (0, 0);
    a.pieces(path, 0, a.rows() * a.row_elements(), scratch, |piece| {
        for b in piece.chunks_exact(size) {
            let v = b.iter().rev().fold(0u32, |n, &b| n << 8 | u32::from(b)) as i32;
            (least, most) = (v.min(least), v.max(most));
        }
        Ok(())
    })?;
    Ok(if least == 0 && most < SYMBOLS { most as u32 + 1 } else { 0 })
}

/// One more than the largest label.
fn classes(path: &Path, a: &Stored<'_>, scratch: &mut Vec<u8>) -> Result<u32> {
    let size = a.dtype.size();
    if !matches!(a.dtype, DType::U8 | DType::U16 | DType::I32) {
        let what = format!("labels of {} where integers are wanted; store them as integers", a.dtype);
        return Err(Error::data(path, None, what));
    }
    let mut most = 0;
    a.pieces(path, 0, a.rows(), scratch, |piece| {
        for b in piece.chunks_exact(size) {
            let v = b.iter().rev().fold(0u32, |n, &b| n << 8 | u32::from(b)) as i32;
            if v < 0 {
                let what = format!("label {v} is below 0; classes are numbered from 0");
                return Err(Error::data(path, None, what));
            }
            most = most.max(v as u32);
        }
        Ok(())
    })?;
    Ok(most + 1)
}
