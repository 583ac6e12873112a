//! The run folder: who may write it, and what stands in it.
//!
//! `config.toml` (resolved), `metrics.jsonl`, `step-N/` (snapshots), `summary.json`, `report.html`, `lock`.

use crate::error::{Error, Result};
use std::ffi::OsStr;
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
        folder.sweep()?;
        Ok(folder)
    }

    /// Errors where the folder holds anything but what a run leaves that was killed before it began.
    pub(super) fn expect_empty(path: &Path) -> Result<()> {
        let locked = path.join("lock").is_file();
        let mut names =
            std::fs::read_dir(path).map_err(|e| Error::io(path, e))?.flatten().map(|e| e.file_name());
        let ours = |name: &OsStr| name == "lock" || (locked && is_unfinished(name));
        let Some(held) = names.find(|name| !ours(name)) else { return Ok(()) };
        let held = held.to_string_lossy();
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
        let folder = Folder::lock(path)?;
        folder.sweep()?;
        Ok(folder)
    }

    /// Removes what writers left that were killed: the lock is held, so none is alive.
    fn sweep(&self) -> Result<()> {
        for e in std::fs::read_dir(&self.path).map_err(|e| Error::io(&self.path, e))?.flatten() {
            if is_unfinished(&e.file_name()) {
                std::fs::remove_file(e.path()).map_err(|err| Error::io(e.path(), err))?;
            }
        }
        Ok(())
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

/// True for the names under which [`write_whole`] begins the files of a run.
fn is_unfinished(name: &OsStr) -> bool {
    const FILES: [&str; 4] = ["config", "summary", "report", "trace"];
    let parts: Vec<&str> = name.to_str().unwrap_or_default().split('.').collect();
    matches!(parts[..], [file, process, "tmp"] if FILES.contains(&file) && process.parse::<u32>().is_ok())
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

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn a_run_that_was_killed_while_it_began_can_begin_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(dir).unwrap();
            let mut names: Vec<String> =
                entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        // Without a lock it is no run's.
        std::fs::write(dir.join("config.123.tmp"), "se").unwrap();
        assert!(Folder::create(dir).is_err());
        assert_eq!(names(), ["config.123.tmp"]);
        std::fs::write(dir.join("lock"), "").unwrap();
        drop(Folder::create(dir).unwrap());
        assert_eq!(names(), ["lock"]);
        // One that is somebody's keeps both.
        for other in ["config.me.tmp", "notes.123.tmp", "config.123.tmp.old", "config.toml"] {
            std::fs::write(dir.join(other), "").unwrap();
            std::fs::write(dir.join("config.4.tmp"), "").unwrap();
            assert!(Folder::create(dir).is_err(), "{other}");
            assert_eq!(names().len(), 3, "{other}");
            std::fs::remove_file(dir.join(other)).unwrap();
        }
        std::fs::write(dir.join("config.toml"), Config::default().to_toml()).unwrap();
        drop(Folder::resume(dir).unwrap());
        assert_eq!(names(), ["config.toml", "lock"]);
    }
}
