//! Allocations, copies, fills. What names no stream goes through the default stream and is waited for.

use super::super::codes::*;
use super::super::ffi::{self, Room, put, put_if};
use super::super::table::Ptr;
use super::stream::{queue, stream};
use super::{code, device, machine, on};
use crate::device::soft::Machine;
use crate::error::Result as Outcome;
use crate::ptx::run::memory::Found;
use std::ffi::{c_uint, c_void};

/// No stream: the default one, and waited for.
const NONE: Ptr = std::ptr::null_mut();

pub(in super::super) extern "C" fn cuMemAlloc_v2(out: *mut u64, bytes: usize) -> Code {
    code(|| {
        let device = device()?;
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        put(out, on(device, machine().alloc(device, bytes as u64))?)
    })
}
pub(in super::super) extern "C" fn cuMemAllocAsync(out: *mut u64, bytes: usize, _: Ptr) -> Code {
    cuMemAlloc_v2(out, bytes)
}
pub(in super::super) extern "C" fn cuMemAllocPitch_v2(
    out: *mut u64,
    pitch: *mut usize,
    width: usize,
    height: usize,
    _: c_uint,
) -> Code {
    let row = width.next_multiple_of(512);
    put_if(pitch, row);
    cuMemAlloc_v2(out, row.saturating_mul(height))
}
pub(in super::super) extern "C" fn cuMemFree_v2(address: u64) -> Code {
    code(|| {
        let device = device()?;
        if address == 0 {
            return Ok(());
        }
        // Work that still uses it comes first.
        let streams = machine().streams();
        on(device, streams.drain(machine(), &streams.last_of(device)))?;
        if machine().free(address) { Ok(()) } else { Err(INVALID_VALUE) }
    })
}
pub(in super::super) extern "C" fn cuMemFreeAsync(address: u64, to: Ptr) -> Code {
    code(|| {
        let device = device()?;
        let free = move |m: &Machine| {
            m.free(address);
            Ok(())
        };
        queue(device, stream(device, to)?, false, free)
    })
}
pub(in super::super) extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    code(|| {
        let device = device()?;
        let memory = on(device, machine().memory(device))?;
        put(free, (memory.bytes() - memory.used()) as usize)?;
        put(total, memory.bytes() as usize)
    })
}

/// The allocation around an address.
fn around(address: u64) -> Result<(u64, u64), Code> {
    match machine().owner(address).map(|(_, m)| m.find(address)) {
        Some(Found::Live(start, bytes)) => Ok((start, bytes)),
        _ => Err(INVALID_VALUE),
    }
}
pub(in super::super) extern "C" fn cuMemGetAddressRange_v2(
    base: *mut u64,
    bytes: *mut usize,
    address: u64,
) -> Code {
    code(|| {
        let (start, n) = around(address)?;
        put_if(base, start);
        put_if(bytes, n as usize);
        Ok(())
    })
}
/// CU_POINTER_ATTRIBUTE_: 2 the kind of memory, 3 the address on the device, 9 the device.
pub(in super::super) extern "C" fn cuPointerGetAttribute(data: Ptr, attribute: i32, address: u64) -> Code {
    code(|| {
        around(address)?;
        let owner = machine().owner(address).map_or(0, |(d, _)| d);
        match attribute {
            2 => put(data.cast::<c_uint>(), 2),
            3 => put(data.cast::<u64>(), address),
            9 => put(data.cast::<c_uint>(), owner),
            _ => Err(NOT_SUPPORTED),
        }
    })
}

pub(in super::super) extern "C" fn cuMemAllocHost_v2(out: *mut Ptr, bytes: usize) -> Code {
    code(|| {
        device()?;
        let p = ffi::host_alloc(bytes);
        if p.is_null() { Err(OUT_OF_MEMORY) } else { put(out, p) }
    })
}
pub(in super::super) extern "C" fn cuMemHostAlloc(out: *mut Ptr, bytes: usize, _: c_uint) -> Code {
    cuMemAllocHost_v2(out, bytes)
}
pub(in super::super) extern "C" fn cuMemFreeHost(p: Ptr) -> Code {
    ffi::host_free(p);
    SUCCESS
}
pub(in super::super) extern "C" fn cuMemHostRegister_v2(_: Ptr, _: usize, _: c_uint) -> Code {
    SUCCESS // every page of the host can be copied
}
pub(in super::super) extern "C" fn cuMemHostUnregister(_: Ptr) -> Code {
    SUCCESS
}

