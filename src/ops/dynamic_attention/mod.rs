//! dynamic_attention: each query attends to the keys of a window whose size is learned, of a second window whose place is
//! learned, and of blocks that a router found, in one softmax over their union:
//!
//! o_i = Σ_j a_ij·v_j,  a_ij = μ_ij·e^{s_ij} / Σ_r μ_ir·e^{s_ir},  s_ij = q_i·k_j/√d,  μ_ij = max(size, place, routed), with
//!   p = i + offset,  size = clip((R + span_i − |p − j|)/R, 0, 1)  (Sukhbaatar et al. 2019, "Adaptive Attention Span"),
//!   place = clip((R + width_i − |center_i − j|)/R, 0, 1), or with `place = gaussian`
//!   (e^{−(j − center_i)²/2σ²} − e^{-4.5})/(1 − e^{-4.5}) up to 3σ, σ = width_i (Luong et al. 2015, section 3.2, cut),
//!   routed = 1 where j lies in a block of the list of i; with `is_causal` only j ≤ p. Negative spans and widths count as 0.
//!
//! A key that several parts see is visited once, so the union needs no correction. Separate parts r with log-sums L^r merge
//! to the same when each subtracts from s_ij the logarithm of how many of them see j:  o = Σ_r e^{L^r − L}·o^r (tested).
//! Queries and keys are walked in tiles of 64, with the streaming softmax of `scaled_dot_product_attention`; tiles that no
//! query sees cost nothing, and of a routed block only the queries that listed it pay. L = log Σ_j μ·e^s is kept.
//!
//! Backward, recomputed from L:  P̃ = e^{S − L},  P = μ∘P̃,  D_i = dO_i·O_i,  dP = dO·Vᵀ,  dS = P∘(dP − D),  dV = Pᵀ·dO,
//! dQ = dS·K/√d,  dK = dSᵀ·Q/√d,  dμ = P̃∘(dP − D), which goes to the part that decides the maximum (to the size where size
//! and place are equal, nowhere where a key is routed):  dspan = Σ_ramp dμ/R,  dcenter = −Σ_ramp sign(center − j)·dμ/R,
//! dwidth = Σ_ramp dμ/R, or the slopes of the Gaussian. Tiles are visited in a fixed order and no two threads write to one
//! place, so the bits are always the same. A query that sees nothing gives 0.
//! Cost: 4·n·d flops a query forward, 10·n·d backward, for n keys seen; memory linear in tokens.

mod backward;
mod forward;
mod samples;
mod sight;

use super::elementwise::{expect_inputs, expect_real};
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::{Arg, Real};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use backward::dynamic_attention_backward;
use forward::dynamic_attention_forward;
pub use sight::membership;
use std::sync::Arc;

kernel! {
    ptx "dynamic_attention";
    /// o [B·H, Tq, d] and log_sum [B·H, Tq] from q [B·H, Tq, d], k and v [B·H/group, Tk, d], span [B·H, Tq], blocks
    /// [B·H, Tq, count] (or absent), center and width [B·H, Tq] (or absent). `extents` = [Tq, Tk, d, group, block, count,
    /// offset]. `turned`, as large as k, is memory of the CPU's body and empty elsewhere.
    pub static FORWARD = dynamic_attention_forward(
        q: in T, k: in T, v: in T, span: in T, blocks: in i32, center: in T, width: in T, turned: out T, o: out T,
        log_sum: out T, extents: val dims, ramp: val T, causal: val flag, gaussian: val flag,
    ) blocks(log_sum.div_ceil(8));
    /// In `table` [B·H, ⌈Tk/64⌉, ⌈Tq/1024⌉], zero before, bit n mod 32 of word n/32 for each tile of 64 keys of which any of
    /// the queries 32n..32n + 32 sees a part. For GPUs, where a key looks for its queries; the CPU goes by queries.
    pub static MARK = dynamic_attention_mark(
        span: in T, blocks: in i32, center: in T, width: in T, table: out i32, extents: val dims, ramp: val T,
        causal: val flag, gaussian: val flag,
    ) blocks(span.div_ceil(8));
    /// The gradients of all inputs from the same, d_o and `table`; `turned` is twice as large as k.
    pub static BACKWARD = dynamic_attention_backward(
        q: in T, k: in T, v: in T, span: in T, blocks: in i32, center: in T, width: in T, o: in T, log_sum: in T,
        d_o: in T, table: in i32, turned: out T, dq: out T, dk: out T, dv: out T, d_span: out T, d_center: out T,
        d_width: out T, extents: val dims, ramp: val T, causal: val flag, gaussian: val flag,
    ) blocks((log_sum + k / extents[2].max(1)).div_ceil(8));
}

