//! safetensors, through the crate of the format's authors, which checks that tensors tile the file without
//! gap or overlap.

use super::{Array, Stored, Wide};
use crate::error::{Error, Result};
use crate::shape::DType;
use ::safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// Reads the bytes of a safetensors file: named arrays, sorted by name. 64-bit integers become i32 when they
/// fit.
pub fn read_safetensors(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Array)>> {
    let load = |(name, stored): (String, Stored<'_>)| Ok((name, stored.load(path)?));
    stored_safetensors(path, bytes)?.into_iter().map(load).collect()
}

/// Where the arrays lie in the bytes of a safetensors file, sorted by name.
pub(crate) fn stored_safetensors<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(String, Stored<'a>)>> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| {
        Error::data(path, Some(0), format!("not a sound safetensors file: {e}; write it anew"))
    })?;
    let base = bytes.as_ptr() as usize;
    let read = |(name, view): (String, ::safetensors::tensor::TensorView<'a>)| {
        let data = view.data();
        let at = (data.as_ptr() as usize).saturating_sub(base) as u64;
        let (dtype, wide) = match view.dtype() {
            Dtype::F32 => (DType::F32, None),
            Dtype::F64 => (DType::F64, None),
            Dtype::BF16 => (DType::Bf16, None),
            Dtype::F16 => (DType::F16, None),
            Dtype::I32 => (DType::I32, None),
            Dtype::U16 => (DType::U16, None),
            Dtype::U8 | Dtype::BOOL => (DType::U8, None),
            Dtype::I64 => (DType::I32, Some(Wide::I64)),
            d => {
                let what = format!("tensor `{name}` is of type {d}; save it as F32 or I32");
                return Err(Error::data(path, Some(at), what));
            }
        };
        Ok((name, Stored { dtype, shape: view.shape().to_vec(), data, at, wide }))
    };
    let mut all = file.tensors().into_iter().map(read).collect::<Result<Vec<_>>>()?;
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}
