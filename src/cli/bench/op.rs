//! An op's large samples, from its entry alone: forward, and backward after a forward that is not counted.

use super::Case;
use crate::device::Device;
use crate::error::Result;
use crate::ops::{Entry, PortKind, Sample};
use crate::shape::DType;
use crate::tape::{Grads, Op, Params, Tape, Var};
use crate::tensor::Tensor;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An op and its inputs.
struct Call {
    device: Device,
    op: Arc<dyn Op>,
    inputs: Vec<(Tensor, bool)>, // and whether it wants a gradient
}

pub(super) fn cases(entry: &'static Entry, device: &Device) -> Result<Vec<Case<'static>>> {
    let mut cases = Vec::new();
    for sample in (entry.samples)().iter().filter(|s| s.large) {
        cases.extend(both(entry, sample, device)?);
    }
    Ok(cases)
}

fn both(entry: &'static Entry, sample: &Sample, device: &Device) -> Result<Vec<Case<'static>>> {
    let call = Call::new(entry, sample, device)?;
    let outputs = call.forward()?;
    let bytes = |t: &Tensor| t.spec().bytes() as f64;
    let read: f64 = call.inputs.iter().map(|(t, _)| bytes(t)).sum();
    let wanted: f64 = call.inputs.iter().filter(|(_, w)| *w).map(|(t, _)| bytes(t)).sum();
    let made: f64 = outputs.iter().map(bytes).sum();
    // The larger side: a reduction's work is in what it reads.
    let in_elements: usize = call.inputs.iter().map(|(t, _)| t.len()).max().unwrap_or(0);
    let elements = outputs.iter().map(Tensor::len).sum::<usize>().max(in_elements) as f64;
    let differentiable = wanted > 0.0 && outputs.iter().any(|t| t.dtype().is_real());
    let mut cases = Vec::new();
    let call = Arc::new(call);
    let forward = call.clone();
    let case = Case::timed(entry.name, &format!("forward, {}", sample.note), move || {
        std::hint::black_box(forward.forward()?);
        Ok(())
    });
    cases.push(Case { elements, bytes: read + made, ..case });
    if differentiable {
        let seeds: Vec<Tensor> =
            outputs.iter().map(|t| Tensor::full(t.device(), t.spec(), 1.0)).collect::<Result<_>>()?;
        let case = Case::timed(entry.name, &format!("backward, {}", sample.note), || Ok(()));
        let run = Box::new(move || call.backward(&seeds));
        // At least: each dy is read and each dx written.
        cases.push(Case { elements, bytes: wanted + made, run, ..case });
    }
    Ok(cases)
}

impl Call {
    fn new(entry: &Entry, sample: &Sample, device: &Device) -> Result<Call> {
        let tensors = sample.tensors(device, DType::F32, 1)?;
        let inputs = tensors.into_iter().enumerate().map(|(i, t)| {
            let wants = entry.port(i).is_some_and(|p| p.kind == PortKind::Real);
            (t, wants)
        });
        Ok(Call { device: device.clone(), op: entry.build_with(&sample.attrs)?, inputs: inputs.collect() })
    }

    fn forward(&self) -> Result<Vec<Tensor>> {
        let params = Params::none(&self.device);
        let tape = Tape::eval(&params);
        let vars: Vec<Var<'_>> = self.inputs.iter().map(|(t, _)| tape.constant(t.clone())).collect();
        let y = tape.apply_arc(self.op.clone(), &vars.iter().collect::<Vec<_>>())?;
        let y = y.into_iter().map(Var::into_value).collect();
        self.device.synchronize()?;
        Ok(y)
    }

    /// Time of the backward sweep alone.
    fn backward(&self, seeds: &[Tensor]) -> Result<Duration> {
        let params = Params::none(&self.device);
        let tape = Tape::new(&params);
        let var = |(t, wants): &(Tensor, bool)| {
            if *wants { tape.leaf(t.clone()) } else { Ok(tape.constant(t.clone())) }
        };
        let vars: Vec<Var<'_>> = self.inputs.iter().map(var).collect::<Result<_>>()?;
        let y = tape.apply_arc(self.op.clone(), &vars.iter().collect::<Vec<_>>())?;
        let pairs = y.iter().zip(seeds).filter(|(v, _)| v.has_gradient());
        let pairs: Vec<(&Var<'_>, Tensor)> = pairs.map(|(v, s)| (v, s.clone())).collect();
        let mut grads = Grads::new(&params)?;
        self.device.synchronize()?;
        let start = Instant::now();
        let leaves = tape.backward_from(&pairs, &mut grads)?;
        self.device.synchronize()?;
        let time = start.elapsed();
        std::hint::black_box(leaves);
        Ok(time)
    }
}
