//! dropout: y_i = x_i·m_i with m_i = 0 with probability p, else 1/(1 − p);  dx_i = dy_i·m_i. Outside training y = x.
//!
//! m_i is a function of (seed, stream, i) by Philox (see [`crate::rng`]), so it is not stored: backward and a replayed
//! forward compute it again, with the same bits on any number of threads. Cost: one pass each way and ten rounds of two
//! multiplications for every four elements.

use super::elementwise::{expect_inputs, expect_real};
use super::rows::put;
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::{Arg, Real, par};
use crate::rng::Key;
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "dropout";
    /// y = x·m, or y += when `accumulate`; also dx from dy.
    pub static DROPOUT = dropout_mask(x: in T, y: out T, p: val T, seed: val word, stream: val word, accumulate: val flag) blocks(y.div_ceil(1024));
}

fn dropout_mask<T: Real>(x: &[T], y: &mut [T], p: T, seed: u64, stream: u64, accumulate: bool) {
    let key = Key::new(seed, stream);
    let keep = T::ONE / (T::ONE - p);
    // u < p for u = n / 2^24 means n < p·2^24: compared as integers, since n has no fraction.
    let limit = (p.f64() * 16_777_216.0).ceil() as u32;
    // Chunks are multiples of four, so each begins with a block of its own.
    par::chunks_mut(y, par::CHUNK, x.len(), |i, y| {
        mask_chunk(&x[i * par::CHUNK..][..y.len()], y, limit, keep, key, (i * par::CHUNK / 4) as u64, accumulate);
    });
}

/// Blocks of random words made side by side: enough vectors to hide the chain of rounds.
const SIDE: usize = 32;
/// Elements that they decide.
const RUN: usize = 4 * SIDE;

vectorized! {
    fn mask_chunk<T: Real>(x: &[T], y: &mut [T], limit: u32, keep: T, key: Key, first: u64, accumulate: bool) {
        if accumulate {
            mask_runs::<T, true>(x, y, limit, keep, key, first);
        } else {
            mask_runs::<T, false>(x, y, limit, keep, key, first);
        }
    }
}

#[inline(always)]
fn mask_runs<T: Real, const ADD: bool>(x: &[T], y: &mut [T], limit: u32, keep: T, key: Key, mut first: u64) {
    let ((xs, x_tail), (ys, y_tail)) = (x.as_chunks::<RUN>(), y.as_chunks_mut::<RUN>());
    for (x, y) in xs.iter().zip(ys) {
        let words = words(key, first);
        for i in 0..RUN {
            put::<T, ADD>(&mut y[i], masked(x[i], words[i], limit, keep));
        }
        first += SIDE as u64;
    }
    if !x_tail.is_empty() {
        let words = words(key, first);
        for ((y, &x), &word) in y_tail.iter_mut().zip(x_tail).zip(&words) {
            put::<T, ADD>(y, masked(x, word, limit, keep));
        }
    }
}

/// The word of each element of a run.
#[inline(always)]
fn words(key: Key, first: u64) -> [u32; RUN] {
    let blocks = key.blocks::<SIDE>(first);
    let mut words = [0; RUN];
    for i in 0..SIDE {
        for w in 0..4 {
            words[4 * i + w] = blocks[w][i];
        }
    }
    words
}

/// x·m, where the word's upper 24 bits decide, as crate::rng::unit reads it.
#[inline(always)]
fn masked<T: Real>(x: T, word: u32, limit: u32, keep: T) -> T {
    if word >> 8 < limit { T::ZERO } else { x * keep }
}

/// Elements dropped at random.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Probability of dropping an element, from 0 to 1.
    pub p: f64,
    /// Outside training nothing is dropped.
    pub training: bool,
    /// Names the random numbers.
    pub key: Key,
}

