//! sort: tokens sorted by the bucket of their query, and votes of neighbours (Kitaev et al. 2020, "Reformer"). The keys of its
//! layers are their queries scaled to length √d, so that a token has one bucket as query and as key. Unlike Reformer's, a query
//! sees its own key too, the one closest to it, and its windows need no sorting.
//!
//! Where a chunk of the sorted row begins depends on how many tokens of the whole text have smaller buckets. So a later token
//! can move a neighbour into or out of a query's chunk, and with it a block into or out of its list: what is read always
//! stands before the query, but what is chosen is not causal to the bit. Nothing short of sorting anew for every query would
//! change that, which is why it is exempt from the test of causality, and why generation refuses it.

use super::lsh::rotations;
use super::{Ask, Entry, Router};
use crate::error::Result;
use crate::nn::DynamicConfig;
use crate::ops::sort_chunk::SortChunk;
use crate::tape::Var;

/// Sorting by hashes, and votes of the neighbours: linear in the length, but later tokens move the chunks.
pub static SORT: Entry = Entry {
    name: "sort",
    doc: "blocks of neighbours in the tokens sorted by hash, keys being queries (Reformer); linear, cannot generate",
    shares_keys: true,
    is_causal: false,
    build: |layer, _| {
        let (c, index, width) = (layer.c.clone(), layer.index, layer.dim / layer.heads);
        Ok(Box::new(Sort { c, index, width }))
    },
};

struct Sort {
    c: DynamicConfig,
    index: usize,
    width: usize,
}

impl Router for Sort {
    fn route<'t>(&self, ask: Ask<'_, 't>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        if ask.offset > 0 {
            SORT.expect_causal()?; // earlier tokens were sorted without these
        }
        let rotations = rotations(&self.c, self.index, self.width, ask.query)?;
        let op = SortChunk {
            buckets: self.c.buckets.pow(self.c.hashes as u32),
            chunk: self.c.chunk,
            block: self.c.block,
            count: self.c.blocks,
            skip: ask.skip,
            is_causal: true,
        };
        Ok((ask.query.lsh_hash(&rotations, None)?.sort_chunk(op)?, None))
    }
}
