//! Manifests of launches: what they say, the arguments of a launch, and what its buffers should hold afterwards.

use crate::data::readers::stored_npy;
use crate::error::{Error, Result};
use crate::ptx::program::Param;
use crate::shape::DType;
use std::fs;
use std::path::{Path, PathBuf};

/// One launch of a manifest.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// PTX file, from the manifest's folder.
    pub ptx: PathBuf,
    /// Entry.
    pub kernel: String,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    #[serde(default)]
    pub shared_bytes: u32,
    /// Arguments, in the order of the entry's parameters.
    pub args: Vec<Arg>,
    /// Lines that `printf` must write, in any order.
    pub printed: Option<Vec<String>>,
    /// A finding that checks must report, although the result is right.
    pub finds: Option<String>,
}

/// An argument.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "named by their types")]
pub struct Arg {
    /// `.npy` file with what a buffer holds at first.
    pub buffer: Option<PathBuf>,
    /// `.npy` file with what it must hold afterwards.
    pub expect: Option<PathBuf>,
    /// Allowed error relative to the expected value.
    #[serde(default)]
    pub rtol: f64,
    /// Allowed absolute error.
    #[serde(default)]
    pub atol: f64,
    /// A buffer of so many bytes that nobody has written.
    pub alloc: Option<u64>,
    /// The argument byte by byte.
    pub bytes: Option<Vec<u8>>,
    pub i32: Option<i32>,
    pub u32: Option<u32>,
    pub i64: Option<i64>,
    pub u64: Option<u64>,
    pub f32: Option<f32>,
    pub f64: Option<f64>,
}

/// Reads a manifest: one launch, or a list.
///
/// # Errors
/// Names the file and what is wrong in it.
pub fn read(path: &Path) -> Result<Vec<Manifest>> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Either {
        Many(Vec<serde_json::Value>),
        One(serde_json::Value),
    }
    let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
    let bad = |e: serde_json::Error| {
        Error::data(path, None, format!("{e}; `ringtape ptx run --help` shows a manifest"))
    };
    let all = match serde_json::from_slice(&bytes).map_err(bad)? {
        Either::Many(all) => all,
        Either::One(one) => vec![one],
    };
    all.into_iter().map(|v| serde_json::from_value(v).map_err(bad)).collect()
}

/// Memory that the buffers of a launch lie in.
pub(super) trait Room {
    /// Address of so many bytes.
    fn alloc(&self, bytes: u64) -> Result<u64>;
    /// Writes bytes of a buffer.
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()>;
    /// Reads bytes of a buffer; false when it is shorter.
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<bool>;
}

/// A buffer of the launch, and what is expected of it.
pub(super) struct Buffer<'m> {
    arg: usize,
    pub(super) address: u64,
    from: &'m Arg,
    name: String,
}

/// Parameter bytes, and the buffers that they name.
pub(super) fn arguments<'m>(
    folder: &Path,
    m: &'m Manifest,
    params: &[Param],
    bytes: u32,
    room: &dyn Room,
) -> Result<(Vec<u8>, Vec<Buffer<'m>>)> {
    if params.len() != m.args.len() {
        let what = format!(
            "`{}` takes {} arguments and the manifest gives {}",
            m.kernel,
            params.len(),
            m.args.len()
        );
        return Err(Error::data(folder.join(&m.ptx), None, what));
    }
    let mut all = vec![0u8; bytes as usize];
    let mut buffers = Vec::new();
    for (k, (p, arg)) in params.iter().zip(&m.args).enumerate() {
        let value = value(folder, arg, room)?;
        if value.len() != p.bytes as usize {
            let what = format!(
                "argument {k} (`{}`) of `{}` has {} bytes, the manifest gives {}",
                p.name,
                m.kernel,
                p.bytes,
                value.len()
            );
            return Err(Error::data(folder.join(&m.ptx), None, what));
        }
        if arg.buffer.is_some() {
            let address = u64::from_le_bytes(value[..8].try_into().unwrap_or_default());
            buffers.push(Buffer { arg: k, address, from: arg, name: p.name.clone() });
        }
        all[p.offset as usize..][..value.len()].copy_from_slice(&value);
    }
    Ok((all, buffers))
}

