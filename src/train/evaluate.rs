//! Judging a model on the held-out split, and the n-gram opponents on the same split.

use super::{Task, Team, ngram};
use crate::data::IGNORE;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::attention::inspect::HeadReport;
use crate::nn::{Census, DeadUnits, Io, LayerActivity, Model};
use crate::shape::DType;
use crate::tape::{Params, Tape, Var};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::sync::mpsc::{Receiver, channel};

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean loss over the targets (nats for classes, mean squared error for numbers).
    pub loss: f64,
    /// Share of targets predicted rightly, for classes.
    pub accuracy: Option<f64>,
    /// Targets that counted.
    pub targets: u64,
}

/// Runs `model` over the held-out split: every batch, or the first `batches` when that is not 0.
pub fn evaluate(
    task: &Task,
    model: &Model,
    params: &Params,
    device: &Device,
    batches: usize,
) -> Result<Evaluation> {
    evaluate_each(task, model, params, device, batches, |_, _, _| Ok(()))
}

/// [`evaluate`] with the batches dealt out over ranks. Every rank gets the same numbers, whose bits do not depend on how many
/// ranks there are.
pub(super) fn evaluate_together(
    team: &Team,
    task: &Task,
    model: &Model,
    params: &Params,
    device: &Device,
    batches: usize,
) -> Result<Evaluation> {
    let loader = task.evaluation_turns(device, team.rank(), team.size())?;
    let all = loader.batches_per_epoch() as usize;
    let all = if batches == 0 { all } else { all.min(batches) };
    let mut found = vec![0.0; 3 * all];
    let mine = found.chunks_mut(3).skip(team.rank()).step_by(team.size());
    for (found, batch) in mine.zip(loader) {
        let mut tally = Tally::default();
        let batch = batch?;
        let tape = Tape::eval(params).with_precision(task.precision());
        let y = model.predict(&task.values(&batch, &tape)?)?.output;
        tally.add(task, &y, &task.parts(&batch)?.1)?;
        found.copy_from_slice(&[tally.loss, tally.targets as f64, tally.hits as f64]);
    }
    let mut tally = Tally::default();
    for one in team.complete(found)?.chunks(3) {
        tally.loss += one[0];
        tally.targets += one[1] as u64;
        tally.hits += one[2] as u64;
    }
    Ok(tally.evaluation(task))
}

/// The model with the modalities that are `given` only; beside it the sum of what their own heads say, if it has such and
/// they speak of classes.
pub(super) fn evaluate_some(
    task: &Task,
    model: &Model,
    params: &Params,
    device: &Device,
    batches: usize,
    given: &[bool],
) -> Result<(Evaluation, Option<Evaluation>)> {
    let limit = if batches == 0 { usize::MAX } else { batches };
    let (mut whole, mut own) = (Tally::default(), Tally::default());
    for batch in task.evaluation(device)?.take(limit) {
        let batch = batch?;
        let target = task.parts(&batch)?.1;
        let tape = Tape::eval(params).with_precision(task.precision());
        let mut values = task.values(&batch, &tape)?;
        values.iter_mut().zip(given).filter(|(_, given)| !**given).for_each(|(v, _)| *v = None);
        let has = task.has(&batch, &tape)?;
        let p = model.predict_of(&values, &has)?;
        let target = of_those_with_any(target, &has, given)?;
        whole.add(task, &p.output, &target)?;
        if task.objective() != super::Objective::Classify {
            continue; // numbers of several heads are no opinions that multiply
        }
        let mut heads = p.heads.iter().map(|(_, y)| y.log_softmax(-1));
        if let Some(first) = heads.next() {
            let sum = heads.try_fold(first?, |sum, y| sum.add(&y?))?;
            own.add(task, &sum, &target)?;
        }
    }
    Ok((whole.evaluation(task), (own.targets > 0).then(|| own.evaluation(task))))
}

