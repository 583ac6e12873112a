//! Routers: how a query finds the blocks of keys beyond its windows that matter to it. Each gives a sorted list of at most
//! `blocks` numbers for each query, filled up with -1, of blocks that end before the query's own.
//!
//! | file | router | finds blocks by | cost in the length | later tokens change a list |
//! |---|---|---|---|---|
//! | `lsh.rs` | `lsh` | votes of the buckets that query and keys share | linear | never |
//! | `sort.rs` | `sort` | the same among neighbours of the row sorted by bucket | linear | yes: chunks begin where counts of all tokens say |
//! | `gate.rs` | `gate` | the product of query and mean key | quadratic / block | never |
//! | `indexer.rs` | `indexer` | scores that are trained to foretell where attention goes | quadratic / block; in training quadratic | never |
//! | `random.rs` | `random` | chance: the control for the others | quadratic / block | never |
//!
//! A router whose lists depend on later tokens can be trained and evaluated, but not generate, where there are none yet; it says
//! so in its [`Entry`], and the tests of causality and of the cache leave it out.

mod gate;
mod indexer;
mod lsh;
mod random;
mod sort;

pub use gate::GATE;
pub use indexer::INDEXER;
pub use lsh::LSH;
pub use random::RANDOM;
pub use sort::SORT;

use super::DynamicConfig;
use crate::attrs::nearest;
use crate::error::{Error, Result};
use crate::tape::{ParamsBuilder, Var};
use crate::tensor::Tensor;

/// What a router is asked: for one layer, queries [B, H, Tq, d] of positions `offset` and on among keys [B, H, Tk, d].
/// Both are constants: no gradient reaches a choice of blocks.
pub struct Ask<'a, 't> {
    /// Queries, which no position has turned yet: equal contents agree wherever they stand.
    pub query: &'a Var<'t>,
    /// Such keys, those of earlier calls included.
    pub key: &'a Var<'t>,
    /// Queries and keys as attention multiplies them.
    pub turned: [&'a Var<'t>; 2],
    /// The layer's input [B, Tq, dim], a constant too.
    pub x: &'a Var<'t>,
    /// Position of the first query.
    pub offset: usize,
    /// Blocks nearest to a query, its own included, that its window sees.
    pub skip: usize,
    /// What the router remembers of the keys of earlier calls in generation; None outside it.
    pub memory: Option<&'a mut Option<Tensor>>,
}

/// A router of one layer.
pub trait Router: Send + Sync {
    /// i32 [B, H, Tq, blocks]: ascending numbers of blocks, filled up with -1. Beside it what the router adds to the loss of
    /// training, if it learns.
    fn route<'t>(&self, ask: Ask<'_, 't>) -> Result<(Var<'t>, Option<Var<'t>>)>;
}

/// The layer that a router is built for.
pub struct Layer<'a> {
    /// Windows and blocks.
    pub c: &'a DynamicConfig,
    /// Beginning of the names of the router's slots.
    pub name: &'a str,
    /// Number of the layer.
    pub index: usize,
    /// Width of the layer's input.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
}

/// A router as a row of the table of routers.
pub struct Entry {
    /// Name, as `model.router` takes it.
    pub name: &'static str,
    /// What it does and what it costs, in one line.
    pub doc: &'static str,
    /// The keys of its layers are their queries, scaled to one length.
    pub shares_keys: bool,
    /// No list depends on a later token.
    pub is_causal: bool,
    /// The router of a layer, and its slots.
    pub build: fn(&Layer<'_>, &mut ParamsBuilder) -> Result<Box<dyn Router>>,
}

impl Entry {
    /// Error when a list may depend on later tokens, which a text that is being written does not have.
    pub fn expect_causal(&self) -> Result<()> {
        if self.is_causal {
            return Ok(());
        }
        let what = "chooses blocks by later tokens too, so it cannot write a text; train with a router that does not";
        Err(Error::config("model.router", format!("is `{}`, which {what}: {}", self.name, causal_names())))
    }

    /// What a run should say of it.
    pub fn notice(&self) -> Option<String> {
        let what = "chooses blocks by later tokens too (values of later tokens are never read): a loss can profit a little \
                    from what it should foretell, and `generate` refuses the model";
        (!self.is_causal).then(|| format!("model.router = \"{}\" {what}", self.name))
    }
}

fn causal_names() -> String {
    let names: Vec<&str> = ALL.iter().filter(|e| e.is_causal).map(|e| e.name).collect();
    names.join(", ")
}

/// Every router.
pub static ALL: &[&Entry] = &[&LSH, &GATE, &SORT, &INDEXER, &RANDOM];

/// The router of this name; None for `none`.
pub fn find(name: &str) -> Result<Option<&'static Entry>> {
    let found = ALL.iter().find(|e| e.name == name);
    if found.is_some() || name == "none" {
        return Ok(found.copied());
    }
    let names = || ALL.iter().map(|e| e.name).chain(["none"]);
    let all = names().collect::<Vec<_>>().join(", ");
    Err(Error::config("model.router", format!("is `{name}`{}; there are: {all}", nearest(name, names()))))
}

/// Blocks nearest to a query, its own included, that the window of `c` sees whole, as it is at first: not worth a vote.
pub(super) fn skip(c: &DynamicConfig) -> usize {
    (c.window - 1) / c.block + 1
}
