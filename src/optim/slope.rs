//! The slope of the loss along the last update: d = Σ u·g over all weights, with u what the last step subtracted (up to the
//! learning rate) and g the gradient of a fresh batch. It comes in pieces that kernels write, summed in a fixed order, and
//! one number comes back from a device.

use crate::error::Result;
use crate::kernel::reduce::{SUM, partials};
use crate::kernel::{Arg, launch, par};
use crate::shape::Spec;
use crate::tape::Grads;
use crate::tensor::Tensor;

/// Weights whose products are summed by one block of a GPU or one chunk of a CPU.
pub const PIECE: usize = par::CHUNK;

/// The sums of all pieces of all segments, in the making.
pub struct Sum {
    partial: Tensor,
    placed: usize,
}

impl Sum {
    /// For gradients like `g`; None where there is no weight.
    pub fn new(g: &Grads) -> Result<Option<Sum>> {
        let flat = (0..g.segments().len()).filter_map(|i| g.flat(i));
        let pieces: usize = flat.map(|t| t.len().div_ceil(PIECE)).sum();
        if pieces == 0 {
            return Ok(None);
        }
        let partial = Tensor::empty(g.device(), Spec::new(g.dtype(), &[pieces])?)?;
        Ok(Some(Sum { partial, placed: 0 }))
    }

    /// Where the pieces of the next segment, of `len` weights, go: the array, and the first place.
    pub fn place(&mut self, len: usize) -> (&mut Tensor, usize) {
        let first = self.placed;
        self.placed += len.div_ceil(PIECE);
        (&mut self.partial, first)
    }

    /// The sum, once every segment has written its pieces. On a device one number comes back.
    pub fn total(self) -> Result<f64> {
        let count = self.partial.len();
        if self.partial.device().is_host() {
            return Ok(self.partial.to_f64()?.iter().sum());
        }
        let (device, dtype, extents) = (self.partial.device(), self.partial.dtype(), [1, count, 1]);
        let mut scratch = Tensor::empty(device, Spec::new(dtype, &[partials(extents)])?)?;
        let mut sum = Tensor::empty(device, Spec::new(dtype, &[])?)?;
        let (scale, add) = (Arg::Real(1.0), Arg::Flag(false));
        let out = (Arg::Out(&mut scratch), Arg::Out(&mut sum));
        launch(&SUM, &mut [Arg::In(&self.partial), out.0, out.1, Arg::Dims(&extents), scale, add])?;
        sum.item()
    }
}
