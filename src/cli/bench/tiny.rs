//! A training step of a model so small that the machinery around its kernels is most of it.

use super::Case;
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Mlp, ModelConfig, Module};
use crate::optim::{self, Optimizer};
use crate::rng::Key;
use crate::shape::DType;
use crate::tape::{Grads, Params, ParamsBuilder, Tape};
use crate::tensor::Tensor;

const BATCH: usize = 32;
const WIDTH: usize = 64;
const CLASSES: usize = 10;

/// Forward, cross-entropy, backward and AdamW of two hidden layers.
pub(super) fn cases() -> Result<Vec<Case<'static>>> {
    let device = Device::cpu();
    let config = ModelConfig { layers: 2, dim: WIDTH, ..ModelConfig::default() };
    let mut slots = ParamsBuilder::new(&device, DType::F32, 1);
    let model = Mlp::new(&config, &[WIDTH], CLASSES, &mut slots)?;
    let mut params = slots.build()?;
    let mut optimizer = optim::find("adamw", &[])?.build_with::<&str, &str>(&[], &params)?;
    let mut grads = Grads::new(&params)?;
    let mut rng = Key::named(1, "tiny").rng();
    let x: Vec<f32> = (0..BATCH * WIDTH).map(|_| rng.normal() as f32).collect();
    let classes: Vec<i32> = (0..BATCH).map(|_| rng.below(CLASSES as u64) as i32).collect();
    let x = Tensor::from_slice(&device, &x, &[BATCH, WIDTH])?;
    let classes = Tensor::from_slice(&device, &classes, &[BATCH])?;
    let flops = 6.0 * (params.trained_len() * BATCH) as f64;
    let what = format!("{WIDTH}-{WIDTH}-{WIDTH}-{CLASSES}, batch {BATCH}, forward, backward, AdamW");
    let run = move || step(&model, &mut params, &mut grads, optimizer.as_mut(), &x, &classes);
    Ok(vec![Case { elements: BATCH as f64, flops, ..Case::timed("tiny", &what, run) }])
}

fn step(
    model: &Mlp,
    params: &mut Params,
    grads: &mut Grads,
    optimizer: &mut dyn Optimizer,
    x: &Tensor,
    classes: &Tensor,
) -> Result<()> {
    let tape = Tape::train(params, 1, 0);
    let loss = model.forward(&tape.constant(x.clone()))?.cross_entropy(&tape.constant(classes.clone()))?;
    grads.accumulate(false);
    tape.backward(&loss, grads)?;
    drop(loss);
    drop(tape);
    optimizer.step(params, grads, 1e-3)
}
