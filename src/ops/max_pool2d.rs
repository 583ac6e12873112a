//! max_pool2d: y_o = max x over the window at o, in each plane of `[N, C, H, W]`;  dx adds dy_o where that
//! maximum stood.
//!
//! Of equal maxima the first of the window (row by row) counts, and NaN wins over all, as in torch. The
//! padding takes part in no maximum. Forward keeps where each maximum stood (i32), not x. Cost: a read of x,
//! a write of y and of the positions forward; a write of dx and a scattered add backward.

use super::elementwise::{expect_inputs, expect_real};
use super::rows::per_chunk;
use super::window::{Window, pair};
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::lanes::LANES;
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "max_pool2d";
    /// y = the maxima, place = where in its plane each stood. `window` is the words of the window.
    pub static FORWARD = max_pool2d_forward(x: in T, y: out T, place: out i32, window: val dims);
    /// dx = dy at the places, or dx += when `accumulate`.
    pub static BACKWARD = max_pool2d_backward(
        dy: in T, place: in i32, dx: out T, window: val dims, accumulate: val flag,
    );
}

fn max_pool2d_forward<T: Real>(x: &[T], y: &mut [T], place: &mut [i32], window: &[usize]) {
    let win = Window::of_words(window);
    let (input, output) = (win.pixels_in(), win.pixels_out());
    let planes = per_chunk(output);
    let work = y.len() * win.kernel[0] * win.kernel[1];
    let corner = |o: usize| (o / win.output[1] * win.stride[0] * win.input[1] + o % win.output[1] * win.stride[1]) as i32;
    let corners: Vec<i32> = if win.padding == [0; 2] { (0..output).map(corner).collect() } else { vec![] };
    par::chunks_mut2((y, planes * output), (place, planes * output), work, |i, y, place| {
        let out = y.chunks_exact_mut(output).zip(place.chunks_exact_mut(output));
        for (x, (y, place)) in x[i * planes * input..].chunks_exact(input).zip(out) {
            if corners.is_empty() {
                maxima(x, y, place, win);
            } else {
                maxima_inside(x, y, place, &corners, win);
            }
        }
    });
}

fn max_pool2d_backward<T: Real>(dy: &[T], place: &[i32], dx: &mut [T], window: &[usize], accumulate: bool) {
    let win = Window::of_words(window);
    let (input, output) = (win.pixels_in(), win.pixels_out());
    let planes = per_chunk(input);
    par::chunks_mut(dx, planes * input, dy.len() * 2, |i, dx| {
        if !accumulate {
            dx.fill(T::ZERO);
        }
        let at = i * planes * output;
        let from = dy[at..].chunks_exact(output).zip(place[at..].chunks_exact(output));
        for (dx, (dy, place)) in dx.chunks_exact_mut(input).zip(from) {
            for (&dy, &place) in dy.iter().zip(place) {
                dx[place as usize] += dy;
            }
        }
    });
}

