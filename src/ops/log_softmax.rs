//! log_softmax: y_i = (x_i − m) − ln Σ_j e^(x_j − m) along one axis, m = max x;
//! dx_i = dy_i − e^(y_i) · Σ_j dy_j.
//!
//! The two subtractions stay apart: m + ln Σ would lose the digits of the sum where m is large. As in torch,
//! a row of nothing but -inf (and one that holds +inf or NaN) is NaN throughout. Cost: one pass over memory
//! forward, two reads and a write backward, an exp for each element in both.

use super::elementwise::{expect_inputs, expect_real};
use super::rows::{self, GROUP, per_chunk, sum_exp, zip_lanes};
use super::softmax::{DIM, WIDTH, samples};
use super::{Entry, Port};
use crate::error::Result;
use crate::kernel::reduce::sum_of;
use crate::kernel::lanes::max_number;
use crate::kernel::{Arg, Real, par};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "log_softmax";
    /// y = log_softmax(x) along the middle of [outer, n, inner].
    pub static FORWARD = log_softmax_forward(x: in T, y: out T, n: val size, inner: val size) blocks(if inner == 1 { (y / n.max(1)).div_ceil(8) } else { (y / n.max(1)).div_ceil(256) });
    /// dx = dy − e^y·Σ dy, or dx += when `accumulate`.
    pub static BACKWARD = log_softmax_backward(
        y: in T, dy: in T, dx: out T, n: val size, inner: val size, accumulate: val flag,
    ) blocks(if inner == 1 { (dx / n.max(1)).div_ceil(8) } else { (dx / n.max(1)).div_ceil(256) });
}

fn log_softmax_forward<T: Real>(x: &[T], y: &mut [T], n: usize, inner: usize) {
    let size = n * inner * if inner == 1 { per_chunk(n) } else { 1 };
    par::chunks_mut(y, size, x.len() / 2, |i, y| {
        let x = &x[i * size..][..y.len()];
        if inner == 1 { forward_rows(x, y, n) } else { forward_columns(x, y, inner) }
    });
}

fn log_softmax_backward<T: Real>(y: &[T], dy: &[T], dx: &mut [T], n: usize, inner: usize, accumulate: bool) {
    let size = n * inner * if inner == 1 { per_chunk(n) } else { 1 };
    par::chunks_mut(dx, size, y.len() / 2, |i, dx| {
        let (y, dy) = (&y[i * size..][..dx.len()], &dy[i * size..][..dx.len()]);
        if inner == 1 {
            backward_rows(y, dy, dx, n, accumulate)
        } else {
            backward_columns(y, dy, dx, inner, accumulate)
        }
    });
}

