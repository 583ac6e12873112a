//! threshold_relu: what does not exceed a threshold θ becomes 0. With H the step from 0 to 1 at 0:
//!
//! soft: y = max(x − θ, 0);  dx = dy·H(x − θ),  dθ = −Σ dy·H(x − θ)
//! hard: y = x·H(x − θ);     dx = dy·H(x − θ),  dθ = −Σ (θ/ε)·K((x − θ)/ε)·dy with K(u) = 1 for |u| < ½, else 0
//!
//! The hard form jumps, so its gradient to θ is 0 almost everywhere, and that is what `bandwidth` = 0 gives. A bandwidth ε > 0
//! gives the straight-through estimate above instead (JumpReLU: S. Rajamanoharan et al., "Jumping ahead", 2024), which is the
//! expected slope where x has a density near θ. θ is an input, one number for all or one for each feature (the last axis):
//! its sums are over all that share it. Without that input each row of n features has a threshold of its own, the
//! statistical top-k (Spark Transformer, 2025), which leaves about a share `density` of a normally distributed row:
//!
//! θ = μ + q·σ,  μ = Σx/n,  σ² = Σ(x − μ)²/n,  q = Φ⁻¹(1 − density);
//! dx gets dθ·(1/n + q·(x − μ)/(n·σ)) more (and only dθ/n where σ = 0, a row of equal numbers, of which none is above θ).
//!
//! A NaN is not 0: it goes through. Cost: one pass over x and y forward, over x, dy and dx backward, and two more over each
//! row, in cache, where the row decides.

pub(in crate::ops) mod cpu;

use super::elementwise::{expect_inputs, expect_real};
use super::rows::{self, BLOCK, SUM_PARTS};
use super::{AttrDoc, Attrs, Entry, Fill, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::Arg;
use crate::kernel::reduce::SUM;
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use cpu::*;
use std::sync::Arc;

kernel! {
    ptx "threshold_relu";
    /// y over rows of n; without `threshold` also stats [rows, 2] = (μ, σ), with θ = μ + factor·σ.
    pub static FORWARD = threshold_relu_forward(
        x: in T, threshold: in T, y: out T, stats: out T, n: val size, factor: val T, hard: val flag,
    ) blocks((y / n.max(1)).div_ceil(8));
    /// dx (or dx += when `accumulate`), and, of each block of 64 rows, parts [blocks, n] = its share of dθ; either may be
    /// absent. `half` = ε/2 and `steep` = 1/ε, or 0.
    pub static BACKWARD = threshold_relu_backward(
        x: in T, threshold: in T, stats: in T, dy: in T, dx: out T, parts: out T, n: val size, factor: val T,
        half: val T, steep: val T, hard: val flag, accumulate: val flag,
    ) blocks((x / n.max(1)).div_ceil(64));
}

/// What does not exceed a threshold becomes 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThresholdRelu {
    /// x·H(x − θ) instead of max(x − θ, 0).
    pub hard: bool,
    /// Share of a normally distributed row that exceeds its own threshold, where none is given.
    pub density: f64,
    /// Width of the straight-through estimate of the hard form's gradient to θ; 0: that gradient is 0.
    pub bandwidth: f64,
}

impl Default for ThresholdRelu {
    fn default() -> ThresholdRelu {
        ThresholdRelu { hard: false, density: 0.1, bandwidth: 0.0 }
    }
}

/// z with Φ(z) = p for 0 < p < 1: bisection on the distribution's own tail, exact to the last few bits.
pub fn normal_quantile(p: f64) -> f64 {
    let below = |z: f64| 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
    let (mut lo, mut hi) = (-40.0, 40.0);
    for _ in 0..100 {
        let middle = 0.5 * (lo + hi);
        if below(middle) < p { lo = middle } else { hi = middle }
    }
    0.5 * (lo + hi)
}

const NAME: &str = "threshold_relu";

