//! Models of several modalities: gradients in every mode, modalities that are missing, what a config may not say.

mod common;

use common::compare_gradients;
use ringtape::device::Device;
use ringtape::nn::fusion::{Cross, Form, FusionConfig, FusionMode, ImageExtractor, Modality, Weights};
use ringtape::nn::{self, Io, Model, ModelConfig, ModelKind};
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, ParamsBuilder, Tape, Var};
use ringtape::tensor::Tensor;

const BATCH: usize = 3;
const CLASSES: usize = 4;
const LETTERS: usize = 5;

fn modalities() -> Vec<Modality> {
    let of = |name: &str, form| Modality { name: name.into(), form };
    vec![
        of("image", Form::Image([1, 8, 8])),
        of("audio", Form::Sound([6, 3])),
        of("text", Form::Text { length: 4, vocabulary: LETTERS }),
    ]
}

fn config(fusion: FusionMode, fused: FusionConfig) -> ModelConfig {
    let fused = FusionConfig { patch: 4, frames: 2, bottleneck: 2, ..fused };
    ModelConfig {
        kind: ModelKind::Fusion,
        layers: 2,
        dim: 8,
        heads: 2,
        fusion,
        fused,
        ..ModelConfig::default()
    }
}

/// Every mode, every way to cross, both extractors of images, both ways to weigh.
fn configs() -> Vec<(String, ModelConfig)> {
    let f = FusionConfig::default;
    let mut all: Vec<(String, ModelConfig)> = Vec::new();
    for cross in [Cross::Joint, Cross::Affinity, Cross::Projections] {
        all.push((format!("early, {cross}"), config(FusionMode::Early, FusionConfig { cross, ..f() })));
    }
    let own = FusionConfig { own_layers: 1, ..f() };
    all.push(("early, behind layers of their own".into(), config(FusionMode::Early, own)));
    let image = ImageExtractor::Cnn;
    all.push(("late, cnn".into(), config(FusionMode::Late, FusionConfig { image, ..f() })));
    all.push(("hybrid".into(), config(FusionMode::Hybrid, f())));
    let weights = Weights::Learned;
    all.push(("late, weights".into(), config(FusionMode::Late, FusionConfig { weights, ..f() })));
    let cross = Cross::Affinity;
    let experts = FusionConfig { cross, weights, ..f() };
    all.push(("experts, affinity, weights".into(), config(FusionMode::Experts, experts)));
    all
}

fn model(config: &ModelConfig, dtype: DType) -> (Model, Params) {
    let mut p = ParamsBuilder::new(&Device::cpu(), dtype, 5);
    let io = Io::Modalities { modalities: modalities(), outputs: CLASSES };
    let model = nn::build(config, &io, false, &mut p).unwrap();
    (model, p.build().unwrap())
}

/// An image, a sound and a text, which ends early in each sample, of `BATCH` samples.
fn values(dtype: DType) -> Vec<Tensor> {
    let device = Device::cpu();
    let mut rng = Key::named(3, "fusion values").rng();
    let mut normal = |dims: &[usize]| {
        let x: Vec<f64> = (0..dims.iter().product()).map(|_| rng.normal()).collect();
        Tensor::from_f64(&device, dtype, &x, dims).unwrap()
    };
    let (image, audio) = (normal(&[BATCH, 1, 8, 8]), normal(&[BATCH, 6, 3]));
    let text = Tensor::from_slice(&device, &[1, 2, 0, 0, 3, 4, 1, 0, 2, 0, 0, 0], &[BATCH, 4]).unwrap();
    vec![image, audio, text]
}

fn on<'t>(tape: &'t Tape, values: &[Tensor]) -> Vec<Option<Var<'t>>> {
    values.iter().map(|v| Some(tape.constant(v.clone()))).collect()
}

fn loss<'t>(model: &Model, tape: &'t Tape, values: &[Tensor]) -> Var<'t> {
    let target = Tensor::from_slice(&Device::cpu(), &[1, 0, 3], &[BATCH]).unwrap();
    let p = model.predict(&on(tape, values)).unwrap();
    let target = tape.constant(target);
    let mut loss = p.output.cross_entropy(&target).unwrap();
    for (_, y) in &p.heads {
        loss = loss.add(&y.cross_entropy(&target).unwrap()).unwrap();
    }
    loss
}

