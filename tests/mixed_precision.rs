//! `precision = "bf16"`: what it rounds, that gradients stay close to those of f32, that a run ends where the run in f32 ends,
//! and that config and resume keep it.

use ringtape::device::Device;
use ringtape::kernel::gemm::Precision;
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, ParamsBuilder, Tape, Var};
use ringtape::tensor::Tensor;
use ringtape::train::{Config, Metrics, Observer, Run, Silent, Stop, Summary, Trained};
use std::path::Path;

fn random(shape: &[usize], stream: u64) -> Tensor {
    let mut rng = Key::new(7, stream).rng();
    let x: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_slice(&Device::cpu(), &x, shape).unwrap()
}

/// Output and gradients of `f` of leaves with these shapes, for a random seed.
fn outcome(
    precision: Precision,
    shapes: &[&[usize]],
    f: impl for<'t> Fn(&[Var<'t>]) -> Var<'t>,
) -> Vec<Vec<f64>> {
    let params = ParamsBuilder::new(&Device::cpu(), DType::F32, 1).build().unwrap();
    let tape = Tape::new(&params).with_precision(precision);
    let leaves: Vec<Var<'_>> =
        shapes.iter().zip(1..).map(|(s, i)| tape.leaf(random(s, i)).unwrap()).collect();
    let y = f(&leaves);
    let seed = random(y.dims(), 99);
    let found = tape.backward_from(&[(&y, seed)], &mut Grads::new(&params).unwrap()).unwrap();
    let grads = leaves.iter().map(|l| found.get(l).unwrap().to_f64().unwrap());
    std::iter::once(y.value().to_f64().unwrap()).chain(grads).collect()
}

/// √(Σ (a − b)² / Σ b²).
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let off: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (off / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

/// Checks that rounding changes `f` and its first `products` gradients by as much as it may, and nothing else.
fn assert_close(what: &str, shapes: &[&[usize]], products: usize, f: impl for<'t> Fn(&[Var<'t>]) -> Var<'t>) {
    // Two operands, each off by 2⁻⁹ (bf16) or 2⁻¹² (tf32) of itself at most and by less than half of that in the mean.
    for (precision, least, most) in [(Precision::Bf16, 1e-4, 4e-3), (Precision::Tf32, 1e-5, 5e-4)] {
        let what = format!("{what} in {precision:?}");
        assert_within(&what, shapes, products, (precision, least, most), &f);
    }
}

fn assert_within(
    what: &str,
    shapes: &[&[usize]],
    products: usize,
    (precision, least, most): (Precision, f64, f64),
    f: impl for<'t> Fn(&[Var<'t>]) -> Var<'t>,
) {
    let (exact, rounded) = (outcome(Precision::F32, shapes, &f), outcome(precision, shapes, &f));
    for (i, (a, b)) in rounded.iter().zip(&exact).enumerate() {
        assert!(a.iter().all(|x| x.is_finite()), "{what}, {i}: not finite");
        let d = distance(a, b);
        if i <= products {
            assert!(d > least && d < most, "{what}, {i}: off by {d:e}");
        } else {
            assert_eq!(a, b, "{what}, {i}: no product, so nothing is rounded");
        }
    }
}

#[test]
fn linear_and_its_gradients_are_as_close_as_rounding_allows() {
    let shapes: [&[usize]; 3] = [&[3, 50, 70], &[41, 70], &[41]];
    // The gradient of the bias is a sum, in f32.
    assert_close("linear", &shapes, 2, |x| x[0].linear(&x[1], Some(&x[2])).unwrap());
}

#[test]
fn matmul_and_its_gradients_are_as_close_as_rounding_allows() {
    assert_close("one", &[&[65, 33], &[33, 40]], 2, |x| x[0].matmul(&x[1]).unwrap());
    assert_close("batched", &[&[6, 17, 33], &[6, 33, 20]], 2, |x| x[0].matmul(&x[1]).unwrap());
    assert_close("broadcast", &[&[1, 17, 33], &[6, 33, 20]], 2, |x| x[0].matmul(&x[1]).unwrap());
}

