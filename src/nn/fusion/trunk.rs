//! From tokens to logits.

use super::attend::{Block, joined, plain};
use super::look::{self, Group, Map};
use super::stream::{Stream, for_each};
use super::{Cross, Modality};
use crate::error::{Error, Result};
use crate::nn::{Linear, ModelConfig, Module, NormLayer, both, join, param};
use crate::tape::{Init, ParamsBuilder, Role, Slot, Var};

/// Tokens of each modality with its number.
type Streams<'s, 't> = &'s [(usize, Stream<'t>)];

/// A token in front of others that gathers what the logits are read from.
struct Summary(Slot);

impl Summary {
    fn new(c: &ModelConfig, name: &str, p: &mut ParamsBuilder) -> Result<Summary> {
        Ok(Summary(p.add(join(name, "summary"), &[1, c.dim], plain(c.dim), Role::Plain)?))
    }
    fn before<'t>(&self, s: &Stream<'t>) -> Result<Stream<'t>> {
        s.behind(&for_each(&param(&s.x, self.0), s.x.dims()[0])?)
    }
}

/// Norm and linear layer of a token.
struct Head {
    norm: NormLayer,
    linear: Linear,
}

impl Head {
    fn new(c: &ModelConfig, name: &str, outputs: usize, p: &mut ParamsBuilder) -> Result<Head> {
        let norm = NormLayer::new(p, &join(name, "norm"), c.norm, c.dim)?;
        Ok(Head { norm, linear: Linear::new(p, &join(name, "head"), c.dim, outputs, Init::Normal(0.02))? })
    }
    /// [B, outputs] from the first token of x [B, T, dim].
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let (batch, dim) = (x.dims()[0], x.dims()[2]);
        self.linear.forward(&self.norm.forward(&x.narrow(1, 0, 1)?.reshape(&[batch, dim])?)?)
    }
}

/// Blocks `name.blocks.0…n`.
fn blocks(
    c: &ModelConfig,
    name: &str,
    n: usize,
    cross: Option<Cross>,
    p: &mut ParamsBuilder,
) -> Result<Vec<Block>> {
    (0..n).map(|i| Block::new(c, &format!("{name}.blocks.{i}"), cross, p)).collect()
}

/// The transformer of one modality before it meets the others, with the names of [`Single`], so that the model may begin with
/// what one that was trained on this modality alone has learned.
pub(super) struct Encoder {
    summary: Summary,
    blocks: Vec<Block>,
    norm: NormLayer,
    /// Says which modality it is, [1, dim].
    kind: Slot,
}

impl Encoder {
    /// Slots `name.summary`, `name.blocks.…`, `name.norm`, `name.kind`.
    pub(super) fn new(c: &ModelConfig, name: &str, p: &mut ParamsBuilder) -> Result<Encoder> {
        Ok(Encoder {
            summary: Summary::new(c, name, p)?,
            blocks: blocks(c, name, c.fused.own_layers, None, p)?,
            norm: NormLayer::new(p, &join(name, "norm"), c.norm, c.dim)?,
            kind: p.add(join(name, "kind"), &[1, c.dim], plain(c.dim), Role::Plain)?,
        })
    }

    /// Its summary and tokens, and what it adds to the loss.
    pub(super) fn forward<'t>(&self, s: &Stream<'t>) -> Result<(Stream<'t>, Option<Var<'t>>)> {
        let (mut s, penalty) = through(&self.blocks, self.summary.before(s)?)?;
        s.x = self.norm.forward(&s.x)?.add(&param(&s.x, self.kind))?;
        Ok((s, penalty))
    }
}

/// One block after the other, and what they add to the loss.
fn through<'t>(blocks: &[Block], mut s: Stream<'t>) -> Result<(Stream<'t>, Option<Var<'t>>)> {
    let mut penalty = None;
    for block in blocks {
        let (next, more) = block.forward(&s)?;
        (s, penalty) = (next, both(penalty, more)?);
    }
    Ok((s, penalty))
}

/// A transformer and a head of one modality.
pub(super) struct Single {
    summary: Summary,
    blocks: Vec<Block>,
    head: Head,
}

impl Single {
    /// Slots `name.summary`, `name.blocks.…`, `name.norm`, `name.head`.
    pub(super) fn new(c: &ModelConfig, name: &str, outputs: usize, p: &mut ParamsBuilder) -> Result<Single> {
        Ok(Single {
            summary: Summary::new(c, name, p)?,
            blocks: blocks(c, name, c.layers, None, p)?,
            head: Head::new(c, name, outputs, p)?,
        })
    }

    /// Its logits, 0 for samples without the modality, and what it adds to the loss.
    pub(super) fn forward<'t>(&self, s: &Stream<'t>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let (s, penalty) = through(&self.blocks, self.summary.before(s)?)?;
        Ok((s.of_those_here(self.head.forward(&s.x)?)?, penalty))
    }
}

