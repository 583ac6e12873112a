//! How bytes get from rank to rank: one full-duplex exchange, by a deadline.
//!
//! A ring in which everybody first sends and then receives hangs as soon as messages are larger than what the system
//! buffers: all wait for a receiver. So the one thing that a transport must do is both at once, as MPI_Sendrecv does.

use super::tag::{Reduce, Tag};
use super::watch::{Failure, Suspicion, Watch, disagree};
use crate::error::{Error, Result};
use crate::shape::DType;
use std::time::{Duration, Instant};

/// Bytes for a rank.
pub struct Outgoing<'a> {
    /// To this rank of the world.
    pub to: usize,
    /// All of the message.
    pub data: &'a [u8],
}

/// Adds (or otherwise combines) the second into the first; both have the same length, a multiple of the element's.
pub type Combine = fn(into: &mut [u8], arrived: &[u8]);

/// Bytes from a rank.
pub struct Incoming<'a> {
    /// From this rank of the world.
    pub from: usize,
    /// Where they go. Its length is the length of the message.
    pub data: &'a mut [u8],
    /// How they are combined with what is there; None overwrites. Called on whole elements, in pieces from first to last.
    pub combine: Option<Combine>,
}

/// What an exchange belongs to, and by when it must be over.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// The call; both sides must be in the same.
    pub tag: Tag,
    /// The deadline.
    pub until: Instant,
    /// What the deadline was made from, for messages.
    pub limit: Duration,
}

impl Job {
    /// `tag` from now on, for at most `limit`.
    pub fn new(tag: Tag, limit: Duration) -> Job {
        // A limit that no clock can count to is none.
        let year = Duration::from_secs(365 * 86_400);
        Job { tag, until: Instant::now() + limit.min(year), limit }
    }
}

/// A way between the ranks of a job.
pub trait Transport: Send {
    /// Number of this rank.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn world(&self) -> usize;
    /// Where the others stand, and the verdict if one failed.
    fn watch(&self) -> &Watch;
    /// Sends and receives at the same time; either may be absent. Messages of a pair of ranks arrive in order. An error
    /// is that of the whole job: after it nothing more can be sent.
    fn exchange(&mut self, job: &Job, out: Option<Outgoing<'_>>, into: Option<Incoming<'_>>) -> Result<()>;
    /// Bytes of payload that this rank has sent so far.
    fn sent(&self) -> u64;
    /// An all-reduce of all ranks by what lies underneath, in an order of its own; None where it is ours to make.
    fn all_reduce(&mut self, dtype: DType, reduce: Reduce, x: &mut [u8]) -> Option<Result<()>> {
        let _ = (dtype, reduce, x);
        None
    }
}

/// The error of `rank`, whose message from `from` carries another tag, or another length, than its own call.
pub(super) fn misfit(
    watch: &Watch,
    rank: usize,
    job: &Job,
    from: usize,
    theirs: &Tag,
    len: (usize, u64),
) -> Error {
    if *theirs != job.tag {
        return watch.suspect(Suspicion::Sure(disagree((rank, &job.tag), (from, theirs))));
    }
    let (want, got) = len;
    let what = format!("rank {rank} expects {want} bytes from rank {from} in {}, and gets {got}", job.tag);
    watch.suspect(Suspicion::Sure(Failure::Disagree(what)))
}

/// Waiting for other ranks: at first by looking again and again, then by giving the processor away, then by sleeping.
pub(super) struct Wait<'a> {
    watch: &'a Watch,
    rank: usize,
    job: &'a Job,
    /// From whom something is still to come, and to whom something is still to go.
    pub(super) from: Option<usize>,
    pub(super) to: Option<usize>,
    turns: u32,
    since: Option<Instant>,
    spins: u32,
    /// Who has left, and since when we know: what it sent before may still be on its way.
    left: Option<(usize, Instant)>,
    /// How long that may take.
    pub(super) patience: Duration,
}

/// How often a rank looks at the others' posts while it waits.
const LOOK: Duration = Duration::from_millis(50);
/// From then on a rank sleeps between two looks.
const AWAKE: Duration = Duration::from_millis(2);

impl<'a> Wait<'a> {
    pub(super) fn new(watch: &'a Watch, rank: usize, job: &'a Job, spins: u32) -> Wait<'a> {
        let (from, to, since, left) = (None, None, None, None);
        Wait { watch, rank, job, from, to, turns: 0, since, spins, left, patience: Duration::ZERO }
    }

    /// Something came: the next wait is a new one.
    pub(super) fn progress(&mut self) {
        (self.turns, self.since, self.left) = (0, None, None);
    }

    /// Called when nothing came. Errors once the job failed, the deadline passed, or who is waited for has left.
    pub(super) fn pause(&mut self) -> Result<()> {
        self.turns += 1;
        if self.turns <= self.spins {
            std::hint::spin_loop();
            return Ok(());
        }
        self.watch.check()?;
        let now = Instant::now();
        let waited = now - *self.since.get_or_insert(now);
        if waited < AWAKE {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(if waited < LOOK { 50 } else { 1000 }));
        }
        if let Some(peer) = [self.from, self.to].into_iter().flatten().find(|&r| self.watch.has_left(r)) {
            // At least one look after the first time that it was seen to have left.
            match self.left.filter(|(known, _)| *known == peer) {
                None => self.left = Some((peer, now)),
                Some((_, since)) if now - since < self.patience => {}
                Some(_) => return Err(self.watch.suspect(Suspicion::Sure(self.watch.why_left(peer)))),
            }
        }
        let differs = if waited >= LOOK { self.watch.disagreement() } else { None };
        if let Some(failure) = differs {
            return Err(self.watch.suspect(Suspicion::Sure(failure)));
        }
        if now >= self.job.until {
            return Err(self.watch.suspect(Suspicion::Late {
                rank: self.rank as u32,
                peer: self.from.or(self.to).unwrap_or(self.rank) as u32,
                tag: self.job.tag,
                limit_ms: self.job.limit.as_millis() as u64,
            }));
        }
        Ok(())
    }
}

/// Turns to look before the processor is given away: none where ranks share processors, since who is waited for may need
/// this one.
pub(super) fn spins(ranks_here: usize) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    if ranks_here <= cores { 2000 } else { 0 }
}
