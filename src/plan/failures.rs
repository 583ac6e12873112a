//! How often to save, and what failures leave of the time (Young 1974, Daly 2006).
//!
//! Failures come at random with a mean of M seconds between them. A snapshot takes δ, and so long nothing else is done; after a failure
//! it takes R until work goes on from the last one. To work for τ between snapshots takes, on average (Daly 2006, equation 13),
//!
//! ```text
//! M e^(R/M) (e^((τ+δ)/M) − 1)
//! ```

use serde::Serialize;

/// What failures cost a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Failures {
    /// Mean seconds between failures of any device.
    pub mtbf: f64,
    /// Seconds that a snapshot takes.
    pub snapshot: f64,
    /// Seconds from a failure until work goes on.
    pub restart: f64,
    /// Seconds of work between snapshots, at best; infinite where nothing fails.
    pub interval: f64,
    /// Share of the time that is work which stays.
    pub goodput: f64,
}

impl Failures {
    /// With the interval that leaves most.
    pub fn new(mtbf: f64, snapshot: f64, restart: f64) -> Failures {
        let interval = interval(mtbf, snapshot);
        Failures { mtbf, snapshot, restart, interval, goodput: goodput(mtbf, snapshot, restart, interval) }
    }
}

/// Young's interval, for snapshots that take little of M.
pub fn young(mtbf: f64, snapshot: f64) -> f64 {
    (2.0 * snapshot * mtbf).sqrt()
}

/// Daly's interval of higher order.
pub fn daly(mtbf: f64, snapshot: f64) -> f64 {
    let x = snapshot / (2.0 * mtbf);
    match x < 1.0 {
        true => young(mtbf, snapshot) * (1.0 + x.sqrt() / 3.0 + x / 9.0) - snapshot,
        false => mtbf,
    }
}

// ANCHOR: interval
/// The interval that is best of all: where x = τ/M solves (1 − x)eˣ = e^(−δ/M), which both approximate.
pub fn interval(mtbf: f64, snapshot: f64) -> f64 {
    if mtbf.is_infinite() || snapshot <= 0.0 {
        return if mtbf.is_infinite() { f64::INFINITY } else { 0.0 };
    }
    // The left side falls from 1 to 0 as x goes from 0 to 1.
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..100 {
        let x = 0.5 * (low + high);
        // 1 − (1 − x)eˣ and 1 − e^(−δ/M), each without what cancels.
        let left = x * x.exp() - x.exp_m1();
        if left < -(-snapshot / mtbf).exp_m1() { low = x } else { high = x }
    }
    mtbf * high
}

/// Share of the time that is work which stays.
pub fn goodput(mtbf: f64, snapshot: f64, restart: f64, interval: f64) -> f64 {
    if mtbf.is_infinite() {
        return 1.0;
    }
    let lost = (-restart / mtbf).exp();
    if interval == 0.0 {
        return lost; // snapshots that cost nothing are taken always
    }
    interval / mtbf * lost / ((interval + snapshot) / mtbf).exp_m1()
}
// ANCHOR_END: interval

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_snapshots_are_short_young_and_daly_are_right() {
        for ratio in [1e-8, 1e-6, 1e-4, 1e-2] {
            let (mtbf, snapshot) = (1e5, 1e5 * ratio);
            let best = interval(mtbf, snapshot);
            assert!((young(mtbf, snapshot) / best - 1.0).abs() < 1.5 * f64::sqrt(ratio), "{ratio}: {best}");
            assert!((daly(mtbf, snapshot) / best - 1.0).abs() < ratio, "{ratio}: {best}");
        }
        assert_eq!(young(5e4, 1.0).round(), 316.0);
        assert_eq!(daly(1.0, 3.0), 1.0);
    }

    #[test]
    fn no_other_interval_leaves_more() {
        for (mtbf, snapshot, restart) in [(1e4, 10.0, 60.0), (500.0, 100.0, 300.0), (30.0, 60.0, 0.0)] {
            let f = Failures::new(mtbf, snapshot, restart);
            for other in [0.5, 0.9, 0.99, 1.01, 1.1, 2.0] {
                assert!(goodput(mtbf, snapshot, restart, f.interval * other) < f.goodput, "{f:?}, {other}");
            }
        }
    }

    /// Runs with failures drawn at random take what the formula says.
    #[test]
    fn the_formula_is_what_happens() {
        let (mtbf, snapshot, restart) = (1000.0, 20.0, 50.0);
        let f = Failures::new(mtbf, snapshot, restart);
        let mut rng = crate::rng::Key::named(1, "failures").rng();
        let mut draw = || -mtbf * (1.0 - rng.uniform()).ln();
        let (mut time, segments) = (0.0, 40_000);
        for _ in 0..segments {
            // A failure may strike while ranks come back, too.
            let mut todo = f.interval + snapshot;
            let mut next = draw();
            while next < todo {
                time += next;
                todo = restart + f.interval + snapshot;
                next = draw();
                while next < restart {
                    time += next;
                    next = draw();
                }
            }
            time += todo;
        }
        let seen = segments as f64 * f.interval / time;
        assert!((seen / f.goodput - 1.0).abs() < 0.01, "{seen}, {}", f.goodput);
    }

    #[test]
    fn more_failures_are_never_better() {
        let mut last = 1.0;
        assert_eq!(Failures::new(f64::INFINITY, 10.0, 60.0).goodput, 1.0);
        for mtbf in [1e9, 1e7, 1e5, 1e4, 1e3, 100.0, 10.0] {
            let f = Failures::new(mtbf, 10.0, 60.0);
            assert!(f.goodput < last && f.goodput > 0.0, "{f:?}");
            last = f.goodput;
        }
    }
}
