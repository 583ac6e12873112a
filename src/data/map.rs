//! Bytes of a file: mapped, read, or copied into sealed memory. The one file of this module with `unsafe`.
//!
//! A mapped file is memory that somebody else can take away. When it is truncated, the next touch of a lost
//! page raises SIGBUS, whose default is to kill the process without a word. Ringtape therefore maps only
//! files of its own writer (renamed into place, read-only) and keeps a table of mapped ranges: a fault inside one of
//! them prints the file's name and exits with code 4. At each epoch it looks at length and time again, and where
//! only the time of the last change of any kind moved, which no program can set back, at the checksums. `sealed` is
//! immune to all of that, `read` to the fault.
#![allow(unsafe_code, reason = "mapping a file and handling SIGBUS are system calls without a safe form")]

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// How data are read: the key `data.map` of a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Mapped: the page cache is the buffer, nothing is copied.
    #[default]
    Mmap,
    /// Read when asked for: for network disks, and for files that may change under the run.
    Read,
    /// Copied once into memory that nobody can change or shrink (Linux): immune to whatever happens to the file.
    Sealed,
}

impl std::str::FromStr for Access {
    type Err = Error;
    fn from_str(s: &str) -> Result<Access> {
        match s {
            "mmap" => Ok(Access::Mmap),
            "read" => Ok(Access::Read),
            "sealed" => Ok(Access::Sealed),
            _ => Err(Error::config("data.map", format!("is `{s}`, but must be mmap, read or sealed"))),
        }
    }
}

/// Length, time and place of a file: what changes when somebody changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    len: u64,
    modified: (i64, i64),
    inode: (u64, u64),
}

impl Stamp {
    /// The stamp, and beside it the time of the last change of any kind: contents, but also name or permissions.
    fn of(path: &Path, file: &File) -> Result<(Stamp, (i64, i64))> {
        let m = file.metadata().map_err(|e| Error::io(path, e))?;
        let stamp = Stamp { len: m.len(), modified: (m.mtime(), m.mtime_nsec()), inode: (m.dev(), m.ino()) };
        Ok((stamp, (m.ctime(), m.ctime_nsec())))
    }
}

enum Store {
    Map { map: Mmap, _watch: Watch },
    Sealed(Mmap),
    Read,
}

/// An open file whose bytes can be asked for by range.
pub(crate) struct Bytes {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    touched: Mutex<(i64, i64)>,
    store: Store,
}

impl Bytes {
    /// Takes over an open regular file.
    pub(crate) fn new(path: &Path, file: File, access: Access) -> Result<Bytes> {
        let (stamp, touched) = Stamp::of(path, &file)?;
        let store = match access {
            Access::Read => Store::Read,
            Access::Sealed => Store::Sealed(seal(path, &file, stamp.len)?),
            // ANCHOR: map
            Access::Mmap => {
                // SAFETY: the map is read-only and lives in the same struct as its file. What the type system
                // cannot see is another process writing to the file: the file is read-only and made by
                // rename, its bytes are plain data that no invariant hangs on (checked again where they index
                // anything), and a truncation ends in the handler below.
                let map = unsafe { Mmap::map(&file) }.map_err(|e| match e.kind() {
                    std::io::ErrorKind::OutOfMemory => {
                        let what = format!("the map of {} (--set data.map=read needs none)", path.display());
                        Error::OutOfMemory { bytes: usize::try_from(stamp.len).unwrap_or(usize::MAX), what }
                    }
                    _ => Error::io(path, e),
                })?;
                let _watch = Watch::new(path, &map)?;
                Store::Map { map, _watch }
            } // ANCHOR_END: map
        };
        Ok(Bytes { path: path.into(), file, stamp, touched: Mutex::new(touched), store })
    }

    pub(crate) fn len(&self) -> u64 {
        self.stamp.len
    }

    /// The `len` bytes from `at`: a view where they are in memory, else read into `scratch`.
    pub(crate) fn get<'a>(&'a self, at: u64, len: usize, scratch: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let end = at.checked_add(len as u64).filter(|&end| end <= self.stamp.len);
        let Some(end) = end else {
            let what = format!("{len} bytes wanted here, but the file has {} in all", self.stamp.len);
            return Err(Error::data(&self.path, Some(at), what));
        };
        // ANCHOR: get
        match &self.store {
            Store::Map { map, .. } | Store::Sealed(map) => Ok(&map[at as usize..end as usize]),
            // ANCHOR_END: get
            Store::Read => {
                scratch.clear();
                scratch.try_reserve_exact(len).map_err(|_| Error::OutOfMemory {
                    bytes: len,
                    what: format!("a piece of {}", self.path.display()),
                })?;
                scratch.resize(len, 0);
                self.file.read_exact_at(scratch, at).map_err(|e| match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => Error::data(
                        &self.path,
                        Some(at),
                        "the file was truncated while it was read; copy it anew",
                    ),
                    _ => Error::io(&self.path, e),
                })?;
                Ok(scratch)
            }
        }
    }

    /// Errors when the open file was changed since it was opened. A file renamed over it does no harm and is
    /// not seen. True when something happened to it since the last call that may have left the contents alone (another
    /// name, other permissions) or may have put the time back afterwards: whoever asks looks at the contents then.
    pub(crate) fn still_intact(&self) -> Result<bool> {
        if matches!(self.store, Store::Sealed(_)) {
            return Ok(false);
        }
        let (now, touched) = Stamp::of(&self.path, &self.file)?;
        if now == self.stamp {
            // A poisoned lock guards a plain value, whole at any moment.
            let mut last = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(std::mem::replace(&mut *last, touched) != touched);
        }
        let what = format!(
            "the file changed while it was in use ({} bytes, was {}); replace a packed set by renaming a new file \
             over it, never rewritten in place (--set data.map=sealed is immune)",
            now.len, self.stamp.len
        );
        Err(Error::data(&self.path, None, what))
    }
}

