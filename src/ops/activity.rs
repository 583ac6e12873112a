//! activity: how much each feature (the last axis) is at work, a mean over all rows:
//!
//! active: y_c = mean of H(x − θ_c), the firing rate;  dθ_c = −dy_c·mean of K((x − θ_c)/ε)/ε, with K(u) = 1 for |u| < ½, else 0
//! magnitude: y_c = mean of |x|
//!
//! θ is one number for all or one for each feature. The rate is a count, so its gradient to θ is the straight-through estimate
//! above (JumpReLU's penalty on the number of active features: S. Rajamanoharan et al., "Jumping ahead", 2024), and 0 with
//! `bandwidth` = 0; to x it is 0. Of a magnitude there is no gradient: rules for thresholds observe it. Cost: one pass over x;
//! each block of 64 rows gives partial sums, which are added in order.

use super::elementwise::expect_inputs;
use super::rows::{self, BLOCK, SUM_PARTS};
use super::threshold_relu::{ThresholdRelu, cpu::spread};
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::reduce::SUM;
use crate::kernel::{Arg, Real, par};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "activity";
    /// Of each block of 64 rows, parts [blocks, n] = scale·Σ of |x| without a threshold; with one, of H(x − θ), or where
    /// `half` > 0 of 1[|x − θ| < half].
    pub static PARTS = activity_parts(
        x: in T, threshold: in T, parts: out T, n: val size, half: val T, scale: val T,
    ) blocks((x / n.max(1)).div_ceil(64));
    /// z = x·y, or z += when `accumulate`.
    pub static PRODUCT = activity_product(x: in T, y: in T, z: out T, accumulate: val flag);
}

fn activity_parts<T: Real>(x: &[T], threshold: &[T], parts: &mut [T], n: usize, half: T, scale: T) {
    let mut wide = vec![];
    let theta = if threshold.is_empty() { threshold } else { spread(threshold, &mut wide, n) };
    rows::blocks(&mut [], parts, [x.len() / n.max(1), n, n], |at, _, parts| {
        sums(&x[at.start * n..at.end * n], theta, parts, half, scale);
    });
}

fn activity_product<T: Real>(x: &[T], y: &[T], z: &mut [T], accumulate: bool) {
    par::chunks_mut(z, par::CHUNK, x.len() / 4, |i, z| {
        let at = i * par::CHUNK..i * par::CHUNK + z.len();
        for ((z, &x), &y) in z.iter_mut().zip(&x[at.clone()]).zip(&y[at]) {
            *z = if accumulate { *z + x * y } else { x * y };
        }
    });
}

vectorized! {
    fn sums<T: Real>(x: &[T], theta: &[T], parts: &mut [T], half: T, scale: T) {
        parts.fill(T::ZERO);
        for x in x.chunks_exact(parts.len()) {
            if theta.is_empty() {
                parts.iter_mut().zip(x).for_each(|(part, &x)| *part += x.abs());
            } else if half > T::ZERO {
                for ((part, &x), &theta) in parts.iter_mut().zip(x).zip(theta) {
                    *part += if (x - theta).abs() < half { T::ONE } else { T::ZERO };
                }
            } else {
                for ((part, &x), &theta) in parts.iter_mut().zip(x).zip(theta) {
                    *part += if x <= theta { T::ZERO } else { T::ONE };
                }
            }
        }
        parts.iter_mut().for_each(|part| *part *= scale);
    }
}

const NAME: &str = "activity";

/// Mean magnitude, or with a threshold the firing rate, of each feature.
#[derive(Debug, Clone, Copy, Default)]
pub struct Activity {
    /// Width of the straight-through estimate of the gradient to the threshold; 0: that gradient is 0.
    pub bandwidth: f64,
}

