//! CUDA devices through the crate `cust`.
//!
//! Contexts belong to threads, so every call makes the device's own context current first. What `cust` has no words for
//! (parameters in one buffer, copies between devices, the compiler's log) goes through `cust::sys`.
#![allow(
    unsafe_code,
    reason = "the driver API is C; addresses are those that the same driver gave, lengths those of slices"
)]

use super::Device;
use super::driver::{Call, Driver, Event, Module, Stream};
use super::shim::{self, Answers};
use crate::error::{Error, Result};
use cust::context::{Context, CurrentContext};
use cust::error::CudaResult;
use cust::sys;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ptr::{null_mut, with_exposed_provenance_mut};
use std::sync::{Mutex, PoisonError};

/// Device `cuda:ordinal`.
///
/// # Errors
/// When there is no driver (the software device stands in where `RUNTIME_CUDA=soft` asks for it) or no such device.
pub(super) fn open(ordinal: u32) -> Result<Device> {
    static OPEN: Mutex<Vec<(u32, Device)>> = Mutex::new(Vec::new());
    let name = format!("cuda:{ordinal}");
    let no = |what: String| Error::Device { device: name.clone(), what };
    let asked = std::env::var("RUNTIME_CUDA").is_ok_and(|v| v == "soft");
    if shim::answers() == Answers::Nobody || shim::answers() == Answers::Software && !asked {
        let what = "no CUDA driver (libcuda.so.1) is on this machine; use --device soft:0 for the software CUDA device, or \
                    set RUNTIME_CUDA=soft to let it answer here";
        return Err(no(what.into()));
    }
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, device)) = open.iter().find(|(o, _)| *o == ordinal) {
        return Ok(device.clone());
    }
    let context = cust::init(cust::CudaFlags::empty()).and_then(|()| {
        let device = cust::device::Device::get_device(ordinal)?;
        Ok((device, Context::new(device)?))
    });
    let (device, context) = context.map_err(|e| {
        let count = cust::device::Device::num_devices().unwrap_or(0);
        no(format!("{e}; there are {count} CUDA devices"))
    })?;
    let text = device.name().unwrap_or_else(|_| "a CUDA device".into());
    let driver =
        Cuda { context, name: name.clone(), text, functions: Mutex::default(), used: Mutex::default() };
    let device = Device::over(name, std::sync::Arc::new(driver), false);
    open.push((ordinal, device.clone()));
    Ok(device)
}

struct Cuda {
    context: Context,
    name: String,
    text: String,
    /// Handles of entries by module and name.
    functions: Mutex<HashMap<(u64, String), usize>>,
    /// Bytes of each allocation.
    used: Mutex<HashMap<u64, u64>>,
}

/// A handle as the number that stands for it outside.
fn number<T>(handle: *mut T) -> u64 {
    handle.expose_provenance() as u64
}
/// The driver's words for a code.
fn words(code: sys::CUresult) -> String {
    let mut text = std::ptr::null();
    // SAFETY: room for a pointer.
    let known = unsafe { sys::cuGetErrorString(code, &mut text) } == sys::CUresult::CUDA_SUCCESS;
    match known && !text.is_null() {
        // SAFETY: the driver gives a text with a NUL at its end, which stays.
        true => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
        false => format!("error {}", code as u32),
    }
}
fn pointer<T>(number: u64) -> *mut T {
    with_exposed_provenance_mut(number as usize)
}