/// Central differences on some elements of every slot, in f64.
#[test]
fn every_parameter_has_the_right_gradient() {
    for (what, config) in configs() {
        let (model, mut params) = model(&config, DType::F64);
        let values = values(DType::F64);
        let tape = Tape::new(&params);
        let mut grads = Grads::new(&params).unwrap();
        tape.backward(&loss(&model, &tape, &values), &mut grads).unwrap();
        drop(tape);
        assert!(grads.missing().is_empty(), "{what}: no gradient reached {:?}", grads.missing());
        let loss = |params: &Params| loss(&model, &Tape::new(params), &values).value().item().unwrap();
        compare_gradients(&what, &mut params, &grads, [1e-6, 2e-6], loss);
    }
}

/// What fills a text up is read by nobody: the vectors of symbol 0 and of the places behind every text get no gradient.
#[test]
fn what_fills_a_text_up_is_not_read() {
    for (what, config) in configs() {
        let (model, params) = model(&config, DType::F64);
        let tape = Tape::new(&params);
        let mut grads = Grads::new(&params).unwrap();
        tape.backward(&loss(&model, &tape, &values(DType::F64)), &mut grads).unwrap();
        let of = |name: &str| grads.get(params.find(name).unwrap()).unwrap().to_f64().unwrap();
        assert_eq!(of("text.extract.weight")[..8], [0.0; 8], "{what}: symbol 0");
        assert_eq!(of("text.position")[24..], [0.0; 8], "{what}: the last place");
        assert_ne!(of("text.position")[..8], [0.0; 8], "{what}: the first place");
    }
}

/// With a probability near 1 training keeps one modality of each sample, and then a sample is worth what evaluation makes of
/// that modality alone: nothing of what was dropped is left, though every image here is NaN.
#[test]
fn what_training_drops_is_missing_and_not_zero() {
    for (what, config) in configs() {
        let fused = FusionConfig { modality_dropout: 0.9999, ..config.fused };
        let (model, params) = model(&ModelConfig { fused, ..config }, DType::F64);
        let mut values = values(DType::F64);
        values[0] = Tensor::full(&Device::cpu(), values[0].spec(), f64::NAN).unwrap();
        let alone = [1, 2].map(|m: usize| {
            let tape = Tape::eval(&params);
            let mut some = on(&tape, &values);
            some.iter_mut().enumerate().filter(|(i, _)| *i != m).for_each(|(_, v)| *v = None);
            model.predict(&some).unwrap().output.value().to_f64().unwrap()
        });
        let mut kept = [0; 3];
        for step in 0..8 {
            let tape = Tape::train(&params, 1, step);
            let y = model.predict(&on(&tape, &values)).unwrap().output.value().to_f64().unwrap();
            for (b, row) in y.chunks(CLASSES).enumerate() {
                let is =
                    |alone: &[f64]| row.iter().zip(&alone[b * CLASSES..]).all(|(a, b)| (a - b).abs() < 1e-12);
                match () {
                    () if row.iter().all(|x| x.is_nan()) => kept[0] += 1,
                    () if is(&alone[0]) => kept[1] += 1,
                    () if is(&alone[1]) => kept[2] += 1,
                    () => panic!("{what}: sample {b} of step {step} is like no single modality: {row:?}"),
                }
            }
        }
        assert!(kept.iter().all(|&n| n > 0), "{what}: kept {kept:?}");
    }
}

