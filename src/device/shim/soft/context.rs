//! Devices and contexts. All contexts of a device share its memory and streams.

use super::super::codes::*;
use super::super::ffi::{Room, put, put_if, text};
use super::super::table::{self, Ptr};
use super::{FAILED, code, device, handle, id, machine, on};
use crate::device::soft::DEVICES;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_char, c_uint};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Primary contexts have numbers from here on, others after them.
const PRIMARY: u64 = 0x1000;
/// Version of the driver interface: CUDA 13.0.
const VERSION: i32 = 13_000;

#[derive(Default)]
struct Contexts {
    /// Device of each context that was created.
    created: HashMap<u64, u32>,
    /// Holders of each primary context.
    held: [u32; DEVICES as usize],
    next: u64,
}

static CONTEXTS: Mutex<Option<Contexts>> = Mutex::new(None);

fn contexts() -> MutexGuard<'static, Option<Contexts>> {
    CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<R>(f: impl FnOnce(&mut Contexts) -> R) -> R {
    f(contexts().get_or_insert_with(Contexts::default))
}

thread_local! {
    static CURRENT: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn device_of(context: u64) -> Option<u32> {
    let primary = context.checked_sub(PRIMARY).filter(|d| *d < DEVICES.into());
    primary.map(|d| d as u32).or_else(|| with(|c| c.created.get(&context).copied()))
}

/// Device of this thread's current context.
pub(super) fn current() -> Option<u32> {
    device_of(CURRENT.with_borrow(|c| c.last().copied())?)
}

/// Devices that programs see.
fn count() -> u32 {
    let asked = std::env::var("SOFTCUDA_DEVICES").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(2).min(DEVICES)
}

fn known(device: i32) -> Result<u32, Code> {
    u32::try_from(device).ok().filter(|d| *d < count()).ok_or(INVALID_DEVICE)
}

pub(in super::super) extern "C" fn cuInit(flags: c_uint) -> Code {
    if flags == 0 { SUCCESS } else { INVALID_VALUE }
}
pub(in super::super) extern "C" fn cuDriverGetVersion(version: *mut i32) -> Code {
    code(|| put(version, VERSION))
}
pub(in super::super) extern "C" fn cuGetErrorName(error: Code, name: *mut *const c_char) -> Code {
    code(|| put(name, describe(error).ok_or(INVALID_VALUE)?.0.as_ptr().cast()))
}
pub(in super::super) extern "C" fn cuGetErrorString(error: Code, out: *mut *const c_char) -> Code {
    code(|| put(out, describe(error).ok_or(INVALID_VALUE)?.1.as_ptr().cast()))
}

/// Functions by name. A name without a version means the newest whose arguments we know.
pub(in super::super) extern "C" fn cuGetProcAddress(
    symbol: *const c_char,
    out: *mut Ptr,
    version: i32,
    flags: u64,
) -> Code {
    cuGetProcAddress_v2(symbol, out, version, flags, std::ptr::null_mut())
}
pub(in super::super) extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    out: *mut Ptr,
    version: i32,
    _: u64,
    status: *mut i32,
) -> Code {
    code(|| {
        let name = text(symbol)?;
        let newest = if name == "cuCtxCreate" && version >= 12_050 { "_v4" } else { "_v2" };
        // The arguments of version 3 of cuCtxCreate are not known here.
        let between = name == "cuCtxCreate" && (11_040..12_050).contains(&version);
        let found = table::address(&format!("{name}{newest}")).or_else(|| table::address(name));
        match found.filter(|_| !between) {
            Some(p) => {
                put_if(status, 0);
                put(out, p.cast_mut())
            }
            None => {
                put_if(status, 1);
                put_if(out, std::ptr::null_mut());
                Err(NOT_FOUND)
            }
        }
    })
}

pub(in super::super) extern "C" fn cuDeviceGet(out: *mut i32, ordinal: i32) -> Code {
    code(|| known(ordinal).and_then(|_| put(out, ordinal)))
}
pub(in super::super) extern "C" fn cuDeviceGetCount(out: *mut i32) -> Code {
    code(|| put(out, count() as i32))
}
pub(in super::super) extern "C" fn cuDeviceGetName(name: *mut c_char, len: i32, device: i32) -> Code {
    code(|| {
        let text = format!("ringtape software CUDA device {}", known(device)?);
        write(name, len, &text)
    })
}
fn write(to: *mut c_char, len: i32, text: &str) -> Result<(), Code> {
    let room = usize::try_from(len).ok().filter(|n| *n > 0).ok_or(INVALID_VALUE)?;
    let mut bytes = text.as_bytes()[..text.len().min(room - 1)].to_vec();
    bytes.push(0);
    Room::new(to.cast(), room)?.fill(&bytes);
    Ok(())
}
pub(in super::super) extern "C" fn cuDeviceGetPCIBusId(to: *mut c_char, len: i32, device: i32) -> Code {
    code(|| write(to, len, &format!("0000:{:02x}:00.0", known(device)? + 1)))
}
pub(in super::super) extern "C" fn cuDeviceGetUuid(out: *mut [u8; 16], device: i32) -> Code {
    code(|| {
        let mut uuid = *b"ringtape softcu0";
        uuid[15] = b'0' + known(device)? as u8;
        put(out, uuid)
    })
}
pub(in super::super) extern "C" fn cuDeviceGetUuid_v2(out: *mut [u8; 16], device: i32) -> Code {
    cuDeviceGetUuid(out, device)
}

