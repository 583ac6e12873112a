//! Gradients on their way to other ranks: packed into buckets while backward goes on, and summed.
//!
//! The last parameters of a model have their gradients first. So buckets hold parameters from the last to the first, and go
//! as soon as they are full, always in that order: every rank sends the same buckets in the same order, whatever its tape.
//! The first is small, so that there is something on the way early.
//!
//! Where a batch is cut into parts, each part fills all buckets, and those of the parts are summed as leaves of a binary tree:
//! the sum of parts 2i and 2i + 1, then of those, and so on, as a binary counter carries. Ranks go on from there in the same
//! way (recursive doubling, or [`Communicator::all_reduce_shards`](crate::comm::Communicator::all_reduce_shards) where their parts
//! are no whole subtree), so that the tree is that of all parts of the batch, however ranks share them.

use crate::comm::Climb;
use crate::device::Device;
use crate::error::Result;
use crate::kernel::basic::ADD_INTO;
use crate::kernel::{Arg, launch};
use crate::optim::clip;
use crate::shape::{DType, Spec};
use crate::tape::{Grads, Params, Role, Slot};
use crate::tensor::Tensor;
use std::ops::Range;

/// Bytes of the first bucket, at most.
const FIRST: usize = 1 << 20;

/// A parameter in its bucket.
#[derive(Clone, Copy)]
pub(super) struct Place {
    slot: Slot,
    /// First element in the bucket.
    pub(super) at: usize,
    pub(super) len: usize,
    /// Where it lies in the flat gradients, and in the weights.
    pub(super) segment: usize,
    pub(super) offset: usize,
}

struct Bucket {
    places: Vec<Place>,
    len: usize,
    /// What the part under way has brought so far.
    filling: Option<Tensor>,
    /// Parameters still to come.
    missing: usize,
    /// Sums of whole subtrees of shards.
    partial: Climb<Tensor>,
    /// Memory that is free.
    spare: Vec<Tensor>,
}

impl Bucket {
    /// Memory that is free.
    fn memory(&mut self, device: &Device) -> Result<Tensor> {
        let make = || Tensor::empty(device, Spec::new(DType::F32, &[self.len])?);
        self.spare.pop().map_or_else(make, Ok)
    }
}

/// A bucket that all parts have filled.
pub(super) struct Full {
    /// Its number.
    pub(super) bucket: usize,
    /// The gradients, f32: their sum over the parts, or over the last of several subtrees.
    pub(super) data: Tensor,
    /// The sums over the subtrees before.
    pub(super) below: Vec<Tensor>,
}

/// The buckets of a model.
pub(super) struct Buckets {
    /// Where their memory is.
    device: Device,
    buckets: Vec<Bucket>,
    /// Bucket and place in it, by slot.
    places: Vec<Option<(usize, usize)>>,
    /// Number of the first part among the shards of all ranks.
    first: usize,
    /// Parts of a batch.
    parts: usize,
    /// The part under way.
    part: usize,
    /// The bucket that goes next.
    next: usize,
    /// Of each part the sum of squares of its gradient.
    squares: Vec<f64>,
    /// The first parameter whose gradient was not finite.
    bad: Option<Slot>,
}

impl Buckets {
    /// Buckets of at most `bytes`, or of one parameter, for batches of `parts` parts; their memory is that of `device`.
    pub(super) fn new(params: &Params, bytes: usize, parts: usize, device: &Device) -> Buckets {
        let mut buckets: Vec<Bucket> = Vec::new();
        let mut places = vec![None; params.slots().len()];
        let trained = params.all().filter(|&s| params.info(s).role != Role::State);
        for slot in trained.collect::<Vec<_>>().into_iter().rev() {
            let info = params.info(slot);
            let (len, limit) = (info.shape.len(), if buckets.len() > 1 { bytes } else { bytes.min(FIRST) });
            if buckets.last().is_none_or(|b| (b.len + len) * size_of::<f32>() > limit) {
                let (filling, partial, spare) = (None, Climb::default(), vec![]);
                buckets.push(Bucket { places: vec![], len: 0, filling, missing: 0, partial, spare });
            }
            let last = buckets.len() - 1;
            let bucket = &mut buckets[last];
            places[slot.index()] = Some((last, bucket.places.len()));
            let (at, segment, offset) = (bucket.len, info.segment, info.offset);
            bucket.places.push(Place { slot, at, len, segment, offset });
            bucket.len += len;
        }
        let (device, squares) = (device.clone(), vec![0.0; parts]);
        Buckets { device, buckets, places, first: 0, parts, part: 0, next: 0, squares, bad: None }
    }