/// Logits of late fusion from those of its heads: of the modalities that a sample has, each counts as the softmax of its number
/// says, times how many they are.
#[test]
fn learned_weights_are_shares_of_what_is_there() {
    let weights = Weights::Learned;
    let (model, mut params) =
        model(&config(FusionMode::Late, FusionConfig { weights, ..FusionConfig::default() }), DType::F64);
    let learned: [f64; 3] = [0.3, -1.1, 0.8];
    let slot = params.find("weights").unwrap();
    params.set(slot, &Tensor::from_slice(&Device::cpu(), &learned, &[3]).unwrap()).unwrap();
    let values = values(DType::F64);
    // Sample 0 has all, sample 1 lacks the sound, sample 2 has the text alone.
    let has = [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]];
    let tape = Tape::eval(&params);
    let column =
        |h: &[f64; 3]| Some(tape.constant(Tensor::from_slice(&Device::cpu(), h, &[BATCH, 1]).unwrap()));
    let p = model.predict_of(&on(&tape, &values), &has.each_ref().map(column)).unwrap();
    let heads: Vec<Vec<f64>> = p.heads.iter().map(|(_, y)| y.value().to_f64().unwrap()).collect();
    let found = p.output.value().to_f64().unwrap();
    for b in 0..BATCH {
        let there: Vec<usize> = (0..3).filter(|&m| has[m][b] == 1.0).collect();
        let total: f64 = there.iter().map(|&m| learned[m].exp()).sum();
        for c in 0..CLASSES {
            let i = b * CLASSES + c;
            let share = |m: &usize| there.len() as f64 * learned[*m].exp() / total * heads[*m][i];
            let want: f64 = there.iter().map(share).sum();
            assert!((found[i] - want).abs() < 1e-12, "sample {b}, class {c}: {} but {want}", found[i]);
        }
    }
}

/// What a sample lacks is read by nobody: other values there change no bit, of the logits or of a gradient; and a sample that
/// lacks a modality is what it is where no sample has that modality.
#[test]
fn what_a_sample_lacks_changes_nothing() {
    for (what, config) in configs() {
        for dropout in [0.0, 0.4] {
            let fused = FusionConfig { modality_dropout: dropout, ..config.fused.clone() };
            let (model, params) = model(&ModelConfig { fused, ..config.clone() }, DType::F64);
            // Sample 0 lacks the image, sample 1 image and sound, sample 2 nothing.
            let has = [[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]];
            let run = |values: &[Tensor]| {
                let tape = Tape::train(&params, 1, 0);
                let column = |h: &[f64; 3]| {
                    Some(tape.constant(Tensor::from_slice(&Device::cpu(), h, &[BATCH, 1]).unwrap()))
                };
                let p = model.predict_of(&on(&tape, values), &has.each_ref().map(column)).unwrap();
                let target = Tensor::from_slice(&Device::cpu(), &[1, 0, 3], &[BATCH]).unwrap();
                let loss = p.output.cross_entropy(&tape.constant(target)).unwrap();
                let logits = p.output.value().to_f64().unwrap();
                let mut grads = Grads::new(&params).unwrap();
                tape.backward(&loss, &mut grads).unwrap();
                let all = params.all().filter_map(|s| grads.get(s));
                let bits = |v: Vec<f64>| v.into_iter().map(f64::to_bits).collect::<Vec<_>>();
                let grads: Vec<Vec<u64>> = all.map(|g| bits(g.to_f64().unwrap())).collect();
                (logits, grads)
            };
            let values = values(DType::F64);
            let (logits, grads) = run(&values);
            let mut others = values.clone();
            let swap = |t: &Tensor, samples: &[usize]| {
                let mut v = t.to_f64().unwrap();
                let each = v.len() / BATCH;
                samples.iter().for_each(|b| v[b * each..][..each].iter_mut().for_each(|x| *x = 7.0 - *x));
                Tensor::from_f64(&Device::cpu(), DType::F64, &v, t.dims()).unwrap()
            };
            (others[0], others[1]) = (swap(&values[0], &[0, 1]), swap(&values[1], &[1]));
            let (same, also) = run(&others);
            assert!(logits == same && grads == also, "{what}, dropout {dropout}");
            if dropout == 0.0 {
                others[0] = swap(&values[0], &[2]);
                assert!(run(&others).0[8..] != logits[8..], "{what}: an image that is there");
                let tape = Tape::eval(&params);
                let mut some = on(&tape, &values);
                some[0] = None;
                let alone = model.predict(&some).unwrap().output.value().to_f64().unwrap();
                assert!((0..CLASSES).all(|c| (alone[c] - logits[c]).abs() < 1e-12), "{what}: sample 0");
                assert!(alone[4..8] != logits[4..8], "{what}: sample 1 lacks the sound too");
            }
        }
    }
}

