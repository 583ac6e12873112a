//! CUresult: numbers, names, and what our errors become.

use crate::error::Error;

/// A CUresult.
pub(super) type Code = i32;

macro_rules! codes {
    ($($name:ident = $n:literal, $cuda:literal, $text:literal;)*) => {
        $(pub(super) const $name: Code = $n;)*
        const ALL: &[(Code, &str, &str)] = &[$(($n, concat!($cuda, "\0"), concat!($text, "\0"))),*];
    };
}

codes! {
    SUCCESS = 0, "CUDA_SUCCESS", "no error";
    INVALID_VALUE = 1, "CUDA_ERROR_INVALID_VALUE", "invalid argument";
    OUT_OF_MEMORY = 2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory";
    INVALID_DEVICE = 101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal";
    INVALID_CONTEXT = 201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context";
    NO_BINARY = 209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available: the software device runs PTX text, not machine code";
    INVALID_PTX = 218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed";
    FILE_NOT_FOUND = 301, "CUDA_ERROR_FILE_NOT_FOUND", "file not found";
    INVALID_HANDLE = 400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle";
    NOT_FOUND = 500, "CUDA_ERROR_NOT_FOUND", "named symbol not found";
    NOT_READY = 600, "CUDA_ERROR_NOT_READY", "device not ready";
    ILLEGAL_ADDRESS = 700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered";
    LAUNCH_OUT_OF_RESOURCES = 701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch";
    LAUNCH_TIMEOUT = 702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated";
    PEER_ENABLED = 704, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", "peer access is already enabled";
    PEER_NOT_ENABLED = 705, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", "peer access has not been enabled";
    MISALIGNED_ADDRESS = 716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address";
    LAUNCH_FAILED = 719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure";
    NOT_SUPPORTED = 801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported";
    UNKNOWN = 999, "CUDA_ERROR_UNKNOWN", "unknown error";
}

/// Name and text of a code, each with a NUL at its end.
pub(super) fn describe(code: Code) -> Option<(&'static str, &'static str)> {
    ALL.iter().find(|(n, ..)| *n == code).map(|(_, name, text)| (*name, *text))
}

/// Codes that cuda.h got after the bindings that `cust` is compiled with, where CUresult is a Rust enum: such a value in
/// it would be undefined behaviour.
const NEW: &[Code] =
    &[36, 46, 47, 225, 226, 227, 402, 721, 810, 811, 812, 912, 913, 914, 915, 916, 917, 918, 919];

/// A code that every binding knows.
pub(super) fn known(code: Code) -> Code {
    if NEW.contains(&code) { UNKNOWN } else { code }
}

/// What an error of the software device is in CUDA's words. Those of a running kernel stay with its device.
pub(super) fn of(e: &Error) -> Code {
    match e {
        Error::OutOfMemory { .. } => OUT_OF_MEMORY,
        Error::Ptx { .. } => INVALID_PTX,
        Error::Device { .. } => INVALID_DEVICE,
        Error::Fault(text) => {
            let kind = |k: &str| text.lines().next().is_some_and(|l| l.contains(&format!(": {k}: ")));
            match () {
                () if kind("global-oob") || kind("null") => ILLEGAL_ADDRESS,
                () if kind("misaligned") => MISALIGNED_ADDRESS,
                () if kind("timeout") => LAUNCH_TIMEOUT,
                () if text.contains("shared memory a block") => LAUNCH_OUT_OF_RESOURCES,
                () if text.contains(" in ") && text.contains(", block (") => LAUNCH_FAILED,
                () => INVALID_VALUE,
            }
        }
        _ => UNKNOWN,
    }
}

/// True for an error that leaves its device unusable, as on hardware.
pub(super) fn lasts(code: Code) -> bool {
    matches!(code, ILLEGAL_ADDRESS | LAUNCH_TIMEOUT | MISALIGNED_ADDRESS | LAUNCH_FAILED)
}
