//! Kernels from PTX files, run as a manifest says and compared with what it expects.

pub use super::watched::Spent;
use super::watched::Watched;
use crate::data::readers::stored_npy;
use crate::error::{Error, Result};
use crate::ptx::checks::Record;
use crate::ptx::profile::lanes::Step;
use crate::ptx::program::{Param, Program};
use crate::ptx::run::memory::Found;
use crate::ptx::run::{Fault, Launch, Loaded, Memory, Options, Report, launch};
use crate::shape::DType;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Memory of the device that a manifest runs on: pages come from the system when they are written.
const MEMORY: u64 = 64 << 30;

/// One launch of a manifest.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// PTX file, from the manifest's folder.
    pub ptx: PathBuf,
    /// Entry.
    pub kernel: String,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    #[serde(default)]
    pub shared_bytes: u32,
    /// Arguments, in the order of the entry's parameters.
    pub args: Vec<Arg>,
    /// Lines that `printf` must write, in any order.
    pub printed: Option<Vec<String>>,
    /// A finding that checks must report, although the result is right.
    pub finds: Option<String>,
}

/// An argument.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "named by their types")]
pub struct Arg {
    /// `.npy` file with what a buffer holds at first.
    pub buffer: Option<PathBuf>,
    /// `.npy` file with what it must hold afterwards.
    pub expect: Option<PathBuf>,
    /// Allowed error relative to the expected value.
    #[serde(default)]
    pub rtol: f64,
    /// Allowed absolute error.
    #[serde(default)]
    pub atol: f64,
    /// A buffer of so many bytes that nobody has written.
    pub alloc: Option<u64>,
    /// The argument byte by byte.
    pub bytes: Option<Vec<u8>>,
    pub i32: Option<i32>,
    pub u32: Option<u32>,
    pub i64: Option<i64>,
    pub u64: Option<u64>,
    pub f32: Option<f32>,
    pub f64: Option<f64>,
}

/// How to run a manifest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exam {
    /// Options of the launch.
    pub options: Options,
    /// Looks for accesses out of bounds, uninitialised reads and races; slower.
    pub check: bool,
    /// Counts what the launch costs.
    pub profile: bool,
    /// Registers of a thread that estimates assume; what the text seems to need when none are given.
    pub registers: Option<u32>,
    /// Draws a timeline, as launch number so and so.
    pub trace: Option<usize>,
    /// Keeps which lanes of the first warp take part in each instruction.
    pub lanes: bool,
}

/// What a launch gave.
#[derive(Debug, serde::Serialize)]
pub struct Outcome {
    /// PTX file.
    pub ptx: String,
    /// Entry.
    pub kernel: String,
    /// Differences from what was expected, one for each buffer.
    pub differences: Vec<String>,
    /// What the kernel did wrong.
    pub faults: Vec<Fault>,
    /// What `printf` wrote.
    pub printed: String,
    /// Instructions that ran.
    pub report: Report,
    /// Seconds of the launch.
    pub seconds: f64,
    /// What it cost, when that was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Spent>,
    /// Events of its timeline.
    #[serde(skip)]
    pub trace: Vec<serde_json::Value>,
    /// What the first warp ran, when that was kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<Step>,
}

impl Outcome {
    /// True when all is as the manifest says.
    pub fn passed(&self) -> bool {
        self.differences.is_empty() && self.faults.is_empty()
    }
}

/// Reads a manifest: one launch, or a list.
///
/// # Errors
/// Names the file and what is wrong in it.
pub fn read(path: &Path) -> Result<Vec<Manifest>> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Either {
        Many(Vec<serde_json::Value>),
        One(serde_json::Value),
    }
    let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
    let bad = |e: serde_json::Error| {
        Error::data(path, None, format!("{e}; `ringtape ptx run --help` shows a manifest"))
    };
    let all = match serde_json::from_slice(&bytes).map_err(bad)? {
        Either::Many(all) => all,
        Either::One(one) => vec![one],
    };
    all.into_iter().map(|v| serde_json::from_value(v).map_err(bad)).collect()
}

/// The text of a PTX file.
///
/// # Errors
/// When it cannot be read or is no text.
pub fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to() as u64;
        Error::data(path, Some(at), "this byte is no UTF-8, so the file is no PTX text")
    })
}

/// PTX files that several launches share, read once.
#[derive(Default)]
pub struct Programs(HashMap<PathBuf, Program>);

