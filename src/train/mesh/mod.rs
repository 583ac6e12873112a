//! [`MeshConfig`]: how the ranks of a run are laid out as a grid, and the groups that each rank belongs to.
//!
//! A mesh of data × tensor has data · tensor ranks. Rank r is number r mod tensor of the ranks that share one model (tensor
//! ranks are neighbours, since they talk most), and number r / tensor of the replicas, each with its share of the batch.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the grid |
//! | `division.rs` | [`Division`](division::Division): weights and states of the parts as one whole, and back |
//! | `team.rs` | what ranks of a mesh agree on: groups, the norm of the whole gradient |

pub(super) mod division;
mod team;

use super::Config;
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
}

impl Default for MeshConfig {
    fn default() -> MeshConfig {
        MeshConfig { data: 0, tensor: 1 }
    }
}

/// Optimizers that read whole matrices, or sum over all weights.
const WHOLE: [&str; 3] = ["adafactor", "muon", "prodigy"];

impl MeshConfig {
    /// Ranks that share one model.
    pub fn shares(&self) -> usize {
        self.tensor
    }

    /// Replicas among `p` ranks.
    pub fn replicas(&self, p: usize) -> usize {
        p / self.shares().max(1)
    }

    /// Errors, by key, where no number of ranks can train `c`.
    pub(super) fn validate(&self, c: &Config) -> Result<()> {
        let (tensor, model) = (self.tensor, &c.model);
        let bad = |key: &str, what: String| Err(Error::config(key, what));
        if tensor == 0 {
            return bad("mesh.tensor", "is 0, but must be at least 1".into());
        }
        if tensor == 1 {
            return Ok(());
        }
        if model.kind != ModelKind::Gpt {
            let what = format!(
                "is {tensor}, but ranks share the layers of a gpt only, and model.kind is {}",
                model.kind
            );
            return bad("mesh.tensor", what + "; set it to 1");
        }
        if !model.heads.is_multiple_of(tensor) {
            let what = format!(
                "is {tensor}, which does not divide model.heads = {}: every rank needs as many heads; take a divisor, or other \
                 heads",
                model.heads
            );
            return bad("mesh.tensor", what);
        }
        let alone = [
            ("model.attention", !nn::is_dense(model), "is not dense"),
            ("model.recall_heads", model.recall_heads > 0, "is above 0"),
            ("model.qk_norm", model.qk_norm, "is true"),
            ("model.activation", model.activation == Activation::Sparse, "is sparse"),
            ("micro_shards", c.micro_shards > 0, "is above 0"),
            ("controller.name", c.controller.name != ControllerName::None, "is not none"),
            ("codec.name", !c.codec.is_none(), "is not none"),
            ("optimizer.name", WHOLE.contains(&c.optimizer.name.as_str()), "reads more than single weights"),
        ];
        for (key, wrong, is) in alone {
            if wrong {
                let what = format!(
                    "{is}, which ranks that share layers (mesh.tensor = {tensor}) cannot do; change it, or set \
                                    mesh.tensor = 1"
                );
                return bad(key, what);
            }
        }
        Ok(())
    }

    /// Errors, by key, where `p` ranks are not this mesh.
    pub(super) fn fits(&self, p: usize) -> Result<()> {
        let (data, shares) = (self.data, self.shares());
        if data > 0 && data * shares != p {
            let what = format!(
                "is {data}, and data × tensor = {data} × {} = {}, but there are {p} ranks; start {}, or set mesh.data = 0 for as \
                 many replicas as fit",
                self.tensor,
                data * shares,
                data * shares,
            );
            return Err(Error::config("mesh.data", what));
        }
        if !p.is_multiple_of(shares) {
            let what = format!(
                "is {}, which does not divide {p} ranks; start {shares} or a multiple, or set mesh.tensor = 1",
                self.tensor
            );
            return Err(Error::config("mesh.tensor", what));
        }
        Ok(())
    }
}

/// The groups of a rank that shares its model with others.
pub(super) struct Mesh {
    /// Ranks that share each layer.
    pub(super) tensor: Group,
}
