//! Where words go: results to standard output, notes and errors to standard error.

use super::Extensions;
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::fmt::Arguments;
use std::io::{self, BufWriter, IsTerminal, Write};

/// What the verbs share in one run of the command line.
pub(super) struct Session<'a> {
    /// Additions of another crate.
    pub(super) extensions: Extensions<'a>,
    /// Only results and errors are wanted.
    pub(super) quiet: bool,
    out: RefCell<BufWriter<io::Stdout>>,
}

/// Prints a line of results.
macro_rules! say {
    ($session:expr) => { $session.line(format_args!("")) };
    ($session:expr, $($text:tt)*) => { $session.line(format_args!($($text)*)) };
}
/// Prints a note, unless `--quiet`.
macro_rules! note {
    ($session:expr, $($text:tt)*) => { $session.note(format_args!($($text)*)) };
}
pub(super) use {note, say};

/// Name under which errors of standard output are reported.
const STDOUT: &str = "standard output";

impl<'a> Session<'a> {
    pub(super) fn new(extensions: Extensions<'a>, quiet: bool) -> Session<'a> {
        Session { extensions, quiet, out: RefCell::new(BufWriter::new(io::stdout())) }
    }

    /// Writes one line of results. It is buffered: see [`Session::flush`].
    pub(super) fn line(&self, text: Arguments<'_>) -> Result<()> {
        let mut out = self.out.borrow_mut();
        out.write_fmt(text).and_then(|()| out.write_all(b"\n")).map_err(|e| Error::io(STDOUT, e))
    }

    /// Writes bytes of results, as they are.
    pub(super) fn raw(&self, bytes: &[u8]) -> Result<()> {
        self.out.borrow_mut().write_all(bytes).map_err(|e| Error::io(STDOUT, e))
    }

    /// Sends what was written on its way: before a long wait, and at the end.
    pub(super) fn flush(&self) -> Result<()> {
        self.out.borrow_mut().flush().map_err(|e| Error::io(STDOUT, e))
    }

    /// Writes a note to standard error. That it cannot be written is no reason to stop.
    pub(super) fn note(&self, text: Arguments<'_>) {
        if !self.quiet {
            // Results first, so that both read in order on a terminal.
            let _ = self.flush();
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Prints `error: …` and what lay under it.
    pub(super) fn report(&self, e: &Error) {
        let _ = self.flush();
        let mut err = io::stderr().lock();
        let (on, off) = if colours() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let mut said = e.to_string();
        let _ = writeln!(err, "{on}error:{off} {said}");
        let mut cause = std::error::Error::source(e);
        while let Some(c) = cause {
            let text = c.to_string();
            // Most texts quote their cause already.
            if !said.contains(&text) {
                let _ = writeln!(err, "  caused by: {text}");
                said = text;
            }
            cause = c.source();
        }
    }
}

/// True when standard error is a terminal that wants colours.
fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// True when the reader of standard output went away: `ringtape op list | head -1`.
pub(super) fn is_closed_pipe(e: &Error) -> bool {
    matches!(e, Error::Io { path, source }
        if path.as_os_str() == STDOUT && source.kind() == io::ErrorKind::BrokenPipe)
}

/// Rows as columns: each as wide as its widest cell, numbers (cells that start with a digit or sign) to the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |c: usize| {
        let cells = rows.iter().map(|r| r[c].chars().count());
        cells.chain([head[c].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let is_number = |s: &str| s.is_empty() || s == "-" || s.starts_with(|c: char| c.is_ascii_digit());
    let right: Vec<bool> =
        (0..head.len()).map(|c| !rows.is_empty() && rows.iter().all(|r| is_number(&r[c]))).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (c, cell) in cells.iter().enumerate() {
            let w = widths[c];
            text += &if right[c] { format!("{cell:>w$}  ") } else { format!("{cell:<w$}  ") };
        }
        text.trim_end().to_string()
    };
    let head_line = line(head.to_vec());
    std::iter::once(head_line)
        .chain(rows.iter().map(|r| line(r.iter().map(String::as_str).collect())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_words_left_and_numbers_right() {
        let rows = vec![vec!["relu".into(), "1.5".into()], vec!["matmul".into(), "12.25".into()]];
        assert_eq!(table(&["op", "ms"], &rows), ["op         ms", "relu      1.5", "matmul  12.25"]);
    }
}
