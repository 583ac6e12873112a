//! Self-attention of one block of a transformer: projections, heads, and what each query sees.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | `SelfAttention`: projections, heads, positions, the cache of generation |
//! | `config.rs` | [`DynamicConfig`]: windows and blocks, as the config file says them |
//! | `sight.rs` | windows of learned size and place, routed blocks |
//! | `router/` | routers: how a query finds blocks beyond its windows |
//! | `inspect.rs` | what a trained layer sees: spans, lags, density, recall |

mod config;
pub mod inspect;
pub mod router;
mod sight;

pub use config::{Dense, DynamicConfig, Form, Place, Span};

use super::parallel::{Part, RingAttention, Share};
use super::{Attention, Linear, ModelConfig, ModelKind, Module, NormLayer, Positions};
use crate::error::{Error, Result};
use crate::ops::dynamic_attention::{DynamicAttention, Sights};
use crate::ops::rotary_embedding::RotaryEmbedding;
use crate::shape::Spec;
use crate::tape::{Init, ParamsBuilder, Var};
use crate::tensor::Tensor;
use sight::Sight;

/// Self-attention over [B, T, dim].
pub(super) struct SelfAttention {
    /// To queries, keys and values; not to keys where queries are scaled to be them.
    qkv: Linear,
    shares_keys: bool,
    out: Linear,
    /// Of this rank, where ranks share them.
    heads: usize,
    /// Of a head.
    width: usize,
    /// The first of them, whose keys are the queries of the tokens before, and which no position turns.
    recall: usize,
    rotary: bool,
    /// Of queries and of keys.
    qk_norm: [Option<NormLayer>; 2],
    /// None: every token before.
    sight: Option<Sight>,
    /// Ranks that share the sequence.
    context: Share,
}

/// What a layer remembers of the tokens that it has seen.
#[derive(Clone, Default)]
pub(super) struct Past {
    /// [B, H, seen, d]; not turned by their positions where routers look at them.
    keys: Option<Tensor>,
    values: Option<Tensor>,
    /// The last token's queries of heads whose next key they are, [B, recall, 1, d].
    query: Option<Tensor>,
    /// Of the router.
    routing: Option<Tensor>,
    /// Of the last call, for [`inspect`].
    last: Option<Last>,
}

/// What a call of a layer worked with.
#[derive(Clone)]
struct Last {
    query: Tensor,
    key: Tensor,
    /// Span, blocks, center and width; None of dense attention.
    sights: Option<[Option<Tensor>; 4]>,
}

/// Length of queries and keys that are normalised, at first: their products are 12 where they agree, with scale 1/√d.
const QK_PRODUCT: f64 = 12.0;

impl SelfAttention {
    /// Slots `name.qkv` (`name.qv` where keys are queries), `name.out` and those of windows and router; `residual` initialises `name.out`. `index` is the
    /// layer's number.
    pub(super) fn new(
        c: &ModelConfig,
        name: &str,
        index: usize,
        residual: Init,
        part: &Part,
        p: &mut ParamsBuilder,
    ) -> Result<SelfAttention> {
        let share = &part.tensor;
        let width = c.dim / c.heads;
        let norm = |p: &mut ParamsBuilder, which: &str, wanted: bool| {
            // rms_norm gives length √d.
            let scale = (QK_PRODUCT / (width as f64).sqrt()).sqrt();
            let norm = || NormLayer::scaled(p, &format!("{name}.{which}"), width, scale);
            wanted.then(norm).transpose()
        };
        let router = if is_dense(c) { None } else { router::find(&c.router)? };
        let shares_keys = !is_dense(c) && c.dynamic.shared_keys || router.is_some_and(|r| r.shares_keys);
        let (qkv, keys) = if shares_keys { ("qv", 0) } else { ("qkv", c.heads - c.recall_heads) };
        Ok(SelfAttention {
            qkv: Linear::columns(
                p,
                &format!("{name}.{qkv}"),
                [c.dim, 2 * c.dim + keys * width],
                Init::Normal(0.02),
                if shares_keys { 2 } else { 3 },
                share,
            )?,
            shares_keys,
            out: Linear::rows(p, &format!("{name}.out"), [c.dim, c.dim], residual, share)?,
            heads: c.heads / share.size,
            width,
            recall: if shares_keys { 0 } else { c.recall_heads },
            rotary: c.positions == Positions::Rotary,
            qk_norm: [norm(p, "query_norm", c.qk_norm)?, norm(p, "key_norm", c.qk_norm && keys > 0)?],
            sight: if is_dense(c) { None } else { Some(Sight::new(c, name, index, p)?) },
            context: part.context.clone(),
        })
    }

