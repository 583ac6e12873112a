//! Which paths are opened at all: regular files, and for paths found inside files, only below a given root.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

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

/// The file that `name`, written inside some other file, means below `root`. Refused (as usage, exit code 2):
/// absolute names, `..`, NUL, links that lead out of `root`, and anything that is not a regular file. Nothing
/// outside is opened.
pub fn safe_path(root: &Path, name: &str) -> Result<PathBuf> {
    let refuse = |why: &str| Err(Error::Usage(format!("path {name:?} in {}: {why}", root.display())));
    if name.is_empty() || name.contains('\0') {
        return refuse("is empty or holds a NUL byte");
    }
    let named = Path::new(name);
    if !named.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return refuse("must stay inside that folder (no `..`, not absolute)");
    }
    let io = |path: &Path, e| Error::io(path, e);
    let root_real = root.canonicalize().map_err(|e| io(root, e))?;
    let joined = root_real.join(named);
    // Links are followed by name alone, without opening anything.
    let real = joined.canonicalize().map_err(|e| io(&joined, e))?;
    if !real.starts_with(&root_real) {
        return refuse("is a link that leads out of that folder");
    }
    match check_regular_file(&real) {
        Err(Error::Data { what, .. }) => refuse(&what),
        other => other.map(|()| real),
    }
}
