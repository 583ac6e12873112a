//! The gradient noise scale (McCandlish et al. 2018) from the micro-batches of a step: how many samples a batch must have for
//! the noise of its gradient to be as large as the gradient.
//!
//! With gradients of b samples and of B samples (all of the step's micro-batches), for every step without bias:
//!
//!   |G|² ≈ (B|g_B|² − b|g_b|²)/(B − b);   tr Σ ≈ (|g_b|² − |g_B|²)/(1/b − 1/B)
//!
//! Both are averaged over steps before they are divided, since a quotient of noisy numbers has a bias; memory 0.99 a step,
//! corrected at the start. The noise scale is tr Σ/|G|². AdaScale's gain (Johnson et al. 2020) of S micro-batches is
//! (σ² + |G|²)/(σ²/S + |G|²) with σ² = tr Σ/b: how many steps of one micro-batch a step of all is worth, 1 to S.

use serde::{Deserialize, Serialize};

/// Memory of the averages.
const MEMORY: f64 = 0.99;

/// The averages, as a snapshot keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    signal: f64,
    spread: f64,
    /// 1 − memory to the power of the steps seen.
    weight: f64,
}

/// The noise scale in the making.
#[derive(Clone, Copy, Debug)]
pub struct NoiseScale {
    small: f64,
    micro: f64,
    state: State,
}

impl NoiseScale {
    /// For steps of `micro` times the `samples` samples of a part whose norm is known; None where that is the whole.
    pub fn new(samples: f64, micro: f64) -> Option<NoiseScale> {
        (micro > 1.0).then_some(NoiseScale { small: samples, micro, state: State::default() })
    }
    /// What a snapshot keeps.
    pub fn state(&self) -> State {
        self.state
    }
    /// Goes on from what a snapshot kept.
    pub fn restore(&mut self, state: State) {
        self.state = state;
    }

    /// Takes the norms of the mean gradient of one micro-batch of a step, and of all of them.
    pub fn observe(&mut self, one: f64, all: f64) {
        let (b, big) = (self.small, self.small * self.micro);
        let (one, all) = (one * one, all * all);
        let signal = (big * all - b * one) / (big - b);
        let spread = (one - all) / (1.0 / b - 1.0 / big);
        let s = &mut self.state;
        for (mean, x) in [(&mut s.signal, signal), (&mut s.spread, spread), (&mut s.weight, 1.0)] {
            *mean = MEMORY * *mean + (1.0 - MEMORY) * x;
        }
    }

    /// |G|² and tr Σ, averaged; None before the first step.
    pub fn parts(&self) -> Option<[f64; 2]> {
        let State { signal, spread, weight } = self.state;
        (weight > 0.0).then(|| [signal / weight, spread / weight])
    }
    /// tr Σ/|G|² in samples; None where noise hides the gradient altogether.
    pub fn scale(&self) -> Option<f64> {
        self.parts().filter(|[signal, spread]| *signal > 0.0 && *spread >= 0.0).map(|[g, s]| s / g)
    }
    /// AdaScale's gain.
    pub fn gain(&self) -> Option<f64> {
        let relative = self.scale()? / self.small;
        Some((relative + 1.0) / (relative / self.micro + 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn the_scale_of_a_known_gradient_is_found() {
        // 50 numbers with mean 0.2 and deviation 1 a sample: |G|² = 2, tr Σ = 50.
        let mut n = NoiseScale::new(8.0, 4.0).unwrap();
        let mut rng = Key::new(6, 6).rng();
        let mut sums = [0.0; 2];
        for _ in 0..4_000 {
            let micro: Vec<Vec<f64>> =
                (0..4).map(|_| (0..50).map(|_| 0.2 + rng.normal() / 8f64.sqrt()).collect()).collect();
            let mean: Vec<f64> = (0..50).map(|i| micro.iter().map(|m| m[i]).sum::<f64>() / 4.0).collect();
            let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
            n.observe(norm(&micro[0]), norm(&mean));
            let parts = n.parts().unwrap();
            sums = [sums[0] + parts[0] / 4_000.0, sums[1] + parts[1] / 4_000.0];
        }
        assert!((sums[0] - 2.0).abs() < 0.1 && (sums[1] - 50.0).abs() < 2.0, "{sums:?}");
        assert!((n.scale().unwrap() - 25.0).abs() < 8.0, "{n:?}");
        // σ² = 50/8 for a micro-batch: (6.25 + 2)/(6.25/4 + 2) = 2.3.
        assert!((n.gain().unwrap() - 2.3).abs() < 0.4, "{n:?}");
        assert!(NoiseScale::new(8.0, 1.0).is_none());
    }

    #[test]
    fn noise_alone_has_no_scale_and_a_gradient_alone_has_none_either() {
        let mut n = NoiseScale::new(10.0, 2.0).unwrap();
        assert_eq!((n.scale(), n.gain()), (None, None));
        n.observe(1.0, 0.5f64.sqrt()); // |g_B|² = |g_b|²/2
        assert!(n.scale().is_none_or(|s| s > 1e12));
        let mut n = NoiseScale::new(10.0, 2.0).unwrap();
        n.observe(3.0, 3.0);
        assert_eq!((n.scale(), n.gain()), (Some(0.0), Some(1.0)));
    }
}
