//! Ranks that do not wait for each other at every step.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Turn`]: what came of a turn of the loop, whoever waits for whom |
//! | `config.rs` | [`AsyncConfig`]: the keys `asynchronous.*` |
//! | `local.rs` | local SGD and DiLoCo: ranks step alone, and meet every so many steps |
//! | `outer.rs` | the step that is made of what they found |
//! | `kept.rs` | what snapshots hold of each rank |
//!
//! Ranks that train so have other weights between two *meetings*, after which all have the same. What looks at weights (an
//! evaluation, a snapshot, the comparison between ranks) waits for the next meeting, so that looking changes nothing.

mod config;
mod kept;
mod local;
mod outer;

pub use config::{AsyncConfig, Mode};
use kept::left_behind;
pub(super) use kept::{FILE, belongs};
pub(super) use local::Local;

use super::metrics::Metrics;
use super::run::Run;
use super::snapshot::Snapshot;
use super::{Config, Stop, Team};
use crate::error::{Error, Result};
use crate::optim::Optimizer;
use crate::tape::Params;

/// What came of a turn of the loop.
pub(super) struct Turn {
    /// Its line.
    pub(super) metrics: Metrics,
    /// Mean loss over the samples of this rank.
    pub(super) own: f64,
    /// The signal that asked some rank to stop. Only where all have met.
    pub(super) stop: Option<i32>,
    /// The step before it.
    pub(super) before: u64,
    /// Where all ranks have the same weights now: the last step before at which they had.
    pub(super) met: Option<u64>,
}

impl Turn {
    /// True where a multiple of `every` was passed since the turn before.
    pub(super) fn passes(&self, step: u64, every: u64) -> bool {
        passed(self.before, step, every)
    }

    /// True where all have met, for the first time since a multiple of `every`.
    pub(super) fn is_due(&self, step: u64, every: u64) -> bool {
        self.met.is_some_and(|since| passed(since, step, every))
    }
}

fn passed(since: u64, step: u64, every: u64) -> bool {
    every > 0 && step / every > since / every
}

impl Run {
    /// A step of this rank: of the whole team, or by itself, and a meeting where it is time for one.
    pub(super) fn turn(&mut self, stop: &Stop) -> Result<Turn> {
        let before = self.step;
        let done = self.one_step(stop);
        let Some(local) = &mut self.local else {
            let (metrics, own, stop) = done?;
            return Ok(Turn { metrics, own, stop, before, met: Some(before) });
        };
        let last = self.step == self.config.steps;
        local.after(&mut self.team, &mut self.params, done, before, last)
    }
}

/// True where `team` trains `config` without summing every gradient.
pub(super) fn apart(config: &Config, team: &Team) -> bool {
    config.asynchronous.mode != Mode::None && team.size() > 1
}

/// What ranks that step apart begin with, where `config` has them do so: weights and step, and what a snapshot has of each rank. Gives
/// what people should know too.
pub(super) fn begin(
    config: &mut Config,
    team: &Team,
    (params, step): (&Params, u64),
    optimizer: &mut dyn Optimizer,
    snapshot: Option<&Snapshot>,
) -> Result<(Option<Local>, Vec<String>)> {
    let idle = (config.asynchronous.mode != Mode::None && team.size() == 1).then(|| {
        let mode = config.asynchronous.mode.name();
        format!("asynchronous.mode = \"{mode}\": one rank has nobody to wait for, so it is off")
    });
    let mut told: Vec<String> = idle.into_iter().collect();
    let mut local = if team.apart { Some(Local::new(config, params, step)?) } else { None };
    match &mut local {
        Some(local) => told.extend(local.restore(config, team, optimizer, snapshot)?),
        None => told.extend(left_behind(config, snapshot)),
    }
    Ok((local, told))
}

/// Errors on an optimizer that ranks cannot have each for itself.
pub(super) fn allows(config: &Config, optimizer: &dyn Optimizer, params: &Params) -> Result<()> {
    let mode = config.asynchronous.mode;
    if mode == Mode::None {
        return Ok(());
    }
    let why = if optimizer.probes() {
        "asks for two gradients a step at weights that all ranks have"
    } else if optimizer.averaged(params)?.is_some() {
        "evaluates a mean over its steps, which ranks that step apart do not share"
    } else {
        return Ok(());
    };
    let what = format!(
        "is {}, which {why}, but asynchronous.mode is {}; take another, such as adamw or sgd, or set the mode to none",
        optimizer.name(),
        mode.name()
    );
    Err(Error::config("optimizer.name", what))
}
