//! Forward and backward over a batch, or over the parts of one and several batches that make a step.

use super::agree::Agreed;
use super::{Config, Task, Team};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::nn::{Model, Prediction};
use crate::optim::clip;
use crate::tape::{Change, Done, Grads, Params, Tape, Var};
use crate::tensor::Tensor;
use std::time::Instant;

/// What a pass reads: all of a run but its weights and gradients.
pub(super) struct Pass<'a> {
    pub(super) config: &'a Config,
    pub(super) task: &'a Task,
    pub(super) model: &'a Model,
    /// Optimizer steps done: a key of dropout, and for errors.
    pub(super) step: u64,
}

/// One micro-batch of one part of a step.
pub(super) struct Turn<'a> {
    pub(super) batch: &'a Batch,
    /// The whole share of this rank.
    pub(super) share: &'a Batch,
    /// Number of the micro-batch.
    pub(super) micro: u64,
    pub(super) part: usize,
    /// True in a stage of a pipeline, where several are under way at once.
    pub(super) staged: bool,
    /// What an earlier stage made of the batch.
    pub(super) input: Option<Tensor>,
}

impl Turn<'_> {
    /// `what` as a timeline says it.
    pub(super) fn name(&self, what: &str) -> String {
        if self.staged { format!("{what} {}", self.micro) } else { what.into() }
    }
}

/// What a forward pass leaves for backward.
pub(super) struct Ahead<'t> {
    /// What an earlier stage gave.
    pub(super) input: Option<Var<'t>>,
    /// The loss, or what the next stage goes on with.
    pub(super) output: Var<'t>,
    /// Its gradient.
    pub(super) seed: Option<Tensor>,
    pub(super) penalty: Option<Var<'t>>,
    /// Share of the step's loss.
    pub(super) value: f64,
    /// Share of the samples.
    pub(super) samples: f64,
}

