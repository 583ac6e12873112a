//! The reverse sweep. For every node from the last to the first: take the gradients of its outputs, let the op add to the
//! gradients of its inputs, drop what the node kept.

use super::{Adjoint, Cx, Grads, Mode, Node, Role, Slot, Step, Tape, UNRECORDED, Var, VarId};
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
    /// Trained slots that the body reads, nested parts included.
    reads: Vec<Slot>,
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

/// Told of each trained slot as soon as its gradient is complete, with that gradient; None stands for zero.
pub type Done<'a> = dyn FnMut(Slot, Option<&Tensor>) -> Result<()> + 'a;

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
        self.backward_telling(outputs, grads, None)
    }

    /// [`Tape::backward_from`], which tells `done` of every trained slot once, while the sweep goes on: after the first
    /// use of the slot in the forward pass, or before the sweep where there is none. The order is that of the tape, so it
    /// is the same for the same model. An error of `done` ends the sweep.
    pub fn backward_telling(
        &self,
        outputs: &[(&Var<'_>, Tensor)],
        grads: &mut Grads,
        mut done: Option<&mut Done<'_>>,
    ) -> Result<Leaves> {
        let mut seeds = Vec::new();
        for (v, seed) in outputs {
            self.expect_own("backward", v)?;
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
            seeds.push((id, seed.clone()));
        }
        grads.begin(&self.params)?;
        let swept = self.sweep(seeds, grads, &mut [], (&mut None, &mut done));
        let ended = grads.end();
        swept.and_then(|leaves| ended.map(|()| leaves))
    }

    /// Walks the list backwards, once. `lent` holds the adjoints of a replayed part's inputs, which go on here and come back.
    pub(super) fn sweep(
        &self,
        seeds: Vec<(VarId, Tensor)>,
        grads: &mut Grads,
        lent: &mut [Lent],
        (watch, done): (&mut Watch<'_>, &mut Option<&mut Done<'_>>),
    ) -> Result<Leaves> {
        if self.swept.replace(true) {
            let what = "backward: this tape was swept before, and what its nodes kept is released; record again, or start \
                        from several outputs at once with backward_from";
            return Err(Error::Usage(what.into()));
        }
        let specs = self.specs.borrow().clone();
        let mut adjoints: Vec<Adjoint> = specs.iter().map(|&s| Adjoint::empty(s)).collect();
        let mut reached: Vec<bool> = vec![false; specs.len()];
        for l in lent.iter_mut() {
            let spec = l.adjoint.spec();
            adjoints[l.leaf as usize] = std::mem::replace(&mut l.adjoint, Adjoint::unwanted(spec));
            reached[l.leaf as usize] = l.reached;
        }
        let mut slots = vec![None; specs.len()];
        for (slot, id) in self.params.all().zip(self.slots.borrow().iter()) {
            id.iter().for_each(|&id| slots[id as usize] = Some(slot));
        }
        let mut s = Sweep { tape: self, specs, slots, adjoints, reached, leaves: Leaves::default(), grads };
        let result = s.seed(seeds).and_then(|()| s.run(lent, watch, done));
        for l in lent.iter_mut() {
            (l.adjoint, l.reached) = (s.take(l.leaf), s.reached[l.leaf as usize]);
        }
        result.map(|()| s.leaves)
    }

    /// Runs `body` on `inputs` without recording its inside; backward runs it again. Memory for the inside is held only
    /// while its own backward runs. The gradients have the same bits as without checkpointing: random numbers are keyed
    /// by position, and the recomputed part goes on adding to the sums that exist.
    pub fn checkpoint<'t, F>(&'t self, inputs: &[&Var<'t>], body: F) -> Result<SmallList<Var<'t>>>
    where
        F: for<'a> Fn(&'a Tape, &[Var<'a>]) -> Result<SmallList<Var<'a>>> + Send + Sync + 'static,
    {
        inputs.iter().try_for_each(|v| self.expect_own("checkpoint", v))?;
        let calls = self.calls.get();
        let mut inner = Tape::with(&self.params, false, self.mode, self.key);
        (inner.check_finite, inner.precision) = (self.check_finite, self.precision);
        inner.calls.set(calls);
        let vars: SmallVec<[Var<'_>; 4]> = inputs.iter().map(|v| inner.constant(v.value.clone())).collect();
        let values: SmallList<Tensor> = body(&inner, &vars)?.into_iter().map(Var::into_value).collect();
        drop(vars);
        let reads: Vec<Slot> =
            self.params.all().filter(|s| inner.slots.borrow()[s.index()].is_some()).collect();
        self.calls.set(inner.calls.get());
        self.deferred.borrow_mut().append(&mut inner.into_deferred());
        if !self.record {
            reads.iter().for_each(|s| self.slots.borrow_mut()[s.index()] = Some(UNRECORDED));
            return Ok(values.into_iter().map(|v| self.constant(v)).collect());
        }
        let specs: SmallList<Spec> = values.iter().map(Tensor::spec).collect();
        let step = Step::Replay(Arc::new(Replay { body: Box::new(body), calls, reads }));
        let kept = inputs.iter().map(|v| v.value.clone()).collect();
        let first = self.push(step, inputs.iter().map(|v| v.id).collect(), kept, &specs);
        Ok(values.into_iter().enumerate().map(|(i, v)| self.output(first + i as u32, v)).collect())
    }
}

/// The adjoint of an outer value, lent to the leaf that stands for it on the tape of a replayed part.
pub(super) struct Lent {
    leaf: VarId,
    adjoint: Adjoint,
    reached: bool,
}

struct Sweep<'a> {
    tape: &'a Tape,
    specs: Vec<Spec>,
    /// The slot of each value that is a parameter: its sum lies in the flat gradients, on this tape and on those of
    /// replayed parts, from the first contribution on. It is out of them only while one op adds to it.
    slots: Vec<Option<Slot>>,
    adjoints: Vec<Adjoint>,
    reached: Vec<bool>,
    leaves: Leaves,
    grads: &'a mut Grads,
}

impl Sweep<'_> {
    fn take(&mut self, id: VarId) -> Adjoint {
        let i = id as usize;
        match self.slots[i].and_then(|slot| self.grads.take(slot)) {
            Some((t, keep)) => Adjoint::in_slot(t, keep),
            None => std::mem::replace(&mut self.adjoints[i], Adjoint::unwanted(self.specs[i])),
        }
    }

    fn put(&mut self, id: VarId, d: Adjoint) {
        let i = id as usize;
        self.reached[i] |= d.wrote();
        match self.slots[i] {
            Some(slot) => self.grads.put(slot, d),
            None => self.adjoints[i] = d,
        }
    }

    /// Starts the sums; an output that is seeded twice gets both.
    fn seed(&mut self, seeds: Vec<(VarId, Tensor)>) -> Result<()> {
        let cx = Cx::new(self.tape.device());
        for (id, seed) in seeds {
            let mut d = self.take(id);
            let added = d.add(&cx, seed);
            self.put(id, d);
            added?;
        }
        Ok(())
    }

    fn run(&mut self, lent: &[Lent], watch: &mut Watch<'_>, done: &mut Option<&mut Done<'_>>) -> Result<()> {
        let mut ends = if done.is_some() { self.ends() } else { vec![] };
        for n in (0..=self.tape.len()).rev() {
            if n < self.tape.len() {
                self.node(n, lent, watch)?;
            }
            while let Some((_, slot)) = ends.pop_if(|(last, _)| *last == n) {
                done.as_mut().map_or(Ok(()), |done| done(slot, self.grads.complete(slot)))?;
            }
        }
        Ok(())
    }

    /// Each trained slot with the node after which nothing more is added to its gradient: the first one that reads it; the
    /// length of the tape where none does. In the order of nodes.
    fn ends(&self) -> Vec<(usize, Slot)> {
        let tape = self.tape;
        let trained = tape.params.all().filter(|&s| tape.params.info(s).role != Role::State);
        let mut first: Vec<Option<usize>> = vec![None; tape.params.slots().len()];
        for (n, node) in tape.nodes.borrow().iter().enumerate() {
            let reads = match &node.step {
                Step::Param(slot) => std::slice::from_ref(slot),
                Step::Replay(r) => &r.reads[..],
                _ => continue,
            };
            reads.iter().for_each(|s| {
                first[s.index()].get_or_insert(n);
            });
        }
        let mut ends: Vec<(usize, Slot)> =
            trained.map(|s| (first[s.index()].unwrap_or(tape.len()), s)).collect();
        ends.sort_by_key(|(n, _)| *n); // stable: slots of one node stay in their order
        ends
    }

    fn node(&mut self, n: usize, lent: &[Lent], watch: &mut Watch<'_>) -> Result<()> {
        // What the node kept is moved out, so it is dropped as soon as the node is done.
        let (step, inputs, constants, kept, first, outputs) = {
            let node: &mut Node = &mut self.tape.nodes.borrow_mut()[n];
            let step = match &node.step {
                Step::Op(op) => Step::Op(op.clone()),
                Step::Replay(r) => Step::Replay(r.clone()),
                Step::Param(slot) => Step::Param(*slot),
                Step::Leaf => Step::Leaf,
                Step::Detach => return Ok(()),
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
            let of = |id: VarId| match self.slots[id as usize] {
                Some(slot) => self.grads.sum(slot),
                None => self.adjoints[id as usize].sum(),
            };
            (first..first + outputs).for_each(|id| watch(id, of(id)));
        }
        let live = (first..first + outputs).any(|id| self.reached[id as usize]);
        match step {
            Step::Leaf if live && lent.iter().all(|l| l.leaf != first) => {
                if let Some(t) = self.take(first).into_sum()? {
                    self.leaves.0.insert(first, t);
                }
            }
            // ANCHOR: sweep
            Step::Op(op) if live => {
                let dy = self.outputs(first, outputs)?;
                let mut dx = self.inputs(&inputs, constants.as_deref().unwrap_or_default());
                let mut cx = Cx::new(self.tape.device()).with_precision(self.tape.precision);
                let done = op.backward(&mut cx, &kept, &dy, &mut dx);
                let put = self.put_inputs(op.name(), &inputs, dx);
                done.and(put)?;
            }
            // ANCHOR_END: sweep
            Step::Replay(r) if live => {
                let dy = self.outputs(first, outputs)?;
                self.replay(&r, &inputs, &kept, dy)?;
            }
            _ => {}
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
            let mut d = match id {
                None => Adjoint::unwanted(specs[i]),
                Some(id) if inputs[..i].contains(&Some(*id)) => Adjoint::empty(self.specs[*id as usize]),
                Some(id) => self.take(*id),
            };
            // What others added before does not count as this op's word.
            d.forget_touch();
            dx.push(d);
        }
        dx
    }

    fn put_inputs(&mut self, op: &str, inputs: &[Option<VarId>], dx: SmallVec<[Adjoint; 4]>) -> Result<()> {
        let cx = Cx::new(self.tape.device());
        let mut lost = None;
        for (i, (id, d)) in inputs.iter().zip(dx).enumerate() {
            let Some(id) = id else { continue };
            if !d.touched() {
                lost = Some(i);
            }
            if !inputs[..i].contains(&Some(*id)) {
                self.put(*id, d);
            } else if let Some(t) = d.into_sum()? {
                let mut sum = self.take(*id);
                let added = sum.add(&cx, t);
                self.put(*id, sum);
                added?;
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
        let inner = Tape::with(&outer.params, true, mode, outer.key).with_precision(outer.precision);
        inner.calls.set(r.calls);
        let mut vars: SmallVec<[Var<'_>; 4]> = SmallVec::new();
        let mut leaf_of: Vec<(VarId, VarId)> = Vec::new();
        for (id, t) in inputs.iter().zip(kept) {
            let Some(outer_id) = *id else {
                vars.push(inner.constant(t.clone()));
                continue;
            };
            if let Some(slot) = self.slots[outer_id as usize] {
                // The parameter itself: the part may read its slot too.
                vars.push(inner.param(slot));
                continue;
            }
            // One leaf for each distinct value, so that its uses add up in one sum, in the order of the plain tape.
            if let Some(&(_, leaf)) = leaf_of.iter().find(|(outer, _)| *outer == outer_id) {
                vars.push(Var { tape: &inner, id: Some(leaf), value: t.clone() });
                continue;
            }
            let leaf = inner.leaf(t.clone())?;
            leaf_of.push((outer_id, leaf.id.expect("the inner tape records")));
            vars.push(leaf);
        }
        let y = (r.body)(&inner, &vars)?;
        let mut seeds = Vec::new();
        for (v, d) in y.iter().zip(dy) {
            if let (Some(id), Some(d)) = (v.id, d) {
                seeds.push((id, d));
            }
        }
        let lend = |&(outer, leaf): &(VarId, VarId)| {
            let reached = self.reached[outer as usize];
            Lent { leaf, adjoint: self.take(outer), reached }
        };
        let mut lent: Vec<Lent> = leaf_of.iter().map(lend).collect();
        let swept = inner.sweep(seeds, self.grads, &mut lent, (&mut None, &mut None));
        for (&(outer, _), l) in leaf_of.iter().zip(lent) {
            (self.adjoints[outer as usize], self.reached[outer as usize]) = (l.adjoint, l.reached);
        }
        swept.map(drop)
    }
}