impl Activity {
    /// scale·(1 / rows)·Σ over rows, as [n].
    fn mean(&self, cx: &Cx<'_>, x: &Tensor, threshold: Option<&Tensor>, half: f64, scale: f64) -> Result<Tensor> {
        let n = x.shape().last();
        let rows = x.len() / n.max(1);
        let mut parts = cx.empty(Spec::new(x.dtype(), &[rows.div_ceil(BLOCK), n])?)?;
        let (threshold, scale) = (threshold.map_or(Arg::Absent, Arg::In), Arg::Real(scale / rows.max(1) as f64));
        let args = &mut [Arg::In(x), threshold, Arg::Out(&mut parts), Arg::Size(n), Arg::Real(half), scale];
        cx.launch(&PARTS, args)?;
        let mut y = cx.empty(Spec::new(x.dtype(), &[n])?)?;
        rows::sum_into(cx, &parts, 0, &mut y, false)?;
        Ok(y)
    }
}

impl Op for Activity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 1, 2)?;
        let n = rows::last_axis(NAME, &x[0], &[], &[])?;
        ThresholdRelu { bandwidth: self.bandwidth, ..Default::default() }.validate(NAME, x[0], n, x.get(1))?;
        Ok(smallvec::smallvec![Spec::new(x[0].dtype, &[n])?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let y = self.mean(cx, x[0], x.get(1).copied(), 0.0, 1.0)?;
        x.iter().for_each(|x| cx.keep(x));
        Ok(smallvec::smallvec![y])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let [x, rest @ ..] = dx else { return Ok(()) };
        let (Some(dy), [dtheta]) = (&dy[0], rest) else {
            return Err(Error::Usage(format!("{NAME}: a magnitude has no gradient; detach() the input")));
        };
        x.zero();
        if self.bandwidth == 0.0 || !dtheta.wanted() {
            dtheta.zero();
            return Ok(());
        }
        let slope = self.mean(cx, &kept[0], Some(&kept[1]), 0.5 * self.bandwidth, -1.0 / self.bandwidth)?;
        let product = |cx: &Cx<'_>, out: &mut Tensor, add| {
            cx.launch(&PRODUCT, &mut [Arg::In(&slope), Arg::In(dy), Arg::Out(out), Arg::Flag(add)])
        };
        if dtheta.spec() == dy.spec() {
            return dtheta.write(cx, product);
        }
        let mut each = cx.empty(dy.spec())?;
        product(cx, &mut each, false)?;
        super::axes::sum_to(cx, &each, 1.0, dtheta)
    }
}

impl<'t> Var<'t> {
    /// Mean of |x| of each feature, over all rows. No gradient flows through it.
    pub fn mean_magnitude(&self) -> Result<Var<'t>> {
        self.tape().apply1(Activity::default(), &[&self.detach()])
    }
    /// Share of the rows in which each feature exceeds `threshold`, [1] or one for each feature; its gradient to that is
    /// estimated over `bandwidth`.
    pub fn firing_rate(&self, threshold: &Var<'t>, bandwidth: f64) -> Result<Var<'t>> {
        self.tape().apply1(Activity { bandwidth }, &[self, threshold])
    }
}

/// activity in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "mean over rows of H(x - threshold), the firing rate of each feature; without a threshold, of |x|",
    inputs: &[Port::constant("input"), Port::real("threshold").optional()],
    outputs: &["output"],
    attrs: &[AttrDoc {
        name: "bandwidth",
        kind: Kind::Real,
        default: Some("0"),
        doc: "width of the straight-through gradient to the threshold; 0: none",
    }],
    build: |a| Ok(Arc::new(Activity { bandwidth: a.real("bandwidth")? })),
    kernels: &[&PARTS, &PRODUCT, &SUM_PARTS, &SUM],
    samples: || {
        // Off the band around the threshold: there the gradient of a count is 0, and so is the estimate.
        let given = |note, dims: &[usize], shared: usize| {
            let fill = Fill::Away { std: 1.0, points: &[0.25], gap: 0.06 };
            Sample::new(note).input(dims, fill).input(&[shared], Fill::Values(vec![0.25; shared])).attr("bandwidth", 0.1)
        };
        vec![
            given("rates, one threshold", &[6, 7], 1),
            given("rates, one a feature", &[2, 70, 5], 5),
            Sample::new("magnitudes").normal(&[3, 50, 9]),
            Sample::new("no rows").normal(&[0, 4]),
            Sample::new("4096 x 512").normal(&[4096, 512]).large(),
        ]
    },
};
