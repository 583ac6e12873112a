//! amax: y = max x over some axes, NaN when any is NaN;  dx = dy shared equally among the elements that equal the maximum.
//!
//! Cost: one pass over x forward; backward one to mark the maxima, one to count them, one to share.

use super::axes::{self, Axes, DIM, KEEPDIM};
use super::elementwise::{Plan, expect_inputs, expect_real, walk};
use super::{Entry, Fill, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::reduce::{MAX, SUM};
use crate::kernel::{Arg, Real, par};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "amax";
    /// mask = 1 where x, row-major over `dims`, equals the y at Σ index·`steps`, else 0.
    pub static TIES = amax_ties(x: in T, y: in T, mask: out T, dims: val dims, steps: val dims);
    /// dx = dy·mask / count, or dx += when `accumulate`; dy and count lie at Σ index·`steps`.
    pub static BACKWARD = amax_backward(
        mask: in T, dy: in T, count: in T, dx: out T, dims: val dims, steps: val dims, accumulate: val flag,
    );
}

fn amax_ties<T: Real>(x: &[T], y: &[T], mask: &mut [T], dims: &[usize], steps: &[usize]) {
    let step = steps[steps.len() - 1];
    par::chunks_mut(mask, par::CHUNK, x.len() / 3, |i, mask| {
        let start = i * par::CHUNK;
        walk(start..start + mask.len(), dims, [steps], |at, [iy], n| {
            ties_run(&x[start + at..][..n], &y[iy..], step, &mut mask[at..at + n]);
        });
    });
}

fn amax_backward<T: Real>(
    mask: &[T],
    dy: &[T],
    count: &[T],
    dx: &mut [T],
    dims: &[usize],
    steps: &[usize],
    accumulate: bool,
) {
    let step = steps[steps.len() - 1];
    par::chunks_mut(dx, par::CHUNK, mask.len() / 2, |i, dx| {
        let start = i * par::CHUNK;
        walk(start..start + dx.len(), dims, [steps], |at, [iy], n| {
            let mask = &mask[start + at..][..n];
            share_run(mask, &dy[iy..], &count[iy..], step, &mut dx[at..at + n], accumulate);
        });
    });
}

vectorized! {
    fn ties_run<T: Real>(x: &[T], y: &[T], step: usize, mask: &mut [T]) {
        let equal = |x: T, y: T| if x == y { T::ONE } else { T::ZERO };
        if step == 0 {
            mask.iter_mut().zip(x).for_each(|(m, &x)| *m = equal(x, y[0]));
        } else {
            mask.iter_mut().zip(x.iter().zip(y)).for_each(|(m, (&x, &y))| *m = equal(x, y));
        }
    }

    fn share_run<T: Real>(mask: &[T], dy: &[T], count: &[T], step: usize, dx: &mut [T], accumulate: bool) {
        // Where the maximum is NaN nothing equals it, and 0/0 hands the NaN on.
        let put = |dx: &mut T, part: T| *dx = if accumulate { *dx + part } else { part };
        let at = dx.iter_mut().zip(mask);
        if step == 0 {
            at.for_each(|(dx, &m)| put(dx, dy[0] * m / count[0]));
        } else {
            at.zip(dy.iter().zip(count)).for_each(|((dx, &m), (&dy, &count))| put(dx, dy * m / count));
        }
    }
}

/// Largest element over some axes.
#[derive(Debug, Clone, Default)]
pub struct Amax {
    /// The axes.
    pub axes: Axes,
}

impl Op for Amax {
    fn name(&self) -> &'static str {
        "amax"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("amax", x, 1, 1)?;
        expect_real("amax", "input", &x[0])?;
        let y = self.axes.output("amax", &x[0].shape)?;
        if self.axes.count("amax", &x[0].shape)? == 0 {
            let what = format!("input has shape {}, but there is no maximum over an empty axis", x[0].shape);
            return Err(Error::shape("amax", what));
        }
        Ok(smallvec::smallvec![x[0].with_shape(y)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let shape = x[0].shape();
        let y = axes::fold(cx, &MAX, x[0], self.axes.kept("amax", &shape)?, 1.0)?;
        cx.keep(x[0]);
        cx.keep(&y);
        Ok(smallvec::smallvec![y.reshape(self.axes.output("amax", &shape)?.dims())?])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let (x, y, Some(dy)) = (&kept[0], &kept[1], &dy[0]) else { return Ok(()) };
        let plan = Plan::new([&y.shape()], &x.shape());
        let mut mask = cx.empty(x.spec())?;
        cx.launch(&TIES, &mut [Arg::In(x), Arg::In(y), Arg::Out(&mut mask), plan.dims(), plan.steps(0)])?;
        let count = axes::fold(cx, &SUM, &mask, y.shape(), 1.0)?;
        dx[0].write(cx, |cx, out, accumulate| {
            let [mask, dy, count] = [&mask, dy, &count].map(Arg::In);
            let (dims, steps) = (plan.dims(), plan.steps(0));
            cx.launch(&BACKWARD, &mut [mask, dy, count, Arg::Out(out), dims, steps, Arg::Flag(accumulate)])
        })
    }
}

impl<'t> Var<'t> {
    /// Largest element over the axes `dim` (all when empty).
    pub fn amax(&self, dim: &[i64], keepdim: bool) -> Result<Var<'t>> {
        self.tape().apply1(Amax { axes: Axes::new(dim, keepdim) }, &[self])
    }
}

/// amax in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "amax",
    doc: "largest over dim; ties share the gradient",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[DIM, KEEPDIM],
    build: |a| Ok(Arc::new(Amax { axes: Axes::of(a)? })),
    kernels: &[&MAX, &SUM, &TIES, &BACKWARD],
    samples: || {
        let mut samples = axes::samples(|s, dims| s.input(dims, Fill::Apart(0.05)));
        // Differences on both sides of a tie of two agree with half the gradient each.
        let tied = Fill::Values(vec![3.0, 3.0, -1.0, 0.5, -2.0, 0.5]);
        samples.push(Sample::new("ties of two").attr("dim", -1).input(&[2, 3], tied));
        samples
    },
};
