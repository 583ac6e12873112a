//! PTX that was loaded on a device: each file once.

use super::driver::{Driver, Module};
use crate::error::Result;
use crate::ptx;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Modules by the identity of their text.
#[derive(Default)]
pub(super) struct Modules(Mutex<HashMap<(usize, usize), Arc<Loaded>>>);

/// A loaded module and what its text says of its entries.
pub struct Loaded {
    /// Handle of the driver.
    pub module: Module,
    entries: HashMap<String, Entry>,
}

/// An entry, as its text declares it.
#[derive(Debug)]
pub struct Entry {
    /// Threads of a block, when `.reqntid` says so.
    pub block: Option<[u32; 3]>,
    /// Parameters in order.
    pub params: Vec<Slot>,
    /// Bytes of all parameters.
    pub param_bytes: u32,
}

/// Where a parameter lies.
#[derive(Debug)]
pub struct Slot {
    /// Name.
    pub name: String,
    /// First byte.
    pub offset: u32,
    /// Bytes.
    pub bytes: u32,
}

impl Loaded {
    /// The entry of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }
}

impl Modules {
    pub(super) fn get(
        &self,
        driver: &dyn Driver,
        key: (usize, usize),
        file: &str,
        text: impl FnOnce() -> String,
    ) -> Result<Arc<Loaded>> {
        // A map is valid after every statement: a panic elsewhere does not spoil it. The lock is held while a module is
        // read, so that two threads do not read it twice.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = all.get(&key) {
            return Ok(Arc::clone(loaded));
        }
        let text = text();
        let program = ptx::load(file, &text)?;
        let entry = |f: &ptx::program::Function| {
            let slot =
                |p: &ptx::program::Param| Slot { name: p.name.clone(), offset: p.offset, bytes: p.bytes };
            let params = f.params.iter().map(slot).collect();
            (f.name.clone(), Entry { block: f.required_block, params, param_bytes: f.param_bytes })
        };
        let entries = program.functions.iter().filter(|f| f.entry).map(entry).collect();
        let loaded = Arc::new(Loaded { module: driver.load(file, &text)?, entries });
        all.insert(key, Arc::clone(&loaded));
        Ok(loaded)
    }
}
