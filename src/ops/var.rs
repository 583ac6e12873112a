//! var: y = Σ (x − m)² / max(n − correction, 0) over some axes, n elements each with mean m;
//! dx = dy · 2(x − m) / max(n − correction, 0).
//!
//! Two passes, mean first: the difference of two large sums would lose every digit of a small variance. Cost: two passes
//! over x, one over x and dx backward.

use super::axes::{self, Axes, DIM, KEEPDIM};
use super::elementwise::{Plan, expect_inputs, expect_real, walk};
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::Result;
use crate::kernel::reduce::SUM;
use crate::kernel::{Arg, Real, par};
use crate::shape::{Shape, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "var";
    /// y = (x − mean)², x row-major over `dims`, mean at Σ index·`steps`.
    pub static SQUARES = var_squares(x: in T, mean: in T, y: out T, dims: val dims, steps: val dims);
    /// dx = scale·dy·(x − mean), or dx += when `accumulate`; dy lies as mean does.
    pub static BACKWARD = var_backward(
        x: in T, mean: in T, dy: in T, dx: out T, dims: val dims, steps: val dims, scale: val T, accumulate: val flag,
    );
}

fn var_squares<T: Real>(x: &[T], mean: &[T], y: &mut [T], dims: &[usize], steps: &[usize]) {
    let step = steps[steps.len() - 1];
    par::chunks_mut(y, par::CHUNK, x.len() / 3, |i, y| {
        let start = i * par::CHUNK;
        walk(start..start + y.len(), dims, [steps], |at, [im], n| {
            squares_run(&x[start + at..][..n], &mean[im..], step, &mut y[at..at + n]);
        });
    });
}

#[allow(clippy::too_many_arguments)]
fn var_backward<T: Real>(
    x: &[T],
    mean: &[T],
    dy: &[T],
    dx: &mut [T],
    dims: &[usize],
    steps: &[usize],
    scale: T,
    accumulate: bool,
) {
    let step = steps[steps.len() - 1];
    par::chunks_mut(dx, par::CHUNK, x.len() / 3, |i, dx| {
        let start = i * par::CHUNK;
        walk(start..start + dx.len(), dims, [steps], |at, [im], n| {
            let x = &x[start + at..][..n];
            slope_run(x, &mean[im..], &dy[im..], step, &mut dx[at..at + n], scale, accumulate);
        });
    });
}

vectorized! {
    fn squares_run<T: Real>(x: &[T], mean: &[T], step: usize, y: &mut [T]) {
        let square = |x: T, m: T| (x - m) * (x - m);
        if step == 0 {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = square(x, mean[0]));
        } else {
            y.iter_mut().zip(x.iter().zip(mean)).for_each(|(y, (&x, &m))| *y = square(x, m));
        }
    }

    fn slope_run<T: Real>(x: &[T], mean: &[T], dy: &[T], step: usize, dx: &mut [T], scale: T, accumulate: bool) {
        let put = |dx: &mut T, part: T| *dx = if accumulate { *dx + part } else { part };
        let at = dx.iter_mut().zip(x);
        if step == 0 {
            let (c, m) = (scale * dy[0], mean[0]);
            at.for_each(|(dx, &x)| put(dx, c * (x - m)));
        } else {
            at.zip(mean.iter().zip(dy)).for_each(|((dx, &x), (&m, &dy))| put(dx, scale * dy * (x - m)));
        }
    }
}

/// Variance over some axes.
#[derive(Debug, Clone)]
pub struct Variance {
    /// The axes.
    pub axes: Axes,
    /// Taken off the number of elements: 1 for the unbiased estimate, 0 for the mean square.
    pub correction: i64,
}

impl Variance {
    /// 1 / max(n − correction, 0): infinite where too few elements are left, which makes NaN of a sum of zero, as torch.
    fn weight(&self, x: &Shape) -> Result<f64> {
        let n = self.axes.count("var", x)? as f64;
        Ok(1.0 / (n - self.correction as f64).max(0.0))
    }
}

impl Op for Variance {
    fn name(&self) -> &'static str {
        "var"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("var", x, 1, 1)?;
        expect_real("var", "input", &x[0])?;
        Ok(smallvec::smallvec![x[0].with_shape(self.axes.output("var", &x[0].shape)?)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let shape = x[0].shape();
        let (kept, count) = (self.axes.kept("var", &shape)?, self.axes.count("var", &shape)?);
        let mean = axes::fold(cx, &SUM, x[0], kept, 1.0 / count as f64)?;
        let plan = Plan::new([&kept], &shape);
        let mut squares = cx.empty(x[0].spec())?;
        let (out, dims, steps) = (Arg::Out(&mut squares), plan.dims(), plan.steps(0));
        cx.launch(&SQUARES, &mut [Arg::In(x[0]), Arg::In(&mean), out, dims, steps])?;
        let y = axes::fold(cx, &SUM, &squares, kept, self.weight(&shape)?)?;
        cx.keep(x[0]);
        cx.keep(&mean);
        Ok(smallvec::smallvec![y.reshape(self.axes.output("var", &shape)?.dims())?])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let (x, mean, Some(dy)) = (&kept[0], &kept[1], &dy[0]) else { return Ok(()) };
        let plan = Plan::new([&mean.shape()], &x.shape());
        let scale = 2.0 * self.weight(&x.shape())?;
        dx[0].write(cx, |cx, out, accumulate| {
            let [x, mean, dy] = [x, mean, dy].map(Arg::In);
            let (dims, steps, scale) = (plan.dims(), plan.steps(0), Arg::Real(scale));
            cx.launch(&BACKWARD, &mut [x, mean, dy, Arg::Out(out), dims, steps, scale, Arg::Flag(accumulate)])
        })
    }
}

impl<'t> Var<'t> {
    /// Variance over the axes `dim` (all when empty), with `correction` taken off the number of elements.
    pub fn var(&self, dim: &[i64], keepdim: bool, correction: i64) -> Result<Var<'t>> {
        self.tape().apply1(Variance { axes: Axes::new(dim, keepdim), correction }, &[self])
    }
}

/// var in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "var",
    doc: "sum((x - mean)^2) / (n - correction) over dim",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[
        DIM,
        KEEPDIM,
        AttrDoc { name: "correction", kind: Kind::Int, default: Some("1"), doc: "taken off the number of elements" },
    ],
    build: |a| Ok(Arc::new(Variance { axes: Axes::of(a)?, correction: a.int("correction")? })),
    kernels: &[&SUM, &SQUARES, &BACKWARD],
    samples: || {
        // The variance of one element has no gradient that differences could see: 0/0.
        let lonely = |s: &Sample| !s.large && s.inputs[0].0.iter().product::<usize>() <= 3;
        let mut samples = axes::samples(|s, dims| s.normal(dims));
        samples.retain(|s| !lonely(s));
        samples.extend([
            Sample::new("biased").attr("dim", 1).attr("correction", 0).normal(&[3, 5]),
            Sample::new("far from zero").attr("dim", 0).input(&[9, 2], Fill::Uniform(99.0, 101.0)),
            Sample::new("one element, biased").attr("correction", 0).normal(&[]),
        ]);
        samples
    },
};
