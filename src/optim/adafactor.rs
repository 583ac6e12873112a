//! Adafactor (Shazeer and Stern 2018), in the order of torch.optim.Adafactor: the mean square of a matrix is the product of that of
//! its rows and that of its columns. For step t = 1, 2, …, with β = 1 − t^`beta2_decay`:
//!
//!   R ← βR + (1 − β)·mean of g² over each row;   C ← βC + (1 − β)·mean over each column
//!   V = R Cᵀ / max(mean R, ε₁);   u = g / √max(V, ε₁²)            (vectors keep V itself)
//!   w ← w·(1 − lr·λ)                      (decoupled decay, matrices only)
//!   w ← w − max(ε₂, rms w)·min(lr, 1/√t) · u / max(1, rms u / d)   (rms w from before the decay)
//!
//! Arrays with more than two axes are matrices of their first axis by the rest. A slot takes three kernels, since its weights wait
//! for sums over all of them; no number comes back from a device. Without a mean of gradients the state does not tell where
//! the last update went, so there is no slope.
//!
//! State: rows + columns numbers a matrix, 1 a weight of any other.

use super::attributes::{real, weight_decay};
use super::{Entry, Optimizer, Step, named, within};
use crate::error::Result;
use crate::kernel::lanes::sum_by;
use crate::kernel::reduce::sum_of;
use crate::kernel::{Arg, Real, launch, par};
use crate::shape::{DType, Spec};
use crate::tape::{Grads, Params, Role, SlotInfo};
use crate::tensor::Tensor;
use crate::{kernel, vectorized};

kernel! {
    ptx "adafactor";
    /// R and C of one slot brought up to date, or V in place of C where there are no rows. `place` = [first weight, weights, rows,
    /// columns, first row, first column] in the arrays of a segment.
    static MOMENTS = adafactor_moments(row: out T, col: out T, g: in T, place: val dims, share: val T)
        blocks(place[2] + place[3].div_ceil(256));
    /// partial[2p] = Σ w² and partial[2p + 1] = Σ u² over piece p of 64 equal pieces of a slot.
    static SUMS = adafactor_sums(
        partial: out T, w: in T, g: in T, row: in T, col: in T, place: val dims, eps: val T,
    ) blocks(64);
    /// The step of w, from those sums.
    static APPLY = adafactor_apply(
        w: out T, g: in T, row: in T, col: in T, partial: in T, place: val dims, eps: val T, keep: val T, rate: val T,
        least: val T, most: val T,
    ) blocks(place[1].div_ceil(256));
}

/// Pieces of a slot whose squares are summed apart.
const PARTS: usize = 64;

/// One slot of the arrays of a segment.
struct Part<'a, T> {
    g: &'a [T],
    row: &'a [T],
    col: &'a [T],
    columns: usize,
    mean: T,
    eps: T,
}

