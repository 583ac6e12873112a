//! dynamic_attention against full attention, against plain loops over every key, and against its own promises: the past
//! does not see the future, the parts of a union merge, bad input is named.

#[path = "dynamic_attention/dense.rs"]
mod dense;

use dense::{Case, Outcome};
use ringtape::device::{Device, soft};
use ringtape::ops::dynamic_attention::DynamicAttention;
use ringtape::shape::DType;
use ringtape::tape::{Params, Tape};
use ringtape::tensor::Tensor;

const HARD: DynamicAttention =
    DynamicAttention { ramp: 1.0, block: 16, is_causal: true, offset: 0, gaussian: false };

fn both_types(case: &Case, want: &Outcome, what: &str) {
    for (dtype, most) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
        case.run(&Device::cpu(), dtype).unwrap().assert_near(want, most, what);
    }
}

#[test]
fn a_span_of_all_tokens_is_full_attention() {
    for is_causal in [false, true] {
        for tokens in [1, 63, 64, 130] {
            let mut case =
                Case::new(DynamicAttention { is_causal, ..HARD }, [2, 4, 2, tokens, tokens, 8], 1.0);
            case.span.fill(tokens as f64);
            for (dtype, most) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
                let full = case.run_with(&Device::cpu(), dtype, |x, _| {
                    x[0].scaled_dot_product_attention(&x[1], &x[2], is_causal)
                });
                let windowed = case.run(&Device::cpu(), dtype).unwrap();
                windowed.assert_near(&full.unwrap(), most, &format!("{tokens} tokens, causal {is_causal}"));
            }
        }
    }
}

/// Sizes that are no multiples of tiles, every kind of block, one head and groups of heads, more keys than queries.
fn cases() -> Vec<(String, Case)> {
    let mut all = Vec::new();
    for (block, tokens) in [(16, 50), (32, 100), (64, 130), (128, 300), (192, 250)] {
        for (is_causal, gaussian) in [(true, false), (false, false), (true, true), (false, true)] {
            let op = DynamicAttention { ramp: 5.0, block, is_causal, offset: 0, gaussian };
            let what = format!("{tokens} tokens, blocks of {block}, causal {is_causal}, Gaussian {gaussian}");
            let case = Case::new(op, [1, 2, 1, tokens, tokens, 3], 20.0);
            all.push((format!("{what}: a window"), case.clone()));
            all.push((format!("{what}: two windows"), case.clone().placed(9.0)));
            all.push((format!("{what}: all"), case.routed(3).placed(9.0)));
        }
    }
    let op = DynamicAttention { ramp: 7.0, block: 16, offset: 60, ..HARD };
    all.push(("more keys".into(), Case::new(op, [2, 4, 2, 33, 93, 8], 30.0).routed(4).placed(4.0)));
    all.push(("keys end before".into(), Case::new(op, [1, 2, 1, 70, 80, 4], 30.0).routed(2).placed(4.0)));
    let narrow = Case::new(DynamicAttention { ramp: 1.0, ..op }, [1, 1, 1, 70, 130, 4], 1.0);
    all.push(("narrow".into(), narrow));
    all
}

#[test]
fn the_union_is_a_softmax_over_every_key_with_its_weight() {
    for (what, case) in cases() {
        both_types(&case, &case.dense(), &what);
    }
}

/// The kernels of a GPU, checked and as inexact as they may be; heads of groups of four numbers, more than 1024 queries.
#[test]
fn the_software_device_computes_the_same() {
    let device = soft::device(&soft::Machine::strict(), 0).unwrap();
    let mut all = cases();
    let op = DynamicAttention { ramp: 8.0, block: 64, ..HARD };
    all.push(("1100 tokens".into(), Case::new(op, [1, 1, 1, 1100, 1100, 4], 12.0).routed(4).placed(6.0)));
    for (what, case) in all {
        let want = case.run(&Device::cpu(), DType::F32).unwrap();
        case.run(&device, DType::F32).unwrap().assert_near(&want, 2e-5, &what);
    }
}

