//! From a config to what is learned: which fields of which data, in which splits, under which loss.

use super::Config;
use super::fields::{fields, modality, presence, sequences};
use crate::data::{self, Cursor, Dataset, IGNORE, Loader, LoaderOptions, Rtd, Samples, Windows};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::gemm::Precision;
use crate::nn::fusion::Form;
use crate::nn::{Io, Model, ModelKind, Prediction};
use crate::ops::cross_entropy::{CrossEntropy, Reduction};
use crate::shape::DType;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// How predictions are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Each target is a class: cross-entropy, in nats.
    Classify,
    /// Each target is some numbers: mean squared error.
    Regress,
    /// Two modalities of a sample are to find each other among those of the batch: the mean cross-entropy of both directions.
    Match,
}

/// What is learned from which data.
#[derive(Clone)]
pub struct Task {
    set: Arc<Rtd>,
    io: Io,
    /// Samples are sequences of tokens with a target each, not windows of one text.
    sequences: bool,
    /// Fields that the model reads.
    inputs: Vec<String>,
    /// For each of them the field that says which samples have it.
    presence: Vec<Option<String>>,
    target: String,
    objective: Objective,
    /// Price of the losses of modalities' own heads.
    head_loss: f64,
    held_out: String,
    context: usize,
    batch: usize,
    seed: u64,
    precision: Precision,
}

type Source = Box<dyn Dataset>;

impl Task {
    /// Opens the data that `config` names and decides what is predicted from what.
    pub fn open(config: &Config) -> Result<Task> {
        let set = Arc::new(data::open(&config.data.path, config.data.map)?);
        let first = set.header().fields.first();
        let tokens = first.is_some_and(|f| f.kind == data::Kind::Tokens);
        let held_out = set.held_out()?.name;
        let common = |io, inputs: Vec<String>, target: String, objective| Task {
            sequences: !tokens && matches!(io, Io::Tokens { .. }),
            io,
            presence: vec![None; inputs.len()],
            inputs,
            target,
            objective,
            head_loss: config.model.fused.head_loss,
            held_out: held_out.clone(),
            context: config.model.context,
            batch: config.batch_size,
            seed: config.seed,
            precision: config.precision,
            set: set.clone(),
        };
        if tokens {
            let bound = first.map_or(0, |f| f.bound as usize).max(set.header().about.vocabulary.len());
            let io = Io::Tokens { vocabulary: bound };
            return Ok(common(io, vec!["input".into()], "target".into(), Objective::Classify));
        }
        if config.model.kind == ModelKind::Gpt
            && let Some((input, target, vocabulary)) = sequences(config, &set)?
        {
            return Ok(common(Io::Tokens { vocabulary }, vec![input], target, Objective::Classify));
        }
        let (inputs, target) = fields(config, &set)?;
        let modalities = || inputs.iter().map(|name| modality(&set, name)).collect::<Result<_>>();
        let presence = presence(config, &set, &inputs)?;
        if config.model.kind == ModelKind::Pair {
            let io = Io::Modalities { modalities: modalities()?, outputs: 0 };
            return Ok(common(io, inputs, target, Objective::Match));
        }
        let field = set.field(&target)?;
        let (objective, outputs) = match (field.batch_dtype(), field.bound) {
            (DType::F32, _) => (Objective::Regress, field.elements() as usize),
            (_, 0) => {
                let what =
                    format!("`{target}` holds integers without a bound, so the number of classes is unknown");
                return Err(Error::config("data.target", what));
            }
            (_, classes) => (Objective::Classify, classes as usize),
        };
        let io = if config.model.kind == ModelKind::Fusion {
            Io::Modalities { modalities: modalities()?, outputs }
        } else {
            Io::Samples { shape: set.field(&inputs[0])?.dims(), outputs }
        };
        Ok(Task { presence, ..common(io, inputs, target, objective) })
    }

