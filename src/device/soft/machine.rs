//! [`Machine`]: the software devices of one process, their memories, modules and launches.

use super::super::driver::Call;
use super::{DEVICES, Streams};
use crate::error::{Error, Result};
use crate::ptx::checks::{Checker, Record};
use crate::ptx::program::Program;
use crate::ptx::run::memory::Found;
use crate::ptx::run::{Fault, Launch, Loaded, Memory, Options, Watch, launch};
use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of a device's memory; pages are taken from the system when they are written.
const MEMORY: u64 = 64 << 30;

/// How the devices of a machine run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Looks for accesses out of bounds, uninitialised reads and races; slower. What is found is the error of its launch.
    pub check: bool,
    /// Options of every launch.
    pub options: Options,
    /// Draws the order in which streams run.
    pub seed: u64,
    /// Findings go into this file, one JSON object a line, and are no errors; checks are on.
    pub report: Option<PathBuf>,
}

impl Settings {
    /// `SOFTCUDA_REPORT` names the file of findings, `SOFTCUDA_SEED` the seed, `SOFTCUDA_WORST=1` asks for the worst
    /// approximate instructions, `SOFTCUDA_CHECK=1` for checks.
    pub fn from_env() -> Settings {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let on = |name: &str| var(name).is_some_and(|v| v != "0");
        let report = var("SOFTCUDA_REPORT").map(PathBuf::from);
        Settings {
            check: on("SOFTCUDA_CHECK") || report.is_some(),
            options: Options { worst: on("SOFTCUDA_WORST"), ..Options::default() },
            seed: var("SOFTCUDA_SEED").and_then(|v| v.parse().ok()).unwrap_or(0),
            report,
        }
    }
}

/// A module on a device.
pub struct SoftModule {
    /// The program.
    pub program: Program,
    /// Its variables in the memory of its device.
    pub loaded: Loaded,
    /// The device.
    pub device: u32,
}

/// Software devices that know one another: `soft:0` to `soft:7`.
pub struct Machine {
    settings: Settings,
    memories: [OnceLock<Memory>; DEVICES as usize],
    records: [Arc<Mutex<Record>>; DEVICES as usize],
    modules: Mutex<HashMap<u64, Arc<SoftModule>>>,
    peers: Mutex<HashSet<(u32, u32)>>,
    streams: Streams,
    next: AtomicU64,
    launches: AtomicU64,
    instructions: AtomicU64,
    to_host: [AtomicU64; DEVICES as usize],
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is valid after every statement.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// A machine whose devices have nothing in memory.
    pub fn new(settings: Settings) -> Machine {
        Machine {
            memories: std::array::from_fn(|_| OnceLock::new()),
            records: std::array::from_fn(|_| Arc::default()),
            modules: Mutex::default(),
            peers: Mutex::default(),
            streams: Streams::new(DEVICES, settings.seed),
            next: AtomicU64::new(1),
            launches: AtomicU64::new(0),
            instructions: AtomicU64::new(0),
            to_host: Default::default(),
            settings,
        }
    }

    /// A machine with every check on and approximate instructions as wrong as their documentation allows.
    pub fn strict() -> Arc<Machine> {
        let options = Options { worst: true, ..Options::default() };
        Arc::new(Machine::new(Settings { check: true, options, ..Settings::default() }))
    }

    /// How it runs.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Streams and events.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Kernels that were launched so far.
    pub fn launches(&self) -> u64 {
        self.launches.load(Relaxed)
    }

    /// Thread-instructions that kernels ran so far.
    pub fn thread_instructions(&self) -> u64 {
        self.instructions.load(Relaxed)
    }

    /// Bytes that were copied from a device to the host so far.
    pub fn bytes_to_host(&self, device: u32) -> u64 {
        self.to_host[device as usize].load(Relaxed)
    }

    /// Memory of a device.
    ///
    /// # Errors
    /// When the system has no addresses for it.
    pub fn memory(&self, device: u32) -> Result<&Memory> {
        let cell = &self.memories[device as usize];
        if let Some(memory) = cell.get() {
            return Ok(memory);
        }
        let new = Memory::new(device, MEMORY)?;
        Ok(cell.get_or_init(|| new))
    }

    /// The device whose memory an address is in.
    pub fn owner(&self, address: u64) -> Option<(u32, &Memory)> {
        let all = self.memories.iter().enumerate();
        all.filter_map(|(d, m)| Some((d as u32, m.get()?))).find(|(_, m)| m.offset(address, 0).is_some())
    }

