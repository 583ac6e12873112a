//! What reductions share: which axes they run over, folding a tensor to a narrower shape and stretching one back.

use super::elementwise::{Plan, walk};
use super::{AttrDoc, Attrs, Kind, Sample};
use crate::error::{Error, Result};
use crate::kernel::reduce::{SUM, partials};
use crate::kernel::{Arg, Kernel, Real, basic, par};
use crate::shape::{MAX_RANK, Shape, Spec};
use crate::tape::{Adjoint, Cx};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use smallvec::SmallVec;

/// The axes that a reduction runs over.
#[derive(Clone, Debug, Default)]
pub struct Axes {
    /// The axes, from the end when negative; all when empty.
    pub dim: SmallList<i64>,
    /// Keep each with extent 1.
    pub keepdim: bool,
}

pub(super) const DIM: AttrDoc = AttrDoc {
    name: "dim",
    kind: Kind::Ints,
    default: Some(""),
    doc: "axes to reduce, counted from the end when negative; all when none is given",
};
pub(super) const KEEPDIM: AttrDoc = AttrDoc {
    name: "keepdim",
    kind: Kind::Bool,
    default: Some("false"),
    doc: "keep reduced axes with extent 1",
};

impl Axes {
    /// These axes.
    pub fn new(dim: &[i64], keepdim: bool) -> Axes {
        Axes { dim: dim.into(), keepdim }
    }
    /// From the attributes `dim` and `keepdim`.
    pub(super) fn of(a: &Attrs) -> Result<Axes> {
        Ok(Axes { dim: a.ints("dim")?.into(), keepdim: a.flag("keepdim")? })
    }

    /// Which axes of `x` are reduced.
    fn mask(&self, op: &str, x: &Shape) -> Result<[bool; MAX_RANK]> {
        let mut mask = [self.dim.is_empty(); MAX_RANK];
        for &d in &self.dim {
            let seen = std::mem::replace(&mut mask[x.axis(op, d)?], true);
            if seen {
                let what = format!("names axis {d} of input {x} twice in {:?}", &self.dim[..]);
                return Err(Error::attr(op, "dim", what));
            }
        }
        Ok(mask)
    }
    /// `x` with extent 1 along the reduced axes.
    pub(super) fn kept(&self, op: &str, x: &Shape) -> Result<Shape> {
        let mask = self.mask(op, x)?;
        Ok((0..x.rank()).filter(|&k| mask[k]).fold(*x, |s, k| s.with(k, 1)))
    }
    /// The shape of the output.
    pub(super) fn output(&self, op: &str, x: &Shape) -> Result<Shape> {
        if self.keepdim {
            return self.kept(op, x);
        }
        let mask = self.mask(op, x)?;
        let dims: SmallList<usize> = (0..x.rank()).filter(|&k| !mask[k]).map(|k| x.dims()[k]).collect();
        Shape::new(&dims)
    }
    /// How many elements of `x` become one.
    pub(super) fn count(&self, op: &str, x: &Shape) -> Result<usize> {
        let mask = self.mask(op, x)?;
        Ok((0..x.rank()).filter(|&k| mask[k]).map(|k| x.dims()[k]).product())
    }
}

kernel! {
    ptx "axes";
    /// y, row-major over `dims`, = scale·(the element of x at Σ index·`steps`), or y += when `accumulate`.
    pub(super) static EXPAND = expand_axes(
        x: in T, y: out T, dims: val dims, steps: val dims, scale: val T, accumulate: val flag,
    );
}

fn expand_axes<T: Real>(x: &[T], y: &mut [T], dims: &[usize], steps: &[usize], scale: T, accumulate: bool) {
    let step = steps[steps.len() - 1];
    par::chunks_mut(y, par::CHUNK, dims.iter().product::<usize>() / 4, |i, y| {
        let start = i * par::CHUNK;
        walk(start..start + y.len(), dims, [steps], |at, [from], n| {
            expand_run(&x[from..], step, &mut y[at..at + n], scale, accumulate);
        });
    });
}

