//! A table of a user's own, of any length: one pass over its text, whose numbers go to a scratch file, since samples
//! are written in another order than lines come.

use crate::data::header::Field;
use crate::data::map::{Access, Bytes};
use crate::data::pack::options::{PackOptions, split};
use crate::data::pack::{fixed_order, held_out, moments};
use crate::data::readers::{Row, Rows, has_header, open_expanded};
use crate::data::write::Writer;
use crate::error::{Error, Result};
use crate::shape::DType;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

/// Most distinct names in the column to foretell.
const MOST_CLASSES: usize = 1 << 16;

/// Every column but the target is a number, standardised with the statistics of the training rows. The target
/// is a `label` when its cells are names or small whole numbers, else a real `target`.
pub(crate) fn pack(path: &Path, delimiter: u8, options: &PackOptions, w: &mut Writer) -> Result<()> {
    let header = has_header(path, open_expanded(path)?, delimiter)?;
    let mut rows = Rows::new(path, open_expanded(path)?, delimiter, header)?;
    let width = rows.columns.len();
    let target = options.target.as_ref().map_or(Ok(width.saturating_sub(1)), |t| rows.column(t))?;
    if width == 1 {
        return Err(Error::data(path, None, "one column; features and a target are wanted"));
    }
    let (scratch, n, kind) = spill(path, &mut rows, target, w)?;
    let map = Bytes::new(path, scratch, Access::Mmap)?;
    let mut none = vec![];
    let stored = Numbers { cells: map.get(0, map.len() as usize, &mut none)?.as_chunks().0, width };

    let features = width - 1;
    let train = n - held_out(n as u64, options.val) as usize;
    let (mean, std) = moments(features, fixed_order(n).take(train).map(|row| stored.features(row)));
    w.field(Field::samples("features", DType::F32, &[features]).normalised(mean, std))?;
    fixed_order(n).try_for_each(|row| w.write(stored.row(row)[..features].as_flattened()))?;
    target_column(&stored, n, train, kind, w)?;
    split(n as u64, options, w);
    Ok(())
}

/// What the column to foretell holds.
enum Target {
    /// Numbers, of which the largest is here; `whole`: all of 0 to 255.
    Numbers { whole: bool, most: f32 },
    /// Names with the ids that they got, in the order in which they were met.
    Names(HashMap<String, u32>),
}

impl Target {
    /// The first row decides what the column is; a cell that does not fit is then an error with its line.
    fn of(first: &str) -> Target {
        match first.parse::<f32>() {
            Ok(v) if v.is_finite() => Target::Numbers { whole: true, most: 0.0 },
            _ => Target::Names(HashMap::new()),
        }
    }

    /// The four bytes of a cell: a number, or the id of a name.
    fn take(&mut self, path: &Path, row: &Row<'_>, column: usize) -> Result<[u8; 4]> {
        match self {
            Target::Numbers { whole, most } => {
                let v = row.number(column)?;
                *whole &= v.fract() == 0.0 && (0.0..256.0).contains(&v);
                *most = most.max(v);
                Ok(v.to_le_bytes())
            }
            Target::Names(names) => {
                let cell = row.cell(column);
                if let Some(id) = names.get(cell) {
                    return Ok(id.to_le_bytes());
                }
                let id = names.len();
                if id == MOST_CLASSES {
                    let what = format!(
                        "line {}: more than {MOST_CLASSES} different names in the column to foretell; name \
                         another with --target",
                        row.line()
                    );
                    return Err(Error::data(path, None, what));
                }
                names.insert(cell.into(), id as u32);
                Ok((id as u32).to_le_bytes())
            }
        }
    }
}

/// Writes each row as four bytes a column, the target last. Gives the file and the number of rows.
fn spill(
    path: &Path,
    rows: &mut Rows<impl Read>,
    target: usize,
    w: &Writer,
) -> Result<(File, usize, Target)> {
    let mut out = BufWriter::with_capacity(1 << 16, w.scratch()?);
    let (mut n, mut kind, width) = (0, None, rows.columns.len());
    let io = |e| Error::io(w.target(), e);
    while let Some(row) = rows.next()? {
        for column in (0..width).filter(|&c| c != target) {
            out.write_all(&row.number(column)?.to_le_bytes()).map_err(io)?;
        }
        let kind = kind.get_or_insert_with(|| Target::of(row.cell(target)));
        out.write_all(&kind.take(path, &row, target)?).map_err(io)?;
        n += 1;
    }
    let file = out.into_inner().map_err(|e| io(e.into_error()))?;
    Ok((file, n, kind.unwrap_or(Target::Names(HashMap::new()))))
}

/// The scratch file, mapped.
struct Numbers<'a> {
    cells: &'a [[u8; 4]],
    width: usize,
}

impl<'a> Numbers<'a> {
    fn row(&self, row: usize) -> &'a [[u8; 4]] {
        &self.cells[row * self.width..][..self.width]
    }
    fn features(&self, row: usize) -> impl Iterator<Item = f32> + use<'a> {
        self.row(row)[..self.width - 1].iter().map(|&b| f32::from_le_bytes(b))
    }
    fn target(&self, row: usize) -> [u8; 4] {
        self.row(row)[self.width - 1]
    }
}

fn target_column(stored: &Numbers<'_>, n: usize, train: usize, kind: Target, w: &mut Writer) -> Result<()> {
    let number = |row| f32::from_le_bytes(stored.target(row));
    match kind {
        Target::Numbers { whole: false, .. } => {
            let (mean, std) = moments(1, fixed_order(n).take(train).map(|row| std::iter::once(number(row))));
            w.field(Field::samples("target", DType::F32, &[1]).normalised(mean, std))?;
            fixed_order(n).try_for_each(|row| w.write(&stored.target(row)))
        }
        Target::Numbers { most, .. } => {
            let classes = most as u32 + 1;
            w.about().classes = (0..classes).map(|k| k.to_string()).collect();
            w.field(Field::samples("label", DType::U8, &[]).below(classes))?;
            fixed_order(n).try_for_each(|row| w.write(&[number(row) as u8]))
        }
        Target::Names(names) => {
            let mut sorted: Vec<(String, u32)> = names.into_iter().collect();
            sorted.sort();
            let mut place = vec![0u16; sorted.len()];
            (0..).zip(&sorted).for_each(|(k, (_, id))| place[*id as usize] = k);
            w.field(Field::samples("label", DType::U16, &[]).below(sorted.len() as u32))?;
            w.about().classes = sorted.into_iter().map(|(name, _)| name).collect();
            let id = |row| place[u32::from_le_bytes(stored.target(row)) as usize];
            fixed_order(n).try_for_each(|row| w.write(&id(row).to_le_bytes()))
        }
    }
}
