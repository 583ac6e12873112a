//! CSV tables: a header line or none, then rows of the same number of cells.

use crate::error::{Error, Result};
use csv::{Position, Reader, ReaderBuilder, StringRecord};
use std::io::Read;
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
    let mut reader = Rows::new(path, bytes, b',', header)?;
    let (mut rows, mut lines) = (vec![], vec![]);
    while let Some(row) = reader.next()? {
        lines.push(row.line());
        rows.push((0..row.len()).map(|k| row.cell(k).to_string()).collect());
    }
    Ok(Table { path: path.into(), columns: reader.columns, rows, lines })
}

impl Table {
    /// Index of the column `name`.
    pub fn column(&self, name: &str) -> Result<usize> {
        column(&self.path, &self.columns, name)
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
        number(&self.path, self.lines[row], &self.columns[column], &self.rows[row][column])
    }
}

fn column(path: &Path, columns: &[String], name: &str) -> Result<usize> {
    columns
        .iter()
        .position(|c| c == name)
        .ok_or_else(|| Error::data(path, None, format!("no column `{name}`; it has {}", columns.join(", "))))
}

fn number(path: &Path, line: u64, name: &str, cell: &str) -> Result<f32> {
    cell.parse().ok().filter(|v: &f32| v.is_finite()).ok_or_else(|| {
        let what =
            format!("line {line}, column `{name}`: {cell:?} is not a number; fill or remove such rows");
        Error::data(path, None, what)
    })
}

/// The rows of a table one after the other, whatever their number.
pub(crate) struct Rows<R> {
    path: PathBuf,
    reader: Reader<R>,
    pub(crate) columns: Vec<String>,
    record: StringRecord,
    seen: bool,
}

impl<R: Read> Rows<R> {
    /// Reads the names of the columns, or with no header line, numbers them.
    pub(crate) fn new(path: &Path, source: R, delimiter: u8, header: bool) -> Result<Rows<R>> {
        let mut reader = ReaderBuilder::new().has_headers(header).delimiter(delimiter).from_reader(source);
        let first = reader.headers().map_err(|e| unsound(path, e))?;
        let name = |(k, cell): (usize, &str)| if header { cell.trim().into() } else { k.to_string() };
        let columns = first.iter().enumerate().map(name).collect();
        Ok(Rows { path: path.into(), reader, columns, record: StringRecord::new(), seen: false })
    }
    /// Index of the column `name`.
    pub(crate) fn column(&self, name: &str) -> Result<usize> {
        column(&self.path, &self.columns, name)
    }
    /// The next row; a table without any is an error.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>> {
        let more = self.reader.read_record(&mut self.record).map_err(|e| unsound(&self.path, e))?;
        if !more && !self.seen {
            return Err(Error::data(&self.path, Some(0), "the table has no rows"));
        }
        self.seen = true;
        Ok(more.then_some(Row { path: &self.path, columns: &self.columns, record: &self.record }))
    }
}

/// True where the first line of the table names columns: no cell of it is a number.
pub(crate) fn has_header(path: &Path, source: impl Read, delimiter: u8) -> Result<bool> {
    let mut reader = ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(source);
    let first = reader.headers().map_err(|e| unsound(path, e))?;
    Ok(!first.iter().any(|c| c.trim().parse::<f64>().is_ok()))
}

fn unsound(path: &Path, e: csv::Error) -> Error {
    let (at, text) = (e.position().map(Position::byte), e.to_string());
    match e.into_kind() {
        csv::ErrorKind::Io(e) => Error::io(path, e),
        _ => Error::data(path, at, format!("{text}; each line needs the same number of cells")),
    }
}

/// One row of a table.
pub(crate) struct Row<'a> {
    path: &'a Path,
    columns: &'a [String],
    record: &'a StringRecord,
}

impl Row<'_> {
    pub(crate) fn len(&self) -> usize {
        self.record.len()
    }
    /// Line of the row in the file.
    pub(crate) fn line(&self) -> u64 {
        self.record.position().map_or(0, Position::line)
    }
    /// The cell of `column` without space around it.
    pub(crate) fn cell(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or_default().trim()
    }
    /// The cell of `column` as a finite number.
    pub(crate) fn number(&self, column: usize) -> Result<f32> {
        number(self.path, self.line(), &self.columns[column], self.cell(column))
    }
}
