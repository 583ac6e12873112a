//! [`Grads`]: gradients in the layout of the parameters.

use super::Adjoint;
use super::params::{Params, Role, SegmentInfo, Slot, Table};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::shape::{DType, Spec};
use crate::tensor::{Element, Tensor};
use std::sync::Arc;

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

    /// The flat gradient of segment `i` as a tensor (None for state): what a kernel reads.
    pub fn flat(&self, i: usize) -> Option<&Tensor> {
        match self.segments[i].as_ref()? {
            Segment::Flat(t) => Some(t),
            Segment::Split(_) => None,
        }
    }

    /// The flat gradient of segment `i` as a tensor, writable (None for state).
    pub fn flat_mut(&mut self, i: usize) -> Option<&mut Tensor> {
        match self.segments[i].as_mut()? {
            Segment::Flat(t) => Some(t),
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

    /// Device of the gradients.
    pub fn device(&self) -> &Device {
        &self.table.device
    }

    /// Real type of the gradients.
    pub fn dtype(&self) -> DType {
        self.table.dtype
    }

    /// Cuts the segments into slots. On error nothing has changed.
    pub(super) fn begin(&mut self, params: &Params) -> Result<()> {
        if !self.table.lays_out_as(&params.table) {
            return Err(Error::shape("grads", "made for other parameters than those of the tape"));
        }
        for seg in &self.segments {
            if let Some(Segment::Flat(t)) = seg {
                t.expect_sole_holder("grads")?;
            }
        }
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
        let i = slot.index();
        match self.segments[self.table.slots[i].segment].as_mut()? {
            Segment::Split(slots) => slots.get_mut(self.table.ranks[i]),
            Segment::Flat(_) => None,
        }
    }

    /// Hands out the slot's memory, and whether what it holds counts.
    pub(super) fn take(&mut self, slot: Slot) -> Option<(Tensor, bool)> {
        let keep = self.add || self.touched[slot.index()];
        Some((self.cell(slot)?.take()?, keep))
    }

    /// The sum in `slot` in the midst of a pass; None when no contribution has reached it.
    pub(super) fn sum(&self, slot: Slot) -> Option<&Tensor> {
        let i = slot.index();
        match self.segments[self.table.slots[i].segment].as_ref()? {
            Segment::Split(slots) if self.touched[i] => slots[self.table.ranks[i]].as_ref(),
            _ => None,
        }
    }

    /// What stands in `slot` in the midst of a pass, earlier passes included that this one adds to; None for zero.
    pub(super) fn complete(&self, slot: Slot) -> Option<&Tensor> {
        let i = slot.index();
        match self.segments[self.table.slots[i].segment].as_ref()? {
            Segment::Split(slots) if self.touched[i] || self.add => slots[self.table.ranks[i]].as_ref(),
            _ => None,
        }
    }

    /// Takes the slot's memory back.
    pub(super) fn put(&mut self, slot: Slot, d: Adjoint) {
        self.touched[slot.index()] |= d.wrote();
        if let Some(cell) = self.cell(slot) {
            *cell = d.into_memory();
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
