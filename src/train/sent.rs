//! A bucket on its way to its sum over ranks: by the ring between devices, by a codec, or by messages of the host.

use super::buckets::Full;
use super::sums::Sums;
use super::trace::Lane;
use super::{Config, Team};
use crate::comm::{DeviceRing, Group, Promise, Reduce};
use crate::error::Result;
use crate::tape::{Grads, Slot};
use crate::tensor::Tensor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A bucket on its way, with the bytes that this rank sends of it.
pub(super) type Sent = Promise<(Full, u64, Instant, Instant)>;

/// What gradients cost on their way.
#[derive(Clone, Copy, Default)]
pub(super) struct Traffic {
    /// Bytes that this rank sent.
    pub(super) sent: u64,
    /// Bytes that the ring sends of them where no codec makes them fewer: 2(p−1)/p of all.
    pub(super) dense: f64,
}

/// A ring between devices, which the courier's errands share.
pub(super) type Ring = Arc<Mutex<DeviceRing>>;

/// Has the ranks of `data` sum a bucket, of which each gets its part alone where it has one to update.
fn send(data: &Group, mut full: Full, sums: &Sums) -> Sent {
    let coding = sums.coder.as_ref().map(|coder| coder.of(full.bucket));
    let (by, dealt, scattered) = (sums.by.clone(), sums.dealt().cloned(), sums.shard.is_some());
    data.send(move |c| {
        let from = Instant::now();
        let sent = match (coding, by) {
            (None, Some(ring)) => {
                let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
                let before = ring.copied();
                ring.all_reduce(&mut full.data)?;
                ring.copied() - before
            }
            (coding, _) => {
                let before = c.sent();
                match (coding, dealt) {
                    (Some(coding), _) => coding.all_reduce(c, &mut full.data)?,
                    (None, Some(dealt)) => {
                        let below: Vec<&[f32]> =
                            full.below.iter().map(Tensor::as_slice).collect::<Result<_>>()?;
                        c.all_reduce_shards(&dealt, &below, full.data.as_mut_slice::<f32>()?, scattered)?;
                    }
                    (None, None) if scattered => {
                        c.all_reduce_part(full.data.as_mut_slice::<f32>()?, Reduce::Sum)?;
                    }
                    (None, None) => c.all_reduce(full.data.as_mut_slice::<f32>()?, Reduce::Sum)?,
                }
                c.sent() - before
            }
        };
        Ok((full, sent, from, Instant::now()))
    })
}

/// Has the ranks of `data` hand round their parts of a bucket of weights.
pub(super) fn gather(data: &Group, mut full: Full) -> Sent {
    data.send(move |c| {
        let (from, before) = (Instant::now(), c.sent());
        c.all_reduce_rest(full.data.as_mut_slice::<f32>()?)?;
        Ok((full, c.sent() - before, from, Instant::now()))
    })
}

impl Team {
    /// The gradient of `slot` in the part under way is complete.
    pub(super) fn told(&mut self, slot: Slot, g: Option<&Tensor>) -> Result<()> {
        let Some(s) = &mut self.sums else { return Ok(()) };
        for full in s.buckets.take(slot, g)? {
            let Some(data) = &self.data else {
                s.here.push(full);
                continue;
            };
            let sent = send(data, full, s);
            s.on_the_way.push(sent);
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
    pub(super) fn receive(&mut self, grads: &mut Grads) -> Result<()> {
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
}
