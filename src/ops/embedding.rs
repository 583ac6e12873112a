//! embedding: y[i] = weight[input[i]]. dweight[v] = Σ dy[i] over the i with input[i] = v, in the order of i.
//!
//! Cost: one copy forward; backward one pass over dy. Each thread owns a range of rows of dweight and visits all ids, so
//! the order of every sum is fixed and no atomics are needed.

use super::elementwise::{expect_inputs, expect_real};
use super::ids::check_ids;
use super::{Entry, Fill, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "embedding";
    /// y [n, dim] = rows `ids` [n] of weight [count, dim].
    pub static FORWARD = embedding_forward(ids: in i32, weight: in T, y: out T, dim: val size);
    /// dw [count, dim] += rows of dy [n, dim] at `ids`; dw starts at 0 unless `accumulate`.
    pub static BACKWARD = embedding_backward(ids: in i32, dy: in T, dw: out T, dim: val size, accumulate: val flag) blocks(dw.div_ceil(8 * dim.max(1)));
}

fn embedding_forward<T: Real>(ids: &[i32], weight: &[T], y: &mut [T], dim: usize) {
    let rows = (par::CHUNK / dim.max(1)).max(1);
    par::chunks_mut(y, rows * dim, ids.len() * dim / 4, |i, y| {
        for (y, &id) in y.chunks_mut(dim).zip(&ids[i * rows..]) {
            y.copy_from_slice(&weight[id as usize * dim..][..dim]);
        }
    });
}

fn embedding_backward<T: Real>(ids: &[i32], dy: &[T], dw: &mut [T], dim: usize, accumulate: bool) {
    let count = dw.len() / dim.max(1);
    let rows = count.div_ceil(rayon::current_num_threads()).max(1);
    par::chunks_mut(dw, rows * dim, ids.len() * dim / 2, |i, dw| {
        if !accumulate {
            dw.fill(T::ZERO);
        }
        let (first, n) = (i * rows, dw.len() / dim);
        for (&id, dy) in ids.iter().zip(dy.chunks(dim)) {
            let row = (id as usize).wrapping_sub(first);
            if row < n {
                add_row(dy, &mut dw[row * dim..][..dim]);
            }
        }
    });
}

vectorized! {
    fn add_row<T: Real>(x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

/// A row of the weight for each id.
#[derive(Debug, Clone, Copy)]
pub struct Embedding;

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("embedding", x, 2, 2)?;
        if x[0].dtype != DType::I32 {
            return Err(Error::dtype("embedding", format!("input is {}, but ids must be i32", x[0])));
        }
        expect_real("embedding", "weight", &x[1])?;
        if x[1].shape.rank() != 2 || x[1].shape.last() == 0 {
            let what = format!("weight has shape {}, but must be [count, dim]", x[1].shape);
            return Err(Error::shape("embedding", what));
        }
        let dims: SmallList<usize> = x[0].shape.dims().iter().copied().chain([x[1].shape.last()]).collect();
        let spec = Spec::new(x[1].dtype, &dims);
        Ok(smallvec::smallvec![spec.map_err(|e| Error::shape("embedding", e.to_string()))?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        check_ids("embedding", x[0], x[1].dims()[0], None)?;
        let mut y = cx.empty(self.infer(&[x[0].spec(), x[1].spec()])?[0])?;
        let dim = Arg::Size(x[1].dims()[1]);
        cx.launch(&FORWARD, &mut [Arg::In(x[0]), Arg::In(x[1]), Arg::Out(&mut y), dim])?;
        cx.keep(x[0]);
        Ok(smallvec::smallvec![y])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let dim = dy.shape().last();
        dx[1].write(cx, |cx, out, accumulate| {
            let flag = Arg::Flag(accumulate);
            cx.launch(&BACKWARD, &mut [Arg::In(&kept[0]), Arg::In(dy), Arg::Out(out), Arg::Size(dim), flag])
        })
    }
}

impl<'t> Var<'t> {
    /// Rows of `weight` [count, dim] at the ids `self` (i32).
    pub fn embedding(&self, weight: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(Embedding, &[self, weight])
    }
}

/// embedding in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "embedding",
    doc: "y[i] = weight[input[i]]",
    inputs: &[Port::ids("input"), Port::real("weight")],
    outputs: &["output"],
    attrs: &[],
    build: |_| Ok(Arc::new(Embedding)),
    kernels: &[&FORWARD, &BACKWARD],
    samples: || {
        let ids = |note, dims: &[usize], n: usize| Sample::new(note).input(dims, Fill::Ids(n));
        vec![
            ids("ids that repeat", &[2, 5], 3).normal(&[3, 4]),
            ids("one id", &[], 6).normal(&[6, 2]),
            ids("no id", &[0], 6).normal(&[6, 2]),
            ids("16 x 256 of 256, width 128", &[16, 256], 256).normal(&[256, 128]).large(),
        ]
    },
};
