//! The run folder: who may write it, and what stands in it.
//!
//! `config.toml` (resolved), `metrics.jsonl`, `step-N/` (snapshots), `summary.json`, `report.html`, `lock`.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Holds the folder's lock for as long as it lives; the system gives it up when the process dies, however it dies.
pub(super) struct Folder {
    path: PathBuf,
    _lock: Option<File>,
}

impl Folder {
    /// A new folder for a run. A folder that holds a run already, or anything else, is refused.
    pub(super) fn create(path: &Path) -> Result<Folder> {
        std::fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
        // A lock would be one file more in a folder of something else: looked at before, where there is none yet, and
        // after, since only then does nobody else come between looking and writing.
        if !path.join("lock").exists() {
            Folder::expect_empty(path)?;
        }
        let folder = Folder::lock(path)?;
        Folder::expect_empty(path)?;
        Ok(folder)
    }

    fn expect_empty(path: &Path) -> Result<()> {
        let mut entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?.flatten();
        let Some(e) = entries.find(|e| e.file_name() != "lock") else { return Ok(()) };
        let held = e.file_name().to_string_lossy().into_owned();
        let dir = path.display();
        let what = if path.join("config.toml").is_file() {
            format!(
                "{dir} is not empty, it holds a run: go on with `train --resume {dir}`, or choose another --out"
            )
        } else {
            format!("{dir} is not empty (it holds {held}): choose another --out")
        };
        Err(Error::Usage(what))
    }

    /// The folder of a run that another rank holds.
    pub(super) fn visit(path: &Path) -> Folder {
        Folder { path: path.into(), _lock: None }
    }

    /// Errors unless there is a run.
    pub(super) fn expect_run(path: &Path) -> Result<()> {
        if !path.join("config.toml").is_file() {
            let what = format!("{} is no run folder: it has no config.toml", path.display());
            return Err(Error::Usage(what));
        }
        crate::data::check_folder(path)
    }

    /// The folder of a run that exists.
    pub(super) fn resume(path: &Path) -> Result<Folder> {
        Folder::expect_run(path)?;
        Folder::lock(path)
    }

    fn lock(path: &Path) -> Result<Folder> {
        let file = path.join("lock");
        let mut options = OpenOptions::new();
        let lock =
            options.create(true).truncate(false).write(true).open(&file).map_err(|e| Error::io(&file, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.into(), _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => {
                let what = format!(
                    "{} is in use by another run; wait for it, or choose another --out",
                    path.display()
                );
                Err(Error::Usage(what))
            }
            Err(TryLockError::Error(e)) => Err(Error::io(&file, e)),
        }
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a whole file of the folder, or nothing.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        write_whole(&self.path.join(name), text.as_bytes())
    }
}

/// Writes a file so that readers see the old or the new one, never a part: temporary file, fsync, rename.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let tmp = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut f = File::create(&tmp)?;
        f.write_all(bytes)?;
        f.sync_all()?;
        std::fs::rename(&tmp, path)
    };
    write().map_err(|e| {
        // What was written of it helps nobody; the error that matters is the first.
        let _ = std::fs::remove_file(&tmp);
        Error::io(path, e)
    })
}
