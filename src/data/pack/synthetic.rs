//! Sets that are made, not collected: sequences with a known rule, from the counter-based generator, the same bits
//! everywhere. Tokens that need not be foretold have the target [`IGNORE`].

use crate::data::dataset::IGNORE;
use crate::data::header::Field;
use crate::data::pack::Inputs;
use crate::data::write::Writer;
use crate::error::Result;
use crate::rng::{Key, Rng};
use crate::shape::DType;

/// Tokens of a sequence.
const TOKENS: usize = 256;
/// Sequences for training, and held out.
const SPLITS: [u64; 2] = [20_000, 1_000];

/// Writes sequences, each made by `make` from its own random numbers into tokens and targets.
fn sequences(
    w: &mut Writer,
    name: &str,
    bound: u32,
    make: impl Fn(&mut Rng, &mut [u8], &mut [i32]),
) -> Result<()> {
    let count = SPLITS.iter().sum::<u64>();
    let one = |n: u64| {
        let (mut tokens, mut targets) = (vec![0; TOKENS], vec![IGNORE; TOKENS]);
        make(&mut Key::named(n, name).rng(), &mut tokens, &mut targets);
        (tokens, targets)
    };
    w.field(Field::samples("input", DType::U8, &[TOKENS]).below(bound))?;
    (0..count).try_for_each(|n| w.write(&one(n).0))?;
    w.field(Field::samples("target", DType::I32, &[TOKENS]).below(bound))?;
    (0..count).try_for_each(|n| w.write(bytemuck::cast_slice(&one(n).1)))?;
    w.split("train", 0, SPLITS[0]);
    w.split("val", SPLITS[0], SPLITS[1]);
    Ok(())
}

/// Kinds of tokens of [`recall`]: keys 0..32, values 32..64, fillers 64..96.
const KIND: u64 = 32;
/// Pairs of a sequence, each asked for once.
const PAIRS: usize = 16;
/// Where the pairs lie, and where questions begin: no pair is nearer than the difference to a question.
const PAIRS_END: usize = 128;
const QUESTIONS: usize = 224;

/// Associative recall (Arora et al. 2023, "Zoology"): pairs of a key and a value among fillers, then each key once more,
/// behind which its value is to be foretold. Chance is 1 in 32.
pub(crate) fn recall(_: &Inputs, w: &mut Writer) -> Result<()> {
    sequences(w, "recall", 3 * KIND as u32, |rng, tokens, targets| {
        tokens.fill_with(|| (2 * KIND + rng.below(KIND)) as u8);
        let keys = shuffled(rng, KIND as usize);
        let places = shuffled(rng, PAIRS_END / 2);
        let values: Vec<u8> = (0..PAIRS).map(|_| (KIND + rng.below(KIND)) as u8).collect();
        for (i, &place) in places[..PAIRS].iter().enumerate() {
            (tokens[2 * place], tokens[2 * place + 1]) = (keys[i] as u8, values[i]);
        }
        for (n, &i) in shuffled(rng, PAIRS).iter().enumerate() {
            let at = QUESTIONS + 2 * n;
            (tokens[at], targets[at]) = (keys[i] as u8, values[i].into());
        }
    })
}

/// Tokens between a token of [`copy`] and what it repeats.
const LAG: usize = 96;

/// Random tokens; each is to be foretold from the one 96 before: it stands at the place of attention, or nowhere.
pub(crate) fn copy(_: &Inputs, w: &mut Writer) -> Result<()> {
    sequences(w, "copy", KIND as u32, |rng, tokens, targets| {
        tokens.fill_with(|| rng.below(KIND) as u8);
        for t in LAG..TOKENS {
            targets[t] = tokens[t - LAG].into();
        }
    })
}

/// What tokens of [`spans`] ask about: the last 8 tokens or the last 64.
const SPANS: [usize; 2] = [8, 64];

/// Tokens 2·question + bit: how many of the last 8 bits (question 0) are set, or how many eighths of the last 64, rounded
/// down (question 1).
pub(crate) fn spans(_: &Inputs, w: &mut Writer) -> Result<()> {
    sequences(w, "spans", 9, |rng, tokens, targets| {
        // The share of ones drifts, or counts of 64 would hardly differ.
        let mut share = rng.uniform();
        for token in tokens.iter_mut() {
            share = (share + 0.1 * (rng.uniform() - 0.5)).clamp(0.0, 1.0);
            *token = (2 * rng.below(2) + u64::from(rng.uniform() < share)) as u8;
        }
        for t in SPANS[1]..TOKENS {
            let n = SPANS[usize::from(tokens[t] >= 2)];
            let ones: usize = tokens[t + 1 - n..=t].iter().map(|&x| usize::from(x % 2)).sum();
            targets[t] = (8 * ones / n) as i32;
        }
    })
}

/// 0..n in random order.
fn shuffled(rng: &mut Rng, n: usize) -> Vec<usize> {
    let mut v: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        v.swap(i, rng.below(i as u64 + 1) as usize);
    }
    v
}
