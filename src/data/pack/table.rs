//! Tables: numbers as features, one column as what is to be foretold.

use crate::data::header::Field;
use crate::data::pack::{Inputs, f32_bytes, fixed_order, held_out, statistics};
use crate::data::readers::{Table, read_csv};
use crate::data::write::Writer;
use crate::error::Result;
use crate::shape::DType;
use std::collections::BTreeSet;

/// Distinct cells of a column, sorted.
pub(crate) fn distinct(table: &Table, column: usize) -> Vec<String> {
    table.rows.iter().map(|r| r[column].clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Penguins: rows with a missing value left out, a fixed random order (the file is sorted by species), a
/// fifth held out.
pub(crate) fn penguins(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    const MEASURED: [&str; 3] = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm"];
    let input = inputs.get("penguins.csv")?;
    let mut table = read_csv(&input.path, &input.bytes, true)?;
    table.retain(|row| row.iter().all(|cell| cell != "NA"));
    let column = |name| table.column(name);
    let (species, island, sex, mass) =
        (column("species")?, column("island")?, column("sex")?, column("body_mass_g")?);
    let measured = MEASURED.iter().map(|m| column(m)).collect::<Result<Vec<_>>>()?;
    let (islands, classes) = (distinct(&table, island), distinct(&table, species));
    let n = table.rows.len();
    let train = n - held_out(n as u64, 0.2) as usize;
    let width = MEASURED.len() + 1 + islands.len();
    let (mut features, mut masses, mut labels) = (vec![], vec![], vec![]);
    for row in fixed_order(n) {
        let cells = &table.rows[row];
        for &m in &measured {
            features.push(table.number(row, m)?);
        }
        features.push((cells[sex] == "male") as u8 as f32);
        features.extend(islands.iter().map(|i| (*i == cells[island]) as u8 as f32));
        masses.push(table.number(row, mass)?);
        labels.push(classes.iter().position(|c| *c == cells[species]).unwrap_or(0) as u8);
    }
    let (mut mean, mut std) = statistics(&features[..train * width], width);
    // Columns of 0 and 1 stay as they are.
    mean[MEASURED.len()..].fill(0.0);
    std[MEASURED.len()..].fill(1.0);
    w.field(Field::samples("features", DType::F32, &[width]).normalised(mean, std))?;
    w.write(&f32_bytes(&features))?;
    let (mean, std) = statistics(&masses[..train], 1);
    w.field(Field::samples("mass", DType::F32, &[1]).normalised(mean, std))?;
    w.write(&f32_bytes(&masses))?;
    w.field(Field::samples("species", DType::U8, &[]).below(classes.len() as u32))?;
    w.write(&labels)?;
    w.about().classes = classes;
    w.split("train", 0, train as u64);
    w.split("val", train as u64, (n - train) as u64);
    Ok(())
}
