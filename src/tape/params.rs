//! Weights and gradients, flat: a few long arrays that optimizers, all-reduce and snapshots see as arrays, cut into named
//! slots that models see as tensors.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::rng::Key;
use crate::shape::{DType, Shape, Spec};
use crate::tensor::{Element, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// Names one parameter of a [`Params`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot(u32);

impl Slot {
    /// Position in [`Params::slots`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How the optimizer treats a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Trained, with weight decay (matrices).
    Decay,
    /// Trained, without weight decay (biases, norms).
    Plain,
    /// Not trained: running statistics and other state, changed by [`Tape::defer`](super::Tape::defer).
    State,
}

/// Initial values of a slot. Random ones are keyed by the slot's name, so adding a slot does not change the others.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// All equal.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in ±bound.
    Uniform(f64),
}

/// What is known of one slot.
#[derive(Clone, Debug)]
pub struct SlotInfo {
    /// Dotted name, such as `blocks.0.attn.qkv.weight`.
    pub name: String,
    /// Shape.
    pub shape: Shape,
    /// How the optimizer treats it.
    pub role: Role,
    /// Which segment holds it.
    pub segment: usize,
    /// First element within the segment.
    pub offset: usize,
}

/// One flat array of slots that are treated alike.
#[derive(Clone, Copy, Debug)]
pub struct SegmentInfo {
    /// How the optimizer treats it.
    pub role: Role,
    /// Elements, padding between slots included.
    pub len: usize,
}

struct Table {
    slots: Vec<SlotInfo>,
    segments: Vec<SegmentInfo>,
    by_name: HashMap<String, Slot>,
    device: Device,
    dtype: DType,
}

/// The parameters of a model. `clone` is cheap and shares the memory; writing needs the sole holder of a segment.
#[derive(Clone)]
pub struct Params {
    table: Arc<Table>,
    segments: Vec<Tensor>,
}

/// Collects slots, then allocates them all at once.
pub struct ParamsBuilder {
    slots: Vec<(SlotInfo, Init)>,
    device: Device,
    dtype: DType,
    seed: u64,
}

/// Slots begin at multiples of this many bytes, so vector loads are aligned.
const SLOT_ALIGN: usize = 64;

impl ParamsBuilder {
    /// An empty collection for parameters of `dtype` on `device`; `seed` keys the random initial values.
    pub fn new(device: &Device, dtype: DType, seed: u64) -> ParamsBuilder {
        ParamsBuilder { slots: Vec::new(), device: device.clone(), dtype, seed }
    }

    /// Adds a slot. Errors when the name is taken or the shape is impossible.
    pub fn add(&mut self, name: impl Into<String>, dims: &[usize], init: Init, role: Role) -> Result<Slot> {
        let name = name.into();
        if self.slots.iter().any(|(s, _)| s.name == name) {
            return Err(Error::shape("params", format!("two slots are named `{name}`")));
        }
        let shape = Shape::new(dims)?;
        self.slots.push((SlotInfo { name, shape, role, segment: 0, offset: 0 }, init));
        Ok(Slot(self.slots.len() as u32 - 1))
    }

    /// Allocates the segments and fills in the initial values.
    pub fn build(mut self) -> Result<Params> {
        let align = SLOT_ALIGN / self.dtype.size();
        let mut segments: Vec<SegmentInfo> = Vec::new();
        for role in [Role::Decay, Role::Plain, Role::State] {
            let mut len = 0;
            for (s, _) in self.slots.iter_mut().filter(|(s, _)| s.role == role) {
                (s.segment, s.offset) = (segments.len(), len);
                len += s.shape.len().next_multiple_of(align);
            }
            if len > 0 {
                segments.push(SegmentInfo { role, len });
            }
        }
        let (slots, inits): (Vec<_>, Vec<_>) = self.slots.into_iter().unzip();
        let by_name = slots.iter().enumerate().map(|(i, s)| (s.name.clone(), Slot(i as u32))).collect();
        let table = Table { slots, segments, by_name, device: self.device, dtype: self.dtype };
        let zeros = |s: &SegmentInfo| Tensor::zeros(&table.device, Spec::new(table.dtype, &[s.len])?);
        let segments = table.segments.iter().map(zeros).collect::<Result<_>>()?;
        let mut params = Params { table: Arc::new(table), segments };
        for (i, init) in inits.iter().enumerate() {
            params.init(Slot(i as u32), *init, self.seed)?;
        }
        Ok(params)
    }
}