    /// Attention of [B, T, dim] to itself, or to what lies in `past` and itself, which is then added to it. Also what the
    /// layer adds to the loss.
    pub(super) fn forward<'t>(
        &self,
        x: &Var<'t>,
        past: Option<&mut Past>,
    ) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let &[batch, tokens, _] = x.dims() else {
            return Err(Error::shape(
                "attention",
                format!("input has shape {}, but must be [batch, tokens, dim]", x.shape()),
            ));
        };
        let mut none = Past::default();
        let generates = past.is_some();
        let past = past.unwrap_or(&mut none);
        let seen = past.keys.as_ref().map_or(0, |t| t.dims()[2]);
        let [mut q, mut k, mut v] = self.project(x, &mut past.query)?;
        // Routers look for contents, wherever they stand: they are shown queries and keys before these are turned.
        let late = self.sight.is_some();
        if !late {
            let first = seen + self.context.rank * tokens;
            (q, k) = (self.turned(&q, first)?, self.turned(&k, first)?);
        }
        if generates {
            k = extend(&mut past.keys, &k)?;
            v = extend(&mut past.values, &v)?;
        }
        let (y, sights, penalty) = match &self.sight {
            // A single new token sees everything; several see what lies before them (then nothing was seen yet).
            None if self.context.size == 1 => {
                (q.scaled_dot_product_attention(&k, &v, tokens > 1)?, None, None)
            }
            None => {
                let ring = RingAttention(self.context.group()?.clone());
                (q.tape().apply1(ring, &[&q, &k, &v])?, None, None)
            }
            Some(sight) => {
                let memory = if generates { Some(&mut past.routing) } else { None };
                let turned = [self.turned(&q, seen)?, self.turned(&k, 0)?];
                let (sights, penalty) = sight.look(x, &q, &k, turned.each_ref(), seen, memory)?;
                [q, k] = turned;
                let y = q.dynamic_attention(&k, &v, &sights, sight.op(seen))?;
                (y, Some(sights), penalty)
            }
        };
        if generates {
            let sights = sights.as_ref().map(values);
            past.last = Some(Last { query: q.value().clone(), key: k.value().clone(), sights });
        }
        Ok((
            self.out.forward(&y.permute(&[0, 2, 1, 3])?.reshape(&[
                batch,
                tokens,
                self.heads * self.width,
            ])?)?,
            penalty,
        ))
    }

    /// Queries, keys and values [B, H, T, d] of tokens x [B, T, dim], which no position has turned yet. `before` holds the last
    /// queries of the tokens before x, and then of x.
    fn project<'t>(&self, x: &Var<'t>, before: &mut Option<Tensor>) -> Result<[Var<'t>; 3]> {
        let normed =
            |v: &Var<'t>, norm: &Option<NormLayer>| norm.as_ref().map_or(Ok(v.clone()), |n| n.forward(v));
        let [query_norm, key_norm] = &self.qk_norm;
        let (q, k, v) = self.parts(x)?;
        let q = normed(&q, query_norm)?;
        // Of length √d, which the scale of products takes away again: s = ‖q‖·cos of the angle.
        let k = match k {
            None if self.recall == 0 => q.rms_norm(None, None)?,
            None => self.queries_before(&q, before)?.rms_norm(None, None)?,
            Some(k) if self.recall == 0 => normed(&k, key_norm)?,
            Some(k) => Var::cat(
                &[&self.queries_before(&q, before)?.rms_norm(None, None)?, &normed(&k, key_norm)?],
                1,
            )?,
        };
        Ok([q, k, v])
    }

    /// The linear parts of it, [B, heads, T, d] each; None for keys where all of them are queries.
    fn parts<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Var<'t>>, Var<'t>)> {
        let &[batch, tokens, _] = x.dims() else { unreachable!("forward saw three axes") };
        let (heads, width) = (self.heads, self.width);
        let all = self.qkv.forward(x)?;
        if self.recall == 0 {
            // [B, T, parts·dim] to as many of [B, H, T, d]: one copy, then views.
            let parts = if self.shares_keys { 2 } else { 3 };
            let all = all.reshape(&[batch, tokens, parts, heads, width])?;
            let mut all = all.permute(&[2, 0, 3, 1, 4])?.split(1, 0)?.into_iter();
            let mut next = || -> Result<Var<'t>> {
                all.next().expect("split into parts").reshape(&[batch, heads, tokens, width])
            };
            let q = next()?;
            return Ok((q, if self.shares_keys { None } else { Some(next()?) }, next()?));
        }
        // Fewer keys than queries.
        let part = |from: usize, heads: usize| -> Result<Var<'t>> {
            let part = all.narrow(2, from * width, heads * width)?;
            part.reshape(&[batch, tokens, heads, width])?.permute(&[0, 2, 1, 3])
        };
        let keys = heads - self.recall;
        let k = if keys > 0 { Some(part(heads, keys)?) } else { None };
        Ok((part(0, heads)?, k, part(heads + keys, heads)?))
    }

    /// The queries of `recall` heads as keys of the tokens behind them: [B, recall, T, d]. Nothing stands before the first token.
    fn queries_before<'t>(&self, q: &Var<'t>, before: &mut Option<Tensor>) -> Result<Var<'t>> {
        let &[batch, _, tokens, width] = q.dims() else { unreachable!("queries have four axes") };
        let mine = q.narrow(1, 0, self.recall)?;
        let first = match before.take() {
            Some(last) => last,
            None => {
                let spec = Spec::new(q.value().dtype(), &[batch, self.recall, 1, width])?;
                Tensor::zeros(q.value().device(), spec)?
            }
        };
        *before = Some(mine.narrow(2, tokens - 1, 1)?.into_value());
        let first = q.tape().constant(first);
        if tokens == 1 { Ok(first) } else { Var::cat(&[&first, &mine.narrow(2, 0, tokens - 1)?], 2) }
    }

    /// Queries or keys [B, H, T, d] turned by their positions `from` and on, where the model does that.
    fn turned<'t>(&self, v: &Var<'t>, from: usize) -> Result<Var<'t>> {
        let rotary = RotaryEmbedding { offset: from, ..RotaryEmbedding::default() };
        match (self.rotary, self.recall) {
            (false, _) => Ok(v.clone()),
            (true, 0) => v.rotary_embedding(rotary),
            (true, n) if n == self.heads => Ok(v.clone()),
            (true, n) => {
                let others = v.narrow(1, n, self.heads - n)?.rotary_embedding(rotary)?;
                Var::cat(&[&v.narrow(1, 0, n)?, &others], 1)
            }
        }
    }

    /// Its router; None of dense attention and of windows alone.
    pub(super) fn router(&self) -> Option<&'static router::Entry> {
        self.sight.as_ref().and_then(Sight::router)
    }

    /// The op for a text from its start; None of dense attention.
    pub(super) fn op(&self) -> Option<DynamicAttention> {
        self.sight.as_ref().map(|s| s.op(0))
    }
}

