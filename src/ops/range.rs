//! The kernel under narrow, split and cat: moving a range of one axis. Seen as [outer, axis·inner], a range of the axis is
//! `len` consecutive elements of each outer row.

use crate::error::Result;
use crate::kernel::{Arg, Real, par};
use crate::tape::Cx;
use crate::tensor::Tensor;
use crate::{kernel, vectorized};

kernel! {
    ptx "range";
    /// For each of `rows`: y[r·y_pitch + y_at ..][..len] = x[r·x_pitch + x_at ..][..len], or += when `accumulate`.
    pub(super) static COPY_RANGE = copy_range(
        x: in T, y: out T, rows: val size, len: val size, x_pitch: val size, x_at: val size, y_pitch: val size,
        y_at: val size, accumulate: val flag,
    ) blocks((rows * len).div_ceil(256));
}

#[allow(clippy::too_many_arguments)]
fn copy_range<T: Real>(
    x: &[T],
    y: &mut [T],
    rows: usize,
    len: usize,
    x_pitch: usize,
    x_at: usize,
    y_pitch: usize,
    y_at: usize,
    accumulate: bool,
) {
    if len == 0 || rows == 0 {
        return;
    }
    // A single long row is cut too, so that both cases run in parallel.
    if rows == 1 {
        let (x, y) = (&x[x_at..][..len], &mut y[y_at..][..len]);
        return par::chunks_mut(y, par::CHUNK, len / 4, |i, y| {
            move_row(&x[i * par::CHUNK..][..y.len()], y, accumulate)
        });
    }
    let some = (par::CHUNK / y_pitch.max(1)).max(1);
    par::chunks_mut(&mut y[..rows * y_pitch], some * y_pitch, rows * len / 4, |i, y| {
        for (j, y) in y.chunks_mut(y_pitch).enumerate() {
            let x = &x[(i * some + j) * x_pitch + x_at..][..len];
            move_row(x, &mut y[y_at..][..len], accumulate);
        }
    });
}

vectorized! {
    fn move_row<T: Real>(x: &[T], y: &mut [T], accumulate: bool) {
        if accumulate {
            for (y, &x) in y.iter_mut().zip(x) {
                *y += x;
            }
        } else {
            y.copy_from_slice(x);
        }
    }
}

/// A range of one axis of a tensor: `start..start + n` of `axis`.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) axis: usize,
    pub(super) start: usize,
    pub(super) n: usize,
}

impl Range {
    /// The range of `x` as a tensor of its own: a view when the range is contiguous.
    pub(super) fn take(self, cx: &Cx<'_>, x: &Tensor) -> Result<Tensor> {
        let (outer, all, inner) = x.shape().around(self.axis);
        let shape = x.shape().with(self.axis, self.n);
        if outer == 1 {
            return x.window(self.start * inner, shape.dims());
        }
        let mut y = cx.empty(x.spec().with_shape(shape))?;
        let whole = (all * inner, self.start * inner);
        run(cx, (x, whole.0, whole.1), (&mut y, self.n * inner, 0), (outer, self.n * inner), false)?;
        Ok(y)
    }

    /// Puts `part` into the range of `y`, or adds it there.
    pub(super) fn put(self, cx: &Cx<'_>, part: &Tensor, y: &mut Tensor, accumulate: bool) -> Result<()> {
        let (outer, all, inner) = y.shape().around(self.axis);
        let to = (y, all * inner, self.start * inner);
        run(cx, (part, self.n * inner, 0), to, (outer, self.n * inner), accumulate)
    }
}

fn run(
    cx: &Cx<'_>,
    (x, x_pitch, x_at): (&Tensor, usize, usize),
    (y, y_pitch, y_at): (&mut Tensor, usize, usize),
    (rows, len): (usize, usize),
    accumulate: bool,
) -> Result<()> {
    let [rows, len, x_pitch, x_at, y_pitch, y_at] = [rows, len, x_pitch, x_at, y_pitch, y_at].map(Arg::Size);
    let flag = Arg::Flag(accumulate);
    cx.launch(&COPY_RANGE, &mut [Arg::In(x), Arg::Out(y), rows, len, x_pitch, x_at, y_pitch, y_at, flag])
}
