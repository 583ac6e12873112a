//! indexer: scores of blocks that learn where attention goes, after the indexer of DeepSeek Sparse Attention (DeepSeek-AI 2025,
//! "DeepSeek-V3.2"), over blocks instead of tokens. With linear maps of the layer's input x, J index heads of width e,
//!
//! I(i, b) = Σ_j w_ij·ReLU(q_ij·k_b)/√(e·J),  k_b the mean of the index keys of block b;  a query takes the `blocks` largest.
//!
//! Its loss, in training only: KL(p ‖ softmax_b I) over the candidate blocks, a mean over the queries that have any, with p
//! the mass of the layer's dense attention on them ([`block_mass`](crate::ops::block_mass)). x and p are constants here, and a
//! list of blocks carries no gradient: this loss trains the indexer's maps and nothing else, and nothing else trains them.
//!
//! Cost: 2·J·e flops for each query and block, so quadratic in the length, at J·e/(2·H·d·block) of dense attention with H
//! heads of width d. In training p adds as many products as the scores of dense attention, 2·d of the 14·d flops for each pair
//! that its forward and backward take: a seventh, at every step, so a router of long texts pays for it in training. J numbers
//! for each query and block are kept for backward; no list of all keys ever is.

use super::{Ask, Entry, Router};
use crate::error::Result;
use crate::nn::{DynamicConfig, Linear, Module, join};
use crate::ops::block_mass::BlockMass;
use crate::ops::top_blocks::TopBlocks;
use crate::tape::{Init, Var};
use crate::tensor::Tensor;

/// Scores that are trained to foretell the mass of attention on each block.
pub static INDEXER: Entry = Entry {
    name: "indexer",
    doc: "blocks that a small network foretells attention to go to (DeepSeek's DSA, by blocks); quadratic: scores every block, \
          in training also the products of dense attention",
    shares_keys: false,
    is_causal: true,
    build: |layer, p| {
        let (c, at) = (layer.c.clone(), |what: &str| join(layer.name, what));
        let mut map =
            |what: &str, width: usize| Linear::unbiased(p, &at(what), layer.dim, width, Init::Normal(0.02));
        let query = map("query", c.index_heads * c.index_width)?;
        let key = map("key", c.index_width)?;
        let weight = map("weight", c.index_heads)?;
        Ok(Box::new(Indexer { c, query, key, weight }))
    },
};

struct Indexer {
    c: DynamicConfig,
    /// To J·e, e and J numbers.
    query: Linear,
    key: Linear,
    weight: Linear,
}

impl Router for Indexer {
    fn route<'t>(&self, ask: Ask<'_, 't>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let mut keys = self.key.forward(ask.x)?;
        if let Some(memory) = ask.memory {
            if let Some(old) = memory.take() {
                keys = Var::cat(&[&ask.x.tape().constant(old), &keys], 1)?;
            }
            *memory = Some(keys.value().clone());
        }
        let scores = self.scores(ask.x, &keys)?;
        let DynamicConfig { block, blocks: count, .. } = self.c;
        let (skip, offset, heads) = (ask.skip, ask.offset, ask.query.dims()[1]);
        let lists = scores.top_blocks(TopBlocks { block, count, skip, offset, is_causal: true, heads })?;
        if !ask.x.tape().is_training() {
            return Ok((lists, None));
        }
        let [query, key] = ask.turned;
        let mass = query.block_mass(key, BlockMass { block, skip, offset, is_causal: true })?;
        let loss = divergence(&mass, &scores, &candidates(scores.dims(), block, skip, offset))?;
        Ok((lists, Some(loss.scale(self.c.index_loss)?)))
    }
}

impl Indexer {
    /// I [B, Tq, n] of tokens x [B, Tq, dim] for the n whole blocks of index keys [B, Tk, e]: the last, where it is not whole,
    /// is nobody's candidate.
    fn scores<'t>(&self, x: &Var<'t>, keys: &Var<'t>) -> Result<Var<'t>> {
        let (batch, tokens, n) = (x.dims()[0], x.dims()[1], keys.dims()[1] / self.c.block);
        let DynamicConfig { block, index_heads: heads, index_width: width, .. } = self.c;
        let keys =
            keys.narrow(1, 0, n * block)?.reshape(&[batch, n, block, width])?.mean_over(&[2], false)?;
        let query = self.query.forward(x)?.reshape(&[batch, tokens * heads, width])?;
        let agreement = query.matmul_transposed(&keys)?.relu()?.reshape(&[batch, tokens, heads, n])?;
        let scale = 1.0 / ((width * heads) as f64).sqrt();
        let weight = self.weight.forward(x)?.scale(scale)?.reshape(&[batch, tokens, heads, 1])?;
        agreement.mul(&weight)?.sum_over(&[2], false)
    }
}

/// For each of [_, Tq, n] queries and blocks true where the block is a candidate.
fn candidates(dims: &[usize], block: usize, skip: usize, offset: usize) -> Vec<bool> {
    let own = |i: usize| (i + offset) / block;
    (0..dims[1] * dims[2]).map(|at| at % dims[2] + skip.max(1) <= own(at / dims[2])).collect()
}

/// Added to the score of what is no candidate: its share is 0, and finite in every step.
const NEVER: f64 = -1e30;
/// Below this a share counts as 0: p·ln p is.
const LEAST: f64 = 1e-30;

/// KL(p ‖ softmax of scores) over candidates, a mean over the queries that have any; p = mass [B, Tq, n or more].
fn divergence<'t>(mass: &Var<'t>, scores: &Var<'t>, candidates: &[bool]) -> Result<Var<'t>> {
    let (tape, value) = (scores.tape(), scores.value());
    let &[batch, tokens, n] = scores.dims() else { unreachable!("scores have three axes") };
    let able = (0..tokens).filter(|i| candidates[i * n..(i + 1) * n].contains(&true)).count();
    if able == 0 {
        return scores.sum()?.scale(0.0); // nothing to choose: nothing to learn
    }
    let never: Vec<f64> = candidates.iter().map(|&fits| if fits { 0.0 } else { NEVER }).collect();
    let never = Tensor::from_f64(value.device(), value.dtype(), &never, &[1, tokens, n])?;
    let foretold = scores.add(&tape.constant(never))?.log_softmax(-1)?;
    let p = mass.narrow(2, 0, n)?;
    let gap = p.clamp(LEAST, 1.0)?.log()?.sub(&foretold)?;
    p.mul(&gap)?.sum()?.scale(1.0 / (batch * able) as f64)
}
