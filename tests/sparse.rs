//! Sparse activations: the kernels that skip against plain loops, the rules that find thresholds, and what the rules leave
//! alone.

use ringtape::device::Device;
use ringtape::nn::{
    self, Activation, Io, Kernels, Mode, Model, ModelConfig, ModelKind, Nonlinearity, Rule, SparseConfig,
};
use ringtape::ops::sparse_mlp::{Path, SparseMlp};
use ringtape::ops::threshold_relu::{ThresholdRelu, normal_quantile};
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::simd;
use ringtape::tape::{Grads, Params, ParamsBuilder, Tape, Var};
use ringtape::tensor::Tensor;

fn normal(dims: &[usize], name: &str) -> Tensor {
    let mut rng = Key::named(5, name).rng();
    let v: Vec<f32> = (0..dims.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_slice(&Device::cpu(), &v, dims).unwrap()
}

fn f32s(t: &Tensor) -> &[f32] {
    t.as_slice().unwrap()
}

/// One run of the op: y, hidden and the gradients of Σ seed·y for input, up, up_bias, down, down_bias (and threshold).
fn run(op: SparseMlp, inputs: &[Tensor], seed: &Tensor) -> Vec<Tensor> {
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let leaves: Vec<Var<'_>> = inputs.iter().map(|t| tape.leaf(t.clone()).unwrap()).collect();
    let weights = [&leaves[1], &leaves[2], &leaves[3], &leaves[4]];
    let (y, hidden) = leaves[0].sparse_mlp(weights, leaves.get(5), op).unwrap();
    let found = tape.backward_from(&[(&y, seed.clone())], &mut Grads::new(&params).unwrap()).unwrap();
    let mut all = vec![y.value().clone(), hidden.value().clone()];
    let zeros = |l: &Var<'_>| Tensor::zeros(&Device::cpu(), l.value().spec()).unwrap();
    all.extend(leaves.iter().map(|l| found.get(l).cloned().unwrap_or_else(|| zeros(l))));
    all
}

fn op(path: Path, hard: bool, density: f64) -> SparseMlp {
    SparseMlp { relu: ThresholdRelu { hard, density, bandwidth: 0.0 }, path }
}

/// Rows, inputs, hidden units, outputs: whole strips and words, and what is left of them; the last so large that weights and
/// rows are laid out in strips, of more units and rows than are summed at a time.
const SHAPES: [[usize; 4]; 5] =
    [[1, 16, 70, 300], [3, 24, 32, 128], [37, 19, 101, 150], [130, 128, 256, 33], [1040, 253, 1050, 258]];

fn inputs([rows, k, h, m]: [usize; 4], threshold: f32) -> Vec<Tensor> {
    let theta = Tensor::from_slice(&Device::cpu(), &vec![threshold; h], &[h]).unwrap();
    let mut all = vec![normal(&[rows, k], "x"), normal(&[h, k], "u"), normal(&[h], "p")];
    all.extend([normal(&[h, m], "w"), normal(&[m], "q"), theta]);
    all
}

/// Σ over all c of v[c]·w_c, in order, each step one fused multiply-add; what is inactive is multiplied as the 0 that it is.
fn plain_sum(v: &[f32], w: &[f32], n: usize) -> Vec<f32> {
    let mut y = vec![0f32; n];
    for (c, &v) in v.iter().enumerate() {
        y.iter_mut().zip(&w[c * n..][..n]).for_each(|(y, w)| *y = w.mul_add(v, *y));
    }
    y
}

/// dy·w_c for every unit, as the dense product of this row alone has it.
fn one_row(dy: &[f32], w: &Tensor) -> Vec<f32> {
    let params = Params::none(&Device::cpu());
    let tape = Tape::eval(&params);
    let dy = tape.constant(Tensor::from_slice(&Device::cpu(), dy, &[dy.len()]).unwrap());
    f32s(dy.linear(&tape.constant(w.clone()), None).unwrap().value()).to_vec()
}

#[test]
fn kernels_that_skip_have_the_bits_of_plain_loops_over_all_units() {
    for shape in SHAPES {
        let [rows, k, h, m] = shape;
        for hard in [false, true] {
            let theta = if k > 200 { 20.0 } else { 4.0 };
            let inputs = inputs(shape, theta);
            let seed = normal(&[rows, m], "dy");
            let got = run(op(Path::Sparse, hard, 0.1), &inputs, &seed);
            let a = f32s(&got[1]);
            let on = |i: usize| a[i] > theta;
            let active = (0..rows * h).filter(|&i| on(i)).count();
            assert!(active > 0 && active < rows * h / 2, "{shape:?}: {active} units are active");
            let value: Vec<f32> = (0..rows * h)
                .map(|i| {
                    if !on(i) {
                        0.0
                    } else if hard {
                        a[i]
                    } else {
                        a[i] - theta
                    }
                })
                .collect();
            let (x, u, w, q, dy) =
                (f32s(&inputs[0]), f32s(&inputs[1]), f32s(&inputs[3]), f32s(&inputs[4]), f32s(&seed));
            let all: Vec<f32> = (0..rows).flat_map(|t| one_row(&dy[t * m..][..m], &inputs[3])).collect();
            let d: Vec<f32> = (0..rows * h).map(|i| if on(i) { all[i] } else { 0.0 }).collect();
            let mut want = [vec![], vec![], vec![], vec![], vec![]];
            for t in 0..rows {
                let y = plain_sum(&value[t * h..][..h], w, m);
                want[0].extend(y.iter().zip(q).map(|(y, q)| y + q));
                want[1].extend(plain_sum(&d[t * h..][..h], u, k));
            }
            for c in 0..h {
                let column = |v: &[f32]| (0..rows).map(|t| v[t * h + c]).collect::<Vec<f32>>();
                want[2].extend(plain_sum(&column(&d), x, k));
                want[3].push(column(&d).iter().sum::<f32>());
                want[4].extend(plain_sum(&column(&value), dy, m));
            }
            for ((name, want), got) in ["y", "dx", "du", "dp", "dw"]
                .iter()
                .zip(&want)
                .zip([&got[0], &got[2], &got[3], &got[4], &got[5]])
            {
                // −0 and 0 are one number: a unit that is never active leaves 0 or −0 behind.
                assert!(f32s(got) == want.as_slice(), "{shape:?}, hard {hard}: {name} differs");
            }
        }
    }
}

#[test]
fn both_paths_give_the_same_numbers() {
    for shape in SHAPES {
        for (hard, given) in [(false, true), (true, true), (false, false), (true, false)] {
            let all = inputs(shape, 4.0);
            let seed = normal(&[shape[0], shape[3]], "dy");
            let some = &all[..if given { 6 } else { 5 }];
            let (a, b) =
                (run(op(Path::Sparse, hard, 0.2), some, &seed), run(op(Path::Dense, hard, 0.2), some, &seed));
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                let most = f32s(b).iter().fold(1e-3, |m: f32, x| m.max(x.abs()));
                let off = f32s(a).iter().zip(f32s(b)).fold(0.0, |m: f32, (a, b)| m.max((a - b).abs()));
                assert!(
                    off <= 3e-5 * most,
                    "{shape:?}, hard {hard}, given {given}: {i} is off by {off} of {most}"
                );
            }
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    for shape in [[1, 256, 1024, 512], [200, 64, 256, 64]] {
        let some = &inputs(shape, 0.0)[..5];
        let seed = normal(&[shape[0], shape[3]], "dy");
        let of = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(op(Path::Sparse, false, 0.1), some, &seed))
        };
        let one = of(1);
        for threads in [2, 3] {
            let many = of(threads);
            assert!(
                one.iter().zip(&many).all(|(a, b)| a.as_bytes().unwrap() == b.as_bytes().unwrap()),
                "{threads}"
            );
        }
    }
}

