//! [`Division`]: a model of which each rank has a part, and the whole of it: at the start the whole is cut, for evaluations and
//! snapshots it is put together. So a run folder knows nothing of meshes: any number of ranks, in any layout, takes up any
//! snapshot.

use crate::comm::Group;
use crate::error::{Error, Result};
use crate::nn::{Model, Part};
use crate::optim::Optimizer;
use crate::shape::DType;
use crate::tape::{Params, ParamsBuilder, Role, SlotInfo};
use crate::tensor::Tensor;

/// One array for each role of segments: the weights, or a kind of state of an optimizer.
type Flat = Vec<(Role, Vec<f32>)>;

/// Where the slots of a part lie.
struct Layout {
    slots: Vec<SlotInfo>,
}

/// The whole of a model, and where the parts of all ranks that share it lie in it.
pub(crate) struct Division {
    /// Evaluates and writes.
    pub(crate) model: Model,
    /// Its weights as they were when they were last put together.
    pub(crate) params: Params,
    /// The ranks that share the model.
    group: Group,
    parts: Vec<Layout>,
}

impl Division {
    /// Of `model` with `params`, whose part on each rank of `group` `build` makes.
    pub(crate) fn new(
        (model, params): (Model, Params),
        group: Group,
        parts: &[Part],
        build: impl Fn(&Part, &mut ParamsBuilder) -> Result<Model>,
    ) -> Result<Division> {
        let layout = |part: &Part| {
            let mut b = ParamsBuilder::new(params.device(), params.dtype(), 0);
            build(part, &mut b)?;
            Ok(Layout { slots: b.layout() })
        };
        let parts = parts.iter().map(layout).collect::<Result<_>>()?;
        Ok(Division { model, params, group, parts })
    }

    /// The weights of the whole, of which this rank has `mine`. All ranks that share the model call it.
    pub(crate) fn whole(&self, mine: &Params) -> Result<Params> {
        let mut params = self.params.deep_clone()?;
        let flat = self.gather(&flat_of(mine)?, flat_of(&params)?)?;
        write(&flat, &mut params)?;
        Ok(params)
    }

    /// Puts the weights of the whole together, for [`Division::params`].
    pub(crate) fn refresh(&mut self, mine: &Params) -> Result<()> {
        self.params = self.whole(mine)?;
        Ok(())
    }

    /// This rank's part of the weights of the whole.
    pub(crate) fn cut(&self, mine: &mut Params) -> Result<()> {
        let flat = self.piece(&flat_of(&self.params)?, flat_of(mine)?);
        write(&flat, mine)
    }

    /// Puts the state of `mine`, an optimizer of a part, together as that of `whole`. All ranks that share the model call it.
    pub(crate) fn whole_state(
        &self,
        mine: &mut dyn Optimizer,
        whole: &mut dyn Optimizer,
        part: &Params,
    ) -> Result<()> {
        whole.numbers().copy_from_slice(mine.numbers());
        let steps = mine.steps();
        if self.parts.len() == 1 {
            return copy_state(mine.state(), whole.state_mut(), steps);
        }
        let own = kinds(mine.state().into_iter(), part)?;
        // A part in which nothing is trained has no state.
        let of = |kind: &str| own.iter().find(|(k, _)| k == kind).map_or(&[][..], |(_, flat)| flat);
        let (arrays, count) = whole.state_mut();
        *count = steps;
        let zeros = kinds(arrays.iter().map(|(n, t)| (n.clone(), &**t)), &self.params)?;
        let mut found = Vec::new();
        for (kind, zeros) in zeros {
            let whole = self.gather(of(&kind), zeros)?;
            found.push((kind, whole));
        }
        fill(arrays, &found, &self.params)
    }

    /// The state of `mine` becomes this rank's part of that of `whole`.
    pub(crate) fn cut_state(
        &self,
        whole: &mut dyn Optimizer,
        mine: &mut dyn Optimizer,
        part: &Params,
    ) -> Result<()> {
        mine.numbers().copy_from_slice(whole.numbers());
        let steps = whole.steps();
        if self.parts.len() == 1 {
            return copy_state(whole.state(), mine.state_mut(), steps);
        }
        let all = kinds(whole.state().into_iter(), &self.params)?;
        let (arrays, count) = mine.state_mut();
        *count = steps;
        let zeros = kinds(arrays.iter().map(|(n, t)| (n.clone(), &**t)), part)?;
        let of = |kind: &str| all.iter().find(|(k, _)| k == kind).map_or(&[][..], |(_, flat)| flat);
        let found: Vec<(String, Flat)> = zeros
            .into_iter()
            .map(|(kind, zeros)| {
                let piece = self.piece(of(&kind), zeros);
                (kind, piece)
            })
            .collect();
        fill(arrays, &found, part)
    }

