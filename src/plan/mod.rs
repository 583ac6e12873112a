//! What training on many devices would cost: layouts of a GPT on a described cluster, costed and compared. Nothing runs here; it is
//! a model, and [`ASSUMPTIONS`] says of what.
//!
//! | file | holds |
//! |---|---|
//! | `cluster.rs`, `clusters/` | [`Cluster`]: devices, links, failures, as a TOML file says them; two that come with ringtape |
//! | `model.rs` | [`Model`]: parameters, operations and activations of a GPT |
//! | `layout.rs` | [`Layout`]: who has which part of the work; [`Job`]: the work |
//! | `network.rs` | [`Group`]: sums and gathers among ranks of one node and of many |
//! | `pipeline.rs` | [`Pipeline`]: 1F1B as an event simulation |
//! | `failures.rs` | how often to save, and what is left of the time |
//! | `cost.rs` | [`Cost`]: all of it, for one layout |
//! | `search.rs` | [`search`]: the layouts that fit, the fastest first |

mod cluster;
mod cost;
pub mod failures;
mod layout;
mod model;
mod network;
mod pipeline;
mod search;

pub use cluster::{Cluster, Link, NAMES, Risk, Width};
pub use cost::{Cost, cost};
pub use layout::{Job, Layout};
pub use model::Model;
pub use network::Group;
pub use pipeline::{Pipeline, Schedule};
pub use search::{Found, search};

/// What the figures rest on, and what they leave out.
pub const ASSUMPTIONS: &[&str] = &[
    "products run at `flops` × `utilisation` whatever their size; attention is causal and skips what it masks",
    "ranks are placed tensor first, then context, pipeline, data; groups of several nodes sum within a node, then between",
    "links do not share: a device has its `beta` between nodes for itself, and kinds of traffic do not slow each other",
    "sums take the cheaper of ring and recursive doubling; those of tensor and context parallelism overlap with nothing",
    "gradients of a bucket go when the last micro-batch has them; with zero the weights come back under the next forward",
    "activations are divided by tp (sequence parallelism) and are 16 numbers × dim a layer and token, or 1 when recomputed",
    "1F1B without interleaving; devices are equally fast at all times; the batch need not divide, the largest share counts",
    "a failed device is replaced at once: `restart` and reading the snapshot; failures come at random (exponential)",
    "codecs cost no time; local steps, late sums and large batches need no more tokens: that is for an experiment to say",
];
