//! mean: y = Σ x / n over some axes, n elements each;  dx = dy / n, stretched back. Of no element it is NaN.
//!
//! Cost: one pass over x forward, over dx backward; bound by memory. Nothing is kept.

use super::axes::{self, Axes, DIM, KEEPDIM};
use super::elementwise::{expect_inputs, expect_real};
use super::{Entry, Port};
use crate::error::Result;
use crate::kernel::reduce::SUM;
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

/// Mean over some axes.
#[derive(Debug, Clone, Default)]
pub struct Mean {
    /// The axes.
    pub axes: Axes,
}

impl Op for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("mean", x, 1, 1)?;
        expect_real("mean", "input", &x[0])?;
        Ok(smallvec::smallvec![x[0].with_shape(self.axes.output("mean", &x[0].shape)?)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let shape = x[0].shape();
        let kept = self.axes.kept("mean", &shape)?;
        let y = axes::fold(cx, &SUM, x[0], kept, 1.0 / self.axes.count("mean", &shape)? as f64)?;
        Ok(smallvec::smallvec![y.reshape(self.axes.output("mean", &shape)?.dims())?])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        _: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let shape = dx[0].spec().shape;
        let kept = self.axes.kept("mean", &shape)?;
        let scale = 1.0 / self.axes.count("mean", &shape)? as f64;
        dx[0].write(cx, |cx, out, accumulate| axes::expand(cx, (dy, &kept), out, scale, accumulate))
    }
}

impl<'t> Var<'t> {
    /// Mean of all elements: a scalar.
    pub fn mean(&self) -> Result<Var<'t>> {
        self.tape().apply1(Mean::default(), &[self])
    }
    /// Mean over the axes `dim` (all when empty).
    pub fn mean_over(&self, dim: &[i64], keepdim: bool) -> Result<Var<'t>> {
        self.tape().apply1(Mean { axes: Axes::new(dim, keepdim) }, &[self])
    }
}

/// mean in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "mean",
    doc: "mean over dim",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[DIM, KEEPDIM],
    build: |a| Ok(Arc::new(Mean { axes: Axes::of(a)? })),
    kernels: &[&SUM, &axes::EXPAND],
    samples: || axes::samples(|s, dims| s.normal(dims)),
};
