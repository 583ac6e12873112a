//! The `ringtape` program: all of it is in [`ringtape::cli`], but for what happens when memory runs out in a place that
//! cannot say so: exit code 5 and the size, where Rust would abort. Large takings (tensors, files) are errors of their
//! own, with what they were for, and never come here.
#![allow(unsafe_code, reason = "a global allocator and a signal handler are unsafe by their nature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

fn main() {
    install();
    std::process::exit(ringtape::cli::run())
}

/// The largest taking that the system refused.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which remembers what it was refused.
struct Remembering;

#[global_allocator]
static ALLOCATOR: Remembering = Remembering;

fn seen(p: *mut u8, bytes: usize) -> *mut u8 {
    if p.is_null() {
        REFUSED.fetch_max(bytes, Relaxed);
    }
    p
}

// SAFETY: every call goes to the system's allocator with the arguments that were given.
unsafe impl GlobalAlloc for Remembering {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        seen(unsafe { System.alloc(layout) }, layout.size())
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        seen(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        seen(unsafe { System.realloc(p, layout, size) }, size)
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(p, layout) }
    }
}

/// Has Rust's abort after a refused taking end the process by exit code 5.
fn install() {
    // SAFETY: `on_abort` has the signature of a handler and does only what one may.
    unsafe { libc::signal(libc::SIGABRT, on_abort as *const () as libc::sighandler_t) };
}

/// Nothing is unwound or flushed: other threads are in unknown states, and what is half written has a temporary name.
extern "C" fn on_abort(_: libc::c_int) {
    let bytes = REFUSED.load(Relaxed);
    if bytes == 0 {
        // Aborted for another reason: on return, abort(3) ends the process as it would have without us.
        return;
    }
    let (mut digits, mut first, mut rest) = ([0; 20], 20, bytes);
    while rest > 0 {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let say = |text: &[u8]| {
        // SAFETY: write(2) is safe in a signal handler, and `text` holds as many bytes.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    };
    say(b"error: out of memory: ");
    say(&digits[first..]);
    say(b" bytes asked; make the batch or the model smaller\n");
    // SAFETY: _exit(2) is safe in a signal handler.
    unsafe { libc::_exit(5) }
}
