//! CSV tables: a header line, then rows of the same number of cells.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// A table of text cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    path: PathBuf,
    /// Names of the columns; numbers from 0 where the file has no header line.
    pub columns: Vec<String>,
    /// Rows of cells.
    pub rows: Vec<Vec<String>>,
    /// Line of each row in the file.
    lines: Vec<u64>,
}

/// Reads the bytes of a CSV file. Rows of different lengths and bytes that are not UTF-8 are errors with
/// their line.
pub fn read_csv(path: &Path, bytes: &[u8], header: bool) -> Result<Table> {
    let mut reader = csv::ReaderBuilder::new().has_headers(header).from_reader(bytes);
    let at = |e: &csv::Error| e.position().map(csv::Position::byte);
    let bad =
        |e: csv::Error| Error::data(path, at(&e), format!("{e}; each line needs the same number of cells"));
    let mut table = Table { path: path.into(), columns: vec![], rows: vec![], lines: vec![] };
    for record in reader.records() {
        let record = record.map_err(bad)?;
        table.lines.push(record.position().map_or(0, csv::Position::line));
        table.rows.push(record.iter().map(|c| c.trim().to_string()).collect());
    }
    table.columns = match (header, table.rows.first()) {
        (true, _) => reader.headers().map_err(bad)?.iter().map(|c| c.trim().to_string()).collect(),
        (false, Some(row)) => (0..row.len()).map(|k| k.to_string()).collect(),
        (false, None) => vec![],
    };
    if table.rows.is_empty() {
        return Err(Error::data(path, Some(0), "the table has no rows"));
    }
    Ok(table)
}

impl Table {
    /// Index of the column `name`.
    pub fn column(&self, name: &str) -> Result<usize> {
        self.columns.iter().position(|c| c == name).ok_or_else(|| {
            let what = format!("no column `{name}`; it has {}", self.columns.join(", "));
            Error::data(&self.path, None, what)
        })
    }
    /// Keeps the rows that `keep` accepts.
    pub fn retain(&mut self, keep: impl Fn(&[String]) -> bool) {
        let kept: Vec<bool> = self.rows.iter().map(|r| keep(r)).collect();
        let mut k = kept.iter();
        self.rows.retain(|_| *k.next().unwrap_or(&true));
        let mut k = kept.iter();
        self.lines.retain(|_| *k.next().unwrap_or(&true));
    }
    /// The cell at `row`, `column` as a finite number.
    pub fn number(&self, row: usize, column: usize) -> Result<f32> {
        let cell = &self.rows[row][column];
        cell.parse().ok().filter(|v: &f32| v.is_finite()).ok_or_else(|| {
            let (line, name) = (self.lines[row], &self.columns[column]);
            let what =
                format!("line {line}, column `{name}`: {cell:?} is not a number; fill or remove such rows");
            Error::data(&self.path, None, what)
        })
    }
}
