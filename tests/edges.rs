//! What the exams are blind to: extreme values, ids from outside, bits for any number of threads, memory
//! taken by a step.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use ringtape::device::Device;
use ringtape::error::Result;
use ringtape::ops::conv2d::Conv2d;
use ringtape::ops::cross_entropy::{CrossEntropy, Reduction};
use ringtape::ops::max_pool2d::Pool;
use ringtape::ops::rotary_embedding::RotaryEmbedding;
use ringtape::ops::{self, Sample};
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, Tape, Var};
use ringtape::tensor::Tensor;

fn f32s(values: &[f32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(&Device::cpu(), values, dims).unwrap()
}

fn ids(values: &[i32]) -> Tensor {
    Tensor::from_slice(&Device::cpu(), values, &[values.len()]).unwrap()
}

/// Value of `f` and its gradient with respect to the one leaf `x`.
fn grad(x: Tensor, f: impl for<'t> Fn(&Var<'t>) -> Result<Var<'t>>) -> Result<(Vec<f64>, Vec<f64>)> {
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let x = tape.leaf(x)?;
    let y = f(&x)?;
    let one = Tensor::full(&Device::cpu(), y.value().spec(), 1.0)?;
    let leaves = tape.backward_from(&[(&y, one)], &mut Grads::new(&params)?)?;
    Ok((y.value().to_f64().unwrap(), leaves.get(&x).expect("x has a gradient").to_f64().unwrap()))
}

fn assert_near(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= tolerance, "{got:?} should be {want:?}");
    }
}

/// p = softmax of (0, −ln 3, −inf) around a huge offset: differences of huge logits are exact, so p is too.
#[test]
fn huge_logits_lose_nothing() {
    for offset in [1e4f32, -1e4, 3e7] {
        let x = f32s(&[offset, offset - 64.0, offset, -1e30, offset], &[1, 5]);
        let third = 1.0 / 3.0;
        let (y, _) = grad(x.clone(), |x| x.softmax(-1)).unwrap();
        assert_near(&y, &[third, 0.0, third, 0.0, third], 1e-7);
        let (y, dx) = grad(x.clone(), |x| x.log_softmax(1)).unwrap();
        let log = third.ln();
        assert_near(&y[..3], &[log, log - 64.0, log], 1e-5);
        assert_near(&dx, &[1.0 - 5.0 * third, 1.0, 1.0 - 5.0 * third, 1.0, 1.0 - 5.0 * third], 1e-6);
        let (y, dx) = grad(x, |x| x.cross_entropy(&x.tape().constant(ids(&[1])))).unwrap();
        assert_near(&y, &[64.0 - log], 1e-5);
        assert_near(&dx, &[third, -1.0, third, 0.0, third], 1e-6);
    }
}

#[test]
fn rows_without_a_finite_logit_are_nan_as_in_torch() {
    let inf = f32::INFINITY;
    let x = f32s(&[-inf, -inf, 0.0, -inf, inf, 0.0], &[3, 2]);
    for dim in [-1, 1] {
        let (y, _) = grad(x.clone(), |x| x.softmax(dim)).unwrap();
        assert!(y[0].is_nan() && y[1].is_nan() && y[4].is_nan());
        assert_eq!(y[2..4], [1.0, 0.0], "-inf beside a finite logit has probability 0");
    }
    // The strided path agrees with the path over rows.
    let t = f32s(&[-inf, 0.0, inf, -inf, -inf, 0.0], &[2, 3]);
    let (y, _) = grad(t, |x| x.softmax(0)).unwrap();
    assert!(y[0].is_nan() && y[3].is_nan() && y[2].is_nan());
    assert_eq!([y[1], y[4]], [1.0, 0.0]);
}

#[test]
fn targets_outside_the_classes_are_an_error_with_place_value_and_limit() {
    let of = |target: &[i32]| {
        let x = f32s(&[0.5; 6], &[2, 3]);
        grad(x, |x| x.cross_entropy(&x.tape().constant(ids(target)))).map(|(y, _)| y)
    };
    assert_eq!(of(&[0, 3]).unwrap_err().to_string(), "cross_entropy: id 3 at [1] is not in 0..3");
    assert_eq!(of(&[-1, 0]).unwrap_err().to_string(), "cross_entropy: id -1 at [0] is not in 0..3");
    assert!(of(&[-100, 2]).is_ok());
}

