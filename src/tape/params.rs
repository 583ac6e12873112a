//! Weights, flat: a few long arrays that optimizers, all-reduce and snapshots see as arrays, cut into named slots that
//! models see as tensors.

use super::Cut;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::rng::Key;
use crate::shape::{DType, Shape, Spec};
use crate::tensor::Tensor;
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
    /// Of which array it is a piece, where ranks share a model.
    pub cut: Option<Cut>,
}

/// One flat array of slots that are treated alike.
#[derive(Clone, Copy, Debug)]
pub struct SegmentInfo {
    /// How the optimizer treats it.
    pub role: Role,
    /// Elements, padding between slots included.
    pub len: usize,
}

pub(super) struct Table {
    pub(super) slots: Vec<SlotInfo>,
    /// Of each slot the number of slots before it in its segment.
    pub(super) ranks: Vec<usize>,
    pub(super) segments: Vec<SegmentInfo>,
    by_name: HashMap<String, Slot>,
    pub(super) device: Device,
    pub(super) dtype: DType,
}

impl Table {
    /// True when slots of one are slots of the other.
    pub(super) fn lays_out_as(self: &Arc<Table>, other: &Arc<Table>) -> bool {
        let key = |s: &SlotInfo| (s.shape, s.role, s.segment, s.offset);
        Arc::ptr_eq(self, other)
            || self.dtype == other.dtype
                && self.slots.len() == other.slots.len()
                && self.slots.iter().zip(&other.slots).all(|(a, b)| a.name == b.name && key(a) == key(b))
    }
}

/// The parameters of a model. `clone` is cheap and shares the memory; writing needs the sole holder of a segment.
#[derive(Clone)]
pub struct Params {
    pub(super) table: Arc<Table>,
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

/// What stands between commas.
fn listed(names: &str) -> impl Iterator<Item = &str> {
    names.split(',').map(str::trim).filter(|n| !n.is_empty())
}

/// True where `slot` is named so, or begins or ends with it at a dot.
fn is_meant(name: &str, slot: &str) -> bool {
    slot == name
        || slot.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
        || slot.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

impl ParamsBuilder {
    /// An empty collection for parameters of `dtype` on `device`; `seed` keys the random initial values.
    pub fn new(device: &Device, dtype: DType, seed: u64) -> ParamsBuilder {
        ParamsBuilder { slots: Vec::new(), device: device.clone(), dtype, seed }
    }

    /// Adds a slot. Errors when the name is taken or the shape is impossible.
    pub fn add(&mut self, name: impl Into<String>, dims: &[usize], init: Init, role: Role) -> Result<Slot> {
        self.insert(name.into(), Shape::new(dims)?, None, init, role)
    }

    /// [`ParamsBuilder::add`] for a slot that holds a piece of an array; its initial values are those of that piece.
    pub fn add_piece(&mut self, name: impl Into<String>, cut: Cut, init: Init, role: Role) -> Result<Slot> {
        self.insert(name.into(), Shape::new(&cut.dims())?, Some(cut), init, role)
    }

    fn insert(
        &mut self,
        name: String,
        shape: Shape,
        cut: Option<Cut>,
        init: Init,
        role: Role,
    ) -> Result<Slot> {
        if self.slots.iter().any(|(s, _)| s.name == name) {
            return Err(Error::shape("params", format!("two slots are named `{name}`")));
        }
        self.slots.push((SlotInfo { name, shape, role, segment: 0, offset: 0, cut }, init));
        Ok(Slot(self.slots.len() as u32 - 1))
    }

    /// Keeps slots at their initial values: of each of `names` (commas between) the slot named so, and those whose name begins or
    /// ends with it, at a dot.
    ///
    /// # Errors
    /// When there is none for one of the names; the error lists the last parts of the names there are.
    pub fn freeze(&mut self, names: &str) -> Result<()> {
        for name in listed(names) {
            if !self.slots.iter().any(|(s, _)| is_meant(name, &s.name)) {
                let mut last: Vec<&str> =
                    self.slots.iter().filter_map(|(s, _)| s.name.rsplit('.').next()).collect();
                last.sort_unstable();
                last.dedup();
                let known = last.join(", ");
                let what = format!("names `{name}`, but no weight is named so; there are {known}");
                return Err(Error::config("freeze", what));
            }
        }
        self.freeze_found(names);
        Ok(())
    }

    /// [`ParamsBuilder::freeze`] in a part of a model, of which other ranks may have the rest.
    pub fn freeze_found(&mut self, names: &str) {
        let meant = |s: &str| listed(names).any(|name| is_meant(name, s));
        self.slots.iter_mut().filter(|(s, _)| meant(&s.name)).for_each(|(s, _)| s.role = Role::State);
    }

    /// Gives each slot its place: the segments, and of each slot the number of slots before it in its segment.
    fn lay_out(&mut self) -> (Vec<SegmentInfo>, Vec<usize>) {
        let align = SLOT_ALIGN / self.dtype.size();
        let mut segments: Vec<SegmentInfo> = Vec::new();
        let mut ranks = vec![0; self.slots.len()];
        for role in [Role::Decay, Role::Plain, Role::State] {
            if self.slots.iter().all(|(s, _)| s.role != role) {
                continue;
            }
            let mut len = 0;
            let alike = self.slots.iter_mut().zip(&mut ranks).filter(|((s, _), _)| s.role == role);
            for (i, ((s, _), rank)) in alike.enumerate() {
                (s.segment, s.offset, *rank) = (segments.len(), len, i);
                len += s.shape.len().next_multiple_of(align);
            }
            segments.push(SegmentInfo { role, len });
        }
        (segments, ranks)
    }

    /// The slots where [`ParamsBuilder::build`] would put them, without taking their memory.
    pub fn layout(mut self) -> Vec<SlotInfo> {
        self.lay_out();
        self.slots.into_iter().map(|(s, _)| s).collect()
    }

    /// Allocates the segments and fills in the initial values.
    pub fn build(mut self) -> Result<Params> {
        let (segments, ranks) = self.lay_out();
        let (slots, inits): (Vec<_>, Vec<_>) = self.slots.into_iter().unzip();
        let by_name = slots.iter().enumerate().map(|(i, s)| (s.name.clone(), Slot(i as u32))).collect();
        let table = Table { slots, ranks, segments, by_name, device: self.device, dtype: self.dtype };
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
        let (name, cut) = (self.info(slot).name.clone(), self.info(slot).cut);
        let n = cut.map_or(self.info(slot).shape, |cut| cut.whole).len();
        let mut rng = Key::named(seed, &name).rng();
        let v: Vec<f64> = match init {
            Init::Constant(c) => vec![c; n],
            Init::Normal(std) => (0..n).map(|_| rng.normal() * std).collect(),
            Init::Uniform(bound) => (0..n).map(|_| (rng.uniform() * 2.0 - 1.0) * bound).collect(),
        };
        let v = match cut {
            Some(cut) => cut.take(&v),
            None => v,
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
        self.segments[s.segment].copy_from(s.offset, value)
    }
    /// Segment `i` as a tensor; shares the memory.
    pub fn segment(&self, i: usize) -> &Tensor {
        &self.segments[i]
    }
    /// Segment `i`, writable, which [`Tensor`] refuses while a tape or clone shares the memory.
    pub fn segment_mut(&mut self, i: usize) -> &mut Tensor {
        &mut self.segments[i]
    }
    /// A copy with memory of its own.
    pub fn deep_clone(&self) -> Result<Params> {
        let segments = self.segments.iter().map(Tensor::deep_clone).collect::<Result<_>>()?;
        Ok(Params { table: self.table.clone(), segments })
    }
}
