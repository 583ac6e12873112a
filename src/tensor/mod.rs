//! Tensors: handles to contiguous row-major buffers. Cloning and reshaping copy nothing; writing needs the sole holder.

mod convert;

use crate::device::{Block, Device, Memory};
use crate::error::{Error, Result};
use crate::shape::{DType, Shape, Spec};
use std::sync::Arc;

/// A list that stays on the stack while it is short: the inputs, outputs and kept tensors of an op.
pub type SmallList<T> = smallvec::SmallVec<[T; 2]>;

/// A Rust type that tensors can hold.
pub trait Element: bytemuck::Pod + Send + Sync + 'static {
    /// The element type's name in ringtape.
    const DTYPE: DType;
}
macro_rules! elements { ($($t:ty => $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* } }
elements!(f32 => F32, f64 => F64, i32 => I32, u8 => U8, u16 => U16, half::bf16 => Bf16, half::f16 => F16);

/// Memory of one or more tensors. The last holder gives it back to the device's pool.
pub struct Buffer {
    memory: Option<Memory>, // Some until drop
    device: Device,
}

const OWNS: &str = "a buffer owns its memory until it is dropped";

impl Buffer {
    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect(OWNS)
    }

    /// The block of a buffer on the host.
    fn block(&self) -> Result<&Block> {
        match self.memory() {
            Memory::Host(block) => Ok(block),
            Memory::Remote(_) => Err(elsewhere(&self.device)),
        }
    }
}

fn elsewhere(device: &Device) -> Error {
    let what =
        "the tensor lies in the memory of this device, and only its kernels reach it; copy it with to_device";
    Error::Device { device: device.name().into(), what: what.into() }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.device.free(memory);
        }
    }
}

// ANCHOR: tensor
/// A contiguous row-major array on a device. `clone` is O(1) and shares the buffer.
#[derive(Clone)]
pub struct Tensor {
    buf: Arc<Buffer>,
    offset: usize, // in elements
    spec: Spec,
}
// ANCHOR_END: tensor

impl Tensor {
    /// A tensor of arbitrary (but initialised) contents: for outputs that a kernel fills.
    pub fn empty(device: &Device, spec: Spec) -> Result<Tensor> {
        Ok(Tensor::of(device.alloc(spec.bytes())?, device, spec))
    }

    fn of(memory: Memory, device: &Device, spec: Spec) -> Tensor {
        Tensor { buf: Arc::new(Buffer { memory: Some(memory), device: device.clone() }), offset: 0, spec }
    }

    /// A tensor of zeros.
    pub fn zeros(device: &Device, spec: Spec) -> Result<Tensor> {
        let mut t = Tensor::empty(device, spec)?;
        t.fill_zero()?;
        Ok(t)
    }

    /// Copies `values` into a new tensor of shape `dims`.
    pub fn from_slice<T: Element>(device: &Device, values: &[T], dims: &[usize]) -> Result<Tensor> {
        let spec = Spec::new(T::DTYPE, dims)?;
        if spec.shape.len() != values.len() {
            return Err(Error::shape(
                "from_slice",
                format!("{} values do not fill shape {}", values.len(), spec.shape),
            ));
        }
        let mut t = Tensor::empty(device, spec)?;
        t.write_bytes(0, bytemuck::cast_slice(values))?;
        Ok(t)
    }

    /// Real values, stored as `dtype` (f32 or f64; ids of i32 and u8 are rounded).
    pub fn from_f64(device: &Device, dtype: DType, values: &[f64], dims: &[usize]) -> Result<Tensor> {
        // Converted on the host, whatever the device: no f64 lies on a GPU.
        let on = if device.is_host() { device.clone() } else { Device::cpu() };
        Tensor::from_slice(&on, values, dims)?.to_dtype(dtype)?.to_device(device)
    }

    /// A tensor with every element `value`.
    pub fn full(device: &Device, spec: Spec, value: f64) -> Result<Tensor> {
        let mut t = Tensor::empty(device, spec)?;
        match spec.dtype {
            DType::F32 => t.fill((value as f32).to_bits(), 4)?,
            DType::I32 => t.fill((value as i32).cast_unsigned(), 4)?,
            DType::U8 => t.fill((value as u8).into(), 1)?,
            DType::F64 => t.write_bytes(0, bytemuck::cast_slice(&vec![value; spec.shape.len()]))?,
            d => return Err(Error::dtype("full", format!("{d} is a storage type and cannot be filled"))),
        }
        Ok(t)
    }

