//! The learning rate as a function of the step: a linear rise over `warmup_steps`, then
//!
//!   constant: lr;   linear: from lr down to min_lr at the last step;
//!   cosine:   min_lr + (lr − min_lr)·(1 + cos πx)/2, x from 0 after the warm-up to 1 at the last step
//! (Loshchilov and Hutter 2017).

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Shape of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleName {
    /// The same rate after the warm-up.
    Constant,
    /// Half a cosine down.
    Cosine,
    /// A straight line down.
    Linear,
}

/// A schedule as the config file says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Shape.
    pub name: ScheduleName,
    /// Steps of linear rise at the start.
    pub warmup_steps: u64,
    /// Rate at the last step.
    pub min_lr: f64,
}

impl Default for ScheduleConfig {
    fn default() -> ScheduleConfig {
        ScheduleConfig { name: ScheduleName::Cosine, warmup_steps: 75, min_lr: 1e-4 }
    }
}

/// The learning rate of each step.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    name: ScheduleName,
    lr: f64,
    min_lr: f64,
    warmup: u64,
    steps: u64,
}

impl ScheduleConfig {
    /// The schedule of a run of `steps` steps with peak rate `lr`.
    pub fn build(&self, lr: f64, steps: u64) -> Result<Schedule> {
        if !(self.min_lr >= 0.0 && self.min_lr.is_finite()) {
            return Err(Error::config(
                "schedule.min_lr",
                format!("is {}, but must be 0 or more", self.min_lr),
            ));
        }
        if self.name != ScheduleName::Constant && self.min_lr > lr {
            let what = format!("is {}, which is above optimizer.lr = {lr}", self.min_lr);
            return Err(Error::config("schedule.min_lr", what));
        }
        Ok(Schedule { name: self.name, lr, min_lr: self.min_lr, warmup: self.warmup_steps, steps })
    }
}

impl Schedule {
    /// Rate of the step after `done` steps.
    pub fn lr(&self, done: u64) -> f64 {
        if done < self.warmup {
            return self.lr * (done + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup + 1).max(1);
        let x = ((done - self.warmup) as f64 / span as f64).min(1.0);
        let share = match self.name {
            ScheduleName::Constant => return self.lr,
            ScheduleName::Linear => 1.0 - x,
            ScheduleName::Cosine => (1.0 + (std::f64::consts::PI * x).cos()) / 2.0,
        };
        self.min_lr + (self.lr - self.min_lr) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_peaks_and_ends_where_it_should() {
        let c = ScheduleConfig { name: ScheduleName::Cosine, warmup_steps: 10, min_lr: 0.1 };
        let s = c.build(1.0, 101).unwrap();
        assert!(
            (s.lr(0) - 0.1).abs() < 1e-12 && (s.lr(9) - 1.0).abs() < 1e-12 && (s.lr(10) - 1.0).abs() < 1e-12
        );
        assert!((s.lr(55) - 0.55).abs() < 1e-12 && (s.lr(100) - 0.1).abs() < 1e-12);
        assert!((1..101).all(|i| i <= 10 || s.lr(i) <= s.lr(i - 1)));
        assert!(c.build(0.05, 10).unwrap_err().to_string().contains("schedule.min_lr"));
    }
}
