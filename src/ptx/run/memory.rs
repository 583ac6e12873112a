//! Memory of a software device: one range of addresses, allocations with guard zones between them.
//!
//! Blocks of a grid run on several threads and a PTX program may race, so every access is a relaxed atomic one: a race in
//! the program is a wrong value at worst, never undefined behaviour here. On the processors that matter such a load or
//! store is the plain instruction.
#![allow(
    unsafe_code,
    reason = "atomic views of a shared mapping; offsets are checked against its length before each"
)]

use crate::error::{Error, Result};
use memmap2::{MmapMut, MmapOptions};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Distance between the memories of two devices in the address space: device d has (d + 1) << 40 onwards.
const STRIDE: u64 = 1 << 40;
/// Allocations begin at multiples of this, and as many bytes at least lie unused behind each.
const GUARD: u64 = 256;

/// Memory of one device.
pub struct Memory {
    base: u64,
    len: u64,
    start: *mut u8,
    _map: MmapMut,
    book: Mutex<Book>,
}

// SAFETY: `start` points into the mapping, which lives as long as the Memory; all access through it is atomic.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// Which ranges are taken, by offset.
#[derive(Default)]
struct Book {
    taken: BTreeMap<u64, u64>,
    freed: BTreeMap<u64, u64>,
    gaps: BTreeMap<u64, u64>,
    end: u64,
    bytes: u64,
}

/// What lies at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Inside the allocation at this address, of so many bytes.
    Live(u64, u64),
    /// Inside an allocation that was freed.
    Freed(u64, u64),
    /// Inside no allocation: the nearest one before it.
    Nothing(Option<(u64, u64)>),
}

impl Memory {
    /// Memory of device `ordinal`, of `bytes` at most. The system gives pages when they are written.
    pub fn new(ordinal: u32, bytes: u64) -> Result<Memory> {
        let oom =
            |_| Error::OutOfMemory { bytes: bytes as usize, what: "the memory of a software device".into() };
        let len = bytes.next_multiple_of(4096);
        let mut map = MmapOptions::new().len(len as usize).no_reserve_swap().map_anon().map_err(oom)?;
        let book = Mutex::new(Book { end: 4096, ..Book::default() });
        Ok(Memory { base: STRIDE * (u64::from(ordinal) + 1), len, start: map.as_mut_ptr(), _map: map, book })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change of the book is a few inserts; a panic elsewhere does not spoil it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// First address.
    pub fn base(&self) -> u64 {
        self.base
    }
    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.len
    }
    /// Bytes that are allocated now.
    pub fn used(&self) -> u64 {
        self.book().bytes
    }

    /// Address of `bytes` of new memory. What it holds is arbitrary.
    pub fn alloc(&self, bytes: u64) -> Result<u64> {
        let mut book = self.book();
        let room = bytes.max(1).next_multiple_of(GUARD) + GUARD;
        let gap = book.gaps.iter().find(|(_, size)| **size >= room).map(|(at, size)| (*at, *size));
        let at = match gap {
            Some((at, size)) => {
                book.gaps.remove(&at);
                if size > room {
                    book.gaps.insert(at + room, size - room);
                }
                at
            }
            None => {
                let at = book.end;
                if room > self.len.saturating_sub(at) {
                    return Err(Error::OutOfMemory {
                        bytes: bytes as usize,
                        what: format!("a buffer on a software device of {} MiB", self.len >> 20),
                    });
                }
                book.end = at + room;
                at
            }
        };
        book.freed.retain(|f, size| f + *size <= at || *f >= at + room);
        book.taken.insert(at, bytes);
        book.bytes += bytes;
        Ok(self.base + at)
    }

    /// Gives an allocation back. False when there is none at this address.
    pub fn free(&self, address: u64) -> bool {
        let mut book = self.book();
        let at = address.wrapping_sub(self.base);
        let Some(bytes) = book.taken.remove(&at) else { return false };
        book.bytes -= bytes;
        book.freed.insert(at, bytes);
        let (mut from, mut room) = (at, bytes.max(1).next_multiple_of(GUARD) + GUARD);
        // Neighbouring gaps become one.
        if let Some(next) = book.gaps.remove(&(at + room)) {
            room += next;
        }
        if let Some((&before, &size)) = book.gaps.range(..at).next_back().filter(|(b, s)| **b + **s == at) {
            book.gaps.remove(&before);
            (from, room) = (before, room + size);
        }
        book.gaps.insert(from, room);
        true
    }

