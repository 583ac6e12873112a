//! What the exams are blind to in elementwise ops, reductions and indexing: ties, NaN, infinities, edges of powers, ids from
//! outside, and bits for any number of threads.

use ringtape::device::Device;
use ringtape::error::Result;
use ringtape::ops::{self, Fill, Sample};
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, Tape, Var};
use ringtape::tensor::Tensor;

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

fn reals(v: &[f64], dims: &[usize]) -> Tensor {
    Tensor::from_slice(&Device::cpu(), v, dims).unwrap()
}

fn ints(v: &[i32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(&Device::cpu(), v, dims).unwrap()
}

/// Value of `f` of the leaves `x`, and the gradient of its sum with respect to each.
fn grads(
    x: &[Tensor],
    f: impl for<'t> Fn(&[Var<'t>]) -> Result<Var<'t>>,
) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let leaves: Vec<Var<'_>> = x.iter().map(|t| tape.leaf(t.clone())).collect::<Result<_>>()?;
    let y = f(&leaves)?;
    let one = Tensor::full(&Device::cpu(), y.value().spec(), 1.0)?;
    let found = tape.backward_from(&[(&y, one)], &mut Grads::new(&params)?)?;
    let dx = leaves.iter().map(|v| found.get(v).expect("every leaf is used").to_f64().unwrap()).collect();
    Ok((y.value().to_f64().unwrap(), dx))
}

/// Equal, where NaN equals NaN.
fn assert_same(got: &[f64], want: &[f64]) {
    let same =
        got.len() == want.len() && got.iter().zip(want).all(|(g, w)| g == w || (g.is_nan() && w.is_nan()));
    assert!(same, "{got:?} should be {want:?}");
}

#[test]
fn ties_share_the_gradient_and_nan_wins() {
    let (a, b) = (reals(&[1.0, 2.0, NAN, 0.0, 5.0], &[5]), reals(&[1.0, 3.0, 0.0, NAN, -5.0], &[5]));
    let pair = [a, b];
    let (y, d) = grads(&pair, |x| x[0].maximum(&x[1])).unwrap();
    assert_same(&y, &[1.0, 3.0, NAN, NAN, 5.0]);
    assert_same(&d[0], &[0.5, 0.0, 1.0, 1.0, 1.0]);
    assert_same(&d[1], &[0.5, 1.0, 1.0, 1.0, 0.0]);
    let (y, d) = grads(&pair, |x| x[0].minimum(&x[1])).unwrap();
    assert_same(&y, &[1.0, 2.0, NAN, NAN, -5.0]);
    assert_same(&d[0], &[0.5, 1.0, 1.0, 1.0, 0.0]);
    assert_same(&d[1], &[0.5, 0.0, 1.0, 1.0, 1.0]);
}

#[test]
fn a_maximum_over_axes_shares_among_all_ties_and_hands_nan_on() {
    let x = [reals(&[3.0, 3.0, 1.0, 3.0, NAN, 0.0, 2.0, 1.0, -INF, -INF, -INF, -INF], &[3, 4])];
    let (y, d) = grads(&x, |x| x[0].amax(&[1], false)).unwrap();
    assert_same(&y, &[3.0, NAN, -INF]);
    let third = 1.0 / 3.0;
    let quarter = 0.25;
    assert_same(&d[0][..4], &[third, third, 0.0, third]);
    assert_same(&d[0][4..8], &[NAN; 4]);
    assert_same(&d[0][8..], &[quarter; 4]);
    let e = grads(&[reals(&[], &[2, 0])], |x| x[0].amax(&[1], false)).unwrap_err().to_string();
    assert!(e.contains("amax") && e.contains("[2, 0]"), "{e}");
}

#[test]
fn unary_ops_have_the_slopes_of_torch_at_kinks_and_hand_nan_on() {
    let x = [reals(&[-1.0, -0.0, 0.0, 1.0, NAN], &[5])];
    let (y, d) = grads(&x, |x| x[0].abs()).unwrap();
    assert_same(&y, &[1.0, 0.0, 0.0, 1.0, NAN]);
    assert_same(&d[0][..4], &[-1.0, 0.0, 0.0, 1.0]);
    let (y, d) = grads(&x, |x| x[0].clamp(-1.0, 0.5)).unwrap();
    assert_same(&y, &[-1.0, 0.0, 0.0, 0.5, NAN]);
    assert_same(&d[0], &[0.0, 1.0, 1.0, 0.0, 0.0]);
    for op in ["exp", "log", "sqrt", "tanh", "sigmoid", "gelu", "silu", "relu", "neg"] {
        for dtype in [DType::F32, DType::F64] {
            let op = ops::find(op, &[]).unwrap().build_with::<&str, &str>(&[]).unwrap();
            let nan = [reals(&[NAN; 70], &[70]).to_dtype(dtype).unwrap()];
            let (y, _) = grads(&nan, |x| Ok(x[0].tape().apply_arc(op.clone(), &[&x[0]])?.remove(0))).unwrap();
            assert!(y.iter().all(|y| y.is_nan()), "{} {dtype}", op.name());
        }
    }
}

