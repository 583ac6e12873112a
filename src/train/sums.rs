//! What a step needs of the whole batch, summed over its parts and over ranks: gradient, loss, changes of state; and what one
//! rank must tell all: trouble, a wish to stop.
//!
//! A batch of B samples is cut into as many *shards* as there are ranks, or into `micro_shards`: shard s has the samples
//! sB/n to (s+1)B/n, and each rank as many shards, its *parts*. The mean over the batch is Σ n_s g_s / Σ n_s, with n_s the
//! targets of shard s that count, which differ where B/n is no integer or targets are left out: every part's pass begins
//! with n_s / Σ n_s, so sums are all that is left to do.

use super::Config;
use super::buckets::{Buckets, Full};
use super::codecs::Coder;
use super::sent::{Ring, Sent, Traffic};
use super::team::Team;
use super::zero::Shard;
use crate::comm::{Promise, Reduce};
use crate::data::Batch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::optim::noise::NoiseScale;
use crate::rng::Key;
use crate::tape::{Params, Slot};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The sums of a step under way.
pub(super) struct Sums {
    pub(super) buckets: Buckets,
    /// The ring between devices, where one sums.
    pub(super) by: Option<Ring>,
    /// Parts of a batch on this rank.
    pub(super) parts: usize,
    /// Number of the first of them among all shards.
    pub(super) first: usize,
    pub(super) shards: usize,
    /// Which shards each rank has, where they move.
    pub(super) dealt: Option<Arc<[Range<usize>]>>,
    rank: usize,
    pub(super) on_the_way: Vec<Sent>,
    pub(super) here: Vec<Full>,
    /// Targets of each micro-batch, over all ranks.
    pub(super) totals: Vec<f64>,
    /// Why this rank cannot go on.
    pub(super) trouble: Option<String>,
    /// What sums buckets approximately, if anything does.
    pub(super) coder: Option<Coder>,
    /// This rank's part of the weights, where each has one to update.
    pub(super) shard: Option<Shard>,
    /// Since the step began.
    pub(super) traffic: Traffic,
}

impl Sums {
    /// For models with these parameters, in buckets of at most `bytes` on `device`, on this rank of so many, summed over ranks `by` a
    /// ring between devices or by messages of the host.
    pub(super) fn new(
        params: &Params,
        bytes: usize,
        parts: usize,
        (rank, size): (usize, usize),
        (device, by): (&Device, Option<Ring>),
    ) -> Sums {
        let buckets = Buckets::new(params, bytes, parts, device);
        let (first, shards) = (rank * parts, size * parts);
        let (on_the_way, here, totals, traffic) = (vec![], vec![], vec![], Traffic::default());
        let (dealt, trouble, coder, shard) = (None, None, None, None);
        Sums {
            buckets,
            by,
            parts,
            first,
            shards,
            dealt,
            rank,
            on_the_way,
            here,
            totals,
            trouble,
            coder,
            shard,
            traffic,
        }
    }

    /// From now on rank r has the shards `dealt[r]`.
    pub(super) fn deal(&mut self, dealt: Vec<Range<usize>>) {
        let mine = dealt[self.rank].clone();
        (self.first, self.parts) = (mine.start, mine.len());
        self.shards = dealt.last().map_or(0, |last| last.end);
        self.buckets.deal(mine);
        self.dealt = Some(dealt.into());
    }

    /// Which shards each rank has, where they move.
    pub(super) fn dealt(&self) -> Option<&Arc<[Range<usize>]>> {
        self.dealt.as_ref()
    }

    /// The shards of this rank.
    pub(super) fn shards(&self) -> Range<usize> {
        self.first..self.first + self.parts
    }

    /// The number of all shards.
    pub(super) fn all(&self) -> usize {
        self.shards
    }

    /// The parameters of each bucket, in order.
    pub(super) fn slots(&self) -> Vec<Vec<Slot>> {
        self.buckets.slots()
    }

    /// First sample of `shard` in a batch of `global`.
    fn cut(&self, shard: usize, global: u64) -> usize {
        (shard as u128 * global as u128 / self.shards as u128) as usize
    }
}

/// What weighs one part of a batch against the others.
pub(super) struct Weight {
    /// Targets of this part.
    own: f64,
    total: Total,
    /// Its share of the samples.
    pub(super) samples: f64,
}

enum Total {
    Known(f64),
    Coming(Promise<f64>),
}

impl Team {
    /// What watches the noise of the gradient: by its parts, or by micro-batches where a batch has one part.
    pub(super) fn noise(&self, config: &Config) -> Option<NoiseScale> {
        if self.apart {
            return None;
        }
        let (batch, micro) = (config.batch_size as u64, config.accumulate as f64);
        if self.mesh.is_some() {
            return None; // the norm of a shard's gradient is spread over ranks
        }
        let Some(s) = self.sums.as_ref().filter(|s| s.shards > 1) else {
            return NoiseScale::new(batch as f64, if self.sums.is_some() { 1.0 } else { micro });
        };
        let n = s.shards as f64;
        let size = |shard: usize| (s.cut(shard + 1, batch) - s.cut(shard, batch)) as f64;
        // The variance of a mean goes as 1/samples: the harmonic mean stands for unequal parts.
        let samples = n / (0..s.shards).map(|shard| 1.0 / size(shard)).sum::<f64>();
        NoiseScale::new(samples * micro, batch as f64 / samples)
    }

