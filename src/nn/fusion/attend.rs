//! Attention of tokens to tokens that are there, and the blocks made of it.

use super::Cross;
use super::stream::{Stream, masks};
use crate::error::Result;
use crate::nn::parallel::Share;
use crate::nn::{Dropout, FeedForward, Linear, ModelConfig, Module, NormLayer, both, join};
use crate::tape::{Init, ParamsBuilder, Var};

/// Projections of one layer of attention, shared by all streams that use it.
pub(super) struct Attend {
    qkv: Linear,
    out: Linear,
    heads: usize,
}

/// Queries, keys and values [B, H, T, d] of a stream.
type Projected<'t> = [Var<'t>; 3];

impl Attend {
    /// Slots `name.qkv` and `name.out`.
    fn new(c: &ModelConfig, name: &str, p: &mut ParamsBuilder) -> Result<Attend> {
        let qkv = Linear::new(p, &join(name, "qkv"), c.dim, 3 * c.dim, plain(c.dim))?;
        let out = Linear::new(p, &join(name, "out"), c.dim, c.dim, residual(c, c.dim))?;
        Ok(Attend { qkv, out, heads: c.heads })
    }

    fn project<'t>(&self, x: &Var<'t>) -> Result<Projected<'t>> {
        let &[batch, tokens, dim] = x.dims() else { unreachable!("tokens have three axes") };
        let (heads, width) = (self.heads, dim / self.heads);
        let all = self.qkv.forward(x)?.reshape(&[batch, tokens, 3, heads, width])?;
        let mut all = all.permute(&[2, 0, 3, 1, 4])?.split(1, 0)?.into_iter();
        let mut next = || all.next().expect("three parts").reshape(&[batch, heads, tokens, width]);
        Ok([next()?, next()?, next()?])
    }

    /// Heads [B, H, T, d] joined and mapped to [B, T, dim].
    fn join<'t>(&self, y: &Var<'t>) -> Result<Var<'t>> {
        let &[batch, heads, tokens, width] = y.dims() else { unreachable!("heads have four axes") };
        self.out.forward(&y.permute(&[0, 2, 1, 3])?.reshape(&[batch, tokens, heads * width])?)
    }

    /// Each token of `x` to all of them that are there.
    fn within<'t>(&self, x: &Var<'t>, mask: Option<&Var<'t>>) -> Result<Var<'t>> {
        let [q, k, v] = self.project(x)?;
        self.join(&to(&q, &k, &v, mask)?)
    }

    /// What each stream takes from each other one, summed. `cross` says whether a pair shares one matrix of affinities.
    fn across<'t>(&self, cross: Cross, streams: &[Stream<'t>]) -> Result<Vec<Option<Var<'t>>>> {
        let all = streams.iter().map(|s| self.project(&s.x)).collect::<Result<Vec<_>>>()?;
        let mut taken: Vec<Option<Var<'t>>> = vec![None; streams.len()];
        for a in 0..streams.len() {
            for b in a + 1..streams.len() {
                let [a_is, b_is] = [a, b].map(|i| &all[i]);
                // ANCHOR: cross
                let [from_b, from_a] = match cross {
                    Cross::Affinity => {
                        let masks = both_masks(&streams[a], &streams[b])?;
                        let masks = masks.as_ref().map(|m| m.each_ref());
                        a_is[0].shared_attention(&b_is[1], &a_is[2], &b_is[2], masks)?
                    }
                    _ => [
                        to(&a_is[0], &b_is[1], &b_is[2], streams[b].mask.as_ref())?,
                        to(&b_is[0], &a_is[1], &a_is[2], streams[a].mask.as_ref())?,
                    ],
                };
                // ANCHOR_END: cross
                taken[a] = both(taken[a].take(), Some(from_b))?;
                taken[b] = both(taken[b].take(), Some(from_a))?;
            }
        }
        taken.into_iter().map(|y| y.map(|y| self.join(&y)).transpose()).collect()
    }
}