    /// What the data look like to a model.
    pub fn io(&self) -> &Io {
        &self.io
    }
    /// The packed set.
    pub fn set(&self) -> &Arc<Rtd> {
        &self.set
    }
    /// How predictions are judged.
    pub fn objective(&self) -> Objective {
        self.objective
    }
    /// To what matrix products round their operands, in training and in evaluation.
    pub fn precision(&self) -> Precision {
        self.precision
    }
    /// True for models of tokens: throughput is counted in them.
    pub fn is_tokens(&self) -> bool {
        matches!(self.io, Io::Tokens { .. })
    }
    /// True for a language model: windows of one text.
    pub fn is_text(&self) -> bool {
        self.is_tokens() && !self.sequences
    }
    /// Name of the split that evaluation reads: `val`, or `test` where there is no other.
    pub fn held_out(&self) -> &str {
        &self.held_out
    }
    /// What is predicted of one sample: tokens of a window, or 1.
    pub fn units(&self) -> u64 {
        if self.is_tokens() { self.context as u64 } else { 1 }
    }

    fn source(&self, split: &str, exact: bool) -> Result<Source> {
        Ok(match (self.is_text(), exact) {
            (true, false) => Box::new(Windows::training(self.set.clone(), split, self.context)?),
            (true, true) => Box::new(Windows::evaluation(self.set.clone(), split, self.context)?),
            _ => {
                let target = (self.objective != Objective::Match).then_some(&self.target);
                let presence = self.presence.iter().flatten();
                let names: Vec<&str> =
                    self.inputs.iter().chain(target).chain(presence).map(|n| &n[..]).collect();
                Box::new(Samples::select(self.set.clone(), split, &names)?)
            }
        })
    }

    /// Shuffled batches for training, from `cursor` on.
    pub fn train(&self, device: &Device, cursor: Option<Cursor>) -> Result<Loader<Source>> {
        self.train_shares(device, cursor, 0..1, 1)
    }

    /// Shares `shares` of each batch that is cut into `world`.
    pub fn train_shares(
        &self,
        device: &Device,
        cursor: Option<Cursor>,
        shares: Range<usize>,
        world: usize,
    ) -> Result<Loader<Source>> {
        let source = self.source("train", false)?;
        if source.len() < self.batch as u64 {
            let what = format!(
                "is {}, but the training split has only {} samples; make it smaller",
                self.batch,
                source.len()
            );
            return Err(Error::config("batch_size", what));
        }
        let (batch, seed, rank, width) = (self.batch, self.seed, shares.start, shares.len());
        let options = LoaderOptions { batch, seed, rank, world, width, ..LoaderOptions::default() };
        match cursor {
            Some(cursor) => Loader::resume(source, device, &options, cursor),
            None => Loader::new(source, device, &options),
        }
    }

    /// Every sample of the held-out split once, in order.
    pub fn evaluation(&self, device: &Device) -> Result<Loader<Source>> {
        self.evaluation_turns(device, 0, 1)
    }

    /// Those batches of [`Task::evaluation`] whose number is `turn` modulo `turns`.
    pub fn evaluation_turns(&self, device: &Device, turn: usize, turns: usize) -> Result<Loader<Source>> {
        let (turn, turns) = (turn as u64, turns as u64);
        let options = LoaderOptions { turn, turns, ..LoaderOptions::evaluation(self.batch) };
        Loader::new(self.source(&self.held_out, true)?, device, &options)
    }

    /// Input, the first where there are several, and target of a batch. Where modalities are to find each other the target of a
    /// sample is its own number in the batch.
    pub fn parts(&self, batch: &data::Batch) -> Result<(Tensor, Tensor)> {
        let input = batch.get(&self.inputs[0])?.clone();
        if self.objective == Objective::Match {
            let numbers: Vec<i32> = (0..batch.len() as i32).collect();
            return Ok((input.clone(), Tensor::from_slice(input.device(), &numbers, &[numbers.len()])?));
        }
        Ok((input, batch.get(&self.target)?.clone()))
    }

    /// What the field `name` holds, as a modality.
    pub fn form(&self, name: &str) -> Result<Form> {
        Ok(modality(&self.set, name)?.form)
    }