#[test]
fn a_nan_is_not_skipped() {
    let mut all = inputs([3, 4, 40, 5], 1.0);
    let mut x = f32s(&all[0]).to_vec();
    x[5] = f32::NAN;
    all[0] = Tensor::from_slice(&Device::cpu(), &x, &[3, 4]).unwrap();
    let seed = normal(&[3, 5], "dy");
    for path in [Path::Sparse, Path::Dense] {
        for some in [&all[..5], &all[..]] {
            let y = run(op(path, false, 0.1), some, &seed);
            let y = f32s(&y[0]);
            assert!(
                y[..5].iter().all(|y| y.is_finite()) && y[5..10].iter().all(|y| y.is_nan()),
                "{path:?}: {y:?}"
            );
        }
    }
}

/// A layer of `units` hidden units with this rule, and its parameters.
fn layer(sparse: SparseConfig, units: usize) -> (Nonlinearity, Params) {
    let config = ModelConfig { activation: Activation::Sparse, sparse, ..ModelConfig::default() };
    let mut p = ParamsBuilder::new(&Device::cpu(), DType::F32, 1);
    let f = Nonlinearity::new(&config, "", units, &mut p).unwrap();
    (f, p.build().unwrap())
}

#[derive(Clone, Copy, Debug)]
enum Law {
    Gaussian,
    Laplace,
}

