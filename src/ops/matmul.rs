//! matmul: C = A·B over the last two axes, leading axes broadcast; either operand may be read transposed.
//!
//! With op(X) = X or Xᵀ by flag:  C = op(A)·op(B);  d op(A) = dC·op(B)ᵀ,  d op(B) = op(A)ᵀ·dC, and the gradient of X is that
//! of op(X), transposed back when the flag is set. Cost: 2·m·n·k flops a product, twice that backward.

use super::elementwise::{expect_inputs, expect_real};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::gemm::{self, Precision, View, ViewMut};
use crate::kernel::{Arg, Real, par};
use crate::shape::{Shape, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::kernel;
use std::sync::Arc;

kernel! {
    ptx "matmul";
    /// c = op(a)·op(b), or c += when `accumulate`. `extents` = [batches, m, n, k]; `lead` lists the leading extents of the
    /// loop over batches, `a_step`, `b_step` and `c_step` the steps of each operand along them (in matrices, 0 where it
    /// stays; a c that stays is summed over, in order).
    pub static MATMUL = matmul_batched(
        a: in T, b: in T, c: out T, extents: val dims, lead: val dims, a_step: val dims, b_step: val dims,
        c_step: val dims, transpose_a: val flag, transpose_b: val flag, accumulate: val flag,
    ) blocks(extents[0] * extents[1].div_ceil(64) * extents[2].div_ceil(64));
}

kernel! {
    ptx "matmul_rounded";
    /// [`MATMUL`] of operands that are rounded to bf16, or else to tf32.
    pub static MATMUL_ROUNDED = matmul_batched_rounded(
        a: in T, b: in T, c: out T, extents: val dims, lead: val dims, a_step: val dims, b_step: val dims,
        c_step: val dims, transpose_a: val flag, transpose_b: val flag, accumulate: val flag, bf16: val flag,
    ) blocks(extents[0] * extents[1].div_ceil(64) * extents[2].div_ceil(64));
}

#[allow(clippy::too_many_arguments)]
fn matmul_batched<T: Real>(
    a: &[T],
    b: &[T],
    c: &mut [T],
    extents: &[usize],
    lead: &[usize],
    a_step: &[usize],
    b_step: &[usize],
    c_step: &[usize],
    transpose_a: bool,
    transpose_b: bool,
    accumulate: bool,
) {
    let (steps, transposes) = ([a_step, b_step, c_step], [transpose_a, transpose_b]);
    batches_in(Precision::F32, (a, b, c), extents, lead, steps, transposes, accumulate);
}

#[allow(clippy::too_many_arguments)]
fn matmul_batched_rounded<T: Real>(
    a: &[T],
    b: &[T],
    c: &mut [T],
    extents: &[usize],
    lead: &[usize],
    a_step: &[usize],
    b_step: &[usize],
    c_step: &[usize],
    transpose_a: bool,
    transpose_b: bool,
    accumulate: bool,
    bf16: bool,
) {
    let (steps, transposes) = ([a_step, b_step, c_step], [transpose_a, transpose_b]);
    batches_in(Precision::rounded(bf16), (a, b, c), extents, lead, steps, transposes, accumulate);
}

fn batches_in<T: Real>(
    precision: Precision,
    (a, b, c): (&[T], &[T], &mut [T]),
    extents: &[usize],
    lead: &[usize],
    [a_step, b_step, c_step]: [&[usize]; 3],
    [transpose_a, transpose_b]: [bool; 2],
    accumulate: bool,
) {
    let (batches, m, n, k) = (extents[0], extents[1], extents[2], extents[3]);
    if k == 0 && !accumulate {
        return c.fill(T::ZERO);
    }
    let at = |i: usize, step: &[usize]| index(i, lead, step);
    let view_a = |i: usize| {
        let a = &a[at(i, a_step) * m * k..][..m * k];
        if transpose_a { View::transposed(a, m, k) } else { View::new(a, m, k) }
    };
    let view_b = |i: usize| {
        let b = &b[at(i, b_step) * k * n..][..k * n];
        if transpose_b { View::transposed(b, k, n) } else { View::new(b, k, n) }
    };
    if m * n == 0 {
        return;
    }
    let independent = c.len() == batches * m * n;
    if independent && batches >= rayon::current_num_threads() && batches > 1 {
        par::chunks_mut(c, m * n, batches * m * n * k / 32, |i, c| {
            T::gemm_in(precision, view_a(i), view_b(i), T::ONE, accumulate, ViewMut::new(c, m, n));
        });
        return;
    }
    let mut seen = vec![false; c.len() / (m * n)];
    for i in 0..batches {
        let j = at(i, c_step);
        let add = accumulate || std::mem::replace(&mut seen[j], true);
        gemm::matmul_in(precision, view_a(i), view_b(i), &mut c[j * m * n..][..m * n], add);
    }
}

/// Position of batch `i` of a loop over `lead` in an operand that moves by `step` along each axis.
fn index(mut i: usize, lead: &[usize], step: &[usize]) -> usize {
    let mut at = 0;
    for (&n, &s) in lead.iter().zip(step).rev() {
        at += i % n * s;
        i /= n;
    }
    at
}

/// op(A)·op(B) over the last two axes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Matmul {
    /// Read `input` with its last two axes exchanged.
    pub transpose_input: bool,
    /// Read `other` with its last two axes exchanged.
    pub transpose_other: bool,
}

