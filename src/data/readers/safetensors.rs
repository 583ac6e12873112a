//! safetensors, through the crate of the format's authors, which checks that tensors tile the file without
//! gap or overlap.

use super::{Array, narrow};
use crate::error::{Error, Result};
use crate::shape::DType;
use ::safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// Reads the bytes of a safetensors file: named arrays, sorted by name. 64-bit integers become i32 when they
/// fit.
pub fn read_safetensors(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Array)>> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| {
        Error::data(path, Some(0), format!("not a sound safetensors file: {e}; write it anew"))
    })?;
    let base = bytes.as_ptr() as usize;
    let read = |(name, view): (String, ::safetensors::tensor::TensorView<'_>)| {
        let (data, at) = (view.data(), (view.data().as_ptr() as usize).saturating_sub(base) as u64);
        let (dtype, data) = match view.dtype() {
            Dtype::F32 => (DType::F32, data.to_vec()),
            Dtype::F64 => (DType::F64, data.to_vec()),
            Dtype::BF16 => (DType::Bf16, data.to_vec()),
            Dtype::F16 => (DType::F16, data.to_vec()),
            Dtype::I32 => (DType::I32, data.to_vec()),
            Dtype::U16 => (DType::U16, data.to_vec()),
            Dtype::U8 | Dtype::BOOL => (DType::U8, data.to_vec()),
            Dtype::I64 => (DType::I32, narrow(path, at, data, |b| i64::from_le_bytes(b).into())?),
            d => {
                let what = format!("tensor `{name}` is of type {d}; save it as F32 or I32");
                return Err(Error::data(path, Some(at), what));
            }
        };
        Ok((name, Array { dtype, shape: view.shape().to_vec(), data }))
    };
    let mut all = file.tensors().into_iter().map(read).collect::<Result<Vec<_>>>()?;
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}