#[test]
fn powers_at_zero_and_below() {
    let x = [reals(&[0.0, -2.0, 4.0, INF], &[4])];
    let of = |e: f64| grads(&x, |x| x[0].pow(e)).map(|(y, mut d)| (y, d.remove(0))).unwrap();
    let (y, d) = of(0.0);
    assert_same(&y, &[1.0; 4]);
    assert_same(&d, &[0.0; 4]);
    let (y, d) = of(1.0);
    assert_same(&y, &[0.0, -2.0, 4.0, INF]);
    assert_same(&d, &[1.0; 4]);
    let (y, d) = of(2.0);
    assert_same(&y, &[0.0, 4.0, 16.0, INF]);
    assert_same(&d, &[0.0, -4.0, 8.0, INF]);
    let (y, d) = of(3.0);
    assert_same(&y, &[0.0, -8.0, 64.0, INF]);
    assert_same(&d, &[0.0, 12.0, 48.0, INF]);
    let (y, d) = of(0.5);
    assert_same(&y, &[0.0, NAN, 2.0, INF]);
    assert_same(&d, &[INF, NAN, 0.25, 0.0]);
    let (y, d) = of(-1.0);
    assert_same(&y, &[INF, -0.5, 0.25, 0.0]);
    assert_same(&d, &[-INF, -0.25, -0.0625, 0.0]);
    let (y, d) = of(5.0); // by the power function
    assert_same(&y, &[0.0, -32.0, 1024.0, INF]);
    assert_same(&d, &[0.0, 80.0, 1280.0, INF]);
}

/// The products and roots that stand in for the power function are that function, in f32 to an ulp or two.
#[test]
fn quick_powers_equal_the_power_function() {
    let v: Vec<f64> = (1..400).map(|i| i as f64 * 0.037).collect();
    let x = [reals(&v, &[v.len()]).to_dtype(DType::F32).unwrap()];
    for e in [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0] {
        let (y, _) = grads(&x, |x| x[0].pow(e)).unwrap();
        for (y, x) in y.iter().zip(x[0].to_f64().unwrap()) {
            assert!((y / x.powf(e) - 1.0).abs() < 2.5e-7, "{x}^{e} is {y}");
        }
    }
}

#[test]
fn too_few_elements_have_no_variance() {
    let one = [reals(&[3.0], &[1])];
    let (y, d) = grads(&one, |x| x[0].var(&[], false, 1)).unwrap();
    assert_same(&y, &[NAN]);
    assert_same(&d[0], &[NAN]);
    assert_same(&grads(&one, |x| x[0].var(&[], false, 0)).unwrap().0, &[0.0]);
    assert_same(&grads(&[reals(&[1.0, 2.0], &[2])], |x| x[0].var(&[0], false, 5)).unwrap().0, &[INF]);
    assert_same(&grads(&[reals(&[], &[0, 2])], |x| x[0].mean_over(&[0], false)).unwrap().0, &[NAN; 2]);
    assert_same(&grads(&[reals(&[], &[0, 2])], |x| x[0].sum_over(&[0], false)).unwrap().0, &[0.0; 2]);
}

/// What the condition does not choose does not leak, not even a NaN.
#[test]
fn where_keeps_what_is_not_chosen_out() {
    let c = Tensor::from_slice(&Device::cpu(), &[1u8, 0, 255, 0], &[4]).unwrap();
    let pair = [reals(&[1.0, NAN, 3.0, INF], &[4]), reals(&[NAN], &[1])];
    let (y, d) = grads(&pair, |x| x[0].tape().constant(c.clone()).where_(&x[0], &x[1])).unwrap();
    assert_same(&y, &[1.0, NAN, 3.0, NAN]);
    assert_same(&d[0], &[1.0, 0.0, 1.0, 0.0]);
    assert_same(&d[1], &[2.0]);
}