/// A transformer over all modalities and its head.
pub(super) struct Joint {
    summary: Summary,
    blocks: Vec<Block>,
    head: Head,
    /// The tokens of all are one row.
    one_row: bool,
}

impl Joint {
    /// Slots `joint.…`.
    pub(super) fn new(c: &ModelConfig, outputs: usize, p: &mut ParamsBuilder) -> Result<Joint> {
        let cross = c.fused.cross;
        Ok(Joint {
            summary: Summary::new(c, "joint", p)?,
            blocks: blocks(c, "joint", c.layers, (cross != Cross::Joint).then_some(cross), p)?,
            head: Head::new(c, "joint", outputs, p)?,
            one_row: cross == Cross::Joint && !c.fused.cut,
        })
    }

    /// Logits, and what it adds to the loss. Where modalities cross by pairs, or not at all, the tokens that gather are those of
    /// each, and the logits the mean over the modalities that a sample has.
    pub(super) fn forward<'t>(&self, streams: Streams<'_, 't>) -> Result<(Var<'t>, Option<Var<'t>>)> {
        let mut all = self.begin(streams)?;
        let mut penalty = None;
        for block in &self.blocks {
            let (next, more) = block.forward_all(&all)?;
            (all, penalty) = (next, both(penalty, more)?);
        }
        let logits = all.iter().map(|s| self.head.forward(&s.x)).collect::<Result<Vec<_>>>()?;
        Ok((mean_of_those_here(&all, &logits)?, penalty))
    }

    /// The rows of tokens, each behind the one that gathers.
    fn begin<'t>(&self, streams: Streams<'_, 't>) -> Result<Vec<Stream<'t>>> {
        if self.one_row {
            let one = joined(&streams.iter().map(|(_, s)| s).collect::<Vec<_>>())?;
            return Ok(vec![self.summary.before(&one)?]);
        }
        streams.iter().map(|(_, s)| self.summary.before(s)).collect()
    }

    /// Where tokens look in a batch of one sample: in the last layer those that gather what the logits are read from, which read no
    /// others; in the layers before it those of the modalities. Each of those has `own` tokens more in front.
    pub(super) fn maps(&self, streams: Streams<'_, '_>, names: &[&str], own: usize) -> Result<Vec<Map>> {
        let mut all = self.begin(streams)?;
        let groups = look::groups(&all, streams, names, self.one_row, own)?;
        let mut maps = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            let (next, looks) = block.look(&all)?;
            all = next;
            for ([a, b], w) in looks {
                let last = i + 1 == self.blocks.len();
                let from = groups[a].iter().filter(|g| g.modality.is_none() == last);
                maps.extend(look::between(i, from, &groups[b], &w)?);
            }
        }
        Ok(maps)
    }
}

/// Transformers of each modality that speak through tokens which all see and which each changes: the tokens go on as the mean
/// of what the modalities made of them.
pub(super) struct Bottleneck {
    summaries: Vec<Summary>,
    /// By modality, the blocks before the meeting and those in which they meet.
    blocks: Vec<[Vec<Block>; 2]>,
    heads: Vec<Head>,
    /// [tokens, dim].
    tokens: Slot,
    meetings: usize,
    /// Each modality keeps its tokens to itself.
    cut: bool,
}

/// Logits, what is added to the loss, and the logits of each modality's head.
type Answer<'t> = (Var<'t>, Option<Var<'t>>, Vec<(usize, Var<'t>)>);

impl Bottleneck {
    /// Slots `bottleneck`, and for each modality `NAME.summary`, `NAME.blocks.…`, `NAME.meeting.blocks.…`, `NAME.norm`, `NAME.head`.
    pub(super) fn new(
        c: &ModelConfig,
        all: &[Modality],
        outputs: usize,
        p: &mut ParamsBuilder,
    ) -> Result<Bottleneck> {
        // What is said in one meeting is heard in the next.
        let meetings = c.layers.div_ceil(2).max(2);
        if c.layers < meetings {
            let what = "is 1, but modalities of hybrid fusion hear in one layer what was said in the one before; set it to 2 or more";
            return Err(Error::config("model.layers", what));
        }
        let names = || all.iter().map(|m| m.name.as_str());
        let tokens = p.add("bottleneck", &[c.fused.bottleneck, c.dim], plain(c.dim), Role::Plain)?;
        let summaries = names().map(|n| Summary::new(c, n, p)).collect::<Result<_>>()?;
        let mut both_halves = |n: &str| -> Result<[Vec<Block>; 2]> {
            Ok([
                blocks(c, n, c.layers - meetings, None, p)?,
                blocks(c, &join(n, "meeting"), meetings, None, p)?,
            ])
        };
        let blocks = names().map(&mut both_halves).collect::<Result<_>>()?;
        let heads = names().map(|n| Head::new(c, n, outputs, p)).collect::<Result<_>>()?;
        Ok(Bottleneck { summaries, blocks, heads, tokens, meetings, cut: c.fused.cut })
    }

