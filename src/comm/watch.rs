//! What a rank knows of the others beside their data: where each stands, and the one verdict that ends the job.
//!
//! A rank that waits in vain knows only whom it waits for. Round a ring that is its neighbour, which is as innocent as
//! itself: the neighbour waits too. So each rank posts the collective that it is in, and whoever has to name a culprit
//! looks at all posts: two ranks at the same place that do different things disagree; the one that has not come is late.
//! The first verdict stands, and every rank reports it.

use super::tag::Tag;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why the job cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Failure {
    /// A rank is gone, stopped, cut off or late.
    Rank {
        /// Its number in the world.
        rank: u32,
        /// What was seen of it.
        what: String,
    },
    /// Ranks do different things.
    Disagree(String),
}

impl Failure {
    /// As the error that every rank reports.
    pub fn error(self) -> Error {
        match self {
            Failure::Rank { rank, what } => Error::RankFailed { rank: rank as usize, what },
            Failure::Disagree(what) => Error::RanksDisagree(what),
        }
    }
}

/// What a rank saw, before anybody judged it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Suspicion {
    /// Certain, whoever else is asked.
    Sure(Failure),
    /// The deadline of `tag` passed while `rank` waited for `peer`.
    Late {
        /// Who waited.
        rank: u32,
        /// For whom.
        peer: u32,
        /// In what.
        tag: Tag,
        /// Milliseconds of the deadline.
        limit_ms: u64,
    },
}

struct State {
    verdict: Option<Failure>,
    board: Vec<Option<Tag>>,
    reasons: Vec<Option<String>>,
}

struct Shared {
    /// Set with the verdict: what loops that wait look at.
    failed: AtomicBool,
    /// Of each rank: it will send nothing more. That is no failure until somebody waits for it.
    left: Vec<AtomicBool>,
    state: Mutex<State>,
    told: Condvar,
    /// Where suspicions go; None where this board is the only one and its holder judges itself.
    judge: Mutex<Option<Sender<Suspicion>>>,
}

/// The posts of all ranks and the verdict; a clone shows the same.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

/// How long a rank waits for the judge: longer than it takes a stopped judge to be noticed.
const GRACE: Duration = Duration::from_millis(2500);

impl Watch {
    /// A board of `world` ranks, whose holders judge themselves.
    pub fn new(world: usize) -> Watch {
        let state = State { verdict: None, board: vec![None; world], reasons: vec![None; world] };
        Watch(Arc::new(Shared {
            failed: AtomicBool::new(false),
            left: (0..world).map(|_| AtomicBool::new(false)).collect(),
            state: Mutex::new(state),
            told: Condvar::new(),
            judge: Mutex::new(None),
        }))
    }

    /// Sends suspicions to `judge` from now on, who answers by [`Watch::fail`].
    pub(super) fn ask(&self, judge: Option<Sender<Suspicion>>) {
        *self.0.judge.lock().unwrap_or_else(PoisonError::into_inner) = judge;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below leaves the state whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `rank` enters the collective `tag`.
    pub fn enter(&self, rank: usize, tag: Tag) {
        self.state().board[rank] = Some(tag);
    }

    /// The collective that `rank` entered last.
    pub(super) fn post(&self, rank: usize) -> Option<Tag> {
        self.state().board[rank]
    }

    /// `rank` sends nothing more, and `why`.
    pub(super) fn leave(&self, rank: usize, why: &str) {
        self.state().reasons[rank].get_or_insert_with(|| why.into());
        self.0.left[rank].store(true, Ordering::Release);
    }

    /// True once `rank` sends nothing more.
    pub(super) fn has_left(&self, rank: usize) -> bool {
        self.0.left[rank].load(Ordering::Acquire)
    }

    /// That `rank` has left, as a failure.
    pub(super) fn why_left(&self, rank: usize) -> Failure {
        let why = self.state().reasons[rank].clone().unwrap_or_default();
        Failure::Rank { rank: rank as u32, what: format!("{why}, and others wait for it") }
    }

    /// The verdict as an error, where there is one.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.0.failed.load(Ordering::Relaxed) { Err(self.error()) } else { Ok(()) }
    }

