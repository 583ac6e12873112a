//! softmax: y_i = e^(x_i − m) / Σ_j e^(x_j − m) along one axis, m = max x;
//! dx_i = y_i · (dy_i − Σ_j dy_j·y_j).
//!
//! Subtracting m changes nothing in exact arithmetic and keeps every power within [0, 1]. As in torch, a row
//! of nothing but -inf (and one that holds +inf or NaN) is NaN throughout: −inf − (−inf) has no value. Cost:
//! one pass over memory forward (a row stays in cache for its three walks), two reads and a write backward.

use super::elementwise::{expect_inputs, expect_real};
use super::rows::{self, GROUP, per_chunk, put, zip_lanes};
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::Result;
use crate::kernel::reduce::{sum_lanes, sum_of};
use crate::kernel::lanes::{LANES, max_number};
use crate::kernel::{Arg, Real, par};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "softmax";
    /// y = softmax(x) along the middle of [outer, n, inner].
    pub static FORWARD = softmax_forward(x: in T, y: out T, n: val size, inner: val size) blocks(if inner == 1 { (y / n.max(1)).div_ceil(8) } else { (y / n.max(1)).div_ceil(256) });
    /// dx = y·(dy − Σ dy·y), or dx += when `accumulate`.
    pub static BACKWARD = softmax_backward(
        y: in T, dy: in T, dx: out T, n: val size, inner: val size, accumulate: val flag,
    ) blocks(if inner == 1 { (dx / n.max(1)).div_ceil(8) } else { (dx / n.max(1)).div_ceil(256) });
}

fn softmax_forward<T: Real>(x: &[T], y: &mut [T], n: usize, inner: usize) {
    let size = n * inner * if inner == 1 { per_chunk(n) } else { 1 };
    par::chunks_mut(y, size, x.len() / 2, |i, y| {
        let x = &x[i * size..][..y.len()];
        if inner == 1 { forward_rows(x, y, n) } else { forward_columns(x, y, inner) }
    });
}

fn softmax_backward<T: Real>(y: &[T], dy: &[T], dx: &mut [T], n: usize, inner: usize, accumulate: bool) {
    let size = n * inner * if inner == 1 { per_chunk(n) } else { 1 };
    par::chunks_mut(dx, size, y.len() / 3, |i, dx| {
        let (y, dy) = (&y[i * size..][..dx.len()], &dy[i * size..][..dx.len()]);
        if inner == 1 {
            backward_rows(y, dy, dx, n, accumulate)
        } else {
            backward_columns(y, dy, dx, inner, accumulate)
        }
    });
}

/// Columns that the strided loops walk side by side.
pub(super) const WIDTH: usize = 64;

vectorized! {
    fn forward_rows<T: Real>(x: &[T], y: &mut [T], n: usize) {
        for (x, y) in x.chunks(GROUP * n).zip(y.chunks_mut(GROUP * n)) {
            let mut stats = [T::ZERO; GROUP];
            for (x, m) in x.chunks_exact(n).zip(&mut stats) {
                *m = max_number(x);
            }
            for ((x, y), &m) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(&stats) {
                zip_lanes([x], y, |[x], _| (x - m).exp_nonpositive());
            }
            for (y, scale) in y.chunks_exact(n).zip(&mut stats) {
                *scale = T::ONE / sum_of([y], |[y]| y);
            }
            for (y, &scale) in y.chunks_exact_mut(n).zip(&stats) {
                y.iter_mut().for_each(|y| *y *= scale);
            }
        }
    }

    fn backward_rows<T: Real>(y: &[T], dy: &[T], dx: &mut [T], n: usize, accumulate: bool) {
        if accumulate {
            gradients::<T, true>(y, dy, dx, n);
        } else {
            gradients::<T, false>(y, dy, dx, n);
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
            for (x, y) in x.chunks_exact(inner).zip(y.chunks_exact_mut(inner)) {
                let (x, y) = (&x[at.clone()], &mut y[at.clone()]);
                for (((y, &x), &m), sum) in y.iter_mut().zip(x).zip(&m).zip(&mut sum) {
                    *y = (x - m).exp_nonpositive();
                    *sum += *y;
                }
            }
            for y in y.chunks_exact_mut(inner) {
                for (y, &sum) in y[at.clone()].iter_mut().zip(&sum) {
                    *y /= sum;
                }
            }
        }
    }

    fn backward_columns<T: Real>(y: &[T], dy: &[T], dx: &mut [T], inner: usize, accumulate: bool) {
        for start in (0..inner).step_by(WIDTH) {
            let at = start..inner.min(start + WIDTH);
            let mut dot = [T::ZERO; WIDTH];
            for (y, dy) in y.chunks_exact(inner).zip(dy.chunks_exact(inner)) {
                for ((dot, &y), &dy) in dot.iter_mut().zip(&y[at.clone()]).zip(&dy[at.clone()]) {
                    *dot += dy * y;
                }
            }
            for ((y, dy), dx) in y.chunks_exact(inner).zip(dy.chunks_exact(inner)).zip(dx.chunks_exact_mut(inner)) {
                let (y, dy) = (&y[at.clone()], &dy[at.clone()]);
                for (((dx, &y), &dy), &dot) in dx[at.clone()].iter_mut().zip(y).zip(dy).zip(&dot) {
                    let d = y * (dy - dot);
                    *dx = if accumulate { *dx + d } else { d };
                }
            }
        }
    }
}

