//! layer_norm: over each row of n elements (the last axis), with mean μ = Σx/n, r = 1/√(Σ(x − μ)²/n + ε) and
//! x̂ = (x − μ)·r:
//!
//! y = x̂·w + b;  with g = dy·w:  dx = r·(g − Σg/n − x̂·Σ(g·x̂)/n),  dw = Σ_rows dy·x̂,  db = Σ_rows dy.
//!
//! Forward keeps μ and r of each row; x̂ is made again from x. Backward makes dx, dw and db in one walk over
//! x and dy: dw and db as one partial sum a block of rows, added in order. Cost: a read and a write forward,
//! two reads and a write backward; bound by memory.

use super::elementwise::expect_inputs;
use super::rows::{self, BLOCK, SUM_PARTS, per_chunk, put};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::reduce::sum_of;
use crate::kernel::{Arg, Real, par};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "layer_norm";
    /// y = x̂·w + b and stats = (μ, r) of each row; w and b may be absent.
    pub static FORWARD = layer_norm_forward(x: in T, w: in T, b: in T, y: out T, stats: out T, n: val size, eps: val T) blocks(stats.div_ceil(16));
    /// dx (or dx += when `accumulate`), and parts = [Σ dy·x̂, Σ dy] of each block of rows; either output may
    /// be absent.
    pub static BACKWARD = layer_norm_backward(
        x: in T, w: in T, stats: in T, dy: in T, dx: out T, parts: out T, n: val size, accumulate: val flag,
    ) blocks(stats.div_ceil(128));
}

fn layer_norm_forward<T: Real>(x: &[T], w: &[T], b: &[T], y: &mut [T], stats: &mut [T], n: usize, eps: T) {
    let rows = per_chunk(n);
    let (mut ones, mut zeros) = (vec![], vec![]);
    let (w, b) = (rows::or_filled(w, &mut ones, T::ONE, n), rows::or_filled(b, &mut zeros, T::ZERO, n));
    par::chunks_mut2((y, rows * n), (stats, 2 * rows), x.len() / 4, |i, y, stats| {
        forward_rows(&x[i * rows * n..][..y.len()], w, b, y, stats, n, eps);
    });
}

#[allow(clippy::too_many_arguments)]
fn layer_norm_backward<T: Real>(
    x: &[T],
    w: &[T],
    stats: &[T],
    dy: &[T],
    dx: &mut [T],
    parts: &mut [T],
    n: usize,
    accumulate: bool,
) {
    let mut ones = vec![];
    let w = rows::or_filled(w, &mut ones, T::ONE, n);
    rows::blocks(dx, parts, [x.len() / n.max(1), n, 2 * n], |at, dx, parts| {
        let (x, dy) = (&x[at.start * n..at.end * n], &dy[at.start * n..at.end * n]);
        // An output that nobody wants is made all the same: rare, and cheaper than loops for each case.
        let (mut no_dx, mut no_parts) = (vec![], vec![]);
        let dx = rows::or_scratch(dx, &mut no_dx, x.len());
        let parts = rows::or_scratch(parts, &mut no_parts, 2 * n);
        backward_rows(x, w, &stats[2 * at.start..2 * at.end], dy, dx, parts, n, accumulate);
    });
}

vectorized! {
    fn forward_rows<T: Real>(x: &[T], w: &[T], b: &[T], y: &mut [T], stats: &mut [T], n: usize, eps: T) {
        let count = T::of(n as f64);
        for ((x, y), stats) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(stats.chunks_exact_mut(2)) {
            let mean = sum_of([x], |[x]| x) / count;
            // The second walk subtracts the mean first: Σx² − n·μ² would cancel where μ is large.
            let var = sum_of([x], |[x]| (x - mean) * (x - mean)) / count;
            let r = T::ONE / (var + eps).sqrt();
            (stats[0], stats[1]) = (mean, r);
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) {
                *y = (x - mean) * r * w + b;
            }
        }
    }

    fn backward_rows<T: Real>(
        x: &[T], w: &[T], stats: &[T], dy: &[T], dx: &mut [T], parts: &mut [T], n: usize, accumulate: bool,
    ) {
        parts.fill(T::ZERO);
        if accumulate {
            gradients::<T, true>(x, w, stats, dy, dx, parts, n);
        } else {
            gradients::<T, false>(x, w, stats, dy, dx, parts, n);
        }
    }
}

