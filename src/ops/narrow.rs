//! narrow: the slice `start..start + length` of one axis. dx is dy in that range, 0 elsewhere.
//!
//! Cost: a view when the range is contiguous (leading axes of extent 1), else one copy.

use super::elementwise::{expect_inputs, expect_real};
use super::range::{COPY_RANGE, Range};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

/// A slice of one axis.
#[derive(Debug, Clone, Copy)]
pub struct Narrow {
    /// Axis, counted from the end when negative.
    pub dim: i64,
    /// First index.
    pub start: i64,
    /// Number of indices.
    pub length: usize,
}

impl Narrow {
    fn range(&self, x: &Spec) -> Result<Range> {
        let axis = x.shape.axis("narrow", self.dim)?;
        let all = x.shape.dims()[axis];
        let start = if self.start < 0 { self.start.saturating_add_unsigned(all as u64) } else { self.start };
        match usize::try_from(start) {
            Ok(start) if start.checked_add(self.length).is_some_and(|end| end <= all) => {
                Ok(Range { axis, start, n: self.length })
            }
            _ => {
                let what =
                    format!("{} elements from {} leave axis {axis} of input {}", self.length, self.start, x.shape);
                Err(Error::shape("narrow", what))
            }
        }
    }
}

impl Op for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("narrow", x, 1, 1)?;
        expect_real("narrow", "input", &x[0])?;
        let r = self.range(&x[0])?;
        Ok(smallvec::smallvec![x[0].with_shape(x[0].shape.with(r.axis, r.n))])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        Ok(smallvec::smallvec![self.range(&x[0].spec())?.take(cx, x[0])?])
    }

    fn backward(&self, cx: &mut Cx<'_>, _: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let range = self.range(&dx[0].spec())?;
        dx[0].write(cx, |cx, out, accumulate| {
            if !accumulate {
                out.fill_zero()?;
            }
            range.put(cx, dy, out, accumulate)
        })
    }
}

impl<'t> Var<'t> {
    /// Indices `start..start + length` of axis `dim`.
    pub fn narrow(&self, dim: i64, start: usize, length: usize) -> Result<Var<'t>> {
        let start = i64::try_from(start).unwrap_or(i64::MAX); // beyond every axis: an error of infer
        self.tape().apply1(Narrow { dim, start, length }, &[self])
    }
}

/// narrow in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "narrow",
    doc: "the slice start..start + length of one axis",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "dim", kind: Kind::Int, default: None, doc: "axis" },
        AttrDoc { name: "start", kind: Kind::Int, default: None, doc: "first index; negative counts from the end" },
        AttrDoc { name: "length", kind: Kind::Int, default: None, doc: "number of indices" },
    ],
    build: |a| Ok(Arc::new(Narrow { dim: a.int("dim")?, start: a.int("start")?, length: a.size("length")? })),
    kernels: &[&COPY_RANGE],
    samples: || {
        let s = |note, dims: &[usize], dim: i64, start: i64, length: usize| {
            Sample::new(note).normal(dims).attr("dim", dim).attr("start", start).attr("length", length)
        };
        vec![
            s("first axis, a view", &[5, 3], 0, 1, 3),
            s("last axis", &[4, 6], -1, 2, 3),
            s("middle axis", &[2, 5, 3], 1, 4, 1),
            s("from the end", &[5, 3], 0, -2, 2),
            s("nothing", &[2, 5], 1, 2, 0),
            s("all of it", &[2, 3], 1, 0, 3),
            s("half of 4096 x 512", &[4096, 512], 1, 256, 256).large(),
        ]
    },
};