/// The bytes of one argument.
fn value(folder: &Path, arg: &Arg, room: &dyn Room) -> Result<Vec<u8>> {
    let scalars = [
        arg.i32.map(|v| v.to_le_bytes().to_vec()),
        arg.u32.map(|v| v.to_le_bytes().to_vec()),
        arg.i64.map(|v| v.to_le_bytes().to_vec()),
        arg.u64.map(|v| v.to_le_bytes().to_vec()),
        arg.f32.map(|v| v.to_le_bytes().to_vec()),
        arg.f64.map(|v| v.to_le_bytes().to_vec()),
        arg.bytes.clone(),
    ];
    let mut given = scalars.into_iter().flatten();
    if let Some(file) = &arg.buffer {
        let path = folder.join(file);
        let raw = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let data = stored_npy(&path, &raw)?.data;
        let at = room.alloc(data.len() as u64)?;
        room.write(at, data)?;
        return Ok(at.to_le_bytes().to_vec());
    }
    if let Some(bytes) = arg.alloc {
        return Ok(room.alloc(bytes)?.to_le_bytes().to_vec());
    }
    given.next().ok_or_else(|| {
        Error::data(
            folder,
            None,
            "an argument names no value: give it a buffer, alloc, bytes, or i32, u32, i64, u64, f32, f64",
        )
    })
}

/// The first element that differs from what is expected.
pub(super) fn compare(folder: &Path, b: &Buffer<'_>, room: &dyn Room) -> Result<Option<String>> {
    let Some(file) = &b.from.expect else { return Ok(None) };
    let path = folder.join(file);
    let raw = fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let want = stored_npy(&path, &raw)?;
    let mut got = vec![0; want.data.len()];
    if !room.read(b.address, &mut got)? {
        return Err(Error::data(&path, None, "is larger than the buffer that it is compared with"));
    }
    let size = want.wide.as_ref().map_or(want.dtype.size(), |w| w.size());
    let close = |x: f64, y: f64| {
        x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= b.from.atol + b.from.rtol * y.abs()
    };
    let float = |raw: &[u8]| match want.dtype {
        DType::F32 => Some(f64::from(f32::from_le_bytes(raw.try_into().ok()?))),
        DType::F64 => Some(f64::from_le_bytes(raw.try_into().ok()?)),
        DType::F16 => Some(f64::from(half::f16::from_le_bytes(raw.try_into().ok()?).to_f32())),
        _ => None,
    };
    for (i, (x, y)) in got.chunks_exact(size).zip(want.data.chunks_exact(size)).enumerate() {
        let (same, shown) = match (float(x), float(y)) {
            (Some(x), Some(y)) => (close(x, y), format!("{x:?}, expected {y:?}")),
            _ => (x == y, format!("{:#x}, expected {:#x}", integer(x), integer(y))),
        };
        if !same {
            let differ =
                got.chunks_exact(size).zip(want.data.chunks_exact(size)).filter(|(x, y)| x != y).count();
            let n = got.len() / size;
            let name = &b.name;
            return Ok(Some(format!(
                "argument {} ({name}): element {i} is {shown}; {differ} of {n} differ in bits",
                b.arg
            )));
        }
    }
    Ok(None)
}

fn integer(raw: &[u8]) -> u64 {
    raw.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))
}

pub(super) fn lines_differ(want: &[String], printed: &str) -> Option<String> {
    let mut want: Vec<&str> = want.iter().map(String::as_str).collect();
    let mut got: Vec<&str> = printed.lines().collect();
    want.sort_unstable();
    got.sort_unstable();
    (want != got).then(|| format!("printed {got:?}, expected {want:?}"))
}
