//! What a user may say of a packing, and the split that follows from it.

use crate::data::pack::held_out;
use crate::data::write::Writer;
use std::path::PathBuf;

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

/// The last `options.val` of `n` samples become the split `val`.
pub(crate) fn split(n: u64, options: &PackOptions, w: &mut Writer) {
    let val = held_out(n, options.val);
    w.split("train", 0, n - val);
    if val > 0 {
        w.split("val", n - val, val);
    }
}
