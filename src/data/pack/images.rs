//! Images with labels.

use crate::data::header::Field;
use crate::data::pack::{Inputs, labels};
use crate::data::readers::{Array, gunzip, read_csv, read_idx};
use crate::data::write::Writer;
use crate::error::{Error, Result};
use crate::shape::DType;
use std::path::Path;

/// One part of a set: its split, its images and labels, and the file that they came from.
pub(crate) struct Part<'a> {
    pub(crate) split: &'a str,
    pub(crate) path: &'a Path,
    pub(crate) images: Array,
    pub(crate) labels: Vec<i32>,
}

/// Packs images `[n, height, width]` of each part, one behind the other, given out as value / 255.
pub(crate) fn pack(parts: &[Part<'_>], classes: &[String], w: &mut Writer) -> Result<()> {
    let Some(first) = parts.first() else { return Err(Error::Usage("no images to pack".into())) };
    let &[_, height, width] = &first.images.shape[..] else {
        let what = format!("images of shape {:?}; [count, height, width] is wanted", first.images.shape);
        return Err(Error::data(first.path, None, what));
    };
    for p in parts {
        if p.images.shape[1..] != [height, width] || p.images.rows() != p.labels.len() {
            let what = format!(
                "images {:?} with {} labels; one label an image is wanted",
                p.images.shape,
                p.labels.len()
            );
            return Err(Error::data(p.path, None, what));
        }
    }
    w.field(Field::samples("image", DType::U8, &[1, height, width]).normalised(vec![0.0], vec![255.0]))?;
    parts.iter().try_for_each(|p| w.write(&p.images.data))?;
    w.field(Field::samples("label", DType::U8, &[]).below(classes.len() as u32))?;
    let mut start = 0;
    for p in parts {
        w.write(&labels(p.path, &p.labels, classes.len())?)?;
        w.split(p.split, start, p.labels.len() as u64);
        start += p.labels.len() as u64;
    }
    w.about().classes = classes.to_vec();
    Ok(())
}

/// Two IDX pairs, training first, in the order images, labels, images, labels.
fn idx(inputs: &Inputs, classes: &[String], w: &mut Writer) -> Result<()> {
    let files: Vec<_> = inputs.iter().collect();
    let mut parts = vec![];
    for (pair, split) in files.chunks_exact(2).zip(["train", "test"]) {
        let images = read_idx(&pair[0].path, &pair[0].bytes)?;
        let labels = read_idx(&pair[1].path, &pair[1].bytes)?.to_i32(&pair[1].path)?;
        parts.push(Part { split, path: &pair[0].path, images, labels });
    }
    pack(&parts, classes, w)
}

/// The digits of MNIST.
pub(crate) fn mnist(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    idx(inputs, &digits_classes(), w)
}

/// The clothes of Fashion-MNIST.
pub(crate) fn fashion(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    let names = "T-shirt/top|Trouser|Pullover|Dress|Coat|Sandal|Shirt|Sneaker|Bag|Ankle boot";
    idx(inputs, &names.split('|').map(String::from).collect::<Vec<_>>(), w)
}

/// `0` to `9`.
pub(crate) fn digits_classes() -> Vec<String> {
    (0..10).map(|d| d.to_string()).collect()
}

/// The 8×8 digits: lines of 64 pixels (0 to 16) and a label, the last 360 lines held out.
pub(crate) fn digits(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    const HELD_OUT: u64 = 360;
    let input = inputs.get("digits.csv.gz")?;
    let table = read_csv(&input.path, &gunzip(&input.path, input.bytes.clone(), 1 << 20)?, false)?;
    let cell = |row, column, most: f32| {
        let v = table.number(row, column)?;
        let fits = v.fract() == 0.0 && (0.0..=most).contains(&v);
        if fits {
            Ok(v as u8)
        } else {
            Err(Error::data(&input.path, None, format!("row {row}: {v} is not 0 to {most}")))
        }
    };
    let pixels = |row| (0..64).map(move |column| cell(row, column, 16.0)).collect::<Result<Vec<u8>>>();
    if table.columns.len() != 65 {
        return Err(Error::data(
            &input.path,
            None,
            format!("{} columns, 64 pixels and a label are wanted", table.columns.len()),
        ));
    }
    w.field(Field::samples("image", DType::U8, &[1, 8, 8]).normalised(vec![0.0], vec![16.0]))?;
    (0..table.rows.len()).try_for_each(|row| w.write(&pixels(row)?))?;
    w.field(Field::samples("label", DType::U8, &[]).below(10))?;
    (0..table.rows.len()).try_for_each(|row| w.write(&[cell(row, 64, 9.0)?]))?;
    let n = table.rows.len() as u64;
    w.about().classes = digits_classes();
    w.split("train", 0, n.saturating_sub(HELD_OUT));
    w.split("val", n.saturating_sub(HELD_OUT), n.min(HELD_OUT));
    Ok(())
}
