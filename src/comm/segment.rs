//! Memory that processes of one host share, cut into lanes: one for each ordered pair of ranks, of some slots each.
//!
//! A lane is written by one rank and read by one. Two counters say how many slots were ever written and read; the writer
//! may fill a slot while fewer than all are full, the reader may empty one while any is. A slot is handed over by the
//! counter's release and acquire, so nobody waits for a lock that a dead process holds.
#![allow(unsafe_code, reason = "memory that another process writes can only be reached through raw pointers")]

use super::frame::HEAD;
use crate::error::{Error, Result};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a slot: a few fit the second-level cache of a core.
pub(super) const SLOT: usize = 64 << 10;
/// Slots of a lane.
const SLOTS: usize = 8;
/// Each counter has a pair of cache lines of its own.
const COUNTER: usize = 128;
const LANE: usize = 2 * COUNTER + SLOTS * (HEAD + SLOT);

/// Bytes that the lanes of `world` ranks take.
pub(super) fn bytes(world: usize) -> usize {
    world * (world - 1) * LANE
}

/// Takes the memory of the file from the system: touching memory that it cannot give later would end the process.
pub(super) fn reserve(file: &File, bytes: usize) -> Result<()> {
    // SAFETY: a call that takes numbers only; the descriptor is open, as `file` is borrowed.
    let code = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) };
    match code {
        0 => Ok(()),
        _ => Err(Error::OutOfMemory {
            bytes,
            what: format!(
                "memory shared by ranks ({}; RINGTAPE_TRANSPORT=tcp needs none)",
                std::io::Error::from_raw_os_error(code)
            ),
        }),
    }
}

/// The lanes of `rank`: to each other rank, and from each.
pub(super) struct Lanes {
    pub(super) to: Vec<Option<Lane>>,
    pub(super) from: Vec<Option<Lane>>,
}

/// One side of a lane: its only writer or its only reader.
pub(super) struct Lane {
    map: Arc<MmapRaw>,
    start: usize,
    /// Slots that this side has written or read.
    count: u64,
}

/// Maps the lanes of `rank` from `file`, which has [`bytes`] of them. Each rank may do so once for a file.
pub(super) fn map(file: &File, rank: usize, world: usize) -> std::io::Result<Lanes> {
    let len = bytes(world);
    if file.metadata()?.len() < len as u64 {
        return Err(std::io::Error::other("the shared memory is smaller than its ranks need"));
    }
    let map = Arc::new(MmapOptions::new().len(len.max(1)).map_raw(file)?);
    let lane = |from: usize, to: usize| {
        let index = from * (world - 1) + to - usize::from(to > from);
        (from != to).then(|| Lane { map: map.clone(), start: index * LANE, count: 0 })
    };
    Ok(Lanes {
        to: (0..world).map(|r| lane(rank, r)).collect(),
        from: (0..world).map(|r| lane(r, rank)).collect(),
    })
}

impl Lane {
    /// `at` bytes from the lane's start.
    fn at(&self, at: usize) -> *mut u8 {
        debug_assert!(at < LANE);
        self.map.as_mut_ptr().wrapping_add(self.start + at)
    }

    fn counter(&self, which: usize) -> &AtomicU64 {
        // SAFETY: the map is as long as all lanes (see `map`), and lives as long as `self`; lanes and counters begin at
        // multiples of 64 bytes of a page; all processes reach these 8 bytes by atomics only.
        unsafe { AtomicU64::from_ptr(self.at(which * COUNTER).cast()) }
    }

    /// Slots written, and read, so far by whoever does.
    fn written(&self) -> &AtomicU64 {
        self.counter(0)
    }
    fn read(&self) -> &AtomicU64 {
        self.counter(1)
    }

    fn slot(&self) -> (*mut u8, *mut u8) {
        let i = (self.count % SLOTS as u64) as usize;
        (self.at(2 * COUNTER + i * HEAD), self.at(2 * COUNTER + SLOTS * HEAD + i * SLOT))
    }

    /// True when [`Lane::put`] has a free slot.
    pub(super) fn has_room(&self) -> bool {
        self.count - self.read().load(Ordering::Acquire) < SLOTS as u64
    }

    /// Fills the next slot with `piece` and the head that `head` makes of it. Only after [`Lane::has_room`].
    pub(super) fn put(&mut self, piece: &[u8], head: impl FnOnce(&[u8]) -> [u8; HEAD]) {
        assert!(piece.len() <= SLOT && self.has_room());
        let (head_at, data) = self.slot();
        // SAFETY: the slot lies in the map and has SLOT bytes. It is free, so the reader does not look at it before the
        // counter's release below, and `&mut self` is the only writer. `piece` is memory of this process.
        unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), data, piece.len()) };
        let head = head(piece);
        // SAFETY: as above, for the HEAD bytes of the slot's head.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), head_at, HEAD) };
        self.count += 1;
        self.written().store(self.count, Ordering::Release);
    }

    /// The next full slot, by `read` of its head and of all its memory; None while there is none. The slot is free again
    /// after that.
    pub(super) fn take<R>(&mut self, read: impl FnOnce(&[u8; HEAD], &[u8]) -> R) -> Option<R> {
        if self.written().load(Ordering::Acquire) == self.count {
            return None;
        }
        let (head_at, data) = self.slot();
        let mut head = [0; HEAD];
        // SAFETY: the slot lies in the map; it is full, so its writer leaves it alone until the counter below moves.
        unsafe { std::ptr::copy_nonoverlapping(head_at, head.as_mut_ptr(), HEAD) };
        // SAFETY: as above. The bytes are plain data; a writer that broke the rule could only change numbers, which the
        // checksum in the head is there to find.
        let data = unsafe { std::slice::from_raw_parts(data, SLOT) };
        let got = read(&head, data);
        self.count += 1;
        self.read().store(self.count, Ordering::Release);
        Some(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_carry_pieces_in_order_and_stop_when_full() {
        let file = tempfile::tempfile().unwrap();
        reserve(&file, bytes(3)).unwrap();
        let (mut a, mut b) = (map(&file, 0, 3).unwrap(), map(&file, 2, 3).unwrap());
        let (out, into) = (a.to[2].as_mut().unwrap(), b.from[0].as_mut().unwrap());
        assert!(into.take(|_, _| ()).is_none());
        for round in 0..5u8 {
            let mut n = 0;
            while out.has_room() {
                out.put(&[round, n], |piece| [piece[1]; HEAD]);
                n += 1;
            }
            assert_eq!(n as usize, SLOTS);
            for i in 0..n {
                into.take(|head, data| assert!(head[0] == i && data[..2] == [round, i])).unwrap();
            }
            assert!(into.take(|_, _| ()).is_none());
        }
        assert!(b.from[1].as_mut().unwrap().take(|_, _| ()).is_none(), "lanes are apart");
        assert!(a.to[0].is_none() && a.from[0].is_none());
    }

    #[test]
    fn a_file_too_small_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(map(&file, 0, 2).is_err());
    }
}
