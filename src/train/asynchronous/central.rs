//! The weights of a parameter server, and who may go on: every gradient that a rank brings makes a step of its own, and a rank
//! whose steps are more than s ahead of the slowest rank's waits for it (stale synchronous parallel, Ho et al. 2013).

use super::super::Config;
use crate::error::{Error, Result};
use crate::optim::{Optimizer, Schedule};
use crate::tape::{Grads, Params, Role};

/// What the server says to a rank whose gradient has been used.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// Wait, and ask again once anything has changed.
    Wait,
    /// Here are weights; `meets` where all ranks get the same ones now.
    Go { step: u64, lead: u64, meets: bool, stop: i32 },
    /// A rank is in trouble.
    End(String),
}

/// All that a server has.
pub(super) struct Central {
    pub(super) params: Params,
    grads: Grads,
    /// None while rank 0 has it, at a meeting.
    pub(super) optimizer: Option<Box<dyn Optimizer>>,
    /// That of rank 0, meanwhile.
    pub(super) spare: Option<Box<dyn Optimizer>>,
    schedule: Schedule,
    /// s.
    bound: u64,
    /// Keys of steps after which all meet, and the last step.
    every: [u64; 3],
    last: u64,
    /// Steps of the whole team, at the last meeting.
    base: u64,
    /// Gradients since then, by rank.
    clocks: Vec<u64>,
    /// Ranks that have come to a meeting, and not left it yet.
    here: Vec<bool>,
    /// All have come.
    released: bool,
    /// They meet for the last time.
    pub(super) ended: bool,
    /// Gradients after which all meet.
    goal: u64,
    stop: i32,
    pub(super) trouble: Option<String>,
    /// The most steps that a rank was ahead of the slowest when it was let go on, since the last meeting.
    lead: u64,
}

impl Central {
    /// The server of `ranks` ranks that have done `step` steps of `config`.
    pub(super) fn new(
        config: &Config,
        ranks: usize,
        (params, step): (Params, u64),
        optimizer: Box<dyn Optimizer>,
        compare: u64,
    ) -> Result<Central> {
        let schedule = config.schedule.build(config.optimizer.lr, config.steps)?;
        let (grads, bound) = (Grads::new(&params)?, config.asynchronous.staleness);
        let every = [config.eval_every, config.snapshot_every, compare];
        let (clocks, here, last) = (vec![0; ranks], vec![false; ranks], config.steps);
        let optimizer = Some(optimizer);
        let mut new = Central {
            params,
            grads,
            optimizer,
            spare: None,
            schedule,
            bound,
            every,
            last,
            base: step,
            clocks,
            here,
            released: false,
            ended: step >= config.steps,
            goal: 0,
            stop: 0,
            trouble: None,
            lead: 0,
        };
        new.plan();
        Ok(new)
    }

    /// Decides when all meet next.
    fn plan(&mut self) {
        let next = self.every.iter().filter(|e| **e > 0).map(|e| (self.base / e + 1) * e);
        let step = next.chain([self.last]).min().unwrap_or(self.last);
        self.goal = (step - self.base) * self.clocks.len() as u64;
    }

    fn brought(&self) -> u64 {
        self.clocks.iter().sum()
    }

    /// Steps of the whole team: as many gradients as there are ranks make one.
    fn step(&self) -> u64 {
        let done = self.brought() / self.clocks.len() as u64;
        (self.base + done).min(self.last)
    }

    // ANCHOR: push
    /// Makes a step of the gradient that `rank` found at weights which may be old by now, `share` of a batch.
    pub(super) fn push(&mut self, rank: usize, gradient: &[f32], share: f64, stop: i32) -> Result<()> {
        let lr = share * self.schedule.lr(self.step());
        let mut rest = gradient;
        for (i, s) in self.params.segments().iter().enumerate().filter(|(_, s)| s.role != Role::State) {
            let (own, more) = rest.split_at(s.len);
            self.grads.segment_mut::<f32>(i).expect("it is flat but in backward").copy_from_slice(own);
            rest = more;
        }
        let optimizer =
            self.optimizer.as_mut().ok_or_else(|| Error::Usage("a meeting is under way".into()))?;
        optimizer.step(&mut self.params, &self.grads, lr)?;
        self.clocks[rank] += 1;
        // ANCHOR_END: push
        if stop > 0 && self.stop == 0 {
            (self.stop, self.goal) = (stop, self.brought());
        }
        Ok(())
    }

    /// A rank cannot go on.
    pub(super) fn fail(&mut self, rank: usize, what: &str) {
        self.trouble.get_or_insert_with(|| format!("rank {rank}: {what}"));
    }

    /// True while gradients have to wait: not all ranks have left a meeting.
    pub(super) fn is_meeting(&self) -> bool {
        self.released || self.optimizer.is_none()
    }

    /// What `rank` does next.
    pub(super) fn answer(&mut self, rank: usize) -> Answer {
        if let Some(what) = &self.trouble {
            return Answer::End(what.clone());
        }
        if self.brought() >= self.goal || self.released {
            return self.meet(rank);
        }
        // ANCHOR: bound
        let ahead = self.clocks[rank] - self.clocks.iter().min().copied().unwrap_or(0);
        if ahead > self.bound {
            return Answer::Wait;
        }
        // ANCHOR_END: bound
        self.lead = self.lead.max(ahead);
        Answer::Go { step: self.step(), lead: self.lead, meets: false, stop: 0 }
    }

