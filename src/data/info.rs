//! What the verbs `data list`, `data inspect` and `data verify` show, as data.

use crate::data::bundled::cached;
use crate::data::header::{Field, Kind, Split};
use crate::data::map::Access;
use crate::data::pack::{Vocabulary, hex};
use crate::data::rtd::Rtd;
use crate::data::sets::SETS;
use crate::error::Result;
use crate::shape::DType;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A set that can be named.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Name, as `data.path` takes it.
    pub name: &'static str,
    /// One line on what it is.
    pub title: &'static str,
    /// Licence and notice.
    pub licence: &'static str,
    /// Where the data come from.
    pub source: &'static str,
    /// The packed set, where there is one already.
    pub packed: Option<PathBuf>,
    /// How the package is fetched; empty where the data come with the source.
    pub fetch: &'static str,
}

/// Every set that can be named.
pub fn list() -> Vec<Listed> {
    let entry = |s: &crate::data::sets::Set| Listed {
        name: s.name,
        title: s.title,
        licence: s.licence,
        source: s.source,
        packed: cached(s).into_iter().find(|p| p.is_file()),
        fetch: s.fetch,
    };
    SETS.iter().map(entry).collect()
}

/// A packed set, described.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// File.
    pub path: PathBuf,
    /// Name of the set.
    pub name: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Samples, or tokens.
    pub count: u64,
    /// The arrays.
    pub fields: Vec<Field>,
    /// What makes a field of a user's own file or text: the field, and how.
    pub front_ends: Vec<(String, String)>,
    /// Named ranges.
    pub splits: Vec<Split>,
    /// Samples of each class.
    pub classes: Vec<(String, u64)>,
    /// Symbols of the vocabulary.
    pub vocabulary: usize,
    /// First words of a text.
    pub preview: Option<String>,
    /// Where the data come from.
    pub source: String,
    /// Licence and notice.
    pub licence: String,
    /// What was changed on the way.
    pub changes: String,
    /// Recipe that packed it.
    pub recipe: String,
    /// SHA-256 of the contents.
    pub hash: String,
}

/// Describes the packed set at `path`. Reads its header and labels.
pub fn inspect(path: impl AsRef<Path>) -> Result<Info> {
    describe(&Rtd::open(path, Access::Read)?)
}

/// Checks every byte of the packed set at `path`, then describes it.
pub fn verify(path: impl AsRef<Path>) -> Result<Info> {
    let set = Rtd::open(path, Access::Read)?;
    set.verify()?;
    describe(&set)
}

fn describe(set: &Rtd) -> Result<Info> {
    let h = set.header();
    Ok(Info {
        path: set.path().into(),
        name: h.about.name.clone(),
        bytes: set.file_len(),
        count: h.count(),
        fields: h.fields.clone(),
        front_ends: h.front_ends.iter().map(|(field, f)| (field.clone(), f.to_string())).collect(),
        splits: h.splits.clone(),
        classes: histogram(set)?,
        vocabulary: h.about.vocabulary.len(),
        preview: preview(set)?,
        source: h.about.source.clone(),
        licence: h.about.licence.clone(),
        changes: h.about.changes.clone(),
        recipe: h.about.recipe.clone(),
        hash: hex(&h.hash),
    })
}

/// Integers of a field as stored.
fn integers(dtype: DType, stored: &[u8]) -> Vec<u32> {
    stored.chunks_exact(dtype.size()).map(|b| b.iter().rev().fold(0u32, |n, &b| n << 8 | b as u32)).collect()
}

fn histogram(set: &Rtd) -> Result<Vec<(String, u64)>> {
    const PIECE: u64 = 1 << 16;
    let classes = &set.header().about.classes;
    let is_label =
        |f: &&Field| f.shape.is_empty() && f.bound as usize == classes.len() && f.kind == Kind::Samples;
    let integer = |f: &&Field| matches!(f.dtype, DType::U8 | DType::U16 | DType::I32);
    let label = set.header().fields.iter().rfind(|f| is_label(f) && integer(f));
    let (Some(field), false) = (label, classes.is_empty()) else { return Ok(vec![]) };
    let (mut counts, mut scratch, mut at) = (vec![0; classes.len()], vec![], 0);
    while at < field.count {
        let n = PIECE.min(field.count - at);
        for id in integers(field.dtype, set.samples(field, at, n, &mut scratch)?) {
            if let Some(c) = counts.get_mut(id as usize) {
                *c += 1;
            }
        }
        at += n;
    }
    Ok(classes.iter().cloned().zip(counts).collect())
}

fn preview(set: &Rtd) -> Result<Option<String>> {
    let (Some(words), Some(field)) = (Vocabulary::from_header(set.header()), set.header().fields.first())
    else {
        return Ok(None);
    };
    let mut scratch = vec![];
    let stored = set.samples(field, 0, field.count.min(200), &mut scratch)?;
    Ok(Some(words.decode(&integers(field.dtype, stored))))
}