    /// Where the tokens of the bottleneck look, in each meeting but the last, whose words nobody hears, of a batch of one sample.
    pub(super) fn maps(&self, streams: Streams<'_, '_>) -> Result<Vec<Map>> {
        let mut all = Vec::new();
        for (m, s) in streams {
            all.push(through(&self.blocks[*m][0], self.summaries[*m].before(s)?)?.0);
        }
        let mut heard = vec![for_each(&param(&all[0].x, self.tokens), 1)?; all.len()];
        let (n, before) = (heard[0].dims()[1], self.blocks[0][0].len());
        let mut maps = Vec::new();
        for i in 0..self.meetings - 1 {
            let mut said = Vec::new();
            for (((m, _), s), heard) in streams.iter().zip(&mut all).zip(&heard) {
                let (mut next, looks) = self.blocks[*m][1][i].look(&[s.behind(heard)?])?;
                let (next, tokens) = (next.remove(0), n + s.x.dims()[1]);
                let bottleneck =
                    Group { name: "bottleneck".into(), modality: None, tokens: (0..n).collect() };
                let own =
                    Group { name: String::new(), modality: Some(*m), tokens: (n + 1..tokens).collect() };
                maps.extend(look::between(before + i, [&bottleneck], &[own], &looks[0].1)?);
                said.push(next.x.narrow(1, 0, n)?);
                s.x = next.x.narrow(1, n, tokens - n)?;
            }
            heard = if self.cut { said } else { vec![mean_of_those_here(&all, &said)?; all.len()] };
        }
        Ok(maps)
    }

    pub(super) fn forward<'t>(&self, streams: Streams<'_, 't>) -> Result<Answer<'t>> {
        let mut penalty = None;
        let mut all = Vec::new();
        for (m, s) in streams {
            let (s, more) = through(&self.blocks[*m][0], self.summaries[*m].before(s)?)?;
            penalty = both(penalty, more)?;
            all.push(s);
        }
        let batch = all[0].x.dims()[0];
        let mut heard = vec![for_each(&param(&all[0].x, self.tokens), batch)?; all.len()];
        let n = heard[0].dims()[1];
        // ANCHOR: meeting
        for i in 0..self.meetings {
            let mut said = Vec::new();
            for (((m, _), s), heard) in streams.iter().zip(&mut all).zip(&heard) {
                let (next, more) = self.blocks[*m][1][i].forward(&s.behind(heard)?)?;
                let tokens = next.x.dims()[1];
                said.push(next.x.narrow(1, 0, n)?);
                s.x = next.x.narrow(1, n, tokens - n)?;
                penalty = both(penalty, more)?;
            }
            heard = if self.cut { said } else { vec![mean_of_those_here(&all, &said)?; all.len()] };
        }
        // ANCHOR_END: meeting
        let each = |((m, _), s): (&(usize, Stream<'t>), &Stream<'t>)| {
            Ok((*m, s.of_those_here(self.heads[*m].forward(&s.x)?)?))
        };
        let heads = streams.iter().zip(&all).map(each).collect::<Result<Vec<_>>>()?;
        let logits = mean_of_those_here(&all, &heads.iter().map(|(_, y)| y.clone()).collect::<Vec<_>>())?;
        Ok((logits, penalty, heads))
    }
}

/// The mean over the streams that a sample has, of values [B, …] of each.
pub(super) fn mean_of_those_here<'t>(streams: &[Stream<'t>], values: &[Var<'t>]) -> Result<Var<'t>> {
    let mut sum: Option<Var<'t>> = None;
    let mut count: Option<Var<'t>> = None;
    for (s, y) in streams.iter().zip(values) {
        let y = match &s.here {
            None => y.clone(),
            Some(here) => {
                count = both(count, Some(here.clone()))?;
                let mut dims = vec![1; y.dims().len()];
                dims[0] = y.dims()[0];
                y.mul(&here.reshape(&dims)?)?
            }
        };
        sum = both(sum, Some(y))?;
    }
    let sum = sum.expect("a sample has a modality");
    match count {
        None => sum.scale(1.0 / streams.len() as f64),
        Some(count) => {
            let mut dims = vec![1; sum.dims().len()];
            dims[0] = sum.dims()[0];
            // A sample that has none comes to 0.
            sum.div(&count.clamp(1.0, f64::INFINITY)?.reshape(&dims)?)
        }
    }
}