    /// Cuts a tensor that is the sole holder of its memory into tensors of the given specs, each exclusively owned, lying
    /// one behind the other at multiples of 64 bytes: slots that can be written independently. See [`Tensor::join`].
    pub fn split(self, specs: &[Spec]) -> Result<Vec<Tensor>> {
        let (shape, device) = (self.shape(), self.device().clone());
        let sizes: Vec<usize> = specs.iter().map(|s| s.bytes().next_multiple_of(64)).collect();
        if sizes.iter().sum::<usize>() > self.spec.bytes().next_multiple_of(64) {
            return Err(Error::shape("split", format!("{specs:?} do not fit into {}", self.spec)));
        }
        let mut buf = Arc::try_unwrap(self.buf).map_err(|b| Error::Shared {
            who: "split".into(),
            shape: shape.to_string(),
            holders: Arc::strong_count(&b),
        })?;
        let memory = buf.memory.take().expect(OWNS);
        let slots = memory.split(&sizes).into_iter().zip(specs);
        Ok(slots.map(|(part, &spec)| Tensor::of(part, &device, spec)).collect())
    }

    /// Puts all the parts of a [`Tensor::split`] together again as one tensor of `spec`.
    pub fn join(parts: Vec<Tensor>, device: &Device, spec: Spec) -> Result<Tensor> {
        let mut memories = Vec::with_capacity(parts.len());
        for part in parts {
            let shape = part.shape();
            let mut buf = Arc::try_unwrap(part.buf).map_err(|b| Error::Shared {
                who: "join".into(),
                shape: shape.to_string(),
                holders: Arc::strong_count(&b),
            })?;
            memories.push(buf.memory.take().expect(OWNS));
        }
        let memory = Memory::join(memories).filter(|m| m.bytes() >= spec.bytes());
        let memory = memory.ok_or_else(|| Error::shape("join", "a part of the split tensor is missing"))?;
        Ok(Tensor::of(memory, device, spec))
    }

    /// `dims` elements from element `offset` of this tensor, seen as a tensor; shares the buffer.
    pub fn window(&self, offset: usize, dims: &[usize]) -> Result<Tensor> {
        let shape = Shape::new(dims)?;
        if offset.checked_add(shape.len()).is_none_or(|end| end > self.len()) {
            return Err(Error::shape("window", format!("{shape} at {offset} leaves {}", self.shape())));
        }
        Ok(Tensor { buf: self.buf.clone(), offset: self.offset + offset, spec: self.spec.with_shape(shape) })
    }

