//! The decoder-only transformer (Radford et al. 2019): token and position embeddings, pre-norm blocks of attention and MLP,
//! a final norm, a linear layer to logits.

use super::attention::{Past, SelfAttention, router};
use super::parallel::{Part, Stage, Vocabulary};
use super::{
    Activation, Dropout, Embedding, FeedForward, Linear, ModelConfig, Module, NormLayer, Positions, both,
};
use crate::error::{Error, Result};
use crate::ops::dynamic_attention::DynamicAttention;
use crate::shape::{DType, Spec};
use crate::tape::{Init, ParamsBuilder, Var};
use crate::tensor::Tensor;
use std::sync::Arc;

/// The model.
pub struct Gpt {
    /// Where it begins with tokens; a later stage of a pipeline begins with what the one before gives.
    token: Option<Embedding>,
    position: Option<Embedding>,
    /// Tokens before each that it carries a linear map of, and the map from all their embeddings, the last one first.
    shift: Option<(usize, Linear)>,
    pub(super) blocks: Vec<Arc<Block>>,
    /// Norm and linear layer to logits, where it ends with them.
    head: Option<(NormLayer, Linear)>,
    symbols: Option<Vocabulary>,
    dropout: Dropout,
    checkpoint: bool,
    /// Random numbers that earlier stages draw first.
    drawn: u64,
    /// Number of symbols.
    pub vocabulary: usize,
    /// Longest sequence.
    pub context: usize,
    /// Which stretch of each sequence it is given, of as many equal ones.
    stretch: usize,
}

/// One block: x + attention(norm(x)), then x + mlp(norm(x)).
pub(super) struct Block {
    norm1: NormLayer,
    attention: SelfAttention,
    norm2: NormLayer,
    mlp: FeedForward,
    dropout: Dropout,
}

impl Gpt {
    /// Slots `token`, `position`, `blocks.i.…`, `norm`, `head`, of which `part` says what this rank has. Weights start normal with standard deviation 0.02, those that
    /// write to the residual stream smaller by √(2·layers).
    pub fn new(
        c: &ModelConfig,
        vocabulary: usize,
        checkpoint: bool,
        part: &Part,
        p: &mut ParamsBuilder,
    ) -> Result<Gpt> {
        let share = &part.tensor;
        let stage = part.stage.clone().unwrap_or(Stage { number: 0, of: 1, layers: 0..c.layers });
        let (first, last) = (stage.is_first(), stage.is_last());
        let rows = |p: &mut ParamsBuilder| Embedding::shared(p, "token", vocabulary, c.dim, share);
        let token = (first || last && c.tied).then(|| rows(p)).transpose()?;
        let position = match c.positions {
            Positions::Learned if first => Some(Embedding::new(p, "position", c.context, c.dim)?),
            _ => None,
        };
        let shift = match c.shift {
            n if n > 0 && first => {
                Some((n, Linear::unbiased(p, "shift", n * c.dim, c.dim, Init::Normal(0.02))?))
            }
            _ => None,
        };
        let block = |i| Block::new(c, i, part, p).map(Arc::new);
        let blocks = stage.layers.clone().map(block).collect::<Result<_>>()?;
        let mut head = None;
        if last {
            let norm = NormLayer::new(p, "norm", c.norm, c.dim)?;
            let symbols = [c.dim, vocabulary];
            let linear = match token.as_ref().filter(|_| c.tied) {
                Some(token) => Linear::tied(token),
                None => Linear::to_symbols(p, "head", symbols, Init::Normal(0.02), share)?,
            };
            head = Some((norm, linear));
        }
        // The embeddings are dropped once, and in a block what each of its halves adds.
        let drawn = if first || c.dropout == 0.0 { 0 } else { 1 + 2 * stage.layers.start as u64 };
        Ok(Gpt {
            token: token.filter(|_| first),
            position,
            shift,
            blocks,
            head,
            symbols: Vocabulary::shared(vocabulary, share)?,
            dropout: Dropout(c.dropout),
            checkpoint,
            drawn,
            vocabulary,
            context: c.context,
            stretch: part.context.rank,
        })
    }

