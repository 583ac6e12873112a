//! From a config to what is learned: which fields of which data, in which splits, under which loss.

use super::Config;
use crate::data::{self, Cursor, Dataset, IGNORE, Loader, LoaderOptions, Rtd, Samples, Windows};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::gemm::Precision;
use crate::nn::{Io, ModelKind};
use crate::ops::cross_entropy::{CrossEntropy, Reduction};
use crate::shape::DType;
use crate::tape::Var;
use crate::tensor::Tensor;
use std::sync::Arc;

/// How predictions are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Each target is a class: cross-entropy, in nats.
    Classify,
    /// Each target is some numbers: mean squared error.
    Regress,
}

/// What is learned from which data.
#[derive(Clone)]
pub struct Task {
    set: Arc<Rtd>,
    io: Io,
    /// Samples are sequences of tokens with a target each, not windows of one text.
    sequences: bool,
    input: String,
    target: String,
    objective: Objective,
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
        let common = |io, input: String, target: String, objective| Task {
            sequences: !tokens && matches!(io, Io::Tokens { .. }),
            io,
            input,
            target,
            objective,
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
            return Ok(common(io, "input".into(), "target".into(), Objective::Classify));
        }
        if config.model.kind == ModelKind::Gpt
            && let Some((input, target, vocabulary)) = sequences(config, &set)?
        {
            return Ok(common(Io::Tokens { vocabulary }, input, target, Objective::Classify));
        }
        let (input, target) = fields(config, &set)?;
        let shape = set.field(&input)?.dims();
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
        Ok(common(Io::Samples { shape, outputs }, input, target, objective))
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
            _ => Box::new(Samples::select(self.set.clone(), split, &[&self.input, &self.target])?),
        })
    }

    /// Shuffled batches for training, from `cursor` on.
    pub fn train(&self, device: &Device, cursor: Option<Cursor>) -> Result<Loader<Source>> {
        let source = self.source("train", false)?;
        if source.len() < self.batch as u64 {
            let what = format!(
                "is {}, but the training split has only {} samples; make it smaller",
                self.batch,
                source.len()
            );
            return Err(Error::config("batch_size", what));
        }
        let options = LoaderOptions { batch: self.batch, seed: self.seed, ..LoaderOptions::default() };
        match cursor {
            Some(cursor) => Loader::resume(source, device, &options, cursor),
            None => Loader::new(source, device, &options),
        }
    }

    /// Every sample of the held-out split once, in order.
    pub fn evaluation(&self, device: &Device) -> Result<Loader<Source>> {
        Loader::new(self.source(&self.held_out, true)?, device, &LoaderOptions::evaluation(self.batch))
    }

    /// Input and target of a batch.
    pub fn parts<'b>(&self, batch: &'b data::Batch) -> Result<(&'b Tensor, &'b Tensor)> {
        Ok((batch.get(&self.input)?, batch.get(&self.target)?))
    }

    /// Loss of predictions `y`: its mean, or its sum over the targets that count.
    pub fn loss<'t>(&self, y: &Var<'t>, target: &Tensor, sum: bool) -> Result<Var<'t>> {
        match self.objective {
            Objective::Classify => {
                cross_entropy(y, target, if sum { Reduction::Sum } else { Reduction::Mean })
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

/// Input, target and vocabulary of a set of sequences: ids and a target id for each, of one length. None for other sets.
fn sequences(config: &Config, set: &Rtd) -> Result<Option<(String, String, usize)>> {
    let all = &set.header().fields;
    let is = |f: &&data::Field| f.batch_dtype() == DType::I32 && f.bound > 0 && f.shape.len() == 1;
    let pick = |wanted: &str, default: Option<&data::Field>| match wanted {
        "" => default.cloned(),
        name => all.iter().filter(is).find(|f| f.name == name).cloned(),
    };
    let Some(input) = pick(&config.data.input, all.iter().find(is)) else { return Ok(None) };
    let other = all.iter().filter(is).find(|f| f.name != input.name && f.shape == input.shape);
    let Some(target) = pick(&config.data.target, other).filter(|t| t.shape == input.shape) else {
        return Ok(None);
    };
    let tokens = input.elements();
    if tokens != config.model.context as u64 {
        let what = format!(
            "is {}, but the sequences of {} have {tokens} tokens; set it to that",
            config.model.context,
            set.path().display()
        );
        return Err(Error::config("model.context", what));
    }
    let vocabulary = input.bound.max(target.bound) as usize;
    Ok(Some((input.name, target.name, vocabulary)))
}

/// The fields that are input and target: as configured, else the first real field and the first labelled one.
fn fields(config: &Config, set: &Rtd) -> Result<(String, String)> {
    let all = &set.header().fields;
    let names = || all.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
    let pick = |key: &str, wanted: &str, default: Option<&data::Field>| {
        if wanted.is_empty() {
            let what = format!("must be given: the fields of {} are {}", set.path().display(), names());
            return default.map(|f| f.name.clone()).ok_or_else(|| Error::config(key, what));
        }
        let found = all.iter().find(|f| f.name == wanted);
        let what = format!("is `{wanted}`, but the fields of {} are {}", set.path().display(), names());
        found.map(|f| f.name.clone()).ok_or_else(|| Error::config(key, what))
    };
    let real = |f: &&data::Field| f.batch_dtype() == DType::F32;
    let input = pick("data.input", &config.data.input, all.iter().find(real))?;
    let label = all.iter().rfind(|f| f.bound > 0 && f.shape.is_empty() && f.name != input);
    let target =
        pick("data.target", &config.data.target, label.or_else(|| all.iter().rfind(|f| f.name != input)))?;
    Ok((input, target))
}
