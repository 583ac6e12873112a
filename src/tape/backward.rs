//! The reverse sweep. For every node from the last to the first: take the gradients of its outputs, let the op add to the
//! gradients of its inputs, drop what the node kept.

use super::{Adjoint, Cx, Grads, Mode, Node, Slot, Step, Tape, Var, VarId};
use crate::error::{Error, Result};
use crate::shape::Spec;
use crate::tensor::{SmallList, Tensor};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// The body of a checkpointed part.
type Body = dyn for<'a> Fn(&'a Tape, &[Var<'a>]) -> Result<SmallList<Var<'a>>> + Send + Sync;

/// A part of the computation whose inside is recomputed during backward.
pub(super) struct Replay {
    body: Box<Body>,
    calls: u64,
}

/// Gradients of the leaves that a backward pass reached.
#[derive(Debug, Default)]
pub struct Leaves(HashMap<VarId, Tensor>);

impl Leaves {
    /// The gradient of `leaf`; None when none reached it (then [`Tape::explain`] says why).
    pub fn get(&self, leaf: &Var<'_>) -> Option<&Tensor> {
        self.0.get(&leaf.id?)
    }
}

/// What the sweep does besides summing: nothing, or note the size of each adjoint for the explainer.
pub(super) type Watch<'a> = Option<&'a mut dyn FnMut(VarId, Option<&Tensor>)>;

impl Tape {
    /// Gradients of the scalar `loss`: those of parameters into `grads`, those of leaves into the result. What nodes kept
    /// is released on the way, so a second call is an error.
    pub fn backward(&self, loss: &Var<'_>, grads: &mut Grads) -> Result<Leaves> {
        if loss.value.len() != 1 {
            let what = format!(
                "starts from a scalar, but the loss has shape {}; reduce it with sum() or mean()",
                loss.shape()
            );
            return Err(Error::shape("backward", what));
        }
        let one = Tensor::full(self.device(), loss.value.spec(), 1.0)?;
        self.backward_from(&[(loss, one)], grads)
    }

    /// Gradients of Σ ⟨seed, output⟩ over the given outputs.
    pub fn backward_from(&self, outputs: &[(&Var<'_>, Tensor)], grads: &mut Grads) -> Result<Leaves> {
        let mut seeds: Vec<Option<Tensor>> = Vec::new();
        for (v, seed) in outputs {
            let what =
                "has no gradient: it is a constant, was made by Tape::eval, or every path to it was detached";
            let id = v.id.ok_or_else(|| Error::LostGradient {
                op: "backward".into(),
                what: format!("the output {what}"),
            })?;
            if seed.spec() != v.value.spec() {
                return Err(Error::shape(
                    "backward",
                    format!("seed {} for an output {}", seed.spec(), v.value.spec()),
                ));
            }
            seeds.resize(seeds.len().max(id as usize + 1), None);
            seeds[id as usize] = Some(seed.clone());
        }
        grads.begin()?;
        let swept = self.sweep(seeds, grads, HashMap::new(), &mut None);
        let ended = grads.end();
        swept.and_then(|leaves| ended.map(|()| leaves))
    }

    /// Walks the list backwards. `given` holds adjoints of leaves that already have a sum (a replayed part's inputs).
    pub(super) fn sweep(
        &self,
        mut seeds: Vec<Option<Tensor>>,
        grads: &mut Grads,
        given: HashMap<VarId, Tensor>,
        watch: &mut Watch<'_>,
    ) -> Result<Leaves> {
        let specs = self.specs.borrow().clone();
        seeds.resize(specs.len(), None);
        // Parameters are summed in their slots of the flat gradients from the first contribution on.
        let mut adjoints: Vec<Adjoint> = specs.iter().map(|&s| Adjoint::empty(s)).collect();
        let mut reached: Vec<bool> = vec![false; specs.len()];
        for (id, sum) in given {
            adjoints[id as usize] = Adjoint::in_slot(sum, true);
            reached[id as usize] = true;
        }
        for (i, id) in self.slots.borrow().iter().enumerate() {
            let Some(id) = id else { continue };
            let slot = self.params.all().nth(i).expect("slots are counted by params");
            if let Some((t, keep)) = grads.take(slot) {
                adjoints[*id as usize] = Adjoint::in_slot(t, keep);
            }
        }
        for (i, seed) in seeds.into_iter().enumerate() {
            if let Some(seed) = seed {
                adjoints[i].add(&Cx::new(self.device()), seed)?;
                reached[i] = true;
            }
        }
        let mut s = Sweep { tape: self, specs, adjoints, reached, leaves: Leaves::default(), grads };
        let result = s.run(watch);
        s.hand_back()?;
        result.map(|()| s.leaves)
    }

    /// Runs `body` on `inputs` without recording its inside; backward runs it again. Memory for the inside is held only
    /// while its own backward runs. The gradients have the same bits as without checkpointing: random numbers are keyed
    /// by position, and the recomputed part goes on adding to the sums that exist.
    pub fn checkpoint<'t, F>(&'t self, inputs: &[&Var<'t>], body: F) -> Result<SmallList<Var<'t>>>
    where
        F: for<'a> Fn(&'a Tape, &[Var<'a>]) -> Result<SmallList<Var<'a>>> + Send + Sync + 'static,
    {
        let calls = self.calls.get();
        let mut inner = Tape::with(&self.params, false, self.mode, self.key);
        inner.check_finite = self.check_finite;
        inner.calls.set(calls);
        let vars: SmallVec<[Var<'_>; 4]> = inputs.iter().map(|v| inner.constant(v.value.clone())).collect();
        let values: SmallList<Tensor> = body(&inner, &vars)?.into_iter().map(Var::into_value).collect();
        drop(vars);
        self.calls.set(inner.calls.get());
        self.deferred.borrow_mut().append(&mut inner.into_deferred());
        if !self.record {
            return Ok(values.into_iter().map(|v| self.constant(v)).collect());
        }
        let specs: SmallList<Spec> = values.iter().map(Tensor::spec).collect();
        let step = Step::Replay(Arc::new(Replay { body: Box::new(body), calls }));
        let kept = inputs.iter().map(|v| v.value.clone()).collect();
        let first = self.push(step, inputs.iter().map(|v| v.id).collect(), kept, &specs);
        Ok(values.into_iter().enumerate().map(|(i, v)| self.output(first + i as u32, v)).collect())
    }
}

struct Sweep<'a> {
    tape: &'a Tape,
    specs: Vec<Spec>,
    adjoints: Vec<Adjoint>,
    reached: Vec<bool>,
    leaves: Leaves,
    grads: &'a mut Grads,
}

impl Sweep<'_> {
    fn take(&mut self, id: VarId) -> Adjoint {
        let i = id as usize;
        std::mem::replace(&mut self.adjoints[i], Adjoint::unwanted(self.specs[i]))
    }

    fn run(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        for n in (0..self.tape.len()).rev() {
            // What the node kept is moved out, so it is dropped as soon as the node is done.
            let (step, inputs, constants, kept, first, outputs) = {
                let node: &mut Node = &mut self.tape.nodes.borrow_mut()[n];
                let step = match &node.step {
                    Step::Op(op) => Step::Op(op.clone()),
                    Step::Replay(r) => Step::Replay(r.clone()),
                    Step::Param(s) => Step::Param(*s),
                    Step::Leaf => Step::Leaf,
                    Step::Detach => continue,
                };
                (
                    step,
                    node.inputs.clone(),
                    node.constants.take(),
                    std::mem::take(&mut node.kept),
                    node.first,
                    node.outputs,
                )
            };
            if let Some(watch) = watch {
                (first..first + outputs).for_each(|id| watch(id, self.adjoints[id as usize].sum()));
            }
            let live = (first..first + outputs).any(|id| self.reached[id as usize]);
            match step {
                Step::Param(slot) => self.finish_param(slot, first)?,
                Step::Leaf if live => {
                    if let Some(t) = self.take(first).into_sum()? {
                        self.leaves.0.insert(first, t);
                    }
                }
                Step::Op(op) if live => {
                    let dy = self.outputs(first, outputs)?;
                    let mut dx = self.inputs(&inputs, constants.as_deref().unwrap_or_default());
                    op.backward(&mut Cx::new(self.tape.device()), &kept, &dy, &mut dx)?;
                    self.put_inputs(op.name(), &inputs, dx)?;
                }
                Step::Replay(r) if live => {
                    let dy = self.outputs(first, outputs)?;
                    self.replay(&r, &inputs, &kept, dy)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The gradients of a node's outputs.
    fn outputs(&mut self, first: VarId, n: u32) -> Result<SmallList<Option<Tensor>>> {
        (first..first + n).map(|id| self.take(id).into_sum()).collect()
    }

    /// The adjoints of a node's inputs; a value used twice gets a second, empty one, merged afterwards.
    fn inputs(&mut self, inputs: &[Option<VarId>], specs: &[Spec]) -> SmallVec<[Adjoint; 4]> {
        let mut dx = SmallVec::new();
        for (i, id) in inputs.iter().enumerate() {
            dx.push(match id {
                None => Adjoint::unwanted(specs[i]),
                Some(id) if inputs[..i].contains(&Some(*id)) => Adjoint::empty(self.specs[*id as usize]),
                Some(id) => self.take(*id),
            });
        }
        dx
    }

    fn put_inputs(&mut self, op: &str, inputs: &[Option<VarId>], dx: SmallVec<[Adjoint; 4]>) -> Result<()> {
        let cx = Cx::new(self.tape.device());
        let mut lost = None;
        for (i, (id, mut d)) in inputs.iter().zip(dx).enumerate() {
            let Some(id) = id else { continue };
            if !d.take_touched() {
                lost = Some(i);
            }
            self.reached[*id as usize] |= d.sum().is_some();
            if inputs[..i].contains(&Some(*id)) {
                if let Some(t) = d.into_sum()? {
                    self.adjoints[*id as usize].add(&cx, t)?;
                }
            } else {
                self.adjoints[*id as usize] = d;
            }
        }
        match lost {
            None => Ok(()),
            Some(i) => Err(Error::LostGradient {
                op: op.into(),
                what: format!("gave no gradient to its input {i}, which wants one"),
            }),
        }
    }

    /// Runs the part again on a tape of its own and sweeps that, going on with the sums that exist here.
    fn replay(
        &mut self,
        r: &Replay,
        inputs: &[Option<VarId>],
        kept: &[Tensor],
        dy: SmallList<Option<Tensor>>,
    ) -> Result<()> {
        let outer = self.tape;
        let mode = if outer.mode == Mode::Train { Mode::Replay } else { outer.mode };
        let inner = Tape::with(&outer.params, true, mode, outer.key);
        inner.calls.set(r.calls);
        let mut vars: SmallVec<[Var<'_>; 4]> = SmallVec::new();
        let mut given = HashMap::new();
        let mut leaf_of: HashMap<VarId, VarId> = HashMap::new();
        for (id, t) in inputs.iter().zip(kept) {
            let Some(outer_id) = *id else {
                vars.push(inner.constant(t.clone()));
                continue;
            };
            // One leaf for each distinct value, so that its uses add up in one sum, in the order of the plain tape.
            if let Some(&leaf) = leaf_of.get(&outer_id) {
                vars.push(Var { tape: &inner, id: Some(leaf), value: t.clone() });
                continue;
            }
            let leaf = inner.leaf(t.clone())?;
            let leaf_id = leaf.id.expect("the inner tape records");
            leaf_of.insert(outer_id, leaf_id);
            if let Some(sum) = self.take(outer_id).into_sum()? {
                given.insert(leaf_id, sum);
            }
            vars.push(leaf);
        }
        let y = (r.body)(&inner, &vars)?;
        let mut seeds = Vec::new();
        for (v, d) in y.iter().zip(dy) {
            let (Some(id), Some(d)) = (v.id, d) else { continue };
            seeds.resize(seeds.len().max(id as usize + 1), None);
            seeds[id as usize] = Some(d);
        }
        // Slots that the part reads are lent to the inner sweep through `grads`, then taken back.
        self.lend_slots(&inner)?;
        let swept = inner.sweep(seeds, self.grads, given, &mut None);
        self.take_back_slots(&inner)?;
        let mut leaves = swept?;
        for (outer_id, leaf_id) in leaf_of {
            self.adjoints[outer_id as usize] = match leaves.0.remove(&leaf_id) {
                Some(sum) => Adjoint::in_slot(sum, true),
                None => Adjoint::empty(self.specs[outer_id as usize]),
            };
            self.reached[outer_id as usize] = self.adjoints[outer_id as usize].sum().is_some();
        }
        Ok(())
    }

    /// The outer variables of the slots that `inner` reads too.
    fn shared(&self, inner: &Tape) -> Vec<(Slot, VarId)> {
        let (mine, theirs) = (self.tape.slots.borrow(), inner.slots.borrow());
        let both = self.tape.params.all().zip(mine.iter().zip(theirs.iter()));
        both.filter_map(|(slot, (m, t))| t.and(*m).map(|id| (slot, id))).collect()
    }

    fn lend_slots(&mut self, inner: &Tape) -> Result<()> {
        for (slot, id) in self.shared(inner) {
            let d = self.take(id);
            let summed = d.sum().is_some();
            if let Some(t) = d.into_sum()? {
                self.grads.put(slot, t, summed);
            }
        }
        Ok(())
    }

    fn take_back_slots(&mut self, inner: &Tape) -> Result<()> {
        for (slot, id) in self.shared(inner) {
            if let Some((t, keep)) = self.grads.take(slot) {
                self.reached[id as usize] |= keep;
                self.adjoints[id as usize] = Adjoint::in_slot(t, keep);
            }
        }
        Ok(())
    }

    fn finish_param(&mut self, slot: Slot, id: VarId) -> Result<()> {
        let d = self.take(id);
        let touched = d.sum().is_some();
        if let Some(t) = d.into_sum()? {
            self.grads.put(slot, t, touched);
        }
        Ok(())
    }

    /// After an error: slots that are still out go back, so that the gradients stay whole.
    fn hand_back(&mut self) -> Result<()> {
        let ids: Vec<(Slot, VarId)> = {
            let slots = self.tape.slots.borrow();
            self.tape.params.all().zip(slots.iter()).filter_map(|(s, id)| id.map(|id| (s, id))).collect()
        };
        ids.into_iter().try_for_each(|(slot, id)| self.finish_param(slot, id))
    }
}