/// Two rows at a time: dw and db are read and written once for both.
#[inline(always)]
fn gradients<T: Real, const ADD: bool>(
    x: &[T],
    w: &[T],
    stats: &[T],
    dy: &[T],
    dx: &mut [T],
    parts: &mut [T],
    n: usize,
) {
    let (w, (dw, db)) = (&w[..n], parts.split_at_mut(n));
    let pairs = x.chunks(2 * n).zip(dy.chunks(2 * n)).zip(stats.chunks(4));
    for (((x, dy), stats), dx) in pairs.zip(dx.chunks_mut(2 * n)) {
        let ((x, x1), (dy, dy1), (dx, dx1)) = (x.split_at(n), dy.split_at(n), dx.split_at_mut(n));
        let first = known(x, w, &stats[..2], dy);
        if stats.len() == 4 {
            let second = known(x1, w, &stats[2..], dy1);
            two_rows::<T, ADD>(x, x1, dy, dy1, w, dx, dx1, dw, db, [first, second]);
        } else {
            one_row::<T, ADD>(x, dy, w, dx, dw, db, first);
        }
    }
}

/// μ, r, Σg/n and Σ(g·x̂)/n of a row; the sums in walks of their own, each of which becomes whole vectors.
#[inline(always)]
fn known<T: Real>(x: &[T], w: &[T], stats: &[T], dy: &[T]) -> [T; 4] {
    let (mu, r, count) = (stats[0], stats[1], T::of(w.len() as f64));
    let g = sum_of([dy, w], |[dy, w]| dy * w) / count;
    let gx = sum_of([x, dy, w], |[x, dy, w]| dy * w * ((x - mu) * r)) / count;
    [mu, r, g, gx]
}

/// dx of a row, and dy·x̂ and dy added to dw and db.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn one_row<T: Real, const ADD: bool>(
    x: &[T],
    dy: &[T],
    w: &[T],
    dx: &mut [T],
    dw: &mut [T],
    db: &mut [T],
    [mu, r, g, gx]: [T; 4],
) {
    let n = w.len();
    let (x, dy, dx, dw, db) = (&x[..n], &dy[..n], &mut dx[..n], &mut dw[..n], &mut db[..n]);
    for j in 0..n {
        let hat = (x[j] - mu) * r;
        dw[j] += dy[j] * hat;
        db[j] += dy[j];
        put::<T, ADD>(&mut dx[j], r * (dy[j] * w[j] - g - hat * gx));
    }
}

/// [`one_row`] of two, one after the other in each column. A slice each, not arrays of them: of arguments alone the compiler
/// knows that they do not overlap.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn two_rows<T: Real, const ADD: bool>(
    x: &[T],
    x1: &[T],
    dy: &[T],
    dy1: &[T],
    w: &[T],
    dx: &mut [T],
    dx1: &mut [T],
    dw: &mut [T],
    db: &mut [T],
    [[mu, r, g, gx], [mu1, r1, g1, gx1]]: [[T; 4]; 2],
) {
    let n = w.len();
    let (x, x1, dy, dy1) = (&x[..n], &x1[..n], &dy[..n], &dy1[..n]);
    let (dx, dx1, dw, db) = (&mut dx[..n], &mut dx1[..n], &mut dw[..n], &mut db[..n]);
    for j in 0..n {
        let (hat, hat1) = ((x[j] - mu) * r, (x1[j] - mu1) * r1);
        dw[j] = dw[j] + dy[j] * hat + dy1[j] * hat1;
        db[j] = db[j] + dy[j] + dy1[j];
        put::<T, ADD>(&mut dx[j], r * (dy[j] * w[j] - g - hat * gx));
        put::<T, ADD>(&mut dx1[j], r1 * (dy1[j] * w[j] - g1 - hat1 * gx1));
    }
}

/// Layer normalisation over the last axis.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Extent that the last axis must have; None takes any.
    pub normalized_shape: Option<usize>,
}

