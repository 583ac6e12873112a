//! avg_pool2d: y_o = Σ x / count over the window at o, in each plane of `[N, C, H, W]`;  dx adds dy_o / count at
//! each place of that window.
//!
//! count is the size of the window; without `count_include_pad` it is the number of its places that lie
//! inside the input. Cost: a read of x and a write of y forward, a read of dy and a write of dx backward.

use super::max_pool2d::Pool;
use super::rows::per_chunk;
use super::window::{Window, strided};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::Result;
use crate::kernel::{Arg, Real, par};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "avg_pool2d";
    /// y = the means; `window` is the words of the window, `padded` says that padding counts.
    pub static FORWARD = avg_pool2d_forward(x: in T, y: out T, window: val dims, padded: val flag);
    /// dx = the shares of dy, or dx += when `accumulate`.
    pub static BACKWARD = avg_pool2d_backward(
        dy: in T, dx: out T, window: val dims, padded: val flag, accumulate: val flag,
    );
}

fn avg_pool2d_forward<T: Real>(x: &[T], y: &mut [T], window: &[usize], padded: bool) {
    let win = Window::of_words(window);
    let (input, output) = (win.pixels_in(), win.pixels_out());
    let planes = per_chunk(output);
    let work = y.len() * win.kernel[0] * win.kernel[1] / 2;
    par::chunks_mut(y, planes * output, work, |i, y| {
        for (x, y) in x[i * planes * input..].chunks_exact(input).zip(y.chunks_exact_mut(output)) {
            means(x, y, win, padded);
        }
    });
}

fn avg_pool2d_backward<T: Real>(dy: &[T], dx: &mut [T], window: &[usize], padded: bool, accumulate: bool) {
    let win = Window::of_words(window);
    let (input, output) = (win.pixels_in(), win.pixels_out());
    let planes = per_chunk(input);
    let work = dy.len() * win.kernel[0] * win.kernel[1] / 2;
    par::chunks_mut(dx, planes * input, work, |i, dx| {
        if !accumulate {
            dx.fill(T::ZERO);
        }
        for (dx, dy) in dx.chunks_exact_mut(input).zip(dy[i * planes * output..].chunks_exact(output)) {
            shares(dy, dx, win, padded);
        }
    });
}

/// What the sum of output (row, column) is divided by.
#[inline(always)]
fn count<T: Real>(win: &Window, row: usize, column: usize, padded: bool) -> T {
    let n = if padded { win.kernel[0] * win.kernel[1] } else { win.taps(0, row) * win.taps(1, column) };
    T::of(n as f64)
}

vectorized! {
    /// One plane, tap by tap, so that the loop inside runs over outputs side by side.
    fn means<T: Real>(x: &[T], y: &mut [T], win: Window, padded: bool) {
        let width = win.output[1];
        y.fill(T::ZERO);
        win.sweep(|o, columns, from| {
            let y = &mut y[o * width..][columns];
            strided(&x[from..], win.stride[1], y.len(), |start, x| {
                y[start..].iter_mut().zip(x).for_each(|(y, &x)| *y += x);
            });
        });
        for (o, y) in y.chunks_exact_mut(width).enumerate() {
            for (column, y) in y.iter_mut().enumerate() {
                *y /= count::<T>(&win, o, column, padded);
            }
        }
    }

    fn shares<T: Real>(dy: &[T], dx: &mut [T], win: Window, padded: bool) {
        let (width, step) = (win.output[1], win.stride[1]);
        win.sweep(|o, columns, from| {
            let dy = &dy[o * width..][..width];
            for (k, column) in columns.enumerate() {
                dx[from + k * step] += dy[column] / count::<T>(&win, o, column, padded);
            }
        });
    }
}

/// The mean under a sliding window.
#[derive(Debug, Clone, Copy)]
pub struct AvgPool2d {
    /// Window, step and padding.
    pub pool: Pool,
    /// Whether padding counts as zeros (torch's default) or not at all.
    pub count_include_pad: bool,
}

impl Op for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        let win = self.pool.window("avg_pool2d", x)?;
        Ok(smallvec::smallvec![Pool::output(&x[0], &win)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let win = self.pool.window("avg_pool2d", &[x[0].spec()])?;
        let mut y = cx.empty(Pool::output(&x[0].spec(), &win))?;
        let (words, padded) = (win.words(), Arg::Flag(self.count_include_pad));
        cx.launch(&FORWARD, &mut [Arg::In(x[0]), Arg::Out(&mut y), Arg::Dims(&words), padded])?;
        Ok(smallvec::smallvec![y])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        _: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let window = self.pool.window("avg_pool2d", &[dx[0].spec()])?.words();
        dx[0].write(cx, |cx, out, accumulate| {
            let flags = (Arg::Flag(self.count_include_pad), Arg::Flag(accumulate));
            cx.launch(&BACKWARD, &mut [Arg::In(dy), Arg::Out(out), Arg::Dims(&window), flags.0, flags.1])
        })
    }
}

impl<'t> Var<'t> {
    /// The mean under a window that slides over the last two axes of [N, C, H, W]; padding counts as zeros.
    pub fn avg_pool2d(&self, pool: Pool) -> Result<Var<'t>> {
        self.tape().apply1(AvgPool2d { pool, count_include_pad: true }, &[self])
    }
}

/// avg_pool2d in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "avg_pool2d",
    doc: "the mean under a sliding window",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[
        Pool::ATTRS[0],
        Pool::ATTRS[1],
        Pool::ATTRS[2],
        AttrDoc {
            name: "count_include_pad",
            kind: Kind::Bool,
            default: Some("true"),
            doc: "padding counts as zeros; else only places inside the input count",
        },
    ],
    build: |a| {
        let (pool, count_include_pad) = (Pool::of_attrs("avg_pool2d", a)?, a.flag("count_include_pad")?);
        Ok(Arc::new(AvgPool2d { pool, count_include_pad }))
    },
    kernels: &[&FORWARD, &BACKWARD],
    samples: || {
        let of = |note, k: &str, dims: &[usize]| Sample::new(note).attr("kernel_size", k).normal(dims);
        vec![
            of("2 x 2", "2", &[2, 3, 4, 6]),
            of("a rest that no window covers", "2", &[1, 2, 5, 7]),
            of("overlapping, padding counts", "3", &[2, 1, 5, 4]).attr("stride", "1").attr("padding", "1"),
            of("padding left out", "3", &[1, 2, 5, 4])
                .attr("stride", "2")
                .attr("padding", "1")
                .attr("count_include_pad", false),
            of("stride 3, one axis padded", "2,4", &[1, 2, 5, 8])
                .attr("stride", "2,3")
                .attr("padding", "0,2")
                .attr("count_include_pad", false),
            of("whole plane", "3,5", &[2, 2, 3, 5]),
            of("one pixel", "1", &[1, 1, 1, 1]),
            of("no images", "2", &[0, 2, 4, 4]),
            of("64 x 16 x 28 x 28", "2", &[64, 16, 28, 28]).large(),
        ]
    },
};
