//! Every op against PyTorch: forward and gradient of each case that `tests/golden/make.py` computed in float64.

use ringtape::device::Device;
use ringtape::ops::{self, Entry, PortKind};
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, Tape, Var};
use ringtape::tensor::Tensor;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Ops that have golden values but do not exist yet. The test fails when one of them exists: then its line goes.
const NOT_YET: &[&str] = &[];

/// Largest error in f64, relative to the largest value of the tensor: both sides round a few hundred operations at 1e-16.
const TOLERANCE_F64: f64 = 1e-10;
/// The same in f32, where one rounding is 6e-8.
const TOLERANCE_F32: f64 = 2e-5;
/// The largest value counts as at least this much, so that gradients that cancel to zero are held to an absolute bound.
const FLOOR: f64 = 0.01;

type Failed<T> = Result<T, String>;

/// One golden file: its cases in order, and all its tensors.
struct Golden {
    cases: Vec<(String, BTreeMap<String, String>)>,
    bytes: Vec<u8>,
}

impl Golden {
    fn read(path: &Path) -> Failed<Golden> {
        #[derive(serde::Deserialize)]
        struct Case {
            name: String,
            attrs: BTreeMap<String, String>,
        }
        #[derive(serde::Deserialize)]
        struct Head {
            cases: Vec<Case>,
        }
        let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
        let (_, meta) = SafeTensors::read_metadata(&bytes).map_err(|e| e.to_string())?;
        let text =
            meta.metadata().as_ref().and_then(|m| m.get("golden")).ok_or("no `golden` in its metadata")?;
        let head: Head = serde_json::from_str(text).map_err(|e| e.to_string())?;
        Ok(Golden { cases: head.cases.into_iter().map(|c| (c.name, c.attrs)).collect(), bytes })
    }
}

/// Ids of 64 bits are range-checked to i32, conditions become u8, reals become `dtype`.
fn tensor(view: &TensorView<'_>, dtype: DType) -> Failed<Tensor> {
    let (device, dims) = (Device::cpu(), view.shape());
    let words = || view.data().chunks_exact(8).map(|b| <[u8; 8]>::try_from(b).expect("chunks of eight"));
    let made = match view.dtype() {
        Dtype::F64 => {
            let v: Vec<f64> = words().map(f64::from_le_bytes).collect();
            Tensor::from_f64(&device, dtype, &v, dims)
        }
        Dtype::I64 => {
            let v: Vec<i32> = words()
                .map(|b| i32::try_from(i64::from_le_bytes(b)).map_err(|e| e.to_string()))
                .collect::<Failed<_>>()?;
            Tensor::from_slice(&device, &v, dims)
        }
        Dtype::BOOL | Dtype::U8 => Tensor::from_slice(&device, view.data(), dims),
        d => return Err(format!("a golden file holds {d:?}")),
    };
    made.map_err(|e| e.to_string())
}

/// One case of one op in one real type.
struct Run<'a> {
    entry: &'static Entry,
    file: &'a SafeTensors<'a>,
    case: &'a str,
    dtype: DType,
    /// Tensors of the case that were used: what is left over is a misspelt input.
    used: std::cell::RefCell<Vec<String>>,
}

