//! Writing a packed dataset: one pass, any size, never half a file under the final name.

use crate::data::front_end::FrontEnd;
use crate::data::header::{ALIGN, About, BLOCK, Field, HEADER_LIMIT, Header, PREAMBLE, Preamble, Split};
use crate::data::path::open_regular;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file being written beside its final name; it takes the name in [`TempFile::commit`], or is removed when
/// dropped.
pub(crate) struct TempFile {
    temp: PathBuf,
    target: PathBuf,
    done: bool,
}

impl TempFile {
    /// The name is this process's alone, so that two processes that write the same target never share a file. The file
    /// is locked for as long as its writer lives: one that can be locked is litter of a killed process, and is removed.
    pub(crate) fn create(target: &Path) -> Result<(TempFile, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name();
        let name = name.ok_or_else(|| Error::Usage(format!("{} names no file", target.display())))?;
        let prefix = format!(".{}.", name.to_string_lossy());
        sweep(folder_of(target), &prefix);
        loop {
            let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let temp = target.with_file_name(format!("{prefix}{pid}.{n}.tmp"));
            let file = match OpenOptions::new().read(true).write(true).create_new(true).open(&temp) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                file => file.map_err(|e| Error::io(&temp, e))?,
            };
            // A sweeper may have taken it between creation and lock; then the next name is tried.
            let ours = !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && temp.exists();
            if ours {
                return Ok((TempFile { temp, target: target.into(), done: false }, file));
            }
            let _ = std::fs::remove_file(&temp);
        }
    }

    /// File to disk, read-only, then the name, then the folder: after a power cut there is the old file or
    /// the new one. Read-only because a reader maps it: whoever wants another set writes another file and
    /// renames.
    pub(crate) fn commit(mut self, file: &File) -> Result<PathBuf> {
        let at = |e| Error::io(&self.temp, e);
        file.set_permissions(std::fs::Permissions::from_mode(0o444)).map_err(at)?;
        file.sync_all().map_err(at)?;
        std::fs::rename(&self.temp, &self.target).map_err(at)?;
        self.done = true;
        let folder = folder_of(&self.target);
        File::open(folder).and_then(|d| d.sync_all()).map_err(|e| Error::io(folder, e))?;
        Ok(self.target.clone())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.temp);
        }
    }
}

