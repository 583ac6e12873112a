//! [`MeshConfig`]: how the ranks of a run are laid out as a grid, and the groups that each rank belongs to.
//!
//! A mesh of data × context × tensor has data · context · tensor ranks. Rank r is number r mod tensor of the ranks that share each
//! layer (they are neighbours, since they talk most), number r / tensor mod context of those that share each sequence, and belongs to
//! replica r / (tensor · context), which has its share of the batch.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the grid |
//! | `division.rs` | [`Division`](division::Division): weights and states of the parts as one whole, and back |
//! | `team.rs` | what ranks of a mesh agree on: groups, the norm of the whole gradient |

pub(super) mod division;
mod team;

use super::Config;
use super::asynchronous::Mode;
use crate::comm::Group;
use crate::error::{Error, Result};
use crate::nn::ModelKind;
use crate::nn::{self, Activation};
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
    /// Ranks that share each sequence.
    pub context: usize,
}

impl Default for MeshConfig {
    fn default() -> MeshConfig {
        MeshConfig { data: 0, tensor: 1, context: 1 }
    }
}

/// Optimizers that read whole matrices, or sum over all weights.
const WHOLE: [&str; 3] = ["adafactor", "muon", "prodigy"];

impl MeshConfig {
    /// Ranks that share one model.
    pub fn shares(&self) -> usize {
        self.tensor * self.context
    }

    /// Replicas among `p` ranks.
    pub fn replicas(&self, p: usize) -> usize {
        p / self.shares().max(1)
    }

    /// Errors, by key, where no number of ranks can train `c`.
    pub(super) fn validate(&self, c: &Config) -> Result<()> {
        for (key, ranks) in [("mesh.tensor", self.tensor), ("mesh.context", self.context)] {
            if ranks == 0 || ranks > 1 << 16 {
                return Err(Error::config(key, format!("is {ranks}, but must be at least 1")));
            }
            if ranks > 1 && c.model.kind != ModelKind::Gpt {
                let kind = c.model.kind;
                let what =
                    format!("is {ranks}, but ranks share a gpt only, and model.kind is {kind}; set it to 1");
                return Err(Error::config(key, what));
            }
        }
        let model = &c.model;
        if !model.heads.is_multiple_of(self.tensor) {
            let what = format!(
                "is {}, which does not divide model.heads = {}: every rank needs as many heads; take a divisor, or other heads",
                self.tensor, model.heads
            );
            return Err(Error::config("mesh.tensor", what));
        }
        if self.context > 1 && !model.context.is_multiple_of(self.context) {
            let what = format!(
                "is {}, which does not divide model.context = {}; take a divisor, or another context",
                self.context, model.context
            );
            return Err(Error::config("mesh.context", what));
        }
        let (tensor, context) = (self.tensor > 1, self.context > 1);
        let single = WHOLE.contains(&c.optimizer.name.as_str());
        // Which settings what kind of sharing cannot do.
        let alone = [
            ("model.attention", !nn::is_dense(model), "is not dense", tensor || context),
            ("model.recall_heads", model.recall_heads > 0, "is above 0", tensor || context),
            ("model.shift", model.shift > 0, "is above 0", context),
            ("model.qk_norm", model.qk_norm, "is true", tensor),
            ("model.activation", model.activation == Activation::Sparse, "is sparse", tensor),
            ("micro_shards", c.micro_shards > 0, "is above 0", tensor || context),
            ("controller.name", c.controller.name != ControllerName::None, "is not none", tensor),
            ("codec.name", !c.codec.is_none(), "is not none", tensor),
            ("zero", c.zero > 0, "is 1", tensor),
            ("asynchronous.mode", c.asynchronous.mode != Mode::None, "is not none", tensor || context),
            ("optimizer.name", single, "reads more than single weights", tensor),
        ];
        for (key, set, is, sharing) in alone {
            if set && sharing {
                let what = format!(
                    "{is}, which ranks that share a model (mesh.tensor = {}, mesh.context = {}) cannot do; change it, or set \
                     these to 1",
                    self.tensor, self.context
                );
                return Err(Error::config(key, what));
            }
        }
        Ok(())
    }

    /// Errors, by key, where `p` ranks are not this mesh.
    pub(super) fn fits(&self, p: usize) -> Result<()> {
        let (data, shares) = (self.data, self.shares());
        let grid = format!("tensor × context = {} × {}", self.tensor, self.context);
        if data > 0 && data * shares != p {
            let all = data * shares;
            let what = format!(
                "is {data}, which with {grid} makes {all} ranks, but there are {p}; start {all}, or set mesh.data = 0 for as many \
                 replicas as fit"
            );
            return Err(Error::config("mesh.data", what));
        }
        if !p.is_multiple_of(shares) {
            let key = if self.tensor > 1 { "mesh.tensor" } else { "mesh.context" };
            let what = format!(
                "does not fit {p} ranks: {grid} needs {shares}, or a multiple; start as many, or set both to 1"
            );
            return Err(Error::config(key, what));
        }
        Ok(())
    }
}

/// The groups of a rank that shares its model with others.
pub(super) struct Mesh {
    /// Ranks that share each layer.
    pub(super) tensor: Group,
    /// Ranks that share each sequence.
    pub(super) context: Group,
}
