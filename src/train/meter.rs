//! Speed: time and work since the last logged step, evaluations and snapshots left out. What else is watched while a run goes on.

use super::metrics::Metrics;
use super::snapshot::State;
use super::{Config, Task, Team};
use crate::data::{Dataset, Loader};
use crate::error::Result;
use crate::optim::Gvc;
use crate::optim::noise::NoiseScale;
use std::time::{Duration, Instant};

/// Counts between two lines.
pub(super) struct Meter {
    started: Instant,
    excluded: f64,
    wall: f64,
    stall: f64,
    units: u64,
}

impl Meter {
    /// Starts now.
    pub(super) fn new() -> Meter {
        Meter { started: Instant::now(), excluded: 0.0, wall: 0.0, stall: 0.0, units: 0 }
    }
    /// What went before does not count.
    pub(super) fn start(&mut self) {
        self.started = Instant::now();
    }
    /// Counts tokens or samples, of all ranks.
    pub(super) fn count(&mut self, units: u64) {
        self.units += units;
    }
    /// This time was not training.
    pub(super) fn exclude(&mut self, time: Duration) {
        self.excluded += time.as_secs_f64();
    }
    /// Seconds of training so far.
    pub(super) fn wall(&self) -> f64 {
        self.wall
    }

    /// Completes a line with speed and stall since the one before.
    pub(super) fn fill(&mut self, m: &mut Metrics, task: &Task, loader: &Loader<Box<dyn Dataset>>) {
        let seconds = (self.started.elapsed().as_secs_f64() - self.excluded).max(1e-9);
        let speed = Some(self.units as f64 / seconds);
        (m.tokens_per_s, m.samples_per_s) = if task.is_tokens() { (speed, None) } else { (None, speed) };
        let stall = loader.stats().stall.as_secs_f64();
        m.stall = (stall - self.stall) / seconds;
        self.wall += seconds;
        m.wall_s = self.wall;
        *self = Meter { started: Instant::now(), excluded: 0.0, wall: self.wall, stall, units: 0 };
    }
}

/// What watches the gradients of a run: the controller of the rate and the noise scale, as a snapshot left them.
pub(super) fn watchers(
    config: &Config,
    team: &Team,
    kept: Option<&State>,
) -> Result<(Option<Gvc>, Option<NoiseScale>)> {
    let mut controller = config.controller.build()?;
    if let (Some(c), Some(kept)) = (&mut controller, kept.and_then(|s| s.controller.clone())) {
        c.restore(kept);
    }
    let mut noise = team.noise(config);
    if let (Some(n), Some(kept)) = (&mut noise, kept.and_then(|s| s.noise)) {
        n.restore(kept);
    }
    Ok((controller, noise))
}
