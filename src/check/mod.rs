//! The examiner: from an op's [`Entry`] alone it checks that the op is right. Ops of other crates take the same exams.
//!
//! | file | exam |
//! |---|---|
//! | `gradient.rs` | f64 gradients against central differences, to 1e-6 |
//! | `precision.rs` | f32 against f64, forward and gradient |
//! | `parity.rs` | a device that runs PTX against the CPU, with the checks of the software device on |
//! | `ptx.rs` | kernels from PTX files against what a manifest expects |
//! | `manifest.rs` | what a manifest says of a launch |
//! | `contract.rs` | errors name the op, backward adds, unwanted inputs cost nothing, evaluation keeps nothing, same bits twice |

mod contract;
mod gradient;
mod manifest;
mod parity;
mod precision;
pub mod ptx;
mod watched;

use crate::device::Device;
use crate::error::Result;
use crate::kernel::gemm::Precision;
use crate::ops::{Entry, PortKind, Sample};
use crate::rng::Key;
use crate::shape::DType;
use crate::tape::{Grads, Op, Params, Tape, Var};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Outcome of one exam on one sample.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verdict {
    /// Name of the op.
    pub op: &'static str,
    /// Which exam.
    pub exam: &'static str,
    /// Which sample.
    pub sample: &'static str,
    /// Largest error seen, in the exam's own measure.
    pub error: f64,
    /// What failed; None when passed.
    pub failure: Option<String>,
}

/// Runs the parity exam on every small sample of `entry`, on `device`.
pub fn on_device(entry: &'static Entry, device: &Device) -> Vec<Verdict> {
    let samples = (entry.samples)();
    let one = |sample: &Sample| verdict(entry, "parity", sample.note, parity::exam(entry, sample, device));
    samples.iter().filter(|s| !s.large).map(one).collect()
}

fn verdict(entry: &Entry, exam: &'static str, sample: &'static str, result: Result<f64>) -> Verdict {
    let (error, failure) = match result {
        Ok(error) => (error, None),
        Err(e) => (f64::NAN, Some(e.to_string())),
    };
    Verdict { op: entry.name, exam, sample, error, failure }
}

/// Runs every exam of the CPU on every small sample of `entry`.
pub fn all(entry: &'static Entry) -> Vec<Verdict> {
    let exams: [(&'static str, Exam); 3] =
        [("gradient", gradient::exam), ("precision", precision::exam), ("contract", contract::exam)];
    let mut verdicts = Vec::new();
    for sample in (entry.samples)().iter().filter(|s| !s.large) {
        for (name, exam) in exams {
            verdicts.push(verdict(entry, name, sample.note, exam(entry, sample)));
        }
    }
    verdicts
}

type Exam = fn(&'static Entry, &Sample) -> Result<f64>;

/// Seed of all samples: exams are deterministic.
const SEED: u64 = 7;

fn failed<R>(what: String) -> Result<R> {
    Err(crate::error::Error::Differs(what))
}

/// One op with one set of inputs, ready to be run.
struct Case {
    op: Arc<dyn Op>,
    inputs: Vec<Tensor>,
    /// Which inputs carry a gradient.
    real: Vec<bool>,
    device: Device,
    precision: Precision,
}

/// Output values and, for each input that wants one, the gradient of Σ ⟨weights, outputs⟩.
struct Outcome {
    outputs: Vec<Tensor>,
    grads: Vec<Option<Tensor>>,
}

impl Case {
    fn new(entry: &Entry, sample: &Sample, dtype: DType) -> Result<Case> {
        Case::new_on(entry, sample, dtype, &Device::cpu())
    }

    fn new_on(entry: &Entry, sample: &Sample, dtype: DType, device: &Device) -> Result<Case> {
        let op = entry.build_with(&sample.attrs)?;
        let inputs = sample.tensors(device, dtype, SEED)?;
        let real =
            (0..inputs.len()).map(|i| entry.port(i).is_some_and(|p| p.kind == PortKind::Real)).collect();
        Ok(Case { op, inputs, real, device: device.clone(), precision: Precision::F32 })
    }

    /// Runs forward without recording.
    fn forward(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let params = Params::none(&self.device);
        let tape = Tape::eval(&params);
        let vars: Vec<Var<'_>> = inputs.iter().map(|t| tape.constant(t.clone())).collect();
        let y = tape.apply_arc(self.op.clone(), &vars.iter().collect::<Vec<_>>())?;
        Ok(y.into_iter().map(Var::into_value).collect())
    }

    /// Runs forward and backward `times` over the same leaves, with gradients for the inputs marked in `wanted`.
    fn run(&self, wanted: &[bool], times: usize) -> Result<Outcome> {
        let params = Params::none(&self.device);
        let tape = Tape::new(&params).with_precision(self.precision);
        let leaf =
            |(t, w): (&Tensor, &bool)| if *w { tape.leaf(t.clone()) } else { Ok(tape.constant(t.clone())) };
        let vars: Vec<Var<'_>> = self.inputs.iter().zip(wanted).map(leaf).collect::<Result<_>>()?;
        let refs: Vec<&Var<'_>> = vars.iter().collect();
        let mut outputs = Vec::new();
        for _ in 0..times {
            outputs.push(tape.apply_arc(self.op.clone(), &refs)?);
        }
        let mut seeds = Vec::new();
        for y in &outputs {
            for (i, v) in y.iter().enumerate().filter(|(_, v)| v.has_gradient()) {
                seeds.push((v, weights(v.value(), i)?));
            }
        }
        let grads = if seeds.is_empty() {
            vec![None; vars.len()]
        } else {
            let leaves = tape.backward_from(&seeds, &mut Grads::new(&params)?)?;
            vars.iter().map(|v| leaves.get(v).cloned()).collect()
        };
        let outputs = outputs.swap_remove(0).iter().map(|v| v.value().clone()).collect();
        Ok(Outcome { outputs, grads })
    }
}

/// Random weights for the projection of output `i`, the same for f32 and f64.
fn weights(y: &Tensor, i: usize) -> Result<Tensor> {
    let mut rng = Key::new(SEED, 1000 + i as u64).rng();
    let v: Vec<f64> = (0..y.len()).map(|_| rng.normal() as f32 as f64).collect();
    Tensor::from_f64(y.device(), y.dtype(), &v, y.dims())
}

/// Largest |a − b| / max(1, largest |b|); NaN matches NaN and an infinity the same infinity.
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (a.to_f64()?, b.to_f64()?);
    let scale = b.iter().filter(|x| x.is_finite()).fold(1.0f64, |m, x| m.max(x.abs()));
    let off = |(x, y): (&f64, &f64)| {
        if x == y || (x.is_nan() && y.is_nan()) {
            0.0
        } else if x.is_finite() && y.is_finite() {
            (x - y).abs() / scale
        } else {
            f64::INFINITY
        }
    };
    Ok(a.iter().zip(&b).map(off).fold(0.0, f64::max))
}
