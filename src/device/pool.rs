//! The buffer pool: after warm-up a training step takes nothing from the system.
//!
//! Sizes are rounded up to classes, eight to each doubling, so at most one eighth of a block is unused and a step that
//! repeats its shapes finds every block again.

use super::Memory;
use crate::error::Result;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a pool has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Blocks taken from the system.
    pub misses: u64,
    /// Blocks found in the pool.
    pub hits: u64,
    /// Bytes handed out now.
    pub live_bytes: usize,
    /// Largest `live_bytes` so far.
    pub peak_bytes: usize,
    /// Bytes held from the system, handed out or not.
    pub held_bytes: usize,
}

#[derive(Default)]
pub(super) struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    free: HashMap<usize, Vec<Memory>>,
    stats: PoolStats,
}

/// Smallest class that holds `bytes`: four significant bits, in units of at least a cache line.
fn class(bytes: usize) -> usize {
    let bytes = bytes.max(64);
    let unit = (1usize << (usize::BITS - 1 - bytes.leading_zeros()).saturating_sub(3)).max(64);
    bytes.next_multiple_of(unit)
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is counters and free lists, valid after every statement: a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory of at least `bytes`: from the pool, else what `grow` makes of the size.
    pub(super) fn take(&self, bytes: usize, grow: impl FnOnce(usize) -> Result<Memory>) -> Result<Memory> {
        let size = class(bytes);
        let mut s = self.lock();
        let found = s.free.get_mut(&size).and_then(Vec::pop);
        let block = match found {
            Some(b) => {
                s.stats.hits += 1;
                b
            }
            None => {
                drop(s);
                let b = grow(size)?;
                s = self.lock();
                s.stats.misses += 1;
                s.stats.held_bytes += size;
                b
            }
        };
        s.stats.live_bytes += block.bytes();
        s.stats.peak_bytes = s.stats.peak_bytes.max(s.stats.live_bytes);
        Ok(block)
    }

    pub(super) fn give(&self, block: Memory) {
        if !block.is_whole() {
            return; // a part: its parent's memory goes back to the system with the last part
        }
        let mut s = self.lock();
        s.stats.live_bytes = s.stats.live_bytes.saturating_sub(block.bytes());
        s.free.entry(block.bytes()).or_default().push(block);
    }

    /// Gives what nobody uses back to the system.
    pub(super) fn trim(&self) {
        let mut s = self.lock();
        let free = std::mem::take(&mut s.free);
        s.stats.held_bytes -= free.values().flatten().map(Memory::bytes).sum::<usize>();
        drop(s);
        drop(free);
    }

    pub(super) fn stats(&self) -> PoolStats {
        self.lock().stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Block;

    fn host(bytes: usize) -> Result<Memory> {
        Block::new(bytes).map(Memory::Host)
    }

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for n in (1..100_000).chain([1 << 20, (1 << 20) + 1, 123_456_789]) {
            let c = class(n);
            assert!(c >= n && c.is_multiple_of(64) && (n <= 512 || c - n <= n / 8), "{n} -> {c}");
            assert_eq!(class(c), c, "a class is its own class");
        }
    }

    #[test]
    fn the_second_round_misses_nothing() {
        let pool = Pool::default();
        for _ in 0..3 {
            let held: Vec<_> =
                [100, 5000, 5000, 1 << 20].iter().map(|&n| pool.take(n, host).unwrap()).collect();
            held.into_iter().for_each(|b| pool.give(b));
        }
        let s = pool.stats();
        assert_eq!((s.misses, s.hits, s.live_bytes), (4, 8, 0));
    }
}
