//! linear: y = x·Wᵀ + b over the last axis, W of shape [out, in].
//!
//! dx = dy·W;  dW = dyᵀ·x and db = Σ dy, both over all rows. Cost: 2·rows·in·out flops forward, twice that backward.

use super::axes::{sum_into, sum_to};
use super::elementwise::{expect_inputs, expect_real};
use super::{Entry, Port, Sample, matmul};
use crate::error::{Error, Result};
use crate::kernel::gemm::{self, Precision, View};
use crate::kernel::reduce::SUM;
use crate::kernel::{Arg, Real};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "linear";
    /// y = x·wᵀ + bias. x [rows, input], w [output, input], y [rows, output]; an empty bias adds nothing.
    pub static FORWARD = linear_forward(
        x: in T, w: in T, bias: in T, y: out T, rows: val size, input: val size, output: val size,
    ) blocks(rows.div_ceil(64) * output.div_ceil(64));
    /// dx = dy·w, or dx += when `accumulate`.
    pub static BACKWARD_INPUT = linear_backward_input(
        dy: in T, w: in T, dx: out T, rows: val size, input: val size, output: val size, accumulate: val flag,
    ) blocks(rows.div_ceil(64) * input.div_ceil(64));
    /// dw = dyᵀ·x, or dw += when `accumulate`.
    pub static BACKWARD_WEIGHT = linear_backward_weight(
        dy: in T, x: in T, dw: out T, rows: val size, input: val size, output: val size, accumulate: val flag,
    ) blocks(output.div_ceil(64) * input.div_ceil(64));
}

// The same of operands that are rounded to bf16, or else to tf32.
kernel! {
    ptx "linear_rounded";
    /// [`FORWARD`] of rounded x and w.
    pub static FORWARD_ROUNDED = linear_forward_rounded(
        x: in T, w: in T, bias: in T, y: out T, rows: val size, input: val size, output: val size, bf16: val flag,
    ) blocks(rows.div_ceil(64) * output.div_ceil(64));
    /// [`BACKWARD_INPUT`] of rounded dy and w.
    pub static BACKWARD_INPUT_ROUNDED = linear_backward_input_rounded(
        dy: in T, w: in T, dx: out T, rows: val size, input: val size, output: val size, accumulate: val flag,
        bf16: val flag,
    ) blocks(rows.div_ceil(64) * input.div_ceil(64));
    /// [`BACKWARD_WEIGHT`] of rounded dy and x.
    pub static BACKWARD_WEIGHT_ROUNDED = linear_backward_weight_rounded(
        dy: in T, x: in T, dw: out T, rows: val size, input: val size, output: val size, accumulate: val flag,
        bf16: val flag,
    ) blocks(output.div_ceil(64) * input.div_ceil(64));
}

/// Rows, inputs and outputs.
type Extents = [usize; 3];

fn forward_in<T: Real>(
    precision: Precision,
    x: &[T],
    w: &[T],
    bias: &[T],
    y: &mut [T],
    [rows, input, output]: Extents,
) {
    let (x, w) = (View::new(x, rows, input), View::transposed(w, input, output));
    gemm::matmul_then(precision, x, w, y, false, |y| {
        if !bias.is_empty() {
            y.chunks_mut(output.max(1)).for_each(|row| add_row(bias, row));
        }
    });
}

fn backward_input_in<T: Real>(
    precision: Precision,
    dy: &[T],
    w: &[T],
    dx: &mut [T],
    [rows, input, output]: Extents,
    accumulate: bool,
) {
    let (dy, w) = (View::new(dy, rows, output), View::new(w, output, input));
    gemm::matmul_in(precision, dy, w, dx, accumulate);
}

fn backward_weight_in<T: Real>(
    precision: Precision,
    dy: &[T],
    x: &[T],
    dw: &mut [T],
    [rows, input, output]: Extents,
    accumulate: bool,
) {
    let (dy, x) = (View::transposed(dy, output, rows), View::new(x, rows, input));
    gemm::matmul_in(precision, dy, x, dw, accumulate);
}

fn linear_forward<T: Real>(x: &[T], w: &[T], bias: &[T], y: &mut [T], rows: usize, input: usize, output: usize) {
    forward_in(Precision::F32, x, w, bias, y, [rows, input, output]);
}

