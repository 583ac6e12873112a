//! Packing what a user has: a file or folder of any known format.

use crate::data::header::{About, Field};
use crate::data::pack::options::{PackOptions, split};
use crate::data::pack::{arrays, folder, held_out, text, user_table};
use crate::data::path::check_regular_file;
use crate::data::readers;
use crate::data::write::Writer;
use crate::error::{Error, Result};
use crate::shape::DType;
use std::path::{Path, PathBuf};

/// Packs a text (.txt, .md), token shard (.bin), table (.csv, .tsv), array (.npy, .npz, .safetensors, IDX), or a
/// folder with a sub-folder of PNG images or WAV recordings for each class; texts, tables and IDX also with
/// .gz. Samples are put in a fixed random order before the split `val` is cut off their end, since files are
/// often sorted; a text is cut at its end as it stands. Returns the path of the set.
pub fn pack_path(path: impl AsRef<Path>, options: &PackOptions) -> Result<PathBuf> {
    let path = path.as_ref();
    if !(0.0..1.0).contains(&options.val) {
        return Err(Error::Usage(format!(
            "a share of {} held out; 0 up to (not including) 1 is wanted",
            options.val
        )));
    }
    if !path.is_dir() {
        check_regular_file(path)?;
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| Error::Usage(format!("{} names no file", path.display())))?;
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = plain.rsplit_once('.').map_or(plain, |(stem, _)| stem).to_string();
    let out = options.out.clone().unwrap_or_else(|| path.with_file_name(format!("{stem}.rtd")));
    if out.symlink_metadata().is_ok() {
        return Err(Error::Usage(format!(
            "{} exists already; remove it or name another file",
            out.display()
        )));
    }
    let about = About {
        name: stem,
        recipe: "user/1".into(),
        source: path.display().to_string(),
        licence: options.licence.clone(),
        ..About::default()
    };
    let mut w = Writer::create(&out, about)?;
    fill(path, plain, options, &mut w)?;
    w.finish()
}

fn fill(path: &Path, name: &str, options: &PackOptions, w: &mut Writer) -> Result<()> {
    if path.is_dir() {
        return folder::pack(path, options, w);
    }
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "txt" | "md" => {
            text::pack(path, || readers::open_expanded(path), |n| n - held_out(n, options.val), w)
        }
        "bin" => shard(path, options, w),
        "csv" => user_table::pack(path, b',', options, w),
        "tsv" | "tab" => user_table::pack(path, b'\t', options, w),
        "npy" | "npz" | "safetensors" => arrays::pack(path, options, w),
        _ if name.contains("idx") => arrays::pack(path, options, w),
        _ => {
            let what = "the ending tells no format; .txt, .bin, .csv, .tsv, .npy, .npz, .safetensors, *idx* \
                        and folders of PNG or WAV are read; texts, tables and IDX also with .gz";
            Err(Error::data(path, None, what))
        }
    }
}

fn shard(path: &Path, options: &PackOptions, w: &mut Writer) -> Result<()> {
    let shard = readers::read_shard(path)?;
    let bound = match options.vocabulary {
        Some(n) => n,
        // One pass more, rather than a guess.
        None => {
            let mut most = 0;
            shard.for_each(|tokens| {
                most = tokens.iter().fold(most, |m, &t| m.max(t));
                Ok(())
            })?;
            most.saturating_add(1)
        }
    };
    let dtype = if bound <= 65536 { DType::U16 } else { DType::I32 };
    w.field(Field::tokens(dtype, bound))?;
    let (mut piece, mut at) = (vec![], 0);
    shard.for_each(|tokens| {
        piece.clear();
        for &t in tokens {
            if t >= bound || t > i32::MAX as u32 {
                let what = format!("token {at} is {t}, but the vocabulary has {bound} ids");
                return Err(Error::data(path, None, what));
            }
            piece.extend_from_slice(&t.to_le_bytes()[..dtype.size()]);
            at += 1;
        }
        w.write(&piece)
    })?;
    split(shard.count(), options, w);
    Ok(())
}
