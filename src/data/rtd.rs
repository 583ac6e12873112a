//! An open packed dataset.

use crate::data::header::{BLOCK, Field, Header, PREAMBLE, Preamble, Split};
use crate::data::map::{Access, Bytes};
use crate::data::path::open_regular;
use crate::data::readers::zeros;
use crate::data::write::identity;
use crate::error::{Error, Result};
use crate::shape::DType;
use sha2::{Digest, Sha256};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A packed dataset (`*.rtd`), open for reading from any thread.
///
/// Opening checks sizes, preamble and header, so its cost does not grow with the set. A block of samples is
/// checked against its CRC32C when it is first touched: damage anywhere is an error before a value of that
/// block is given out.
pub struct Rtd {
    path: PathBuf,
    bytes: Bytes,
    header: Header,
    /// One bit a block: found right.
    seen: Vec<AtomicU64>,
}

impl Rtd {
    /// Opens `path`.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Rtd> {
        let path = path.as_ref();
        let (file, len) = open_regular(path)?;
        if len < PREAMBLE {
            let what = format!("{len} bytes are too few for a packed dataset; make one with `data pack`");
            return Err(Error::data(path, Some(len), what));
        }
        let io = |e| Error::io(path, e);
        let mut first = [0; PREAMBLE as usize];
        file.read_exact_at(&mut first, 0).map_err(io)?;
        let preamble = Preamble::decode(path, &first, len)?;
        // The length is known to be inside the file, so this takes no more memory than the file has bytes.
        let mut bytes = zeros(path, preamble.header_len as usize)?;
        file.read_exact_at(&mut bytes, preamble.header_at).map_err(io)?;
        let header = preamble.header(path, &bytes)?;
        drop(bytes);
        let bytes = Bytes::new(path, file, access)?;
        if bytes.len() != len {
            return Err(Error::data(path, Some(len), "the file changed while it was opened; try again"));
        }
        let seen = (0..header.blocks.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Rtd { path: path.into(), bytes, header, seen })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Bytes of the file.
    pub fn file_len(&self) -> u64 {
        self.bytes.len()
    }
    /// Everything but the samples.
    pub fn header(&self) -> &Header {
        &self.header
    }
    /// Identity of the set: SHA-256 of its contents, as the header states it.
    pub fn hash(&self) -> [u8; 32] {
        self.header.hash
    }
    /// The field `name`.
    pub fn field(&self, name: &str) -> Result<&Field> {
        self.header.fields.iter().find(|f| f.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.header.fields.iter().map(|f| f.name.as_str()).collect();
            Error::data(&self.path, None, format!("no field `{name}`; it has {}", known.join(", ")))
        })
    }
    /// The field that says which samples have a value of the field `name`, where there is one: `NAME_present`, one integer a sample,
    /// 1, or 0 for a sample that lacks it.
    pub fn presence(&self, name: &str) -> Result<Option<&Field>> {
        let Some(found) = self.header.fields.iter().find(|f| f.is_presence_of(name)) else { return Ok(None) };
        if found.batch_dtype() == DType::I32 && found.bound == 2 && found.shape.is_empty() {
            return Ok(Some(found));
        }
        let what =
            format!("`{}` must be an integer below 2 for each sample: 1 where it has `{name}`", found.name);
        Err(Error::data(&self.path, None, what))
    }
    /// The range of samples that `name` stands for; `all` is always known.
    pub fn split(&self, name: &str) -> Result<Split> {
        if let Some(s) = self.header.splits.iter().find(|s| s.name == name) {
            return Ok(s.clone());
        }
        if name == "all" {
            return Ok(Split { name: "all".into(), start: 0, count: self.header.count() });
        }
        let known: Vec<&str> = self.header.splits.iter().map(|s| s.name.as_str()).collect();
        Err(Error::data(&self.path, None, format!("no split `{name}`; it has {}, all", known.join(", "))))
    }
    /// The split to measure on while training: `val` where there is one, else `test`.
    pub fn held_out(&self) -> Result<Split> {
        self.split("val").or_else(|_| self.split("test"))
    }

    /// Samples `first..first + n` of `field` as stored (little-endian), checked. A view of the map, or read
    /// into `scratch`.
    pub fn samples<'a>(
        &'a self,
        field: &Field,
        first: u64,
        n: u64,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        if first.checked_add(n).is_none_or(|end| end > field.count) {
            let what = format!("samples {first}+{n} of `{}` asked for, it has {}", field.name, field.count);
            return Err(Error::data(&self.path, None, what));
        }
        let (at, len) = (field.offset + first * field.stride(), n * field.stride());
        self.check_blocks(at, len, scratch)?;
        self.bytes.get(at, len as usize, scratch)
    }

    // ANCHOR: check
    /// Checks the blocks that `at..at + len` lies in, those that were not touched before.
    fn check_blocks(&self, at: u64, len: u64, scratch: &mut Vec<u8>) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        for block in (at - PREAMBLE) / BLOCK..=(at + len - 1 - PREAMBLE) / BLOCK {
            let (word, bit) = (&self.seen[(block / 64) as usize], 1 << (block % 64));
            // Relaxed: two threads may check one block, which costs time and nothing else.
            if word.load(Ordering::Relaxed) & bit == 0 {
                self.check_block(block, scratch, |_| ())?;
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(())
    }
    // ANCHOR_END: check

    fn check_block(&self, block: u64, scratch: &mut Vec<u8>, with: impl FnOnce(&[u8])) -> Result<()> {
        let at = PREAMBLE + block * BLOCK;
        let end = self.header.fields.last().map_or(PREAMBLE, |f| f.offset + f.bytes());
        let bytes = self.bytes.get(at, BLOCK.min(end - at) as usize, scratch)?;
        if crc32c::crc32c(bytes) != self.header.blocks[block as usize] {
            let what = format!(
                "the block of {} bytes from here is damaged (checksum differs); copy or pack the set anew",
                bytes.len()
            );
            return Err(Error::data(&self.path, Some(at), what));
        }
        with(bytes);
        Ok(())
    }

    /// Errors when the file changed since it was opened; the loader asks at each epoch. Where its length and time
    /// are the same but something happened to it, each block is checked again when it is touched next.
    pub fn still_intact(&self) -> Result<()> {
        if self.bytes.still_intact()? {
            self.seen.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        Ok(())
    }

    /// Reads everything: each block against its checksum, the whole against the set's identity.
    pub fn verify(&self) -> Result<()> {
        self.still_intact()?;
        let (mut sha, mut scratch) = (Sha256::new(), vec![]);
        for block in 0..self.header.blocks.len() as u64 {
            self.check_block(block, &mut scratch, |bytes| sha.update(bytes))?;
        }
        if identity(sha, &self.header)? != self.header.hash {
            return Err(Error::data(
                &self.path,
                None,
                "contents and identity (SHA-256) differ; pack the set anew",
            ));
        }
        self.still_intact()
    }
}

impl std::fmt::Debug for Rtd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rtd({}, {} samples)", self.path.display(), self.header.count())
    }
}
