//! Whole models: gradients of every parameter, the key-value cache, checkpointing, what they refuse.

mod common;

use common::compare_gradients;
use ringtape::device::Device;
use ringtape::nn::{self, Activation, Io, Model, ModelConfig, ModelKind, Module, Norm, Positions, Sampler};
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, ParamsBuilder, Tape};
use ringtape::tensor::Tensor;

fn tiny() -> ModelConfig {
    ModelConfig { layers: 2, dim: 8, heads: 2, context: 6, ..ModelConfig::default() }
}

fn model(config: &ModelConfig, io: &Io, checkpoint: bool, dtype: DType) -> (Model, Params) {
    let mut p = ParamsBuilder::new(&Device::cpu(), dtype, 11);
    let model = nn::build(config, io, checkpoint, &mut p).unwrap();
    (model, p.build().unwrap())
}

const TEXT: Io = Io::Tokens { vocabulary: 5 };

fn ids(v: &[i32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(&Device::cpu(), v, dims).unwrap()
}

fn text() -> (Tensor, Tensor) {
    (ids(&[0, 1, 2, 3, 4, 0, 2, 2, 1, 3], &[2, 5]), ids(&[1, 2, 3, 4, 0, 2, 2, 1, 3, 0], &[2, 5]))
}

fn loss(model: &Model, params: &Params, x: &Tensor, y: &Tensor) -> f64 {
    let tape = Tape::eval(params);
    let logits = model.forward(&tape.constant(x.clone())).unwrap();
    logits.cross_entropy(&tape.constant(y.clone())).unwrap().value().item().unwrap()
}

fn gradients(model: &Model, params: &Params, x: &Tensor, y: &Tensor) -> Grads {
    let tape = Tape::train(params, 3, 1);
    let logits = model.forward(&tape.constant(x.clone())).unwrap();
    let loss = logits.cross_entropy(&tape.constant(y.clone())).unwrap();
    let mut grads = Grads::new(params).unwrap();
    tape.backward(&loss, &mut grads).unwrap();
    assert!(grads.missing().is_empty(), "no gradient reached {:?}", grads.missing());
    grads
}

/// Central differences on a few elements of every slot, in f64.
fn check_gradients(config: &ModelConfig, io: &Io, x: &Tensor, y: &Tensor) {
    let (model, mut params) = model(config, io, false, DType::F64);
    let grads = gradients(&model, &params, x, y);
    compare_gradients("model", &mut params, &grads, [1e-5, 1e-7], |params| loss(&model, params, x, y));
}

#[test]
fn every_parameter_of_a_gpt_has_the_right_gradient() {
    let (x, y) = text();
    check_gradients(&tiny(), &TEXT, &x, &y);
    let other = ModelConfig {
        positions: Positions::Rotary,
        norm: Norm::Rms,
        tied: true,
        activation: Activation::Silu,
        ..tiny()
    };
    check_gradients(&other, &TEXT, &x, &y);
    check_gradients(&ModelConfig { activation: Activation::Sparse, ..tiny() }, &TEXT, &x, &y);
}

#[test]
fn every_parameter_of_the_classifiers_has_the_right_gradient() {
    let io = Io::Samples { shape: vec![1, 8, 8], outputs: 3 };
    let x: Vec<f64> = (0..128).map(|i| ((i * 37 % 101) as f64 / 50.0) - 1.0).collect();
    let (x, y) = (Tensor::from_slice(&Device::cpu(), &x, &[2, 1, 8, 8]).unwrap(), ids(&[2, 0], &[2]));
    let base = ModelConfig { layers: 2, dim: 3, activation: Activation::Gelu, ..ModelConfig::default() };
    check_gradients(&ModelConfig { kind: ModelKind::Mlp, ..base.clone() }, &io, &x, &y);
    check_gradients(&ModelConfig { kind: ModelKind::Cnn, ..base }, &io, &x, &y);
}

#[test]
fn checkpointing_changes_no_bit() {
    let config = ModelConfig { dropout: 0.3, ..tiny() };
    let (x, y) = text();
    let (plain, params) = model(&config, &TEXT, false, DType::F32);
    let (replayed, _) = model(&config, &TEXT, true, DType::F32);
    let (a, b) = (gradients(&plain, &params, &x, &y), gradients(&replayed, &params, &x, &y));
    for slot in params.all() {
        let name = &params.info(slot).name;
        assert_eq!(
            a.get(slot).unwrap().as_bytes().unwrap(),
            b.get(slot).unwrap().as_bytes().unwrap(),
            "{name}"
        );
    }
}

#[test]
fn cached_logits_equal_uncached_ones() {
    for positions in [Positions::Learned, Positions::Rotary] {
        let config = ModelConfig { positions, context: 12, ..tiny() };
        let (Model::Gpt(gpt), params) = model(&config, &TEXT, false, DType::F32) else {
            panic!("a gpt was asked for")
        };
        let text = [0, 3, 1, 4, 2, 2, 0, 1, 3, 4, 4];
        let mut cache = gpt.cache();
        let mut cached = vec![gpt.feed(&params, &mut cache, &text[..4]).unwrap()];
        for id in &text[4..] {
            cached.push(gpt.feed(&params, &mut cache, &[*id]).unwrap());
        }
        for (i, cached) in cached.iter().enumerate() {
            let n = 4 + i;
            let tape = Tape::eval(&params);
            let logits = gpt.forward(&tape.constant(ids(&text[..n], &[1, n]))).unwrap();
            let full = logits.value().to_f64().unwrap()[(n - 1) * 5..].to_vec();
            for (a, b) in cached.to_f64().unwrap().iter().zip(full) {
                assert!((a - b).abs() < 1e-5, "{positions}, token {n}: {a} cached, {b} uncached");
            }
        }
    }
}

#[test]
fn generation_goes_on_past_the_context_and_repeats_with_its_seed() {
    let (Model::Gpt(gpt), params) = model(&tiny(), &TEXT, false, DType::F32) else {
        panic!("a gpt was asked for")
    };
    let run = |seed| {
        let mut out = vec![];
        let sampler = Sampler { temperature: 1.0, top_k: 3, seed };
        gpt.generate(&params, &[0, 1, 2, 3, 4, 0, 1, 2], 40, &sampler, |id| {
            out.push(id);
            true
        })
        .unwrap();
        out
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert_eq!(run(1).len(), 40);
    let none = gpt.generate(&params, &[], 1, &Sampler { temperature: 1.0, top_k: 0, seed: 0 }, |_| true);
    assert!(none.unwrap_err().to_string().contains("prompt"));
}

#[test]
fn a_later_token_changes_no_earlier_output() {
    let (gpt, params) = model(&tiny(), &TEXT, false, DType::F32);
    let run = |last: i32| {
        let tape = Tape::eval(&params);
        gpt.forward(&tape.constant(ids(&[0, 1, 2, last], &[1, 4]))).unwrap().value().to_f64().unwrap()
    };
    assert_eq!(run(3)[..15], run(4)[..15]);
    assert_ne!(run(3)[15..], run(4)[15..]);
}

#[test]
fn what_a_model_cannot_take_is_an_error() {
    let (gpt, params) = model(&tiny(), &TEXT, false, DType::F32);
    let tape = Tape::eval(&params);
    let long = gpt.forward(&tape.constant(ids(&[0; 7], &[1, 7]))).unwrap_err().to_string();
    assert!(long.contains('7') && long.contains("context of 6"), "{long}");
    let outside = gpt.forward(&tape.constant(ids(&[0, 5], &[1, 2]))).unwrap_err().to_string();
    assert!(outside.contains("embedding") && outside.contains('5'), "{outside}");
    let mut p = ParamsBuilder::new(&Device::cpu(), DType::F32, 0);
    let io = Io::Samples { shape: vec![4], outputs: 2 };
    let e = nn::build(&tiny(), &io, false, &mut p).err().unwrap().to_string();
    assert!(e.contains("model.kind") && e.contains("mlp"), "{e}");
}
