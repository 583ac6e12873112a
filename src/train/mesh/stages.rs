//! Which layers each stage of a pipeline has: as configured, or as makes the slowest stage fastest.
//!
//! The slowest stage sets the pace of all. Blocks cost alike, but the first stage has the embeddings too and the last the way
//! to logits, which may cost as much as several blocks. What each costs is measured once, by rank 0; the cut stands in the
//! run's config from then on.

use super::super::{Config, Task, Team};
use super::MeshConfig;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{self, Io, Part, Stage};
use crate::shape::{DType, Spec};
use crate::tape::{Grads, ParamsBuilder, Tape};
use crate::tensor::Tensor;
use std::ops::Range;
use std::time::Instant;

/// Stages are cut by what layers cost.
pub(super) const AUTO: &str = "auto";
/// Times that each part is run; the fastest counts.
const TRIES: usize = 5;

/// Errors where `mesh.stages` cuts no model of `layers` layers.
pub(super) fn validate(mesh: &MeshConfig, layers: usize) -> Result<()> {
    let p = mesh.pipeline;
    if p > layers {
        let what = format!(
            "is {p}, but model.layers is {layers}, and every stage needs a layer; take at most {layers}, or more layers"
        );
        return Err(Error::config("mesh.pipeline", what));
    }
    if mesh.stages == AUTO {
        return Ok(());
    }
    let counts: Option<Vec<usize>> = mesh.stages.split(',').map(|n| n.trim().parse().ok()).collect();
    let fits = counts.is_some_and(|c| {
        c.len() == p
            && c.iter().all(|n| *n > 0)
            && c.iter().try_fold(0usize, |a, n| a.checked_add(*n)) == Some(layers)
    });
    if fits {
        return Ok(());
    }
    let even = even(p, layers).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let what = format!(
        "is `{}`, but must be {p} numbers of layers, one for each of mesh.pipeline = {p} stages, that add up to model.layers = \
         {layers}, such as \"{even}\"; auto cuts stages that cost alike",
        mesh.stages
    );
    Err(Error::config("mesh.stages", what))
}

fn even(p: usize, layers: usize) -> impl Iterator<Item = usize> {
    (0..p).map(move |i| layers / p + usize::from(i < layers % p))
}

/// The layers of each stage; equally many where nothing was measured yet.
pub(super) fn ranges(mesh: &MeshConfig, layers: usize) -> Vec<Range<usize>> {
    let given: Vec<usize> = mesh.stages.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let counts = if given.len() == mesh.pipeline { given } else { even(mesh.pipeline, layers).collect() };
    let mut from = 0;
    let mut range = |n: usize| {
        from += n;
        from - n..from
    };
    counts.into_iter().map(&mut range).collect()
}

/// Seconds of a micro-batch, forward and backward.
#[derive(Clone, Copy, Debug)]
struct Costs {
    embeddings: f64,
    block: f64,
    head: f64,
}

impl Costs {
    /// Layers of `p` stages of `layers`, such that the slowest is fastest; of those cuts the one whose first stages have more, as
    /// those of an even cut.
    fn cut(&self, p: usize, layers: usize) -> Vec<usize> {
        // ANCHOR: cut
        let slowest = |counts: &[usize]| {
            let cost = |(i, n): (usize, &usize)| {
                let ends = [(i == 0, self.embeddings), (i + 1 == p, self.head)];
                *n as f64 * self.block + ends.iter().filter(|e| e.0).map(|e| e.1).sum::<f64>()
            };
            counts.iter().enumerate().map(cost).fold(0.0, f64::max)
        };
        // The stages between the first and the last cost alike, so they share evenly what these leave.
        let mut best: (f64, Vec<usize>) = (f64::INFINITY, even(p, layers).collect());
        for first in (1..=layers).rev() {
            for last in 1..=layers.saturating_sub(first) {
                let between = layers - first - last;
                if between < p - 2 || p == 2 && between > 0 {
                    continue;
                }
                let mut counts = vec![first];
                counts.extend(even(p - 2, between).take(p - 2));
                counts.push(last);
                let cost = slowest(&counts);
                if cost < best.0 {
                    best = (cost, counts);
                }
            }
        }
        // ANCHOR_END: cut
        best.1
    }

    /// Measured: of the model of `config` for micro-batches of `samples` samples.
    fn measure(config: &Config, io: &Io, device: &Device, samples: usize) -> Result<Costs> {
        let time = |number: usize, layers: Range<usize>| {
            let stage = Stage { number, of: 3, layers };
            Timed::new(config, io, device, stage)?.seconds(config, samples)
        };
        Ok(Costs { embeddings: time(0, 0..0)?, block: time(1, 0..1)?, head: time(2, 0..0)? })
    }
}