fn draw(law: Law, scale: f64, dims: &[usize], step: u64) -> Tensor {
    let mut rng = Key::new(9, step).rng();
    let mut one = || match law {
        Law::Gaussian => rng.normal(),
        Law::Laplace => {
            let u = rng.uniform() - 0.5;
            -u.signum() * (1.0 - 2.0 * u.abs()).max(1e-12).ln()
        }
    };
    let v: Vec<f32> = (0..dims.iter().product()).map(|_| (scale * one()) as f32).collect();
    Tensor::from_slice(&Device::cpu(), &v, dims).unwrap()
}

/// Many, so that a row's mean and deviation are near those of the law.
const UNITS: usize = 512;

/// Trains the thresholds of a rule on `steps` batches, then gives the share of active units of a fresh one.
fn achieved(sparse: SparseConfig, law: Law, scale: f64, steps: u64) -> f64 {
    let (f, mut params) = layer(sparse.clone(), UNITS);
    for step in 0..steps {
        let tape = Tape::train(&params, 1, step);
        let x = tape.constant(draw(law, scale, &[64, UNITS], step));
        let (_, penalty) = f.forward(&x).unwrap();
        let mut grads = Grads::new(&params).unwrap();
        if let Some(penalty) = &penalty {
            tape.backward(penalty, &mut grads).unwrap();
        }
        drop((x, penalty));
        for c in tape.into_deferred() {
            params.set(c.slot, &c.value).unwrap();
        }
        if sparse.rule == Rule::Learned {
            descend(&mut params, &grads);
        }
    }
    let tape = Tape::new(&params);
    let x = tape.constant(draw(law, scale, &[500, UNITS], 1 << 40));
    let y = f.forward(&x).unwrap().0;
    f32s(y.value()).iter().filter(|y| **y > 0.0).count() as f64 / y.value().len() as f64
}

/// A step along the sign of the gradient: thresholds are learned by Adam, whose steps are of that kind.
fn descend(params: &mut Params, grads: &Grads) {
    for slot in params.all() {
        let (w, g) = (params.get(slot).to_f64().unwrap(), grads.get(slot).unwrap().to_f64().unwrap());
        let w: Vec<f64> =
            w.iter().zip(g).map(|(w, g)| if g == 0.0 { *w } else { w - 0.01 * g.signum() }).collect();
        let w = Tensor::from_f64(&Device::cpu(), DType::F32, &w, params.info(slot).shape.dims()).unwrap();
        params.set(slot, &w).unwrap();
    }
}

fn rule(rule: Rule, density: f64) -> SparseConfig {
    SparseConfig { rule, density, gain: 0.05, ..SparseConfig::default() }
}

/// The article's rule, θ = mean of |x|, has one density whatever the scale: 1 − Φ(√(2/π)) = .2125.
#[test]
fn the_running_mean_alone_leaves_0_2125_of_a_normal_distribution_at_any_scale() {
    let alone = 1.0 - 0.5 * libm::erfc(-(2.0 / std::f64::consts::PI).sqrt() / 2f64.sqrt());
    assert!((alone - 0.2125).abs() < 1e-4);
    assert!((-normal_quantile(alone) - (2.0 / std::f64::consts::PI).sqrt()).abs() < 1e-9, "then κ = 1");
    for scale in [1e-3, 1.0, 250.0] {
        let got = achieved(rule(Rule::RunningMean, alone), Law::Gaussian, scale, 20);
        assert!((got - 0.2125).abs() < 0.005, "scale {scale}: {got}");
    }
}

/// What the rules that assume a normal distribution leave of another is not what was asked for, but can be foretold.
#[test]
fn every_rule_leaves_the_density_that_theory_says() {
    let (root, quantile) = (2f64.sqrt(), -normal_quantile(0.08));
    let kappa = quantile / (2.0 / std::f64::consts::PI).sqrt();
    // P(x > θ) = e^−θ / 2 of a Laplace distribution with mean |x| 1 and deviation √2.
    let laplace = |theta: f64| 0.5 * (-theta).exp();
    for (r, steps, gaussian, other) in [
        (Rule::TopK, 0, 0.08, laplace(quantile * root)),
        (Rule::RunningMean, 20, 0.08, laplace(kappa)),
        (Rule::Homeostatic, 700, 0.08, 0.08),
        (Rule::Learned, 400, 0.08, 0.08),
    ] {
        for (law, want) in [(Law::Gaussian, gaussian), (Law::Laplace, other)] {
            let got = achieved(rule(r, 0.08), law, 1.0, steps);
            println!("{r} on {law:?}: {got:.4}, foretold {want:.4}");
            assert!((got - want).abs() < 0.007, "{r} on {law:?}: {got:.4}, but theory says {want:.4}");
        }
    }
}

