//! Launches on devices that run PTX. The arguments of a kernel become the parameters of its entry, in order and under the
//! same names:
//!
//! | in `kernel!` | in PTX |
//! |---|---|
//! | `x: in T`, `ids: in i32`, `y: out T` | `.param .u64 x` (address, 0 when absent) and `.param .u32 x_len` (elements) |
//! | `c: val T` | `.param .f32 c` |
//! | `n: val size` | `.param .u32 n`, below 2³¹ |
//! | `seed: val word` | `.param .u64 seed` |
//! | `add: val flag` | `.param .u32 add`, 0 or 1 |
//! | `dims: val dims` | `.param .align 4 .b8 dims[52]`: how many, then so many u32 |
//!
//! The block is what the entry's `.reqntid` says.

use super::{Arg, Kernel, Source};
use crate::device::{Call, Device, Driver, Entry, Loaded};
use crate::error::{Error, Result};
use crate::shape::DType;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Words of a `dims` parameter behind its count.
const MOST_DIMS: usize = 12;
/// Largest grid along x and along y and z that every device takes.
const MOST_BLOCKS: [usize; 3] = [(1 << 31) - 1, 65_535, 65_535];

/// The device of a launch: that of its tensors.
pub(super) fn device<'a>(kernel: &Kernel, args: &'a [Arg<'_>]) -> Result<Option<&'a Device>> {
    let tensors = || args.iter().filter_map(Arg::tensor);
    let Some(first) = tensors().next().map(Tensor::device) else { return Ok(None) };
    // CPU devices differ in their pools only.
    let elsewhere = |t: &&Tensor| t.device() != first && !(first.is_host() && t.device().is_host());
    match tensors().find(elsewhere) {
        None => Ok(Some(first)),
        Some(other) => Err(Error::Device {
            device: first.name().into(),
            what: format!(
                "{}: a tensor lies on {}; move it with to_device",
                kernel.entry,
                other.device().name()
            ),
        }),
    }
}

/// Runs `kernel` on a device with a driver.
pub(super) fn launch(kernel: &Kernel, args: &[Arg<'_>], device: &Device, driver: &dyn Driver) -> Result<()> {
    for (arg, p) in args.iter().zip(kernel.params) {
        if let Arg::Out(t) = arg {
            t.expect_sole_holder(kernel.entry)?;
        }
        if let Some(t) = arg.tensor().filter(|t| t.dtype() != expected(p.ty)) {
            let what =
                format!("`{}` is {}; device {} takes {}", p.name, t.spec(), device.name(), expected(p.ty));
            return Err(Error::dtype(kernel.entry, what));
        }
    }
    let mut outputs = args.iter().filter_map(|a| if let Arg::Out(t) = a { Some(t.len()) } else { None });
    let first_output = outputs.next().unwrap_or(0);
    if first_output == 0 && outputs.all(|n| n == 0) {
        return Ok(()); // nothing to write
    }
    let loaded = load(kernel, device)?;
    let entry = loaded.entry(kernel.entry).ok_or_else(|| missing(kernel, device))?;
    let params = pack(kernel, args, entry)?;
    let block = entry.block.ok_or_else(|| broken(kernel, "says no .reqntid"))?;
    let grid = match kernel.blocks {
        Some(blocks) => blocks(args),
        None => [first_output.div_ceil(block.iter().map(|&n| n as usize).product()), 1, 1],
    };
    let grid = std::array::from_fn(|i| grid[i].clamp(1, MOST_BLOCKS[i]) as u32);
    let call =
        Call { module: loaded.module, entry: kernel.entry, grid, block, shared_bytes: 0, params: &params };
    driver.launch(&call, driver.default_stream())
}

/// The type of a tensor that a device takes for this parameter.
fn expected(ty: &str) -> DType {
    match ty {
        "i32" => DType::I32,
        "u8" => DType::U8,
        _ => DType::F32,
    }
}

fn load(kernel: &Kernel, device: &Device) -> Result<Arc<Loaded>> {
    let source = kernel.source.ok_or_else(|| missing(kernel, device))?;
    let key = (source.text.as_ptr().addr(), source.splice.as_ptr().addr());
    let loaded = device.module(key, source.file, || source.ptx())?;
    loaded.ok_or_else(|| missing(kernel, device))
}

fn missing(kernel: &Kernel, device: &Device) -> Error {
    let what = match kernel.source {
        Some(Source { file, .. }) => format!("{file} has no entry `{}`", kernel.entry),
        None => format!(
            "kernel `{}` has no PTX; use --device cpu, or give its kernel! block a PTX file",
            kernel.entry
        ),
    };
    Error::Device { device: device.name().into(), what }
}

fn broken(kernel: &Kernel, what: &str) -> Error {
    let file = kernel.source.map_or("its PTX", |s| s.file);
    Error::Fault(format!("{file}: entry `{}` {what}", kernel.entry))
}

/// The parameters of the entry. Its names and sizes are held against those of the kernel, so that a PTX file that fell
/// behind its kernel! block is an error and not a wrong number.
fn pack(kernel: &Kernel, args: &[Arg<'_>], entry: &Entry) -> Result<Vec<u8>> {
    let mut bytes = vec![0; entry.param_bytes as usize];
    let mut slots = entry.params.iter();
    let mut put = |name: &str, suffix: &str, value: &[u8]| -> Result<()> {
        let slot = slots.next().filter(|s| {
            s.bytes as usize == value.len() && s.name.strip_prefix(name).is_some_and(|rest| rest == suffix)
        });
        let slot = slot.ok_or_else(|| {
            broken(
                kernel,
                &format!(
                    "does not take `{name}{suffix}` of {} bytes where its kernel! block has it",
                    value.len()
                ),
            )
        })?;
        bytes[slot.offset as usize..][..value.len()].copy_from_slice(value);
        Ok(())
    };
    for (arg, p) in args.iter().zip(kernel.params) {
        let word = |n: usize| {
            u32::try_from(n).ok().filter(|n| *n < 1 << 31).map(u32::to_le_bytes).ok_or_else(|| {
                Error::shape(kernel.entry, format!("`{}` is {n}; kernels of a GPU count below 2^31", p.name))
            })
        };
        match arg {
            Arg::In(_) | Arg::Out(_) | Arg::Absent => {
                let tensor = arg.tensor();
                let address = tensor.and_then(Tensor::address).unwrap_or(0);
                put(p.name, "", &address.to_le_bytes())?;
                put(p.name, "_len", &word(tensor.map_or(0, Tensor::len))?)?;
            }
            Arg::Real(v) => put(p.name, "", &(*v as f32).to_le_bytes())?,
            Arg::Size(n) => put(p.name, "", &word(*n)?)?,
            Arg::Word(w) => put(p.name, "", &w.to_le_bytes())?,
            Arg::Flag(f) => put(p.name, "", &u32::from(*f).to_le_bytes())?,
            Arg::Dims(dims) => {
                if dims.len() > MOST_DIMS {
                    return Err(Error::shape(
                        kernel.entry,
                        format!("`{}` has {} entries; {MOST_DIMS} fit", p.name, dims.len()),
                    ));
                }
                let mut words = [0; 4 * (1 + MOST_DIMS)];
                for (to, &n) in words.chunks_exact_mut(4).zip([&dims.len()].into_iter().chain(*dims)) {
                    to.copy_from_slice(&word(n)?);
                }
                put(p.name, "", &words)?;
            }
        }
    }
    match slots.next() {
        None => Ok(bytes),
        Some(extra) => {
            Err(broken(kernel, &format!("takes `{}`, which its kernel! block has not", extra.name)))
        }
    }
}
