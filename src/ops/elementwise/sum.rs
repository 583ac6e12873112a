//! Summing a gradient over the axes along which its operand was stretched, in a fixed order.

use crate::error::Result;
use crate::kernel::{Arg, Real, par, simd};
use crate::shape::{MAX_RANK, Shape, Spec};
use crate::tape::{Adjoint, Cx};
use crate::tensor::Tensor;
use crate::{kernel, vectorized};
use smallvec::SmallVec;

kernel! {
    /// y [outer, inner] = scale·Σ_r x[outer, r, inner], or y += when `accumulate`; `extents` = [outer, reduced, inner].
    /// `partial` [outer, blocks, inner] holds the sums of fixed blocks of r; it may be absent where one block is all.
    static SUM_MIDDLE = sum_middle(
        x: in T, partial: out T, y: out T, extents: val dims, scale: val T, accumulate: val flag,
    );
}

/// Rows of one partial sum: fixed, so that the bits do not depend on threads.
pub(crate) const BLOCK: usize = 128;

fn sum_middle<T: Real>(
    x: &[T],
    partial: &mut [T],
    y: &mut [T],
    extents: &[usize],
    scale: T,
    accumulate: bool,
) {
    let [outer, reduced, inner] = *extents else { unreachable!("three extents") };
    if inner == 1 {
        // Consecutive elements add up to one: the lanes of the sum are within the row.
        let some = (par::CHUNK / reduced.max(1)).max(1);
        return par::chunks_mut(y, some, x.len() / 4, |i, y| {
            for (j, y) in y.iter_mut().enumerate() {
                let sum = sum_row(&x[(i * some + j) * reduced..][..reduced]) * scale;
                *y = if accumulate { *y + sum } else { sum };
            }
        });
    }
    let blocks = reduced.div_ceil(BLOCK);
    if blocks <= 1 {
        return par::chunks_mut(y, inner, x.len() / 4, |o, y| {
            add_rows(&x[o * reduced * inner..][..reduced * inner], y, scale, accumulate);
        });
    }
    par::chunks_mut(partial, inner, x.len() / 4, |i, sum| {
        let (o, block) = (i / blocks, i % blocks);
        let rows = BLOCK.min(reduced - block * BLOCK);
        add_rows(&x[(o * reduced + block * BLOCK) * inner..][..rows * inner], sum, T::ONE, false);
    });
    for (o, y) in y.chunks_mut(inner).enumerate() {
        add_rows(&partial[o * blocks * inner..][..blocks * inner], y, scale, accumulate);
    }
    debug_assert_eq!(y.len(), outer * inner);
}

vectorized! {
    fn sum_row<T: Real>(x: &[T]) -> T {
        simd::sum_by(x.len(), |i| x[i])
    }

    /// y = scale·Σ rows of x, or y += when `accumulate`.
    fn add_rows<T: Real>(x: &[T], y: &mut [T], scale: T, accumulate: bool) {
        if !accumulate {
            y.fill(T::ZERO);
        }
        for row in x.chunks_exact(y.len()) {
            for (y, &x) in y.iter_mut().zip(row) {
                *y += scale * x;
            }
        }
    }
}

/// Adds `scale`·(x summed to the shape of `dx`, which broadcasts to that of x) to `dx`. Groups of neighbouring axes are
/// summed one after the other, the last group first.
pub(crate) fn into(cx: &Cx<'_>, x: &Tensor, scale: f64, dx: &mut Adjoint) -> Result<()> {
    let groups = groups(&dx.spec().shape, &x.shape());
    let mut x = x.clone();
    for (k, &[outer, reduced, inner]) in groups.iter().enumerate() {
        let last = k + 1 == groups.len();
        let extents = [outer, reduced, inner];
        let blocks = if inner == 1 { 0 } else { reduced.div_ceil(BLOCK) };
        let mut partial =
            cx.empty(Spec::new(x.dtype(), &[outer, if blocks > 1 { blocks } else { 0 }, inner])?)?;
        let mut run = |cx: &Cx<'_>, x: &Tensor, y: &mut Tensor, scale: f64, add: bool| {
            let (p, y) = (Arg::Out(&mut partial), Arg::Out(y));
            cx.launch(
                &SUM_MIDDLE,
                &mut [Arg::In(x), p, y, Arg::Dims(&extents), Arg::Real(scale), Arg::Flag(add)],
            )
        };
        if last {
            return dx.write(cx, |cx, out, add| run(cx, &x, out, scale, add));
        }
        let mut y = cx.empty(Spec::new(x.dtype(), &[outer * inner])?)?;
        run(cx, &x, &mut y, 1.0, false)?;
        x = y;
    }
    // Nothing was stretched: the same elements.
    dx.write(cx, |cx, out, add| {
        let args = &mut [Arg::In(&x), Arg::Out(out), Arg::Real(scale), Arg::Flag(add)];
        cx.launch(&crate::kernel::basic::SCALE, args)
    })
}

/// [outer, reduced, inner] of each group of neighbouring axes of `wide` along which `narrow` stands still, last first; each
/// as it is once the groups after it are summed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_stretched_axes() {
        let s = |d: &[usize]| Shape::new(d).unwrap();
        assert_eq!(groups(&s(&[5]), &s(&[3, 4, 5]))[..], [[1, 12, 5]]);
        assert_eq!(groups(&s(&[3, 1]), &s(&[3, 4]))[..], [[3, 4, 1]]);
        assert_eq!(groups(&s(&[1, 4, 1]), &s(&[3, 4, 5]))[..], [[12, 5, 1], [1, 3, 4]]);
        assert!(groups(&s(&[3, 4]), &s(&[3, 4])).is_empty());
        assert_eq!(groups(&s(&[]), &s(&[2, 3]))[..], [[1, 6, 1]]);
    }
}
