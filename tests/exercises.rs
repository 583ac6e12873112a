//! Answers to exercises of the book, as code that runs: each says which chapter and number it answers.

use ringtape::device::Device;
use ringtape::ops::threshold_relu::ThresholdRelu;
use ringtape::plan::{Cluster, Group, Link, Pipeline, failures};
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{ParamsBuilder, Tape};
use ringtape::tensor::Tensor;

/// A vector of each rank, and what it may send of it.
type Messages = Vec<Vec<(usize, f64)>>;

/// "Many that compute as one", 1 and 2: the ring with p ranks on vectors of p chunks, one number each. Gives what every rank
/// has at the end, and how many numbers each has sent.
fn ring_by_hand(p: usize, x: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<usize>) {
    let (mut x, mut sent) = (x.to_vec(), vec![0; p]);
    for step in 0..2 * (p - 1) {
        // All send at once: what goes out is what was there before the step.
        let out: Messages = (0..p)
            .map(|r| {
                let chunk = (r + 2 * p - step) % p;
                sent[r] += 1;
                vec![(chunk, x[r][chunk])]
            })
            .collect();
        for r in 0..p {
            for &(chunk, value) in &out[(r + p - 1) % p] {
                // First sums go round, then their results.
                x[r][chunk] = if step < p - 1 { value + x[r][chunk] } else { value };
            }
        }
    }
    (x, sent)
}

/// The same, 1: every rank sends 2(p - 1) chunks, and each chunk ends as the left fold that begins with the rank of its number.
#[test]
fn a_ring_by_hand_sends_as_little_as_can_be_and_folds_from_the_left() {
    let mut rng = Key::named(1, "ring").rng();
    for p in [2, 3, 5, 8] {
        let x: Vec<Vec<f64>> = (0..p).map(|_| (0..p).map(|_| rng.normal()).collect()).collect();
        let (all, sent) = ring_by_hand(p, &x);
        assert!(sent.iter().all(|&n| n == 2 * (p - 1)));
        for c in 0..p {
            let fold = (1..p).fold(x[c][c], |sum, i| sum + x[(c + i) % p][c]);
            assert!(all.iter().all(|x| x[c].to_bits() == fold.to_bits()), "{p}: chunk {c}");
        }
    }
}

/// The same, 3: parts of unequal size. The mean of means is not the mean.
#[test]
fn uneven_shards_are_weighed_by_their_samples() {
    let gradients = [[1.0, 3.0, 8.0].as_slice(), &[2.0, 4.0]];
    let mean = |g: &[f64]| g.iter().sum::<f64>() / g.len() as f64;
    let all: Vec<f64> = gradients.concat();
    let weighed = gradients.iter().map(|g| g.len() as f64 * mean(g)).sum::<f64>() / all.len() as f64;
    assert!((weighed - mean(&all)).abs() < 1e-15);
    assert!((mean(&gradients.map(mean)) - mean(&all)).abs() > 0.05);
}

/// The same, 4: eight shards summed over one tree have the same bits on one, two, four and eight ranks; summed rank by rank from
/// the left they do not.
#[test]
fn a_fixed_tree_gives_every_number_of_ranks_the_same_bits() {
    fn tree(x: &[f32]) -> f32 {
        if x.len() == 1 { x[0] } else { tree(&x[..x.len() / 2]) + tree(&x[x.len() / 2..]) }
    }
    let mut rng = Key::named(4, "shards").rng();
    let (mut same, mut left) = (0, 0);
    for _ in 0..200 {
        let shards: Vec<f32> = (0..8).map(|_| rng.normal() as f32).collect();
        for p in [1, 2, 4, 8] {
            let mine: Vec<f32> = shards.chunks(8 / p).map(tree).collect();
            same += usize::from(tree(&mine).to_bits() == tree(&shards).to_bits());
            let folds: Vec<f32> = shards.chunks(8 / p).map(|s| s.iter().sum()).collect();
            left += usize::from(folds.iter().sum::<f32>().to_bits() == shards.iter().sum::<f32>().to_bits());
        }
    }
    assert_eq!(same, 800);
    assert!(left < 800);
}

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

