//! mean_pool_gate: the blocks of keys whose mean agrees most with a query (Lu et al. 2025, "MoBA", section 2.2):
//!
//! g(i, b) = q_i · mean of the keys of block b;  the `count` blocks of largest g (of equal ones the latest), ascending, then -1.
//!
//! With `is_causal` only blocks that end before the query's own are candidates, and none of the `skip` nearest, which a window
//! sees; else none within `skip` of it. Query i stands at position i + offset. Sums go in the order of tokens and of d, without
//! fused multiply-add: every device finds the same blocks. No gradient. Cost: 2·d flops for each query and block, so
//! quadratic in the length, Tq·Tk/block; memory for the means only.

use super::elementwise::{expect_inputs, expect_real};
use super::lists::{Candidates, best, check_ranges};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "mean_pool_gate", LISTS = "lists";
    /// means [B·Hk, d, ⌈Tk/block⌉] of keys [B·Hk, Tk, d]. `extents` = [Tk, d, block].
    pub static MEANS = mean_pool_means(keys: in T, means: out T, extents: val dims);
    /// blocks [B·H, Tq, count] of queries [B·H, Tq, d]. `extents` = [Tq, d, number of blocks, block, query heads of a key
    /// head, skip, offset, count].
    pub static GATE = mean_pool_gate(queries: in T, means: in T, blocks: out i32, extents: val dims, causal: val flag) blocks((blocks / extents[7].max(1)).div_ceil(8));
}

fn mean_pool_means<T: Real>(keys: &[T], means: &mut [T], extents: &[usize]) {
    let &[tk, d, block] = extents else { panic!("the op gives three extents") };
    let n = tk.div_ceil(block);
    par::chunks_mut(means, n * d, keys.len(), |h, means| {
        for (b, keys) in keys[h * tk * d..(h + 1) * tk * d].chunks(block * d).enumerate() {
            let count = T::of((keys.len() / d) as f64);
            for c in 0..d {
                let mut sum = T::ZERO;
                for key in keys.chunks_exact(d) {
                    sum += key[c];
                }
                means[c * n + b] = sum / count;
            }
        }
    });
}

/// Queries of one chunk of work.
const CHUNK: usize = 64;

fn mean_pool_gate<T: Real>(queries: &[T], means: &[T], blocks: &mut [i32], extents: &[usize], causal: bool) {
    let &[tq, d, n, block, group, skip, offset, count] = extents else { panic!("the op gives eight extents") };
    let candidates = Candidates { block, skip, offset, is_causal: causal };
    par::chunks_mut(blocks, CHUNK * count, queries.len() * n / 16, |i, blocks| {
        let (mut scores, mut order) = (vec![T::ZERO; n], Vec::with_capacity(n));
        for (k, list) in blocks.chunks_exact_mut(count).enumerate() {
            let q = i * CHUNK + k;
            scores.fill(T::ZERO);
            gate(&queries[q * d..][..d], &means[q / tq / group * d * n..][..d * n], &mut scores);
            order.clear();
            let may = candidates.of(q % tq);
            order.extend((0..n).filter(|&b| may(b)));
            best(&scores, &mut order, list);
        }
    });
}

vectorized! {
    fn gate<T: Real>(query: &[T], means: &[T], scores: &mut [T]) {
        for (&q, means) in query.iter().zip(means.chunks_exact(scores.len())) {
            for (s, &m) in scores.iter_mut().zip(means) {
                *s += q * m;
            }
        }
    }
}

/// Blocks whose mean key agrees with a query.
#[derive(Debug, Clone, Copy)]
pub struct MeanPoolGate {
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
}

impl Default for MeanPoolGate {
    fn default() -> MeanPoolGate {
        MeanPoolGate { block: 64, count: 8, skip: 1, offset: 0, is_causal: true }
    }
}

const NAME: &str = "mean_pool_gate";

