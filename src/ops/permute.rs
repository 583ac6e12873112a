//! permute: axes in another order, y[i_dims[0], …] = x[i_0, …]; the gradient is permuted back. Cost: one copy each way.

use super::elementwise::{expect_inputs, expect_real};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::{Arg, Real, par};
use crate::shape::{MAX_RANK, Shape, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "permute";
    /// y, row-major with extents `dims`, takes the element of x at Σ index·`strides`; += when `accumulate`.
    pub static PERMUTE = permute_copy(x: in T, y: out T, dims: val dims, strides: val dims, accumulate: val flag);
}

/// Side of the square tiles of a transposition: a row of f32 is a cache line.
const TILE: usize = 16;

fn permute_copy<T: Real>(x: &[T], y: &mut [T], dims: &[usize], strides: &[usize], accumulate: bool) {
    if y.is_empty() {
        return;
    }
    let (dims, strides) = merge(dims, strides);
    let rank = dims.len();
    // The last two axes of y are a plane.
    let (rows, cols) = (dims[rank - 2], dims[rank - 1]);
    let steps = [strides[rank - 2], strides[rank - 1]];
    let plane = |i: usize| {
        let (mut i, mut at) = (i, 0);
        for (&n, &s) in dims[..rank - 2].iter().zip(&strides[..rank - 2]).rev() {
            at += i % n * s;
            i /= n;
        }
        at
    };
    // A chunk is whole rows of tiles; it may end within a plane and go on in the next.
    let some = (4 * par::CHUNK / cols).next_multiple_of(TILE).max(TILE);
    par::chunks_mut(y, some * cols, x.len() / 2, |i, mut y| {
        let mut row = i * some;
        while !y.is_empty() {
            let (p, r) = (row / rows, row % rows);
            let n = (rows - r).min(y.len() / cols);
            let (now, rest) = y.split_at_mut(n * cols);
            copy_plane(&x[plane(p) + r * steps[0]..], now, cols, steps, accumulate);
            (y, row) = (rest, row + n);
        }
    });
}

vectorized! {
    /// Rows of `cols` elements of y from the elements of x at row·steps[0] + col·steps[1].
    fn copy_plane<T: Real>(x: &[T], y: &mut [T], cols: usize, steps: [usize; 2], accumulate: bool) {
        let [row_step, col_step] = steps;
        let put = |y: &mut T, x: T| *y = if accumulate { *y + x } else { x };
        if col_step == 1 {
            for (r, y) in y.chunks_mut(cols).enumerate() {
                let x = &x[r * row_step..][..cols];
                if accumulate { y.iter_mut().zip(x).for_each(|(y, &x)| *y += x) } else { y.copy_from_slice(x) }
            }
            return;
        }
        for (b, y) in y.chunks_mut(TILE * cols).enumerate() {
            let (r0, rows) = (b * TILE, y.len() / cols);
            for c0 in (0..cols).step_by(TILE) {
                let n = TILE.min(cols - c0);
                if rows == TILE && n == TILE && row_step == 1 {
                    // Whole lines of x are read one after the other, then whole lines of y are written.
                    let mut tile = [[T::ZERO; TILE]; TILE];
                    for (c, line) in tile.iter_mut().enumerate() {
                        line.copy_from_slice(&x[r0 + (c0 + c) * col_step..][..TILE]);
                    }
                    for (r, y) in y.chunks_mut(cols).enumerate() {
                        for (y, line) in y[c0..c0 + TILE].iter_mut().zip(&tile) {
                            put(y, line[r]);
                        }
                    }
                    continue;
                }
                for (r, y) in y.chunks_mut(cols).enumerate() {
                    for (c, y) in y[c0..c0 + n].iter_mut().enumerate() {
                        put(y, x[(r0 + r) * row_step + (c0 + c) * col_step]);
                    }
                }
            }
        }
    }
}

/// The same walk with as few axes as possible, but at least two: neighbours that lie in x as they do in y are one axis.
fn merge(dims: &[usize], strides: &[usize]) -> (SmallList<usize>, SmallList<usize>) {
    let (mut d, mut s): (SmallList<usize>, SmallList<usize>) = (SmallList::new(), SmallList::new());
    for (&n, &step) in dims.iter().zip(strides).filter(|(n, _)| **n != 1) {
        match (d.last_mut(), s.last_mut()) {
            (Some(last), Some(outer)) if *outer == step * n => (*last, *outer) = (*last * n, step),
            _ => {
                d.push(n);
                s.push(step);
            }
        }
    }
    while d.len() < 2 {
        d.insert(0, 1);
        s.insert(0, 0);
    }
    (d, s)
}

