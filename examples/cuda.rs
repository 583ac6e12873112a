//! A stand-in `libcuda.so`: the driver API of CUDA over the software device, for programs that know nothing of ringtape.
//!
//! `cargo build --release --features cuda --example cuda` makes `target/release/examples/libcuda.so`; a program that loads
//! it as `libcuda.so.1` (LD_LIBRARY_PATH, with a link of that name) runs on the software device. SOFTCUDA_REPORT=FILE turns
//! the checks on and writes what they find, SOFTCUDA_DEVICES says how many devices there are.

pub use ringtape::device::shim;