/// A list that the CPU names is a trap on a device, not a wrong number.
#[test]
fn a_device_traps_at_a_bad_list() {
    for list in [[1, -1], [-1, 0], [0, 0], [-2, -1]] {
        let device = soft::device(&soft::Machine::strict(), 0).unwrap();
        let mut case = Case::new(HARD, [1, 1, 1, 12, 40, 2], 3.0);
        case.blocks = Some((2, [[0, -1]; 11].concat().into_iter().chain(list).collect()));
        let e = case.run(&device, DType::F32).err().expect("a bad list").to_string();
        assert!(e.contains("trap") && e.contains("dynamic_attention_forward"), "{list:?}: {e}");
    }
}

/// Outputs as bytes would be compared: bits, so that NaN equals itself.
fn bits(x: &[f64]) -> Vec<u64> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn what_a_token_brings_changes_no_bit_before_it() {
    let op = DynamicAttention { ramp: 5.0, block: 16, ..HARD };
    let (tokens, d) = (200, 4);
    for gaussian in [false, true] {
        let op = DynamicAttention { gaussian, ..op };
        let base = Case::new(op, [1, 1, 1, tokens, tokens, d], 20.0).routed(3).placed(9.0);
        let was = base.run(&Device::cpu(), DType::F32).unwrap().o;
        for t in [0, 1, 15, 16, 63, 64, 100, 127, 128, 199] {
            let mut case = base.clone();
            for x in [&mut case.q, &mut case.k, &mut case.v] {
                x[t * d..][..d].iter_mut().for_each(|x| *x = 3.0 - *x);
            }
            case.span[t] += 40.0;
            case.place.iter_mut().flatten().for_each(|x| x[t] = 30.5);
            let (count, lists) = case.blocks.as_mut().unwrap();
            let list = &mut lists[t * *count..][..*count];
            let own = (t / op.block) as i32;
            list.copy_from_slice(if list[0] == own { &[-1, -1, -1] } else { &[0, -1, -1] });
            list[0] = if list[0] == 0 { own } else { -1 };
            let now = case.run(&Device::cpu(), DType::F32).unwrap().o;
            assert!(bits(&was[..t * d]) == bits(&now[..t * d]), "token {t}, Gaussian {gaussian}");
            assert!(bits(&was[t * d..][..d]) != bits(&now[t * d..][..d]), "token {t} changes its own output");
        }
    }
}

/// o = Σ_r e^(L^r − L)·o^r, where part r subtracts from each score the logarithm of how many parts see the key.
#[test]
fn parts_merge_to_the_union() {
    let (tokens, d) = (150, 4);
    let mut case = Case::new(HARD, [1, 2, 1, tokens, tokens, d], 1.0).routed(3).placed(1.0);
    for (n, span) in case.span.iter_mut().enumerate() {
        *span = (n * 7 % 20) as f64;
    }
    let [center, width] = case.place.as_mut().unwrap();
    for n in 0..center.len() {
        (center[n], width[n]) = ((n * 31 % tokens) as f64, (n * 11 % 9) as f64);
    }
    let [center, width] = case.place.clone().unwrap();
    let mut o = vec![0.0; case.q.len()];
    let mut shared = 0;
    for n in 0..case.span.len() {
        let p = n % tokens;
        let sees = |r: usize, j: usize| match r {
            0 => (p - j) as f64 <= case.span[n],
            1 => (center[n] - j as f64).abs() <= width[n],
            _ => case.lists(n).contains(&((j / HARD.block) as i32)),
        };
        let count = |j: usize| (0..3).filter(|&r| sees(r, j)).count();
        shared += (0..=p).filter(|&j| count(j) > 1).count();
        let mut parts = Vec::new();
        for r in 0..3 {
            let keys: Vec<usize> = (0..=p).filter(|&j| sees(r, j)).collect();
            let e = |j: usize| (case.score(n, j) - (count(j) as f64).ln()).exp();
            let sum: f64 = keys.iter().map(|&j| e(j)).sum();
            let v = |j: usize, c: usize| case.v[case.head_of(n) + j * d + c];
            let own = |c: usize| keys.iter().map(|&j| e(j) * v(j, c)).sum::<f64>() / sum;
            if !keys.is_empty() {
                parts.push((sum.ln(), (0..d).map(own).collect::<Vec<_>>()));
            }
        }
        let all = parts.iter().map(|(l, _)| l.exp()).sum::<f64>().ln();
        for (l, own) in &parts {
            (0..d).for_each(|c| o[n * d + c] += (l - all).exp() * own[c]);
        }
    }
    assert!(shared > 1000, "the parts overlap");
    for (dtype, most) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
        let union = case.run(&Device::cpu(), dtype).unwrap();
        Outcome { o: union.o, grads: vec![] }.assert_near(
            &Outcome { o: o.clone(), grads: vec![] },
            most,
            "merged",
        );
    }
}

