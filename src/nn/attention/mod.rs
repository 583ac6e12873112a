//! Self-attention of one block of a transformer: projections, heads, and what each query sees.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`SelfAttention`]: projections, heads, positions, the cache of generation |
//! | `config.rs` | [`DynamicConfig`]: windows and blocks, as the config file says them |
//! | `sight.rs` | windows of learned size and place, routed blocks |
//! | `router.rs` | routers: how a query finds blocks beyond its windows |
//! | `inspect.rs` | what a trained layer sees: spans, lags, density, recall |

mod config;
pub mod inspect;
pub mod router;
mod sight;

pub use config::{Dense, DynamicConfig, Form, Place, Span};

use super::{Attention, Linear, ModelConfig, Module, NormLayer, Positions};
use crate::error::{Error, Result};
use crate::ops::dynamic_attention::{DynamicAttention, Sights};
use crate::ops::rotary_embedding::RotaryEmbedding;
use crate::tape::{Init, ParamsBuilder, Var};
use crate::tensor::Tensor;
use sight::Sight;

/// Self-attention over [B, T, dim].
pub(super) struct SelfAttention {
    qkv: Linear,
    out: Linear,
    heads: usize,
    rotary: bool,
    qk_norm: Option<[NormLayer; 2]>,
    /// None: every token before.
    sight: Option<Sight>,
}

/// What a layer remembers of the tokens that it has seen.
#[derive(Clone, Default)]
pub(super) struct Past {
    /// [B, H, seen, d].
    keys: Option<Tensor>,
    values: Option<Tensor>,
    /// Of the router.
    routing: Option<Tensor>,
    /// Of the last call, for [`inspect`].
    last: Option<Last>,
}

/// What a call of a layer worked with.
#[derive(Clone)]
struct Last {
    query: Tensor,
    /// Span, blocks, center and width; None of dense attention.
    sights: Option<[Option<Tensor>; 4]>,
}

/// Length of queries and keys that are normalised, at first: their products are 12 where they agree, with scale 1/√d.
const QK_PRODUCT: f64 = 12.0;

impl SelfAttention {
    /// Slots `name.qkv`, `name.out` and those of windows and router; `residual` initialises `name.out`. `index` is the
    /// layer's number.
    pub(super) fn new(
        c: &ModelConfig,
        name: &str,
        index: usize,
        residual: Init,
        p: &mut ParamsBuilder,
    ) -> Result<SelfAttention> {
        let width = c.dim / c.heads;
        let norm = |p: &mut ParamsBuilder, which: &str| {
            // rms_norm gives length √d.
            let scale = (QK_PRODUCT / (width as f64).sqrt()).sqrt();
            NormLayer::scaled(p, &format!("{name}.{which}"), width, scale)
        };
        Ok(SelfAttention {
            qkv: Linear::new(p, &format!("{name}.qkv"), c.dim, 3 * c.dim, Init::Normal(0.02))?,
            out: Linear::new(p, &format!("{name}.out"), c.dim, c.dim, residual)?,
            heads: c.heads,
            rotary: c.positions == Positions::Rotary,
            qk_norm: if c.qk_norm { Some([norm(p, "query_norm")?, norm(p, "key_norm")?]) } else { None },
            sight: if is_dense(c) { None } else { Some(Sight::new(c, name, index, p)?) },
        })
    }

    /// Attention of [B, T, dim] to itself, or to what lies in `past` and itself, which is then added to it. Also what the
    /// layer adds to the loss.
    pub(super) fn forward<'t>(
        &self,
        x: &Var<'t>,
        past: Option<&mut Past>,
    ) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let &[batch, tokens, dim] = x.dims() else {
            return Err(Error::shape(
                "attention",
                format!("input has shape {}, but must be [batch, tokens, dim]", x.shape()),
            ));
        };
        let (heads, width) = (self.heads, dim / self.heads);
        // [B, T, 3·dim] to three of [B, H, T, d]: one copy, then views.
        let qkv =
            self.qkv.forward(x)?.reshape(&[batch, tokens, 3, heads, width])?.permute(&[2, 0, 3, 1, 4])?;
        let mut qkv = qkv.split(1, 0)?.into_iter();
        let mut next = || -> Result<Var<'t>> {
            qkv.next().expect("split into three").reshape(&[batch, heads, tokens, width])
        };
        let (mut q, mut k, mut v) = (next()?, next()?, next()?);
        if let Some([query, key]) = &self.qk_norm {
            (q, k) = (query.forward(&q)?, key.forward(&k)?);
        }
        let seen = past.as_ref().and_then(|p| p.keys.as_ref()).map_or(0, |t| t.dims()[2]);
        if self.rotary {
            let turn = RotaryEmbedding { offset: seen, ..RotaryEmbedding::default() };
            q = q.rotary_embedding(turn)?;
            k = k.rotary_embedding(turn)?;
        }
        let mut none = Past::default();
        let generates = past.is_some();
        let past = past.unwrap_or(&mut none);
        if generates {
            k = extend(&mut past.keys, &k)?;
            v = extend(&mut past.values, &v)?;
        }
        let (y, sights, penalty) = match &self.sight {
            // A single new token sees everything; several see what lies before them (then nothing was seen yet).
            None => (q.scaled_dot_product_attention(&k, &v, tokens > 1)?, None, None),
            Some(sight) => {
                let memory = if generates { Some(&mut past.routing) } else { None };
                let (sights, penalty) = sight.look(x, &q, &k, seen, memory)?;
                let y = q.dynamic_attention(&k, &v, &sights, sight.op(seen))?;
                (y, Some(sights), penalty)
            }
        };
        if generates {
            past.last = Some(Last { query: q.value().clone(), sights: sights.as_ref().map(values) });
        }
        Ok((self.out.forward(&y.permute(&[0, 2, 1, 3])?.reshape(&[batch, tokens, dim])?)?, penalty))
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
