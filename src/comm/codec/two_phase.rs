//! [`TwoPhase`]: all-reduce of numbers that are made small for the way. Each rank owns a p-th of the elements.
//!
//! ```text
//! quantise every part but one's own  →  all-to-all  →  the owner adds up its part in f32, in order of rank
//!                                    →  quantise the sum  →  all-gather
//! ```
//!
//! So an element is quantised at most twice, however many ranks there are. A ring that passes on quantised sums would do it at every
//! hop: its error grows as √p, while here, with q the relative error of one rounding and independent gradients, it is
//! q·√((p−1)/p + 1), which stays below √2·q.
//!
//! Both errors are fed back: the first by the rank that sent, the second by the owner. The owner's own part is not sent, hence exact,
//! so that one memory holds both: of its own part what the sum lost, of the others what it did not send.

use super::memory::{self, Memory};
use super::on_device::{OnDevice, There};
use super::{Codec, Param};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::ops::Range;

/// How numbers become bytes.
pub trait Quantiser: Send {
    /// Bytes of `n` numbers.
    fn bytes(&self, n: usize) -> usize;
    /// `x` as bytes. A NaN or an infinity is one, or makes others such, when it is read again.
    fn encode(&self, x: &[f32], bytes: &mut [u8]);
    /// Back from bytes.
    fn decode(&self, bytes: &[u8], x: &mut [f32]);
    /// The same on a device, to the same bits; None where there are no kernels for it.
    fn on_device(&self) -> Option<OnDevice> {
        None
    }
}

/// A codec by quantising, with error feedback or without.
pub struct TwoPhase<Q> {
    pub(super) quantiser: Q,
    pub(super) error: Option<Memory>,
    pub(super) there: There,
    work: Work,
}

/// Memory of a sum under way. It is kept, as taking large pieces from the system anew for each costs more than what is done in them.
#[derive(Default)]
struct Work {
    out: Vec<u8>,
    into: Vec<u8>,
    numbers: Vec<f32>,
    sum: Vec<f32>,
}

impl<Q: Quantiser> TwoPhase<Q> {
    /// A codec by `quantiser`.
    pub fn new(quantiser: Q, feedback: bool) -> TwoPhase<Q> {
        let error = feedback.then(|| Memory::new("error"));
        TwoPhase { quantiser, error, there: There::default(), work: Work::default() }
    }
}

/// Adds to `x` what earlier steps lost.
fn recall(error: &mut Option<Memory>, params: &[Param], x: &mut [f32]) {
    let Some(error) = error else { return };
    for param in params {
        x[param.range()].iter_mut().zip(error.of(param)).for_each(|(x, e)| *x += *e);
    }
}

/// Remembers what this step lost.
fn remember(error: &mut Option<Memory>, params: &[Param], lost: &[f32]) {
    let Some(error) = error else { return };
    params.iter().for_each(|param| error.of(param).copy_from_slice(&lost[param.range()]));
}

impl<Q: Quantiser> Codec for TwoPhase<Q> {
    fn sum(&mut self, world: &mut Communicator, params: &[Param], x: &mut [f32]) -> Result<()> {
        let (p, me, n) = (world.size(), world.rank(), x.len());
        let TwoPhase { quantiser, error, work: Work { out, into, numbers, sum }, .. } = self;
        recall(error, params, x);
        // All blocks are as long, as all_to_all wants them; the last parts may be shorter, or empty.
        let each = n.div_ceil(p);
        let part = |rank: usize| -> Range<usize> { (rank * each).min(n)..((rank + 1) * each).min(n) };
        let block = quantiser.bytes(each);
        let bytes = |rank: usize| rank * block..rank * block + quantiser.bytes(part(rank).len());
        let own = part(me);
        out.resize(p * block, 0);
        into.resize(p * block, 0);
        numbers.resize(each, 0.0);
        // ANCHOR: sent
        for rank in (0..p).filter(|&rank| rank != me) {
            let (x, sent) = (&mut x[part(rank)], &mut numbers[..part(rank).len()]);
            quantiser.encode(x, &mut out[bytes(rank)]);
            if error.is_some() {
                quantiser.decode(&out[bytes(rank)], sent);
                x.iter_mut().zip(sent).for_each(|(x, sent)| *x -= *sent);
            }
        }
        world.all_to_all(out, into)?;
        // ANCHOR_END: sent

        sum.clear();
        sum.resize(own.len(), 0.0);
        let numbers = &mut numbers[..own.len()];
        let mine = 0..quantiser.bytes(own.len());
        for rank in 0..p {
            if rank == me {
                numbers.copy_from_slice(&x[own.clone()]);
            } else {
                quantiser.decode(&into[rank * block..][mine.clone()], numbers);
            }
            sum.iter_mut().zip(&*numbers).for_each(|(sum, x)| *sum += x);
        }
        quantiser.encode(sum, &mut out[bytes(me)]);
        quantiser.decode(&out[bytes(me)], numbers);
        let lost = sum.iter().zip(numbers).map(|(sum, sent)| sum - *sent);
        x[own].iter_mut().zip(lost).for_each(|(x, lost)| *x = lost);
        world.all_gather(&out[me * block..][..block], into)?;
        remember(error, params, x);

        for rank in 0..p {
            quantiser.decode(&into[bytes(rank)], &mut x[part(rank)]);
        }
        Ok(())
    }

    fn works_on_devices(&self) -> bool {
        self.quantiser.on_device().is_some()
    }

    fn sum_on_device(&mut self, world: &mut Communicator, params: &[Param], x: &mut Tensor) -> Result<()> {
        match self.quantiser.on_device() {
            Some(by) => self.sum_there(by, world, params, x),
            None => Err(Error::Usage("this codec has no kernels for devices".into())),
        }
    }

    fn state(&mut self) -> Result<Vec<(String, Vec<f32>)>> {
        let Some(error) = &mut self.error else { return Ok(vec![]) };
        self.there.tell(error)?;
        Ok(error.state().collect())
    }

    fn restore(&mut self, params: &[Param], state: Vec<(String, Vec<f32>)>) -> Result<()> {
        self.there = There::default();
        let len = |p: &Param| p.range().len();
        let mut memories: Vec<_> = self.error.iter_mut().map(|e| (e, &len as memory::Extent<'_>)).collect();
        memory::restore(&mut memories, params, state)
    }
}
