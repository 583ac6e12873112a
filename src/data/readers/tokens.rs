//! Token shards: a bare stream of u16, as nanoGPT writes it, or one after the 256 × i32 header of llm.c
//! (magic 20240520; version 1 = u16, 2 = u32; number of tokens). Read in pieces, so a shard may be larger
//! than memory.

use crate::data::path::open_regular;
use crate::error::{Error, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: i32 = 20240520;
const HEADER: u64 = 1024;

/// An open token shard.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: File,
    start: u64,
    size: u64,
    count: u64,
}

/// Opens a token shard and compares what its header says with its length.
pub fn read_shard(path: &Path) -> Result<Shard> {
    let (file, len) = open_regular(path)?;
    let bad = |at: u64, what: String| Err(Error::data(path, Some(at), what));
    let mut head = [0; 12];
    let word = |b: &[u8; 12], k: usize| i32::from_le_bytes([b[k], b[k + 1], b[k + 2], b[k + 3]]);
    let headed = len >= 12 && {
        file.read_exact_at(&mut head, 0).map_err(|e| Error::io(path, e))?;
        word(&head, 0) == MAGIC
    };
    let shard = |start, size, count| Shard { path: path.into(), file, start, size, count };
    if !headed {
        return match len {
            0 => bad(0, "the token shard is empty".into()),
            n if n % 2 == 1 => bad(n, format!("{n} bytes are no whole number of 16-bit tokens")),
            n => Ok(shard(0, 2, n / 2)),
        };
    }
    let size = match word(&head, 4) {
        1 => 2,
        2 => 4,
        v => return bad(4, format!("token shard version {v}; 1 (u16) and 2 (u32) are read")),
    };
    let count = word(&head, 8);
    let have = len.saturating_sub(HEADER);
    if len < HEADER || count <= 0 || count as u64 * size != have {
        return bad(
            8,
            format!(
                "{count} tokens of {size} bytes claimed, but {have} bytes follow the header; fetch it anew"
            ),
        );
    }
    Ok(shard(HEADER, size, count as u64))
}

impl Shard {
    /// Number of tokens.
    pub fn count(&self) -> u64 {
        self.count
    }
    /// Bytes of a token, 2 or 4.
    pub fn token_bytes(&self) -> u64 {
        self.size
    }
    /// Calls `with` on piece after piece of the tokens.
    pub fn for_each(&self, mut with: impl FnMut(&[u32]) -> Result<()>) -> Result<()> {
        let (mut bytes, mut tokens) = (vec![0; 1 << 18], Vec::with_capacity(1 << 17));
        let (mut at, end) = (self.start, self.start + self.count * self.size);
        while at < end {
            let n = (bytes.len() as u64).min(end - at) as usize;
            self.file.read_exact_at(&mut bytes[..n], at).map_err(|e| Error::io(&self.path, e))?;
            tokens.clear();
            if self.size == 2 {
                tokens.extend(bytes[..n].as_chunks().0.iter().map(|&b| u16::from_le_bytes(b) as u32));
            } else {
                tokens.extend(bytes[..n].as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)));
            }
            with(&tokens)?;
            at += n as u64;
        }
        Ok(())
    }
}