impl Pass<'_> {
    /// The gradient of a step: the mean over its micro-batches, each of which `batch` gives by number, as often as there are
    /// parts.
    pub(super) fn whole(
        &self,
        team: &mut Team,
        params: &Params,
        grads: &mut Grads,
        stop: impl FnOnce() -> Option<i32>,
        mut batch: impl FnMut(usize) -> Result<Batch>,
    ) -> Result<Agreed> {
        if team.mesh.as_ref().is_some_and(|m| m.pipe.size() > 1) {
            return self.staged(team, params, grads, stop, batch);
        }
        let (mut parts, mut small) = (Vec::new(), None);
        for part in 0..team.parts() {
            let (mut loss, mut samples, mut changes) = (0.0, 0.0, Vec::new());
            for micro in 0..self.config.accumulate {
                let share = team.stretch(batch(micro as usize)?)?;
                let one = team.part(&share, part)?;
                grads.accumulate(micro > 0);
                let turn = Turn { batch: &one, share: &share, micro, part, staged: false, input: None };
                let found = self.gradients(team, params, grads, &turn)?;
                (loss, samples) = (loss + found.0, found.1);
                changes.extend(found.2);
                if team.sums.is_none() && micro == 0 && self.config.accumulate > 1 {
                    small = Some(clip::by_global_norm(grads, 0.0)? * self.config.accumulate as f64);
                }
            }
            parts.push((loss, samples, changes));
        }
        let agreed = team.agree(self.step + 1, params, grads, parts, stop())?;
        Ok(Agreed { small: agreed.small.or(small), ..agreed })
    }

    /// The gradient of the micro-batches of a step at other weights, scaled as clipping scaled the first one, whose norm was
    /// `norm`. Dropout has the same masks; changes of state are not made.
    pub(super) fn again(
        &self,
        team: &mut Team,
        params: &Params,
        grads: &mut Grads,
        batches: &[Batch],
        norm: f64,
    ) -> Result<()> {
        self.whole(team, params, grads, || None, |i| Ok(batches[i].clone()))?;
        let limit = self.config.clip;
        if limit > 0.0 && norm > limit { clip::scale(grads, limit / norm) } else { Ok(()) }
    }

    /// Adds to `grads` a turn's share of the gradient of the step's mean loss at `params`; gives its share of that loss, the
    /// share of the samples that it is about, and the changes of state that the forward pass asked for, to be made after the
    /// step.
    fn gradients(
        &self,
        team: &mut Team,
        params: &Params,
        grads: &mut Grads,
        turn: &Turn<'_>,
    ) -> Result<(f64, f64, Vec<Change>)> {
        let tape = self.tape(team, params, turn);
        let ahead = self.forward(team, params, &tape, turn)?;
        let (value, samples) = (ahead.value, ahead.samples);
        self.backward(team, grads, &tape, ahead, turn)?;
        Ok((value, samples, tape.into_deferred()))
    }

    /// A turn's loss, on `tape`.
    pub(super) fn forward<'t>(
        &self,
        team: &mut Team,
        params: &Params,
        tape: &'t Tape,
        turn: &Turn<'_>,
    ) -> Result<Ahead<'t>> {
        let from = Instant::now();
        let micro = self.config.accumulate as f64;
        let (_, target) = self.task.parts(turn.batch)?;
        let weight = team.weigh(
            turn.micro,
            turn.part,
            (turn.batch.len(), turn.batch.global * team.stretches()),
            |all| self.task.targets(&if all { self.task.parts(turn.share)?.1 } else { target.clone() }),
        )?;
        let samples = weight.samples;
        let (input, prediction) = self.predict(turn, tape)?;
        let loss = self.task.loss_of(&prediction, &target)?;
        let value = loss.value().item()?;
        team.lag(from);
        team.mark(&turn.name("forward"), from);
        team.worked(0, from.elapsed());
        let share = team.settle(weight)?;
        if share.is_some() && !value.is_finite() {
            team.hold(self.first_bad_op(team, params, turn, &format!("the loss is {value}")))?;
        }
        let value = share.map_or(0.0, |share| value * share / micro);
        let seed = Tensor::full(params.device(), loss.value().spec(), share.unwrap_or(0.0) / micro)?;
        let penalty = self.task.penalty(&prediction, &target)?;
        Ok(Ahead { input, output: loss, seed: Some(seed), penalty, value, samples })
    }

    /// What the model makes of a turn; where an earlier stage of a pipeline began it, also its input.
    pub(super) fn predict<'t>(
        &self,
        turn: &Turn<'_>,
        tape: &'t Tape,
    ) -> Result<(Option<Var<'t>>, Prediction<'t>)> {
        let Some(x) = &turn.input else {
            return Ok((None, self.task.predict(self.model, turn.batch, tape)?));
        };
        let x = tape.leaf(x.clone())?;
        Ok((Some(x.clone()), self.model.predict(&[Some(x)])?))
    }

    /// From what a forward pass left to gradients, added to `grads`; gives that of its input, if another stage gave it.
    pub(super) fn backward(
        &self,
        team: &mut Team,
        grads: &mut Grads,
        tape: &Tape,
        ahead: Ahead<'_>,
        turn: &Turn<'_>,
    ) -> Result<Option<Tensor>> {
        let (from, micro) = (Instant::now(), self.config.accumulate as f64);
        let Ahead { input, output, seed, penalty, samples, .. } = ahead;
        let mut ends: Vec<(&Var<'_>, Tensor)> = seed.into_iter().map(|seed| (&output, seed)).collect();
        if let Some(penalty) = &penalty {
            ends.push((penalty, Tensor::full(tape.device(), penalty.value().spec(), samples / micro)?));
        }
        let listens = turn.micro + 1 == self.config.accumulate && team.listens(turn.part)?;
        let mut tell = |slot, g: Option<&Tensor>| team.told(slot, g);
        let done: Option<&mut Done<'_>> = if listens { Some(&mut tell) } else { None };
        let leaves = tape.backward_telling(&ends, grads, done)?;
        team.lag(from);
        team.mark(&turn.name("backward"), from);
        team.worked(turn.batch.len(), from.elapsed());
        Ok(input.and_then(|x| leaves.get(&x).cloned()))
    }

    pub(super) fn tape(&self, team: &Team, params: &Params, turn: &Turn<'_>) -> Tape {
        let index = self.step * self.config.accumulate + turn.micro;
        let seed = team.seed(self.config.seed, turn.part);
        Tape::train(params, seed, index).with_precision(self.config.precision)
    }

    /// Runs the same batch again with every op checked: the same bits, so the same op fails.
    pub(super) fn first_bad_op(&self, team: &Team, params: &Params, turn: &Turn<'_>, what: &str) -> Error {
        let saved = "the last snapshot is untouched; a smaller optimizer.lr or a smaller clip may help";
        let step = self.step + 1;
        if team.mesh.as_ref().is_some_and(|m| m.tensor.size() > 1 || m.context.size() > 1) {
            // Only this rank would go through the operations that ranks do together.
            return Error::Numeric { step, what: format!("{what}; {saved}") };
        }
        let tape = self.tape(team, params, turn).check_finite();
        let again = || -> Result<()> {
            let (_, y) = self.predict(turn, &tape)?;
            if team.ends_pipeline() {
                self.task.loss_of(&y, &self.task.parts(turn.batch)?.1)?;
            }
            Ok(())
        };
        match again() {
            Err(Error::Numeric { what: op, .. }) => {
                Error::Numeric { step, what: format!("{what}: {op}; {saved}") }
            }
            Err(e) => e,
            Ok(()) => Error::Numeric { step, what: format!("{what}; {saved}") },
        }
    }
}

/// The error of a gradient whose norm is no number.
pub(super) fn bad_gradient(step: u64, params: &Params, grads: &Grads, norm: f64) -> Error {
    let slot = params
        .all()
        .find(|&s| grads.get(s).is_some_and(|g| g.to_f64().is_ok_and(|g| g.iter().any(|x| !x.is_finite()))));
    let name = slot.map_or("the whole model", |s| &params.info(s).name);
    let what = format!("the norm of the gradient is {norm}: first in `{name}`; weights were not changed");
    Error::Numeric { step, what }
}

/// After the first backward pass: a slot that no gradient reached will never learn.
pub(super) fn all_reached(grads: &Grads) -> Result<()> {
    let missing = grads.missing();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("no gradient reached {}", missing.join(", "));
    Err(Error::LostGradient { op: "train".into(), what })
}
