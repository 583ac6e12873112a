//! A stretch of each sequence of a batch, for ranks that share sequences.

use super::Batch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::shape::Spec;
use crate::tensor::Tensor;

impl Batch {
    /// Stretch `part` of `of` equal ones of each field's second axis (the tokens of sequences); fields without one stay.
    ///
    /// # Errors
    /// When an axis has no such equal stretches.
    pub fn stretch(&self, part: usize, of: usize) -> Result<Batch> {
        let cut = |(name, t): (&str, &Tensor)| -> Result<Tensor> {
            let &[rows, tokens, ref inner @ ..] = t.dims() else { return Ok(t.clone()) };
            if !tokens.is_multiple_of(of) {
                let what = format!(
                    "is {of}, which does not divide the {tokens} tokens of `{name}`; take a divisor, or another model.context"
                );
                return Err(Error::config("mesh.context", what));
            }
            let dims: Vec<usize> = [rows, tokens / of].iter().chain(inner).copied().collect();
            let mut piece = Tensor::empty(&Device::cpu(), Spec::new(t.dtype(), &dims)?)?;
            let bytes = piece.spec().bytes() / rows.max(1);
            for (i, row) in t.to_host()?.as_bytes()?.chunks(bytes.max(1) * of).enumerate() {
                piece.write_bytes(i * bytes, &row[part * bytes..(part + 1) * bytes])?;
            }
            piece.to_device(t.device())
        };
        let tensors = self.fields().map(cut).collect::<Result<_>>()?;
        let mut batch = self.clone();
        batch.tensors = tensors;
        Ok(batch)
    }
}
