//! sparse_mlp: two linear layers with a threshold between them, of which only active units are worked on. With u_c and w_c the
//! rows of `up` and `down` (both are stored by hidden unit), f as in [`threshold_relu`](super::threshold_relu):
//!
//! a_tc = x_t·u_c + p_c,  h_tc = f(a_tc; θ),  y_t = Σ_{c active in t} h_tc·w_c + q
//!
//! with the outputs y (`output`) and a (`hidden`). Backward, with g the gradient with respect to a, for active units alone:
//!
//! d_tc = dy_t·w_c,  g_tc = d_tc,  dx_t = Σ_c g_tc·u_c,  du_c = Σ_t g_tc·x_t,  dw_c = Σ_t h_tc·dy_t,  dp_c = Σ_t g_tc,  dq = Σ_t dy_t
//! and, for a given threshold, dθ as in threshold_relu (of the hard form with a bandwidth, units near θ count as well).
//!
//! A statistical threshold moves with every unit of its row, so that g_tc gets α_t + β_t·a_tc more, active or not. As a is
//! linear in x, these terms are small matrices, and no loop over all units of all rows comes back. With [1 p] the two
//! columns 1 and p, [α β] those of the rows:
//!
//! dX += diag(β)X·(UᵀU) + [α β]·([1 p]ᵀU);  dU += U·(Xᵀdiag(β)X) + [1 p]·([α β]ᵀX);  dp += U·(Σβ_t x_t) + [1 p]·(Σα, Σβ)
//!
//! Cost, with ϱ the share of active units: the layer to `hidden` is dense, the other five products cost ϱ of theirs: in all
//! (1 + 5ϱ)/6 of dense (and rows·dim² and units·dim² twice each for statistical thresholds). Where a product of matrices is
//! faster all the same (`dense.rs`), it is used. Memory: `hidden`, the values of active units, a bit for each unit.

mod cpu;
mod dense;

use super::elementwise::{expect_inputs, expect_real};
use super::linear;
use super::threshold_relu::{self, ThresholdRelu};
use super::{AttrDoc, Entry, Kind, Port, activity};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::reduce::SUM;
use crate::kernel::Arg;
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use cpu::*;
use std::sync::Arc;

kernel! {
    ptx "sparse_mlp";
    /// Of x [rows, h]: mask [rows, planes, words], bit c of a row's words says that unit c exceeds the threshold, and with
    /// `half` > 0, in a second plane, that it is nearer to it than that; value [rows, h] at active units; stats [rows, 2] =
    /// (μ, σ) where `threshold` is absent.
    pub static SELECT = sparse_mlp_select(
        x: in T, threshold: in T, value: out T, mask: out i32, stats: out T, h: val size, factor: val T, half: val T,
        hard: val flag,
    ) blocks((x / h.max(1)).div_ceil(8));
    /// y_t = Σ value[t, c]·w_c (+ bias), or y +=, w [h, n]. An empty mask has no active unit.
    pub static ROWS = sparse_mlp_rows(
        value: in T, mask: in i32, w: in T, bias: in T, y: out T, h: val size, n: val size, planes: val size,
        accumulate: val flag,
    ) blocks((y / n.max(1) * n.div_ceil(128)).div_ceil(8));
    /// d[t, c] = dy_t·w_c for units in any plane, dy [rows, m], w [h, m].
    pub static DOTS = sparse_mlp_dots(
        dy: in T, w: in T, mask: in i32, d: out T, h: val size, m: val size, planes: val size,
    ) blocks((d / h.max(1)).div_ceil(8));
    /// out_c = Σ_t value[t, c]·z_t, or out +=, z [rows, n].
    pub static OUTER = sparse_mlp_outer(
        value: in T, mask: in i32, z: in T, out: out T, h: val size, n: val size, planes: val size, accumulate: val flag,
    ) blocks((h * n.div_ceil(128)).div_ceil(8));
    /// out[c] = scale·Σ_t value[t, c] over one plane, or out +=.
    pub static SUMS = sparse_mlp_sums(
        value: in T, mask: in i32, out: out T, h: val size, planes: val size, plane: val size, scale: val T,
        accumulate: val flag,
    );
    /// line [rows, 2] = (α, β) of statistical thresholds.
    pub static FELT = sparse_mlp_felt(
        d: in T, mask: in i32, stats: in T, line: out T, h: val size, factor: val T, half: val T, steep: val T,
        hard: val flag,
    ) blocks((line / 2).div_ceil(8));
    /// pairs [h, 2] = (1, bias).
    pub static PAIRS = sparse_mlp_pairs(bias: in T, pairs: out T) blocks(bias.div_ceil(256));
    /// z_t = line[t, 1]·x_t.
    pub static SCALED = sparse_mlp_scaled(x: in T, line: in T, z: out T, n: val size);
}