impl Cuda {
    /// Makes the context current and calls `f`.
    fn call(&self, what: &str, f: impl FnOnce() -> sys::CUresult) -> Result<()> {
        CurrentContext::set_current(&self.context).map_err(|e| self.error(what, &e.to_string()))?;
        match f() {
            sys::CUresult::CUDA_SUCCESS => Ok(()),
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(Error::OutOfMemory { bytes: 0, what: format!("{what} on {}", self.name) })
            }
            code @ (sys::CUresult::CUDA_ERROR_LAUNCH_FAILED
            | sys::CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION) => {
                // The driver does not say which kernel it was, nor where.
                let may = "an id, label or index out of range stops the kernels of embedding, cross_entropy, gather \
                           and scatter_add so; the CPU and soft:0 name the op";
                Err(self.error(what, &format!("{} ({may})", words(code))))
            }
            code => Err(self.error(what, &words(code))),
        }
    }

    fn error(&self, what: &str, e: &str) -> Error {
        Error::Device { device: self.name.clone(), what: format!("{what}: {e}") }
    }

    fn new_stream(&self, flags: sys::CUstream_flags_enum) -> Result<Stream> {
        let mut stream = null_mut();
        // SAFETY: room for the handle.
        self.call("a stream", || unsafe { sys::cuStreamCreateWithPriority(&mut stream, flags as u32, 0) })?;
        Ok(Stream(number(stream)))
    }

    fn function(&self, call: &Call<'_>) -> Result<sys::CUfunction> {
        let mut known = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (call.module.0, call.entry.to_owned());
        if let Some(&f) = known.get(&key) {
            return Ok(with_exposed_provenance_mut(f));
        }
        let name = CString::new(call.entry).map_err(|_| self.error(call.entry, "its name holds a NUL"))?;
        let mut f = null_mut();
        // SAFETY: the module came from `load`, the name ends with a NUL, and there is room for the handle.
        self.call(call.entry, || unsafe {
            sys::cuModuleGetFunction(&mut f, pointer(call.module.0), name.as_ptr())
        })?;
        known.insert(key, f.expose_provenance());
        Ok(f)
    }
}