/// Queues `run`; in no stream, waits for it too.
fn work(to: Ptr, wait: bool, run: impl FnOnce(&Machine) -> Outcome<()> + Send + 'static) -> Code {
    code(|| {
        let device = device()?;
        queue(device, stream(device, to)?, wait, run)
    })
}

/// The host's bytes are read before this returns, as the driver does with memory that is not page-locked.
fn copy_in(to: u64, from: *const c_void, bytes: usize, into: Ptr, wait: bool) -> Code {
    match ffi::bytes(from, bytes) {
        Err(code) => code,
        Ok(bytes) => {
            let bytes = bytes.to_vec();
            work(into, wait, move |m| m.write(to, &bytes))
        }
    }
}
/// The host's memory is written when the stream gets there.
fn copy_out(to: Ptr, from: u64, bytes: usize, into: Ptr, wait: bool) -> Code {
    match Room::new(to, bytes) {
        Err(code) => code,
        Ok(room) => work(into, wait, move |m| {
            let mut piece = vec![0; bytes];
            m.read(from, &mut piece)?;
            room.fill(&piece);
            Ok(())
        }),
    }
}
fn copy(to: u64, from: u64, bytes: usize, into: Ptr, wait: bool) -> Code {
    work(into, wait, move |m| m.copy(from, to, bytes as u64))
}
fn fill(to: u64, value: u32, size: u32, n: usize, into: Ptr, wait: bool) -> Code {
    work(into, wait, move |m| m.fill(to, value, size, n as u64))
}

pub(in super::super) extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> Code {
    copy_in(to, from, bytes, NONE, true)
}
pub(in super::super) extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    into: Ptr,
) -> Code {
    copy_in(to, from, bytes, into, false)
}
pub(in super::super) extern "C" fn cuMemcpyDtoH_v2(to: Ptr, from: u64, bytes: usize) -> Code {
    copy_out(to, from, bytes, NONE, true)
}
pub(in super::super) extern "C" fn cuMemcpyDtoHAsync_v2(to: Ptr, from: u64, bytes: usize, into: Ptr) -> Code {
    copy_out(to, from, bytes, into, false)
}
pub(in super::super) extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> Code {
    copy(to, from, bytes, NONE, true)
}
pub(in super::super) extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, into: Ptr) -> Code {
    copy(to, from, bytes, into, false)
}
pub(in super::super) extern "C" fn cuMemcpyPeer(to: u64, _: Ptr, from: u64, _: Ptr, bytes: usize) -> Code {
    copy(to, from, bytes, NONE, true)
}
pub(in super::super) extern "C" fn cuMemcpyPeerAsync(
    to: u64,
    _: Ptr,
    from: u64,
    _: Ptr,
    bytes: usize,
    into: Ptr,
) -> Code {
    copy(to, from, bytes, into, false)
}
pub(in super::super) extern "C" fn cuMemsetD8_v2(to: u64, value: u8, n: usize) -> Code {
    fill(to, value.into(), 1, n, NONE, true)
}
pub(in super::super) extern "C" fn cuMemsetD16_v2(to: u64, value: u16, n: usize) -> Code {
    fill(to, value.into(), 2, n, NONE, true)
}
pub(in super::super) extern "C" fn cuMemsetD32_v2(to: u64, value: c_uint, n: usize) -> Code {
    fill(to, value, 4, n, NONE, true)
}
pub(in super::super) extern "C" fn cuMemsetD8Async(to: u64, value: u8, n: usize, into: Ptr) -> Code {
    fill(to, value.into(), 1, n, into, false)
}
pub(in super::super) extern "C" fn cuMemsetD16Async(to: u64, value: u16, n: usize, into: Ptr) -> Code {
    fill(to, value.into(), 2, n, into, false)
}
pub(in super::super) extern "C" fn cuMemsetD32Async(to: u64, value: c_uint, n: usize, into: Ptr) -> Code {
    fill(to, value, 4, n, into, false)
}
