//! Optimizers: one file each, one fused kernel over the flat parameters; learning-rate schedules; clipping.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Optimizer`], [`Entry`], the list of optimizers |
//! | `sgd.rs`, `adamw.rs` | one optimizer each |
//! | `schedule.rs` | the learning rate as a function of the step |
//! | `clip.rs` | clipping by the norm of the whole gradient |

mod adamw;
pub mod clip;
mod schedule;
mod sgd;

pub use adamw::AdamW;
pub use schedule::{Schedule, ScheduleConfig, ScheduleName};
pub use sgd::Sgd;

use crate::attrs::{AttrDoc, Attrs, nearest};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::shape::Spec;
use crate::tape::{Grads, Params, Role};
use crate::tensor::Tensor;

/// Changes weights by their gradients. Its state is named tensors, so a snapshot can hold any optimizer.
pub trait Optimizer: Send {
    /// Name, as in [`ALL`].
    fn name(&self) -> &'static str;
    /// One step with learning rate `lr`. Errors while a tape or clone still shares the weights.
    fn step(&mut self, w: &mut Params, g: &Grads, lr: f64) -> Result<()>;
    /// Steps taken.
    fn steps(&self) -> u64;
    /// The state arrays by name, each over one segment of the parameters.
    fn state(&self) -> Vec<(String, &Tensor)>;
    /// The state arrays, writable, and the number of steps: how a snapshot is taken up.
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64);
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
pub static ALL: &[&Entry] = &[&adamw::ENTRY, &sgd::ENTRY];

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

/// One zeroed array for each trained segment of `params`; segments of state have an empty one.
fn zeros_like(params: &Params) -> Result<Vec<Tensor>> {
    let one = |s: &crate::tape::SegmentInfo| {
        let len = if s.role == Role::State { 0 } else { s.len };
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