#[test]
fn bad_lists_and_attributes_are_named() {
    let case = Case::new(HARD, [1, 1, 1, 20, 40, 2], 3.0);
    let with = |list: [i32; 2]| {
        let mut case = case.clone();
        case.blocks = Some((2, [[0, -1]; 19].concat().into_iter().chain(list).collect()));
        case.run(&Device::cpu(), DType::F32).err().expect("a bad list").to_string()
    };
    let says = |e: String, words: &[&str]| {
        assert!(e.contains("dynamic_attention") && words.iter().all(|w| e.contains(w)), "{e}");
    };
    says(with([0, 2]), &["query 19", "entry 1 is 2", "begin at 32", "position 19"]);
    says(with([0, 3]), &["query 19", "entry 1 is 3", "3 blocks of 16 keys"]);
    says(with([1, 0]), &["entry 1 is 0", "ascend"]);
    says(with([1, 1]), &["entry 1 is 1", "ascend"]);
    says(with([-1, 1]), &["entry 0 is -1", "-1"]);
    says(with([-2, 1]), &["entry 0 is -2", "ascend"]);
    let attr = |op: DynamicAttention| {
        Case { op, ..case.clone() }
            .run(&Device::cpu(), DType::F32)
            .err()
            .expect("a bad attribute")
            .to_string()
    };
    says(attr(DynamicAttention { ramp: 0.0, ..HARD }), &["ramp", "is 0", "1 or more"]);
    says(attr(DynamicAttention { ramp: f64::NAN, ..HARD }), &["ramp", "NaN"]);
    says(attr(DynamicAttention { block: 48, ..HARD }), &["block", "48", "multiple of 64"]);
    says(attr(DynamicAttention { block: 0, ..HARD }), &["block", "is 0"]);
    says(attr(DynamicAttention { offset: usize::MAX, ..HARD }), &["offset", "2^30"]);
}

#[test]
fn wrong_shapes_are_named() {
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let real = |dims: &[usize]| {
        let n = dims.iter().product();
        tape.constant(Tensor::from_slice(&Device::cpu(), &vec![0.5f32; n], dims).unwrap())
    };
    let ids = |dims: &[usize]| {
        let n = dims.iter().product();
        tape.constant(Tensor::from_slice(&Device::cpu(), &vec![-1i32; n], dims).unwrap())
    };
    let (q, span) = (real(&[1, 2, 5, 3]), real(&[1, 2, 5]));
    let says = |x: &[&ringtape::tape::Var<'_>], words: &[&str]| {
        let e = tape.apply1(HARD, x).unwrap_err().to_string();
        assert!(e.contains("dynamic_attention") && words.iter().all(|w| e.contains(w)), "{e}");
    };
    says(&[&q, &q, &q], &["4"]);
    says(&[&q, &q, &q, &real(&[1, 2, 4])], &["span", "[1, 2, 4]"]);
    says(&[&q, &q, &q, &real(&[1, 2, 5, 1])], &["span", "[1, 2, 5, 1]"]);
    says(&[&q, &q, &q, &span, &span], &["blocks", "i32"]);
    says(&[&q, &q, &q, &span, &ids(&[1, 2, 4, 1])], &["blocks", "[1, 2, 4, 1]"]);
    says(&[&q, &q, &q, &span, &ids(&[1, 2, 5, 33])], &["blocks", "33", "32"]);
    says(&[&q, &q, &q, &span, &ids(&[1, 2, 5, 0]), &span], &["center", "without width"]);
    says(&[&q, &q, &q, &span, &ids(&[1, 2, 5, 0]), &span, &real(&[1, 1, 5])], &["width", "[1, 1, 5]"]);
    let three = real(&[1, 3, 5, 3]);
    says(&[&q, &three, &three, &span], &["multiple of the key heads", "[1, 3, 5, 3]"]);
    says(&[&q, &q, &three, &span], &["alike", "[1, 3, 5, 3]"]);
    let wide = real(&[1, 2, 5, 257]);
    says(&[&wide, &wide, &wide, &span], &["256", "257"]);
}

