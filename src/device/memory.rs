//! [`Memory`]: a range of host or device memory, owned exclusively.

use super::Block;
use super::driver::Driver;
use crate::error::{Error, Result};
use std::sync::Arc;

/// A range of memory that is owned exclusively, on the host or on a device.
pub enum Memory {
    /// On the host: kernels read and write it in place.
    Host(Block),
    /// On a device: only its kernels and copies reach it.
    Remote(Remote),
}

/// A range of a device's memory. As [`Block`], an allocation of its own or one of the parts that a split made.
pub struct Remote {
    driver: Arc<dyn Driver>,
    address: u64,
    bytes: usize,
    owner: Owner,
}

enum Owner {
    Own,
    Part(Arc<Remote>),
}

impl Remote {
    /// `bytes` of the memory of `driver`'s device.
    pub(super) fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Remote> {
        let address = driver.alloc(bytes as u64)?;
        Ok(Remote { driver: Arc::clone(driver), address, bytes, owner: Owner::Own })
    }

    /// Address on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    fn split(self, sizes: &[usize]) -> Vec<Remote> {
        assert!(sizes.iter().sum::<usize>() <= self.bytes, "split asks for more than the memory holds");
        let parent = Arc::new(self);
        let mut at = parent.address;
        let part = |&bytes: &usize| {
            let address = at;
            at += bytes as u64;
            Remote {
                driver: Arc::clone(&parent.driver),
                address,
                bytes,
                owner: Owner::Part(Arc::clone(&parent)),
            }
        };
        sizes.iter().map(part).collect()
    }

    fn join(parts: Vec<Remote>) -> Option<Remote> {
        let mut parent = None;
        for part in parts {
            if let Owner::Part(p) = &part.owner {
                parent = Some(Arc::clone(p));
            }
        }
        Arc::try_unwrap(parent?).ok()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Owner::Own = self.owner {
            self.driver.free(self.address);
        }
    }
}

impl Memory {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Memory::Host(b) => b.bytes(),
            Memory::Remote(r) => r.bytes,
        }
    }

    /// True when this range frees its own memory (so it can go back to a pool).
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Memory::Host(b) => b.is_whole(),
            Memory::Remote(r) => matches!(r.owner, Owner::Own),
        }
    }

    /// Cuts the range into consecutive parts of the given sizes, each exclusively owned.
    pub fn split(self, sizes: &[usize]) -> Vec<Memory> {
        match self {
            Memory::Host(b) => b.split(sizes).into_iter().map(Memory::Host).collect(),
            Memory::Remote(r) => r.split(sizes).into_iter().map(Memory::Remote).collect(),
        }
    }

    /// Puts the parts of one [`Memory::split`] together again, in any order. None when a part is missing.
    pub fn join(parts: Vec<Memory>) -> Option<Memory> {
        let (mut blocks, mut remotes) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Memory::Host(b) => blocks.push(b),
                Memory::Remote(r) => remotes.push(r),
            }
        }
        if remotes.is_empty() {
            Block::join(blocks).map(Memory::Host)
        } else {
            Remote::join(remotes).map(Memory::Remote)
        }
    }

    /// Copies `bytes` to byte `at` of the range.
    ///
    /// # Errors
    /// Those of the device.
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.check(at, bytes.len());
        match self {
            Memory::Host(b) => b.slice_mut::<u8>(at, bytes.len()).copy_from_slice(bytes),
            Memory::Remote(r) => {
                r.driver.copy_in(r.address + at as u64, bytes, r.driver.default_stream())?;
            }
        }
        Ok(())
    }

    /// Copies from byte `at` of the range.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        self.check(at, bytes.len());
        match self {
            Memory::Host(b) => bytes.copy_from_slice(b.slice::<u8>(at, bytes.len())),
            Memory::Remote(r) => {
                r.driver.copy_out(r.address + at as u64, bytes, r.driver.default_stream())?;
            }
        }
        Ok(())
    }

    /// Sets `n` elements of `size` bytes (1, 2 or 4) from byte `at` on to `value`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn fill(&mut self, at: usize, value: u32, size: usize, n: usize) -> Result<()> {
        self.check(at, n * size);
        match self {
            Memory::Host(b) => match size {
                1 => b.slice_mut::<u8>(at, n).fill(value as u8),
                2 => b.slice_mut::<u16>(at / 2, n).fill(value as u16),
                _ => b.slice_mut::<u32>(at / 4, n).fill(value),
            },
            Memory::Remote(r) => {
                let stream = r.driver.default_stream();
                r.driver.fill(r.address + at as u64, value, size as u32, n as u64, stream)?;
            }
        }
        Ok(())
    }

    /// Copies `bytes` from byte `from_at` of `from` to byte `at` of this range, between any two devices.
    ///
    /// # Errors
    /// Those of the devices.
    pub fn copy_from(&mut self, at: usize, from: &Memory, from_at: usize, bytes: usize) -> Result<()> {
        self.check(at, bytes);
        from.check(from_at, bytes);
        match (&mut *self, from) {
            (_, Memory::Host(b)) => self.write(at, b.slice::<u8>(from_at, bytes)),
            (Memory::Host(b), _) => from.read(from_at, b.slice_mut::<u8>(at, bytes)),
            (Memory::Remote(to), Memory::Remote(r)) if to.driver.kind() == r.driver.kind() => {
                let (stream, here) = (r.driver.default_stream(), Arc::ptr_eq(&to.driver, &r.driver));
                if !here {
                    // What the target's own queue still does to this memory comes first.
                    to.driver.synchronize_stream(to.driver.default_stream())?;
                }
                r.driver.copy(r.address + from_at as u64, to.address + at as u64, bytes as u64, stream)?;
                if here { Ok(()) } else { r.driver.synchronize_stream(stream) }
            }
            _ => {
                let mut host = Vec::new();
                host.try_reserve_exact(bytes)
                    .map_err(|_| Error::OutOfMemory { bytes, what: "a copy between devices".into() })?;
                host.resize(bytes, 0);
                from.read(from_at, &mut host)?;
                self.write(at, &host)
            }
        }
    }

    fn check(&self, at: usize, n: usize) {
        assert!(
            at.checked_add(n).is_some_and(|end| end <= self.bytes()),
            "{n} bytes at {at} leave a range of {} bytes",
            self.bytes()
        );
    }
}
