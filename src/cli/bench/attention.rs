//! Attention over long sequences, forward and backward together, what finds the blocks included: dense, a window, a window
//! and blocks that hashing finds.

use super::Case;
use crate::device::Device;
use crate::error::Result;
use crate::ops::dynamic_attention::{DynamicAttention, Sights};
use crate::ops::lsh_vote::LshVote;
use crate::rng::Key;
use crate::shape::{DType, Spec};
use crate::tape::{Grads, Params, Tape, Var};
use crate::tensor::Tensor;

const HEADS: usize = 4;
const WIDTH: usize = 64;
const WINDOW: usize = 256;
const BLOCK: usize = 64;
const BLOCKS: usize = 8;
const ROUNDS: usize = 4;
const HASHES: usize = 2;
/// Values of each hash.
const BUCKETS: usize = 16;
/// Lengths; dense attention stops at the second number, where it takes seconds.
const TOKENS: [usize; 7] = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];
const DENSE: usize = 16_384;

#[derive(Clone, Copy, PartialEq)]
enum How {
    Dense,
    Window,
    Dynamic,
}

pub(super) fn cases(device: &Device) -> Result<Vec<Case<'static>>> {
    let mut cases = Vec::new();
    for t in TOKENS {
        let all = [
            (How::Dense, "dense"),
            (How::Window, "window 256"),
            (How::Dynamic, "window 256, 8 blocks by LSH"),
        ];
        for (how, what) in all.into_iter().filter(|(how, _)| *how != How::Dense || t <= DENSE) {
            cases.push(case(device, t, how, what)?);
        }
    }
    Ok(cases)
}

fn case(device: &Device, t: usize, how: How, what: &str) -> Result<Case<'static>> {
    // A pool of its own tells what a case takes.
    let device = if device.is_host() { Device::new_cpu() } else { device.clone() };
    let normal = |dims: &[usize], name: &str| -> Result<Tensor> {
        let mut rng = Key::named(t as u64, name).rng();
        let v: Vec<f32> = (0..dims.iter().product()).map(|_| rng.normal() as f32).collect();
        Tensor::from_slice(&device, &v, dims)
    };
    let dims = [1, HEADS, t, WIDTH];
    let qkv = [normal(&dims, "q")?, normal(&dims, "k")?, normal(&dims, "v")?];
    let rotations = normal(&[ROUNDS, HASHES, WIDTH, BUCKETS / 2], "rotations")?;
    let span = Tensor::full(&device, Spec::new(DType::F32, &dims[..3])?, (WINDOW - 1) as f64)?;
    let seed = Tensor::full(&device, Spec::new(DType::F32, &dims)?, 1.0)?;
    let (pool, inputs) = (device.clone(), device.stats().live_bytes);
    let memory: Box<dyn Fn() -> usize> = Box::new(move || pool.stats().peak_bytes - inputs);
    let memory = device.is_host().then_some(memory);
    // Keys a query sees, at most.
    let keys = match how {
        How::Dense => t / 2,
        How::Window => WINDOW,
        How::Dynamic => WINDOW + BLOCKS * BLOCK,
    };
    let run = move || {
        let params = Params::none(&device);
        let tape = Tape::new(&params);
        let leaves: Vec<Var<'_>> = qkv.iter().map(|t| tape.leaf(t.clone())).collect::<Result<_>>()?;
        let (q, k, v) = (&leaves[0], &leaves[1], &leaves[2]);
        let o = match how {
            How::Dense => q.scaled_dot_product_attention(k, v, true)?,
            _ => {
                let constant = |t: &Tensor| tape.constant(t.clone());
                let blocks = match how {
                    How::Dynamic => {
                        Some(route(&constant(&qkv[0]), &constant(&qkv[1]), &constant(&rotations))?)
                    }
                    _ => None,
                };
                let op = DynamicAttention { ramp: 1.0, block: BLOCK, ..DynamicAttention::default() };
                q.dynamic_attention(k, v, &Sights { span: constant(&span), blocks, place: None }, op)?
            }
        };
        let found = tape.backward_from(&[(&o, seed.clone())], &mut Grads::new(&params)?)?;
        std::hint::black_box(found);
        device.synchronize()
    };
    let flops = 14.0 * (HEADS * t * keys * WIDTH) as f64;
    let what = format!("{what}, {t} tokens, {HEADS} heads of {WIDTH}");
    Ok(Case { elements: t as f64, flops, memory, ..Case::timed("attention", &what, run) })
}

fn route<'t>(q: &Var<'t>, k: &Var<'t>, rotations: &Var<'t>) -> Result<Var<'t>> {
    let op = LshVote {
        buckets: BUCKETS.pow(HASHES as u32),
        block: BLOCK,
        count: BLOCKS,
        skip: (WINDOW - 1) / BLOCK + 1,
        ..LshVote::default()
    };
    q.lsh_hash(rotations, None)?.lsh_vote(&k.lsh_hash(rotations, None)?, op)
}