vectorized! {
    /// [`maxima`] where there is no padding: each window is inside, so taps need no check. `corners` are the places of the
    /// windows' first taps, the same in every plane.
    fn maxima_inside<T: Real>(x: &[T], y: &mut [T], place: &mut [i32], corners: &[i32], win: Window) {
        let mut values = [T::ZERO; 4 * LANES];
        let outputs = y.chunks_mut(values.len()).zip(place.chunks_mut(values.len()));
        for ((y, place), corners) in outputs.zip(corners.chunks(values.len())) {
            y.fill(T::NEG_INFINITY);
            place.copy_from_slice(corners);
            for (i, j) in (0..win.kernel[0]).flat_map(|i| (0..win.kernel[1]).map(move |j| (i, j))) {
                let tap = i * win.input[1] + j;
                let x = &x[tap..];
                for (v, &corner) in values.iter_mut().zip(corners) {
                    *v = x[corner as usize];
                }
                for (((best, at), &v), &corner) in y.iter_mut().zip(place.iter_mut()).zip(&values).zip(corners) {
                    let wins = (v > *best) | v.is_nan();
                    *best = if wins { v } else { *best };
                    *at = if wins { corner + tap as i32 } else { *at };
                }
            }
        }
    }

    /// One plane, as many outputs at a time as a vector has lanes: their values are gathered one by one, and
    /// compared side by side without a branch, since which one wins is chance.
    fn maxima<T: Real>(x: &[T], y: &mut [T], place: &mut [i32], win: Window) {
        let ([height, width], [pad_h, pad_w]) = (win.input, win.padding);
        let (mut o, mut column) = (0, 0);
        for (y, place) in y.chunks_mut(LANES).zip(place.chunks_mut(LANES)) {
            // First row and column of each window; in the padding they wrap round to beyond every extent.
            let (mut top, mut left) = ([0; LANES], [0; LANES]);
            for l in 0..y.len() {
                (top[l], left[l]) = ((o * win.stride[0]).wrapping_sub(pad_h), (column * win.stride[1]).wrapping_sub(pad_w));
                column += 1;
                if column == win.output[1] {
                    (o, column) = (o + 1, 0);
                }
            }
            // Until something larger comes, the first place inside: a window may hold nothing but -inf.
            let inside = |v: usize| if v > isize::MAX as usize { 0 } else { v };
            let mut best = [T::NEG_INFINITY; LANES];
            let mut at: [i32; LANES] = std::array::from_fn(|l| (inside(top[l]) * width + inside(left[l])) as i32);
            for i in 0..win.kernel[0] {
                for j in 0..win.kernel[1] {
                    let (mut v, mut from) = ([T::NEG_INFINITY; LANES], [0; LANES]);
                    for l in 0..y.len() {
                        let (r, c) = (top[l].wrapping_add(i), left[l].wrapping_add(j));
                        if r < height && c < width {
                            (v[l], from[l]) = (x[r * width + c], (r * width + c) as i32);
                        }
                    }
                    for l in 0..LANES {
                        let wins = (v[l] > best[l]) | v[l].is_nan();
                        best[l] = if wins { v[l] } else { best[l] };
                        at[l] = if wins { from[l] } else { at[l] };
                    }
                }
            }
            y.copy_from_slice(&best[..y.len()]);
            place.copy_from_slice(&at[..y.len()]);
        }
    }
}

/// Window, step and padding of a pooling op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Extent of the window along H and W.
    pub kernel_size: [usize; 2],
    /// Steps of the window along H and W.
    pub stride: [usize; 2],
    /// Pixels of padding on both sides of H and W, at most half the window.
    pub padding: [usize; 2],
}

impl Pool {
    /// Windows of `n` × `n` side by side.
    pub fn square(n: usize) -> Pool {
        Pool { kernel_size: [n; 2], stride: [n; 2], padding: [0; 2] }
    }

    pub(super) fn of_attrs(op: &str, a: &super::Attrs) -> Result<Pool> {
        let kernel_size = pair(op, a, "kernel_size", 1, [0; 2])?;
        if kernel_size == [0; 2] {
            return Err(Error::attr(op, "kernel_size", "is empty, but must be one number or two (H, W)"));
        }
        let (stride, padding) = (pair(op, a, "stride", 1, kernel_size)?, pair(op, a, "padding", 0, [0; 2])?);
        Ok(Pool { kernel_size, stride, padding })
    }

    pub(super) fn window(&self, op: &str, x: &[Spec]) -> Result<Window> {
        expect_inputs(op, x, 1, 1)?;
        expect_real(op, "input", &x[0])?;
        let (k, p) = (self.kernel_size, self.padding);
        if k.contains(&0) || self.stride.contains(&0) {
            return Err(Error::attr(op, "kernel_size", format!("and stride must be 1 or more, but are {self:?}")));
        }
        if p[0] > k[0] / 2 || p[1] > k[1] / 2 {
            return Err(Error::attr(op, "padding", format!("is {p:?}, but must be at most half of kernel_size {k:?}")));
        }
        Window::new(op, x[0].shape, k, self.stride, p, [1; 2])
    }