/// True when a layer of `c` attends to every token before: as configured, or because that is faster.
pub fn is_dense(c: &ModelConfig) -> bool {
    match c.attention {
        Attention::Dense => true,
        Attention::Window => false,
        Attention::Dynamic => {
            c.dynamic.dense == Dense::Auto && c.context < c.dynamic.crossover(c.router != "none")
        }
    }
}

/// What a run of `c` should say where dense attention takes the place of dynamic.
pub fn notice(c: &ModelConfig) -> Option<String> {
    let from = c.dynamic.crossover(c.router != "none");
    (c.kind == ModelKind::Gpt && c.attention == Attention::Dynamic && is_dense(c)).then(|| {
        format!(
            "model.context is {}, and below {from} tokens dense attention is faster than these windows and blocks: it is \
             used instead; model.dynamic.dense = \"never\" keeps them",
            c.context
        )
    })
}

fn values(s: &Sights<'_>) -> [Option<Tensor>; 4] {
    let (center, width) = s.place.as_ref().map(|(c, w)| (c.value().clone(), w.value().clone())).unzip();
    [Some(s.span.value().clone()), s.blocks.as_ref().map(|b| b.value().clone()), center, width]
}

/// Appends `new` to the kept tensor along the tokens, and gives the whole.
fn extend<'t>(kept: &mut Option<Tensor>, new: &Var<'t>) -> Result<Var<'t>> {
    let whole = match kept.take() {
        Some(old) => Var::cat(&[&new.tape().constant(old), new], 2)?,
        None => new.clone(),
    };
    *kept = Some(whole.value().clone());
    Ok(whole)
}
