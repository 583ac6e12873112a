//! Every optimizer over 500 steps against torch.optim in f64, or a few lines of NumPy where torch has no such optimizer
//! (tests/golden/optim.py): gradients that are 0, 1e-20 or of scales a hundred apart. And its PTX against its CPU body.
//!
//! Ties of methods that take a sign are left out: a sum that is 0 but for rounding has no sign to agree on. Gradients here
//! have none but exact zeros, whose sign is 0 on both sides.

use ringtape::device::Device;
use ringtape::device::soft::{self, Machine};
use ringtape::optim::{self, Optimizer, Step};
use ringtape::shape::DType;
use ringtape::tape::{Grads, Init, Params, ParamsBuilder, Role};
use ringtape::tensor::Tensor;
use std::collections::BTreeMap;

const GRID: [usize; 2] = [6, 5];

/// Numbers in [-1, 1), as `uniform` of tests/golden/optim.py makes them.
fn uniform(stream: u64, count: usize) -> Vec<f64> {
    let one = |i: u64| {
        let mut h = (i + (stream << 20) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        h ^= h >> 29;
        h = h.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        h ^= h >> 32;
        (h >> 32) as f64 / 2f64.powi(31) - 1.0
    };
    (0..count as u64).map(one).collect()
}

/// The gradient of step `t`, from 1, or the second one.
fn gradient(t: u64, second: bool) -> Vec<f64> {
    let scales = [0.1, 1.0, 10.0, 0.5, 2.0];
    let u = uniform(2 * t + u64::from(second), 30);
    let one = |(i, u): (usize, f64)| match i / 5 {
        0 => 0.0,
        1 => 1e-20,
        2 if t.is_multiple_of(3) => 0.0,
        _ => u * scales[i % 5] + 0.2,
    };
    u.into_iter().enumerate().map(one).collect()
}

fn put(grads: &mut Grads, i: usize, v: &[f64]) {
    let flat = grads.flat_mut(i).unwrap();
    let t = Tensor::from_f64(&Device::cpu(), flat.dtype(), v, &[v.len()]).unwrap();
    let t = t.to_device(flat.device()).unwrap();
    flat.copy_from(0, &t).unwrap();
}

#[derive(serde::Deserialize)]
struct Case {
    optimizer: String,
    lr: f64,
    attrs: BTreeMap<String, String>,
}

/// Largest difference from the stored weights relative to max(size, 1e-6), over the kept steps.
fn worst(case: &Case, kept: &[u64], want: &[f64]) -> f64 {
    let mut b = ParamsBuilder::new(&Device::cpu(), DType::F64, 0);
    let slot = b.add("w", &GRID, Init::Constant(0.0), Role::Decay).unwrap();
    let mut p = b.build().unwrap();
    p.set(slot, &Tensor::from_slice(&Device::cpu(), &uniform(0, 30), &GRID).unwrap()).unwrap();
    let attrs: Vec<_> = case.attrs.iter().collect();
    let mut o = optim::find(&case.optimizer, &[]).unwrap().build_with(&attrs, &p).unwrap();
    let mut grads = Grads::new(&p).unwrap();
    let (mut worst, mut want) = (0.0f64, want.chunks(30));
    for t in 1..=*kept.last().unwrap() {
        put(&mut grads, 0, &gradient(t, false));
        let mut probe = |_: &Params, g: &mut Grads| {
            put(g, 0, &gradient(t, true));
            Ok(())
        };
        let how = Step { probe: Some(&mut probe), ..Step::new(case.lr) };
        o.advance(&mut p, &grads, how).unwrap();
        if kept.contains(&t) {
            for (a, b) in p.get(slot).to_f64().unwrap().iter().zip(want.next().unwrap()) {
                worst = worst.max((a - b).abs() / b.abs().max(1e-6));
            }
        }
    }
    worst
}

#[test]
fn five_hundred_steps_are_those_of_an_independent_program() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/optim/long.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let (_, head) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let about = head.metadata().clone().unwrap();
    let cases: BTreeMap<String, Case> = serde_json::from_str(&about["cases"]).unwrap();
    let kept: Vec<u64> = serde_json::from_str(&about["kept"]).unwrap();
    assert_eq!(kept.last(), Some(&500));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for entry in optim::ALL {
        assert!(cases.values().any(|c| c.optimizer == entry.name), "{} has no walk", entry.name);
    }
    for (name, case) in &cases {
        let words = file.tensor(name).unwrap().data().to_vec();
        let want: Vec<f64> =
            words.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        let e = worst(case, &kept, &want);
        assert!(e <= 1e-6, "{name}: {e:e}");
    }
}

/// Matrices that decay, more than one piece of a slope long, and a vector that does not.
fn params(device: &Device) -> Params {
    let mut b = ParamsBuilder::new(device, DType::F32, 3);
    b.add("wide", &[41, 103], Init::Normal(1.0), Role::Decay).unwrap();
    b.add("tall", &[7, 3], Init::Normal(1.0), Role::Decay).unwrap();
    b.add("bias", &[19], Init::Normal(1.0), Role::Plain).unwrap();
    b.add("statistics", &[5], Init::Constant(1.0), Role::State).unwrap();
    b.build().unwrap()
}