/// The CPU goes from queries to keys and needs no table.
#[allow(clippy::too_many_arguments)]
fn dynamic_attention_mark<T: Real>(
    _span: &[T],
    _blocks: &[i32],
    _center: &[T],
    _width: &[T],
    _table: &mut [i32],
    _extents: &[usize],
    _ramp: T,
    _causal: bool,
    _gaussian: bool,
) {
}

/// Attention to a window of learned size, a window of learned place, and routed blocks.
#[derive(Debug, Clone, Copy)]
pub struct DynamicAttention {
    /// R: keys over which a window falls from 1 to 0; 1 gives hard windows of whole spans.
    pub ramp: f64,
    /// Keys of a routed block: 16, 32 or a multiple of 64.
    pub block: usize,
    /// Queries see keys of their own position and before only.
    pub is_causal: bool,
    /// Position of the first query among the keys.
    pub offset: usize,
    /// The second window is a Gaussian of standard deviation `width`.
    pub gaussian: bool,
}

impl Default for DynamicAttention {
    fn default() -> DynamicAttention {
        DynamicAttention { ramp: 32.0, block: 64, is_causal: true, offset: 0, gaussian: false }
    }
}

const NAME: &str = "dynamic_attention";

fn shape<R>(what: String) -> Result<R> {
    Err(Error::shape(NAME, what))
}

impl DynamicAttention {
    fn check(&self) -> Result<()> {
        if !(self.ramp >= 1.0 && self.ramp.is_finite()) {
            return Err(Error::attr(NAME, "ramp", format!("is {}, but must be 1 or more", self.ramp)));
        }
        let block = self.block;
        if !(matches!(block, 16 | 32) || block > 0 && block.is_multiple_of(64)) || block > 1 << 16 {
            let what = format!("is {block}, but must be 16, 32 or a multiple of 64 up to 65536");
            return Err(Error::attr(NAME, "block", what));
        }
        if self.offset > 1 << 30 {
            return Err(Error::attr(NAME, "offset", format!("is {}, but must be at most 2^30", self.offset)));
        }
        Ok(())
    }

    /// [Tq, Tk, d, query heads of a key head, block, count, offset].
    fn extents(&self, q: &Spec, k: &Spec, blocks: Option<&Spec>) -> [usize; 7] {
        let (q, k, count) = (q.shape.dims(), k.shape.dims(), blocks.map_or(0, |b| b.shape.last()));
        [q[2], k[2], q[3], q[1] / k[1].max(1), self.block, count, self.offset]
    }

    /// Errors on lists of blocks that are out of range, out of order, or of the future.
    fn check_blocks(&self, blocks: &Tensor, keys: usize) -> Result<()> {
        let (count, tq) = (blocks.shape().last(), blocks.dims()[2]);
        if !blocks.device().is_host() || count == 0 {
            return Ok(()); // a look would bring them back at every step: the kernels of a GPU trap instead
        }
        for (n, list) in blocks.as_slice::<i32>()?.chunks_exact(count).enumerate() {
            let position = n % tq + self.offset;
            let limit = if self.is_causal { keys.min(position + 1) } else { keys };
            let mut last = -1;
            for (c, &b) in list.iter().enumerate() {
                let place = || format!("blocks of query {} (row {n}): entry {c} is {b}", n % tq);
                if b == -1 && list[c..].iter().all(|b| *b == -1) {
                    break;
                }
                if b <= last {
                    return shape(format!("{}, but lists must ascend and be filled up with -1", place()));
                }
                if b as usize >= limit.div_ceil(self.block) {
                    let what = if (b as usize) < keys.div_ceil(self.block) {
                        format!("its keys begin at {}, after the query's position {position}", b as usize * self.block)
                    } else {
                        format!("there are {} blocks of {} keys", keys.div_ceil(self.block), self.block)
                    };
                    return shape(format!("{}, but {what}", place()));
                }
                last = b;
            }
        }
        Ok(())
    }
}

