//! Faithful ports of the two samples that the article gives for its third and fifth improvement, and what they do when they run.
//! The chapters on them open with these.

use ringtape::device::Device;
use ringtape::optim;
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Init, ParamsBuilder, Role};

/// The article's scheduler: one m and one v for all parameters, of a gradient that has to be one number.
// ANCHOR: scheduler
struct AdaptiveScheduler {
    first_rate: f64,
    m: f64,
    v: f64,
    t: i32,
}

impl AdaptiveScheduler {
    /// The rate, and what is subtracted from each number of each parameter.
    fn step(&mut self, gradient: f64) -> (f64, f64) {
        let (beta1, beta2) = (0.9, 0.999);
        self.t += 1;
        self.m = beta1 * self.m + (1.0 - beta1) * gradient;
        self.v = beta2 * self.v + (1.0 - beta2) * gradient * gradient;
        let m_hat = self.m / (1.0 - f64::powi(beta1, self.t));
        let v_hat = self.v / (1.0 - f64::powi(beta2, self.t));
        let rate = self.first_rate / (v_hat.sqrt() + 1e-8);
        (rate, rate * m_hat)
    }
}
// ANCHOR_END: scheduler

fn scheduler() -> AdaptiveScheduler {
    AdaptiveScheduler { first_rate: 0.01, m: 0.0, v: 0.0, t: 0 }
}

/// "Fine at the end" it is not: as gradients shrink, the rate grows without bound, and steps stay as long as they were.
#[test]
fn the_articles_rate_grows_where_gradients_shrink() {
    let steps = [1.0, 1e-3, 1e-6].map(|size| {
        let mut s = scheduler();
        (0..50).map(|_| s.step(size)).last().unwrap()
    });
    assert!(steps.iter().all(|(_, step)| (step - 0.01).abs() < 2e-4), "{steps:?}");
    assert!(steps[1].0 > 900.0 * steps[0].0 && steps[2].0 > 900.0 * steps[1].0, "{steps:?}");
}

/// One number for all parameters moves all of them one way: two weights with minima at +1 and −1 never both arrive.
#[test]
fn the_articles_scheduler_moves_every_weight_one_way() {
    let (mut w, mut s) = ([0.0, 0.0f64], scheduler());
    for _ in 0..2000 {
        let g = [w[0] - 1.0, w[1] + 1.0];
        let (_, step) = s.step((g[0] * g[0] + g[1] * g[1]).sqrt());
        w = w.map(|x| x - step);
    }
    assert_eq!(w[0], w[1]);
    assert!(w[0] < -10.0, "a norm is never negative, so weights go down for ever: {w:?}");
}

/// With m and v for each weight, what is left is Adam.
#[test]
fn repaired_the_articles_scheduler_is_adam() {
    const N: usize = 7;
    let mut b = ParamsBuilder::new(&Device::cpu(), DType::F64, 3);
    let slot = b.add("w", &[N], Init::Normal(1.0), Role::Plain).unwrap();
    let mut p = b.build().unwrap();
    let none: [(&str, &str); 0] = [];
    let mut adam = optim::find("adam", &[]).unwrap().build_with(&none, &p).unwrap();
    let mut w = p.get(slot).to_f64().unwrap();
    let mut each: Vec<_> = (0..N).map(|_| scheduler()).collect();
    let mut grads = Grads::new(&p).unwrap();
    for t in 0..100 {
        let mut rng = Key::new(9, t).rng();
        let g: Vec<f64> = (0..N).map(|_| rng.normal()).collect();
        grads.segment_mut::<f64>(0).unwrap()[..N].copy_from_slice(&g);
        adam.step(&mut p, &grads, 0.01).unwrap();
        for ((w, s), g) in w.iter_mut().zip(&mut each).zip(g) {
            *w -= s.step(g).1;
        }
    }
    for (a, b) in p.get(slot).to_f64().unwrap().iter().zip(&w) {
        assert!((a - b).abs() <= 1e-9, "{a} by Adam, {b} by the repaired scheduler");
    }
}

/// The article's activation.
// ANCHOR: relu
struct DynamicSparseRelu {
    threshold: f32,
    alpha: f32,
}

impl DynamicSparseRelu {
    fn forward(&mut self, x: &[f32]) -> Vec<f32> {
        let mean = x.iter().map(|v| v.abs()).sum::<f32>() / x.len() as f32;
        self.threshold = self.threshold * (1.0 - self.alpha) + self.alpha * mean;
        x.iter().map(|&v| if v > self.threshold { v } else { 0.0 }).collect()
    }
}
// ANCHOR_END: relu

fn relu() -> DynamicSparseRelu {
    DynamicSparseRelu { threshold: 0.5, alpha: 0.01 }
}

fn normal(n: usize, scale: f32, stream: u64) -> Vec<f32> {
    let mut rng = Key::new(11, stream).rng();
    (0..n).map(|_| scale * rng.normal() as f32).collect()
}

/// A trained network answers the same question twice in two ways, and a sample's answer depends on who was asked before.
#[test]
fn the_articles_activation_answers_by_what_it_was_asked_before() {
    let mut layer = relu();
    let question = [0.1, 0.52, 3.0, -2.0];
    let first = layer.forward(&question);
    (0..20).for_each(|_| drop(layer.forward(&[4.0, -4.0])));
    assert_eq!(first, [0.0, 0.52, 3.0, 0.0]);
    assert_eq!(layer.forward(&question), [0.0, 0.0, 3.0, 0.0]);
}

/// No density can be asked for: it is 1 − Φ(√(2/π)) = .2125 of a normal distribution at any scale.
#[test]
fn the_articles_activation_leaves_a_fifth_at_any_scale() {
    for scale in [0.01, 1.0, 300.0] {
        let mut layer = relu();
        for t in 0..3000 {
            layer.forward(&normal(64, scale, t));
        }
        let y = layer.forward(&normal(100_000, scale, 1 << 20));
        let density = y.iter().filter(|&&v| v != 0.0).count() as f64 / y.len() as f64;
        assert!((density - 0.2125).abs() < 0.01, "{density} at scale {scale}");
    }
}