/// dx of each row. The sum of a row is made in the walk that writes dx of the row before: memory is read without a pause,
/// and each row is in the L1 cache when it comes to be written.
#[inline(always)]
fn gradients<T: Real, const ADD: bool>(y: &[T], dy: &[T], dx: &mut [T], n: usize) {
    let mut dot = sum_of([&y[..n], &dy[..n]], |[y, dy]| dy * y);
    let (mut rows, mut done) = (dx.chunks_exact_mut(n), 0);
    let last = rows.next_back();
    for dx in rows {
        let (now, next) = (done..done + n, done + n..done + 2 * n);
        dot = step::<T, ADD>(&y[now.clone()], &dy[now], &y[next.clone()], &dy[next], dx, dot);
        done += n;
    }
    for ((dx, &y), &dy) in last.into_iter().flatten().zip(&y[done..]).zip(&dy[done..]) {
        put::<T, ADD>(dx, y * (dy - dot));
    }
}

/// dx of a row whose sum is `dot`; gives the sum of the next, in the order of [`sum_of`]. A slice each, not an array of them:
/// of arguments alone the compiler knows that they do not overlap.
#[inline(always)]
fn step<T: Real, const ADD: bool>(
    y: &[T],
    dy: &[T],
    y_next: &[T],
    dy_next: &[T],
    dx: &mut [T],
    dot: T,
) -> T {
    let (n, whole) = (dx.len(), dx.len() / LANES);
    let mut sums = [T::ZERO; LANES];
    {
        let (y, dy) = (&y.as_chunks::<LANES>().0[..whole], &dy.as_chunks::<LANES>().0[..whole]);
        let y_next = &y_next.as_chunks::<LANES>().0[..whole];
        let dy_next = &dy_next.as_chunks::<LANES>().0[..whole];
        let dx = &mut dx.as_chunks_mut::<LANES>().0[..whole];
        for i in 0..whole {
            for l in 0..LANES {
                sums[l] += dy_next[i][l] * y_next[i][l];
            }
            for l in 0..LANES {
                put::<T, ADD>(&mut dx[i][l], y[i][l] * (dy[i][l] - dot));
            }
        }
    }
    for j in whole * LANES..n {
        sums[j - whole * LANES] += dy_next[j] * y_next[j];
        put::<T, ADD>(&mut dx[j], y[j] * (dy[j] - dot));
    }
    sum_lanes(std::hint::black_box(sums))
}

/// softmax along axis `dim`.
#[derive(Debug, Clone, Copy)]
pub struct Softmax {
    /// The axis, counted from the end when negative.
    pub dim: i64,
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("softmax", x, 1, 1)?;
        expect_real("softmax", "input", &x[0])?;
        rows::around("softmax", x[0].shape, self.dim)?;
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let (_, n, inner) = rows::around("softmax", x[0].shape(), self.dim)?;
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
        let (_, n, inner) = rows::around("softmax", y.shape(), self.dim)?;
        dx[0].write(cx, |cx, out, accumulate| {
            let (n, inner) = (Arg::Size(n), Arg::Size(inner));
            let args = &mut [Arg::In(y), Arg::In(dy), Arg::Out(out), n, inner, Arg::Flag(accumulate)];
            cx.launch(&BACKWARD, args)
        })
    }
}

impl<'t> Var<'t> {
    /// softmax along axis `dim` (negative: counted from the end).
    pub fn softmax(&self, dim: i64) -> Result<Var<'t>> {
        self.tape().apply1(Softmax { dim }, &[self])
    }
}

pub(super) const DIM: AttrDoc = AttrDoc {
    name: "dim",
    kind: Kind::Int,
    default: Some("-1"),
    doc: "the axis along which values sum to 1; negative counts from the end",
};

/// Samples of softmax and log_softmax: every position of the axis, tails shorter and longer than a vector.
pub(super) fn samples() -> Vec<Sample> {
    vec![
        Sample::new("last axis").normal(&[5, 7]),
        Sample::new("rows longer than a vector").normal(&[3, 37]),
        Sample::new("first axis").attr("dim", 0).normal(&[5, 7]),
        Sample::new("middle axis").attr("dim", -2).normal(&[2, 3, 5]),
        Sample::new("first of four, wide").attr("dim", -4).normal(&[3, 2, 5, 7]),
        Sample::new("one row").attr("dim", 0).normal(&[9]),
        Sample::new("one class").normal(&[4, 1]),
        Sample::new("scalar").normal(&[]),
        Sample::new("no rows").normal(&[0, 4]),
        Sample::new("empty rows").normal(&[4, 0]),
        Sample::new("far apart").input(&[4, 5], Fill::Normal(30.0)),
        Sample::new("4096 x 256").normal(&[4096, 256]).large(),
        Sample::new("middle of 64 x 256 x 64").attr("dim", 1).normal(&[64, 256, 64]).large(),
    ]
}

/// softmax in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "softmax",
    doc: "y = exp(x) / sum(exp(x)) along dim",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[DIM],
    build: |a| Ok(Arc::new(Softmax { dim: a.int("dim")? })),
    kernels: &[&FORWARD, &BACKWARD],
    samples,
};
