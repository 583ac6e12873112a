//! [`MeshConfig`]: how the ranks of a run are laid out as a grid, and the groups that each rank belongs to.
//!
//! A mesh of data × context × tensor × pipeline has as many ranks. Those that share the layers of a stage are neighbours, since they
//! talk most; then come those that share each sequence, then replicas, each with its share of the batch; stages, which talk least,
//! are furthest apart: rank = ((stage · data + replica) · context + stretch) · tensor + number among those that share its layers.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the grid |
//! | `division.rs` | [`Division`](division::Division): weights and states of the parts as one whole, and back |
//! | `schedule.rs` | 1F1B: what a stage does, in order |
//! | `pipeline.rs` | a step of a stage |
//! | `stages.rs` | which layers a stage has, by what they cost |
//! | `team.rs` | what ranks of a mesh agree on: groups, the norm of the whole gradient |

pub(super) mod division;
mod pipeline;
mod schedule;
mod stages;
mod team;

use super::Config;
use super::asynchronous::Mode;
use crate::comm::Group;
use crate::error::{Error, Result};
use crate::nn::ModelKind;
use crate::nn::{self, Activation, ModelConfig};
use crate::optim::ControllerName;
use serde::{Deserialize, Serialize};

/// How many ranks do what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshConfig {
    /// Replicas of the model, each with its share of every batch; 0: as many as the ranks make.
    pub data: usize,
    /// Ranks that share each layer.
    pub tensor: usize,
    /// Ranks that share each sequence, with a stretch of its tokens each.
    pub context: usize,
    /// Stages, each with some of the layers.
    pub pipeline: usize,
    /// Layers of each stage, with commas between; `auto`: as makes stages cost alike.
    pub stages: String,
}

impl Default for MeshConfig {
    fn default() -> MeshConfig {
        MeshConfig { data: 0, tensor: 1, context: 1, pipeline: 1, stages: stages::AUTO.into() }
    }
}

/// Optimizers that read whole matrices, or sum over all weights.
const WHOLE: [&str; 3] = ["adafactor", "muon", "prodigy"];

/// Where a rank stands in a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stage: usize,
    pub(super) replica: usize,
    /// Number among the ranks that share its sequences.
    pub(super) stretch: usize,
    /// Number among the ranks that share its layers.
    pub(super) tensor: usize,
}

impl MeshConfig {
    /// Ranks that share one model.
    pub fn shares(&self) -> usize {
        self.tensor * self.context * self.pipeline
    }

    /// Replicas among `p` ranks.
    pub fn replicas(&self, p: usize) -> usize {
        p / self.shares().max(1)
    }

    /// Cuts stages anew where there are others than `before`, and nobody says how.
    pub(super) fn recut(&mut self, before: &MeshConfig) {
        if self.pipeline != before.pipeline && self.stages == before.stages {
            self.stages = stages::AUTO.into();
        }
    }

    /// Where rank `r` of `p` stands.
    pub(super) fn place(&self, r: usize, p: usize) -> Place {
        let (tensor, row) = (r % self.tensor, r / self.tensor);
        let (stretch, row) = (row % self.context, row / self.context);
        let data = self.replicas(p).max(1);
        Place { stage: row / data, replica: row % data, stretch, tensor }
    }

    /// Errors, by key, where no number of ranks can train `c`.
    pub(super) fn validate(&self, c: &Config) -> Result<()> {
        let axes =
            [("mesh.tensor", self.tensor), ("mesh.context", self.context), ("mesh.pipeline", self.pipeline)];
        for (key, ranks) in axes {
            if ranks == 0 || ranks > 1 << 16 {
                return Err(Error::config(
                    key,
                    format!("is {ranks}, but must be at least 1, and at most 65536"),
                ));
            }
            if ranks > 1 && c.model.kind != ModelKind::Gpt {
                let what = format!(
                    "is {ranks}, but ranks share the layers of a gpt only, and model.kind is {}; set it to 1",
                    c.model.kind
                );
                return Err(Error::config(key, what));
            }
        }
        stages::validate(self, c.model.layers)?;
        if !c.model.heads.is_multiple_of(self.tensor) {
            let what = format!(
                "is {}, which does not divide model.heads = {}: every rank needs as many heads; take a divisor, or other \
                 heads",
                self.tensor, c.model.heads
            );
            return Err(Error::config("mesh.tensor", what));
        }
        if !c.model.context.is_multiple_of(self.context) {
            let what = format!(
                "is {}, which does not divide model.context = {}; take a divisor, or another context",
                self.context, c.model.context
            );
            return Err(Error::config("mesh.context", what));
        }
        self.refuse(c)
    }