    fn record(&self, device: u32) -> Option<MutexGuard<'_, Record>> {
        self.settings.check.then(|| locked(&self.records[device as usize]))
    }

    fn outside(address: u64, bytes: u64) -> Error {
        Error::Fault(format!("{bytes} bytes at {address:#x} lie in no memory of a software device"))
    }

    /// Error unless `bytes` at `address` lie in one live allocation: what a copy or fill may touch.
    fn live(&self, address: u64, bytes: u64) -> Result<(u32, &Memory)> {
        let (device, memory) = self.owner(address).ok_or_else(|| Machine::outside(address, bytes))?;
        match memory.find(address) {
            Found::Live(start, size) if address - start + bytes <= size => Ok((device, memory)),
            _ if bytes == 0 => Ok((device, memory)),
            Found::Freed(start, size) => Err(Error::Fault(format!(
                "{bytes} bytes at {address:#x} lie in memory that was freed ({size} bytes at {start:#x})"
            ))),
            Found::Live(start, size) => Err(Error::Fault(format!(
                "{bytes} bytes at {address:#x} leave their allocation of {size} bytes at {start:#x}"
            ))),
            Found::Nothing(_) => Err(Machine::outside(address, bytes)),
        }
    }

    /// Takes memory of a device.
    ///
    /// # Errors
    /// When it is full.
    pub fn alloc(&self, device: u32, bytes: u64) -> Result<u64> {
        let at = self.memory(device)?.alloc(bytes)?;
        if let Some(mut record) = self.record(device) {
            record.written.forget(at, bytes);
        }
        Ok(at)
    }

    /// Gives it back. False when no allocation begins there.
    pub fn free(&self, address: u64) -> bool {
        self.owner(address).is_some_and(|(_, memory)| memory.free(address))
    }

    /// Copies from the host.
    ///
    /// # Errors
    /// When the range is no memory that was allocated.
    pub fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        let (device, memory) = self.live(to, bytes.len() as u64)?;
        memory.write(to, bytes);
        if let Some(mut record) = self.record(device) {
            record.written.write(to, bytes.len() as u64);
        }
        Ok(())
    }

    /// Copies to the host.
    ///
    /// # Errors
    /// When the range is no memory that was allocated.
    pub fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        let device = self.peek(from, bytes)?;
        self.to_host[device as usize].fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }

    fn peek(&self, from: u64, bytes: &mut [u8]) -> Result<u32> {
        let (device, memory) = self.live(from, bytes.len() as u64)?;
        memory.read(from, bytes);
        Ok(device)
    }

    /// Copies between any two places. What was never written counts as that in its new place too.
    ///
    /// # Errors
    /// When a range is no memory that was allocated.
    pub fn copy(&self, from: u64, to: u64, bytes: u64) -> Result<()> {
        const PIECE: u64 = 1 << 20;
        let (there, _) = self.live(to, bytes)?;
        let (here, _) = self.live(from, bytes)?;
        let gaps = self.record(here).map(|mut record| record.written.gaps(from, bytes));
        let mut piece = vec![0; bytes.min(PIECE) as usize];
        // Ranges that overlap are copied as if there were a copy between, as long as they go up; CUDA promises nothing.
        for at in (0..bytes).step_by(PIECE as usize) {
            let piece = &mut piece[..(bytes - at).min(PIECE) as usize];
            self.peek(from + at, piece)?;
            self.write(to + at, piece)?;
        }
        if let Some(mut record) = self.record(there) {
            gaps.into_iter().flatten().for_each(|(at, n)| record.written.forget(to + at, n));
        }
        Ok(())
    }

    /// Sets `n` elements of `size` bytes.
    ///
    /// # Errors
    /// When the range is no memory that was allocated, or not aligned.
    pub fn fill(&self, at: u64, value: u32, size: u32, n: u64) -> Result<()> {
        let bytes = n.saturating_mul(size.into());
        let (device, memory) = self.live(at, bytes)?;
        if n > 0 && !memory.fill(at, value, size, n) {
            return Err(Error::Fault(format!("{at:#x} is no address of elements of {size} bytes")));
        }
        if let Some(mut record) = self.record(device) {
            record.written.write(at, bytes);
        }
        Ok(())
    }

    /// Lets kernels of device `from` access memory of device `to`. False when they could before.
    pub fn enable_peer(&self, from: u32, to: u32) -> bool {
        locked(&self.peers).insert((from, to))
    }
    /// Takes that back. False when they could not before.
    pub fn disable_peer(&self, from: u32, to: u32) -> bool {
        locked(&self.peers).remove(&(from, to))
    }

    /// Loads PTX and places its variables.
    ///
    /// # Errors
    /// Of the text, or when the memory is full.
    pub fn load(&self, device: u32, name: &str, ptx: &str) -> Result<u64> {
        let program = crate::ptx::load(name, ptx)?;
        let loaded = Loaded::new(&program, self.memory(device)?)?;
        if let Some(mut record) = self.record(device) {
            for (v, &at) in program.variables.iter().zip(&loaded.variables) {
                record.written.write(at, v.bytes);
            }
        }
        let id = self.next.fetch_add(1, Relaxed);
        locked(&self.modules).insert(id, Arc::new(SoftModule { program, loaded, device }));
        Ok(id)
    }

    /// A module.
    pub fn module(&self, id: u64) -> Option<Arc<SoftModule>> {
        locked(&self.modules).get(&id).cloned()
    }

    /// Forgets a module and frees its variables. False when there is none.
    pub fn unload(&self, id: u64) -> bool {
        let Some(module) = locked(&self.modules).remove(&id) else { return false };
        if let Ok(memory) = self.memory(module.device) {
            module.loaded.variables.iter().for_each(|&at| {
                memory.free(at);
            });
        }
        true
    }

    /// Checks a launch and gives what runs it.
    ///
    /// # Errors
    /// When the module or entry is not there, or no device could run the launch.
    pub fn prepare(&self, call: &Call<'_>) -> Result<impl FnOnce(&Machine) -> Result<()> + Send + use<>> {
        let module = self
            .module(call.module.0)
            .ok_or_else(|| Error::Fault(format!("module {} is not loaded", call.module.0)))?;
        let functions = &module.program.functions;
        let index = functions
            .iter()
            .position(|f| f.entry && f.name == call.entry)
            .ok_or_else(|| Error::Fault(format!("{} has no entry `{}`", module.program.name, call.entry)))?;
        let (grid, block, shared) = (call.grid, call.block, call.shared_bytes);
        let params = call.params.to_vec();
        let printed = Mutex::default();
        let memory = [self.memory(module.device)?];
        self.describe(&module, index, (grid, block, shared), &params, &memory, &printed).validate()?;
        Ok(move |machine: &Machine| machine.run(&module, index, (grid, block, shared), &params))
    }

    fn describe<'a>(
        &self,
        module: &'a SoftModule,
        entry: usize,
        (grid, block, dynamic_shared): ([u32; 3], [u32; 3], u32),
        params: &'a [u8],
        memory: &'a [&'a Memory],
        printed: &'a Mutex<String>,
    ) -> Launch<'a> {
        Launch {
            program: &module.program,
            entry: &module.program.functions[entry],
            entry_index: entry as u32,
            grid,
            block,
            dynamic_shared,
            params,
            variables: &module.loaded.variables,
            memory,
            printed,
            options: self.settings.options,
        }
    }

    fn run(
        &self,
        module: &SoftModule,
        entry: usize,
        size: ([u32; 3], [u32; 3], u32),
        params: &[u8],
    ) -> Result<()> {
        let mut memory = vec![self.memory(module.device)?];
        for &(_, to) in locked(&self.peers).iter().filter(|(from, _)| *from == module.device) {
            memory.push(self.memory(to)?);
        }
        let printed = Mutex::new(String::new());
        let to_run = self.describe(module, entry, size, params, &memory, &printed);
        let record = self.settings.check.then(|| Arc::clone(&self.records[module.device as usize]));
        let mut watch = record.as_ref().map(|r| Box::new(Checker::new(Arc::clone(r))) as Box<dyn Watch>);
        let result = launch(&to_run, &mut watch);
        drop(watch);
        self.launches.fetch_add(1, Relaxed);
        self.instructions.fetch_add(result.as_ref().map_or(0, |r| r.thread_steps), Relaxed);
        let printed = printed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !printed.is_empty() {
            // As a GPU does. A closed standard output takes nothing, and that is no fault of the kernel.
            let _ = std::io::stdout().write_all(printed.as_bytes());
        }
        let mut found = record.map(|r| std::mem::take(&mut locked(&r).findings)).unwrap_or_default();
        let fatal = result.is_err();
        found.extend(result.err().map(|fault| *fault));
        self.report(found, fatal)
    }

    /// Writes findings into the report, or makes the first one the error.
    fn report(&self, found: Vec<Fault>, fatal: bool) -> Result<()> {
        if let (Some(path), false) = (&self.settings.report, found.is_empty()) {
            let lines: String =
                found.iter().filter_map(|f| serde_json::to_string(f).ok()).map(|l| l + "\n").collect();
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.and_then(|mut f| f.write_all(lines.as_bytes())).map_err(|e| Error::io(path, e))?;
            if !fatal {
                return Ok(());
            }
        }
        let first = if fatal { found.last() } else { found.first() };
        match first {
            None => Ok(()),
            Some(fault) => {
                let more = found.len() - 1;
                let more = if more > 0 { format!("\n({more} more)") } else { String::new() };
                Err(Error::Fault(format!("{fault}{more}")))
            }
        }
    }
}