impl ThresholdRelu {
    /// q = Φ⁻¹(1 − density), by the symmetry of Φ.
    pub(crate) fn factor(&self) -> f64 {
        -normal_quantile(self.density)
    }
    /// ε/2 and 1/ε, or 0 and 0.
    pub(crate) fn window(&self) -> [f64; 2] {
        if self.bandwidth > 0.0 { [0.5 * self.bandwidth, 1.0 / self.bandwidth] } else { [0.0, 0.0] }
    }
    /// Error unless the attributes make sense and `threshold` fits rows of n features; `op` is who asks.
    pub(crate) fn validate(&self, op: &str, x: Spec, n: usize, threshold: Option<&Spec>) -> Result<()> {
        if !(self.density > 0.0 && self.density < 1.0) {
            return Err(Error::attr(op, "density", format!("is {}, but must be above 0 and below 1", self.density)));
        }
        if !(self.bandwidth >= 0.0 && self.bandwidth.is_finite()) {
            return Err(Error::attr(op, "bandwidth", format!("is {}, but must be 0 or more", self.bandwidth)));
        }
        let Some(t) = threshold else { return Ok(()) };
        if t.dtype != x.dtype {
            return Err(Error::dtype(op, format!("input is {x} but threshold is {t}")));
        }
        if t.shape.dims() != [1] && t.shape.dims() != [n] {
            let what = format!("threshold has shape {}, but must be [1] or [{n}], one for each feature", t.shape);
            return Err(Error::shape(op, what));
        }
        Ok(())
    }
}

impl Op for ThresholdRelu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 1, 2)?;
        expect_real(NAME, "input", &x[0])?;
        let n = rows::last_axis(NAME, &x[0], &[], &[])?;
        self.validate(NAME, x[0], n, x.get(1))?;
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let n = x[0].shape().last();
        let mut y = cx.empty(x[0].spec())?;
        let rows = if x.len() == 1 { x[0].len() / n.max(1) } else { 0 };
        let mut stats = cx.empty(Spec::new(x[0].dtype(), &[rows, 2])?)?;
        let threshold = x.get(1).map_or(Arg::Absent, |t| Arg::In(t));
        let (out, factor) = (Arg::Out(&mut y), Arg::Real(self.factor()));
        let flag = Arg::Flag(self.hard);
        cx.launch(&FORWARD, &mut [Arg::In(x[0]), threshold, out, Arg::Out(&mut stats), Arg::Size(n), factor, flag])?;
        cx.keep(x[0]);
        cx.keep(x.get(1).unwrap_or(&&stats));
        Ok(smallvec::smallvec![y])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let (dx, rest) = dx.split_first_mut().expect("infer asks for an input");
        let theta = if rest.is_empty() { Theta::Statistics(&kept[1]) } else { Theta::Given(&kept[1]) };
        self.slopes(cx, &kept[0], theta, dy, dx, rest.first_mut())
    }
}

/// Where the threshold of a backward pass comes from.
pub(crate) enum Theta<'a> {
    /// Given, [1] or [n].
    Given(&'a Tensor),
    /// (μ, σ) of each row.
    Statistics(&'a Tensor),
}

impl ThresholdRelu {
    /// Adds to `dx` and, for a given threshold, to `dtheta`.
    pub(crate) fn slopes(
        &self,
        cx: &Cx<'_>,
        x: &Tensor,
        theta: Theta<'_>,
        dy: &Tensor,
        dx: &mut Adjoint,
        dtheta: Option<&mut Adjoint>,
    ) -> Result<()> {
        let n = x.shape().last();
        let launch = |cx: &Cx<'_>, out: Arg<'_>, parts: Arg<'_>, accumulate: bool| {
            let (given, stats) = match theta {
                Theta::Given(t) => (Arg::In(t), Arg::Absent),
                Theta::Statistics(t) => (Arg::Absent, Arg::In(t)),
            };
            let [half, steep] = self.window().map(Arg::Real);
            let (size, factor) = (Arg::Size(n), Arg::Real(self.factor()));
            let (hard, add) = (Arg::Flag(self.hard), Arg::Flag(accumulate));
            let args = &mut [Arg::In(x), given, stats, Arg::In(dy), out, parts, size, factor, half, steep, hard, add];
            cx.launch(&BACKWARD, args)
        };
        let Some(dtheta) = dtheta else {
            return dx.write(cx, |cx, out, add| launch(cx, Arg::Out(out), Arg::Absent, add));
        };
        if dtheta.spec().shape.len() == n {
            return rows::backward(cx, dx, std::slice::from_mut(dtheta), x, n, launch);
        }
        // One threshold for all: a sum for each feature, then over those.
        let mut each = Adjoint::empty(Spec::new(x.dtype(), &[n])?);
        if dtheta.wanted() {
            rows::backward(cx, dx, std::slice::from_mut(&mut each), x, n, launch)?;
            return each.sum().map_or(Ok(()), |each| super::axes::sum_to(cx, each, 1.0, dtheta));
        }
        rows::backward(cx, dx, &mut [], x, n, launch)
    }
}