/// Which kernels do the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Path {
    /// Whichever measured faster at this many rows and active units; on a device, those that skip.
    #[default]
    Auto,
    /// Those that skip.
    Sparse,
    /// Products of matrices.
    Dense,
}

/// Two linear layers with a threshold between them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SparseMlp {
    /// The threshold.
    pub relu: ThresholdRelu,
    /// Which kernels do the work.
    pub path: Path,
}

const NAME: &str = "sparse_mlp";
const INPUTS: [&str; 6] = ["input", "up", "up_bias", "down", "down_bias", "threshold"];

/// Extents: rows, inputs, hidden units, outputs.
#[derive(Clone, Copy)]
struct Extents {
    rows: usize,
    k: usize,
    h: usize,
    m: usize,
}

impl Extents {
    fn of(x: &Tensor, up: &Tensor, down: &Tensor) -> Extents {
        let (k, h, m) = (up.dims()[1], up.dims()[0], down.dims()[1]);
        Extents { rows: x.dims()[..x.dims().len() - 1].iter().product(), k, h, m }
    }
}

/// What backward reads.
struct Kept<'a> {
    x: &'a Tensor,
    up: &'a Tensor,
    up_bias: &'a Tensor,
    down: &'a Tensor,
    /// The layer between, at all units.
    a: &'a Tensor,
    /// h, at active units, or at all of them for the dense path.
    value: &'a Tensor,
    /// Given threshold, or (μ, σ) of the rows.
    theta: &'a Tensor,
    /// Which are active; None: the dense path.
    mask: Option<&'a Tensor>,
    e: Extents,
}

impl<'a> Kept<'a> {
    fn new(kept: &'a [Tensor]) -> Kept<'a> {
        let [x, up, up_bias, down, a, value, theta, mask @ ..] = kept else {
            unreachable!("forward keeps at least seven tensors")
        };
        let e = Extents::of(x, up, down);
        Kept { x, up, up_bias, down, a, value, theta, mask: mask.first(), e }
    }
}

impl SparseMlp {
    /// Planes of the mask: the second says which units are near the threshold.
    fn planes(&self) -> usize {
        if self.half() > 0.0 { 2 } else { 1 }
    }
    /// ε/2 where the hard form has a slope, else 0.
    fn half(&self) -> f64 {
        if self.relu.hard { self.relu.window()[0] } else { 0.0 }
    }

    /// value, mask and stats of `a`.
    fn select(&self, cx: &Cx<'_>, a: &Tensor, threshold: Option<&Tensor>, e: Extents) -> Result<[Tensor; 3]> {
        let words = e.h.div_ceil(WORD);
        let mut value = cx.empty(a.spec())?;
        let mut mask = cx.empty(Spec::new(DType::I32, &[e.rows, self.planes(), words])?)?;
        let mut stats = cx.empty(Spec::new(a.dtype(), &[e.rows, 2])?)?;
        let threshold = threshold.map_or(Arg::Absent, Arg::In);
        let (out, bits, rows) = (Arg::Out(&mut value), Arg::Out(&mut mask), Arg::Out(&mut stats));
        let (factor, half) = (Arg::Real(self.relu.factor()), Arg::Real(self.half()));
        let flag = Arg::Flag(self.relu.hard);
        cx.launch(&SELECT, &mut [Arg::In(a), threshold, out, bits, rows, Arg::Size(e.h), factor, half, flag])?;
        Ok([value, mask, stats])
    }

