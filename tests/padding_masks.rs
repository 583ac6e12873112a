//! Attention over tokens that a sample may lack: nothing of an absent token is read, gradients of it are 0, and the rest is
//! as if it were not there.

use ringtape::device::Device;
use ringtape::device::soft::{self, Machine};
use ringtape::error::Result;
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, Tape, Var};
use ringtape::tensor::Tensor;

const GONE: f64 = f64::NEG_INFINITY;

fn normal(dims: &[usize], seed: u64) -> Vec<f64> {
    let mut rng = Key::new(17, seed).rng();
    (0..dims.iter().product()).map(|_| rng.normal() as f32 as f64).collect()
}

/// Sets token `t` of sample `b` of x [B, H, T, d] to NaN.
fn spoil(x: &mut [f64], dims: &[usize], b: usize, t: usize) {
    for h in 0..dims[1] {
        x[((b * dims[1] + h) * dims[2] + t) * dims[3]..][..dims[3]].fill(f64::NAN);
    }
}

/// The output and the gradients of all three, with weights of the output that follow from its shape.
fn attend(
    device: &Device,
    dtype: DType,
    x: [(&[f64], &[usize]); 3],
    mask: Option<(&[f64], &[usize])>,
    is_causal: bool,
) -> Result<[Vec<f64>; 4]> {
    let params = Params::none(device);
    let tape = Tape::new(&params);
    let tensor = |(v, dims): (&[f64], &[usize])| Tensor::from_f64(device, dtype, v, dims);
    let [q, k, v] = [tape.leaf(tensor(x[0])?)?, tape.leaf(tensor(x[1])?)?, tape.leaf(tensor(x[2])?)?];
    let o = match mask {
        Some(mask) => q.masked_attention(&k, &v, &tape.constant(tensor(mask)?), is_causal)?,
        None => q.scaled_dot_product_attention(&k, &v, is_causal)?,
    };
    let weights = normal(o.dims(), 99);
    let found = tape.backward_from(&[(&o, tensor((&weights, o.dims()))?)], &mut Grads::new(&params)?)?;
    let host = |t: &Tensor| t.to_host()?.to_f64();
    let grad = |v: &Var<'_>| host(found.get(v).expect("a gradient of every leaf"));
    Ok([host(o.value())?, grad(&q)?, grad(&k)?, grad(&v)?])
}

fn places() -> Vec<(Device, DType)> {
    let soft = soft::device(&Machine::strict(), 0).unwrap();
    vec![(Device::cpu(), DType::F32), (Device::cpu(), DType::F64), (soft, DType::F32)]
}

#[test]
fn a_masked_key_of_nan_changes_no_bit_and_its_gradient_is_zero() {
    for (device, dtype) in places() {
        for (d, is_causal) in [(4, false), (4, true), (66, false), (66, true)] {
            let (q_dims, dims) = ([2, 2, 40, d], [2, 1, 40, d]);
            let (q, mut k, mut v) = (normal(&q_dims, 1), normal(&dims, 2), normal(&dims, 3));
            let absent = |b: usize, t: usize| (t + b).is_multiple_of(3) || t > 35;
            let mask: Vec<f64> = (0..80).map(|i| if absent(i / 40, i % 40) { GONE } else { 0.0 }).collect();
            let run = |k: &[f64], v: &[f64]| {
                let x = [(&q[..], &q_dims[..]), (k, &dims[..]), (v, &dims[..])];
                attend(&device, dtype, x, Some((&mask, &[2, 1, 1, 40])), is_causal).unwrap()
            };
            let clean = run(&k, &v);
            for (b, t) in (0..80).map(|i| (i / 40, i % 40)).filter(|&(b, t)| absent(b, t)) {
                spoil(&mut k, &dims, b, t);
                spoil(&mut v, &dims, b, t);
            }
            assert_eq!(run(&k, &v), clean, "{} {dtype} width {d}, causal {is_causal}", device.name());
            assert!(clean.iter().flatten().all(|x| x.is_finite()));
            for (b, t) in (0..80).map(|i| (i / 40, i % 40)) {
                let there = |g: &[f64]| g[(b * 40 + t) * d..][..d].iter().any(|x| *x != 0.0);
                assert_eq!([there(&clean[2]), there(&clean[3])], [!absent(b, t); 2], "sample {b}, key {t}");
            }
        }
    }
}