impl Programs {
    /// The program in `path`.
    ///
    /// # Errors
    /// When the file cannot be read or its PTX is wrong.
    pub fn get(&mut self, path: &Path) -> Result<&Program> {
        if !self.0.contains_key(path) {
            let text = text(path)?;
            self.0.insert(path.into(), crate::ptx::load(&path.display().to_string(), &text)?);
        }
        Ok(&self.0[path])
    }
}

/// A buffer of the launch, and what is expected of it.
struct Buffer<'m> {
    arg: usize,
    address: u64,
    from: &'m Arg,
    name: String,
}

/// Index of the entry named so.
fn entry(path: &Path, program: &Program, name: &str) -> Result<usize> {
    program.functions.iter().position(|f| f.entry && f.name == name).ok_or_else(|| {
        let known: Vec<&str> =
            program.functions.iter().filter(|f| f.entry).map(|f| f.name.as_str()).collect();
        Error::data(path, None, format!("has no entry `{name}`; it has {}", known.join(", ")))
    })
}

/// Runs one launch of the manifest in `folder`.
///
/// # Errors
/// When files are missing or do not fit; what the kernel does wrong is part of the outcome.
pub fn run(programs: &mut Programs, folder: &Path, m: &Manifest, exam: Exam) -> Result<Outcome> {
    let path = folder.join(&m.ptx);
    let program = programs.get(&path)?;
    let entry_index = entry(&path, program, &m.kernel)?;
    let entry = &program.functions[entry_index];
    let memory = Memory::new(0, MEMORY)?;
    let (params, buffers) = arguments(folder, m, &entry.params, entry.param_bytes, &memory)?;
    let loaded = Loaded::new(program, &memory)?;
    let printed = Mutex::new(String::new());
    let to_run = Launch {
        program,
        entry,
        entry_index: entry_index as u32,
        grid: m.grid,
        block: m.block,
        dynamic_shared: m.shared_bytes,
        params: &params,
        variables: &loaded.variables,
        memory: &[&memory],
        printed: &printed,
        options: exam.options,
    };
    to_run.validate()?;
    let start = std::time::Instant::now();
    let (watched, mut watch) = Watched::new(exam, || recorded(&memory, &buffers, &loaded));
    let result = launch(&to_run, &mut watch);
    // The watchers hand over what they saw when they go.
    drop(watch);
    let seconds = start.elapsed().as_secs_f64();
    let mut faults = watched.faults();
    let (report, ran) = match result {
        Ok(report) => (report, true),
        Err(fault) => {
            faults.push(*fault);
            (Report::default(), false)
        }
    };
    let mut differences = Vec::new();
    if ran {
        for b in buffers {
            differences.extend(compare(folder, &b, &memory)?);
        }
        differences.extend(m.printed.as_ref().and_then(|want| {
            lines_differ(want, &printed.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        }));
    }
    let profile = watched.spent(program, &m.kernel, exam.registers)?;
    let printed = printed.into_inner().unwrap_or_default();
    let (ptx, kernel) = (path.display().to_string(), m.kernel.clone());
    let (trace, lanes) = (watched.trace(), watched.lanes());
    Ok(Outcome { ptx, kernel, differences, faults, printed, report, seconds, profile, trace, lanes })
}

/// What the host has written before the launch.
fn recorded(memory: &Memory, buffers: &[Buffer<'_>], loaded: &Loaded) -> Record {
    let mut record = Record::default();
    for &at in buffers.iter().map(|b| &b.address).chain(&loaded.variables) {
        if let Found::Live(start, bytes) = memory.find(at) {
            record.written.write(start, bytes);
        }
    }
    record
}

/// Parameter bytes, and the buffers that they name.
fn arguments<'m>(
    folder: &Path,
    m: &'m Manifest,
    params: &[Param],
    bytes: u32,
    memory: &Memory,
) -> Result<(Vec<u8>, Vec<Buffer<'m>>)> {
    if params.len() != m.args.len() {
        let what = format!(
            "`{}` takes {} arguments and the manifest gives {}",
            m.kernel,
            params.len(),
            m.args.len()
        );
        return Err(Error::data(folder.join(&m.ptx), None, what));
    }
    let mut all = vec![0u8; bytes as usize];
    let mut buffers = Vec::new();
    for (k, (p, arg)) in params.iter().zip(&m.args).enumerate() {
        let value = value(folder, arg, memory)?;
        if value.len() != p.bytes as usize {
            let what = format!(
                "argument {k} (`{}`) of `{}` has {} bytes, the manifest gives {}",
                p.name,
                m.kernel,
                p.bytes,
                value.len()
            );
            return Err(Error::data(folder.join(&m.ptx), None, what));
        }
        if arg.buffer.is_some() {
            let address = u64::from_le_bytes(value[..8].try_into().unwrap_or_default());
            buffers.push(Buffer { arg: k, address, from: arg, name: p.name.clone() });
        }
        all[p.offset as usize..][..value.len()].copy_from_slice(&value);
    }
    Ok((all, buffers))
}

/// The bytes of one argument.
fn value(folder: &Path, arg: &Arg, memory: &Memory) -> Result<Vec<u8>> {
    let scalars = [
        arg.i32.map(|v| v.to_le_bytes().to_vec()),
        arg.u32.map(|v| v.to_le_bytes().to_vec()),
        arg.i64.map(|v| v.to_le_bytes().to_vec()),
        arg.u64.map(|v| v.to_le_bytes().to_vec()),
        arg.f32.map(|v| v.to_le_bytes().to_vec()),
        arg.f64.map(|v| v.to_le_bytes().to_vec()),
        arg.bytes.clone(),
    ];
    let mut given = scalars.into_iter().flatten();
    if let Some(file) = &arg.buffer {
        let path = folder.join(file);
        let raw = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let data = stored_npy(&path, &raw)?.data;
        let at = memory.alloc(data.len() as u64)?;
        memory.write(at, data);
        return Ok(at.to_le_bytes().to_vec());
    }
    if let Some(bytes) = arg.alloc {
        return Ok(memory.alloc(bytes)?.to_le_bytes().to_vec());
    }
    given.next().ok_or_else(|| {
        Error::data(
            folder,
            None,
            "an argument names no value: give it a buffer, alloc, bytes, or i32, u32, i64, u64, f32, f64",
        )
    })
}

/// The first element that differs from what is expected.
fn compare(folder: &Path, b: &Buffer<'_>, memory: &Memory) -> Result<Option<String>> {
    let Some(file) = &b.from.expect else { return Ok(None) };
    let path = folder.join(file);
    let raw = fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let want = stored_npy(&path, &raw)?;
    let mut got = vec![0; want.data.len()];
    if !memory.read(b.address, &mut got) {
        return Err(Error::data(&path, None, "is larger than the buffer that it is compared with"));
    }
    let size = want.wide.as_ref().map_or(want.dtype.size(), |w| w.size());
    let close = |x: f64, y: f64| {
        x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= b.from.atol + b.from.rtol * y.abs()
    };
    let float = |raw: &[u8]| match want.dtype {
        DType::F32 => Some(f64::from(f32::from_le_bytes(raw.try_into().ok()?))),
        DType::F64 => Some(f64::from_le_bytes(raw.try_into().ok()?)),
        DType::F16 => Some(f64::from(half::f16::from_le_bytes(raw.try_into().ok()?).to_f32())),
        _ => None,
    };
    for (i, (x, y)) in got.chunks_exact(size).zip(want.data.chunks_exact(size)).enumerate() {
        let (same, shown) = match (float(x), float(y)) {
            (Some(x), Some(y)) => (close(x, y), format!("{x:?}, expected {y:?}")),
            _ => (x == y, format!("{:#x}, expected {:#x}", integer(x), integer(y))),
        };
        if !same {
            let differ =
                got.chunks_exact(size).zip(want.data.chunks_exact(size)).filter(|(x, y)| x != y).count();
            let n = got.len() / size;
            let name = &b.name;
            return Ok(Some(format!(
                "argument {} ({name}): element {i} is {shown}; {differ} of {n} differ in bits",
                b.arg
            )));
        }
    }
    Ok(None)
}

fn integer(raw: &[u8]) -> u64 {
    raw.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))
}

fn lines_differ(want: &[String], printed: &str) -> Option<String> {
    let mut want: Vec<&str> = want.iter().map(String::as_str).collect();
    let mut got: Vec<&str> = printed.lines().collect();
    want.sort_unstable();
    got.sort_unstable();
    (want != got).then(|| format!("printed {got:?}, expected {want:?}"))
}
