//! split: an axis cut into consecutive parts of `split_size` (the last may be shorter) or of the listed sizes.
//!
//! The gradient of each part goes to its range; parts without a gradient give 0 there. Cost: views when the axis leads,
//! else one copy; backward one copy.

use super::elementwise::{expect_inputs, expect_real};
use super::range::{COPY_RANGE, Range};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

/// An axis cut into parts.
#[derive(Debug, Clone)]
pub struct Split {
    /// One size for all parts but the last, or the size of each part.
    pub sizes: Vec<usize>,
    /// Axis, counted from the end when negative.
    pub dim: i64,
}

impl Split {
    fn ranges(&self, x: &Spec) -> Result<SmallList<Range>> {
        let axis = x.shape.axis("split", self.dim)?;
        let all = x.shape.dims()[axis];
        let bad = |what: String| Error::attr("split", "split_size_or_sections", format!("{what} (input {})", x.shape));
        let mut ranges = SmallList::new();
        let mut start = 0;
        let mut push = |n: usize| {
            ranges.push(Range { axis, start, n });
            start += n;
        };
        match self.sizes[..] {
            [0] | [] => return Err(bad("must be at least 1".into())),
            [size] => (0..all.div_ceil(size).max(1)).for_each(|i| push(size.min(all - i * size))),
            ref sizes => {
                if sizes.iter().try_fold(0usize, |s, &n| s.checked_add(n)) != Some(all) {
                    return Err(bad(format!("is {sizes:?}, which does not add up to the extent {all} of axis {axis}")));
                }
                sizes.iter().for_each(|&n| push(n));
            }
        }
        Ok(ranges)
    }
}

impl Op for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("split", x, 1, 1)?;
        expect_real("split", "input", &x[0])?;
        Ok(self.ranges(&x[0])?.iter().map(|r| x[0].with_shape(x[0].shape.with(r.axis, r.n))).collect())
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        self.ranges(&x[0].spec())?.iter().map(|r| r.take(cx, x[0])).collect()
    }

    fn backward(&self, cx: &mut Cx<'_>, _: &[Tensor], dy: &[Option<Tensor>], dx: &mut [Adjoint]) -> Result<()> {
        let ranges = self.ranges(&dx[0].spec())?;
        dx[0].write(cx, |cx, out, accumulate| {
            if !accumulate && dy.iter().any(Option::is_none) {
                out.fill_zero()?;
            }
            for (r, dy) in ranges.iter().zip(dy) {
                if let Some(dy) = dy {
                    r.put(cx, dy, out, accumulate)?;
                }
            }
            Ok(())
        })
    }
}

impl<'t> Var<'t> {
    /// Parts of `size` along axis `dim`; the last may be shorter.
    pub fn split(&self, size: usize, dim: i64) -> Result<SmallList<Var<'t>>> {
        self.tape().apply(Split { sizes: vec![size], dim }, &[self])
    }
    /// Parts of the given sizes along axis `dim`.
    pub fn split_sizes(&self, sizes: &[usize], dim: i64) -> Result<SmallList<Var<'t>>> {
        self.tape().apply(Split { sizes: sizes.to_vec(), dim }, &[self])
    }
}

/// split in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "split",
    doc: "one axis cut into consecutive parts",
    inputs: &[Port::real("input")],
    outputs: &["outputs"],
    attrs: &[
        AttrDoc { name: "split_size_or_sections", kind: Kind::Ints, default: None, doc: "size of the parts, or of each" },
        AttrDoc { name: "dim", kind: Kind::Int, default: Some("0"), doc: "axis" },
    ],
    build: |a| {
        let negative = |_| Error::attr("split", "split_size_or_sections", "must not be negative");
        let size = |&n: &i64| usize::try_from(n).map_err(negative);
        let sizes = a.ints("split_size_or_sections")?.iter().map(size).collect::<Result<_>>()?;
        Ok(Arc::new(Split { sizes, dim: a.int("dim")? }))
    },
    kernels: &[&COPY_RANGE],
    samples: || {
        let s = |note, dims: &[usize], sizes: &str, dim: i64| {
            Sample::new(note).normal(dims).attr("split_size_or_sections", sizes).attr("dim", dim)
        };
        vec![
            s("leading axis, views", &[3, 4], "1", 0),
            s("last part shorter", &[2, 5], "2", -1),
            s("listed sizes", &[2, 6, 3], "1,3,2", 1),
            s("4096 x 384 in three", &[4096, 384], "128", 1).large(),
        ]
    },
};
