//! ZeRO-1 (Rajbhandari et al. 2020): every rank has all weights, but updates a part of them, and keeps the optimizer's state of
//! that part alone.
//!
//! An all-reduce has two halves: after the first each rank has its part of the sum, after the second all of it. Between the two
//! each rank makes the optimizer's step of its part, so what the second half hands round are weights, not gradients. The bytes
//! are the same, and the state of K bytes takes K/p on each of p ranks.
//!
//! A rank's part is its part of each bucket ([`Communicator::owned`]): some pieces of each segment of the weights. Here they lie
//! one after the other in parameters of their own, with as many segments of the same roles, for which an optimizer is built like
//! for any. Snapshots have the state of the whole, so any number of ranks resumes, with parts or without.

use super::buckets::{Buckets, Full};
use super::journal::collect;
use super::sent;
use super::trace::Lane;
use super::{Config, Team};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::optim::{Optimizer, Step, clip};
use crate::tape::{Grads, Init, Params, ParamsBuilder};
use crate::tensor::Tensor;
use std::time::Instant;

/// Some weights that lie side by side in a bucket, in their segment, and among the rank's own of that segment.
#[derive(Clone, Copy)]
struct Piece {
    bucket: usize,
    /// First element in the bucket.
    at: usize,
    len: usize,
    segment: usize,
    /// First element in the segment.
    offset: usize,
    /// First element in the rank's own part of the segment.
    own: usize,
}

/// The pieces of rank `rank` of `ranks`, and how many weights it has of each of so many segments.
fn pieces(buckets: &Buckets, segments: usize, rank: usize, ranks: usize) -> (Vec<Piece>, Vec<usize>) {
    let (mut all, mut lens) = (Vec::new(), vec![0; segments]);
    for (bucket, (len, places)) in buckets.layout().enumerate() {
        let mine = Communicator::owned(rank, ranks, len);
        for p in places {
            let (at, end) = (mine.start.max(p.at), mine.end.min(p.at + p.len));
            if at < end {
                let (len, offset, own) = (end - at, p.offset + at - p.at, lens[p.segment]);
                all.push(Piece { bucket, at, len, segment: p.segment, offset, own });
                lens[p.segment] += len;
            }
        }
    }
    (all, lens)
}

/// This rank's part of the weights.
pub(super) struct Shard {
    pieces: Vec<Piece>,
    /// The weights of the part.
    params: Params,
    /// Their gradients, summed over ranks.
    grads: Grads,
}

impl Shard {
    fn new(buckets: &Buckets, whole: &Params, rank: usize, ranks: usize) -> Result<Shard> {
        let (pieces, lens) = pieces(buckets, whole.segments().len(), rank, ranks);
        let mut b = ParamsBuilder::new(whole.device(), whole.dtype(), 0);
        for (i, (segment, len)) in whole.segments().iter().zip(lens).enumerate() {
            // Segments come in order of their roles, which no two of them share: these have the same numbers.
            b.add(format!("shard.{i}"), &[len], Init::Constant(0.0), segment.role)?;
        }
        let mut params = b.build()?;
        for p in &pieces {
            let piece = whole.segment(p.segment).window(p.offset, &[p.len])?;
            params.segment_mut(p.segment).copy_from(p.own, &piece)?;
        }
        let grads = Grads::new(&params)?;
        Ok(Shard { pieces, params, grads })
    }

    fn of(&self, bucket: usize) -> impl Iterator<Item = Piece> {
        self.pieces.iter().copied().filter(move |p| p.bucket == bucket)
    }

    /// Takes this rank's part of a bucket of sums.
    pub(super) fn take(&mut self, full: &Full) -> Result<()> {
        for p in self.pieces.iter().filter(|p| p.bucket == full.bucket) {
            if let Some(flat) = self.grads.flat_mut(p.segment) {
                flat.copy_from(p.own, &full.data.window(p.at, &[p.len])?)?;
            }
        }
        Ok(())
    }
}

/// The segment of the array of state of this name.
fn segment_of(name: &str) -> Result<usize> {
    let number = name.rsplit('.').next().and_then(|n| n.parse().ok());
    number.ok_or_else(|| Error::Usage(format!("the state `{name}` of the optimizer names no segment")))
}

impl Team {
    /// True where each rank updates a part of the weights.
    pub(super) fn is_sharded(&self) -> bool {
        self.sums.as_ref().is_some_and(|s| s.shard.is_some())
    }

    /// Where `config` has ranks keep the state of a part, and there are several, makes `whole` the optimizer of this rank's part,
    /// with the state that it had of it. Gives what people should know.
    pub(super) fn cut(
        &mut self,
        config: &Config,
        params: &Params,
        whole: &mut Box<dyn Optimizer>,
    ) -> Result<Option<String>> {
        if config.zero == 0 {
            return Ok(None);
        }
        let (Some(data), Some(sums)) = (self.data.as_ref().filter(|d| d.size() > 1), &mut self.sums) else {
            return Ok(Some(format!("zero = {}: one rank has all of the state, so it is off", config.zero)));
        };
        let shard = Shard::new(&sums.buckets, params, data.rank(), data.size())?;
        let mut own = super::optimizer(config, &shard.params)?;
        let (arrays, steps) = own.state_mut();
        *steps = whole.steps();
        for ((name, to), (_, from)) in arrays.into_iter().zip(whole.state()) {
            let segment = segment_of(&name)?;
            for p in shard.pieces.iter().filter(|p| p.segment == segment && from.len() > 0) {
                to.copy_from(p.own, &from.window(p.offset, &[p.len])?)?;
            }
        }
        own.numbers().copy_from_slice(whole.numbers());
        sums.shard = Some(shard);
        *whole = own;
        Ok(None)
    }

