//! Reverse-mode differentiation on a Wengert list (R. E. Wengert, "A simple automatic derivative evaluation program",
//! CACM 7(8), 1964): every operation appends one node, so the order of the list is a topological order, and the backward
//! pass is a walk from its end. There is no graph of pointers, no recursion, and dropping a tape is dropping a `Vec`.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Tape`], [`Var`]: recording |
//! | `op.rs` | [`Op`] and the context it runs in |
//! | `adjoint.rs` | [`Adjoint`]: a gradient while it is summed |
//! | `backward.rs` | the reverse sweep, activation checkpointing |
//! | `params.rs` | [`Params`]: weights, flat |
//! | `cut.rs` | [`Cut`]: pieces of arrays, where ranks share a model |
//! | `grads.rs` | [`Grads`]: gradients in the same layout |
//! | `explain.rs` | why is this gradient missing or zero? the graph as DOT |
//!
//! Second derivatives: there is no Hessian-vector product. Backward kernels run on tensors, not on a tape, so they are not
//! themselves differentiable; `(∇f(x + εv) − ∇f(x − εv)) / 2ε` from two gradients in f64 is the way here.

mod adjoint;
mod backward;
mod cut;
mod explain;
mod grads;
mod op;
mod params;

pub use adjoint::Adjoint;
pub use backward::{Done, Leaves};
pub use cut::Cut;
pub use explain::Explanation;
pub use grads::Grads;
pub use op::{Cx, Op};
pub use params::{Init, Params, ParamsBuilder, Role, SegmentInfo, Slot, SlotInfo};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::gemm::Precision;
use crate::rng::Key;
use crate::shape::{DType, Shape, Spec};
use crate::tensor::{SmallList, Tensor};
use backward::Replay;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Index of a value on a tape.
type VarId = u32;

/// Marks a slot that was read by a tape that does not record.
const UNRECORDED: VarId = VarId::MAX;

/// What made the outputs of a node.
enum Step {
    /// A slot of the parameters.
    Param(Slot),
    /// A value given by the user that wants a gradient.
    Leaf,
    /// An operation.
    Op(Arc<dyn Op>),
    /// A function whose inside is recomputed during backward.
    Replay(Arc<Replay>),
    /// Gradients stop here on purpose; kept only for [`Tape::explain`].
    Detach,
}

// ANCHOR: node
struct Node {
    step: Step,
    inputs: SmallVec<[Option<VarId>; 4]>,
    /// Specs of all inputs, kept where some are constants: an op's backward may ask for the extents of any.
    constants: Option<Box<[Spec]>>,
    kept: SmallList<Tensor>,
    first: VarId,
    outputs: u32,
}
// ANCHOR_END: node

/// What a run of the model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Dropout drops, state is updated.
    Train,
    /// Pure evaluation.
    Eval,
    /// Recomputing a checkpointed part: as Train, but state was updated already.
    Replay,
}

/// What becomes of a change of state when the parts of a batch, seen apart, ask for different values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The mean, by samples.
    Mean,
    /// The largest.
    Largest,
}

/// A change of a state slot, to be made after the step.
#[derive(Clone, Debug)]
pub struct Change {
    /// The slot.
    pub slot: Slot,
    /// What it is to hold.
    pub value: Tensor,
    /// How it agrees with what other parts of the batch ask for.
    pub merge: Merge,
}

/// A recording of operations on the values of one device, and the parameters that they read.
pub struct Tape {
    nodes: RefCell<Vec<Node>>,
    specs: RefCell<Vec<Spec>>, // by VarId
    slots: RefCell<Vec<Option<VarId>>>,
    params: Params,
    record: bool,
    mode: Mode,
    key: Key,
    calls: Cell<u64>,
    swept: Cell<bool>,
    check_finite: bool,
    precision: Precision,
    deferred: RefCell<Vec<Change>>,
}

/// A value on a tape. `clone` is O(1). Without an id it is a constant: no gradient flows to it.
#[derive(Clone)]
pub struct Var<'t> {
    tape: &'t Tape,
    id: Option<VarId>,
    value: Tensor,
}

impl Tape {
    fn with(params: &Params, record: bool, mode: Mode, key: Key) -> Tape {
        Tape {
            nodes: RefCell::default(),
            specs: RefCell::default(),
            slots: RefCell::new(vec![None; params.slots().len()]),
            params: params.clone(),
            record,
            mode,
            key,
            calls: Cell::new(0),
            swept: Cell::new(false),
            check_finite: false,
            precision: Precision::F32,
            deferred: RefCell::default(),
        }
    }

