//! What all elementwise ops share: an op states its value and its slope at one point; the loops, threads, broadcasting,
//! accumulation and recording are here. Fused kernels splice the same value and slope, so fusing restates nothing.

mod binary;
mod broadcast;
mod unary;

pub use binary::{Binary, Zip};
pub(crate) use broadcast::{Plan, walk};
pub use unary::{Keeps, Map, Unary, slopes, values};

use super::Sample;
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

/// Samples of a binary op: each way that operands can be stretched.
pub(crate) fn broadcasts() -> Vec<Sample> {
    let s = |note, a: &[usize], b: &[usize]| Sample::new(note).normal(a).normal(b);
    vec![
        s("same shape", &[3, 5], &[3, 5]),
        s("a row for all", &[4, 3, 5], &[5]),
        s("a column for all", &[3, 5], &[3, 1]),
        s("both stretched", &[3, 1, 2], &[4, 1]),
        s("the first stretched", &[5], &[2, 3, 5]),
        s("scalars", &[], &[]),
        s("a scalar for all", &[2, 3], &[]),
        s("more rows than a block", &[300, 2], &[2]),
        s("middle stretched", &[2, 3, 4], &[2, 1, 4]),
        s("empty", &[0, 3], &[3]),
        s("4096 x 512, both", &[4096, 512], &[4096, 512]).large(),
        s("4096 x 512 and a row", &[4096, 512], &[512]).large(),
    ]
}