    /// Number of ranks.
    pub(super) fn world(&self) -> usize {
        self.0.left.len()
    }

    /// The verdict, if there is one within `patience`.
    pub(super) fn wait(&self, patience: Option<Duration>) -> Option<Failure> {
        let state = self.state();
        match patience {
            Some(patience) if state.verdict.is_none() => {
                let woken = self.0.told.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                woken.0.verdict.clone()
            }
            _ => state.verdict.clone(),
        }
    }

    /// The verdict.
    pub(super) fn verdict(&self) -> Option<Failure> {
        self.state().verdict.clone()
    }

    fn error(&self) -> Error {
        match self.verdict() {
            Some(v) => v.error(),
            None => Error::RanksDisagree("a rank failed, and nobody says which".into()),
        }
    }

    /// Pronounces `failure`, unless there is a verdict. Gives the one that stands.
    pub fn fail(&self, failure: Failure) -> Error {
        let mut state = self.state();
        let stands = state.verdict.get_or_insert(failure).clone();
        self.0.failed.store(true, Ordering::Release);
        self.0.told.notify_all();
        stands.error()
    }

    /// Has the judge say who is to blame; the judge is asked first, and where none answers the suspect is.
    pub fn suspect(&self, suspicion: Suspicion) -> Error {
        let judge = self.0.judge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = judge.is_some_and(|j| j.send(suspicion.clone()).is_ok());
        if asked {
            let until = Instant::now() + GRACE;
            let mut state = self.state();
            while state.verdict.is_none() {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = self.0.told.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        self.fail(self.judge(suspicion))
    }

    /// Who is to blame, by what is posted.
    pub(super) fn judge(&self, suspicion: Suspicion) -> Failure {
        match suspicion {
            Suspicion::Sure(failure) => failure,
            Suspicion::Late { rank, peer, tag, limit_ms } => self.disagreement().unwrap_or_else(|| {
                let late = self.missing(&tag).unwrap_or(peer as usize);
                let seconds = limit_ms as f64 / 1e3;
                let what = match self.post(late) {
                    Some(at) if at.sequence >= tag.sequence && at.context == tag.context => {
                        format!("rank {rank} waited {seconds} s for its data in {tag}")
                    }
                    Some(at) => format!("it did not come to {tag} within {seconds} s; it is in {at}"),
                    None => format!("it did not come to {tag} within {seconds} s"),
                };
                Failure::Rank { rank: late as u32, what }
            }),
        }
    }

    /// Two ranks that do different things at the same place.
    pub(super) fn disagreement(&self) -> Option<Failure> {
        let state = self.state();
        let posts = || state.board.iter().enumerate().filter_map(|(r, t)| t.map(|t| (r, t)));
        posts().find_map(|(a, ta)| {
            posts().find(|(_, tb)| ta.contradicts(tb)).map(|(b, tb)| disagree((a, &ta), (b, &tb)))
        })
    }

    /// The first rank that has not come to `tag`.
    fn missing(&self, tag: &Tag) -> Option<usize> {
        // Who has posted nothing may be no member of a communicator that was split off.
        let behind = |t: &Option<Tag>| match t {
            Some(t) => t.context == tag.context && t.sequence < tag.sequence,
            None => tag.context == 0,
        };
        self.state().board.iter().position(behind)
    }
}

/// Two ranks, each with what it does.
pub(super) fn disagree((a, ta): (usize, &Tag), (b, tb): (usize, &Tag)) -> Failure {
    let ((a, ta), (b, tb)) = if a < b { ((a, ta), (b, tb)) } else { ((b, tb), (a, ta)) };
    Failure::Disagree(format!("rank {a} calls {ta}, rank {b} calls {tb}"))
}
