//! One step of the loop: batches, passes, clip, optimizer, changes of state.

use super::Stop;
use super::metrics::Metrics;
use super::pass::{Pass, all_reached, bad_gradient};
use super::run::Run;
use crate::error::{Error, Result};
use crate::optim::{self, Gvc};
use crate::tape::{Change, Grads, Params};
use std::time::Instant;

impl Run {
    /// One optimizer step over `accumulate` micro-batches. Gives its line, the loss of this rank's samples, and the signal that
    /// asked to stop.
    pub(super) fn one_step(&mut self, stop: &Stop) -> Result<(Metrics, f64, Option<i32>)> {
        let pass = Pass { config: &self.config, task: &self.task, model: &self.model, step: self.step };
        self.team.begin(self.step);
        let mut epoch = 0;
        // Kept for a second gradient, or further parts, where there will be such.
        let (mut batches, keeps) = (Vec::new(), self.optimizer.probes() || self.team.parts() > 1);
        let (loader, meter) = (&mut self.loader, &mut self.meter);
        let found = pass.whole(
            &mut self.team,
            &self.params,
            &mut self.grads,
            || stop.signal(),
            |i| {
                if let Some(batch) = batches.get(i) {
                    return Ok(Clone::clone(batch));
                }
                let batch = loader.next().unwrap_or_else(|| Err(Error::Usage("the data ended".into())))?;
                epoch = batch.epoch;
                meter.count(batch.global * self.task.units());
                batches.extend(keeps.then(|| batch.clone()));
                Ok(batch)
            },
        )?;
        if self.step == 0 {
            all_reached(&self.grads)?;
        }
        let norm = self.team.clip(&mut self.grads, &self.params, self.config.clip)?;
        if !norm.is_finite() {
            return Err(bad_gradient(self.step + 1, &self.params, &self.grads, norm));
        }
        if let (Some(noise), Some(small)) = (&mut self.noise, found.small) {
            noise.observe(small, norm);
        }
        let from = Instant::now();
        let lr = self.schedule.lr(self.step) * self.controller.as_ref().map_or(1.0, Gvc::scale);
        let (team, slope) = (&mut self.team, self.controller.is_some());
        let slope = if team.is_sharded() {
            team.advance(self.optimizer.as_mut(), &mut self.params, lr, slope)?
        } else {
            let mut probe = |w: &Params, g: &mut Grads| pass.again(team, w, g, &batches, norm);
            let how = optim::Step { lr, slope, probe: Some(&mut probe) };
            self.optimizer.advance(&mut self.params, &self.grads, how)?
        };
        self.team.mark("optimizer", from);
        // While the rate still rises, slopes say nothing of where it leads.
        let settled = self.step >= self.config.schedule.warmup_steps;
        let controller = match (&mut self.controller, slope.filter(|_| settled)) {
            (Some(controller), Some(slope)) => controller.observe(slope, found.loss),
            _ => None,
        };
        self.adopt(found.changes)?;
        self.step += 1;
        let (noise_scale, gain) = self.noise.map_or((None, None), |n| (n.scale(), n.gain()));
        let (step, loss, grad_norm) = (self.step, found.loss, norm);
        let rest = self.between_ranks()?;
        let m = Metrics { step, loss, lr, grad_norm, epoch, controller, noise_scale, gain, ..rest };
        Ok((m, found.own, found.stop))
    }

    /// What went between ranks in the step that is over, and what they do from now on.
    fn between_ranks(&mut self) -> Result<Metrics> {
        let traffic = self.team.traffic(&self.config);
        let bytes_sent = traffic.map(|t| t.sent);
        let coded = traffic.filter(|_| !self.config.codec.is_none());
        let compression = coded.map(|t| t.dense / t.sent as f64);
        Ok(Metrics { bytes_sent, compression, balance: self.balance()?, ..Metrics::default() })
    }

    /// Makes the changes of state that a step asked for.
    fn adopt(&mut self, changes: Vec<Change>) -> Result<()> {
        if let Some(apart) = &mut self.apart {
            apart.saw(&changes, &self.params)?;
        }
        changes.iter().try_for_each(|change| self.params.set(change.slot, &change.value))
    }
}