vectorized! {
    fn forward_rows<T: Real>(x: &[T], y: &mut [T], n: usize) {
        for (x, y) in x.chunks(GROUP * n).zip(y.chunks_mut(GROUP * n)) {
            let (mut max, mut log) = ([T::ZERO; GROUP], [T::ONE; GROUP]);
            for (x, m) in x.chunks_exact(n).zip(&mut max) {
                *m = max_number(x);
            }
            for ((x, &m), sum) in x.chunks_exact(n).zip(&max).zip(&mut log) {
                *sum = sum_exp(x, m);
            }
            log.iter_mut().for_each(|s| *s = s.ln());
            for (((x, y), &m), &log) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(&max).zip(&log) {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - m) - log);
            }
        }
    }

    fn backward_rows<T: Real>(y: &[T], dy: &[T], dx: &mut [T], n: usize, accumulate: bool) {
        for ((y, dy), dx) in y.chunks(GROUP * n).zip(dy.chunks(GROUP * n)).zip(dx.chunks_mut(GROUP * n)) {
            let mut sums = [T::ZERO; GROUP];
            for (dy, sum) in dy.chunks_exact(n).zip(&mut sums) {
                *sum = sum_of([dy], |[dy]| dy);
            }
            for (((y, dy), dx), &sum) in y.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)).zip(&sums) {
                if accumulate {
                    zip_lanes([y, dy], dx, |[y, dy], dx| dx + (dy - y.exp_nonpositive() * sum));
                } else {
                    zip_lanes([y, dy], dx, |[y, dy], _| dy - y.exp_nonpositive() * sum);
                }
            }
        }
    }

    /// One slab [n, inner]: vectors run along inner, so no element is gathered.
    fn forward_columns<T: Real>(x: &[T], y: &mut [T], inner: usize) {
        for start in (0..inner).step_by(WIDTH) {
            let at = start..inner.min(start + WIDTH);
            let (mut m, mut sum) = ([T::NEG_INFINITY; WIDTH], [T::ZERO; WIDTH]);
            for x in x.chunks_exact(inner) {
                for (m, &x) in m.iter_mut().zip(&x[at.clone()]) {
                    *m = if x > *m { x } else { *m };
                }
            }
            for x in x.chunks_exact(inner) {
                for ((sum, &x), &m) in sum.iter_mut().zip(&x[at.clone()]).zip(&m) {
                    *sum += (x - m).exp_nonpositive();
                }
            }
            sum.iter_mut().for_each(|s| *s = s.ln());
            for (x, y) in x.chunks_exact(inner).zip(y.chunks_exact_mut(inner)) {
                for (((y, &x), &m), &log) in y[at.clone()].iter_mut().zip(&x[at.clone()]).zip(&m).zip(&sum) {
                    *y = (x - m) - log;
                }
            }
        }
    }

    fn backward_columns<T: Real>(y: &[T], dy: &[T], dx: &mut [T], inner: usize, accumulate: bool) {
        for start in (0..inner).step_by(WIDTH) {
            let at = start..inner.min(start + WIDTH);
            let mut sum = [T::ZERO; WIDTH];
            for dy in dy.chunks_exact(inner) {
                for (sum, &dy) in sum.iter_mut().zip(&dy[at.clone()]) {
                    *sum += dy;
                }
            }
            for ((y, dy), dx) in y.chunks_exact(inner).zip(dy.chunks_exact(inner)).zip(dx.chunks_exact_mut(inner)) {
                let (y, dy) = (&y[at.clone()], &dy[at.clone()]);
                for (((dx, &y), &dy), &sum) in dx[at.clone()].iter_mut().zip(y).zip(dy).zip(&sum) {
                    let d = dy - y.exp_nonpositive() * sum;
                    *dx = if accumulate { *dx + d } else { d };
                }
            }
        }
    }
}

/// log_softmax along axis `dim`.
#[derive(Debug, Clone, Copy)]
pub struct LogSoftmax {
    /// The axis, counted from the end when negative.
    pub dim: i64,
}

impl Op for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("log_softmax", x, 1, 1)?;
        expect_real("log_softmax", "input", &x[0])?;
        rows::around("log_softmax", x[0].shape, self.dim)?;
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let (_, n, inner) = rows::around("log_softmax", x[0].shape(), self.dim)?;
        let mut y = cx.empty(x[0].spec())?;
        cx.launch(&FORWARD, &mut [Arg::In(x[0]), Arg::Out(&mut y), Arg::Size(n), Arg::Size(inner)])?;
        cx.keep(&y);
        Ok(smallvec::smallvec![y])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let (y, Some(dy)) = (&kept[0], &dy[0]) else { return Ok(()) };
        let (_, n, inner) = rows::around("log_softmax", y.shape(), self.dim)?;
        dx[0].write(cx, |cx, out, accumulate| {
            let (n, inner) = (Arg::Size(n), Arg::Size(inner));
            let args = &mut [Arg::In(y), Arg::In(dy), Arg::Out(out), n, inner, Arg::Flag(accumulate)];
            cx.launch(&BACKWARD, args)
        })
    }
}

impl<'t> Var<'t> {
    /// log of softmax along axis `dim` (negative: counted from the end).
    pub fn log_softmax(&self, dim: i64) -> Result<Var<'t>> {
        self.tape().apply1(LogSoftmax { dim }, &[self])
    }
}

/// log_softmax in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "log_softmax",
    doc: "y = x - log(sum(exp(x))) along dim",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[DIM],
    build: |a| Ok(Arc::new(LogSoftmax { dim: a.int("dim")? })),
    kernels: &[&FORWARD, &BACKWARD],
    samples,
};
