//! The software CUDA device against a corpus of kernels that nvcc, Triton and people wrote, and one kernel for each form
//! of an instruction. What each should answer was computed without a look at the PTX (see tests/ptx/README.md).

use ringtape::check::ptx::{Exam, Manifest, Outcome, Programs, read, run};
use ringtape::error::Result;
use ringtape::ptx::run::{Launch, Loaded, Memory, Options, launch};
#[cfg(feature = "cuda")]
use ringtape::{
    check::ptx::run_on,
    device::{Call, Device},
};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ptx")
}

fn manifests(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(corpus().join(folder)).unwrap();
    let mut found: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "json"));
    found.sort();
    found
}

/// Runs every manifest of a folder by `how`; returns (launches, what went wrong).
fn every_launch(
    folder: &str,
    how: impl Fn(&mut Programs, &Path, &Manifest) -> Result<Outcome>,
) -> (usize, Vec<String>) {
    let (mut launches, mut wrong) = (0, Vec::new());
    for file in manifests(folder) {
        let mut programs = Programs::default();
        for m in read(&file).unwrap() {
            launches += 1;
            let name = format!("{folder}/{}: {}", m.ptx.display(), m.kernel);
            match how(&mut programs, file.parent().unwrap(), &m) {
                Ok(o) => {
                    wrong.extend(o.faults.iter().map(|f| format!("{name}: {f}")));
                    wrong.extend(o.differences.iter().map(|d| format!("{name}: {d}")));
                }
                Err(e) => wrong.push(format!("{name}: {e}")),
            }
        }
    }
    (launches, wrong)
}

fn all_right(folder: &str, least: usize) {
    let (launches, wrong) =
        every_launch(folder, |programs, folder, m| run(programs, folder, m, Exam::default()));
    assert!(launches >= least, "{folder} holds {launches} launches");
    assert!(wrong.is_empty(), "{} of {launches} launches:\n{}", wrong.len(), wrong.join("\n"));
}

/// A GPU answers what the manifests expect too, or with RUNTIME_CUDA=soft the software device behind `cust`: then the
/// corpus, and with it the software device, says what hardware does. Files of a newer version than drivers of CUDA 13.0 read say
/// that they have that version: none of them holds anything newer.
#[cfg(feature = "cuda")]
#[test]
fn kernels_compute_what_they_should_through_cust_too() {
    let device = Device::open("cuda:0").unwrap();
    let (copy, mut all) = (tempfile::tempdir().unwrap(), Vec::new());
    std::os::unix::fs::symlink(corpus().join("data"), copy.path().join("data")).unwrap();
    for (folder, least) in [("cuda", 100), ("triton", 40), ("syntax", 10)] {
        let (from, to) = (corpus().join(folder), copy.path().join(folder));
        fs::create_dir(&to).unwrap();
        for file in fs::read_dir(from).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
            let text = fs::read_to_string(&file).unwrap().replace(".version 9.4", ".version 9.0");
            fs::write(to.join(file.file_name().unwrap()), text).unwrap();
        }
        let (launches, wrong) = every_launch(folder, |programs, _, m| run_on(&device, programs, &to, m));
        assert!(launches >= least, "{folder} holds {launches} launches");
        all.extend(wrong);
    }
    assert!(all.is_empty(), "{} launches:\n{}", all.len(), all.join("\n"));
    assert_eq!(device.driver().unwrap().used(), 0);
}

#[test]
fn kernels_of_nvcc_compute_what_they_should() {
    all_right("cuda", 100);
}

#[test]
fn kernels_of_triton_compute_what_they_should() {
    all_right("triton", 40);
}

#[test]
fn kernels_written_to_stress_the_reader_compute_what_they_should() {
    all_right("syntax", 10);
}

#[derive(serde::Deserialize)]
struct Forms {
    elements: usize,
    inputs: HashMap<String, String>,
    forms: Vec<Form>,
}