impl<'a, T: Real> Part<'a, T> {
    fn new(g: &'a [T], row: &'a [T], col: &'a [T], place: &[usize], eps: T) -> Part<'a, T> {
        let [at, n, rows, columns, row_at, col_at] = *place else { unreachable!("six numbers") };
        let (g, row) = (&g[at..][..n], &row[row_at..][..rows]);
        let mean = sum_by(rows, |i| row[i]) / T::of(rows.max(1) as f64);
        let mean = if mean > eps { mean } else { eps };
        Part { g, row, col: &col[col_at..][..columns], columns, mean, eps }
    }

    /// Hands weights `from` to `to` on in stretches of one row: the first, their gradients, the mean squares of their columns,
    /// and what those are multiplied by.
    fn stretches(&self, from: usize, to: usize, mut f: impl FnMut(usize, &[T], &[T], T)) {
        let mut at = from;
        while at < to {
            let (i, j) = (at / self.columns, at % self.columns);
            let n = (self.columns - j).min(to - at);
            let factor = self.row.get(i).map_or(T::ONE, |&row| row / self.mean);
            f(at, &self.g[at..][..n], &self.col[j..][..n], factor);
            at += n;
        }
    }
}

/// u = g / √max(V, least).
#[inline(always)]
fn update<T: Real>(g: T, v: T, least: T) -> T {
    g / (if v > least { v } else { least }).sqrt()
}

vectorized! {
    /// Σ u² over a stretch.
    fn update_squares<T: Real>(g: &[T], col: &[T], factor: T, least: T) -> T {
        sum_of([g, col], |[g, col]| {
            let u = update(g, factor * col, least);
            u * u
        })
    }

    fn squares<T: Real>(x: &[T]) -> T {
        sum_of([x], |[x]| x * x)
    }

    fn apply_stretch<T: Real>(w: &mut [T], g: &[T], col: &[T], factor: T, least: T, keep: T, rate: T) {
        for ((w, &g), &col) in w.iter_mut().zip(g).zip(col) {
            *w = *w * keep - rate * update(g, factor * col, least);
        }
    }
}

fn adafactor_moments<T: Real>(row: &mut [T], col: &mut [T], g: &[T], place: &[usize], share: T) {
    let [at, n, rows, columns, row_at, col_at] = *place else { unreachable!("six numbers") };
    let g = &g[at..][..n];
    let toward = |old: &mut T, mean: T| *old = *old + share * (mean - *old);
    if rows > 0 {
        let (size, all) = ((par::CHUNK / columns).max(1), T::of(columns as f64));
        par::chunks_mut(&mut row[row_at..][..rows], size, n / 4, |k, row| {
            for (i, row) in row.iter_mut().enumerate() {
                let g = &g[(k * size + i) * columns..][..columns];
                toward(row, squares(g) / all);
            }
        });
    }
    let (turns, all) = (rows.max(1), T::of(rows.max(1) as f64));
    par::chunks_mut(&mut col[col_at..][..columns], 256, n / 4, |k, col| {
        let mut sums = [T::ZERO; 256];
        for i in 0..turns {
            let g = &g[i * columns + k * 256..][..col.len()];
            sums.iter_mut().zip(g).for_each(|(sum, &g)| *sum += g * g);
        }
        col.iter_mut().zip(sums).for_each(|(col, sum)| toward(col, sum / all));
    });
}

fn adafactor_sums<T: Real>(
    partial: &mut [T],
    w: &[T],
    g: &[T],
    row: &[T],
    col: &[T],
    place: &[usize],
    eps: T,
) {
    let (part, w) = (Part::new(g, row, col, place, eps), &w[place[0]..][..place[1]]);
    let size = w.len().div_ceil(PARTS).max(1);
    par::chunks_mut(partial, 2, w.len(), |p, sums| {
        let first = (p * size).min(w.len());
        let n = (w.len() - first).min(size);
        sums[0] = squares(&w[first..][..n]);
        sums[1] = T::ZERO;
        part.stretches(first, first + n, |_, g, col, factor| {
            sums[1] += update_squares(g, col, factor, part.eps * part.eps);
        });
    });
}

#[allow(clippy::too_many_arguments)]
fn adafactor_apply<T: Real>(
    w: &mut [T],
    g: &[T],
    row: &[T],
    col: &[T],
    partial: &[T],
    place: &[usize],
    eps: T,
    keep: T,
    rate: T,
    least: T,
    most: T,
) {
    let (part, n) = (Part::new(g, row, col, place, eps), T::of(place[1] as f64));
    let rms = |k: usize| (partial.iter().skip(k).step_by(2).fold(T::ZERO, |sum, &x| sum + x) / n).sqrt();
    let (size, length) = (rms(0), rms(1) / most);
    let rate = rate * if size > least { size } else { least };
    let rate = rate / if length > T::ONE { length } else { T::ONE };
    par::chunks_mut(&mut w[place[0]..][..place[1]], par::CHUNK, place[1], |k, w| {
        let first = k * par::CHUNK;
        part.stretches(first, first + w.len(), |at, g, col, factor| {
            let w = &mut w[at - first..][..g.len()];
            apply_stretch(w, g, col, factor, part.eps * part.eps, keep, rate);
        });
    });
}

/// Adafactor and its state.
struct Adafactor {
    beta2_decay: f64,
    eps: [f64; 2],
    most: f64,
    weight_decay: f64,
    row: Vec<Tensor>,
    col: Vec<Tensor>,
    t: u64,
}

/// Rows and columns of a slot; no rows for what is no matrix.
fn extents(slot: &SlotInfo) -> [usize; 2] {
    let (dims, n) = (slot.shape.dims(), slot.shape.len());
    if dims.len() < 2 || n == 0 { [0, n] } else { [dims[0], n / dims[0]] }
}

impl Optimizer for Adafactor {
    fn name(&self) -> &'static str {
        "adafactor"
    }
    fn advance(&mut self, w: &mut Params, g: &Grads, how: Step<'_>) -> Result<Option<f64>> {
        self.t += 1;
        let (t, lr) = (self.t as f64, how.lr);
        let (share, rate) = (t.powf(self.beta2_decay), lr.min(1.0 / t.sqrt()));
        let mut partial = Tensor::empty(w.device(), Spec::new(w.dtype(), &[2 * PARTS])?)?;
        for i in 0..w.segments().len() {
            let Some(g) = g.flat(i) else { continue };
            let decay = if w.segments()[i].role == Role::Decay { self.weight_decay } else { 0.0 };
            let (mut rows, mut columns) = (0, 0);
            let places: Vec<[usize; 6]> = (w.slots().iter().filter(|s| s.segment == i))
                .map(|s| {
                    let [r, c] = extents(s);
                    let place = [s.offset, s.shape.len(), r, c, rows, columns];
                    (rows, columns) = (rows + r, columns + c);
                    place
                })
                .filter(|place| place[1] > 0)
                .collect();
            let (row, col) = (&mut self.row[i], &mut self.col[i]);
            for place in &places {
                let place = || Arg::Dims(place);
                let eps = || Arg::Real(self.eps[0]);
                let share = Arg::Real(share);
                launch(&MOMENTS, &mut [Arg::Out(row), Arg::Out(col), Arg::In(g), place(), share])?;
                let (r, c, out) = (Arg::In(row), Arg::In(col), Arg::Out(&mut partial));
                launch(&SUMS, &mut [out, Arg::In(w.segment(i)), Arg::In(g), r, c, place(), eps()])?;
                let (r, c, sums) = (Arg::In(row), Arg::In(col), Arg::In(&partial));
                let numbers = [1.0 - lr * decay, rate, self.eps[1], self.most].map(Arg::Real);
                let [keep, rate, least, most] = numbers;
                let w = Arg::Out(w.segment_mut(i));
                launch(&APPLY, &mut [w, Arg::In(g), r, c, sums, place(), eps(), keep, rate, least, most])?;
            }
        }
        Ok(None)
    }
    fn steps(&self) -> u64 {
        self.t
    }
    fn state(&self) -> Vec<(String, &Tensor)> {
        named("row", self.row.iter()).chain(named("col", self.col.iter())).collect()
    }
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64) {
        (named("row", self.row.iter_mut()).chain(named("col", self.col.iter_mut())).collect(), &mut self.t)
    }
    fn slopes(&self) -> bool {
        false
    }
}

