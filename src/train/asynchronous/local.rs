//! Local SGD and DiLoCo: each rank steps with its own optimizer on its own share of each batch, and nothing is sent. Every H
//! steps all meet: the way of each from the weights that all had, w − w_r, is averaged with its targets as weights, and the outer
//! step makes of the mean the weights that all have next. Optimizers keep what they remember.

use super::super::agree::{first_words, letter};
use super::super::metrics::Metrics;
use super::super::{Config, Team};
use super::Turn;
use super::config::Mode;
use super::outer::Outer;
use crate::comm::{Communicator, Reduce};
use crate::error::{Error, Result};
use crate::tape::{Change, Merge, Params, Role, Slot};
use crate::tensor::Tensor;
use std::time::Instant;

/// What a rank remembers between two meetings.
pub(in super::super) struct Local {
    pub(super) mode: Mode,
    outer: Outer,
    inner_steps: u64,
    /// The weights that all ranks had at the last meeting, by segment.
    common: Vec<Vec<f32>>,
    /// v of the outer step, by segment; of states none.
    pub(super) momentum: Vec<Vec<f32>>,
    /// States that are merged as the largest.
    tops: Vec<Slot>,
    /// The step of the last meeting.
    met: u64,
    /// The signal that asked this rank to stop.
    wish: Option<i32>,
}

impl Local {
    /// Ranks that have `params` at `step`.
    pub(in super::super) fn new(config: &Config, params: &Params, step: u64) -> Result<Local> {
        let own = &config.asynchronous;
        let (lr, momentum) = match own.mode {
            Mode::Diloco => (own.outer_lr as f32, own.outer_momentum as f32),
            _ => (1.0, 0.0),
        };
        let common = host(params)?;
        let zeros = |(x, s): (&Vec<f32>, &crate::tape::SegmentInfo)| {
            vec![0.0; if s.role == Role::State { 0 } else { x.len() }]
        };
        let v = common.iter().zip(params.segments()).map(zeros).collect();
        let (mode, outer, inner_steps) = (own.mode, Outer { lr, momentum }, own.inner_steps);
        Ok(Local { mode, outer, inner_steps, common, momentum: v, tops: vec![], met: step, wish: None })
    }

    /// A step changes these states.
    pub(in super::super) fn saw(&mut self, changes: &[Change]) {
        for change in changes {
            if change.merge == Merge::Largest && !self.tops.contains(&change.slot) {
                self.tops.push(change.slot);
            }
        }
    }

    /// Ends a step of this rank, the one after `before`, which is the last of all where `last` says so. A rank in trouble goes to
    /// the meeting at once: the others hear of it when they come.
    pub(in super::super) fn after(
        &mut self,
        team: &mut Team,
        params: &mut Params,
        done: Result<(Metrics, f64, Option<i32>)>,
        before: u64,
        last: bool,
    ) -> Result<Turn> {
        let (mut metrics, own, wish) = match done {
            Ok(done) => done,
            Err(Error::Numeric { step, what }) => {
                let mine = format!("at step {step}: {what}");
                return Err(self.meet(team, params, &mut Metrics::default(), Some(mine)).err().unwrap_or(
                    // Not reached: a meeting with trouble has an error.
                    Error::Numeric { step, what },
                ));
            }
            Err(e) => return Err(e),
        };
        self.wish = self.wish.or(wish);
        if !last && !metrics.step.is_multiple_of(self.inner_steps) {
            metrics.bytes_sent = Some(0);
            return Ok(Turn { metrics, own, stop: None, before, met: None });
        }
        let stop = self.meet(team, params, &mut metrics, None)?;
        let met = Some(std::mem::replace(&mut self.met, metrics.step));
        Ok(Turn { metrics, own, stop, before, met })
    }

