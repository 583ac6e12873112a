//! Activation checkpointing: the same gradient bits as without, from less memory.

mod common;

use common::{Odd, Oddity, add, dropout, normal, tensor, total};
use ringtape::device::Device;
use ringtape::error::Result;
use ringtape::shape::{DType, Spec};
use ringtape::tape::{Grads, Init, Merge, Params, ParamsBuilder, Role, Tape, Var};
use ringtape::tensor::{SmallList, Tensor};
use smallvec::smallvec;

type Vars<'a> = SmallList<Var<'a>>;
/// A part of a model, run plainly or behind a checkpoint.
type Part = for<'a> fn(&'a Tape, &[Var<'a>]) -> Result<Vars<'a>>;

fn param<'a>(tape: &'a Tape, name: &str) -> Var<'a> {
    tape.param(tape.params().find(name).expect("the test's parameters have this slot"))
}

fn params(device: &Device, n: usize) -> Params {
    let mut b = ParamsBuilder::new(device, DType::F64, 5);
    for name in ["shared", "inner", "before", "after"] {
        b.add(name, &[n, n], Init::Normal(1.0 / (n as f64).sqrt()), Role::Decay).unwrap();
    }
    b.add("count", &[1], Init::Constant(0.0), Role::State).unwrap();
    b.build().unwrap()
}

/// Uses its first input three times, one parameter twice, and drops twice.
fn block<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
    let h = dropout(&v[0].matmul(&param(tape, "shared"))?.relu()?)?;
    let h = add(&h.matmul(&param(tape, "inner"))?, &v[0])?;
    let h = add(&h.matmul(&param(tape, "shared"))?, &v[1])?;
    let side = v[0].relu()?;
    Ok(smallvec![dropout(&h)?, side])
}

fn block_of_blocks<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
    let a = tape.checkpoint(&[&v[0], &v[1]], block)?;
    let b = tape.checkpoint(&[&a[0], &a[1]], block)?;
    Ok(smallvec![add(&b[0], &v[0])?, b[1].clone()])
}

fn block_of_plain_blocks<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
    let a = block(tape, &v[..2])?;
    let b = block(tape, &a)?;
    Ok(smallvec![add(&b[0], &v[0])?, b[1].clone()])
}

type Bits = Vec<(String, Vec<u8>)>;

/// What differs in bits.
fn differing<'a>(a: &'a Bits, b: &Bits) -> Vec<&'a str> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_str()).collect()
}

/// Bits of everything that a step yields: loss, gradient of the input, gradients of the parameters; the number of
/// nodes; and the largest number of bytes in use.
fn step(n: usize, part: Part, checkpointed: bool) -> (Bits, usize, usize) {
    let device = Device::new_cpu();
    let params = params(&device, n);
    let mut grads = Grads::new(&params).unwrap();
    let input = normal(&device, &[n, n], 1);
    let tape = Tape::train(&params, 9, 4);
    let x = tape.leaf(input).unwrap();
    let mut y = x.matmul(&param(&tape, "shared")).unwrap().matmul(&param(&tape, "before")).unwrap();
    for _ in 0..3 {
        // The same value twice, and the leaf, which other parts use too.
        let inputs = [y.clone(), y.clone(), x.clone()];
        let out = if checkpointed {
            tape.checkpoint(&inputs.iter().collect::<Vec<_>>(), part).unwrap()
        } else {
            part(&tape, &inputs).unwrap()
        };
        y = add(&add(&out[0], &out[1]).unwrap(), &y).unwrap();
    }
    // Random numbers after the part are those of the plain run, and the parameter is used behind it for the last time.
    let y = dropout(&y.matmul(&param(&tape, "shared")).unwrap()).unwrap();
    let loss = total(&y.matmul(&param(&tape, "after")).unwrap()).unwrap();
    drop(y);
    let nodes = tape.len();
    let leaves = tape.backward(&loss, &mut grads).unwrap();
    assert!(grads.missing().is_empty(), "{:?}", grads.missing());
    let of = |name: &str, t: &Tensor| (name.to_string(), t.as_bytes().unwrap().to_vec());
    let mut bits = vec![of("loss", loss.value()), of("x", leaves.get(&x).unwrap())];
    bits.extend(params.all().filter_map(|s| Some(of(&params.info(s).name, &grads.get(s)?))));
    (bits, nodes, device.stats().peak_bytes)
}

#[test]
fn the_gradients_have_the_same_bits() {
    let (plain, nodes, _) = step(6, block, false);
    let (replayed, fewer, _) = step(6, block, true);
    assert_eq!(plain.len(), 6, "loss, input, four parameters");
    assert!(differing(&plain, &replayed).is_empty(), "{:?}", differing(&plain, &replayed));
    assert!(fewer < nodes, "{fewer} of {nodes} nodes");
    assert!(plain[1].1.iter().any(|&b| b != 0), "a gradient of zeros would prove nothing");
}

