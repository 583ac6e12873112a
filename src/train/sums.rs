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
use super::sent::{self, Ring, Sent, Traffic};
use super::team::Team;
use super::trace::Lane;
use super::zero::Shard;
use crate::comm::{Promise, Reduce};
use crate::data::Batch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::optim::noise::NoiseScale;
use crate::rng::Key;
use crate::tape::{Change, Grads, Params, Slot};
use crate::tensor::Tensor;
use std::time::Instant;

/// Bytes of what a rank in trouble tells the others.
const WORDS: usize = 480;

/// The sums of a step under way.
pub(super) struct Sums {
    pub(super) buckets: Buckets,
    /// The ring between devices, where one sums.
    by: Option<Ring>,
    /// Parts of a batch on this rank.
    parts: usize,
    /// Number of the first of them among all shards.
    first: usize,
    shards: usize,
    on_the_way: Vec<Sent>,
    here: Vec<Full>,
    /// Targets of each micro-batch, over all ranks.
    totals: Vec<f64>,
    /// Why this rank cannot go on.
    trouble: Option<String>,
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
        let (trouble, coder, shard) = (None, None, None);
        Sums { buckets, by, parts, first, shards, on_the_way, here, totals, trouble, coder, shard, traffic }
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

/// What all ranks know of a step's passes.
pub(super) struct Agreed {
    /// Mean loss over the batch.
    pub(super) loss: f64,
    /// Mean loss over the samples of this rank.
    pub(super) own: f64,
    /// Norm of the mean gradient of one shard, averaged over shards, where there are several.
    pub(super) small: Option<f64>,
    /// Changes of state, merged.
    pub(super) changes: Vec<Change>,
    /// The signal that asked some rank to stop.
    pub(super) stop: Option<i32>,
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
            if self.apart {
                self.counted += targets(true)? as f64;
            }
            return Ok(Weight { own: 1.0, total: Total::Known(1.0), samples: 1.0 });
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

    /// The gradient of `slot` in the part under way is complete.
    pub(super) fn told(&mut self, slot: Slot, g: Option<&Tensor>) -> Result<()> {
        let Some(s) = &mut self.sums else { return Ok(()) };
        for full in s.buckets.take(slot, g)? {
            let Some(data) = &self.data else {
                s.here.push(full);
                continue;
            };
            let scattered = s.shard.is_some();
            s.on_the_way.push(sent::send(data, full, s.coder.as_ref(), s.by.clone(), scattered));
        }
        Ok(())
    }

    /// What gradients cost since this was last asked; None where there is no other rank. Micro-shards have the same metrics for
    /// any number of ranks, so theirs are not told.
    pub(super) fn traffic(&mut self, config: &Config) -> Option<Traffic> {
        let traffic = self.sums.as_mut().map(|s| std::mem::take(&mut s.traffic));
        traffic.filter(|_| self.size() > 1 && config.micro_shards == 0)
    }

    /// Waits for the sums over ranks, and puts them into `grads`.
    fn receive(&mut self, grads: &mut Grads) -> Result<()> {
        let (from, size) = (Instant::now(), self.replica().1);
        let Some(s) = &mut self.sums else { return Ok(()) };
        let mut full = std::mem::take(&mut s.here);
        let mut events = Vec::new();
        for sent in std::mem::take(&mut s.on_the_way) {
            let (one, sent, begun, ended) = sent.wait()?;
            let bytes = one.data.spec().bytes();
            let lane = Lane::Communication { bytes };
            s.traffic.sent += sent;
            s.traffic.dense += 2.0 * (1.0 - 1.0 / size as f64) * bytes as f64;
            let name = if s.shard.is_some() { "reduce-scatter" } else { "all-reduce" };
            events.push((lane, format!("{name} bucket {}", one.bucket), begun, ended));
            full.push(one);
        }
        for one in full {
            match &mut s.shard {
                Some(shard) => {
                    shard.take(&one)?;
                    s.buckets.free(one);
                }
                None => s.buckets.store(one, grads)?,
            }
        }
        if !events.is_empty() {
            self.idled(from);
        }
        events.into_iter().for_each(|(lane, name, a, b)| self.note(lane, &name, a, b));
        Ok(())
    }

