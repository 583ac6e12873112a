//! cross_entropy: softmax and negative log-likelihood in one. For a row x of C logits with target t, with
//! m = max x, S = Σ_j e^(x_j − m) and smoothing ε:
//!
//! loss = (1 − ε)·(ln S − (x_t − m)) + ε·(ln S − mean_j (x_j − m));
//! dx_j = g·(e^(x_j − m)/S − (1 − ε)·1{j = t} − ε/C),
//!
//! with g = dloss for `sum` and `none`, dloss / (number of targets that count) for `mean`. Rows whose target
//! is `ignore_index` give loss 0 and gradient 0; when all are ignored the mean is 0/0 = NaN, as in torch.
//! Forward keeps m and 1/S of each row, not the probabilities: backward makes them again on its way into dx.
//! Two numbers rather than m + ln S, whose rounding at large m would show in every probability.
//!
//! Classes stand on the last axis: logits `[N, C]` and target `[N]` as in torch, but `[B, T, C]` and `[B, T]`
//! where torch wants `[B, C, T]`. Cost: a read forward, a read and a write backward, one exp for each logit in both.

use super::elementwise::{expect_inputs, expect_real};
use super::ids::check_ids;
use super::rows::{per_chunk, sum_exp, zip_lanes};
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::reduce::sum_of;
use crate::kernel::lanes::max_number;
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Shape, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "cross_entropy";
    /// For each row of x: stats = (m, 1/S), and its loss. `ignore` is an i64 in two's complement.
    pub static ROWS = cross_entropy_rows(
        x: in T, target: in i32, stats: out T, loss: out T, ignore: val word, smoothing: val T,
    ) blocks(loss.div_ceil(8));
    /// y = Σ loss, divided by the number of targets that count when `mean`.
    pub static REDUCE = cross_entropy_reduce(loss: in T, target: in i32, y: out T, ignore: val word, mean: val flag) blocks(1);
    /// dx from the rows' stats, or dx += when `accumulate`; dy holds one number, or one a row.
    pub static BACKWARD = cross_entropy_backward(
        x: in T, target: in i32, stats: in T, dy: in T, dx: out T, ignore: val word, smoothing: val T, mean: val flag,
        accumulate: val flag,
    ) blocks(target.div_ceil(8).min(256));
}

fn cross_entropy_rows<T: Real>(x: &[T], target: &[i32], stats: &mut [T], loss: &mut [T], ignore: u64, smoothing: T) {
    let n = x.len() / loss.len().max(1);
    let rows = per_chunk(n);
    par::chunks_mut2((loss, rows), (stats, 2 * rows), x.len() / 3, |i, loss, stats| {
        let target = &target[i * rows..][..loss.len()];
        loss_rows(&x[i * rows * n..][..loss.len() * n], target, stats, loss, n, ignore, smoothing);
    });
}

/// Number of targets that count.
fn counted(target: &[i32], ignore: u64) -> usize {
    target.iter().filter(|&&t| i64::from(t) as u64 != ignore).count()
}

fn cross_entropy_reduce<T: Real>(loss: &[T], target: &[i32], y: &mut [T], ignore: u64, mean: bool) {
    // In f64, since there may be very many rows; in one fixed order.
    let sum = sum_of([loss], |[l]| l.f64());
    y[0] = T::of(if mean { sum / counted(target, ignore) as f64 } else { sum });
}

#[allow(clippy::too_many_arguments)]
fn cross_entropy_backward<T: Real>(
    x: &[T],
    target: &[i32],
    stats: &[T],
    dy: &[T],
    dx: &mut [T],
    ignore: u64,
    smoothing: T,
    mean: bool,
    accumulate: bool,
) {
    let n = x.len() / target.len().max(1);
    let rows = per_chunk(n);
    let scale = if mean { T::ONE / T::of(counted(target, ignore) as f64) } else { T::ONE };
    par::chunks_mut(dx, rows * n, x.len() / 3, |i, dx| {
        let at = i * rows..i * rows + dx.len() / n;
        let dy = if dy.len() == 1 { dy } else { &dy[at.clone()] };
        let (x, stats) = (&x[at.start * n..at.end * n], &stats[2 * at.start..2 * at.end]);
        gradient_rows(x, &target[at], stats, dy, dx, n, ignore, smoothing, scale, accumulate);
    });
}