#[test]
fn when_every_target_is_ignored_the_mean_is_nan_and_the_gradient_zero_as_in_torch() {
    let x = f32s(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
    let (y, dx) = grad(x.clone(), |x| x.cross_entropy(&x.tape().constant(ids(&[-100, -100])))).unwrap();
    assert!(y[0].is_nan());
    assert_eq!(dx, [0.0; 4]);
    let op = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
    let (y, _) = grad(x, |x| x.cross_entropy_with(&x.tape().constant(ids(&[-100, -100])), op)).unwrap();
    assert_eq!(y, [0.0]);
    // Nor is there a class to point at when there are none.
    let (y, _) =
        grad(f32s(&[], &[2, 0]), |x| x.cross_entropy_with(&x.tape().constant(ids(&[-100, -100])), op))
            .unwrap();
    assert_eq!(y, [0.0]);
}

#[test]
fn equal_maxima_go_to_the_first_and_nan_wins() {
    let inf = f32::NEG_INFINITY;
    let x = f32s(&[2.0, 2.0, 2.0, 2.0, inf, inf, inf, inf], &[2, 1, 2, 2]);
    let (y, dx) = grad(x, |x| x.max_pool2d(Pool::square(2))).unwrap();
    assert_eq!(y, [2.0, f64::NEG_INFINITY]);
    assert_eq!(dx, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    let x = f32s(&[2.0, f32::NAN, 5.0, 2.0], &[1, 1, 2, 2]);
    let (y, dx) = grad(x, |x| x.max_pool2d(Pool::square(2))).unwrap();
    assert!(y[0].is_nan());
    assert_eq!(dx, [0.0, 1.0, 0.0, 0.0]);
}

/// Row t of one long call has the bits of a call for that row alone at offset t: a cache of keys changes
/// nothing.
#[test]
fn a_rotary_position_has_the_same_bits_whatever_the_offset() {
    let values: Vec<f32> = (0..40 * 8).map(|i| (i as f32 * 0.37).sin()).collect();
    for interleaved in [false, true] {
        let turn = |x: Tensor, offset: usize| {
            let op = RotaryEmbedding { offset, interleaved, ..RotaryEmbedding::default() };
            grad(x, |x| x.rotary_embedding(op)).unwrap().0
        };
        let all = turn(f32s(&values, &[40, 8]), 5);
        for t in 0..40 {
            let row = turn(f32s(&values[t * 8..][..8], &[1, 8]), 5 + t);
            assert_eq!(row, all[t * 8..][..8], "position {t}");
        }
    }
}

#[test]
fn attributes_that_make_no_sense_are_errors_that_name_op_and_attribute() {
    for (op, attr, value) in [
        ("conv2d", "stride", "0"),
        ("conv2d", "padding", "-1"),
        ("conv2d", "dilation", "1,2,3"),
        ("conv2d", "groups", "0"),
        ("max_pool2d", "kernel_size", "0"),
        ("max_pool2d", "kernel_size", ""),
        ("avg_pool2d", "stride", "99999999999"),
        ("layer_norm", "normalized_shape", "3,4"),
        ("rotary_embedding", "offset", "-1"),
        ("cross_entropy", "reduction", "average"),
    ] {
        let mut attrs = vec![(attr, value)];
        if op.ends_with("pool2d") && attr != "kernel_size" {
            attrs.push(("kernel_size", "2"));
        }
        let e = ops::find(op, &[]).unwrap().build_with(&attrs).unwrap_err().to_string();
        assert!(e.contains(op) && e.contains(attr), "{op} {attr}={value}: {e}");
    }
}

/// Samples large enough that every kernel leaves the calling thread.
fn large() -> Vec<(&'static str, Sample)> {
    let s = Sample::new;
    vec![
        ("softmax", s("").normal(&[512, 203])),
        ("softmax", s("").attr("dim", 1).normal(&[16, 203, 33])),
        ("log_softmax", s("").normal(&[512, 203])),
        ("cross_entropy", s("").normal(&[700, 203]).input(&[700], ops::Fill::Ids(203))),
        ("layer_norm", s("").normal(&[1111, 120]).normal(&[120]).normal(&[120])),
        ("rms_norm", s("").normal(&[1111, 120]).normal(&[120])),
        ("conv2d", s("").attr("padding", 1).normal(&[37, 8, 14, 14]).normal(&[12, 8, 3, 3]).normal(&[12])),
        ("max_pool2d", s("").attr("kernel_size", 2).normal(&[37, 16, 14, 14])),
        ("avg_pool2d", s("").attr("kernel_size", 3).attr("stride", 1).normal(&[37, 16, 14, 14])),
        ("rotary_embedding", s("").normal(&[40, 64, 32])),
    ]
}

/// Bytes of outputs and gradients of one sample, from inputs on a device of its own.
fn step(name: &str, sample: &Sample, device: &Device) -> Vec<u8> {
    let entry = ops::find(name, &[]).unwrap();
    let params = Params::none(device);
    let tape = Tape::new(&params);
    let inputs = sample.tensors(device, DType::F32, 11).unwrap();
    let vars: Vec<Var<'_>> = inputs
        .into_iter()
        .map(|t| if t.dtype().is_real() { tape.leaf(t).unwrap() } else { tape.constant(t) })
        .collect();
    let op = entry.build_with(&sample.attrs).unwrap();
    let y = tape.apply_arc(op, &vars.iter().collect::<Vec<_>>()).unwrap();
    let seed = y[0].value().deep_clone().unwrap(); // any gradient that is not constant
    let leaves = tape.backward_from(&[(&y[0], seed)], &mut Grads::new(&params).unwrap()).unwrap();
    let mut bytes = y[0].value().as_bytes().unwrap().to_vec();
    vars.iter().filter_map(|v| leaves.get(v)).for_each(|g| bytes.extend_from_slice(g.as_bytes().unwrap()));
    bytes
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for (name, sample) in large() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| step(name, &sample, &Device::cpu()))
        };
        let one = run(1);
        assert!(one.iter().any(|&b| b != 0));
        for threads in [2, 3] {
            assert!(run(threads) == one, "{name}: {threads} threads give other bits than one");
        }
    }
}

