//! shared_attention: two sides look at each other by one matrix of scores. For each head, with queries Q [Ta, d], keys K [Tb, d]
//! and values A of the one side [Ta, e] and B of the other [Tb, e]:
//!   S = Q·Kᵀ/√d,  P = softmax of each row of S,  R = softmax of each column of S;  query_output = P·B,  key_output = Rᵀ·A.
//! Masks [B or 1, 1, 1, T], 0 or -inf, say which tokens of each side a sample has (`present.rs`): absent ones take no part, what
//! they get is 0 and so are their gradients, exactly; nothing of them is read. Who sees no token gets 0.
//!
//! Backward, from the saved log-sums of rows L_a and columns M_b, with D_a = dquery_output_a·query_output_a and
//! E_b = dkey_output_b·key_output_b:
//!   P = e^{S − L},  R = e^{S − M},  dP = dquery_output·Bᵀ,  dR = A·dkey_outputᵀ,
//!   dS = P∘(dP − D) + R∘(dR − E),  the sum of what comes by rows and by columns,
//!   dQ = dS·K/√d,  dK = dSᵀ·Q/√d,  dA = R·dkey_output,  dB = Pᵀ·dquery_output.
//! Each head is one thread's (a block's on a device) and its sums have a fixed order, so the bits are always the same. Cost a
//! head: Ta·Tb·(2d + 4e) flops forward, where two attentions have 4d + 4e; Ta·Tb·(6d + 8e) backward, where they have 12d + 8e.
//! Memory: S is not kept for backward, nor is it ever whole on the CPU, where columns are weighed with a running maximum and sum
//! (`cpu.rs`): a job, of four a thread, has 2·64 rows of it forward and 3·64 backward. A block on a device has all of its head's,
//! twice backward; there are at most 1,024 blocks, with at most 2²⁵ scores, or else one.

mod cpu;
mod samples;

use super::elementwise::{expect_inputs, expect_real};
use super::present::{self, Present};
use super::scaled_dot_product_attention::DELTA;
use super::{Entry, Port};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::Arg;
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use cpu::{shared_attention_backward, shared_attention_forward};
use std::sync::Arc;

kernel! {
    ptx "shared_attention";
    /// Outputs [B·H, Ta, e] and [B·H, Tb, e], log-sums of rows [B·H, Ta] and of columns [B·H, Tb] from q [B·H, Ta, d],
    /// k [B·H, Tb, d], qv [B·H, Ta, e] and kv [B·H, Tb, e], of which the first so many tokens are there (`query_count` and
    /// `key_count` [B], or absent: all). `extents` = [Ta, Tb, d, e, H]; `scratch` is memory for scores of some heads.
    pub static FORWARD = shared_attention_forward(
        q: in T, k: in T, qv: in T, kv: in T, query_count: in i32, key_count: in i32, scratch: out T,
        query_output: out T, key_output: out T, row_sum: out T, col_sum: out T, extents: val dims,
    ) blocks(scratch / (extents[0] * extents[1]).max(1));
    /// The gradients of all four from the same, from D and E (`query_delta` and `key_delta`) and those of both outputs.
    pub static BACKWARD = shared_attention_backward(
        q: in T, k: in T, qv: in T, kv: in T, query_count: in i32, key_count: in i32, row_sum: in T, col_sum: in T,
        query_delta: in T, key_delta: in T, d_query_output: in T, d_key_output: in T, scratch: out T, dq: out T,
        dk: out T, dqv: out T, dkv: out T, extents: val dims,
    ) blocks(scratch / (2 * extents[0] * extents[1]).max(1));
}

/// Two attentions by one matrix of scores.
#[derive(Debug, Clone, Copy)]
pub struct SharedAttention;

const NAME: &str = "shared_attention";
const INPUTS: [&str; 4] = ["query", "key", "query_value", "key_value"];
/// Most blocks of a device, and numbers of their scores together.
const BLOCKS: [usize; 2] = [1024, 1 << 25];

/// [Ta, Tb, d, e, H].
fn extents(x: &[&Tensor]) -> [usize; 5] {
    let (q, k, v) = (x[0].dims(), x[1].dims(), x[2].dims());
    [q[2], k[2], q[3], v[3], q[1]]
}

