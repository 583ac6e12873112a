//! Micro-shards that go to whoever is fast: each rank has as many as its speed earns it, and the tree keeps the bits.
//!
//! A rank's speed v is its samples a second while it computes, an exponential mean over steps. Every [`EVERY`] steps all ranks
//! tell theirs, and all make the same of it: a shard after another goes to the rank that would be done with it first. That
//! makes the largest n_r/v_r, which is what a step takes, as small as it can be in whole shards.

use super::metrics::Pace;
use super::run::Run;
use super::{Config, Team};
use crate::error::Result;
use std::ops::Range;
use std::time::Duration;

/// Steps between looks.
const EVERY: u64 = 10;
/// What the last step counts for in the mean.
const SHARE: f64 = 0.2;
/// Shards move when a step becomes shorter by at least this share: moving costs a new loader.
const GAIN: f64 = 0.04;

/// How fast this rank is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    samples: usize,
    busy: Duration,
    /// Samples a second; 0: not known yet.
    mean: f64,
}

impl Speed {
    /// A step ends.
    fn step(&mut self) {
        let (samples, busy) = (std::mem::take(&mut self.samples), std::mem::take(&mut self.busy));
        let now = samples as f64 / busy.as_secs_f64().max(1e-9);
        self.mean = if self.mean > 0.0 { self.mean + SHARE * (now - self.mean) } else { now };
    }
}

/// `shards` cut for `ranks` as evenly as they can be.
pub(super) fn evenly(shards: usize, ranks: usize) -> Vec<Range<usize>> {
    (0..ranks).map(|r| r * shards / ranks..(r + 1) * shards / ranks).collect()
}

// ANCHOR: apportion
/// How many of `shards` each rank gets: one each, and each further one to the rank that would be done with it first.
fn apportion(shards: usize, speeds: &[f64]) -> Vec<usize> {
    let mut counts = vec![1; speeds.len()];
    for _ in speeds.len()..shards {
        let done = |r: &usize| (counts[*r] + 1) as f64 / speeds[*r];
        let first = (0..speeds.len()).min_by(|a, b| done(a).total_cmp(&done(b)));
        first.into_iter().for_each(|r| counts[r] += 1);
    }
    counts
}
// ANCHOR_END: apportion

/// The new cut of the shards where it is worth while; None where things stay.
fn recut(dealt: &[Range<usize>], speeds: &[f64]) -> Option<Vec<Range<usize>>> {
    if speeds.iter().any(|v| !(*v > 0.0 && v.is_finite())) {
        return None;
    }
    let now: Vec<usize> = dealt.iter().map(Range::len).collect();
    let next = apportion(now.iter().sum(), speeds);
    let takes = |counts: &[usize]| counts.iter().zip(speeds).map(|(&n, v)| n as f64 / v).fold(0.0, f64::max);
    let mut first = 0;
    let cut = next.iter().map(|n| {
        first += n;
        first - n..first
    });
    (takes(&next) < (1.0 - GAIN) * takes(&now)).then(|| cut.collect())
}

impl Team {
    /// The shares of a batch that this rank begins with, of how many.
    pub(super) fn first_share(&self, config: &Config) -> (Range<usize>, usize) {
        let (rank, size) = (self.rank(), self.size());
        if config.balance {
            return (evenly(config.micro_shards, size)[rank].clone(), config.micro_shards);
        }
        let replica = config.mesh.place(rank, size).replica;
        (replica..replica + 1, config.mesh.replicas(size))
    }

    /// Notes that this rank computed on `samples` for so long.
    pub(super) fn worked(&mut self, samples: usize, busy: Duration) {
        self.speed.busy += busy;
        self.speed.samples += samples;
    }

    /// How fast every rank is, and what it has to do, every so many steps where shards move.
    fn paces(&mut self, step: u64) -> Result<Option<Vec<Pace>>> {
        let (Some(data), Some(sums)) = (&self.data, &self.sums) else { return Ok(None) };
        let Some(dealt) = sums.dealt() else { return Ok(None) };
        self.speed.step();
        if !step.is_multiple_of(EVERY) {
            return Ok(None);
        }
        let (mine, size) = (self.speed.mean, data.size());
        let all = data.call(move |c| {
            let mut all = vec![0.0; size];
            c.all_gather(&[mine], &mut all).map(|()| all)
        })?;
        let pace = |(samples_per_s, r): (&f64, &Range<usize>)| Pace {
            samples_per_s: *samples_per_s,
            shards: r.len(),
        };
        Ok(Some(all.iter().zip(dealt.iter()).map(pace).collect()))
    }

    /// What this rank has to do and how fast it is, where shards move.
    pub(super) fn pace(&self) -> Option<(usize, f64)> {
        let sums = self.sums.as_ref().filter(|s| s.dealt().is_some())?;
        Some((sums.shards().len(), self.speed.mean))
    }
}

impl Run {
    /// A step is over. Every so many of them shards move to the ranks that are fast: gives how fast each was, and how many it had.
    pub(super) fn balance(&mut self) -> Result<Option<Vec<Pace>>> {
        let Some(paces) = self.team.paces(self.step)? else { return Ok(None) };
        let speeds: Vec<f64> = paces.iter().map(|p| p.samples_per_s).collect();
        let Some(sums) = &mut self.team.sums else { return Ok(None) };
        if let Some(next) = sums.dealt().and_then(|dealt| recut(dealt, &speeds)) {
            sums.deal(next);
            let (share, all) = (sums.shards(), sums.all());
            let (stats, cursor) = (self.loader.stats(), self.loader.cursor());
            self.loader =
                self.task.train_shares(&self.device, Some(cursor), share, all)?.counting_from(stats);
        }
        Ok(Some(paces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_go_where_they_are_done_first() {
        assert_eq!(apportion(8, &[3.0, 1.0]), [6, 2]);
        assert_eq!(apportion(8, &[1.0, 1.0]), [4, 4]);
        assert_eq!(apportion(16, &[100.0, 0.001, 50.0]), [10, 1, 5]);
        assert_eq!(apportion(3, &[1.0, 2.0, 3.0]), [1, 1, 1]);
        // No other counts take less time: all are tried.
        let speeds = [2.3, 0.7, 1.9];
        let takes = |n: [usize; 3]| n.iter().zip(speeds).map(|(&n, v)| n as f64 / v).fold(0.0, f64::max);
        let found: [usize; 3] = apportion(16, &speeds).try_into().unwrap();
        let all = (1..15).flat_map(|a| (1..16 - a).map(move |b| [a, b, 16 - a - b]));
        assert!(all.map(takes).all(|t| takes(found) <= t), "{found:?}");
        assert_eq!(found.iter().sum::<usize>(), 16);
    }

    #[test]
    fn shards_stay_where_little_is_won_and_while_a_speed_is_not_known() {
        let even = evenly(8, 2);
        assert_eq!(even, [0..4, 4..8]);
        assert_eq!(recut(&even, &[3.0, 1.0]).unwrap(), [0..6, 6..8]);
        assert!(recut(&even, &[1.1, 1.0]).is_none());
        assert!(recut(&even, &[1.1, 0.0]).is_none() && recut(&even, &[f64::NAN, 1.0]).is_none());
        assert_eq!(evenly(8, 3), [0..2, 2..5, 5..8]);
    }
}