/// The masks of two streams, or None where all tokens of both are there.
fn both_masks<'t>(a: &Stream<'t>, b: &Stream<'t>) -> Result<Option<[Var<'t>; 2]>> {
    Ok(if a.mask.is_none() && b.mask.is_none() { None } else { Some([a.whole_mask()?, b.whole_mask()?]) })
}

/// softmax(q·kᵀ/√d + mask)·v.
fn to<'t>(q: &Var<'t>, k: &Var<'t>, v: &Var<'t>, mask: Option<&Var<'t>>) -> Result<Var<'t>> {
    match mask {
        Some(mask) => q.masked_attention(k, v, mask, false),
        None => q.scaled_dot_product_attention(k, v, false),
    }
}

/// Initial values of a map of `n` numbers, which keeps their size. (With the small ones of a GPT products of what different
/// modalities say begin so small that a label which none of them says anything of by itself is not learned.)
pub(super) fn plain(n: usize) -> Init {
    Init::Normal(1.0 / (n as f64).sqrt())
}

/// Those of one that writes to the residual stream.
fn residual(c: &ModelConfig, n: usize) -> Init {
    Init::Normal(1.0 / (2.0 * (c.layers * n) as f64).sqrt())
}

/// One pre-norm block: attention within a stream, across streams where it crosses, and an MLP; each is added to its input.
pub(super) struct Block {
    norm: NormLayer,
    attend: Attend,
    cross: Option<(Cross, NormLayer, Attend)>,
    norm2: NormLayer,
    mlp: FeedForward,
    dropout: Dropout,
    /// Streams take nothing from each other.
    cut: bool,
}

impl Block {
    /// Slots `name.norm1`, `name.attention`, `name.cross` where it crosses, `name.norm2`, `name.mlp`.
    pub(super) fn new(
        c: &ModelConfig,
        name: &str,
        cross: Option<Cross>,
        p: &mut ParamsBuilder,
    ) -> Result<Block> {
        let at = |what: &str| join(name, what);
        let norm = |p: &mut ParamsBuilder, what: &str| NormLayer::new(p, &join(name, what), c.norm, c.dim);
        let (norm1, attend) = (norm(p, "norm1")?, Attend::new(c, &at("attention"), p)?);
        let cross = match cross {
            Some(cross) => Some((cross, norm(p, "cross.norm")?, Attend::new(c, &at("cross"), p)?)),
            None => None,
        };
        let norm2 = norm(p, "norm2")?;
        let mlp = FeedForward::new(
            c,
            &at("mlp"),
            4 * c.dim,
            [plain(c.dim), residual(c, 4 * c.dim)],
            &Share::default(),
            p,
        )?;
        let (dropout, cut) = (Dropout(c.dropout), c.fused.cut);
        Ok(Block { norm: norm1, attend, cross, norm2, mlp, dropout, cut })
    }

