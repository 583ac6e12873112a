//! Forward and backward over one batch.

use super::{Config, Task};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::nn::Model;
use crate::optim::clip;
use crate::tape::{Change, Grads, Params, Tape};
use crate::tensor::Tensor;

/// What a pass reads: all of a run but its weights and gradients.
pub(super) struct Pass<'a> {
    pub(super) config: &'a Config,
    pub(super) task: &'a Task,
    pub(super) model: &'a Model,
    /// Optimizer steps done, for errors.
    pub(super) step: u64,
}

impl Pass<'_> {
    /// [`Pass::gradients`] of micro-batch `i` of a step; gives its share of the loss.
    pub(super) fn micro(
        &self,
        i: u64,
        params: &Params,
        grads: &mut Grads,
        batch: &Batch,
    ) -> Result<(f64, Vec<Change>)> {
        let micro = self.config.accumulate;
        grads.accumulate(i > 0);
        let (value, changes) =
            self.gradients(params, grads, batch, self.step * micro + i, 1.0 / micro as f64)?;
        Ok((value / micro as f64, changes))
    }

    /// The gradient of the micro-batches of a step at other weights, scaled as clipping scaled the first one, whose norm was
    /// `norm`. Dropout has the same masks; changes of state are not made.
    pub(super) fn again(
        &self,
        params: &Params,
        grads: &mut Grads,
        batches: &[Batch],
        norm: f64,
    ) -> Result<()> {
        for (i, batch) in batches.iter().enumerate() {
            self.micro(i as u64, params, grads, batch)?;
        }
        let limit = self.config.clip;
        if limit > 0.0 && norm > limit { clip::scale(grads, limit / norm) } else { Ok(()) }
    }

    /// Adds to `grads` the `share` of the gradient of a batch's mean loss at `params`; gives that loss. `index` keys the
    /// dropout of this micro-batch. Also gives the changes of state that the forward pass asked for, to be made after the
    /// step.
    fn gradients(
        &self,
        params: &Params,
        grads: &mut Grads,
        batch: &Batch,
        index: u64,
        share: f64,
    ) -> Result<(f64, Vec<Change>)> {
        let (_, target) = self.task.parts(batch)?;
        let tape = self.tape(params, index);
        let prediction = self.task.predict(self.model, batch, &tape)?;
        let loss = self.task.loss(&prediction.output, &target, false)?;
        let value = loss.value().item()?;
        if !value.is_finite() {
            drop((loss, prediction));
            return Err(self.first_bad_op(params, batch, index, value));
        }
        let seed = Tensor::full(params.device(), loss.value().spec(), share)?;
        let penalty = self.task.penalty(&prediction, &target)?;
        drop(prediction);
        let mut ends = vec![(&loss, seed)];
        if let Some(penalty) = &penalty {
            ends.push((penalty, Tensor::full(params.device(), penalty.value().spec(), share)?));
        }
        tape.backward_from(&ends, grads)?;
        drop(ends);
        drop((loss, penalty));
        Ok((value, tape.into_deferred()))
    }

    fn tape(&self, params: &Params, index: u64) -> Tape {
        Tape::train(params, self.config.seed, index).with_precision(self.config.precision)
    }

    /// Runs the same batch again with every op checked: the same bits, so the same op fails.
    fn first_bad_op(&self, params: &Params, batch: &Batch, index: u64, value: f64) -> Error {
        let tape = self.tape(params, index).check_finite();
        let again = || -> Result<()> {
            let y = self.task.predict(self.model, batch, &tape)?.output;
            self.task.loss(&y, &self.task.parts(batch)?.1, false).map(drop)
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
