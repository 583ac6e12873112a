//! shared_attention against two attentions, with tokens that samples lack, on all devices and for any number of threads.

use ringtape::device::Device;
use ringtape::device::soft::{self, Machine};
use ringtape::error::Result;
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, Tape, Var};
use ringtape::tensor::Tensor;

const GONE: f64 = f64::NEG_INFINITY;

/// Batch, heads, tokens of both sides, widths of rows and of values.
#[derive(Clone, Copy)]
struct Size {
    b: usize,
    h: usize,
    t: [usize; 2],
    d: usize,
    e: usize,
}

impl Size {
    /// Extents of query, key, query_value, key_value.
    fn dims(self) -> [[usize; 4]; 4] {
        let Size { b, h, t, d, e } = self;
        [[b, h, t[0], d], [b, h, t[1], d], [b, h, t[0], e], [b, h, t[1], e]]
    }
    fn inputs(self) -> [Vec<f64>; 4] {
        let mut seed = 0;
        self.dims().map(|dims| {
            seed += 1;
            normal(&dims, seed)
        })
    }
    /// Masks of both sides that lack some tokens, and all of a side in samples 1 and 2.
    fn masks(self) -> [Vec<f64>; 2] {
        [0, 1].map(|side| {
            let gone = |b: usize, t: usize| (t * (side + 1) + b).is_multiple_of(3) || b == 1 + side;
            let t = self.t[side];
            (0..self.b * t).map(|i| if gone(i / t, i % t) { GONE } else { 0.0 }).collect()
        })
    }
}

fn normal(dims: &[usize], seed: u64) -> Vec<f64> {
    let mut rng = Key::new(29, seed).rng();
    (0..dims.iter().product()).map(|_| rng.normal() as f32 as f64).collect()
}

/// Both outputs and the gradients of all four inputs, for weights of the outputs that follow from their shape.
fn run(
    device: &Device,
    dtype: DType,
    size: Size,
    x: &[Vec<f64>; 4],
    masks: Option<&[Vec<f64>; 2]>,
    f: impl for<'t> Fn([&Var<'t>; 4], Option<[&Var<'t>; 2]>) -> Result<[Var<'t>; 2]>,
) -> Vec<Vec<f64>> {
    let params = Params::none(device);
    let tape = Tape::new(&params);
    let tensor = |v: &[f64], dims: &[usize]| Tensor::from_f64(device, dtype, v, dims).unwrap();
    let dims = size.dims();
    let [q, k, a, b] = [0, 1, 2, 3].map(|i| tape.leaf(tensor(&x[i], &dims[i])).unwrap());
    let mask = |m: &[Vec<f64>; 2], i: usize| {
        tape.constant(tensor(&m[i], &[m[i].len() / size.t[i], 1, 1, size.t[i]]))
    };
    let masks = masks.map(|m| [mask(m, 0), mask(m, 1)]);
    let [y, z] = f([&q, &k, &a, &b], masks.as_ref().map(|[m, n]| [m, n])).unwrap();
    let seed = |v: &Var<'_>, i| tensor(&normal(v.dims(), i), v.dims());
    let seeds = [(&y, seed(&y, 90)), (&z, seed(&z, 91))];
    let found = tape.backward_from(&seeds, &mut Grads::new(&params).unwrap()).unwrap();
    let host = |t: &Tensor| t.to_host().unwrap().to_f64().unwrap();
    let grads = [&q, &k, &a, &b].map(|v| host(found.get(v).expect("every leaf has a gradient")));
    [host(y.value()), host(z.value())].into_iter().chain(grads).collect()
}

fn shared<'t>(x: [&Var<'t>; 4], masks: Option<[&Var<'t>; 2]>) -> Result<[Var<'t>; 2]> {
    x[0].shared_attention(x[1], x[2], x[3], masks)
}

/// The same by two attentions that compute the scores twice.
fn twice<'t>(x: [&Var<'t>; 4], masks: Option<[&Var<'t>; 2]>) -> Result<[Var<'t>; 2]> {
    let [q, k, a, b] = x;
    match masks {
        None => {
            Ok([q.scaled_dot_product_attention(k, b, false)?, k.scaled_dot_product_attention(q, a, false)?])
        }
        Some([m, n]) => Ok([q.masked_attention(k, b, n, false)?, k.masked_attention(q, a, m, false)?]),
    }
}

#[test]
fn it_is_two_attentions_with_the_sum_of_their_gradients() {
    for t in [[1, 1], [16, 8], [70, 5], [5, 130], [129, 64]] {
        let size = Size { b: 2, h: 2, t, d: 6, e: 6 };
        let x = size.inputs();
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let of = |f: usize| match f {
                0 => run(&Device::cpu(), dtype, size, &x, None, shared),
                _ => run(&Device::cpu(), dtype, size, &x, None, twice),
            };
            for (i, (got, want)) in of(0).iter().zip(&of(1)).enumerate() {
                let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(off < tolerance, "{t:?} {dtype}, tensor {i}: off by {off:e}");
            }
        }
    }
}

