//! How often one modality of a sample finds the other among all of the held-out split.

use super::Task;
use crate::device::Device;
use crate::error::Result;
use crate::kernel::par;
use crate::nn::Model;
use crate::tape::{Params, Tape};
use serde::{Deserialize, Serialize};

/// Retrieval in one direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// The modality that asks.
    pub from: String,
    /// The one that is to be found.
    pub to: String,
    /// Samples of the split, among which it lies.
    pub among: usize,
    /// Share of samples whose partner is the nearest, and among the five nearest.
    pub at: [f64; 2],
}

/// Ranks that [`Recall::at`] is for.
pub const RANKS: [usize; 2] = [1, 5];

/// Retrieval over the whole held-out split, in both directions; None for other models.
pub fn retrieval(
    task: &Task,
    model: &Model,
    params: &Params,
    device: &Device,
) -> Result<Option<Vec<Recall>>> {
    let Model::Pair(pair) = model else { return Ok(None) };
    let (mut sides, mut dim) = ([vec![], vec![]], 1);
    for batch in task.evaluation(device)? {
        let tape = Tape::eval(params).with_precision(task.precision());
        for (side, value) in task.values(&batch?, &tape)?.iter().flatten().enumerate() {
            let y = pair.embed(side, value)?.0;
            dim = y.dims()[1];
            sides[side].extend_from_slice(y.value().to_host()?.as_slice::<f32>()?);
        }
    }
    let among = sides[0].len() / dim;
    let one = |from: usize, to: usize| {
        let nearer = nearer(&sides[from], &sides[to], dim);
        let found = RANKS.map(|rank| nearer.iter().filter(|&&n| n < rank).count());
        let name = |side: usize| task.inputs()[side].clone();
        let at = found.map(|n| n as f64 / among.max(1) as f64);
        Recall { from: name(from), to: name(to), among, at }
    };
    Ok(Some(vec![one(0, 1), one(1, 0)]))
}

/// Queries that one thread takes together.
const TOGETHER: usize = 16;

/// For each of the vectors `from`, of `dim` numbers each, how many of `to` are at least as near as its own partner. Whoever is as
/// near counts as nearer: nothing is found by saying the same of all.
fn nearer(from: &[f32], to: &[f32], dim: usize) -> Vec<usize> {
    let among = from.len() / dim;
    let mut all = vec![0; among];
    par::chunks_mut(&mut all, TOGETHER, among * from.len(), |first, all| {
        for (k, nearer) in all.iter_mut().enumerate() {
            let i = first * TOGETHER + k;
            let a = &from[i * dim..][..dim];
            let near = |j: usize| -> f32 { a.iter().zip(&to[j * dim..]).map(|(a, b)| a * b).sum() };
            let mine = near(i);
            *nearer = (0..among).filter(|&j| j != i && near(j) >= mine).count();
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_ones_are_counted_and_ties_are_no_finds() {
        let dim = 2;
        let turned = |n: usize, by: f32| -> Vec<f32> {
            let at = |i: usize| i as f32 * std::f32::consts::TAU / n as f32 + by;
            (0..n).flat_map(|i| [at(i).cos(), at(i).sin()]).collect()
        };
        // More than one thread's share. Turned by two and a fifth steps, four others are nearer than one's own.
        let n = 3 * TOGETHER + 5;
        let step = std::f32::consts::TAU / n as f32;
        assert_eq!(nearer(&turned(n, 0.0), &turned(n, 0.1 * step), dim), vec![0; n]);
        assert_eq!(nearer(&turned(n, 0.0), &turned(n, 2.2 * step), dim), vec![4; n]);
        assert_eq!(nearer(&vec![1.0; dim * n], &vec![1.0; dim * n], dim), vec![n - 1; n]);
    }
}
