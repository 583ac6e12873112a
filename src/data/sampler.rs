//! The order of samples: a permutation computed by index, so that shuffling a billion samples takes no
//! memory, any position can be asked for, and a run is resumed from four numbers.
//!
//! A Feistel network over the smallest even number of bits that holds `n` is a bijection whatever its round
//! function; here that is Philox. Values outside `0..n` are walked on until they fall inside (cycle walking:
//! Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), which keeps it a bijection of
//! `0..n`.
//!
//! The order depends on seed, epoch and length alone: not on ranks, threads or prefetch. Rank `r` of `w`
//! takes the slice `r·n/w .. (r+1)·n/w` of each global batch of `n`, so another world size sees the same
//! global batches.

use crate::error::{Error, Result};
use crate::rng::Key;
use serde::{Deserialize, Serialize};

const ROUNDS: u64 = 8;

/// A permutation of `0..len`, one for each seed and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permutation {
    key: Key,
    len: u64,
    half: u32,
}

impl Permutation {
    /// The order of `len` samples in `epoch` of the run with `seed`.
    pub fn new(seed: u64, epoch: u64, len: u64) -> Permutation {
        let mut key = Key::named(seed, "data.order");
        key.stream ^= epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Permutation { key, len, half: bits.div_ceil(2).max(1) }
    }
    /// Number of samples.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }
    /// The sample at position `at` of the epoch. `at` must be below `len`.
    pub fn index(&self, at: u64) -> u64 {
        assert!(at < self.len, "position {at} of {} samples", self.len);
        // ANCHOR: order
        let mask = (1u64 << self.half) - 1;
        let mut x = at;
        // The domain is below 4·len, so the walk takes four passes on average at worst, and ends since it is
        // a cycle.
        loop {
            let (mut left, mut right) = (x >> self.half, x & mask);
            for round in 0..ROUNDS {
                let word = self.key.block(round << 56 ^ right)[0] as u64;
                (left, right) = (right, left ^ (word & mask));
            }
            x = left << self.half | right;
            if x < self.len {
                return x;
            }
        }
        // ANCHOR_END: order
    }
}

/// What happens to the samples that do not fill a last batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Last {
    /// They are left out of this epoch (another epoch leaves out others): each batch has the same shape. For
    /// training.
    #[default]
    Drop,
    /// They make a smaller batch: each sample exactly once. For evaluation.
    Short,
}

/// Where a run is in its data: together with the options of the loader, all that a resume needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cursor {
    /// Seed of the order.
    pub seed: u64,
    /// Passes over the set that are complete.
    pub epoch: u64,
    /// Samples of this epoch already given out, over all ranks.
    pub sample_in_epoch: u64,
    /// Identity of the set; a resume on another set is an error.
    pub dataset: [u8; 32],
}

/// One batch of the global order, cut for one rank.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Epoch that the samples belong to.
    pub epoch: u64,
    /// Samples in order, of this rank.
    pub indices: Vec<u64>,
    /// Samples of the batch over all ranks.
    pub global: u64,
    /// Where the next batch begins.
    pub next: Cursor,
}

/// Says which samples make up each batch.
#[derive(Clone, Debug)]
pub struct Sampler {
    len: u64,
    batch: u64,
    shuffle: bool,
    last: Last,
    rank: u64,
    world: u64,
    width: u64,
}

impl Sampler {
    /// Batches of `batch` samples over all ranks, from a set of `len`; in file order unless `shuffle`.
    pub fn new(
        len: u64,
        batch: usize,
        shuffle: bool,
        last: Last,
        rank: usize,
        world: usize,
    ) -> Result<Sampler> {
        let batch = batch as u64;
        if world == 0 || rank >= world {
            return Err(Error::config("data.rank", format!("rank {rank} of {world} cannot be")));
        }
        if batch == 0 || batch < world as u64 {
            let what = format!("is {batch}, but each of {world} ranks needs at least one sample of a batch");
            return Err(Error::config("batch_size", what));
        }
        if len == 0 || (last == Last::Drop && len < batch) {
            let what =
                format!("is {batch}, but an epoch has {len} samples; take a smaller batch or more data");
            return Err(Error::config("batch_size", what));
        }
        Ok(Sampler { len, batch, shuffle, last, rank: rank as u64, world: world as u64, width: 1 })
    }

