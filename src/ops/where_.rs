//! where: y = input where condition holds, else other;  dinput = dy where it holds, dother = dy where not, 0 elsewhere.
//!
//! All three broadcast as in NumPy; the gradient of a stretched operand is summed. Cost: one pass; bound by memory.

use super::axes;
use super::elementwise::{Plan, expect_inputs, expect_real, walk};
use super::{Entry, Fill, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::reduce::SUM;
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Shape, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "where";
    /// y, row-major over `dims`, takes a where c is not 0, else b; operands lie at Σ index·their steps.
    pub static FORWARD = where_forward(
        c: in u8, a: in T, b: in T, y: out T, dims: val dims, c_steps: val dims, a_steps: val dims, b_steps: val dims,
    );
    /// d = dy where (c is not 0) = `chosen`, else 0; or d += when `accumulate`.
    pub static BACKWARD = where_backward(
        c: in u8, dy: in T, d: out T, dims: val dims, c_steps: val dims, chosen: val flag, accumulate: val flag,
    );
}

#[allow(clippy::too_many_arguments)]
fn where_forward<T: Real>(
    c: &[u8],
    a: &[T],
    b: &[T],
    y: &mut [T],
    dims: &[usize],
    c_steps: &[usize],
    a_steps: &[usize],
    b_steps: &[usize],
) {
    let last = dims.len() - 1;
    let (sc, sa, sb) = (c_steps[last], a_steps[last], b_steps[last]);
    let work = y.len() / 3;
    par::chunks_mut(y, par::CHUNK, work, |i, y| {
        let start = i * par::CHUNK;
        walk(start..start + y.len(), dims, [c_steps, a_steps, b_steps], |at, [ic, ia, ib], n| {
            let (c, a, b, y) = (&c[ic..], &a[ia..], &b[ib..], &mut y[at..at + n]);
            match sc {
                1 => choose_run(c, a, sa, b, sb, y),
                _ if c[0] != 0 => copy_run(a, sa, y),
                _ => copy_run(b, sb, y),
            }
        });
    });
}

fn where_backward<T: Real>(
    c: &[u8],
    dy: &[T],
    d: &mut [T],
    dims: &[usize],
    c_steps: &[usize],
    chosen: bool,
    accumulate: bool,
) {
    let step = c_steps[dims.len() - 1];
    par::chunks_mut(d, par::CHUNK, dy.len() / 3, |i, d| {
        let start = i * par::CHUNK;
        walk(start..start + d.len(), dims, [c_steps], |at, [ic], n| {
            mask_run(&c[ic..], step, &dy[start + at..][..n], &mut d[at..at + n], chosen, accumulate);
        });
    });
}

fn copy_run<T: Real>(x: &[T], step: usize, y: &mut [T]) {
    if step == 0 { y.fill(x[0]) } else { y.copy_from_slice(&x[..y.len()]) }
}

vectorized! {
    fn choose_run<T: Real>(c: &[u8], a: &[T], a_step: usize, b: &[T], b_step: usize, y: &mut [T]) {
        let n = y.len();
        match (a_step, b_step) {
            (1, 1) => {
                let (a, b) = (&a[..n], &b[..n]);
                choose(c, y, |j| (a[j], b[j]));
            }
            (1, _) => {
                let (a, b) = (&a[..n], b[0]);
                choose(c, y, |j| (a[j], b));
            }
            (_, 1) => {
                let (a, b) = (a[0], &b[..n]);
                choose(c, y, |j| (a, b[j]));
            }
            _ => {
                let both = (a[0], b[0]);
                choose(c, y, |_| both);
            }
        }
    }

    fn mask_run<T: Real>(c: &[u8], step: usize, dy: &[T], d: &mut [T], chosen: bool, accumulate: bool) {
        let n = d.len();
        if step == 0 {
            let passes = (c[0] != 0) == chosen;
            put(dy, d, accumulate, |_| passes);
        } else {
            let c = &c[..n];
            put(dy, d, accumulate, |j| (c[j] != 0) == chosen);
        }
    }
}

/// y_j = the first of `both(j)` where c_j is not 0, else the second.
#[inline(always)]
fn choose<T: Real>(c: &[u8], y: &mut [T], both: impl Fn(usize) -> (T, T)) {
    let c = &c[..y.len()];
    for j in 0..y.len() {
        let (a, b) = both(j);
        y[j] = if c[j] != 0 { a } else { b };
    }
}

