//! random: any blocks at all. The control that a router must beat: as many keys as it reads, without a reason for them.

use super::{Ask, Entry, Router};
use crate::error::Result;
use crate::ops::top_blocks::TopBlocks;
use crate::rng::{Key, unit};
use crate::tape::Var;
use crate::tensor::Tensor;

/// Blocks by chance, each query its own: a number for every block, so quadratic in the length like the routers that score.
pub static RANDOM: Entry = Entry {
    name: "random",
    doc: "blocks by chance, the control for the others; draws a number for every block, 1/block of dense attention",
    shares_keys: false,
    is_causal: true,
    build: |layer, _| {
        Ok(Box::new(Random { block: layer.c.block, count: layer.c.blocks, index: layer.index }))
    },
};

struct Random {
    block: usize,
    count: usize,
    index: usize,
}

impl Router for Random {
    /// The blocks of the largest of numbers that belong to row, head, position and block: fresh ones at each step of training,
    /// one set otherwise, which tokens still to come cannot change.
    fn route<'t>(&self, ask: Ask<'_, 't>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let tape = ask.x.tape();
        let key = match tape.is_training() {
            true => tape.next_key(),
            false => Key::named(self.index as u64, "random blocks"),
        };
        let (q, k) = (ask.query.dims(), ask.key.dims());
        let (rows, tokens, n) = (q[0] * q[1], q[2], k[2].div_ceil(self.block));
        let number = |row: usize, i: usize, b: usize| {
            f64::from(unit(key.word((row as u64) << 48 | ((i + ask.offset) as u64) << 24 | b as u64)))
        };
        let all: Vec<f64> =
            (0..rows * tokens * n).map(|at| number(at / (tokens * n), at / n % tokens, at % n)).collect();
        let x = ask.x.value();
        let scores = tape.constant(Tensor::from_f64(x.device(), x.dtype(), &all, &[rows, tokens, n])?);
        let (block, count, skip, offset) = (self.block, self.count, ask.skip, ask.offset);
        let lists = scores.top_blocks(TopBlocks { block, count, skip, offset, is_causal: true, heads: 1 })?;
        Ok((tape.constant(lists.value().window(0, &[q[0], q[1], tokens, count])?), None))
    }
}
