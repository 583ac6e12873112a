//! The kernels that skip: which units are active, and the backward pass over them.

use super::super::{activity, axes, linear};
use super::cpu::WORD;
use super::{DOTS, Extents, FELT, Kept, OUTER, PAIRS, ROWS, SCALED, SELECT, SUMS, SparseMlp};
use crate::error::Result;
use crate::kernel::Arg;
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx};
use crate::tensor::Tensor;

impl SparseMlp {
    /// Planes of the mask: the second says which units are near the threshold.
    pub(super) fn planes(&self) -> usize {
        if self.half() > 0.0 { 2 } else { 1 }
    }
    /// ε/2 where the hard form has a slope, else 0.
    fn half(&self) -> f64 {
        if self.relu.hard { self.relu.window()[0] } else { 0.0 }
    }

    /// value, mask and stats of `a`.
    pub(super) fn select(&self, cx: &Cx<'_>, a: &Tensor, threshold: Option<&Tensor>, e: Extents) -> Result<[Tensor; 3]> {
        let words = e.h.div_ceil(WORD);
        let mut value = cx.empty(a.spec())?;
        let mut mask = cx.empty(Spec::new(DType::I32, &[e.rows, self.planes(), words])?)?;
        let mut stats = cx.empty(Spec::new(a.dtype(), &[e.rows, 2])?)?;
        let threshold = threshold.map_or(Arg::Absent, Arg::In);
        let (out, bits, rows) = (Arg::Out(&mut value), Arg::Out(&mut mask), Arg::Out(&mut stats));
        let (factor, half) = (Arg::Real(self.relu.factor()), Arg::Real(self.half()));
        let flag = Arg::Flag(self.relu.hard);
        cx.launch(&SELECT, &mut [Arg::In(a), threshold, out, bits, rows, Arg::Size(e.h), factor, half, flag])?;
        Ok([value, mask, stats])
    }

    /// dX, dU and dp of what moves a statistical threshold, after those of active units.
    fn move_rows(&self, cx: &Cx<'_>, k: &Kept<'_>, d: &Tensor, mask: &Tensor, dx: &mut [Adjoint]) -> Result<()> {
        let e = k.e;
        let spec = |dims: &[usize]| Spec::new(k.x.dtype(), dims);
        let mut line = cx.empty(spec(&[e.rows, 2])?)?;
        let [half, steep] = [self.half(), self.relu.window()[1]].map(Arg::Real);
        let (factor, flag) = (Arg::Real(self.relu.factor()), Arg::Flag(self.relu.hard));
        let (stats, out) = (Arg::In(k.theta), Arg::Out(&mut line));
        cx.launch(&FELT, &mut [Arg::In(d), Arg::In(mask), stats, out, Arg::Size(e.h), factor, half, steep, flag])?;
        let mut pairs = cx.empty(spec(&[e.h, 2])?)?;
        cx.launch(&PAIRS, &mut [Arg::In(k.up_bias), Arg::Out(&mut pairs)])?;
        let mut scaled = cx.empty(spec(&[e.rows, e.k])?)?;
        cx.launch(&SCALED, &mut [Arg::In(k.x), Arg::In(&line), Arg::Out(&mut scaled), Arg::Size(e.k)])?;
        // Xᵀ of both, and Uᵀ of both.
        let transposed = |a: &Tensor, b: &Tensor, rows: usize, n: usize| -> Result<Tensor> {
            let mut out = cx.empty(spec(&[n, e.k])?)?;
            product_transposed(cx, a, b, &mut out, [rows, e.k, n], false)?;
            Ok(out)
        };
        let add = |d: &mut Adjoint, terms: [(&Tensor, &Tensor, usize); 2], rows: usize, n: usize| {
            d.write(cx, |cx, out, add| {
                product(cx, terms[0].0, terms[0].1, out, [rows, n, terms[0].2], add)?;
                product(cx, terms[1].0, terms[1].1, out, [rows, n, terms[1].2], true)
            })
        };
        let [dx, du, dp, ..] = dx else { return Ok(()) };
        if dx.wanted() {
            let square = transposed(k.up, k.up, e.h, e.k)?;
            let both = transposed(&pairs, k.up, e.h, 2)?;
            add(dx, [(&scaled, &square, e.k), (&line, &both, 2)], e.rows, e.k)?;
        }
        let both = transposed(&line, k.x, e.rows, 2)?;
        if du.wanted() {
            let square = transposed(&scaled, k.x, e.rows, e.k)?;
            add(du, [(k.up, &square, e.k), (&pairs, &both, 2)], e.h, e.k)?;
        }
        if dp.wanted() {
            let mut sums = Adjoint::empty(spec(&[2])?);
            axes::sum_to(cx, &line, 1.0, &mut sums)?;
            let Some(sums) = sums.sum() else { return Ok(()) };
            add(dp, [(k.up, &both.rows(1, 1)?, e.k), (&pairs, sums, 2)], e.h, 1)?;
        }
        Ok(())
    }

