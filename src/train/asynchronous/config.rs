//! The keys `asynchronous.*`.

use super::super::Config;
use crate::error::{Error, Result};
use crate::optim::ControllerName;
use serde::{Deserialize, Serialize};

/// How ranks go about waiting for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// At every step: gradients are summed.
    None,
    /// Every so many steps: weights are averaged.
    LocalSgd,
    /// The same, and the mean way that ranks went is a gradient for an outer optimizer.
    Diloco,
    /// By as many steps as a bound says: each gradient makes a step of its own at a parameter server.
    Server,
}

impl Mode {
    /// True where each rank has an optimizer of its own, whose state is part of the run.
    pub fn keeps(self) -> bool {
        matches!(self, Mode::LocalSgd | Mode::Diloco)
    }

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Mode::None => "none",
            Mode::LocalSgd => "local_sgd",
            Mode::Diloco => "diloco",
            Mode::Server => "server",
        }
    }
}

/// How ranks train without waiting for each other at every step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AsyncConfig {
    /// How.
    pub mode: Mode,
    /// Steps that each rank takes by itself between two meetings (H).
    pub inner_steps: u64,
    /// Learning rate of the outer step.
    pub outer_lr: f64,
    /// Nesterov momentum of the outer step.
    pub outer_momentum: f64,
    /// Steps that the fastest rank of a parameter server may be ahead of the slowest (s).
    pub staleness: u64,
    /// At a resume, begin without what each rank had of its own: asked for once.
    pub reset: bool,
}

impl Default for AsyncConfig {
    /// The numbers of DiLoCo (Douillard et al. 2023, arXiv:2311.08105).
    fn default() -> AsyncConfig {
        AsyncConfig {
            mode: Mode::None,
            inner_steps: 500,
            outer_lr: 0.7,
            outer_momentum: 0.9,
            staleness: 8,
            reset: false,
        }
    }
}

impl AsyncConfig {
    /// Errors on values that no run can have, and on what does not go together with ranks that step apart.
    pub(in super::super) fn validate(&self, config: &Config) -> Result<()> {
        self.numbers()?;
        let bad = |key: &str, what: String| Err(Error::config(format!("asynchronous.{key}"), what));
        let mode = match self.mode {
            Mode::None => return Ok(()),
            mode => mode.name(),
        };
        if config.trace > 0 {
            let what = format!(
                "is drawn of steps that all ranks make together, but with asynchronous.mode = {mode} they do not; set it to 0"
            );
            return Err(Error::config("trace", what));
        }
        if self.mode == Mode::Server && config.device != "cpu" {
            let what = format!(
                "is {}, but a parameter server works on the CPU alone; set it to cpu, or use local_sgd or diloco",
                config.device
            );
            return Err(Error::config("device", what));
        }
        if config.micro_shards > 0 {
            let what = format!(
                "is {mode}, whose weights depend on the number of ranks, but micro_shards = {} asks for the same bits for any; \
                 set it to none, or micro_shards = 0",
                config.micro_shards
            );
            return bad("mode", what);
        }
        if config.zero > 0 {
            let what = format!(
                "is {}, which gives each rank a part of the optimizer's state, but with asynchronous.mode = {mode} each rank has an \
                 optimizer of its own; set it to 0",
                config.zero
            );
            return Err(Error::config("zero", what));
        }
        if !config.codec.is_none() {
            let what = format!(
                "is {}, but with asynchronous.mode = {mode} no gradients are sent that it could make smaller; set it to none",
                config.codec.name
            );
            return Err(Error::config("codec.name", what));
        }
        if config.controller.name != ControllerName::None {
            let what = format!(
                "is gvc, which looks at the gradient of the whole batch, but with asynchronous.mode = {mode} no rank has it; set it \
                 to none"
            );
            return Err(Error::config("controller.name", what));
        }
        Ok(())
    }

    /// Errors on values that no run can have.
    fn numbers(&self) -> Result<()> {
        let bad = |key: &str, what: String| Err(Error::config(format!("asynchronous.{key}"), what));
        if self.inner_steps == 0 {
            return bad("inner_steps", "is 0, but ranks need at least 1 step between two meetings".into());
        }
        if !(self.outer_lr > 0.0 && self.outer_lr.is_finite()) {
            return bad(
                "outer_lr",
                format!("is {}, but must be a number above 0, such as 0.7", self.outer_lr),
            );
        }
        if !(0.0..1.0).contains(&self.outer_momentum) {
            let what = format!("is {}, but must be at least 0 and below 1", self.outer_momentum);
            return bad("outer_momentum", what);
        }
        Ok(())
    }
}
