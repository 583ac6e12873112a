//! Packing what a user has: a file or folder of any known format.

use crate::data::header::{About, Field};
use crate::data::pack::table::distinct;
use crate::data::pack::{f32_bytes, fixed_order, folder, held_out, statistics, text};
use crate::data::readers::{self, Array, Table, read_file};
use crate::data::write::Writer;
use crate::error::{Error, Result};
use crate::shape::DType;
use std::path::{Path, PathBuf};

/// How a user's files are packed.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// Where the set goes; else beside its source, with the ending `.rtd`. An existing file is never
    /// overwritten.
    pub out: Option<PathBuf>,
    /// Share (0 to 1) of the samples, or of the end of a text, that becomes the split `val`.
    pub val: f64,
    /// Labels in a file of their own (IDX, .npy). For `*-images-idx3-*` the file `*-labels-idx1-*` beside it
    /// is found.
    pub labels: Option<PathBuf>,
    /// Column of a CSV to foretell; else the last.
    pub target: Option<String>,
    /// Ids of a token shard are below this.
    pub vocabulary: Option<u32>,
    /// Licence, kept in the set.
    pub licence: String,
}

impl Default for PackOptions {
    fn default() -> PackOptions {
        let licence = "not stated".into();
        PackOptions { out: None, val: 0.1, labels: None, target: None, vocabulary: None, licence }
    }
}

/// Packs a text (.txt, .md), token shard (.bin), table (.csv), array (.npy, .npz, .safetensors, IDX), or a
/// folder with a sub-folder of PNG images or WAV recordings for each class; texts, tables and IDX also with
/// .gz. Samples are put in a fixed random order before the split `val` is cut off their end, since files are
/// often sorted; a text is cut at its end as it stands. Returns the path of the set.
pub fn pack_path(path: impl AsRef<Path>, options: &PackOptions) -> Result<PathBuf> {
    let path = path.as_ref();
    if !(0.0..1.0).contains(&options.val) {
        return Err(Error::Usage(format!(
            "a share of {} held out; 0 up to (not including) 1 is wanted",
            options.val
        )));
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| Error::Usage(format!("{} names no file", path.display())))?;
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = plain.rsplit_once('.').map_or(plain, |(stem, _)| stem).to_string();
    let out = options.out.clone().unwrap_or_else(|| path.with_file_name(format!("{stem}.rtd")));
    if out.symlink_metadata().is_ok() {
        return Err(Error::Usage(format!(
            "{} exists already; remove it or name another file",
            out.display()
        )));
    }
    let about = About {
        name: stem,
        recipe: "user/1".into(),
        source: path.display().to_string(),
        licence: options.licence.clone(),
        ..About::default()
    };
    let mut w = Writer::create(&out, about)?;
    fill(path, plain, options, &mut w)?;
    w.finish()
}

fn fill(path: &Path, name: &str, options: &PackOptions, w: &mut Writer) -> Result<()> {
    if path.is_dir() {
        return folder::pack(path, options, w);
    }
    let named = |array: Array| match array.row_shape().len() {
        2.. if array.dtype == DType::U8 => vec![("image".to_string(), array)],
        _ => vec![("x".to_string(), array)],
    };
    let arrays = match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "txt" | "md" => {
            let text = readers::read_text(path, read_file(path)?)?;
            return text::pack(path, &text, |n| n - held_out(n, options.val), w);
        }
        "bin" => return shard(path, options, w),
        "csv" => return table(path, options, w),
        "npy" => named(readers::read_npy(path, &read_file(path)?)?),
        "npz" => readers::read_npz(path, &read_file(path)?)?,
        "safetensors" => readers::read_safetensors(path, &read_file(path)?)?,
        _ if name.contains("idx") => named(readers::read_idx(path, &read_file(path)?)?),
        _ => {
            let what = "the ending tells no format; .txt, .bin, .csv, .npy, .npz, .safetensors, *idx* and \
                        folders of PNG or WAV are read; texts, CSV and IDX also with .gz";
            return Err(Error::data(path, None, what));
        }
    };
    let mut arrays = arrays;
    if let Some(labels) = options.labels.clone().or_else(|| label_file(path)) {
        let bytes = read_file(&labels)?;
        let npy = labels.extension().is_some_and(|e| e == "npy");
        let array =
            if npy { readers::read_npy(&labels, &bytes)? } else { readers::read_idx(&labels, &bytes)? };
        arrays.push(("label".into(), array));
    }
    self::arrays(path, &arrays, options, w)
}

/// `train-labels-idx1-ubyte` beside `train-images-idx3-ubyte`.
fn label_file(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let beside = path.with_file_name(&labels);
    (labels != name && beside.exists()).then_some(beside)
}

