//! power_sgd: each matrix M [n, m] as the product of two thin ones, of rank r. Source: Vogels et al., "PowerSGD", NeurIPS 2019.
//!
//! ```text
//! P = M·Q             all-reduce: Σ M·Q is that of the sum, as the product is linear
//! P ← orthonormal columns, on all ranks alike
//! Q = Mᵀ·P            all-reduce
//! M̂ = P·Qᵀ            and Q is where the next step begins: subspace iteration goes on from step to step
//! ```
//!
//! r(n + m) numbers travel instead of nm. M̂ = P·Pᵀ·ΣM is the part of the sum in the span of P, so it is exact where the rank
//! of the sum is at most r, and with a constant gradient it converges to the nearest matrix of rank r.
//!
//! The feedback of a rank is its own part outside that span, M − P·Pᵀ·M. (The paper keeps M less the mean of all ranks. The sum over
//! ranks is the same, and as all is linear, only that sum matters; this one does not grow where ranks' gradients differ.)
//!
//! What has fewer than two extents, or is no larger than its factors, goes dense in the same first call.

use super::memory::{self, Memory};
use super::orthonormal::{columns, norm};
use super::{Codec, Entry, FEEDBACK, Param};
use crate::attrs::{AttrDoc, Attrs, Kind};
use crate::comm::{Communicator, Reduce};
use crate::error::{Error, Result};
use crate::kernel::gemm::{View, matmul};
use crate::rng::Key;

struct PowerSgd {
    rank: usize,
    step: u64,
    error: Option<Memory>,
    /// Q of each matrix, row-major [m, r], with columns of length 1. The same on all ranks.
    warm: Memory,
}

/// Extents of a matrix, and the rank of its factors.
#[derive(Clone, Copy)]
struct Factors {
    n: usize,
    m: usize,
    r: usize,
}

impl Factors {
    /// None where `param` goes dense.
    fn of(param: &Param, rank: usize) -> Option<Factors> {
        let [n, m] = param.matrix()?;
        let r = rank.min(n).min(m);
        (r * (n + m) < n * m).then_some(Factors { n, m, r })
    }

    /// P·Qᵀ, into `out`.
    fn product(self, p: &[f32], q: &[f32], out: &mut [f32]) {
        let Factors { n, m, r } = self;
        matmul(View::new(p, n, r), View::transposed(q, r, m), out, false);
    }
}

/// A random column for `name`, the same on all ranks.
fn random(name: &str, step: u64, column: usize, q: &mut [f32], r: usize) {
    let mut rng = Key::named(step, &format!("codec.power_sgd.{column}.{name}")).rng();
    q.chunks_mut(r).for_each(|row| row[column] = rng.normal() as f32);
}

impl PowerSgd {
    /// Gives columns of Q length 1: their lengths say nothing, and products of small gradients would vanish. One that is 0
    /// (its direction was not in the gradient) is drawn anew, or it would be 0 for ever.
    fn warm_up(&self, name: &str, q: &mut [f32], r: usize) {
        for c in 0..r {
            let column: Vec<f64> = q.chunks(r).map(|row| f64::from(row[c])).collect();
            let length = norm(&column);
            if length == 0.0 {
                random(name, self.step + 1, c, q, r);
            } else {
                q.chunks_mut(r).zip(&column).for_each(|(row, x)| row[c] = (x / length) as f32);
            }
        }
    }

    /// P = M·Q of every matrix, with what earlier steps lost added to M.
    fn left(&mut self, factors: &[(&Param, Factors)], x: &mut [f32]) -> Vec<f32> {
        let mut all = vec![0.0; factors.iter().map(|(_, f)| f.n * f.r).sum()];
        let mut rest = &mut all[..];
        for (param, f) in factors {
            let x = &mut x[param.range()];
            if let Some(error) = &mut self.error {
                x.iter_mut().zip(error.of(param)).for_each(|(x, e)| *x += *e);
            }
            let (p, after) = rest.split_at_mut(f.n * f.r);
            let q = self.warm.or_else(param, || {
                let mut q = vec![0.0; f.m * f.r];
                (0..f.r).for_each(|c| random(&param.name, 0, c, &mut q, f.r));
                q
            });
            matmul(View::new(x, f.n, f.m), View::new(q, f.m, f.r), p, false);
            rest = after;
        }
        all
    }
}

