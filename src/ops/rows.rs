//! What ops over the rows of a tensor share: how rows are cut into chunks, loops over one row, and sums over
//! all rows.

use super::elementwise::expect_real;
use crate::error::{Error, Result};
use crate::kernel::lanes::LANES;
use crate::kernel::reduce::sum_of;
use crate::kernel::{Arg, Real, par};
use crate::shape::{Shape, Spec};
use crate::tape::{Adjoint, Cx};
use crate::tensor::Tensor;
use crate::{kernel, vectorized};
use std::ops::Range;

/// Rows whose sum over rows is one partial sum. Partial sums are then added in order, so the bits do not
/// depend on the number of threads.
pub(crate) const BLOCK: usize = 64;

/// Rows of `n` elements in one chunk of a parallel loop over independent rows.
pub(crate) fn per_chunk(n: usize) -> usize {
    (par::CHUNK / n.max(1)).max(1)
}

/// Elements before, along and after the axis `dim`; a scalar counts as one row of one element.
pub(crate) fn around(op: &str, shape: Shape, dim: i64) -> Result<(usize, usize, usize)> {
    let shape = if shape.rank() == 0 { Shape::new(&[1])? } else { shape };
    Ok(shape.around(shape.axis(op, dim)?))
}

/// Extent of the last axis of the real input `x`, after a check that each of `others` (weight, bias) has one
/// value for each of its elements.
pub(crate) fn last_axis(op: &str, x: &Spec, others: &[Spec], names: &[&str]) -> Result<usize> {
    expect_real(op, "input", x)?;
    if x.shape.rank() == 0 {
        return Err(Error::shape(op, format!("input has shape {}, but needs an axis", x.shape)));
    }
    let n = x.shape.last();
    for (other, name) in others.iter().zip(names) {
        if other.dtype != x.dtype {
            return Err(Error::dtype(op, format!("input is {x} but {name} is {other}")));
        }
        if other.shape.dims() != [n] {
            let what = format!("{name} has shape {}, but input {} wants [{n}]", other.shape, x.shape);
            return Err(Error::shape(op, what));
        }
    }
    Ok(n)
}

/// Calls `f(rows, dx of these rows, partial sums of these rows)` for each block of rows. `extents` = rows,
/// elements of a row of dx, elements of a partial sum; an output that nobody wants is empty throughout.
pub(crate) fn blocks<T: Real>(
    dx: &mut [T],
    parts: &mut [T],
    extents: [usize; 3],
    f: impl Fn(Range<usize>, &mut [T], &mut [T]) + Send + Sync,
) {
    let [rows, n, m] = extents;
    let at = |i: usize| i * BLOCK..rows.min((i + 1) * BLOCK);
    let work = rows * n / 2;
    if parts.is_empty() {
        par::chunks_mut(dx, BLOCK * n, work, |i, dx| f(at(i), dx, &mut []));
    } else if dx.is_empty() {
        par::chunks_mut(parts, m, work, |i, parts| f(at(i), &mut [], parts));
    } else {
        par::chunks_mut2((dx, BLOCK * n), (parts, m), work, |i, dx, parts| f(at(i), dx, parts));
    }
}

/// `out`, or `scratch` with `len` elements when `out` is empty.
pub(crate) fn or_scratch<'a, T: Real>(out: &'a mut [T], scratch: &'a mut Vec<T>, len: usize) -> &'a mut [T] {
    if !out.is_empty() {
        return out;
    }
    scratch.resize(len, T::ZERO);
    scratch
}

/// `given`, or `scratch` filled with `value` when nothing is given: what stands in for an absent weight or bias, so that the
/// loops have one form.
pub(crate) fn or_filled<'a, T: Real>(given: &'a [T], scratch: &'a mut Vec<T>, value: T, n: usize) -> &'a [T] {
    if !given.is_empty() {
        return given;
    }
    scratch.resize(n, value);
    scratch
}

