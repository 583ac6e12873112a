//! [`Op`]: the one trait of every operation, whatever its arity.

use super::Adjoint;
use crate::device::Device;
use crate::error::Result;
use crate::kernel::gemm::Precision;
use crate::kernel::{self, Arg, Kernel};
use crate::shape::Spec;
use crate::tensor::{SmallList, Tensor};
use smallvec::SmallVec;
use std::fmt::Debug;

// ANCHOR: op
/// A differentiable operation. Its value holds its attributes; inputs and outputs are tensors.
pub trait Op: Debug + Send + Sync {
    /// Name, as `op list` shows it; every error of the op starts with it.
    fn name(&self) -> &'static str;

    /// Specs of the outputs for inputs of specs `x`. Every shape, type and attribute error lives here, before memory is taken.
    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>>;

    /// Computes the outputs. What backward will read is handed to [`Cx::keep`].
    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>>;

    /// Adds to each wanted `dx[i]` the gradient with respect to input i, given the kept tensors and the gradients `dy` of
    /// the outputs (None where no gradient arrived; at least one is present). A wanted input that gets nothing is an
    /// error of the tape; say [`Adjoint::zero`] where the gradient is zero by its nature.
    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()>;
}
// ANCHOR_END: op

/// What an op sees of its surroundings: where to take memory, how to run kernels, what to keep.
pub struct Cx<'a> {
    device: &'a Device,
    kept: Option<&'a mut SmallList<Tensor>>,
    precision: Precision,
}

impl<'a> Cx<'a> {
    pub(super) fn forward(device: &'a Device, kept: Option<&'a mut SmallList<Tensor>>) -> Cx<'a> {
        Cx { device, kept, precision: Precision::F32 }
    }
    /// A context outside a tape: keeps nothing, multiplies in the type of its tensors.
    pub fn new(device: &'a Device) -> Cx<'a> {
        Cx::forward(device, None)
    }
    /// The same with another precision of matrix products.
    pub fn with_precision(self, precision: Precision) -> Cx<'a> {
        Cx { precision, ..self }
    }
    /// To what matrix products round their operands.
    pub fn precision(&self) -> Precision {
        self.precision
    }
    /// Device of the tensors.
    pub fn device(&self) -> &'a Device {
        self.device
    }
    /// A tensor of arbitrary contents, to be filled.
    pub fn empty(&self, spec: Spec) -> Result<Tensor> {
        Tensor::empty(self.device, spec)
    }
    /// A tensor of zeros.
    pub fn zeros(&self, spec: Spec) -> Result<Tensor> {
        Tensor::zeros(self.device, spec)
    }
    /// Says that backward will read `t`: the k-th kept tensor is `kept[k]` there. Does nothing when no gradient is recorded.
    pub fn keep(&mut self, t: &Tensor) {
        if let Some(kept) = &mut self.kept {
            kept.push(t.clone());
        }
    }
    /// True when backward may follow: an op may skip work that only backward needs.
    pub fn keeps(&self) -> bool {
        self.kept.is_some()
    }
    /// Runs a kernel.
    pub fn launch(&self, kernel: &Kernel, args: &mut [Arg<'_>]) -> Result<()> {
        kernel::launch(kernel, args)
    }
    /// Runs a product in the precision of the tape: `plain` of f32, or else `rounded`, which takes a flag after the
    /// arguments of the other: bf16, or else tf32.
    pub fn launch_rounding<const N: usize>(
        &self,
        [plain, rounded]: [&Kernel; 2],
        args: [Arg<'_>; N],
    ) -> Result<()> {
        let mut args: SmallVec<[Arg<'_>; 16]> = args.into_iter().collect();
        if self.precision == Precision::F32 {
            return self.launch(plain, &mut args);
        }
        args.push(Arg::Flag(self.precision.is_bf16()));
        self.launch(rounded, &mut args)
    }
}