    /// Element type and shape.
    pub fn spec(&self) -> Spec {
        self.spec
    }
    /// Shape.
    pub fn shape(&self) -> Shape {
        self.spec.shape
    }
    /// Extents.
    pub fn dims(&self) -> &[usize] {
        self.spec.shape.dims()
    }
    /// Element type.
    pub fn dtype(&self) -> DType {
        self.spec.dtype
    }
    /// Number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.spec.shape.len()
    }
    /// Device that holds the elements.
    pub fn device(&self) -> &Device {
        &self.buf.device
    }
    /// True when no other tensor shares the buffer.
    pub fn is_sole_holder(&self) -> bool {
        Arc::strong_count(&self.buf) == 1 && Arc::weak_count(&self.buf) == 0
    }

    /// Error that names `who` when another tensor shares the buffer.
    pub fn expect_sole_holder(&self, who: &str) -> Result<()> {
        if self.is_sole_holder() {
            return Ok(());
        }
        let (shape, holders) = (self.shape().to_string(), Arc::strong_count(&self.buf));
        Err(Error::Shared { who: who.into(), shape, holders })
    }

    /// The same elements in another shape; shares the buffer.
    pub fn reshape(&self, dims: &[usize]) -> Result<Tensor> {
        let shape = Shape::new(dims)?;
        if shape.len() != self.len() {
            return Err(Error::shape(
                "reshape",
                format!("{} elements of {} do not fill {shape}", self.len(), self.shape()),
            ));
        }
        Ok(Tensor { spec: self.spec.with_shape(shape), ..self.clone() })
    }

    // ANCHOR: rows
    /// Rows `start..start + n` of the first axis; shares the buffer.
    pub fn rows(&self, start: usize, n: usize) -> Result<Tensor> {
        let all = self.dims().first().copied().unwrap_or(0);
        if start.checked_add(n).is_none_or(|end| end > all) {
            return Err(Error::shape(
                "rows",
                format!("rows {start}..{} of shape {}", start.saturating_add(n), self.shape()),
            ));
        }
        let row = self.len() / all.max(1);
        let spec = self.spec.with_shape(self.shape().with(0, n));
        Ok(Tensor { buf: self.buf.clone(), offset: self.offset + start * row, spec })
    }
    // ANCHOR_END: rows

    /// The elements, as the type they have. Errors when `T` is another type, or when they lie on a device.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        self.expect_type::<T>()?;
        Ok(self.buf.block()?.slice(self.offset, self.len()))
    }

    /// The elements, writable. Errors when `T` is another type, when another tensor shares the buffer, or when they lie on
    /// a device.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        self.expect_type::<T>()?;
        let (offset, n) = (self.offset, self.len());
        match self.memory_mut()? {
            (Memory::Host(block), _) => Ok(block.slice_mut(offset, n)),
            (Memory::Remote(_), device) => Err(elsewhere(device)),
        }
    }

    /// The elements as raw little-endian bytes. Errors when they lie on a device.
    pub fn as_bytes(&self) -> Result<&[u8]> {
        let size = self.dtype().size();
        Ok(self.buf.block()?.slice(self.offset * size, self.len() * size))
    }

    /// Address of the first element on the device; None on the host.
    pub fn address(&self) -> Option<u64> {
        match self.buf.memory() {
            Memory::Host(_) => None,
            Memory::Remote(r) => Some(r.address() + (self.offset * self.dtype().size()) as u64),
        }
    }

    /// The memory of the elements, writable. Errors when another tensor shares it.
    fn memory_mut(&mut self) -> Result<(&mut Memory, &Device)> {
        self.expect_sole_holder("write")?;
        let buf = Arc::get_mut(&mut self.buf).expect("the sole holder");
        Ok((buf.memory.as_mut().expect(OWNS), &buf.device))
    }

    /// Copies raw bytes to byte `at` of the elements, on any device. Errors when another tensor shares the buffer or when
    /// the bytes do not fit.
    pub fn write_bytes(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let (all, start) = (self.spec.bytes(), self.offset * self.dtype().size());
        if at.checked_add(bytes.len()).is_none_or(|end| end > all) {
            let what = format!("{} bytes at byte {at} leave {}", bytes.len(), self.spec);
            return Err(Error::shape("write_bytes", what));
        }
        self.memory_mut()?.0.write(start + at, bytes)
    }

    /// Copies `from`, of this element type and on any device, to element `at`. Errors as [`Tensor::write_bytes`].
    pub fn copy_from(&mut self, at: usize, from: &Tensor) -> Result<()> {
        if from.dtype() != self.dtype() || at.checked_add(from.len()).is_none_or(|end| end > self.len()) {
            let what = format!("{} at element {at} does not fit into {}", from.spec, self.spec);
            return Err(Error::shape("copy_from", what));
        }
        let size = self.dtype().size();
        let to = (self.offset + at) * size;
        self.memory_mut()?.0.copy_from(to, from.buf.memory(), from.offset * size, from.spec.bytes())
    }

    fn fill(&mut self, value: u32, size: usize) -> Result<()> {
        let (at, n) = (self.offset * self.dtype().size(), self.spec.bytes() / size);
        self.memory_mut()?.0.fill(at, value, size, n)
    }

    /// Sets every byte to zero.
    pub fn fill_zero(&mut self) -> Result<()> {
        self.fill(0, 1)
    }

    /// A copy with a buffer of its own.
    pub fn deep_clone(&self) -> Result<Tensor> {
        let mut t = Tensor::empty(self.device(), self.spec)?;
        t.copy_from(0, self)?;
        Ok(t)
    }

    /// The same elements on another device; this very tensor when it is there already.
    pub fn to_device(&self, device: &Device) -> Result<Tensor> {
        if self.device() == device {
            return Ok(self.clone());
        }
        let mut t = Tensor::empty(device, self.spec)?;
        t.copy_from(0, self)?;
        Ok(t)
    }

    /// The same elements in the host's memory; this very tensor when it is there already.
    pub fn to_host(&self) -> Result<Tensor> {
        if self.device().is_host() { Ok(self.clone()) } else { self.to_device(&Device::cpu()) }
    }

    fn expect_type<T: Element>(&self) -> Result<()> {
        if T::DTYPE == self.dtype() {
            return Ok(());
        }
        Err(Error::dtype("tensor", format!("holds {}, but {} was asked for", self.spec, T::DTYPE)))
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({})", self.spec)
    }
}
