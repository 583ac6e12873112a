//! Two sides that attend to each other: one matrix of scores for both directions (`shared_attention`) beside a matrix for each
//! (two `scaled_dot_product_attention`s with projections of their own). What is compared, shared beside separate:
//!
//! - `scores`: projections to queries and keys, and products of these: two and one beside four and two;
//! - `attention`: the ops on queries, keys and values that are there already;
//! - `layer`: projections to queries, keys and values, then the ops: four and one beside six and two.
//!
//! Softmaxes and what is taken from values are the same work for both, and no part of `scores`.

use super::{Case, Timing};
use crate::device::Device;
use crate::error::Result;
use crate::rng::Key;
use crate::tape::{Grads, Params, Tape, Var};
use crate::tensor::Tensor;
use std::rc::Rc;

const HEADS: usize = 4;
const WIDTH: usize = 32;
const DIM: usize = HEADS * WIDTH;
/// Batch and tokens of each side: about as many tokens in all.
const SIZES: [[usize; 2]; 3] = [[64, 16], [16, 64], [4, 256]];
const PARTS: [&str; 3] = ["scores", "attention", "layer"];

/// What two sides bring: tokens [B, T, DIM], six projections, queries, keys and values of four roles [B, H, T, WIDTH].
struct Sides {
    tokens: [Tensor; 2],
    weights: Vec<Tensor>,
    heads: Vec<Tensor>,
    t: usize,
}

impl Sides {
    fn new(device: &Device, b: usize, t: usize) -> Result<Sides> {
        let normal = |dims: &[usize], name: String, std: f64| -> Result<Tensor> {
            let mut rng = Key::named(t as u64, &name).rng();
            let v: Vec<f32> = (0..dims.iter().product()).map(|_| (std * rng.normal()) as f32).collect();
            Tensor::from_slice(device, &v, dims)
        };
        let tokens = |name: &str| normal(&[b, t, DIM], name.into(), 1.0);
        let narrow = 1.0 / (DIM as f64).sqrt();
        let weights = (0..6).map(|i| normal(&[DIM, DIM], format!("weight {i}"), narrow));
        let heads = (0..6).map(|i| normal(&[b, HEADS, t, WIDTH], format!("heads {i}"), 1.0));
        let (weights, heads) = (weights.collect::<Result<_>>()?, heads.collect::<Result<_>>()?);
        Ok(Sides { tokens: [tokens("a")?, tokens("b")?], weights, heads, t })
    }

    /// Forward, and backward if `trains`.
    fn run(&self, part: &str, shares: bool, trains: bool) -> Result<()> {
        let params = Params::none(self.heads[0].device());
        let tape = if trains { Tape::new(&params) } else { Tape::eval(&params) };
        let leaves =
            |all: &[Tensor]| all.iter().map(|t| tape.leaf(t.clone())).collect::<Result<Vec<Var<'_>>>>();
        let outputs = match part {
            "attention" => attend(&leaves(&self.heads)?, shares)?,
            _ => {
                let (x, w) = (leaves(&self.tokens)?, leaves(&self.weights)?);
                // The side of each projection. Layers: query, key, both values, then query and key of the other direction.
                let roles: &[usize] = match (part, shares) {
                    ("layer", true) => &[0, 1, 0, 1],
                    ("layer", false) => &[0, 1, 0, 1, 1, 0],
                    (_, true) => &[0, 1],
                    (_, false) => &[0, 1, 1, 0],
                };
                let project = |(i, side): (usize, &usize)| split(&x[*side].linear(&w[i], None)?);
                let heads = roles.iter().enumerate().map(project).collect::<Result<Vec<_>>>()?;
                if part == "layer" { attend(&heads, shares)? } else { scores(&heads)? }
            }
        };
        if trains {
            let seed = |v: &Var<'_>| Tensor::full(v.value().device(), v.value().spec(), 1.0);
            let seeds = outputs.iter().map(|v| Ok((v, seed(v)?))).collect::<Result<Vec<_>>>()?;
            std::hint::black_box(tape.backward_from(&seeds, &mut Grads::new(&params)?)?);
        }
        params.device().synchronize()
    }
}

/// [B, T, DIM] as heads [B, H, T, WIDTH].
fn split<'t>(x: &Var<'t>) -> Result<Var<'t>> {
    let &[b, t, _] = x.dims() else { unreachable!("tokens have three axes") };
    x.reshape(&[b, t, HEADS, WIDTH])?.permute(&[0, 2, 1, 3])
}

/// Q·Kᵀ/√d of each pair of queries and keys.
fn scores<'t>(heads: &[Var<'t>]) -> Result<Vec<Var<'t>>> {
    let pair = |p: &[Var<'t>]| p[0].matmul_transposed(&p[1])?.scale(1.0 / (WIDTH as f64).sqrt());
    heads.chunks_exact(2).map(pair).collect()
}

/// `heads`: query and key, values of the query's and of the key's side; then a query of the key's side and a key of the query's.
fn attend<'t>(heads: &[Var<'t>], shares: bool) -> Result<Vec<Var<'t>>> {
    if shares {
        return Ok(heads[0].shared_attention(&heads[1], &heads[2], &heads[3], None)?.into());
    }
    let a = heads[0].scaled_dot_product_attention(&heads[1], &heads[3], false)?;
    Ok(vec![a, heads[4].scaled_dot_product_attention(&heads[5], &heads[2], false)?])
}

pub(super) fn cases(device: &Device) -> Result<Vec<Case<'static>>> {
    let mut cases = Vec::new();
    for [b, t] in SIZES {
        let sides = Rc::new(Sides::new(device, b, t)?);
        for part in PARTS {
            for (trains, how) in [(false, "forward"), (true, "forward + backward")] {
                for (shares, kind) in [(true, "shared"), (false, "separate")] {
                    let what = format!("{part} {kind}, {how}, {} and {} tokens, batch {b}", sides.t, sides.t);
                    let sides = sides.clone();
                    cases.push(Case::timed("fusion", &what, move || sides.run(part, shares, trains)));
                }
            }
        }
    }
    Ok(cases)
}

/// Lines that say which share of the separate time the shared one takes: by medians, and by the fastest rounds, which a busy
/// machine disturbs less.
pub(super) fn shares(timings: &[Timing]) -> Vec<String> {
    let fusion: Vec<&Timing> = timings.iter().filter(|t| t.name == "fusion").collect();
    let line = |pair: &[&Timing]| {
        let share = |a: f64, b: f64| 100.0 * a / b;
        let (median, min) = (share(pair[0].median, pair[1].median), share(pair[0].min, pair[1].min));
        format!("{}: {median:.0} % of the time of separate, {min:.0} % at the fastest", pair[0].what)
    };
    fusion.chunks_exact(2).map(line).collect()
}