/// `target`, which counts for samples only that have any of the modalities that are `given`. Numbers all count.
fn of_those_with_any(target: Tensor, has: &[Option<Var<'_>>], given: &[bool]) -> Result<Tensor> {
    let mut given = has.iter().zip(given).filter(|(_, given)| **given).map(|(has, _)| has);
    let Some(columns) = given.try_fold(vec![], |mut all, has| {
        all.push(has.as_ref()?.value().clone());
        Some(all)
    }) else {
        return Ok(target); // all samples have one of them
    };
    if target.dtype() != DType::I32 {
        return Ok(target);
    }
    let columns = columns.iter().map(|c| c.to_host()?.to_f64()).collect::<Result<Vec<_>>>()?;
    let host = target.to_host()?;
    let any = |i: usize| columns.iter().any(|c| c[i] != 0.0);
    let counts = |(i, t): (usize, &i32)| if any(i) { *t } else { IGNORE };
    let counted: Vec<i32> = host.as_slice::<i32>()?.iter().enumerate().map(counts).collect();
    Tensor::from_slice(target.device(), &counted, target.dims())
}

/// Sums over the batches of an evaluation.
#[derive(Default)]
struct Tally {
    loss: f64,
    targets: u64,
    hits: u64,
}

impl Tally {
    fn add(&mut self, task: &Task, y: &Var<'_>, target: &Tensor) -> Result<()> {
        self.loss += task.loss(y, target, true)?.value().item()?;
        let (n, right) = task.score(y.value(), target)?;
        self.targets += n;
        self.hits += right;
        Ok(())
    }
    fn evaluation(&self, task: &Task) -> Evaluation {
        let share = |x: f64| x / self.targets.max(1) as f64;
        let classes = task.objective() != super::Objective::Regress;
        let accuracy = classes.then(|| share(self.hits as f64));
        Evaluation { loss: share(self.loss), accuracy, targets: self.targets }
    }
}

/// [`evaluate`], which hands input, target and prediction of each batch to `each`.
fn evaluate_each(
    task: &Task,
    model: &Model,
    params: &Params,
    device: &Device,
    batches: usize,
    mut each: impl FnMut(&Tensor, &Tensor, &Var<'_>) -> Result<()>,
) -> Result<Evaluation> {
    let limit = if batches == 0 { usize::MAX } else { batches };
    let mut tally = Tally::default();
    for batch in task.evaluation(device)?.take(limit) {
        let batch = batch?;
        let (input, target) = task.parts(&batch)?;
        let tape = Tape::eval(params).with_precision(task.precision());
        let y = task.predict(model, &batch, &tape)?.output;
        tally.add(task, &y, &target)?;
        each(&input, &target, &y)?;
    }
    Ok(tally.evaluation(task))
}

/// The held-out sequences and the loss at each of their positions, all [sequences, length] on the host.
pub struct Losses {
    /// Symbols that the model saw.
    pub input: Tensor,
    /// Symbols that it was to foretell.
    pub target: Tensor,
    /// Nats that each cost; 0 where the target does not count.
    pub loss: Tensor,
}

/// [`evaluate`] over the whole split, keeping the loss of every target. Errors for models that do not read sequences.
pub fn losses(task: &Task, model: &Model, params: &Params, device: &Device) -> Result<(Evaluation, Losses)> {
    if !matches!(task.io(), Io::Tokens { .. }) {
        let what = "losses of single targets are kept for sequences of symbols, and this run reads none";
        return Err(Error::Usage(what.into()));
    }
    let (mut inputs, mut targets, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    let mut length = 0;
    let found = evaluate_each(task, model, params, device, 0, |input, target, y| {
        length = input.shape().last();
        inputs.extend_from_slice(input.to_host()?.as_slice::<i32>()?);
        targets.extend_from_slice(target.to_host()?.as_slice::<i32>()?);
        costs.extend_from_slice(task.losses(y, target)?.value().to_host()?.as_slice::<f32>()?);
        Ok(())
    })?;
    let host = Device::cpu();
    let dims = [inputs.len() / length.max(1), length];
    let input = Tensor::from_slice(&host, &inputs, &dims)?;
    let target = Tensor::from_slice(&host, &targets, &dims)?;
    Ok((found, Losses { input, target, loss: Tensor::from_slice(&host, &costs, &dims)? }))
}

/// What every head of windowed or dynamic attention sees in the first held-out sequence; None for other models.
pub fn attention(
    task: &Task,
    model: &Model,
    params: &Params,
    device: &Device,
) -> Result<Option<Vec<HeadReport>>> {
    let Model::Gpt(gpt) = model else { return Ok(None) };
    if !gpt.has_windows() {
        return Ok(None);
    }
    let Some(batch) = task.evaluation(device)?.next() else { return Ok(None) };
    let batch = batch?;
    let ids = task.parts(&batch)?.0;
    let first = ids.window(0, &[1, ids.shape().last()])?;
    gpt.inspect(params, &first).map(Some)
}

/// Held-out batches over which hidden units are counted.
const COUNTED: usize = 8;

/// Which hidden units are at work on the first held-out batches; None for models whose units are never 0. `before` holds those
/// that were dead the time before, and then those that are now.
pub fn activity(
    task: &Task,
    model: &Model,
    params: &Params,
    device: &Device,
    before: &mut DeadUnits,
) -> Result<Option<Vec<LayerActivity>>> {
    if !model.has_silent_units() {
        return Ok(None);
    }
    let mut census = Census::default();
    for batch in task.evaluation(device)?.take(COUNTED) {
        model.count(params, &task.parts(&batch?)?.0, &mut census)?;
    }
    Ok(Some(census.report(before)))
}

/// Largest training text that is counted: counting sorts 16 bytes a symbol and order.
const COUNTABLE: u64 = 20_000_000;

/// Starts counting n-grams of the training split on a thread; their losses on the held-out split come through the channel.
/// None for data that are no text or too long to count.
pub(super) fn ngrams(task: &Task) -> Result<Option<Receiver<Vec<f64>>>> {
    let Io::Tokens { vocabulary } = *task.io() else { return Ok(None) };
    if !task.is_text() {
        return Ok(None);
    }
    let set = task.set().clone();
    let (train, held_out) = (set.split("train")?, set.split(task.held_out())?);
    if train.count > COUNTABLE || vocabulary > 1 << 16 {
        return Ok(None);
    }
    let read = |split: &crate::data::Split| -> Result<Vec<u16>> {
        let field = &set.header().fields[0];
        let mut scratch = Vec::new();
        let bytes = set.samples(field, split.start, split.count, &mut scratch)?;
        Ok(match field.dtype {
            DType::U8 => bytes.iter().map(|&b| b.into()).collect(),
            _ => bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect(),
        })
    };
    let (train, held_out) = (read(&train)?, read(&held_out)?);
    let (send, receive) = channel();
    // A thread that is still counting when the run ends is left behind: its answer has no reader then.
    let count = move || send.send(ngram::losses(&train, &held_out, vocabulary));
    std::thread::Builder::new().spawn(count).map_err(|e| Error::no_thread("the n-grams", &e))?;
    Ok(Some(receive))
}
