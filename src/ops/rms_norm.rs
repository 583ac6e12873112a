//! rms_norm: over each row of n elements (the last axis), with r = 1/√(Σx²/n + ε) and x̂ = x·r:
//!
//! y = x̂·w;  with g = dy·w:  dx = r·(g − x̂·Σ(g·x̂)/n),  dw = Σ_rows dy·x̂.
//!
//! Forward keeps r of each row; x̂ is made again from x. Backward makes dx and dw in one walk over x and dy:
//! dw as one partial sum a block of rows, added in order. Cost: a read and a write forward, two reads and a
//! write backward; bound by memory. (B. Zhang, R. Sennrich, "Root mean square layer normalization", 2019.)

use super::elementwise::expect_inputs;
use super::rows::{self, BLOCK, GROUP, SUM_PARTS, per_chunk, put};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::Result;
use crate::kernel::reduce::sum_of;
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "rms_norm";
    /// y = x̂·w and stats = r of each row; w may be absent.
    pub static FORWARD = rms_norm_forward(x: in T, w: in T, y: out T, stats: out T, n: val size, eps: val T) blocks(stats.div_ceil(8));
    /// dx (or dx += when `accumulate`), and parts = Σ dy·x̂ of each block of rows; either output may be
    /// absent.
    pub static BACKWARD = rms_norm_backward(
        x: in T, w: in T, stats: in T, dy: in T, dx: out T, parts: out T, n: val size, accumulate: val flag,
    ) blocks(stats.div_ceil(64));
}

fn rms_norm_forward<T: Real>(x: &[T], w: &[T], y: &mut [T], stats: &mut [T], n: usize, eps: T) {
    let rows = per_chunk(n);
    let mut ones = vec![];
    let w = rows::or_filled(w, &mut ones, T::ONE, n);
    par::chunks_mut2((y, rows * n), (stats, rows), x.len() / 4, |i, y, stats| {
        forward_rows(&x[i * rows * n..][..y.len()], w, y, stats, n, eps);
    });
}

#[allow(clippy::too_many_arguments)]
fn rms_norm_backward<T: Real>(
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
    rows::blocks(dx, parts, [x.len() / n.max(1), n, n], |at, dx, parts| {
        let (x, dy) = (&x[at.start * n..at.end * n], &dy[at.start * n..at.end * n]);
        // An output that nobody wants is made all the same: rare, and cheaper than loops for each case.
        let (mut no_dx, mut no_parts) = (vec![], vec![]);
        let dx = rows::or_scratch(dx, &mut no_dx, x.len());
        let parts = rows::or_scratch(parts, &mut no_parts, n);
        backward_rows(x, w, &stats[at], dy, dx, parts, n, accumulate);
    });
}

vectorized! {
    fn forward_rows<T: Real>(x: &[T], w: &[T], y: &mut [T], stats: &mut [T], n: usize, eps: T) {
        for ((x, y), stats) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(stats) {
            let r = T::ONE / (sum_of([x], |[x]| x * x) / T::of(n as f64) + eps).sqrt();
            *stats = r;
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                *y = x * r * w;
            }
        }
    }

    fn backward_rows<T: Real>(
        x: &[T], w: &[T], stats: &[T], dy: &[T], dx: &mut [T], parts: &mut [T], n: usize, accumulate: bool,
    ) {
        parts.fill(T::ZERO);
        let groups = x.chunks(GROUP * n).zip(dy.chunks(GROUP * n)).zip(stats.chunks(GROUP));
        for (((x, dy), stats), dx) in groups.zip(dx.chunks_mut(GROUP * n)) {
            // r·Σ(g·x̂)/n of each row.
            let mut means = [T::ZERO; GROUP];
            for (((x, dy), &r), mean) in x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(stats).zip(&mut means) {
                *mean = r * sum_of([x, dy, w], |[x, dy, w]| dy * w * (x * r)) / T::of(n as f64);
            }
            if accumulate {
                gradients::<T, true>([x, dy, w, stats], &means, dx, parts, n);
            } else {
                gradients::<T, false>([x, dy, w, stats], &means, dx, parts, n);
            }
        }
    }
}

