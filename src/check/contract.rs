//! Contract exam: what every op owes to the tape and to its users.

use super::{Case, distance, failed};
use crate::device::Device;
use crate::error::Result;
use crate::ops::{Entry, Sample};
use crate::shape::{DType, Spec};
use crate::tape::{Params, Tape, Var};
use crate::tensor::Tensor;

pub(super) fn exam(entry: &'static Entry, sample: &Sample) -> Result<f64> {
    let case = Case::new(entry, sample, DType::F64)?;
    documented(entry, &case)?;
    wrong_types(entry, &case)?;
    wrong_shapes(entry, &case)?;
    evaluation_keeps_nothing(&case)?;
    same_bits_twice(&case)?;
    unwanted_inputs(entry, &case)?;
    backward_adds(entry, &case)
}

/// The number of inputs and outputs is what the entry says, and the op's name is the entry's.
fn documented(entry: &Entry, case: &Case) -> Result<()> {
    let least = entry.inputs.iter().filter(|p| !p.optional).count();
    if case.inputs.len() < least || entry.port(case.inputs.len().saturating_sub(1)).is_none() {
        return failed(format!(
            "sample has {} inputs, entry documents {}",
            case.inputs.len(),
            entry.inputs.len()
        ));
    }
    let outputs = case.forward(&case.inputs)?.len();
    if outputs != entry.outputs.len() && entry.outputs != ["outputs"] {
        return failed(format!("{outputs} outputs, entry documents {}", entry.outputs.len()));
    }
    if case.op.name() != entry.name {
        return failed(format!("op calls itself `{}`, its entry `{}`", case.op.name(), entry.name));
    }
    Ok(())
}

/// An input of a foreign element type, or one input too few or too many, is an error of `infer` that names the op.
fn wrong_types(entry: &Entry, case: &Case) -> Result<()> {
    let specs: Vec<Spec> = case.inputs.iter().map(Tensor::spec).collect();
    for i in 0..specs.len() {
        let mut bad = specs.clone();
        bad[i].dtype = DType::Bf16; // a storage type: no op computes on it
        refuse(entry, case, &bad, &format!("input {} of type bf16", entry.input_name(i)))?;
    }
    refuse(entry, case, &[], "no input at all")?;
    let many: Vec<Spec> = std::iter::repeat_n(specs[0], entry.inputs.len() + 1).collect();
    if entry.inputs.last().is_some_and(|p| !p.variadic) {
        refuse(entry, case, &many, "one input too many")?;
    }
    Ok(())
}

fn refuse(entry: &Entry, case: &Case, specs: &[Spec], what: &str) -> Result<()> {
    match case.op.infer(specs) {
        Ok(_) => failed(format!("infer accepts {what}")),
        Err(e) if e.to_string().contains(entry.name) => Ok(()),
        Err(e) => failed(format!("the error for {what} does not name the op: {e}")),
    }
}

/// An input of another shape is either right (then forward runs and keeps infer's word) or an error of `infer` that names
/// the op and a shape.
fn wrong_shapes(entry: &Entry, case: &Case) -> Result<()> {
    for i in 0..case.inputs.len() {
        for dims in [&[][..], &[13], &[11, 13], &[7, 11, 13], &[2, 7, 11, 13]] {
            let mut specs: Vec<Spec> = case.inputs.iter().map(Tensor::spec).collect();
            specs[i] = Spec::new(specs[i].dtype, dims)?;
            match case.op.infer(&specs) {
                Err(e) => {
                    let text = e.to_string();
                    if !text.contains(entry.name) || !text.contains('[') {
                        return failed(format!(
                            "the error for shape {dims:?} does not name op and shape: {text}"
                        ));
                    }
                }
                Ok(_) => {
                    let mut inputs = case.inputs.clone();
                    inputs[i] = Tensor::zeros(&Device::cpu(), specs[i])?;
                    case.forward(&inputs)?; // apply compares what comes out with infer's promise
                }
            }
        }
    }
    Ok(())
}

fn evaluation_keeps_nothing(case: &Case) -> Result<()> {
    let params = Params::none(&Device::cpu());
    let tape = Tape::eval(&params);
    let vars: Vec<Var<'_>> = case.inputs.iter().map(|t| tape.constant(t.clone())).collect();
    tape.apply_arc(case.op.clone(), &vars.iter().collect::<Vec<_>>())?;
    if tape.is_empty() { Ok(()) } else { failed("an evaluation tape recorded a node".into()) }
}

fn same_bits_twice(case: &Case) -> Result<()> {
    let (a, b) = (case.run(&case.real, 1)?, case.run(&case.real, 1)?);
    let same = |x: &Tensor, y: &Tensor| x.as_bytes().ok() == y.as_bytes().ok();
    let outputs = a.outputs.iter().zip(&b.outputs).all(|(x, y)| same(x, y));
    let grads =
        a.grads.iter().zip(&b.grads).all(|(x, y)| x.as_ref().zip(y.as_ref()).is_none_or(|(x, y)| same(x, y)));
    if outputs && grads { Ok(()) } else { failed("two runs on the same inputs differ in bits".into()) }
}

/// Asking for one gradient alone gives the same as asking for all, and inputs stay as they were.
fn unwanted_inputs(entry: &Entry, case: &Case) -> Result<()> {
    let bytes = |t: &Tensor| t.as_bytes().map(<[u8]>::to_vec);
    let before: Vec<Vec<u8>> = case.inputs.iter().map(bytes).collect::<Result<_>>()?;
    let full = case.run(&case.real, 1)?;
    for i in (0..case.inputs.len()).filter(|&i| case.real[i]) {
        let wanted: Vec<bool> = (0..case.inputs.len()).map(|j| j == i).collect();
        let alone = case.run(&wanted, 1)?;
        let (Some(a), Some(b)) = (&alone.grads[i], &full.grads[i]) else { continue };
        if distance(a, b)? > 1e-12 {
            return failed(format!("d{} alone differs from d{0} among all", entry.input_name(i)));
        }
    }
    let untouched = case.inputs.iter().zip(before).all(|(t, b)| bytes(t).is_ok_and(|now| now == b));
    if untouched { Ok(()) } else { failed("an input was changed".into()) }
}

/// Two uses of the same leaves give twice the gradient: backward adds, and never overwrites.
fn backward_adds(entry: &Entry, case: &Case) -> Result<f64> {
    let (once, twice) = (case.run(&case.real, 1)?, case.run(&case.real, 2)?);
    let mut worst = 0.0f64;
    for (i, (a, b)) in once.grads.iter().zip(&twice.grads).enumerate() {
        let (Some(a), Some(b)) = (a, b) else { continue };
        let double: Vec<f64> = a.to_f64()?.iter().map(|x| 2.0 * x).collect();
        let e = distance(b, &Tensor::from_f64(a.device(), a.dtype(), &double, a.dims())?)?;
        if e > 1e-12 {
            return failed(format!(
                "two uses do not give twice the gradient of {} (off by {e:.1e})",
                entry.input_name(i)
            ));
        }
        worst = worst.max(e);
    }
    Ok(worst)
}
