//! What `launch` does when its ranks have ended: leaves with the code of one of them, or starts them again. Nothing here looks
//! at processes or files, so every case can be tested as a list of ends.

use crate::train::{Config, Team};
use std::fmt;

/// Code of a rank that ended because another had failed.
pub(super) const ECHO: i32 = 17;
/// Codes of what would happen again (a comparison or kernel, usage, meeting, data, disk or memory, NaN), or was asked for.
const FINAL: [i32; 8] = [1, 2, 3, 4, 5, 6, 130, 143];
/// Of those, the one that ranks give too when another dies while they meet.
const UNMET: i32 = 3;
const KILL: i32 = 9;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    Code(i32),
    Signal(i32),
}

impl How {
    /// What a shell would say of it.
    pub(super) fn code(self) -> i32 {
        match self {
            How::Code(code) => code,
            How::Signal(signal) => 128 + signal,
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Code(code) => write!(f, "ended with exit code {code}"),
            How::Signal(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

/// The end of a rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    pub(super) rank: usize,
    pub(super) how: How,
    /// The last signal that the launcher had sent it of its own accord.
    pub(super) sent: Option<i32>,
}

impl End {
    fn code(&self) -> i32 {
        self.how.code()
    }
    fn failed(&self) -> bool {
        self.code() != 0
    }
    /// It ended as the launcher told it to, which says nothing about it.
    fn told(&self) -> bool {
        self.sent.is_some_and(|signal| self.code() == 128 + signal || self.code() == 143)
    }
    /// It died of something that need not happen again.
    fn died(&self) -> bool {
        self.failed() && !self.told() && self.code() != ECHO && !FINAL.contains(&self.code())
    }
    /// It did not even end when it was asked to.
    fn hung(&self) -> bool {
        self.sent == Some(KILL) && self.how == How::Signal(KILL)
    }
}

/// The ends of all ranks, in the order in which they came.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) ends: Vec<End>,
    /// The user asked the launcher to stop.
    pub(super) stop: bool,
    /// All were told to end, as lost ranks are back.
    pub(super) back: bool,
}

impl Ended {
    fn failures(&self) -> impl Iterator<Item = &End> {
        self.ends.iter().filter(|e| e.failed())
    }

    /// The first failure that was no echo of another's, and not the launcher's own doing.
    pub(super) fn first(&self) -> Option<&End> {
        let own = || self.failures().filter(|e| !e.told());
        own().find(|e| e.code() != ECHO).or(own().next()).or(self.failures().next())
    }

    /// The failure that a new start can mend; None where there is another sort too.
    fn mendable(&self) -> Option<&End> {
        let own = || self.failures().filter(|e| !e.told());
        if own().any(|e| FINAL.contains(&e.code()) && e.code() != UNMET) {
            return None;
        }
        let died = own().find(|e| e.died());
        match own().any(|e| e.code() == UNMET) {
            true => died,
            false => died.or(own().next()).or(self.failures().find(|e| e.hung())),
        }
    }

    /// Ranks that are gone: those that died, or, where nobody did, those that had stopped.
    fn lost(&self) -> usize {
        match self.ends.iter().filter(|e| e.died()).count() {
            0 => self.ends.iter().filter(|e| e.hung()).count(),
            died => died,
        }
    }
}

/// What comes next.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Next {
    Done,
    Stop(End),
    /// All begin again, because this one failed.
    Again(End),
    /// They ended on request, to go on with those that are back.
    Gathered,
}

/// How many ranks there are, and how often they may begin again.
pub(super) struct Policy {
    ranks: usize,
    there: usize,
    elastic: bool,
    done: usize,
    limit: usize,
}

impl Policy {
    /// `limit` restarts of `ranks` ranks; where they are `elastic` and no limit is given, as many as leave one.
    pub(super) fn new(ranks: usize, limit: Option<u32>, elastic: bool) -> Policy {
        let limit = limit.map_or(if elastic { ranks - 1 } else { 0 }, |limit| limit as usize);
        Policy { ranks, there: ranks, elastic, done: 0, limit }
    }