    /// From now on batches have as many parts, which are these shards of those of all ranks.
    pub(super) fn deal(&mut self, shards: Range<usize>) {
        (self.first, self.parts) = (shards.start, shards.len());
        self.squares = vec![0.0; self.parts];
    }

    /// The parameters of each bucket, in the order in which they lie there.
    pub(super) fn slots(&self) -> Vec<Vec<Slot>> {
        self.buckets.iter().map(|b| b.places.iter().map(|p| p.slot).collect()).collect()
    }

    /// Length and parameters of each bucket.
    pub(super) fn layout(&self) -> impl Iterator<Item = (usize, &[Place])> {
        self.buckets.iter().map(|b| (b.len, &b.places[..]))
    }

    /// Sums of squares of the parts' gradients.
    pub(super) fn squares(&self) -> &[f64] {
        &self.squares
    }

    /// The first parameter, on the way back, whose gradient was not finite.
    pub(super) fn bad(&self) -> Option<Slot> {
        self.bad
    }

    /// Part `part` begins to bring its gradients.
    pub(super) fn begin(&mut self, part: usize) -> Result<()> {
        (self.part, self.next, self.squares[part]) = (part, 0, 0.0);
        if part == 0 {
            self.bad = None;
        }
        for bucket in &mut self.buckets {
            if part == 0 {
                // Left over from a step that failed.
                bucket.partial.take();
            }
            bucket.missing = bucket.places.len();
            if bucket.filling.is_none() {
                bucket.filling = Some(bucket.memory(&self.device)?);
            }
        }
        Ok(())
    }

    /// Bucket `i` with nothing of use in it.
    pub(super) fn blank(&mut self, i: usize) -> Result<Full> {
        Ok(Full { bucket: i, data: self.buckets[i].memory(&self.device)?, below: vec![] })
    }

    /// The gradient of `slot` in this part is `g`, None for zero. Gives the buckets that it completes, of the last part only.
    pub(super) fn take(&mut self, slot: Slot, g: Option<&Tensor>) -> Result<Vec<Full>> {
        let Some((bucket, at)) = self.places[slot.index()] else { return Ok(vec![]) };
        let bucket = &mut self.buckets[bucket];
        let place = bucket.places[at];
        let Some(filling) = &mut bucket.filling else { return Ok(vec![]) };
        match g {
            Some(g) => filling.copy_from(place.at, g)?,
            None => filling
                .copy_from(place.at, &Tensor::zeros(&self.device, Spec::new(DType::F32, &[place.len])?)?)?,
        }
        // ANCHOR: full
        bucket.missing -= 1;
        let mut full = Vec::new();
        while self.buckets.get(self.next).is_some_and(|b| b.missing == 0) {
            full.extend(self.fill(self.next)?);
            self.next += 1;
        }
        // ANCHOR_END: full
        Ok(full)
    }

    /// Bucket `i` is full of this part: adds it to those before.
    fn fill(&mut self, i: usize) -> Result<Option<Full>> {
        let bucket = &mut self.buckets[i];
        let Some(data) = bucket.filling.take() else { return Ok(None) };
        let squares = clip::sum_of_squares_of(&data)?;
        self.squares[self.part] += squares;
        if !squares.is_finite() && self.bad.is_none() {
            let host = data.to_host()?;
            let all = host.as_slice::<f32>()?;
            let is_bad = |p: &&Place| all[p.at..p.at + p.len].iter().any(|x| !x.is_finite());
            self.bad = bucket.places.iter().find(is_bad).map(|p| p.slot);
        }
        let Bucket { partial, spare, .. } = bucket;
        partial.push(self.first + self.part, data, |before, mut data| {
            launch(&ADD_INTO, &mut [Arg::In(&before), Arg::Out(&mut data)])?;
            spare.push(before);
            Ok(data)
        })?;
        if self.part + 1 < self.parts {
            return Ok(None);
        }
        let mut below = partial.take();
        Ok(below.pop().map(|data| Full { bucket: i, data, below }))
    }

    /// Puts the sum over all ranks into the flat gradients.
    pub(super) fn store(&mut self, full: Full, grads: &mut Grads) -> Result<()> {
        for p in &self.buckets[full.bucket].places {
            if let Some(flat) = grads.flat_mut(p.segment) {
                flat.copy_from(p.offset, &full.data.window(p.at, &[p.len])?)?;
            }
        }
        self.free(full);
        Ok(())
    }

