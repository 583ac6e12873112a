//! One forward, one backward (1F1B; Narayanan et al. 2019, "PipeDream", and 2021): what a stage of a pipeline does with the
//! micro-batches of a step, in order.
//!
//! Stage r of p runs min(p − r − 1, m) forwards, until the first gradient can be there; then one forward and one backward in
//! turns, then the backwards that are left. It holds the activations of at most min(p − r, m) micro-batches, where running all
//! forwards first would hold m. Stages wait for each other in (p − 1)/(m + p − 1) of the time.
//!
//! A message is a meeting: who gives waits for who takes. In the middle a stage has something for the next one and wants
//! something of it, and so has that one; if both gave first, both would wait. So the two are one exchange.

/// One thing that a stage does. Numbers are those of micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Takes activations from the stage before.
    Take(usize),
    /// Forward.
    Forward(usize),
    /// Gives activations to the next stage.
    Give(usize),
    /// Gives activations to the next stage, and takes the gradient of another micro-batch from it.
    GiveAndTake {
        /// Whose activations go.
        out: usize,
        /// Whose gradient comes.
        into: usize,
    },
    /// Takes a gradient from the next stage.
    TakeBack(usize),
    /// Backward.
    Backward(usize),
    /// Gives the gradient of a stage's input to the stage before.
    GiveBack(usize),
    /// Gives a gradient to the stage before, and takes activations of another micro-batch from it.
    GiveBackAndTake {
        /// Whose gradient goes.
        out: usize,
        /// Whose activations come.
        into: usize,
    },
}

/// What stage `r` of `p` does with `m` micro-batches.
pub(super) fn schedule(p: usize, r: usize, m: usize) -> Vec<Move> {
    let (first, last) = (r == 0, r + 1 == p);
    let mut moves = Vec::new();
    let mut add = |wanted: bool, what: Move| moves.extend(wanted.then_some(what));
    // ANCHOR: schedule
    let ahead = (p - r - 1).min(m); // forwards before the first backward
    for k in 0..ahead {
        add(!first, Move::Take(k));
        add(true, Move::Forward(k));
        add(true, Move::Give(k)); // the last stage has none ahead
    }
    let turns = m - ahead;
    add(!first && turns > 0, Move::Take(ahead));
    for i in 0..turns {
        let k = ahead + i;
        add(true, Move::Forward(k));
        add(!last, Move::GiveAndTake { out: k, into: i });
        add(true, Move::Backward(i));
        let more = i + 1 < turns;
        add(!first && more, Move::GiveBackAndTake { out: i, into: k + 1 });
        add(!first && !more, Move::GiveBack(i));
    }
    for i in turns..m {
        add(true, Move::TakeBack(i));
        add(true, Move::Backward(i));
        add(!first, Move::GiveBack(i));
    }
    // ANCHOR_END: schedule
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes between stage r and r + 1 in a move of stage r (`up`) or of stage r + 1: activations, gradient.
    fn message(m: Move, up: bool) -> Option<(Option<usize>, Option<usize>)> {
        match (m, up) {
            (Move::Give(k), true) | (Move::Take(k), false) => Some((Some(k), None)),
            (Move::TakeBack(k), true) | (Move::GiveBack(k), false) => Some((None, Some(k))),
            (Move::GiveAndTake { out, into }, true) => Some((Some(out), Some(into))),
            (Move::GiveBackAndTake { out, into }, false) => Some((Some(into), Some(out))),
            _ => None,
        }
    }

    /// Plays all stages, a message being a meeting of two; false where they wait in a circle.
    fn ends(all: &[Vec<Move>]) -> bool {
        let mut at = vec![0; all.len()];
        loop {
            let mut moved = false;
            for r in 0..all.len() {
                let Some(&m) = all[r].get(at[r]) else { continue };
                if matches!(m, Move::Forward(_) | Move::Backward(_)) {
                    (at[r], moved) = (at[r] + 1, true);
                } else if let Some(next) = all.get(r + 1).and_then(|next| next.get(at[r + 1]))
                    && message(m, true).is_some_and(|x| message(*next, false) == Some(x))
                {
                    (at[r], at[r + 1], moved) = (at[r] + 1, at[r + 1] + 1, true);
                }
            }
            if !moved {
                return at.iter().zip(all).all(|(at, all)| *at == all.len());
            }
        }
    }

    #[test]
    fn all_stages_meet_and_hold_as_few_micro_batches_as_they_can() {
        for (p, m) in (2..=7).flat_map(|p| (1..=9).map(move |m| (p, m))) {
            let all: Vec<Vec<Move>> = (0..p).map(|r| schedule(p, r, m)).collect();
            assert!(ends(&all), "{p} stages, {m} micro-batches: {all:?}");
            for (r, moves) in all.iter().enumerate() {
                let (mut forwards, mut backwards, mut peak) = (0, 0, 0);
                for what in moves {
                    match what {
                        Move::Forward(k) => {
                            assert_eq!(*k, forwards);
                            forwards += 1;
                        }
                        Move::Backward(k) => {
                            assert_eq!(*k, backwards);
                            backwards += 1;
                        }
                        _ => {}
                    }
                    peak = peak.max(forwards - backwards);
                }
                assert_eq!((forwards, backwards, peak), (m, m, (p - r).min(m)), "stage {r} of {p}, {m}");
            }
        }
    }

    #[test]
    fn stages_that_all_give_before_they_take_wait_in_a_circle() {
        let apart = |what| match what {
            Move::GiveAndTake { out, into } => vec![Move::Give(out), Move::TakeBack(into)],
            Move::GiveBackAndTake { out, into } => vec![Move::GiveBack(out), Move::Take(into)],
            what => vec![what],
        };
        let all: Vec<Vec<Move>> =
            (0..2).map(|r| schedule(2, r, 3).into_iter().flat_map(apart).collect()).collect();
        assert!(!ends(&all), "{all:?}");
    }
}
