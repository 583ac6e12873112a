//! A step of one stage of a pipeline: micro-batches come from the stage before and go to the next one, their gradients the
//! other way, in the order of `schedule.rs`.

use super::super::Team;
use super::super::agree::Agreed;
use super::super::pass::{Ahead, Pass, Turn};
use super::schedule::{Move, schedule};
use crate::comm::{Communicator, Group, Promise};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::tape::{Change, Grads, Params, Tape};
use crate::tensor::Tensor;
use std::collections::VecDeque;
use std::time::Instant;

/// The neighbours of a stage.
struct Line {
    group: Group,
    /// Extents of what stages give each other: [B, T, dim].
    dims: [usize; 3],
    /// Messages that nobody waits for until the end.
    sent: Vec<Promise<()>>,
}

/// Forwards whose backward is still to come.
type Live<'t> = VecDeque<(Turn<'t>, Ahead<'t>)>;

impl Pass<'_> {
    /// [`Pass::whole`] in a stage of a pipeline: its part of the gradient. Every stage reads the batches; the first one's
    /// inputs and the last one's targets count.
    pub(in crate::train) fn staged(
        &self,
        team: &mut Team,
        params: &Params,
        grads: &mut Grads,
        stop: impl FnOnce() -> Option<i32>,
        mut batch: impl FnMut(usize) -> Result<Batch>,
    ) -> Result<Agreed> {
        let m = self.config.accumulate as usize;
        let batches = (0..m).map(|i| team.stretch(batch(i)?)).collect::<Result<Vec<_>>>()?;
        let Some(group) = team.mesh.as_ref().map(|mesh| mesh.pipe.clone()) else {
            return Err(Error::Usage("a stage needs a pipeline".into()));
        };
        let moves = schedule(group.size(), group.rank(), m);
        let tokens = self.task.parts(&batches[0])?.0.shape().last();
        let dims = [batches[0].len(), tokens, self.config.model.dim];
        let mut line = Line { group, dims, sent: vec![] };
        let turn = |i: usize, input| {
            let (batch, micro) = (&batches[i], i as u64);
            Turn { batch, share: batch, micro, part: 0, staged: true, input }
        };
        // Backward releases what a tape keeps, so that a tape whose micro-batch is done is small.
        let tapes: Vec<Tape> = (0..m).map(|i| self.tape(team, params, &turn(i, None))).collect();
        let (mut live, mut loss, mut samples) = (Live::new(), 0.0, 0.0);
        let (mut input, mut gradient): (Option<Tensor>, Option<Tensor>) = (None, None);
        for what in moves {
            match what {
                Move::Take(_) => input = Some(line.take(team, params, -1)?),
                Move::TakeBack(_) => gradient = Some(line.take(team, params, 1)?),
                Move::Give(_) => line.give(newest(&live)?, 1)?,
                Move::GiveBack(_) => line.give(&taken(&mut gradient)?, -1)?,
                Move::GiveAndTake { .. } => gradient = Some(line.swap(team, params, newest(&live)?, 1)?),
                Move::GiveBackAndTake { .. } => {
                    input = Some(line.swap(team, params, &taken(&mut gradient)?, -1)?);
                }
                Move::Forward(i) => {
                    let turn = turn(i, input.take());
                    let ahead = self.stage_forward(team, params, &tapes[i], &turn)?;
                    (loss, samples) = (loss + ahead.value, ahead.samples);
                    live.push_back((turn, ahead));
                }
                Move::Backward(i) => {
                    let Some(done) = live.pop_front() else {
                        return Err(Error::Usage("a backward pass without a forward pass".into()));
                    };
                    gradient = self.stage_backward(team, grads, &tapes[i], done, gradient)?;
                }
            }
        }
        drop(live);
        line.sent.into_iter().try_for_each(Promise::wait)?;
        let changes: Vec<Change> = tapes.into_iter().flat_map(Tape::into_deferred).collect();
        let agreed = team.agree(self.step + 1, params, grads, vec![(loss, samples, changes)], stop())?;
        team.add_tied(params, grads)?;
        Ok(agreed)
    }

    /// A micro-batch back through this stage, `gradient` being that of what it gave to the next; gives that of its input.
    fn stage_backward(
        &self,
        team: &mut Team,
        grads: &mut Grads,
        tape: &Tape,
        (turn, mut ahead): (Turn<'_>, Ahead<'_>),
        mut gradient: Option<Tensor>,
    ) -> Result<Option<Tensor>> {
        if !team.ends_pipeline() {
            ahead.seed = Some(taken(&mut gradient)?);
        }
        if !ahead.output.has_gradient() && ahead.penalty.is_none() {
            return Ok(None); // nothing of this stage is trained, and no other comes before it
        }
        grads.accumulate(turn.micro > 0);
        self.backward(team, grads, tape, ahead, &turn)
    }

    /// A micro-batch through this stage; the last one ends with the loss.
    fn stage_forward<'t>(
        &self,
        team: &mut Team,
        params: &Params,
        tape: &'t Tape,
        turn: &Turn<'_>,
    ) -> Result<Ahead<'t>> {
        if team.ends_pipeline() {
            return self.forward(team, params, tape, turn);
        }
        let from = Instant::now();
        let (input, prediction) = self.predict(turn, tape)?;
        team.lag(from);
        team.mark(&turn.name("forward"), from);
        let output = prediction.output;
        // The stage in which it begins names the op.
        let finite = |x: &Tensor| -> Result<bool> {
            Ok(x.to_host()?.as_slice::<f32>()?.iter().all(|x| x.is_finite()))
        };
        if !finite(output.value())? && turn.input.as_ref().map_or(Ok(true), finite)? {
            team.hold(self.first_bad_op(team, params, turn, "what a stage gives to the next is not finite"))?;
        }
        let samples = turn.batch.len() as f64 / (turn.batch.global * team.stretches()) as f64;
        Ok(Ahead { input, output, seed: None, penalty: prediction.penalty, value: 0.0, samples })
    }
}

