//! Clipping by the norm of the whole gradient (Pascanu, Mikolov, Bengio 2013): g ← g·min(1, limit/‖g‖).

use crate::kernel::Real;
use crate::kernel::basic::sum_of_squares;
use crate::shape::DType;
use crate::tape::Grads;

/// Scales `g` so that its norm is at most `limit` (no limit when 0). Gives the norm before, summed in f64 over fixed chunks;
/// a norm that is no number leaves `g` as it is, for the caller to refuse.
pub fn by_global_norm(g: &mut Grads, limit: f64) -> f64 {
    match g.dtype() {
        DType::F64 => clip::<f64>(g, limit),
        _ => clip::<f32>(g, limit),
    }
}

fn clip<T: Real>(g: &mut Grads, limit: f64) -> f64 {
    let all = 0..g.segments().len();
    let norm = all.clone().filter_map(|i| g.segment::<T>(i)).map(sum_of_squares).sum::<f64>().sqrt();
    if limit > 0.0 && norm.is_finite() && norm > limit {
        let factor = T::of(limit / norm);
        for i in all {
            g.segment_mut::<T>(i).unwrap_or_default().iter_mut().for_each(|x| *x *= factor);
        }
    }
    norm
}
