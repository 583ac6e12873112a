//! Where a model of several modalities looks: the attention between image, sound and words of some held-out samples.

use super::{Objective, Task};
use crate::data::{Batch, FrontEnd};
use crate::device::Device;
use crate::error::Result;
use crate::nn::Model;
use crate::nn::fusion::{Form, Map};
use crate::tape::{Params, Tape, Var};

/// One modality of a sample, as the model read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Name of its field.
    pub name: String,
    /// Its values.
    pub what: Values,
    /// Rows and columns of the tokens made of it.
    pub grid: [usize; 2],
}

/// Values that can be drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Of so many columns each row: an image (of several channels their mean), or frames of sound, one a column.
    Plane {
        /// Columns.
        width: usize,
        /// Row by row, the top one first.
        values: Vec<f64>,
        /// Rows are coefficients of frames, the lowest at the bottom.
        sound: bool,
    },
    /// Symbols, without those that fill a text up.
    Symbols(Vec<String>),
}

/// A held-out sample with where the model looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    /// Number of the sample in the held-out split.
    pub sample: usize,
    /// Its class, and the one that the model holds it to be.
    pub classes: Option<[String; 2]>,
    /// Its modalities.
    pub shown: Vec<Shown>,
    /// Where tokens look.
    pub maps: Vec<Map>,
}

/// Samples that are shown.
const SAMPLES: usize = 3;

/// Where `model` looks in the first held-out samples that have all modalities; None for models whose modalities do not meet.
pub fn maps(task: &Task, model: &Model, params: &Params, device: &Device) -> Result<Option<Vec<Looked>>> {
    let Model::Fusion(fusion) = model else { return Ok(None) };
    let Some(batch) = task.evaluation(device)?.next() else { return Ok(None) };
    let batch = batch?;
    let tape = Tape::eval(params).with_precision(task.precision());
    let (values, has) = (task.values(&batch, &tape)?, task.has(&batch, &tape)?);
    let has = has.iter().flatten().map(|h| h.value().to_host()?.to_f64()).collect::<Result<Vec<_>>>()?;
    let whole = (0..batch.len()).filter(|&b| has.iter().all(|h| h[b] != 0.0)).take(SAMPLES);
    let mut all = Vec::new();
    for sample in whole {
        let one = |v: &Var<'_>| {
            let each = v.value().len() / v.dims()[0];
            let dims: Vec<usize> = [1].iter().chain(&v.dims()[1..]).copied().collect();
            Ok(tape.constant(v.value().window(sample * each, &dims)?))
        };
        let values = values.iter().map(|v| v.as_ref().map(one).transpose()).collect::<Result<Vec<_>>>()?;
        let maps = fusion.maps(&values)?;
        if maps.is_empty() {
            return Ok(None);
        }
        let grids = fusion.grids();
        let parts = task.inputs().iter().zip(values.iter().flatten()).zip(grids);
        let shown = parts.map(|((name, v), grid)| shown(task, name, v, grid)).collect::<Result<_>>()?;
        let said = fusion.forward(&values, &[])?.output;
        all.push(Looked { sample, classes: classes(task, &batch, sample, &said)?, shown, maps });
    }
    Ok(Some(all))
}

/// The class of a sample and that of its logits, by name.
fn classes(task: &Task, batch: &Batch, sample: usize, said: &Var<'_>) -> Result<Option<[String; 2]>> {
    if task.objective() != Objective::Classify {
        return Ok(None);
    }
    let target = task.parts(batch)?.1.to_host()?;
    let said = said.value().to_host()?.to_f64()?;
    let best = (0..said.len()).fold(0, |b, i| if said[i] > said[b] { i } else { b });
    let names = &task.set().header().about.classes;
    let name = |i: usize| names.get(i).cloned().unwrap_or_else(|| i.to_string());
    Ok(Some([target.as_slice::<i32>()?[sample] as usize, best].map(name)))
}

fn shown(task: &Task, name: &str, value: &Var<'_>, grid: [usize; 2]) -> Result<Shown> {
    let what = match (task.form(name)?, task.set().header().front_end(name)) {
        (Form::Text { .. }, front_end) => {
            let ids = value.value().to_host()?;
            let symbol = |&id: &i32| match front_end {
                Some(FrontEnd::Text { vocabulary, .. }) => {
                    vocabulary.get(id as usize).cloned().unwrap_or_default()
                }
                _ => id.to_string(),
            };
            Values::Symbols(ids.as_slice::<i32>()?.iter().filter(|&&id| id != 0).map(symbol).collect())
        }
        (Form::Image([channels, height, width]), _) => {
            let v = value.value().to_host()?.to_f64()?;
            let n = height * width;
            let mean = |i: usize| (0..channels).map(|c| v[c * n + i]).sum::<f64>() / channels as f64;
            Values::Plane { width, values: (0..n).map(mean).collect(), sound: false }
        }
        (Form::Sound([frames, coefficients]), _) => {
            let v = value.value().to_host()?.to_f64()?;
            let row = |c: usize| (0..frames).map(move |f| f * coefficients + c);
            let values = (0..coefficients).rev().flat_map(row).map(|i| v[i]).collect();
            Values::Plane { width: frames, values, sound: true }
        }
    };
    Ok(Shown { name: name.into(), what, grid })
}