    /// What lies at `address`.
    pub fn find(&self, address: u64) -> Found {
        let at = address.wrapping_sub(self.base);
        let book = self.book();
        let before = book.taken.range(..=at).next_back();
        if let Some((&from, &size)) = before.filter(|(from, size)| at < **from + **size) {
            return Found::Live(self.base + from, size);
        }
        if let Some((&from, &size)) = book.freed.range(..=at).next_back().filter(|(f, s)| at < **f + **s) {
            return Found::Freed(self.base + from, size);
        }
        Found::Nothing(before.map(|(&from, &size)| (self.base + from, size)))
    }

    /// Offset of `bytes` at `address` when they are in this memory.
    #[inline(always)]
    pub fn offset(&self, address: u64, bytes: u64) -> Option<u64> {
        let at = address.wrapping_sub(self.base);
        (at < self.len && self.len - at >= bytes).then_some(at)
    }

    /// Byte, half-word, word or double-word at an offset that [`Memory::offset`] gave, aligned.
    #[inline(always)]
    pub fn load(&self, at: u64, bytes: u32) -> u64 {
        assert!(at < self.len && self.len - at >= u64::from(bytes) && at.is_multiple_of(u64::from(bytes)));
        // SAFETY: in the mapping and aligned by the assertion (the mapping begins at a page), and only accessed atomically.
        unsafe {
            let p = self.start.add(at as usize);
            match bytes {
                1 => u64::from(AtomicU8::from_ptr(p).load(Relaxed)),
                2 => u64::from(AtomicU16::from_ptr(p.cast()).load(Relaxed)),
                4 => u64::from(AtomicU32::from_ptr(p.cast()).load(Relaxed)),
                _ => AtomicU64::from_ptr(p.cast()).load(Relaxed),
            }
        }
    }

    /// Writes it.
    #[inline(always)]
    pub fn store(&self, at: u64, bytes: u32, value: u64) {
        assert!(at < self.len && self.len - at >= u64::from(bytes) && at.is_multiple_of(u64::from(bytes)));
        // SAFETY: as in `load`.
        unsafe {
            let p = self.start.add(at as usize);
            match bytes {
                1 => AtomicU8::from_ptr(p).store(value as u8, Relaxed),
                2 => AtomicU16::from_ptr(p.cast()).store(value as u16, Relaxed),
                4 => AtomicU32::from_ptr(p.cast()).store(value as u32, Relaxed),
                _ => AtomicU64::from_ptr(p.cast()).store(value, Relaxed),
            }
        }
    }

    /// The 32-bit words at an aligned offset: for warps that access neighbouring words.
    #[inline(always)]
    pub fn words(&self, at: u64, n: u64) -> &[AtomicU32] {
        assert!(at.is_multiple_of(4) && at < self.len && (self.len - at) / 4 >= n);
        // SAFETY: as in `load`.
        unsafe { std::slice::from_raw_parts(self.start.add(at as usize).cast::<AtomicU32>(), n as usize) }
    }

    /// Replaces the value at an aligned offset by `f` of it, atomically; returns the old one. 2, 4 or 8 bytes.
    pub fn update(&self, at: u64, bytes: u32, mut f: impl FnMut(u64) -> u64) -> u64 {
        assert!(at < self.len && self.len - at >= u64::from(bytes) && at.is_multiple_of(u64::from(bytes)));
        macro_rules! by {
            ($atomic:ty, $t:ty, $p:expr) => {{
                // SAFETY: as in `load`.
                let cell = unsafe { <$atomic>::from_ptr($p.cast()) };
                let old = cell.fetch_update(SeqCst, SeqCst, |v| Some(f(v.into()) as $t));
                u64::from(old.unwrap_or_default())
            }};
        }
        // SAFETY: in the mapping by the assertion.
        let p = unsafe { self.start.add(at as usize) };
        match bytes {
            2 => by!(AtomicU16, u16, p),
            4 => by!(AtomicU32, u32, p),
            _ => by!(AtomicU64, u64, p),
        }
    }

