//! How well a model of several modalities does with some of them only, and what each one's own head says.

use super::Task;
use super::evaluate::{Evaluation, evaluate_some};
use crate::device::Device;
use crate::error::Result;
use crate::nn::Model;
use crate::tape::Params;
use serde::{Deserialize, Serialize};

/// The held-out split as seen through some of the modalities. Samples that lack all of them do not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Through {
    /// Names of the modalities that were given; the others were missing.
    pub modalities: Vec<String>,
    /// True for the prediction of their own heads alone, summed; false for the whole model.
    pub heads: bool,
    /// Mean loss over the targets.
    pub loss: f64,
    /// Share of targets predicted rightly, for classes.
    pub accuracy: Option<f64>,
}

/// Modalities of which all subsets are evaluated, at most.
const MOST: usize = 4;

/// The model evaluated with each subset of its modalities (all of them first; with more than four modalities, only all and each
/// missing once), and each modality's own head in the whole model; before it what was found with all. None for models of one
/// input. `batches`: 0 for all.
pub fn modalities(
    task: &Task,
    model: &Model,
    params: &Params,
    device: &Device,
    batches: usize,
) -> Result<Option<(Evaluation, Vec<Through>)>> {
    let Model::Fusion(_) = model else { return Ok(None) };
    let names = task.inputs();
    let n = names.len();
    let all = (1usize << n) - 1;
    let sets: Vec<usize> = if n <= MOST {
        (1..=all).rev().collect()
    } else {
        std::iter::once(all).chain((0..n).map(|m| all & !(1 << m))).collect()
    };
    let (mut found, mut with_all) = (Vec::new(), None);
    for set in sets {
        let given: Vec<bool> = (0..n).map(|m| set >> m & 1 == 1).collect();
        let through = |e: Evaluation, heads: bool| Through {
            modalities: names.iter().zip(&given).filter(|(_, g)| **g).map(|(name, _)| name.clone()).collect(),
            heads,
            loss: e.loss,
            accuracy: e.accuracy,
        };
        let (whole, heads) = evaluate_some(task, model, params, device, batches, &given)?;
        with_all.get_or_insert(whole);
        found.push(through(whole, false));
        if let Some(e) = heads.filter(|_| set == all || set.count_ones() == 1) {
            found.push(through(e, true));
        }
    }
    Ok(with_all.map(|whole| (whole, found)))
}

/// A table of it: modalities, of which part of the model, loss, accuracy.
pub fn rows(all: &[Through]) -> Vec<[String; 4]> {
    let row = |t: &Through| {
        let part = if t.heads { "own heads" } else { "model" };
        let accuracy = t.accuracy.map_or("-".into(), |a| format!("{:.2} %", 100.0 * a));
        [t.modalities.join(" + "), part.to_string(), format!("{:.4}", t.loss), accuracy]
    };
    all.iter().map(row).collect()
}
