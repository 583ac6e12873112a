//! Where tensors live. Today one kind of device: the CPU, with a pool that keeps every buffer it ever took.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Device`]: a handle that tensors carry |
//! | `pool.rs` | size classes, reuse, counters |
//! | `block.rs` | the one place where raw host memory is handled |

mod block;
mod pool;

pub use block::Block;
pub use pool::PoolStats;

use crate::error::{Error, Result};
use pool::Pool;
use std::sync::{Arc, OnceLock};

/// A place where tensors live and kernels run. Clones are handles to the same device and pool.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    name: String,
    pool: Pool,
}

impl Device {
    /// The process-wide CPU device.
    pub fn cpu() -> Device {
        static CPU: OnceLock<Device> = OnceLock::new();
        CPU.get_or_init(Device::new_cpu).clone()
    }

    /// A CPU device with a pool of its own: for counting what one run takes.
    pub fn new_cpu() -> Device {
        Device(Arc::new(Inner { name: "cpu".into(), pool: Pool::default() }))
    }

    /// Opens the device that the user named. Only `cpu` exists in this version; any other name is an error that says so.
    pub fn open(name: &str) -> Result<Device> {
        let no = |what: &str| Err(Error::Device { device: name.into(), what: what.into() });
        match name.split(':').next().unwrap_or_default() {
            "cpu" if name == "cpu" => Ok(Device::cpu()),
            "cuda" => no("this build has no CUDA support, so no driver can be used; use --device cpu"),
            "soft" => no("the software CUDA device is not part of this version; use --device cpu"),
            _ => no("unknown device; use --device cpu"),
        }
    }

    /// Name as given to [`Device::open`].
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A block of at least `bytes`, from the pool or, on a miss, zeroed from the system. Contents are arbitrary but initialised.
    pub fn alloc(&self, bytes: usize) -> Result<Block> {
        self.0.pool.take(bytes)
    }

    /// Gives a block back to the pool.
    pub fn free(&self, block: Block) {
        self.0.pool.give(block);
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