    /// `rank` has come to a meeting. All leave it at the same step, with the same weights.
    fn meet(&mut self, rank: usize) -> Answer {
        self.here[rank] = true;
        self.released |= self.here.iter().all(|here| *here);
        if !self.released {
            return Answer::Wait;
        }
        self.here[rank] = false;
        let step = (self.base + self.goal.div_ceil(self.clocks.len() as u64)).min(self.last);
        self.ended |= step == self.last || self.stop > 0;
        let answer = Answer::Go { step, lead: self.lead, meets: true, stop: self.stop };
        if self.here.iter().all(|here| !*here) {
            // The last one out.
            (self.released, self.base, self.lead, self.stop) = (false, step, 0, 0);
            self.clocks.fill(0);
            self.plan();
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::optim;
    use crate::shape::DType;
    use crate::tape::{Init, ParamsBuilder};

    /// A server of one weight, 1 at first, by plain SGD.
    fn central(ranks: usize, lr: f64, staleness: u64, steps: u64) -> Central {
        let mut b = ParamsBuilder::new(&Device::new_cpu(), DType::F32, 1);
        b.add("w", &[1], Init::Constant(1.0), Role::Plain).unwrap();
        let params = b.build().unwrap();
        let settings = [
            "optimizer.name=sgd".into(),
            format!("optimizer.lr={lr}"),
            format!("steps={steps}"),
            "schedule.name=constant".into(),
            "schedule.warmup_steps=0".into(),
            "eval_every=0".into(),
            "snapshot_every=0".into(),
            format!("asynchronous.staleness={staleness}"),
        ];
        let config = Config::resolve(None, &settings).unwrap();
        let sgd = optim::find("sgd", &[]).unwrap().build_with::<&str, &str>(&[], &params).unwrap();
        Central::new(&config, ranks, (params, 0), sgd, 0).unwrap()
    }

    fn weight(c: &Central) -> f32 {
        c.params.segment(0).as_slice::<f32>().unwrap()[0]
    }

    fn gradient(c: &Central, of: f32) -> Vec<f32> {
        let mut g = vec![0.0; c.params.segments()[0].len];
        g[0] = of;
        g
    }

    /// |w| after many steps on w²/2 whose gradients are `delay` steps old.
    fn ends(lr: f64, delay: usize) -> f32 {
        const STEPS: usize = 4000;
        let mut c = central(1, lr, 0, STEPS as u64 + 1);
        let mut seen = vec![weight(&c)];
        for t in 0..STEPS {
            let g = gradient(&c, seen[t.saturating_sub(delay)]);
            c.push(0, &g, 1.0, 0).unwrap();
            seen.push(weight(&c));
        }
        let worst = seen[STEPS - 50..].iter().map(|w| w.abs()).fold(0.0, f32::max);
        if seen[STEPS].is_finite() { worst } else { f32::INFINITY }
    }

    #[test]
    fn steps_of_old_gradients_are_stable_up_to_the_limit_of_their_age_within_two_percent() {
        for (delay, known) in [2.0, 1.0, 0.618, 0.445, 0.347].into_iter().enumerate() {
            let limit = 2.0 * (std::f64::consts::PI / (2.0 * (2 * delay + 1) as f64)).sin();
            assert!((limit - known).abs() < 1e-3);
            let (below, above) = (ends(0.98 * limit, delay), ends(1.02 * limit, delay));
            assert!(below < 1e-3 && above > 1e3, "delay {delay}: {below} below {limit}, {above} above");
        }
    }

    #[test]
    fn by_hand_the_fastest_waits_when_it_is_more_than_the_bound_ahead() {
        let mut c = central(2, 0.5, 1, 100);
        let push = |c: &mut Central, rank, of| {
            let g = gradient(c, of);
            c.push(rank, &g, 0.5, 0).unwrap();
            c.answer(rank)
        };
        let go = |step, lead| Answer::Go { step, lead, meets: false, stop: 0 };
        // Each gradient counts half of lr: 1 - .25 · 1 = .75.
        assert_eq!((push(&mut c, 0, 1.0), weight(&c)), (go(0, 1), 0.75));
        assert_eq!(push(&mut c, 0, 0.75), Answer::Wait);
        assert_eq!(c.answer(0), Answer::Wait);
        assert_eq!(push(&mut c, 1, 1.0), go(1, 1));
        assert_eq!(c.answer(0), go(1, 1));
    }

    #[test]
    fn all_leave_a_meeting_at_one_step_and_a_wish_to_stop_or_trouble_reaches_all() {
        let mut c = central(2, 0.5, 9, 2);
        let g = gradient(&c, 0.0);
        for rank in [0, 0, 0] {
            c.push(rank, &g, 0.5, 0).unwrap();
            assert!(matches!(c.answer(rank), Answer::Go { meets: false, .. }));
        }
        c.push(0, &g, 0.5, 0).unwrap();
        assert_eq!(c.answer(0), Answer::Wait, "rank 1 has a gradient under way");
        c.push(1, &g, 0.5, 0).unwrap();
        let end = Answer::Go { step: 2, lead: 3, meets: true, stop: 0 };
        assert_eq!((c.answer(1), c.answer(0)), (end.clone(), end));
        let mut c = central(2, 0.5, 9, 50);
        c.push(1, &g, 0.5, 15).unwrap();
        assert_eq!(c.answer(1), Answer::Wait);
        c.push(0, &g, 0.5, 0).unwrap();
        let end = Answer::Go { step: 1, lead: 0, meets: true, stop: 15 };
        assert_eq!((c.answer(0), c.answer(1)), (end.clone(), end));
        c.fail(1, "a NaN");
        assert_eq!(c.answer(0), Answer::End("rank 1: a NaN".into()));
    }
}
