//! scaled_dot_product_attention: O = softmax(Q·Kᵀ/√d)·V for each head, streaming over blocks of keys, so memory grows
//! linearly with the number of tokens. With `is_causal` query i sees keys j ≤ i.
//!
//! Forward, one block of queries against one block of keys after the other (Milakov and Gimelshein 2018; Dao et al. 2022):
//!   m' = max(m, rowmax S),  c = e^{m − m'},  P = e^{S − m'},  l' = c·l + rowsum P,  O' = c·O + P·V;  at the end O/l and
//!   L = m + ln l.
//! Backward, recomputed from L:  P = e^{S − L},  D_i = dO_i·O_i,  dV = Pᵀ·dO,  dP = dO·Vᵀ,  dS = P∘(dP − D),
//!   dQ = dS·K/√d,  dK = dSᵀ·Q/√d.  Blocks are visited in a fixed order and no two threads share an output, so the bits are
//! always the same. Several query heads may share one key head (grouped queries). Cost: 4·Tq·Tk·d flops a head forward,
//! 10·Tq·Tk·d backward; half of both when causal.

use super::elementwise::{expect_inputs, expect_real};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::gemm::{View, ViewMut};
use crate::kernel::{Arg, Real, par, simd};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use rayon::prelude::*;
use std::sync::Arc;

/// Queries and keys of one tile: its scores fit the L1 cache.
const TILE: usize = 64;

kernel! {
    /// o [B·H, Tq, d] and log_sum [B·H, Tq] from q [B·H, Tq, d], k and v [B·H/group, Tk, d]. `extents` = [Tq, Tk, d, group].
    pub static FORWARD = attention_forward(
        q: in T, k: in T, v: in T, o: out T, log_sum: out T, extents: val dims, causal: val flag,
    );
    /// dq, dk, dv from the same and from d_o; `extents` as above.
    pub static BACKWARD = attention_backward(
        q: in T, k: in T, v: in T, o: in T, log_sum: in T, d_o: in T, dq: out T, dk: out T, dv: out T, extents: val dims,
        causal: val flag,
    );
}

/// Extents of one head.
#[derive(Clone, Copy)]
struct Head<T> {
    tq: usize,
    tk: usize,
    d: usize,
    causal: bool,
    scale: T,
}

impl<T: Real> Head<T> {
    fn new(extents: &[usize], causal: bool) -> (Head<T>, usize) {
        let (tq, tk, d, group) = (extents[0], extents[1], extents[2], extents[3]);
        (Head { tq, tk, d, causal, scale: T::of(1.0 / (d as f64).sqrt()) }, group)
    }
    /// One past the last key that queries up to `last` see.
    fn keys(&self, last: usize) -> usize {
        if self.causal { self.tk.min(last + 1) } else { self.tk }
    }
    /// Work of one head in about nanoseconds.
    fn work(&self) -> usize {
        self.tq * self.tk * self.d / if self.causal { 32 } else { 16 }
    }
}

fn attention_forward<T: Real>(
    q: &[T],
    k: &[T],
    v: &[T],
    o: &mut [T],
    log_sum: &mut [T],
    extents: &[usize],
    causal: bool,
) {
    let (head, group) = Head::new(extents, causal);
    let (nq, nk) = (head.tq * head.d, head.tk * head.d);
    if o.is_empty() {
        return;
    }
    // One unit of work is one tile of queries of one head: enough of them for any number of threads, whatever B and H.
    let (tile, heads) = (TILE * head.d, o.len() / nq);
    let unit = |h: usize, i: usize, o: &mut [T], sum: &mut [T]| {
        let (q, kv) = (&q[h * nq..][..nq], h / group * nk);
        forward_tile(head, i * TILE, q, &k[kv..][..nk], &v[kv..][..nk], o, sum);
    };
    if par::worthwhile(heads * head.work()) {
        let jobs = o.par_chunks_mut(nq).zip(log_sum.par_chunks_mut(head.tq)).enumerate();
        jobs.for_each(|(h, (o, sum))| {
            let tiles = o.par_chunks_mut(tile).zip(sum.par_chunks_mut(TILE)).enumerate();
            tiles.for_each(|(i, (o, sum))| unit(h, i, o, sum));
        });
    } else {
        for (h, (o, sum)) in o.chunks_mut(nq).zip(log_sum.chunks_mut(head.tq)).enumerate() {
            o.chunks_mut(tile).zip(sum.chunks_mut(TILE)).enumerate().for_each(|(i, (o, sum))| unit(h, i, o, sum));
        }
    }
}

