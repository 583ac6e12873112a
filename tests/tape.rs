//! The tape: long chains, fan-out, detach, evaluation, and every way to lose a gradient that must not be silent.

mod common;

use common::{Odd, Oddity, add, normal, tensor, total};
use ringtape::device::Device;
use ringtape::error::Error;
use ringtape::shape::{DType, Spec};
use ringtape::tape::{Grads, Init, Leaves, Params, ParamsBuilder, Role, Slot, Tape, Var};
use ringtape::tensor::Tensor;

fn none() -> (Params, Grads) {
    let params = Params::none(&Device::cpu());
    let grads = Grads::new(&params).unwrap();
    (params, grads)
}

fn gradient(leaves: &Leaves, v: &Var<'_>) -> Vec<f64> {
    leaves.get(v).expect("a gradient arrives").to_f64().unwrap()
}

/// Two parameters of 2 × 2, f64, with memory of their own.
fn two_weights() -> (Params, Slot, Slot) {
    let mut b = ParamsBuilder::new(&Device::new_cpu(), DType::F64, 3);
    let w = b.add("w", &[2, 2], Init::Normal(1.0), Role::Decay).unwrap();
    let v = b.add("v", &[2, 2], Init::Normal(1.0), Role::Decay).unwrap();
    (b.build().unwrap(), w, v)
}

#[test]
fn a_million_nodes_fit_a_stack_of_two_megabytes() {
    let run = || {
        let (params, mut grads) = none();
        let tape = Tape::new(&params);
        let x = tape.leaf(tensor(&[3.0], &[1])).unwrap();
        let mut y = x.clone();
        for _ in 0..1_000_000 {
            y = y.relu().unwrap();
        }
        assert_eq!(tape.len(), 1_000_001);
        let leaves = tape.backward(&y, &mut grads).unwrap();
        assert_eq!(gradient(&leaves, &x), [1.0]);
        assert_eq!(y.value().to_f64().unwrap(), [3.0]);
        // A second tape is dropped with everything that its nodes kept.
        let tape = Tape::new(&params);
        let mut y = tape.leaf(tensor(&[3.0], &[1])).unwrap();
        for _ in 0..1_000_000 {
            y = y.relu().unwrap();
        }
        drop(y);
        drop(tape);
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_value_used_twice_gets_the_sum() {
    let (params, mut grads) = none();
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[1.0, -2.0], &[1, 2])).unwrap();
    let (y, z) = (x.relu().unwrap(), x.relu().unwrap());
    let loss = total(&add(&y, &z).unwrap()).unwrap();
    assert_eq!(gradient(&tape.backward(&loss, &mut grads).unwrap(), &x), [2.0, 0.0]);
}

#[test]
fn diamonds_on_diamonds_count_every_path_once() {
    // Naive recursion from the loss would visit the shared node twice and count its gradient twice.
    let (params, mut grads) = none();
    let tape = Tape::new(&params);
    let a = tape.leaf(tensor(&[3.0], &[1, 1])).unwrap();
    let mut y = a.clone();
    for _ in 0..20 {
        y = add(&y, &y).unwrap();
    }
    assert_eq!(gradient(&tape.backward(&y, &mut grads).unwrap(), &a), [f64::from(1 << 20)]);

    // f = (a·b)·(a + b) at a = -2, b = 3: df/da = b(a + b) + ab = -3, df/db = a(a + b) + ab = -8.
    let tape = Tape::new(&params);
    let (a, b) = (tape.leaf(tensor(&[-2.0], &[1, 1])).unwrap(), tape.leaf(tensor(&[3.0], &[1, 1])).unwrap());
    let f = a.matmul(&b).unwrap().matmul(&add(&a, &b).unwrap()).unwrap();
    let leaves = tape.backward(&f, &mut grads).unwrap();
    assert_eq!((gradient(&leaves, &a), gradient(&leaves, &b)), (vec![-3.0], vec![-8.0]));
}

