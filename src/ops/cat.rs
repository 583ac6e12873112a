//! cat: inputs joined along one axis. The gradient of each input is its range of dy. Cost: one copy each way.

use super::elementwise::expect_real;
use super::range::{COPY_RANGE, Range};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

/// Inputs joined along one axis.
#[derive(Debug, Clone, Copy)]
pub struct Cat {
    /// Axis, counted from the end when negative.
    pub dim: i64,
}

impl Op for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        let Some(first) = x.first() else { return Err(Error::shape("cat", "no input given, one or more wanted")) };
        expect_real("cat", "inputs.0", first)?;
        let axis = first.shape.axis("cat", self.dim)?;
        let mut total = 0usize;
        for (i, s) in x.iter().enumerate() {
            let alike = s.shape.rank() == first.shape.rank() && s.shape.with(axis, 0) == first.shape.with(axis, 0);
            if s.dtype != first.dtype || !alike {
                let what = format!("inputs.{i} is {s} and inputs.0 is {first}: all but axis {axis} must agree");
                return Err(Error::shape("cat", what));
            }
            total += s.shape.dims()[axis];
        }
        Ok(smallvec::smallvec![Spec::new(first.dtype, first.shape.with(axis, total).dims())?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let specs: SmallList<Spec> = x.iter().map(|t| t.spec()).collect();
        let mut y = cx.empty(self.infer(&specs)?[0])?;
        let axis = y.shape().axis("cat", self.dim)?;
        let mut start = 0;
        for t in x {
            let n = t.dims()[axis];
            Range { axis, start, n }.put(cx, t, &mut y, false)?;
            start += n;
        }
        Ok(smallvec::smallvec![y])
    }

    fn backward(&self, cx: &mut Cx<'_>, _: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let axis = dy.shape().axis("cat", self.dim)?;
        let mut start = 0;
        for d in dx {
            let n = d.spec().shape.dims()[axis];
            if d.wanted() {
                d.add(cx, Range { axis, start, n }.take(cx, dy)?)?;
            }
            start += n;
        }
        Ok(())
    }
}

impl<'t> Var<'t> {
    /// `inputs` joined along axis `dim`.
    pub fn cat(inputs: &[&Var<'t>], dim: i64) -> Result<Var<'t>> {
        let Some(first) = inputs.first() else { return Err(Error::shape("cat", "no input given, one or more wanted")) };
        first.tape().apply1(Cat { dim }, inputs)
    }
}

/// cat in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "cat",
    doc: "inputs joined along one axis",
    inputs: &[Port::many("inputs")],
    outputs: &["output"],
    attrs: &[AttrDoc { name: "dim", kind: Kind::Int, default: Some("0"), doc: "axis" }],
    build: |a| Ok(Arc::new(Cat { dim: a.int("dim")? })),
    kernels: &[&COPY_RANGE],
    samples: || {
        vec![
            Sample::new("one input").normal(&[2, 3]),
            Sample::new("first axis").normal(&[2, 3]).normal(&[1, 3]).normal(&[4, 3]),
            Sample::new("last axis, one empty").normal(&[2, 3]).normal(&[2, 0]).normal(&[2, 1]).attr("dim", -1),
            Sample::new("middle axis").normal(&[2, 1, 3]).normal(&[2, 2, 3]).attr("dim", 1),
            Sample::new("4096 x 256 twice").normal(&[4096, 256]).normal(&[4096, 256]).attr("dim", 1).large(),
        ]
    },
};