impl Run<'_> {
    fn get(&self, name: &str) -> Option<Failed<Tensor>> {
        let key = format!("{}/{name}", self.case);
        let view = self.file.tensor(&key).ok()?;
        self.used.borrow_mut().push(key);
        Some(tensor(&view, self.dtype))
    }

    /// The inputs by the entry's names, in its order; a last port `inputs` takes `inputs.0`, `inputs.1`, …
    fn inputs(&self) -> Failed<Vec<(String, PortKind, Tensor)>> {
        let mut found = Vec::new();
        for port in self.entry.inputs {
            if let Some(t) = self.get(port.name) {
                found.push((port.name.to_string(), port.kind, t?));
                continue;
            }
            let many: Vec<_> = (0..)
                .map(|i| format!("{}.{i}", port.name))
                .map_while(|name| self.get(&name).map(|t| (name, t)))
                .collect();
            if many.is_empty() && !port.optional {
                return Err(format!("the file has no input `{}`", port.name));
            }
            for (name, t) in many {
                found.push((name, port.kind, t?));
            }
        }
        Ok(found)
    }

    fn run(&self, attrs: &BTreeMap<String, String>) -> Failed<f64> {
        let say = |e: ringtape::error::Error| e.to_string();
        let given: Vec<(&String, &String)> = attrs.iter().collect();
        let op = self.entry.build_with(&given).map_err(say)?;
        let inputs = self.inputs()?;
        let params = Params::none(&Device::cpu());
        let tape = Tape::train(&params, 0, 0);
        let var = |(_, kind, t): &(String, PortKind, Tensor)| match kind {
            PortKind::Real => tape.leaf(t.clone()),
            _ => Ok(tape.constant(t.clone())),
        };
        let vars: Vec<Var<'_>> = inputs.iter().map(var).collect::<Result<_, _>>().map_err(say)?;
        let outputs = tape.apply_arc(op, &vars.iter().collect::<Vec<_>>()).map_err(say)?;

        let (mut worst, mut compared) = (0f64, 0);
        let mut seeds = Vec::new();
        for (i, y) in outputs.iter().enumerate() {
            let name = match self.entry.outputs {
                [many] if outputs.len() > 1 || *many == "outputs" => format!("{many}.{i}"),
                names => names[i].to_string(),
            };
            // An output that torch does not have (a kept intermediate) gets no gradient here either.
            let Some(want) = self.get(&format!("out/{name}")) else { continue };
            worst = worst.max(self.compare(&name, y.value(), &want?)?);
            compared += 1;
            if !y.has_gradient() {
                continue; // a choice or an observation
            }
            let seed = self.get(&format!("d{name}")).ok_or(format!("the file has no `d{name}`"))??;
            seeds.push((y, seed));
        }
        if compared == 0 {
            return Err("the file has none of the op's outputs".into());
        }
        if seeds.is_empty() {
            self.nothing_left()?;
            return Ok(worst);
        }
        let mut grads = Grads::new(&params).map_err(say)?;
        let leaves = tape.backward_from(&seeds, &mut grads).map_err(say)?;
        for ((name, kind, t), v) in inputs.iter().zip(&vars) {
            if *kind != PortKind::Real {
                continue;
            }
            let want = self.get(&format!("d/{name}")).ok_or(format!("the file has no `d/{name}`"))??;
            let zero = || Tensor::zeros(t.device(), t.spec());
            let got = leaves.get(v).cloned().map_or_else(zero, Ok).map_err(say)?;
            worst = worst.max(self.compare(&format!("d{name}"), &got, &want)?);
        }
        self.nothing_left()?;
        Ok(worst)
    }

    fn nothing_left(&self) -> Failed<()> {
        let (prefix, used) = (format!("{}/", self.case), self.used.borrow());
        let left = self.file.names().into_iter().filter(|n| n.starts_with(&prefix));
        let left: Vec<_> = left.filter(|n| !used.iter().any(|u| u == n)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("the entry knows nothing of {left:?}")) }
    }

    /// The largest error relative to the largest expected value, when it is within tolerance.
    fn compare(&self, what: &str, got: &Tensor, want: &Tensor) -> Failed<f64> {
        if got.dims() != want.dims() {
            return Err(format!("{what} has shape {}, torch {}", got.shape(), want.shape()));
        }
        let error = distance(&got.to_f64().unwrap(), &want.to_f64().unwrap());
        let tolerance = if self.dtype == DType::F64 { TOLERANCE_F64 } else { TOLERANCE_F32 };
        if error <= tolerance {
            return Ok(error);
        }
        let few = |t: &Tensor| {
            t.to_f64().unwrap().into_iter().take(6).map(|x| format!("{x:.6e}")).collect::<Vec<_>>().join(" ")
        };
        Err(format!(
            "{what} is off by {error:.1e} of its largest value: [{} …], torch [{} …]",
            few(got),
            few(want)
        ))
    }
}