impl Driver for Cuda {
    fn description(&self) -> String {
        match shim::answers() {
            Answers::Hardware => self.text.clone(),
            _ => format!("{} (RUNTIME_CUDA=soft)", self.text),
        }
    }
    fn kind(&self) -> &'static str {
        "cuda"
    }

    fn alloc(&self, bytes: u64) -> Result<u64> {
        let mut at = 0;
        // SAFETY: room for an address.
        let done = self.call("memory", || unsafe { sys::cuMemAlloc_v2(&mut at, bytes.max(1) as usize) });
        done.map_err(|e| match e {
            Error::OutOfMemory { what, .. } => Error::OutOfMemory { bytes: bytes as usize, what },
            e => e,
        })?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(at, bytes);
        Ok(at)
    }
    fn free(&self, address: u64) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
        // SAFETY: an address of `alloc`, freed once. The driver waits for work that uses it; an error of that work comes
        // back from the next call.
        let _ = self.call("free", || unsafe { sys::cuMemFree_v2(address) });
    }
    fn used(&self) -> u64 {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
    fn copy_in(&self, to: u64, from: &[u8], stream: Stream) -> Result<()> {
        let n = from.len();
        // SAFETY: the slice has n bytes; the driver reads memory that is not page-locked before it returns.
        self.call("a copy to the device", || unsafe {
            sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), n, pointer(stream.0))
        })
    }
    fn copy_out(&self, from: u64, to: &mut [u8], stream: Stream) -> Result<()> {
        let n = to.len();
        // SAFETY: the slice has room for n bytes, and is lent until the stream is waited for below.
        self.call("a copy from the device", || unsafe {
            sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, n, pointer(stream.0))
        })?;
        self.synchronize_stream(stream)
    }
    fn copy(&self, from: u64, to: u64, bytes: u64, stream: Stream) -> Result<()> {
        // SAFETY: addresses of allocations; with unified addresses this copies between devices too.
        self.call("a copy", || unsafe {
            sys::cuMemcpyDtoDAsync_v2(to, from, bytes as usize, pointer(stream.0))
        })
    }
    fn fill(&self, at: u64, value: u32, size: u32, n: u64, stream: Stream) -> Result<()> {
        let (n, stream) = (n as usize, pointer(stream.0));
        // SAFETY: an address of an allocation with n elements of that size.
        self.call("a fill", || unsafe {
            match size {
                1 => sys::cuMemsetD8Async(at, value as u8, n, stream),
                2 => sys::cuMemsetD16Async(at, value as u16, n, stream),
                _ => sys::cuMemsetD32Async(at, value, n, stream),
            }
        })
    }

    fn load(&self, name: &str, ptx: &str) -> Result<Module> {
        use sys::CUjit_option_enum::{CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
        // The driver of CUDA 13.0 refuses comments that are not ASCII, which ptxas 13.4 takes.
        let ptx: String = ptx.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        let text = CString::new(ptx).map_err(|_| self.error(name, "the text holds a NUL"))?;
        let mut log = vec![0u8; 8192];
        let mut options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(log.len())];
        let mut module = null_mut();
        // SAFETY: text with a NUL at its end, two options with their values, a log of the size that is said.
        let done = self.call(name, || unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, options, values)
        });
        done.map_err(|e| {
            let said = String::from_utf8_lossy(&log);
            Error::Device { device: self.name.clone(), what: format!("{e}\n{}", said.trim_end_matches('\0')) }
        })?;
        Ok(Module(number(module)))
    }
    fn launch(&self, call: &Call<'_>, stream: Stream) -> Result<()> {
        let f = self.function(call)?;
        let ([gx, gy, gz], [bx, by, bz]) = (call.grid, call.block);
        let mut size = call.params.len();
        // CU_LAUNCH_PARAM_BUFFER_POINTER = 1, CU_LAUNCH_PARAM_BUFFER_SIZE = 2, CU_LAUNCH_PARAM_END = 0.
        let tag = std::ptr::without_provenance_mut;
        let mut extra =
            [tag(1), call.params.as_ptr().cast_mut().cast(), tag(2), (&raw mut size).cast(), tag(0)];
        // SAFETY: a function of a loaded module, and its parameters laid out as its PTX declares them, which the driver
        // copies before it returns.
        self.call(call.entry, || unsafe {
            let (stream, extra) = (pointer(stream.0), extra.as_mut_ptr());
            sys::cuLaunchKernel(f, gx, gy, gz, bx, by, bz, call.shared_bytes, stream, null_mut(), extra)
        })
    }

    fn default_stream(&self) -> Stream {
        Stream(0)
    }
    fn stream(&self) -> Result<Stream> {
        self.new_stream(sys::CUstream_flags_enum::CU_STREAM_DEFAULT)
    }
    fn side_stream(&self) -> Result<Stream> {
        self.new_stream(sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING)
    }
    fn close_stream(&self, stream: Stream) {
        // SAFETY: a handle of `stream`, closed once. Its work goes on; an error of it comes back from the next call.
        let _ = self.call("a stream", || unsafe { sys::cuStreamDestroy_v2(pointer(stream.0)) });
    }
    fn event(&self) -> Result<Event> {
        let mut event = null_mut();
        // SAFETY: room for the handle.
        self.call("an event", || unsafe { sys::cuEventCreate(&mut event, 0) })?;
        Ok(Event(number(event)))
    }
    fn close_event(&self, event: Event) {
        // SAFETY: a handle of `event`, closed once.
        let _ = self.call("an event", || unsafe { sys::cuEventDestroy_v2(pointer(event.0)) });
    }
    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        // SAFETY: handles of this driver.
        self.call("an event", || unsafe { sys::cuEventRecord(pointer(event.0), pointer(stream.0)) })
    }
    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        // SAFETY: handles of this driver.
        self.call("a wait", || unsafe { sys::cuStreamWaitEvent(pointer(stream.0), pointer(event.0), 0) })
    }
    fn seconds_between(&self, start: Event, end: Event) -> Result<f64> {
        let mut ms = 0.0;
        // SAFETY: handles of this driver, room for the time.
        self.call("the time between two events", || unsafe {
            sys::cuEventElapsedTime(&mut ms, pointer(start.0), pointer(end.0))
        })?;
        Ok(f64::from(ms) / 1e3)
    }
    fn synchronize_event(&self, event: Event) -> Result<()> {
        // SAFETY: a handle of this driver.
        self.call("an event", || unsafe { sys::cuEventSynchronize(pointer(event.0)) })
    }
    fn synchronize_stream(&self, stream: Stream) -> Result<()> {
        // SAFETY: a handle of this driver; 0 is the default stream.
        self.call("the work of a stream", || unsafe { sys::cuStreamSynchronize(pointer(stream.0)) })
    }
    fn synchronize(&self) -> Result<()> {
        let synchronize = || -> CudaResult<()> {
            CurrentContext::set_current(&self.context)?;
            CurrentContext::synchronize()
        };
        synchronize().map_err(|e| self.error("the work of the device", &e.to_string()))
    }
}