    /// Copies into the memory. False when the range leaves it.
    pub fn write(&self, address: u64, bytes: &[u8]) -> bool {
        let Some(at) = self.offset(address, bytes.len() as u64) else { return false };
        let head = (at.wrapping_neg() % 8).min(bytes.len() as u64) as usize;
        let (head, body) = bytes.split_at(head);
        let (long, tail) = body.as_chunks::<8>();
        let from = at + head.len() as u64;
        head.iter().enumerate().for_each(|(i, &b)| self.store(at + i as u64, 1, b.into()));
        long.iter().enumerate().for_each(|(i, b)| self.store(from + i as u64 * 8, 8, u64::from_le_bytes(*b)));
        let from = from + long.len() as u64 * 8;
        tail.iter().enumerate().for_each(|(i, &b)| self.store(from + i as u64, 1, b.into()));
        true
    }

    /// Copies out of the memory. False when the range leaves it.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let Some(at) = self.offset(address, bytes.len() as u64) else { return false };
        let head = (at.wrapping_neg() % 8).min(bytes.len() as u64) as usize;
        let (head, body) = bytes.split_at_mut(head);
        let (long, tail) = body.as_chunks_mut::<8>();
        let from = at + head.len() as u64;
        head.iter_mut().enumerate().for_each(|(i, b)| *b = self.load(at + i as u64, 1) as u8);
        long.iter_mut().enumerate().for_each(|(i, b)| *b = self.load(from + i as u64 * 8, 8).to_le_bytes());
        let from = from + long.len() as u64 * 8;
        tail.iter_mut().enumerate().for_each(|(i, b)| *b = self.load(from + i as u64, 1) as u8);
        true
    }

    /// Sets `n` elements of 1, 2 or 4 bytes to `value`. False when the range leaves the memory or is not aligned.
    pub fn fill(&self, address: u64, value: u32, size: u32, n: u64) -> bool {
        let Some(bytes) = n.checked_mul(size.into()) else { return false };
        let Some(at) = self.offset(address, bytes).filter(|at| at.is_multiple_of(size.into())) else {
            return false;
        };
        (0..n).for_each(|i| self.store(at + i * u64::from(size), size, value.into()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_keep_apart_and_come_back() {
        let m = Memory::new(1, 1 << 20).unwrap();
        let a = m.alloc(100).unwrap();
        let b = m.alloc(1).unwrap();
        assert!(a >= 2 << 40 && a.is_multiple_of(256) && b >= a + 100 + 256);
        assert_eq!(m.find(a + 99), Found::Live(a, 100));
        assert_eq!(m.find(a + 100), Found::Nothing(Some((a, 100))));
        assert!(m.free(a) && !m.free(a));
        assert_eq!(m.find(a), Found::Freed(a, 100));
        assert_eq!(m.used(), 1);
        let c = m.alloc(50).unwrap();
        assert_eq!(c, a);
        assert_eq!(m.find(a), Found::Live(a, 50));
        assert!(m.free(b) && m.free(c));
        let all = m.alloc((1 << 20) - 8192).unwrap();
        assert!(m.alloc(1 << 19).is_err());
        assert!(m.free(all) && m.used() == 0);
    }

    #[test]
    fn copies_at_any_alignment() {
        let m = Memory::new(0, 1 << 16).unwrap();
        let a = m.alloc(64).unwrap();
        let bytes: Vec<u8> = (0..37).collect();
        for shift in 0..9 {
            assert!(m.write(a + shift, &bytes));
            let mut back = vec![0; 37];
            assert!(m.read(a + shift, &mut back));
            assert_eq!(back, bytes);
        }
        assert!(!m.write(a + (1 << 16), &bytes) && !m.write(0, &bytes));
        assert_eq!(m.update(m.offset(a, 4).unwrap(), 4, |v| v + 1), m.load(a - m.base(), 4) - 1);
    }
}
