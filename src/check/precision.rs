//! Precision exam: the f32 run (vectorised, approximated, blocked as it may be) against the f64 run of the same sample.

use super::{Case, distance, failed};
use crate::error::Result;
use crate::ops::{Entry, Sample};
use crate::shape::DType;

/// Largest error relative to the largest value: rounding of some hundred f32 operations.
const TOLERANCE: f64 = 2e-5;

pub(super) fn exam(entry: &'static Entry, sample: &Sample) -> Result<f64> {
    let (narrow, wide) = (Case::new(entry, sample, DType::F32)?, Case::new(entry, sample, DType::F64)?);
    let (a, b) = (narrow.run(&narrow.real, 1)?, wide.run(&wide.real, 1)?);
    let mut worst = 0.0f64;
    for (i, (x, y)) in a.outputs.iter().zip(&b.outputs).enumerate() {
        let e = distance(x, y)?;
        if e > TOLERANCE {
            return failed(format!("output {i}: f32 is off f64 by {e:.1e} of the largest value"));
        }
        worst = worst.max(e);
    }
    for (i, (x, y)) in a.grads.iter().zip(&b.grads).enumerate() {
        let (Some(x), Some(y)) = (x, y) else { continue };
        let e = distance(x, y)?;
        if e > TOLERANCE {
            return failed(format!(
                "d{}: f32 is off f64 by {e:.1e} of the largest value",
                entry.input_name(i)
            ));
        }
        worst = worst.max(e);
    }
    Ok(worst)
}
