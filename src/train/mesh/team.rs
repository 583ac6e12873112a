//! What the ranks of a mesh agree on.

use super::super::{Config, Task, Team};
use super::division::Division;
use super::{Mesh, MeshConfig};
use crate::comm::{Group, Reduce};
use crate::data::Batch;
use crate::error::Result;
use crate::nn::parallel::Share;
use crate::nn::{self, Model, Part};
use crate::optim::{Optimizer, clip};
use crate::shape::DType;
use crate::tape::{Grads, Params, ParamsBuilder};
use std::sync::PoisonError;

impl Team {
    /// Puts the ranks into the groups of `mesh`.
    pub(in crate::train) fn arrange(&mut self, mesh: &MeshConfig) -> Result<()> {
        let (rank, tensor, context) = (self.rank(), mesh.tensor, mesh.context);
        let Some(world) = self.world.as_ref().filter(|_| mesh.shares() > 1) else { return Ok(()) };
        let ring = self.ring.as_ref().map(|(ring, _)| ring);
        // The ranks of which this function says the same as of this one.
        let group = |color: &dyn Fn(usize) -> usize| -> Result<Group> {
            let group = world.split(color(rank) as u32, 0)?;
            let Some(ring) = ring.filter(|_| group.size() > 1) else { return Ok(group) };
            let members: Vec<usize> = (0..world.size()).filter(|&r| color(r) == color(rank)).collect();
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner).among(&members)?;
            Ok(group.with_ring(ring))
        };
        let context = group(&|r| r / (tensor * context) * tensor + r % tensor)?;
        let mesh = Mesh { tensor: group(&|r| r / tensor)?, context };
        // All that have the same weights, whichever samples and tokens they see.
        self.data = Some(group(&|r| r % tensor)?);
        self.mesh = Some(mesh);
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

    /// True on one of the ranks that share a model: what all of them know counts once.
    pub(in crate::train) fn speaks(&self) -> bool {
        self.mesh.as_ref().is_none_or(|m| m.tensor.rank() == 0)
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
        let group = mesh.tensor.clone();
        let (rank, size) = (mesh.context.rank(), mesh.context.size());
        let context = Share { rank, size, group: Some(mesh.context.clone()) };
        let part = |rank: usize| {
            let group = (rank == group.rank()).then(|| group.clone());
            Part { tensor: Share { rank, size: mesh.tensor.size(), group }, context: context.clone() }
        };
        let build = |part: &Part, b: &mut ParamsBuilder| {
            let model = nn::build_part(&config.model, task.io(), config.checkpoint, part, b)?;
            b.freeze(&config.freeze)?;
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
        for slot in params.all().filter(|s| params.info(*s).cut.is_some() || self.speaks()) {
            if let Some(g) = grads.get(slot) {
                squares += clip::sum_of_squares_of(&g)?;
            }
        }
        let sum = mesh.tensor.call(move |c| {
            let mut sum = [squares];
            c.all_reduce(&mut sum, Reduce::Sum).map(|()| sum[0])
        })?;
        let norm = sum.sqrt();
        if limit > 0.0 && norm.is_finite() && norm > limit {
            clip::scale(grads, limit / norm)?;
        }
        Ok(norm)
    }
}
