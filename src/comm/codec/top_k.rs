//! top_k: of each matrix the k = ⌈ratio·n⌉ elements of largest magnitude, with their places. Source: Lin et al., "Deep gradient
//! compression", ICLR 2018.
//!
//! ```text
//! u ← m·u + g        momentum correction: what waits for its turn gathers momentum meanwhile
//! v ← v + u          error feedback
//! send v at the k places of largest |v|;  v ← 0 and u ← 0 there (momentum factor masking)
//! ```
//!
//! All ranks hear the places and values of all (8(p−1)k bytes), and add them up in order of rank. The dense ring sends 8(p−1)n/p, so
//! a matrix of which k·p > n goes dense. So do parameters of fewer than two extents, which are few numbers.
//!
//! With `momentum` the optimizer should have none of its own: sgd with momentum 0. The default is 0: u = g, for Adam and its kin.
//!
//! `warmup_steps` steps lead down to the ratio: from a quarter of the elements, by the same factor in each step.

use super::memory::{self, Memory};
use super::{Codec, Entry, FEEDBACK, Param};
use crate::attrs::{AttrDoc, Attrs, Kind};
use crate::comm::{Communicator, Reduce};
use crate::error::{Error, Result};

/// Share of the elements that the first step of a warm-up sends.
const START: f64 = 0.25;

struct TopK {
    ratio: f64,
    warmup_steps: u64,
    momentum: f32,
    step: u64,
    /// v: what was not sent yet.
    error: Option<Memory>,
    /// u.
    velocity: Memory,
    /// Memory of a choice under way, kept from one to the next.
    keys: Vec<u64>,
}

impl TopK {
    /// The share that this step sends.
    fn share(&self) -> f64 {
        if self.ratio >= START || self.step >= self.warmup_steps {
            return self.ratio;
        }
        START * (self.ratio / START).powf(self.step as f64 / self.warmup_steps as f64)
    }

    /// Elements of `param` that are sent by their places among `p` ranks; None where all go.
    fn count(&self, param: &Param, p: usize) -> Option<usize> {
        param.matrix()?;
        let n = param.range().len();
        let k = ((self.share() * n as f64).ceil() as usize).clamp(1, n.max(1));
        (k.saturating_mul(p) <= n).then_some(k)
    }

    /// Momentum and what waited, into `x`.
    fn recall(&mut self, param: &Param, x: &mut [f32]) {
        if self.momentum > 0.0 {
            for (x, u) in x.iter_mut().zip(self.velocity.of(param)) {
                *u = self.momentum * *u + *x;
                *x = *u;
            }
        }
        if let Some(waiting) = self.error.as_mut().and_then(|e| e.get(param)) {
            x.iter_mut().zip(waiting).for_each(|(x, v)| *x += std::mem::take(v));
        }
    }

    // ANCHOR: take
    /// Takes the k largest of `x` out as pairs; the rest waits.
    fn take(&mut self, param: &Param, k: usize, x: &mut [f32], places: &mut Vec<i32>, values: &mut Vec<i32>) {
        for i in largest(x, k, &mut self.keys) {
            places.push((param.at + i) as i32);
            values.push(x[i].to_bits() as i32);
            x[i] = 0.0;
            if self.momentum > 0.0 {
                self.velocity.of(param)[i] = 0.0;
            }
        }
        if let Some(error) = &mut self.error {
            error.of(param).copy_from_slice(x);
        }
        x.fill(0.0);
    }
    // ANCHOR_END: take
}

/// Places of the `k` elements of largest magnitude, in ascending order; of equal ones the first. Infinities and NaNs are the
/// largest of all.
fn largest(x: &[f32], k: usize, keys: &mut Vec<u64>) -> Vec<usize> {
    let key = |(i, x): (usize, &f32)| (u64::from(!(x.to_bits() & 0x7fff_ffff)) << 32) | i as u64;
    keys.clear();
    keys.extend(x.iter().enumerate().map(key));
    if k < keys.len() {
        keys.select_nth_unstable(k);
        keys.truncate(k);
    }
    let mut places: Vec<usize> = keys.drain(..).map(|key| key as u32 as usize).collect();
    places.sort_unstable();
    places
}

