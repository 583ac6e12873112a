//! Packing: arrays, text, tables, and folders of images or sounds into `*.rtd`.

mod arrays;
mod folder;
pub(crate) mod fusion;
pub(crate) mod images;
mod options;
pub(crate) mod speech;
pub(crate) mod synthetic;
pub(crate) mod table;
pub(crate) mod text;
mod user;
mod user_table;

pub use options::PackOptions;
pub use text::Vocabulary;
pub use user::pack_path;

use crate::data::sampler::Permutation;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The files that a set is packed from, read and found to be those that were meant.
pub(crate) struct Inputs(Vec<Input>);

/// One of them.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl Inputs {
    pub(crate) fn new(files: Vec<Input>) -> Inputs {
        Inputs(files)
    }
    /// The file called `name`.
    pub(crate) fn get(&self, name: &str) -> Result<&Input> {
        let found = self.0.iter().find(|f| f.name == name);
        found.ok_or_else(|| Error::Usage(format!("the recipe asks for {name}, which it does not list")))
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Input> {
        self.0.iter()
    }
}

/// SHA-256 as 64 hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Samples held out of `n`: the share, rounded up, but never all.
pub(crate) fn held_out(n: u64, share: f64) -> u64 {
    ((n as f64 * share).ceil() as u64).min(n.saturating_sub(1))
}

/// A fixed random order of `n` rows: for files that are sorted, whose tail would be another population than
/// the head.
pub(crate) fn fixed_order(n: usize) -> impl Iterator<Item = usize> + Clone {
    let order = Permutation::new(0, 0, n as u64);
    (0..n as u64).map(move |k| order.index(k) as usize)
}

/// Mean and deviation of each of `width` columns over whole rows; a constant column gets deviation 1.
pub(crate) fn statistics(rows: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    moments(width, rows.chunks_exact(width).map(|row| row.iter().copied()))
}

/// The same over rows that are gone through twice and held nowhere.
pub(crate) fn moments<R: Iterator<Item = f32>>(
    width: usize,
    rows: impl Iterator<Item = R> + Clone,
) -> (Vec<f32>, Vec<f32>) {
    let (mut mean, mut square, mut n) = (vec![0.0; width], vec![0.0; width], 0.0f64);
    for row in rows.clone() {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += v as f64);
        n += 1.0;
    }
    let n = n.max(1.0);
    mean.iter_mut().for_each(|m| *m /= n);
    for row in rows {
        let column = square.iter_mut().zip(&mean);
        column.zip(row).for_each(|((s, m), v)| *s += (v as f64 - m).powi(2));
    }
    let std = square.iter().map(|s| (s / n).sqrt() as f32).map(|s| if s > 1e-12 { s } else { 1.0 });
    (mean.iter().map(|&m| m as f32).collect(), std.collect())
}

/// Little-endian bytes of f32 values.
pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Labels as bytes, each below `classes` (at most 256).
pub(crate) fn labels(path: &Path, values: &[i32], classes: usize) -> Result<Vec<u8>> {
    let narrow = |(k, &v): (usize, &i32)| {
        let fits = u8::try_from(v).ok().filter(|&v| (v as usize) < classes);
        fits.ok_or_else(|| {
            Error::data(path, None, format!("label {k} is {v}, but there are {classes} classes"))
        })
    };
    values.iter().enumerate().map(narrow).collect()
}
