//! Where tensors live: the CPU, or a device that runs PTX, each with a pool that keeps every buffer it ever took.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Device`]: a handle that tensors carry |
//! | `pool.rs` | size classes, reuse, counters |
//! | `memory.rs` | [`Memory`]: a range of host or device memory |
//! | `block.rs` | the one place where raw host memory is handled |
//! | `driver.rs` | [`Driver`]: what a device with memory of its own must be able to do |
//! | `modules.rs` | PTX that was loaded on a device |
//! | `cuda.rs` | CUDA devices through `cust` (feature `cuda`) |
//! | `soft/` | the software CUDA device |
//! | `shim/` | the CUDA driver's symbols, over a real driver or the software device (feature `cuda`) |

mod block;
#[cfg(feature = "cuda")]
mod cuda;
mod driver;
mod memory;
mod modules;
mod pool;
#[cfg(feature = "cuda")]
pub mod shim;
pub mod soft;

pub use block::Block;
pub use driver::{Call, Driver, Event, Module, Stream};
pub use memory::{Memory, Remote};
pub use modules::{Entry, Loaded, Slot};
pub use pool::PoolStats;

use crate::error::{Error, Result};
use modules::Modules;
use pool::Pool;
use std::sync::{Arc, OnceLock};

/// A place where tensors live and kernels run. Clones are handles to the same device and pool.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    name: String,
    pool: Pool,
    driver: Option<Arc<dyn Driver>>,
    modules: Modules,
    /// Nothing is kept in the pool, and allocations have the size that was asked for: for checks.
    exact: bool,
}

impl Device {
    /// The process-wide CPU device.
    pub fn cpu() -> Device {
        static CPU: OnceLock<Device> = OnceLock::new();
        CPU.get_or_init(Device::new_cpu).clone()
    }

    /// A CPU device with a pool of its own: for counting what one run takes.
    pub fn new_cpu() -> Device {
        Device::with("cpu".into(), None, false)
    }

    /// A device over a driver of its own, with a pool of its own. With `exact` there is no pool: allocations have the size
    /// that was asked for and are freed at once, so that checks see an access past their end or after it.
    pub fn over(name: impl Into<String>, driver: Arc<dyn Driver>, exact: bool) -> Device {
        Device::with(name.into(), Some(driver), exact)
    }

    fn with(name: String, driver: Option<Arc<dyn Driver>>, exact: bool) -> Device {
        Device(Arc::new(Inner { name, pool: Pool::default(), driver, modules: Modules::default(), exact }))
    }

    /// Opens the device that the user named: `cpu`, `soft` or `soft:0` to `soft:7`, and with the feature `cuda`
    /// `cuda` or `cuda:0` and so on.
    ///
    /// # Errors
    /// Any other name; the error says what there is.
    pub fn open(name: &str) -> Result<Device> {
        let no = |what: String| Err(Error::Device { device: name.into(), what });
        let (kind, ordinal) = name.split_once(':').unwrap_or((name, "0"));
        match (kind, ordinal.parse::<u32>()) {
            ("cpu", _) if name == "cpu" => Ok(Device::cpu()),
            ("soft", Ok(ordinal)) => soft::open(ordinal),
            ("soft", Err(_)) => no(format!("`{ordinal}` is no number of a device; use soft:0 to soft:{}", soft::DEVICES - 1)),
            #[cfg(feature = "cuda")]
            ("cuda", Ok(ordinal)) => cuda::open(ordinal),
            #[cfg(feature = "cuda")]
            ("cuda", Err(_)) => no(format!("`{ordinal}` is no number of a device; use cuda:0")),
            #[cfg(not(feature = "cuda"))]
            ("cuda", _) => no("this build has no CUDA support: build with `cargo build --release --features cuda`, or use --device cpu, \
                or --device soft:0 for the software CUDA device".into()),
            _ => no("unknown device; use --device cpu, or --device soft:0 for the software CUDA device".into()),
        }
    }

    /// Name as given to [`Device::open`].
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The driver of a device that has memory of its own; None for the CPU.
    pub fn driver(&self) -> Option<&Arc<dyn Driver>> {
        self.0.driver.as_ref()
    }

    /// [`Device::driver`], where there has to be one.
    ///
    /// # Errors
    /// On the CPU.
    pub fn ptx_driver(&self) -> Result<&Arc<dyn Driver>> {
        let what = "runs no PTX; choose --device soft:0 or cuda:0";
        self.driver().ok_or_else(|| Error::Device { device: self.name().into(), what: what.into() })
    }

    /// True when kernels run on the host's own memory.
    pub fn is_host(&self) -> bool {
        self.0.driver.is_none()
    }

    /// Memory of at least `bytes`, from the pool or, on a miss, from the system. On the host it is arbitrary but
    /// initialised, zeroed on a miss.
    pub fn alloc(&self, bytes: usize) -> Result<Memory> {
        let grow = |size: usize| match &self.0.driver {
            None => Block::new(size).map(Memory::Host),
            Some(driver) => Remote::new(driver, size).map(Memory::Remote),
        };
        if self.0.exact { grow(bytes) } else { self.0.pool.take(bytes, grow) }
    }

    /// Gives memory back to the pool.
    pub fn free(&self, memory: Memory) {
        if !self.0.exact {
            self.0.pool.give(memory);
        }
    }

    /// Gives the memory that the pool keeps and nobody uses back to the system.
    pub fn trim(&self) {
        self.0.pool.trim();
    }

    /// Waits until all work of the device is done.
    ///
    /// # Errors
    /// Those of work that failed.
    pub fn synchronize(&self) -> Result<()> {
        self.driver().map_or(Ok(()), |d| d.synchronize())
    }

    /// The PTX that `text` gives, loaded on this device; it is read once for each `key`.
    ///
    /// # Errors
    /// When it is no PTX or the device takes it not; None where the device runs no PTX.
    pub fn module(
        &self,
        key: (usize, usize),
        file: &str,
        text: impl FnOnce() -> String,
    ) -> Result<Option<Arc<Loaded>>> {
        self.driver().map(|driver| self.0.modules.get(driver.as_ref(), key, file, text)).transpose()
    }

    /// Counters of the pool.
    pub fn stats(&self) -> PoolStats {
        self.0.pool.stats()
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