#[derive(serde::Deserialize)]
struct Form {
    kernel: String,
    out: String,
    #[serde(rename = "in")]
    inputs: Vec<String>,
    expect: String,
    #[serde(default)]
    rtol: f64,
    #[serde(default)]
    atol: f64,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn value(raw: &[u8], ty: &str) -> Option<f64> {
    Some(match ty {
        "f32" | "tf32" => f64::from(f32::from_le_bytes(raw.try_into().unwrap())),
        "f64" => f64::from_le_bytes(raw.try_into().unwrap()),
        "f16" => f64::from(half::f16::from_le_bytes(raw.try_into().unwrap()).to_f32()),
        "bf16" => f64::from(half::bf16::from_le_bytes(raw.try_into().unwrap()).to_f32()),
        _ => return None,
    })
}

/// The first element of `got` that is not as expected.
fn difference(form: &Form, got: &[u8], want: &[u8], elements: usize) -> Option<String> {
    let size = want.len() / elements;
    let (part, kind) = match form.out.strip_suffix("x2") {
        Some(kind) if size == 4 => (2, kind),
        _ => (size, form.out.as_str()),
    };
    let pairs = got.chunks(part).zip(want.chunks(part)).enumerate();
    let mut wrong = pairs.filter(|(_, (x, y))| match (value(x, kind), value(y, kind)) {
        (Some(a), Some(b)) if a.is_nan() && b.is_nan() => false,
        (Some(a), Some(b)) => {
            x != y
                && !((a - b).abs() <= form.atol + form.rtol * b.abs() && (form.rtol > 0.0 || form.atol > 0.0))
        }
        _ => x != y,
    });
    let (i, (x, y)) = wrong.next()?;
    let i = i * part / size;
    Some(format!(
        "{}: element {i} of {elements} is {x:02x?}, expected {y:02x?}; {} more",
        form.kernel,
        wrong.count()
    ))
}

/// Bytes that a form's output is followed by and must leave.
const RIM: [u8; 64] = [0xa5; 64];

/// Through `cust`.
#[cfg(feature = "cuda")]
#[test]
fn every_form_computes_what_the_isa_says_through_cust_too() {
    let device = Device::open("cuda:0").unwrap();
    let driver = device.driver().unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for (ptx, forms) in forms() {
        let module = match driver.load(&ptx.display().to_string(), &fs::read_to_string(&ptx).unwrap()) {
            Ok(module) => module,
            Err(e) => {
                wrong.push(e.to_string());
                continue;
            }
        };
        for f in &forms.forms {
            count += 1;
            let want = unhex(&f.expect);
            let mut rented = Vec::new();
            let mut put = |raw: &[u8]| {
                let at = driver.alloc(raw.len() as u64).unwrap();
                driver.copy_in(at, raw, driver.default_stream()).unwrap();
                rented.push(at);
                at.to_le_bytes()
            };
            let mut params = put(&[vec![RIM[0]; want.len()], RIM.to_vec()].concat()).to_vec();
            f.inputs.iter().for_each(|name| params.extend(put(&unhex(&forms.inputs[name]))));
            params.extend((forms.elements as u32).to_le_bytes());
            let (grid, block) = ([1; 3], [192, 1, 1]);
            let call = Call { module, entry: &f.kernel, grid, block, shared_bytes: 0, params: &params };
            let mut got = vec![0; want.len() + RIM.len()];
            let ran = driver
                .launch(&call, driver.default_stream())
                .and_then(|()| driver.copy_out(rented[0], &mut got, driver.default_stream()));
            rented.iter().for_each(|&at| driver.free(at));
            match ran {
                Ok(()) => wrong.extend(verdict(f, &got, &want, forms.elements)),
                Err(e) => wrong.push(format!("{}: {e}", f.kernel)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} forms:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is wrong with an output and its rim.
fn verdict(f: &Form, got: &[u8], want: &[u8], elements: usize) -> Option<String> {
    if got[want.len()..] != RIM {
        return Some(format!("{}: writes beyond its output", f.kernel));
    }
    difference(f, &got[..want.len()], want, elements)
}

/// Each file of forms: its PTX and what it holds.
fn forms() -> impl Iterator<Item = (PathBuf, Forms)> {
    manifests("forms").into_iter().map(|file| {
        let forms = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        (file.with_extension("ptx"), forms)
    })
}

fn form(program: &ringtape::ptx::program::Program, f: &Form, forms: &Forms) -> Option<String> {
    let memory = Memory::new(0, 1 << 24).unwrap();
    let want = unhex(&f.expect);
    let loaded = Loaded::new(program, &memory).unwrap();
    let mut params = Vec::new();
    let out = memory.alloc((want.len() + RIM.len()) as u64).unwrap();
    memory.write(out, &vec![RIM[0]; want.len() + RIM.len()]);
    params.extend(out.to_le_bytes());
    for name in &f.inputs {
        let raw = unhex(&forms.inputs[name]);
        let at = memory.alloc(raw.len() as u64).unwrap();
        memory.write(at, &raw);
        params.extend(at.to_le_bytes());
    }
    params.extend((forms.elements as u32).to_le_bytes());
    let index = program.functions.iter().position(|e| e.name == f.kernel)?;
    let printed = Mutex::new(String::new());
    let l = Launch {
        program,
        entry: &program.functions[index],
        entry_index: index as u32,
        grid: [1, 1, 1],
        block: [192, 1, 1],
        dynamic_shared: 0,
        params: &params,
        variables: &loaded.variables,
        memory: &[&memory],
        printed: &printed,
        options: Options::default(),
    };
    if let Err(e) = l.validate() {
        return Some(format!("{}: {e}", f.kernel));
    }
    if let Err(fault) = launch(&l, &mut None) {
        return Some(fault.to_string());
    }
    let mut got = vec![0; want.len() + RIM.len()];
    memory.read(out, &mut got);
    verdict(f, &got, &want, forms.elements)
}

#[test]
fn every_form_of_an_instruction_computes_what_the_isa_says() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (ptx, forms) in forms() {
        let text = fs::read_to_string(&ptx).unwrap();
        match ringtape::ptx::load(&ptx.display().to_string(), &text) {
            Ok(program) => {
                count += forms.forms.len();
                wrong.extend(forms.forms.iter().filter_map(|f| form(&program, f, &forms)));
            }
            Err(e) => wrong.push(e.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{} of {count} forms:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 900, "{count} forms");
}

#[derive(serde::Deserialize)]
struct Planted {
    faulty: String,
    kind: String,
    lines: Vec<u32>,
    clean: Option<String>,
}

/// What a checked launch reports, or the error that refuses it.
fn findings(folder: &str, file: &str) -> Vec<(String, u32, String)> {
    let (folder, mut programs) = (corpus().join(folder), Programs::default());
    let mut found = Vec::new();
    for m in read(&folder.join(file)).unwrap() {
        let mut exam = Exam { check: true, ..Exam::default() };
        exam.options.most_steps = 2_000_000;
        match run(&mut programs, &folder, &m, exam) {
            Ok(o) => {
                let ok = |kind: &str| m.finds.as_deref() == Some(kind);
                assert!(
                    m.finds.is_none() || o.faults.iter().any(|f| ok(f.kind)),
                    "{file}: nothing finds {:?}",
                    m.finds
                );
                found.extend(
                    o.faults
                        .iter()
                        .filter(|f| !ok(f.kind))
                        .map(|f| (f.kind.to_owned(), f.line, f.to_string())),
                );
            }
            Err(e) => found.push(("unsupported".into(), 0, format!("{}: {e}", m.kernel))),
        }
    }
    found
}

#[test]
fn every_planted_fault_is_found_at_its_line_and_its_clean_twin_is_not() {
    let text = fs::read(corpus().join("faults/index.json")).unwrap();
    let all: Vec<Planted> = serde_json::from_slice(&text).unwrap();
    assert!(all.len() >= 40);
    let mut wrong = Vec::new();
    for p in &all {
        let found = findings("faults", &p.faulty);
        let right =
            |f: &(String, u32, String)| f.0 == p.kind && (p.lines.contains(&f.1) || f.0 == "unsupported");
        if !found.iter().any(right) || !found.iter().all(right) {
            wrong.push(format!("{}: {} at {:?} was found as {found:?}", p.faulty, p.kind, p.lines));
        }
        for f in p.clean.iter().flat_map(|clean| findings("faults", clean)) {
            wrong.push(format!("{:?}: {}", p.clean, f.2));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

#[test]
fn checks_find_nothing_in_kernels_that_are_right() {
    let mut wrong = Vec::new();
    for folder in ["cuda", "triton", "syntax"] {
        for file in manifests(folder) {
            let found = findings(folder, &file.file_name().unwrap().to_string_lossy());
            wrong.extend(found.into_iter().map(|f| f.2));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