/// CUdevice_attribute and its value; what is not here is 0. Limits are those that the software device keeps, the rest is
/// as on sm_90.
const ATTRIBUTES: &[(i32, i32)] = &[
    (1, 1024), // threads of a block
    (2, 1024), // along x
    (3, 1024), // along y
    (4, 64),   // along z
    (5, 0x7fff_ffff),
    (6, 65_535),
    (7, 65_535),
    (8, 49_152), // static shared memory of a block
    (9, 65_536), // constant memory
    (10, 32),    // warp
    (11, 0x7fff_ffff),
    (12, 65_536),    // registers of a block
    (13, 1_000_000), // clock in kHz
    (14, 512),       // alignment of textures
    (15, 1),         // copies while kernels run
    (16, 8),         // multiprocessors
    (31, 1),         // concurrent kernels
    (36, 1_000_000), // clock of the memory in kHz
    (37, 64),        // its bus in bits
    (39, 2048),      // threads of a multiprocessor
    (40, 2),         // copy engines
    (41, 1),         // one address space
    (75, 9),         // compute capability
    (76, 0),
    (81, 228 << 10), // shared memory of a multiprocessor
    (82, 65_536),    // registers of a multiprocessor
    (97, 227 << 10), // shared memory of a block that asks for it
    (106, 32),       // blocks of a multiprocessor
];

pub(in super::super) extern "C" fn cuDeviceGetAttribute(out: *mut i32, attribute: i32, device: i32) -> Code {
    code(|| {
        let device = known(device)?;
        let listed = ATTRIBUTES.iter().find(|(a, _)| *a == attribute).map_or(0, |(_, v)| *v);
        put(out, if attribute == 33 { device as i32 + 1 } else { listed }) // 33: the PCI bus
    })
}
pub(in super::super) extern "C" fn cuDeviceComputeCapability(
    major: *mut i32,
    minor: *mut i32,
    device: i32,
) -> Code {
    code(|| {
        known(device)?;
        put(major, 9)?;
        put(minor, 0)
    })
}
pub(in super::super) extern "C" fn cuDeviceTotalMem_v2(out: *mut usize, device: i32) -> Code {
    code(|| {
        let device = known(device)?;
        put(out, on(device, machine().memory(device))?.bytes() as usize)
    })
}
pub(in super::super) extern "C" fn cuDeviceCanAccessPeer(out: *mut i32, device: i32, peer: i32) -> Code {
    code(|| {
        let (a, b) = (known(device)?, known(peer)?);
        put(out, i32::from(a != b))
    })
}

pub(in super::super) extern "C" fn cuDevicePrimaryCtxRetain(out: *mut Ptr, device: i32) -> Code {
    code(|| {
        let device = known(device)?;
        on(device, machine().memory(device))?;
        with(|c| c.held[device as usize] += 1);
        put(out, handle(PRIMARY + u64::from(device)))
    })
}
pub(in super::super) extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> Code {
    code(|| {
        let device = known(device)?;
        with(|c| {
            let held = &mut c.held[device as usize];
            *held = held.checked_sub(1).ok_or(INVALID_CONTEXT)?;
            Ok(())
        })
    })
}
pub(in super::super) extern "C" fn cuDevicePrimaryCtxReset_v2(device: i32) -> Code {
    code(|| {
        FAILED[known(device)? as usize].store(SUCCESS, Relaxed);
        Ok(())
    })
}
pub(in super::super) extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: i32, _: c_uint) -> Code {
    code(|| known(device).map(drop))
}
pub(in super::super) extern "C" fn cuDevicePrimaryCtxGetState(
    device: i32,
    flags: *mut c_uint,
    active: *mut i32,
) -> Code {
    code(|| {
        let device = known(device)?;
        put_if(flags, 0);
        put(active, with(|c| i32::from(c.held[device as usize] > 0)))
    })
}

