//! The slope of the loss along the last update: d = Σ u·g over all weights, with u what the last step subtracted (up to the
//! learning rate) and g the gradient of a fresh batch. It comes in pieces that kernels write, summed in a fixed order, and
//! one number comes back from a device. Other sums over all weights go the same way.

use crate::error::Result;
use crate::kernel::reduce::{SUM, partials};
use crate::kernel::{Arg, launch, par};
use crate::shape::Spec;
use crate::tape::Grads;
use crate::tensor::Tensor;

/// Weights whose products are summed by one block of a GPU or one chunk of a CPU.
pub const PIECE: usize = par::CHUNK;

/// `K` sums over all weights, in the making: each piece of each segment writes `K` numbers, one beside the other.
pub struct Sum<const K: usize = 1> {
    partial: Tensor,
    placed: usize,
}

impl<const K: usize> Sum<K> {
    /// For gradients like `g`; None where there is no weight.
    pub fn new(g: &Grads) -> Result<Option<Sum<K>>> {
        let flat = (0..g.segments().len()).filter_map(|i| g.flat(i));
        let pieces: usize = flat.map(|t| t.len().div_ceil(PIECE)).sum();
        if pieces == 0 {
            return Ok(None);
        }
        let partial = Tensor::zeros(g.device(), Spec::new(g.dtype(), &[pieces * K])?)?;
        Ok(Some(Sum { partial, placed: 0 }))
    }

    /// Where the pieces of the next segment, of `len` weights, go: the array, and the first piece.
    pub fn place(&mut self, len: usize) -> (&mut Tensor, usize) {
        let first = self.placed;
        self.placed += len.div_ceil(PIECE);
        (&mut self.partial, first)
    }

    /// The sums, once every segment has written its pieces. From a device `K` numbers come back.
    pub fn totals(self) -> Result<[f64; K]> {
        let count = self.partial.len() / K;
        let mut totals = [0.0; K];
        if self.partial.device().is_host() {
            for (i, x) in self.partial.to_f64()?.iter().enumerate() {
                totals[i % K] += x;
            }
            return Ok(totals);
        }
        let (device, dtype, extents) = (self.partial.device(), self.partial.dtype(), [1, count, K]);
        let mut scratch = Tensor::empty(device, Spec::new(dtype, &[partials(extents)])?)?;
        let mut sums = Tensor::empty(device, Spec::new(dtype, &[K])?)?;
        let (scale, add) = (Arg::Real(1.0), Arg::Flag(false));
        let out = (Arg::Out(&mut scratch), Arg::Out(&mut sums));
        launch(&SUM, &mut [Arg::In(&self.partial), out.0, out.1, Arg::Dims(&extents), scale, add])?;
        totals.copy_from_slice(&sums.to_host()?.to_f64()?);
        Ok(totals)
    }
}
