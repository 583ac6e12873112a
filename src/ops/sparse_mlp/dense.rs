//! Products of matrices in place of the kernels that skip, and when they are faster.

use super::super::linear;
use super::super::threshold_relu::{self, Theta, ThresholdRelu};
use super::super::{Fill, Sample};
use super::skip::{product, product_transposed, rows};
use super::{Extents, Kept};
use crate::error::Result;
use crate::kernel::Arg;
use crate::shape::Spec;
use crate::simd::{Isa, isa};
use crate::tape::{Adjoint, Cx};
use crate::tensor::Tensor;

/// Largest share of active units with which the kernels that skip are faster, forward and backward together, from so many rows
/// on: `ringtape bench sparse`, in benches/README.md. With few rows both read most of the weights once, and skipping reads less.
const CROSSOVER: [(usize, f64); 3] = [(0, 0.45), (16, 0.35), (512, 0.3)];

/// True when skipping pays for these units. Counted, not timed; on a device it always does, since a count would have to come
/// back first. Without AVX2 a fused multiply-add is a call.
pub(super) fn skipping_pays(mask: &Tensor, e: Extents) -> bool {
    let Ok(words) = mask.as_slice::<i32>() else { return true };
    let most = CROSSOVER.iter().rev().find(|(rows, _)| e.rows >= *rows).map_or(0.0, |(_, most)| *most);
    let most = if cfg!(target_arch = "x86_64") && isa() == Isa::Plain { 0.0 } else { most };
    let per_row = words.len() / e.rows.max(1);
    // The first plane; the second holds those near the threshold.
    let plane = e.h.div_ceil(super::WORD);
    let active: u64 = words
        .chunks(per_row.max(1))
        .map(|row| row[..plane.min(row.len())].iter().map(|w| u64::from(w.count_ones())).sum::<u64>())
        .sum();
    active as f64 <= most * (e.rows * e.h) as f64
}

/// h at all units and (μ, σ) of the rows where no threshold is given; y.
pub(super) fn forward(
    cx: &Cx<'_>,
    relu: ThresholdRelu,
    a: &Tensor,
    threshold: Option<&Tensor>,
    [down, bias]: [&Tensor; 2],
    y: &mut Tensor,
    e: Extents,
) -> Result<[Tensor; 2]> {
    let mut value = cx.empty(a.spec())?;
    let count = if threshold.is_some() { 0 } else { e.rows };
    let mut stats = cx.empty(Spec::new(a.dtype(), &[count, 2])?)?;
    let given = threshold.map_or(Arg::Absent, Arg::In);
    let (out, rows_out) = (Arg::Out(&mut value), Arg::Out(&mut stats));
    let (factor, flag) = (Arg::Real(relu.factor()), Arg::Flag(relu.hard));
    cx.launch(&threshold_relu::FORWARD, &mut [Arg::In(a), given, out, rows_out, Arg::Size(e.h), factor, flag])?;
    product(cx, &value, down, y, [e.rows, e.m, e.h], false)?;
    // No active unit, so that the bias alone is added.
    let none = cx.empty(Spec::new(crate::shape::DType::I32, &[0])?)?;
    rows(cx, [&value, &none, down], Some(bias), y, [e.h, e.m, 1], true)?;
    Ok([value, stats])
}

pub(super) fn backward(cx: &Cx<'_>, relu: ThresholdRelu, k: &Kept<'_>, dy: &Tensor, dx: &mut [Adjoint]) -> Result<()> {
    let e = k.e;
    dx[3].write(cx, |cx, out, add| product_transposed(cx, k.value, dy, out, [e.rows, e.m, e.h], add))?;
    super::super::axes::sum_to(cx, dy, 1.0, &mut dx[4])?;
    let mut d = cx.empty(k.a.spec())?;
    let [r, m, h] = [e.rows, e.m, e.h].map(Arg::Size);
    let kernels = [&linear::FORWARD, &linear::FORWARD_ROUNDED];
    cx.launch_rounding(kernels, [Arg::In(dy), Arg::In(k.down), Arg::Absent, Arg::Out(&mut d), r, m, h])?;
    let mut da = Adjoint::empty(k.a.spec());
    let theta = if dx.len() == 6 { Theta::Given(k.theta) } else { Theta::Statistics(k.theta) };
    relu.slopes(cx, k.a, theta, &d, &mut da, dx.get_mut(5))?;
    da.sum().map_or(Ok(()), |da| backward_up(cx, k, da, dx))
}

/// Adds what the gradient `da` of the layer between gives to x, up and its bias.
pub(super) fn backward_up(cx: &Cx<'_>, k: &Kept<'_>, da: &Tensor, dx: &mut [Adjoint]) -> Result<()> {
    let e = k.e;
    dx[0].write(cx, |cx, out, add| product(cx, da, k.up, out, [e.rows, e.k, e.h], add))?;
    dx[1].write(cx, |cx, out, add| product_transposed(cx, da, k.x, out, [e.rows, e.k, e.h], add))?;
    super::super::axes::sum_to(cx, da, 1.0, &mut dx[2])
}

/// Example calls. Thresholds are given where a jump or kink would lie within reach of a finite difference otherwise.
pub(super) fn samples() -> Vec<Sample> {
    let of = |note, rows: &[usize], [k, h, m]: [usize; 3]| {
        let x: Vec<usize> = rows.iter().copied().chain([k]).collect();
        Sample::new(note).normal(&x).normal(&[h, k]).normal(&[h]).normal(&[h, m]).normal(&[m])
    };
    let given = |s: Sample, n: usize| s.input(&[n], Fill::Values((0..n).map(|i| 0.3 + 0.01 * i as f64).collect()));
    let mut all = vec![
        of("no rows", &[0], [3, 5, 2]),
        of("one row, many columns", &[1], [4, 40, 150]).attr("path", "sparse").attr("density", 0.2),
        of("auto", &[3], [4, 9, 5]).attr("density", 0.2),
        of("1024 x 128 to 512 to 128, sparse", &[1024], [128, 512, 128])
            .attr("path", "sparse")
            .attr("density", 0.08)
            .large(),
        of("1024 x 128 to 512 to 128, dense", &[1024], [128, 512, 128])
            .attr("path", "dense")
            .attr("density", 0.08)
            .large(),
    ];
    for path in ["sparse", "dense"] {
        for mode in ["soft", "hard"] {
            let s = |s: Sample| s.attr("path", path).attr("mode", mode).chained();
            all.extend([
                s(of("each row its own", &[2, 3], [4, 37, 5]).attr("density", 0.3)),
                s(given(of("one for all", &[5], [3, 34, 20]), 1)),
                s(given(of("one a unit", &[19], [3, 6, 4]), 6)).attr("bandwidth", 1e-6),
            ]);
        }
    }
    all
}