fn newest<'l>(live: &'l Live<'_>) -> Result<&'l Tensor> {
    let none = || Error::Usage("a stage gives what it has not computed".into());
    live.back().map(|(_, ahead)| ahead.output.value()).ok_or_else(none)
}

fn taken(gradient: &mut Option<Tensor>) -> Result<Tensor> {
    let what = || "no gradient reached the input of a stage".into();
    gradient.take().ok_or_else(|| Error::LostGradient { op: "train".into(), what: what() })
}

/// The tag of messages between stages; their order tells what they are.
const TAG: u32 = 2;

impl Line {
    fn neighbour(&self, way: isize) -> usize {
        self.group.rank().wrapping_add_signed(way)
    }

    /// Gives `x` to the stage `way` from here. Nobody waits.
    fn give(&mut self, x: &Tensor, way: isize) -> Result<()> {
        let (to, x) = (self.neighbour(way), host(x)?);
        self.sent.push(self.group.send(move |c| c.send(to, TAG, &x)));
        Ok(())
    }

    /// Waits for what the stage `way` from here gives.
    fn take(&self, team: &mut Team, params: &Params, way: isize) -> Result<Tensor> {
        let from = self.neighbour(way);
        self.wait(team, params, move |c, x| c.recv(from, TAG, x))
    }

    /// Both at once, with the same stage.
    fn swap(&self, team: &mut Team, params: &Params, x: &Tensor, way: isize) -> Result<Tensor> {
        let (who, out) = (self.neighbour(way), host(x)?);
        self.wait(team, params, move |c, x| c.exchange(who, &out, who, x, TAG))
    }

    fn wait(
        &self,
        team: &mut Team,
        params: &Params,
        errand: impl FnOnce(&mut Communicator, &mut [f32]) -> Result<()> + Send + 'static,
    ) -> Result<Tensor> {
        let (from, mut x) = (Instant::now(), vec![0.0; self.dims.iter().product()]);
        let x = self.group.call(move |c| errand(c, &mut x).map(|()| x))?;
        team.idled(from);
        Tensor::from_slice(params.device(), &x, &self.dims)
    }
}

fn host(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.to_host()?.as_slice::<f32>()?.to_vec())
}
