//! An op of another crate: it takes the exams, chains with ours, and every verb knows it, with nothing of ours touched.

#[allow(unreachable_pub, reason = "written as the file of another crate")]
#[path = "outside/softplus.rs"]
mod softplus;

use ringtape::cli::{Extensions, run_with};
use ringtape::device::Device;
use ringtape::device::soft::{self, Machine};
use ringtape::tape::{Grads, Params, Tape};
use ringtape::tensor::Tensor;
use ringtape::{check, ops};
use softplus::SoftplusExt;
use std::ffi::OsString;

const OURS: Extensions<'static> = Extensions { ops: &[&softplus::ENTRY], optimizers: &[], codecs: &[] };

fn run(args: &[&str]) -> i32 {
    run_with(OURS, std::iter::once("mine").chain(args.iter().copied()).map(OsString::from))
}

#[test]
fn it_passes_every_exam() {
    let verdicts = check::all(&softplus::ENTRY);
    assert_eq!(verdicts.len(), 6, "three exams on two small samples");
    for v in verdicts {
        assert_eq!(v.failure, None, "{} / {}", v.exam, v.sample);
    }
    // The gradient exam bites: a slope that is off in the fifth digit would not pass.
    let worst = check::all(&softplus::ENTRY).iter().map(|v| v.error).fold(0.0, f64::max);
    assert!(worst < 1e-6, "{worst}");
}

#[test]
fn its_ptx_computes_what_its_cpu_body_computes() {
    let device = soft::device(&Machine::strict(), 0).unwrap();
    let verdicts = check::on_device(&softplus::ENTRY, &device);
    assert_eq!(verdicts.len(), 2);
    for v in verdicts {
        assert_eq!(v.failure, None, "{}", v.sample);
    }
}

#[test]
fn it_chains_with_our_ops() {
    let device = Device::cpu();
    let params = Params::none(&device);
    let tape = Tape::new(&params);
    let x = tape.leaf(Tensor::from_slice(&device, &[0.0f64, -1000.0, 1000.0], &[3, 1]).unwrap()).unwrap();
    let ones = tape.constant(Tensor::from_slice(&device, &[1.0f64; 3], &[1, 3]).unwrap());
    let y = ones.matmul(&x.softplus().unwrap().relu().unwrap()).unwrap();
    assert!((y.value().item().unwrap() - (2f64.ln() + 1000.0)).abs() < 1e-12);
    let grads = tape.backward(&y, &mut Grads::new(&params).unwrap()).unwrap();
    // relu passes no gradient at 0, which softplus reaches at -1000.
    assert_eq!(grads.get(&x).unwrap().to_f64().unwrap(), [0.5, 0.0, 1.0]);
}

#[test]
fn every_verb_knows_it() {
    assert_eq!(run(&["-q", "check", "softplus"]), 0);
    assert_eq!(run(&["-q", "bench", "op", "softplus", "--seconds", "0.001"]), 0);
    assert_eq!(run(&["-q", "op", "list"]), 0);
    assert_eq!(run(&["-q", "check", "softplus", "--device", "soft:0"]), 0);
    assert_eq!(run(&["-q", "ptx", "list", "softplus_forward"]), 0);
    let dir = tempfile::tempdir().unwrap();
    let (x, y) = (dir.path().join("x.safetensors"), dir.path().join("y.safetensors"));
    let zero = 0f32.to_le_bytes();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &zero).unwrap();
    std::fs::write(&x, safetensors::serialize([("input", view)], None).unwrap()).unwrap();
    let (x, y) = (x.to_str().unwrap(), y.to_str().unwrap());
    assert_eq!(run(&["-q", "op", "softplus", "--in", x, "--out", y, "--attr", "beta=2"]), 0);
    let bytes = std::fs::read(y).unwrap();
    let out =
        safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("output").unwrap().data().to_vec();
    let value = f32::from_le_bytes(out.try_into().unwrap());
    assert!((value - 2f32.ln() / 2.0).abs() < 1e-7, "{value}");
    // Without the extension the name is unknown.
    let plain = ["ringtape", "check", "softplus"].map(OsString::from);
    assert_eq!(run_with(Extensions::default(), plain), 2);
    assert!(ops::find("softplus", &[]).is_err());
}

/// An op whose gradient is wrong fails the exam, and `check` says so by its exit code.
#[test]
fn a_wrong_gradient_is_caught() {
    use ringtape::kernel::Real;
    use ringtape::ops::elementwise::{Keeps, Map, Unary};
    use ringtape::ops::{Entry, Port, Sample};

    #[derive(Debug, Clone, Copy)]
    struct Wrong;
    impl Unary for Wrong {
        const NAME: &'static str = "wrong";
        const ENTRIES: [&'static str; 2] = ["wrong_forward", "wrong_backward"];
        const KEEPS: Keeps = Keeps::Input;
        #[inline(always)]
        fn value<T: Real>(x: T, _: [T; 2]) -> T {
            x * x
        }
        #[inline(always)]
        fn slope<T: Real>(x: T, _: [T; 2]) -> T {
            x * T::of(2.00001) // off by 5e-6
        }
    }
    static ENTRY: Entry = Entry {
        name: "wrong",
        doc: "y = x², with a gradient that is off by 5e-6",
        inputs: &[Port::real("input")],
        outputs: &["output"],
        attrs: &[],
        build: |_| Ok(std::sync::Arc::new(Map(Wrong))),
        kernels: &[&Map::<Wrong>::FORWARD, &Map::<Wrong>::BACKWARD],
        samples: || vec![Sample::new("matrix").normal(&[4, 4])],
    };
    let args = ["mine", "-q", "check", "wrong"].map(OsString::from);
    assert_eq!(run_with(Extensions { ops: &[&ENTRY], ..Default::default() }, args), 1);
    let failed: Vec<_> = check::all(&ENTRY).into_iter().filter(|v| v.failure.is_some()).collect();
    assert!(failed.iter().all(|v| v.exam == "gradient") && !failed.is_empty(), "{failed:?}");
}
