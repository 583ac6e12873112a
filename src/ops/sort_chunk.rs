//! sort_chunk: the blocks of keys that share a bucket with a query after sorting (Kitaev et al. 2020, "Reformer", section
//! 2), for layers whose keys are their queries. In each round r tokens are sorted by (bucket, position), and the sorted row
//! is cut into chunks of m. With s_r(i) the place of token i,
//!
//! N_r(i) = tokens of i's bucket at places of its chunk ⌊s_r(i)/m⌋ and of the one before;
//! votes(i, b) = Σ_r |{j ∈ N_r(i) : ⌊j/block⌋ = b}|;  the `count` blocks of most votes (of equal ones the latest), ascending,
//! then -1.
//!
//! With `is_causal` only blocks that end before the query's own are candidates, and none of the `skip` nearest, which a window
//! sees; else none within `skip` of it. A query reads at most 2m places a round, whatever the length and however full its
//! bucket is. But where chunks begin depends on how many tokens have smaller buckets, later tokens among them: tokens after a
//! query can change which blocks it finds, though never show it one that is not before it. No gradient; integers only, the same
//! on every device. Cost: T steps a round for the sort, 2m a round for each query.

use super::elementwise::expect_inputs;
use super::lists::{Candidates, check_ranges, elect};
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

kernel! {
    ptx "sort_chunk", LISTS = "lists";
    /// sorted [B·H·R, buckets + 2 + 2·T] of buckets [B·H, T, R]: where each bucket begins in the sorted row, T, T; the tokens
    /// in their order; the place of each token. `extents` = [T, R, buckets].
    pub static ORDER = sort_chunk_order(buckets: in i32, sorted: out i32, extents: val dims) blocks(sorted.div_ceil(8 * (extents[2] + 2 + 2 * extents[0])));
    /// blocks [B·H, T, count] from both. `extents` = [T, R, buckets, chunk, block, skip, count].
    pub static VOTE = sort_chunk_vote(buckets: in i32, sorted: in i32, blocks: out i32, extents: val dims, causal: val flag) blocks((blocks / extents[6].max(1)).div_ceil(8));
}

#[allow(clippy::extra_unused_type_parameters, reason = "kernel! calls every body with the type of reals")]
fn sort_chunk_order<T: Real>(buckets: &[i32], sorted: &mut [i32], extents: &[usize]) {
    let &[tokens, rounds, count] = extents else { panic!("the op gives three extents") };
    par::chunks_mut(sorted, count + 2 + 2 * tokens, 4 * buckets.len(), |n, sorted| {
        let buckets = &buckets[n / rounds * tokens * rounds..][..tokens * rounds];
        let bucket = |j: usize| buckets[j * rounds + n % rounds] as usize;
        let (starts, rest) = sorted.split_at_mut(count + 2);
        let (order, places) = rest.split_at_mut(tokens);
        starts.fill(0);
        (0..tokens).for_each(|j| starts[bucket(j) + 2] += 1);
        (2..count + 2).for_each(|c| starts[c] += starts[c - 1]);
        // starts[c + 1] is where bucket c begins, and moves to its end, where the next one begins.
        for (j, place) in places.iter_mut().enumerate() {
            let next = &mut starts[bucket(j) + 1];
            *place = *next;
            order[*next as usize] = j as i32;
            *next += 1;
        }
    });
}

/// Queries of one chunk of work.
const CHUNK: usize = 64;

#[allow(clippy::extra_unused_type_parameters, reason = "kernel! calls every body with the type of reals")]
fn sort_chunk_vote<T: Real>(buckets: &[i32], sorted: &[i32], blocks: &mut [i32], extents: &[usize], causal: bool) {
    let &[tokens, rounds, n_buckets, chunk, block, skip, count] = extents else { panic!("the op gives seven extents") };
    let candidates = Candidates { block, skip, offset: 0, is_causal: causal };
    let one = n_buckets + 2 + 2 * tokens;
    par::chunks_mut(blocks, CHUNK * count, buckets.len() * (2 * chunk.min(tokens) + 16), |n, blocks| {
        let mut votes = vec![0u32; tokens.div_ceil(block)];
        let mut found = Vec::with_capacity(64);
        for (k, list) in blocks.chunks_exact_mut(count).enumerate() {
            let (h, i) = ((n * CHUNK + k) / tokens, (n * CHUNK + k) % tokens);
            let may = candidates.of(i);
            for r in 0..rounds {
                let (starts, rest) = sorted[(h * rounds + r) * one..][..one].split_at(n_buckets + 2);
                let (order, places) = rest.split_at(tokens);
                let bucket = buckets[(h * tokens + i) * rounds + r] as usize;
                let own = places[i] as usize / chunk;
                let from = (own.saturating_sub(1) * chunk).max(starts[bucket] as usize);
                let to = ((own + 1) * chunk).min(starts[bucket + 1] as usize);
                for b in order[from..to].iter().map(|&j| j as usize / block).filter(|&b| may(b)) {
                    if votes[b] == 0 {
                        found.push(b as u64);
                    }
                    votes[b] += 1;
                }
            }
            found.iter_mut().for_each(|f| *f |= u64::from(std::mem::take(&mut votes[*f as usize])) << 32);
            elect(&mut found, list);
            found.clear();
        }
    });
}

/// Blocks that share buckets with a query, by sorting.
#[derive(Debug, Clone, Copy)]
pub struct SortChunk {
    /// Buckets of a round.
    pub buckets: usize,
    /// Sorted tokens of a chunk.
    pub chunk: usize,
    /// Keys of a block.
    pub block: usize,
    /// Blocks chosen by a query, at most.
    pub count: usize,
    /// Blocks nearest to the query, its own included, that are no candidates.
    pub skip: usize,
    /// Only blocks that end before the query's own are candidates.
    pub is_causal: bool,
}

