//! What a trained layer sees: measured on some queries of given tokens, not guessed from the settings.

use super::{Last, Past};
use crate::error::Result;
use crate::nn::Gpt;
use crate::ops::dynamic_attention::{DynamicAttention, membership};
use crate::tape::{Params, Tape};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// What one head sees, over the sampled queries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadReport {
    /// Number of the layer.
    pub layer: usize,
    /// Number of the head.
    pub head: usize,
    /// Mean span of the first window, in tokens.
    pub span: f64,
    /// Mean distance from a query back to the middle of its second window, in tokens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lag: Option<f64>,
    /// Mean half width of that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub width: Option<f64>,
    /// Mean number of routed blocks of a query.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub blocks: Option<f64>,
    /// Keys seen, as a share of all keys up to the query's position.
    pub density: f64,
    /// Share of dense attention's mass that falls on what is seen: Σ_seen μ·e^s / Σ_all e^s, a mean over queries.
    pub recall: f64,
}

/// Queries of a head that are looked at.
const SAMPLED: usize = 64;

impl Gpt {
    /// True when layers attend to windows or blocks, so that there is something to inspect.
    pub fn has_windows(&self) -> bool {
        self.blocks.iter().any(|b| b.op().is_some())
    }

    /// What every head of windowed or dynamic layers sees in `ids` [1, T] (i32); empty for dense attention.
    pub fn inspect(&self, params: &Params, ids: &Tensor) -> Result<Vec<HeadReport>> {
        let tape = Tape::eval(params);
        let mut x = self.embed(&tape.constant(ids.clone()), 0, &[])?;
        let mut reports = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            let mut past = Past::default();
            x = block.forward_after(&x, Some(&mut past))?.0;
            if let (Some(last), Some(op)) = (&past.last, block.op()) {
                reports.extend(look(layer, last, op)?);
            }
        }
        Ok(reports)
    }
}

/// The heads of one layer.
fn look(layer: usize, last: &Last, op: DynamicAttention) -> Result<Vec<HeadReport>> {
    let Some([span, blocks, center, width]) = &last.sights else { return Ok(vec![]) };
    let real = |t: &Option<Tensor>| t.as_ref().map_or(Ok(vec![]), |t| t.to_host()?.to_f64());
    let (span, center, width) = (real(span)?, real(center)?, real(width)?);
    let blocks = blocks.as_ref().map(Tensor::to_host).transpose()?;
    let (lists, count) = match &blocks {
        Some(b) => (b.as_slice::<i32>()?, b.shape().last()),
        None => (&[][..], 0),
    };
    let (q, k) = (last.query.to_host()?.to_f64()?, last.key.to_host()?.to_f64()?);
    let &[_, heads, tokens, d] = last.query.dims() else { return Ok(vec![]) };
    let mut reports = Vec::new();
    for head in 0..heads {
        let rows: Vec<usize> = (0..tokens).rev().step_by(tokens.div_ceil(SAMPLED)).collect();
        let (mut seen, mut all, mut recall, mut listed) = (0, 0, 0.0, 0);
        for &i in &rows {
            let n = head * tokens + i;
            let list = &lists[n * count..(n + 1) * count];
            let place = center.get(n).map(|&c| (c, width[n]));
            let mu = membership(&op, i + 1, i, span[n], place, list);
            let scores: Vec<f64> = (0..=i)
                .map(|j| dot(&q[n * d..][..d], &k[(head * tokens + j) * d..][..d]) / (d as f64).sqrt())
                .collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mass =
                |of: &dyn Fn(usize) -> f64| (0..=i).map(|j| of(j) * (scores[j] - most).exp()).sum::<f64>();
            recall += mass(&|j| mu[j]) / mass(&|_| 1.0);
            seen += mu.iter().filter(|m| **m > 0.0).count();
            all += i + 1;
            listed += list.iter().filter(|b| **b >= 0).count();
        }
        let mean = |of: &dyn Fn(usize) -> f64| rows.iter().map(|&i| of(i)).sum::<f64>() / rows.len() as f64;
        let at = |i: usize| head * tokens + i;
        reports.push(HeadReport {
            layer,
            head,
            span: mean(&|i| span[at(i)]),
            lag: (!center.is_empty()).then(|| mean(&|i| i as f64 - center[at(i)])),
            width: (!center.is_empty()).then(|| mean(&|i| width[at(i)])),
            blocks: blocks.is_some().then(|| listed as f64 / rows.len() as f64),
            density: seen as f64 / all as f64,
            recall: recall / rows.len() as f64,
        });
    }
    Ok(reports)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
