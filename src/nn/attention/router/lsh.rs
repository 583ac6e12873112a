//! lsh: votes of the buckets of locality-sensitive hashing.

use super::{Ask, Entry, Router};
use crate::error::Result;
use crate::nn::DynamicConfig;
use crate::nn::join;
use crate::ops::lsh_vote::LshVote;
use crate::rng::Key;
use crate::shape::DType;
use crate::tape::{Init, Merge, Role, Slot, Var};
use crate::tensor::Tensor;

/// Hashing by random rotations, and votes of the buckets that a query shares with keys: linear in the length.
pub static LSH: Entry = Entry {
    name: "lsh",
    doc: "blocks that share most buckets of locality-sensitive hashing with the query; linear in the length",
    shares_keys: false,
    is_causal: true,
    build: |layer, p| {
        let (c, name) = (layer.c, layer.name);
        let bound = match c.lengths {
            true => Some(p.add(join(name, "bound"), &[1], Init::Constant(0.0), Role::State)?),
            false => None,
        };
        Ok(Box::new(Lsh { c: c.clone(), index: layer.index, width: layer.dim / layer.heads, bound }))
    },
};

struct Lsh {
    c: DynamicConfig,
    index: usize,
    width: usize,
    /// Largest length of a key so far, as of the last step: a bound that later tokens of a text cannot change.
    bound: Option<Slot>,
}

impl Lsh {
    /// Asks for a larger bound after the step where a key is longer.
    fn watch(&self, key: &Var<'_>, slot: Slot) -> Result<()> {
        let square = key.mul(key)?.sum_over(&[-1], false)?;
        let longest = square.amax(&[], false)?.sqrt()?.reshape(&[1])?;
        let tape = key.tape();
        tape.defer(slot, longest.maximum(&tape.param(slot))?.into_value(), Merge::Largest);
        Ok(())
    }
}

/// Rotations [rounds, hashes, rows, n] of normal numbers for layer `index`: fresh ones at each step of training, one set
/// otherwise.
pub(super) fn rotations<'t>(c: &DynamicConfig, index: usize, rows: usize, x: &Var<'t>) -> Result<Var<'t>> {
    let tape = x.tape();
    let key = if tape.is_training() { tape.next_key() } else { Key::named(index as u64, "lsh rotations") };
    let dims = [c.rounds, c.hashes, rows, c.buckets / 2];
    let mut rng = key.rng();
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| rng.normal()).collect();
    Ok(tape.constant(Tensor::from_f64(x.value().device(), x.value().dtype(), &values, &dims)?))
}

impl Router for Lsh {
    fn route<'t>(&self, ask: Ask<'_, 't>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let rotations = rotations(&self.c, self.index, self.width + 1, ask.key)?;
        let bound = self.bound.map(|slot| ask.key.tape().param(slot));
        let queries = ask.query.lsh_hash(&rotations, None)?;
        let keys = match ask.memory {
            None => ask.key.lsh_hash(&rotations, bound.as_ref())?,
            Some(memory) => {
                let new = ask
                    .key
                    .narrow(2, ask.offset, ask.query.dims()[2])?
                    .lsh_hash(&rotations, bound.as_ref())?;
                let all = match memory.take() {
                    Some(old) => ask.key.tape().constant(append(&old, new.value())?),
                    None => new,
                };
                *memory = Some(all.value().clone());
                all
            }
        };
        if let Some(slot) = self.bound.filter(|_| ask.key.tape().is_training()) {
            self.watch(ask.key, slot)?;
        }
        let op = LshVote {
            buckets: self.c.buckets.pow(self.c.hashes as u32),
            block: self.c.block,
            count: self.c.blocks,
            reach: self.c.reach,
            skip: ask.skip,
            offset: ask.offset,
            is_causal: true,
        };
        Ok((queries.lsh_vote(&keys, op)?, None))
    }
}

/// Integers `old` [B, H, T, n] and `new` [B, H, t, n] joined along T.
fn append(old: &Tensor, new: &Tensor) -> Result<Tensor> {
    let (o, n) = (old.dims(), new.dims());
    let mut dims = o.to_vec();
    dims[2] += n[2];
    let mut whole = Tensor::empty(old.device(), crate::shape::Spec::new(DType::I32, &dims)?)?;
    let (a, b) = (o[2] * o[3], n[2] * n[3]);
    for h in 0..o[0] * o[1] {
        whole.copy_from(h * (a + b), &old.window(h * a, &[a])?)?;
        whole.copy_from(h * (a + b) + a, &new.window(h * b, &[b])?)?;
    }
    Ok(whole)
}