/// Output and log-sum of the queries from `first` on (as many as `log_sum` holds).
fn forward_tile<T: Real>(h: Head<T>, first: usize, q: &[T], k: &[T], v: &[T], o: &mut [T], log_sum: &mut [T]) {
    let (rows, d) = (log_sum.len(), h.d);
    let q = &q[first * d..][..rows * d];
    let mut scores = [T::ZERO; TILE * TILE];
    let (mut max, mut sum) = ([T::NEG_INFINITY; TILE], [T::ZERO; TILE]);
    o.fill(T::ZERO);
    let end = h.keys(first + rows - 1);
    for start in (0..end).step_by(TILE) {
        let cols = TILE.min(end - start);
        let s = &mut scores[..rows * cols];
        let keys = View::transposed(&k[start * d..][..cols * d], d, cols);
        T::gemm(View::new(q, rows, d), keys, h.scale, false, ViewMut::new(s, rows, cols));
        for i in 0..rows {
            let seen = if h.causal { (first + i + 1).saturating_sub(start).min(cols) } else { cols };
            let c = stream_row(&mut s[i * cols..][..cols], seen, &mut max[i], &mut sum[i]);
            scale_row(&mut o[i * d..][..d], c);
        }
        T::gemm(View::new(s, rows, cols), View::new(&v[start * d..][..cols * d], cols, d), T::ONE, true, ViewMut::new(o, rows, d));
    }
    for i in 0..rows {
        scale_row(&mut o[i * d..][..d], T::ONE / sum[i]);
        log_sum[i] = max[i] + sum[i].ln();
    }
}

vectorized! {
    /// Turns scores into e^{s − max'} (0 beyond `seen`), updates the running maximum and sum, gives e^{max − max'}.
    fn stream_row<T: Real>(s: &mut [T], seen: usize, max: &mut T, sum: &mut T) -> T {
        let m = simd::max_of(&s[..seen]).max_nan(*max);
        // A row that saw nothing yet keeps -inf: its factor is 0, not e^{-inf + inf}.
        let c = if *max == T::NEG_INFINITY { T::ZERO } else { (*max - m).exp() };
        for x in &mut s[..seen] {
            *x = (*x - m).exp();
        }
        s[seen..].fill(T::ZERO);
        *sum = *sum * c + simd::sum_by(seen, |i| s[i]);
        *max = m;
        c
    }

    fn scale_row<T: Real>(x: &mut [T], c: T) {
        for x in x {
            *x *= c;
        }
    }

    /// P = e^{scale·S − L} in place (0 beyond `seen`), and dS = P∘(dP − D) in place of dP.
    fn backward_row<T: Real>(p: &mut [T], dp: &mut [T], seen: usize, log_sum: T, delta: T) {
        for (p, dp) in p[..seen].iter_mut().zip(&mut dp[..seen]) {
            *p = (*p - log_sum).exp();
            *dp = *p * (*dp - delta);
        }
        p[seen..].fill(T::ZERO);
        dp[seen..].fill(T::ZERO);
    }

    fn dot<T: Real>(x: &[T], y: &[T]) -> T {
        simd::sum_by(x.len(), |i| x[i] * y[i])
    }
}

#[allow(clippy::too_many_arguments)]
fn attention_backward<T: Real>(
    q: &[T],
    k: &[T],
    v: &[T],
    o: &[T],
    log_sum: &[T],
    d_o: &[T],
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
    extents: &[usize],
    causal: bool,
) {
    let (head, group) = Head::new(extents, causal);
    let (nq, nk) = (head.tq * head.d, head.tk * head.d);
    dq.fill(T::ZERO);
    dk.fill(T::ZERO);
    dv.fill(T::ZERO);
    if nq == 0 || nk == 0 {
        return;
    }
    // One job is one key head with the query heads that share it: it alone writes their gradients.
    let job = |j: usize, dq: &mut [T], dk: &mut [T], dv: &mut [T]| {
        for (g, dq) in dq.chunks_mut(nq).enumerate() {
            let h = j * group + g;
            let queries = Queries {
                q: &q[h * nq..][..nq],
                o: &o[h * nq..][..nq],
                d_o: &d_o[h * nq..][..nq],
                log_sum: &log_sum[h * head.tq..][..head.tq],
            };
            backward_head(head, &queries, &k[j * nk..][..nk], &v[j * nk..][..nk], dq, dk, dv);
        }
    };
    if par::worthwhile(2 * head.work() * (dq.len() / nq)) {
        let jobs = dq.par_chunks_mut(nq * group).zip(dk.par_chunks_mut(nk)).zip(dv.par_chunks_mut(nk)).enumerate();
        jobs.for_each(|(j, ((dq, dk), dv))| job(j, dq, dk, dv));
    } else {
        let jobs = dq.chunks_mut(nq * group).zip(dk.chunks_mut(nk)).zip(dv.chunks_mut(nk)).enumerate();
        jobs.for_each(|(j, ((dq, dk), dv))| job(j, dq, dk, dv));
    }
}

/// What backward reads of one query head.
struct Queries<'a, T> {
    q: &'a [T],
    o: &'a [T],
    d_o: &'a [T],
    log_sum: &'a [T],
}

