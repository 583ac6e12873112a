//! Generation: one token at a time, with the keys and values of earlier tokens kept.

use super::Gpt;
use super::attention::{Past, router};
use crate::error::{Error, Result};
use crate::rng::Key;
use crate::tape::{Params, Tape};
use crate::tensor::Tensor;

/// What a transformer remembers of the tokens it has seen.
pub struct Cache {
    past: Vec<Past>,
    tokens: Vec<i32>, // those that the cache stands for
}

/// How the next token is drawn from logits.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// Divides the logits; 0 always takes the largest.
    pub temperature: f64,
    /// Only the k largest logits can be drawn; 0 allows all.
    pub top_k: usize,
    /// Keys the draws: draw i depends on the seed and i only.
    pub seed: u64,
}

impl Gpt {
    /// An empty memory.
    pub fn cache(&self) -> Cache {
        Cache { past: vec![Past::default(); self.blocks.len()], tokens: vec![] }
    }

    /// Logits `[vocabulary]` of the token that follows everything fed so far and `ids`. When the context is full the older
    /// half is forgotten and the rest is read again. An error with a router that looks at later tokens.
    pub fn feed(&self, params: &Params, cache: &mut Cache, ids: &[i32]) -> Result<Tensor> {
        self.router().map_or(Ok(()), router::Entry::expect_causal)?;
        if ids.is_empty() {
            return Err(Error::shape(
                "generate",
                "there is no token to go on from; give a prompt of at least one symbol",
            ));
        }
        if cache.tokens.is_empty() {
            let ids = &ids[ids.len().saturating_sub(self.context)..];
            cache.tokens = ids.to_vec();
            return self.run(params, cache, ids, 0, &[]);
        }
        let mut logits = self.step(params, cache, ids[0])?;
        for &id in &ids[1..] {
            logits = self.step(params, cache, id)?;
        }
        Ok(logits)
    }

    /// Feeds one token after others.
    fn step(&self, params: &Params, cache: &mut Cache, id: i32) -> Result<Tensor> {
        cache.tokens.push(id);
        if cache.tokens.len() <= self.context {
            let start = cache.tokens.len() - 1;
            let before = cache.tokens[start.saturating_sub(self.carried())..start].to_vec();
            return self.run(params, cache, &[id], start, &before);
        }
        let rest = cache.tokens.split_off(cache.tokens.len() - (self.context / 2).max(1));
        *cache = Cache { tokens: rest.clone(), ..self.cache() };
        self.run(params, cache, &rest, 0, &[])
    }

    /// Runs `ids`, the first at position `start` behind tokens `before`, through the blocks; gives the logits after the last.
    fn run(
        &self,
        params: &Params,
        cache: &mut Cache,
        ids: &[i32],
        start: usize,
        before: &[i32],
    ) -> Result<Tensor> {
        let tape = Tape::eval(params);
        let ids = tape.constant(Tensor::from_slice(params.device(), ids, &[1, ids.len()])?);
        let mut x = self.embed(&ids, start, before)?;
        for (block, past) in self.blocks.iter().zip(&mut cache.past) {
            x = block.forward_after(&x, Some(past))?.0;
        }
        let last = x.narrow(1, x.dims()[1] - 1, 1)?;
        self.logits(&last)?.into_value().reshape(&[self.vocabulary])
    }

    /// Goes on from `prompt` by `count` tokens, handing each to `emit` as it is drawn; `emit` may stop with false.
    pub fn generate(
        &self,
        params: &Params,
        prompt: &[i32],
        count: usize,
        sampler: &Sampler,
        mut emit: impl FnMut(i32) -> bool,
    ) -> Result<()> {
        sampler.validate()?;
        let mut cache = self.cache();
        let mut logits = self.feed(params, &mut cache, prompt)?;
        for i in 0..count {
            let id = sampler.pick(&logits.to_f64()?, i as u64)?;
            if !emit(id) || i + 1 == count {
                break;
            }
            logits = self.feed(params, &mut cache, &[id])?;
        }
        Ok(())
    }
}

impl Sampler {
    /// Errors on a temperature that is negative or no number.
    pub fn validate(&self) -> Result<()> {
        if self.temperature >= 0.0 && self.temperature.is_finite() {
            return Ok(());
        }
        Err(Error::Usage(format!("--temperature is {}, but must be 0 or more", self.temperature)))
    }

    /// Draw number `i` from `logits`.
    pub fn pick(&self, logits: &[f64], i: u64) -> Result<i32> {
        if let Some(at) = logits.iter().position(|x| x.is_nan()) {
            return Err(Error::Numeric { step: i, what: format!("the logit of symbol {at} is NaN") });
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if self.temperature == 0.0 {
            return Ok(order[0] as i32);
        }
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let weight = |&j: &usize| ((logits[j] - logits[order[0]]) / self.temperature).exp();
        let total: f64 = order.iter().map(weight).sum();
        let mut left = Key::named(self.seed, "generate").block(i)[0] as f64 / 4_294_967_296.0 * total;
        for j in &order {
            left -= weight(j);
            if left < 0.0 {
                return Ok(*j as i32);
            }
        }
        Ok(order[order.len() - 1] as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_distribution_and_the_limits() {
        let logits = [1.0, 3.0, 2.0, f64::NEG_INFINITY];
        let greedy = Sampler { temperature: 0.0, top_k: 0, seed: 1 };
        assert_eq!(greedy.pick(&logits, 0).unwrap(), 1);
        let free = Sampler { temperature: 1.0, top_k: 0, seed: 1 };
        let mut count = [0; 4];
        (0..20_000).for_each(|i| count[free.pick(&logits, i).unwrap() as usize] += 1);
        let z: f64 = [1.0f64, 3.0, 2.0].iter().map(|x| x.exp()).sum();
        for (i, x) in [1.0f64, 3.0, 2.0].iter().enumerate() {
            assert!((count[i] as f64 / 20_000.0 - x.exp() / z).abs() < 0.01, "{count:?}");
        }
        assert_eq!(count[3], 0);
        let two = Sampler { temperature: 5.0, top_k: 2, seed: 1 };
        assert!((0..1000).all(|i| matches!(two.pick(&logits, i).unwrap(), 1 | 2)));
        assert!(free.pick(&[0.0, f64::NAN], 0).is_err());
    }
}
