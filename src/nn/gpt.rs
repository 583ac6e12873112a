//! The decoder-only transformer (Radford et al. 2019): token and position embeddings, pre-norm blocks of attention and MLP,
//! a final norm, a linear layer to logits.

use super::{Activation, Attention, Dropout, Embedding, Linear, ModelConfig, Module, NormLayer, Positions};
use crate::error::{Error, Result};
use crate::ops::rotary_embedding::RotaryEmbedding;
use crate::shape::DType;
use crate::tape::{Init, ParamsBuilder, Var};
use crate::tensor::Tensor;
use std::sync::Arc;

/// The model.
pub struct Gpt {
    pub(super) token: Embedding,
    pub(super) position: Option<Embedding>,
    pub(super) blocks: Vec<Arc<Block>>,
    pub(super) norm: NormLayer,
    pub(super) head: Linear,
    pub(super) dropout: Dropout,
    pub(super) checkpoint: bool,
    /// Number of symbols.
    pub vocabulary: usize,
    /// Longest sequence.
    pub context: usize,
}

/// One block: x + attention(norm(x)), then x + mlp(norm(x)).
pub(super) struct Block {
    norm1: NormLayer,
    qkv: Linear,
    out: Linear,
    norm2: NormLayer,
    up: Linear,
    down: Linear,
    heads: usize,
    rotary: bool,
    activation: Activation,
    dropout: Dropout,
}

/// Keys and values of the tokens that a block has seen: each [B, H, seen, d].
#[derive(Clone, Default)]
pub(super) struct Past {
    pub(super) keys: Option<Tensor>,
    pub(super) values: Option<Tensor>,
}

impl Gpt {
    /// Slots `token`, `position`, `blocks.i.…`, `norm`, `head`. Weights start normal with standard deviation 0.02, those that
    /// write to the residual stream smaller by √(2·layers).
    pub fn new(c: &ModelConfig, vocabulary: usize, checkpoint: bool, p: &mut ParamsBuilder) -> Result<Gpt> {
        let Attention::Dense = c.attention;
        let token = Embedding::new(p, "token", vocabulary, c.dim)?;
        let position = match c.positions {
            Positions::Learned => Some(Embedding::new(p, "position", c.context, c.dim)?),
            Positions::Rotary => None,
        };
        let blocks = (0..c.layers).map(|i| Block::new(c, i, p).map(Arc::new)).collect::<Result<_>>()?;
        let norm = NormLayer::new(p, "norm", c.norm, c.dim)?;
        let head = match c.tied {
            true => Linear::tied(&token),
            false => Linear::unbiased(p, "head", c.dim, vocabulary, Init::Normal(0.02))?,
        };
        let dropout = Dropout(c.dropout);
        Ok(Gpt { token, position, blocks, norm, head, dropout, checkpoint, vocabulary, context: c.context })
    }

    /// Embeddings of `ids` [B, T] whose first token stands at position `start`.
    pub(super) fn embed<'t>(&self, ids: &Var<'t>, start: usize) -> Result<Var<'t>> {
        let &[_, tokens] = ids.dims() else {
            return Err(Error::shape(
                "gpt",
                format!("ids have shape {}, but must be [batch, tokens]", ids.shape()),
            ));
        };
        if start + tokens > self.context {
            let what = format!("{} tokens do not fit the context of {}", start + tokens, self.context);
            return Err(Error::shape("gpt", what));
        }
        if ids.value().dtype() != DType::I32 {
            return Err(Error::dtype("gpt", format!("ids are {}, but must be i32", ids.value().spec())));
        }
        let x = self.token.forward(ids)?;
        match &self.position {
            Some(position) => x.add(&position.rows(ids, start, tokens)?),
            None => Ok(x),
        }
    }
}

impl Module for Gpt {
    /// Ids [B, T] to logits [B, T, vocabulary].
    fn forward<'t>(&self, ids: &Var<'t>) -> Result<Var<'t>> {
        let mut x = self.dropout.forward(&self.embed(ids, 0)?)?;
        for block in &self.blocks {
            x = if self.checkpoint {
                let block = block.clone();
                x.tape()
                    .checkpoint(&[&x], move |_, x| Ok(smallvec::smallvec![block.forward(&x[0])?]))?
                    .remove(0)
            } else {
                block.forward(&x)?
            };
        }
        self.head.forward(&self.norm.forward(&x)?)
    }
}

impl Block {
    fn new(c: &ModelConfig, i: usize, p: &mut ParamsBuilder) -> Result<Block> {
        let at = |name: &str| format!("blocks.{i}.{name}");
        let (narrow, residual) = (Init::Normal(0.02), Init::Normal(0.02 / (2.0 * c.layers as f64).sqrt()));
        Ok(Block {
            norm1: NormLayer::new(p, &at("norm1"), c.norm, c.dim)?,
            qkv: Linear::new(p, &at("attention.qkv"), c.dim, 3 * c.dim, narrow)?,
            out: Linear::new(p, &at("attention.out"), c.dim, c.dim, residual)?,
            norm2: NormLayer::new(p, &at("norm2"), c.norm, c.dim)?,
            up: Linear::new(p, &at("mlp.up"), c.dim, 4 * c.dim, narrow)?,
            down: Linear::new(p, &at("mlp.down"), 4 * c.dim, c.dim, residual)?,
            heads: c.heads,
            rotary: c.positions == Positions::Rotary,
            activation: c.activation,
            dropout: Dropout(c.dropout),
        })
    }

    /// The block over [B, T, dim]; with `past`, the tokens follow those seen before and are added to them.
    pub(super) fn forward_after<'t>(&self, x: &Var<'t>, past: Option<&mut Past>) -> Result<Var<'t>> {
        let attended = self.attend(&self.norm1.forward(x)?, past)?;
        let x = x.add(&self.dropout.forward(&self.out.forward(&attended)?)?)?;
        let h = self.activation.forward(&self.up.forward(&self.norm2.forward(&x)?)?)?;
        x.add(&self.dropout.forward(&self.down.forward(&h)?)?)
    }

    fn attend<'t>(&self, x: &Var<'t>, past: Option<&mut Past>) -> Result<Var<'t>> {
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
        let seen = past.as_ref().and_then(|p| p.keys.as_ref()).map_or(0, |t| t.dims()[2]);
        if self.rotary {
            let turn = RotaryEmbedding { offset: seen, ..RotaryEmbedding::default() };
            q = q.rotary_embedding(turn)?;
            k = k.rotary_embedding(turn)?;
        }
        if let Some(past) = past {
            k = extend(&mut past.keys, &k)?;
            v = extend(&mut past.values, &v)?;
        }
        // A single new token sees everything; several see what lies before them (then nothing was seen yet).
        let y = q.scaled_dot_product_attention(&k, &v, tokens > 1)?;
        y.permute(&[0, 2, 1, 3])?.reshape(&[batch, tokens, dim])
    }
}

impl Module for Block {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_after(x, None)
    }
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
