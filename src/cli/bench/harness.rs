//! Cases that take turns.

use crate::error::Result;
use std::time::{Duration, Instant};

/// Something to be measured. A run gives the time of the part that counts, so that preparation is left out.
pub struct Case<'a> {
    /// Which code.
    pub name: String,
    /// On what input.
    pub what: String,
    /// Elements that a run makes, for time an element; 0 when that says nothing.
    pub elements: f64,
    /// Bytes of the operands that a run must read and write at least; 0 when that says nothing.
    pub bytes: f64,
    /// Floating-point operations of a run; 0 when that says nothing.
    pub flops: f64,
    /// Runs once.
    pub run: Box<dyn FnMut() -> Result<Duration> + 'a>,
    /// Most bytes that a run held beside its inputs so far, where that is counted.
    pub memory: Option<Box<dyn Fn() -> usize + 'a>>,
}

impl<'a> Case<'a> {
    /// A case whose whole run counts.
    pub fn timed(name: &str, what: &str, mut body: impl FnMut() -> Result<()> + 'a) -> Case<'a> {
        let run = move || {
            let start = Instant::now();
            body()?;
            Ok(start.elapsed())
        };
        Case {
            name: name.into(),
            what: what.into(),
            elements: 0.0,
            bytes: 0.0,
            flops: 0.0,
            run: Box::new(run),
            memory: None,
        }
    }
}

/// What was measured of a case, in seconds a run.
#[derive(Clone, Debug, serde::Serialize)]
#[allow(missing_docs)] // as in Case
pub struct Timing {
    pub name: String,
    pub what: String,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: usize,
    pub elements: f64,
    pub bytes: f64,
    pub flops: f64,
    /// Absent where it was not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<usize>,
}

/// A turn lasts at least this long: shorter runs are repeated in it, since a clock reading costs some 30 ns.
const TURN: Duration = Duration::from_millis(1);
/// Rounds at least and at most: a median of fewer says little, more say nothing new.
const ROUNDS: [usize; 2] = [5, 500];

/// Runs all cases in turn, round after round, about `seconds` for each. Two rounds before the first that counts warm
/// caches, pools and clocks, and tell how often a run is repeated in a turn.
pub fn measure(mut cases: Vec<Case<'_>>, seconds: f64) -> Result<Vec<Timing>> {
    let mut repeat = vec![1; cases.len()];
    for (case, repeat) in cases.iter_mut().zip(&mut repeat) {
        (case.run)()?;
        // By the clock on the wall: a case that counts a part of what it does is not repeated for that.
        let start = Instant::now();
        (case.run)()?;
        let once = start.elapsed().max(Duration::from_nanos(1));
        *repeat = (TURN.as_secs_f64() / once.as_secs_f64()).ceil().clamp(1.0, 10_000.0) as u32;
    }
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    let mut spent = vec![0.0; cases.len()];
    let wants =
        |times: &[f64], spent: f64| times.len() < ROUNDS[0] || (spent < seconds && times.len() < ROUNDS[1]);
    while (0..cases.len()).any(|i| wants(&times[i], spent[i])) {
        for (i, case) in cases.iter_mut().enumerate() {
            if !wants(&times[i], spent[i]) {
                continue;
            }
            let wall = Instant::now();
            let mut sum = Duration::ZERO;
            for _ in 0..repeat[i] {
                sum += (case.run)()?;
            }
            times[i].push(sum.as_secs_f64() / f64::from(repeat[i]));
            spent[i] += wall.elapsed().as_secs_f64();
        }
    }
    Ok(cases.into_iter().zip(times).map(|(case, times)| summary(case, times)).collect())
}

fn summary(case: Case<'_>, mut times: Vec<f64>) -> Timing {
    times.sort_by(f64::total_cmp);
    let n = times.len();
    let median = (times[(n - 1) / 2] + times[n / 2]) / 2.0;
    Timing {
        name: case.name,
        what: case.what,
        median,
        min: times[0],
        max: times[n - 1],
        rounds: n,
        elements: case.elements,
        bytes: case.bytes,
        flops: case.flops,
        memory: case.memory.map(|m| m()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn cases_take_turns_and_the_median_ignores_an_outlier() {
        let log = RefCell::new(Vec::new());
        let case = |name: &'static str, times: &'static [u64]| {
            let (log, mut n) = (&log, 0);
            let run = move || {
                log.borrow_mut().push(name);
                std::thread::sleep(2 * TURN); // so that a turn is one run
                n += 1;
                Ok(Duration::from_millis(times[n % times.len()]))
            };
            Case { run: Box::new(run), ..Case::timed(name, "", || Ok(())) }
        };
        let cases = vec![case("a", &[2, 2, 2, 900, 2]), case("b", &[7])];
        let t = measure(cases, 1e-9).unwrap();
        assert_eq!(log.borrow()[4..8], ["a", "b", "a", "b"]);
        assert_eq!((t[0].median, t[0].max, t[0].rounds), (0.002, 0.9, 5));
        assert_eq!((t[1].name.as_str(), t[1].min), ("b", 0.007));
    }
}
