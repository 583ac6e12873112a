//! Global addresses lie in a live allocation.

use crate::ptx::run::memory::Found;
use crate::ptx::run::{FaultKind, Launch};

/// Allocations that are remembered: most accesses are to one of few.
const REMEMBERED: usize = 8;

/// A live allocation.
#[derive(Clone, Copy, Default)]
struct Live {
    start: u64,
    end: u64,
    /// Someone has written all of it; unknown until it matters.
    whole: Option<bool>,
}

/// The allocations that were found last.
#[derive(Default)]
pub(super) struct Bounds {
    known: [Live; REMEMBERED],
    next: usize,
}

impl Bounds {
    #[inline(always)]
    fn holding(&mut self, first: u64, end: u64) -> Option<&mut Live> {
        self.known.iter_mut().find(|live| live.start <= first && end <= live.end)
    }

    /// Whether someone has written all of the allocation that holds the bytes from `first` to `end`; none when they are not
    /// all in one.
    #[inline(always)]
    pub(super) fn whole(
        &mut self,
        launch: &Launch<'_>,
        (first, end): (u64, u64),
        has: impl FnOnce(u64, u64) -> bool,
    ) -> Option<bool> {
        if self.holding(first, end).is_none() && self.search(launch, first, end - first).is_some() {
            return None;
        }
        let live = self.holding(first, end)?;
        Some(*live.whole.get_or_insert_with(|| has(live.start, live.end - live.start)))
    }

    /// What is wrong with an access of `bytes` at `address`.
    #[inline]
    pub(super) fn wrong(
        &mut self,
        launch: &Launch<'_>,
        address: u64,
        bytes: u32,
    ) -> Option<(FaultKind, String)> {
        if self.holding(address, address.saturating_add(bytes.into())).is_some() {
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
                self.known[self.next] = Live { start, end: start + size, whole: None };
                self.next = (self.next + 1) % REMEMBERED;
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
