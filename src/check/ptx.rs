//! Kernels from PTX files, run as a manifest says and compared with what it expects.

pub use super::manifest::{Arg, Manifest, read};
use super::manifest::{Buffer, Room, arguments, compare, lines_differ};
pub use super::watched::Spent;
use super::watched::Watched;
use crate::device::{Call, Device, Driver};
use crate::error::{Error, Result};
use crate::ptx::checks::Record;
use crate::ptx::profile::lanes::Step;
use crate::ptx::program::Program;
use crate::ptx::run::memory::Found;
use crate::ptx::run::{Fault, Launch, Loaded, Memory, Options, Report, launch};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Memory of the device that a manifest runs on: pages come from the system when they are written.
const MEMORY: u64 = 64 << 30;

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
#[derive(Debug, Default, serde::Serialize)]
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
        differences.extend(
            m.printed
                .as_ref()
                .and_then(|want| lines_differ(want, &printed.lock().unwrap_or_else(PoisonError::into_inner))),
        );
    }
    let profile = watched.spent(program, &m.kernel, exam.registers)?;
    let printed = printed.into_inner().unwrap_or_default();
    let (ptx, kernel) = (path.display().to_string(), m.kernel.clone());
    let (trace, lanes) = (watched.trace(), watched.lanes());
    Ok(Outcome { ptx, kernel, differences, faults, printed, report, seconds, profile, trace, lanes })
}

/// Runs one launch of the manifest in `folder` on `device`, a GPU say, without the checks that only the software device has.
/// What printf writes goes where the driver puts it, and is not compared.
///
/// # Errors
/// When files are missing or do not fit, the device runs no PTX, or the driver refuses the kernel or stops it.
pub fn run_on(device: &Device, programs: &mut Programs, folder: &Path, m: &Manifest) -> Result<Outcome> {
    let path = folder.join(&m.ptx);
    let program = programs.get(&path)?;
    let entry = &program.functions[entry(&path, program, &m.kernel)?];
    let driver = device.ptx_driver()?.as_ref();
    let room = Rented { driver, all: Mutex::default() };
    let (params, buffers) = arguments(folder, m, &entry.params, entry.param_bytes, &room)?;
    let module = driver.load(&path.display().to_string(), &text(&path)?)?;
    let shared_bytes = m.shared_bytes;
    let call = Call { module, entry: &m.kernel, grid: m.grid, block: m.block, shared_bytes, params: &params };
    driver.synchronize()?;
    let start = std::time::Instant::now();
    driver.launch(&call, driver.default_stream())?;
    driver.synchronize()?;
    let seconds = start.elapsed().as_secs_f64();
    let mut outcome =
        Outcome { ptx: path.display().to_string(), kernel: m.kernel.clone(), seconds, ..Outcome::default() };
    for b in buffers {
        outcome.differences.extend(compare(folder, &b, &room)?);
    }
    Ok(outcome)
}

/// Memory of a device for one launch.
struct Rented<'d> {
    driver: &'d dyn Driver,
    all: Mutex<Vec<u64>>,
}

impl Room for Rented<'_> {
    fn alloc(&self, bytes: u64) -> Result<u64> {
        let at = self.driver.alloc(bytes)?;
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(at);
        Ok(at)
    }
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.driver.copy_in(at, bytes, self.driver.default_stream())
    }
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<bool> {
        self.driver.copy_out(at, bytes, self.driver.default_stream()).map(|()| true)
    }
}

impl Drop for Rented<'_> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|at| self.driver.free(at));
    }
}

impl Room for Memory {
    fn alloc(&self, bytes: u64) -> Result<u64> {
        Memory::alloc(self, bytes)
    }
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        Memory::write(self, at, bytes);
        Ok(())
    }
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<bool> {
        Ok(Memory::read(self, at, bytes))
    }
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
