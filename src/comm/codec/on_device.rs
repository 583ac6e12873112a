//! [`TwoPhase`] of numbers on a device: they are made small there, so that only bytes come to the host, which sends them. Bits are
//! those of the host's way.

use super::two_phase::{Quantiser, TwoPhase};
use super::{Param, memory::Memory};
use crate::comm::Communicator;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::basic::{ADD_INTO, SCALE};
use crate::kernel::{Arg, Kernel, launch};
use crate::shape::{DType, Spec};
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::ops::Range;

/// What a quantiser does on a device.
#[derive(Clone, Copy)]
pub struct OnDevice {
    /// bytes from x.
    pub encode: &'static Kernel,
    /// x from bytes.
    pub decode: &'static Kernel,
    /// Numbers of a chunk, which both take where there are chunks.
    pub chunk: Option<usize>,
}

impl OnDevice {
    fn run(&self, kernel: &Kernel, from: &Tensor, to: &mut Tensor) -> Result<()> {
        match self.chunk {
            Some(chunk) => launch(kernel, &mut [Arg::In(from), Arg::Out(to), Arg::Size(chunk)]),
            None => launch(kernel, &mut [Arg::In(from), Arg::Out(to)]),
        }
    }

    /// `x` as `bytes` bytes.
    fn encode(&self, x: &Tensor, bytes: usize) -> Result<Tensor> {
        let mut to = Tensor::empty(x.device(), Spec::new(DType::U8, &[bytes])?)?;
        self.run(self.encode, x, &mut to)?;
        Ok(to)
    }

    /// `n` numbers from bytes.
    fn decode(&self, bytes: &Tensor, n: usize) -> Result<Tensor> {
        let mut to = Tensor::empty(bytes.device(), Spec::new(DType::F32, &[n])?)?;
        self.run(self.decode, bytes, &mut to)?;
        Ok(to)
    }
}

/// What steps lost, on a device: one array for all parameters that are summed together, by the name of the first.
#[derive(Default)]
pub(super) struct There(BTreeMap<String, (Vec<Param>, Tensor)>);

impl There {
    /// What was lost of `params`, at first what `here` knows of it.
    fn of(&mut self, params: &[Param], here: &mut Memory, device: &Device) -> Result<&mut Tensor> {
        let Some(first) = params.first() else { return Err(Error::shape("codec", "no parameters")) };
        if !self.0.contains_key(&first.name) {
            let all: Vec<f32> = params.iter().flat_map(|p| here.of(p).to_vec()).collect();
            let lost = Tensor::from_slice(device, &all, &[all.len()])?;
            self.0.insert(first.name.clone(), (params.to_vec(), lost));
        }
        self.0.get_mut(&first.name).map(|(_, lost)| lost).ok_or_else(|| Error::shape("codec", "no memory"))
    }

    /// Brings what is kept here to `here`.
    pub(super) fn tell(&self, here: &mut Memory) -> Result<()> {
        for (params, lost) in self.0.values() {
            let lost = lost.to_host()?;
            let lost = lost.as_slice::<f32>()?;
            params.iter().for_each(|p| here.of(p).copy_from_slice(&lost[p.range()]));
        }
        Ok(())
    }
}

/// a − b.
fn difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut d = a.deep_clone()?;
    // −1 times a number is exact, so this rounds once, as a − b does.
    launch(&SCALE, &mut [Arg::In(b), Arg::Out(&mut d), Arg::Real(-1.0), Arg::Flag(true)])?;
    Ok(d)
}

impl<Q: Quantiser> TwoPhase<Q> {
    /// [`Codec::sum`](super::Codec::sum) of `x` on a device.
    pub(super) fn sum_there(
        &mut self,
        by: OnDevice,
        world: &mut Communicator,
        params: &[Param],
        x: &mut Tensor,
    ) -> Result<()> {
        let (p, me, n, device) = (world.size(), world.rank(), x.len(), x.device().clone());
        let TwoPhase { quantiser, error, there, .. } = self;
        let mut lost = error.as_mut().map(|here| there.of(params, here, &device)).transpose()?;
        if let Some(lost) = &lost {
            launch(&ADD_INTO, &mut [Arg::In(lost), Arg::Out(x)])?;
        }
        let each = n.div_ceil(p);
        let part = |rank: usize| -> Range<usize> { (rank * each).min(n)..((rank + 1) * each).min(n) };
        let block = quantiser.bytes(each);
        let bytes = |rank: usize| quantiser.bytes(part(rank).len());
        let piece = |x: &Tensor, rank: usize| x.window(part(rank).start, &[part(rank).len()]);
        let (mut out, mut into) = (vec![0u8; p * block], vec![0u8; p * block]);
        for rank in (0..p).filter(|&rank| rank != me && !part(rank).is_empty()) {
            let x = piece(x, rank)?;
            let sent = by.encode(&x, bytes(rank))?;
            out[rank * block..][..bytes(rank)].copy_from_slice(sent.to_host()?.as_bytes()?);
            if let Some(lost) = &mut lost {
                lost.copy_from(part(rank).start, &difference(&x, &by.decode(&sent, x.len())?)?)?;
            }
        }
        world.all_to_all(&out, &mut into)?;

        let own = part(me);
        if !own.is_empty() {
            let mut sum = Tensor::zeros(&device, Spec::new(DType::F32, &[own.len()])?)?;
            for rank in 0..p {
                let of = match rank == me {
                    true => piece(x, me)?,
                    false => {
                        let bytes =
                            Tensor::from_slice(&device, &into[rank * block..][..bytes(me)], &[bytes(me)])?;
                        by.decode(&bytes, own.len())?
                    }
                };
                launch(&ADD_INTO, &mut [Arg::In(&of), Arg::Out(&mut sum)])?;
            }
            let sent = by.encode(&sum, bytes(me))?;
            out[me * block..][..bytes(me)].copy_from_slice(sent.to_host()?.as_bytes()?);
            if let Some(lost) = &mut lost {
                lost.copy_from(own.start, &difference(&sum, &by.decode(&sent, own.len())?)?)?;
            }
        }
        world.all_gather(&out[me * block..][..block], &mut into)?;
        for rank in (0..p).filter(|&rank| !part(rank).is_empty()) {
            let bytes = Tensor::from_slice(&device, &into[rank * block..][..bytes(rank)], &[bytes(rank)])?;
            x.copy_from(part(rank).start, &by.decode(&bytes, part(rank).len())?)?;
        }
        Ok(())
    }
}