#[test]
fn nested_parts_have_the_same_bits() {
    let (plain, ..) = step(6, block_of_plain_blocks, false);
    let none: [&str; 0] = [];
    assert_eq!(differing(&plain, &step(6, block_of_blocks, true).0), none, "parts in parts");
    assert_eq!(differing(&plain, &step(6, block_of_blocks, false).0), none, "inner parts only");
    assert_eq!(differing(&plain, &step(6, block_of_plain_blocks, true).0), none, "outer parts only");
}

#[test]
fn less_memory_is_in_use() {
    fn eight<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
        (0..8).try_fold(v[..2].iter().cloned().collect(), |v: Vars<'a>, _| block(tape, &v))
    }
    fn eight_parts<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
        (0..8).try_fold(v[..2].iter().cloned().collect(), |v: Vars<'a>, _| {
            tape.checkpoint(&[&v[0], &v[1]], block)
        })
    }
    let (_, _, plain) = step(64, eight, false);
    let (_, _, once) = step(64, eight, true);
    let (_, _, nested) = step(64, eight_parts, true);
    println!("peak bytes: plain {plain}, checkpointed {once}, nested {nested}");
    assert!(
        once * 2 < plain && nested * 10 < once * 8,
        "plain {plain}, checkpointed {once}, nested {nested}"
    );
}

#[test]
fn a_parameter_may_be_an_input_of_the_part_that_reads_it() {
    fn part<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
        Ok(smallvec![v[0].matmul(&v[1])?.matmul(&param(tape, "shared"))?])
    }
    let gradients = |checkpointed: bool| {
        let device = Device::new_cpu();
        let params = params(&device, 4);
        let mut grads = Grads::new(&params).unwrap();
        let tape = Tape::new(&params);
        let (x, w) = (tape.leaf(normal(&device, &[4, 4], 1)).unwrap(), param(&tape, "shared"));
        let inputs = [x.clone(), w.clone()];
        let y = if checkpointed {
            tape.checkpoint(&[&inputs[0], &inputs[1]], part).unwrap()
        } else {
            part(&tape, &inputs).unwrap()
        };
        tape.backward(&total(&y[0].matmul(&w).unwrap()).unwrap(), &mut grads).unwrap();
        grads.get(params.find("shared").unwrap()).unwrap().as_bytes().unwrap().to_vec()
    };
    assert_eq!(gradients(false), gradients(true));
}

#[test]
fn a_parameter_used_first_behind_the_part_adds_up() {
    fn part<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
        Ok(smallvec![v[0].matmul(&param(tape, "inner"))?])
    }
    let gradients = |checkpointed: bool| {
        let device = Device::new_cpu();
        let params = params(&device, 4);
        let mut grads = Grads::new(&params).unwrap();
        let tape = Tape::new(&params);
        let x = tape.leaf(normal(&device, &[4, 4], 1)).unwrap();
        let mut y = x;
        for _ in 0..2 {
            let out = if checkpointed { tape.checkpoint(&[&y], part) } else { part(&tape, &[y.clone()]) };
            y = out.unwrap().remove(0).matmul(&param(&tape, "inner")).unwrap();
        }
        tape.backward(&total(&y).unwrap(), &mut grads).unwrap();
        grads.get(params.find("inner").unwrap()).unwrap().as_bytes().unwrap().to_vec()
    };
    assert_eq!(gradients(false), gradients(true));
}

#[test]
fn an_output_may_come_out_twice() {
    fn part<'a>(_: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
        let y = v[0].relu()?;
        Ok(smallvec![y.clone(), y])
    }
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[3.0], &[1])).unwrap();
    let y = tape.checkpoint(&[&x], part).unwrap();
    let loss = add(&y[0], &y[1]).unwrap();
    let leaves = tape.backward(&loss, &mut Grads::new(&params).unwrap()).unwrap();
    assert_eq!(leaves.get(&x).unwrap().to_f64().unwrap(), [2.0]);
}

#[test]
fn evaluation_does_not_record_a_part() {
    let device = Device::new_cpu();
    let params = params(&device, 4);
    let tape = Tape::eval(&params);
    let x = tape.leaf(normal(&device, &[4, 4], 1)).unwrap();
    let y = tape.checkpoint(&[&x, &x], block).unwrap();
    let plain = block(&tape, &[x.clone(), x.clone()]).unwrap();
    assert!(tape.is_empty() && !y[0].has_gradient());
    assert_eq!(y[0].value().as_bytes().unwrap(), plain[0].value().as_bytes().unwrap());
}

#[test]
fn errors_inside_a_part_come_out_and_leave_the_gradients_whole() {
    fn forgets<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
        let h = v[0].matmul(&param(tape, "shared"))?;
        tape.apply(Odd(Oddity::Forgets), &[&h, &v[0]])
    }
    let device = Device::new_cpu();
    let params = params(&device, 4);
    let mut grads = Grads::new(&params).unwrap();
    for (part, fails) in [(forgets as Part, true), (block, false)] {
        let tape = Tape::new(&params);
        let x = tape.leaf(normal(&device, &[4, 4], 1)).unwrap();
        let h = x.matmul(&param(&tape, "shared")).unwrap();
        let y = tape.checkpoint(&[&h, &h], part).unwrap();
        match tape.backward(&total(&y[0]).unwrap(), &mut grads) {
            Ok(_) => assert!(!fails && grads.missing() == ["before", "after"]),
            Err(e) => assert!(fails && e.to_string().contains("test_odd"), "{e}"),
        }
    }
}

