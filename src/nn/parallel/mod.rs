//! Layers whose weights several ranks share (tensor parallelism, Shoeybi et al. 2019, "Megatron-LM").
//!
//! Y = f(X·A)·B for two matrices, as in an MLP: rank i has the columns A_i of A and the rows B_i of B. f works on single
//! numbers, so f(X·A_i)·B_i needs nothing of other ranks, and Y = Σ_i f(X·A_i)·B_i: one sum over ranks. Backward, dX =
//! Σ_i dX_i: another one. The two sums are ops of the tape, each the other's mirror:
//!
//! | op | forward | backward |
//! |---|---|---|
//! | [`CopyToRanks`] | x | Σ over ranks of dy |
//! | [`ReduceFromRanks`] | Σ over ranks of x | dy |
//!
//! Attention is cut by heads in the same way: queries, keys and values are columns, the output projection rows. What lies
//! outside of such a pair (norms, the residual stream) every rank computes alike, and its weights get the same gradient
//! everywhere.
//!
//! Ranks that share a sequence instead (context parallelism) have all weights and a stretch of the tokens; only attention looks
//! beyond it: [`RingAttention`].

mod ring_attention;
mod vocabulary;

pub use ring_attention::RingAttention;
pub use vocabulary::Vocabulary;

use crate::comm::{Group, Reduce};
use crate::error::{Error, Result};
use crate::ops::elementwise::expect_inputs;
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::ops::Range;

/// Which of the ranks that share something this is.
#[derive(Clone, Debug)]
pub struct Share {
    /// Number of this rank among them.
    pub rank: usize,
    /// Number of ranks.
    pub size: usize,
    /// How they talk; None where only the layout of the weights is asked for.
    pub group: Option<Group>,
}

impl Default for Share {
    fn default() -> Share {
        Share { rank: 0, size: 1, group: None }
    }
}

impl Share {
    /// Number of this rank, and how many there are.
    pub fn place(&self) -> (usize, usize) {
        (self.rank, self.size)
    }

    pub(super) fn group(&self) -> Result<&Group> {
        let none = || Error::Usage("a part of a model that only tells its layout computes nothing".into());
        self.group.as_ref().ok_or_else(none)
    }

    /// [`CopyToRanks`] of `x`.
    ///
    /// # Errors
    /// Of the group.
    pub fn copy<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        if self.size == 1 {
            return Ok(x.clone());
        }
        x.tape().apply1(CopyToRanks(self.group()?.clone()), &[x])
    }

    /// [`ReduceFromRanks`] of `x`.
    ///
    /// # Errors
    /// Of the group.
    pub fn reduce<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        if self.size == 1 {
            return Ok(x.clone());
        }
        x.tape().apply1(ReduceFromRanks(self.group()?.clone()), &[x])
    }

    /// The largest over ranks of each element; no gradient flows to it.
    fn largest<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        if self.size == 1 {
            return Ok(x.detach());
        }
        Ok(x.tape().constant(self.group()?.reduced(x.value(), Reduce::Max)?))
    }
}

/// Which part of a model a rank builds.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Ranks that share each layer.
    pub tensor: Share,
    /// Ranks that share each sequence, with a stretch of its tokens each.
    pub context: Share,
    /// Which layers it has, where ranks share them out.
    pub stage: Option<Stage>,
}

/// A stage of a pipeline: some layers that follow each other. The first has the embeddings too, the last the way to logits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Number of it, from 0.
    pub number: usize,
    /// Number of stages.
    pub of: usize,
    /// Its layers.
    pub layers: Range<usize>,
}

impl Stage {
    /// True of the one that reads tokens.
    pub fn is_first(&self) -> bool {
        self.number == 0
    }

    /// True of the one that gives logits.
    pub fn is_last(&self) -> bool {
        self.number + 1 == self.of
    }
}

impl Part {
    /// True where this is the whole of it.
    pub fn is_whole(&self) -> bool {
        self.tensor.size == 1 && self.context.size == 1 && self.stage.is_none()
    }
}

/// y = x; backward dx = Σ dy over the ranks of a group. Before layers of which each rank has a part.
#[derive(Debug, Clone)]
pub struct CopyToRanks(pub Group);

/// y = Σ x over the ranks of a group; backward dx = dy. Behind layers of which each rank has a part.
#[derive(Debug, Clone)]
pub struct ReduceFromRanks(pub Group);

impl Op for CopyToRanks {
    fn name(&self) -> &'static str {
        "copy_to_ranks"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("copy_to_ranks", x, 1, 1)?;
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, _: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        Ok(smallvec::smallvec![x[0].clone()])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        _: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        dx[0].add(cx, self.0.sum(dy)?)
    }
}

impl Op for ReduceFromRanks {
    fn name(&self) -> &'static str {
        "reduce_from_ranks"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("reduce_from_ranks", x, 1, 1)?;
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, _: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        Ok(smallvec::smallvec![self.0.sum(x[0])?])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        _: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        dx[0].add(cx, dy.clone())
    }
}