impl Params {
    /// Parameters of a model that has none: for tapes that only run ops.
    pub fn none(device: &Device) -> Params {
        ParamsBuilder::new(device, DType::F32, 0).build().expect("no slot can fail")
    }

    fn init(&mut self, slot: Slot, init: Init, seed: u64) -> Result<()> {
        let (name, n) = (self.info(slot).name.clone(), self.info(slot).shape.len());
        let mut rng = Key::named(seed, &name).rng();
        let v: Vec<f64> = match init {
            Init::Constant(c) => vec![c; n],
            Init::Normal(std) => (0..n).map(|_| rng.normal() * std).collect(),
            Init::Uniform(bound) => (0..n).map(|_| (rng.uniform() * 2.0 - 1.0) * bound).collect(),
        };
        let dims = self.info(slot).shape;
        let t = Tensor::from_f64(&self.table.device, self.table.dtype, &v, dims.dims())?;
        self.set(slot, &t)
    }

    /// Device that holds the weights.
    pub fn device(&self) -> &Device {
        &self.table.device
    }
    /// Real type of the weights.
    pub fn dtype(&self) -> DType {
        self.table.dtype
    }
    /// All slots, by index.
    pub fn slots(&self) -> &[SlotInfo] {
        &self.table.slots
    }
    /// What is known of `slot`.
    pub fn info(&self, slot: Slot) -> &SlotInfo {
        &self.table.slots[slot.index()]
    }
    /// Every slot.
    pub fn all(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.table.slots.len() as u32).map(Slot)
    }
    /// The slot of this name.
    pub fn find(&self, name: &str) -> Option<Slot> {
        self.table.by_name.get(name).copied()
    }
    /// Number of trained elements.
    pub fn trained_len(&self) -> usize {
        self.slots().iter().filter(|s| s.role != Role::State).map(|s| s.shape.len()).sum()
    }
    /// The segments, in order.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.table.segments
    }
    /// The tensor in `slot`; shares the memory.
    pub fn get(&self, slot: Slot) -> Tensor {
        let s = self.info(slot);
        self.segments[s.segment].window(s.offset, s.shape.dims()).expect("slots lie in their segments")
    }
    /// Copies `value` into `slot`. Errors when the spec differs or when a tape or clone still shares the memory.
    pub fn set(&mut self, slot: Slot, value: &Tensor) -> Result<()> {
        let table = self.table.clone();
        let s = &table.slots[slot.index()];
        let want = Spec { dtype: self.table.dtype, shape: s.shape };
        if value.spec() != want {
            return Err(Error::shape("params", format!("`{}` is {want}, not {}", s.name, value.spec())));
        }
        let size = want.dtype.size();
        let bytes = self.segments[s.segment].as_mut_bytes()?;
        bytes[s.offset * size..][..want.bytes()].copy_from_slice(value.as_bytes());
        Ok(())
    }
    /// Segment `i` as a tensor; shares the memory.
    pub fn segment(&self, i: usize) -> &Tensor {
        &self.segments[i]
    }
    /// Segment `i`, writable through [`Tensor::as_mut_slice`], which refuses while a tape or clone shares the memory.
    pub fn segment_mut(&mut self, i: usize) -> &mut Tensor {
        &mut self.segments[i]
    }
    /// A copy with memory of its own.
    pub fn deep_clone(&self) -> Result<Params> {
        let segments = self.segments.iter().map(Tensor::deep_clone).collect::<Result<_>>()?;
        Ok(Params { table: self.table.clone(), segments })
    }
}

enum Segment {
    Flat(Tensor),
    Split(Vec<Option<Tensor>>),
}

/// Gradients in the layout of the trained segments of a [`Params`]. Between backward passes each segment is one flat array;
/// during a pass it is cut into slots, each exclusively owned by whoever writes it.
pub struct Grads {
    table: Arc<Table>,
    segments: Vec<Option<Segment>>, // None for state
    touched: Vec<bool>,
    add: bool,
}

impl Grads {
    /// Zero gradients for `params`.
    pub fn new(params: &Params) -> Result<Grads> {
        let table = params.table.clone();
        let of = |s: &SegmentInfo| -> Result<Option<Segment>> {
            if s.role == Role::State {
                return Ok(None);
            }
            // Not from the pool: the slots' memory is split and joined, and lives as long as training does.
            Ok(Some(Segment::Flat(Tensor::zeros(&table.device, Spec::new(table.dtype, &[s.len])?)?)))
        };
        let segments = table.segments.iter().map(of).collect::<Result<_>>()?;
        let touched = vec![false; table.slots.len()];
        Ok(Grads { table, segments, touched, add: false })
    }