/// d_j = dy_j where `passes(j)`, else 0; or d_j += when `accumulate`.
#[inline(always)]
fn put<T: Real>(dy: &[T], d: &mut [T], accumulate: bool, passes: impl Fn(usize) -> bool) {
    let dy = &dy[..d.len()];
    if accumulate {
        for j in 0..d.len() {
            d[j] += if passes(j) { dy[j] } else { T::ZERO };
        }
    } else {
        for j in 0..d.len() {
            d[j] = if passes(j) { dy[j] } else { T::ZERO };
        }
    }
}

/// The first where the condition holds, else the second.
#[derive(Debug, Clone, Copy)]
pub struct Where;

impl Op for Where {
    fn name(&self) -> &'static str {
        "where"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("where", x, 3, 3)?;
        if x[0].dtype != DType::U8 {
            return Err(Error::dtype("where", format!("condition is {}, but must be u8", x[0])));
        }
        expect_real("where", "input", &x[1])?;
        if x[2].dtype != x[1].dtype {
            return Err(Error::dtype("where", format!("input is {} but other is {}", x[1], x[2])));
        }
        let both = Shape::broadcast("where", x[1].shape, x[2].shape)?;
        Ok(smallvec::smallvec![x[1].with_shape(Shape::broadcast("where", x[0].shape, both)?)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let mut y = cx.empty(self.infer(&[x[0].spec(), x[1].spec(), x[2].spec()])?[0])?;
        let plan = Plan::new([&x[0].shape(), &x[1].shape(), &x[2].shape()], &y.shape());
        let [c, a, b] = [x[0], x[1], x[2]].map(Arg::In);
        let (dims, sc, sa, sb) = (plan.dims(), plan.steps(0), plan.steps(1), plan.steps(2));
        cx.launch(&FORWARD, &mut [c, a, b, Arg::Out(&mut y), dims, sc, sa, sb])?;
        cx.keep(x[0]);
        Ok(smallvec::smallvec![y])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let (c, Some(dy)) = (&kept[0], &dy[0]) else { return Ok(()) };
        let plan = Plan::new([&c.shape()], &dy.shape());
        for (dx, chosen) in dx[1..].iter_mut().zip([true, false]).filter(|(dx, _)| dx.wanted()) {
            let run = |cx: &Cx<'_>, out: &mut Tensor, accumulate: bool| {
                let (dims, steps) = (plan.dims(), plan.steps(0));
                let (out, flags) = (Arg::Out(out), [chosen, accumulate].map(Arg::Flag));
                let [chosen, accumulate] = flags;
                cx.launch(&BACKWARD, &mut [Arg::In(c), Arg::In(dy), out, dims, steps, chosen, accumulate])
            };
            if dx.spec().shape == dy.shape() {
                dx.write(cx, run)?;
            } else {
                let mut wide = cx.empty(dy.spec())?;
                run(cx, &mut wide, false)?;
                axes::sum_to(cx, &wide, 1.0, dx)?;
            }
        }
        Ok(())
    }
}

impl<'t> Var<'t> {
    /// `input` where this condition (u8) is not 0, else `other`.
    pub fn where_(&self, input: &Var<'t>, other: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(Where, &[self, input, other])
    }
}

/// where in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "where",
    doc: "y = input where condition holds, else other",
    inputs: &[Port::mask("condition"), Port::real("input"), Port::real("other")],
    outputs: &["output"],
    attrs: &[],
    build: |_| Ok(Arc::new(Where)),
    kernels: &[&FORWARD, &BACKWARD, &SUM],
    samples: || {
        let s = |note, c: &[usize], a: &[usize], b: &[usize]| {
            Sample::new(note).input(c, Fill::Mask).normal(a).normal(b)
        };
        vec![
            s("same shape", &[3, 5], &[3, 5], &[3, 5]),
            s("all three stretched", &[3, 1], &[5], &[2, 1, 1]),
            s("two scalars", &[3, 5], &[], &[]),
            s("a scalar condition", &[], &[2, 3], &[3]),
            s("a row of conditions", &[5], &[4, 5], &[4, 1]),
            s("a column of conditions", &[4, 1], &[4, 5], &[]),
            s("scalars", &[], &[], &[]),
            s("empty", &[0, 3], &[3], &[1, 1]),
            s("4096 x 512", &[4096, 512], &[4096, 512], &[4096, 512]).large(),
            s("4096 x 512 or a scalar", &[4096, 512], &[4096, 512], &[]).large(),
        ]
    },
};