impl Op for DynamicAttention {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 4, 7)?;
        self.check()?;
        for (i, (s, name)) in x.iter().zip(["query", "key", "value", "span", "blocks", "center", "width"]).enumerate() {
            let rank = if matches!(i, 0..=2 | 4) { 4 } else { 3 };
            if i == 4 && s.dtype != DType::I32 {
                return Err(Error::dtype(NAME, format!("blocks are {s}, but must be i32")));
            }
            if i != 4 {
                expect_real(NAME, name, s)?;
            }
            if s.shape.rank() != rank || (i != 4 && s.dtype != x[0].dtype) {
                let axes = if rank == 4 { "[batch, heads, tokens, width]" } else { "[batch, heads, tokens]" };
                return shape(format!("{name} is {s}, but must be {}{axes}", x[0].dtype));
            }
            if i >= 3 && s.shape.dims()[..3] != x[0].shape.dims()[..3] {
                return shape(format!("{name} is {s}, but must agree with query {} up to tokens", x[0].shape));
            }
        }
        if x.len() == 6 {
            return shape(format!("center {} comes without width", x[5].shape));
        }
        let (q, k) = (x[0].shape.dims(), x[1].shape.dims());
        if x[1] != x[2] || q[0] != k[0] || q[3] != k[3] || k[1] == 0 || !q[1].is_multiple_of(k[1]) || q[3] == 0 {
            return shape(format!(
                "query has shape {}, key {} and value {}: batch and width must agree, key and value be alike, and the query heads be a multiple of the key heads",
                x[0].shape, x[1].shape, x[2].shape
            ));
        }
        if q[3] > 256 {
            return shape(format!("query has shape {}, but heads may be 256 wide at most", x[0].shape));
        }
        if x.len() > 4 && x[4].shape.last() > 32 {
            return shape(format!("blocks have shape {}, but 32 a query are the most", x[4].shape));
        }
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        if let Some(blocks) = x.get(4) {
            self.check_blocks(blocks, x[1].dims()[2])?;
        }
        let (dtype, dims) = (x[0].dtype(), x[0].dims());
        let mut o = cx.empty(x[0].spec())?;
        let mut log_sum = cx.empty(Spec::new(dtype, &dims[..3])?)?;
        let mut turned = cx.empty(Spec::new(dtype, &[if cx.device().is_host() { x[1].len() } else { 0 }])?)?;
        let extents = self.extents(&x[0].spec(), &x[1].spec(), x.get(4).map(|b| b.spec()).as_ref());
        let other = |i: usize| x.get(i).map_or(Arg::Absent, |t| Arg::In(t));
        let args = &mut [
            Arg::In(x[0]),
            Arg::In(x[1]),
            Arg::In(x[2]),
            Arg::In(x[3]),
            other(4),
            other(5),
            other(6),
            Arg::Out(&mut turned),
            Arg::Out(&mut o),
            Arg::Out(&mut log_sum),
            Arg::Dims(&extents),
            Arg::Real(self.ramp),
            Arg::Flag(self.is_causal),
            Arg::Flag(self.gaussian),
        ];
        cx.launch(&FORWARD, args)?;
        cx.keep(&o);
        cx.keep(&log_sum);
        x.iter().for_each(|t| cx.keep(t));
        Ok(smallvec::smallvec![o])
    }

    fn backward(&self, cx: &mut Cx<'_>, kept: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let (o, log_sum, x) = (&kept[0], &kept[1], &kept[2..]);
        let like = |i: usize| cx.empty(x.get(i).map_or(Spec::new(x[0].dtype(), &[0]), |t| Ok(t.spec()))?);
        let [mut dq, mut dk, mut dv] = [like(0)?, like(1)?, like(2)?];
        let [mut d_span, mut d_center, mut d_width] = [like(3)?, like(5)?, like(6)?];
        let host = cx.device().is_host();
        let mut turned = cx.empty(Spec::new(x[0].dtype(), &[if host { 2 * x[1].len() } else { 0 }])?)?;
        let (q, k) = (x[0].dims(), x[1].dims());
        let words = [if host { 0 } else { q[0] * q[1] }, k[2].div_ceil(64), q[2].div_ceil(1024)];
        let mut table = cx.zeros(Spec::new(DType::I32, &words)?)?;
        let extents = self.extents(&x[0].spec(), &x[1].spec(), x.get(4).map(|b| b.spec()).as_ref());
        let other = |i: usize| x.get(i).map_or(Arg::Absent, Arg::In);
        let rules = || [Arg::Dims(&extents), Arg::Real(self.ramp), Arg::Flag(self.is_causal), Arg::Flag(self.gaussian)];
        let mut marks = vec![Arg::In(&x[3]), other(4), other(5), other(6), Arg::Out(&mut table)];
        marks.extend(rules());
        cx.launch(&MARK, &mut marks)?;
        let mut args: Vec<Arg<'_>> = (0..7).map(other).collect();
        args.extend([Arg::In(o), Arg::In(log_sum), Arg::In(dy), Arg::In(&table), Arg::Out(&mut turned)]);
        args.extend([&mut dq, &mut dk, &mut dv, &mut d_span, &mut d_center, &mut d_width].map(Arg::Out));
        args.extend(rules());
        cx.launch(&BACKWARD, &mut args)?;
        for (i, d) in [(0, dq), (1, dk), (2, dv), (3, d_span), (5, d_center), (6, d_width)] {
            if let Some(dx) = dx.get_mut(i) {
                dx.add(cx, d)?;
            }
        }
        Ok(())
    }
}