fn linear_backward_input<T: Real>(
    dy: &[T],
    w: &[T],
    dx: &mut [T],
    rows: usize,
    input: usize,
    output: usize,
    add: bool,
) {
    backward_input_in(Precision::F32, dy, w, dx, [rows, input, output], add);
}

fn linear_backward_weight<T: Real>(
    dy: &[T],
    x: &[T],
    dw: &mut [T],
    rows: usize,
    input: usize,
    output: usize,
    add: bool,
) {
    backward_weight_in(Precision::F32, dy, x, dw, [rows, input, output], add);
}

#[allow(clippy::too_many_arguments)]
fn linear_forward_rounded<T: Real>(
    x: &[T],
    w: &[T],
    bias: &[T],
    y: &mut [T],
    rows: usize,
    input: usize,
    output: usize,
    bf16: bool,
) {
    forward_in(Precision::rounded(bf16), x, w, bias, y, [rows, input, output]);
}

#[allow(clippy::too_many_arguments)]
fn linear_backward_input_rounded<T: Real>(
    dy: &[T],
    w: &[T],
    dx: &mut [T],
    rows: usize,
    input: usize,
    output: usize,
    add: bool,
    bf16: bool,
) {
    backward_input_in(Precision::rounded(bf16), dy, w, dx, [rows, input, output], add);
}

#[allow(clippy::too_many_arguments)]
fn linear_backward_weight_rounded<T: Real>(
    dy: &[T],
    x: &[T],
    dw: &mut [T],
    rows: usize,
    input: usize,
    output: usize,
    add: bool,
    bf16: bool,
) {
    backward_weight_in(Precision::rounded(bf16), dy, x, dw, [rows, input, output], add);
}

vectorized! {
    fn add_row<T: Real>(x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

/// y = x·Wᵀ + b.
#[derive(Debug, Clone, Copy)]
pub struct Linear;

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("linear", x, 2, 3)?;
        expect_real("linear", "input", &x[0])?;
        if let Some(s) = x.iter().find(|s| s.dtype != x[0].dtype) {
            return Err(Error::dtype("linear", format!("input is {} but another operand is {s}", x[0])));
        }
        let (input, weight) = (x[0].shape, x[1].shape);
        if weight.rank() != 2 || input.rank() == 0 || input.last() != weight.dims()[1] {
            let what = format!("input has shape {input} and weight {weight}: weight must be [out, in] with in the last extent of input");
            return Err(Error::shape("linear", what));
        }
        if let Some(b) = x.get(2).filter(|b| b.shape.dims() != [weight.dims()[0]]) {
            return Err(Error::shape("linear", format!("bias has shape {}, but weight {weight} needs [{}]", b.shape, weight.dims()[0])));
        }
        Ok(smallvec::smallvec![x[0].with_shape(input.with(input.rank() - 1, weight.dims()[0]))])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let (rows, input, output) = extents(x[0], x[1]);
        let shape = x[0].shape().with(x[0].shape().rank() - 1, output);
        let mut y = cx.empty(x[0].spec().with_shape(shape))?;
        let bias = x.get(2).map_or(Arg::Absent, |b| Arg::In(b));
        let [r, i, o] = [rows, input, output].map(Arg::Size);
        cx.launch_rounding([&FORWARD, &FORWARD_ROUNDED], [Arg::In(x[0]), Arg::In(x[1]), bias, Arg::Out(&mut y), r, i, o])?;
        cx.keep(x[0]);
        cx.keep(x[1]);
        Ok(smallvec::smallvec![y])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let (x, w) = (&kept[0], &kept[1]);
        let (rows, input, output) = extents(x, w);
        let sizes = || [rows, input, output].map(Arg::Size);
        dx[0].write(cx, |cx, out, add| {
            let [r, i, o] = sizes();
            let args = [Arg::In(dy), Arg::In(w), Arg::Out(out), r, i, o, Arg::Flag(add)];
            cx.launch_rounding([&BACKWARD_INPUT, &BACKWARD_INPUT_ROUNDED], args)
        })?;
        dx[1].write(cx, |cx, out, add| backward_weight(cx, dy, x, out, [rows, input, output], add))?;
        dx.get_mut(2).map_or(Ok(()), |db| sum_to(cx, dy, 1.0, db))
    }
}

