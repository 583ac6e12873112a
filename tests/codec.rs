//! Codecs: what they send, what they lose, and that nothing is lost for ever.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use ringtape::comm::codec::{self, Codec, Param};
use ringtape::comm::{Algorithm, threads};
use ringtape::device::soft::{self, Machine, Settings};
use ringtape::rng::Key;
use ringtape::tensor::Tensor;
use std::sync::Arc;

/// A codec with its attributes.
type Setting<'a> = (&'a str, &'a [(&'a str, &'a str)]);

const ALL: [Setting<'static>; 6] = [
    ("bf16", &[]),
    ("int8", &[("chunk", "64")]),
    ("one_bit", &[("chunk", "64"), ("feedback", "true")]),
    ("top_k", &[("ratio", "0.05")]),
    ("top_k", &[("ratio", "0.05"), ("momentum", "0.9"), ("warmup_steps", "3")]),
    ("power_sgd", &[("rank", "2")]),
];

fn build((name, attrs): Setting<'_>) -> Box<dyn Codec> {
    codec::find(name, &[]).unwrap().build_with(attrs).unwrap()
}

/// Parameters of these extents, one after the other.
fn params(all: &[&[usize]]) -> Vec<Param> {
    let mut at = 0;
    let one = |(i, dims): (usize, &&[usize])| {
        let param = Param { name: format!("p{i}"), at, dims: dims.to_vec() };
        at = param.range().end;
        param
    };
    all.iter().enumerate().map(one).collect()
}

fn len(params: &[Param]) -> usize {
    params.last().map_or(0, |p| p.range().end)
}