    /// dX, dU and dp of what moves a statistical threshold, after those of active units.
    fn move_rows(&self, cx: &Cx<'_>, k: &Kept<'_>, d: &Tensor, mask: &Tensor, dx: &mut [Adjoint]) -> Result<()> {
        let e = k.e;
        let spec = |dims: &[usize]| Spec::new(k.x.dtype(), dims);
        let mut line = cx.empty(spec(&[e.rows, 2])?)?;
        let [half, steep] = [self.half(), self.relu.window()[1]].map(Arg::Real);
        let (factor, flag) = (Arg::Real(self.relu.factor()), Arg::Flag(self.relu.hard));
        let (stats, out) = (Arg::In(k.theta), Arg::Out(&mut line));
        cx.launch(&FELT, &mut [Arg::In(d), Arg::In(mask), stats, out, Arg::Size(e.h), factor, half, steep, flag])?;
        let mut pairs = cx.empty(spec(&[e.h, 2])?)?;
        cx.launch(&PAIRS, &mut [Arg::In(k.up_bias), Arg::Out(&mut pairs)])?;
        let mut scaled = cx.empty(spec(&[e.rows, e.k])?)?;
        cx.launch(&SCALED, &mut [Arg::In(k.x), Arg::In(&line), Arg::Out(&mut scaled), Arg::Size(e.k)])?;
        // Xᵀ of both, and Uᵀ of both.
        let transposed = |a: &Tensor, b: &Tensor, rows: usize, n: usize| -> Result<Tensor> {
            let mut out = cx.empty(spec(&[n, e.k])?)?;
            product_transposed(cx, a, b, &mut out, [rows, e.k, n], false)?;
            Ok(out)
        };
        let add = |d: &mut Adjoint, terms: [(&Tensor, &Tensor, usize); 2], rows: usize, n: usize| {
            d.write(cx, |cx, out, add| {
                product(cx, terms[0].0, terms[0].1, out, [rows, n, terms[0].2], add)?;
                product(cx, terms[1].0, terms[1].1, out, [rows, n, terms[1].2], true)
            })
        };
        let [dx, du, dp, ..] = dx else { return Ok(()) };
        if dx.wanted() {
            let square = transposed(k.up, k.up, e.h, e.k)?;
            let both = transposed(&pairs, k.up, e.h, 2)?;
            add(dx, [(&scaled, &square, e.k), (&line, &both, 2)], e.rows, e.k)?;
        }
        let both = transposed(&line, k.x, e.rows, 2)?;
        if du.wanted() {
            let square = transposed(&scaled, k.x, e.rows, e.k)?;
            add(du, [(k.up, &square, e.k), (&pairs, &both, 2)], e.h, e.k)?;
        }
        if dp.wanted() {
            let mut sums = Adjoint::empty(spec(&[2])?);
            super::axes::sum_to(cx, &line, 1.0, &mut sums)?;
            let Some(sums) = sums.sum() else { return Ok(()) };
            add(dp, [(k.up, &both.rows(1, 1)?, e.k), (&pairs, sums, 2)], e.h, 1)?;
        }
        Ok(())
    }