/// Copies the file into a memfd that can neither be written nor shrunk, so that mapping it is safe.
#[cfg(target_os = "linux")]
fn seal(path: &Path, file: &File, len: u64) -> Result<Mmap> {
    let io = |e| Error::io(path, e);
    // SAFETY: the name is a NUL-terminated literal; the result is checked below.
    let fd = unsafe { libc::memfd_create(c"ringtape".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io(std::io::Error::last_os_error()));
    }
    // SAFETY: `fd` was just opened and nobody else owns it.
    let mut memory = unsafe { File::from_raw_fd(fd) };
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let n = piece.len().min((len - at) as usize);
        file.read_exact_at(&mut piece[..n], at).map_err(io)?;
        memory.write_all(&piece[..n]).map_err(io)?;
        at += n as u64;
    }
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an int and changes only the memfd that we own.
    if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) } != 0 {
        return Err(io(std::io::Error::last_os_error()));
    }
    Mmap::map_if_safe(&memory).map_err(|e| io(e.into()))
}

#[cfg(not(target_os = "linux"))]
fn seal(path: &Path, _: &File, _: u64) -> Result<Mmap> {
    Err(Error::Usage(format!("{}: data.map=sealed needs Linux; use read", path.display())))
}

const WATCHED: usize = 64;
const NAME: usize = 512;

/// A mapped range and the file it shows, readable from a signal handler: atomics only, no lock, no
/// allocation.
struct Slot {
    /// 0 = free, 1 = being filled, else first address.
    start: AtomicUsize,
    end: AtomicUsize,
    name_len: AtomicUsize,
    name: [AtomicU8; NAME],
}

static SLOTS: [Slot; WATCHED] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        name_len: AtomicUsize::new(0),
        name: [const { AtomicU8::new(0) }; NAME],
    }
}; WATCHED];

/// What SIGBUS did before us.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Keeps a mapped range in the table for as long as it lives.
struct Watch(&'static Slot);

impl Watch {
    fn new(path: &Path, map: &Mmap) -> Result<Watch> {
        install();
        let free = SLOTS
            .iter()
            .find(|s| s.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok());
        let Some(slot) = free else {
            let what = format!("{WATCHED} files are mapped already; open this one with --set data.map=read");
            return Err(Error::data(path, None, what));
        };
        let name = path.as_os_str().as_bytes();
        let n = name.len().min(NAME);
        for (to, &from) in slot.name.iter().zip(&name[..n]) {
            to.store(from, Ordering::Relaxed);
        }
        slot.name_len.store(n, Ordering::Relaxed);
        let start = map.as_ptr() as usize;
        slot.end.store(start + map.len(), Ordering::Relaxed);
        slot.start.store(start, Ordering::Release);
        Ok(Watch(slot))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Relaxed);
        self.0.start.store(0, Ordering::Release);
    }
}

fn install() {
    PREVIOUS.get_or_init(|| {
        // SAFETY: an all-zero sigaction is a valid value to be overwritten; `on_bus` has the signature that
        // SA_SIGINFO asks for and does only what a signal handler may; the pointers live through the calls.
        unsafe {
            let mut previous: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut previous);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
            previous
        }
    });
}

extern "C" fn on_bus(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo, and for SIGBUS its address field is set.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &SLOTS {
        let start = slot.start.load(Ordering::Acquire);
        if start > 1 && (start..slot.end.load(Ordering::Relaxed)).contains(&address) {
            let mut text = [0; NAME + 128];
            let mut n = 0;
            let name = slot
                .name
                .iter()
                .take(slot.name_len.load(Ordering::Relaxed))
                .map(|b| b.load(Ordering::Relaxed));
            let tail = b": truncated while mapped; copy the file anew (--set data.map=sealed is immune)\n";
            for byte in name.chain(tail.iter().copied()).take(text.len()) {
                text[n] = byte;
                n += 1;
            }
            // SAFETY: write(2) and _exit(2) are safe in a signal handler; `text` holds `n` bytes. Nothing is
            // unwound or flushed: other threads are in unknown states.
            unsafe {
                libc::write(2, text.as_ptr().cast(), n);
                libc::_exit(4);
            }
        }
    }
    // Not ours: back to what was there before; the faulting instruction runs again and meets it.
    // SAFETY: `previous` came from sigaction; a null pointer for the old action is allowed.
    unsafe {
        match PREVIOUS.get() {
            Some(previous) => libc::sigaction(libc::SIGBUS, previous, std::ptr::null_mut()),
            None => libc::signal(libc::SIGBUS, libc::SIG_DFL) as libc::c_int,
        };
    }
}