impl Op for MeanPoolGate {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 2, 2)?;
        for (s, name) in x.iter().zip(["query", "key"]) {
            expect_real(NAME, name, s)?;
            if s.shape.rank() != 4 || s.dtype != x[0].dtype {
                let what = format!("{name} is {s}, but must be {}[batch, heads, tokens, width]", x[0].dtype);
                return Err(Error::shape(NAME, what));
            }
        }
        let (q, k) = (x[0].shape.dims(), x[1].shape.dims());
        if q[0] != k[0] || k[1] == 0 || !q[1].is_multiple_of(k[1]) || q[3] != k[3] || q[3] == 0 {
            let what = format!(
                "query has shape {} and key {}: batch and width must agree, and the query heads be a multiple of the key heads",
                x[0].shape, x[1].shape
            );
            return Err(Error::shape(NAME, what));
        }
        let ranges = [
            ("block", self.block, 1, 1 << 16),
            ("count", self.count, 1, 32),
            ("skip", self.skip, 0, 1 << 20),
            ("offset", self.offset, 0, 1 << 30),
        ];
        check_ranges(NAME, &ranges)?;
        Ok(smallvec::smallvec![Spec::new(DType::I32, &[q[0], q[1], q[2], self.count])?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let mut blocks = cx.empty(self.infer(&[x[0].spec(), x[1].spec()])?[0])?;
        let (q, k) = (x[0].dims(), x[1].dims());
        let n = k[2].div_ceil(self.block);
        let mut means = cx.empty(Spec::new(x[1].dtype(), &[k[0] * k[1], k[3], n])?)?;
        let extents = [k[2], k[3], self.block];
        cx.launch(&MEANS, &mut [Arg::In(x[1]), Arg::Out(&mut means), Arg::Dims(&extents)])?;
        let extents = [q[2], q[3], n, self.block, q[1] / k[1], self.skip, self.offset, self.count];
        let (out, flag) = (Arg::Out(&mut blocks), Arg::Flag(self.is_causal));
        cx.launch(&GATE, &mut [Arg::In(x[0]), Arg::In(&means), out, Arg::Dims(&extents), flag])?;
        Ok(smallvec::smallvec![blocks])
    }

    fn backward(&self, _: &mut Cx<'_>, _: &[Tensor], _: &[Option<Tensor>], _: &mut [Adjoint]) -> Result<()> {
        Ok(()) // blocks are integers: no gradient arrives
    }
}

impl<'t> Var<'t> {
    /// Blocks i32 [B, H, Tq, count] for the queries `self` [B, H, Tq, d] among `keys` [B, H or fewer, Tk, d].
    pub fn mean_pool_gate(&self, keys: &Var<'t>, op: MeanPoolGate) -> Result<Var<'t>> {
        self.tape().apply1(op, &[self, keys])
    }
}

/// mean_pool_gate in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "blocks of keys whose mean agrees most with a query",
    inputs: &[Port::real("query"), Port::real("key")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "block", kind: Kind::Int, default: Some("64"), doc: "keys of a block" },
        AttrDoc { name: "count", kind: Kind::Int, default: Some("8"), doc: "blocks of a query, at most" },
        AttrDoc { name: "skip", kind: Kind::Int, default: Some("1"), doc: "blocks nearest to the query that are left out" },
        AttrDoc { name: "offset", kind: Kind::Int, default: Some("0"), doc: "position of the first query among the keys" },
        AttrDoc { name: "is_causal", kind: Kind::Bool, default: Some("true"), doc: "only blocks before the query's own" },
    ],
    build: |a| {
        Ok(Arc::new(MeanPoolGate {
            block: a.size("block")?,
            count: a.size("count")?,
            skip: a.size("skip")?,
            offset: a.size("offset")?,
            is_causal: a.flag("is_causal")?,
        }))
    },
    kernels: &[&MEANS, &GATE],
    samples: || {
        let of = |note, q: [usize; 4], k: [usize; 4]| Sample::new(note).normal(&q).normal(&k);
        vec![
            of("causal", [1, 2, 40, 3], [1, 2, 40, 3]).attr("block", 4).attr("count", 3),
            of("grouped, later queries", [1, 4, 5, 3], [1, 2, 53, 3]).attr("block", 8).attr("offset", 45).attr("skip", 2),
            of("both sides, many blocks", [2, 1, 20, 2], [2, 1, 150, 2])
                .attr("block", 2)
                .attr("is_causal", false)
                .attr("skip", 0),
            of("both sides but the nearest", [1, 1, 20, 2], [1, 1, 20, 2])
                .attr("block", 4)
                .attr("is_causal", false)
                .attr("skip", 2),
            of("one token", [1, 1, 1, 2], [1, 1, 1, 2]),
            of("1 x 4 heads x 8192 x 64", [1, 4, 8192, 64], [1, 4, 8192, 64]).large(),
        ]
    },
};
