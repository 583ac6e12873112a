//! What ranks agree on when the passes of a step are done: its loss, changes of state, a wish to stop, trouble.

use super::Team;
use crate::comm::Reduce;
use crate::error::{Error, Result};
use crate::tape::{Change, Grads, Params};
use std::time::Instant;

/// Bytes of what a rank in trouble tells the others.
const WORDS: usize = 480;

/// What a rank in trouble tells the others, as long for all; nothing of one that is not.
pub(super) fn letter(words: Option<String>) -> Vec<u8> {
    let mut letter = words.unwrap_or_default().into_bytes();
    letter.resize(WORDS, 0);
    letter
}

/// The first rank in trouble, and its words, of the letters of all.
pub(super) fn first_words(letters: &[u8]) -> Option<(usize, String)> {
    let text = |w: &[u8]| String::from_utf8_lossy(w).trim_end_matches('\0').to_string();
    letters.chunks(WORDS).map(text).enumerate().find(|(_, text)| !text.is_empty())
}

/// What all ranks know of a step's passes.
pub(super) struct Agreed {
    /// Mean loss over the batch.
    pub(super) loss: f64,
    /// Mean loss over the samples of this rank.
    pub(super) own: f64,
    /// Norm of the mean gradient of one shard, averaged over shards, where there are several.
    pub(super) small: Option<f64>,
    /// Changes of state, merged.
    pub(super) changes: Vec<Change>,
    /// The signal that asked some rank to stop.
    pub(super) stop: Option<i32>,
}

impl Team {
    /// Ends the passes of `step`: every part has told all its gradients, and `parts` has for each its share of the loss, its
    /// share of the samples, and the changes of state it asks for. Errors on all ranks where one is in trouble.
    pub(super) fn agree(
        &mut self,
        step: u64,
        params: &Params,
        grads: &mut Grads,
        parts: Vec<(f64, f64, Vec<Change>)>,
        stop: Option<i32>,
    ) -> Result<Agreed> {
        self.receive(grads)?;
        let (speaker, shared) = (self.speaker(), self.mesh.is_some());
        let counts = f64::from(u8::from(speaker == self.rank()));
        let Some(s) = &mut self.sums else {
            let loss = parts.iter().map(|p| p.0).sum();
            let changes = parts.into_iter().flat_map(|p| p.2).collect();
            return Ok(Agreed { loss, own: loss, small: None, changes, stop });
        };
        let held = s.trouble.take();
        // An operation that failed says more than gradients that then fail on all ranks.
        let flag = if held.is_some() { 2.0 } else { 1.0 };
        let trouble = held.or_else(|| {
            let slot = s.buckets.bad()?;
            Some(format!("the gradient is not finite, first in `{}`", params.info(slot).name))
        });
        let shards = s.shards;
        let flags = [if trouble.is_some() { flag } else { 0.0 }, f64::from(stop.unwrap_or(0))];
        let record = |(p, squares): (&(f64, f64, Vec<Change>), &f64)| {
            [p.0 * counts, squares / (p.1 * p.1), flags[0], flags[1]]
        };
        let mine: Vec<f64> = parts.iter().zip(s.buckets.squares()).flat_map(record).collect();
        let from = Instant::now();
        let all = self.records(mine)?;
        self.idled(from);
        let of = |k: usize| all.iter().skip(k).step_by(4).copied();
        let worst = of(2).fold(0.0, f64::max);
        if worst > 0.0 {
            return Err(self.trouble(step, trouble.filter(|_| flag == worst))?);
        }
        let (loss, squares): (f64, f64) = (of(0).sum(), of(1).sum());
        let share: f64 = parts.iter().map(|p| p.1).sum();
        let own = of(0).skip(speaker * parts.len()).take(parts.len()).sum::<f64>() / share;
        let small = (shards > 1 && !shared).then(|| (squares / shards as f64).sqrt());
        let stop = of(3).find(|signal| *signal > 0.0).map(|signal| signal as i32);
        let changes = self.merge(parts.into_iter().map(|p| (p.1, p.2)).collect())?;
        Ok(Agreed { loss, own, small, changes, stop })
    }

    /// The records of all shards, in order, of which this rank has `mine`.
    fn records(&self, mine: Vec<f64>) -> Result<Vec<f64>> {
        let (Some(data), Some(s)) = (&self.data, self.sums.as_ref().filter(|s| s.dealt.is_some())) else {
            return self.gather(mine);
        };
        let each = mine.len() / s.parts;
        let mut all = vec![0.0; s.shards * each];
        all[s.first * each..][..mine.len()].copy_from_slice(&mine);
        // Every number is that of one rank: the sum is exact.
        data.call(move |c| c.all_reduce(&mut all, Reduce::Sum).map(|()| all))
    }

    /// The error that all ranks end with: that of the first rank in trouble.
    fn trouble(&self, step: u64, mine: Option<String>) -> Result<Error> {
        let found = first_words(&self.gather(letter(mine))?);
        let what = found.map_or_else(String::new, |(rank, text)| match self.size() {
            1 => text,
            _ => format!("rank {rank}: {text}"),
        });
        Ok(Error::Numeric { step, what: format!("{what}; weights were not changed") })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sums::tests::{params, team};
    use super::*;
    use crate::comm::threads;
    use crate::tensor::Tensor;

    #[test]
    fn trouble_of_one_rank_is_the_error_of_all_and_names_it() {
        let ends = threads::run(3, |world| {
            let (mut team, params) = (team(world, 1), params());
            let mut grads = Grads::new(&params)?;
            team.listens(0)?;
            let bad = if team.rank() == 1 { f32::INFINITY } else { 1.0 };
            let g = Tensor::from_slice(params.device(), &[1.0, bad, 1.0, 1.0], &[4])?;
            team.told(params.find("w").unwrap(), Some(&g))?;
            team.agree(9, &params, &mut grads, vec![(1.0, 1.0 / 3.0, vec![])], None).map(|_| ())
        });
        for end in ends {
            let e = end.unwrap_err();
            assert_eq!(e.exit_code(), 6);
            let text = e.to_string();
            assert!(text.contains("step 9: rank 1:") && text.contains("`w`"), "{text}");
        }
    }
}