    /// Pieces of all ranks in their places in `into`.
    fn gather(&self, mine: &[(Role, Vec<f32>)], mut into: Flat) -> Result<Flat> {
        let own = &self.parts[self.group.rank()].slots;
        let mut packed: Vec<f32> = Vec::new();
        for slot in own {
            let until = packed.len() + slot.shape.len();
            packed.extend_from_slice(slice(mine, slot));
            packed.resize(until, 0.0); // no state of its segment
        }
        let size = |layout: &Layout| layout.slots.iter().map(|s| s.shape.len()).sum();
        let most: usize = self.parts.iter().map(size).max().unwrap_or(0);
        let ranks = self.group.size();
        let all = self.group.call(move |c| {
            let (mut packed, mut all) = (packed, vec![0.0; ranks * most]);
            packed.resize(most, 0.0);
            c.all_gather(&packed, &mut all).map(|()| all)
        })?;
        for (layout, packed) in self.parts.iter().zip(all.chunks(most.max(1))) {
            let mut rest = packed;
            for slot in &layout.slots {
                let (piece, more) = rest.split_at(slot.shape.len());
                rest = more;
                let place = self.place(slot)?;
                let Some(to) = array_mut(&mut into, slot.role) else { continue };
                if to.is_empty() {
                    continue; // no state of this segment
                }
                let to = &mut to[place.offset..place.offset + place.shape.len()];
                match &slot.cut {
                    Some(cut) => cut.put(piece, to),
                    None => to.copy_from_slice(piece),
                }
            }
        }
        Ok(into)
    }

    /// This rank's pieces of `whole`, in their places in `into`.
    fn piece(&self, whole: &[(Role, Vec<f32>)], mut into: Flat) -> Flat {
        for slot in &self.parts[self.group.rank()].slots {
            let Ok(place) = self.place(slot) else { continue };
            let from = slice(whole, place);
            if from.is_empty() {
                continue;
            }
            let piece = slot.cut.as_ref().map_or_else(|| from.to_vec(), |cut| cut.take(from));
            if let Some(to) = array_mut(&mut into, slot.role).filter(|to| !to.is_empty()) {
                to[slot.offset..slot.offset + slot.shape.len()].copy_from_slice(&piece);
            }
        }
        into
    }

    /// Where a slot of a part lies in the whole.
    fn place(&self, slot: &SlotInfo) -> Result<&SlotInfo> {
        let found = self.params.find(&slot.name).map(|s| self.params.info(s));
        found.ok_or_else(|| Error::Usage(format!("`{}` of a part is no weight of the model", slot.name)))
    }
}

/// The state of an optimizer of all weights as that of another: whatever its arrays are.
fn copy_state(
    from: Vec<(String, &Tensor)>,
    (arrays, count): (Vec<(String, &mut Tensor)>, &mut u64),
    steps: u64,
) -> Result<()> {
    *count = steps;
    arrays.into_iter().zip(from).try_for_each(|((_, to), (_, from))| to.copy_from(0, from))
}

fn array_mut(flat: &mut Flat, role: Role) -> Option<&mut Vec<f32>> {
    flat.iter_mut().find(|(r, _)| *r == role).map(|(_, x)| x)
}

/// What `slot` has in `flat`; nothing where there is no state of its segment.
fn slice<'f>(flat: &'f [(Role, Vec<f32>)], slot: &SlotInfo) -> &'f [f32] {
    let array = flat.iter().find(|(role, _)| *role == slot.role).map_or(&[][..], |(_, x)| x);
    array.get(slot.offset..slot.offset + slot.shape.len()).unwrap_or_default()
}

fn host(t: &Tensor) -> Result<Vec<f32>> {
    if t.dtype() != DType::F32 {
        return Err(Error::dtype("mesh", format!("weights are {}, but must be f32", t.spec())));
    }
    Ok(t.to_host()?.as_slice::<f32>()?.to_vec())
}

fn flat_of(params: &Params) -> Result<Flat> {
    let of = |(i, s): (usize, &crate::tape::SegmentInfo)| Ok((s.role, host(params.segment(i))?));
    params.segments().iter().enumerate().map(of).collect()
}

fn write(flat: &Flat, params: &mut Params) -> Result<()> {
    for (i, (_, x)) in flat.iter().enumerate() {
        params.segment_mut(i).write_bytes(0, bytemuck::cast_slice(x))?;
    }
    Ok(())
}

/// Arrays of state `kind.i`, i a segment of `params`, by kind.
fn kinds<'a>(
    arrays: impl Iterator<Item = (String, &'a Tensor)>,
    params: &Params,
) -> Result<Vec<(String, Flat)>> {
    let mut all: Vec<(String, Flat)> = Vec::new();
    for (name, t) in arrays {
        let (kind, role) = segment(&name, params)?;
        if all.last().is_none_or(|(last, _)| last != kind) {
            all.push((kind.into(), vec![]));
        }
        if let Some((_, flat)) = all.last_mut() {
            flat.push((role, host(t)?));
        }
    }
    Ok(all)
}

fn segment<'n>(name: &'n str, params: &Params) -> Result<(&'n str, Role)> {
    let found = name.rsplit_once('.').and_then(|(kind, i)| {
        let i: usize = i.parse().ok()?;
        Some((kind, params.segments().get(i)?.role))
    });
    found.ok_or_else(|| {
        Error::Usage(format!("state `{name}` of an optimizer is not of one segment of the weights"))
    })
}

fn fill(arrays: Vec<(String, &mut Tensor)>, from: &[(String, Flat)], params: &Params) -> Result<()> {
    for (name, t) in arrays {
        let (kind, role) = segment(&name, params)?;
        let flat = from.iter().find(|(k, _)| k == kind).map(|(_, flat)| flat);
        if let Some((_, x)) = flat.and_then(|flat| flat.iter().find(|(r, _)| *r == role)) {
            t.write_bytes(0, bytemuck::cast_slice(x))?;
        }
    }
    Ok(())
}