/// Standard normal numbers, others for each rank and step.
fn normal(rank: usize, step: u64, n: usize) -> Vec<f32> {
    let mut rng = Key::named(step, &format!("codec.test.{rank}")).rng();
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// What one rank saw: the sum of each step, the bytes it sent for it, its state at the end.
struct Seen {
    sums: Vec<Vec<f32>>,
    sent: Vec<u64>,
    state: Vec<(String, Vec<f32>)>,
}

/// `steps` sums of `g(rank, step)` by `p` ranks, round the ring.
fn go(
    p: usize,
    setting: Setting<'_>,
    params: &[Param],
    steps: u64,
    g: impl Fn(usize, u64) -> Vec<f32> + Sync,
) -> Vec<Seen> {
    let ranks = threads::run(p, |mut world| {
        world.set_algorithm(Some(Algorithm::Ring));
        let mut codec = build(setting);
        let (mut sums, mut sent) = (vec![], vec![]);
        for step in 0..steps {
            codec.begin(step);
            let (mut x, before) = (g(world.rank(), step), world.sent());
            codec.all_reduce(&mut world, params, &mut x)?;
            sent.push(world.sent() - before);
            sums.push(x);
        }
        Ok(Seen { sums, sent, state: codec.state()? })
    });
    ranks.into_iter().map(Result::unwrap).collect()
}

/// Σ over ranks in f64.
fn exact(p: usize, n: usize, g: impl Fn(usize) -> Vec<f32>) -> Vec<f64> {
    let mut sum = vec![0.0; n];
    (0..p).for_each(|rank| sum.iter_mut().zip(g(rank)).for_each(|(s, x)| *s += f64::from(x)));
    sum
}

fn rms(x: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = x.fold((0.0, 0), |(sum, n), x| (sum + x * x, n + 1));
    (sum / f64::from(n)).sqrt()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The same on software devices, one for each rank.
fn on_devices(
    p: usize,
    setting: Setting<'_>,
    params: &[Param],
    steps: u64,
    g: impl Fn(usize, u64) -> Vec<f32> + Sync,
) -> Vec<Seen> {
    let machine = Arc::new(Machine::new(Settings { check: true, seed: 5, ..Settings::default() }));
    let ranks = threads::run(p, |mut world| {
        world.set_algorithm(Some(Algorithm::Ring));
        let device = soft::device(&machine, world.rank() as u32)?;
        let mut codec = build(setting);
        let (mut sums, mut sent) = (vec![], vec![]);
        for step in 0..steps {
            codec.begin(step);
            let (x, before) = (g(world.rank(), step), world.sent());
            let mut x = Tensor::from_slice(&device, &x, &[x.len()])?;
            codec.all_reduce_of(&mut world, params, &mut x)?;
            sent.push(world.sent() - before);
            sums.push(x.to_host()?.as_slice::<f32>()?.to_vec());
        }
        Ok(Seen { sums, sent, state: codec.state()? })
    });
    ranks.into_iter().map(Result::unwrap).collect()
}

#[test]
fn on_devices_they_give_the_bits_of_the_host() {
    // All bits but those of a NaN, which is one.
    let same = |a: &[f32], b: &[f32]| {
        a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
    };
    let more: [Setting<'_>; 2] = [("int8", &[("chunk", "8"), ("feedback", "false")]), ("one_bit", &[])];
    for setting in ALL.into_iter().chain(more) {
        for p in [1, 2, 3] {
            for dims in &AWKWARD[..4] {
                let params = params(dims);
                let n = len(&params);
                // Numbers of all sizes, zeros of both signs, and at last some that are none.
                let g = |rank: usize, step: u64| {
                    let mut x = normal(rank, step, n);
                    x.iter_mut()
                        .enumerate()
                        .for_each(|(i, x)| *x *= [1.0, 1e-30, 1e20, 0.0, -0.0][(i + rank) % 5]);
                    if step == 2 && rank == p - 1 {
                        x[n / 2] = [f32::NAN, f32::INFINITY][n % 2];
                    }
                    x
                };
                let (here, there) = (go(p, setting, &params, 3, g), on_devices(p, setting, &params, 3, g));
                for (rank, (here, there)) in here.iter().zip(&there).enumerate() {
                    let what = format!("{setting:?}, rank {rank} of {p}, {dims:?}");
                    assert_eq!(here.sent, there.sent, "{what}");
                    for (step, (a, b)) in here.sums.iter().zip(&there.sums).enumerate() {
                        assert!(same(a, b), "{what}, step {step}: {a:?} {b:?}");
                    }
                    assert_eq!(here.state.len(), there.state.len(), "{what}");
                    for ((name, a), (other, b)) in here.state.iter().zip(&there.state) {
                        assert!(name == other && same(a, b), "{what}: {name} {other}");
                    }
                }
            }
        }
    }
}

const AWKWARD: [&[&[usize]]; 5] =
    [&[&[1]], &[&[7]], &[&[3, 1], &[2]], &[&[513], &[3, 5, 2]], &[&[33, 41], &[1000], &[64, 17], &[2, 2]]];

#[test]
fn all_ranks_get_the_same_bits_and_one_rank_its_own() {
    for setting in ALL {
        for p in [1, 2, 3, 5] {
            for dims in AWKWARD {
                let params = params(dims);
                let n = len(&params);
                let ranks = go(p, setting, &params, 4, |rank, step| normal(rank, step, n));
                for seen in &ranks {
                    for (step, (mine, first)) in seen.sums.iter().zip(&ranks[0].sums).enumerate() {
                        assert_eq!(bits(mine), bits(first), "{setting:?}, {p} ranks, {dims:?}, step {step}");
                        assert!(mine.iter().all(|x| x.is_finite()));
                    }
                }
                if p == 1 {
                    assert_eq!(bits(&ranks[0].sums[3]), bits(&normal(0, 3, n)));
                    assert_eq!((ranks[0].sent[0], ranks[0].state.len()), (0, 0), "{setting:?}: it is off");
                }
                let again = go(p, setting, &params, 4, |rank, step| normal(rank, step, n));
                assert_eq!(bits(&again[0].sums[3]), bits(&ranks[0].sums[3]));
            }
        }
    }
}

#[test]
fn what_was_not_sent_is_kept_so_all_of_every_gradient_arrives() {
    let params = params(&[&[33, 41], &[100], &[64, 17]]);
    let n = len(&params);
    for setting in ALL.into_iter().filter(|s| s.0 != "bf16" && s.1.iter().all(|a| a.0 != "momentum")) {
        for p in [2, 3, 5] {
            let steps = 12;
            let ranks = go(p, setting, &params, steps, |rank, step| normal(rank, step, n));
            let mut balance = vec![0.0; n];
            for step in 0..steps {
                let all = exact(p, n, |rank| normal(rank, step, n));
                let came = &ranks[0].sums[step as usize];
                balance.iter_mut().zip(all).zip(came).for_each(|((b, g), x)| *b += g - f64::from(*x));
            }
            let sent_something = rms(balance.iter().copied()) < (p as f64 * steps as f64).sqrt();
            assert!(sent_something, "{setting:?}");
            for seen in &ranks {
                for (name, e) in seen.state.iter().filter(|(name, _)| name.starts_with("error/")) {
                    let param = params.iter().find(|p| name[6..] == p.name).unwrap();
                    let of_it = &mut balance[param.range()];
                    of_it.iter_mut().zip(e).for_each(|(b, e)| *b -= f64::from(*e));
                }
            }
            let left = balance.iter().fold(0.0f64, |top, b| top.max(b.abs()));
            assert!(left < 2e-4, "{setting:?}, {p} ranks: {left} is neither sent nor kept");
        }
    }
}

#[test]
fn the_error_of_int8_stays_below_the_square_root_of_two_roundings_for_any_number_of_ranks() {
    let params = params(&[&[1 << 17]]);
    let n = len(&params);
    let error = |p: usize| {
        let ranks = go(p, ("int8", &[]), &params, 1, |rank, step| normal(rank, step, n));
        let sum = exact(p, n, |rank| normal(rank, 0, n));
        let lost = rms(ranks[0].sums[0].iter().zip(&sum).map(|(x, s)| f64::from(*x) - s));
        lost / rms(sum.into_iter())
    };
    // One rounding of chunks of 256 normal numbers: s/√12 with s = max|x|/127, and 3.06656 the root mean square of max|x|, by
    // quadrature.
    let q = 3.06656 / 127.0 / 12f64.sqrt();
    for p in [2, 4, 8] {
        let (found, want) = (error(p), q * (2.0 - 1.0 / p as f64).sqrt());
        println!("int8, {p} ranks: relative rms {found:.5}, foretold {want:.5}");
        assert!((found / want - 1.0).abs() < 0.02, "{p} ranks: {found}, not {want}");
        assert!(found < 0.01);
    }
}

#[test]
fn bytes_on_the_wire_are_those_of_the_formulas() {
    let p0: &[&[usize]] = &[&[300, 200], &[1000], &[64, 65]];
    let params = params(p0);
    let n = len(&params);
    let sent = |p: usize, setting: Setting<'_>| -> Vec<Vec<u64>> {
        go(p, setting, &params, 5, |rank, step| normal(rank, step, n)).into_iter().map(|s| s.sent).collect()
    };
    for p in [2, 3, 5] {
        let (ranks, m) = (p as u64, (n as u64).div_ceil(p as u64));
        let ring = |n: u64| 2 * (ranks - 1) * 4 * n; // of all ranks
        let total = |setting: Setting<'_>, step: usize| sent(p, setting).iter().map(|s| s[step]).sum::<u64>();
        assert!(sent(p, ("bf16", &[])).iter().flatten().all(|&b| b == 4 * (ranks - 1) * m));
        let int8 = 2 * (ranks - 1) * (m + 4 * m.div_ceil(256));
        assert!(sent(p, ("int8", &[])).iter().flatten().all(|&b| b == int8));
        let ratio = ring(n as u64) as f64 / (ranks * int8) as f64;
        assert!(ratio >= 3.9, "int8 by {p}: {ratio}");
        let bit = 2 * (ranks - 1) * (m.div_ceil(8) + 4 * m.div_ceil(1024));
        assert!(sent(p, ("one_bit", &[])).iter().flatten().all(|&b| b == bit));
        // 1 % of 60,000 and of 4,160, and 1,000 that go dense.
        assert_eq!(total(("top_k", &[]), 0), ranks * 8 * (ranks - 1) * (600 + 42) + ring(1000));
        // A quarter among 5 is dense; then by the same factor from step to step down to 1 %.
        let warm: Setting<'_> = ("top_k", &[("warmup_steps", "4")]);
        let k = |step: i32| {
            let share = 0.25 * 0.04f64.powf(f64::from(step) / 4.0);
            (60_000.0 * share).ceil() as u64 + (4160.0 * share).ceil() as u64
        };
        for step in [1, 2, 3, 4] {
            let want = ranks * 8 * (ranks - 1) * k(step) + ring(1000);
            assert_eq!(total(warm, step as usize), want, "step {step} by {p}");
        }
        let first = if p == 5 { ring(n as u64) } else { ranks * 8 * (ranks - 1) * k(0) + ring(1000) };
        assert_eq!(total(warm, 0), first);
        let (r, rows, columns) = (4, 300 + 64, 200 + 65);
        assert_eq!(total(("power_sgd", &[]), 0), ring(r * rows + 1000) + ring(r * columns));
    }
}

#[test]
fn two_phases_by_hand() {
    // Rank 0 owns the first two numbers, rank 1 the others. Each sends the other's: ±2 for (-3, 1), ±3 for (1, -5). Their sums are
    // (1 + 3, 2 - 3) and (-2 + 2, 2 + 2), of which ±2.5 and ±2 come back.
    let x = [[1.0, 2.0, -3.0, 1.0], [1.0, -5.0, 2.0, 2.0]];
    let params = params(&[&[4]]);
    let ranks = go(2, ("one_bit", &[("feedback", "true")]), &params, 1, |rank, _| x[rank].to_vec());
    let kept = |e: [f32; 4]| vec![("error/p0".to_string(), e.to_vec())];
    assert_eq!(ranks[1].sums[0], [2.5, -2.5, 2.0, 2.0]);
    assert_eq!(ranks[0].state, kept([1.5, 1.5, -1.0, -1.0]));
    assert_eq!(ranks[1].state, kept([-2.0, -2.0, -2.0, 2.0]));
    // bf16 has 8 significant bits: 257 and 259 lie between 256, 258 and 260, and go to the even one.
    let x = [[1.0, 2.0, 257.0, 259.0], [257.0, 259.0, 0.5, 0.0]];
    let ranks = go(2, ("bf16", &[]), &params, 1, |rank, _| x[rank].to_vec());
    assert_eq!(ranks[0].sums[0], [256.0, 262.0, 256.0, 260.0]);
    // Scales of 1: 1.4 goes as 1, 0.6 as 1; (127, 1.2) as (127, 1), (-127, 2) as it is.
    let x = [[0.0, 1.0, 127.0, 1.4], [-127.0, 0.6, 0.0, 0.25]];
    let ranks = go(2, ("int8", &[]), &params, 1, |rank, _| x[rank].to_vec());
    assert_eq!(ranks[0].sums[0], [-127.0, 2.0, 127.0, 1.0]);
    assert_eq!(ranks[0].state, kept([0.0, 0.0, 0.0, 1.4 - 1.0]));
    assert_eq!(ranks[1].state, kept([0.0, 0.6 - 1.0, 0.0, 0.25]));
}

/// f₁ = M·x₁ + x₂²/2 and f₂ = −M·x₁ + x₂²/2: the largest coordinate of each rank says nothing of their sum.
fn trap(feedback: &str, steps: u64) -> f32 {
    let params = params(&[&[1, 2]]);
    let ranks = threads::run(2, |mut world| {
        let mut codec = build(("top_k", &[("ratio", "0.5"), ("feedback", feedback)]));
        let mut w = [1.0, 1.0];
        for step in 0..steps {
            codec.begin(step);
            let mut g = [if world.rank() == 0 { 10.0 } else { -10.0 }, w[1]];
            codec.all_reduce(&mut world, &params, &mut g)?;
            (0..2).for_each(|i| w[i] -= 0.05 * g[i] / 2.0);
        }
        Ok(w)
    });
    ranks.into_iter().map(|w| w.unwrap()[1]).next().unwrap()
}

#[test]
fn without_feedback_a_coordinate_never_moves_and_with_it_it_does() {
    assert_eq!(trap("false", 2000), 1.0, "it is never the largest");
    let with = trap("true", 2000);
    assert!(with.abs() < 0.2, "x2 = {with}");
}

#[test]
fn momentum_gathers_while_a_coordinate_waits_and_starts_anew_when_it_was_sent() {
    // Two ranks of one gradient (4, 3), one of two coordinates a step, momentum ½: u and v by hand.
    let params = params(&[&[1, 2]]);
    let setting: Setting<'_> = ("top_k", &[("ratio", "0.5"), ("momentum", "0.5")]);
    let ranks = go(2, setting, &params, 4, |_, _| vec![4.0, 3.0]);
    // u = (4, 3), v = (4, 3): sends 4, and u₁ begins anew.
    // u = (4, 4.5), v = (4, 7.5): sends 7.5. u = (6, 3), v = (10, 3): sends 10. u = (4, 4.5), v = (4, 7.5): sends 7.5.
    assert_eq!(ranks[0].sums, [[8.0, 0.0], [0.0, 15.0], [20.0, 0.0], [0.0, 15.0]]);
    // What goes dense has momentum too: 3, 3·1.5, 3·1.75.
    let dense = params_of_vector();
    let ranks = go(2, setting, &dense, 3, |_, _| vec![3.0; 4]);
    assert_eq!(ranks[1].sums, [[6.0; 4], [9.0; 4], [10.5; 4]]);
}

fn params_of_vector() -> Vec<Param> {
    params(&[&[4]])
}

/// Orthonormal columns [n, r], in f64.
fn orthonormal(n: usize, r: usize, name: &str) -> Vec<Vec<f64>> {
    let mut rng = Key::named(3, name).rng();
    let mut all: Vec<Vec<f64>> = vec![];
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    for _ in 0..r {
        let mut c: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        for _ in 0..2 {
            for before in &all {
                let along = dot(before, &c);
                c.iter_mut().zip(before).for_each(|(x, b)| *x -= along * b);
            }
        }
        let length = dot(&c, &c).sqrt();
        all.push(c.into_iter().map(|x| x / length).collect());
    }
    all
}

/// Σ sᵢ uᵢ vᵢᵀ [n, m], in f64.
fn matrix(n: usize, m: usize, singular: &[f64]) -> Vec<f64> {
    let (u, v) = (orthonormal(n, singular.len(), "u"), orthonormal(m, singular.len(), "v"));
    let at = |i: usize, j: usize| (0..singular.len()).map(|k| singular[k] * u[k][i] * v[k][j]).sum();
    (0..n * m).map(|e| at(e / m, e % m)).collect()
}

/// What two ranks have whose sum is `whole`.
fn shared(whole: &[f64], rank: usize) -> Vec<f32> {
    let noise = normal(9, 0, whole.len());
    let sign = if rank == 0 { 1.0 } else { -1.0 };
    whole.iter().zip(noise).map(|(x, e)| (x / 2.0) as f32 + sign * e).collect()
}

#[test]
fn power_sgd_is_exact_for_a_sum_of_low_rank() {
    let (n, m) = (40, 30);
    let params = params(&[&[n, m]]);
    for r in ["3", "4"] {
        let whole = matrix(n, m, &[5.0, 2.0, 1.0]);
        // The gradients of the ranks are of full rank; only their sum is of rank 3.
        let ranks = go(2, ("power_sgd", &[("rank", r)]), &params, 1, |rank, _| shared(&whole, rank));
        let lost = rms(ranks[0].sums[0].iter().zip(&whole).map(|(x, w)| f64::from(*x) - w));
        let relative = lost / rms(whole.iter().copied());
        println!("power_sgd of rank {r}: relative error {relative:.1e} of a sum of rank 3");
        assert!(relative < 1e-5, "rank {r}: {relative}");
    }
}

#[test]
fn power_sgd_converges_to_the_nearest_matrix_of_its_rank() {
    let (n, m) = (40, 30);
    let params = params(&[&[n, m]]);
    let singular: Vec<f64> = (0..20).map(|i| 0.8f64.powi(i)).collect();
    let whole = matrix(n, m, &singular);
    let setting: Setting<'_> = ("power_sgd", &[("rank", "3"), ("feedback", "false")]);
    let ranks = go(2, setting, &params, 40, |rank, _| shared(&whole, rank));
    let best = singular[3..].iter().map(|s| s * s).sum::<f64>().sqrt();
    let ratio = |step: usize| {
        let lost = ranks[0].sums[step].iter().zip(&whole).map(|(x, w)| (f64::from(*x) - w).powi(2));
        lost.sum::<f64>().sqrt() / best
    };
    println!(
        "power_sgd of rank 3: {:.4}, {:.4}, {:.6} of the best error after 1, 4, 40 steps",
        ratio(0),
        ratio(3),
        ratio(39)
    );
    assert!(ratio(0) > 1.05, "one step is not enough: {}", ratio(0));
    assert!((0.99999..1.0001).contains(&ratio(39)), "{}", ratio(39));
}

#[test]
fn power_sgd_goes_on_after_a_gradient_of_zero() {
    let (n, m) = (20, 30);
    let params = params(&[&[n, m]]);
    let whole = matrix(n, m, &[5.0, 2.0]);
    let ranks = go(3, ("power_sgd", &[("rank", "2")]), &params, 3, |rank, step| match (rank, step) {
        (0, 0 | 2) => whole.iter().map(|x| *x as f32).collect(),
        _ => vec![0.0; n * m],
    });
    assert!(rms(ranks[0].sums[1].iter().map(|x| f64::from(*x))) < 1e-5);
    let lost = rms(ranks[0].sums[2].iter().zip(&whole).map(|(x, w)| f64::from(*x) - w));
    assert!(lost < 1e-5, "{lost}");
}

#[test]
fn a_nan_or_an_infinity_of_any_rank_reaches_all() {
    let params = params(&[&[33, 41], &[1000]]);
    let n = len(&params);
    for setting in ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (rank, place) in [(0, 0), (2, 700), (1, 1360), (1, n - 1)] {
                let ranks = go(3, setting, &params, 1, |r, _| {
                    let mut x = normal(r, 0, n);
                    if r == rank {
                        x[place] = bad;
                    }
                    x
                });
                for seen in ranks {
                    assert!(
                        !seen.sums[0][place].is_finite(),
                        "{setting:?}: {bad} of {rank} at {place} is hidden"
                    );
                }
            }
        }
    }
}

