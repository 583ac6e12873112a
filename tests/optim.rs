//! Optimizers against plain f64 loops written from the formulas alone, over 500 steps with zero and tiny gradients, and
//! against the steps of torch.optim (tests/golden/optim.py), in f64 and in f32.

use ringtape::device::Device;
use ringtape::optim::{self, clip};
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Init, Params, ParamsBuilder, Role, Tape};
use ringtape::tensor::Tensor;

const N: usize = 37;

fn params() -> Params {
    let mut p = ParamsBuilder::new(&Device::cpu(), DType::F64, 4);
    p.add("matrix", &[N, 1], Init::Normal(1.0), Role::Decay).unwrap();
    p.add("bias", &[N], Init::Normal(1.0), Role::Plain).unwrap();
    p.build().unwrap()
}

/// Gradients of step `t`: some zero, some 1e-20, the rest normal.
fn gradient(t: u64, slot: u64) -> Vec<f64> {
    let mut rng = Key::new(t, slot).rng();
    let one = |i: usize| match (i as u64 + t) % 5 {
        0 => 0.0,
        1 => 1e-20,
        _ => rng.normal(),
    };
    (0..N).map(one).collect()
}

/// Gradients with these values, by differentiating Σ c·w.
fn grads(params: &Params, t: u64) -> Grads {
    let tape = Tape::new(params);
    let mut g = Grads::new(params).unwrap();
    let dot = |slot: ringtape::tape::Slot, i: u64| {
        let c = Tensor::from_slice(&Device::cpu(), &gradient(t, i), &[1, N]).unwrap();
        tape.constant(c).matmul(&tape.param(slot).reshape(&[N, 1]).unwrap()).unwrap()
    };
    let slots: Vec<_> = params.all().collect();
    let loss = dot(slots[0], 0).add(&dot(slots[1], 1)).unwrap();
    tape.backward(&loss, &mut g).unwrap();
    g
}

/// 500 steps of optimizer `name` against `rule(w, g, t, decays)`, which changes one weight by its own state.
fn against(name: &str, attrs: &[(&str, &str)], mut rule: impl FnMut(usize, &mut f64, f64, u64, bool)) {
    let mut p = params();
    let mut o = optim::find(name, &[]).unwrap().build_with(attrs, &p).unwrap();
    let mut want: Vec<Vec<f64>> = p.all().map(|s| p.get(s).to_f64().unwrap()).collect();
    for t in 1..=500 {
        let g = grads(&p, t);
        o.step(&mut p, &g, 0.01).unwrap();
        for (k, w) in want.iter_mut().enumerate() {
            for (i, (w, g)) in w.iter_mut().zip(gradient(t, k as u64)).enumerate() {
                rule(k * N + i, w, g, t, k == 0);
            }
        }
        for (slot, want) in p.all().zip(&want) {
            for (a, b) in p.get(slot).to_f64().unwrap().iter().zip(want) {
                assert!(
                    (a - b).abs() <= 1e-6 * b.abs().max(1e-6),
                    "{name}, step {t}: {a}, by the formula {b}"
                );
            }
        }
    }
    assert_eq!(o.steps(), 500);
}

#[test]
fn adamw_follows_its_formula() {
    let (mut m, mut v) = (vec![0.0; 2 * N], vec![0.0; 2 * N]);
    against(
        "adamw",
        &[("beta1", "0.8"), ("beta2", "0.95"), ("weight_decay", "0.3")],
        |i, w, g, t, decays| {
            if decays {
                *w -= 0.01 * 0.3 * *w;
            }
            m[i] = 0.8 * m[i] + 0.2 * g;
            v[i] = 0.95 * v[i] + 0.05 * g * g;
            let (mean, square) =
                (m[i] / (1.0 - 0.8f64.powi(t as i32)), v[i] / (1.0 - 0.95f64.powi(t as i32)));
            *w -= 0.01 * mean / (square.sqrt() + 1e-8);
        },
    );
}

#[test]
fn sgd_follows_its_formula() {
    let mut b = vec![0.0; 2 * N];
    let attrs = [("momentum", "0.9"), ("dampening", "0.1"), ("weight_decay", "0.2")];
    against("sgd", &attrs, |i, w, g, t, decays| {
        let g = g + if decays { 0.2 * *w } else { 0.0 };
        b[i] = if t == 1 { g } else { 0.9 * b[i] + 0.9 * g };
        *w -= 0.01 * b[i];
    });
    let mut b = vec![0.0; 2 * N];
    against("sgd", &[("momentum", "0.7"), ("nesterov", "true")], |i, w, g, _, _| {
        b[i] = 0.7 * b[i] + g;
        *w -= 0.01 * (g + 0.7 * b[i]);
    });
    against("sgd", &[], |_, w, g, _, _| *w -= 0.01 * g);
}

