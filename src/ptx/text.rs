//! The text of a source file: where a byte stands, and errors that show the line.

use crate::error::Error;

/// Something wrong at a byte of the text.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Byte.
    pub(super) at: u32,
    /// What was seen and what was wanted.
    pub(super) what: String,
}

/// Result of reading PTX, before the file is named.
pub(super) type Read<T> = Result<T, Wrong>;

/// `Err` at byte `at`.
pub(super) fn wrong<T>(at: u32, what: impl Into<String>) -> Read<T> {
    Err(Wrong { at, what: what.into() })
}

/// Starts of the lines of a text.
pub(super) struct Lines(Vec<u32>);

impl Lines {
    /// Of `text`.
    pub(super) fn of(text: &str) -> Lines {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i as u32 + 1);
        Lines(std::iter::once(0).chain(breaks).collect())
    }
    /// Line and column of byte `at`, both from 1.
    pub(super) fn place(&self, at: u32) -> (u32, u32) {
        let line = self.0.partition_point(|&start| start <= at);
        (line as u32, at - self.0[line - 1] + 1)
    }
}

/// `wrong` as an [`Error`] that names the file and shows the line.
pub(super) fn located(name: &str, text: &str, wrong: Wrong) -> Error {
    let (line, column) = Lines::of(text).place(wrong.at);
    let shown = text.lines().nth(line as usize - 1).unwrap_or_default().trim().chars().take(120).collect();
    Error::Ptx { file: name.into(), line, column, what: wrong.what, text: shown }
}