    /// Names of the fields that the model reads.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// The values of a batch that the model reads, as constants of `tape`.
    pub fn values<'t>(&self, batch: &data::Batch, tape: &'t Tape) -> Result<Vec<Option<Var<'t>>>> {
        self.inputs.iter().map(|name| Ok(Some(tape.constant(batch.get(name)?.clone())))).collect()
    }

    /// For each value of a batch which samples have it: [samples, 1], 1 or 0; None where all do.
    pub fn has<'t>(&self, batch: &data::Batch, tape: &'t Tape) -> Result<Vec<Option<Var<'t>>>> {
        let column = |name: &Option<String>| -> Result<Option<Var<'t>>> {
            let Some(name) = name else { return Ok(None) };
            let there = batch.get(name)?.to_host()?.to_f64()?;
            if there.iter().all(|x| *x != 0.0) {
                return Ok(None);
            }
            let params = tape.params();
            let column = Tensor::from_f64(params.device(), params.dtype(), &there, &[there.len(), 1])?;
            Ok(Some(tape.constant(column)))
        };
        self.presence.iter().map(column).collect()
    }

    /// What `model` makes of a batch.
    pub fn predict<'t>(&self, model: &Model, batch: &data::Batch, tape: &'t Tape) -> Result<Prediction<'t>> {
        model.predict_of(&self.values(batch, tape)?, &self.has(batch, tape)?)
    }

    /// What is added to the loss of training: the price that layers ask, and that of the losses of modalities' own heads.
    pub fn penalty<'t>(&self, p: &Prediction<'t>, target: &Tensor) -> Result<Option<Var<'t>>> {
        let mut sum = p.penalty.clone();
        if self.head_loss > 0.0 {
            for (_, y) in &p.heads {
                let loss = self.loss(y, target, false)?.scale(self.head_loss)?;
                sum = Some(match sum {
                    Some(sum) => sum.add(&loss)?,
                    None => loss,
                });
            }
        }
        Ok(sum)
    }

    /// The mean loss of what a model, or a rank's part of it, predicts.
    pub fn loss_of<'t>(&self, p: &Prediction<'t>, target: &Tensor) -> Result<Var<'t>> {
        match &p.symbols {
            Some(symbols) => symbols.cross_entropy(&p.output, target, IGNORE),
            None => self.loss(&p.output, target, false),
        }
    }

    /// Loss of predictions `y`: its mean, or its sum over the targets that count.
    pub fn loss<'t>(&self, y: &Var<'t>, target: &Tensor, sum: bool) -> Result<Var<'t>> {
        match self.objective {
            Objective::Classify => {
                cross_entropy(y, target, if sum { Reduction::Sum } else { Reduction::Mean })
            }
            Objective::Match => {
                let how = if sum { Reduction::Sum } else { Reduction::Mean };
                let columns = cross_entropy(&y.permute(&[1, 0])?, target, how)?;
                cross_entropy(y, target, how)?.add(&columns)?.scale(0.5)
            }
            Objective::Regress => {
                let loss = y.mse_loss(&y.tape().constant(target.clone()))?;
                if sum { loss.scale(target.len() as f64) } else { Ok(loss) }
            }
        }
    }

    /// The loss at each target of classes or symbols: 0 where it does not count.
    pub fn losses<'t>(&self, y: &Var<'t>, target: &Tensor) -> Result<Var<'t>> {
        cross_entropy(y, target, Reduction::None)
    }

    /// Targets that count: what the mean of [`Task::loss`] is over.
    pub fn targets(&self, target: &Tensor) -> Result<u64> {
        if self.objective == Objective::Regress {
            return Ok(target.len() as u64);
        }
        let host = target.to_host()?;
        Ok(host.as_slice::<i32>()?.iter().filter(|t| **t != IGNORE).count() as u64)
    }

    /// Targets of a batch that count, and how many of them `y` predicts rightly (for classes).
    pub fn score(&self, y: &Tensor, target: &Tensor) -> Result<(u64, u64)> {
        if self.objective == Objective::Regress {
            return Ok((target.len() as u64, 0));
        }
        let (y, target) = (y.to_host()?, target.to_host()?);
        let (y, classes) = (y.as_slice::<f32>()?, y.shape().last());
        let mut counts = (0, 0);
        for (row, &want) in y.chunks(classes.max(1)).zip(target.as_slice::<i32>()?) {
            if want != IGNORE {
                let best = row.iter().enumerate().fold(0, |b, (i, v)| if *v > row[b] { i } else { b });
                counts = (counts.0 + 1, counts.1 + (best == want as usize) as u64);
            }
        }
        Ok(counts)
    }
}

fn cross_entropy<'t>(y: &Var<'t>, target: &Tensor, reduction: Reduction) -> Result<Var<'t>> {
    let op = CrossEntropy { ignore_index: IGNORE.into(), reduction, ..CrossEntropy::default() };
    y.cross_entropy_with(&y.tape().constant(target.clone()), op)
}
