//! [`Memory`]: numbers that a codec keeps for each parameter from step to step.

use super::Param;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Numbers of one kind (`error`, say), by the parameter's name: how parameters are put into buckets may change.
pub struct Memory {
    kind: &'static str,
    all: BTreeMap<String, Vec<f32>>,
}

impl Memory {
    /// Nothing yet.
    pub fn new(kind: &'static str) -> Memory {
        Memory { kind, all: BTreeMap::new() }
    }

    /// As many numbers as `param` has elements; zeros at first.
    pub fn of(&mut self, param: &Param) -> &mut [f32] {
        self.or_else(param, || vec![0.0; param.range().len()])
    }

    /// What is kept for `param`, or `first` where nothing is yet.
    pub fn or_else(&mut self, param: &Param, first: impl FnOnce() -> Vec<f32>) -> &mut [f32] {
        // No copy of the name where it is known: this is in every step.
        if !self.all.contains_key(&param.name) {
            self.all.insert(param.name.clone(), first());
        }
        self.all.get_mut(&param.name).expect("it was put there")
    }

    /// What is kept for `param`, if anything is.
    pub fn get(&mut self, param: &Param) -> Option<&mut [f32]> {
        self.all.get_mut(&param.name).map(|x| &mut x[..])
    }

    /// All of it, as `kind/parameter`.
    pub fn state(&self) -> impl Iterator<Item = (String, Vec<f32>)> + '_ {
        self.all.iter().map(|(name, x)| (format!("{}/{name}", self.kind), x.clone()))
    }
}

/// What a memory has of a parameter.
pub(super) type Extent<'a> = &'a dyn Fn(&Param) -> usize;

/// Puts `state` back into memories, each of which has as many numbers of a parameter as its function says.
///
/// # Errors
/// A name or length that fits none of them.
pub(super) fn restore(
    memories: &mut [(&mut Memory, Extent<'_>)],
    params: &[Param],
    state: Vec<(String, Vec<f32>)>,
) -> Result<()> {
    memories.iter_mut().for_each(|(memory, _)| memory.all.clear());
    for (name, values) in state {
        let (kind, rest) = name.split_once('/').unwrap_or((&name, ""));
        let param = params.iter().find(|p| p.name == rest);
        let memory = memories.iter_mut().find(|(m, _)| m.kind == kind);
        let (Some(param), Some((memory, len))) = (param, memory) else {
            return Err(unfit(format!("has `{name}`, which this codec does not keep")));
        };
        if len(param) != values.len() {
            return Err(unfit(format!("has {} numbers of `{name}`, not {}", values.len(), len(param))));
        }
        memory.all.insert(rest.into(), values);
    }
    Ok(())
}

fn unfit(what: String) -> Error {
    let what = format!(
        "the snapshot {what}; set the attributes of the codec back, or codec.reset = true to begin without what it kept"
    );
    Error::config("codec.reset", what)
}