/// Axes in another order.
#[derive(Debug, Clone)]
pub struct Permute {
    /// Axis of the input that becomes each axis of the output.
    pub dims: SmallList<i64>,
}

impl Permute {
    fn axes(&self, x: &Spec) -> Result<SmallList<usize>> {
        let axes: SmallList<usize> = self.dims.iter().map(|&d| x.shape.axis("permute", d)).collect::<Result<_>>()?;
        let distinct = (0..x.shape.rank()).all(|a| axes.contains(&a));
        if axes.len() != x.shape.rank() || !distinct {
            let what = format!("dims {:?} do not name each axis of input {} once", &self.dims[..], x.shape);
            return Err(Error::shape("permute", what));
        }
        Ok(axes)
    }
}

/// y = x with its axes in the order `axes`.
fn run(cx: &Cx<'_>, x: &Tensor, y: &mut Tensor, axes: &[usize], accumulate: bool) -> Result<()> {
    let mut all = [0; MAX_RANK];
    let mut step = 1;
    for (s, &n) in all.iter_mut().zip(x.dims().iter()).take(axes.len()).rev() {
        (*s, step) = (step, step * n);
    }
    let strides: SmallList<usize> = axes.iter().map(|&a| all[a]).collect();
    let shape = y.shape();
    let args = &mut [Arg::In(x), Arg::Out(y), Arg::Dims(shape.dims()), Arg::Dims(&strides), Arg::Flag(accumulate)];
    cx.launch(&PERMUTE, args)
}

impl Op for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("permute", x, 1, 1)?;
        expect_real("permute", "input", &x[0])?;
        let dims: SmallList<usize> = self.axes(&x[0])?.iter().map(|&a| x[0].shape.dims()[a]).collect();
        Ok(smallvec::smallvec![x[0].with_shape(Shape::new(&dims)?)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let mut y = cx.empty(self.infer(&[x[0].spec()])?[0])?;
        run(cx, x[0], &mut y, &self.axes(&x[0].spec())?, false)?;
        Ok(smallvec::smallvec![y])
    }

    fn backward(&self, cx: &mut Cx<'_>, _: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let axes = self.axes(&dx[0].spec())?;
        let mut back: SmallList<usize> = smallvec::smallvec![0; axes.len()];
        axes.iter().enumerate().for_each(|(i, &a)| back[a] = i);
        dx[0].write(cx, |cx, out, accumulate| run(cx, dy, out, &back, accumulate))
    }
}

impl<'t> Var<'t> {
    /// Axes in the order `dims`.
    pub fn permute(&self, dims: &[i64]) -> Result<Var<'t>> {
        self.tape().apply1(Permute { dims: dims.into() }, &[self])
    }
}

/// permute in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "permute",
    doc: "axes in another order",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[AttrDoc { name: "dims", kind: Kind::Ints, default: None, doc: "axis of the input for each axis of the output" }],
    build: |a| Ok(Arc::new(Permute { dims: a.ints("dims")?.into() })),
    kernels: &[&PERMUTE],
    samples: || {
        let s = |note, x: &[usize], dims: &str| Sample::new(note).normal(x).attr("dims", dims);
        vec![
            s("transpose", &[3, 5], "1,0"),
            s("nothing moves", &[2, 3, 4], "0,1,2"),
            s("heads before tokens", &[2, 3, 2, 4], "0,2,1,3"),
            s("all moved", &[2, 3, 4], "2,0,1"),
            s("negative", &[2, 3, 4], "-1,0,-2"),
            s("more than a tile", &[37, 33], "1,0"),
            s("tiles across planes", &[2, 19, 35], "0,2,1"),
            s("all reversed", &[3, 2, 18], "2,1,0"),
            s("extents of one", &[1, 3, 1, 2], "3,2,1,0"),
            s("empty", &[0, 3], "1,0"),
            s("16 x 256 x 3 x 4 x 32", &[16, 256, 3, 4, 32], "2,0,3,1,4").large(),
            s("transpose 2048 x 2048", &[2048, 2048], "1,0").large(),
        ]
    },
};