#[test]
fn state_changes_once_a_step_and_never_in_evaluation_or_replay() {
    fn counts<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
        let slot = tape.params().find("count").expect("the test's parameters have this slot");
        let next = tape.params().get(slot).item()? + 1.0;
        let next = Tensor::full(tape.device(), Spec::new(DType::F64, &[1])?, next)?;
        tape.defer(slot, next, Merge::Mean);
        Ok(smallvec![v[0].relu()?])
    }
    fn outer<'a>(tape: &'a Tape, v: &[Var<'a>]) -> Result<Vars<'a>> {
        tape.checkpoint(&[&v[0]], counts)
    }
    let mut params = params(&Device::new_cpu(), 4);
    let mut grads = Grads::new(&params).unwrap();
    let slot = params.find("count").unwrap();
    for (part, count) in [(counts as Part, 1.0), (outer, 2.0)] {
        let tape = Tape::train(&params, 0, 0);
        let x = tape.leaf(normal(params.device(), &[4, 4], 1)).unwrap();
        let y = tape.checkpoint(&[&x], part).unwrap();
        tape.backward(&total(&y[0]).unwrap(), &mut grads).unwrap();
        assert_eq!(
            tape.params().get(slot).item().unwrap(),
            count - 1.0,
            "nothing changes while the tape lives"
        );
        drop((x, y));
        let changes = tape.into_deferred();
        assert_eq!(changes.len(), 1, "asked for in forward, not again in replay");
        for c in changes {
            params.set(c.slot, &c.value).unwrap();
        }
        assert_eq!(params.get(slot).item().unwrap(), count);
    }
    for tape in [Tape::new(&params), Tape::eval(&params)] {
        let x = tape.constant(normal(params.device(), &[4, 4], 1));
        tape.checkpoint(&[&x], counts).unwrap();
        counts(&tape, &[x]).unwrap();
        assert!(tape.into_deferred().is_empty());
    }
}

/// A weight used before, in and behind parts that are recomputed, and one that nothing reads.
fn tied<'a>(tape: &'a Tape, x: &Var<'a>, part: Part) -> Var<'a> {
    let h = x.matmul(&param(tape, "before")).unwrap();
    let h = tape.checkpoint(&[&h, &h], part).unwrap();
    let h = tape.checkpoint(&[&h[0], &h[1]], block).unwrap();
    let h = h[0].matmul(&param(tape, "inner")).unwrap();
    total(&h).unwrap()
}

#[test]
fn a_slot_is_told_of_once_and_nothing_is_added_afterwards() {
    let params = params(&Device::new_cpu(), 6);
    let mut grads = Grads::new(&params).unwrap();
    for (part, pass) in [(block as Part, 0), (block_of_blocks, 1), (block_of_plain_blocks, 2)] {
        // The second pass of each adds to the first: what is told of is the sum.
        for add in [false, true] {
            grads.accumulate(add);
            let tape = Tape::train(&params, 3, pass);
            let x = tape.leaf(normal(params.device(), &[6, 6], 4)).unwrap();
            let y = tied(&tape, &x, part);
            let one = Tensor::full(params.device(), y.value().spec(), 1.0).unwrap();
            let mut told: Vec<(String, Option<Vec<f64>>)> = vec![];
            let mut tell = |slot, g: Option<&Tensor>| {
                told.push((params.info(slot).name.clone(), g.map(|g| g.to_f64().unwrap())));
                Ok(())
            };
            tape.backward_telling(&[(&y, one)], &mut grads, Some(&mut tell)).unwrap();
            let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["after", "inner", "shared", "before"], "what is read last is complete first");
            assert_eq!(told[0].1.is_none(), !add, "nothing reads it");
            for (name, g) in &told {
                let zero = vec![0.0; 36];
                let whole = grads.get(params.find(name).unwrap()).unwrap().to_f64().unwrap();
                assert_eq!(g.as_ref().unwrap_or(&zero), &whole, "{name}");
            }
        }
    }
}

#[test]
fn an_error_of_who_is_told_ends_the_pass_and_leaves_the_gradients_whole() {
    let params = params(&Device::new_cpu(), 4);
    let mut grads = Grads::new(&params).unwrap();
    for fails in [true, false] {
        let tape = Tape::new(&params);
        let x = tape.leaf(normal(params.device(), &[4, 4], 4)).unwrap();
        let y = tied(&tape, &x, block);
        let one = Tensor::full(params.device(), y.value().spec(), 1.0).unwrap();
        let mut tell = |_, _: Option<&Tensor>| match fails {
            true => Err(ringtape::error::Error::Usage("no more".into())),
            false => Ok(()),
        };
        let ended = tape.backward_telling(&[(&y, one)], &mut grads, Some(&mut tell));
        assert_eq!(ended.is_err(), fails);
    }
    assert_eq!(grads.missing(), ["after"]);
}