/// Backward of a norm over rows of `x`: `launch(cx, dx, parts, accumulate)` runs the kernel that fills dx
/// and, for each block of rows, `pitch` partial sums: those of the first of `rest`, then those of the second.
pub(crate) fn backward(
    cx: &Cx<'_>,
    dx: &mut Adjoint,
    rest: &mut [Adjoint],
    x: &Tensor,
    pitch: usize,
    launch: impl Fn(&Cx<'_>, Arg<'_>, Arg<'_>, bool) -> Result<()>,
) -> Result<()> {
    let n = x.shape().last();
    let count = (x.len() / n.max(1)).div_ceil(BLOCK);
    let wanted = rest.iter().any(Adjoint::wanted);
    let mut parts = wanted.then(|| cx.empty(Spec::new(x.dtype(), &[count, pitch])?)).transpose()?;
    if dx.wanted() {
        dx.write(cx, |cx, out, accumulate| {
            launch(cx, Arg::Out(out), parts.as_mut().map_or(Arg::Absent, Arg::Out), accumulate)
        })?;
    } else if let Some(parts) = &mut parts {
        launch(cx, Arg::Absent, Arg::Out(parts), false)?;
    }
    let Some(parts) = parts else { return Ok(()) };
    for (i, d) in rest.iter_mut().enumerate() {
        d.write(cx, |cx, out, accumulate| sum_into(cx, &parts, i * n, out, accumulate))?;
    }
    Ok(())
}

/// `out` = the sum over the first axis of `parts` of their elements from `offset` on, or `out` += when
/// `accumulate`.
pub(crate) fn sum_into(
    cx: &Cx<'_>,
    parts: &Tensor,
    offset: usize,
    out: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let (count, flag) = (Arg::Size(parts.dims()[0]), Arg::Flag(accumulate));
    cx.launch(&SUM_PARTS, &mut [Arg::In(parts), Arg::Out(out), count, Arg::Size(offset), flag])
}

kernel! {
    ptx "rows";
    /// y = the sum over parts of their elements from `offset` on, or y += when `accumulate`; `parts` is
    /// [`count`, pitch] with pitch >= offset + elements of y.
    pub(crate) static SUM_PARTS = sum_parts(
        parts: in T, y: out T, count: val size, offset: val size, accumulate: val flag,
    );
}

fn sum_parts<T: Real>(parts: &[T], y: &mut [T], count: usize, offset: usize, accumulate: bool) {
    let pitch = parts.len() / count.max(1);
    par::chunks_mut(y, par::CHUNK, y.len() * count / 4, |i, y| {
        if !accumulate {
            y.fill(T::ZERO);
        }
        for part in parts.chunks_exact(pitch.max(1)) {
            add(&part[offset + i * par::CHUNK..][..y.len()], y);
        }
    });
}

vectorized! {
    fn add<T: Real>(x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

/// Rows that kernels with a sum a row take together, a walk for each step: rows are independent, so the processor works on
/// several at a time, which the chain from a row's elements to its sum and back would keep it from. Few enough for the L1
/// cache.
pub(crate) const GROUP: usize = 8;

/// y = v, or y += v when `ADD`: for loops that are compiled once for each.
#[inline(always)]
pub(crate) fn put<T: Real, const ADD: bool>(y: &mut T, v: T) {
    *y = if ADD { *y + v } else { v };
}

/// y = f(x…, y), element by element, in whole vectors: one scalar exp costs as much as a vector of them, so
/// the tail is the last whole vector of the row once more, with the elements that are done already left as
/// they are.
#[inline(always)]
pub(crate) fn zip_lanes<T: Real, const N: usize>(x: [&[T]; N], y: &mut [T], f: impl Fn([T; N], T) -> T) {
    let n = y.len();
    let whole = x.map(|x| x[..n].as_chunks::<LANES>().0);
    let (ys, tail) = y.as_chunks_mut::<LANES>();
    for (i, y) in ys.iter_mut().enumerate() {
        let x = whole.map(|x| &x[i]);
        for l in 0..LANES {
            y[l] = f(x.map(|x| x[l]), y[l]);
        }
    }
    if tail.is_empty() {
        return;
    }
    if n < LANES {
        tail.iter_mut().enumerate().for_each(|(l, y)| *y = f(x.map(|x| x[l]), *y));
        return;
    }
    let (from, done) = (n - LANES, LANES - n % LANES);
    let x = x.map(|x| &x[from..n]);
    let y = &mut y[from..];
    for l in 0..LANES {
        let v = f(x.map(|x| x[l]), y[l]);
        y[l] = if l >= done { v } else { y[l] };
    }
}

/// Σ e^(x − m), in whole vectors as [`zip_lanes`].
#[inline(always)]
pub(crate) fn sum_exp<T: Real>(x: &[T], m: T) -> T {
    let (xs, tail) = x.as_chunks::<LANES>();
    let mut sums = [T::ZERO; LANES];
    for x in xs {
        for l in 0..LANES {
            sums[l] += (x[l] - m).exp_nonpositive();
        }
    }
    if let (false, Some(last)) = (tail.is_empty(), x.last_chunk::<LANES>()) {
        let done = LANES - tail.len();
        for l in 0..LANES {
            let e = (last[l] - m).exp_nonpositive();
            sums[l] += if l >= done { e } else { T::ZERO };
        }
    } else {
        for (sum, &x) in sums.iter_mut().zip(tail) {
            *sum += (x - m).exp_nonpositive();
        }
    }
    sum_of([&sums], |[s]| s)
}
