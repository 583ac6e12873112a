//! Zip archives, as far as `.npz` and `.whl` need them: stored and deflated entries, sizes from the central
//! directory.

use super::{DEFLATE_MOST, damaged};
use crate::error::{Error, Result};
use std::io::Read;
use std::path::Path;

const END: [u8; 4] = *b"PK\x05\x06";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";

/// Every file of the archive, by name; folders are left out. Names that lead elsewhere (`..`, absolute) are
/// refused.
pub fn read_zip(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let bad = |at: usize, what: &str| Error::data(path, Some(at as u64), what);
    let lost =
        || bad(bytes.len(), "not a zip archive, or cut short (its directory is missing); fetch it anew");
    // The end record is 22 bytes and a comment of at most 65,535.
    let from = bytes.len().saturating_sub(22 + 65_535);
    let end = bytes[from..].windows(4).rposition(|w| w == END).ok_or_else(lost)? + from;
    // The comment, whose length ends the record, reaches the end of the file.
    if u16_at(bytes, end + 20).map(|n| end + 22 + n) != Some(bytes.len()) {
        return Err(lost());
    }
    let (count, mut at) =
        (u16_at(bytes, end + 10).ok_or_else(lost)?, u32_at(bytes, end + 16).ok_or_else(lost)?);
    if at == u32::MAX as usize || count == 0xffff {
        return Err(bad(end, "a zip64 archive; unpack it, or save the arrays one by one with numpy.save"));
    }
    let (mut entries, mut left) = (vec![], bytes.len() as u64 * DEFLATE_MOST);
    for _ in 0..count {
        let cut = || bad(at, "the zip directory is damaged; fetch the archive anew");
        let e = bytes.get(at..).filter(|e| e.len() >= 46 && e[..4] == CENTRAL).ok_or_else(cut)?;
        let field = |i| u16_at(e, i).unwrap_or(0);
        let (name_len, more) = (field(28), field(30) + field(32));
        let name = e.get(46..46 + name_len).and_then(|n| std::str::from_utf8(n).ok()).ok_or_else(cut)?;
        let entry = Entry {
            method: field(10),
            crc: u32_at(e, 16).unwrap_or(0) as u32,
            packed: u32_at(e, 20).unwrap_or(0),
            size: u32_at(e, 24).unwrap_or(0),
            local: u32_at(e, 42).unwrap_or(0),
        };
        if field(8) & 1 != 0 {
            return Err(bad(at, "the archive is encrypted; unpack it first"));
        }
        if !name.ends_with('/') {
            if Path::new(name).components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
                return Err(bad(at, &format!("entry {name:?} leads out of the archive")));
            }
            // All entries together: overlapping entries cannot expand one piece of data many times.
            left = left.checked_sub(entry.size as u64).ok_or_else(cut)?;
            entries.push((name.to_string(), entry.extract(path, bytes)?));
        }
        at += 46 + name_len + more;
    }
    Ok(entries)
}

struct Entry {
    method: usize,
    crc: u32,
    packed: usize,
    size: usize,
    local: usize,
}

impl Entry {
    fn extract(&self, path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
        let bad = |what: &str| Error::data(path, Some(self.local as u64), what);
        let cut = || bad("the zip entry is damaged or cut short; fetch the archive anew");
        let head = bytes.get(self.local..).filter(|h| h.len() >= 30 && h[..4] == LOCAL).ok_or_else(cut)?;
        let start = 30 + u16_at(head, 26).ok_or_else(cut)? + u16_at(head, 28).ok_or_else(cut)?;
        let packed = head.get(start..).and_then(|b| b.get(..self.packed)).ok_or_else(cut)?;
        if self.size as u64 > self.packed as u64 * DEFLATE_MOST {
            return Err(bad("the zip entry claims more than its bytes can hold; fetch the archive anew"));
        }
        let mut out = vec![];
        match self.method {
            0 => out.extend_from_slice(packed),
            8 => {
                let mut inflate = flate2::bufread::DeflateDecoder::new(packed).take(self.size as u64 + 1);
                inflate.read_to_end(&mut out).map_err(|e| damaged(path, &e))?;
            }
            m => return Err(bad(&format!("zip method {m}; stored and deflate are read"))),
        }
        let mut crc = flate2::Crc::new();
        crc.update(&out);
        if out.len() != self.size || crc.sum() != self.crc {
            return Err(cut());
        }
        Ok(out)
    }
}

fn u16_at(b: &[u8], i: usize) -> Option<usize> {
    Some(u16::from_le_bytes(b.get(i..)?.get(..2)?.try_into().ok()?) as usize)
}
fn u32_at(b: &[u8], i: usize) -> Option<usize> {
    Some(u32::from_le_bytes(b.get(i..)?.get(..4)?.try_into().ok()?) as usize)
}
