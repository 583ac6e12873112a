//! Tensors by name in safetensors files: read, converted to what an op takes, and written whole or not at all.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::PortKind;
use crate::shape::DType;
use crate::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The bytes of a safetensors file.
pub(super) struct Source {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Source {
    /// Reads `path`, which must be a regular file: a pipe or device could go on for ever.
    pub(super) fn read(path: &Path) -> Result<Source> {
        let meta = fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                let what =
                    "no such file; --in wants a safetensors file with the inputs, named as in the list";
                Error::data(path, None, what)
            }
            _ => Error::io(path, e),
        })?;
        if !meta.is_file() {
            return Err(Error::data(path, None, "is not a regular file"));
        }
        let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
        Ok(Source { path: path.into(), bytes })
    }

    /// The tensors in it.
    pub(super) fn open(&self) -> Result<Named<'_>> {
        let data = SafeTensors::deserialize(&self.bytes).map_err(|e| {
            let what = format!("is not a valid safetensors file of {} bytes: {e}", self.bytes.len());
            Error::data(&self.path, None, what)
        })?;
        Ok(Named { path: &self.path, data })
    }
}

/// The tensors of a file, by name.
pub(super) struct Named<'a> {
    path: &'a Path,
    data: SafeTensors<'a>,
}

impl Named<'_> {
    /// Names in the file, sorted.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = self.data.names();
        names.sort_unstable();
        names
    }

    /// True when the file holds `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.data.names().contains(&name)
    }

    /// Tensor `name` as an input of kind `kind`, reals as `dtype`.
    pub(super) fn get(&self, device: &Device, name: &str, kind: PortKind, dtype: DType) -> Result<Tensor> {
        let bad = |what: String| Error::data(self.path, None, format!("tensor `{name}` {what}"));
        let view = self
            .data
            .tensor(name)
            .map_err(|_| bad(format!("is missing; the file holds {}", listed(&self.names()))))?;
        let made = match kind {
            PortKind::Real | PortKind::Constant => real(device, &view, dtype),
            PortKind::Ids => ids(device, &view),
            PortKind::Mask => mask(device, &view),
        };
        // A refusal is about this tensor of this file; only the lack of memory is not.
        made.map_err(|e| match e {
            e @ Error::OutOfMemory { .. } => e,
            e => bad(e.to_string()),
        })
    }
}

/// Names for a sentence: `a`, `b`.
pub(super) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return "no tensor".into();
    }
    names.iter().map(|n| format!("`{}`", n.as_ref())).collect::<Vec<_>>().join(", ")
}

fn refuse<R>(view: &TensorView<'_>, want: &str) -> Result<R> {
    Err(Error::Usage(format!("is {:?}{:?}, but must be {want}", view.dtype(), view.shape())))
}

/// The values, read one by one: data in a file need not be aligned.
fn values<T: bytemuck::Pod>(view: &TensorView<'_>) -> Vec<T> {
    view.data().chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

fn real(device: &Device, view: &TensorView<'_>, dtype: DType) -> Result<Tensor> {
    let dims = view.shape();
    let t = match view.dtype() {
        Dtype::F32 => Tensor::from_slice(device, &values::<f32>(view), dims)?,
        Dtype::F64 => Tensor::from_slice(device, &values::<f64>(view), dims)?,
        Dtype::F16 => Tensor::from_slice(device, &values::<half::f16>(view), dims)?,
        Dtype::BF16 => Tensor::from_slice(device, &values::<half::bf16>(view), dims)?,
        _ => return refuse(view, "real (F32, F64, F16 or BF16)"),
    };
    t.to_dtype(dtype)
}

/// Indices: any integer type, each checked to lie in the range of i32.
fn ids(device: &Device, view: &TensorView<'_>) -> Result<Tensor> {
    let v: Vec<i128> = match view.dtype() {
        Dtype::I64 => values::<i64>(view).into_iter().map(i128::from).collect(),
        Dtype::U64 => values::<u64>(view).into_iter().map(i128::from).collect(),
        Dtype::I32 => return Tensor::from_slice(device, &values::<i32>(view), view.shape()),
        Dtype::U32 => values::<u32>(view).into_iter().map(i128::from).collect(),
        Dtype::I16 => values::<i16>(view).into_iter().map(i128::from).collect(),
        Dtype::U16 => values::<u16>(view).into_iter().map(i128::from).collect(),
        Dtype::I8 => values::<i8>(view).into_iter().map(i128::from).collect(),
        Dtype::U8 => values::<u8>(view).into_iter().map(i128::from).collect(),
        _ => return refuse(view, "integers (I64, I32 or narrower)"),
    };
    let narrow = |(i, &x): (usize, &i128)| {
        i32::try_from(x)
            .map_err(|_| Error::Usage(format!("holds {x} at element {i}, which does not fit i32")))
    };
    let v: Vec<i32> = v.iter().enumerate().map(narrow).collect::<Result<_>>()?;
    Tensor::from_slice(device, &v, view.shape())
}

fn mask(device: &Device, view: &TensorView<'_>) -> Result<Tensor> {
    if !matches!(view.dtype(), Dtype::BOOL | Dtype::U8) {
        return refuse(view, "conditions (BOOL or U8)");
    }
    if let Some(i) = view.data().iter().position(|&b| b > 1) {
        return Err(Error::Usage(format!(
            "holds {} at element {i}, but conditions are 0 or 1",
            view.data()[i]
        )));
    }
    Tensor::from_slice(device, view.data(), view.shape())
}

/// A tensor as safetensors stores it.
struct Stored<'a>(&'a Tensor);