#[test]
fn a_second_step_takes_no_memory_from_the_system() {
    for (name, sample) in large() {
        let device = Device::new_cpu();
        step(name, &sample, &device);
        let first = device.stats().misses;
        step(name, &sample, &device);
        assert!(first > 0);
        assert_eq!(device.stats().misses, first, "{name} misses the pool in its second step");
    }
}

/// Weight gradients are added into the slot that already holds a sum, not beside it.
#[test]
fn gradients_of_two_uses_add_up() {
    let x = f32s(&(0..50).map(|i| (i as f32).cos()).collect::<Vec<_>>(), &[1, 2, 5, 5]);
    let w = || f32s(&(0..36).map(|i| (i as f32).sin()).collect::<Vec<_>>(), &[2, 2, 3, 3]);
    let conv = |x: &Tensor, w: Tensor, times: usize| {
        grad(w, |w| {
            let y = w.tape().constant(x.clone()).conv2d(w, None, Conv2d::default())?;
            if times == 2 { y.conv2d(w, None, Conv2d::default()) } else { Ok(y) }
        })
    };
    // d/dw of conv(conv(x, w), w) by the product rule, each use on its own.
    let inner = conv(&x, w(), 1).unwrap().0;
    let inner = f32s(&inner.iter().map(|&v| v as f32).collect::<Vec<_>>(), &[1, 2, 3, 3]);
    let outer_use = conv(&inner, w(), 1).unwrap().1;
    let inner_use = grad(w(), |v| {
        let tape = v.tape();
        let y = tape.constant(x.clone()).conv2d(v, None, Conv2d::default())?;
        y.conv2d(&tape.constant(w()), None, Conv2d::default())
    });
    let want: Vec<f64> = outer_use.iter().zip(inner_use.unwrap().1).map(|(a, b)| a + b).collect();
    assert_near(&conv(&x, w(), 2).unwrap().1, &want, 1e-4);
}
