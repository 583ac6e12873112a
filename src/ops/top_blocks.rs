//! top_blocks: the blocks of keys of largest score of each query: of a row of scores, one a block, the `count` largest (of equal
//! ones the latest), as ascending numbers of blocks, then -1.
//!
//! With `is_causal` only blocks that end before the query's own are candidates, and none of the `skip` nearest, which a window
//! sees; else none within `skip` of it. Query i stands at position i + offset. A score that is NaN or -inf is no choice. Each of
//! `heads` heads gets the same list. No gradient. Cost: one pass over the scores.

use super::elementwise::{expect_inputs, expect_real};
use super::lists::{Candidates, best, check_ranges};
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

kernel! {
    ptx "top_blocks", LISTS = "lists";
    /// blocks [B, heads, Tq, count] of scores [B, Tq, n]. `extents` = [Tq, n, block, heads, skip, offset, count].
    pub static TOP = top_blocks(scores: in T, blocks: out i32, extents: val dims, causal: val flag) blocks((blocks / (extents[3] * extents[6]).max(1)).div_ceil(8));
}

fn top_blocks<T: Real>(scores: &[T], blocks: &mut [i32], extents: &[usize], causal: bool) {
    let &[tq, n, block, heads, skip, offset, count] = extents else { panic!("the op gives seven extents") };
    let candidates = Candidates { block, skip, offset, is_causal: causal };
    let (head, batch) = (tq * count, heads * tq * count);
    par::chunks_mut(blocks, batch, scores.len() * 4, |b, blocks| {
        let (first, rest) = blocks.split_at_mut(head);
        let mut order = Vec::with_capacity(n);
        for (i, list) in first.chunks_exact_mut(count).enumerate() {
            order.clear();
            let may = candidates.of(i);
            order.extend((0..n).filter(|&block| may(block)));
            best(&scores[(b * tq + i) * n..][..n], &mut order, list);
        }
        rest.chunks_exact_mut(head.max(1)).for_each(|other| other.copy_from_slice(first));
    });
}

/// Blocks of largest score.
#[derive(Debug, Clone, Copy)]
pub struct TopBlocks {
    /// Keys of a block.
    pub block: usize,
    /// Blocks chosen by a query, at most.
    pub count: usize,
    /// Blocks nearest to the query, its own included, that are no candidates.
    pub skip: usize,
    /// Position of the first query among the keys.
    pub offset: usize,
    /// Only blocks that end before the query's own are candidates.
    pub is_causal: bool,
    /// Heads that get each list.
    pub heads: usize,
}

impl Default for TopBlocks {
    fn default() -> TopBlocks {
        TopBlocks { block: 64, count: 8, skip: 1, offset: 0, is_causal: true, heads: 1 }
    }
}

const NAME: &str = "top_blocks";

impl Op for TopBlocks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 1, 1)?;
        expect_real(NAME, "scores", &x[0])?;
        let &[batch, tq, _] = x[0].shape.dims() else {
            let what = format!("scores have shape {}, but must be [batch, queries, blocks]", x[0].shape);
            return Err(Error::shape(NAME, what));
        };
        let ranges = [
            ("block", self.block, 1, 1 << 16),
            ("count", self.count, 1, 32),
            ("skip", self.skip, 0, 1 << 20),
            ("offset", self.offset, 0, 1 << 30),
            ("heads", self.heads, 1, 1 << 12),
        ];
        check_ranges(NAME, &ranges)?;
        Ok(smallvec::smallvec![Spec::new(DType::I32, &[batch, self.heads, tq, self.count])?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let mut blocks = cx.empty(self.infer(&[x[0].spec()])?[0])?;
        let &[_, tq, n] = x[0].dims() else { unreachable!("infer saw three axes") };
        let extents = [tq, n, self.block, self.heads, self.skip, self.offset, self.count];
        let flag = Arg::Flag(self.is_causal);
        cx.launch(&TOP, &mut [Arg::In(x[0]), Arg::Out(&mut blocks), Arg::Dims(&extents), flag])?;
        Ok(smallvec::smallvec![blocks])
    }

    fn backward(&self, _: &mut Cx<'_>, _: &[Tensor], _: &[Option<Tensor>], _: &mut [Adjoint]) -> Result<()> {
        Ok(()) // blocks are integers: no gradient arrives
    }
}

impl<'t> Var<'t> {
    /// Blocks i32 [B, heads, Tq, count] of largest score, for scores `self` [B, Tq, blocks].
    pub fn top_blocks(&self, op: TopBlocks) -> Result<Var<'t>> {
        self.tape().apply1(op, &[self])
    }
}

/// top_blocks in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "numbers of the blocks of largest score of each query",
    inputs: &[Port::real("scores")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "block", kind: Kind::Int, default: Some("64"), doc: "keys of a block" },
        AttrDoc { name: "count", kind: Kind::Int, default: Some("8"), doc: "blocks of a query, at most" },
        AttrDoc { name: "skip", kind: Kind::Int, default: Some("1"), doc: "blocks nearest to the query that are left out" },
        AttrDoc { name: "offset", kind: Kind::Int, default: Some("0"), doc: "position of the first query among the keys" },
        AttrDoc { name: "is_causal", kind: Kind::Bool, default: Some("true"), doc: "only blocks before the query's own" },
        AttrDoc { name: "heads", kind: Kind::Int, default: Some("1"), doc: "heads that get each list" },
    ],
    build: |a| {
        Ok(Arc::new(TopBlocks {
            block: a.size("block")?,
            count: a.size("count")?,
            skip: a.size("skip")?,
            offset: a.size("offset")?,
            is_causal: a.flag("is_causal")?,
            heads: a.size("heads")?,
        }))
    },
    kernels: &[&TOP],
    samples: || {
        let of = |note, dims: [usize; 3]| Sample::new(note).normal(&dims).attr("block", 2);
        vec![
            of("causal", [2, 21, 11]).attr("count", 3),
            of("later queries of two heads", [1, 5, 70]).attr("offset", 130).attr("heads", 2).attr("skip", 3),
            of("both sides", [1, 9, 40]).attr("is_causal", false).attr("skip", 2),
            Sample::new("equal scores, the latest win")
                .input(&[1, 12, 6], Fill::Values(vec![0.5; 72]))
                .attr("block", 2)
                .attr("count", 2),
            of("no block", [1, 4, 0]),
            Sample::new("16384 queries x 256 blocks").normal(&[1, 16384, 256]).large(),
        ]
    },
};