    /// Restarts so far, and how many there may be.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.done, self.limit)
    }
    /// Ranks that are not lost.
    pub(super) fn there(&self) -> usize {
        self.there
    }
    /// True where some are.
    pub(super) fn short(&self) -> bool {
        self.there < self.ranks
    }
    /// Nobody is lost any more.
    pub(super) fn back(&mut self) {
        self.there = self.ranks;
    }

    /// Decides.
    pub(super) fn next(&mut self, ended: &Ended) -> Next {
        let Some(first) = ended.first() else { return Next::Done };
        if ended.stop {
            return Next::Stop(*first);
        }
        if ended.back {
            self.back();
            if ended.failures().all(|e| e.told() && !e.hung()) {
                return Next::Gathered;
            }
        }
        match ended.mendable() {
            Some(cause) if self.done < self.limit => {
                self.done += 1;
                if self.elastic {
                    self.there = self.there.saturating_sub(ended.lost()).max(1);
                }
                Next::Again(*cause)
            }
            _ => Next::Stop(*first),
        }
    }
}

/// The most of `there` ranks that can train `config` together; None where no number of them can.
pub(super) fn most(there: usize, config: &Config) -> Option<usize> {
    (1..=there).rev().find(|&p| Team::fits(config, p).is_ok())
}

#[cfg(test)]
mod tests {
    use super::How::{Code, Signal};
    use super::*;
    use crate::train::MeshConfig;

    const TERM: i32 = 15;

    /// Ranks 0, 1, … ended so, each by itself.
    fn ends(hows: &[How]) -> Ended {
        told(&hows.iter().map(|how| (*how, None)).collect::<Vec<_>>())
    }

    /// The same, each after a signal of the launcher.
    fn told(ends: &[(How, Option<i32>)]) -> Ended {
        let end = |(rank, (how, sent)): (usize, &(How, Option<i32>))| End { rank, how: *how, sent: *sent };
        Ended { ends: ends.iter().enumerate().map(end).collect(), ..Ended::default() }
    }

    /// The rank whose end lets all begin again, by a policy of one restart.
    fn again(ended: &Ended) -> Option<usize> {
        match Policy::new(4, Some(1), false).next(ended) {
            Next::Again(cause) => Some(cause.rank),
            _ => None,
        }
    }