vectorized! {
    fn loss_rows<T: Real>(
        x: &[T], target: &[i32], stats: &mut [T], loss: &mut [T], n: usize, ignore: u64, smoothing: T,
    ) {
        // A walk for each step, all in cache: rows are independent, so the processor works on several at a
        // time, which the chain from a row's maximum to its logarithm would keep it from.
        for (x, stats) in x.chunks_exact(n.max(1)).zip(stats.chunks_exact_mut(2)) {
            stats[0] = max_number(x);
        }
        for ((x, stats), loss) in x.chunks_exact(n.max(1)).zip(stats.chunks_exact_mut(2)).zip(loss.iter_mut()) {
            *loss = sum_exp(x, stats[0]);
        }
        for (stats, loss) in stats.chunks_exact_mut(2).zip(loss.iter_mut()) {
            (stats[1], *loss) = (T::ONE / *loss, loss.ln());
        }
        for (r, ((loss, stats), &t)) in loss.iter_mut().zip(stats.chunks_exact(2)).zip(target).enumerate() {
            if i64::from(t) as u64 == ignore {
                *loss = T::ZERO;
                continue;
            }
            let (x, m, log) = (&x[r * n..][..n], stats[0], *loss);
            *loss = log - (x[t as usize] - m);
            if smoothing != T::ZERO {
                // Only when asked for: a logit of -inf makes this term infinite.
                let mean = sum_of([x], |[x]| x - m) / T::of(n as f64);
                *loss = (T::ONE - smoothing) * *loss + smoothing * (log - mean);
            }
        }
    }

    fn gradient_rows<T: Real>(
        x: &[T], target: &[i32], stats: &[T], dy: &[T], dx: &mut [T], n: usize, ignore: u64, smoothing: T, scale: T,
        accumulate: bool,
    ) {
        for (r, (dx, &t)) in dx.chunks_exact_mut(n).zip(target).enumerate() {
            if i64::from(t) as u64 == ignore {
                if !accumulate {
                    dx.fill(T::ZERO);
                }
                continue;
            }
            let g = scale * if dy.len() == 1 { dy[0] } else { dy[r] };
            let (m, p) = (stats[2 * r], g * stats[2 * r + 1]);
            let even = g * smoothing / T::of(n as f64);
            let x = &x[r * n..][..n];
            if accumulate {
                zip_lanes([x], dx, |[x], dx| dx + ((x - m).exp_nonpositive() * p - even));
            } else {
                zip_lanes([x], dx, |[x], _| (x - m).exp_nonpositive() * p - even);
            }
            dx[t as usize] -= g * (T::ONE - smoothing);
        }
    }
}

/// What becomes of the losses of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean over the targets that count.
    Mean,
    /// Their sum.
    Sum,
    /// They stay as they are, in the shape of target.
    None,
}

impl Reduction {
    /// The words that the attribute `reduction` takes.
    pub(super) const WORDS: &'static [&'static str] = &["mean", "sum", "none"];

    /// The attribute `reduction`, one of [`Reduction::WORDS`].
    pub(super) fn of_attrs(a: &super::Attrs) -> Reduction {
        match a.text("reduction") {
            "sum" => Reduction::Sum,
            "none" => Reduction::None,
            _ => Reduction::Mean,
        }
    }
}

/// Negative log-likelihood of target ids under the softmax of logits.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy {
    /// Targets of this value do not count.
    pub ignore_index: i64,
    /// What becomes of the losses of the rows.
    pub reduction: Reduction,
    /// Share of the target's weight that is spread evenly over all classes.
    pub label_smoothing: f64,
}

impl Default for CrossEntropy {
    fn default() -> CrossEntropy {
        CrossEntropy { ignore_index: -100, reduction: Reduction::Mean, label_smoothing: 0.0 }
    }
}

impl CrossEntropy {
    fn ignore(&self) -> Arg<'static> {
        Arg::Word(self.ignore_index as u64)
    }
    fn mean(&self) -> Arg<'static> {
        Arg::Flag(self.reduction == Reduction::Mean)
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("cross_entropy", x, 2, 2)?;
        expect_real("cross_entropy", "input", &x[0])?;
        if x[1].dtype != DType::I32 {
            return Err(Error::dtype("cross_entropy", format!("target is {}, but must be i32", x[1])));
        }
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            let what = format!("is {}, but must lie in 0..1", self.label_smoothing);
            return Err(Error::attr("cross_entropy", "label_smoothing", what));
        }
        let (logits, target) = (x[0].shape, x[1].shape);
        if logits.dims().split_last().is_none_or(|(_, lead)| lead != target.dims()) {
            let what = format!(
                "input has shape {logits} and target {target}, but target must have the shape of input without its last \
                 axis, the classes"
            );
            return Err(Error::shape("cross_entropy", what));
        }
        let shape = if self.reduction == Reduction::None { target } else { Shape::SCALAR };
        Ok(smallvec::smallvec![x[0].with_shape(shape)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let (logits, target) = (x[0], x[1]);
        check_ids("cross_entropy", target, logits.shape().last(), i32::try_from(self.ignore_index).ok())?;
        let mut stats = cx.empty(Spec::new(logits.dtype(), &[target.len(), 2])?)?;
        let mut loss = cx.empty(logits.spec().with_shape(target.shape()))?;
        let smoothing = Arg::Real(self.label_smoothing);
        let (logits_in, target_in) = (Arg::In(logits), Arg::In(target));
        let (stats_out, loss_out) = (Arg::Out(&mut stats), Arg::Out(&mut loss));
        cx.launch(&ROWS, &mut [logits_in, target_in, stats_out, loss_out, self.ignore(), smoothing])?;
        cx.keep(logits);
        cx.keep(target);
        cx.keep(&stats);
        if self.reduction == Reduction::None {
            return Ok(smallvec::smallvec![loss]);
        }
        let mut y = cx.empty(logits.spec().with_shape(Shape::SCALAR))?;
        let args = &mut [Arg::In(&loss), Arg::In(target), Arg::Out(&mut y), self.ignore(), self.mean()];
        cx.launch(&REDUCE, args)?;
        Ok(smallvec::smallvec![y])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let ([logits, target, stats], Some(dy)) = (kept, &dy[0]) else { return Ok(()) };
        dx[0].write(cx, |cx, out, accumulate| {
            let args = &mut [
                Arg::In(logits),
                Arg::In(target),
                Arg::In(stats),
                Arg::In(dy),
                Arg::Out(out),
                self.ignore(),
                Arg::Real(self.label_smoothing),
                self.mean(),
                Arg::Flag(accumulate),
            ];
            cx.launch(&BACKWARD, args)
        })
    }
}

