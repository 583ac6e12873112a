//! The gradient-variance controller: it lowers a learning rate when the noise of gradients has taken over, with no horizon
//! and no state of its own beside the weights.
//!
//! At each step the optimizer gives the slope of the loss along its last update, d = Σ u·g, with u what that update
//! subtracted and g the gradient of a batch that it has not seen. Once the weights only wander about a place, because the
//! rate is too large for the noise, the last step went too far as often as not, or more often. That alone does not tell: in a
//! valley with steep walls nearly every step goes too far across it while all of them go down along it. So the loss of each
//! batch counts too: the controller cuts when the slopes of a window cannot be told from zero any more, or are negative,
//! and the losses of that window do not surely fall.
//!
//! A window is [`ControllerConfig::window`] blocks of b steps each; the slopes of a block are summed, and so are its losses.
//! Of the slopes it takes Wilcoxon's signed-rank statistic, scaled to z: without trend z is normal with deviation 1, and its
//! largest value, where every sum is positive, is √(3n)/2 for n blocks. Of the losses it takes Spearman's correlation with
//! time, scaled in the same way and positive where they fall: f, at most √(n − 1). If z < threshold and f < fall at the end
//! of a window, the rate is cut by `factor`. A fifth, two, three and four fifths through it, both below −3 is enough: a rate
//! at which losses surely rise is found early. Then a new window begins.
//!
//! - **No decision depends on the scale of the loss**: ranks do not.
//! - **Noiseless descent is never cut**: every slope is positive then, however fast they shrink, and every loss the least so
//!   far. (The mean of slopes over their deviation, which is the usual statistic, is no more than √((1 + r²)/(1 − r²)) where
//!   gradients shrink by r a step: a threshold of 1 to 2 takes fast descent for noise.)
//! - **Pure noise is cut as 1/t**: b grows as the rate falls, 1/scale steps to a block, because a smaller rate takes that many
//!   more steps to show where it leads. So where every window ends in a cut, the rate falls as 1/t: Robbins and Monro's
//!   condition holds (the rates have an infinite sum, their squares a finite one), where windows of one length would make it
//!   fall exponentially and stop training.
//!
//! With schedule-free AdamW the slope is that along the way from the mean to the newest iterate, which noise makes negative
//! from early on: there the losses decide, those at the weights in training.
//!
//! `raise` lets the rate grow too, while the slopes of whole windows are surely positive. It helps where the rate begins far
//! too low; without noise it leads to the edge of stability, where cuts begin, so it is off unless asked for.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What changes the learning rate beside the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControllerName {
    /// Nothing.
    None,
    /// The gradient-variance controller.
    Gvc,
}

/// A controller as the config file says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControllerConfig {
    /// Which.
    pub name: ControllerName,
    /// Blocks of a window; a block is a step until the first cut.
    pub window: u64,
    /// z at the end of a window below which the rate is cut.
    pub threshold: f64,
    /// What a cut multiplies the rate by.
    pub factor: f64,
    /// z at the end of a window above which the rate is raised, by 1/factor; 0: never.
    pub raise: f64,
    /// How surely the losses of a window fell, in standard deviations, below which the rate is cut.
    pub fall: f64,
}

impl Default for ControllerConfig {
    fn default() -> ControllerConfig {
        ControllerConfig {
            name: ControllerName::None,
            window: 100,
            threshold: 0.0,
            factor: 0.7,
            raise: 0.0,
            fall: 2.0,
        }
    }
}

/// Looks at a window, the last at its end.
const LOOKS: u64 = 5;
/// What both statistics must be below for a look before the last to cut.
const SURE: f64 = -3.0;
/// Fewest and most blocks of a window.
const WINDOWS: std::ops::RangeInclusive<u64> = 20..=10_000;

impl ControllerConfig {
    /// The controller that this says; None for none.
    pub fn build(&self) -> Result<Option<Gvc>> {
        let bad = |key: &str, what: String| Err(Error::config(format!("controller.{key}"), what));
        if !WINDOWS.contains(&self.window) {
            let (least, most) = (WINDOWS.start(), WINDOWS.end());
            return bad("window", format!("is {}, but must be {least} to {most}", self.window));
        }
        if !(self.factor > 0.0 && self.factor < 1.0) {
            return bad("factor", format!("is {}, but must be above 0 and below 1", self.factor));
        }
        // All slopes positive must never cut.
        let most = (3.0 * self.window as f64).sqrt() / 2.0;
        if self.threshold.is_nan() || self.threshold.abs() >= most {
            let what =
                format!("is {}, but z of {} blocks lies within ±{most:.2}", self.threshold, self.window);
            return bad("threshold", what);
        }
        if self.fall.is_nan() {
            return bad("fall", "is NaN, but must be a number, such as 1".into());
        }
        if self.raise != 0.0 && !(self.raise > self.threshold && self.raise.is_finite()) {
            let what = format!("is {}, but must be above controller.threshold, or 0 for never", self.raise);
            return bad("raise", what);
        }
        let state =
            State { scale: 1.0, block: 1, filled: 0, sum: 0.0, sums: vec![], loss: 0.0, losses: vec![] };
        Ok((self.name == ControllerName::Gvc).then(|| Gvc { config: self.clone(), state }))
    }
}

/// What a controller decided at the end of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// How surely the slopes of the window were positive, in standard deviations.
    pub z: f64,
    /// How surely its losses fell, in standard deviations.
    #[serde(default)]
    pub fall: f64,
    /// Steps of the window.
    pub steps: u64,
    /// True when the rate was cut.
    pub cut: bool,
    /// What multiplies the schedule's rate from now on.
    pub scale: f64,
}