fn backward_head<T: Real>(h: Head<T>, x: &Queries<'_, T>, k: &[T], v: &[T], dq: &mut [T], dk: &mut [T], dv: &mut [T]) {
    let d = h.d;
    let (mut p, mut ds) = ([T::ZERO; TILE * TILE], [T::ZERO; TILE * TILE]);
    for first in (0..h.tq).step_by(TILE) {
        let rows = TILE.min(h.tq - first);
        let (q, d_o) = (&x.q[first * d..][..rows * d], &x.d_o[first * d..][..rows * d]);
        let mut delta = [T::ZERO; TILE];
        for i in 0..rows {
            delta[i] = dot(&d_o[i * d..][..d], &x.o[(first + i) * d..][..d]);
        }
        let end = h.keys(first + rows - 1);
        for start in (0..end).step_by(TILE) {
            let cols = TILE.min(end - start);
            let (p, ds) = (&mut p[..rows * cols], &mut ds[..rows * cols]);
            let (ks, vs) = (&k[start * d..][..cols * d], &v[start * d..][..cols * d]);
            let transposed = |m| View::transposed(m, d, cols);
            T::gemm(View::new(q, rows, d), transposed(ks), h.scale, false, ViewMut::new(p, rows, cols));
            T::gemm(View::new(d_o, rows, d), transposed(vs), T::ONE, false, ViewMut::new(ds, rows, cols));
            for i in 0..rows {
                let seen = if h.causal { (first + i + 1).saturating_sub(start).min(cols) } else { cols };
                let at = i * cols..(i + 1) * cols;
                backward_row(&mut p[at.clone()], &mut ds[at], seen, x.log_sum[first + i], delta[i]);
            }
            let dv = ViewMut::new(&mut dv[start * d..][..cols * d], cols, d);
            T::gemm(View::transposed(p, cols, rows), View::new(d_o, rows, d), T::ONE, true, dv);
            let dk = ViewMut::new(&mut dk[start * d..][..cols * d], cols, d);
            T::gemm(View::transposed(ds, cols, rows), View::new(q, rows, d), h.scale, true, dk);
            let dq = ViewMut::new(&mut dq[first * d..][..rows * d], rows, d);
            T::gemm(View::new(ds, rows, cols), View::new(ks, cols, d), h.scale, true, dq);
        }
    }
}

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
        expect_inputs(NAME, x, 3, 3)?;
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
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let mut o = cx.empty(x[0].spec())?;
        let mut log_sum = cx.empty(Spec::new(x[0].dtype(), &x[0].dims()[..3])?)?;
        let extents = extents(&x[0].spec(), &x[1].spec());
        let (out, sum) = (Arg::Out(&mut o), Arg::Out(&mut log_sum));
        let args = &mut [Arg::In(x[0]), Arg::In(x[1]), Arg::In(x[2]), out, sum, Arg::Dims(&extents), Arg::Flag(self.is_causal)];
        cx.launch(&FORWARD, args)?;
        x.iter().for_each(|t| cx.keep(t));
        cx.keep(&o);
        cx.keep(&log_sum);
        Ok(smallvec::smallvec![o])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let [mut dq, mut dk, mut dv] = [cx.empty(kept[0].spec())?, cx.empty(kept[1].spec())?, cx.empty(kept[2].spec())?];
        let extents = extents(&kept[0].spec(), &kept[1].spec());
        let args = &mut [
            Arg::In(&kept[0]),
            Arg::In(&kept[1]),
            Arg::In(&kept[2]),
            Arg::In(&kept[3]),
            Arg::In(&kept[4]),
            Arg::In(dy),
            Arg::Out(&mut dq),
            Arg::Out(&mut dk),
            Arg::Out(&mut dv),
            Arg::Dims(&extents),
            Arg::Flag(self.is_causal),
        ];
        cx.launch(&BACKWARD, args)?;
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
}

/// scaled_dot_product_attention in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "softmax(Q·Kᵀ/√d)·V for each head, memory linear in tokens",
    inputs: &[Port::real("query"), Port::real("key"), Port::real("value")],
    outputs: &["output"],
    attrs: &[AttrDoc { name: "is_causal", kind: Kind::Bool, default: Some("false"), doc: "query i sees keys j <= i only" }],
    build: |a| Ok(Arc::new(ScaledDotProductAttention { is_causal: a.flag("is_causal")? })),
    kernels: &[&FORWARD, &BACKWARD],
    samples: || {
        let qkv = |note, q: [usize; 4], k: [usize; 4]| Sample::new(note).normal(&q).normal(&k).normal(&k);
        vec![
            qkv("causal", [2, 2, 5, 4], [2, 2, 5, 4]).attr("is_causal", true),
            qkv("full", [1, 2, 3, 4], [1, 2, 6, 4]),
            qkv("causal, several tiles", [1, 1, 70, 2], [1, 1, 70, 2]).attr("is_causal", true),
            qkv("grouped queries, more keys than a tile", [1, 4, 3, 2], [1, 2, 67, 2]),
            qkv("causal, more queries than keys", [1, 1, 6, 3], [1, 1, 4, 3]).attr("is_causal", true),
            qkv("one token", [2, 1, 1, 3], [2, 1, 1, 3]).attr("is_causal", true),
            qkv("16 x 4 heads x 256 x 32", [16, 4, 256, 32], [16, 4, 256, 32]).attr("is_causal", true).large(),
            qkv("1 x 4 heads x 2048 x 64", [1, 4, 2048, 64], [1, 4, 2048, 64]).attr("is_causal", true).large(),
        ]
    },
};
