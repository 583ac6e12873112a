//! [`Adjoint`]: the gradient of the loss with respect to one value, while its contributions are summed.

use super::Cx;
use crate::error::{Error, Result};
use crate::kernel::Arg;
use crate::kernel::basic::{ADD_INTO, COPY};
use crate::shape::Spec;
use crate::tensor::Tensor;

/// A gradient under summation. Contributions arrive in the reverse order of the uses of the value, always the same, so the
/// sum has the same bits each time.
pub struct Adjoint {
    spec: Spec,
    state: State,
    touched: bool,
    wrote: bool,
}

// ANCHOR: state
enum State {
    /// No gradient is asked for.
    Unwanted,
    /// Zero so far, no memory taken.
    Empty,
    /// Zero so far; memory is reserved (a slot of the flat gradients), its contents mean nothing.
    Reserved(Tensor),
    /// The sum so far.
    Sum(Tensor),
}
// ANCHOR_END: state

impl Adjoint {
    /// An adjoint that nobody asks for.
    pub(super) fn unwanted(spec: Spec) -> Adjoint {
        Adjoint::with(spec, State::Unwanted)
    }
    /// An adjoint that is zero so far.
    pub fn empty(spec: Spec) -> Adjoint {
        Adjoint::with(spec, State::Empty)
    }
    /// An adjoint that will be summed in `slot`: its contents are the sum so far when `keep`, else they mean nothing.
    pub(super) fn in_slot(slot: Tensor, keep: bool) -> Adjoint {
        Adjoint::with(slot.spec(), if keep { State::Sum(slot) } else { State::Reserved(slot) })
    }
    fn with(spec: Spec, state: State) -> Adjoint {
        Adjoint { spec, state, touched: false, wrote: false }
    }
    /// True when a contribution is asked for.
    pub fn wanted(&self) -> bool {
        !matches!(self.state, State::Unwanted)
    }
    /// Spec of the gradient: that of the value.
    pub fn spec(&self) -> Spec {
        self.spec
    }
    /// The sum so far.
    pub fn sum(&self) -> Option<&Tensor> {
        if let State::Sum(t) = &self.state { Some(t) } else { None }
    }
    /// Takes the sum; memory that was reserved and never written comes back zeroed.
    pub(super) fn into_sum(self) -> Result<Option<Tensor>> {
        Ok(match self.state {
            State::Sum(t) => Some(t),
            State::Reserved(mut t) => {
                t.fill_zero()?;
                Some(t)
            }
            _ => None,
        })
    }
    /// The memory, whatever it holds.
    pub(super) fn into_memory(self) -> Option<Tensor> {
        match self.state {
            State::Sum(t) | State::Reserved(t) => Some(t),
            State::Unwanted | State::Empty => None,
        }
    }
    /// Lets [`Adjoint::touched`] and [`Adjoint::wrote`] start anew, for the next op.
    pub(super) fn forget_touch(&mut self) {
        (self.touched, self.wrote) = (false, false);
    }
    /// True when the op said something: a contribution, or that it is zero.
    pub(super) fn touched(&self) -> bool {
        self.touched
    }
    /// True when the op added a contribution.
    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    /// Adds a finished contribution. The first one is taken over without a copy. Does nothing when unwanted.
    pub fn add(&mut self, cx: &Cx<'_>, t: Tensor) -> Result<()> {
        if t.spec() != self.spec {
            let what = format!("a contribution {} was added for a value {}", t.spec(), self.spec);
            return Err(Error::shape("gradient", what));
        }
        match &mut self.state {
            State::Unwanted => return Ok(()),
            State::Empty => self.state = State::Sum(t),
            _ => {
                return self.write(cx, |cx, out, accumulate| {
                    let kernel = if accumulate { &ADD_INTO } else { &COPY };
                    cx.launch(kernel, &mut [Arg::In(&t), Arg::Out(out)])
                });
            }
        }
        (self.touched, self.wrote) = (true, true);
        Ok(())
    }

    /// Lets `f` write its contribution in place: into fresh memory when `accumulate` is false (old contents mean nothing),
    /// on top of the sum so far when it is true. Does nothing when unwanted.
    pub fn write(
        &mut self,
        cx: &Cx<'_>,
        f: impl FnOnce(&Cx<'_>, &mut Tensor, bool) -> Result<()>,
    ) -> Result<()> {
        let spec = self.spec;
        let (mut t, accumulate) = match std::mem::replace(&mut self.state, State::Empty) {
            State::Unwanted => {
                self.state = State::Unwanted;
                return Ok(());
            }
            State::Empty => (cx.empty(spec)?, false),
            State::Reserved(t) => (t, false),
            // The sum may be shared (it was taken over from another gradient): then it is copied before it is written.
            State::Sum(t) if !t.is_sole_holder() => (t.deep_clone()?, true),
            State::Sum(t) => (t, true),
        };
        let done = f(cx, &mut t, accumulate);
        self.state = State::Sum(t); // also after an error: the memory of a slot must not be lost
        done?;
        (self.touched, self.wrote) = (true, true);
        Ok(())
    }

    /// Says that this contribution is zero by the nature of the op.
    pub fn zero(&mut self) {
        self.touched = true;
    }
}