impl Codec for PowerSgd {
    fn sum(&mut self, world: &mut Communicator, params: &[Param], x: &mut [f32]) -> Result<()> {
        let factors: Vec<(&Param, Factors)> =
            params.iter().filter_map(|p| Some((p, Factors::of(p, self.rank)?))).collect();
        let mut first = self.left(&factors, x);
        let dense = || params.iter().filter(|p| Factors::of(p, self.rank).is_none());
        let thin = first.len(); // then what goes dense
        dense().for_each(|p| first.extend_from_slice(&x[p.range()]));
        world.all_reduce(&mut first, Reduce::Sum)?;
        let (mut first, mut sums) = first.split_at_mut(thin);
        for param in dense() {
            let (one, after) = sums.split_at_mut(param.range().len());
            x[param.range()].copy_from_slice(one);
            sums = after;
        }
        if factors.is_empty() {
            return Ok(());
        }

        let mut second = vec![0.0; factors.iter().map(|(_, f)| f.m * f.r).sum()];
        let (mut rest, mut ps) = (&mut second[..], Vec::new());
        for (param, f) in &factors {
            let (p, after) = first.split_at_mut(f.n * f.r);
            let (q, after_q) = rest.split_at_mut(f.m * f.r);
            // ANCHOR: factors
            columns(p, f.r);
            let x = &mut x[param.range()];
            matmul(View::transposed(x, f.m, f.n), View::new(p, f.n, f.r), q, false);
            if let Some(error) = &mut self.error {
                let error = error.of(param);
                f.product(p, q, error);
                error.iter_mut().zip(x).for_each(|(e, x)| *e = *x - *e);
            }
            // ANCHOR_END: factors
            ps.push(&*p);
            (first, rest) = (after, after_q);
        }
        world.all_reduce(&mut second, Reduce::Sum)?;
        let mut rest = &mut second[..];
        for ((param, f), p) in factors.iter().zip(ps) {
            let (q, after) = rest.split_at_mut(f.m * f.r);
            f.product(p, q, &mut x[param.range()]);
            self.warm_up(&param.name, q, f.r);
            self.warm.or_else(param, Vec::new).copy_from_slice(q);
            rest = after;
        }
        Ok(())
    }

    fn begin(&mut self, step: u64) {
        self.step = step;
    }

    fn state(&mut self) -> Result<Vec<(String, Vec<f32>)>> {
        Ok(self.error.iter().chain([&self.warm]).flat_map(Memory::state).collect())
    }

    fn restore(&mut self, params: &[Param], state: Vec<(String, Vec<f32>)>) -> Result<()> {
        let rank = self.rank;
        let (len, thin) =
            (|p: &Param| p.range().len(), move |p: &Param| Factors::of(p, rank).map_or(0, |f| f.m * f.r));
        let mut memories: Vec<(&mut Memory, memory::Extent<'_>)> = vec![(&mut self.warm, &thin)];
        memories.extend(self.error.iter_mut().map(|e| (e, &len as memory::Extent<'_>)));
        memory::restore(&mut memories, params, state)
    }
}

fn build(a: &Attrs) -> Result<Box<dyn Codec>> {
    let rank = a.size("rank")?;
    if !(1..=1024).contains(&rank) {
        return Err(Error::attr("power_sgd", "rank", format!("is {rank}, but must be from 1 to 1024")));
    }
    let error = a.flag("feedback")?.then(|| Memory::new("error"));
    Ok(Box::new(PowerSgd { rank, step: 0, error, warm: Memory::new("q") }))
}

/// power_sgd in the table of codecs.
pub(super) static ENTRY: Entry = Entry {
    name: "power_sgd",
    doc: "each matrix as two thin factors, which ranks sum exactly",
    attrs: &[
        AttrDoc {
            name: "rank",
            kind: Kind::Int,
            default: Some("4"),
            doc: "columns of the factors of a matrix",
        },
        FEEDBACK,
    ],
    build,
};
