//! [`Entry`]: everything that the rest of ringtape knows of an op.

use super::{AttrDoc, Attrs, Sample};
use crate::error::Result;
use crate::kernel::Kernel;
use crate::tape::Op;
use std::sync::Arc;

/// What an input carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Real numbers, with a gradient.
    Real,
    /// Real numbers to which no gradient flows.
    Constant,
    /// i32 indices or labels.
    Ids,
    /// u8 conditions, 0 or 1.
    Mask,
}

/// One input of an op.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Name, as in torch where the op exists there.
    pub name: &'static str,
    /// What it carries.
    pub kind: PortKind,
    /// May be left out; only trailing inputs may.
    pub optional: bool,
    /// Stands for one or more inputs of this kind, called `name.0`, `name.1`, …; only the last port may.
    pub variadic: bool,
}

impl Port {
    /// A real input.
    pub const fn real(name: &'static str) -> Port {
        Port { name, kind: PortKind::Real, optional: false, variadic: false }
    }
    /// A real input to which no gradient flows, of an op that observes.
    pub const fn constant(name: &'static str) -> Port {
        Port { name, kind: PortKind::Constant, optional: false, variadic: false }
    }
    /// An input of indices.
    pub const fn ids(name: &'static str) -> Port {
        Port { name, kind: PortKind::Ids, optional: false, variadic: false }
    }
    /// An input of conditions.
    pub const fn mask(name: &'static str) -> Port {
        Port { name, kind: PortKind::Mask, optional: false, variadic: false }
    }
    /// One or more inputs of reals.
    pub const fn many(name: &'static str) -> Port {
        Port { name, kind: PortKind::Real, optional: false, variadic: true }
    }
    /// The same input, which may be left out.
    pub const fn optional(self) -> Port {
        Port { optional: true, ..self }
    }
}

/// An op as a row of the table of ops. From it come, with no code of the op's own: the gradient, precision and contract
/// exams, a benchmark row, the `op` verb, a line of `op list`, and the book's table.
pub struct Entry {
    /// Name, as in torch.nn.functional or torch where the op exists there.
    pub name: &'static str,
    /// The formula in one line of plain text.
    pub doc: &'static str,
    /// Inputs in order.
    pub inputs: &'static [Port],
    /// Outputs in order; a single one is called `output`.
    pub outputs: &'static [&'static str],
    /// Attributes.
    pub attrs: &'static [AttrDoc],
    /// The op with the given attributes.
    pub build: fn(&Attrs) -> Result<Arc<dyn Op>>,
    /// Kernels that the op launches.
    pub kernels: &'static [&'static Kernel],
    /// Example calls: small ones for the exams (each kink, edge and shape that matters), large ones for the benchmark.
    pub samples: fn() -> Vec<Sample>,
}

impl Entry {
    /// The port of input `i`.
    pub fn port(&self, i: usize) -> Option<&'static Port> {
        self.inputs.get(i).or_else(|| self.inputs.last().filter(|p| p.variadic))
    }
    /// The name of input `i`: that of its port, numbered when the port stands for several.
    pub fn input_name(&self, i: usize) -> String {
        match self.port(i) {
            Some(p) if p.variadic => format!("{}.{}", p.name, i + 1 - self.inputs.len()),
            Some(p) => p.name.into(),
            None => format!("input {i}"),
        }
    }
    /// The op with attributes given as text.
    pub fn build_with<N: AsRef<str>, V: AsRef<str>>(&self, attrs: &[(N, V)]) -> Result<Arc<dyn Op>> {
        (self.build)(&Attrs::new(self.name, self.attrs, attrs)?)
    }
}