/// A piece of a model, to be timed.
struct Timed {
    model: nn::Model,
    params: crate::tape::Params,
    stage: Stage,
}

impl Timed {
    fn new(config: &Config, io: &Io, device: &Device, stage: Stage) -> Result<Timed> {
        let mut b = ParamsBuilder::new(device, DType::F32, config.seed);
        let part = Part { stage: Some(stage.clone()), ..Part::default() };
        let model = nn::build_part(&config.model, io, config.checkpoint, &part, &mut b)?;
        Ok(Timed { model, params: b.build()?, stage })
    }

    /// The fastest of some runs, forward and backward.
    fn seconds(&self, config: &Config, samples: usize) -> Result<f64> {
        let (device, tokens) = (self.params.device(), config.model.context);
        let spec = match self.stage.is_first() {
            true => Spec::new(DType::I32, &[samples, tokens])?,
            false => Spec::new(DType::F32, &[samples, tokens, config.model.dim])?,
        };
        let x = if self.stage.is_first() {
            Tensor::zeros(device, spec)?
        } else {
            Tensor::full(device, spec, 0.5)?
        };
        let target = Tensor::zeros(device, Spec::new(DType::I32, &[samples, tokens])?)?;
        let mut grads = Grads::new(&self.params)?;
        let mut best = f64::INFINITY;
        for _ in 0..TRIES {
            let from = Instant::now();
            let tape = Tape::train(&self.params, config.seed, 0).with_precision(config.precision);
            let x = if self.stage.is_first() { tape.constant(x.clone()) } else { tape.leaf(x.clone())? };
            let mut y = self.model.predict(&[Some(x)])?.output;
            if self.stage.is_last() {
                y = y.cross_entropy(&tape.constant(target.clone()))?;
            }
            let seed = Tensor::full(device, y.value().spec(), 1e-3)?;
            tape.backward_from(&[(&y, seed)], &mut grads)?;
            device.synchronize()?;
            best = best.min(from.elapsed().as_secs_f64());
        }
        Ok(best)
    }
}

impl Team {
    /// Cuts the stages of `config`, where it leaves that open, by what layers cost on rank 0. Gives what was measured, for people.
    pub(in crate::train) fn cut_stages(
        &self,
        config: &mut Config,
        task: &Task,
        device: &Device,
    ) -> Result<Option<String>> {
        let (p, layers) = (config.mesh.pipeline, config.model.layers);
        if p == 1 || config.mesh.stages != AUTO {
            return Ok(None);
        }
        let samples = config.batch_size / config.mesh.replicas(self.size());
        let (costs, counts) = self.share(|| {
            let c = Costs::measure(config, task.io(), device, samples)?;
            Ok(([c.embeddings, c.block, c.head], c.cut(p, layers)))
        })?;
        config.mesh.stages = counts.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let [embeddings, block, head] = costs.map(|s| s * 1e3);
        Ok(Some(format!(
            "a micro-batch takes {embeddings:.2} ms in the embeddings, {block:.2} ms in a layer, {head:.2} ms in the way to the \
             loss: stages have {} layers",
            config.mesh.stages
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_stage_is_as_fast_as_any_cut_makes_it() {
        let cut = |e: f64, h: f64, p, layers| Costs { embeddings: e, block: 1.0, head: h }.cut(p, layers);
        assert_eq!(cut(0.0, 0.0, 3, 5), [2, 2, 1]);
        assert_eq!(cut(0.1, 2.0, 2, 8), [5, 3]);
        assert_eq!(cut(0.1, 3.0, 4, 9), [3, 3, 2, 1]);
        assert_eq!(cut(0.0, 50.0, 2, 4), [3, 1], "every stage has a layer");
        assert_eq!(cut(9.0, 0.0, 3, 3), [1, 1, 1]);
        // Against all cuts there are.
        for (e, h) in [(0.0, 0.0), (0.3, 1.4), (2.2, 0.1), (0.2, 3.9)] {
            for layers in 3..9 {
                let cost = |c: &[usize]| (c[0] as f64 + e).max(c[1] as f64).max(c[2] as f64 + h);
                let all = (1..layers).flat_map(|a| (1..layers).map(move |b| [a, b]));
                let all = all.filter(|[a, b]| a + b < layers);
                let best = all.map(|[a, b]| cost(&[a, b, layers - a - b])).fold(f64::INFINITY, f64::min);
                assert_eq!(cost(&cut(e, h, 3, layers)), best, "{e} {h} {layers}");
            }
        }
    }
}