impl<'t> Var<'t> {
    /// Mean negative log-likelihood of the ids in `target` (shape of self without its last axis) under
    /// softmax over the last axis. Targets of -100 do not count.
    pub fn cross_entropy(&self, target: &Var<'t>) -> Result<Var<'t>> {
        self.cross_entropy_with(target, CrossEntropy::default())
    }
    /// [`Var::cross_entropy`] with another ignored id, reduction or label smoothing.
    pub fn cross_entropy_with(&self, target: &Var<'t>, op: CrossEntropy) -> Result<Var<'t>> {
        self.tape().apply1(op, &[self, target])
    }
}

/// cross_entropy in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "cross_entropy",
    doc: "negative log-likelihood of target under softmax(input); classes on the last axis",
    inputs: &[Port::real("input"), Port::ids("target")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "ignore_index", kind: Kind::Int, default: Some("-100"), doc: "targets of this value do not count" },
        AttrDoc {
            name: "reduction",
            kind: Kind::Choice(Reduction::WORDS),
            default: Some("mean"),
            doc: "what becomes of the losses of the rows; mean divides by the targets that count",
        },
        AttrDoc {
            name: "label_smoothing",
            kind: Kind::Real,
            default: Some("0"),
            doc: "share of the target's weight spread evenly over all classes, 0 to 1",
        },
    ],
    build: |a| {
        let reduction = Reduction::of_attrs(a);
        let (ignore_index, label_smoothing) = (a.int("ignore_index")?, a.real("label_smoothing")?);
        Ok(Arc::new(CrossEntropy { ignore_index, reduction, label_smoothing }))
    },
    kernels: &[&ROWS, &REDUCE, &BACKWARD],
    samples: || {
        let ids = |s: Sample, v: &[i32]| s.input(&[v.len()], Fill::Ints(v.to_vec()));
        vec![
            ids(Sample::new("mean").normal(&[4, 7]), &[0, 6, 3, 3]),
            ids(Sample::new("sum").attr("reduction", "sum").normal(&[3, 37]), &[36, 0, 17]),
            ids(Sample::new("none").attr("reduction", "none").normal(&[3, 5]), &[4, 0, 1]),
            ids(Sample::new("some ignored").normal(&[4, 5]), &[-100, 2, -100, 4]),
            ids(Sample::new("a class ignored").attr("ignore_index", 2).normal(&[4, 5]), &[1, 2, 0, 2]),
            ids(Sample::new("all ignored, summed").attr("reduction", "sum").normal(&[2, 5]), &[-100, -100]),
            ids(Sample::new("smoothed").attr("label_smoothing", 0.1).normal(&[3, 5]), &[4, -100, 1]),
            Sample::new("batch of sequences").normal(&[2, 3, 5]).input(&[2, 3], Fill::Ids(5)),
            Sample::new("one row").normal(&[5]).input(&[], Fill::Ints(vec![3])),
            ids(Sample::new("one class").normal(&[2, 1]), &[0, 0]),
            Sample::new("no rows, summed").attr("reduction", "sum").normal(&[0, 5]).input(&[0], Fill::Ids(5)),
            Sample::new("4096 x 256").normal(&[4096, 256]).input(&[4096], Fill::Ids(256)).large(),
            Sample::new("4096 x 83").normal(&[4096, 83]).input(&[4096], Fill::Ids(83)).large(),
        ]
    },
};
