//! The geometry of a window that slides over the last two axes: what conv2d and the pools share.

use super::Attrs;
use crate::error::{Error, Result};
use crate::kernel::Real;
use crate::shape::Shape;
use std::ops::Range;

/// A sliding window; every array holds the value of axis H, then that of axis W.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) input: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) output: [usize; 2],
}

impl Window {
    /// Steps of size `stride` over the last two axes of `input`, padded on both sides; an error where not
    /// even one fits.
    pub(crate) fn new(
        op: &str,
        input: Shape,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
    ) -> Result<Window> {
        let [_, _, h, w] = *input.dims() else {
            return Err(Error::shape(op, format!("input has shape {input}, but must be [N, C, H, W]")));
        };
        let mut window = Window { input: [h, w], kernel, stride, padding, dilation, output: [0; 2] };
        for a in 0..2 {
            let (padded, span) = (window.input[a] + 2 * padding[a], dilation[a] * (kernel[a] - 1) + 1);
            if span > padded {
                let what = format!(
                    "a window that spans {span} along {} does not fit input of shape {input} with padding {}",
                    ["H", "W"][a],
                    padding[a]
                );
                return Err(Error::shape(op, what));
            }
            window.output[a] = (padded - span) / stride[a] + 1;
        }
        Ok(window)
    }

    /// As extents for a kernel.
    pub(crate) fn words(&self) -> [usize; 12] {
        let all = [self.input, self.kernel, self.stride, self.padding, self.dilation, self.output];
        std::array::from_fn(|i| all[i / 2][i % 2])
    }
    /// From [`Window::words`].
    pub(crate) fn of_words(v: &[usize]) -> Window {
        let two = |i: usize| [v[2 * i], v[2 * i + 1]];
        Window {
            input: two(0),
            kernel: two(1),
            stride: two(2),
            padding: two(3),
            dilation: two(4),
            output: two(5),
        }
    }
    /// Elements of an input plane.
    pub(crate) fn pixels_in(&self) -> usize {
        self.input[0] * self.input[1]
    }
    /// Elements of an output plane.
    pub(crate) fn pixels_out(&self) -> usize {
        self.output[0] * self.output[1]
    }
    /// Outputs along axis `a` whose tap `k` meets the input, not the padding.
    #[inline(always)]
    pub(crate) fn reach(&self, a: usize, k: usize) -> Range<usize> {
        let (tap, pad, stride) = (k * self.dilation[a], self.padding[a], self.stride[a]);
        let end = (self.input[a] + pad).saturating_sub(tap).div_ceil(stride).min(self.output[a]);
        pad.saturating_sub(tap).div_ceil(stride).min(end)..end
    }
    /// Where tap `k` of output `o` meets the input along axis `a`; `o` must lie in `reach(a, k)`.
    #[inline(always)]
    pub(crate) fn at(&self, a: usize, o: usize, k: usize) -> usize {
        o * self.stride[a] + k * self.dilation[a] - self.padding[a]
    }
    /// Calls `f(o, columns, from)` for each tap, row by row of the window, and each output row `o` that it
    /// reaches: there its outputs `columns` meet the input at `from` and every stride after it. Divisions are
    /// made once a tap.
    #[inline(always)]
    pub(crate) fn sweep(&self, mut f: impl FnMut(usize, Range<usize>, usize)) {
        for i in 0..self.kernel[0] {
            let rows = self.reach(0, i);
            for j in 0..self.kernel[1] {
                let columns = self.reach(1, j);
                for o in rows.clone().filter(|_| !columns.is_empty()) {
                    f(o, columns.clone(), self.at(0, o, i) * self.input[1] + self.at(1, columns.start, j));
                }
            }
        }
    }
    /// Number of taps of output `o` that meet the input along axis `a` (dilation 1).
    #[inline(always)]
    pub(crate) fn taps(&self, a: usize, o: usize) -> usize {
        let (start, pad) = (o * self.stride[a], self.padding[a]);
        (start + self.kernel[a]).min(self.input[a] + pad) - start.max(pad)
    }
}

/// Calls `f(start, values)` for stretches of the `n` values x[0], x[step], x[2·step], …, side by side in
/// memory, so that the loop inside `f` becomes vector instructions whatever the step.
#[inline(always)]
pub(crate) fn strided<T: Real>(x: &[T], step: usize, n: usize, mut f: impl FnMut(usize, &[T])) {
    if step == 1 {
        return f(0, &x[..n]);
    }
    let mut values = [T::ZERO; 64];
    for start in (0..n).step_by(values.len()) {
        let values = &mut values[..(n - start).min(64)];
        for (k, v) in values.iter_mut().enumerate() {
            *v = x[(start + k) * step];
        }
        f(start, values);
    }
}

/// The attribute `name` as one number for both axes or one for each; an empty list gives `default`. Each must
/// be at least `least`, and at most i32::MAX, so that products of two of them cannot overflow.
pub(crate) fn pair(op: &str, a: &Attrs, name: &str, least: i64, default: [usize; 2]) -> Result<[usize; 2]> {
    let v = a.ints(name)?;
    if let Some(bad) = v.iter().find(|v| !(least..=i32::MAX.into()).contains(v)) {
        return Err(Error::attr(op, name, format!("is {bad}, but must be {least} or more")));
    }
    match v[..] {
        [] => Ok(default),
        [n] => Ok([n as usize; 2]),
        [h, w] => Ok([h as usize, w as usize]),
        _ => Err(Error::attr(op, name, format!("is {v:?}, but must be one number or two (H, W)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_and_taps_agree_with_a_walk_over_every_tap() {
        for (n, k, s, p, d) in
            [(5, 3, 1, 1, 1), (7, 2, 2, 0, 1), (6, 3, 2, 1, 2), (4, 4, 3, 2, 1), (1, 1, 1, 0, 1)]
        {
            let shape = Shape::new(&[1, 1, n, n]).unwrap();
            let w = Window::new("conv2d", shape, [k; 2], [s; 2], [p; 2], [d; 2]).unwrap();
            assert_eq!(Window::of_words(&w.words()), w);
            let inside = |o: usize, k: usize| (p..n + p).contains(&(o * s + k * d));
            for k in 0..k {
                let want: Vec<usize> = (0..w.output[0]).filter(|&o| inside(o, k)).collect();
                assert_eq!(w.reach(0, k).collect::<Vec<_>>(), want, "{n} {k} {s} {p} {d}");
            }
            for o in (0..w.output[1]).filter(|_| d == 1) {
                assert_eq!(w.taps(1, o), (0..k).filter(|&k| inside(o, k)).count());
            }
        }
    }

    #[test]
    fn a_window_larger_than_its_input_is_an_error_that_names_both() {
        let shape = Shape::new(&[1, 2, 3, 9]).unwrap();
        let e = Window::new("conv2d", shape, [5; 2], [1; 2], [0; 2], [1; 2]).unwrap_err().to_string();
        assert!(e.contains("conv2d") && e.contains("spans 5 along H") && e.contains("[1, 2, 3, 9]"), "{e}");
    }
}
