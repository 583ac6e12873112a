//! What modalities tell each other is what makes a model right where none of them tells anything alone: the label is the sum
//! of a number seen and a number heard, mod 3. With the path between them cut, in training or only when the model is asked,
//! what is left is late fusion, for which the best is to say nothing, at ln 3 nats.

use ringtape::device::Device;
use ringtape::nn::fusion::{Cross, Form, FusionConfig, FusionMode, Modality};
use ringtape::nn::{self, Io, Model, ModelConfig, ModelKind};
use ringtape::optim;
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, ParamsBuilder, Tape, Var};
use ringtape::tensor::Tensor;

const NUMBERS: u64 = 3;
const BATCH: usize = 36;
const STEPS: u64 = 240;
/// Values of a picture [1, 4, 4] and of a sound [4, 4].
const VALUES: usize = 16;

fn config(fusion: FusionMode, cross: Cross, cut: bool) -> ModelConfig {
    let fused = FusionConfig { patch: 2, frames: 2, bottleneck: 2, cross, cut, ..FusionConfig::default() };
    ModelConfig {
        kind: ModelKind::Fusion,
        layers: 2,
        dim: 16,
        heads: 2,
        fusion,
        fused,
        ..ModelConfig::default()
    }
}

fn model(config: &ModelConfig) -> (Model, Params) {
    let of = |name: &str, form| Modality { name: name.into(), form };
    let modalities = vec![of("image", Form::Image([1, 4, 4])), of("audio", Form::Sound([4, 4]))];
    let mut p = ParamsBuilder::new(&Device::cpu(), DType::F32, 3);
    let io = Io::Modalities { modalities, outputs: NUMBERS as usize };
    let model = nn::build(config, &io, false, &mut p).unwrap();
    (model, p.build().unwrap())
}

/// A picture and a sound of each pair of numbers, equally often, in noise; and their sums mod 3.
fn batch(step: u64) -> ([Tensor; 2], Tensor) {
    let mut noise = Key::named(step, "meeting").rng();
    let (mut values, mut labels) = ([vec![], vec![]], vec![]);
    for i in 0..BATCH as u64 {
        let shown = [i % NUMBERS, i / NUMBERS % NUMBERS];
        for (m, (values, number)) in values.iter_mut().zip(shown).enumerate() {
            let mut form = Key::named(number, ["a picture", "a sound"][m]).rng();
            values.extend((0..VALUES).map(|_| (form.normal() + 0.2 * noise.normal()) as f32));
        }
        labels.push(((shown[0] + shown[1]) % NUMBERS) as i32);
    }
    let host = Device::cpu();
    let tensor = |v: &[f32], dims: &[usize]| Tensor::from_slice(&host, v, dims).unwrap();
    let values = [tensor(&values[0], &[BATCH, 1, 4, 4]), tensor(&values[1], &[BATCH, 4, 4])];
    (values, Tensor::from_slice(&host, &labels, &[BATCH]).unwrap())
}

fn loss<'t>(model: &Model, tape: &'t Tape, step: u64) -> Var<'t> {
    let (values, labels) = batch(step);
    let values = values.map(|v| Some(tape.constant(v)));
    model.predict(&values).unwrap().output.cross_entropy(&tape.constant(labels)).unwrap()
}

/// The weights of a trained model.
fn train(config: &ModelConfig) -> Params {
    let (model, mut params) = model(config);
    let none: [(&str, &str); 0] = [];
    let mut adam = optim::find("adamw", &[]).unwrap().build_with(&none, &params).unwrap();
    let mut grads = Grads::new(&params).unwrap();
    for step in 0..STEPS {
        let tape = Tape::train(&params, 1, step);
        let loss = loss(&model, &tape, step);
        grads.accumulate(false);
        tape.backward(&loss, &mut grads).unwrap();
        drop(loss);
        drop(tape);
        adam.step(&mut params, &grads, 5e-3).unwrap();
    }
    params
}

/// Mean loss of these weights on samples that training never saw, by the model of `config`.
fn judged(config: &ModelConfig, params: &Params) -> f64 {
    let (model, _) = model(config);
    let of = |step: u64| loss(&model, &Tape::eval(params), STEPS + step).value().item().unwrap();
    (0..4).map(of).sum::<f64>() / 4.0
}

fn nothing() -> f64 {
    (NUMBERS as f64).ln()
}

#[test]
fn late_fusion_learns_nothing_of_a_sum() {
    let late = config(FusionMode::Late, Cross::Joint, false);
    let found = judged(&late, &train(&late));
    assert!(found > 0.95 * nothing(), "{found}");
}

#[test]
fn modalities_that_meet_learn_it_and_unlearn_it_when_the_path_is_cut() {
    let early = |cross| (FusionMode::Early, cross);
    let ways = [
        early(Cross::Joint),
        early(Cross::Affinity),
        early(Cross::Projections),
        (FusionMode::Hybrid, Cross::Joint),
        (FusionMode::Experts, Cross::Joint),
    ];
    for (fusion, cross) in ways {
        let [whole, cut] = [false, true].map(|cut| config(fusion, cross, cut));
        let params = train(&whole);
        let found = judged(&whole, &params);
        assert!(found < 0.15, "{fusion}, {cross}: {found}");
        let found = judged(&cut, &params);
        assert!(found > 0.95 * nothing(), "{fusion}, {cross}, cut when it is asked: {found}");
    }
}

#[test]
fn a_path_that_is_cut_in_training_leaves_late_fusion() {
    for fusion in [FusionMode::Early, FusionMode::Hybrid] {
        let cut = config(fusion, Cross::Joint, true);
        let found = judged(&cut, &train(&cut));
        assert!(found > 0.95 * nothing(), "{fusion}: {found}");
    }
}
