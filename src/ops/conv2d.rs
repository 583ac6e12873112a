//! conv2d: y_n = w·col(x_n) + b for each image n, where column p of col(x) is the patch of x under the window at
//! output pixel p, all channels of it:
//!
//! dw = Σ_n dy_n·col(x_n)ᵀ,  db = Σ_n Σ_p dy_n,  dcol = wᵀ·dy_n, each entry of which dx_n adds where col took it.
//!
//! So each is a matrix product. Patches are gathered a band of output rows at a time into scratch memory that
//! stays in cache; images are cut into `PARTS` fixed parts that run in parallel, dw as one partial sum a
//! part, added in order. Cost: 2·N·O·P·K flops a product, three products for a step.

use super::elementwise::{expect_inputs, expect_real};
use super::rows::{SUM_PARTS, sum_into};
use super::patches::{PARTS, Plan};
use super::window::{Window, pair};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::gemm::{View, ViewMut};
use crate::kernel::lanes::sum_by;
use crate::kernel::{Arg, Real, par};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "conv2d";
    /// y = w∗x + b; b may be absent. `extents` = [N, C, O, groups], `window` its words, `scratch` a band for
    /// each part.
    pub static FORWARD = conv2d_forward(
        x: in T, w: in T, b: in T, y: out T, scratch: out T, extents: val dims, window: val dims,
    );
    /// dx, or dx += when `accumulate`.
    pub static BACKWARD_INPUT = conv2d_backward_input(
        w: in T, dy: in T, dx: out T, scratch: out T, extents: val dims, window: val dims, accumulate: val flag,
    );
    /// parts = [dw, db] of each part of the images.
    pub static BACKWARD_WEIGHT = conv2d_backward_weight(
        x: in T, dy: in T, parts: out T, scratch: out T, extents: val dims, window: val dims,
    );
}

fn conv2d_forward<T: Real>(
    x: &[T],
    w: &[T],
    b: &[T],
    y: &mut [T],
    scratch: &mut [T],
    extents: &[usize],
    window: &[usize],
) {
    let p = Plan::new(extents, window);
    let (image, output, k) = (p.c * p.win.pixels_in(), p.o * p.win.pixels_out(), p.k());
    if y.is_empty() {
        return;
    }
    par::chunks_mut2((y, p.images() * output), (scratch, p.scratch()), p.work(), |i, y, scratch| {
        for (j, y) in y.chunks_exact_mut(output).enumerate() {
            let x = &x[(i * p.images() + j) * image..][..image];
            for (y, &b) in y.chunks_exact_mut(p.win.pixels_out()).zip(b) {
                y.fill(b);
            }
            for (g, rows) in p.bands() {
                let (pixels, width) = (p.win.pixels_out(), p.win.output[1]);
                let cols = p.patches(&x[p.channels(g)], &rows, scratch);
                let w = View::new(&w[g * p.rows() * k..][..p.rows() * k], p.rows(), k);
                let y = &mut y[g * p.rows() * pixels + rows.start * width..];
                T::gemm(w, cols, T::ONE, !b.is_empty(), ViewMut::pitched(y, p.rows(), rows.len() * width, pixels));
            }
        }
    });
}

fn conv2d_backward_input<T: Real>(
    w: &[T],
    dy: &[T],
    dx: &mut [T],
    scratch: &mut [T],
    extents: &[usize],
    window: &[usize],
    accumulate: bool,
) {
    let p = Plan::new(extents, window);
    let (image, output, k) = (p.c * p.win.pixels_in(), p.o * p.win.pixels_out(), p.k());
    if dx.is_empty() {
        return;
    }
    par::chunks_mut2((dx, p.images() * image), (scratch, p.scratch()), p.work(), |i, dx, scratch| {
        for (j, dx) in dx.chunks_exact_mut(image).enumerate() {
            let dy = &dy[(i * p.images() + j) * output..][..output];
            if !accumulate {
                dx.fill(T::ZERO);
            }
            for (g, rows) in p.bands() {
                let pixels = rows.len() * p.win.output[1];
                let w = View::transposed(&w[g * p.rows() * k..][..p.rows() * k], k, p.rows());
                let cols = &mut scratch[..k * pixels];
                T::gemm(w, p.outputs(dy, g, &rows), T::ONE, false, ViewMut::new(cols, k, pixels));
                p.scatter(cols, &rows, &mut dx[p.channels(g)]);
            }
        }
    });
}