    /// The code that a launcher without restarts leaves with.
    fn code(ended: &Ended) -> i32 {
        match Policy::new(4, None, false).next(ended) {
            Next::Done => 0,
            Next::Stop(end) => end.code(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_need_not_happen_again_is_tried_again() {
        assert_eq!(Policy::new(2, Some(1), false).next(&ends(&[Code(0), Code(0)])), Next::Done);
        for how in [Signal(9), Signal(11), Signal(7), Signal(6), Code(101), Code(134), Code(139)] {
            assert_eq!(again(&ends(&[Code(17), how, Code(17)])), Some(1), "{how:?}");
            assert_eq!(code(&ends(&[Code(17), how, Code(17)])), how.code());
            // One that was late has finished its part.
            assert_eq!(again(&ends(&[how, Code(0)])), Some(0), "{how:?}");
        }
        // A connection was cut: nobody is to blame.
        assert_eq!(again(&ends(&[Code(17), Code(17)])), Some(0));
        assert_eq!(code(&ends(&[Code(17), Code(17)])), 17);
    }

    #[test]
    fn what_would_happen_again_or_was_asked_for_is_the_end() {
        for last in [1, 2, 3, 4, 5, 6, 130, 143] {
            assert_eq!(again(&ends(&[Code(17), Code(last)])), None, "{last}");
            assert_eq!(code(&ends(&[Code(17), Code(last)])), last);
        }
        assert_eq!(again(&ends(&[Signal(15), Code(17)])), None);
        // A full disk stays full, whoever else was killed.
        assert_eq!(again(&ends(&[Signal(9), Code(5)])), None);
        // Ranks that waited for one that was killed before they met.
        assert_eq!(again(&ends(&[Code(3), Signal(9)])), Some(1));
        let stopped = Ended { stop: true, ..ends(&[Signal(9), Code(17)]) };
        assert_eq!(again(&stopped), None);
        assert_eq!(code(&stopped), 137);
    }

    #[test]
    fn a_signal_of_the_launcher_is_not_the_users() {
        let slow =
            told(&[(Signal(9), None), (Code(17), None), (Code(143), Some(TERM)), (Signal(15), Some(TERM))]);
        assert_eq!((again(&slow), code(&slow)), (Some(0), 137));
        let cut = told(&[(Code(17), None), (Code(143), Some(TERM)), (Signal(9), Some(KILL))]);
        assert_eq!((again(&cut), code(&cut)), (Some(0), 17));
        // What it says of itself counts, though it was told to end.
        assert_eq!(again(&told(&[(Code(17), None), (Code(5), Some(TERM))])), None);
    }

    #[test]
    fn restarts_are_counted() {
        let killed = || ends(&[Code(17), Signal(9)]);
        let mut policy = Policy::new(2, Some(2), false);
        for done in 1..=2 {
            assert!(matches!(policy.next(&killed()), Next::Again(_)));
            assert_eq!((policy.count(), policy.there()), ((done, 2), 2));
        }
        assert!(matches!(policy.next(&killed()), Next::Stop(end) if end.code() == 137));
        let limit = |limit, elastic| Policy::new(4, limit, elastic).count().1;
        assert_eq!(
            [limit(None, false), limit(None, true), limit(Some(7), true), limit(Some(0), true)],
            [0, 3, 7, 0]
        );
    }

    #[test]
    fn those_that_are_left_go_on_and_the_lost_come_back() {
        let mut policy = Policy::new(4, None, true);
        assert!(matches!(policy.next(&ends(&[Signal(9), Signal(9), Code(17), Code(17)])), Next::Again(_)));
        assert_eq!((policy.there(), policy.short()), (2, true));
        // Nobody died: who had stopped is lost; and who was only cut off is not.
        let stopped = told(&[(Code(17), None), (Signal(9), Some(KILL))]);
        assert!(matches!(policy.next(&stopped), Next::Again(_)));
        assert_eq!(policy.there(), 1);
        let gathered = || Ended { back: true, ..told(&[(Code(143), Some(TERM))]) };
        assert_eq!(policy.next(&gathered()), Next::Gathered);
        assert_eq!((policy.there(), policy.short(), policy.count()), (4, false, (2, 3)));
        assert!(matches!(policy.next(&ends(&[Code(17); 4])), Next::Again(_)));
        assert_eq!(policy.there(), 4);
        // The run was over before it was asked to end.
        assert_eq!(policy.next(&Ended { back: true, ..ends(&[Code(0); 4]) }), Next::Done);
        // It was killed when asked to end; there is no restart left.
        let killed = Ended { back: true, ..told(&[(Signal(9), Some(TERM)), (Code(17), Some(TERM))]) };
        assert!(matches!(policy.next(&killed), Next::Stop(end) if end.code() == 137));
        // There is always one.
        let mut policy = Policy::new(2, Some(5), true);
        assert!(matches!(policy.next(&ends(&[Signal(9), Signal(9)])), Next::Again(_)));
        assert_eq!(policy.there(), 1);
    }

    #[test]
    fn as_many_as_can_share_a_batch() {
        let most = |there, batch_size, micro_shards| {
            most(there, &Config { batch_size, micro_shards, ..Config::default() }).unwrap()
        };
        assert_eq!([1, 2, 3, 4, 5, 8].map(|there| most(there, 100, 0)), [1, 2, 3, 4, 5, 8]);
        assert_eq!([1, 2, 3, 4, 5, 8, 9].map(|there| most(there, 100, 8)), [1, 2, 2, 4, 4, 8, 8]);
        assert_eq!([3, 7].map(|there| most(there, 100, 6)), [2, 2]);
        assert_eq!((most(8, 3, 0), most(8, 3, 8), most(4, 1, 0)), (3, 2, 1));
        let grid = MeshConfig { tensor: 2, ..MeshConfig::default() };
        let grid = Config { mesh: grid, ..Config::default() };
        assert_eq!([1, 2, 3].map(|there| super::most(there, &grid)), [None, Some(2), Some(2)]);
    }
}