#[test]
fn one_op_may_use_a_value_twice() {
    let (params, mut grads) = none();
    let tape = Tape::new(&params);
    let a = tape.leaf(tensor(&[3.0], &[1, 1])).unwrap();
    let square = a.matmul(&a).unwrap();
    let cube = square.matmul(&a).unwrap();
    assert_eq!(gradient(&tape.backward(&cube, &mut grads).unwrap(), &a), [27.0]);
}

#[test]
fn detach_stops_the_gradient_of_one_path_only() {
    let (params, mut grads) = none();
    let tape = Tape::new(&params);
    let a = tape.leaf(tensor(&[3.0], &[1, 1])).unwrap();
    let y = a.matmul(&a.detach()).unwrap();
    assert!(!a.detach().has_gradient() && y.has_gradient());
    assert_eq!(gradient(&tape.backward(&y, &mut grads).unwrap(), &a), [3.0]);
}

#[test]
fn an_unreached_leaf_has_no_gradient_and_a_constant_is_no_leaf() {
    let (params, mut grads) = none();
    let tape = Tape::new(&params);
    let (a, b) = (tape.leaf(tensor(&[3.0], &[1, 1])).unwrap(), tape.leaf(tensor(&[5.0], &[1, 1])).unwrap());
    let c = tape.constant(tensor(&[2.0], &[1, 1]));
    let _unused = b.relu().unwrap();
    let leaves = tape.backward(&a.matmul(&c).unwrap(), &mut grads).unwrap();
    assert!(leaves.get(&b).is_none() && leaves.get(&c).is_none() && leaves.get(&a).is_some());
    assert!(tape.leaf(Tensor::from_slice(&Device::cpu(), &[1i32], &[1]).unwrap()).is_err());
}

#[test]
fn evaluation_keeps_nothing() {
    let (device, size) = (Device::new_cpu(), 64 * 64 * 8);
    let x = normal(&device, &[64, 64], 0);
    let deep = |tape: &Tape| {
        let x = tape.leaf(x.clone()).unwrap();
        let mut y = x.relu().unwrap();
        for _ in 0..30 {
            y = y.matmul(&x).unwrap().relu().unwrap();
        }
        (tape.len(), device.stats().live_bytes, y.has_gradient())
    };
    let params = Params::none(&device);
    let before = device.stats().live_bytes;
    let (nodes, live, grad) = deep(&Tape::eval(&params));
    assert_eq!((nodes, live - before, grad), (0, size, false), "only the last value lives");
    let (nodes, live, grad) = deep(&Tape::new(&params));
    assert!(nodes == 62 && live - before > 30 * size && grad, "{nodes} nodes, {live} bytes");
    assert_eq!(device.stats().live_bytes, before, "a dropped tape gives everything back");
    // Ops whose inputs are all constants record nothing on any tape.
    let tape = Tape::new(&params);
    let c = tape.constant(x.clone());
    assert!(!c.matmul(&c).unwrap().has_gradient() && tape.is_empty());
}

#[test]
fn backward_frees_what_nodes_kept() {
    let device = Device::new_cpu();
    let params = Params::none(&device);
    let tape = Tape::new(&params);
    let x = tape.leaf(normal(&device, &[64, 64], 0)).unwrap();
    let mut y = x.clone();
    for _ in 0..10 {
        y = y.matmul(&x).unwrap().relu().unwrap();
    }
    let loss = total(&y).unwrap();
    drop(y);
    let before = device.stats().live_bytes;
    let leaves = tape.backward(&loss, &mut Grads::new(&params).unwrap()).unwrap();
    drop(leaves);
    assert!(device.stats().live_bytes < before / 4, "{} of {before} bytes live", device.stats().live_bytes);
}