fn conv2d_backward_weight<T: Real>(
    x: &[T],
    dy: &[T],
    parts: &mut [T],
    scratch: &mut [T],
    extents: &[usize],
    window: &[usize],
) {
    let p = Plan::new(extents, window);
    let (image, output, k) = (p.c * p.win.pixels_in(), p.o * p.win.pixels_out(), p.k());
    if parts.is_empty() {
        return;
    }
    let size = p.o * (k + 1);
    par::chunks_mut2((parts, size), (scratch, p.scratch()), p.work(), |i, parts, scratch| {
        parts.fill(T::ZERO);
        let (dw, db) = parts.split_at_mut(p.o * k);
        for image_at in i * p.images()..p.n.min((i + 1) * p.images()) {
            let (x, dy) = (&x[image_at * image..][..image], &dy[image_at * output..][..output]);
            for (db, dy) in db.iter_mut().zip(dy.chunks_exact(p.win.pixels_out())) {
                *db += sum(dy);
            }
            for (g, rows) in p.bands() {
                let dw = &mut dw[g * p.rows() * k..][..p.rows() * k];
                let cols = p.patches(&x[p.channels(g)], &rows, scratch).flipped();
                T::gemm(p.outputs(dy, g, &rows), cols, T::ONE, true, ViewMut::new(dw, p.rows(), k));
            }
        }
    });
}

vectorized! {
    fn sum<T: Real>(x: &[T]) -> T {
        sum_by(x.len(), |i| x[i])
    }
}

/// 2-D convolution (cross-correlation, as everywhere in machine learning) over [N, C, H, W].
#[derive(Debug, Clone, Copy)]
pub struct Conv2d {
    /// Steps of the window along H and W.
    pub stride: [usize; 2],
    /// Zeros on both sides of H and W.
    pub padding: [usize; 2],
    /// Distance between taps of the window.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Conv2d {
        Conv2d { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1 }
    }
}

