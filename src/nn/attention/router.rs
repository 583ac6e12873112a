//! Routers: how a query finds the blocks of keys beyond its windows that matter to it. Each gives a sorted list of at most
//! `blocks` numbers for each query, filled up with -1, that depends on no later token.

use super::DynamicConfig;
use crate::attrs::nearest;
use crate::error::{Error, Result};
use crate::nn::join;
use crate::ops::lsh_vote::LshVote;
use crate::ops::mean_pool_gate::MeanPoolGate;
use crate::rng::Key;
use crate::shape::DType;
use crate::tape::{Init, ParamsBuilder, Role, Slot, Var};
use crate::tensor::Tensor;

/// What a router is asked: for one layer, queries [B, H, Tq, d] of positions `offset` and on among keys [B, H, Tk, d].
/// Both are constants: no gradient reaches a choice of blocks.
pub struct Ask<'a, 't> {
    /// Queries.
    pub query: &'a Var<'t>,
    /// Keys, those of earlier calls included.
    pub key: &'a Var<'t>,
    /// Position of the first query.
    pub offset: usize,
    /// Blocks nearest to a query, its own included, that its window sees.
    pub skip: usize,
    /// What the router remembers of the keys of earlier calls in generation; None outside it.
    pub memory: Option<&'a mut Option<Tensor>>,
}

/// A router of one layer.
pub trait Router: Send + Sync {
    /// i32 [B, H, Tq, blocks]: ascending numbers of blocks, filled up with -1.
    fn route<'t>(&self, ask: Ask<'_, 't>) -> Result<Var<'t>>;
}

/// A router as a row of the table of routers.
pub struct Entry {
    /// Name, as `model.router` takes it.
    pub name: &'static str,
    /// What it does and what it costs, in one line.
    pub doc: &'static str,
    /// The router of the layer whose slots begin with `name`, for heads of `width`; `index` is the layer's number.
    pub build: fn(
        &DynamicConfig,
        name: &str,
        index: usize,
        width: usize,
        &mut ParamsBuilder,
    ) -> Result<Box<dyn Router>>,
}

/// Every router.
pub static ALL: &[&Entry] = &[&LSH, &GATE];

/// The router of this name; None for `none`.
pub fn find(name: &str) -> Result<Option<&'static Entry>> {
    let found = ALL.iter().find(|e| e.name == name);
    if found.is_some() || name == "none" {
        return Ok(found.copied());
    }
    let names = || ALL.iter().map(|e| e.name).chain(["none"]);
    let all = names().collect::<Vec<_>>().join(", ");
    Err(Error::config("model.router", format!("is `{name}`{}; there are: {all}", nearest(name, names()))))
}

/// Hashing by random rotations, and votes of the buckets that a query shares with keys: linear in the length.
pub static LSH: Entry = Entry {
    name: "lsh",
    doc: "blocks that share most buckets of locality-sensitive hashing with the query; linear in the length",
    build: |c, name, index, width, p| {
        let bound = match c.lengths {
            true => Some(p.add(join(name, "bound"), &[1], Init::Constant(0.0), Role::State)?),
            false => None,
        };
        Ok(Box::new(Lsh { c: c.clone(), index, width, bound }))
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
    /// Rotations [rounds, hashes, d + 1, n] of normal numbers: fresh ones at each step of training, one set otherwise.
    fn rotations<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        let key =
            if tape.is_training() { tape.next_key() } else { Key::named(self.index as u64, "lsh rotations") };
        let dims = [self.c.rounds, self.c.hashes, self.width + 1, self.c.buckets / 2];
        let mut rng = key.rng();
        let values: Vec<f64> = (0..dims.iter().product()).map(|_| rng.normal()).collect();
        Ok(tape.constant(Tensor::from_f64(x.value().device(), x.value().dtype(), &values, &dims)?))
    }

    /// Asks for a larger bound after the step where a key is longer.
    fn watch(&self, key: &Var<'_>, slot: Slot) -> Result<()> {
        let square = key.mul(key)?.sum_over(&[-1], false)?;
        let longest = square.amax(&[], false)?.sqrt()?.reshape(&[1])?;
        let tape = key.tape();
        tape.defer(slot, longest.maximum(&tape.param(slot))?.into_value());
        Ok(())
    }
}

impl Router for Lsh {
    fn route<'t>(&self, ask: Ask<'_, 't>) -> Result<Var<'t>> {
        let rotations = self.rotations(ask.key)?;
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
        queries.lsh_vote(&keys, op)
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

/// Mean keys of blocks: the score of every block for every query, so quadratic in the length, at 1/block of dense attention.
pub static GATE: Entry = Entry {
    name: "gate",
    doc: "blocks whose mean key agrees most with the query (MoBA); quadratic: scores every block, 1/block of dense attention",
    build: |c, _, _, _, _| Ok(Box::new(Gate { block: c.block, count: c.blocks })),
};

struct Gate {
    block: usize,
    count: usize,
}

impl Router for Gate {
    fn route<'t>(&self, ask: Ask<'_, 't>) -> Result<Var<'t>> {
        let (block, count, skip, offset) = (self.block, self.count, ask.skip, ask.offset);
        ask.query.mean_pool_gate(ask.key, MeanPoolGate { block, count, skip, offset, is_causal: true })
    }
}

/// Blocks nearest to a query, its own included, that the window of `c` sees whole, as it is at first: not worth a vote.
pub(super) fn skip(c: &DynamicConfig) -> usize {
    (c.window - 1) / c.block + 1
}