/// One array for each segment, of `size` numbers for each of its trained slots.
fn arrays(p: &Params, size: impl Fn(&SlotInfo) -> usize) -> Result<Vec<Tensor>> {
    let of = |i: usize| -> usize {
        p.slots().iter().filter(|s| s.segment == i && s.role != Role::State).map(&size).sum()
    };
    (0..p.segments().len()).map(|i| Tensor::zeros(p.device(), Spec::new(p.dtype(), &[of(i)])?)).collect()
}

/// adafactor in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "adafactor",
    doc: "steps over the root of a mean square that is kept by rows and columns; lr is relative to the size of weights",
    state: "rows + columns numbers a matrix, 1 a weight of any other",
    attrs: &[
        real("beta2_decay", "-0.8", "power of the step by which the memory of squares grows"),
        real("eps1", "0", "least root of a mean square; 0: the relative precision of the type"),
        real("eps2", "1e-3", "least size of a slot that its steps are relative to"),
        real("d", "1", "largest rms of an update"),
        weight_decay("0"),
    ],
    build: |a, p| {
        let op = "adafactor";
        let eps1 = within(op, "eps1", a.real("eps1")?, 0.0, 1.0)?;
        let precise = if p.dtype() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
        Ok(Box::new(Adafactor {
            beta2_decay: within(op, "beta2_decay", a.real("beta2_decay")?, -10.0, 0.0)?,
            eps: [
                if eps1 == 0.0 { precise } else { eps1 },
                within(op, "eps2", a.real("eps2")?, 0.0, f64::INFINITY)?,
            ],
            most: within(op, "d", a.real("d")?, 1.0, f64::INFINITY)?,
            weight_decay: within(op, "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?,
            row: arrays(p, |s| extents(s)[0])?,
            col: arrays(p, |s| extents(s)[1])?,
            t: 0,
        }))
    },
    kernels: &[&MOMENTS, &SUMS, &APPLY],
};