#[test]
fn a_forgotten_gradient_is_an_error_that_names_the_op() {
    let (params, mut grads) = none();
    let forgets = |more: bool| -> String {
        let tape = Tape::new(&params);
        let (a, b) = (tape.leaf(tensor(&[1.0], &[1])).unwrap(), tape.leaf(tensor(&[2.0], &[1])).unwrap());
        let mut y = tape.apply1(Odd(Oddity::Forgets), &[&a, &b]).unwrap();
        if more {
            // Others gave b a gradient, even twice in one op: the loss of one path is still a loss.
            y = add(&y, &add(&b, &b).unwrap()).unwrap();
        }
        tape.backward(&y, &mut Grads::new(&params).unwrap()).unwrap_err().to_string()
    };
    for text in [forgets(false), forgets(true)] {
        assert!(text.contains("test_odd") && text.contains("input 1") && text.contains("detach()"), "{text}");
    }
    // Seeding the forgotten input itself does not hide it either.
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[1.0], &[1])).unwrap();
    let b = x.relu().unwrap();
    let y = tape.apply1(Odd(Oddity::Forgets), &[&x, &b]).unwrap();
    let one = tensor(&[1.0], &[1]);
    let e = tape.backward_from(&[(&y, one.clone()), (&b, one)], &mut grads).unwrap_err().to_string();
    assert!(e.contains("test_odd"), "{e}");
    // A constant in its place wants no gradient, and zero() is a word.
    for odd in [Oddity::Forgets, Oddity::Zero] {
        let tape = Tape::new(&params);
        let a = tape.leaf(tensor(&[1.0], &[1])).unwrap();
        let b = if odd == Oddity::Zero { tape.leaf(tensor(&[2.0], &[1])).unwrap() } else { a.detach() };
        let y = tape.apply1(Odd(odd), &[&a, &b]).unwrap();
        let leaves = tape.backward(&y, &mut grads).unwrap();
        assert!(leaves.get(&b).is_none() && gradient(&leaves, &a) == [1.0]);
    }
}

#[test]
fn a_gradient_of_another_shape_is_an_error() {
    let (params, mut grads) = none();
    let tape = Tape::new(&params);
    let a = tape.leaf(tensor(&[1.0], &[1])).unwrap();
    let y = tape.apply1(Odd(Oddity::Misshapen), &[&a, &a.detach()]).unwrap();
    let e = tape.backward(&y, &mut grads).unwrap_err().to_string();
    assert!(e.contains("f64[9]") && e.contains("f64[1]"), "{e}");
}

#[test]
fn backward_says_what_it_cannot_do() {
    let (params, mut grads) = none();
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[1.0, 2.0], &[1, 2])).unwrap();
    let y = x.relu().unwrap();
    let e = tape.backward(&y, &mut grads).unwrap_err().to_string();
    assert!(e.contains("scalar") && e.contains("[1, 2]"), "{e}");
    let loss = total(&x.detach()).unwrap();
    let e = tape.backward(&loss, &mut grads).unwrap_err();
    assert!(matches!(e, Error::LostGradient { .. }) && e.to_string().contains("detached"), "{e}");
    let e = tape.backward_from(&[(&y, tensor(&[1.0], &[1]))], &mut grads).unwrap_err().to_string();
    assert!(e.contains("f64[1]") && e.contains("f64[1, 2]"), "{e}");
    // None of these swept the tape: it still works.
    assert!(tape.backward(&total(&y).unwrap(), &mut grads).unwrap().get(&x).is_some());
}

#[test]
fn a_second_backward_is_an_error() {
    let (params, mut grads) = none();
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[3.0], &[1, 1])).unwrap();
    let y = x.matmul(&x).unwrap();
    assert_eq!(gradient(&tape.backward(&y, &mut grads).unwrap(), &x), [6.0]);
    let e = tape.backward(&y, &mut grads).unwrap_err().to_string();
    assert!(e.contains("swept before") && e.contains("backward_from"), "{e}");
    assert!(tape.explain(&y, &x).unwrap().verdict.contains("swept before"));
}

#[test]
fn an_output_seeded_twice_counts_twice() {
    let (params, mut grads) = none();
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[3.0], &[1])).unwrap();
    let (y, seed) = (x.relu().unwrap(), tensor(&[1.0], &[1]));
    let seeds = [(&y, seed.clone()), (&y, seed.clone()), (&x, seed)];
    assert_eq!(gradient(&tape.backward_from(&seeds, &mut grads).unwrap(), &x), [3.0]);
}

