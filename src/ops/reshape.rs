//! reshape: the same elements in another shape. Forward and backward are views; nothing is copied.

use super::elementwise::{expect_inputs, expect_real};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

/// The same elements in another shape.
#[derive(Debug, Clone)]
pub struct Reshape {
    /// Extents; one may be -1, which takes what is left.
    pub shape: SmallList<i64>,
}

impl Reshape {
    fn resolve(&self, x: &Spec) -> Result<Shape> {
        let len = x.shape.len();
        let bad = || Error::shape("reshape", format!("input of shape {} does not fit shape {:?}", x.shape, &self.shape[..]));
        if self.shape.iter().any(|&n| n < -1) || self.shape.iter().filter(|&&n| n == -1).count() > 1 {
            return Err(bad());
        }
        let known = self.shape.iter().filter(|&&n| n >= 0).try_fold(1usize, |p, &n| p.checked_mul(n as usize)).ok_or_else(bad)?;
        let left = len.checked_div(known).unwrap_or(0);
        let dims: SmallList<usize> = self.shape.iter().map(|&n| if n < 0 { left } else { n as usize }).collect();
        let shape = Shape::new(&dims)?;
        if shape.len() == len { Ok(shape) } else { Err(bad()) }
    }
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("reshape", x, 1, 1)?;
        expect_real("reshape", "input", &x[0])?;
        Ok(smallvec::smallvec![x[0].with_shape(self.resolve(&x[0])?)])
    }

    fn forward(&self, _: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        Ok(smallvec::smallvec![x[0].reshape(self.resolve(&x[0].spec())?.dims())?])
    }

    fn backward(&self, cx: &mut Cx<'_>, _: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let back = dy.reshape(dx[0].spec().shape.dims())?;
        dx[0].add(cx, back)
    }
}

impl<'t> Var<'t> {
    /// The same elements in shape `dims`; shares the memory.
    pub fn reshape(&self, dims: &[usize]) -> Result<Var<'t>> {
        let shape = dims.iter().map(|&n| n as i64).collect();
        self.tape().apply1(Reshape { shape }, &[self])
    }
}

/// reshape in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "reshape",
    doc: "the same elements in another shape",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[AttrDoc { name: "shape", kind: Kind::Ints, default: None, doc: "extents; one may be -1" }],
    build: |a| Ok(Arc::new(Reshape { shape: a.ints("shape")?.into() })),
    kernels: &[],
    samples: || {
        vec![
            Sample::new("two axes to three").normal(&[4, 6]).attr("shape", "2,-1,3"),
            Sample::new("to one axis").normal(&[2, 3]).attr("shape", "-1"),
            Sample::new("nothing").normal(&[0, 3]).attr("shape", "3,0"),
        ]
    },
};
