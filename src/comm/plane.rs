//! Which way data take, as rank 0 tells the others: sockets, or a file of shared memory.

use super::link::refused;
use super::rendezvous::Way;
use super::secret::random;
use super::segment;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where files are memory.
const MEMORY: &str = "/dev/shm";

const PREFIX: &str = "ringtape-";
/// A meeting takes less.
const OLD: Duration = Duration::from_secs(120);

/// Removes what meetings left behind whose rank 0 was killed between making the file and taking its name away: its lock is
/// gone with it.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let old = || entry.metadata().ok()?.modified().ok()?.elapsed().ok().filter(|age| *age > OLD);
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && old().is_some() {
            let abandoned = File::open(entry.path()).is_ok_and(|f| f.try_lock().is_ok());
            if abandoned {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// The way, with what a rank needs to take it.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) enum Plane {
    Tcp,
    /// Whether sums are MPI's own.
    Mpi(bool),
    /// The file lives under this name only until all ranks have opened it: a crash leaves nothing behind.
    Shm {
        path: PathBuf,
    },
}

/// The open file.
pub(super) struct Shared(pub(super) File);

impl Plane {
    /// Rank 0 opens the way for `world` ranks.
    pub(super) fn open(way: Way, world: usize) -> Result<(Plane, Option<Shared>)> {
        match way {
            Way::Mpi | Way::MpiSums => return Ok((Plane::Mpi(way == Way::MpiSums), None)),
            Way::Shm if world > 1 => {}
            _ => return Ok((Plane::Tcp, None)),
        }
        let name: String = random::<16>()?.iter().map(|b| format!("{b:02x}")).collect();
        let folder = PathBuf::from(MEMORY);
        let folder = if folder.is_dir() { folder } else { std::env::temp_dir() };
        sweep(&folder);
        let path = folder.join(format!("{PREFIX}{name}"));
        // Nobody else's file, and for nobody else to open.
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(|e| Error::io(&path, e))?;
        let locked = file.lock().map_err(|e| Error::io(&path, e));
        if let Err(e) = locked.and_then(|()| segment::reserve(&file, segment::bytes(world))) {
            let _ = std::fs::remove_file(&path);
            return Err(e);
        }
        Ok((Plane::Shm { path }, Some(Shared(file))))
    }

    /// Another rank does.
    pub(super) fn join(&self, world: usize) -> Result<Option<Shared>> {
        let Plane::Shm { path } = self else { return Ok(None) };
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(|e| {
            refused(format!(
                "{}: {e} (ranks that share no memory need RINGTAPE_TRANSPORT=tcp)",
                path.display()
            ))
        })?;
        match file.metadata() {
            Ok(m) if m.len() >= segment::bytes(world) as u64 => Ok(Some(Shared(file))),
            _ => Err(refused(format!("{} is not this job's shared memory", path.display()))),
        }
    }

    /// Takes the name away, once all have the file open.
    pub(super) fn unlink(&self) {
        if let Plane::Shm { path } = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_meeting_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let old = std::time::SystemTime::now() - 2 * OLD;
        let make = |name: &str| {
            let file = File::create(at(name)).unwrap();
            file.set_modified(old).unwrap();
            file
        };
        drop(make("ringtape-dead"));
        let alive = make("ringtape-alive");
        alive.lock().unwrap();
        drop(make("other"));
        File::create(at("ringtape-young")).unwrap();
        sweep(dir.path());
        let left = ["ringtape-dead", "ringtape-alive", "other", "ringtape-young"].map(|n| at(n).exists());
        assert_eq!(left, [false, true, true, true]);
    }
}