    /// dθ of a given threshold, from d.
    fn move_threshold(&self, cx: &Cx<'_>, k: &Kept<'_>, d: &Tensor, mask: &Tensor, dtheta: &mut Adjoint) -> Result<()> {
        if !dtheta.wanted() || (self.relu.hard && self.planes() == 1) {
            dtheta.zero();
            return Ok(());
        }
        let (plane, scale) = if self.relu.hard { (1, -self.relu.window()[1]) } else { (0, -1.0) };
        let sums = |cx: &Cx<'_>, out: &mut Tensor, add| self.sums(cx, d, mask, out, [k.e.h, plane], scale, add);
        let shared = dtheta.spec().shape.len() != k.e.h;
        if !self.relu.hard && !shared {
            return dtheta.write(cx, sums);
        }
        let mut each = cx.empty(Spec::new(d.dtype(), &[k.e.h])?)?;
        sums(cx, &mut each, false)?;
        if shared {
            let mut all = Adjoint::empty(dtheta.spec());
            axes::sum_to(cx, &each, 1.0, &mut all)?;
            each = all.sum().cloned().unwrap_or(each);
        }
        if !self.relu.hard {
            return dtheta.add(cx, each);
        }
        // θ times the sum.
        dtheta.write(cx, |cx, out, add| {
            let args = &mut [Arg::In(k.theta), Arg::In(&each), Arg::Out(out), Arg::Flag(add)];
            cx.launch(&activity::PRODUCT, args)
        })
    }

    /// scale·Σ over rows of one plane's units.
    #[allow(clippy::too_many_arguments)]
    fn sums(
        &self,
        cx: &Cx<'_>,
        value: &Tensor,
        mask: &Tensor,
        out: &mut Tensor,
        [h, plane]: [usize; 2],
        scale: f64,
        add: bool,
    ) -> Result<()> {
        let [size, planes, plane] = [h, self.planes(), plane].map(Arg::Size);
        let (scale, flag) = (Arg::Real(scale), Arg::Flag(add));
        cx.launch(&SUMS, &mut [Arg::In(value), Arg::In(mask), Arg::Out(out), size, planes, plane, scale, flag])
    }

    /// Backward by kernels that skip.
    pub(super) fn skip(&self, cx: &Cx<'_>, k: &Kept<'_>, mask: &Tensor, dy: &Tensor, dx: &mut [Adjoint]) -> Result<()> {
        let e = k.e;
        let planes = || Arg::Size(self.planes());
        let outer = |cx: &Cx<'_>, value: &Tensor, z: &Tensor, n: usize, d: &mut Adjoint| {
            d.write(cx, |cx, out, add| {
                let (h, n, flag) = (Arg::Size(e.h), Arg::Size(n), Arg::Flag(add));
                cx.launch(&OUTER, &mut [Arg::In(value), Arg::In(mask), Arg::In(z), Arg::Out(out), h, n, planes(), flag])
            })
        };
        outer(cx, k.value, dy, e.m, &mut dx[3])?;
        axes::sum_to(cx, dy, 1.0, &mut dx[4])?;
        let mut d = cx.empty(k.a.spec())?;
        let (h, m) = (Arg::Size(e.h), Arg::Size(e.m));
        cx.launch(&DOTS, &mut [Arg::In(dy), Arg::In(k.down), Arg::In(mask), Arg::Out(&mut d), h, m, planes()])?;
        dx[0].write(cx, |cx, out, add| {
            rows(cx, [&d, mask, k.up], None, out, [e.h, e.k, self.planes()], add)
        })?;
        outer(cx, &d, k.x, e.k, &mut dx[1])?;
        dx[2].write(cx, |cx, out, add| self.sums(cx, &d, mask, out, [e.h, 0], 1.0, add))?;
        match dx.get_mut(5) {
            Some(dtheta) => self.move_threshold(cx, k, &d, mask, dtheta),
            None if self.relu.hard && self.planes() == 1 => Ok(()),
            None => self.move_rows(cx, k, &d, mask, dx),
        }
    }
}

/// y = Σ over active units of value·w (+ bias).
pub(super) fn rows(
    cx: &Cx<'_>,
    [value, mask, w]: [&Tensor; 3],
    bias: Option<&Tensor>,
    y: &mut Tensor,
    extents: [usize; 3],
    add: bool,
) -> Result<()> {
    let [h, n, planes] = extents.map(Arg::Size);
    let bias = bias.map_or(Arg::Absent, Arg::In);
    let (y, flag) = (Arg::Out(y), Arg::Flag(add));
    cx.launch(&ROWS, &mut [Arg::In(value), Arg::In(mask), Arg::In(w), bias, y, h, n, planes, flag])
}

/// out [rows, n] (+)= a [rows, m]·b [m, n].
pub(super) fn product(
    cx: &Cx<'_>,
    a: &Tensor,
    b: &Tensor,
    out: &mut Tensor,
    [rows, n, m]: [usize; 3],
    add: bool,
) -> Result<()> {
    let kernels = [&linear::BACKWARD_INPUT, &linear::BACKWARD_INPUT_ROUNDED];
    let [r, n, m] = [rows, n, m].map(Arg::Size);
    cx.launch_rounding(kernels, [Arg::In(a), Arg::In(b), Arg::Out(out), r, n, m, Arg::Flag(add)])
}

/// out [m, n] (+)= aᵀ·b, a [rows, m], b [rows, n].
pub(super) fn product_transposed(
    cx: &Cx<'_>,
    a: &Tensor,
    b: &Tensor,
    out: &mut Tensor,
    [rows, n, m]: [usize; 3],
    add: bool,
) -> Result<()> {
    linear::backward_weight(cx, a, b, out, [rows, n, m], add)
}
