//! Gradient exam: backward in f64 against central differences of a random projection of the outputs,
//! (f(x + h) − f(x − h)) / 2h, element by element.

use super::{Case, failed, weights};
use crate::error::Result;
use crate::ops::{Entry, Sample};
use crate::shape::DType;
use crate::tensor::Tensor;

/// Largest |analytic − numeric| / max(1, |analytic|, |numeric|) that passes. Truncation and rounding of the differences
/// leave about 1e-9, so a wrong gradient cannot hide below it.
const TOLERANCE: f64 = 1e-6;

pub(super) fn exam(entry: &'static Entry, sample: &Sample) -> Result<f64> {
    let case = Case::new(entry, sample, DType::F64)?;
    let outcome = case.run(&case.real, 1)?;
    let project = |outputs: &[Tensor]| -> Result<f64> {
        let mut sum = 0.0;
        for (i, y) in outputs.iter().enumerate().filter(|(_, y)| y.dtype().is_real()) {
            sum += y.to_f64()?.iter().zip(weights(y, i)?.to_f64()?).map(|(y, w)| y * w).sum::<f64>();
        }
        Ok(sum)
    };
    let mut worst = 0.0f64;
    for (i, real) in case.real.iter().enumerate() {
        if !real {
            continue;
        }
        let x = case.inputs[i].to_f64()?;
        let analytic = outcome.grads[i].as_ref().map_or_else(|| Ok(vec![0.0; x.len()]), Tensor::to_f64)?;
        for (j, &a) in analytic.iter().enumerate() {
            let h = 1e-5 * x[j].abs().max(1.0);
            let at = |v: f64| {
                let mut moved = x.clone();
                moved[j] = v;
                let mut inputs = case.inputs.clone();
                inputs[i] = Tensor::from_slice(case.inputs[i].device(), &moved, case.inputs[i].dims())?;
                project(&case.forward(&inputs)?)
            };
            let numeric = (at(x[j] + h)? - at(x[j] - h)?) / (2.0 * h);
            let error = (a - numeric).abs() / 1f64.max(a.abs()).max(numeric.abs());
            if error.is_nan() || error > TOLERANCE {
                let name = entry.input_name(i);
                return failed(format!("d{name}[{j}] is {a:.9}, central differences say {numeric:.9}"));
            }
            worst = worst.max(error);
        }
    }
    Ok(worst)
}
