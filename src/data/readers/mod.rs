//! Readers of common formats, one file a format. Each takes the bytes of a file and gives arrays; each
//! compares what a header claims with what the file has before memory is taken for it; each error names file,
//! place and remedy.

mod idx;
mod image;
mod npy;
mod safetensors;
mod stored;
mod table;
mod tar;
mod text;
mod tokens;
mod wav;
mod zip;

pub use idx::read_idx;
pub use image::{read_grey_png, read_png};
pub(crate) use npy::stored_npy;
pub use npy::{read_npy, read_npz};
pub use safetensors::read_safetensors;
pub(crate) use safetensors::stored_safetensors;
pub(crate) use stored::{Stored, Wide};
pub(crate) use table::{Row, Rows, has_header};
pub use table::{Table, read_csv};
pub use tar::read_tar;
pub(crate) use text::for_each_text;
pub use text::read_text;
pub use tokens::{Shard, read_shard};
pub(crate) use wav::read_wav_head;
pub use wav::{Wave, read_any_wav, read_wav};
pub use zip::read_zip;

use crate::data::path::open_regular;
use crate::error::{Error, Result};
use crate::shape::DType;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Deflate cannot expand more than this: a bound on what a compressed file may claim to hold.
pub(crate) const DEFLATE_MOST: u64 = 1032;
/// Most bytes that a file whose contents state no size may expand to.
pub(crate) const EXPANDED_MOST: u64 = 1 << 30;

/// An array as a file holds it: type, extents, little-endian elements.
#[derive(Clone, PartialEq, Debug)]
pub struct Array {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<usize>,
    /// Elements, row-major, little-endian.
    pub data: Vec<u8>,
}

impl Array {
    /// Extent of the first axis (1 for a scalar).
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }
    /// Extents without the first.
    pub fn row_shape(&self) -> &[usize] {
        self.shape.get(1..).unwrap_or(&[])
    }
    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_shape().iter().product::<usize>() * self.dtype.size()
    }
    /// The elements as integers, for labels and lengths. Errors for real types.
    pub fn to_i32(&self, path: &Path) -> Result<Vec<i32>> {
        match self.dtype {
            DType::U8 => Ok(self.data.iter().map(|&b| b.into()).collect()),
            DType::U16 => Ok(self.data.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b).into()).collect()),
            DType::I32 => Ok(self.data.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect()),
            d => Err(Error::data(
                path,
                None,
                format!("{d} where integers are wanted; store labels as integers"),
            )),
        }
    }
    /// The elements of an f32 array.
    pub fn to_f32(&self, path: &Path) -> Result<Vec<f32>> {
        match self.dtype {
            DType::F32 => Ok(self.data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            d => Err(Error::data(path, None, format!("{d} where f32 is wanted"))),
        }
    }
}

/// Raw elements: a file that is nothing but `shape` elements of `dtype`.
pub fn read_raw(path: &Path, dtype: DType, shape: &[usize]) -> Result<Array> {
    let data = read_file(path)?;
    let want = bytes_of(path, 0, shape, dtype.size(), data.len() as u64)?;
    if want != data.len() {
        let what = format!("{} bytes, but {shape:?} of {dtype} takes {want}", data.len());
        return Err(Error::data(path, None, what));
    }
    Ok(Array { dtype, shape: shape.to_vec(), data })
}

/// Reads a whole regular file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let (file, len) = open_regular(path)?;
    let mut bytes = Vec::new();
    let what = || format!("the contents of {}", path.display());
    let ask = usize::try_from(len).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(ask).map_err(|_| Error::OutOfMemory { bytes: ask, what: what() })?;
    // Not beyond the length seen: a file that grows meanwhile is cut there.
    file.take(len).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}

/// So many zeros, where the size comes from a file.
pub(crate) fn zeros(path: &Path, bytes: usize) -> Result<Vec<u8>> {
    let mut zeros = Vec::new();
    let what = || format!("a part of {}", path.display());
    zeros.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes, what: what() })?;
    zeros.resize(bytes, 0);
    Ok(zeros)
}

/// Opens a regular file to be read in pieces, gzip being expanded on the way.
pub(crate) fn open_expanded(path: &Path) -> Result<Box<dyn Read>> {
    let (file, len) = open_regular(path)?;
    expanded(BufReader::with_capacity(1 << 16, file.take(len))).map_err(|e| Error::io(path, e))
}

/// The bytes of `source`, or where they are gzip, what they expand to: at most [`EXPANDED_MOST`].
pub(crate) fn expanded<'a>(mut source: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    if !is_gzip(source.fill_buf()?) {
        return Ok(Box::new(source));
    }
    Ok(Box::new(Expanded { inner: flate2::bufread::MultiGzDecoder::new(source), left: EXPANDED_MOST }))
}

/// What a gzip stream expands to, with errors that say what to do.
struct Expanded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Expanded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out).map_err(|e| io::Error::new(e.kind(), damage(&e)))?;
        let most =
            || io::Error::other(format!("expands to more than {EXPANDED_MOST} bytes; unpack it first"));
        self.left = self.left.checked_sub(n as u64).ok_or_else(most)?;
        Ok(n)
    }
}

/// True for the first bytes of a gzip file.
pub(crate) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Expands gzip to at most `most` bytes; plain bytes pass unchanged. A damaged stream or checksum is an
/// error.
pub(crate) fn gunzip(path: &Path, bytes: Vec<u8>, most: u64) -> Result<Vec<u8>> {
    if !is_gzip(&bytes) {
        return Ok(bytes);
    }
    let mut out = Vec::new();
    let mut decoder = flate2::bufread::MultiGzDecoder::new(&bytes[..]).take(most.saturating_add(1));
    decoder.read_to_end(&mut out).map_err(|e| damaged(path, &e))?;
    if out.len() as u64 > most {
        return Err(Error::data(path, None, format!("expands to more than {most} bytes; unpack it first")));
    }
    Ok(out)
}

pub(crate) fn damaged(path: &Path, e: &io::Error) -> Error {
    Error::data(path, None, damage(e))
}

fn damage(e: &io::Error) -> String {
    format!("the compressed data are damaged or cut short ({e}); fetch the file anew")
}

/// Bytes that `shape` elements of `size` bytes take, found to be at most `have`. `at` is where the file
/// claims the shape.
pub(crate) fn bytes_of(path: &Path, at: u64, shape: &[usize], size: usize, have: u64) -> Result<usize> {
    let bytes = shape.iter().try_fold(size, |n, &d| n.checked_mul(d)).filter(|&n| n as u64 <= have);
    bytes.ok_or_else(|| {
        let what = format!(
            "claims {shape:?} elements of {size} bytes, but only {have} bytes follow; fetch the file anew"
        );
        Error::data(path, Some(at), what)
    })
}

/// Wide integers as i32, each checked: ids and labels fit, or the file is not what it is taken for.
pub(crate) fn narrow<const N: usize>(
    path: &Path,
    at: u64,
    bytes: &[u8],
    out: &mut Vec<u8>,
    get: impl Fn([u8; N]) -> i128,
) -> Result<()> {
    for (k, &b) in bytes.as_chunks::<N>().0.iter().enumerate() {
        let v = get(b);
        let v = i32::try_from(v).map_err(|_| {
            let what = format!("{v} does not fit 32 bits; ids and labels are kept as i32");
            Error::data(path, Some(at + (k * N) as u64), what)
        })?;
        out.extend_from_slice(&v.to_le_bytes());
    }
    Ok(())
}