    /// Ends the passes of `step`: every part has told all its gradients, and `parts` has for each its share of the loss, its
    /// share of the samples, and the changes of state it asks for. Errors on all ranks where one is in trouble.
    pub(super) fn agree(
        &mut self,
        step: u64,
        params: &Params,
        grads: &mut Grads,
        parts: Vec<(f64, f64, Vec<Change>)>,
        stop: Option<i32>,
    ) -> Result<Agreed> {
        self.receive(grads)?;
        let (speaker, shared) = (self.speaker(), self.mesh.is_some());
        let counts = f64::from(u8::from(speaker == self.rank()));
        let Some(s) = &mut self.sums else {
            let loss = parts.iter().map(|p| p.0).sum();
            let changes = parts.into_iter().flat_map(|p| p.2).collect();
            return Ok(Agreed { loss, own: loss, small: None, changes, stop });
        };
        let held = s.trouble.take();
        // An operation that failed says more than gradients that then fail on all ranks.
        let flag = if held.is_some() { 2.0 } else { 1.0 };
        let trouble = held.or_else(|| {
            let slot = s.buckets.bad()?;
            Some(format!("the gradient is not finite, first in `{}`", params.info(slot).name))
        });
        let shards = s.shards;
        let flags = [if trouble.is_some() { flag } else { 0.0 }, f64::from(stop.unwrap_or(0))];
        let record = |(p, squares): (&(f64, f64, Vec<Change>), &f64)| {
            [p.0 * counts, squares / (p.1 * p.1), flags[0], flags[1]]
        };
        let mine: Vec<f64> = parts.iter().zip(s.buckets.squares()).flat_map(record).collect();
        let from = Instant::now();
        let all = self.gather(mine)?;
        self.idled(from);
        let of = |k: usize| all.iter().skip(k).step_by(4).copied();
        let worst = of(2).fold(0.0, f64::max);
        if worst > 0.0 {
            return Err(self.trouble(step, trouble.filter(|_| flag == worst))?);
        }
        let (loss, squares): (f64, f64) = (of(0).sum(), of(1).sum());
        let share: f64 = parts.iter().map(|p| p.1).sum();
        let own = of(0).skip(speaker * parts.len()).take(parts.len()).sum::<f64>() / share;
        let small = (shards > 1 && !shared).then(|| (squares / shards as f64).sqrt());
        let stop = of(3).find(|signal| *signal > 0.0).map(|signal| signal as i32);
        let changes = self.merge(parts.into_iter().map(|p| (p.1, p.2)).collect())?;
        Ok(Agreed { loss, own, small, changes, stop })
    }

    /// The error that all ranks end with: that of the first rank in trouble.
    fn trouble(&self, step: u64, mine: Option<String>) -> Result<Error> {
        let mut words = mine.unwrap_or_default().into_bytes();
        words.resize(WORDS, 0);
        let all = self.gather(words)?;
        let texts = all.chunks(WORDS).map(|w| String::from_utf8_lossy(w).trim_end_matches('\0').to_string());
        let found = texts.enumerate().find(|(_, text)| !text.is_empty());
        let what = found.map_or_else(String::new, |(rank, text)| match self.size() {
            1 => text,
            _ => format!("rank {rank}: {text}"),
        });
        Ok(Error::Numeric { step, what: format!("{what}; weights were not changed") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::shape::DType;
    use crate::tape::{Init, ParamsBuilder, Role};

    fn params() -> Params {
        let mut b = ParamsBuilder::new(&Device::new_cpu(), DType::F32, 1);
        b.add("w", &[4], Init::Constant(1.0), Role::Decay).unwrap();
        b.build().unwrap()
    }

    fn team(world: crate::comm::Communicator, parts: usize) -> Team {
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

    #[test]
    fn trouble_of_one_rank_is_the_error_of_all_and_names_it() {
        let ends = threads::run(3, |world| {
            let (mut team, params) = (team(world, 1), params());
            let mut grads = Grads::new(&params)?;
            team.listens(0)?;
            let bad = if team.rank() == 1 { f32::INFINITY } else { 1.0 };
            let g = Tensor::from_slice(params.device(), &[1.0, bad, 1.0, 1.0], &[4])?;
            team.told(params.find("w").unwrap(), Some(&g))?;
            team.agree(9, &params, &mut grads, vec![(1.0, 1.0 / 3.0, vec![])], None).map(|_| ())
        });
        for end in ends {
            let e = end.unwrap_err();
            assert_eq!(e.exit_code(), 6);
            let text = e.to_string();
            assert!(text.contains("step 9: rank 1:") && text.contains("`w`"), "{text}");
        }
    }
}