/// Weights after some steps with the same gradients, and the slope of each step.
fn walk(
    p: &mut Params,
    o: &mut dyn Optimizer,
    lr: f64,
    steps: std::ops::RangeInclusive<u64>,
) -> (Vec<f64>, Vec<f64>) {
    let mut grads = Grads::new(p).unwrap();
    let mut slopes = Vec::new();
    let fill = |grads: &mut Grads, t: u64| {
        for i in 0..2 {
            let n = grads.flat(i).unwrap().len();
            // Far from the ties of signs: most gradients of a weight agree.
            let mean = uniform(900 + i as u64, n);
            let v: Vec<f64> =
                uniform(10 * t + i as u64, n).iter().zip(&mean).map(|(u, m)| m + 0.3 * u * m).collect();
            put(grads, i, &v);
        }
    };
    for t in steps {
        fill(&mut grads, t);
        let mut probe = |_: &Params, g: &mut Grads| {
            fill(g, t + 500);
            Ok(())
        };
        let how = Step { lr, slope: true, probe: Some(&mut probe) };
        slopes.extend(o.advance(p, &grads, how).unwrap());
    }
    let weights = (0..p.segments().len()).flat_map(|i| p.segment(i).to_host().unwrap().to_f64().unwrap());
    (weights.collect(), slopes)
}

fn build(entry: &optim::Entry, p: &Params) -> Box<dyn Optimizer> {
    let decays = entry.attrs.iter().any(|a| a.name == "weight_decay");
    let attrs: &[(&str, &str)] = if decays { &[("weight_decay", "0.1")] } else { &[] };
    entry.build_with(attrs, p).unwrap()
}

#[test]
fn every_optimizer_steps_on_the_software_device_as_on_the_cpu() {
    let device = soft::device(&Machine::strict(), 0).unwrap();
    for entry in optim::ALL {
        let runs = [&Device::cpu(), &device].map(|d| {
            let mut p = params(d);
            let mut o = build(entry, &p);
            walk(&mut p, o.as_mut(), 0.01, 1..=12)
        });
        let [(here, slopes), (there, others)] = &runs;
        // The first step has none; Adafactor does not remember its last update.
        let count = if entry.name == "adafactor" { 0 } else { 11 };
        assert_eq!((slopes.len(), others.len()), (count, count), "{}", entry.name);
        for (i, (a, b)) in here.iter().zip(there).enumerate() {
            assert!((a - b).abs() <= 2e-5 * a.abs().max(1.0), "{}, weight {i}: {a}, there {b}", entry.name);
        }
        for (a, b) in slopes.iter().zip(others) {
            assert!((a - b).abs() <= 1e-4 * a.abs(), "{}: slope {a}, there {b}", entry.name);
        }
    }
    device.trim();
    assert_eq!(device.driver().unwrap().used(), 0, "every buffer is freed");
}

#[test]
fn any_number_of_threads_gives_the_same_bits_and_so_does_asking_for_the_slope() {
    for entry in optim::ALL {
        let runs = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut b = ParamsBuilder::new(&Device::cpu(), DType::F32, 3);
                b.add("w", &[301, 331], Init::Normal(1.0), Role::Decay).unwrap();
                b.add("b", &[17], Init::Normal(1.0), Role::Plain).unwrap();
                let mut p = b.build().unwrap();
                let mut o = build(entry, &p);
                walk(&mut p, o.as_mut(), 0.01, 1..=3)
            })
        });
        assert!(runs[0] == runs[1], "{} depends on threads", entry.name);
    }
}

/// The slope is what the change of the weights says: Σ (w_before − w_after)/lr · g, where the direction is remembered whole.
#[test]
fn the_slope_is_along_the_last_update() {
    for (name, attrs) in [
        ("sgd", &[("momentum", "0.9"), ("weight_decay", "0.1")][..]),
        ("adam", &[("weight_decay", "0.1")]),
        ("adamw", &[("weight_decay", "0.1")]),
        ("adabelief", &[("weight_decay", "0.1")]),
        ("m_svag", &[("weight_decay", "0.1")]),
    ] {
        let mut b = ParamsBuilder::new(&Device::cpu(), DType::F64, 3);
        let slot = b.add("w", &[5000], Init::Normal(1.0), Role::Decay).unwrap();
        let mut p = b.build().unwrap();
        let mut o = optim::find(name, &[]).unwrap().build_with(attrs, &p).unwrap();
        let mut grads = Grads::new(&p).unwrap();
        let mut last: Option<Vec<f64>> = None;
        let lr = 1e-3;
        for t in 1..=6 {
            let g = uniform(t, 5000);
            put(&mut grads, 0, &g);
            let before = p.get(slot).to_f64().unwrap();
            let slope = o.advance(&mut p, &grads, Step { slope: true, ..Step::new(lr) }).unwrap();
            let want = last.as_ref().map(|moved| moved.iter().zip(&g).map(|(u, g)| u / lr * g).sum::<f64>());
            assert_eq!(slope.is_some(), want.is_some(), "{name}");
            if let (Some(a), Some(b)) = (slope, want) {
                // Up to the factor 1 − lr·λ of decoupled decay.
                assert!((a - b).abs() <= 2e-4 * b.abs(), "{name}, step {t}: {a}, from the weights {b}");
            }
            let after = p.get(slot).to_f64().unwrap();
            last = Some(before.iter().zip(&after).map(|(a, b)| a - b).collect());
        }
    }
}