/// Memory for scores: a row for each job, or block on a device; `pass` is 0 forward and 1 backward.
fn scratch(cx: &Cx<'_>, x: &Tensor, extents: &[usize; 5], pass: usize) -> Result<Tensor> {
    let heads = x.dims()[0] * x.dims()[1];
    let scores = extents[0] * extents[1];
    let [slots, words] = if cx.device().is_host() {
        [4 * rayon::current_num_threads(), cpu::scratch(extents)[pass]]
    } else {
        [(BLOCKS[1] / scores).clamp(1, BLOCKS[0]), scores * (1 + pass)]
    };
    cx.empty(Spec::new(x.dtype(), &[slots.min(heads), words])?)
}

/// Which tokens a side has, if it has a mask; its rows and values, those that are there in front.
struct Side {
    present: Option<Present>,
    x: Tensor,
    value: Tensor,
}

impl Side {
    fn new(cx: &mut Cx<'_>, name: &str, x: &Tensor, value: &Tensor, mask: Option<&Tensor>) -> Result<Side> {
        let Some(mask) = mask else { return Ok(Side { present: None, x: x.clone(), value: value.clone() }) };
        let present = Present::new(cx, (NAME, name), mask, &[x.dims()[0], 1, 1], false)?;
        let [x, value] = [present::rows(cx, x, &present.list)?, present::rows(cx, value, &present.list)?];
        Ok(Side { present: Some(present), x, value })
    }
    /// The output of all tokens from that of those in front.
    fn spread(&self, cx: &mut Cx<'_>, output: &Tensor) -> Result<Tensor> {
        self.present.as_ref().map_or(Ok(output.clone()), |p| present::rows(cx, output, &p.rank))
    }
    fn keep(&self, cx: &mut Cx<'_>) {
        self.present.iter().flat_map(|p| [&p.seen, &p.list, &p.rank]).for_each(|t| cx.keep(t));
    }
}

/// What [`Side::keep`] kept: how many are there, their list, their ranks.
type Kept<'a> = Option<&'a [Tensor]>;

fn count<'a>(kept: Kept<'a>) -> Arg<'a> {
    kept.map_or(Arg::Absent, |k| Arg::In(&k[0]))
}

