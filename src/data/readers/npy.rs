//! NumPy's `.npy` (format versions 1 to 3, row-major) and `.npz` (a zip of them).

use super::{Array, Stored, Wide, bytes_of, read_zip};
use crate::error::{Error, Result};
use crate::shape::DType;
use std::path::Path;

/// Reads the bytes of an `.npy` file. Wide integers become i32 when they fit; other types and orders are
/// refused.
pub fn read_npy(path: &Path, bytes: &[u8]) -> Result<Array> {
    stored_npy(path, bytes)?.load(path)
}

/// Where the array lies in the bytes of an `.npy` file.
pub(crate) fn stored_npy<'a>(path: &Path, bytes: &'a [u8]) -> Result<Stored<'a>> {
    let bad = |at: usize, what: &str| Err(Error::data(path, Some(at as u64), what));
    if bytes.len() < 10 || bytes[..6] != *b"\x93NUMPY" {
        return bad(0, "not an .npy file; write one with numpy.save");
    }
    let (start, len) = match bytes[6] {
        1 => (10, u16::from_le_bytes([bytes[8], bytes[9]]) as usize),
        2 | 3 if bytes.len() >= 12 => {
            (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize)
        }
        _ => return bad(6, "format versions 1 to 3 are read; write the file anew with numpy.save"),
    };
    let Some(header) = bytes.get(start..).and_then(|b| b.get(..len)) else {
        return bad(8, "the header is longer than the file; write the file anew with numpy.save");
    };
    let Some(h) = std::str::from_utf8(header).ok().and_then(Literal::parse) else {
        return bad(start, "the header is not NumPy's; write the file anew with numpy.save");
    };
    if h.fortran && h.shape.len() > 1 {
        return bad(start, "column-major (Fortran) order; save numpy.ascontiguousarray(x) instead");
    }
    let data = &bytes[start + len..];
    let at = (start + len) as u64;
    let size: usize = h.descr.get(2..).and_then(|n| n.parse().ok()).unwrap_or(0);
    let want = bytes_of(path, start as u64, &h.shape, size.max(1), data.len() as u64)?;
    if want != data.len() {
        return bad(
            start + len + want,
            "more bytes follow than the shape says; write the file anew with numpy.save",
        );
    }
    let (dtype, wide) = match h.descr {
        "<f4" => (DType::F32, None),
        "<f8" => (DType::F64, None),
        "<f2" => (DType::F16, None),
        "<i4" => (DType::I32, None),
        "<u2" => (DType::U16, None),
        "|u1" | "|b1" => (DType::U8, None),
        "|i1" => (DType::I32, Some(Wide::I8)),
        "<i2" => (DType::I32, Some(Wide::I16)),
        "<u4" => (DType::I32, Some(Wide::U32)),
        "<i8" => (DType::I32, Some(Wide::I64)),
        "<u8" => (DType::I32, Some(Wide::U64)),
        other => {
            let what = format!(
                "elements of type {other:?}; save as little-endian float32 or int32 (x.astype('<f4'))"
            );
            return bad(start, &what);
        }
    };
    Ok(Stored { dtype, shape: h.shape, data, at, wide })
}

/// Reads the bytes of an `.npz` file: named arrays in the order of the archive.
pub fn read_npz(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Array)>> {
    let entries = read_zip(path, bytes)?;
    let read = |(name, bytes): (String, Vec<u8>)| {
        let inner = path.join(&name);
        Ok((name.strip_suffix(".npy").unwrap_or(&name).to_string(), read_npy(&inner, &bytes)?))
    };
    entries.into_iter().map(read).collect()
}

/// The Python literal in an `.npy` header.
struct Literal<'a> {
    descr: &'a str,
    fortran: bool,
    shape: Vec<usize>,
}

impl<'a> Literal<'a> {
    fn parse(text: &'a str) -> Option<Literal<'a>> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            rest = match key {
                "descr" => {
                    let (d, rest) = quoted(value)?;
                    descr = Some(d);
                    rest
                }
                "fortran_order" => {
                    let word = value.split([',', ' ', '}']).next()?;
                    fortran = Some(match word {
                        "True" => true,
                        "False" => false,
                        _ => return None,
                    });
                    &value[word.len()..]
                }
                "shape" => {
                    let (inside, rest) = value.strip_prefix('(')?.split_once(')')?;
                    let dims = inside.split(',').map(str::trim).filter(|d| !d.is_empty());
                    shape = Some(dims.map(|d| d.parse().ok()).collect::<Option<Vec<usize>>>()?);
                    rest
                }
                _ => return None,
            };
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        Some(Literal { descr: descr?, fortran: fortran?, shape: shape? })
    }
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}
