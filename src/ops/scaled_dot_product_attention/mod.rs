//! scaled_dot_product_attention: O = softmax(Q·Kᵀ/√d)·V for each head, streaming over blocks of keys, so memory grows
//! linearly with the number of tokens. With `is_causal` query i sees keys j ≤ i. With `attn_mask` [B or 1, 1, 1, Tk], which is
//! added to the scores and holds 0 or -inf, it sees only keys that a sample has: those keys and their values are brought to
//! the front of a copy (`present.rs`), of which query i sees the first n_i. A query that sees no key gives 0 and a gradient
//! of 0, as in PyTorch 2.5 and later (before, and from a plain softmax, NaN). Nothing of a masked key is read (in PyTorch a NaN
//! there reaches the output), and its gradient is exactly 0.
//!
//! Forward, one block of queries against one block of keys after the other (Milakov and Gimelshein 2018; Dao et al. 2022):
//!   m' = max(m, rowmax S),  c = e^{m − m'},  P = e^{S − m'},  l' = c·l + rowsum P,  O' = c·O + P·V;  at the end O/l and
//!   L = m + ln l.
//! Backward, recomputed from L:  P = e^{S − L},  D_i = dO_i·O_i,  dV = Pᵀ·dO,  dP = dO·Vᵀ,  dS = P∘(dP − D),
//!   dQ = dS·K/√d,  dK = dSᵀ·Q/√d.  Blocks are visited in a fixed order and no two threads share an output, so the bits are
//! always the same. Several query heads may share one key head (grouped queries). Cost: 4·Tq·Tk·d flops a head forward,
//! 10·Tq·Tk·d backward; half of both when causal.

mod cpu;
pub mod parts;
mod samples;

use super::elementwise::{expect_inputs, expect_real};
use super::present::{self, Present};
use super::{AttrDoc, Entry, Kind, Port};
use crate::error::{Error, Result};
use crate::kernel;
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use cpu::{attention_backward, attention_delta, attention_forward};
// One body on the CPU, which tiles by itself.
use cpu::{attention_backward as attention_backward_tiled, attention_forward as attention_forward_tiled};
use std::sync::Arc;

kernel! {
    ptx "scaled_dot_product_attention";
    /// o [B·H, Tq, d] and log_sum [B·H, Tq] from q [B·H, Tq, d], k and v [B·H/group, Tk, d]. `extents` = [Tq, Tk, d, group].
    /// `seen` [B·H, Tq], absent without a mask, says how many of the keys each query sees.
    pub static FORWARD = attention_forward(
        q: in T, k: in T, v: in T, seen: in i32, o: out T, log_sum: out T, extents: val dims, causal: val flag,
    ) blocks(log_sum.div_ceil(8));
    /// D [B·H, Tq]: the dot product of each row of d_o with that of o.
    pub static DELTA = attention_delta(o: in T, d_o: in T, delta: out T) blocks(delta.div_ceil(8));
    /// dq, dk, dv from the same, from `delta` and from d_o; `extents` as above.
    pub static BACKWARD = attention_backward(
        q: in T, k: in T, v: in T, seen: in i32, log_sum: in T, delta: in T, d_o: in T, dq: out T, dk: out T,
        dv: out T, extents: val dims, causal: val flag,
    ) blocks((log_sum + k / extents[2].max(1)).div_ceil(8));
}

kernel! {
    ptx "scaled_dot_product_attention_tiled";
    /// [`FORWARD`] where d is at most 64. A block of the grid has 64 queries.
    pub static FORWARD_TILED = attention_forward_tiled(
        q: in T, k: in T, v: in T, seen: in i32, o: out T, log_sum: out T, extents: val dims, causal: val flag,
    ) blocks(log_sum / extents[0].max(1) * extents[0].div_ceil(64));
    /// [`BACKWARD`] where d is at most 64. A block of the grid has 32 queries or 32 keys.
    pub static BACKWARD_TILED = attention_backward_tiled(
        q: in T, k: in T, v: in T, seen: in i32, log_sum: in T, delta: in T, d_o: in T, dq: out T, dk: out T,
        dv: out T, extents: val dims, causal: val flag,
    ) blocks(
        log_sum / extents[0].max(1) * extents[0].div_ceil(32)
            + k / (extents[1] * extents[2]).max(1) * extents[1].div_ceil(32)
    );
}

/// Widest heads whose tiles fit the shared memory of every GPU; the tiled kernels take no wider ones.
const TILED: usize = 64;

/// softmax(Q·Kᵀ/√d)·V.
#[derive(Debug, Clone, Copy)]
pub struct ScaledDotProductAttention {
    /// Query i sees keys j ≤ i only.
    pub is_causal: bool,
}