impl Op for SharedAttention {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 4, 6)?;
        for (s, name) in x.iter().zip(INPUTS) {
            expect_real(NAME, name, s)?;
            if s.shape.rank() != 4 || s.dtype != x[0].dtype {
                let what = format!("{name} is {s}, but must be {}[batch, heads, tokens, width]", x[0].dtype);
                return Err(Error::shape(NAME, what));
            }
        }
        let [q, k, qv, kv] = [0, 1, 2, 3].map(|i| x[i].shape.dims());
        let alike = [k, qv, kv].iter().all(|s| s[..2] == q[..2]) && q[2] == qv[2] && k[2] == kv[2];
        if !alike || q[3] != k[3] || qv[3] != kv[3] {
            let what = format!(
                "query has shape {}, key {}, query_value {} and key_value {}: batch and heads must agree, query and key in width, the values in width, each side in tokens",
                x[0].shape, x[1].shape, x[2].shape, x[3].shape
            );
            return Err(Error::shape(NAME, what));
        }
        if q[2] == 0 || k[2] == 0 {
            let what = format!("query has shape {} and key {}: each side needs a token", x[0].shape, x[1].shape);
            return Err(Error::shape(NAME, what));
        }
        if ![q[3], qv[3]].iter().all(|n| (1..=256).contains(n)) {
            let what = format!("query has shape {} and query_value {}, but heads are 1 to 256 wide", x[0].shape, x[2].shape);
            return Err(Error::shape(NAME, what));
        }
        for (mask, (name, side)) in x[4..].iter().zip([("query_mask", &x[0]), ("key_mask", &x[1])]) {
            present::expect_mask(NAME, name, mask, side)?;
        }
        Ok(smallvec::smallvec![x[2], x[3]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let a = Side::new(cx, "query_mask", x[0], x[2], x.get(4).copied())?;
        let b = Side::new(cx, "key_mask", x[1], x[3], x.get(5).copied())?;
        let extents = extents(x);
        let [mut query_output, mut key_output] = [cx.empty(x[2].spec())?, cx.empty(x[3].spec())?];
        let sums = |x: &Tensor| cx.empty(Spec::new(x.dtype(), &x.dims()[..3])?);
        let [mut row_sum, mut col_sum] = [sums(x[0])?, sums(x[1])?];
        let mut memory = scratch(cx, x[0], &extents, 0)?;
        let present = |s: &'_ Side| s.present.as_ref().map(|p| p.seen.clone());
        let counts = [present(&a), present(&b)];
        let [query_count, key_count] = counts.each_ref().map(|c| c.as_ref().map_or(Arg::Absent, Arg::In));
        let args = &mut [
            Arg::In(&a.x),
            Arg::In(&b.x),
            Arg::In(&a.value),
            Arg::In(&b.value),
            query_count,
            key_count,
            Arg::Out(&mut memory),
            Arg::Out(&mut query_output),
            Arg::Out(&mut key_output),
            Arg::Out(&mut row_sum),
            Arg::Out(&mut col_sum),
            Arg::Dims(&extents),
        ];
        cx.launch(&FORWARD, args)?;
        let kept = [&a.x, &b.x, &a.value, &b.value, &query_output, &key_output, &row_sum, &col_sum];
        kept.into_iter().for_each(|t| cx.keep(t));
        [&a, &b].into_iter().for_each(|s| s.keep(cx));
        Ok(smallvec::smallvec![a.spread(cx, &query_output)?, b.spread(cx, &key_output)?])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let (x, masks) = kept.split_at(8);
        let sides: [Kept<'_>; 2] = [masks.get(..3), masks.get(3..6)];
        // The gradient of an output, those of tokens that are there in front; D is its product with the output.
        let mut given = |i: usize| -> Result<[Tensor; 2]> {
            let d = dy[i].clone().map_or_else(|| cx.zeros(x[4 + i].spec()), Ok)?;
            let d = sides[i].map_or(Ok(d.clone()), |s| present::rows(cx, &d, &s[1]))?;
            let mut delta = cx.empty(x[6 + i].spec())?;
            cx.launch(&DELTA, &mut [Arg::In(&x[4 + i]), Arg::In(&d), Arg::Out(&mut delta)])?;
            Ok([d, delta])
        };
        let ([d_query, query_delta], [d_key, key_delta]) = (given(0)?, given(1)?);
        let extents = extents(&[&x[0], &x[1], &x[2]]);
        let mut memory = scratch(cx, &x[0], &extents, 1)?;
        let like = |i: usize| cx.empty(x[i].spec());
        let mut grads = [like(0)?, like(1)?, like(2)?, like(3)?];
        let mut args: Vec<Arg<'_>> = x[..4].iter().map(Arg::In).collect();
        args.extend([count(sides[0]), count(sides[1])]);
        args.extend([&x[6], &x[7], &query_delta, &key_delta, &d_query, &d_key].map(Arg::In));
        args.push(Arg::Out(&mut memory));
        args.extend(grads.each_mut().map(Arg::Out));
        args.push(Arg::Dims(&extents));
        cx.launch(&BACKWARD, &mut args)?;
        for (i, d) in grads.into_iter().enumerate() {
            let d = sides[i % 2].map_or(Ok(d.clone()), |s| present::rows(cx, &d, &s[2]))?;
            dx[i].add(cx, d)?;
        }
        Ok(())
    }
}

impl<'t> Var<'t> {
    /// What `self` [B, H, Ta, d] and `key` [B, H, Tb, d] take from each other by one matrix of scores: softmax over keys times
    /// `key_value` [B, H, Tb, e], and softmax over queries times `query_value` [B, H, Ta, e]. `masks` [B or 1, 1, 1, T] of both
    /// sides hold 0 for tokens that a sample has and -inf for those that it has not.
    pub fn shared_attention(
        &self,
        key: &Var<'t>,
        query_value: &Var<'t>,
        key_value: &Var<'t>,
        masks: Option<[&Var<'t>; 2]>,
    ) -> Result<[Var<'t>; 2]> {
        let mut inputs = vec![self, key, query_value, key_value];
        inputs.extend(masks.into_iter().flatten());
        let mut outputs = self.tape().apply(SharedAttention, &inputs)?.into_iter();
        let mut next = || outputs.next().expect("infer promised two outputs");
        Ok([next(), next()])
    }
}

/// shared_attention in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "two sides attend to each other by one matrix: softmax(S)·key_value, softmax(Sᵀ)·query_value, S = Q·Kᵀ/√d",
    inputs: &[
        Port::real(INPUTS[0]),
        Port::real(INPUTS[1]),
        Port::real(INPUTS[2]),
        Port::real(INPUTS[3]),
        Port::constant("query_mask").optional(),
        Port::constant("key_mask").optional(),
    ],
    outputs: &["query_output", "key_output"],
    attrs: &[],
    build: |_| Ok(Arc::new(SharedAttention)),
    kernels: &[&FORWARD, &BACKWARD, &DELTA, &present::TOKENS, &present::ROWS],
    samples: samples::all,
};
