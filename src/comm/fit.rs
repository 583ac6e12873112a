//! What a message costs here, α + Nβ, measured; and from it the length at which the ring overtakes the tree.

use super::{Algorithm, Communicator, Reduce};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, Instant};

/// Costs of one rank's messages, and what follows from them. The same on all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Seconds until a message gets going, whatever its length.
    pub alpha: f64,
    /// Seconds for each byte more.
    pub beta: f64,
    /// Seconds for each byte that is summed.
    pub gamma: f64,
    /// Messages of up to this many bytes go by the tree, longer ones round the ring.
    pub crossover: u64,
}

/// Bytes of a short message and of a long one.
const SHORT: usize = 8;
const LONG: usize = 1 << 20;
/// Exchanges of each, of which the median counts.
const TURNS: [usize; 2] = [41, 9];

impl Fit {
    /// That of these costs for `p` ranks.
    pub fn new(alpha: f64, beta: f64, gamma: f64, p: usize) -> Fit {
        let mut fit = Fit { alpha, beta, gamma, crossover: u64::MAX };
        // ANCHOR: crossover
        let [tree, ring] = [Algorithm::Tree, Algorithm::Ring].map(|a| terms(a, p));
        // tree(N) = ring(N): where what the ring waits more is what the tree moves more.
        let wait = (ring[0] - tree[0]) * alpha;
        let bytes = (tree[1] - ring[1]) * beta + (tree[2] - ring[2]) * gamma;
        if wait <= 0.0 {
            fit.crossover = 0;
        } else if bytes > 0.0 {
            fit.crossover = (wait / bytes) as u64; // a cast from f64 ends at the largest number
        }
        // ANCHOR_END: crossover
        fit
    }

    /// Seconds of an all-reduce of `bytes` among `p` ranks.
    pub fn all_reduce(&self, algorithm: Algorithm, p: usize, bytes: f64) -> f64 {
        let [waits, moved, summed] = terms(algorithm, p);
        waits * self.alpha + bytes * (moved * self.beta + summed * self.gamma)
    }

    /// Measures among the ranks of `world`, all of which call this: rank 0's figures count, and are sent to all.
    pub fn measure(world: &mut Communicator) -> Result<Fit> {
        let p = world.size();
        if p == 1 {
            return Ok(Fit::new(0.0, 0.0, 0.0, 1));
        }
        let [short, long] = [exchange(world, SHORT, TURNS[0])?, exchange(world, LONG, TURNS[1])?];
        // What an all-reduce of two ranks takes beyond its exchanges are sums.
        let beta = (long - short).max(0.0) / (LONG - SHORT) as f64;
        let mut found = [short, beta, sum()];
        world.broadcast(&mut found, 0)?;
        Ok(Fit::new(found[0], found[1], found[2], p))
    }
}

/// Of the time of an all-reduce: how many α, and how many β and γ for each byte.
fn terms(algorithm: Algorithm, p: usize) -> [f64; 3] {
    let n = p as f64;
    match algorithm {
        Algorithm::Ring => [2.0 * (n - 1.0), 2.0 * (n - 1.0) / n, (n - 1.0) / n],
        Algorithm::Tree => {
            let doublings = f64::from(p.ilog2());
            // Ranks beyond the largest power of two give theirs to one below first, and get the result.
            let beyond = if p.is_power_of_two() { 0.0 } else { 1.0 };
            [doublings + 2.0 * beyond, doublings + 2.0 * beyond, doublings + beyond]
        }
    }
}

/// Seconds of an exchange with the neighbours, all at once: the median.
fn exchange(world: &mut Communicator, bytes: usize, turns: usize) -> Result<f64> {
    let (p, me) = (world.size(), world.rank());
    let (out, mut into) = (vec![0u8; bytes], vec![0u8; bytes]);
    let mut times = Vec::with_capacity(turns);
    world.barrier()?;
    for _ in 0..turns {
        let start = Instant::now();
        world.exchange((me + 1) % p, &out, (me + p - 1) % p, &mut into, 0)?;
        times.push(start.elapsed());
    }
    Ok(median(&mut times))
}

/// Seconds for each byte of sums that the cache holds, as those of pieces are.
fn sum() -> f64 {
    let (mut x, y) = (vec![1.0f32; LONG / 16], vec![1.0f32; LONG / 16]);
    let mut times: Vec<Duration> = (0..TURNS[0])
        .map(|_| {
            let start = Instant::now();
            super::number::combine::<f32>(Reduce::Sum)(
                bytemuck::cast_slice_mut(std::hint::black_box(&mut x)),
                bytemuck::cast_slice(&y),
            );
            start.elapsed()
        })
        .collect();
    median(&mut times) / size_of_val(&x[..]) as f64
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (micro, rate) = (self.alpha * 1e6, 1e-9 / self.beta.max(1e-15));
        write!(f, "a message takes {micro:.1} µs and moves {rate:.2} GB/s; ")?;
        match self.crossover {
            u64::MAX => write!(f, "sums go by the tree"),
            0 => write!(f, "sums go round the ring"),
            n => write!(f, "sums of up to {n} bytes go by the tree, others round the ring"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crossover_is_where_the_costs_meet() {
        for p in 2..=9 {
            for (alpha, beta, gamma) in [(2e-6, 1e-10, 5e-11), (1e-4, 1e-9, 1e-10), (5e-5, 8e-9, 0.0)] {
                let fit = Fit::new(alpha, beta, gamma, p);
                let less = |bytes: f64| {
                    fit.all_reduce(Algorithm::Tree, p, bytes) <= fit.all_reduce(Algorithm::Ring, p, bytes)
                };
                assert!(less(1.0), "{p}");
                if fit.crossover < u64::MAX {
                    let at = fit.crossover as f64;
                    assert!(less(at * 0.999 - 2.0) && !less(at * 1.001 + 2.0), "{p} ranks, {fit}");
                } else {
                    assert!(less(1e15), "{p}");
                }
            }
        }
    }

    #[test]
    fn ranks_agree_on_what_was_measured() {
        let fits = crate::comm::threads::run(3, |mut world| Fit::measure(&mut world));
        let fits: Vec<Fit> = fits.into_iter().map(|f| f.unwrap()).collect();
        assert!(fits[0].alpha > 0.0 && fits[0].beta >= 0.0 && fits[0].gamma > 0.0, "{:?}", fits[0]);
        assert!(fits.iter().all(|f| *f == fits[0]));
    }
}