    /// Errors on what ranks that share a model cannot do.
    fn refuse(&self, c: &Config) -> Result<()> {
        let (m, name) = (&c.model, &c.optimizer.name[..]);
        let (tensor, context, pipeline) = (self.tensor > 1, self.context > 1, self.pipeline > 1);
        // Each has a part of the weights.
        let parts = tensor || pipeline;
        // A router draws random numbers in each layer; a stage knows how many the layers of others draw where dropout alone does.
        let routes = !nn::is_dense(m) && m.router != "none";
        let alone = [
            (tensor || context, "model.attention", !nn::is_dense(m), "is not dense"),
            (tensor || context, "model.recall_heads", m.recall_heads > 0, "is above 0"),
            (context, "model.shift", m.shift > 0, "is above 0"),
            (tensor, "model.qk_norm", m.qk_norm, "is true"),
            (pipeline, "model.router", routes, "is not none"),
            (parts, "model.activation", m.activation == Activation::Sparse, "is sparse"),
            (parts || context, "micro_shards", c.micro_shards > 0, "is above 0"),
            (parts, "controller.name", c.controller.name != ControllerName::None, "is not none"),
            (parts, "codec.name", !c.codec.is_none(), "is not none"),
            (parts, "zero", c.zero > 0, "is 1"),
            (parts || context, "asynchronous.mode", c.asynchronous.mode != Mode::None, "is not none"),
            (parts, "optimizer.name", WHOLE.contains(&name), "reads more than single weights"),
            (pipeline, "optimizer.name", name == "vsgd_fd", "asks for a second gradient in a step"),
        ];
        let Some((_, key, _, is)) = alone.into_iter().find(|(shared, _, wrong, _)| *shared && *wrong) else {
            return Ok(());
        };
        let what = format!(
            "{is}, which ranks that share a model (mesh.tensor = {}, mesh.context = {}, mesh.pipeline = {}) cannot do; \
             change it, or set these to 1",
            self.tensor, self.context, self.pipeline
        );
        Err(Error::config(key, what))
    }

    /// Errors, by key, where `p` ranks are not this mesh.
    pub(super) fn fits(&self, p: usize) -> Result<()> {
        let (data, shares) = (self.data, self.shares());
        let grid = format!("{} × {} × {}", self.tensor, self.context, self.pipeline);
        if data > 0 && data * shares != p {
            let what = format!(
                "is {data}, and data × tensor × context × pipeline = {data} × {grid} = {}, but there are {p} ranks; start {}, or set \
                 mesh.data = 0 for as many replicas as fit",
                data * shares,
                data * shares,
            );
            return Err(Error::config("mesh.data", what));
        }
        if !p.is_multiple_of(shares) {
            let key = match (self.tensor, self.context) {
                (1, 1) => "mesh.pipeline",
                (1, _) => "mesh.context",
                _ => "mesh.tensor",
            };
            let what = format!(
                "makes tensor × context × pipeline = {grid} = {shares}, which does not divide {p} ranks; start {shares} or a multiple, \
                 or set these to 1",
            );
            return Err(Error::config(key, what));
        }
        Ok(())
    }

    /// What a run by stages should know of `micro` micro-batches a step.
    pub(super) fn notice(&self, micro: u64) -> Option<String> {
        let (p, m) = (self.pipeline as f64, micro as f64);
        (self.pipeline > 1).then(|| {
            format!(
                "{p} stages of {} layers and {m} micro-batches a step: stages wait for each other in {:.0} % of it; a larger \
                 accumulate makes that less",
                self.stages,
                100.0 * (p - 1.0) / (m + p - 1.0)
            )
        })
    }

    /// The stage that `place` is in, None where there is one only.
    fn stage(&self, place: Place, model: &ModelConfig) -> Option<nn::Stage> {
        let layers = stages::ranges(self, model.layers).get(place.stage).cloned()?;
        (self.pipeline > 1).then_some(nn::Stage { number: place.stage, of: self.pipeline, layers })
    }
}

/// The groups of a rank that shares its model with others.
pub(super) struct Mesh {
    /// Ranks that share each layer.
    pub(super) tensor: Group,
    /// Ranks that share each sequence.
    pub(super) context: Group,
    /// All that have a part of the same replica of the model: by stage, then by number among those that share layers.
    pub(super) model: Group,
    /// Stages of one pipeline: activations go up, gradients down.
    pub(super) pipe: Group,
    /// First and last stage, where both have the weights of the symbols.
    pub(super) tied: Option<Group>,
    /// How all are laid out.
    pub(super) layout: MeshConfig,
    pub(super) place: Place,
}

impl Mesh {
    /// The groups, but for that of gradients.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        [&self.tensor, &self.context, &self.model, &self.pipe].into_iter().chain(&self.tied)
    }
}