/// "Several senses at once", 4: each sense holds another class likelier than the true one, which is second for all of them; the
/// product of what they say is right. And 1: of a sum mod 10 either digit alone says nothing, in whatever way it is weighed.
#[test]
fn a_product_of_experts_is_right_where_each_is_wrong() {
    let senses = [[0.45, 0.50, 0.03, 0.02], [0.40, 0.05, 0.50, 0.05], [0.42, 0.03, 0.05, 0.50]];
    let best = |p: &[f64]| (0..4).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
    assert!(senses.iter().all(|p| best(p) != 0));
    let product: Vec<f64> = (0..4).map(|c| senses.iter().map(|p| p[c].ln()).sum::<f64>().exp()).collect();
    assert_eq!(best(&product), 0);
    for a in 0..10 {
        let mut labels = [0; 10];
        (0..10).for_each(|b| labels[(a + b) % 10] += 1);
        assert_eq!(labels, [1; 10]);
    }
}

/// "Going to thousands of GPUs", 1: 285 micro-batches fill 16 stages to nineteen twentieths; 128 replicas of them are 36,480 samples.
#[test]
fn pipelines_want_many_micro_batches() {
    let even = Pipeline { forward: vec![1.0; 16], backward: vec![2.0; 16], transfer: vec![0.0; 15] };
    let bubble = |m: usize| even.play(m).bubble(3.0 * m as f64);
    assert!(bubble(285) < 0.05 + 1e-12 && bubble(284) > 0.05, "{}", bubble(285));
}

/// The same, 2: a second of work costs δ/τ of snapshots, and τ/2M of work that is done again, which is least at τ = √(2δM); the
/// restarts R/M are the same whatever τ is.
#[test]
fn an_interval_weighs_snapshots_against_lost_work() {
    let (mtbf, snapshot, restart) = (1e6, 2.0, 300.0);
    let lost = |t: f64| snapshot / t + t / (2.0 * mtbf) + restart / mtbf;
    let best = failures::young(mtbf, snapshot);
    assert!((best - 2000.0).abs() < 1e-9);
    assert!([0.9, 0.99, 1.01, 1.1].iter().all(|x| lost(best * x) > lost(best)));
    let exact = 1.0 / failures::goodput(mtbf, snapshot, restart, best) - 1.0;
    assert!((exact / lost(best) - 1.0).abs() < 0.01, "{exact}, {}", lost(best));
    let other = failures::interval(mtbf, snapshot);
    assert!((other / best - 1.0).abs() < 1e-3, "{other}");
}

/// The same, 3: an eighth of the bytes leaves a node on each port, and the ring of nodes has an eighth of the members.
#[test]
fn a_hierarchy_is_as_much_faster_as_a_node_is_large() {
    let of = |alpha: f64, beta: f64| {
        let (within, between) = (Link { alpha: 0.0, beta: 0.0 }, Link { alpha, beta });
        let cluster = Cluster { within, between, gamma: 0.0, ..Cluster::named("small").unwrap().unwrap() };
        let ring = 2.0 * 7999.0 * alpha + 2.0 * 7999.0 / 8000.0 * 1e9 * beta;
        (ring, Group::new(8000, 8).all_reduce(&cluster, 1e9))
    };
    let (ring, nodes) = of(0.0, 1e-9);
    assert!((ring / nodes - 8.0).abs() < 0.01, "{ring}, {nodes}");
    // Without β the tree of a thousand nodes counts: nine doublings, and two steps for those beyond 512.
    let (ring, nodes) = of(1e-5, 0.0);
    assert!((ring - 0.15998).abs() < 1e-9 && (nodes - 11.0 * 1e-5).abs() < 1e-12, "{nodes}");
}

/// "One model, many ranks", 1 and 2: three stages of four micro-batches take 18 slots, 6 of them empty in each; eight stages
/// need 133 micro-batches, and hold 8 of them, or all.
#[test]
fn a_bubble_is_counted_and_bounded() {
    let of = |p: usize, m: usize| {
        Pipeline { forward: vec![1.0; p], backward: vec![2.0; p], transfer: vec![0.0; p - 1] }.play(m)
    };
    assert_eq!(of(3, 4).end, 18.0);
    let enough = (1..1000).find(|&m| of(8, m).bubble(3.0 * m as f64) <= 0.05 + 1e-12);
    assert_eq!((enough, of(8, 133).peaks[0]), (Some(133), 8));
}

/// The same, 3: columns and then rows need one sum, at the end; rows first need one before f.
#[test]
fn a_sum_behind_a_bend_is_not_a_sum_before_it() {
    let (x, a, b) = ([1.0f64, -1.0], [[1.0f64, -2.0], [3.0, 1.0]], [1.0f64, 1.0]);
    let f = |z: f64| z.max(0.0);
    let column = |j: usize| f(x[0] * a[0][j] + x[1] * a[1][j]) * b[j];
    assert_eq!(column(0) + column(1), 0.0);
    let row = |i: usize| f(x[i] * a[i][0]) * b[0] + f(x[i] * a[i][1]) * b[1];
    assert_eq!(row(0) + row(1), 1.0, "not the same");
}