/// dw [output, input] = dyᵀ·x, or dw +=, dy [rows, output], x [rows, input].
///
/// A device makes a tile of 64 × 64 in one block, and most weights have fewer tiles than a GPU has room for blocks. There the
/// rows are cut into parts of one length, whose products are summed in order.
pub(super) fn backward_weight(
    cx: &Cx<'_>,
    dy: &Tensor,
    x: &Tensor,
    out: &mut Tensor,
    [rows, input, output]: Extents,
    add: bool,
) -> Result<()> {
    const BLOCKS: usize = 256;
    const ROWS: usize = 64;
    let most = if cx.device().is_host() { 1 } else { (BLOCKS / tiles(output, input)).min(rows / ROWS) };
    let parts = (1..=most).rev().find(|&p| rows.is_multiple_of(p)).unwrap_or(1);
    if parts == 1 {
        let [r, i, o] = [rows, input, output].map(Arg::Size);
        let args = [Arg::In(dy), Arg::In(x), Arg::Out(out), r, i, o, Arg::Flag(add)];
        return cx.launch_rounding([&BACKWARD_WEIGHT, &BACKWARD_WEIGHT_ROUNDED], args);
    }
    let mut partial = cx.empty(Spec::new(out.dtype(), &[parts, output, input])?)?;
    let (extents, lead, step) = ([parts, output, input, rows / parts], [parts], [1]);
    let [transposed, plain, fresh] = [true, false, false].map(Arg::Flag);
    let [a_step, b_step, c_step] = [&step; 3].map(|s| Arg::Dims(s));
    let (product, extents, lead) = (Arg::Out(&mut partial), Arg::Dims(&extents), Arg::Dims(&lead));
    let args =
        [Arg::In(dy), Arg::In(x), product, extents, lead, a_step, b_step, c_step, transposed, plain, fresh];
    cx.launch_rounding([&matmul::MATMUL, &matmul::MATMUL_ROUNDED], args)?;
    sum_into(cx, &partial, out, add)
}

/// Tiles of 64 × 64 in a matrix.
fn tiles(m: usize, n: usize) -> usize {
    (m.div_ceil(64) * n.div_ceil(64)).max(1)
}

/// Rows, inputs and outputs of the product.
fn extents(x: &Tensor, w: &Tensor) -> (usize, usize, usize) {
    let (output, input) = (w.dims()[0], w.dims()[1]);
    (x.dims()[..x.dims().len() - 1].iter().product(), input, output)
}

impl<'t> Var<'t> {
    /// self·weightᵀ + bias over the last axis; weight is [out, in].
    pub fn linear(&self, weight: &Var<'t>, bias: Option<&Var<'t>>) -> Result<Var<'t>> {
        match bias {
            Some(b) => self.tape().apply1(Linear, &[self, weight, b]),
            None => self.tape().apply1(Linear, &[self, weight]),
        }
    }
}

/// linear in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "linear",
    doc: "y = x·Wᵀ + b over the last axis, W [out, in]",
    inputs: &[Port::real("input"), Port::real("weight"), Port::real("bias").optional()],
    outputs: &["output"],
    attrs: &[],
    build: |_| Ok(Arc::new(Linear)),
    kernels: &[
        &FORWARD,
        &BACKWARD_INPUT,
        &BACKWARD_WEIGHT,
        &FORWARD_ROUNDED,
        &BACKWARD_INPUT_ROUNDED,
        &BACKWARD_WEIGHT_ROUNDED,
        &matmul::MATMUL,
        &matmul::MATMUL_ROUNDED,
        &SUM,
    ],
    samples: || {
        vec![
            Sample::new("with bias").normal(&[3, 4]).normal(&[5, 4]).normal(&[5]),
            Sample::new("without bias, three axes").normal(&[2, 3, 4]).normal(&[2, 4]),
            Sample::new("one row").normal(&[4]).normal(&[3, 4]).normal(&[3]),
            Sample::new("more rows than a block").normal(&[150, 2]).normal(&[3, 2]).normal(&[3]),
            Sample::new("rows in parts").normal(&[192, 3]).normal(&[5, 3]).normal(&[5]),
            Sample::new("no rows").normal(&[0, 4]).normal(&[3, 4]).normal(&[3]),
            Sample::new("4096 x 128 to 512").normal(&[4096, 128]).normal(&[512, 128]).normal(&[512]).large(),
            Sample::new("4096 x 512 to 128").normal(&[4096, 512]).normal(&[128, 512]).normal(&[128]).large(),
        ]
    },
};