fn folder_of(target: &Path) -> &Path {
    target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes what killed processes left of a file in the making. On file systems without locks nothing is removed.
fn sweep(folder: &Path, prefix: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.starts_with(prefix) && name.ends_with(".tmp");
        if ours
            && let Ok((file, _)) = open_regular(&entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Writes one packed dataset. Fields are written one after the other, each in pieces of any size.
///
/// ```no_run
/// # use ringtape::data::{About, Field, Writer};
/// # use ringtape::shape::DType;
/// let mut w = Writer::create("pairs.rtd", About { name: "pairs".into(), ..About::default() })?;
/// w.field(Field::samples("x", DType::F32, &[2]))?;
/// w.write(&1.5f32.to_le_bytes())?; // as often as there is data: a set larger than memory is no trouble
/// w.write(&2.5f32.to_le_bytes())?;
/// w.split("train", 0, 1);
/// w.finish()?;
/// # Ok::<(), ringtape::error::Error>(())
/// ```
pub struct Writer {
    temp: TempFile,
    out: BufWriter<File>,
    header: Header,
    /// Bytes of payload so far.
    payload: u64,
    block_crc: u32,
    sha: Sha256,
}

impl Writer {
    /// Begins a set that will take the name `path`; until [`Writer::finish`] nothing is there under it.
    pub fn create(path: impl AsRef<Path>, about: About) -> Result<Writer> {
        let (temp, file) = TempFile::create(path.as_ref())?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        out.write_all(&[0; PREAMBLE as usize]).map_err(|e| Error::io(&temp.temp, e))?;
        let (fields, splits, blocks, front_ends) = (vec![], vec![], vec![], vec![]);
        let header = Header { about, fields, splits, blocks, hash: [0; 32], front_ends };
        Ok(Writer { temp, out, header, payload: 0, block_crc: 0, sha: Sha256::new() })
    }

    /// Provenance and meaning, which may change until [`Writer::finish`].
    pub fn about(&mut self) -> &mut About {
        &mut self.header.about
    }

    /// Begins the next field; what follows through [`Writer::write`] belongs to it. Its count and offset are
    /// filled in.
    pub fn field(&mut self, field: Field) -> Result<()> {
        self.end_field()?;
        let gap = (PREAMBLE + self.payload).next_multiple_of(ALIGN) - (PREAMBLE + self.payload);
        self.write(&[0; ALIGN as usize][..gap as usize])?;
        self.header.fields.push(Field { count: 0, offset: PREAMBLE + self.payload, ..field });
        Ok(())
    }

    /// Says how a user's own file or text becomes values of the current field.
    pub fn front_end(&mut self, front_end: FrontEnd) {
        if let Some(field) = self.header.fields.last() {
            self.header.front_ends.push((field.name.clone(), front_end));
        }
    }

    /// Appends little-endian elements to the current field.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = (BLOCK - self.payload % BLOCK).min(bytes.len() as u64) as usize;
            let (now, later) = bytes.split_at(room);
            self.out.write_all(now).map_err(|e| Error::io(&self.temp.temp, e))?;
            self.sha.update(now);
            self.block_crc = crc32c::crc32c_append(self.block_crc, now);
            self.payload += room as u64;
            if self.payload.is_multiple_of(BLOCK) {
                self.header.blocks.push(std::mem::take(&mut self.block_crc));
            }
            bytes = later;
        }
        Ok(())
    }

    /// A file without a name on the disk that the set goes to, for what is too large for memory; it is gone once closed.
    pub(crate) fn scratch(&self) -> Result<File> {
        TempFile::create(&self.temp.target).map(|(_, file)| file)
    }

    /// The name that the set will take.
    pub(crate) fn target(&self) -> &Path {
        &self.temp.target
    }

    /// Names a range of samples.
    pub fn split(&mut self, name: &str, start: u64, count: u64) {
        self.header.splits.push(Split { name: name.into(), start, count });
    }

    /// Samples of the current field so far.
    pub fn count(&self) -> u64 {
        let Some(f) = self.header.fields.last() else { return 0 };
        (PREAMBLE + self.payload - f.offset).checked_div(f.stride()).unwrap_or(0)
    }

    fn end_field(&mut self) -> Result<()> {
        let count = self.count();
        let end = PREAMBLE + self.payload;
        let Some(f) = self.header.fields.last_mut() else { return Ok(()) };
        f.count = count;
        if f.offset + f.bytes() != end {
            let what = format!("field `{}` ends in the middle of a sample of {} bytes", f.name, f.stride());
            return Err(Error::data(&self.temp.target, Some(end), what));
        }
        Ok(())
    }

    /// Writes header and preamble, and gives the file its name. Returns the path.
    pub fn finish(mut self) -> Result<PathBuf> {
        self.end_field()?;
        if !self.payload.is_multiple_of(BLOCK) {
            self.header.blocks.push(self.block_crc);
        }
        self.header.check(&self.temp.target, self.payload)?;
        self.header.hash = identity(self.sha, &self.header)?;
        let bytes = self.header.encode()?;
        if bytes.len() as u64 > HEADER_LIMIT {
            let what = format!("a header of {} bytes, at most {HEADER_LIMIT} are supported", bytes.len());
            return Err(Error::data(&self.temp.target, None, what));
        }
        let preamble = Preamble {
            version: self.header.version(),
            header_at: PREAMBLE + self.payload,
            header_len: bytes.len() as u64,
            header_crc: crc32c::crc32c(&bytes),
        };
        let at = |e| Error::io(&self.temp.temp, e);
        self.out.write_all(&bytes).map_err(at)?;
        let mut file = self.out.into_inner().map_err(|e| at(e.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(at)?;
        file.write_all_at(&preamble.encode(), 0).map_err(at)?;
        self.temp.commit(&file)
    }
}

/// The identity of a set, from the hash state after its payload.
pub(crate) fn identity(mut payload: Sha256, header: &Header) -> Result<[u8; 32]> {
    payload.update(Header { hash: [0; 32], ..header.clone() }.encode()?);
    Ok(payload.finalize().into())
}