/// The same, 4: the largest, then the sum of powers and the target's own.
#[test]
fn three_numbers_of_each_rank_are_a_cross_entropy() {
    let z = [[1.0f64, 3.0], [2.0, 0.0]];
    let top = z.map(|z| z[0].max(z[1]));
    let m = top[0].max(top[1]);
    let sums = z.map(|z| z.iter().map(|z| (z - m).exp()).sum::<f64>());
    let own = [0.0, z[1][0] - m]; // the third symbol is the second rank's first
    let loss = (sums[0] + sums[1]).ln() - (own[0] + own[1]);
    assert!((loss - 1.4402).abs() < 1e-4, "{loss}");
    let all: f64 = z.concat().iter().map(|z| z.exp()).sum();
    assert!((loss - (all.ln() - 2.0)).abs() < 1e-12);
}

#[test]
fn two_stretches_merge_by_their_log_sums_in_any_order() {
    let attend = |scores: &[f64], values: &[f64]| {
        let sum: f64 = scores.iter().map(|s| s.exp()).sum();
        let o: f64 = scores.iter().zip(values).map(|(s, v)| s.exp() * v).sum();
        (o / sum, sum.ln())
    };
    let merge = |(o, l): (f64, f64), (p, k): (f64, f64)| {
        let m = l.max(k);
        let (a, b) = ((l - m).exp(), (k - m).exp());
        ((a * o + b * p) / (a + b), m + (a + b).ln())
    };
    let (one, two) = (attend(&[1.0, 2.0], &[10.0, 20.0]), attend(&[2.0, 3.0], &[30.0, 40.0]));
    let whole = attend(&[1.0, 2.0, 2.0, 3.0], &[10.0, 20.0, 30.0, 40.0]);
    for (o, l) in [merge(one, two), merge(two, one)] {
        assert!((o - whole.0).abs() < 1e-12 && (l - whole.1).abs() < 1e-12, "{o} {l} {whole:?}");
    }
    // The one of the text.
    let (o, _) = merge(attend(&[0.0, 0.0], &[1.0, 3.0]), attend(&[6f64.ln()], &[5.0]));
    assert!((o - 4.25).abs() < 1e-12);
}

/// "A part of the state, a part of the work", 1: bytes a weight of mixed precision, of which ZeRO-1 cuts the master copy and the
/// moments.
#[test]
fn most_of_the_bytes_of_a_weight_can_be_cut() {
    let bytes = |p: f64| 2.0 + 2.0 + 3.0 * 4.0 / p;
    assert_eq!((bytes(1.0), bytes(64.0)), (16.0, 4.1875));
}

/// The same, 2: all ways of dealing sixteen shards to ranks of speeds 5, 3 and 1. None takes less than 2, so 8/9 is used.
#[test]
fn whole_shards_leave_a_ninth_of_the_speed_unused() {
    let speeds = [5.0, 3.0, 1.0];
    let all = (1..15).flat_map(|a| (1..16 - a).map(move |b| [a, b, 16 - a - b]));
    let takes = all.map(|n| n.iter().zip(speeds).map(|(&n, v)| f64::from(n) / v).fold(0.0, f64::max));
    let least = takes.fold(f64::INFINITY, f64::min);
    assert_eq!(least, 2.0);
    assert!((16.0 / (least * speeds.iter().sum::<f64>()) - 8.0 / 9.0).abs() < 1e-15);
}

/// The same, 3: from left to right, the largest node that begins at a shard and ends within the range.
fn whole_subtrees(mut from: usize, to: usize) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    while from < to {
        let fits = |size: &usize| from.is_multiple_of(*size) && from + size <= to;
        let size =
            (0..usize::BITS - 1).map(|k| 1 << k).take_while(|s| *s <= to).filter(fits).max().unwrap_or(1);
        found.push((from, from + size));
        from += size;
    }
    found
}

#[test]
fn a_rank_has_two_subtrees_a_level_at_most() {
    assert_eq!(whole_subtrees(0, 5), [(0, 4), (4, 5)]);
    for levels in 2..8 {
        let shards = 1usize << levels;
        let ranges = (0..shards).flat_map(|a| (a + 1..=shards).map(move |b| (a, b)));
        let most = ranges.map(|(a, b)| whole_subtrees(a, b).len()).max();
        assert_eq!(most, Some(2 * (levels - 1)));
    }
}
