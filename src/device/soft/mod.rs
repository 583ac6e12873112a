//! The software CUDA device: up to eight devices with memories of their own, in this process.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`open`], and the software device as a [`Driver`] |
//! | `machine.rs` | [`Machine`]: devices, modules, launches, checks |
//! | `streams.rs` | streams and events: work is deferred and run in a seeded order |

mod machine;
mod streams;

pub use machine::{Machine, Settings, SoftModule};
pub use streams::{Streams, Ticket};

use super::Device;
use super::driver::{Call, Driver, Event, Module, Stream};
use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Devices of a machine.
pub const DEVICES: u32 = 8;

/// The machine that `soft:0` to `soft:7` name, made at its first use; its settings are read from the environment.
pub fn machine() -> &'static Arc<Machine> {
    static MACHINE: OnceLock<Arc<Machine>> = OnceLock::new();
    MACHINE.get_or_init(|| Arc::new(Machine::new(Settings::from_env())))
}

/// Device `soft:ordinal` of [`machine`].
///
/// # Errors
/// When there is no such device, or no memory for it.
pub fn open(ordinal: u32) -> Result<Device> {
    static OPEN: Mutex<Vec<(u32, Device)>> = Mutex::new(Vec::new());
    // A list that is valid after every statement.
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, device)) = open.iter().find(|(o, _)| *o == ordinal) {
        return Ok(device.clone());
    }
    let device = device(machine(), ordinal)?;
    open.push((ordinal, device.clone()));
    Ok(device)
}

/// Device `soft:ordinal` of a machine of your own, with a pool of its own: for tests and exams, with settings of theirs.
///
/// # Errors
/// When there is no such device, or no memory for it.
pub fn device(machine: &Arc<Machine>, ordinal: u32) -> Result<Device> {
    let name = format!("soft:{ordinal}");
    if ordinal >= DEVICES {
        let what = format!("there are {DEVICES} software devices, soft:0 to soft:{}", DEVICES - 1);
        return Err(Error::Device { device: name, what });
    }
    machine.memory(ordinal)?;
    let driver = Arc::new(Soft { machine: Arc::clone(machine), ordinal });
    Ok(Device::over(name, driver, machine.settings().check))
}

/// One device of a [`Machine`] as a driver.
pub struct Soft {
    machine: Arc<Machine>,
    ordinal: u32,
}

impl Soft {
    /// Puts work into a stream. That of the default stream is run at once, so that what it does wrong is the error of the
    /// call that asked for it.
    fn submit(
        &self,
        stream: Stream,
        run: impl FnOnce(&Machine) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let streams = self.machine.streams();
        let ticket = streams.push(self.ordinal, stream.0, Box::new(run));
        if stream == self.default_stream() { streams.drain(&self.machine, &[ticket]) } else { Ok(()) }
    }
}

impl Driver for Soft {
    fn description(&self) -> String {
        format!(
            "software CUDA device {} (PTX executor on {} threads)",
            self.ordinal,
            rayon::current_num_threads()
        )
    }
    fn kind(&self) -> &'static str {
        "soft"
    }

    fn alloc(&self, bytes: u64) -> Result<u64> {
        self.machine.alloc(self.ordinal, bytes)
    }
    fn free(&self, address: u64) {
        // As cuMemFree, after all work; an error of that work stays for the next call that can return one.
        let streams = self.machine.streams();
        if let Err(e) = streams.drain(&self.machine, &streams.last_of(self.ordinal)) {
            streams.keep(self.ordinal, e);
        }
        self.machine.free(address);
    }
    fn used(&self) -> u64 {
        self.machine.memory(self.ordinal).map_or(0, |m| m.used())
    }
    fn copy_in(&self, to: u64, from: &[u8], stream: Stream) -> Result<()> {
        let bytes = from.to_vec();
        self.submit(stream, move |m| m.write(to, &bytes))
    }
    fn copy_out(&self, from: u64, to: &mut [u8], stream: Stream) -> Result<()> {
        self.synchronize_stream(stream)?;
        self.machine.read(from, to)
    }
    fn copy(&self, from: u64, to: u64, bytes: u64, stream: Stream) -> Result<()> {
        self.submit(stream, move |m| m.copy(from, to, bytes))
    }
    fn fill(&self, at: u64, value: u32, size: u32, n: u64, stream: Stream) -> Result<()> {
        self.submit(stream, move |m| m.fill(at, value, size, n))
    }

    fn load(&self, name: &str, ptx: &str) -> Result<Module> {
        Ok(Module(self.machine.load(self.ordinal, name, ptx)?))
    }
    fn launch(&self, call: &Call<'_>, stream: Stream) -> Result<()> {
        let run = self.machine.prepare(call)?;
        self.submit(stream, run)
    }

    fn default_stream(&self) -> Stream {
        Stream(self.ordinal.into())
    }
    fn stream(&self) -> Result<Stream> {
        Ok(Stream(self.machine.streams().open(self.ordinal, true)))
    }
    fn side_stream(&self) -> Result<Stream> {
        Ok(Stream(self.machine.streams().open(self.ordinal, false)))
    }
    fn close_stream(&self, stream: Stream) {
        let streams = self.machine.streams();
        if let Err(e) = streams.drain(&self.machine, &streams.last(stream.0)) {
            streams.keep(self.ordinal, e);
        }
        streams.close(stream.0);
    }
    fn event(&self) -> Result<Event> {
        Ok(Event(self.machine.streams().open_event()))
    }
    fn close_event(&self, event: Event) {
        self.machine.streams().close_event(event.0);
    }
    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        let streams = self.machine.streams();
        let at = Arc::new(OnceLock::new());
        let noted = Arc::clone(&at);
        let note = move |_: &Machine| {
            noted.get_or_init(Instant::now);
            Ok(())
        };
        let ticket = streams.push(self.ordinal, stream.0, Box::new(note));
        streams.record(event.0, ticket, at);
        Ok(())
    }
    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        self.machine.streams().wait(stream.0, event.0);
        Ok(())
    }
    fn seconds_between(&self, start: Event, end: Event) -> Result<f64> {
        let streams = self.machine.streams();
        match (streams.passed_at(start.0), streams.passed_at(end.0)) {
            (Some(a), Some(b)) => Ok(b.saturating_duration_since(a).as_secs_f64()),
            _ => Err(Error::Device {
                device: format!("soft:{}", self.ordinal),
                what: "the time between two events is known when both were recorded and have passed".into(),
            }),
        }
    }
    fn synchronize_event(&self, event: Event) -> Result<()> {
        let streams = self.machine.streams();
        streams.drain(&self.machine, &streams.recorded(event.0))
    }
    fn synchronize_stream(&self, stream: Stream) -> Result<()> {
        let streams = self.machine.streams();
        streams.drain(&self.machine, &streams.last(stream.0))?;
        streams.kept(self.ordinal)
    }
    fn synchronize(&self) -> Result<()> {
        let streams = self.machine.streams();
        streams.drain(&self.machine, &streams.last_of(self.ordinal))?;
        streams.kept(self.ordinal)
    }
}
