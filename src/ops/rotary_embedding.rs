//! rotary_embedding: each pair (a, b) of the last axis at position t is turned by the angle
//! φ = (t + offset)·base^(−2i/D), i the pair's number:  a' = a·cos φ − b·sin φ,  b' = b·cos φ + a·sin φ;  the
//! gradient is dy turned by −φ.
//!
//! Layout `half` pairs element i with i + D/2 ("rotate half": GPT-NeoX, LLaMA in Hugging Face form);
//! `interleaved` pairs 2i with 2i + 1 (the paper: J. Su et al., "RoFormer", 2021). The product of a query and
//! a key turned this way depends on the distance of their positions alone. `offset` is the position of the
//! first row, for generation with a cache of keys; a position has the same bits whatever the offset. Cost: a
//! read and a write; the angles are made in f64, once a call.

use super::elementwise::{expect_inputs, expect_real};
use super::rows::per_chunk;
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::{Arg, Real, par};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "rotary_embedding";
    /// table = for each position from `offset` on, the cosines and then the sines of its `pairs` angles.
    pub static ANGLES = rotary_embedding_angles(table: out T, pairs: val size, offset: val size, base: val T) blocks(table.div_ceil(512));
    /// y = x turned by the table's angles, or back when `inverse`; y += when `accumulate`. x is [..,
    /// positions, 2·pairs].
    pub static TURN = rotary_embedding_turn(
        x: in T, table: in T, y: out T, pairs: val size, interleaved: val flag, inverse: val flag,
        accumulate: val flag,
    ) blocks(y.div_ceil(512));
}

/// Positions whose angles come from one exact sine and cosine.
const STRIDE: usize = 16;

fn rotary_embedding_angles<T: Real>(table: &mut [T], pairs: usize, offset: usize, base: T) {
    for i in 0..pairs {
        let speed = base.f64().powf(-(i as f64) / pairs as f64);
        // cos and sin of a sum of two angles, one of few coarse and one of few fine ones: f64 loses nothing
        // that shows in f32, and two sines a position become four multiplications.
        let fine: [(f64, f64); STRIDE] = std::array::from_fn(|k| (k as f64 * speed).sin_cos());
        let mut coarse = (0.0, 0.0);
        for (t, row) in table.chunks_exact_mut(2 * pairs).enumerate() {
            let position = t + offset;
            if t == 0 || position.is_multiple_of(STRIDE) {
                coarse = ((position - position % STRIDE) as f64 * speed).sin_cos();
            }
            let ((s, c), (fs, fc)) = (coarse, fine[position % STRIDE]);
            row[i] = T::of(c * fc - s * fs);
            row[pairs + i] = T::of(s * fc + c * fs);
        }
    }
}

fn rotary_embedding_turn<T: Real>(
    x: &[T],
    table: &[T],
    y: &mut [T],
    pairs: usize,
    interleaved: bool,
    inverse: bool,
    accumulate: bool,
) {
    let (d, positions) = (2 * pairs, table.len() / (2 * pairs).max(1));
    let rows = per_chunk(d);
    let sign = if inverse { -T::ONE } else { T::ONE };
    par::chunks_mut(y, rows * d, x.len() / 3, |i, y| {
        let x = &x[i * rows * d..][..y.len()];
        if interleaved {
            turn_interleaved(x, table, y, d, i * rows % positions, sign, accumulate)
        } else {
            turn_halves(x, table, y, d, i * rows % positions, sign, accumulate)
        }
    });
}

vectorized! {
    /// Rows of `d` elements, the first of them at row `t` of the table; `sign` turns forward or back.
    fn turn_halves<T: Real>(x: &[T], table: &[T], y: &mut [T], d: usize, t: usize, sign: T, accumulate: bool) {
        let angles = table.chunks_exact(d).cycle().skip(t);
        for ((x, y), angles) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(angles) {
            let ((a, b), (ya, yb)) = (x.split_at(d / 2), y.split_at_mut(d / 2));
            let (cos, sin) = angles.split_at(d / 2);
            let turned = a.iter().zip(b).zip(cos.iter().zip(sin)).zip(ya.iter_mut().zip(yb));
            for (((&a, &b), (&cos, &sin)), (ya, yb)) in turned {
                let sin = sin * sign;
                let (p, q) = (a * cos - b * sin, b * cos + a * sin);
                *ya = if accumulate { *ya + p } else { p };
                *yb = if accumulate { *yb + q } else { q };
            }
        }
    }

    /// As [`turn_halves`], with the two of a pair side by side.
    fn turn_interleaved<T: Real>(
        x: &[T], table: &[T], y: &mut [T], d: usize, t: usize, sign: T, accumulate: bool,
    ) {
        let angles = table.chunks_exact(d).cycle().skip(t);
        for ((x, y), angles) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(angles) {
            let (cos, sin) = angles.split_at(d / 2);
            let (x, y) = (x.as_chunks::<2>().0, y.as_chunks_mut::<2>().0);
            for (([a, b], y), (&cos, &sin)) in x.iter().zip(y).zip(cos.iter().zip(sin)) {
                let sin = sin * sign;
                let (p, q) = (*a * cos - *b * sin, *b * cos + *a * sin);
                y[0] = if accumulate { y[0] + p } else { p };
                y[1] = if accumulate { y[1] + q } else { q };
            }
        }
    }
}