/// The ablation: thresholds that nobody moves from where they begin leave nearly half of the units.
#[test]
fn a_frozen_threshold_keeps_no_density() {
    for (r, steps) in [(Rule::RunningMean, 20), (Rule::Homeostatic, 700), (Rule::Learned, 400)] {
        let [live, frozen] = [steps, 0].map(|n| achieved(rule(r, 0.08), Law::Gaussian, 1.0, n));
        assert!((live - 0.08).abs() < 0.007, "{r}: {live:.4}");
        assert!(frozen > 0.4, "{r}: {frozen:.4}");
    }
}

/// Units of different scale and mean: a threshold for each brings each to the rate, one for all does not.
#[test]
fn homeostasis_brings_every_unit_to_its_rate() {
    let units = 6;
    let batch = |step: u64, rows: usize| {
        let x = draw(Law::Gaussian, 1.0, &[rows, units], step);
        let v: Vec<f32> = f32s(&x)
            .iter()
            .enumerate()
            .map(|(i, x)| x * (0.2 + 0.3 * (i % units) as f32) + (i % units) as f32 - 2.0)
            .collect();
        Tensor::from_slice(&Device::cpu(), &v, &[rows, units]).unwrap()
    };
    let (f, mut params) = layer(rule(Rule::Homeostatic, 0.1), units);
    let rates = |params: &Params| -> Vec<f64> {
        let tape = Tape::eval(params);
        let y = f.forward(&tape.constant(batch(1 << 40, 20_000))).unwrap().0;
        let y = f32s(y.value()).to_vec();
        (0..units)
            .map(|c| y.iter().skip(c).step_by(units).filter(|y| **y > 0.0).count() as f64 / 20_000.0)
            .collect()
    };
    let before = rates(&params);
    assert!(before.iter().any(|r| *r > 0.9) && before.iter().any(|r| *r < 0.02), "{before:?}");
    for step in 0..2500 {
        let tape = Tape::train(&params, 1, step);
        f.forward(&tape.constant(batch(step, 256))).unwrap();
        for c in tape.into_deferred() {
            params.set(c.slot, &c.value).unwrap();
        }
    }
    let after = rates(&params);
    assert!(after.iter().all(|r| (r - 0.1).abs() < 0.02), "{after:?}");
}

const TEXT: Io = Io::Tokens { vocabulary: 7 };

fn gpt(sparse: SparseConfig, checkpoint: bool) -> (Model, Params) {
    let config = ModelConfig {
        layers: 2,
        dim: 8,
        heads: 2,
        context: 12,
        activation: Activation::Sparse,
        sparse,
        ..ModelConfig::default()
    };
    let mut p = ParamsBuilder::new(&Device::cpu(), DType::F32, 3);
    let model = nn::build(&config, &TEXT, checkpoint, &mut p).unwrap();
    (model, p.build().unwrap())
}

fn ids() -> Tensor {
    let v: Vec<i32> = (0..36).map(|i| (i * i + i / 5) % 7).collect();
    Tensor::from_slice(&Device::cpu(), &v, &[3, 12]).unwrap()
}

/// Gradients of a step and the changes of state that it asks for.
fn step(model: &Model, params: &Params) -> (Grads, Vec<(String, Vec<u8>)>) {
    let tape = Tape::train(params, 1, 0);
    let ringtape::nn::Prediction { output: y, penalty, .. } =
        model.predict(&[Some(tape.constant(ids()))]).unwrap();
    let loss = y.mul(&y).unwrap().mean().unwrap();
    let one = || Tensor::full(&Device::cpu(), loss.value().spec(), 1.0).unwrap();
    let mut ends = vec![(&loss, one())];
    ends.extend(penalty.iter().map(|p| (p, one())));
    let mut grads = Grads::new(params).unwrap();
    tape.backward_from(&ends, &mut grads).unwrap();
    drop(ends);
    drop((y, loss, penalty));
    let bytes = |t: &Tensor| t.as_bytes().unwrap().to_vec();
    let asked = tape.into_deferred();
    (grads, asked.iter().map(|c| (params.info(c.slot).name.clone(), bytes(&c.value))).collect())
}

