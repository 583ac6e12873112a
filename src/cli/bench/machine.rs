//! What this machine could do at best: multiply-adds a second from registers, bytes a second from memory.

use super::{Case, Timing};
use crate::error::{Error, Result};
use crate::simd::{self, Isa};
use crate::vectorized;
use rayon::prelude::*;
use std::hint::black_box;

/// Steps of the multiply-add chains in a run.
const STEPS: usize = 400_000;
/// f32 that the copy moves: 128 MiB, several times a last-level cache's share.
const COPY: usize = 32 << 20;

/// Multiply-add chains over sixteen numbers each: ten vector registers. Plain loops without closures: a closure would be compiled without the
/// instruction set of the function around it, and each multiply-add would become a call.
macro_rules! chain {
    ($start:expr, $chains:literal, |$x:ident| $step:expr) => {{
        let mut acc = [[$start; 16]; $chains];
        for _ in 0..STEPS {
            for a in &mut acc {
                for x in a {
                    let $x = *x;
                    *x = $step;
                }
            }
        }
        let mut sum = 0.0;
        for a in &acc {
            for x in a {
                sum += x;
            }
        }
        sum
    }};
}

vectorized! {
    fn fused_wide(start: f32) -> f32 {
        chain!(start, 10, |x| x.mul_add(0.9999, 1e-4))
    }
    fn fused(start: f32) -> f32 {
        chain!(start, 5, |x| x.mul_add(0.9999, 1e-4))
    }
}

/// Without a fused instruction: a product and a sum.
fn plain(start: f32) -> f32 {
    chain!(start, 2, |x| x * 0.9999 + 1e-4)
}

/// The chain for the instruction set in use, and how many numbers it steps: enough to hide the latency of one step.
fn chains() -> (fn(f32) -> f32, usize) {
    match simd::isa() {
        Isa::Avx512 => (fused_wide, 160),
        Isa::Avx2 => (fused, 80),
        Isa::Plain => (plain, 32),
    }
}

/// The ceilings as cases, so that they are measured in the same rounds as what is compared with them.
pub(super) fn cases() -> Result<Vec<Case<'static>>> {
    let threads = rayon::current_num_threads();
    let (chain, width) = chains();
    let flops = (2 * STEPS * width) as f64;
    let one = Case::timed("peak", "multiply-adds, one thread", move || {
        black_box(chain(black_box(1.0)));
        Ok(())
    });
    let all = Case::timed("peak", &format!("multiply-adds, {threads} threads"), move || {
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            black_box(chain(black_box(1.0)));
        });
        Ok(())
    });
    let mut vectors = [Vec::new(), Vec::new()];
    for v in &mut vectors {
        let oom = |_| Error::OutOfMemory { bytes: COPY * 4, what: "the copy benchmark".into() };
        v.try_reserve_exact(COPY).map_err(oom)?;
        v.resize(COPY, 1.0f32);
    }
    let [from, mut to] = vectors;
    let copy = Case::timed("copy", &format!("128 MiB, {threads} threads"), move || {
        to.par_chunks_mut(1 << 16).zip(from.par_chunks(1 << 16)).for_each(|(y, x)| y.copy_from_slice(x));
        black_box(&to);
        Ok(())
    });
    Ok(vec![
        Case { flops, ..one },
        Case { flops: flops * threads as f64, ..all },
        Case { bytes: 8.0 * COPY as f64, ..copy },
    ])
}

/// The best rate of the cases named `name`, in their fastest round: operations or bytes a second in units of 1e9. A
/// ceiling is what can be reached, so it is no median.
pub(super) fn ceiling(timings: &[Timing], name: &str) -> f64 {
    let rate = |t: &Timing| t.flops.max(t.bytes) / t.min / 1e9;
    timings.iter().filter(|t| t.name == name).map(rate).fold(0.0, f64::max)
}