/// Keys that are there, alone, have the same bits: also past a tile, and with a mask that hides nothing.
#[test]
fn masked_attention_is_attention_to_the_keys_that_are_there() {
    let (q_dims, dims) = ([1, 2, 70, 8], [1, 2, 140, 8]);
    let (q, k, v) = (normal(&q_dims, 4), normal(&dims, 5), normal(&dims, 6));
    let there: Vec<usize> = (0..140).filter(|t| t % 5 != 1).collect();
    let take = |x: &[f64]| -> Vec<f64> {
        let row = |h: usize, t: usize| x[(h * 140 + t) * 8..][..8].to_vec();
        (0..2).flat_map(|h| there.iter().flat_map(move |&t| row(h, t))).collect()
    };
    let mask: Vec<f64> = (0..140).map(|t| if there.contains(&t) { 0.0 } else { GONE }).collect();
    let full = [(&q[..], &q_dims[..]), (&k[..], &dims[..]), (&v[..], &dims[..])];
    let (few_k, few_v, few) = (take(&k), take(&v), [1, 2, there.len(), 8]);
    let alone = [(&q[..], &q_dims[..]), (&few_k[..], &few[..]), (&few_v[..], &few[..])];
    for dtype in [DType::F32, DType::F64] {
        let cpu = Device::cpu();
        let masked = attend(&cpu, dtype, full, Some((&mask, &[1, 1, 1, 140])), false).unwrap();
        let want = attend(&cpu, dtype, alone, None, false).unwrap();
        assert_eq!(masked[..2], want[..2], "{dtype}: output and dq");
        assert_eq!([take(&masked[2]), take(&masked[3])], want[2..], "{dtype}: dk and dv");
        for is_causal in [false, true] {
            let open = attend(&cpu, dtype, full, Some((&[0.0; 140], &[1, 1, 1, 140])), is_causal).unwrap();
            assert_eq!(
                open,
                attend(&cpu, dtype, full, None, is_causal).unwrap(),
                "{dtype}: no key is hidden"
            );
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let (dims, key_dims) = ([24, 2, 33, 16], [24, 2, 65, 16]);
    let (q, k, v) = (normal(&dims, 7), normal(&key_dims, 8), normal(&key_dims, 9));
    let mask: Vec<f64> = (0..24 * 65).map(|i| if i % 7 < i / 65 % 8 { GONE } else { 0.0 }).collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let x = [(&q[..], &dims[..]), (&k[..], &key_dims[..]), (&v[..], &key_dims[..])];
        let mask = Some((&mask[..], &[24, 1, 1, 65][..]));
        pool.install(|| attend(&Device::cpu(), DType::F32, x, mask, false).unwrap())
    };
    let one = run(1);
    assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
}

#[test]
fn a_mask_of_other_values_or_shapes_is_refused() {
    let (dims, x) = ([2, 1, 3, 2], normal(&[2, 1, 3, 2], 10));
    let run = |device: &Device, mask: &[f64], mask_dims: &[usize]| {
        let x = [(&x[..], &dims[..]); 3];
        attend(device, DType::F32, x, Some((mask, mask_dims)), false).map(|_| ()).unwrap_err().to_string()
    };
    let cpu = Device::cpu();
    let e = run(&cpu, &[0.0, 0.0, 0.0, 0.0, 1.0, GONE], &[2, 1, 1, 3]);
    assert!(e.contains("attn_mask is 1 for token 1 of sample 1") && e.contains("-inf"), "{e}");
    let e = run(&cpu, &[0.0, f64::NAN, 0.0], &[1, 1, 1, 3]);
    assert!(e.contains("NaN for token 1"), "{e}");
    for wrong in [&[1, 1, 3][..], &[2, 1, 3, 3], &[1, 1, 1, 4], &[3, 1, 1, 3]] {
        let e = run(&cpu, &vec![0.0; wrong.iter().product()], wrong);
        assert!(e.contains("scaled_dot_product_attention") && e.contains("[2 or 1, 1, 1, 3]"), "{e}");
    }
    let e = run(&soft::device(&Machine::strict(), 0).unwrap(), &[0.0, 0.5, 0.0], &[1, 1, 1, 3]);
    assert!(e.contains("trap"), "{e}");
}

#[test]
fn a_mask_that_wants_a_gradient_is_told_that_there_is_none() {
    let device = Device::cpu();
    let params = Params::none(&device);
    let tape = Tape::new(&params);
    let leaf = |x: &[f32], dims: &[usize]| tape.leaf(Tensor::from_slice(&device, x, dims).unwrap()).unwrap();
    let (x, mask) = (leaf(&[0.5; 4], &[1, 1, 2, 2]), leaf(&[0.0, f32::NEG_INFINITY], &[1, 1, 1, 2]));
    let o = x.masked_attention(&x, &x, &mask, false).unwrap();
    let seed = Tensor::from_slice(&device, &[1f32; 4], &[1, 1, 2, 2]).unwrap();
    let lost = tape.backward_from(&[(&o, seed)], &mut Grads::new(&params).unwrap());
    let e = lost.map(|_| ()).unwrap_err().to_string();
    assert!(e.contains("scaled_dot_product_attention") && e.contains("detach()"), "{e}");
}