const NAME: &str = "scaled_dot_product_attention";

/// [Tq, Tk, d, queries that share a key head].
fn extents(q: &Spec, k: &Spec) -> [usize; 4] {
    let (q, k) = (q.shape.dims(), k.shape.dims());
    [q[2], k[2], q[3], q[1] / k[1].max(1)]
}

impl Op for ScaledDotProductAttention {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 3, 4)?;
        for (s, name) in x.iter().zip(["query", "key", "value"]) {
            expect_real(NAME, name, s)?;
            if s.shape.rank() != 4 || s.dtype != x[0].dtype {
                return Err(Error::shape(NAME, format!("{name} is {s}, but all three must be {}[batch, heads, tokens, width]", x[0].dtype)));
            }
        }
        let (q, k) = (x[0].shape.dims(), x[1].shape.dims());
        if x[1] != x[2] || q[0] != k[0] || q[3] != k[3] || k[1] == 0 || !q[1].is_multiple_of(k[1]) || q[3] == 0 {
            let what = format!(
                "query has shape {}, key {} and value {}: batch and width must agree, key and value be alike, and the query heads be a multiple of the key heads",
                x[0].shape, x[1].shape, x[2].shape
            );
            return Err(Error::shape(NAME, what));
        }
        if k[2] == 0 && q[2] > 0 {
            return Err(Error::shape(NAME, format!("key has shape {}: a softmax over no keys has no value", x[1].shape)));
        }
        if let Some(mask) = x.get(3) {
            present::expect_mask(NAME, "attn_mask", mask, &x[1])?;
        }
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let dims = &x[0].dims()[..3];
        let mask = x.get(3).map(|m| Present::new(cx, (NAME, "attn_mask"), m, dims, self.is_causal)).transpose()?;
        let [k, v] = match &mask {
            Some(m) => [present::rows(cx, x[1], &m.list)?, present::rows(cx, x[2], &m.list)?],
            None => [x[1].clone(), x[2].clone()],
        };
        let seen = mask.as_ref().map(|m| &m.seen);
        let [o, log_sum] = parts::attend(cx, [x[0], &k, &v], seen, self.is_causal)?;
        [x[0], &k, &v, &o, &log_sum].into_iter().for_each(|t| cx.keep(t));
        mask.iter().flat_map(|m| [&m.seen, &m.rank]).for_each(|t| cx.keep(t));
        Ok(smallvec::smallvec![o])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let delta = parts::delta(cx, &kept[3], dy)?;
        let (qkv, from) = ([&kept[0], &kept[1], &kept[2]], [&kept[4], &delta, dy]);
        let [dq, mut dk, mut dv] = parts::attend_backward(cx, qkv, kept.get(5), from, self.is_causal)?;
        if let Some(rank) = kept.get(6) {
            [dk, dv] = [present::rows(cx, &dk, rank)?, present::rows(cx, &dv, rank)?];
        }
        dx[0].add(cx, dq)?;
        dx[1].add(cx, dk)?;
        dx[2].add(cx, dv)
    }
}

impl<'t> Var<'t> {
    /// Attention of the queries `self` [B, H, Tq, d] to `key` and `value` [B, H or fewer, Tk, d].
    pub fn scaled_dot_product_attention(&self, key: &Var<'t>, value: &Var<'t>, is_causal: bool) -> Result<Var<'t>> {
        self.tape().apply1(ScaledDotProductAttention { is_causal }, &[self, key, value])
    }

    /// The same where sample b has only the keys for which `mask` [B or 1, 1, 1, Tk] is 0, and not those for which it is -inf. A
    /// query that sees no key gives 0.
    pub fn masked_attention(&self, key: &Var<'t>, value: &Var<'t>, mask: &Var<'t>, is_causal: bool) -> Result<Var<'t>> {
        self.tape().apply1(ScaledDotProductAttention { is_causal }, &[self, key, value, mask])
    }
}

/// scaled_dot_product_attention in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "softmax(Q·Kᵀ/√d)·V for each head, memory linear in tokens",
    inputs: &[
        Port::real("query"),
        Port::real("key"),
        Port::real("value"),
        Port::constant("attn_mask").optional(),
    ],
    outputs: &["output"],
    attrs: &[AttrDoc { name: "is_causal", kind: Kind::Bool, default: Some("false"), doc: "query i sees keys j <= i only" }],
    build: |a| Ok(Arc::new(ScaledDotProductAttention { is_causal: a.flag("is_causal")? })),
    kernels: &[
        &FORWARD,
        &DELTA,
        &BACKWARD,
        &FORWARD_TILED,
        &BACKWARD_TILED,
        &parts::MERGE,
        &present::TOKENS,
        &present::ROWS,
    ],
    samples: samples::all,
};