    /// dθ of a given threshold, from d.
    fn move_threshold(&self, cx: &Cx<'_>, k: &Kept<'_>, d: &Tensor, mask: &Tensor, dtheta: &mut Adjoint) -> Result<()> {
        if !dtheta.wanted() || (self.relu.hard && self.planes() == 1) {
            dtheta.zero();
            return Ok(());
        }
        let (plane, scale) = if self.relu.hard { (1, -self.relu.window()[1]) } else { (0, -1.0) };
        let sums = |cx: &Cx<'_>, out: &mut Tensor, add| self.sums(cx, d, mask, out, [k.e.h, plane], scale, add);
        let shared = dtheta.spec().shape.len() != k.e.h;
        if !self.relu.hard && !shared {
            return dtheta.write(cx, sums);
        }
        let mut each = cx.empty(Spec::new(d.dtype(), &[k.e.h])?)?;
        sums(cx, &mut each, false)?;
        if shared {
            let mut all = Adjoint::empty(dtheta.spec());
            super::axes::sum_to(cx, &each, 1.0, &mut all)?;
            each = all.sum().cloned().unwrap_or(each);
        }
        if !self.relu.hard {
            return dtheta.add(cx, each);
        }
        // θ times the sum.
        dtheta.write(cx, |cx, out, add| {
            let args = &mut [Arg::In(k.theta), Arg::In(&each), Arg::Out(out), Arg::Flag(add)];
            cx.launch(&activity::PRODUCT, args)
        })
    }

    /// scale·Σ over rows of one plane's units.
    #[allow(clippy::too_many_arguments)]
    fn sums(
        &self,
        cx: &Cx<'_>,
        value: &Tensor,
        mask: &Tensor,
        out: &mut Tensor,
        [h, plane]: [usize; 2],
        scale: f64,
        add: bool,
    ) -> Result<()> {
        let [size, planes, plane] = [h, self.planes(), plane].map(Arg::Size);
        let (scale, flag) = (Arg::Real(scale), Arg::Flag(add));
        cx.launch(&SUMS, &mut [Arg::In(value), Arg::In(mask), Arg::Out(out), size, planes, plane, scale, flag])
    }

    /// Backward by kernels that skip.
    fn skip(&self, cx: &Cx<'_>, k: &Kept<'_>, mask: &Tensor, dy: &Tensor, dx: &mut [Adjoint]) -> Result<()> {
        let e = k.e;
        let planes = || Arg::Size(self.planes());
        let outer = |cx: &Cx<'_>, value: &Tensor, z: &Tensor, n: usize, d: &mut Adjoint| {
            d.write(cx, |cx, out, add| {
                let (h, n, flag) = (Arg::Size(e.h), Arg::Size(n), Arg::Flag(add));
                cx.launch(&OUTER, &mut [Arg::In(value), Arg::In(mask), Arg::In(z), Arg::Out(out), h, n, planes(), flag])
            })
        };
        outer(cx, k.value, dy, e.m, &mut dx[3])?;
        super::axes::sum_to(cx, dy, 1.0, &mut dx[4])?;
        let mut d = cx.empty(k.a.spec())?;
        let (h, m) = (Arg::Size(e.h), Arg::Size(e.m));
        cx.launch(&DOTS, &mut [Arg::In(dy), Arg::In(k.down), Arg::In(mask), Arg::Out(&mut d), h, m, planes()])?;
        dx[0].write(cx, |cx, out, add| {
            rows(cx, [&d, mask, k.up], None, out, [e.h, e.k, self.planes()], add)
        })?;
        outer(cx, &d, k.x, e.k, &mut dx[1])?;
        dx[2].write(cx, |cx, out, add| self.sums(cx, &d, mask, out, [e.h, 0], 1.0, add))?;
        match dx.get_mut(5) {
            Some(dtheta) => self.move_threshold(cx, k, &d, mask, dtheta),
            None if self.relu.hard && self.planes() == 1 => Ok(()),
            None => self.move_rows(cx, k, &d, mask, dx),
        }
    }
}

