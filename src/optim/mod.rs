//! Optimizers: one file each, one fused kernel over the flat parameters; learning-rate schedules; clipping.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Optimizer`], [`Entry`], the list of optimizers |
//! | `rule.rs` | [`Rule`](rule::Rule): optimizers that treat each weight by itself, and all that they share |
//! | `attributes.rs` | attributes that several have |
//! | `adamw.rs`, `sgd.rs`, … | one optimizer each |
//! | `slope.rs` | the slope of the loss along the last update, summed |
//! | `gvc.rs` | the controller that lowers the rate by that slope |
//! | `noise.rs` | the gradient noise scale from micro-batches |
//! | `schedule.rs` | the learning rate as a function of the step |
//! | `clip.rs` | clipping by the norm of the whole gradient |

mod adabelief;
mod adafactor;
mod adam;
mod adamw;
mod attributes;
pub mod clip;
pub mod gvc;
mod lion;
mod m_svag;
mod muon;
pub mod noise;
mod prodigy;
pub mod rule;
mod schedule;
mod schedule_free;
mod sgd;
pub mod slope;
mod vsgd_fd;

pub use gvc::{ControllerConfig, ControllerName, Gvc};
pub use schedule::{Schedule, ScheduleConfig, ScheduleName};

use crate::attrs::{AttrDoc, Attrs, nearest};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::shape::Spec;
use crate::tape::{Grads, Params, Role};
use crate::tensor::Tensor;

/// The gradient of the same batch at other weights, for optimizers that read a second one.
pub type Probe<'a> = dyn FnMut(&Params, &mut Grads) -> Result<()> + 'a;

/// What a step is given besides weights and gradient.
pub struct Step<'a> {
    /// Learning rate.
    pub lr: f64,
    /// Asks for the slope of the loss along the last update.
    pub slope: bool,
    /// Where a second gradient comes from.
    pub probe: Option<&'a mut Probe<'a>>,
}

impl Step<'_> {
    /// A step with this learning rate and nothing else.
    pub fn new(lr: f64) -> Step<'static> {
        Step { lr, slope: false, probe: None }
    }
}

/// Changes weights by their gradients. Its state is named tensors, so a snapshot can hold any optimizer.
pub trait Optimizer: Send {
    /// Name, as in [`ALL`].
    fn name(&self) -> &'static str;
    /// One step. Where `how` asks for it and there was a step before, gives Σ u·g, with u what that step subtracted (up to
    /// its learning rate). Errors while a tape or clone still shares the weights.
    fn advance(&mut self, w: &mut Params, g: &Grads, how: Step<'_>) -> Result<Option<f64>>;
    /// One step with learning rate `lr`.
    fn step(&mut self, w: &mut Params, g: &Grads, lr: f64) -> Result<()> {
        self.advance(w, g, Step::new(lr)).map(drop)
    }
    /// Steps taken.
    fn steps(&self) -> u64;
    /// The state arrays by name, each over one segment of the parameters, whose number ends the name (`m.0`).
    fn state(&self) -> Vec<(String, &Tensor)>;
    /// The state arrays, writable, and the number of steps: how a snapshot is taken up.
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64);
    /// Numbers that last from step to step, for optimizers that have any: saved and taken up with the arrays.
    fn numbers(&mut self) -> &mut [f64] {
        &mut []
    }
    /// The weights that are evaluated and used where they are not those that gradients are taken at.
    fn averaged(&self, _w: &Params) -> Result<Option<Params>> {
        Ok(None)
    }
    /// True when steps give the slope that a controller reads.
    fn slopes(&self) -> bool {
        true
    }
    /// True when a step of a part of the weights is that part of a step of all: each weight goes by its own gradient and its own
    /// state. A rank may then keep the state of a part alone.
    fn by_weight(&self) -> bool {
        false
    }
    /// True when a step needs [`Step::probe`].
    fn probes(&self) -> bool {
        false
    }
}

/// An optimizer as a row of the table of optimizers.
pub struct Entry {
    /// Name, as in torch.optim.
    pub name: &'static str,
    /// The rule in one line.
    pub doc: &'static str,
    /// Numbers of state for each weight.
    pub state: &'static str,
    /// Attributes, as in torch.optim; the learning rate comes with each step.
    pub attrs: &'static [AttrDoc],
    /// The optimizer for these parameters.
    pub build: fn(&Attrs, &Params) -> Result<Box<dyn Optimizer>>,
    /// Kernels that a step launches.
    pub kernels: &'static [&'static Kernel],
}

impl Entry {
    /// The optimizer with attributes given as text.
    pub fn build_with<N: AsRef<str>, V: AsRef<str>>(
        &self,
        attrs: &[(N, V)],
        params: &Params,
    ) -> Result<Box<dyn Optimizer>> {
        (self.build)(&Attrs::new(self.name, self.attrs, attrs)?, params)
    }
}

/// Every optimizer of ringtape.
pub static ALL: &[&Entry] = &[
    &adabelief::ENTRY,
    &adafactor::ENTRY,
    &adam::ENTRY,
    &adamw::ENTRY,
    &lion::ENTRY,
    &m_svag::ENTRY,
    &muon::ENTRY,
    &prodigy::ENTRY,
    &schedule_free::ENTRY,
    &sgd::ENTRY,
    &vsgd_fd::ENTRY,
];

/// The optimizer of this name among `extra` and [`ALL`], or an error that suggests the nearest name.
pub fn find(name: &str, extra: &[&'static Entry]) -> Result<&'static Entry> {
    let all = || extra.iter().chain(ALL).copied();
    all().find(|e| e.name == name).ok_or_else(|| {
        let near = nearest(name, all().map(|e| e.name));
        Error::config(
            "optimizer.name",
            format!("no optimizer is named `{name}`{near}; `optim list` shows all"),
        )
    })
}

/// One zeroed array for each trained segment of `params` whose role `which` takes; the others have an empty one.
fn zeros_for(params: &Params, which: impl Fn(Role) -> bool) -> Result<Vec<Tensor>> {
    let one = |s: &crate::tape::SegmentInfo| {
        let len = if s.role != Role::State && which(s.role) { s.len } else { 0 };
        Tensor::zeros(params.device(), Spec::new(params.dtype(), &[len])?)
    };
    params.segments().iter().map(one).collect()
}

/// Names for the arrays of one kind: `m.0`, `m.1`, ….
fn named<T>(kind: &str, arrays: impl Iterator<Item = T>) -> impl Iterator<Item = (String, T)> {
    arrays.enumerate().map(move |(i, t)| (format!("{kind}.{i}"), t))
}

/// Error unless the attribute `name` of `op` is in `lo..hi`.
fn within(op: &'static str, name: &str, value: f64, lo: f64, hi: f64) -> Result<f64> {
    if value >= lo && value < hi {
        return Ok(value);
    }
    let upper = if hi == f64::INFINITY { String::new() } else { format!(" and below {hi}") };
    Err(Error::attr(op, name, format!("is {value}, but must be at least {lo}{upper}")))
}