#[test]
fn what_a_codec_kept_is_taken_up_bit_by_bit() {
    let params = params(&[&[33, 41], &[100], &[64, 17]]);
    let n = len(&params);
    for setting in ALL {
        let whole = go(3, setting, &params, 6, |rank, step| normal(rank, step, n));
        let half = go(3, setting, &params, 3, |rank, step| normal(rank, step, n));
        let rest = threads::run(3, |mut world| {
            world.set_algorithm(Some(Algorithm::Ring));
            let mut codec = build(setting);
            codec.restore(&params, half[world.rank()].state.clone())?;
            let mut last = vec![];
            for step in 3..6 {
                codec.begin(step);
                last = normal(world.rank(), step, n);
                codec.all_reduce(&mut world, &params, &mut last)?;
            }
            Ok((last, codec.state()?))
        });
        for (rest, whole) in rest.into_iter().zip(&whole) {
            let (last, state) = rest.unwrap();
            assert_eq!(bits(&last), bits(&whole.sums[5]), "{setting:?}");
            assert!(state == whole.state);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let text = |result: ringtape::error::Result<()>| {
        let e = result.unwrap_err();
        assert_eq!(e.exit_code(), 2, "{e}");
        e.to_string()
    };
    let e = text(codec::find("topk", &[]).map(drop));
    assert!(
        ["codec.name", "top_k", "did you mean", "power_sgd", "none"].iter().all(|w| e.contains(w)),
        "{e}"
    );
    for (name, key, value) in [
        ("top_k", "ratio", "0"),
        ("top_k", "ratio", "1.5"),
        ("top_k", "momentum", "1"),
        ("power_sgd", "rank", "0"),
        ("int8", "chunk", "100"),
        ("int8", "rank", "4"),
    ] {
        let e = text(codec::find(name, &[]).unwrap().build_with(&[(key, value)]).map(drop));
        assert!(e.contains(&format!("codec.{key}")), "{e}");
    }
    let params = params(&[&[20, 30]]);
    let mut codec = build(("power_sgd", &[("rank", "2")]));
    for state in [("q/p0", 30), ("q/p1", 60), ("velocity/p0", 600), ("error/p0", 599), ("error", 600)] {
        let e = text(codec.restore(&params, vec![(state.0.into(), vec![0.0; state.1])]));
        assert!(e.contains(state.0) && e.contains("codec.reset"), "{e}");
    }
    codec.restore(&params, vec![("q/p0".into(), vec![1.0; 60])]).unwrap();
    let ends = threads::run(2, |mut world| {
        let params = [Param { name: "w".into(), at: 1, dims: vec![3] }];
        build(("bf16", &[])).all_reduce(&mut world, &params, &mut [0.0; 4])
    });
    ends.into_iter().for_each(|end| assert!(end.unwrap_err().to_string().contains("codec")));
}
