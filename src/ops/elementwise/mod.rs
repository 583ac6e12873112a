//! What all elementwise ops share: an op states its value and its slope at one point; the loops, threads, broadcasting,
//! accumulation and recording are here. Fused kernels splice the same value and slope, so fusing restates nothing.

mod unary;

pub use unary::{Keeps, Map, Unary, slopes, values};

use crate::error::{Error, Result};
use crate::shape::Spec;

/// Error unless `x` holds reals.
pub(crate) fn expect_real(op: &str, name: &str, x: &Spec) -> Result<()> {
    if x.dtype.is_real() {
        return Ok(());
    }
    Err(Error::dtype(op, format!("{name} is {x}, but must be f32 or f64")))
}

/// Error unless an op got between `min` and `max` inputs.
pub(crate) fn expect_inputs(op: &str, x: &[Spec], min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&x.len()) {
        return Ok(());
    }
    let want = if min == max { format!("{min}") } else { format!("{min} to {max}") };
    Err(Error::shape(op, format!("{} inputs given, {want} wanted", x.len())))
}