    /// Puts a bucket of weights where they belong.
    pub(super) fn put(&mut self, full: Full, params: &mut Params) -> Result<()> {
        for p in &self.buckets[full.bucket].places {
            params.segment_mut(p.segment).copy_from(p.offset, &full.data.window(p.at, &[p.len])?)?;
        }
        self.free(full);
        Ok(())
    }

    /// The memory of a bucket may be used again.
    pub(super) fn free(&mut self, full: Full) {
        let spare = &mut self.buckets[full.bucket].spare;
        spare.push(full.data);
        spare.extend(full.below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{Init, ParamsBuilder};

    fn params(lens: &[usize]) -> Params {
        let mut b = ParamsBuilder::new(&Device::new_cpu(), DType::F32, 1);
        for (i, n) in lens.iter().enumerate() {
            let role = if i % 2 == 0 { Role::Decay } else { Role::Plain };
            b.add(format!("p{i}"), &[*n], Init::Constant(0.0), role).unwrap();
        }
        b.add("state", &[3], Init::Constant(0.0), Role::State).unwrap();
        b.build().unwrap()
    }

    fn bring(b: &mut Buckets, params: &Params, slot: usize, value: impl Fn(usize) -> f32) -> Vec<usize> {
        let slot = params.all().nth(slot).unwrap();
        let values: Vec<f32> = (0..params.info(slot).shape.len()).map(value).collect();
        let g = Tensor::from_slice(params.device(), &values, &[values.len()]).unwrap();
        b.take(slot, Some(&g)).unwrap().iter().map(|f| f.bucket).collect()
    }

    #[test]
    fn buckets_go_from_the_last_parameter_to_the_first_and_always_in_order() {
        let params = params(&[10, 20, 30, 40]);
        let mut b = Buckets::new(&params, 50 * 4, 1, params.device());
        let held: Vec<usize> = b.buckets.iter().map(|b| b.len).collect();
        assert_eq!(held, [40, 50, 10]);
        for order in [[3, 2, 1, 0], [0, 1, 2, 3]] {
            b.begin(0).unwrap();
            let gone: Vec<Vec<usize>> = order.iter().map(|&s| bring(&mut b, &params, s, |_| 1.0)).collect();
            let all: Vec<usize> = gone.iter().flatten().copied().collect();
            assert_eq!(all, [0, 1, 2]);
            assert_eq!(gone[0].len(), usize::from(order[0] == 3), "{gone:?}");
        }
        assert_eq!(b.squares(), [100.0]);
    }

    #[test]
    fn parts_are_summed_as_a_tree_and_come_back_into_the_gradients() {
        let params = params(&[5, 3]);
        // Each sum rounds: another order gives other bits.
        let value = |part: usize, i: usize| 1.0 / (3.0 + part as f32 * 7.3 + i as f32);
        let mut grads = Grads::new(&params).unwrap();
        let mut b = Buckets::new(&params, 1 << 20, 4, params.device());
        for _ in 0..2 {
            let mut full = Vec::new();
            for part in 0..4 {
                b.begin(part).unwrap();
                for slot in [1, 0] {
                    let s = params.all().nth(slot).unwrap();
                    let values: Vec<f32> = (0..params.info(s).shape.len()).map(|i| value(part, i)).collect();
                    let g = Tensor::from_slice(params.device(), &values, &[values.len()]).unwrap();
                    full.extend(b.take(s, Some(&g)).unwrap());
                }
                assert_eq!(full.len(), usize::from(part == 3));
            }
            full.into_iter().for_each(|f| b.store(f, &mut grads).unwrap());
            for i in 0..5 {
                let tree = (value(0, i) + value(1, i)) + (value(2, i) + value(3, i));
                assert_eq!(grads.segment::<f32>(0).unwrap()[i], tree);
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let params = params(&[4, 4, 4]);
        let mut b = Buckets::new(&params, 1 << 20, 1, params.device());
        b.begin(0).unwrap();
        for slot in [2, 1, 0] {
            bring(&mut b, &params, slot, |i| if slot == 1 && i == 2 { f32::NAN } else { 1.0 });
        }
        assert_eq!(b.bad().map(|s| params.info(s).name.as_str()), Some("p1"));
        b.begin(0).unwrap();
        assert!(b.bad().is_none());
    }
}
