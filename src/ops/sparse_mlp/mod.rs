//! sparse_mlp: two linear layers with a threshold between them, of which only active units are worked on. With u_c and w_c the
//! rows of `up` and `down` (both are stored by hidden unit), f as in [`threshold_relu`](mod@super::threshold_relu):
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
mod felt;
mod picked;
mod skip;
mod strips;

use super::elementwise::{expect_inputs, expect_real};
use super::linear;
use super::threshold_relu::{self, ThresholdRelu};
use super::{AttrDoc, Entry, Kind, Port, activity};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::reduce::SUM;
use crate::kernel::Arg;
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use cpu::*;
use felt::*;
use skip::rows;
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