/// Extents of one call.
struct Plan {
    lead: Shape,
    a_lead: Shape,
    b_lead: Shape,
    m: usize,
    n: usize,
    k: usize,
}

impl Matmul {
    fn plan(&self, a: Shape, b: Shape) -> Result<Plan> {
        if a.rank() < 2 || b.rank() < 2 {
            return Err(Error::shape("matmul", format!("input has shape {a} and other {b}, but both need two axes or more")));
        }
        let split = |s: Shape, t: bool| {
            let d = s.dims();
            let (lead, rows, cols) = (&d[..d.len() - 2], d[d.len() - 2], d[d.len() - 1]);
            Shape::new(lead).map(|lead| if t { (lead, cols, rows) } else { (lead, rows, cols) })
        };
        let (a_lead, m, k) = split(a, self.transpose_input)?;
        let (b_lead, kb, n) = split(b, self.transpose_other)?;
        if k != kb {
            let how = |t: bool| if t { " (transposed)" } else { "" };
            let what = format!(
                "input has shape {a}{} and other {b}{}: the {k} columns of input must equal the {kb} rows of other",
                how(self.transpose_input),
                how(self.transpose_other)
            );
            return Err(Error::shape("matmul", what));
        }
        let mut plan = Plan { lead: Shape::broadcast("matmul", a_lead, b_lead)?, a_lead, b_lead, m, n, k };
        // Rows of a batch are rows of one tall matrix when B does not change from batch to batch.
        if !self.transpose_input && b_lead.len() == 1 && a_lead == plan.lead {
            (plan.m, plan.lead, plan.a_lead, plan.b_lead) = (plan.m * a_lead.len(), Shape::SCALAR, Shape::SCALAR, Shape::SCALAR);
        }
        Ok(plan)
    }
}