    /// A tape that records, for training step `step` of the run seeded with `seed` (both key the random numbers of dropout).
    pub fn train(params: &Params, seed: u64, step: u64) -> Tape {
        Tape::with(params, true, Mode::Train, Key::new(seed, step << 20))
    }

    /// A tape that records, in evaluation mode: gradients without dropout or state changes.
    pub fn new(params: &Params) -> Tape {
        Tape::with(params, true, Mode::Eval, Key::new(0, 0))
    }

    /// A tape that records nothing and keeps nothing: for evaluation and generation.
    pub fn eval(params: &Params) -> Tape {
        Tape::with(params, false, Mode::Eval, Key::new(0, 0))
    }

    /// Makes every op check its outputs: the first NaN or infinity is an error that names the op.
    pub fn check_finite(mut self) -> Tape {
        self.check_finite = true;
        self
    }

    /// Makes matrix products, forward and backward, round their operands: see [`Precision`].
    pub fn with_precision(mut self, precision: Precision) -> Tape {
        self.precision = precision;
        self
    }

    /// True while training: dropout drops.
    pub fn is_training(&self) -> bool {
        self.mode != Mode::Eval
    }

    /// The parameters that this tape reads.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Device of the parameters.
    pub fn device(&self) -> &Device {
        self.params.device()
    }
    /// Number of nodes recorded so far.
    pub fn len(&self) -> usize {
        self.nodes.borrow().len()
    }
    /// True when nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A key for the random numbers of one call: the same at the same place of a recomputed forward pass.
    pub fn next_key(&self) -> Key {
        let call = self.calls.get();
        self.calls.set(call + 1);
        Key::new(self.key.seed, self.key.stream + call)
    }

    /// Leaves out `n` keys, which another tape has: that of an earlier stage of a pipeline.
    pub fn skip_keys(&self, n: u64) {
        self.calls.set(self.calls.get() + n);
    }

