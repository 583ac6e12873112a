//! Ranks that do not wait for each other at every step.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | `Turn`: what came of a turn of the loop, whoever waits for whom |
//! | `config.rs` | [`AsyncConfig`]: the keys `asynchronous.*` |
//! | `local.rs` | local SGD and DiLoCo: ranks step alone, and meet every so many steps |
//! | `outer.rs` | the step that is made of what they found |
//! | `central.rs` | a parameter server: its weights, and who may go on |
//! | `server.rs`, `wire.rs` | its threads; what goes between it and ranks |
//! | `served.rs` | a rank of it |
//! | `kept.rs` | what snapshots hold of each rank |
//!
//! Ranks that train so have other weights between two *meetings*, after which all have the same. What looks at weights (an
//! evaluation, a snapshot, the comparison between ranks) waits for the next meeting, so that looking changes nothing.

mod central;
mod config;
mod kept;
mod local;
mod outer;
mod served;
mod server;
mod wire;

pub use config::{AsyncConfig, Mode};
use kept::left_behind;
pub(super) use kept::{FILE, belongs};
use local::Local;
use served::Served;

use super::metrics::Metrics;
use super::run::Run;
use super::snapshot::Snapshot;
use super::{Config, Stop, Team};
use crate::error::{Error, Result};
use crate::optim::Optimizer;
use crate::tape::{Change, Params, Role};

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
        if let Some(Apart::Served(served)) = &mut self.apart {
            served.begin(&mut self.optimizer, stop.signal());
        }
        let done = self.one_step(stop);
        match &mut self.apart {
            None => {
                let (metrics, own, stop) = done?;
                Ok(Turn { metrics, own, stop, before, met: Some(before) })
            }
            Some(Apart::Local(local)) => {
                let last = self.step == self.config.steps;
                local.after(&mut self.team, &mut self.params, done, before, last)
            }
            Some(Apart::Served(served)) => {
                let turn = served.after(&mut self.optimizer, done, before)?;
                self.step = turn.metrics.step;
                Ok(turn)
            }
        }
    }
}

/// Ranks that step apart.
pub(super) enum Apart {
    /// Each by itself, until all meet.
    Local(Local),
    /// Each when it can, by a parameter server.
    Served(Served),
}

impl Apart {
    /// A step asks for these changes of state.
    pub(super) fn saw(&mut self, changes: &[Change], params: &Params) -> Result<()> {
        match self {
            Apart::Local(local) => local.saw(changes),
            Apart::Served(served) => served.saw(changes, params)?,
        }
        Ok(())
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
    optimizer: &mut Box<dyn Optimizer>,
    snapshot: Option<&Snapshot>,
) -> Result<(Option<Apart>, Vec<String>)> {
    let idle = (config.asynchronous.mode != Mode::None && team.size() == 1).then(|| {
        let mode = config.asynchronous.mode.name();
        format!("asynchronous.mode = \"{mode}\": one rank has nobody to wait for, so it is off")
    });
    let mut told: Vec<String> = idle.into_iter().collect();
    let apart = match config.asynchronous.mode {
        mode if mode.keeps() && team.apart => {
            let mut local = Local::new(config, params, step)?;
            told.extend(local.restore(config, team, optimizer.as_mut(), snapshot)?);
            Some(Apart::Local(local))
        }
        mode => {
            told.extend(left_behind(config, snapshot));
            let served = mode == Mode::Server && team.apart;
            if served {
                Some(Apart::Served(Served::new(config, team, (params, step), optimizer)?))
            } else {
                None
            }
        }
    };
    Ok((apart, told))
}

/// Errors on an optimizer that ranks cannot have each for itself.
pub(super) fn allows(config: &Config, optimizer: &dyn Optimizer, params: &Params) -> Result<()> {
    let mode = config.asynchronous.mode;
    if mode == Mode::None {
        return Ok(());
    }
    let state = params.slots().iter().find(|s| s.role == Role::State);
    if let (Mode::Server, Some(state), true) = (mode, state, config.freeze.is_empty()) {
        return Err(changes(&state.name));
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

/// The error of a model whose state `name` changes in training, of which a parameter server hears nothing.
fn changes(name: &str) -> Error {
    let what = format!(
        "is server, but the model changes its state `{name}` in training, of which a parameter server hears nothing; use local_sgd \
         or diloco, or another model"
    );
    Error::config("asynchronous.mode", what)
}
