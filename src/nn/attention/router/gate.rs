//! gate: the product of a query with the mean key of each block.

use super::{Ask, Entry, Router};
use crate::error::Result;
use crate::ops::mean_pool_gate::MeanPoolGate;
use crate::tape::Var;

/// Mean keys of blocks: the score of every block for every query, so quadratic in the length, at 1/block of dense attention.
pub static GATE: Entry = Entry {
    name: "gate",
    doc: "blocks whose mean key agrees most with the query (MoBA); quadratic: scores every block, 1/block of dense attention",
    shares_keys: false,
    is_causal: true,
    build: |layer, _| Ok(Box::new(Gate { block: layer.c.block, count: layer.c.blocks })),
};

struct Gate {
    block: usize,
    count: usize,
}

impl Router for Gate {
    fn route<'t>(&self, ask: Ask<'_, 't>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let (block, count, skip, offset) = (self.block, self.count, ask.skip, ask.offset);
        let op = MeanPoolGate { block, count, skip, offset, is_causal: true };
        Ok((ask.query.mean_pool_gate(ask.key, op)?, None))
    }
}