#[test]
fn none_or_one_token_and_nothing_seen() {
    let none = Case::new(HARD, [1, 2, 1, 0, 0, 3], 3.0).run(&Device::cpu(), DType::F32).unwrap();
    assert!(none.o.is_empty() && none.grads.iter().all(Vec::is_empty));
    let no_keys = Case::new(HARD, [1, 2, 1, 4, 0, 3], 3.0);
    both_types(&no_keys, &no_keys.dense(), "no keys");
    let one = Case::new(HARD, [1, 2, 1, 1, 1, 3], 3.0);
    assert_eq!(one.run(&Device::cpu(), DType::F64).unwrap().o, [&one.v[..], &one.v[..]].concat());
    // The keys end 60 before the first query.
    let blind = Case::new(DynamicAttention { offset: 99, ..HARD }, [1, 2, 1, 70, 40, 3], 3.0);
    let device = soft::device(&soft::Machine::strict(), 0).unwrap();
    for device in [Device::cpu(), device] {
        let seen = blind.run(&device, DType::F32).unwrap();
        assert!([&[seen.o], &seen.grads[..]].concat().iter().flatten().all(|x| *x == 0.0));
    }
}

#[test]
fn nan_stays_in_its_row_and_is_found() {
    let (tokens, d, t) = (150, 4, 70);
    let device = soft::device(&soft::Machine::strict(), 0).unwrap();
    let op = DynamicAttention { ramp: 5.0, ..HARD };
    let base = Case::new(op, [1, 1, 1, tokens, tokens, d], 20.0).routed(3).placed(9.0);
    let mut sick = vec![base.clone(); 4];
    sick[0].q[t * d + 1] = f64::NAN;
    sick[1].span[t] = f64::NAN;
    sick[2].place.as_mut().unwrap()[0][t] = f64::NAN;
    sick[3].place.as_mut().unwrap()[1][t] = f64::NAN;
    for device in [Device::cpu(), device] {
        let was = base.run(&device, DType::F32).unwrap().o;
        for (n, case) in sick.iter().enumerate() {
            let now = case.run(&device, DType::F32).unwrap().o;
            assert!(now[t * d..][..d].iter().all(|x| x.is_nan()), "case {n} on {}", device.name());
            let others = |o: &[f64]| bits(&[&o[..t * d], &o[(t + 1) * d..]].concat());
            assert!(others(&was) == others(&now), "case {n} on {}", device.name());
        }
    }
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params).check_finite();
    let e = sick[0].run_with(&Device::cpu(), DType::F32, |x, sights| {
        let own = |i: usize| tape.constant(x[i].value().clone());
        let sights = ringtape::ops::dynamic_attention::Sights {
            span: own(3),
            blocks: sights.blocks.as_ref().map(|b| tape.constant(b.value().clone())),
            place: Some((own(4), own(5))),
        };
        own(0).dynamic_attention(&own(1), &own(2), &sights, op)?;
        Ok(x[0].clone())
    });
    let e = e.err().expect("NaN is found").to_string();
    assert!(e.contains("`dynamic_attention`") && e.contains("NaN"), "{e}");
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let op = DynamicAttention { ramp: 8.0, block: 64, ..HARD };
    let case = Case::new(op, [1, 6, 3, 1100, 1100, 16], 60.0).routed(6).placed(9.0);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let y = pool.install(|| case.run(&Device::cpu(), DType::F32)).unwrap();
        [&[y.o], &y.grads[..]].concat().iter().map(|x| bits(x)).collect::<Vec<_>>()
    };
    let one = run(1);
    for threads in [2, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}
