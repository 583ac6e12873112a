//! The one place that follows pointers of a caller of the driver, and that looks for a real one.
#![allow(
    unsafe_code,
    reason = "the driver API is C: its callers promise what cuda.h asks of their pointers, and nothing else can"
)]

use super::codes::{Code, INVALID_VALUE};
use std::ffi::{CStr, c_char, c_int, c_void};

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// A library that was opened; it stays open.
#[derive(Clone, Copy)]
pub(super) struct Library(*mut c_void);

/// Opens the shared library `name`, unless it is the one that this code is in: the stand-in would find itself.
pub(super) fn library(name: &str) -> Option<Library> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a string with a NUL at its end; RTLD_NOW | RTLD_LOCAL. The constructors of a CUDA driver are made for this.
    let library = unsafe { dlopen(name.as_ptr(), 2) };
    if library.is_null() {
        return None;
    }
    let found = Library(library);
    let own = super::table::cuInit as *const c_void;
    found.symbol("cuInit\0").filter(|p| !std::ptr::eq(*p, own)).map(|_| found)
}

impl Library {
    /// Address of a symbol; `name` ends with a NUL.
    pub(super) fn symbol(self, name: &str) -> Option<*const c_void> {
        // SAFETY: the handle came from dlopen and is never closed; the name ends with a NUL.
        let p = unsafe { dlsym(self.0, name.as_ptr().cast()) };
        (!p.is_null()).then_some(p.cast_const())
    }
}

/// Writes a result where the caller wants it.
pub(super) fn put<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, and the caller of the driver API promises room for a T there.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a result, if the caller wants it.
pub(super) fn put_if<T>(to: *mut T, value: T) {
    let _ = put(to, value); // null says that nobody wants it
}

/// The value at a pointer.
pub(super) fn get<T: Copy>(from: *const T) -> Result<T, Code> {
    if from.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, and the caller promises a T there; it may be unaligned in a caller's parameter buffer.
    Ok(unsafe { from.read_unaligned() })
}

/// Entry `i` of an array of pointers or numbers.
pub(super) fn entry<T: Copy>(from: *const T, i: usize) -> Result<T, Code> {
    if from.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller promises that many entries.
    get(unsafe { from.add(i) })
}

/// A text with a NUL at its end.
pub(super) fn text<'a>(from: *const c_char) -> Result<&'a str, Code> {
    if from.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, and the caller promises a NUL, and that the text stays while the call runs.
    unsafe { CStr::from_ptr(from) }.to_str().map_err(|_| INVALID_VALUE)
}

/// Bytes that the caller lends for reading while the call runs.
pub(super) fn bytes<'a>(from: *const c_void, n: usize) -> Result<&'a [u8], Code> {
    if n == 0 {
        return Ok(&[]);
    }
    if from.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, and the caller promises n bytes that stay as they are while the call runs.
    Ok(unsafe { std::slice::from_raw_parts(from.cast(), n) })
}

/// Room in the caller's memory. For an asynchronous copy the caller promises it until the stream has got there.
#[derive(Clone, Copy)]
pub(super) struct Room(*mut c_void, usize);

// SAFETY: the promise of the caller holds whichever thread runs the stream.
unsafe impl Send for Room {}

impl Room {
    pub(super) fn new(to: *mut c_void, n: usize) -> Result<Room, Code> {
        if to.is_null() && n > 0 { Err(INVALID_VALUE) } else { Ok(Room(to, n)) }
    }
    /// Copies `bytes`, at most as many as there is room for.
    pub(super) fn fill(self, bytes: &[u8]) {
        let n = bytes.len().min(self.1);
        if n > 0 {
            // SAFETY: not null by `new`, and the caller promises self.1 bytes; they cannot overlap a slice of ours.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.cast::<u8>(), n) };
        }
    }
}

/// Memory of the host as the driver hands it out.
pub(super) fn host_alloc(bytes: usize) -> *mut c_void {
    // SAFETY: calloc takes any size.
    unsafe { libc::calloc(bytes.max(1), 1) }
}
/// Gives it back.
pub(super) fn host_free(p: *mut c_void) {
    // SAFETY: the caller of cuMemFreeHost promises that it came from cuMemAllocHost, and frees it once.
    unsafe { libc::free(p) }
}

/// A function of the caller's program.
pub(super) type HostFn = unsafe extern "C" fn(*mut c_void);

/// One, and what it is called with.
#[derive(Clone, Copy)]
pub(super) struct Callback(pub(super) Option<HostFn>, pub(super) *mut c_void);

// SAFETY: the caller of cuLaunchHostFunc promises that its function may be called from any thread.
unsafe impl Send for Callback {}

impl Callback {
    pub(super) fn call(self) {
        if let Some(f) = self.0 {
            // SAFETY: the caller of cuLaunchHostFunc promises a function that takes its own data.
            unsafe { f(self.1) }
        }
    }
}