impl Dropout {
    fn run(&self, cx: &Cx<'_>, x: &Tensor, y: &mut Tensor, accumulate: bool) -> Result<()> {
        let (seed, stream) = (Arg::Word(self.key.seed), Arg::Word(self.key.stream));
        cx.launch(&DROPOUT, &mut [Arg::In(x), Arg::Out(y), Arg::Real(self.p), seed, stream, Arg::Flag(accumulate)])
    }
    fn passes(&self) -> bool {
        !self.training || self.p == 0.0
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("dropout", x, 1, 1)?;
        expect_real("dropout", "input", &x[0])?;
        if !(0.0..=1.0).contains(&self.p) {
            return Err(Error::attr("dropout", "p", format!("is {}, but must be from 0 to 1", self.p)));
        }
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        if self.passes() {
            return Ok(smallvec::smallvec![x[0].clone()]);
        }
        let mut y = cx.empty(x[0].spec())?;
        if self.p == 1.0 {
            y.fill_zero()?; // 1/(1 − p) is infinite, and nothing is kept
        } else {
            self.run(cx, x[0], &mut y, false)?;
        }
        Ok(smallvec::smallvec![y])
    }

    fn backward(&self, cx: &mut Cx<'_>, _: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        if self.passes() {
            return dx[0].add(cx, dy.clone());
        }
        if self.p == 1.0 {
            dx[0].zero();
            return Ok(());
        }
        dx[0].write(cx, |cx, out, accumulate| self.run(cx, dy, out, accumulate))
    }
}

impl<'t> Var<'t> {
    /// Drops elements with probability `p` while the tape trains; the mask is keyed by the place on the tape.
    pub fn dropout(&self, p: f64) -> Result<Var<'t>> {
        let tape = self.tape();
        tape.apply1(Dropout { p, training: tape.is_training(), key: tape.next_key() }, &[self])
    }
}

/// dropout in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "dropout",
    doc: "elements zeroed with probability p, the rest divided by 1 - p",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "p", kind: Kind::Real, default: Some("0.5"), doc: "probability of dropping" },
        AttrDoc { name: "training", kind: Kind::Bool, default: Some("true"), doc: "false: y = x" },
        AttrDoc { name: "seed", kind: Kind::Word, default: Some("0"), doc: "seed of the run" },
        AttrDoc { name: "stream", kind: Kind::Word, default: Some("0"), doc: "which use in the run" },
    ],
    build: |a| {
        let key = Key::new(a.word("seed")?, a.word("stream")?);
        Ok(Arc::new(Dropout { p: a.real("p")?, training: a.flag("training")?, key }))
    },
    kernels: &[&DROPOUT],
    samples: || {
        vec![
            Sample::new("half dropped").normal(&[5, 7]),
            Sample::new("another seed").normal(&[6]).attr("p", 0.2).attr("seed", 5).attr("stream", 1_u64 << 40),
            Sample::new("not training").normal(&[3, 2]).attr("training", false),
            Sample::new("nothing dropped").normal(&[3]).attr("p", 0),
            Sample::new("all dropped").normal(&[3]).attr("p", 1),
            Sample::new("4096 x 512").normal(&[4096, 512]).attr("p", 0.1).large(),
        ]
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn the_share_is_right_and_threads_change_nothing() {
        let x = Tensor::from_slice(&Device::cpu(), &vec![1.0f32; 100_001], &[100_001]).unwrap();
        let op = Dropout { p: 0.3, training: true, key: Key::new(1, 2) };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| op.forward(&mut Cx::new(&Device::cpu()), &[&x]).unwrap().remove(0).to_f64().unwrap())
        };
        let one = run(1);
        assert_eq!(one, run(3));
        let dropped = one.iter().filter(|v| **v == 0.0).count() as f64 / one.len() as f64;
        assert!((dropped - 0.3).abs() < 0.005, "{dropped}");
        assert!((one.iter().sum::<f64>() / one.len() as f64 - 1.0).abs() < 0.01);
    }
}
