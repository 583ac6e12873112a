//! A pipeline, played event by event: 1F1B (Narayanan et al. 2019, Fan et al. 2021).
//!
//! A stage does a few forwards until its first gradient can come, then one forward and one backward in turns, then the
//! backwards that are left. So stage r of p holds the activations of at most p − r micro-batches, however many there are.

/// Seconds of each stage for a micro-batch, and between stages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pipeline {
    /// Forward, by stage.
    pub forward: Vec<f64>,
    /// Backward, by stage.
    pub backward: Vec<f64>,
    /// From stage r to r + 1, and a gradient's way back; nobody computes less meanwhile.
    pub transfer: Vec<f64>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// When the last backward ended, which is the first stage's.
    pub end: f64,
    /// When each stage ended.
    pub ends: Vec<f64>,
    /// Micro-batches whose activations a stage held at once, at most.
    pub peaks: Vec<usize>,
}

impl Schedule {
    /// Share of the time in which stages of equal length had nothing to do.
    pub fn bubble(&self, busy: f64) -> f64 {
        1.0 - busy / self.end
    }
}

/// How far a stage has come.
#[derive(Clone, Default)]
struct Progress {
    forwards: usize,
    backwards: usize,
    free_at: f64,
    peak: usize,
}

impl Pipeline {
    /// Stages.
    pub fn stages(&self) -> usize {
        self.forward.len()
    }

    /// A time that no schedule of `m` micro-batches beats: a stage has m of them to do, the first must come to it, the last
    /// gradient must go back.
    pub fn bound(&self, m: usize) -> f64 {
        let (mut before, mut bound) = (0.0, 0.0f64);
        for r in 0..self.stages() {
            let work = self.forward[r] + self.backward[r];
            bound = bound.max(before + m as f64 * work);
            before += work + 2.0 * self.transfer.get(r).copied().unwrap_or(0.0);
        }
        bound
    }

    /// Plays `m` micro-batches.
    pub fn play(&self, m: usize) -> Schedule {
        let p = self.stages();
        let mut stages = vec![Progress::default(); p];
        // When the inputs of micro-batch k are there, by stage: activations, gradients. NaN: not yet.
        let mut inputs = vec![f64::NAN; p * m];
        let mut gradients = vec![f64::NAN; p * m];
        inputs[..m].fill(0.0);
        let mut awake: Vec<usize> = vec![0];
        while let Some(r) = awake.pop() {
            // ANCHOR: schedule
            let before = (p - 1 - r).min(m); // forwards before the first backward
            loop {
                let s = &mut stages[r];
                let is_forward = s.forwards < m && s.forwards <= s.backwards + before;
                if is_forward {
                    let ready = inputs[r * m + s.forwards];
                    if ready.is_nan() {
                        break;
                    }
                    s.free_at = s.free_at.max(ready) + self.forward[r];
                    if r + 1 < p {
                        inputs[(r + 1) * m + s.forwards] = s.free_at + self.transfer[r];
                        awake.push(r + 1);
                    } else {
                        gradients[r * m + s.forwards] = s.free_at;
                    }
                    s.forwards += 1;
                    s.peak = s.peak.max(s.forwards - s.backwards);
                } else {
                    if s.backwards == m || gradients[r * m + s.backwards].is_nan() {
                        break;
                    }
                    s.free_at = s.free_at.max(gradients[r * m + s.backwards]) + self.backward[r];
                    if r > 0 {
                        gradients[(r - 1) * m + s.backwards] = s.free_at + self.transfer[r - 1];
                        awake.push(r - 1);
                    }
                    s.backwards += 1;
                }
            }
            // ANCHOR_END: schedule
        }
        let ends: Vec<f64> = stages.iter().map(|s| s.free_at).collect();
        Schedule {
            end: ends.iter().copied().fold(0.0, f64::max),
            ends,
            peaks: stages.iter().map(|s| s.peak).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(p: usize, transfer: f64) -> Pipeline {
        Pipeline { forward: vec![1.0; p], backward: vec![2.0; p], transfer: vec![transfer; p - 1] }
    }

    #[test]
    fn four_stages_and_eight_micro_batches() {
        let s = even(4, 0.0).play(8);
        assert!((s.bubble(24.0) - 3.0 / 11.0).abs() < 1e-12, "{s:?}");
        assert_eq!(s.peaks, [4, 3, 2, 1]);
        assert_eq!((s.end, &s.ends[..]), (33.0, &[33.0, 31.0, 29.0, 27.0][..]));
    }

    #[test]
    fn the_bubble_of_equal_stages_is_p_less_one_over_m_and_p_less_one() {
        for p in 1..=9 {
            for m in [1, 2, 3, 8, 31] {
                let s = even(p, 0.0).play(m);
                let theory = (p - 1) as f64 / (m + p - 1) as f64;
                assert!((s.bubble(3.0 * m as f64) - theory).abs() < 1e-12, "{p} stages, {m}");
                let peaks: Vec<usize> = (0..p).map(|r| (p - r).min(m)).collect();
                assert_eq!(s.peaks, peaks, "{p} stages, {m}");
            }
        }
    }

    #[test]
    fn nothing_beats_the_bound_and_slower_is_never_faster() {
        let mut rng = crate::rng::Key::named(4, "pipelines").rng();
        for _ in 0..200 {
            let p = 1 + (rng.uniform() * 6.0) as usize;
            let m = 1 + (rng.uniform() * 12.0) as usize;
            let mut draw = |n: usize| (0..n).map(|_| rng.uniform()).collect::<Vec<_>>();
            let (forward, backward, transfer) = (draw(p), draw(p), draw(p - 1));
            let pipeline = Pipeline { forward, backward, transfer };
            let end = pipeline.play(m).end;
            assert!(pipeline.bound(m) <= end * (1.0 + 1e-12), "{pipeline:?}, {m}");
            for r in 0..p {
                let mut slower = pipeline.clone();
                slower.forward[r] += 0.3;
                assert!(slower.play(m).end >= end);
                if r + 1 < p {
                    let mut slower = pipeline.clone();
                    slower.transfer[r] += 0.3;
                    assert!(slower.play(m).end >= end);
                }
            }
        }
    }
}
