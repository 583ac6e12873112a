//! IDX, the format of MNIST: big-endian magic `0 0 type rank`, one u32 an axis, elements. Plain or gzip.

use super::{Array, DEFLATE_MOST, bytes_of, damaged, is_gzip};
use crate::error::{Error, Result};
use crate::shape::DType;
use std::io::Read;
use std::path::Path;

/// Reads the bytes of an IDX file of unsigned bytes.
pub fn read_idx(path: &Path, bytes: &[u8]) -> Result<Array> {
    if is_gzip(bytes) {
        let most = bytes.len() as u64 * DEFLATE_MOST;
        return read(path, flate2::bufread::GzDecoder::new(bytes), most, true);
    }
    read(path, bytes, bytes.len() as u64, false)
}

/// A gzip stream is expanded no further than its header says, so that a small file cannot fill the memory.
fn read(path: &Path, mut r: impl Read, most: u64, gz: bool) -> Result<Array> {
    let bad = |at, what: String| Err(Error::data(path, Some(at), what));
    let mut head = vec![];
    let mut read = |n: u64, into: &mut Vec<u8>| match r.by_ref().take(n).read_to_end(into) {
        Err(e) if gz => Err(damaged(path, &e)),
        Err(e) => Err(Error::io(path, e)),
        Ok(got) => Ok(got as u64),
    };
    if read(4, &mut head)? < 4 || head[0] != 0 || head[1] != 0 {
        return bad(0, "not an IDX file (it begins with 0 0, element type, rank)".into());
    }
    let rank = head[3] as u64;
    if head[2] != 0x08 || !(1..=6).contains(&rank) {
        let what = format!(
            "IDX type {:#04x} of rank {rank}; unsigned bytes (0x08) of rank 1 to 6 are read",
            head[2]
        );
        return bad(2, what);
    }
    if read(4 * rank, &mut head)? < 4 * rank {
        return bad(head.len() as u64, "the IDX header is cut short; fetch the file anew".into());
    }
    let dims = head[4..].as_chunks::<4>().0;
    let shape: Vec<usize> = dims.iter().map(|&d| u32::from_be_bytes(d) as usize).collect();
    let start = head.len() as u64;
    let want = bytes_of(path, 4, &shape, 1, most.saturating_sub(if gz { 0 } else { start }))?;
    let mut data = vec![];
    let got = read(want as u64, &mut data)?;
    if got < want as u64 {
        return bad(
            start + got,
            format!("the file ends here, {want} elements {shape:?} were promised; fetch it anew"),
        );
    }
    // Also runs a gzip stream to its checksum.
    if read(1, &mut vec![])? > 0 {
        return bad(
            start + got,
            format!("more bytes follow the {want} elements {shape:?}; the header is wrong"),
        );
    }
    Ok(Array { dtype: DType::U8, shape, data })
}