/// dx, and dy·x̂ added to `dw`, of one group of rows.
#[inline(always)]
fn gradients<T: Real, const ADD: bool>(
    [x, dy, w, stats]: [&[T]; 4],
    means: &[T; GROUP],
    dx: &mut [T],
    dw: &mut [T],
    n: usize,
) {
    let rows = x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n));
    for (((x, dy), dx), (&r, &gx)) in rows.zip(stats.iter().zip(means)) {
        for (((dx, &x), &dy), (&w, dw)) in dx.iter_mut().zip(x).zip(dy).zip(w.iter().zip(dw.iter_mut())) {
            *dw += dy * (x * r);
            put::<T, ADD>(dx, r * (dy * w - x * gx));
        }
    }
}

/// Root-mean-square normalisation over the last axis.
#[derive(Debug, Clone, Copy, Default)]
pub struct RmsNorm {
    /// Added to the mean square; None takes the machine epsilon of the input's type, as torch does.
    pub eps: Option<f64>,
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("rms_norm", x, 1, 2)?;
        rows::last_axis("rms_norm", &x[0], &x[1..], &["weight"])?;
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let n = x[0].shape().last();
        let machine = if x[0].dtype() == DType::F64 { f64::EPSILON } else { f32::EPSILON.into() };
        let mut y = cx.empty(x[0].spec())?;
        let mut stats = cx.empty(Spec::new(x[0].dtype(), &[x[0].len() / n.max(1)])?)?;
        let w = x.get(1).map_or(Arg::Absent, |t| Arg::In(t));
        let (y_out, stats_out) = (Arg::Out(&mut y), Arg::Out(&mut stats));
        let eps = Arg::Real(self.eps.unwrap_or(machine));
        cx.launch(&FORWARD, &mut [Arg::In(x[0]), w, y_out, stats_out, Arg::Size(n), eps])?;
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
        rows::backward(cx, dx, rest, x, n, |cx, out, parts, accumulate| {
            let w = kept.get(2).map_or(Arg::Absent, Arg::In);
            let (size, flag) = (Arg::Size(n), Arg::Flag(accumulate));
            cx.launch(&BACKWARD, &mut [Arg::In(x), w, Arg::In(stats), Arg::In(dy), out, parts, size, flag])
        })
    }
}

impl<'t> Var<'t> {
    /// Each row of the last axis divided by its root mean square, then times `weight`. An `eps` of None is
    /// the machine epsilon of the element type.
    pub fn rms_norm(&self, weight: Option<&Var<'t>>, eps: Option<f64>) -> Result<Var<'t>> {
        match weight {
            Some(w) => self.tape().apply1(RmsNorm { eps }, &[self, w]),
            None => self.tape().apply1(RmsNorm { eps }, &[self]),
        }
    }
}

/// rms_norm in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "rms_norm",
    doc: "y = x / sqrt(mean(x^2) + eps) * weight over the last axis",
    inputs: &[Port::real("input"), Port::real("weight").optional()],
    outputs: &["output"],
    attrs: &[AttrDoc {
        name: "eps",
        kind: Kind::Real,
        default: Some("-1"),
        doc: "added to the mean square; negative: the machine epsilon of the element type (torch's None)",
    }],
    build: |a| Ok(Arc::new(RmsNorm { eps: Some(a.real("eps")?).filter(|&eps| eps >= 0.0) })),
    kernels: &[&FORWARD, &BACKWARD, &SUM_PARTS],
    samples: || {
        let both = |note, dims: &[usize]| Sample::new(note).normal(dims).normal(&dims[dims.len() - 1..]);
        vec![
            both("rows", &[4, 7]),
            both("longer than a vector", &[2, 3, 21]).attr("eps", 1e-5),
            both("more rows than a block", &[BLOCK + 3, 5]).attr("eps", 1e-3),
            Sample::new("no weight").attr("eps", 1e-3).normal(&[2, 2, 1, 6]),
            both("one row", &[9]),
            both("no rows", &[0, 4]),
            both("empty rows", &[4, 0]),
            // In an extent of 1 y is the sign of x, all but for eps.
            both("rows of one element", &[3, 1]).attr("eps", 0.1),
            both("4096 x 128", &[4096, 128]).large(),
        ]
    },
};
