//! Forward and backward over a batch, or over the parts of one and several batches that make a step.

use super::sums::Agreed;
use super::{Config, Task, Team};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::nn::Model;
use crate::optim::clip;
use crate::tape::{Change, Done, Grads, Params, Tape};
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
struct Turn<'a> {
    batch: &'a Batch,
    /// The whole share of this rank.
    share: &'a Batch,
    /// Number of the micro-batch.
    micro: u64,
    part: usize,
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
        let (mut parts, mut small) = (Vec::new(), None);
        for part in 0..team.parts() {
            let (mut loss, mut samples, mut changes) = (0.0, 0.0, Vec::new());
            for micro in 0..self.config.accumulate {
                let share = team.stretch(batch(micro as usize)?)?;
                let one = team.part(&share, part)?;
                grads.accumulate(micro > 0);
                let turn = Turn { batch: &one, share: &share, micro, part };
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
        let tape = self.tape(team, params, turn);
        let prediction = self.task.predict(self.model, turn.batch, &tape)?;
        let loss = self.task.loss_of(&prediction, &target)?;
        let value = loss.value().item()?;
        team.lag(from);
        team.mark("forward", from);
        let share = team.settle(weight)?;
        if share.is_some() && !value.is_finite() {
            team.hold(self.first_bad_op(team, params, turn, value))?;
        }
        let value = share.map_or(0.0, |share| value * share / micro);
        let from = Instant::now();
        let seed = Tensor::full(params.device(), loss.value().spec(), share.unwrap_or(0.0) / micro)?;
        let penalty = self.task.penalty(&prediction, &target)?;
        drop(prediction);
        let mut ends = vec![(&loss, seed)];
        if let Some(penalty) = &penalty {
            ends.push((penalty, Tensor::full(params.device(), penalty.value().spec(), samples / micro)?));
        }
        let listens = turn.micro + 1 == self.config.accumulate && team.listens(turn.part)?;
        let mut tell = |slot, g: Option<&Tensor>| team.told(slot, g);
        let done: Option<&mut Done<'_>> = if listens { Some(&mut tell) } else { None };
        tape.backward_telling(&ends, grads, done)?;
        team.lag(from);
        team.mark("backward", from);
        drop(ends);
        drop((loss, penalty));
        Ok((value, samples, tape.into_deferred()))
    }

    fn tape(&self, team: &Team, params: &Params, turn: &Turn<'_>) -> Tape {
        let index = self.step * self.config.accumulate + turn.micro;
        let seed = team.seed(self.config.seed, turn.part);
        Tape::train(params, seed, index).with_precision(self.config.precision)
    }

    /// Runs the same batch again with every op checked: the same bits, so the same op fails.
    fn first_bad_op(&self, team: &Team, params: &Params, turn: &Turn<'_>, value: f64) -> Error {
        let tape = self.tape(team, params, turn).check_finite();
        let again = || -> Result<()> {
            let y = self.task.predict(self.model, turn.batch, &tape)?;
            self.task.loss_of(&y, &self.task.parts(turn.batch)?.1).map(drop)
        };
        let saved = "the last snapshot is untouched; a smaller optimizer.lr or a smaller clip may help";
        let step = self.step + 1;
        match again() {
            Err(Error::Numeric { what, .. }) => {
                Error::Numeric { step, what: format!("the loss is {value}: {what}; {saved}") }
            }
            Err(e) => e,
            Ok(()) => Error::Numeric { step, what: format!("the loss is {value}; {saved}") },
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