/// With every query there, masked keys alone are what attention masks.
#[test]
fn masked_sides_are_what_masked_attentions_see() {
    let size = Size { b: 4, h: 2, t: [9, 7], d: 5, e: 5 };
    let (x, mut masks) = (size.inputs(), size.masks());
    masks[0].fill(0.0);
    let one = run(&Device::cpu(), DType::F64, size, &x, Some(&masks), shared);
    let two = run(&Device::cpu(), DType::F64, size, &x, Some(&masks), twice);
    let off = one[0].iter().zip(&two[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-12, "query_output is off by {off:e}");
    // key_output differs where the key is absent: an attention answers it, shared_attention gives 0.
    for (i, (a, b)) in one[1].iter().zip(&two[1]).enumerate() {
        let (sample, t) = (i / (2 * 7 * 5), i / 5 % 7);
        let want = if masks[1][sample * 7 + t] == 0.0 { *b } else { 0.0 };
        assert!((a - want).abs() < 1e-12, "key_output[{i}] is {a}, not {want}");
    }
}

#[test]
fn nothing_of_an_absent_token_is_read_and_its_gradient_is_zero() {
    let soft = soft::device(&Machine::strict(), 0).unwrap();
    for (device, dtype) in [(Device::cpu(), DType::F32), (Device::cpu(), DType::F64), (soft, DType::F32)] {
        for size in [Size { b: 4, h: 2, t: [9, 7], d: 3, e: 4 }, Size { b: 3, h: 1, t: [6, 70], d: 33, e: 2 }]
        {
            let (mut x, masks) = (size.inputs(), size.masks());
            let clean = run(&device, dtype, size, &x, Some(&masks), shared);
            assert!(clean.iter().flatten().all(|x| x.is_finite()));
            let dims = size.dims();
            let absent = |i: usize, at: usize| {
                let [_, h, t, d] = dims[i];
                masks[i % 2][at / (h * t * d) * t + at / d % t] == GONE
            };
            for (i, x) in x.iter_mut().enumerate() {
                x.iter_mut().enumerate().filter(|(at, _)| absent(i, *at)).for_each(|(_, x)| *x = f64::NAN);
            }
            let spoilt = run(&device, dtype, size, &x, Some(&masks), shared);
            assert_eq!(spoilt, clean, "{} {dtype} {:?}", device.name(), size.t);
            // Outputs have the extents of query_value and key_value.
            for (tensor, like) in [(0, 2), (1, 3), (2, 0), (3, 1), (4, 2), (5, 3)] {
                for (at, x) in clean[tensor].iter().enumerate() {
                    assert!(!absent(like, at) || *x == 0.0, "tensor {tensor}, element {at} is {x}");
                }
            }
            // Sample 0 has tokens on both sides, and they get something.
            assert!(clean.iter().all(|t| t[..t.len() / size.b].iter().any(|x| *x != 0.0)));
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    for (size, masked) in [
        (Size { b: 37, h: 3, t: [16, 12], d: 16, e: 16 }, true),
        (Size { b: 2, h: 3, t: [150, 70], d: 16, e: 8 }, false),
    ] {
        let (x, masks) = (size.inputs(), size.masks());
        let of = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let masks = masked.then_some(&masks);
            pool.install(|| run(&Device::cpu(), DType::F32, size, &x, masks, shared))
        };
        let one = of(1);
        assert!([2, 3, 8].into_iter().all(|threads| of(threads) == one));
    }
}

/// A device has 1,024 blocks at most: some have two heads.
#[test]
fn a_device_with_more_heads_than_blocks_does_them_all() {
    let size = Size { b: 257, h: 4, t: [2, 3], d: 2, e: 1 };
    let x = size.inputs();
    let soft = soft::device(&Machine::strict(), 0).unwrap();
    let there = run(&soft, DType::F32, size, &x, None, shared);
    let here = run(&Device::cpu(), DType::F32, size, &x, None, shared);
    for (i, (got, want)) in there.iter().zip(&here).enumerate() {
        let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-5, "tensor {i}: off by {off:e}");
    }
}

#[test]
fn impossible_inputs_are_named() {
    let size = Size { b: 2, h: 1, t: [3, 4], d: 2, e: 2 };
    let refused = |dims: [&[usize]; 4], masks: Option<[&[usize]; 2]>, fill: f32| {
        let params = Params::none(&Device::cpu());
        let tape = Tape::new(&params);
        let var = |dims: &[usize], fill: f32| {
            let v = vec![fill; dims.iter().product()];
            tape.constant(Tensor::from_slice(&Device::cpu(), &v, dims).unwrap())
        };
        let [q, k, a, b] = dims.map(|d| var(d, 0.5));
        let masks = masks.map(|m| m.map(|d| var(d, fill)));
        let masks = masks.as_ref().map(|[m, n]| [m, n]);
        q.shared_attention(&k, &a, &b, masks).map(|_| ()).unwrap_err().to_string()
    };
    let [q, k, a, b] = size.dims();
    let fits = [&q[..], &k, &a, &b];
    let with = |i: usize, dims: &'static [usize]| {
        let mut all = fits;
        all[i] = dims;
        refused(all, None, 0.0)
    };
    assert!(with(1, &[2, 1, 4, 3]).contains("[2, 1, 4, 3]"), "widths of query and key");
    assert!(with(2, &[2, 1, 4, 2]).contains("each side in tokens"));
    assert!(with(3, &[2, 2, 4, 2]).contains("batch and heads must agree"));
    assert!(with(0, &[2, 3, 2]).contains("query is"));
    let empty = refused([&[2, 1, 0, 2], &k, &[2, 1, 0, 2], &b], None, 0.0);
    assert!(empty.contains("each side needs a token"), "{empty}");
    let wide = refused([&[1, 1, 1, 257], &[1, 1, 1, 257], &[1, 1, 1, 2], &[1, 1, 1, 2]], None, 0.0);
    assert!(wide.contains("1 to 256 wide"), "{wide}");
    let e = refused(fits, Some([&[1, 1, 1, 3], &[1, 1, 1, 3]]), 0.0);
    assert!(e.contains("key_mask") && e.contains("[2 or 1, 1, 1, 4]"), "{e}");
    let e = refused(fits, Some([&[1, 1, 1, 3], &[2, 1, 1, 4]]), 2.0);
    assert!(e.contains("query_mask is 2 for token 0 of sample 0"), "{e}");
}