vectorized! {
    fn expand_run<T: Real>(x: &[T], step: usize, y: &mut [T], scale: T, accumulate: bool) {
        let put = |y: &mut T, x: T| *y = if accumulate { *y + scale * x } else { scale * x };
        if step == 0 {
            y.iter_mut().for_each(|y| put(y, x[0]));
        } else {
            y.iter_mut().zip(x).for_each(|(y, &x)| put(y, x));
        }
    }
}

/// `y` = `scale`·x, stretched from the shape `from` (elements of x) to that of `y`, or y += when `accumulate`.
pub(crate) fn expand(
    cx: &Cx<'_>,
    (x, from): (&Tensor, &Shape),
    y: &mut Tensor,
    scale: f64,
    accumulate: bool,
) -> Result<()> {
    let plan = Plan::new([from], &y.shape());
    let (dims, steps) = (plan.dims(), plan.steps(0));
    cx.launch(&EXPAND, &mut [Arg::In(x), Arg::Out(y), dims, steps, Arg::Real(scale), Arg::Flag(accumulate)])
}

/// `scale`·x, folded by `kernel` (SUM or MAX) to the shape `to`, which broadcasts to that of x.
pub(crate) fn fold(cx: &Cx<'_>, kernel: &Kernel, x: &Tensor, to: Shape, scale: f64) -> Result<Tensor> {
    let mut y = cx.empty(x.spec().with_shape(to))?;
    fold_into(cx, kernel, x, &mut y, scale, false)?;
    Ok(y)
}

/// Adds `scale`·(x summed to the shape of `dx`) to `dx`.
pub(crate) fn sum_to(cx: &Cx<'_>, x: &Tensor, scale: f64, dx: &mut Adjoint) -> Result<()> {
    dx.write(cx, |cx, out, accumulate| fold_into(cx, &SUM, x, out, scale, accumulate))
}

/// y = x summed to the shape of y, or y +=.
pub(crate) fn sum_into(cx: &Cx<'_>, x: &Tensor, y: &mut Tensor, accumulate: bool) -> Result<()> {
    fold_into(cx, &SUM, x, y, 1.0, accumulate)
}

/// Groups of neighbouring axes are folded one after the other, the last group first.
fn fold_into(
    cx: &Cx<'_>,
    kernel: &Kernel,
    x: &Tensor,
    y: &mut Tensor,
    scale: f64,
    accumulate: bool,
) -> Result<()> {
    let groups = groups(&y.shape(), &x.shape());
    let run = |x: &Tensor, y: &mut Tensor, extents: [usize; 3], scale: f64, add: bool| {
        let mut partial = cx.empty(Spec::new(x.dtype(), &[partials(extents)])?)?;
        let (partial, extents) = (Arg::Out(&mut partial), Arg::Dims(&extents));
        cx.launch(kernel, &mut [Arg::In(x), partial, Arg::Out(y), extents, Arg::Real(scale), Arg::Flag(add)])
    };
    let Some((&last, before)) = groups.split_last() else {
        // Nothing is folded: the same elements.
        return cx
            .launch(&basic::SCALE, &mut [Arg::In(x), Arg::Out(y), Arg::Real(scale), Arg::Flag(accumulate)]);
    };
    let mut x = x.clone();
    for &extents in before {
        let mut narrower = cx.empty(Spec::new(x.dtype(), &[extents[0] * extents[2]])?)?;
        run(&x, &mut narrower, extents, 1.0, false)?;
        x = narrower;
    }
    run(&x, y, last, scale, accumulate)
}