#[test]
fn recomputing_changes_no_bit_and_asks_for_no_change_of_state_again() {
    for r in [Rule::TopK, Rule::RunningMean, Rule::Homeostatic, Rule::Learned] {
        for mode in [Mode::Soft, Mode::Hard] {
            let sparse = SparseConfig { mode, ..rule(r, 0.3) };
            let ((plain, params), (replayed, _)) = (gpt(sparse.clone(), false), gpt(sparse, true));
            let ((a, asked), (b, again)) = (step(&plain, &params), step(&replayed, &params));
            let states = [("top_k", 0), ("running_mean", 4), ("homeostatic", 2), ("learned", 0)];
            assert_eq!(asked.len(), states.iter().find(|(n, _)| *n == r.to_string()).unwrap().1, "{r}");
            assert_eq!(asked, again, "{r}, {mode}");
            assert!(a.missing().is_empty(), "{r}, {mode}: {:?}", a.missing());
            for slot in params.all() {
                let bytes = |g: &Grads| g.get(slot).map(|t| t.as_bytes().unwrap().to_vec());
                assert_eq!(bytes(&a), bytes(&b), "{r}, {mode}: {}", params.info(slot).name);
            }
        }
    }
}

#[test]
fn evaluation_asks_for_nothing_and_does_not_depend_on_what_was_seen() {
    for r in [Rule::RunningMean, Rule::Homeostatic] {
        let (model, params) = gpt(rule(r, 0.3), false);
        for tape in [Tape::eval(&params), Tape::new(&params)] {
            let penalty = model.predict(&[Some(tape.constant(ids()))]).unwrap().penalty;
            assert!(penalty.is_none());
            assert!(tape.into_deferred().is_empty(), "{r}");
        }
    }
}

#[test]
fn sparse_layers_of_a_gpt_give_the_same_with_either_kernels() {
    for r in [Rule::TopK, Rule::Learned] {
        let grads = |kernels| {
            let (model, params) = gpt(SparseConfig { kernels, ..rule(r, 0.2) }, false);
            (step(&model, &params).0, params)
        };
        let ((a, params), (b, _)) = (grads(Kernels::Sparse), grads(Kernels::Dense));
        for slot in params.all().filter(|s| a.get(*s).is_some()) {
            let of = |g: &Grads| g.get(slot).unwrap().to_f64().unwrap();
            let most = of(&b).iter().fold(1e-9, |m: f64, x| m.max(x.abs()));
            let off = of(&a).iter().zip(of(&b)).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
            assert!(off < 1e-4 * most, "{r}: {} is off by {off} of {most}", params.info(slot).name);
        }
    }
}

#[test]
fn impossible_settings_name_their_key() {
    let bad = |sparse: SparseConfig| {
        let c = ModelConfig { activation: Activation::Sparse, sparse, ..ModelConfig::default() };
        c.validate().unwrap_err().to_string()
    };
    for density in [-0.1, 0.0, 1.0, f64::NAN] {
        let e = bad(rule(Rule::TopK, density));
        assert!(e.contains("model.sparse.density") && e.contains("above 0 and below 1"), "{e}");
    }
    assert!(bad(SparseConfig { memory: 1.0, ..Default::default() }).contains("model.sparse.memory"));
    assert!(bad(SparseConfig { gain: 0.0, ..Default::default() }).contains("model.sparse.gain"));
    assert!(bad(SparseConfig { bandwidth: -1.0, ..Default::default() }).contains("model.sparse.bandwidth"));
    assert!(
        bad(SparseConfig { penalty: f64::INFINITY, ..Default::default() }).contains("model.sparse.penalty")
    );
    let cnn = ModelConfig { kind: ModelKind::Cnn, activation: Activation::Sparse, ..ModelConfig::default() };
    assert!(cnn.validate().unwrap_err().to_string().contains("relu"));
}

#[test]
fn bits_above_are_those_of_the_plain_loop() {
    for n in [0, 1, 15, 16, 17, 31, 32, 33, 70] {
        let x: Vec<f32> =
            (0..n).map(|i| if i % 11 == 3 { f32::NAN } else { ((i * 37 % 19) as f32) - 9.0 }).collect();
        for theta in [vec![0.0], vec![f32::NAN], (0..n).map(|i| (i % 5) as f32 - 2.0).collect()] {
            if theta.is_empty() {
                continue;
            }
            let (mut a, mut b) = (vec![-1; (n as usize).div_ceil(32)], vec![-1; (n as usize).div_ceil(32)]);
            simd::above(&x, &theta, &mut a);
            simd::above_plain(&x, &theta, &mut b);
            assert_eq!(a, b, "{n}");
        }
    }
}