    /// Parts into which this rank cuts its share of a batch.
    pub(super) fn parts(&self) -> usize {
        self.sums.as_ref().map_or(1, |s| s.parts)
    }

    /// Part `part` of this rank's share of a batch.
    pub(super) fn part(&self, batch: &Batch, part: usize) -> Result<Batch> {
        match &self.sums {
            Some(s) if s.parts > 1 => {
                let at = |shard: usize| s.cut(shard, batch.global) - s.cut(s.first, batch.global);
                batch.part(at(s.first + part)..at(s.first + part + 1))
            }
            _ => Ok(batch.clone()),
        }
    }

    /// The seed of dropout in `part`: no two shards of a batch drop alike, and a shard drops the same on whichever rank.
    pub(super) fn seed(&self, seed: u64, part: usize) -> u64 {
        let alone = if self.apart { self.rank() } else { 0 };
        match self.sums.as_ref().map_or(alone, |s| s.first + part) {
            0 => seed,
            shard => {
                let words = Key::named(seed, "train.shard").block(shard as u64);
                (words[0] as u64) << 32 | words[1] as u64
            }
        }
    }

    /// The weight of a part of micro-batch `i` that has `samples` samples; `targets` counts those of the whole share (None) or
    /// of the part.
    pub(super) fn weigh(
        &mut self,
        i: u64,
        part: usize,
        (samples, global): (usize, u64),
        targets: impl Fn(bool) -> Result<u64>,
    ) -> Result<Weight> {
        let Some(sums) = &mut self.sums else {
            let mut own = 1.0;
            if self.apart {
                let counted = targets(true)? as f64;
                self.counted += counted;
                own = counted.min(1.0); // without a target that counts there is no loss
            }
            return Ok(Weight { own, total: Total::Known(1.0), samples: 1.0 });
        };
        let (samples, own) = (samples as f64 / global as f64, targets(false)? as f64);
        if part > 0 {
            return Ok(Weight { own, total: Total::Known(sums.totals[i as usize]), samples });
        }
        if i == 0 {
            sums.totals.clear();
        }
        let share = targets(true)? as f64;
        let total = match &self.data {
            Some(data) => {
                let add = move |c: &mut crate::comm::Communicator| {
                    let mut sum = [share];
                    c.all_reduce(&mut sum, Reduce::Sum).map(|()| sum[0])
                };
                Total::Coming(data.send(add))
            }
            None => {
                sums.totals.push(share);
                Total::Known(share)
            }
        };
        Ok(Weight { own, total, samples })
    }

    /// This part's share of the mean over the batch, waiting for what other ranks have; None where no target of it counts.
    pub(super) fn settle(&mut self, weight: Weight) -> Result<Option<f64>> {
        let total = match weight.total {
            Total::Known(total) => total,
            Total::Coming(promise) => {
                let from = Instant::now();
                let total = promise.wait()?;
                self.idled(from);
                if let Some(s) = &mut self.sums {
                    s.totals.push(total);
                }
                total
            }
        };
        // Where none counts at all the mean is what it is for one rank.
        Ok(if weight.own == 0.0 && total > 0.0 { None } else { Some(weight.own / total) })
    }

    /// An error that other ranks must hear of before this one ends: kept until all are told. Alone it is the error at once.
    pub(super) fn hold(&mut self, e: Error) -> Result<()> {
        match (&mut self.sums, e) {
            (Some(s), Error::Numeric { what, .. }) => {
                s.trouble.get_or_insert(what);
                Ok(())
            }
            (_, e) => Err(e),
        }
    }

    /// Part `part` begins its last pass; true where its gradients are asked for as they come.
    pub(super) fn listens(&mut self, part: usize) -> Result<bool> {
        let Some(s) = &mut self.sums else { return Ok(false) };
        if part == 0 {
            s.here.clear();
        }
        s.buckets.begin(part)?;
        Ok(true)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::shape::DType;
    use crate::tape::{Init, ParamsBuilder, Role};

    pub(in super::super) fn params() -> Params {
        let mut b = ParamsBuilder::new(&Device::new_cpu(), DType::F32, 1);
        b.add("w", &[4], Init::Constant(1.0), Role::Decay).unwrap();
        b.build().unwrap()
    }

    pub(in super::super) fn team(world: crate::comm::Communicator, parts: usize) -> Team {
        let mut team = Team::of(world).unwrap();
        let at = (team.rank(), team.size());
        team.sums = Some(Sums::new(&params(), 1 << 20, parts, at, (&Device::cpu(), None)));
        team
    }

    #[test]
    fn no_two_shards_drop_alike_and_a_shard_drops_alike_on_whichever_rank() {
        let seeds = |p: usize, parts: usize| -> Vec<u64> {
            let of = |world| {
                let team = team(world, parts);
                Ok((0..parts).map(|part| team.seed(7, part)).collect::<Vec<_>>())
            };
            threads::run(p, of).into_iter().flat_map(Result::unwrap).collect()
        };
        let four = seeds(4, 1);
        assert_eq!((four[0], Team::alone().seed(7, 0)), (7, 7), "the first is that of one rank");
        assert_eq!(seeds(2, 2), four);
        assert_eq!(seeds(1, 4), four);
        let mut sorted = four.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 4);
    }
}