/// Named arrays with the same number of rows.
fn arrays(path: &Path, arrays: &[(String, Array)], options: &PackOptions, w: &mut Writer) -> Result<()> {
    let n = arrays.first().map_or(0, |(_, a)| a.rows());
    let shapes =
        || arrays.iter().map(|(name, a)| format!("{name} {:?}", a.shape)).collect::<Vec<_>>().join(", ");
    if n == 0 || arrays.iter().any(|(_, a)| a.rows() != n || a.shape.is_empty() || a.row_bytes() == 0) {
        let what = format!("{}; each array needs the same number of rows, one a sample", shapes());
        return Err(Error::data(path, None, what));
    }
    for (name, a) in arrays {
        let mut field = Field::samples(name, a.dtype, a.row_shape());
        if a.dtype == DType::U8 && a.row_shape().len() >= 2 {
            // Images are `[channels, height, width]` in a batch.
            let one: Vec<usize> = std::iter::once(1).chain(a.row_shape().iter().copied()).collect();
            let dims = if a.row_shape().len() == 2 { &one[..] } else { a.row_shape() };
            field = Field::samples(name, a.dtype, dims).normalised(vec![0.0], vec![255.0]);
        } else if name == "label" && a.row_shape().is_empty() {
            let ids = a.to_i32(path)?;
            let (least, most) = ids.iter().fold((0, 0), |(l, m), &v| (v.min(l), v.max(m)));
            if least < 0 {
                return Err(Error::data(
                    path,
                    None,
                    format!("label {least} is below 0; classes are numbered from 0"),
                ));
            }
            field.bound = most as u32 + 1;
            w.about().classes = (0..=most.min(9999)).map(|k| k.to_string()).collect();
        }
        w.field(field)?;
        let bytes = a.row_bytes();
        fixed_order(n).try_for_each(|k| w.write(&a.data[k * bytes..][..bytes]))?;
    }
    split(n as u64, options, w);
    Ok(())
}

/// The last `options.val` of `n` samples become the split `val`.
pub(crate) fn split(n: u64, options: &PackOptions, w: &mut Writer) {
    let val = held_out(n, options.val);
    w.split("train", 0, n - val);
    if val > 0 {
        w.split("val", n - val, val);
    }
}

fn shard(path: &Path, options: &PackOptions, w: &mut Writer) -> Result<()> {
    let shard = readers::read_shard(path)?;
    let bound = match options.vocabulary {
        Some(n) => n,
        // One pass more, rather than a guess.
        None => {
            let mut most = 0;
            shard.for_each(|tokens| {
                most = tokens.iter().fold(most, |m, &t| m.max(t));
                Ok(())
            })?;
            most.saturating_add(1)
        }
    };
    let dtype = if bound <= 65536 { DType::U16 } else { DType::I32 };
    w.field(Field::tokens(dtype, bound))?;
    let (mut piece, mut at) = (vec![], 0);
    shard.for_each(|tokens| {
        piece.clear();
        for &t in tokens {
            if t >= bound || t > i32::MAX as u32 {
                let what = format!("token {at} is {t}, but the vocabulary has {bound} ids");
                return Err(Error::data(path, None, what));
            }
            piece.extend_from_slice(&t.to_le_bytes()[..dtype.size()]);
            at += 1;
        }
        w.write(&piece)
    })?;
    split(shard.count(), options, w);
    Ok(())
}

/// Every column but the target is a number, standardised with the statistics of the training rows. The target
/// is a `label` when its cells are names or small whole numbers, else a real `target`.
fn table(path: &Path, options: &PackOptions, w: &mut Writer) -> Result<()> {
    let bytes = readers::gunzip(path, read_file(path)?, readers::EXPANDED_MOST)?;
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let header = !String::from_utf8_lossy(line).split(',').any(|c| c.trim().parse::<f64>().is_ok());
    let table = readers::read_csv(path, &bytes, header)?;
    let width = table.columns.len();
    let target = options.target.as_ref().map_or(Ok(width.saturating_sub(1)), |t| table.column(t))?;
    if width < 2 {
        return Err(Error::data(path, None, "one column; features and a target are wanted"));
    }
    let n = table.rows.len();
    let mut features = vec![];
    for row in fixed_order(n) {
        for column in (0..width).filter(|&c| c != target) {
            features.push(table.number(row, column)?);
        }
    }
    let train = n - held_out(n as u64, options.val) as usize;
    let (mean, std) = statistics(&features[..train * (width - 1)], width - 1);
    w.field(Field::samples("features", DType::F32, &[width - 1]).normalised(mean, std))?;
    w.write(&f32_bytes(&features))?;
    target_column(&table, target, train, w)?;
    split(n as u64, options, w);
    Ok(())
}

fn target_column(table: &Table, target: usize, train: usize, w: &mut Writer) -> Result<()> {
    let n = table.rows.len();
    let cell = |row: usize| table.rows[row][target].as_str();
    // The first row decides what the column is; a cell that does not fit is then an error with its line.
    let numeric = cell(0).parse::<f32>().is_ok_and(f32::is_finite);
    let all = || fixed_order(n).map(|row| table.number(row, target)).collect::<Result<Vec<f32>>>();
    let numbers = if numeric { Some(all()?) } else { None };
    let classes = distinct(table, target);
    let label = |v: &f32| v.fract() == 0.0 && (0.0..256.0).contains(v);
    match numbers {
        Some(v) if !v.iter().all(label) => {
            let (mean, std) = statistics(&v[..train], 1);
            w.field(Field::samples("target", DType::F32, &[1]).normalised(mean, std))?;
            w.write(&f32_bytes(&v))
        }
        Some(v) => {
            let classes = v.iter().fold(0.0, |m: f32, &v| m.max(v)) as u32 + 1;
            w.about().classes = (0..classes).map(|k| k.to_string()).collect();
            w.field(Field::samples("label", DType::U8, &[]).below(classes))?;
            w.write(&v.iter().map(|&v| v as u8).collect::<Vec<_>>())
        }
        None => {
            let ids = fixed_order(n)
                .map(|row| classes.binary_search_by(|c| c.as_str().cmp(cell(row))).unwrap_or(0));
            let ids: Vec<u8> = ids.flat_map(|k| (k as u16).to_le_bytes()).collect();
            w.field(Field::samples("label", DType::U16, &[]).below(classes.len() as u32))?;
            w.about().classes = classes;
            w.write(&ids)
        }
    }
}