/// [outer, reduced, inner] of each group of neighbouring axes of `wide` along which `narrow` stands still, last first; each
/// as it is once the groups after it are folded.
fn groups(narrow: &Shape, wide: &Shape) -> SmallVec<[[usize; 3]; MAX_RANK]> {
    let missing = wide.rank() - narrow.rank();
    let stands = |k: usize| wide.dims()[k] != 1 && (k < missing || narrow.dims()[k - missing] == 1);
    let mut groups = SmallVec::new();
    let (mut inner, mut k) = (1, wide.rank());
    while k > 0 {
        if !stands(k - 1) {
            inner *= wide.dims()[k - 1];
            k -= 1;
            continue;
        }
        let mut reduced = 1;
        while k > 0 && (stands(k - 1) || wide.dims()[k - 1] == 1) {
            reduced *= wide.dims()[k - 1];
            k -= 1;
        }
        groups.push([wide.dims()[..k].iter().product(), reduced, inner]);
    }
    groups
}

/// Samples of a reduction: every position of the axes, both sides of a block, `input` making the values.
pub(super) fn samples(input: impl Fn(Sample, &[usize]) -> Sample) -> Vec<Sample> {
    let s = |note, dim: &str, keep: bool, dims: &[usize]| {
        input(Sample::new(note).attr("dim", dim).attr("keepdim", keep), dims)
    };
    vec![
        s("all", "", false, &[3, 4]),
        s("all, kept", "", true, &[3, 4]),
        s("last", "-1", false, &[3, 5]),
        s("first", "0", false, &[5, 3]),
        s("middle, kept", "1", true, &[2, 3, 4]),
        s("two apart", "0,-1", false, &[3, 2, 4]),
        s("two neighbours", "1,2", false, &[2, 3, 4]),
        s("three of five", "0,2,4", true, &[2, 3, 2, 3, 2]),
        s("longer than a vector", "-1", false, &[2, 37]),
        s("more rows than a block", "0", false, &[131, 2]),
        s("extents of one", "0,2", false, &[1, 3, 1]),
        s("scalar", "", false, &[]),
        s("no rows", "1", false, &[0, 3]),
        s("4096 x 512 over rows", "0", false, &[4096, 512]).large(),
        s("4096 x 512 over columns", "1", false, &[4096, 512]).large(),
        s("all of 4096 x 512", "", false, &[4096, 512]).large(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(d: &[usize]) -> Shape {
        Shape::new(d).unwrap()
    }

    #[test]
    fn groups_of_folded_axes() {
        assert_eq!(groups(&shape(&[5]), &shape(&[3, 4, 5]))[..], [[1, 12, 5]]);
        assert_eq!(groups(&shape(&[3, 1]), &shape(&[3, 4]))[..], [[3, 4, 1]]);
        assert_eq!(groups(&shape(&[1, 4, 1]), &shape(&[3, 4, 5]))[..], [[12, 5, 1], [1, 3, 4]]);
        assert!(groups(&shape(&[3, 4]), &shape(&[3, 4])).is_empty());
        assert_eq!(groups(&shape(&[]), &shape(&[2, 3]))[..], [[1, 6, 1]]);
    }

    #[test]
    fn shapes_of_reductions() {
        let x = shape(&[2, 3, 4]);
        let of = |dim: &[i64], keep: bool| Axes::new(dim, keep).output("sum", &x);
        assert_eq!(of(&[], false).unwrap(), Shape::SCALAR);
        assert_eq!(of(&[], true).unwrap(), shape(&[1, 1, 1]));
        assert_eq!(of(&[-1, 0], false).unwrap(), shape(&[3]));
        assert_eq!(of(&[1], true).unwrap(), shape(&[2, 1, 4]));
        assert_eq!(Axes::new(&[0, 2], false).count("sum", &x).unwrap(), 8);
        let e = of(&[1, -2], false).unwrap_err().to_string();
        assert!(e.contains("sum") && e.contains("twice") && e.contains("[2, 3, 4]"), "{e}");
        assert!(of(&[3], false).is_err());
    }
}
