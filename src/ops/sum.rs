//! sum: y = Σ x over some axes;  dx = dy, stretched back.
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

/// Σ x over some axes.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    /// The axes.
    pub axes: Axes,
}

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("sum", x, 1, 1)?;
        expect_real("sum", "input", &x[0])?;
        Ok(smallvec::smallvec![x[0].with_shape(self.axes.output("sum", &x[0].shape)?)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let shape = x[0].shape();
        let kept = self.axes.kept("sum", &shape)?;
        let y = axes::fold(cx, &SUM, x[0], kept, 1.0)?;
        Ok(smallvec::smallvec![y.reshape(self.axes.output("sum", &shape)?.dims())?])
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
        let kept = self.axes.kept("sum", &shape)?;
        dx[0].write(cx, |cx, out, accumulate| axes::expand(cx, (dy, &kept), out, 1.0, accumulate))
    }
}

impl<'t> Var<'t> {
    /// Sum of all elements: a scalar.
    pub fn sum(&self) -> Result<Var<'t>> {
        self.tape().apply1(Sum::default(), &[self])
    }
    /// Sum over the axes `dim` (all when empty).
    pub fn sum_over(&self, dim: &[i64], keepdim: bool) -> Result<Var<'t>> {
        self.tape().apply1(Sum { axes: Axes::new(dim, keepdim) }, &[self])
    }
}

/// sum in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "sum",
    doc: "sum over dim",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[DIM, KEEPDIM],
    build: |a| Ok(Arc::new(Sum { axes: Axes::of(a)? })),
    kernels: &[&SUM, &axes::EXPAND],
    samples: || axes::samples(|s, dims| s.normal(dims)),
};
