//! Weights and gradients, flat: layout, names, accumulation, and who may hold what while it is written.

mod common;

use common::{add, normal, total};
use ringtape::device::Device;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Init, Params, ParamsBuilder, Role, Slot, Tape};

fn build(f: impl FnOnce(&mut ParamsBuilder)) -> Params {
    let mut b = ParamsBuilder::new(&Device::new_cpu(), DType::F64, 1);
    f(&mut b);
    b.build().unwrap()
}

fn two(name: &str) -> (Params, Slot, Slot) {
    let mut slots = None;
    let params = build(|b| {
        let w = b.add(name, &[3, 3], Init::Normal(1.0), Role::Decay).unwrap();
        slots = Some((w, b.add("v", &[3, 3], Init::Normal(1.0), Role::Plain).unwrap()));
    });
    let (w, v) = slots.unwrap();
    (params, w, v)
}

#[test]
fn slots_lie_in_one_segment_a_role_at_multiples_of_64_bytes() {
    let params = build(|b| {
        b.add("a.weight", &[3, 3], Init::Constant(1.0), Role::Decay).unwrap();
        b.add("a.bias", &[3], Init::Constant(2.0), Role::Plain).unwrap();
        b.add("mean", &[], Init::Constant(3.0), Role::State).unwrap();
        b.add("b.weight", &[2, 4], Init::Constant(4.0), Role::Decay).unwrap();
        assert!(
            b.add("a.bias", &[1], Init::Constant(0.0), Role::Plain)
                .unwrap_err()
                .to_string()
                .contains("`a.bias`")
        );
    });
    let found: Vec<_> = params.slots().iter().map(|s| (s.name.as_str(), s.segment, s.offset)).collect();
    assert_eq!(found, [("a.weight", 0, 0), ("a.bias", 1, 0), ("mean", 2, 0), ("b.weight", 0, 16)]);
    let lens: Vec<_> = params.segments().iter().map(|s| (s.role, s.len)).collect();
    assert_eq!(lens, [(Role::Decay, 24), (Role::Plain, 8), (Role::State, 8)]);
    let flat = params.segment(0).to_f64().unwrap();
    assert_eq!(flat, [[1.0; 9].as_slice(), &[0.0; 7], &[4.0; 8]].concat(), "padding holds zeros");
    assert_eq!(params.trained_len(), 9 + 3 + 8);
    assert_eq!(params.find("mean").map(|s| params.get(s).to_f64().unwrap()), Some(vec![3.0]));
    assert!(params.find("nobody").is_none());
    let grads = Grads::new(&params).unwrap();
    assert_eq!(grads.segment::<f64>(0), Some([0.0; 24].as_slice()));
    assert!(grads.segment::<f64>(2).is_none() && grads.segment::<f32>(0).is_none(), "state has no gradient");
}

#[test]
fn frozen_slots_are_state_by_name_or_by_a_part_of_it() {
    let all = |name: &str| {
        let mut error = None;
        let params = build(|b| {
            for slot in ["blocks.0.lag", "blocks.0.flag", "blocks.1.lag", "blocks.10.w"] {
                b.add(slot, &[2], Init::Constant(1.0), Role::Plain).unwrap();
            }
            error = b.freeze(name).err();
        });
        let frozen = params.slots().iter().filter(|s| s.role == Role::State);
        (frozen.map(|s| s.name.clone()).collect::<Vec<_>>(), error.map(|e| e.to_string()))
    };
    assert_eq!(all("lag"), (vec!["blocks.0.lag".into(), "blocks.1.lag".into()], None));
    assert_eq!(all("blocks.1"), (vec!["blocks.1.lag".into()], None));
    assert_eq!(all("blocks.0.flag"), (vec!["blocks.0.flag".into()], None));
    let (none, error) = all("ag");
    assert!(none.is_empty() && error.unwrap().contains("flag, lag, w"));
}

#[test]
fn a_slot_without_elements_is_a_slot() {
    let params = build(|b| {
        b.add("empty", &[0, 3], Init::Normal(1.0), Role::Decay).unwrap();
        b.add("bias", &[2], Init::Constant(1.0), Role::Plain).unwrap();
    });
    let (empty, bias) = (params.find("empty").unwrap(), params.find("bias").unwrap());
    let mut grads = Grads::new(&params).unwrap();
    let tape = Tape::new(&params);
    let loss = add(&total(&tape.param(empty)).unwrap(), &total(&tape.param(bias)).unwrap()).unwrap();
    tape.backward(&loss, &mut grads).unwrap();
    assert_eq!(grads.get(empty).unwrap().dims(), [0, 3]);
    assert_eq!(grads.get(bias).unwrap().to_f64().unwrap(), [1.0, 1.0]);
}

