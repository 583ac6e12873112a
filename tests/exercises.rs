//! Answers to exercises of the book, as code that runs: each says which chapter and number it answers.

use ringtape::device::Device;
use ringtape::ops::threshold_relu::ThresholdRelu;
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{ParamsBuilder, Tape};
use ringtape::tensor::Tensor;

fn softmax_sum(seen: &[usize], s: &[f64], v: &[f64]) -> f64 {
    let total: f64 = seen.iter().map(|&j| s[j].exp()).sum();
    seen.iter().map(|&j| s[j].exp() * v[j]).sum::<f64>() / total
}

/// "Attention that looks where it pays", 4: parts that overlap, each with its own softmax, become one. A key that stands in n
/// parts counts for 1/n in each of them: -ln n beside its score. Without that it counts n times.
#[test]
fn overlapping_parts_merge_to_the_union() {
    let mut rng = Key::named(4, "merge").rng();
    let (s, v): (Vec<f64>, Vec<f64>) = (0..12).map(|_| (2.0 * rng.normal(), rng.normal())).unzip();
    let parts: [&[usize]; 3] = [&[0, 1, 2, 3, 4, 5], &[4, 5, 6, 7], &[2, 5, 9, 10]];
    let merged = |corrected: bool| {
        let count = |j: usize| parts.iter().filter(|p| p.contains(&j)).count() as f64;
        let weight = |j: usize| s[j].exp() / if corrected { count(j) } else { 1.0 };
        // Of each part: e^L and its output.
        let found = parts.map(|p| {
            let l: f64 = p.iter().map(|&j| weight(j)).sum();
            (l, p.iter().map(|&j| weight(j) * v[j]).sum::<f64>() / l)
        });
        let total: f64 = found.iter().map(|(l, _)| l).sum();
        found.iter().map(|(l, o)| l / total * o).sum::<f64>()
    };
    let union = softmax_sum(&[0, 1, 2, 3, 4, 5, 6, 7, 9, 10], &s, &v);
    assert!((merged(true) - union).abs() < 1e-14);
    assert!((merged(false) - union).abs() > 1e-2);
}

/// The same, 5: two vectors at angle θ share a bucket of two with probability 1 - θ/π, and of four with its square.
#[test]
fn buckets_are_shared_as_the_angle_says() {
    let mut rng = Key::named(5, "collisions").rng();
    let params = ParamsBuilder::new(&Device::cpu(), DType::F64, 1).build().unwrap();
    let tape = Tape::eval(&params);
    for theta in [0.3f64, 1.0, 2.0] {
        let x =
            Tensor::from_slice(&Device::cpu(), &[1.0, 0.0, theta.cos(), theta.sin()], &[1, 1, 2, 2]).unwrap();
        let x = tape.constant(x);
        for (n, power) in [(1, 1), (2, 2)] {
            let (mut shared, trials) = (0, 20_000);
            // As many rounds of one rotation each as fit, over and over.
            for _ in 0..trials / 50 {
                let r: Vec<f64> = (0..50 * 2 * n).map(|_| rng.normal()).collect();
                let r = Tensor::from_slice(&Device::cpu(), &r, &[50, 1, 2, n]).unwrap();
                let h = x.lsh_hash(&tape.constant(r), None).unwrap();
                let h = h.value().as_slice::<i32>().unwrap().to_vec();
                shared += (0..50).filter(|&i| h[i] == h[50 + i]).count();
            }
            let (found, theory) =
                (shared as f64 / trials as f64, (1.0 - theta / std::f64::consts::PI).powi(power));
            assert!((found - theory).abs() < 0.012, "{theta}, {} buckets: {found}, {theory}", 2 * n);
        }
    }
}