/// Runs the kernel for `c = op(a)·op(b)` where the operands' leading axes are seen through `lead`.
struct Call<'a> {
    lead: Shape,
    a: (&'a Tensor, Shape, bool),
    b: (&'a Tensor, Shape, bool),
    c_lead: Shape,
    mnk: [usize; 3],
}

impl Call<'_> {
    fn run(&self, cx: &Cx<'_>, c: &mut Tensor, accumulate: bool) -> Result<()> {
        let rank = self.lead.rank();
        let step = |s: &Shape| s.strides_as(&self.lead);
        let (sa, sb, sc) = (step(&self.a.1), step(&self.b.1), step(&self.c_lead));
        let [m, n, k] = self.mnk;
        let args = [
            Arg::In(self.a.0),
            Arg::In(self.b.0),
            Arg::Out(c),
            Arg::Dims(&[self.lead.len(), m, n, k]),
            Arg::Dims(self.lead.dims()),
            Arg::Dims(&sa[..rank]),
            Arg::Dims(&sb[..rank]),
            Arg::Dims(&sc[..rank]),
            Arg::Flag(self.a.2),
            Arg::Flag(self.b.2),
            Arg::Flag(accumulate),
        ];
        cx.launch_rounding([&MATMUL, &MATMUL_ROUNDED], args)
    }
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("matmul", x, 2, 2)?;
        expect_real("matmul", "input", &x[0])?;
        if x[1].dtype != x[0].dtype {
            return Err(Error::dtype("matmul", format!("input is {} but other is {}", x[0], x[1])));
        }
        self.plan(x[0].shape, x[1].shape)?;
        let of = |s: Shape, t: bool, i: usize| s.dims()[s.rank() - if t { 1 + i } else { 2 - i }];
        let lead = |s: Shape| Shape::new(&s.dims()[..s.rank() - 2]);
        let lead = Shape::broadcast("matmul", lead(x[0].shape)?, lead(x[1].shape)?)?;
        let (m, n) = (of(x[0].shape, self.transpose_input, 0), of(x[1].shape, self.transpose_other, 1));
        let dims: SmallList<usize> = lead.dims().iter().copied().chain([m, n]).collect();
        Ok(smallvec::smallvec![Spec::new(x[0].dtype, &dims)?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let p = self.plan(x[0].shape(), x[1].shape())?;
        let mut c = cx.empty(self.infer(&[x[0].spec(), x[1].spec()])?[0])?;
        let a = (x[0], p.a_lead, self.transpose_input);
        let b = (x[1], p.b_lead, self.transpose_other);
        Call { lead: p.lead, a, b, c_lead: p.lead, mnk: [p.m, p.n, p.k] }.run(cx, &mut c, false)?;
        cx.keep(x[0]);
        cx.keep(x[1]);
        Ok(smallvec::smallvec![c])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let Some(dc) = &dy[0] else { return Ok(()) };
        let (a, b) = (&kept[0], &kept[1]);
        let p = self.plan(a.shape(), b.shape())?;
        let (ta, tb) = (self.transpose_input, self.transpose_other);
        dx[0].write(cx, |cx, out, acc| {
            let (dc, b) = ((dc, p.lead), (b, p.b_lead));
            let call = if ta {
                // dA = (dC·op(B)ᵀ)ᵀ = op(B)·dCᵀ
                Call { lead: p.lead, a: (b.0, b.1, tb), b: (dc.0, dc.1, true), c_lead: p.a_lead, mnk: [p.k, p.m, p.n] }
            } else {
                Call { lead: p.lead, a: (dc.0, dc.1, false), b: (b.0, b.1, !tb), c_lead: p.a_lead, mnk: [p.m, p.k, p.n] }
            };
            call.run(cx, out, acc)
        })?;
        dx[1].write(cx, |cx, out, acc| {
            let (dc, a) = ((dc, p.lead), (a, p.a_lead));
            let call = if tb {
                // dB = (op(A)ᵀ·dC)ᵀ = dCᵀ·op(A)
                Call { lead: p.lead, a: (dc.0, dc.1, true), b: (a.0, a.1, ta), c_lead: p.b_lead, mnk: [p.n, p.k, p.m] }
            } else {
                Call { lead: p.lead, a: (a.0, a.1, !ta), b: (dc.0, dc.1, false), c_lead: p.b_lead, mnk: [p.k, p.n, p.m] }
            };
            call.run(cx, out, acc)
        })
    }
}

impl<'t> Var<'t> {
    /// self·other over the last two axes; leading axes broadcast.
    pub fn matmul(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(Matmul::default(), &[self, other])
    }
    /// self·otherᵀ over the last two axes.
    pub fn matmul_transposed(&self, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(Matmul { transpose_input: false, transpose_other: true }, &[self, other])
    }
}

/// matmul in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "matmul",
    doc: "C = op(A)·op(B) over the last two axes, leading axes broadcast",
    inputs: &[Port::real("input"), Port::real("other")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "transpose_input", kind: Kind::Bool, default: Some("false"), doc: "read input transposed" },
        AttrDoc { name: "transpose_other", kind: Kind::Bool, default: Some("false"), doc: "read other transposed" },
    ],
    build: |a| {
        let (transpose_input, transpose_other) = (a.flag("transpose_input")?, a.flag("transpose_other")?);
        Ok(Arc::new(Matmul { transpose_input, transpose_other }))
    },
    kernels: &[&MATMUL, &MATMUL_ROUNDED],
    samples: || {
        let t = |s: Sample, a: bool, b: bool| s.attr("transpose_input", a).attr("transpose_other", b);
        vec![
            Sample::new("two matrices").normal(&[3, 4]).normal(&[4, 5]),
            t(Sample::new("input transposed").normal(&[4, 3]).normal(&[4, 5]), true, false),
            t(Sample::new("other transposed").normal(&[3, 4]).normal(&[5, 4]), false, true),
            t(Sample::new("both, batched").normal(&[2, 4, 3]).normal(&[2, 5, 4]), true, true),
            Sample::new("rows of a batch, one weight").normal(&[2, 3, 4]).normal(&[4, 2]),
            t(Sample::new("batch, one weight transposed").normal(&[2, 3, 4]).normal(&[2, 4]), false, true),
            t(Sample::new("transposed batch, one weight").normal(&[2, 4, 3]).normal(&[4, 2]), true, false),
            Sample::new("batch broadcast both ways").normal(&[2, 1, 3, 4]).normal(&[3, 4, 2]),
            t(Sample::new("broadcast, transposed").normal(&[2, 1, 4, 3]).normal(&[3, 2, 4]), true, true),
            Sample::new("one matrix, many others").normal(&[3, 4]).normal(&[2, 4, 2]),
            Sample::new("no rows").normal(&[0, 4]).normal(&[4, 5]),
            Sample::new("4096 x 128 x 512").normal(&[4096, 128]).normal(&[128, 512]).large(),
            Sample::new("64 heads of 256 x 32").normal(&[64, 256, 32]).normal(&[64, 32, 256]).large(),
        ]
    },
};
