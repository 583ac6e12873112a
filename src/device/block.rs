//! Host memory: one aligned, always initialised block, and typed views of it.
#![allow(
    unsafe_code,
    reason = "allocation and typed views of raw memory; everything above this file is safe"
)]

use crate::error::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

/// Alignment of every block in bytes: a cache line, and the widest vector register.
pub(super) const ALIGN: usize = 64;

/// An exclusively owned range of host memory. It is initialised from its birth (zeroed), so any bit pattern in it may be
/// read as any plain type. It is either an allocation of its own or one of the disjoint parts that [`Block::split`] made.
pub struct Block {
    ptr: NonNull<u8>,
    bytes: usize,
    owner: Owner,
}

enum Owner {
    /// This block frees its memory.
    Own,
    /// Part of a larger block, which is freed when its last part is gone.
    Part(Arc<Block>),
}

// SAFETY: a Block owns its range exclusively (Own by allocation, Part because split hands out disjoint ranges and gives
// up every other way to reach the parent's bytes), holds plain bytes and has no interior mutability.
unsafe impl Send for Block {}
// SAFETY: as above; `&Block` only gives shared reads.
unsafe impl Sync for Block {}

impl Block {
    /// Zeroed memory of `bytes` (rounded up to at least one cache line) from the system.
    pub fn new(bytes: usize) -> Result<Block> {
        let oom = || Error::OutOfMemory { bytes, what: "a tensor".into() };
        let bytes = bytes.max(ALIGN);
        let layout = Layout::from_size_align(bytes, ALIGN).map_err(|_| oom())?;
        // SAFETY: layout has a size of at least ALIGN, so it is not zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(oom)?;
        Ok(Block { ptr, bytes, owner: Owner::Own })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when this block frees its own memory (so it can go back to a pool).
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.owner, Owner::Own)
    }

    /// Cuts the block into consecutive parts of the given sizes (multiples of `ALIGN` keep the parts aligned), each
    /// exclusively owned. The memory is freed when the last part is dropped.
    pub fn split(self, sizes: &[usize]) -> Vec<Block> {
        assert!(sizes.iter().sum::<usize>() <= self.bytes, "split asks for more than the block holds");
        let parent = Arc::new(self);
        let mut at = 0;
        sizes
            .iter()
            .map(|&bytes| {
                // SAFETY: at + bytes <= parent.bytes by the assertion above, so the pointer stays in the allocation.
                let ptr = unsafe { parent.ptr.add(at) };
                at += bytes;
                Block { ptr, bytes, owner: Owner::Part(parent.clone()) }
            })
            .collect()
    }

    /// Puts the parts of one [`Block::split`] together again, in any order. None when a part is missing: the parts given
    /// are dropped then.
    pub fn join(parts: Vec<Block>) -> Option<Block> {
        let mut parent = None;
        for part in parts {
            if let Owner::Part(p) = &part.owner {
                parent = Some(p.clone());
            }
        }
        // The parts are gone; if no other part lives, this handle is the last and the whole range is exclusively ours again.
        Arc::try_unwrap(parent?).ok()
    }

    /// The first `n` elements from `offset` (in elements of `T`).
    pub fn slice<T: bytemuck::AnyBitPattern>(&self, offset: usize, n: usize) -> &[T] {
        self.check::<T>(offset, n);
        // SAFETY: in bounds and aligned by check; initialised from birth; T accepts any bit pattern; `&self` shares the borrow.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr().cast::<T>().add(offset), n) }
    }

    /// The first `n` elements from `offset`, writable.
    pub fn slice_mut<T: bytemuck::Pod>(&mut self, offset: usize, n: usize) -> &mut [T] {
        self.check::<T>(offset, n);
        // SAFETY: as in `slice`; `&mut self` and exclusive ownership of the range make the borrow unique; T has no padding.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().cast::<T>().add(offset), n) }
    }

    fn check<T>(&self, offset: usize, n: usize) {
        let end = offset.checked_add(n).and_then(|e| e.checked_mul(size_of::<T>()));
        assert!(
            end.is_some_and(|e| e <= self.bytes),
            "view of {n} elements at {offset} leaves a block of {} bytes",
            self.bytes
        );
        assert!(
            self.ptr.as_ptr().addr().is_multiple_of(align_of::<T>()),
            "block is not aligned for its element type"
        );
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Owner::Own = self.owner {
            // SAFETY: allocated in `new` with this very size and alignment, and freed once, here. A parent block drops
            // only after all its parts, which hold it by Arc.
            unsafe { dealloc(self.ptr.as_ptr(), Layout::from_size_align_unchecked(self.bytes, ALIGN)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_keep_the_parent_alive() {
        let mut whole = Block::new(256).unwrap();
        whole.slice_mut::<u8>(0, 256).fill(7);
        let mut parts = whole.split(&[64, 128, 64]);
        parts[1].slice_mut::<f32>(0, 32).fill(1.5);
        assert_eq!(parts[0].slice::<u8>(0, 64), [7; 64]);
        assert_eq!(parts[2].slice::<u8>(0, 64), [7; 64]);
        let last = parts.pop().unwrap();
        drop(parts);
        assert_eq!(last.slice::<u8>(0, 64), [7; 64]);
    }

    #[test]
    fn joining_needs_every_part() {
        let parts = Block::new(256).unwrap().split(&[64, 192]);
        assert_eq!(Block::join(parts).unwrap().bytes(), 256);
        let mut parts = Block::new(256).unwrap().split(&[64, 192]);
        let held = parts.pop();
        assert!(Block::join(parts).is_none());
        drop(held);
    }

    #[test]
    #[should_panic(expected = "leaves a block")]
    fn a_view_cannot_leave_its_block() {
        Block::new(64).unwrap().slice::<f32>(10, 7);
    }
}