    /// All ranks get the same weights. Gives the signal that asked one of them to stop; `m` gets the loss of the whole batch and
    /// what was sent.
    ///
    /// # Errors
    /// On all ranks, where one is in `trouble`.
    fn meet(
        &mut self,
        team: &mut Team,
        params: &mut Params,
        m: &mut Metrics,
        trouble: Option<String>,
    ) -> Result<Option<i32>> {
        let targets = std::mem::take(&mut team.counted);
        let wish = f64::from(self.wish.take().unwrap_or(0));
        let from = Instant::now();
        let mine = [targets, m.loss, wish, f64::from(u8::from(trouble.is_some()))];
        let all = every(team, mine.to_vec())?;
        team.idled(from);
        let of = |k: usize| all.iter().skip(k).step_by(4).copied();
        if of(3).any(|flag| flag > 0.0) {
            return Err(self.trouble(team, m.step, trouble)?);
        }
        let total: f64 = of(0).sum();
        let share = |n: f64| if total > 0.0 { n / total } else { 1.0 / team.size() as f64 };
        m.loss = of(0).zip(of(1)).map(|(n, loss)| share(n) * loss).sum();
        let sent = self.average(team, params, share(targets))?;
        let steps = (m.step - self.met) as f64;
        let dense = 2.0 * (1.0 - 1.0 / team.size() as f64) * (params.trained_len() * size_of::<f32>()) as f64;
        (m.bytes_sent, m.compression) = (Some(sent), Some(steps * dense / sent as f64));
        Ok(of(2).find(|signal| *signal > 0.0).map(|signal| signal as i32))
    }

    /// Makes the outer step, of which this rank's part counts `share`. Gives the bytes that it sent.
    fn average(&mut self, team: &mut Team, params: &mut Params, share: f64) -> Result<u64> {
        let tops = self.tops(team, params)?;
        // ANCHOR: meet
        let mut way: Vec<Vec<f32>> = host(params)?;
        for (x, common) in way.iter_mut().zip(&self.common) {
            x.iter_mut().zip(common).for_each(|(x, w)| *x = share as f32 * (w - *x));
        }
        let (way, sent) = call(team, move |c| {
            let before = c.sent();
            way.iter_mut().filter(|x| !x.is_empty()).try_for_each(|x| c.all_reduce(x, Reduce::Sum))?;
            Ok((way, c.sent() - before))
        })?;
        for (i, delta) in way.iter().enumerate() {
            let w = &mut self.common[i];
            match params.segments()[i].role {
                Role::State => w.iter_mut().zip(delta).for_each(|(w, d)| *w -= d),
                _ => self.outer.step(w, &mut self.momentum[i], delta),
            }
            params.segment_mut(i).write_bytes(0, bytemuck::cast_slice(w))?;
        }
        // ANCHOR_END: meet
        for (slot, value) in tops {
            params.set(slot, &value)?;
            let (info, value) = (params.info(slot).clone(), value.to_host()?);
            let at = &mut self.common[info.segment][info.offset..][..value.len()];
            at.copy_from_slice(value.as_slice::<f32>()?);
        }
        Ok(sent)
    }

    /// The largest over ranks of states that are merged so.
    fn tops(&self, team: &Team, params: &Params) -> Result<Vec<(Slot, Tensor)>> {
        let one = |&slot: &Slot| {
            let t = params.get(slot);
            let mut x = t.to_f64()?;
            let x = call(team, move |c| c.all_reduce(&mut x, Reduce::Max).map(|()| x))?;
            Ok((slot, Tensor::from_f64(t.device(), t.dtype(), &x, t.dims())?))
        };
        self.tops.iter().map(one).collect()
    }

    /// The error that all ranks end with: that of the first rank in trouble.
    fn trouble(&self, team: &Team, step: u64, mine: Option<String>) -> Result<Error> {
        let found = first_words(&every(team, letter(mine))?);
        let what = found.map_or_else(String::new, |(rank, text)| format!("rank {rank}: {text}"));
        Ok(Error::Numeric { step: step.max(self.met + 1), what })
    }
}

/// The weights and states, by segment.
fn host(params: &Params) -> Result<Vec<Vec<f32>>> {
    let one = |i| Ok(params.segment(i).to_host()?.as_slice::<f32>()?.to_vec());
    (0..params.segments().len()).map(one).collect()
}

/// A call of the ranks that train one model.
fn call<R: Send + 'static>(
    team: &Team,
    errand: impl FnOnce(&mut Communicator) -> Result<R> + Send + 'static,
) -> Result<R> {
    match &team.data {
        Some(data) => data.call(errand),
        None => Err(Error::Usage("there is no other rank to meet".into())),
    }
}

/// The records of all ranks, one after the other. A rank may be late by a whole round.
fn every<T: crate::tensor::Element + Default>(team: &Team, mine: Vec<T>) -> Result<Vec<T>> {
    let size = team.size();
    team.patiently(move |c| {
        let mut all = vec![T::default(); size * mine.len()];
        c.all_gather(&mine, &mut all).map(|()| all)
    })
}
