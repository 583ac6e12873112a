//! Parity exam: a device that runs PTX against the CPU, on the same sample in f32. Outputs, gradients, and gradients of two
//! uses, in which backward adds to what is there.

use super::{Case, distance, failed};
use crate::device::Device;
use crate::error::Result;
use crate::kernel::gemm::Precision;
use crate::ops::{Entry, Sample};
use crate::shape::DType;
use crate::tensor::Tensor;

/// Largest error relative to the largest value: other orders of summation, approximate exponentials and logarithms.
const TOLERANCE: f64 = 2e-5;

/// Runs `sample` of `entry` on the CPU and on `device`; gives the largest error.
pub(super) fn exam(entry: &'static Entry, sample: &Sample, device: &Device) -> Result<f64> {
    let (mut here, mut there) =
        (Case::new(entry, sample, DType::F32)?, Case::new_on(entry, sample, DType::F32, device)?);
    let mut worst = 0.0f64;
    // Products that round their operands have kernels of their own.
    let rounds = entry.kernels.iter().any(|k| k.entry.ends_with("_rounded"));
    let precisions = [Precision::F32, Precision::Tf32, Precision::Bf16];
    let precisions = if rounds { &precisions[..] } else { &precisions[..1] };
    for (&precision, times) in precisions.iter().flat_map(|p| [(p, 1), (p, 2)]) {
        (here.precision, there.precision) = (precision, precision);
        let unit = match precision {
            Precision::Tf32 if sample.chained => 2f64.powi(-11),
            Precision::Bf16 if sample.chained => 2f64.powi(-8),
            _ => 0.0,
        };
        let tolerance = TOLERANCE + unit;
        let (a, b) = (here.run(&here.real, times)?, there.run(&there.real, times)?);
        for (i, (want, got)) in a.outputs.iter().zip(&b.outputs).enumerate() {
            worst = worst.max(close(want, got, &format!("output {i}"), tolerance)?);
        }
        for (i, (want, got)) in a.grads.iter().zip(&b.grads).enumerate() {
            let (Some(want), Some(got)) = (want, got) else { continue };
            worst = worst.max(close(want, got, &format!("d{}", entry.input_name(i)), tolerance)?);
        }
    }
    Ok(worst)
}

fn close(want: &Tensor, got: &Tensor, what: &str, tolerance: f64) -> Result<f64> {
    let got = got.to_host()?;
    let e = distance(&got, want)?;
    if e <= tolerance {
        return Ok(e);
    }
    let (w, g) = (want.to_f64()?, got.to_f64()?);
    let scale = w.iter().filter(|x| x.is_finite()).fold(1.0f64, |m, x| m.max(x.abs()));
    let off = |i: &usize| (w[*i] - g[*i]).abs() > tolerance * scale || w[*i].is_finite() != g[*i].is_finite();
    let first = (0..w.len()).find(off).unwrap_or(0);
    let count = (0..w.len()).filter(off).count();
    failed(format!(
        "{what}: element {first} of {} is {}, the CPU has {}; {count} of {} differ by more than {tolerance:.1e} of the largest value",
        want.spec(),
        g[first],
        w[first],
        w.len()
    ))
}
