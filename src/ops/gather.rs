//! gather: y[i, j, k] = x[i, index[i, j, k], k] for dim = 1, likewise for other axes;
//! dx[i, index[i, j, k], k] += dy[i, j, k], in the order of the index.
//!
//! y has the shape of the index; the other axes of the index may be shorter than those of x. Cost: one pass over the index
//! each way, bound by the latency of scattered reads.

use super::elementwise::{Plan, expect_inputs, expect_real, walk};
use super::ids::check_ids;
use super::rows::put;
use super::scatter_add::SCATTER;
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, MAX_RANK, Shape, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

kernel! {
    ptx "gather";
    /// y, row-major over `dims` as the index is, = x at Σ position·`steps` + index·`along`, or y += when `accumulate`.
    pub static GATHER = gather_axis(
        x: in T, index: in i32, y: out T, dims: val dims, steps: val dims, along: val size, accumulate: val flag,
    );
}

fn gather_axis<T: Real>(
    x: &[T],
    index: &[i32],
    y: &mut [T],
    dims: &[usize],
    steps: &[usize],
    along: usize,
    accumulate: bool,
) {
    let step = steps[steps.len() - 1];
    par::chunks_mut(y, par::CHUNK, index.len(), |i, y| {
        let start = i * par::CHUNK;
        walk(start..start + y.len(), dims, [steps], |at, [from], n| {
            let (x, index, y) = (&x[from..], &index[start + at..][..n], &mut y[at..at + n]);
            if accumulate { take_run::<T, true>(x, index, y, step, along) } else { take_run::<T, false>(x, index, y, step, along) }
        });
    });
}

/// y_j = x at j·step + index_j·along, or y_j +=; along the last axis that is x at the index itself.
fn take_run<T: Real, const ADD: bool>(x: &[T], index: &[i32], y: &mut [T], step: usize, along: usize) {
    let pairs = y.iter_mut().zip(index);
    if (step, along) == (0, 1) {
        pairs.for_each(|(y, &k)| put::<T, ADD>(y, x[k as usize]));
    } else {
        pairs.enumerate().for_each(|(j, (y, &k))| put::<T, ADD>(y, x[j * step + k as usize * along]));
    }
}

/// How positions of an index of shape `index` become places in a tensor of shape `x`.
pub(super) struct Places {
    /// Steps along each axis of the index; 0 along the indexed one.
    pub(super) steps: [usize; MAX_RANK],
    /// Step of the indexed axis.
    pub(super) along: usize,
    /// The indexed axis.
    pub(super) axis: usize,
}

impl Places {
    pub(super) fn new(op: &'static str, x: &Shape, index: &Shape, dim: i64) -> Result<Places> {
        let axis = x.axis(op, dim)?;
        if index.rank() != x.rank() {
            let what = format!("index has shape {index}, but input {x} wants {} axes", x.rank());
            return Err(Error::shape(op, what));
        }
        let pairs = x.dims().iter().zip(index.dims());
        if let Some(k) = pairs.enumerate().position(|(k, (x, i))| k != axis && i > x) {
            let what = format!("index has shape {index}, but axis {k} of input {x} is shorter");
            return Err(Error::shape(op, what));
        }
        let mut steps = [0; MAX_RANK];
        let mut step = 1;
        for k in (0..x.rank()).rev() {
            (steps[k], step) = (step, step * x.dims()[k]);
        }
        let along = std::mem::replace(&mut steps[axis], 0);
        Ok(Places { steps, along, axis })
    }
}

/// `y` = the elements of `x` that `index` names along `dim`, or y += when `accumulate`.
pub(super) fn take(
    cx: &Cx<'_>,
    (x, index): (&Tensor, &Tensor),
    y: &mut Tensor,
    dim: i64,
    accumulate: bool,
) -> Result<()> {
    let places = Places::new("gather", &x.shape(), &index.shape(), dim)?;
    let plan = Plan::strided(index.dims(), [&places.steps]);
    let (dims, steps, along) = (plan.dims(), plan.steps(0), Arg::Size(places.along));
    cx.launch(&GATHER, &mut [Arg::In(x), Arg::In(index), Arg::Out(y), dims, steps, along, Arg::Flag(accumulate)])
}

/// Elements named by an index along one axis.
#[derive(Debug, Clone, Copy)]
pub struct Gather {
    /// The axis, counted from the end when negative.
    pub dim: i64,
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("gather", x, 2, 2)?;
        expect_real("gather", "input", &x[0])?;
        if x[1].dtype != DType::I32 {
            return Err(Error::dtype("gather", format!("index is {}, but must be i32", x[1])));
        }
        Places::new("gather", &x[0].shape, &x[1].shape, self.dim)?;
        Ok(smallvec::smallvec![x[0].with_shape(x[1].shape)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let limit = x[0].dims()[x[0].shape().axis("gather", self.dim)?];
        check_ids("gather", x[1], limit, None)?;
        let mut y = cx.empty(x[0].spec().with_shape(x[1].shape()))?;
        take(cx, (x[0], x[1]), &mut y, self.dim, false)?;
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
        let (index, Some(dy)) = (&kept[0], &dy[0]) else { return Ok(()) };
        dx[0].write(cx, |cx, out, accumulate| {
            if !accumulate {
                out.fill_zero()?;
            }
            super::scatter_add::add(cx, (dy, index), out, self.dim)
        })
    }
}

impl<'t> Var<'t> {
    /// The elements that `index` (i32) names along axis `dim`; the output has the shape of the index.
    pub fn gather(&self, dim: i64, index: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(Gather { dim }, &[self, index])
    }
}

pub(super) const DIM: AttrDoc =
    AttrDoc { name: "dim", kind: Kind::Int, default: None, doc: "the axis that the index runs along" };

/// gather in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "gather",
    doc: "y[i,j,k] = input[i,index[i,j,k],k] for dim = 1",
    inputs: &[Port::real("input"), Port::ids("index")],
    outputs: &["output"],
    attrs: &[DIM],
    build: |a| Ok(Arc::new(Gather { dim: a.int("dim")? })),
    kernels: &[&GATHER, &SCATTER],
    samples: || {
        let s = |note, dim: i64, x: &[usize], index: &[usize]| {
            let limit = x[if dim < 0 { x.len() - dim.unsigned_abs() as usize } else { dim as usize }];
            Sample::new(note).attr("dim", dim).normal(x).input(index, Fill::Ids(limit))
        };
        vec![
            s("first axis, ids that repeat", 0, &[3, 4], &[5, 4]),
            s("last axis", -1, &[3, 5], &[3, 7]),
            s("middle axis", 1, &[2, 4, 3], &[2, 2, 3]),
            s("a shorter index", 0, &[4, 5], &[2, 3]),
            s("a shorter index of three axes", -1, &[3, 4, 5], &[2, 3, 2]),
            s("vector", 0, &[3], &[6]),
            s("no id", 0, &[3, 2], &[0, 2]),
            s("one of 256 in 4096 rows", 1, &[4096, 256], &[4096, 1]).large(),
            s("4096 x 512 along rows", 0, &[4096, 512], &[4096, 512]).large(),
        ]
    },
};
