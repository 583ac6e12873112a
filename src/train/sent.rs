//! A bucket on its way to its sum over ranks: by the ring between devices, by a codec, or by messages of the host.

use super::buckets::Full;
use super::codecs::Coder;
use crate::comm::{DeviceRing, Group, Promise, Reduce};
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

/// Has the ranks of `data` sum a bucket, of which each gets its part alone where it is `scattered`.
pub(super) fn send(
    data: &Group,
    mut full: Full,
    coder: Option<&Coder>,
    by: Option<Ring>,
    scattered: bool,
) -> Sent {
    let coding = coder.map(|coder| coder.of(full.bucket));
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
                match coding {
                    Some(coding) => coding.all_reduce(c, &mut full.data)?,
                    None if scattered => c.all_reduce_part(full.data.as_mut_slice::<f32>()?, Reduce::Sum)?,
                    None => c.all_reduce(full.data.as_mut_slice::<f32>()?, Reduce::Sum)?,
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