/// y = Σ over active units of value·w (+ bias).
fn rows(
    cx: &Cx<'_>,
    [value, mask, w]: [&Tensor; 3],
    bias: Option<&Tensor>,
    y: &mut Tensor,
    extents: [usize; 3],
    add: bool,
) -> Result<()> {
    let [h, n, planes] = extents.map(Arg::Size);
    let bias = bias.map_or(Arg::Absent, Arg::In);
    let (y, flag) = (Arg::Out(y), Arg::Flag(add));
    cx.launch(&ROWS, &mut [Arg::In(value), Arg::In(mask), Arg::In(w), bias, y, h, n, planes, flag])
}

/// out [rows, n] (+)= a [rows, m]·b [m, n].
fn product(
    cx: &Cx<'_>,
    a: &Tensor,
    b: &Tensor,
    out: &mut Tensor,
    [rows, n, m]: [usize; 3],
    add: bool,
) -> Result<()> {
    let kernels = [&linear::BACKWARD_INPUT, &linear::BACKWARD_INPUT_ROUNDED];
    let [r, n, m] = [rows, n, m].map(Arg::Size);
    cx.launch_rounding(kernels, [Arg::In(a), Arg::In(b), Arg::Out(out), r, n, m, Arg::Flag(add)])
}

/// out [m, n] (+)= aᵀ·b, a [rows, m], b [rows, n].
fn product_transposed(
    cx: &Cx<'_>,
    a: &Tensor,
    b: &Tensor,
    out: &mut Tensor,
    [rows, n, m]: [usize; 3],
    add: bool,
) -> Result<()> {
    let kernels = [&linear::BACKWARD_WEIGHT, &linear::BACKWARD_WEIGHT_ROUNDED];
    let [r, n, m] = [rows, n, m].map(Arg::Size);
    cx.launch_rounding(kernels, [Arg::In(a), Arg::In(b), Arg::Out(out), r, n, m, Arg::Flag(add)])
}

impl Op for SparseMlp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 5, 6)?;
        for (s, name) in x.iter().zip(INPUTS) {
            expect_real(NAME, name, s)?;
            if s.dtype != x[0].dtype {
                return Err(Error::dtype(NAME, format!("input is {} but {name} is {s}", x[0])));
            }
        }
        let (input, up, down) = (x[0].shape, x[1].shape, x[3].shape);
        if up.rank() != 2 || input.rank() == 0 || input.last() != up.dims()[1] {
            let what =
                format!("input has shape {input} and up {up}: up must be [hidden, in], in the last extent of input");
            return Err(Error::shape(NAME, what));
        }
        let h = up.dims()[0];
        if down.rank() != 2 || down.dims()[0] != h {
            let what = format!("up has shape {up} and down {down}: down must be [hidden, out], a row a hidden unit");
            return Err(Error::shape(NAME, what));
        }
        let m = down.dims()[1];
        for (s, name, n) in [(x[2], "up_bias", h), (x[4], "down_bias", m)] {
            if s.shape.dims() != [n] {
                return Err(Error::shape(NAME, format!("{name} has shape {}, but must be [{n}]", s.shape)));
            }
        }
        self.relu.validate(NAME, x[0], h, x.get(5))?;
        let last = input.rank() - 1;
        Ok(smallvec::smallvec![x[0].with_shape(input.with(last, m)), x[0].with_shape(input.with(last, h))])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let &[input, up, up_bias, down, down_bias, ref threshold @ ..] = x else {
            unreachable!("infer counted the inputs")
        };
        let (e, threshold) = (Extents::of(input, up, down), threshold.first().copied());
        let shape = |n| input.spec().with_shape(input.shape().with(input.shape().rank() - 1, n));
        let mut a = cx.empty(shape(e.h))?;
        let [r, k, h] = [e.rows, e.k, e.h].map(Arg::Size);
        let kernels = [&linear::FORWARD, &linear::FORWARD_ROUNDED];
        cx.launch_rounding(kernels, [Arg::In(input), Arg::In(up), Arg::In(up_bias), Arg::Out(&mut a), r, k, h])?;
        let mut y = cx.empty(shape(e.m))?;
        let chosen = if self.path == Path::Dense { None } else { Some(self.select(cx, &a, threshold, e)?) };
        let chosen = chosen.filter(|[_, mask, _]| self.path == Path::Sparse || dense::skipping_pays(mask, e));
        let (value, theta, mask) = match chosen {
            Some([value, mask, stats]) => {
                rows(cx, [&value, &mask, down], Some(down_bias), &mut y, [e.h, e.m, self.planes()], false)?;
                (value, stats, Some(mask))
            }
            None => {
                let [value, stats] = dense::forward(cx, self.relu, &a, threshold, [down, down_bias], &mut y, e)?;
                (value, stats, None)
            }
        };
        for t in [input, up, up_bias, down, &a, &value, threshold.unwrap_or(&theta)].into_iter().chain(&mask) {
            cx.keep(t);
        }
        Ok(smallvec::smallvec![y, a])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let k = Kept::new(kept);
        match (&dy[0], k.mask) {
            (Some(dy), Some(mask)) => self.skip(cx, &k, mask, dy, dx)?,
            (Some(dy), None) => dense::backward(cx, self.relu, &k, dy, dx)?,
            (None, _) => dx.iter_mut().for_each(Adjoint::zero),
        }
        // Of who uses the hidden units themselves.
        dy[1].as_ref().map_or(Ok(()), |da| dense::backward_up(cx, &k, da, dx))
    }
}