/// What a controller remembers: a few numbers, saved in snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    scale: f64,
    /// Steps of a block.
    block: u64,
    /// Steps of the block in the making, and their sum.
    filled: u64,
    sum: f64,
    /// Sums of the blocks of this window that are complete.
    sums: Vec<f64>,
    /// The same of losses; a snapshot of 0.1 has none.
    #[serde(default)]
    loss: f64,
    #[serde(default)]
    losses: Vec<f64>,
}

/// The controller.
#[derive(Clone, Debug)]
pub struct Gvc {
    config: ControllerConfig,
    state: State,
}

impl Gvc {
    /// What multiplies the schedule's rate.
    pub fn scale(&self) -> f64 {
        self.state.scale
    }
    /// What a snapshot keeps.
    pub fn state(&self) -> &State {
        &self.state
    }
    /// Goes on from what a snapshot kept.
    pub fn restore(&mut self, state: State) {
        self.state = state;
        let s = &mut self.state;
        if s.losses.len() != s.sums.len() {
            // Slopes without their losses: the window begins anew.
            (s.sum, s.filled, s.loss) = (0.0, 0, 0.0);
            s.sums.clear();
            s.losses.clear();
        }
    }

    /// Takes the slope of one step and the loss of its batch; at the end of a window, or of a look that is sure, says what was
    /// decided.
    pub fn observe(&mut self, slope: f64, loss: f64) -> Option<Decision> {
        let s = &mut self.state;
        s.sum += slope;
        s.loss += loss;
        s.filled += 1;
        if s.filled < s.block {
            return None;
        }
        s.sums.push(s.sum);
        s.losses.push(s.loss);
        (s.sum, s.loss, s.filled) = (0.0, 0.0, 0);
        let (count, window) = (s.sums.len() as u64, self.config.window);
        let whole = count == window;
        if !whole && !count.is_multiple_of((window / LOOKS).max(1)) {
            return None;
        }
        let z = signed_rank(&s.sums);
        let fall = falling(&s.losses);
        let (least, falls) = if whole { (self.config.threshold, self.config.fall) } else { (SURE, SURE) };
        let cut = z < least && fall < falls;
        if !(whole || cut) {
            return None;
        }
        let steps = count * s.block;
        s.sums.clear();
        s.losses.clear();
        let raised = !cut && self.config.raise > 0.0 && z > self.config.raise;
        if cut || raised {
            s.scale *= if cut { self.config.factor } else { 1.0 / self.config.factor };
            s.block = (1.0 / s.scale).round().max(1.0) as u64;
        }
        Some(Decision { z, fall, steps, cut, scale: s.scale })
    }
}

/// How surely `x` falls: Spearman's correlation of its values with their places, times −√(n − 1), which is normal with
/// deviation 1 where there is no trend. Equal values share their ranks.
fn falling(x: &[f64]) -> f64 {
    let n = x.len() as f64;
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&i, &j| x[i].total_cmp(&x[j]));
    let middle = (n - 1.0) / 2.0;
    let (mut both, mut ranks, mut first) = (0.0, 0.0, 0);
    for run in order.chunk_by(|&i, &j| x[i] == x[j]) {
        let rank = first as f64 + (run.len() as f64 - 1.0) / 2.0 - middle;
        both += run.iter().map(|&i| rank * (i as f64 - middle)).sum::<f64>();
        ranks += run.len() as f64 * rank * rank;
        first += run.len();
    }
    let places = n * (n * n - 1.0) / 12.0;
    if ranks > 0.0 { -both / (ranks * places).sqrt() * (n - 1.0).sqrt() } else { 0.0 }
}

/// Wilcoxon's signed-rank statistic of `x` over its deviation where the signs are those of a fair coin. Zeros are left out,
/// equal sizes share their ranks. Where every number is 0 nothing is left to learn from, nor to cut: the largest z.
fn signed_rank(x: &[f64]) -> f64 {
    let mut order: Vec<f64> = x.iter().copied().filter(|x| *x != 0.0 && !x.is_nan()).collect();
    if order.is_empty() {
        return (3.0 * x.len() as f64).sqrt() / 2.0;
    }
    order.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut first = 0;
    for run in order.chunk_by(|a, b| a.abs() == b.abs()) {
        // Ranks first + 1 to first + n, on average:
        let rank = first as f64 + (run.len() + 1) as f64 / 2.0;
        for x in run {
            sum += rank * x.signum();
            squares += rank * rank;
        }
        first += run.len();
    }
    sum / squares.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_ranks_with_ties_and_zeros() {
        // By numpy: corrcoef of mean ranks with places, and mean ranks of sizes with their signs.
        assert!((falling(&[5.0, 3.0, 4.0, 4.0, 1.5, 2.0, 2.0, 0.0]) - 2.231518495721684).abs() < 1e-12);
        assert!((signed_rank(&[0.5, -1.0, 2.0, 2.0, -2.0, 0.0, 3.0]) - 0.953998092005724).abs() < 1e-12);
    }

    #[test]
    fn statistics_reach_their_largest_values_and_no_trend_is_zero() {
        let down: Vec<f64> = (0..50).map(|i| (-i as f64).exp()).collect();
        let up: Vec<f64> = down.iter().rev().copied().collect();
        assert!((falling(&down) - 7.0).abs() < 1e-12 && (falling(&up) + 7.0).abs() < 1e-12);
        assert_eq!(falling(&[2.0; 50]), 0.0);
        // Distinct sizes: n(n + 1)/2 over the root of n(n + 1)(2n + 1)/6, just below √(3n)/2.
        assert!((signed_rank(&down) - 1275.0 / 42925f64.sqrt()).abs() < 1e-12);
        assert_eq!(signed_rank(&[0.0; 12]), 3.0);
    }
}