#[test]
fn clipping_scales_to_the_norm_and_leaves_what_is_no_number() {
    let p = params();
    let mut g = grads(&p, 3);
    let squares: f64 = (0..2).flat_map(|k| gradient(3, k)).map(|x| x * x).sum();
    let norm = clip::by_global_norm(&mut g, 0.5).unwrap();
    assert!((norm - squares.sqrt()).abs() < 1e-12);
    assert!((clip::by_global_norm(&mut g, 0.0).unwrap() - 0.5).abs() < 1e-12);
    g.segment_mut::<f64>(0).unwrap()[0] = f64::NAN;
    assert!(clip::by_global_norm(&mut g, 0.1).unwrap().is_nan());
    assert!((g.segment::<f64>(0).unwrap()[1]).abs() > 0.0);
}

#[test]
fn a_live_tape_forbids_the_step_and_wrong_attributes_are_named() {
    let mut p = params();
    let mut o = optim::find("sgd", &[]).unwrap().build_with::<&str, &str>(&[], &p).unwrap();
    let g = grads(&p, 1);
    let held = p.clone();
    let e = o.step(&mut p, &g, 0.1).unwrap_err().to_string();
    assert!(e.contains("sgd_step") && e.contains("holders"), "{e}");
    drop(held);
    o.step(&mut p, &g, 0.1).unwrap();
    let bad = |name: &str, attrs: &[(&str, &str)]| {
        optim::find(name, &[]).and_then(|e| e.build_with(attrs, &p).map(drop)).unwrap_err().to_string()
    };
    assert!(bad("adamw", &[("beta1", "1")]).contains("beta1"));
    assert!(bad("sgd", &[("nesterov", "true")]).contains("nesterov"));
    assert!(bad("sgd", &[("momentun", "0.9")]).contains("momentum"));
    assert!(bad("adamx", &[]).contains("adam"));
}

/// Runs one golden case in `dtype`; gives the largest error relative to max(1, |w|).
fn worst_against_torch(path: &std::path::Path, dtype: DType) -> f64 {
    let bytes = std::fs::read(path).unwrap();
    let (_, head) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let about = head.metadata().clone().unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |name: &str| -> Vec<f64> {
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let dims = file.tensor("w").unwrap().shape().to_vec();
    let tensor = |v: &[f64]| Tensor::from_f64(&Device::cpu(), dtype, v, &dims).unwrap();
    let mut builder = ParamsBuilder::new(&Device::cpu(), dtype, 0);
    let slot = builder.add("w", &dims, Init::Constant(0.0), Role::Decay).unwrap();
    let mut p = builder.build().unwrap();
    p.set(slot, &tensor(&values("w"))).unwrap();
    let attrs: std::collections::BTreeMap<String, String> = serde_json::from_str(&about["attrs"]).unwrap();
    let attrs: Vec<(String, String)> = attrs.into_iter().collect();
    let mut o = optim::find(&about["optimizer"], &[]).unwrap().build_with(&attrs, &p).unwrap();
    let lr: f64 = about["lr"].parse().unwrap();
    let n = dims.iter().product();
    let mut worst = 0.0f64;
    for (g, want) in values("g").chunks(n).zip(values("want").chunks(n)) {
        let mut grads = Grads::new(&p).unwrap();
        {
            let tape = Tape::new(&p);
            let w = tape.param(slot);
            tape.backward_from(&[(&w, tensor(g))], &mut grads).unwrap();
        }
        o.step(&mut p, &grads, lr).unwrap();
        for (a, b) in p.get(slot).to_f64().unwrap().iter().zip(want) {
            worst = worst.max((a - b).abs() / b.abs().max(1.0));
        }
    }
    worst
}

#[test]
fn steps_are_those_of_torch() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/optim");
    let all = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    // That file is for tests/optim_walks.rs.
    let cases: Vec<_> = all.filter(|p| !p.ends_with("long.safetensors")).collect();
    assert_eq!(cases.len(), 5);
    for path in cases {
        let (wide, narrow) = (worst_against_torch(&path, DType::F64), worst_against_torch(&path, DType::F32));
        assert!(wide < 1e-12 && narrow < 1e-5, "{}: {wide:e} in f64, {narrow:e} in f32", path.display());
    }
}