#[test]
fn initial_values_depend_on_seed_and_name_alone() {
    let (one, w, _) = two("w");
    let more = build(|b| {
        b.add("first", &[50], Init::Normal(1.0), Role::Decay).unwrap();
        b.add("w", &[3, 3], Init::Normal(1.0), Role::Decay).unwrap();
    });
    assert_eq!(one.get(w).to_f64().unwrap(), more.get(more.find("w").unwrap()).to_f64().unwrap());
    let (other, w, _) = two("u");
    assert_ne!(one.get(w).to_f64().unwrap(), other.get(w).to_f64().unwrap());
    let bound = build(|b| assert!(b.add("u", &[1000], Init::Uniform(0.5), Role::Decay).is_ok()));
    let v = bound.segment(0).to_f64().unwrap();
    assert!(v.iter().all(|x| x.abs() <= 0.5) && v.iter().any(|x| *x > 0.45) && v.iter().any(|x| *x < -0.45));
}

/// One backward pass of Σ(x·w), or of Σ(x·v), into `grads`.
fn pass(params: &Params, slot: Slot, stream: u64, grads: &mut Grads) {
    let tape = Tape::new(params);
    let x = tape.constant(normal(params.device(), &[3, 3], stream));
    tape.backward(&total(&x.matmul(&tape.param(slot)).unwrap()).unwrap(), grads).unwrap();
}

#[test]
fn micro_batches_add_up() {
    let (params, w, v) = two("w");
    let single = |slot, stream| {
        let mut grads = Grads::new(&params).unwrap();
        pass(&params, slot, stream, &mut grads);
        grads.get(slot).unwrap().to_f64().unwrap()
    };
    let mut grads = Grads::new(&params).unwrap();
    pass(&params, w, 9, &mut grads); // what was there before must go
    grads.accumulate(false);
    pass(&params, w, 1, &mut grads);
    grads.accumulate(true);
    pass(&params, w, 2, &mut grads);
    assert_eq!(grads.missing(), ["v"], "of the last pass");
    pass(&params, v, 3, &mut grads);
    assert_eq!(grads.missing(), ["w"], "though its sum is there");
    let sum: Vec<f64> = single(w, 1).iter().zip(single(w, 2)).map(|(a, b)| a + b).collect();
    assert_eq!(grads.get(w).unwrap().to_f64().unwrap(), sum, "1 + 2 add in the order of the passes");
    assert_eq!(grads.get(v).unwrap().to_f64().unwrap(), single(v, 3));
    grads.accumulate(false);
    pass(&params, v, 4, &mut grads);
    assert_eq!(grads.get(w).unwrap().to_f64().unwrap(), [0.0; 9]);
    assert_eq!(grads.get(v).unwrap().to_f64().unwrap(), single(v, 4));
}

#[test]
fn a_parameter_on_the_tape_that_no_gradient_reached_is_missing() {
    let (params, w, v) = two("w");
    for add_up in [false, true] {
        let mut grads = Grads::new(&params).unwrap();
        grads.accumulate(add_up);
        let tape = Tape::new(&params);
        let _aside = tape.param(v).relu().unwrap();
        tape.backward(&total(&tape.param(w)).unwrap(), &mut grads).unwrap();
        assert_eq!(grads.missing(), ["v"], "accumulate({add_up})");
        assert_eq!(grads.get(v).unwrap().to_f64().unwrap(), [0.0; 9]);
    }
}

#[test]
fn held_gradients_are_an_error_and_nothing_is_lost() {
    let (params, w, _) = two("w");
    let mut grads = Grads::new(&params).unwrap();
    pass(&params, w, 1, &mut grads);
    let held = grads.get(w).unwrap();
    let tape = Tape::new(&params);
    let loss = total(&tape.param(w)).unwrap();
    let e = tape.backward(&loss, &mut grads).unwrap_err().to_string();
    assert!(e.contains("grads") && e.contains("shared by 2 holders"), "{e}");
    assert_eq!(grads.get(w).unwrap().to_f64().unwrap(), held.to_f64().unwrap());
    drop(held);
    tape.backward(&loss, &mut grads).unwrap();
    assert_eq!(grads.get(w).unwrap().to_f64().unwrap(), [1.0; 9]);
}

#[test]
fn gradients_of_other_parameters_are_an_error() {
    let ((params, w, _), (other, ..), (twin, ..)) = (two("w"), two("u"), two("w"));
    let tape = Tape::new(&params);
    let loss = total(&tape.param(w)).unwrap();
    let e = tape.backward(&loss, &mut Grads::new(&other).unwrap()).unwrap_err().to_string();
    assert!(e.contains("other parameters"), "{e}");
    // The same layout will do, as after loading a snapshot.
    tape.backward(&loss, &mut Grads::new(&twin).unwrap()).unwrap();
}

#[test]
fn a_value_of_another_shape_does_not_fit_a_slot() {
    let (mut params, w, _) = two("w");
    let e = params.set(w, &normal(&Device::cpu(), &[9], 0)).unwrap_err().to_string();
    assert!(e.contains("`w`") && e.contains("f64[3, 3]") && e.contains("f64[9]"), "{e}");
    let copy = params.deep_clone().unwrap();
    params.set(w, &normal(&Device::cpu(), &[3, 3], 0)).unwrap();
    assert_ne!(
        copy.get(w).to_f64().unwrap(),
        params.get(w).to_f64().unwrap(),
        "a deep clone has memory of its own"
    );
}