    /// A value without gradient.
    pub fn constant(&self, value: Tensor) -> Var<'_> {
        Var { tape: self, id: None, value }
    }

    /// A value whose gradient [`Tape::backward`] returns.
    pub fn leaf(&self, value: Tensor) -> Result<Var<'_>> {
        if !value.dtype().is_real() {
            let what = format!("{} carries no gradient; use constant()", value.spec());
            return Err(Error::dtype("leaf", what));
        }
        let id =
            self.record.then(|| self.push(Step::Leaf, SmallVec::new(), SmallList::new(), &[value.spec()]));
        Ok(Var { tape: self, id, value })
    }

    /// The parameter in `slot`. Every call gives the same variable, so uses add up in one gradient.
    pub fn param(&self, slot: Slot) -> Var<'_> {
        let value = self.params.get(slot);
        let trained = self.params.info(slot).role != Role::State;
        if !self.record {
            self.slots.borrow_mut()[slot.index()] = trained.then_some(UNRECORDED);
            return self.constant(value);
        }
        let known = self.slots.borrow()[slot.index()];
        let id = trained.then(|| {
            known.unwrap_or_else(|| {
                self.push(Step::Param(slot), SmallVec::new(), SmallList::new(), &[value.spec()])
            })
        });
        self.slots.borrow_mut()[slot.index()] = id;
        Var { tape: self, id, value }
    }

    /// Asks for a state slot to take `value` after the step, merged as `merge` says with what is asked for elsewhere: see [`Tape::into_deferred`]. Evaluation and recomputation
    /// ask for nothing, so they stay pure.
    pub fn defer(&self, slot: Slot, value: Tensor, merge: Merge) {
        if self.mode == Mode::Train {
            self.deferred.borrow_mut().push(Change { slot, value, merge });
        }
    }

    /// True when [`Tape::defer`] will be heard: what only it needs may be left out otherwise.
    pub fn updates(&self) -> bool {
        self.mode == Mode::Train
    }

    /// Ends the tape and hands out the state changes that were deferred, in order.
    pub fn into_deferred(self) -> Vec<Change> {
        self.deferred.into_inner()
    }

    /// Runs `op` on `inputs` and records it. Errors of shape and type come from the op's `infer`, before memory is taken.
    pub fn apply<'t>(&'t self, op: impl Op + 'static, inputs: &[&Var<'t>]) -> Result<SmallList<Var<'t>>> {
        self.apply_arc(Arc::new(op), inputs)
    }

    /// [`Tape::apply`] for an op with exactly one output.
    pub fn apply1<'t>(&'t self, op: impl Op + 'static, inputs: &[&Var<'t>]) -> Result<Var<'t>> {
        Ok(self.apply(op, inputs)?.remove(0))
    }

    /// [`Tape::apply`] for an op that is shared already.
    pub fn apply_arc<'t>(&'t self, op: Arc<dyn Op>, inputs: &[&Var<'t>]) -> Result<SmallList<Var<'t>>> {
        let specs: SmallVec<[Spec; 4]> = inputs.iter().map(|v| v.value.spec()).collect();
        let want = op.infer(&specs)?;
        inputs.iter().try_for_each(|v| self.expect_own(op.name(), v))?;
        let record = self.record && inputs.iter().any(|v| v.id.is_some());
        let mut kept = SmallList::new();
        let x: SmallVec<[&Tensor; 4]> = inputs.iter().map(|v| &v.value).collect();
        let cx = Cx::forward(self.device(), record.then_some(&mut kept));
        let y = op.forward(&mut cx.with_precision(self.precision), &x)?;
        if y.len() != want.len() || y.iter().zip(&want).any(|(t, s)| t.spec() != *s) {
            let what = format!(
                "forward made {:?}, but infer promised {want:?}",
                y.iter().map(|t| t.spec()).collect::<Vec<_>>()
            );
            return Err(Error::shape(op.name(), what));
        }
        if self.check_finite {
            self.assert_finite(op.name(), &y)?;
        }
        if !record {
            return Ok(y.into_iter().map(|value| self.constant(value)).collect());
        }
        let ids = inputs.iter().map(|v| v.id).collect();
        let first = self.push(Step::Op(op), ids, kept, &want);
        if inputs.iter().any(|v| v.id.is_none())
            && let Some(node) = self.nodes.borrow_mut().last_mut()
        {
            node.constants = Some(specs.as_slice().into());
        }
        Ok(y.into_iter().enumerate().map(|(i, value)| self.output(first + i as u32, value)).collect())
    }

    /// Error when `v` lies on another tape: its number would mean another value here.
    fn expect_own(&self, op: &str, v: &Var<'_>) -> Result<()> {
        if v.id.is_none() || std::ptr::eq(v.tape, self) {
            return Ok(());
        }
        let what = format!("{op}: a value {} lies on another tape; detach() it there first", v.value.spec());
        Err(Error::Usage(what))
    }

    /// A variable for output `id`; integer outputs (indices) carry no gradient.
    fn output(&self, id: VarId, value: Tensor) -> Var<'_> {
        Var { tape: self, id: value.dtype().is_real().then_some(id), value }
    }

    fn push(
        &self,
        step: Step,
        inputs: SmallVec<[Option<VarId>; 4]>,
        kept: SmallList<Tensor>,
        outputs: &[Spec],
    ) -> VarId {
        let mut specs = self.specs.borrow_mut();
        let first = specs.len() as VarId;
        specs.extend_from_slice(outputs);
        self.nodes.borrow_mut().push(Node {
            step,
            inputs,
            constants: None,
            kept,
            first,
            outputs: outputs.len() as u32,
        });
        first
    }

    fn assert_finite(&self, op: &str, y: &[Tensor]) -> Result<()> {
        for t in y.iter().filter(|t| t.dtype().is_real()) {
            let t = t.to_host()?;
            let bad = match t.dtype() {
                DType::F32 => t.as_slice::<f32>()?.iter().position(|x| !x.is_finite()),
                _ => t.as_slice::<f64>()?.iter().position(|x| !x.is_finite()),
            };
            if let Some(i) = bad {
                let value = t.to_f64()?[i];
                let node = self.len();
                let what =
                    format!("op `{op}` (node {node}) made {value} at element {i} of its output {}", t.spec());
                return Err(Error::Numeric { step: self.key.stream >> 20, what });
            }
        }
        Ok(())
    }
}

impl<'t> Var<'t> {
    /// The tensor.
    pub fn value(&self) -> &Tensor {
        &self.value
    }
    /// The tensor, without its place on the tape.
    pub fn into_value(self) -> Tensor {
        self.value
    }
    /// Shape.
    pub fn shape(&self) -> Shape {
        self.value.shape()
    }
    /// Extents.
    pub fn dims(&self) -> &[usize] {
        self.value.dims()
    }
    /// The tape that this value is on.
    pub fn tape(&self) -> &'t Tape {
        self.tape
    }
    /// True when a gradient can flow to this value.
    pub fn has_gradient(&self) -> bool {
        self.id.is_some()
    }
    /// The same value, to which no gradient flows.
    pub fn detach(&self) -> Var<'t> {
        if self.id.is_some() {
            self.tape.push(Step::Detach, smallvec::smallvec![self.id], SmallList::new(), &[]);
        }
        Var { tape: self.tape, id: None, value: self.value.clone() }
    }
}

impl std::fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Var({}{})", self.value.spec(), if self.id.is_some() { "" } else { ", constant" })
    }
}