    /// The same with `width` shares from that of its rank on.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn taking(self, width: usize) -> Result<Sampler> {
        let width = width as u64;
        if width == 0 || self.rank + width > self.world {
            let what = format!("{width} shares from {} on, of {}, cannot be", self.rank, self.world);
            return Err(Error::config("data.rank", what));
        }
        Ok(Sampler { width, ..self })
    }

    /// Samples of an epoch that are given out.
    pub fn epoch_len(&self) -> u64 {
        match self.last {
            Last::Drop => self.len / self.batch * self.batch,
            Last::Short => self.len,
        }
    }
    /// Batches of an epoch.
    pub fn batches(&self) -> u64 {
        self.epoch_len().div_ceil(self.batch)
    }

    /// The batch that begins at `cursor`. A cursor at the end of an epoch means the start of the next.
    pub fn plan(&self, cursor: Cursor) -> Plan {
        let mut at = cursor;
        // Not divided by the batch: a run may go on with another batch size.
        let left = |at: &Cursor| self.len.saturating_sub(at.sample_in_epoch);
        if left(&at) < if self.last == Last::Drop { self.batch } else { 1 } {
            at = Cursor { epoch: at.epoch + 1, sample_in_epoch: 0, ..at };
        }
        let global = left(&at).min(self.batch);
        let order = Permutation::new(at.seed, at.epoch, self.len);
        let cut =
            |rank: u64| at.sample_in_epoch + (rank as u128 * global as u128 / self.world as u128) as u64;
        let mine = cut(self.rank)..cut(self.rank + self.width);
        let indices = mine.map(|k| if self.shuffle { order.index(k) } else { k }).collect();
        let next = Cursor { sample_in_epoch: at.sample_in_epoch + global, ..at };
        Plan { epoch: at.epoch, indices, global, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start(seed: u64) -> Cursor {
        Cursor { seed, epoch: 0, sample_in_epoch: 0, dataset: [0; 32] }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..Default::default() })]

        #[test]
        fn permutation_is_a_bijection(seed: u64, epoch: u64, len in 1u64..3000) {
            let p = Permutation::new(seed, epoch, len);
            let mut seen = vec![false; len as usize];
            for k in 0..len {
                prop_assert!(!std::mem::replace(&mut seen[p.index(k) as usize], true));
            }
        }

        #[test]
        fn slices_of_the_ranks_are_the_global_batch(
            seed: u64, len in 8u64..500, batch in 8usize..40, world in 1usize..8, short: bool,
        ) {
            let last = if short { Last::Short } else { Last::Drop };
            prop_assume!(short || len >= batch as u64);
            let one = Sampler::new(len, batch, true, last, 0, 1).unwrap();
            let mut at = start(seed);
            for _ in 0..2 * one.batches() + 1 {
                let whole = one.plan(at);
                let parts: Vec<Plan> = (0..world)
                    .map(|r| Sampler::new(len, batch, true, last, r, world).unwrap().plan(at)).collect();
                let joined: Vec<u64> = parts.iter().flat_map(|p| p.indices.clone()).collect();
                prop_assert_eq!(&joined, &whole.indices);
                prop_assert!(parts.iter().all(|p| p.next == whole.next && p.global == whole.global));
                at = whole.next;
            }
            prop_assert!(at.epoch >= 1);
        }

        #[test]
        fn each_sample_once_an_epoch(seed: u64, epoch in 0u64..9, len in 1u64..400, batch in 1usize..50) {
            let s = Sampler::new(len, batch, true, Last::Short, 0, 1).unwrap();
            let mut at = Cursor { epoch, ..start(seed) };
            let mut seen = vec![0; len as usize];
            for _ in 0..s.batches() {
                let plan = s.plan(at);
                prop_assert_eq!(plan.epoch, epoch);
                plan.indices.iter().for_each(|&i| seen[i as usize] += 1);
                at = plan.next;
            }
            prop_assert!(seen.iter().all(|&n| n == 1));
            prop_assert_eq!(s.plan(at).epoch, epoch + 1);
        }
    }

    #[test]
    fn a_huge_set_costs_nothing() {
        let p = Permutation::new(1, 2, 1 << 60);
        let some: Vec<u64> = (0..1000).map(|k| p.index(k << 49)).collect();
        let mut sorted = some.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 1000);
    }

    /// Written down once: a change of the order would silently break every resume.
    #[test]
    fn golden_order() {
        let order =
            |seed, epoch| (0..10).map(|k| Permutation::new(seed, epoch, 10).index(k)).collect::<Vec<_>>();
        assert_eq!(order(0, 0), GOLDEN[0]);
        assert_eq!(order(0, 1), GOLDEN[1]);
        assert_eq!(order(1, 0), GOLDEN[2]);
    }
    /// Computed by a second program from the description above.
    const GOLDEN: [[u64; 10]; 3] =
        [[0, 5, 9, 3, 6, 8, 1, 4, 2, 7], [7, 5, 0, 2, 8, 6, 1, 9, 4, 3], [9, 5, 8, 2, 3, 7, 4, 1, 0, 6]];

    /// Each value as often at each position: chi-square over 20,000 seeds, 81 degrees of freedom; 150 is
    /// beyond 1 in 10^5.
    #[test]
    fn positions_are_uniform() {
        let mut hits = [[0u32; 10]; 10];
        for seed in 0..20_000 {
            let p = Permutation::new(seed, 0, 10);
            (0..10).for_each(|k| hits[k as usize][p.index(k) as usize] += 1);
        }
        let chi: f64 = hits.iter().flatten().map(|&h| (h as f64 - 2000.0).powi(2) / 2000.0).sum();
        assert!(chi < 150.0, "{chi}");
    }

    #[test]
    fn impossible_requests_are_errors() {
        assert!(Sampler::new(10, 4, true, Last::Drop, 4, 4).is_err());
        assert!(Sampler::new(10, 4, true, Last::Drop, 0, 5).is_err());
        assert!(Sampler::new(10, 0, true, Last::Drop, 0, 1).is_err());
        let e = Sampler::new(3, 4, true, Last::Drop, 0, 1).unwrap_err().to_string();
        assert!(e.contains("batch_size") && e.contains("3 samples"), "{e}");
    }
}
