//! What the ranks of a mesh agree on.

use super::super::{Config, Task, Team};
use super::division::Division;
use super::{Mesh, MeshConfig, Place};
use crate::comm::{Group, Reduce};
use crate::data::Batch;
use crate::error::Result;
use crate::nn::parallel::Share;
use crate::nn::{self, Model, Part};
use crate::optim::{Optimizer, clip};
use crate::shape::DType;
use crate::tape::{Grads, Params, ParamsBuilder, Slot};
use crate::tensor::Tensor;
use std::sync::PoisonError;

impl Team {
    /// Puts the ranks into the groups of `mesh`.
    pub(in crate::train) fn arrange(&mut self, mesh: &MeshConfig, tied: bool) -> Result<()> {
        let place = mesh.place(self.rank(), self.size());
        if mesh.shares() == 1 {
            return Ok(());
        }
        let Some(world) = &self.world else { return Ok(()) };
        let (rank, size) = (self.rank(), self.size());
        let ring = self.ring.as_ref().map(|(ring, _)| ring);
        // The ranks whose place gives the same number as that of this one.
        let group = |color: &dyn Fn(Place) -> usize| -> Result<Group> {
            let of = |r: usize| color(mesh.place(r, size));
            let group = world.split(of(rank) as u32, 0)?;
            let Some(ring) = ring.filter(|_| group.size() > 1) else { return Ok(group) };
            let members: Vec<usize> = (0..size).filter(|&r| of(r) == of(rank)).collect();
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner).among(&members)?;
            Ok(group.with_ring(ring))
        };
        let (tensors, contexts) = (mesh.tensor, mesh.context);
        let column = |p: Place| (p.replica * contexts + p.stretch) * tensors + p.tensor;
        let tensor = group(&|p| (p.stage * size + p.replica) * contexts + p.stretch)?;
        let context = group(&|p| (p.stage * size + p.replica) * tensors + p.tensor)?;
        // All that have the same weights, whichever samples and tokens they see.
        self.data = Some(group(&|p| p.stage * tensors + p.tensor)?);
        let model = group(&|p| p.replica * contexts + p.stretch)?;
        let pipe = group(&column)?;
        // Stages in between are alone.
        let (last, others) = (mesh.pipeline - 1, size * tensors * contexts);
        let ends = |p: Place| match p.stage == 0 || p.stage == last {
            true => column(p),
            false => others + p.stage * others + column(p),
        };
        let tied = (tied && mesh.pipeline > 1).then(|| group(&ends)).transpose()?;
        self.mesh = Some(Mesh { tensor, context, model, pipe, tied, layout: mesh.clone(), place });
        Ok(())
    }

    /// This rank's number among those that sum their gradients, and how many they are.
    pub(in crate::train) fn replica(&self) -> (usize, usize) {
        match (&self.mesh, &self.data) {
            (Some(_), Some(data)) => (data.rank(), data.size()),
            _ => (self.rank(), self.size()),
        }
    }

    /// The tokens of `batch` that this rank sees.
    pub(in crate::train) fn stretch(&self, batch: Batch) -> Result<Batch> {
        match self.mesh.as_ref().map(|m| &m.context) {
            Some(context) if context.size() > 1 => batch.stretch(context.rank(), context.size()),
            _ => Ok(batch),
        }
    }

    /// Into how many stretches ranks cut each sample.
    pub(in crate::train) fn stretches(&self) -> u64 {
        self.mesh.as_ref().map_or(1, |m| m.context.size() as u64)
    }

    /// The first rank that has the same part of the model as `rank`.
    pub(in crate::train) fn first_like(&self, rank: usize) -> usize {
        self.mesh.as_ref().map_or(0, |m| {
            let Place { stage, tensor, .. } = m.layout.place(rank, self.size());
            stage * self.replica().1 * m.layout.tensor + tensor
        })
    }

    /// The rank whose loss is that of the samples of this one: where ranks share a model, one of them tells it.
    pub(in crate::train) fn speaker(&self) -> usize {
        self.mesh.as_ref().map_or(self.rank(), |m| {
            let (number, all) = self.replica();
            ((m.layout.pipeline - 1) * all + number) * m.layout.tensor
        })
    }

    /// True where this rank knows the loss: in the last stage, or where there are none.
    pub(in crate::train) fn ends_pipeline(&self) -> bool {
        self.mesh.as_ref().is_none_or(|m| m.place.stage + 1 == m.layout.pipeline)
    }

    /// Where ranks share the model: what puts its parts together, and the part of this rank, with its weights and its optimizer,
    /// cut from the whole.
    #[allow(clippy::type_complexity, reason = "a part is all of these")]
    pub(in crate::train) fn divide(
        &self,
        config: &Config,
        task: &Task,
        (model, params): (Model, Params),
        mut optimizer: Box<dyn Optimizer>,
    ) -> Result<(Option<Division>, Model, Params, Box<dyn Optimizer>)> {
        let Some(mesh) = &self.mesh else { return Ok((None, model, params, optimizer)) };
        let (group, size) = (mesh.model.clone(), mesh.tensor.size());
        let (rank, ranks) = (mesh.context.rank(), mesh.context.size());
        let context = Share { rank, size: ranks, group: Some(mesh.context.clone()) };
        let part = |r: usize| {
            let place = Place { stage: r / size, tensor: r % size, ..mesh.place };
            let own = (r == group.rank()).then(|| mesh.tensor.clone());
            let stage = mesh.layout.stage(place, &config.model);
            Part { tensor: Share { rank: place.tensor, size, group: own }, context: context.clone(), stage }
        };
        let build = |part: &Part, b: &mut ParamsBuilder| {
            let model = nn::build_part(&config.model, task.io(), config.checkpoint, part, b)?;
            b.freeze_found(&config.freeze);
            Ok(model)
        };
        let parts: Vec<Part> = (0..group.size()).map(part).collect();
        let mut b = ParamsBuilder::new(params.device(), DType::F32, config.seed);
        let own = build(&parts[group.rank()], &mut b)?;
        let division = Division::new((model, params), group, &parts, build)?;
        let mut params = b.build()?;
        division.cut(&mut params)?;
        let mut mine = super::super::optimizer(config, &params)?;
        division.cut_state(optimizer.as_mut(), mine.as_mut(), &params)?;
        Ok((Some(division), own, params, mine))
    }

    /// [`clip::by_global_norm`] of the gradient of the whole model: pieces count on each rank that has one, the rest once.
    pub(in crate::train) fn clip_model(&self, grads: &mut Grads, params: &Params, limit: f64) -> Result<f64> {
        let Some(mesh) = &self.mesh else { return clip::by_global_norm(grads, limit) };
        let mut squares = 0.0;
        let tied = tied_slot(params);
        let counts = |s: Slot| {
            let again = mesh.tied.is_some() && Some(s) == tied && mesh.place.stage > 0;
            !again && (params.info(s).cut.is_some() || mesh.place.tensor == 0)
        };
        for slot in params.all().filter(|s| counts(*s)) {
            if let Some(g) = grads.get(slot) {
                squares += clip::sum_of_squares_of(&g)?;
            }
        }
        let sum = mesh.model.call(move |c| {
            let mut sum = [squares];
            c.all_reduce(&mut sum, Reduce::Sum).map(|()| sum[0])
        })?;
        let norm = sum.sqrt();
        if limit > 0.0 && norm.is_finite() && norm > limit {
            clip::scale(grads, limit / norm)?;
        }
        Ok(norm)
    }

    /// Where first and last stage have the weights of the symbols: the sum of what both add to their gradient.
    pub(super) fn add_tied(&self, params: &Params, grads: &mut Grads) -> Result<()> {
        let Some(group) = self.mesh.as_ref().and_then(|m| m.tied.as_ref()).filter(|g| g.size() > 1) else {
            return Ok(());
        };
        let Some((slot, g)) = tied_slot(params).and_then(|s| Some((s, grads.get(s)?))) else { return Ok(()) };
        let (mut all, dims) = (g.to_host()?.as_slice::<f32>()?.to_vec(), g.dims().to_vec());
        drop(g);
        let all = group.call(move |c| c.all_reduce(&mut all, Reduce::Sum).map(|()| all))?;
        let info = params.info(slot);
        match grads.flat_mut(info.segment) {
            Some(flat) => flat.copy_from(info.offset, &Tensor::from_slice(params.device(), &all, &dims)?),
            None => Ok(()),
        }
    }
}

/// What embeds symbols, and gives their logits where it is tied.
fn tied_slot(params: &Params) -> Option<Slot> {
    params.find("token.weight")
}