/// The same, 6: a recall head whose queries are the last two symbols finds the only place where they stood before, and what
/// followed upon them.
#[test]
fn a_recall_head_continues_what_it_has_seen() {
    let text = [3usize, 1, 4, 1, 5, 9, 2, 6, 5, 3, 1];
    let query = |i: usize| {
        let mut q = vec![0.0f64; 20];
        q[text[i]] = 1.0;
        if i > 0 {
            q[10 + text[i - 1]] = 1.0;
        }
        q
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (last, sharp) = (text.len() - 1, 20.0);
    // The key of token j is the query of the token before it; its value is the token itself.
    let weights: Vec<f64> = (1..=last).map(|j| (sharp * dot(&query(last), &query(j - 1))).exp()).collect();
    let total: f64 = weights.iter().sum();
    let at = |symbol: usize| (1..=last).filter(|&j| text[j] == symbol).map(|j| weights[j - 1]).sum::<f64>();
    assert!(at(4) / total > 0.999, "after 3, 1 came 4: {weights:?}");
}

/// "A rate that finds itself", 4: with the best step η = E/(E + σ²) the expected square error E of the noisy quadratic goes as
/// 1/E_t = 1/E_0 + t/σ². No fixed rate does: its error stays where noise and pull are even.
#[test]
fn the_best_step_on_a_noisy_quadratic_is_that_of_a_mean() {
    let (noise, first) = (2.0f64, 5.0f64);
    let step = |e: f64, rate: f64| (1.0 - rate).powi(2) * e + rate * rate * noise;
    let mut best = first;
    let mut fixed = first;
    for t in 1..=1000 {
        best = step(best, best / (best + noise));
        fixed = step(fixed, 0.1);
        let theory = 1.0 / (1.0 / first + t as f64 / noise);
        assert!((best / theory - 1.0).abs() < 1e-10, "step {t}: {best}, {theory}");
    }
    // η²σ²/(1 - (1 - η)²) = ησ²/(2 - η).
    assert!((fixed - 0.1 * noise / 1.9).abs() < 1e-12 && fixed > 50.0 * best);
}

/// "Zeros worth skipping", 4: the article's threshold, the mean of |x|, leaves .2125 of a normal distribution, 1/(2e) of a
/// Laplace distribution, at any scale.
#[test]
fn the_mean_magnitude_leaves_a_share_that_the_distribution_says() {
    let mut rng = Key::named(6, "densities").rng();
    let n = 200_000;
    let normal: Vec<f64> = (0..n).map(|_| 7.0 * rng.normal()).collect();
    let laplace: Vec<f64> = (0..n)
        .map(|_| {
            let u = rng.uniform() - 0.5;
            -0.01 * u.signum() * (1.0 - 2.0 * u.abs()).ln()
        })
        .collect();
    for (x, theory) in [(normal, 0.2125), (laplace, 0.5 * (-1.0f64).exp())] {
        let threshold = x.iter().map(|x| x.abs()).sum::<f64>() / n as f64;
        let params = ParamsBuilder::new(&Device::cpu(), DType::F64, 1).build().unwrap();
        let tape = Tape::eval(&params);
        let x = tape.constant(Tensor::from_slice(&Device::cpu(), &x, &[1, n]).unwrap());
        let theta = tape.constant(Tensor::from_slice(&Device::cpu(), &[threshold], &[1]).unwrap());
        let y = x.threshold_relu(Some(&theta), ThresholdRelu::default()).unwrap();
        let left =
            y.value().as_slice::<f64>().unwrap().iter().filter(|y| **y > 0.0).count() as f64 / n as f64;
        assert!((left - theory).abs() < 4.0 * (theory / n as f64).sqrt(), "{left}, {theory}");
    }
}

/// The same, 5: of the six products of a forward and backward pass of an MLP only the first must be done for every unit, so no
/// kernel that skips is more than 6/(1 + 5ϱ) times as fast.
#[test]
fn what_skipping_saves_has_a_ceiling() {
    let (dim, hidden, active) = (4usize, 100usize, 8usize);
    // Multiply-adds of a row: up; then down, dH, dW_down, dX, dW_up for active units alone.
    let dense = 6 * dim * hidden;
    let sparse = dim * hidden + 5 * dim * active;
    let density = active as f64 / hidden as f64;
    assert!((sparse as f64 / dense as f64 - (1.0 + 5.0 * density) / 6.0).abs() < 1e-15);
    assert!((dense as f64 / sparse as f64 - 4.29).abs() < 0.01, "at 8 %");
}
