//! Figures of the chapter on dynamic attention: what a query sees, and how often two vectors share a bucket.

use super::Figures;
use crate::device::Device;
use crate::error::Result;
use crate::ops::dynamic_attention::{DynamicAttention, membership};
use crate::rng::Key;
use crate::tape::{Params, Tape};
use crate::tensor::Tensor;
use std::f64::consts::PI;
use std::fmt::Write;

pub(super) fn figures() -> Result<Figures> {
    let mut all = Figures::new();
    all.insert("attention_sees.txt".into(), sees());
    all.insert("attention_collisions.md".into(), collisions()?);
    Ok(all)
}

/// A row for every fourth query of 80, a column for each key: weight 1 by the window, less than 1, by the second window, by a
/// block of 16 that was routed to, nothing.
fn sees() -> String {
    let op = DynamicAttention { ramp: 4.0, block: 16, ..DynamicAttention::default() };
    let mut text = String::new();
    for i in (3..80).step_by(4) {
        let (span, center) = (6.0, i as f64 - 26.0);
        let routed: &[i32] = if i >= 32 { &[(i as i32 / 16) % 2] } else { &[] };
        let window = membership(&op, 80, i, span, None, &[]);
        let second = membership(&op, 80, i, -1e9, Some((center, 1.0)), &[]);
        let mark = |j: usize| match (window[j], second[j], routed.contains(&((j / 16) as i32))) {
            (1.0, ..) => '#',
            (.., true) => 'r',
            (w, s, _) if s > w => 's',
            (w, ..) if w > 0.0 => '+',
            _ if j > i => ' ',
            _ => '.',
        };
        let _ = writeln!(text, "{i:>4}  {}", (0..80).map(mark).collect::<String>().trim_end());
    }
    text
}

/// Rounds for each angle.
const DRAWS: usize = 20_000;

/// Share of rounds in which two vectors of 16 numbers share a bucket, by the op that the router runs.
fn collisions() -> Result<String> {
    let mut text = String::from(
        "| angle | 2 buckets | theory 1 − θ/π | 4 buckets | theory (1 − θ/π)² | 32 buckets |\n|---|---|---|---|---|---|\n",
    );
    for degrees in [0, 10, 20, 30, 45, 60, 90, 120] {
        let theta = f64::from(degrees) * PI / 180.0;
        let p = 1.0 - theta / PI;
        let [two, four, many] = [share(theta, 1)?, share(theta, 2)?, share(theta, 16)?];
        let _ = writeln!(text, "| {degrees}° | {two:.3} | {p:.3} | {four:.3} | {:.3} | {many:.3} |", p * p);
    }
    Ok(text)
}

fn share(theta: f64, columns: usize) -> Result<f64> {
    const ROUNDS: usize = 50;
    const WIDTH: usize = 16;
    let params = Params::none(&Device::cpu());
    let mut x = vec![0.0; 2 * WIDTH];
    (x[0], x[WIDTH], x[WIDTH + 1]) = (1.0, theta.cos(), theta.sin());
    let mut equal = 0;
    for draw in 0..DRAWS / ROUNDS {
        let mut rng = Key::named(draw as u64, "book, collisions").rng();
        let r: Vec<f64> = (0..ROUNDS * WIDTH * columns).map(|_| rng.normal()).collect();
        let tape = Tape::eval(&params);
        let r = tape.constant(Tensor::from_slice(&Device::cpu(), &r, &[ROUNDS, 1, WIDTH, columns])?);
        let buckets =
            tape.constant(Tensor::from_slice(&Device::cpu(), &x, &[2, WIDTH])?).lsh_hash(&r, None)?;
        let (a, b) = buckets.value().as_slice::<i32>()?.split_at(ROUNDS);
        equal += a.iter().zip(b).filter(|(a, b)| a == b).count();
    }
    Ok(equal as f64 / DRAWS as f64)
}