impl Default for SortChunk {
    fn default() -> SortChunk {
        SortChunk { buckets: 1, chunk: 64, block: 64, count: 8, skip: 1, is_causal: true }
    }
}

const NAME: &str = "sort_chunk";

impl Op for SortChunk {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 1, 1)?;
        if x[0].dtype != DType::I32 {
            return Err(Error::dtype(NAME, format!("buckets are {}, but must be i32", x[0])));
        }
        let &[batch, heads, tokens, rounds] = x[0].shape.dims() else {
            let what = format!("buckets have shape {}, but must be [batch, heads, tokens, rounds]", x[0].shape);
            return Err(Error::shape(NAME, what));
        };
        if rounds == 0 || rounds > 64 {
            let what = format!("buckets have shape {}, but rounds, the last axis, must be 1 to 64", x[0].shape);
            return Err(Error::shape(NAME, what));
        }
        let ranges = [
            ("buckets", self.buckets, 1, 1 << 20),
            ("chunk", self.chunk, 1, 1 << 16),
            ("block", self.block, 1, 1 << 16),
            ("count", self.count, 1, 32),
            ("skip", self.skip, 0, 1 << 20),
        ];
        check_ranges(NAME, &ranges)?;
        Ok(smallvec::smallvec![Spec::new(DType::I32, &[batch, heads, tokens, self.count])?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        super::ids::check_ids(NAME, x[0], self.buckets, None)?;
        let mut blocks = cx.empty(self.infer(&[x[0].spec()])?[0])?;
        let &[batch, heads, tokens, rounds] = x[0].dims() else { unreachable!("infer saw four axes") };
        let rows = [batch * heads * rounds, self.buckets + 2 + 2 * tokens];
        let mut sorted = cx.empty(Spec::new(DType::I32, &rows)?)?;
        let extents = [tokens, rounds, self.buckets];
        cx.launch(&ORDER, &mut [Arg::In(x[0]), Arg::Out(&mut sorted), Arg::Dims(&extents)])?;
        let SortChunk { buckets, chunk, block, count, skip, is_causal } = *self;
        let extents = [tokens, rounds, buckets, chunk, block, skip, count];
        let (out, flag) = (Arg::Out(&mut blocks), Arg::Flag(is_causal));
        cx.launch(&VOTE, &mut [Arg::In(x[0]), Arg::In(&sorted), out, Arg::Dims(&extents), flag])?;
        Ok(smallvec::smallvec![blocks])
    }

    fn backward(&self, _: &mut Cx<'_>, _: &[Tensor], _: &[Option<Tensor>], _: &mut [Adjoint]) -> Result<()> {
        Ok(()) // blocks are integers: no gradient arrives
    }
}

impl<'t> Var<'t> {
    /// Blocks i32 [B, H, T, count] for tokens of buckets `self` [B, H, T, R].
    pub fn sort_chunk(&self, op: SortChunk) -> Result<Var<'t>> {
        self.tape().apply1(op, &[self])
    }
}

/// sort_chunk in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "blocks of keys that share buckets with a query in its chunk of the tokens sorted by bucket, or in the one before",
    inputs: &[Port::ids("buckets")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "buckets", kind: Kind::Int, default: None, doc: "buckets of a round" },
        AttrDoc { name: "chunk", kind: Kind::Int, default: Some("64"), doc: "sorted tokens of a chunk" },
        AttrDoc { name: "block", kind: Kind::Int, default: Some("64"), doc: "keys of a block" },
        AttrDoc { name: "count", kind: Kind::Int, default: Some("8"), doc: "blocks of a query, at most" },
        AttrDoc { name: "skip", kind: Kind::Int, default: Some("1"), doc: "blocks nearest to the query that are left out" },
        AttrDoc { name: "is_causal", kind: Kind::Bool, default: Some("true"), doc: "only blocks before the query's own" },
    ],
    build: |a| {
        Ok(Arc::new(SortChunk {
            buckets: a.size("buckets")?,
            chunk: a.size("chunk")?,
            block: a.size("block")?,
            count: a.size("count")?,
            skip: a.size("skip")?,
            is_causal: a.flag("is_causal")?,
        }))
    },
    kernels: &[&ORDER, &VOTE],
    samples: || {
        let of = |note, dims: [usize; 4], n: usize| {
            Sample::new(note).input(&dims, Fill::Ids(n)).attr("buckets", n).attr("block", 4)
        };
        vec![
            of("causal", [1, 2, 50, 3], 6).attr("chunk", 7).attr("count", 3),
            of("one bucket, more in two chunks than a warp", [1, 1, 150, 2], 1).attr("chunk", 40).attr("count", 20),
            of("more buckets than tokens", [2, 1, 21, 2], 70).attr("chunk", 8).attr("skip", 2),
            of("both sides", [1, 2, 45, 2], 3).attr("chunk", 9).attr("is_causal", false).attr("skip", 0),
            of("both sides but the nearest", [1, 1, 45, 2], 3).attr("chunk", 5).attr("is_causal", false).attr("skip", 2),
            of("one token", [1, 1, 1, 1], 2),
            of("no token", [1, 2, 0, 1], 2),
            Sample::new("4 heads x 16384, 4 rounds, 256 buckets")
                .input(&[1, 4, 16384, 4], Fill::Ids(256))
                .attr("buckets", 256)
                .large(),
        ]
    },
};
