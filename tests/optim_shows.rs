//! What optimizers promise, on problems whose answer is known: the best rate on a noisy quadratic, Rosenbrock's valley, a
//! learning rate that finds itself, matrices that step as far in every direction.

use ringtape::device::Device;
use ringtape::optim::{self, Optimizer, ScheduleConfig, ScheduleName, Step};
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Init, Params, ParamsBuilder, Role};
use ringtape::tensor::Tensor;

fn params(start: &[f64], dims: &[usize]) -> Params {
    let mut b = ParamsBuilder::new(&Device::cpu(), DType::F64, 0);
    let slot = b.add("w", dims, Init::Constant(0.0), Role::Decay).unwrap();
    let mut p = b.build().unwrap();
    p.set(slot, &Tensor::from_slice(&Device::cpu(), start, dims).unwrap()).unwrap();
    p
}

fn build(name: &str, attrs: &[(&str, &str)], p: &Params) -> Box<dyn Optimizer> {
    optim::find(name, &[]).unwrap().build_with(attrs, p).unwrap()
}

fn put(grads: &mut Grads, g: &[f64]) {
    grads.segment_mut::<f64>(0).unwrap()[..g.len()].copy_from_slice(g);
}

fn weights(p: &Params, n: usize) -> Vec<f64> {
    p.segment(0).to_f64().unwrap()[..n].to_vec()
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// Squared errors after `steps` on ½h(w − c)², c normal about 0, for 301 weights with curvatures of four decades.
fn noisy_quadratic(name: &str, lr: f64, steps: &[u64]) -> Vec<f64> {
    const N: usize = 301;
    let h: Vec<f64> = (0..N).map(|i| 10f64.powf(4.0 * i as f64 / (N - 1) as f64 - 2.0)).collect();
    let mut p = params(&[5.0; N], &[N]);
    let (mut o, mut grads) = (build(name, &[], &p), Grads::new(&p).unwrap());
    let mut rng = Key::new(2, 2).rng();
    let mut found = Vec::new();
    for t in 1..=*steps.last().unwrap() {
        let c: Vec<f64> = (0..N).map(|_| rng.normal()).collect();
        let gradient = |w: &[f64]| -> Vec<f64> { (0..N).map(|i| h[i] * (w[i] - c[i])).collect() };
        put(&mut grads, &gradient(&weights(&p, N)));
        let mut probe = |w: &Params, g: &mut Grads| {
            put(g, &gradient(&weights(w, N)));
            Ok(())
        };
        o.advance(&mut p, &grads, Step { probe: Some(&mut probe), ..Step::new(lr) }).unwrap();
        if steps.contains(&t) {
            found.push(median(weights(&p, N).iter().map(|w| w * w).collect()));
        }
    }
    found
}

#[test]
fn vsgd_falls_as_the_mean_of_all_samples_does_at_every_curvature() {
    // The mean of t samples has errors of median 0.455/t.
    let found = noisy_quadratic("vsgd_fd", 1.0, &[100, 1_000, 10_000]);
    for (t, e) in [100.0, 1_000.0, 10_000.0].iter().zip(&found) {
        assert!(e * t < 3.0, "after {t} steps {e:e}, the mean of the samples has {:e}", 0.455 / t);
    }
    // A rate that is stable for the largest curvature, 100, leaves it a floor, and hardly moves the smallest.
    let sgd = noisy_quadratic("sgd", 0.01, &[10_000]);
    assert!(sgd[0] > 10.0 * found[2], "{sgd:?}");
}

/// Steps until Rosenbrock's function of (−1.2, 1) is below 1e-6, with a rate that falls from `lr` as half a cosine.
fn rosenbrock(name: &str, attrs: &[(&str, &str)], lr: f64, steps: u64) -> Option<u64> {
    let mut p = params(&[-1.2, 1.0], &[2]);
    let (mut o, mut grads) = (build(name, attrs, &p), Grads::new(&p).unwrap());
    let config = ScheduleConfig { name: ScheduleName::Cosine, warmup_steps: 0, min_lr: 0.0 };
    let schedule = config.build(lr, steps).unwrap();
    for t in 0..steps {
        let w = weights(&p, 2);
        let bend = w[1] - w[0] * w[0];
        if (1.0 - w[0]).powi(2) + 100.0 * bend * bend < 1e-6 {
            return Some(t);
        }
        put(&mut grads, &[-2.0 * (1.0 - w[0]) - 400.0 * w[0] * bend, 200.0 * bend]);
        o.step(&mut p, &grads, schedule.lr(t)).unwrap();
    }
    None
}

#[test]
fn adam_and_its_kin_come_through_rosenbrocks_valley() {
    let none = ("weight_decay", "0");
    for (name, attrs) in [
        ("adamw", &[none][..]),
        ("adam", &[]),
        ("adabelief", &[none, ("eps", "1e-12")]),
        ("schedule_free_adamw", &[]),
    ] {
        let took = rosenbrock(name, attrs, 0.05, 5_000);
        assert!(took.is_some_and(|t| t < 5_000), "{name}: {took:?}");
    }
    // Too few steps are too few: the test can fail.
    assert_eq!(rosenbrock("adamw", &[none], 0.05, 20), None);
}

#[test]
fn prodigy_finds_a_rate_over_decades_of_scale() {
    for scale in [1e-3, 1.0, 1e3] {
        const N: usize = 20;
        let mut p = params(&[scale; N], &[N]);
        let (mut o, mut grads) = (build("prodigy", &[], &p), Grads::new(&p).unwrap());
        for _ in 0..3_000 {
            put(&mut grads, &weights(&p, N));
            o.step(&mut p, &grads, 1.0).unwrap();
        }
        let left = weights(&p, N).iter().fold(0.0f64, |m, w| m.max(w.abs()));
        let d = o.numbers()[0];
        assert!(left < 0.05 * scale, "scale {scale}: {left} left, d = {d}");
        assert!(d > 0.01 * scale && d < 10.0 * scale, "scale {scale}: d = {d}");
    }
}

#[test]
fn muon_steps_as_far_in_every_direction_of_a_matrix() {
    // The gradient of ½‖DW‖² with D from 1 to 0.01: of rank 8, singular values a hundred apart.
    for dims in [[8, 8], [8, 20], [20, 8]] {
        let n = dims[0] * dims[1];
        let mut rng = Key::new(5, dims[1] as u64).rng();
        let scaled: Vec<f64> =
            (0..n).map(|i| rng.normal() * 10f64.powf(-2.0 * (i % dims[1].min(8)) as f64 / 7.0)).collect();
        let mut p = params(&vec![0.0; n], &dims);
        let attrs = [("adjust_lr_fn", "original"), ("weight_decay", "0")];
        let (mut o, mut grads) = (build("muon", &attrs, &p), Grads::new(&p).unwrap());
        put(&mut grads, &scaled);
        o.step(&mut p, &grads, 1.0).unwrap();
        // ‖W‖² = Σ σ²: each of the 8 singular values near 1 times the factor.
        let squares: f64 = weights(&p, n).iter().map(|w| w * w).sum();
        let factor = (dims[0] as f64 / dims[1] as f64).max(1.0);
        let mean = (squares / factor / dims[0].min(dims[1]) as f64).sqrt();
        assert!((0.6..1.3).contains(&mean), "{dims:?}: singular values of about {mean}");
    }
}

#[test]
fn schedule_free_uses_the_mean_which_is_steadier_than_the_iterates() {
    const N: usize = 50;
    let mut p = params(&[1.0; N], &[N]);
    let (mut o, mut grads) = (build("schedule_free_adamw", &[], &p), Grads::new(&p).unwrap());
    let mut rng = Key::new(8, 8).rng();
    for _ in 0..4_000 {
        let g: Vec<f64> = weights(&p, N).iter().map(|w| w + rng.normal()).collect();
        put(&mut grads, &g);
        o.step(&mut p, &grads, 0.02).unwrap();
    }
    let x = o.averaged(&p).unwrap().unwrap();
    let size = |p: &Params| weights(p, N).iter().map(|w| w * w).sum::<f64>() / N as f64;
    let z = o.state().into_iter().find(|(n, _)| n == "z.0").unwrap().1.to_f64().unwrap();
    let z = z[..N].iter().map(|z| z * z).sum::<f64>() / N as f64;
    assert!(
        size(&x) < 0.7 * size(&p) && size(&x) < 0.05 * z,
        "{} of x, {} of y, {z} of z",
        size(&x),
        size(&p)
    );
}

#[test]
fn a_missing_second_gradient_and_wrong_attributes_are_named() {
    let mut p = params(&[1.0; 4], &[2, 2]);
    let grads = Grads::new(&p).unwrap();
    let e = build("vsgd_fd", &[], &p).step(&mut p, &grads, 1.0).unwrap_err().to_string();
    assert!(e.contains("vsgd_fd") && e.contains("second gradient") && e.contains("g_fd"), "{e}");
    let bad = |name: &str, key: &str, value: &str| {
        let built = optim::find(name, &[]).unwrap().build_with(&[(key, value)], &p).map(drop);
        let e = built.unwrap_err().to_string();
        assert!(e.contains(name) && e.contains(key), "{e}");
    };
    for (name, key, value) in [
        ("adam", "beta2", "1"),
        ("adabelief", "eps", "0"),
        ("lion", "beta1", "-0.1"),
        ("m_svag", "beta", "0"),
        ("schedule_free_adamw", "beta1", "0"),
        ("prodigy", "d0", "0"),
        ("prodigy", "growth_rate", "0.5"),
        ("adafactor", "beta2_decay", "0.5"),
        ("adafactor", "d", "0"),
        ("muon", "ns_steps", "0"),
        ("muon", "adjust_lr_fn", "none"),
        ("vsgd_fd", "slow_start", "0"),
        ("vsgd_fd", "momentum", "0.9"),
        ("adamw", "eps", "nan"),
    ] {
        bad(name, key, value);
    }
}
