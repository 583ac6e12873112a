//! Clipping by the norm of the whole gradient (Pascanu, Mikolov, Bengio 2013): g ← g·min(1, limit/‖g‖).

use crate::error::Result;
use crate::kernel;
use crate::kernel::basic::sum_of_squares;
use crate::kernel::reduce::{SUM, partials};
use crate::kernel::{Arg, Kernel, Real, launch};
use crate::shape::{DType, Spec};
use crate::tape::Grads;
use crate::tensor::Tensor;

kernel! {
    ptx "clip";
    /// partial[first + p] = Σ x² over piece p of the `parts` equal pieces of x.
    pub(super) static SQUARES = clip_squares(x: in T, partial: out T, first: val size, parts: val size) blocks(parts);
    /// x = factor·x.
    static SHRINK = clip_shrink(x: out T, factor: val T);
}

/// The kernels of clipping.
pub static KERNELS: &[&Kernel] = &[&SQUARES, &SHRINK];

/// Pieces of a segment whose squares are summed apart.
pub(super) const PARTS: usize = 64;

fn clip_squares<T: Real>(x: &[T], partial: &mut [T], first: usize, parts: usize) {
    let mut pieces = x.chunks(x.len().div_ceil(parts).max(1));
    for sum in &mut partial[first..first + parts] {
        *sum = pieces.next().map_or(T::ZERO, |piece| T::of(sum_of_squares(piece)));
    }
}

fn clip_shrink<T: Real>(x: &mut [T], factor: T) {
    x.iter_mut().for_each(|x| *x *= factor);
}

/// Scales `g` so that its norm is at most `limit` (no limit when 0). Gives the norm before, on the CPU summed in f64 over
/// fixed chunks; a norm that is no number leaves `g` as it is, for the caller to refuse.
///
/// # Errors
/// Those of the device.
pub fn by_global_norm(g: &mut Grads, limit: f64) -> Result<f64> {
    let norm = match (g.device().is_host(), g.dtype()) {
        (true, DType::F64) => squares_here::<f64>(g),
        (true, _) => squares_here::<f32>(g),
        (false, _) => {
            let flat = (0..g.segments().len()).filter_map(|i| g.flat(i));
            squares_there(&flat.collect::<Vec<_>>())?
        }
    }
    .sqrt();
    if limit > 0.0 && norm.is_finite() && norm > limit {
        scale(g, limit / norm)?;
    }
    Ok(norm)
}

/// g ← factor·g.
///
/// # Errors
/// Those of the device.
pub fn scale(g: &mut Grads, factor: f64) -> Result<()> {
    for i in 0..g.segments().len() {
        if let Some(segment) = g.flat_mut(i) {
            launch(&SHRINK, &mut [Arg::Out(segment), Arg::Real(factor)])?;
        }
    }
    Ok(())
}

fn squares_here<T: Real>(g: &Grads) -> f64 {
    (0..g.segments().len()).filter_map(|i| g.segment::<T>(i)).map(sum_of_squares).sum()
}

/// Sum of squares of the f32 in `x`: on the CPU in f64 over fixed chunks.
///
/// # Errors
/// Those of the device.
pub fn sum_of_squares_of(x: &Tensor) -> Result<f64> {
    if x.device().is_host() { x.as_slice::<f32>().map(sum_of_squares) } else { squares_there(&[x]) }
}

/// On the device; one number comes back.
fn squares_there(flat: &[&Tensor]) -> Result<f64> {
    let flat: Vec<&Tensor> = flat.iter().copied().filter(|t| t.len() > 0).collect();
    let count = flat.len() * PARTS;
    let Some(first) = flat.first() else { return Ok(0.0) };
    let (device, dtype) = (first.device(), first.dtype());
    let mut partial = Tensor::empty(device, Spec::new(dtype, &[count])?)?;
    for (i, t) in flat.iter().enumerate() {
        let (first, parts) = (Arg::Size(i * PARTS), Arg::Size(PARTS));
        launch(&SQUARES, &mut [Arg::In(t), Arg::Out(&mut partial), first, parts])?;
    }
    let extents = [1, count, 1];
    let mut scratch = Tensor::empty(device, Spec::new(dtype, &[partials(extents)])?)?;
    let mut sum = Tensor::empty(device, Spec::new(dtype, &[])?)?;
    let (scale, add) = (Arg::Real(1.0), Arg::Flag(false));
    let out = (Arg::Out(&mut scratch), Arg::Out(&mut sum));
    launch(&SUM, &mut [Arg::In(&partial), out.0, out.1, Arg::Dims(&extents), scale, add])?;
    sum.item()
}
