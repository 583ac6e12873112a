//! The walk that all strided kernels share: an output in row-major order, operands that move along by steps of their own.

use crate::kernel::Arg;
use crate::shape::{MAX_RANK, Shape};
use smallvec::SmallVec;
use std::ops::Range;

type Axes = SmallVec<[usize; MAX_RANK]>;

/// A walk over an output and `N` operands, with as few axes as possible (one at least).
pub(crate) struct Plan<const N: usize> {
    dims: Axes,
    steps: [Axes; N],
}

impl<const N: usize> Plan<N> {
    /// For operands of these shapes, broadcast to `out`.
    pub(crate) fn new(operands: [&Shape; N], out: &Shape) -> Plan<N> {
        let steps = operands.map(|s| s.strides_as(out));
        Plan::strided(out.dims(), std::array::from_fn(|i| &steps[i][..]))
    }

    /// For operands that move by `steps` along each of `dims`. Neighbouring axes along which every operand goes on evenly
    /// (or stands) become one.
    pub(crate) fn strided(dims: &[usize], steps: [&[usize]; N]) -> Plan<N> {
        let mut p = Plan { dims: Axes::new(), steps: std::array::from_fn(|_| Axes::new()) };
        for (k, &n) in dims.iter().enumerate().filter(|(_, n)| **n != 1) {
            let joins = !p.dims.is_empty()
                && p.steps.iter().zip(steps).all(|(merged, s)| merged.last() == Some(&(s[k] * n)));
            match p.dims.last_mut().filter(|_| joins) {
                Some(last) => *last *= n,
                None => p.dims.push(n),
            }
            for (merged, s) in p.steps.iter_mut().zip(steps) {
                merged.truncate(p.dims.len() - 1);
                merged.push(s[k]);
            }
        }
        if p.dims.is_empty() {
            p.dims.push(1);
            p.steps.iter_mut().for_each(|s| s.push(0));
        }
        p
    }

    /// The extents, as a kernel argument.
    pub(crate) fn dims(&self) -> Arg<'_> {
        Arg::Dims(&self.dims)
    }
    /// The steps of operand `i`, as a kernel argument.
    pub(crate) fn steps(&self, i: usize) -> Arg<'_> {
        Arg::Dims(&self.steps[i])
    }
}

/// Visits elements `range` of the output in stretches along its last axis: `f(y, at, n)` stands for `n` elements, from `y`
/// on counted from the start of the range; operand i begins at `at[i]` and moves by its step along the last axis.
pub(crate) fn walk<const N: usize>(
    range: Range<usize>,
    dims: &[usize],
    steps: [&[usize]; N],
    mut f: impl FnMut(usize, [usize; N], usize),
) {
    if range.is_empty() {
        return;
    }
    let last = dims.len() - 1;
    let (mut rest, mut col) = (range.start / dims[last], range.start % dims[last]);
    let (mut index, mut at) = ([0; MAX_RANK], [0; N]);
    for k in (0..last).rev() {
        (index[k], rest) = (rest % dims[k], rest / dims[k]);
        (0..N).for_each(|i| at[i] += index[k] * steps[i][k]);
    }
    let (mut y, total) = (0, range.len());
    while y < total {
        let n = (dims[last] - col).min(total - y);
        f(y, std::array::from_fn(|i| at[i] + col * steps[i][last]), n);
        (y, col) = (y + n, 0);
        // The next row: the innermost axis moves on; one that is at its end goes back to 0, and the next outer one moves.
        for k in (0..last).rev() {
            index[k] += 1;
            (0..N).for_each(|i| at[i] += steps[i][k]);
            if index[k] < dims[k] {
                break;
            }
            (0..N).for_each(|i| at[i] -= dims[k] * steps[i][k]);
            index[k] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(d: &[usize]) -> Shape {
        Shape::new(d).unwrap()
    }

    #[test]
    fn axes_that_go_on_evenly_become_one() {
        let of = |a: &[usize], b: &[usize], out: &[usize]| {
            let p = Plan::new([&shape(a), &shape(b)], &shape(out));
            (p.dims.to_vec(), p.steps[0].to_vec(), p.steps[1].to_vec())
        };
        assert_eq!(of(&[2, 3, 4], &[2, 3, 4], &[2, 3, 4]), (vec![24], vec![1], vec![1]));
        assert_eq!(of(&[2, 3, 4], &[4], &[2, 3, 4]), (vec![6, 4], vec![4, 1], vec![0, 1]));
        assert_eq!(of(&[2, 3, 4], &[], &[2, 3, 4]), (vec![24], vec![1], vec![0]));
        assert_eq!(of(&[6, 1], &[6, 4], &[6, 4]), (vec![6, 4], vec![1, 0], vec![4, 1]));
        assert_eq!(of(&[1, 1], &[], &[1, 1]), (vec![1], vec![0], vec![0]));
    }

    /// From any start to any end, the walk visits what division and remainder say.
    #[test]
    fn every_range_is_walked_as_the_indices_say() {
        let (out, a, b) = (shape(&[2, 3, 2, 5]), shape(&[3, 1, 5]), shape(&[2, 1, 2, 1]));
        let p = Plan::new([&a, &b], &out);
        let want: Vec<[usize; 2]> = (0..60)
            .map(|y| {
                let (i, j, k, l) = (y / 30, y / 10 % 3, y / 5 % 2, y % 5);
                [j * 5 + l, i * 2 + k]
            })
            .collect();
        for (start, end) in (0..=60).flat_map(|s| (s..=60).map(move |e| (s, e))) {
            let mut seen = Vec::new();
            walk(start..end, &p.dims, [&p.steps[0], &p.steps[1]], |y, at, n| {
                assert_eq!(y, seen.len());
                let last = p.dims.len() - 1;
                seen.extend((0..n).map(|j| [at[0] + j * p.steps[0][last], at[1] + j * p.steps[1][last]]));
            });
            assert_eq!(seen, want[start..end]);
        }
    }
}