#[test]
fn values_of_two_tapes_do_not_mix() {
    let (params, mut grads) = none();
    let (one, two) = (Tape::new(&params), Tape::new(&params));
    let (x, y) = (one.leaf(tensor(&[1.0], &[1, 1])).unwrap(), two.leaf(tensor(&[2.0], &[1, 1])).unwrap());
    let e = one.apply1(ringtape::ops::matmul::Matmul::default(), &[&x, &y]).unwrap_err().to_string();
    assert!(e.contains("another tape") && e.contains("matmul"), "{e}");
    assert!(one.backward(&y, &mut grads).unwrap_err().to_string().contains("another tape"));
    assert!(one.checkpoint(&[&y], |_, v| Ok(v.iter().cloned().collect())).is_err());
    assert_eq!(x.matmul(&y.detach()).unwrap().value().to_f64().unwrap(), [2.0]);
}

#[test]
fn weights_cannot_be_written_while_a_tape_lives() {
    let (mut params, w, _) = two_weights();
    let new = Tensor::full(params.device(), Spec::new(DType::F64, &[2, 2]).unwrap(), 7.0).unwrap();
    let tape = Tape::new(&params);
    let e = params.clone().set(w, &new).unwrap_err().to_string();
    assert!(e.contains("is shared by") && e.contains("holders") && e.contains("drop the tape"), "{e}");
    assert!(params.segment_mut(0).as_mut_slice::<f64>().is_err());
    drop(tape);
    params.set(w, &new).unwrap();
    assert_eq!(params.get(w).to_f64().unwrap(), [7.0; 4]);
}

#[test]
fn the_first_value_that_is_not_finite_names_its_op() {
    let (params, _) = none();
    let tape = Tape::train(&params, 0, 42).check_finite();
    let x = tape.leaf(tensor(&[1e200, 1.0], &[2, 1])).unwrap();
    let y = x.relu().unwrap();
    let e = y.matmul_transposed(&y).unwrap_err();
    assert!(matches!(e, Error::Numeric { step: 42, .. }), "{e}");
    let text = e.to_string();
    assert!(text.contains("`matmul`") && text.contains("inf") && text.contains("element 0"), "{text}");
    // A part that is checkpointed is watched too, and without check_finite nothing is.
    let inside = tape.checkpoint(&[&y], |_, v| Ok(smallvec::smallvec![v[0].matmul_transposed(&v[0])?]));
    assert!(inside.unwrap_err().to_string().contains("`matmul`"));
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[1e200], &[1, 1])).unwrap();
    assert!(x.matmul(&x).unwrap().value().item().unwrap().is_infinite());
}

#[test]
fn every_call_of_a_parameter_is_the_same_value() {
    let (params, w, v) = two_weights();
    let mut grads = Grads::new(&params).unwrap();
    let tape = Tape::new(&params);
    let y = add(&tape.param(w), &tape.param(w)).unwrap();
    tape.backward(&total(&y).unwrap(), &mut grads).unwrap();
    assert_eq!(grads.get(w).unwrap().to_f64().unwrap(), [2.0; 4]);
    assert_eq!(grads.get(v).unwrap().to_f64().unwrap(), [0.0; 4]);
    assert_eq!(grads.missing(), ["v"]);
}

#[test]
fn a_failed_backward_leaves_the_gradients_usable() {
    let (params, w, v) = two_weights();
    let mut grads = Grads::new(&params).unwrap();
    let tape = Tape::new(&params);
    let y = tape.apply1(Odd(Oddity::Forgets), &[&tape.param(w), &tape.param(v)]).unwrap();
    let e = tape.backward(&total(&y).unwrap(), &mut grads).unwrap_err().to_string();
    assert!(e.contains("test_odd"), "the op's error, not one of the clean-up: {e}");
    let tape = Tape::new(&params);
    let y = add(&tape.param(w), &tape.param(v)).unwrap();
    tape.backward(&total(&y).unwrap(), &mut grads).unwrap();
    assert_eq!(grads.segment::<f64>(0).unwrap()[..4], [1.0; 4]);
    assert!(grads.missing().is_empty());
}
