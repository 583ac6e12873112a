//! Figure of the chapter on the tape: what a real one says of the way back through a small network.

use super::Figures;
use crate::device::Device;
use crate::error::Result;
use crate::shape::DType;
use crate::tape::{Params, Tape};
use crate::tensor::Tensor;

pub(super) fn figures() -> Result<Figures> {
    Ok(Figures::from([("tape_path.txt".into(), format!("{}\n{}", arrives()?, lost()?))]))
}

fn number(v: f64) -> Result<Tensor> {
    Tensor::from_f64(&Device::cpu(), DType::F64, &[v], &[])
}

/// The network of the chapter: h = tanh(w·x), y = h + h·x.
fn arrives() -> Result<String> {
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let (w, x) = (tape.leaf(number(0.5)?)?, tape.leaf(number(2.0)?)?);
    let h = w.mul(&x)?.tanh()?;
    let y = h.add(&h.mul(&x)?)?;
    Ok(tape.explain(&y, &w)?.to_string())
}

/// The same with relu for tanh, and a w that puts it to rest.
fn lost() -> Result<String> {
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let (w, x) = (tape.leaf(number(-0.5)?)?, tape.leaf(number(2.0)?)?);
    let h = w.mul(&x)?.relu()?;
    let y = h.add(&h.mul(&x)?)?;
    Ok(tape.explain(&y, &w)?.to_string())
}
