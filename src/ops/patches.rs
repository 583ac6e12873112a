//! Patches: what lies under a convolution's window at each output pixel, gathered into the columns of a
//! matrix a band of output rows at a time, and scattered back.

use super::window::Window;
use crate::kernel::Real;
use crate::kernel::gemm::View;
use crate::vectorized;
use std::ops::Range;

/// Parts that the images are cut into: as many threads can work, and as many partial sums make dw.
pub(super) const PARTS: usize = 16;

/// Elements of scratch for the patches of one band: 256 KiB in f32, a share of the second-level cache.
const BAND: usize = 1 << 16;

/// Extents of one call, for one group of channels where there are groups.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) n: usize,
    pub(super) c: usize,
    pub(super) o: usize,
    pub(super) groups: usize,
    pub(super) win: Window,
}

impl Plan {
    pub(super) fn new(extents: &[usize], window: &[usize]) -> Plan {
        let [n, c, o, groups] = *extents else { unreachable!("the op passes four extents") };
        Plan { n, c, o, groups, win: Window::of_words(window) }
    }
    pub(super) fn extents(&self) -> [usize; 4] {
        [self.n, self.c, self.o, self.groups]
    }
    /// Images of one part.
    pub(super) fn images(&self) -> usize {
        self.n.div_ceil(PARTS).max(1)
    }
    pub(super) fn parts(&self) -> usize {
        self.n.div_ceil(self.images())
    }
    /// Output channels of a group.
    pub(super) fn rows(&self) -> usize {
        self.o / self.groups
    }
    /// Values of a patch.
    pub(super) fn k(&self) -> usize {
        self.c / self.groups * self.win.kernel[0] * self.win.kernel[1]
    }
    /// Output rows of a band.
    fn band(&self) -> usize {
        (BAND / (self.k() * self.win.output[1]).max(1)).clamp(1, self.win.output[0])
    }
    /// Elements of scratch of one part.
    pub(super) fn scratch(&self) -> usize {
        self.k() * self.band() * self.win.output[1]
    }
    /// About how many nanoseconds one product takes.
    pub(super) fn work(&self) -> usize {
        self.n * self.o * self.win.pixels_out() * self.k() / 16
    }
    /// The bands of output rows of every group.
    pub(super) fn bands(&self) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let (band, height, groups) = (self.band(), self.win.output[0], self.groups);
        (0..groups).flat_map(move |g| (0..height).step_by(band).map(move |r| (g, r..height.min(r + band))))
    }
    /// Output channels of group `g`, pixels of output rows `rows`, within the output of one image.
    pub(super) fn outputs<'a, T: Real>(&self, y: &'a [T], g: usize, rows: &Range<usize>) -> View<'a, T> {
        let (width, pixels) = (self.win.output[1], self.win.pixels_out());
        View::strided(
            &y[g * self.rows() * pixels + rows.start * width..],
            self.rows(),
            rows.len() * width,
            pixels,
            1,
        )
    }
    /// Channels of group `g` of one image.
    pub(super) fn channels(&self, g: usize) -> Range<usize> {
        let size = self.c / self.groups * self.win.pixels_in();
        g * size..(g + 1) * size
    }
    /// The patches of output rows `rows` as a k × pixels matrix. A 1 × 1 window needs no gathering.
    pub(super) fn patches<'a, T: Real>(
        &self,
        x: &'a [T],
        rows: &Range<usize>,
        scratch: &'a mut [T],
    ) -> View<'a, T> {
        let (w, width) = (&self.win, self.win.output[1]);
        let pixels = rows.len() * width;
        if (w.kernel, w.stride, w.padding) == ([1; 2], [1; 2], [0; 2]) {
            return View::strided(&x[rows.start * width..], self.k(), pixels, w.pixels_in(), 1);
        }
        let cols = &mut scratch[..self.k() * pixels];
        self.taps(rows, |k, c, i, j| {
            let out = &mut cols[k * pixels..][..pixels];
            let (reached, columns) = (w.reach(0, i), w.reach(1, j));
            for (o, out) in rows.clone().zip(out.chunks_exact_mut(width)) {
                if !reached.contains(&o) || columns.is_empty() {
                    out.fill(T::ZERO);
                    continue;
                }
                out[..columns.start].fill(T::ZERO);
                out[columns.end..].fill(T::ZERO);
                let from = c * w.pixels_in() + w.at(0, o, i) * w.input[1] + w.at(1, columns.start, j);
                let out = &mut out[columns.clone()];
                if w.stride[1] == 1 {
                    out.copy_from_slice(&x[from..from + columns.len()]);
                } else {
                    out.iter_mut().zip(x[from..].iter().step_by(w.stride[1])).for_each(|(y, &x)| *y = x);
                }
            }
        });
        View::new(cols, self.k(), pixels)
    }
    /// Adds the k × pixels matrix `cols` of output rows `rows` to dx, each entry where [`Plan::patches`]
    /// takes it.
    pub(super) fn scatter<T: Real>(&self, cols: &[T], rows: &Range<usize>, dx: &mut [T]) {
        let (w, width) = (&self.win, self.win.output[1]);
        let pixels = rows.len() * width;
        self.taps(rows, |k, c, i, j| {
            let (reached, columns) = (w.reach(0, i), w.reach(1, j));
            for (o, cols) in rows.clone().zip(cols[k * pixels..][..pixels].chunks_exact(width)) {
                if !reached.contains(&o) || columns.is_empty() {
                    continue;
                }
                let to = c * w.pixels_in() + w.at(0, o, i) * w.input[1] + w.at(1, columns.start, j);
                let cols = &cols[columns.clone()];
                if w.stride[1] == 1 {
                    add(cols, &mut dx[to..to + cols.len()]);
                } else {
                    dx[to..].iter_mut().step_by(w.stride[1]).zip(cols).for_each(|(dx, &c)| *dx += c);
                }
            }
        });
    }
    /// Calls `f(k, channel, i, j)` for each value of a patch, unless there are no rows.
    fn taps(&self, rows: &Range<usize>, mut f: impl FnMut(usize, usize, usize, usize)) {
        let [kh, kw] = self.win.kernel;
        for k in (0..self.k()).filter(|_| !rows.is_empty()) {
            f(k, k / (kh * kw), k / kw % kh, k % kw);
        }
    }
}

vectorized! {
    fn add<T: Real>(x: &[T], y: &mut [T]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
    }
}