#[test]
fn a_checkpointed_part_is_recomputed_in_the_same_precision() {
    let shapes: [&[usize]; 2] = [&[20, 30], &[25, 30]];
    let plain = outcome(Precision::Bf16, &shapes, |x| x[0].linear(&x[1], None).unwrap());
    let replayed = outcome(Precision::Bf16, &shapes, |x| {
        let part = [&x[0], &x[1]];
        let y = x[0].tape().checkpoint(&part, |_, x| Ok([x[0].linear(&x[1], None)?].into_iter().collect()));
        y.unwrap().remove(0)
    });
    assert_eq!(plain, replayed);
}

#[test]
fn numbers_of_64_bits_are_not_rounded() {
    let params = ParamsBuilder::new(&Device::cpu(), DType::F64, 1).build().unwrap();
    let product = |precision| {
        let tape = Tape::eval(&params).with_precision(precision);
        let x = |n| tape.constant(random(&[9, 9], n).to_dtype(DType::F64).unwrap());
        x(1).linear(&x(2), None).unwrap().into_value().to_f64().unwrap()
    };
    assert_eq!(product(Precision::F32), product(Precision::Bf16));
    assert_eq!(product(Precision::F32), product(Precision::Tf32));
}

fn config(extra: &[&str]) -> Config {
    let base = [
        "steps=150",
        "batch_size=8",
        "model.layers=2",
        "model.dim=32",
        "model.heads=2",
        "model.context=32",
        "eval_batches=20",
        "eval_every=0",
        "snapshot_every=0",
        "schedule.warmup_steps=10",
        "tensorboard=false",
    ];
    let all: Vec<String> = base.iter().chain(extra).map(|s| s.to_string()).collect();
    Config::resolve(None, &all).unwrap()
}

fn train(config: Config, at: &Path) -> Summary {
    Run::create(config, at).unwrap().train(&Stop::never(), &mut Silent).unwrap()
}

#[test]
fn a_run_ends_within_a_hundredth_of_the_run_in_f32() {
    let dir = tempfile::tempdir().unwrap();
    let single = train(config(&[]), &dir.path().join("f32"));
    let half = train(config(&["precision=bf16"]), &dir.path().join("bf16"));
    assert!(single.val_loss < 3.0, "it learned: {single:?}");
    assert_ne!(half.val_loss, single.val_loss, "products were rounded");
    assert!((half.val_loss / single.val_loss - 1.0).abs() < 0.01, "{} {}", half.val_loss, single.val_loss);
    let trained = Trained::load(&dir.path().join("bf16"), None).unwrap();
    assert_eq!(trained.config.precision, Precision::Bf16, "the resolved config holds it");
    let weights = trained.params.all().map(|slot| trained.params.get(slot));
    let bits = |t: Tensor| t.as_slice::<f32>().unwrap().iter().any(|x| x.to_bits() & 0xffff != 0);
    assert!(weights.into_iter().any(bits), "weights keep all bits of f32");
}

/// Asks to stop after a given step.
struct StopAt(u64, Stop);
impl Observer for StopAt {
    fn on_step(&mut self, m: &Metrics) {
        if m.step == self.0 {
            self.1.request(2);
        }
    }
}

#[test]
fn a_stopped_run_goes_on_in_bf16_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let c = || config(&["precision=bf16", "steps=8", "eval_batches=2"]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let all = pool.install(|| train(c(), &whole));
    let stop = Stop::never();
    let stopped = Run::create(c(), &parts).unwrap().train(&stop, &mut StopAt(3, stop.clone()));
    assert!(stopped.is_err());
    let mut run = Run::resume(&parts, |_| Ok(())).unwrap();
    let rest = run.train(&Stop::never(), &mut Silent).unwrap();
    let weights = |at: &Path| std::fs::read(at.join("step-8/model.safetensors")).unwrap();
    assert_eq!((weights(&whole), all.val_loss), (weights(&parts), rest.val_loss));
}

#[test]
fn an_unknown_precision_is_an_error_that_lists_the_choices() {
    let e = Config::resolve(None, &["precision=fp8".into()]).unwrap_err();
    assert_eq!(e.exit_code(), 2);
    let text = e.to_string();
    assert!(["precision", "fp8", "f32", "bf16"].iter().all(|word| text.contains(word)), "{text}");
    assert_eq!(Config::resolve(None, &[]).unwrap().precision, Precision::F32);
}