impl LayerNorm {
    /// With `eps` added to the variance.
    pub fn new(eps: f64) -> LayerNorm {
        LayerNorm { eps, normalized_shape: None }
    }
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("layer_norm", x, 1, 3)?;
        let n = rows::last_axis("layer_norm", &x[0], &x[1..], &["weight", "bias"])?;
        if let Some(want) = self.normalized_shape.filter(|&want| want != n) {
            let what = format!("is {want}, but the last axis of input {} has extent {n}", x[0].shape);
            return Err(Error::attr("layer_norm", "normalized_shape", what));
        }
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let n = x[0].shape().last();
        let mut y = cx.empty(x[0].spec())?;
        let mut stats = cx.empty(Spec::new(x[0].dtype(), &[x[0].len() / n.max(1), 2])?)?;
        let other = |i: usize| x.get(i).map_or(Arg::Absent, |t| Arg::In(t));
        let out = (Arg::Out(&mut y), Arg::Out(&mut stats));
        let args = &mut [Arg::In(x[0]), other(1), other(2), out.0, out.1, Arg::Size(n), Arg::Real(self.eps)];
        cx.launch(&FORWARD, args)?;
        cx.keep(x[0]);
        cx.keep(&stats);
        if let Some(w) = x.get(1) {
            cx.keep(w);
        }
        Ok(smallvec::smallvec![y])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let (x, stats, Some(dy)) = (&kept[0], &kept[1], &dy[0]) else { return Ok(()) };
        let n = x.shape().last();
        let (dx, rest) = dx.split_first_mut().expect("infer asks for an input");
        rows::backward(cx, dx, rest, x, 2 * n, |cx, out, parts, accumulate| {
            let w = kept.get(2).map_or(Arg::Absent, Arg::In);
            let (size, flag) = (Arg::Size(n), Arg::Flag(accumulate));
            cx.launch(&BACKWARD, &mut [Arg::In(x), w, Arg::In(stats), Arg::In(dy), out, parts, size, flag])
        })
    }
}

impl<'t> Var<'t> {
    /// Each row of the last axis with its mean taken away and its deviation made 1, then times `weight` plus
    /// `bias`.
    pub fn layer_norm(&self, weight: Option<&Var<'t>>, bias: Option<&Var<'t>>, eps: f64) -> Result<Var<'t>> {
        let inputs: &[&Var<'t>] = match (weight, bias) {
            (None, None) => &[self],
            (Some(w), None) => &[self, w],
            (Some(w), Some(b)) => &[self, w, b],
            (None, Some(b)) => {
                let what = format!("bias of shape {} is given without weight", b.shape());
                return Err(Error::shape("layer_norm", what));
            }
        };
        self.tape().apply1(LayerNorm::new(eps), inputs)
    }
}

/// layer_norm in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "layer_norm",
    doc: "y = (x - mean) / sqrt(var + eps) * weight + bias over the last axis",
    inputs: &[Port::real("input"), Port::real("weight").optional(), Port::real("bias").optional()],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "eps", kind: Kind::Real, default: Some("1e-5"), doc: "added to the variance" },
        AttrDoc {
            name: "normalized_shape",
            kind: Kind::Ints,
            default: Some(""),
            doc: "extent of the last axis; normalising over more axes is not supported",
        },
    ],
    build: |a| {
        let normalized_shape = match a.ints("normalized_shape")?[..] {
            [] => None,
            [n] if n >= 0 => Some(n as usize),
            ref more => {
                let what = format!("is {more:?}, but only the last axis (one extent) can be normalised");
                return Err(Error::attr("layer_norm", "normalized_shape", what));
            }
        };
        Ok(Arc::new(LayerNorm { eps: a.real("eps")?, normalized_shape }))
    },
    kernels: &[&FORWARD, &BACKWARD, &SUM_PARTS],
    samples: || {
        let all = |note, dims: &[usize]| {
            let n = dims[dims.len() - 1];
            Sample::new(note).normal(dims).normal(&[n]).normal(&[n])
        };
        vec![
            all("rows", &[4, 7]),
            all("longer than a vector", &[2, 3, 21]),
            all("more rows than a block", &[BLOCK + 3, 5]),
            Sample::new("no bias").normal(&[3, 5]).normal(&[5]),
            Sample::new("no weight").attr("eps", 1e-3).normal(&[2, 2, 1, 6]),
            Sample::new("one row").attr("normalized_shape", "9").normal(&[9]).normal(&[9]),
            all("no rows", &[0, 4]),
            all("empty rows", &[4, 0]),
            // An extent of 1 has variance 0: y = b, and no gradient to x.
            all("rows of one element", &[3, 1]),
            all("4096 x 128", &[4096, 128]).large(),
        ]
    },
};