impl Codec for TopK {
    fn sum(&mut self, world: &mut Communicator, params: &[Param], x: &mut [f32]) -> Result<()> {
        let p = world.size();
        let (mut dense, mut places, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for param in params {
            let x = &mut x[param.range()];
            self.recall(param, x);
            match self.count(param, p) {
                Some(k) => self.take(param, k, x, &mut places, &mut values),
                None => dense.extend_from_slice(x),
            }
        }
        if !places.is_empty() {
            let k = places.len();
            places.append(&mut values);
            let mut all = vec![0; p * places.len()];
            world.all_gather(&places, &mut all)?;
            for of_rank in all.chunks(2 * k) {
                let (places, values) = of_rank.split_at(k);
                for (&place, &value) in places.iter().zip(values) {
                    let sum = usize::try_from(place).ok().and_then(|i| x.get_mut(i));
                    let beyond =
                        || Error::RanksDisagree(format!("top_k: place {place} is beyond the bucket"));
                    *sum.ok_or_else(beyond)? += f32::from_bits(value as u32);
                }
            }
        }
        if !dense.is_empty() {
            world.all_reduce(&mut dense, Reduce::Sum)?;
        }
        let mut sums = &dense[..];
        for param in params.iter().filter(|param| self.count(param, p).is_none()) {
            let (one, rest) = sums.split_at(param.range().len());
            x[param.range()].copy_from_slice(one);
            sums = rest;
        }
        Ok(())
    }

    fn begin(&mut self, step: u64) {
        self.step = step;
    }

    fn state(&mut self) -> Result<Vec<(String, Vec<f32>)>> {
        Ok(self.error.iter().chain([&self.velocity]).flat_map(Memory::state).collect())
    }

    fn restore(&mut self, params: &[Param], state: Vec<(String, Vec<f32>)>) -> Result<()> {
        let len = |p: &Param| p.range().len();
        let mut memories: Vec<(&mut Memory, memory::Extent<'_>)> = vec![(&mut self.velocity, &len)];
        memories.extend(self.error.iter_mut().map(|e| (e, &len as memory::Extent<'_>)));
        memory::restore(&mut memories, params, state)
    }
}

fn build(a: &Attrs) -> Result<Box<dyn Codec>> {
    let (ratio, momentum) = (a.real("ratio")?, a.real("momentum")?);
    if !(ratio > 0.0 && ratio <= 1.0) {
        let what =
            format!("is {ratio}, but must be above 0 and at most 1: the share of the elements that is sent");
        return Err(Error::attr("top_k", "ratio", what));
    }
    if !(0.0..1.0).contains(&momentum) {
        return Err(Error::attr(
            "top_k",
            "momentum",
            format!("is {momentum}, but must be at least 0 and below 1"),
        ));
    }
    let error = a.flag("feedback")?.then(|| Memory::new("error"));
    let (warmup_steps, momentum) = (a.word("warmup_steps")?, momentum as f32);
    Ok(Box::new(TopK {
        ratio,
        warmup_steps,
        momentum,
        step: 0,
        error,
        velocity: Memory::new("velocity"),
        keys: vec![],
    }))
}

/// top_k in the table of codecs.
pub(super) static ENTRY: Entry = Entry {
    name: "top_k",
    doc: "the largest elements of each matrix alone, the rest waits for its turn",
    attrs: &[
        AttrDoc {
            name: "ratio",
            kind: Kind::Real,
            default: Some("0.01"),
            doc: "share of a matrix's elements that is sent",
        },
        AttrDoc {
            name: "warmup_steps",
            kind: Kind::Word,
            default: Some("0"),
            doc: "steps in which the share falls from a quarter to the ratio",
        },
        AttrDoc {
            name: "momentum",
            kind: Kind::Real,
            default: Some("0"),
            doc: "momentum correction, instead of the optimizer's momentum",
        },
        FEEDBACK,
    ],
    build,
};
