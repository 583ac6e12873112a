//! The driver's functions over the software device.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | what all share: the machine, the current context, errors that last |
//! | `context.rs` | devices and contexts |
//! | `memory.rs` | allocations, copies, fills |
//! | `stream.rs` | streams and events |
//! | `module.rs` | modules, functions, launches |
#![allow(non_snake_case, reason = "C's names")]
#![allow(clippy::too_many_arguments, reason = "C's argument lists")]

mod context;
mod memory;
mod module;
mod stream;

pub(super) use context::*;
pub(super) use memory::*;
pub(super) use module::*;
pub(super) use stream::*;

use super::codes::{self, Code, INVALID_CONTEXT, INVALID_HANDLE, SUCCESS};
use super::table::Ptr;
use crate::device::soft::{self, DEVICES, Machine};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// What a device answers for good once a kernel failed on it, until its context is reset.
static FAILED: [AtomicI32; DEVICES as usize] = [const { AtomicI32::new(SUCCESS) }; DEVICES as usize];

/// The code of a function's result. A panic must not cross into C.
fn code(f: impl FnOnce() -> std::result::Result<(), Code>) -> Code {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => codes::UNKNOWN,
    }
}

fn machine() -> &'static Machine {
    soft::machine()
}

/// What is done with a device: its errors become codes, and those of kernels stay.
fn on<T>(device: u32, result: Result<T>) -> std::result::Result<T, Code> {
    result.map_err(|e| {
        let code = codes::of(&e);
        if codes::lasts(code) {
            report(&e);
            FAILED[device as usize].store(code, Relaxed);
        }
        code
    })
}

/// A code says little, so the first words of a fault go to standard error too.
fn report(e: &Error) {
    eprintln!("software CUDA device: {e}");
}

/// The device of the current context, if it is still fit for work.
fn device() -> std::result::Result<u32, Code> {
    let device = context::current().ok_or(INVALID_CONTEXT)?;
    match FAILED[device as usize].load(Relaxed) {
        SUCCESS => Ok(device),
        failed => Err(failed),
    }
}

/// A handle is a number of ours, as a pointer.
fn handle(id: u64) -> Ptr {
    std::ptr::without_provenance_mut(id as usize)
}

fn id(handle: Ptr) -> std::result::Result<u64, Code> {
    if handle.is_null() { Err(INVALID_HANDLE) } else { Ok(handle.addr() as u64) }
}
