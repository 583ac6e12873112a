//! Global addresses lie in a live allocation.

use crate::ptx::run::memory::Found;
use crate::ptx::run::{FaultKind, Launch};

/// The allocation that was found last: most accesses stay in it.
#[derive(Default)]
pub(super) struct Bounds {
    start: u64,
    end: u64,
}

impl Bounds {
    /// What is wrong with an access of `bytes` at `address`.
    #[inline]
    pub(super) fn wrong(
        &mut self,
        launch: &Launch<'_>,
        address: u64,
        bytes: u32,
    ) -> Option<(FaultKind, String)> {
        if address >= self.start && address.saturating_add(bytes.into()) <= self.end {
            return None;
        }
        self.search(launch, address, u64::from(bytes))
    }

    #[cold]
    fn search(&mut self, launch: &Launch<'_>, address: u64, bytes: u64) -> Option<(FaultKind, String)> {
        let kind = FaultKind::GlobalOutOfBounds;
        let Some(memory) = launch.memory.iter().find(|m| m.offset(address, bytes).is_some()) else {
            return Some(match address {
                0..4096 => (FaultKind::Null, format!("{bytes} bytes at {address:#x}, a null pointer")),
                _ => (kind, format!("{bytes} bytes at {address:#x}, which is no memory of this device")),
            });
        };
        let what = match memory.find(address) {
            Found::Live(start, size) if address + bytes <= start + size => {
                (self.start, self.end) = (start, start + size);
                return None;
            }
            Found::Live(start, size) => {
                let inside = start + size - address;
                format!(
                    "{bytes} bytes at {address:#x}, of which the buffer of {size} bytes at {start:#x} has {inside}"
                )
            }
            Found::Freed(start, size) => {
                let into = address - start;
                format!(
                    "{bytes} bytes at {address:#x}, byte {into} of a buffer of {size} bytes that was freed"
                )
            }
            Found::Nothing(before) => outside(memory, address, bytes, before),
        };
        Some((kind, what))
    }
}

/// An address in no allocation: how far it is from the nearest.
fn outside(memory: &crate::ptx::run::Memory, address: u64, bytes: u64, before: Option<(u64, u64)>) -> String {
    // A guard zone is 256 bytes or more: look that far ahead for a buffer that begins behind the address.
    let ahead = (1..=64).map(|k| address + 4 * k).find_map(|a| match memory.find(a) {
        Found::Live(start, size) => Some((start, size)),
        _ => None,
    });
    let behind = before.map(|(start, size)| (address - (start + size), "behind the end of", start, size));
    let ahead = ahead.map(|(start, size)| (start.saturating_sub(address), "before", start, size));
    match behind.into_iter().chain(ahead).min_by_key(|near| near.0) {
        Some((far, which, start, size)) => {
            format!(
                "{bytes} bytes at {address:#x}, {far} bytes {which} the buffer of {size} bytes at {start:#x}"
            )
        }
        None => format!("{bytes} bytes at {address:#x}, where no buffer is"),
    }
}
