//! How often one modality of a sample finds the other among all of the held-out split.

use super::Task;
use crate::device::Device;
use crate::error::Result;
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
        let mut found = [0; 2];
        for (i, a) in sides[from].chunks(dim).enumerate() {
            let near = |j: usize| -> f32 { a.iter().zip(&sides[to][j * dim..]).map(|(a, b)| a * b).sum() };
            let mine = near(i);
            // Whoever is as near counts as nearer: nothing is found by saying the same of all.
            let nearer = (0..among).filter(|&j| j != i && near(j) >= mine).count();
            for (found, rank) in found.iter_mut().zip(RANKS) {
                *found += usize::from(nearer < rank);
            }
        }
        let name = |side: usize| task.inputs()[side].clone();
        let at = found.map(|n| n as f64 / among.max(1) as f64);
        Recall { from: name(from), to: name(to), among, at }
    };
    Ok(Some(vec![one(0, 1), one(1, 0)]))
}