pub(in super::super) extern "C" fn cuCtxCreate_v2(out: *mut Ptr, _: c_uint, device: i32) -> Code {
    code(|| {
        let device = known(device)?;
        on(device, machine().memory(device))?;
        let new = with(|c| {
            c.next += 1;
            let new = PRIMARY + u64::from(DEVICES) + c.next;
            c.created.insert(new, device);
            new
        });
        CURRENT.with_borrow_mut(|c| c.push(new));
        put(out, handle(new))
    })
}
pub(in super::super) extern "C" fn cuCtxCreate_v4(out: *mut Ptr, _: Ptr, flags: c_uint, device: i32) -> Code {
    cuCtxCreate_v2(out, flags, device)
}
pub(in super::super) extern "C" fn cuCtxDestroy_v2(context: Ptr) -> Code {
    code(|| {
        let context = id(context)?;
        with(|c| c.created.remove(&context)).ok_or(INVALID_CONTEXT)?;
        CURRENT.with_borrow_mut(|c| c.retain(|x| *x != context));
        Ok(())
    })
}
pub(in super::super) extern "C" fn cuCtxSetCurrent(context: Ptr) -> Code {
    code(|| {
        let new = if context.is_null() { None } else { Some(id(context)?) };
        if new.is_some_and(|c| device_of(c).is_none()) {
            return Err(INVALID_CONTEXT);
        }
        CURRENT.with_borrow_mut(|c| {
            c.pop();
            c.extend(new);
        });
        Ok(())
    })
}
pub(in super::super) extern "C" fn cuCtxGetCurrent(out: *mut Ptr) -> Code {
    code(|| put(out, CURRENT.with_borrow(|c| c.last().map_or(std::ptr::null_mut(), |c| handle(*c)))))
}
pub(in super::super) extern "C" fn cuCtxPushCurrent_v2(context: Ptr) -> Code {
    code(|| {
        let context = id(context)?;
        device_of(context).ok_or(INVALID_CONTEXT)?;
        CURRENT.with_borrow_mut(|c| c.push(context));
        Ok(())
    })
}
pub(in super::super) extern "C" fn cuCtxPopCurrent_v2(out: *mut Ptr) -> Code {
    code(|| {
        let popped = CURRENT.with_borrow_mut(Vec::pop).ok_or(INVALID_CONTEXT)?;
        put_if(out, handle(popped));
        Ok(())
    })
}
pub(in super::super) extern "C" fn cuCtxGetDevice(out: *mut i32) -> Code {
    code(|| put(out, current().ok_or(INVALID_CONTEXT)? as i32))
}
pub(in super::super) extern "C" fn cuCtxGetFlags(out: *mut c_uint) -> Code {
    code(|| put(out, 0))
}
pub(in super::super) extern "C" fn cuCtxGetApiVersion(_: Ptr, out: *mut c_uint) -> Code {
    code(|| put(out, VERSION as c_uint))
}
pub(in super::super) extern "C" fn cuCtxSynchronize() -> Code {
    code(|| {
        let device = device()?;
        let streams = machine().streams();
        on(device, streams.drain(machine(), &streams.last_of(device)))?;
        on(device, streams.kept(device))
    })
}
pub(in super::super) extern "C" fn cuCtxGetLimit(out: *mut usize, limit: i32) -> Code {
    // Stack of a thread, printf's buffer, malloc's heap.
    let value = match limit {
        0 => 1024,
        1 => 1 << 20,
        2 => 8 << 20,
        _ => 0,
    };
    code(|| put(out, value))
}
pub(in super::super) extern "C" fn cuCtxSetLimit(_: i32, _: usize) -> Code {
    SUCCESS // grows as needed
}
pub(in super::super) extern "C" fn cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) -> Code {
    put_if(least, 0);
    put_if(greatest, 0);
    SUCCESS
}
pub(in super::super) extern "C" fn cuCtxGetCacheConfig(out: *mut i32) -> Code {
    code(|| put(out, 0))
}
pub(in super::super) extern "C" fn cuCtxSetCacheConfig(_: i32) -> Code {
    SUCCESS // there is no cache
}
pub(in super::super) extern "C" fn cuCtxEnablePeerAccess(peer: Ptr, _: c_uint) -> Code {
    code(|| {
        let (from, to) = (device()?, device_of(id(peer)?).ok_or(INVALID_CONTEXT)?);
        if machine().enable_peer(from, to) { Ok(()) } else { Err(PEER_ENABLED) }
    })
}
pub(in super::super) extern "C" fn cuCtxDisablePeerAccess(peer: Ptr) -> Code {
    code(|| {
        let (from, to) = (device()?, device_of(id(peer)?).ok_or(INVALID_CONTEXT)?);
        if machine().disable_peer(from, to) { Ok(()) } else { Err(PEER_NOT_ENABLED) }
    })
}