impl<'t> Var<'t> {
    /// Two linear layers of `[up, up_bias, down, down_bias]`, both weights stored by hidden unit, with a threshold between
    /// them; gives what comes out, and the layer between before its threshold.
    pub fn sparse_mlp(
        &self,
        [up, up_bias, down, down_bias]: [&Var<'t>; 4],
        threshold: Option<&Var<'t>>,
        op: SparseMlp,
    ) -> Result<(Var<'t>, Var<'t>)> {
        let mut all = vec![self, up, up_bias, down, down_bias];
        all.extend(threshold);
        let mut made = self.tape().apply(op, &all)?;
        let hidden = made.remove(1);
        Ok((made.remove(0), hidden))
    }
}

/// sparse_mlp in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "y = threshold_relu(x·upᵀ + up_bias)·down + down_bias, up [hidden, in], down [hidden, out]; inactive units are skipped",
    inputs: &[
        Port::real("input"),
        Port::real("up"),
        Port::real("up_bias"),
        Port::real("down"),
        Port::real("down_bias"),
        Port::real("threshold").optional(),
    ],
    outputs: &["output", "hidden"],
    attrs: &[
        threshold_relu::ATTRS[0],
        threshold_relu::ATTRS[1],
        threshold_relu::ATTRS[2],
        AttrDoc {
            name: "path",
            kind: Kind::Choice(&["auto", "sparse", "dense"]),
            default: Some("auto"),
            doc: "kernels that skip, products of matrices, or whichever measured faster",
        },
    ],
    build: |a| {
        let path = match a.text("path") {
            "sparse" => Path::Sparse,
            "dense" => Path::Dense,
            _ => Path::Auto,
        };
        Ok(Arc::new(SparseMlp { relu: threshold_relu::from_attrs(a)?, path }))
    },
    kernels: &[
        &SELECT,
        &ROWS,
        &DOTS,
        &OUTER,
        &SUMS,
        &FELT,
        &PAIRS,
        &SCALED,
        &linear::FORWARD,
        &linear::BACKWARD_INPUT,
        &linear::BACKWARD_WEIGHT,
        &linear::FORWARD_ROUNDED,
        &linear::BACKWARD_INPUT_ROUNDED,
        &linear::BACKWARD_WEIGHT_ROUNDED,
        &threshold_relu::FORWARD,
        &threshold_relu::BACKWARD,
        &activity::PRODUCT,
        &SUM,
    ],
    samples: dense::samples,
};