    /// Embeddings of `ids` [B, T] whose first token stands at position `start`, behind tokens `before` where a text goes on.
    pub(super) fn embed<'t>(&self, ids: &Var<'t>, start: usize, before: &[i32]) -> Result<Var<'t>> {
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
        let mut x = self.token()?.forward(ids)?;
        if let Some((n, shift)) = &self.shift {
            x = x.add(&shift.forward(&self.earlier(&x, before, *n)?)?)?;
        }
        match &self.position {
            Some(position) => x.add(&position.rows(ids, start, tokens)?),
            None => Ok(x),
        }
    }

    /// Tokens before each that its embedding carries.
    pub(super) fn carried(&self) -> usize {
        self.shift.as_ref().map_or(0, |(n, _)| *n)
    }

    /// Of each token of `x` [B, T, dim] the embeddings of the `n` before it, the last one first: [B, T, n·dim]. They are 0 before
    /// the first of a text, of which `before` has what does not stand in x.
    fn earlier<'t>(&self, x: &Var<'t>, before: &[i32], n: usize) -> Result<Var<'t>> {
        let (tape, device) = (x.tape(), x.value().device());
        let &[batch, tokens, dim] = x.dims() else { unreachable!("embeddings of [B, T] have three axes") };
        let known = &before[before.len().saturating_sub(n)..];
        let nothing = [batch, n - known.len(), dim];
        let nothing = tape.constant(Tensor::zeros(device, Spec::new(x.value().dtype(), &nothing)?)?);
        let row = match known.len() {
            0 => Var::cat(&[&nothing, x], 1)?,
            len => {
                let known = tape.constant(Tensor::from_slice(device, known, &[1, len])?);
                Var::cat(&[&nothing, &self.token()?.forward(&known)?, x], 1)?
            }
        };
        let parts: Vec<Var<'t>> = (1..=n).map(|o| row.narrow(1, n - o, tokens)).collect::<Result<_>>()?;
        Var::cat(&parts.iter().collect::<Vec<_>>(), 2)
    }

    /// Ids [B, T] to logits [B, T, vocabulary], and what layers add to the loss, such as a price of wide windows. A stage of a
    /// pipeline begins with what the one before gives, and gives what the next begins with: [B, T, dim].
    pub fn forward_penalised<'t>(&self, input: &Var<'t>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        input.tape().skip_keys(self.drawn);
        let mut x = match &self.token {
            Some(_) => {
                let first = self.stretch * input.shape().last();
                self.dropout.forward(&self.embed(input, first, &[])?)?
            }
            None => input.clone(),
        };
        let mut penalty: Option<Var<'t>> = None;
        for block in &self.blocks {
            let (y, more) = if self.checkpoint {
                let body = block.clone();
                let mut all = x.tape().checkpoint(&[&x], move |_, x| {
                    let (y, penalty) = body.forward_after(&x[0], None)?;
                    Ok([Some(y), penalty].into_iter().flatten().collect())
                })?;
                (all.remove(0), all.pop())
            } else {
                block.forward_after(&x, None)?
            };
            x = y;
            penalty = both(penalty, more)?;
        }
        Ok((if self.head.is_some() { self.logits(&x)? } else { x }, penalty))
    }

    /// [.., dim] to logits [.., vocabulary].
    pub(super) fn logits<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let Some((norm, head)) = &self.head else { return Err(part_of("it has no way to logits")) };
        head.forward(&norm.forward(x)?)
    }

    fn token(&self) -> Result<&Embedding> {
        self.token.as_ref().ok_or_else(|| part_of("it has no embeddings"))
    }
}

impl Gpt {
    /// The symbols that its logits are of, where ranks share them.
    pub fn symbols(&self) -> Option<&Vocabulary> {
        self.symbols.as_ref()
    }

    /// The router of its layers, if they have one.
    pub fn router(&self) -> Option<&'static router::Entry> {
        self.blocks.iter().find_map(|b| b.attention.router())
    }
}

fn part_of(what: &str) -> Error {
    Error::Usage(format!("this is one stage of a pipeline: {what}"))
}

impl Module for Gpt {
    /// Ids [B, T] to logits [B, T, vocabulary].
    fn forward<'t>(&self, ids: &Var<'t>) -> Result<Var<'t>> {
        Ok(self.forward_penalised(ids)?.0)
    }
}

impl Block {
    fn new(c: &ModelConfig, i: usize, part: &Part, p: &mut ParamsBuilder) -> Result<Block> {
        let share = &part.tensor;
        let at = |name: &str| format!("blocks.{i}.{name}");
        let (narrow, residual) = (Init::Normal(0.02), Init::Normal(0.02 / (2.0 * c.layers as f64).sqrt()));
        Ok(Block {
            norm1: NormLayer::new(p, &at("norm1"), c.norm, c.dim)?,
            attention: SelfAttention::new(c, &at("attention"), i, residual, part, p)?,
            norm2: NormLayer::new(p, &at("norm2"), c.norm, c.dim)?,
            mlp: FeedForward::new(c, &at("mlp"), 4 * c.dim, [narrow, residual], share, p)?,
            dropout: Dropout(c.dropout),
        })
    }

    /// The block over [B, T, dim]; with `past`, the tokens follow those seen before and are added to them. Also what it adds
    /// to the loss.
    pub(super) fn forward_after<'t>(
        &self,
        x: &Var<'t>,
        past: Option<&mut Past>,
    ) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let (x, penalty) = self.attended(x, past)?;
        let (y, more) = self.mlp.forward(&self.norm2.forward(&x)?)?;
        Ok((x.add(&self.dropout.forward(&y)?)?, both(penalty, more)?))
    }

    /// Its first half.
    fn attended<'t>(&self, x: &Var<'t>, past: Option<&mut Past>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let (attended, penalty) = self.attention.forward(&self.norm1.forward(x)?, past)?;
        Ok((x.add(&self.dropout.forward(&attended)?)?, penalty))
    }

    /// The block, and the hidden units of its MLP.
    pub(super) fn look<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Var<'t>)> {
        let (x, _) = self.attended(x, None)?;
        let (y, hidden) = self.mlp.look(&self.norm2.forward(&x)?)?;
        Ok((x.add(&y)?, hidden))
    }

    /// The function in its MLP.
    pub(super) fn activation(&self) -> Activation {
        self.mlp.activation()
    }

    /// The attention op of a windowed or dynamic layer.
    pub(super) fn op(&self) -> Option<DynamicAttention> {
        self.attention.op()
    }
}