impl Conv2d {
    fn plan(&self, x: &Spec, w: &Spec) -> Result<Plan> {
        let (xs, ws, groups) = (x.shape, w.shape, self.groups);
        let bad = |what: String| Err(Error::shape("conv2d", what));
        let ([n, c, _, _], [o, per, kh, kw]) = (xs.dims(), ws.dims()) else {
            return bad(format!("input has shape {xs} and weight {ws}, but must be [N, C, H, W] and [O, C/groups, h, w]"));
        };
        let (&[n, c, o, per], kernel) = (&[*n, *c, *o, *per], [*kh, *kw]);
        if kernel.contains(&0) || self.stride.contains(&0) || self.dilation.contains(&0) || groups == 0 {
            return bad(format!("weight has shape {ws}; its window, stride, dilation and groups must be 1 or more"));
        }
        if per.checked_mul(groups) != Some(c) || o % groups != 0 {
            return bad(format!(
                "input has shape {xs} and weight {ws}: with {groups} groups the {c} channels of input must be {groups} times \
                 the {per} of weight, and its {o} outputs a multiple of {groups}"
            ));
        }
        Ok(Plan { n, c, o, groups, win: Window::new("conv2d", xs, kernel, self.stride, self.padding, self.dilation)? })
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("conv2d", x, 2, 3)?;
        expect_real("conv2d", "input", &x[0])?;
        for (other, name) in x[1..].iter().zip(["weight", "bias"]) {
            if other.dtype != x[0].dtype {
                return Err(Error::dtype("conv2d", format!("input is {} but {name} is {other}", x[0])));
            }
        }
        let p = self.plan(&x[0], &x[1])?;
        if let Some(b) = x.get(2).filter(|b| b.shape.dims() != [p.o]) {
            let what = format!("bias has shape {}, but weight {} wants [{}]", b.shape, x[1].shape, p.o);
            return Err(Error::shape("conv2d", what));
        }
        Ok(smallvec::smallvec![Spec::new(x[0].dtype, &[p.n, p.o, p.win.output[0], p.win.output[1]])?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let p = self.plan(&x[0].spec(), &x[1].spec())?;
        let mut y = cx.empty(Spec::new(x[0].dtype(), &[p.n, p.o, p.win.output[0], p.win.output[1]])?)?;
        let mut scratch = cx.empty(Spec::new(x[0].dtype(), &[p.parts(), p.scratch()])?)?;
        let b = x.get(2).map_or(Arg::Absent, |b| Arg::In(b));
        let (y_out, scratch) = (Arg::Out(&mut y), Arg::Out(&mut scratch));
        let (extents, window) = (p.extents(), p.win.words());
        let dims = (Arg::Dims(&extents), Arg::Dims(&window));
        cx.launch(&FORWARD, &mut [Arg::In(x[0]), Arg::In(x[1]), b, y_out, scratch, dims.0, dims.1])?;
        cx.keep(x[0]);
        cx.keep(x[1]);
        Ok(smallvec::smallvec![y])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let (x, w, Some(dy)) = (&kept[0], &kept[1], &dy[0]) else { return Ok(()) };
        let p = self.plan(&x.spec(), &w.spec())?;
        let (extents, window) = (p.extents(), p.win.words());
        let (extents, window) = (&extents[..], &window[..]);
        let mut scratch = cx.empty(Spec::new(x.dtype(), &[p.parts(), p.scratch()])?)?;
        let (dx, rest) = dx.split_first_mut().expect("infer asks for an input");
        dx.write(cx, |cx, out, accumulate| {
            let (out, scratch, flag) = (Arg::Out(out), Arg::Out(&mut scratch), Arg::Flag(accumulate));
            let dims = (Arg::Dims(extents), Arg::Dims(window));
            cx.launch(&BACKWARD_INPUT, &mut [Arg::In(w), Arg::In(dy), out, scratch, dims.0, dims.1, flag])
        })?;
        if !rest.iter().any(Adjoint::wanted) {
            return Ok(());
        }
        let mut parts = cx.empty(Spec::new(x.dtype(), &[p.parts(), p.o * (p.k() + 1)])?)?;
        let out = (Arg::Out(&mut parts), Arg::Out(&mut scratch));
        let args = &mut [Arg::In(x), Arg::In(dy), out.0, out.1, Arg::Dims(extents), Arg::Dims(window)];
        cx.launch(&BACKWARD_WEIGHT, args)?;
        for (d, offset) in rest.iter_mut().zip([0, p.o * p.k()]) {
            d.write(cx, |cx, out, accumulate| sum_into(cx, &parts, offset, out, accumulate))?;
        }
        Ok(())
    }
}

impl<'t> Var<'t> {
    /// 2-D convolution of self `[N, C, H, W]` with `weight` `[O, C/groups, h, w]`, plus `bias` `[O]`.
    pub fn conv2d(&self, weight: &Var<'t>, bias: Option<&Var<'t>>, op: Conv2d) -> Result<Var<'t>> {
        match bias {
            Some(bias) => self.tape().apply1(op, &[self, weight, bias]),
            None => self.tape().apply1(op, &[self, weight]),
        }
    }
}

const fn attr(name: &'static str, default: &'static str, doc: &'static str) -> AttrDoc {
    AttrDoc { name, kind: Kind::Ints, default: Some(default), doc }
}

/// conv2d in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "conv2d",
    doc: "2-D convolution of [N, C, H, W] with weight [O, C/groups, h, w]",
    inputs: &[Port::real("input"), Port::real("weight"), Port::real("bias").optional()],
    outputs: &["output"],
    attrs: &[
        attr("stride", "1", "steps of the window: one number, or one for H and one for W"),
        attr("padding", "0", "zeros on both sides: one number, or one for H and one for W"),
        attr("dilation", "1", "distance between taps: one number, or one for H and one for W"),
        AttrDoc { kind: Kind::Int, ..attr("groups", "1", "groups of channels that do not see each other") },
    ],
    build: |a| {
        let two = |name, least| pair("conv2d", a, name, least, [least as usize; 2]);
        let (stride, padding, dilation) = (two("stride", 1)?, two("padding", 0)?, two("dilation", 1)?);
        let groups = a.size("groups")?;
        if groups == 0 {
            return Err(Error::attr("conv2d", "groups", "is 0, but must be 1 or more"));
        }
        Ok(Arc::new(Conv2d { stride, padding, dilation, groups }))
    },
    kernels: &[&FORWARD, &BACKWARD_INPUT, &BACKWARD_WEIGHT, &SUM_PARTS],
    samples: || {
        let of = |note, x: &[usize], w: &[usize]| Sample::new(note).normal(x).normal(w);
        vec![
            of("3 x 3 with bias", &[2, 2, 5, 4], &[3, 2, 3, 3]).normal(&[3]),
            of("padded", &[1, 2, 4, 5], &[2, 2, 3, 3]).attr("padding", 1).normal(&[2]),
            of("stride 2, odd size", &[2, 1, 7, 5], &[2, 1, 3, 2]).attr("stride", 2).attr("padding", "1,0"),
            of("dilated", &[1, 2, 6, 7], &[2, 2, 2, 3]).attr("dilation", "2,3").attr("padding", "0,2"),
            of("two groups", &[2, 4, 4, 3], &[6, 2, 2, 2]).attr("groups", 2).normal(&[6]),
            of("each channel alone", &[1, 3, 4, 4], &[3, 1, 3, 3]).attr("groups", 3).attr("padding", 1),
            of("1 x 1", &[2, 3, 3, 2], &[4, 3, 1, 1]).normal(&[4]),
            of("padding wider than the window", &[1, 1, 2, 1], &[1, 1, 2, 2]).attr("padding", 3).attr("stride", "3,2"),
            of("more images than parts", &[PARTS + 3, 1, 2, 2], &[2, 1, 2, 2]).normal(&[2]),
            of("no images", &[0, 2, 4, 4], &[3, 2, 3, 3]).normal(&[3]),
            of("64 x 16 x 28 x 28", &[64, 16, 28, 28], &[32, 16, 3, 3]).attr("padding", 1).normal(&[32]).large(),
            of("64 x 1 x 28 x 28", &[64, 1, 28, 28], &[16, 1, 3, 3]).attr("padding", 1).normal(&[16]).large(),
        ]
    },
};