/// Largest |a − b| / max(largest |b|, FLOOR); NaN matches NaN only, an infinity the same infinity only.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let scale = b.iter().filter(|x| x.is_finite()).fold(FLOOR, |m, x| m.max(x.abs()));
    let off = |(x, y): (&f64, &f64)| match (x, y) {
        (x, y) if x == y || (x.is_nan() && y.is_nan()) => 0.0,
        (x, y) if x.is_finite() && y.is_finite() => (x - y).abs() / scale,
        _ => f64::INFINITY,
    };
    a.iter().zip(b).map(off).fold(0.0, f64::max)
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("tests/golden exists")
        .map(|f| f.expect("readable").path())
        .collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    files
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|s| s.to_str()).expect("golden files have ASCII names")
}

#[test]
fn every_op_has_golden_values() {
    let files = files();
    let without: Vec<_> =
        ops::ALL.iter().map(|e| e.name).filter(|n| !files.iter().any(|f| stem(f) == *n)).collect();
    assert!(
        without.is_empty(),
        "no golden values for {without:?}: add cases to tests/golden/make.py and run it"
    );
}

#[test]
fn the_list_of_missing_ops_is_true() {
    let exists = |name: &str| ops::ALL.iter().any(|e| e.name == name);
    let landed: Vec<_> = NOT_YET.iter().filter(|n| exists(n)).collect();
    assert!(landed.is_empty(), "these ops exist now, so take them out of NOT_YET: {landed:?}");
    let unknown: Vec<_> = files().iter().map(|f| stem(f).to_string()).collect();
    let unknown: Vec<_> = unknown.iter().filter(|n| !exists(n) && !NOT_YET.contains(&n.as_str())).collect();
    assert!(unknown.is_empty(), "golden values of ops that do not exist: {unknown:?}");
    if !NOT_YET.is_empty() {
        println!("{} ops have golden values but do not exist yet: {}", NOT_YET.len(), NOT_YET.join(", "));
    }
}

#[test]
fn every_case_agrees_with_torch() {
    let (mut failures, mut count) = (Vec::new(), 0);
    for path in files() {
        let Some(&entry) = ops::ALL.iter().find(|e| e.name == stem(&path)) else { continue };
        let golden = Golden::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file =
            SafeTensors::deserialize(&golden.bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!golden.cases.is_empty(), "{} holds no case", path.display());
        let mut worst = [0f64; 2];
        for (case, attrs) in &golden.cases {
            for (i, dtype) in [DType::F64, DType::F32].into_iter().enumerate() {
                count += 1;
                let run = Run { entry, file: &file, case, dtype, used: Default::default() };
                match run.run(attrs) {
                    Ok(e) => worst[i] = worst[i].max(e),
                    Err(e) => failures.push(format!("{} / {case} / {dtype}: {e}", entry.name)),
                }
            }
        }
        println!("{:<30} worst error f64 {:.1e}, f32 {:.1e}", entry.name, worst[0], worst[1]);
    }
    assert!(
        failures.is_empty(),
        "{} of {count} runs differ from torch:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn the_comparison_has_bite() {
    assert_eq!(distance(&[1.0, f64::NAN, f64::INFINITY], &[1.0, f64::NAN, f64::INFINITY]), 0.0);
    assert!(distance(&[1.0 + 1e-9], &[1.0]) > TOLERANCE_F64);
    assert!(distance(&[1e-11], &[0.0]) > TOLERANCE_F64);
    assert_eq!(distance(&[f64::NAN], &[1.0]), f64::INFINITY);
    assert_eq!(distance(&[1.0], &[f64::NAN]), f64::INFINITY);
    assert_eq!(distance(&[f64::INFINITY], &[f64::NEG_INFINITY]), f64::INFINITY);
}