    /// The block over one stream, and what it adds to the loss.
    pub(super) fn forward<'t>(&self, s: &Stream<'t>) -> Result<(Stream<'t>, Option<Var<'t>>)> {
        let (mut all, penalty) = self.forward_all(std::slice::from_ref(s))?;
        Ok((all.remove(0), penalty))
    }

    /// The block over several streams.
    pub(super) fn forward_all<'t>(
        &self,
        streams: &[Stream<'t>],
    ) -> Result<(Vec<Stream<'t>>, Option<Var<'t>>)> {
        self.fed(self.crossed(self.attended(streams.to_vec())?)?)
    }

    fn attended<'t>(&self, mut streams: Vec<Stream<'t>>) -> Result<Vec<Stream<'t>>> {
        for s in &mut streams {
            let y = self.attend.within(&self.norm.forward(&s.x)?, s.mask.as_ref())?;
            s.x = s.x.add(&self.dropout.forward(&y)?)?;
        }
        Ok(streams)
    }

    fn crossed<'t>(&self, mut streams: Vec<Stream<'t>>) -> Result<Vec<Stream<'t>>> {
        if let Some((cross, norm, attend)) = self.crossing() {
            let taken = attend.across(*cross, &normed(norm, &streams)?)?;
            for (s, y) in streams.iter_mut().zip(taken) {
                if let Some(y) = y {
                    s.x = s.x.add(&self.dropout.forward(&y)?)?;
                }
            }
        }
        Ok(streams)
    }

    fn fed<'t>(&self, mut streams: Vec<Stream<'t>>) -> Result<(Vec<Stream<'t>>, Option<Var<'t>>)> {
        let mut penalty = None;
        for s in &mut streams {
            let (y, more) = self.mlp.forward(&self.norm2.forward(&s.x)?)?;
            s.x = s.x.add(&self.dropout.forward(&y)?)?;
            penalty = both(penalty, more)?;
        }
        Ok((streams, penalty))
    }

    /// How streams cross, where they do.
    fn crossing(&self) -> Option<&(Cross, NormLayer, Attend)> {
        self.cross.as_ref().filter(|_| !self.cut)
    }

    /// The block over several streams, and where their tokens look: for streams a and b, which meet here, the weights
    /// [B, T_a, T_b] of the tokens of b, the mean over heads. Where none cross, a is b.
    pub(super) fn look<'t>(&self, streams: &[Stream<'t>]) -> Result<(Vec<Stream<'t>>, Vec<Look<'t>>)> {
        let attended = self.attended(streams.to_vec())?;
        let mut looks = Vec::new();
        match self.crossing() {
            None => {
                for (a, s) in normed(&self.norm, streams)?.iter().enumerate() {
                    let [q, k, _] = self.attend.project(&s.x)?;
                    looks.push(([a, a], weights(&q, &k, s.mask.as_ref())?));
                }
            }
            Some((_, norm, attend)) => {
                let normed = normed(norm, &attended)?;
                let all = normed.iter().map(|s| attend.project(&s.x)).collect::<Result<Vec<_>>>()?;
                for (a, b) in (0..all.len()).flat_map(|a| (0..all.len()).map(move |b| (a, b))) {
                    if a != b {
                        looks.push(([a, b], self.scores_of(&all, a, b, normed[b].mask.as_ref())?));
                    }
                }
            }
        }
        Ok((self.fed(self.crossed(attended)?)?.0, looks))
    }

    /// Weights of stream b for the tokens of stream a.
    fn scores_of<'t>(
        &self,
        all: &[Projected<'t>],
        a: usize,
        b: usize,
        mask: Option<&Var<'t>>,
    ) -> Result<Var<'t>> {
        match self.crossing() {
            // One matrix for both, made from queries of the first and keys of the second.
            Some((Cross::Affinity, ..)) if a > b => weights(&all[a][1], &all[b][0], mask),
            _ => weights(&all[a][0], &all[b][1], mask),
        }
    }
}

/// Streams a and b, and the weights [B, T_a, T_b] that tokens of a give to those of b.
pub(super) type Look<'t> = ([usize; 2], Var<'t>);

/// softmax(q·kᵀ/√d + mask), the mean over heads: [B, Tq, Tk].
fn weights<'t>(q: &Var<'t>, k: &Var<'t>, mask: Option<&Var<'t>>) -> Result<Var<'t>> {
    let scores = q.matmul_transposed(k)?.scale(1.0 / (q.dims()[3] as f64).sqrt())?;
    let scores = mask.map_or(Ok(scores.clone()), |mask| scores.add(mask))?;
    scores.softmax(-1)?.mean_over(&[1], false)
}

/// The streams, normalised.
fn normed<'t>(norm: &NormLayer, streams: &[Stream<'t>]) -> Result<Vec<Stream<'t>>> {
    streams.iter().map(|s| Ok(Stream { x: norm.forward(&s.x)?, ..s.clone() })).collect()
}

/// Several streams as one.
pub(super) fn joined<'t>(streams: &[&Stream<'t>]) -> Result<Stream<'t>> {
    let x = Var::cat(&streams.iter().map(|s| &s.x).collect::<Vec<_>>(), 1)?;
    Ok(Stream { x, mask: masks(streams)?, here: None })
}
