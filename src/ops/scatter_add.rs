//! scatter_add: y = x, then y[i, index[i, j, k], k] += src[i, j, k] for dim = 1, likewise for other axes, in the order of
//! the index;  dx = dy, dsrc[i, j, k] = dy[i, index[i, j, k], k].
//!
//! Sums run in a fixed order: each thread owns slices of the first axis of y, and all of y is one thread's when that axis
//! is the indexed one. Cost: a copy of x and one pass over the index.

use super::elementwise::{expect_inputs, expect_real, walk};
use super::gather::{DIM, GATHER, Places, take};
use super::ids::check_ids;
use super::{Entry, Fill, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::{Arg, Real, basic, par};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

kernel! {
    ptx "scatter_add";
    /// y at Σ position·`steps` + index·`along` += src, row-major over `dims` as the index is. `slices` = how many equal
    /// parts of y the first axis cuts it into, or 1 where the index runs along that axis.
    pub static SCATTER = scatter_add_axis(
        src: in T, index: in i32, y: out T, dims: val dims, steps: val dims, along: val size, slices: val size,
    );
}

fn scatter_add_axis<T: Real>(
    src: &[T],
    index: &[i32],
    y: &mut [T],
    dims: &[usize],
    steps: &[usize],
    along: usize,
    slices: usize,
) {
    if index.is_empty() {
        return;
    }
    let last = dims.len() - 1;
    // Slice i of y takes what position i of the first axis of the index says; further slices stay as they are.
    let (each, parts) = if slices == 1 { (index.len(), 1) } else { (index.len() / dims[0], dims[0]) };
    let size = y.len() / slices;
    par::chunks_mut(&mut y[..parts * size], size, index.len(), |i, y| {
        walk(i * each..(i + 1) * each, dims, [steps], |at, [to], n| {
            let (at, to) = (i * each + at, to - i * if slices == 1 { 0 } else { size });
            let (y, pairs) = (&mut y[to..], index[at..at + n].iter().zip(&src[at..at + n]));
            if (steps[last], along) == (0, 1) {
                pairs.for_each(|(&k, &x)| y[k as usize] += x);
            } else {
                pairs.enumerate().for_each(|(j, (&k, &x))| y[j * steps[last] + k as usize * along] += x);
            }
        });
    });
}

/// Adds `src` to the elements of `y` that `index` names along `dim`.
pub(super) fn add(cx: &Cx<'_>, (src, index): (&Tensor, &Tensor), y: &mut Tensor, dim: i64) -> Result<()> {
    let (shape, rank) = (y.shape(), y.shape().rank());
    let places = Places::new("scatter_add", &shape, &index.shape(), dim)?;
    let slices = if places.axis == 0 { 1 } else { shape.dims()[0] };
    let (dims, steps) = (Arg::Dims(index.dims()), Arg::Dims(&places.steps[..rank]));
    let (along, slices) = (Arg::Size(places.along), Arg::Size(slices));
    cx.launch(&SCATTER, &mut [Arg::In(src), Arg::In(index), Arg::Out(y), dims, steps, along, slices])
}

/// Elements added where an index says.
#[derive(Debug, Clone, Copy)]
pub struct ScatterAdd {
    /// The axis, counted from the end when negative.
    pub dim: i64,
}

impl Op for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter_add"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("scatter_add", x, 3, 3)?;
        expect_real("scatter_add", "input", &x[0])?;
        if x[1].dtype != DType::I32 {
            return Err(Error::dtype("scatter_add", format!("index is {}, but must be i32", x[1])));
        }
        if x[2].dtype != x[0].dtype {
            return Err(Error::dtype("scatter_add", format!("input is {} but src is {}", x[0], x[2])));
        }
        Places::new("scatter_add", &x[0].shape, &x[1].shape, self.dim)?;
        if x[2].shape != x[1].shape {
            let what = format!("src has shape {}, but must have that of index, {}", x[2].shape, x[1].shape);
            return Err(Error::shape("scatter_add", what));
        }
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let limit = x[0].dims()[x[0].shape().axis("scatter_add", self.dim)?];
        check_ids("scatter_add", x[1], limit, None)?;
        let mut y = cx.empty(x[0].spec())?;
        cx.launch(&basic::COPY, &mut [Arg::In(x[0]), Arg::Out(&mut y)])?;
        add(cx, (x[2], x[1]), &mut y, self.dim)?;
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
        dx[2].write(cx, |cx, out, accumulate| take(cx, (dy, index), out, self.dim, accumulate))?;
        if dx[0].wanted() { dx[0].add(cx, dy.clone()) } else { Ok(()) }
    }
}

impl<'t> Var<'t> {
    /// This plus `src`, added where `index` (i32, of the shape of `src`) says along axis `dim`.
    pub fn scatter_add(&self, dim: i64, index: &Var<'t>, src: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(ScatterAdd { dim }, &[self, index, src])
    }
}

/// scatter_add in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "scatter_add",
    doc: "y = input; y[i,index[i,j,k],k] += src[i,j,k] for dim = 1",
    inputs: &[Port::real("input"), Port::ids("index"), Port::real("src")],
    outputs: &["output"],
    attrs: &[DIM],
    build: |a| Ok(Arc::new(ScatterAdd { dim: a.int("dim")? })),
    kernels: &[&basic::COPY, &GATHER, &SCATTER],
    samples: || {
        let s = |note, dim: i64, x: &[usize], index: &[usize]| {
            let limit = x[if dim < 0 { x.len() - dim.unsigned_abs() as usize } else { dim as usize }];
            Sample::new(note).attr("dim", dim).normal(x).input(index, Fill::Ids(limit)).normal(index)
        };
        vec![
            s("first axis, ids that repeat", 0, &[3, 4], &[5, 4]),
            s("last axis", -1, &[3, 5], &[3, 7]),
            s("middle axis", 1, &[2, 4, 3], &[2, 2, 3]),
            s("a shorter index", 0, &[4, 5], &[2, 3]),
            s("a shorter index of three axes", -1, &[3, 4, 5], &[2, 3, 2]),
            s("vector", 0, &[3], &[6]),
            s("no id", 0, &[3, 2], &[0, 2]),
            s("4096 x 512 along columns", 1, &[4096, 512], &[4096, 512]).large(),
        ]
    },
};