/// Rotary position embedding of [.., T, D].
#[derive(Debug, Clone, Copy)]
pub struct RotaryEmbedding {
    /// Base of the geometric row of speeds.
    pub base: f64,
    /// Position of the first row.
    pub offset: usize,
    /// Pairs side by side (2i, 2i + 1) rather than half the axis apart (i, i + D/2).
    pub interleaved: bool,
}

impl Default for RotaryEmbedding {
    fn default() -> RotaryEmbedding {
        RotaryEmbedding { base: 10000.0, offset: 0, interleaved: false }
    }
}

impl RotaryEmbedding {
    fn turn(&self, cx: &Cx<'_>, x: &Tensor, table: &Tensor, y: &mut Tensor, flags: [bool; 2]) -> Result<()> {
        let [inverse, accumulate] = flags.map(Arg::Flag);
        let (pairs, interleaved) = (Arg::Size(x.shape().last() / 2), Arg::Flag(self.interleaved));
        cx.launch(&TURN, &mut [Arg::In(x), Arg::In(table), Arg::Out(y), pairs, interleaved, inverse, accumulate])
    }
}

impl Op for RotaryEmbedding {
    fn name(&self) -> &'static str {
        "rotary_embedding"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("rotary_embedding", x, 1, 1)?;
        expect_real("rotary_embedding", "input", &x[0])?;
        let shape = x[0].shape;
        if shape.rank() < 2 || !shape.last().is_multiple_of(2) {
            let what = format!("input has shape {shape}, but must be [.., T, D] with an even D");
            return Err(Error::shape("rotary_embedding", what));
        }
        if !(self.base.is_finite() && self.base > 0.0) {
            let what = format!("is {}, but must be finite and above 0", self.base);
            return Err(Error::attr("rotary_embedding", "base", what));
        }
        if self.offset > 1 << 40 {
            let what = format!("is {}, but must be at most 2^40: beyond it f64 angles lose digits", self.offset);
            return Err(Error::attr("rotary_embedding", "offset", what));
        }
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let dims = x[0].dims();
        let mut table = cx.empty(Spec::new(x[0].dtype(), &dims[dims.len() - 2..])?)?;
        let pairs = Arg::Size(x[0].shape().last() / 2);
        cx.launch(&ANGLES, &mut [Arg::Out(&mut table), pairs, Arg::Size(self.offset), Arg::Real(self.base)])?;
        let mut y = cx.empty(x[0].spec())?;
        self.turn(cx, x[0], &table, &mut y, [false, false])?;
        cx.keep(&table);
        Ok(smallvec::smallvec![y])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        dx[0].write(cx, |cx, out, accumulate| self.turn(cx, dy, &kept[0], out, [true, accumulate]))
    }
}

impl<'t> Var<'t> {
    /// Self [.., T, D] with each row turned by the angles of its position.
    pub fn rotary_embedding(&self, op: RotaryEmbedding) -> Result<Var<'t>> {
        self.tape().apply1(op, &[self])
    }
}

/// rotary_embedding in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "rotary_embedding",
    doc: "pairs of the last axis turned by (t + offset) * base^(-2i/D)",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "base", kind: Kind::Real, default: Some("10000"), doc: "base of the geometric row of speeds" },
        AttrDoc { name: "offset", kind: Kind::Int, default: Some("0"), doc: "position of the first row" },
        AttrDoc {
            name: "layout",
            kind: Kind::Choice(&["half", "interleaved"]),
            default: Some("half"),
            doc: "pairs are (i, i + D/2), or (2i, 2i + 1)",
        },
    ],
    build: |a| {
        let (base, offset) = (a.real("base")?, a.size("offset")?);
        Ok(Arc::new(RotaryEmbedding { base, offset, interleaved: a.text("layout") == "interleaved" }))
    },
    kernels: &[&ANGLES, &TURN],
    samples: || {
        vec![
            Sample::new("heads").normal(&[2, 2, 5, 6]),
            Sample::new("past a stride of positions").attr("offset", 11).normal(&[STRIDE + 3, 4]),
            Sample::new("interleaved").attr("layout", "interleaved").attr("base", 100).normal(&[2, 3, 6]),
            Sample::new("one pair, one position").attr("offset", 1000).normal(&[3, 1, 2]),
            Sample::new("no positions").normal(&[2, 0, 4]),
            Sample::new("64 heads of 256 x 32").normal(&[64, 256, 32]).large(),
        ]
    },
};