    /// Spec of what a pooling of `x` gives.
    pub(super) fn output(x: &Spec, win: &Window) -> Spec {
        x.with_shape(x.shape.with(2, win.output[0]).with(3, win.output[1]))
    }

    pub(super) const ATTRS: [AttrDoc; 3] = [
        AttrDoc {
            name: "kernel_size",
            kind: Kind::Ints,
            default: None,
            doc: "extent of the window: one number, or one for H and one for W",
        },
        AttrDoc { name: "stride", kind: Kind::Ints, default: Some(""), doc: "steps of the window; empty: kernel_size" },
        AttrDoc {
            name: "padding",
            kind: Kind::Ints,
            default: Some("0"),
            doc: "padding on both sides, at most half of kernel_size",
        },
    ];
}

/// The largest value under a sliding window.
#[derive(Debug, Clone, Copy)]
pub struct MaxPool2d(pub Pool);

impl Op for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        let win = self.0.window("max_pool2d", x)?;
        if i32::try_from(win.pixels_in()).is_err() {
            let what = format!("input has shape {}, but a plane must have fewer than 2^31 elements", x[0].shape);
            return Err(Error::shape("max_pool2d", what));
        }
        Ok(smallvec::smallvec![Pool::output(&x[0], &win)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let win = self.0.window("max_pool2d", &[x[0].spec()])?;
        let spec = Pool::output(&x[0].spec(), &win);
        let mut y = cx.empty(spec)?;
        let mut place = cx.empty(Spec { dtype: DType::I32, ..spec })?;
        let (y_out, place_out) = (Arg::Out(&mut y), Arg::Out(&mut place));
        cx.launch(&FORWARD, &mut [Arg::In(x[0]), y_out, place_out, Arg::Dims(&win.words())])?;
        cx.keep(&place);
        Ok(smallvec::smallvec![y])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let window = self.0.window("max_pool2d", &[dx[0].spec()])?.words();
        dx[0].write(cx, |cx, out, accumulate| {
            let (place, flag) = (Arg::In(&kept[0]), Arg::Flag(accumulate));
            cx.launch(&BACKWARD, &mut [Arg::In(dy), place, Arg::Out(out), Arg::Dims(&window), flag])
        })
    }
}

impl<'t> Var<'t> {
    /// The largest value under a window that slides over the last two axes of [N, C, H, W].
    pub fn max_pool2d(&self, pool: Pool) -> Result<Var<'t>> {
        self.tape().apply1(MaxPool2d(pool), &[self])
    }
}

/// max_pool2d in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "max_pool2d",
    doc: "the largest value under a sliding window",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &Pool::ATTRS,
    build: |a| Ok(Arc::new(MaxPool2d(Pool::of_attrs("max_pool2d", a)?))),
    kernels: &[&FORWARD, &BACKWARD],
    samples: || {
        let of = |note, k: &str, dims: &[usize]| {
            Sample::new(note).attr("kernel_size", k).input(dims, Fill::Apart(0.01))
        };
        vec![
            of("2 x 2", "2", &[2, 3, 4, 6]),
            of("a rest that no window covers", "2", &[1, 2, 5, 7]),
            of("overlapping, padded", "3", &[2, 1, 5, 4]).attr("stride", "1").attr("padding", "1"),
            of("stride 3, one axis padded", "2,4", &[1, 2, 5, 8]).attr("stride", "2,3").attr("padding", "0,2"),
            of("whole plane", "3,5", &[2, 2, 3, 5]),
            of("one pixel", "1", &[1, 1, 1, 1]),
            of("no images", "2", &[0, 2, 4, 4]),
            of("64 x 16 x 28 x 28", "2", &[64, 16, 28, 28]).large(),
        ]
    },
};
