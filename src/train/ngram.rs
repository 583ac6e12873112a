//! The opponent that counts: interpolated n-gram models of characters (I. H. Witten, T. C. Bell, "The zero-frequency
//! problem", IEEE Trans. Inf. Theory 37(4), 1991, method C). A network that does not beat these has learned nothing that
//! a table could not hold.
//!
//! p(c | h) = (n(h,c) + t(h)·p(c | h')) / (n(h) + t(h)), where h' is h without its oldest character, n counts, t(h) is the
//! number of distinct characters seen after h, and below the empty context lies the uniform distribution.

use rayon::prelude::*;

/// Longest context that is measured.
pub const ORDERS: usize = 6;

/// Bits of a symbol in a packed context: vocabularies up to 65,536, contexts up to seven symbols.
const BITS: u32 = 16;

/// What was counted after each context of one length.
struct Order {
    /// (context, symbol) packed, sorted, with its count.
    pairs: Vec<(u128, u32)>,
    /// (context, count, distinct symbols), sorted.
    contexts: Vec<(u128, u32, u32)>,
}

impl Order {
    fn count(text: &[u16], length: usize) -> Order {
        let mut keys: Vec<u128> = text.windows(length + 1).map(pack).collect();
        keys.sort_unstable();
        let mut order = Order { pairs: Vec::new(), contexts: Vec::new() };
        for run in keys.chunk_by(|a, b| a == b) {
            order.pairs.push((run[0], run.len() as u32));
            let context = run[0] >> BITS;
            match order.contexts.last_mut() {
                Some((c, n, distinct)) if *c == context => {
                    (*n, *distinct) = (*n + run.len() as u32, *distinct + 1)
                }
                _ => order.contexts.push((context, run.len() as u32, 1)),
            }
        }
        order
    }

    /// (n(h,c), n(h), t(h)); zeros for a context that was never seen.
    fn look_up(&self, key: u128) -> (f64, f64, f64) {
        let Ok(i) = self.contexts.binary_search_by_key(&(key >> BITS), |c| c.0) else {
            return (0.0, 0.0, 0.0);
        };
        let (_, n, distinct) = self.contexts[i];
        let pair = self.pairs.binary_search_by_key(&key, |p| p.0).map_or(0, |j| self.pairs[j].1);
        (pair.into(), n.into(), distinct.into())
    }
}

fn pack(window: &[u16]) -> u128 {
    window.iter().fold(0, |k, &s| k << BITS | s as u128)
}

/// Mean negative log-probability in nats per symbol of `held_out` after counting `train`, with 0, 1, … [`ORDERS`] − 1 symbols
/// of context. Contexts reach into the part of `held_out` before the symbol, not into `train`.
pub fn losses(train: &[u16], held_out: &[u16], vocabulary: usize) -> Vec<f64> {
    let orders: Vec<Order> = (0..ORDERS).into_par_iter().map(|n| Order::count(train, n)).collect();
    let mut sums = [0.0; ORDERS];
    for i in 0..held_out.len() {
        let mut p = 1.0 / vocabulary.max(1) as f64;
        for (n, order) in orders.iter().enumerate() {
            if n <= i {
                let (pair, total, distinct) = order.look_up(pack(&held_out[i - n..=i]));
                if total > 0.0 {
                    p = (pair + distinct * p) / (total + distinct);
                }
            }
            sums[n] -= p.ln();
        }
    }
    sums.iter().map(|s| s / held_out.len().max(1) as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_by_hand() {
        // Counted: a b a b; vocabulary 3. p(a) = (2 + 2/3) / (4 + 2), p(b | a) = (2 + 1·p(b)) / (2 + 1).
        let loss = losses(&[0, 1, 0, 1], &[0, 1], 3);
        let p: f64 = (2.0 + 2.0 / 3.0) / 6.0;
        assert!((loss[0] + p.ln()).abs() < 1e-12);
        let after: f64 = (2.0 + p) / 3.0;
        assert!((loss[1] + (p.ln() + after.ln()) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn probabilities_of_all_symbols_sum_to_one() {
        let train: Vec<u16> = (0..200u32).map(|i| (i * i % 7 % 4) as u16).collect();
        for n in 0..ORDERS {
            let context: Vec<u16> = train[20..20 + n].to_vec();
            let p = |c: u16| {
                let text: Vec<u16> = context.iter().copied().chain([c]).collect();
                let (with, without) = (losses(&train, &text, 5), losses(&train, &context, 5));
                (-(with[n] * text.len() as f64 - without[n] * context.len() as f64)).exp()
            };
            let sum: f64 = (0..5).map(p).sum();
            assert!((sum - 1.0).abs() < 1e-9, "order {n}: {sum}");
        }
    }
}