    /// Makes the next backward passes add to what is there (micro-batches) until called with false, which lets the next
    /// one start from zero.
    pub fn accumulate(&mut self, add: bool) {
        self.add = add;
    }

    /// Names of the trained slots that the last backward pass did not reach.
    pub fn missing(&self) -> Vec<&str> {
        let slots = self.table.slots.iter().zip(&self.touched);
        slots
            .filter(|(s, touched)| s.role != Role::State && !**touched)
            .map(|(s, _)| s.name.as_str())
            .collect()
    }

    /// The flat gradient of segment `i` (None for state).
    pub fn segment<T: Element>(&self, i: usize) -> Option<&[T]> {
        match self.segments[i].as_ref()? {
            Segment::Flat(t) => t.as_slice::<T>().ok(),
            Segment::Split(_) => None,
        }
    }

    /// The flat gradient of segment `i`, writable (None for state).
    pub fn segment_mut<T: Element>(&mut self, i: usize) -> Option<&mut [T]> {
        match self.segments[i].as_mut()? {
            Segment::Flat(t) => t.as_mut_slice::<T>().ok(),
            Segment::Split(_) => None,
        }
    }

    /// The gradient of `slot`, sharing the memory (None for state).
    pub fn get(&self, slot: Slot) -> Option<Tensor> {
        let s = &self.table.slots[slot.index()];
        match self.segments[s.segment].as_ref()? {
            Segment::Flat(t) => t.window(s.offset, s.shape.dims()).ok(),
            Segment::Split(_) => None,
        }
    }

    /// Number of segments, state included, as in [`Params::segments`].
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.table.segments
    }

    /// Real type of the gradients.
    pub fn dtype(&self) -> DType {
        self.table.dtype
    }

    /// Cuts the segments into slots.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.touched.fill(false);
        for (i, seg) in self.segments.iter_mut().enumerate() {
            if let Some(Segment::Flat(_)) = seg {
                let specs: Vec<Spec> = self
                    .table
                    .slots
                    .iter()
                    .filter(|s| s.segment == i)
                    .map(|s| Spec { dtype: self.table.dtype, shape: s.shape })
                    .collect();
                if let Some(Segment::Flat(t)) = seg.take() {
                    *seg = Some(Segment::Split(t.split(&specs)?.into_iter().map(Some).collect()));
                }
            }
        }
        Ok(())
    }

    fn cell(&mut self, slot: Slot) -> Option<&mut Option<Tensor>> {
        let at = self.table.slots[slot.index()].segment;
        let rank = self.table.slots[..slot.index()].iter().filter(|s| s.segment == at).count();
        match self.segments[at].as_mut()? {
            Segment::Split(slots) => slots.get_mut(rank),
            Segment::Flat(_) => None,
        }
    }

    /// Hands out the slot's memory, and whether what it holds counts.
    pub(super) fn take(&mut self, slot: Slot) -> Option<(Tensor, bool)> {
        let keep = self.add || self.touched[slot.index()];
        Some((self.cell(slot)?.take()?, keep))
    }

    /// Takes the slot's memory back.
    pub(super) fn put(&mut self, slot: Slot, t: Tensor, touched: bool) {
        self.touched[slot.index()] |= touched;
        if let Some(cell) = self.cell(slot) {
            *cell = Some(t);
        }
    }

    /// Zeroes what no gradient reached and joins the slots. A slot that an op failed in is lost: its segment is made anew,
    /// so that the next pass can start.
    pub(super) fn end(&mut self) -> Result<()> {
        for (i, seg) in self.segments.iter_mut().enumerate() {
            let Some(Segment::Split(slots)) = seg else { continue };
            let touched =
                self.table.slots.iter().zip(&self.touched).filter(|(s, _)| s.segment == i).map(|(_, t)| *t);
            let spec = Spec::new(self.table.dtype, &[self.table.segments[i].len])?;
            if slots.iter().any(Option::is_none) {
                *seg = Some(Segment::Flat(Tensor::zeros(&self.table.device, spec)?));
                continue;
            }
            let mut parts: Vec<Tensor> = std::mem::take(slots).into_iter().flatten().collect();
            for (t, touched) in parts.iter_mut().zip(touched) {
                if !touched && !self.add {
                    t.fill_zero()?;
                }
            }
            *seg = Some(Segment::Flat(Tensor::join(parts, &self.table.device, spec)?));
        }
        Ok(())
    }
}