/// A sample of which nothing is there comes out as finite numbers.
#[test]
fn a_sample_without_any_modality_is_no_evidence() {
    for (what, config) in configs() {
        let (model, params) = model(&config, DType::F64);
        let tape = Tape::eval(&params);
        let none =
            Some(tape.constant(Tensor::from_slice(&Device::cpu(), &[0.0, 1.0, 1.0], &[BATCH, 1]).unwrap()));
        let p =
            model.predict_of(&on(&tape, &values(DType::F64)), &[none.clone(), none.clone(), none]).unwrap();
        let y = p.output.value().to_f64().unwrap();
        assert!(y.iter().all(|x| x.is_finite()), "{what}: {y:?}");
    }
}

#[test]
fn evaluation_takes_any_subset_but_none() {
    for (what, config) in configs() {
        let (model, params) = model(&config, DType::F32);
        let values = values(DType::F32);
        for set in 1..8 {
            let tape = Tape::eval(&params);
            let mut some = on(&tape, &values);
            some.iter_mut().enumerate().filter(|(i, _)| set >> i & 1 == 0).for_each(|(_, v)| *v = None);
            let y = model.predict(&some).unwrap().output;
            assert_eq!(y.dims(), [BATCH, CLASSES]);
            assert!(y.value().to_f64().unwrap().iter().all(|x| x.is_finite()), "{what}, subset {set}");
        }
        let e = model.predict(&[None, None, None]).err().unwrap().to_string();
        assert!(e.contains("no modality at all") && e.contains("image, audio, text"), "{e}");
    }
}

#[test]
fn impossible_settings_name_their_key() {
    let bad = |fused: FusionConfig| {
        let mut p = ParamsBuilder::new(&Device::cpu(), DType::F32, 5);
        let io = Io::Modalities { modalities: modalities(), outputs: CLASSES };
        let config = ModelConfig { fused, ..config(FusionMode::Early, FusionConfig::default()) };
        nn::build(&config, &io, false, &mut p).err().unwrap().to_string()
    };
    let base = || FusionConfig { patch: 4, frames: 2, ..FusionConfig::default() };
    assert!(bad(FusionConfig { patch: 3, ..base() }).contains("model.fused.patch"));
    assert!(bad(FusionConfig { frames: 4, ..base() }).contains("model.fused.frames"));
    assert!(bad(FusionConfig { bottleneck: 0, ..base() }).contains("model.fused.bottleneck"));
    assert!(bad(FusionConfig { weights: Weights::Learned, ..base() }).contains("model.fused.weights"));
    assert!(bad(FusionConfig { modality_dropout: 1.0, ..base() }).contains("modality_dropout"));
    assert!(bad(FusionConfig { head_loss: f64::NAN, ..base() }).contains("head_loss"));
    let mut p = ParamsBuilder::new(&Device::cpu(), DType::F32, 5);
    let io = Io::Modalities { modalities: modalities(), outputs: CLASSES };
    let late = config(FusionMode::Late, FusionConfig { own_layers: 1, ..base() });
    assert!(
        nn::build(&late, &io, false, &mut p).err().unwrap().to_string().contains("model.fused.own_layers")
    );
}

/// Early fusion can begin with what a model of one modality has learned, all but its head: slots of one name have one shape.
#[test]
fn layers_of_its_own_are_those_of_a_model_of_one_modality() {
    let (_, early) = model(
        &config(FusionMode::Early, FusionConfig { own_layers: 2, ..FusionConfig::default() }),
        DType::F32,
    );
    let (_, late) = model(&config(FusionMode::Late, FusionConfig::default()), DType::F32);
    let slots = |p: &Params| -> Vec<(String, Vec<usize>)> {
        p.all().map(|s| (p.info(s).name.clone(), p.get(s).dims().to_vec())).collect()
    };
    let early = slots(&early);
    for (name, dims) in slots(&late).into_iter().filter(|(name, _)| !name.contains(".head.")) {
        assert!(early.contains(&(name.clone(), dims)), "{name}");
    }
}
