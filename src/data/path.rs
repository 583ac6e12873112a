//! Which paths are opened at all: regular files, and for paths found inside files, only below a given root.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path};

/// Opens a regular file for reading and gives its length. Folders, pipes, sockets and devices are refused
/// before they are opened, since opening a pipe or a device can already block or do something.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    check_regular_file(path)?;
    // Not to block if the file became a pipe in between.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(|e| Error::io(path, e))?;
    let m = file.metadata().map_err(|e| Error::io(path, e))?;
    if !m.is_file() {
        return Err(Error::data(path, None, "not a regular file"));
    }
    Ok((file, m.len()))
}

/// Errors unless `path` is a regular file, or a link to one, whose name the system can be told.
pub fn check_regular_file(path: &Path) -> Result<()> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(Error::Usage(format!("{path:?}: a file name cannot hold a NUL byte")));
    }
    let kind = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.file_type();
    let seen = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(Error::data(path, None, format!("this is {seen}; a regular file is wanted")))
}

/// Errors when `name`, a path written inside some other file, does not stay below `root`: absolute names, `..`, NUL,
/// links that lead out of it, and what is no regular file are refused as usage (exit code 2). Nothing is opened. A
/// file that is not there is left to who opens it.
pub(crate) fn stays_below(root: &Path, name: &str) -> Result<()> {
    let refuse = |why: &str| Err(Error::Usage(format!("path {name:?} {why}")));
    if name.is_empty() || name.contains('\0') {
        return refuse("is empty or holds a NUL byte");
    }
    let named = Path::new(name);
    if !named.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return refuse("must stay inside the folder that it is looked for in (no `..`, not absolute)");
    }
    let path = root.join(named);
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    if !leads_below(root, &path)? {
        return refuse("is a link that leads out of the folder that it is looked for in");
    }
    match check_regular_file(&path) {
        Err(Error::Data { what, .. }) => refuse(&what),
        other => other,
    }
}

/// True when the links in `path` end below `root`. They are followed by name, without opening anything.
fn leads_below(root: &Path, path: &Path) -> Result<bool> {
    let real = |p: &Path| p.canonicalize().map_err(|e| Error::io(p, e));
    Ok(real(path)?.starts_with(real(root)?))
}

/// Errors (as usage, exit code 2) when something in `folder`, which may come from elsewhere, is a link that leads out of
/// it, or neither a file nor a folder: whoever reads and writes files there by name then reaches no others.
pub fn check_folder(folder: &Path) -> Result<()> {
    check_below(folder, folder, 0)
}

/// Folders in folders that are looked into; a run folder has one level.
const DEEPEST: usize = 8;

fn check_below(root: &Path, folder: &Path, depth: usize) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        // A file of another process may be gone by now; then it is none of ours.
        let Ok(own) = path.symlink_metadata() else { continue };
        let refuse = |why: &str| Err(Error::Usage(format!("{} {why}; remove it", path.display())));
        if own.is_symlink() && !matches!(leads_below(root, &path), Ok(true)) {
            return refuse("is a link that leads out of the folder");
        }
        match std::fs::metadata(&path) {
            // A folder behind a link stands below `root`, where it is met anyhow.
            Ok(m) if m.is_dir() && !own.is_symlink() && depth < DEEPEST => {
                check_below(root, &path, depth + 1)?
            }
            Ok(m) if !m.is_dir() && !m.is_file() => return refuse("is neither a file nor a folder"),
            _ => {}
        }
    }
    Ok(())
}
