//! Text in UTF-8, plain or gzip.

use super::{EXPANDED_MOST, gunzip};
use crate::error::{Error, Result};
use std::path::Path;

/// The text in the bytes of a file.
pub fn read_text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let bytes = gunzip(path, bytes, EXPANDED_MOST)?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to() as u64;
        Error::data(path, Some(at), "not UTF-8 from here on; convert the file (iconv -t utf-8)")
    })
}
