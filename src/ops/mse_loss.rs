//! mse_loss: ℓ = (x − t)², reduced to its mean or sum, or not;  dx = 2(x − t)·dℓ/n,  dt = −dx, with n = 1 but for the mean.
//!
//! Cost: one pass each way. Sums are over fixed chunks, added in order.

use super::cross_entropy::Reduction;
use super::elementwise::{expect_inputs, expect_real};
use super::rows::put;
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::reduce::sum_of;
use crate::kernel::{Arg, Real, par};
use crate::shape::{Shape, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "mse_loss";
    /// y = (x − t)² by element.
    pub static FORWARD = mse_loss_forward(x: in T, t: in T, y: out T);
    /// loss = scale·Σ (x − t)²; `partial` holds the sum of each chunk.
    pub static FORWARD_SUM = mse_loss_sum(x: in T, t: in T, partial: out T, loss: out T, scale: val T) blocks(1);
    /// dx = scale·(x − t)·dy, or dx += when `accumulate`; dy is one number or one an element.
    pub static BACKWARD = mse_loss_backward(x: in T, t: in T, dy: in T, dx: out T, scale: val T, accumulate: val flag);
}

fn mse_loss_forward<T: Real>(x: &[T], t: &[T], y: &mut [T]) {
    par::chunks_mut(y, par::CHUNK, x.len() / 3, |i, y| {
        let at = i * par::CHUNK..i * par::CHUNK + y.len();
        for ((y, &x), &t) in y.iter_mut().zip(&x[at.clone()]).zip(&t[at]) {
            *y = (x - t) * (x - t);
        }
    });
}

fn mse_loss_sum<T: Real>(x: &[T], t: &[T], partial: &mut [T], loss: &mut [T], scale: T) {
    par::chunks_mut(partial, 1, x.len() / 3, |i, sum| {
        let at = i * par::CHUNK..x.len().min((i + 1) * par::CHUNK);
        sum[0] = squares(&x[at.clone()], &t[at]);
    });
    loss[0] = scale * partial.iter().copied().sum::<T>();
}

fn mse_loss_backward<T: Real>(x: &[T], t: &[T], dy: &[T], dx: &mut [T], scale: T, accumulate: bool) {
    par::chunks_mut(dx, par::CHUNK, x.len() / 3, |i, dx| {
        let at = i * par::CHUNK..i * par::CHUNK + dx.len();
        let dy = if dy.len() == 1 { dy } else { &dy[at.clone()] };
        backward_chunk(&x[at.clone()], &t[at], dy, dx, scale, accumulate);
    });
}

vectorized! {
    fn squares<T: Real>(x: &[T], t: &[T]) -> T {
        sum_of([x, t], |[x, t]| (x - t) * (x - t))
    }

    fn backward_chunk<T: Real>(x: &[T], t: &[T], dy: &[T], dx: &mut [T], scale: T, accumulate: bool) {
        if accumulate {
            differences::<T, true>(x, t, dy, dx, scale);
        } else {
            differences::<T, false>(x, t, dy, dx, scale);
        }
    }
}

#[inline(always)]
fn differences<T: Real, const ADD: bool>(x: &[T], t: &[T], dy: &[T], dx: &mut [T], scale: T) {
    let pairs = dx.iter_mut().zip(x).zip(t);
    if let [dy] = *dy {
        pairs.for_each(|((dx, &x), &t)| put::<T, ADD>(dx, scale * (x - t) * dy));
    } else {
        pairs.zip(dy).for_each(|(((dx, &x), &t), &dy)| put::<T, ADD>(dx, scale * (x - t) * dy));
    }
}

/// Squared error.
#[derive(Debug, Clone, Copy)]
pub struct MseLoss {
    /// What becomes of the errors.
    pub reduction: Reduction,
}

impl Op for MseLoss {
    fn name(&self) -> &'static str {
        "mse_loss"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("mse_loss", x, 2, 2)?;
        expect_real("mse_loss", "input", &x[0])?;
        if x[1] != x[0] {
            return Err(Error::shape("mse_loss", format!("input is {} and target {}, but they must be alike", x[0], x[1])));
        }
        Ok(smallvec::smallvec![match self.reduction {
            Reduction::None => x[0],
            _ => x[0].with_shape(Shape::SCALAR),
        }])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let mut y = cx.empty(self.infer(&[x[0].spec(), x[1].spec()])?[0])?;
        if self.reduction == Reduction::None {
            cx.launch(&FORWARD, &mut [Arg::In(x[0]), Arg::In(x[1]), Arg::Out(&mut y)])?;
        } else {
            let mut partial = cx.empty(Spec::new(x[0].dtype(), &[x[0].len().div_ceil(par::CHUNK)])?)?;
            let (p, scale) = (Arg::Out(&mut partial), Arg::Real(self.scale(x[0].len())));
            cx.launch(&FORWARD_SUM, &mut [Arg::In(x[0]), Arg::In(x[1]), p, Arg::Out(&mut y), scale])?;
        }
        cx.keep(x[0]);
        cx.keep(x[1]);
        Ok(smallvec::smallvec![y])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        for (side, sign) in [(0, 2.0), (1, -2.0)] {
            let scale = sign * self.scale(kept[0].len());
            dx[side].write(cx, |cx, out, add| {
                let (scale, add) = (Arg::Real(scale), Arg::Flag(add));
                cx.launch(&BACKWARD, &mut [Arg::In(&kept[0]), Arg::In(&kept[1]), Arg::In(dy), Arg::Out(out), scale, add])
            })?;
        }
        Ok(())
    }
}

impl MseLoss {
    /// What each squared error counts; the mean of nothing is NaN, as in torch.
    fn scale(&self, n: usize) -> f64 {
        if self.reduction == Reduction::Mean { 1.0 / n as f64 } else { 1.0 }
    }
}

impl<'t> Var<'t> {
    /// Mean squared difference to `target`.
    pub fn mse_loss(&self, target: &Var<'t>) -> Result<Var<'t>> {
        self.tape().apply1(MseLoss { reduction: Reduction::Mean }, &[self, target])
    }
}

/// mse_loss in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "mse_loss",
    doc: "(input - target)², reduced",
    inputs: &[Port::real("input"), Port::real("target")],
    outputs: &["output"],
    attrs: &[AttrDoc {
        name: "reduction",
        kind: Kind::Choice(Reduction::WORDS),
        default: Some("mean"),
        doc: "what becomes of the errors",
    }],
    build: |a| Ok(Arc::new(MseLoss { reduction: Reduction::of_attrs(a) })),
    kernels: &[&FORWARD, &FORWARD_SUM, &BACKWARD],
    samples: || {
        let s = |note, dims: &[usize], r: &str| Sample::new(note).normal(dims).normal(dims).attr("reduction", r);
        vec![
            s("mean", &[3, 5], "mean"),
            s("sum", &[7], "sum"),
            s("none", &[2, 3], "none"),
            s("scalars", &[], "mean"),
            s("more than a chunk", &[4100], "mean"),
            s("4096 x 512", &[4096, 512], "mean").large(),
        ]
    },
};