impl<'t> Var<'t> {
    /// What does not exceed `threshold`, [1] or one for each feature, becomes 0; without one each row has its own.
    pub fn threshold_relu(&self, threshold: Option<&Var<'t>>, op: ThresholdRelu) -> Result<Var<'t>> {
        match threshold {
            Some(t) => self.tape().apply1(op, &[self, t]),
            None => self.tape().apply1(op, &[self]),
        }
    }
}

/// Attributes of a threshold.
pub(crate) const ATTRS: [AttrDoc; 3] = [
    AttrDoc {
        name: "mode",
        kind: Kind::Choice(&["soft", "hard"]),
        default: Some("soft"),
        doc: "max(x - threshold, 0), or x where it exceeds the threshold",
    },
    AttrDoc {
        name: "density",
        kind: Kind::Real,
        default: Some("0.1"),
        doc: "share that a row's own threshold leaves, where none is given",
    },
    AttrDoc {
        name: "bandwidth",
        kind: Kind::Real,
        default: Some("0"),
        doc: "hard: width of the straight-through gradient to the threshold; 0: none",
    },
];

/// The attributes of one call.
pub(crate) fn from_attrs(a: &Attrs) -> Result<ThresholdRelu> {
    Ok(ThresholdRelu { hard: a.text("mode") == "hard", density: a.real("density")?, bandwidth: a.real("bandwidth")? })
}

/// threshold_relu in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "y = x - threshold (hard: x) where x > threshold, else 0; threshold = mean + q*std of the row when not given",
    inputs: &[Port::real("input"), Port::real("threshold").optional()],
    outputs: &["output"],
    attrs: &ATTRS,
    build: |a| Ok(Arc::new(from_attrs(a)?)),
    kernels: &[&FORWARD, &BACKWARD, &SUM_PARTS, &SUM],
    samples,
};

fn samples() -> Vec<Sample> {
    // Off the kink at 0.25, and off the band of the straight-through estimate around it: there central differences of a jump
    // say 0, as its gradient does.
    let away = |dims: &[usize], gap| (dims.to_vec(), Fill::Away { std: 1.0, points: &[0.25], gap });
    let mut all = Vec::new();
    for mode in ["soft", "hard"] {
        let of = |note| Sample::new(note).attr("mode", mode);
        let given = |note, dims: &[usize], shared: usize| {
            let (dims, fill) = away(dims, 0.06);
            of(note).input(&dims, fill).input(&[shared], Fill::Values(vec![0.25; shared]))
        };
        all.extend([
            of("each row its own").attr("density", 0.3).normal(&[6, 21]),
            of("three axes").attr("density", 0.6).normal(&[2, 3, 8]),
            given("one for all", &[4, 7], 1).attr("bandwidth", 0.1),
            given("one a feature", &[2, 3, 35], 35).attr("bandwidth", 0.1),
            given("more rows than a block", &[BLOCK + 3, 5], 5),
            of("one row").attr("density", 0.2).normal(&[9]),
            of("no rows").normal(&[0, 4]).input(&[4], Fill::Values(vec![0.25; 4])),
            of("empty rows").normal(&[3, 0]),
            of("4096 x 512").normal(&[4096, 512]).large(),
        ]);
    }
    all
}
