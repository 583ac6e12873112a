//! Arrays where they lie in a file's bytes: elements are converted when they are asked for, so that a mapped file
//! may be larger than memory.

use super::{Array, narrow};
use crate::error::{Error, Result};
use crate::shape::DType;
use std::path::Path;

/// Elements converted at a time.
const PIECE: usize = 1 << 14;

/// How elements are stored that no tensor has: each is given out as i32, if it fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wide {
    I8,
    I16,
    U32,
    I64,
    U64,
}

impl Wide {
    pub(crate) fn size(self) -> usize {
        match self {
            Wide::I8 => 1,
            Wide::I16 => 2,
            Wide::U32 => 4,
            Wide::I64 | Wide::U64 => 8,
        }
    }
    fn convert(self, path: &Path, at: u64, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Wide::I8 => narrow(path, at, bytes, out, |b| i8::from_le_bytes(b).into()),
            Wide::I16 => narrow(path, at, bytes, out, |b| i16::from_le_bytes(b).into()),
            Wide::U32 => narrow(path, at, bytes, out, |b| u32::from_le_bytes(b).into()),
            Wide::I64 => narrow(path, at, bytes, out, |b| i64::from_le_bytes(b).into()),
            Wide::U64 => narrow(path, at, bytes, out, |b| u64::from_le_bytes(b).into()),
        }
    }
}

/// An array inside the bytes of a file, found to lie inside them.
#[derive(Clone, Debug)]
pub(crate) struct Stored<'a> {
    /// Element type as given out.
    pub(crate) dtype: DType,
    /// Extents.
    pub(crate) shape: Vec<usize>,
    /// Elements as stored.
    pub(crate) data: &'a [u8],
    /// Where they begin in the file, for errors.
    pub(crate) at: u64,
    /// Set where the stored type is another than `dtype`.
    pub(crate) wide: Option<Wide>,
}

impl<'a> From<&'a Array> for Stored<'a> {
    fn from(a: &'a Array) -> Stored<'a> {
        Stored { dtype: a.dtype, shape: a.shape.clone(), data: &a.data, at: 0, wide: None }
    }
}

impl Stored<'_> {
    /// Extent of the first axis (1 for a scalar).
    pub(crate) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }
    /// Extents without the first.
    pub(crate) fn row_shape(&self) -> &[usize] {
        self.shape.get(1..).unwrap_or(&[])
    }
    /// Elements of one row.
    pub(crate) fn row_elements(&self) -> usize {
        self.row_shape().iter().product()
    }

    /// Gives `n` elements from `first` to `with`, piece after piece, little-endian. `scratch` is reused.
    pub(crate) fn pieces(
        &self,
        path: &Path,
        first: usize,
        n: usize,
        scratch: &mut Vec<u8>,
        mut with: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let size = self.wide.map_or(self.dtype.size(), Wide::size);
        let bytes = &self.data[first * size..(first + n) * size];
        let Some(wide) = self.wide else { return with(bytes) };
        for (k, piece) in bytes.chunks(PIECE * size).enumerate() {
            scratch.clear();
            wide.convert(path, self.at + ((first + k * PIECE) * size) as u64, piece, scratch)?;
            with(scratch)?;
        }
        Ok(())
    }

    /// The whole in memory.
    pub(crate) fn load(&self, path: &Path) -> Result<Array> {
        let n = self.shape.iter().product::<usize>();
        let bytes = n * self.dtype.size();
        let mut data = vec![];
        data.try_reserve_exact(bytes)
            .map_err(|_| Error::OutOfMemory { bytes, what: format!("an array of {}", path.display()) })?;
        self.pieces(path, 0, n, &mut vec![], |piece| {
            data.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(Array { dtype: self.dtype, shape: self.shape.clone(), data })
    }
}