#[test]
fn ids_out_of_range_are_errors_with_place_value_and_limit_and_nothing_is_written() {
    let x = [reals(&[0.0; 6], &[2, 3]), reals(&[1.0; 4], &[2, 2])];
    let index = |v: [i32; 4]| ints(&v, &[2, 2]);
    let gather = |i: Tensor, dim: i64| {
        grads(&x[..1], |x| x[0].gather(dim, &x[0].tape().constant(i.clone())))
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert!(gather(index([0, 2, 1, 2]), 1).is_ok());
    assert_eq!(gather(index([0, 2, 3, 2]), 1).unwrap_err(), "gather: id 3 at [1, 0] is not in 0..3");
    assert_eq!(gather(index([0, -1, 0, 2]), -1).unwrap_err(), "gather: id -1 at [0, 1] is not in 0..3");
    assert_eq!(gather(index([0, 1, 1, 2]), 0).unwrap_err(), "gather: id 2 at [1, 1] is not in 0..2");
    let e = grads(&x, |x| x[0].scatter_add(1, &x[0].tape().constant(index([0, 1, 2, i32::MIN])), &x[1]));
    assert_eq!(e.unwrap_err().to_string(), "scatter_add: id -2147483648 at [1, 1] is not in 0..3");
    assert_same(&x[0].to_f64().unwrap(), &[0.0; 6]);
    let e = grads(&x[..1], |x| x[0].gather(0, &x[0].tape().constant(ints(&[0; 8], &[2, 4])))).unwrap_err();
    assert!(e.to_string().contains("gather") && e.to_string().contains("[2, 4]"), "{e}");
}

/// Adding to what is there and writing afresh, over axes on both sides of every block, against plain sums.
#[test]
fn stretched_operands_get_the_sum_of_their_gradient() {
    let normal = |dims: &[usize], stream: u64| {
        let mut rng = ringtape::rng::Key::new(3, stream).rng();
        reals(&(0..dims.iter().product()).map(|_| rng.normal()).collect::<Vec<_>>(), dims)
    };
    let (a, b) = (normal(&[130, 3, 7], 1), normal(&[3, 1], 2));
    let (_, d) = grads(&[a.clone(), b], |x| x[0].mul(&x[1])?.add(&x[1])).unwrap();
    let a = a.to_f64().unwrap();
    for j in 0..3 {
        let own = (0..130).flat_map(|i| (0..7).map(move |k| (i * 3 + j) * 7 + k));
        let want: f64 = own.map(|at| a[at] + 1.0).sum();
        assert!((d[1][j] - want).abs() < 1e-9, "{} should be {want}", d[1][j]);
    }
}

/// Samples large enough that every kernel leaves the calling thread, with rests that no block or vector divides.
fn large() -> Vec<(&'static str, Sample)> {
    let s = || Sample::new("");
    let over = |dim: &str, dims: &[usize]| s().attr("dim", dim).normal(dims);
    let mut all = vec![
        ("gelu", s().normal(&[700, 301])),
        ("pow", s().attr("exponent", 2.5).normal(&[100, 301])),
        ("mul", s().normal(&[700, 301]).normal(&[301])),
        ("div", s().normal(&[700, 301]).input(&[700, 1], Fill::Uniform(1.0, 2.0))),
        ("add", s().normal(&[700, 301]).normal(&[])),
        ("maximum", s().normal(&[70, 1, 301]).normal(&[10, 1])),
        ("where", s().input(&[700, 301], Fill::Mask).normal(&[301]).normal(&[700, 1])),
        ("permute", s().attr("dims", "0,2,1").normal(&[7, 301, 110])),
        ("dropout", s().attr("p", 0.3).normal(&[700, 301])),
        ("gather", s().attr("dim", 1).normal(&[700, 101]).input(&[700, 301], Fill::Ids(101))),
        ("embedding", s().input(&[4001], Fill::Ids(97)).normal(&[97, 65])),
    ];
    let index = Fill::Ids(301);
    all.push((
        "scatter_add",
        s().attr("dim", 1).normal(&[700, 301]).input(&[650, 301], index).normal(&[650, 301]),
    ));
    for op in ["sum", "mean", "amax", "var"] {
        for (dim, dims) in [
            ("0", &[5003, 50][..]),
            ("0", &[50_003, 3]),
            ("1", &[301, 700]),
            ("", &[700, 301]),
            ("0,2", &[77, 30, 101]),
        ] {
            all.push((op, over(dim, dims)));
        }
    }
    all
}

/// Bytes of outputs and gradients of one sample.
fn step(name: &str, sample: &Sample) -> Vec<u8> {
    let entry = ops::find(name, &[]).unwrap();
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let inputs = sample.tensors(&Device::cpu(), DType::F32, 11).unwrap();
    let var = |t: Tensor| if t.dtype().is_real() { tape.leaf(t).unwrap() } else { tape.constant(t) };
    let vars: Vec<Var<'_>> = inputs.into_iter().map(var).collect();
    let y =
        tape.apply_arc(entry.build_with(&sample.attrs).unwrap(), &vars.iter().collect::<Vec<_>>()).unwrap();
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
            pool.install(|| step(name, &sample))
        };
        let one = run(1);
        assert!(one.iter().any(|&b| b != 0));
        for threads in [2, 3] {
            assert!(
                run(threads) == one,
                "{name} of {:?}: {threads} threads give other bits",
                sample.inputs[0].0
            );
        }
    }
}