impl safetensors::View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.dtype() {
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            DType::I32 => Dtype::I32,
            DType::U8 => Dtype::U8,
            DType::U16 => Dtype::U16,
            DType::Bf16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
        }
    }
    fn shape(&self) -> &[usize] {
        self.0.dims()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.0.as_bytes().unwrap_or_default().into()
    }
    fn data_len(&self) -> usize {
        self.0.spec().bytes()
    }
}

/// Writes `tensors` to `path`: first to a file beside it, which is synced and then renamed, so that `path` is never half
/// a file. `input` is a file that must stay as it is.
pub(super) fn write(path: &Path, input: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    if path.is_dir() {
        return Err(Error::Usage(format!("{} is a folder; name a file for what is written", path.display())));
    }
    let real = |p: &Path| fs::canonicalize(p).ok();
    if real(path).is_some_and(|p| Some(p) == real(input)) {
        let what = format!("{} is the input file; name another file for what is written", path.display());
        return Err(Error::Usage(what));
    }
    let host: Vec<Tensor> = tensors.iter().map(|(_, t)| t.to_host()).collect::<Result<_>>()?;
    let stored = tensors.iter().zip(&host).map(|((name, _), t)| (name.as_str(), Stored(t)));
    let bytes = safetensors::serialize(stored, None).map_err(|e| Error::data(path, None, e.to_string()))?;
    replace(path, &bytes)
}

/// Puts `bytes` in the place of `path` in one step.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| Error::Usage(format!("{} names no file", path.display())))?;
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = File::create(&temporary)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(folder).and_then(|d| d.sync_all()));
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io(path, e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dtype: Dtype, bytes: &[u8], dims: &[usize]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let view = TensorView::new(dtype, dims.to_vec(), bytes).unwrap();
        fs::write(&path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
        (dir, path)
    }

    #[test]
    fn indices_are_range_checked_and_named() {
        let bytes: Vec<u8> = [1i64, -5, 1 << 40].iter().flat_map(|x| x.to_le_bytes()).collect();
        let (_dir, path) = file(Dtype::I64, &bytes, &[3]);
        let source = Source::read(&path).unwrap();
        let get = |kind| source.open().unwrap().get(&Device::cpu(), "x", kind, DType::F32);
        let e = get(PortKind::Ids).unwrap_err();
        assert!(e.to_string().contains("`x` holds 1099511627776 at element 2"), "{e}");
        assert_eq!(e.exit_code(), 4);
        assert!(get(PortKind::Real).unwrap_err().to_string().contains("must be real"));
    }

    #[test]
    fn halves_widen_exactly_and_an_input_is_never_overwritten() {
        let bytes: Vec<u8> =
            [1.5f32, -0.25].iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
        let (dir, path) = file(Dtype::F16, &bytes, &[2]);
        let source = Source::read(&path).unwrap();
        let t = source.open().unwrap().get(&Device::cpu(), "x", PortKind::Real, DType::F64).unwrap();
        assert_eq!(t.to_f64().unwrap(), [1.5, -0.25]);
        let list = [("y".to_string(), t)];
        let odd = dir.path().join(".").join("x.safetensors");
        assert!(write(&odd, &path, &list).unwrap_err().to_string().contains("is the input file"));
        write(&dir.path().join("y.safetensors"), &path, &list).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["x.safetensors", "y.safetensors"], "no temporary file is left");
    }
}