/// What [`Var::dynamic_attention`] takes beside query, key and value.
#[derive(Clone)]
pub struct Sights<'t> {
    /// [B, H, Tq]: distance up to which keys count in full.
    pub span: Var<'t>,
    /// i32 [B, H, Tq, count]: ascending numbers of blocks, filled up with -1.
    pub blocks: Option<Var<'t>>,
    /// [B, H, Tq] each: middle and half width of the second window.
    pub place: Option<(Var<'t>, Var<'t>)>,
}

impl<'t> Var<'t> {
    /// Attention of the queries `self` [B, H, Tq, d] to what `sights` shows of `key` and `value` [B, H or fewer, Tk, d].
    pub fn dynamic_attention(
        &self,
        key: &Var<'t>,
        value: &Var<'t>,
        sights: &Sights<'t>,
        op: DynamicAttention,
    ) -> Result<Var<'t>> {
        let mut inputs = vec![self, key, value, &sights.span];
        let none;
        match (&sights.blocks, &sights.place) {
            (Some(blocks), _) => inputs.push(blocks),
            (None, None) => {}
            (None, Some(_)) => {
                let dims = [&self.dims()[..self.dims().len().min(3)], &[0]].concat();
                none = self.tape().constant(Tensor::zeros(self.value().device(), Spec::new(DType::I32, &dims)?)?);
                inputs.push(&none);
            }
        }
        inputs.extend(sights.place.iter().flat_map(|(center, width)| [center, width]));
        self.tape().apply1(op, &inputs)
    }
}

/// dynamic_attention in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "softmax over a window of learned size, a window of learned place and routed blocks of keys",
    inputs: &[
        Port::real("query"),
        Port::real("key"),
        Port::real("value"),
        Port::real("span"),
        Port::ids("blocks").optional(),
        Port::real("center").optional(),
        Port::real("width").optional(),
    ],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "ramp", kind: Kind::Real, default: Some("32"), doc: "keys over which a window falls from 1 to 0" },
        AttrDoc { name: "block", kind: Kind::Int, default: Some("64"), doc: "keys of a routed block" },
        AttrDoc { name: "is_causal", kind: Kind::Bool, default: Some("true"), doc: "keys up to the query's position only" },
        AttrDoc { name: "offset", kind: Kind::Int, default: Some("0"), doc: "position of the first query among the keys" },
        AttrDoc {
            name: "place",
            kind: Kind::Choice(&["ramp", "gaussian"]),
            default: Some("ramp"),
            doc: "form of the second window",
        },
    ],
    build: |a| {
        Ok(Arc::new(DynamicAttention {
            ramp: a.real("ramp")?,
            block: a.size("block")?,
            is_causal: a.flag("is_causal")?,
            offset: a.size("offset")?,
            gaussian: a.text("place") == "gaussian",
        }))
    },
    kernels: &[&FORWARD, &MARK, &BACKWARD],
    samples: samples::all,
};