    /// Where ranks have parts, the optimizer of all weights with the state of all parts, on the first rank; None on the others,
    /// and where there are no parts. All call it.
    pub(super) fn whole(
        &self,
        config: &Config,
        params: &Params,
        own: &mut dyn Optimizer,
    ) -> Result<Option<Box<dyn Optimizer>>> {
        let (Some(data), Some(sums), true) = (&self.data, &self.sums, self.is_sharded()) else {
            return Ok(None);
        };
        let (me, size, segments) = (data.rank(), data.size(), params.segments().len());
        let mut mine = Vec::new();
        let (_, lens) = pieces(&sums.buckets, segments, me, size);
        for (name, t) in own.state().into_iter().filter(|(_, t)| t.len() > 0) {
            let own = t.window(0, &[lens[segment_of(&name)?]])?;
            mine.extend_from_slice(own.to_host()?.as_bytes()?);
        }
        let first = mine.clone();
        let others = self.patiently(move |c| collect(c, me, size, mine))?;
        if me > 0 {
            return Ok(None);
        }
        let mut whole = super::optimizer(config, params)?;
        let (mut arrays, steps) = whole.state_mut();
        *steps = own.steps();
        let each = params.dtype().size();
        for (rank, bytes) in std::iter::once(first).chain(others).enumerate() {
            let (pieces, lens) = pieces(&sums.buckets, segments, rank, size);
            let mut rest = &bytes[..];
            for (name, array) in arrays.iter_mut().filter(|(_, array)| array.len() > 0) {
                let segment = segment_of(name)?;
                let of_rank = rest.split_at_checked(lens[segment] * each);
                let (part, others) = of_rank.ok_or_else(|| {
                    Error::RanksDisagree(format!(
                        "rank {rank} has less of the state `{name}` than is its part"
                    ))
                })?;
                rest = others;
                for p in pieces.iter().filter(|p| p.segment == segment) {
                    array.write_bytes(p.offset * each, &part[p.own * each..][..p.len * each])?;
                }
            }
        }
        whole.numbers().copy_from_slice(own.numbers());
        Ok(Some(whole))
    }

    /// [`clip::by_global_norm`] of the sums over ranks, for weights like `params`, wherever their parts are: a part's squares are
    /// summed on its rank, and these sums in order of rank.
    pub(super) fn clip(&mut self, grads: &mut Grads, params: &Params, limit: f64) -> Result<f64> {
        let Some(Shard { grads: own, .. }) = self.sums.as_ref().and_then(|s| s.shard.as_ref()) else {
            return self.clip_model(grads, params, limit);
        };
        let flat = (0..own.segments().len()).filter_map(|i| own.flat(i));
        let squares = flat.map(clip::sum_of_squares_of).sum::<Result<f64>>()?;
        let norm = self.total(squares)?.sqrt();
        if let Some(Shard { grads: own, .. }) = self.sums.as_mut().and_then(|s| s.shard.as_mut())
            && limit > 0.0
            && norm.is_finite()
            && norm > limit
        {
            clip::scale(own, limit / norm)?;
        }
        Ok(norm)
    }

    /// The sum of what the ranks with parts have, in their order: the same bits on all.
    fn total(&self, mine: f64) -> Result<f64> {
        let Some(data) = &self.data else { return Ok(mine) };
        let size = data.size();
        let all = data.call(move |c| {
            let mut all = vec![0.0; size];
            c.all_gather(&[mine], &mut all).map(|()| all)
        })?;
        Ok(all.iter().sum())
    }

    /// The optimizer's step of this rank's part; then all ranks get all weights. Gives, if it is asked for, the slope over all
    /// parts.
    pub(super) fn advance(
        &mut self,
        optimizer: &mut dyn Optimizer,
        params: &mut Params,
        lr: f64,
        slope: bool,
    ) -> Result<Option<f64>> {
        let (Some(data), Some(sums)) = (&self.data, &mut self.sums) else { return Ok(None) };
        let Some(shard) = &mut sums.shard else { return Ok(None) };
        let (how, later) = (Step { slope, ..Step::new(lr) }, optimizer.steps() > 0);
        let along = optimizer.advance(&mut shard.params, &shard.grads, how)?;
        let mut on_the_way = Vec::new();
        for bucket in 0..sums.buckets.layout().count() {
            let mut full = sums.buckets.blank(bucket)?;
            for p in shard.of(bucket) {
                let own: Tensor = shard.params.segment(p.segment).window(p.own, &[p.len])?;
                full.data.copy_from(p.at, &own)?;
            }
            on_the_way.push(sent::gather(data, full));
        }
        let (from, mut events) = (Instant::now(), Vec::new());
        for one in on_the_way {
            let (full, sent, begun, ended) = one.wait()?;
            sums.traffic.sent += sent;
            let lane = Lane::Communication { bytes: full.data.spec().bytes() };
            events.push((lane, format!("all-gather bucket {}", full.bucket), begun, ended));
            sums.buckets.put(full, params)?;
        }
        self.idled(from);
        events.into_iter().for_each(|(lane, name, a, b)| self.note(lane, &name, a, b));
        // Also of ranks whose part is empty, and before the first update on none.
        if slope && later { self.total(along.unwrap_or_default()).map(Some) } else { Ok(None) }
    }
}
