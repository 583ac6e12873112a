//! Backward on the CPU: the scores of each tile that forward saw are made again from the log-sums.

use super::forward::{columns, consecutive, gather, score, turn};
use super::sight::{Routed, Row, Rules, Seen, Sight, TILE, Windows, bell, slope};
use crate::kernel::gemm::{View, ViewMut};
use crate::kernel::{Real, lanes, par};
use crate::vectorized;
use rayon::prelude::*;

/// What backward reads of the query heads that share one key head.
struct Queries<'a, T> {
    q: &'a [T],
    o: &'a [T],
    log_sum: &'a [T],
    d_o: &'a [T],
}

impl<'a, T> Queries<'a, T> {
    /// Those of key head `j`: `rows` queries, `wide` numbers together.
    fn of(&self, j: usize, wide: usize, rows: usize) -> Queries<'a, T> {
        let part = |x: &'a [T], n: usize| &x[j * n..][..n];
        let (q, o, d_o) = (part(self.q, wide), part(self.o, wide), part(self.d_o, wide));
        Queries { q, o, log_sum: part(self.log_sum, rows), d_o }
    }
}

/// What it writes for them.
struct Gradients<'a, T> {
    dq: &'a mut [T],
    span: &'a mut [T],
    center: &'a mut [T],
    width: &'a mut [T],
    dk: &'a mut [T],
    dv: &'a mut [T],
}

/// Keys and values of a head: as they lie, and with tokens as columns.
struct Keys<'a, T> {
    k: &'a [T],
    k_turned: &'a [T],
    v_turned: &'a [T],
}

#[allow(clippy::too_many_arguments)]
pub(super) fn dynamic_attention_backward<T: Real>(
    q: &[T],
    k: &[T],
    v: &[T],
    span: &[T],
    blocks: &[i32],
    center: &[T],
    width: &[T],
    o: &[T],
    log_sum: &[T],
    d_o: &[T],
    _table: &[i32],
    turned: &mut [T],
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
    d_span: &mut [T],
    d_center: &mut [T],
    d_width: &mut [T],
    extents: &[usize],
    ramp: T,
    causal: bool,
    gaussian: bool,
) {
    let r = Rules::new(extents, ramp, causal, gaussian);
    for out in [&mut *dq, &mut *dk, &mut *dv, &mut *d_span, &mut *d_center, &mut *d_width] {
        out.fill(T::ZERO);
    }
    let (nq, nk) = (r.tq * r.d, r.tk * r.d);
    if nq == 0 || nk == 0 {
        return;
    }
    let (k_turned, v_turned) = turned.split_at_mut(k.len());
    turn(&r, k, k_turned);
    turn(&r, v, v_turned);
    let windows = Windows { span, blocks, center, width };
    // One job is one key head with the query heads that share it: it alone writes their gradients.
    let (wide, rows) = (nq * r.group, r.tq * r.group);
    let job = |j: usize, mut g: Gradients<'_, T>| {
        let x = Queries { q, o, log_sum, d_o }.of(j, wide, rows);
        let at = j * nk..(j + 1) * nk;
        let keys = Keys { k: &k[at.clone()], k_turned: &k_turned[at.clone()], v_turned: &v_turned[at] };
        for h in 0..r.group {
            backward_head(&r, &windows.head(j * r.group + h, &r), h, &x, &keys, &mut g);
        }
    };
    let mut jobs = Vec::with_capacity(k.len() / nk);
    // A second window that is not there has no gradients: then each job gets an empty part of them.
    let mut pieces = d_center.chunks_mut(rows).zip(d_width.chunks_mut(rows));
    let all = dq.chunks_mut(wide).zip(d_span.chunks_mut(rows)).zip(dk.chunks_mut(nk).zip(dv.chunks_mut(nk)));
    for ((dq, span), (dk, dv)) in all {
        let (center, width) = pieces.next().unwrap_or_default();
        jobs.push(Gradients { dq, span, center, width, dk, dv });
    }
    if par::worthwhile(3 * r.work() * jobs.len() * r.group) {
        jobs.into_par_iter().enumerate().for_each(|(j, g)| job(j, g));
    } else {
        jobs.into_iter().enumerate().for_each(|(j, g)| job(j, g));
    }
}

/// Memory of one job.
struct Scratch<T> {
    p: [T; TILE * TILE],
    ds: [T; TILE * TILE],
    /// Gradient of μ, where a tile has weights.
    dm: [T; TILE * TILE],
    q: Vec<T>,
    d_o: Vec<T>,
    sum: Vec<T>,
}

/// Gradients of query head `h` of those that share the keys.
fn backward_head<T: Real>(
    r: &Rules<T>,
    w: &Windows<'_, T>,
    h: usize,
    x: &Queries<'_, T>,
    keys: &Keys<'_, T>,
    g: &mut Gradients<'_, T>,
) {
    let (d, some) = (r.d, || vec![T::ZERO; TILE * r.d]);
    let zeros = [T::ZERO; TILE * TILE];
    let mut m = Scratch { p: zeros, ds: zeros, dm: zeros, q: some(), d_o: some(), sum: some() };
    let mut sight = Sight::new(r);
    let together = r.together();
    for first in (0..r.tq).step_by(together) {
        let rows = together.min(r.tq - first);
        let n = h * r.tq + first;
        let [q, d_o, o] = [x.q, x.d_o, x.o].map(|x| &x[n * d..][..rows * d]);
        let delta: Vec<T> = d_o.chunks_exact(d).zip(o.chunks_exact(d)).map(|(d_o, o)| dot(d_o, o)).collect();
        let unit = Unit { q, d_o, log_sum: &x.log_sum[n..][..rows], delta: &delta, keys };
        for start in (0..rows).step_by(TILE) {
            sight.begin(r, w, first, start, TILE.min(rows - start));
            while let Some(t) = sight.next(r, w) {
                let seen = sight.seen();
                let out = [&mut g.dq[n * d..][..rows * d], &mut *g.dk, &mut *g.dv];
                unit.see(r, t, &seen, out, &mut m);
                let weighed = if seen.weights.is_empty() { 0 } else { seen.rows.len() };
                for (dm, (i, row)) in m.dm.as_chunks::<TILE>().0.iter().zip(sight.windows()).take(weighed) {
                    g.span[n + i] += span_gradient(r, row, t * r.tile, dm);
                    if let (Some(dc), Some(dw)) = (g.center.get_mut(n + i), g.width.get_mut(n + i)) {
                        place_gradient(r, row, t * r.tile, dm, dc, dw);
                    }
                }
            }
        }
        Routed::new(r, w, first, rows).each(r, first, |t, seen| {
            unit.see(r, t, seen, [&mut g.dq[n * d..][..rows * d], &mut *g.dk, &mut *g.dv], &mut m);
        });
    }
}

/// What backward reads for a unit of queries.
struct Unit<'a, T> {
    q: &'a [T],
    d_o: &'a [T],
    log_sum: &'a [T],
    delta: &'a [T],
    keys: &'a Keys<'a, T>,
}

impl<T: Real> Unit<'_, T> {
    /// Adds what rows see of tile `t` of the keys to dq of the unit and dk and dv of the head; leaves dμ of each row in `m.dm`
    /// when there are weights.
    fn see(
        &self,
        r: &Rules<T>,
        t: usize,
        seen: &Seen<'_, T>,
        [dq, dk, dv]: [&mut [T]; 3],
        m: &mut Scratch<T>,
    ) {
        let (count, d, cols) = (seen.rows.len(), r.d, r.cols(t));
        let tile = t * r.tile * d..(t * r.tile + cols) * d;
        let q = gather(self.q, seen.rows, d, &mut m.q);
        let d_o = gather(self.d_o, seen.rows, d, &mut m.d_o);
        score(seen.keys, q, d, columns(r, self.keys.k_turned, t), r.scale, &mut m.p);
        score(seen.keys, d_o, d, columns(r, self.keys.v_turned, t), T::ONE, &mut m.ds);
        let (mut sums, mut deltas) = ([T::ZERO; TILE], [T::ZERO; TILE]);
        for (k, &i) in seen.rows.iter().enumerate() {
            (sums[k], deltas[k]) = (self.log_sum[i], self.delta[i]);
        }
        backward_rows(&mut m.p, &mut m.ds, &mut m.dm, seen.keys, [&sums, &deltas], seen.weights);
        let (q, d_o) = (View::new(&q[..count * d], count, d), View::new(&d_o[..count * d], count, d));
        let turned = |m| View::strided(m, cols, count, 1, TILE);
        T::gemm(turned(&m.p), d_o, T::ONE, true, ViewMut::new(&mut dv[tile.clone()], cols, d));
        T::gemm(turned(&m.ds), q, r.scale, true, ViewMut::new(&mut dk[tile.clone()], cols, d));
        let (ds, k) = (View::strided(&m.ds, count, cols, TILE, 1), View::new(&self.keys.k[tile], cols, d));
        if let Some(start) = consecutive(seen.rows) {
            T::gemm(ds, k, r.scale, true, ViewMut::new(&mut dq[start * d..][..count * d], count, d));
        } else {
            T::gemm(ds, k, r.scale, false, ViewMut::new(&mut m.sum[..count * d], count, d));
            for (sum, &i) in m.sum.chunks_exact(d).zip(seen.rows) {
                add_row(&mut dq[i * d..][..d], sum);
            }
        }
    }
}

vectorized! {
    /// P = μ·e^{S − L} in place (0 beyond what a row saw), dS = P∘(dP − D) in place of dP, and dμ = e^{S − L}∘(dP − D)
    /// where there are weights: without a division by μ, which may be tiny.
    fn backward_rows<T: Real>(
        p: &mut [T], dp: &mut [T], dm: &mut [T], seen: &[(usize, usize)], sums: [&[T; TILE]; 2], weights: &[T],
    ) {
        let rows = p.as_chunks_mut::<TILE>().0.iter_mut().zip(dp.as_chunks_mut::<TILE>().0);
        let weights = weights.as_chunks::<TILE>().0;
        for (i, ((p, dp), dm)) in rows.zip(dm.as_chunks_mut::<TILE>().0).enumerate().take(seen.len()) {
            let (start, end) = seen[i];
            p[..start].fill(T::NEG_INFINITY);
            dp[..start].fill(T::ZERO);
            p[end..].fill(T::NEG_INFINITY);
            dp[end..].fill(T::ZERO);
            let (log_sum, delta) = (sums[0][i], sums[1][i]);
            let Some(weights) = weights.get(i) else {
                for l in 0..TILE {
                    p[l] = (p[l] - log_sum).exp();
                    dp[l] = p[l] * (dp[l] - delta);
                }
                continue;
            };
            // ANCHOR: gradient
            // A query may see keys of weight 0 only.
            let log_sum = if log_sum == T::NEG_INFINITY { T::ZERO } else { log_sum };
            for l in 0..TILE {
                let s = if weights[l] == T::ZERO { T::NEG_INFINITY } else { p[l] - log_sum };
                p[l] = s.exp();
                dm[l] = p[l] * (dp[l] - delta);
                p[l] *= weights[l];
                dp[l] = p[l] * (dp[l] - delta);
            }
            // ANCHOR_END: gradient
        }
    }

    /// Σ dμ/R over the ramp of the first window, where that decides μ.
    fn span_gradient<T: Real>(r: &Rules<T>, row: &Row<T>, start: usize, dm: &[T; TILE]) -> T {
        let inverse = T::ONE / r.ramp;
        if row.span == T::ZERO {
            return T::ZERO; // 0 or below: held there
        }
        lanes::sum_by(TILE, |l| {
            let j = T::of((start + l) as f64);
            let m = slope((row.at - j).abs(), row.span, r.ramp, inverse);
            let ramps = m > T::ZERO && m < T::ONE && place(r, row, j).0 <= m;
            if ramps { dm[l] * inverse } else { T::ZERO }
        })
    }

    /// Adds the gradients of place and width of the second window, where that decides μ.
    fn place_gradient<T: Real>(r: &Rules<T>, row: &Row<T>, start: usize, dm: &[T; TILE], dc: &mut T, dw: &mut T) {
        let inverse = T::ONE / r.ramp;
        let of = |l: usize| {
            let j = T::of((start + l) as f64);
            let (m, slopes) = place(r, row, j);
            let size = slope((row.at - j).abs(), row.span, r.ramp, inverse);
            let [c, w] = slopes;
            if m > size { [dm[l] * c, dm[l] * w] } else { [T::ZERO; 2] }
        };
        *dc += lanes::sum_by(TILE, |l| of(l)[0]);
        if row.width > T::ZERO {
            *dw += lanes::sum_by(TILE, |l| of(l)[1]);
        }
    }

    fn add_row<T: Real>(y: &mut [T], x: &[T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    fn dot<T: Real>(x: &[T], y: &[T]) -> T {
        lanes::sum_by(x.len(), |i| x[i] * y[i])
    }
}

/// μ of the second window for key `j`, and its slopes along center and width.
#[inline(always)]
fn place<T: Real>(r: &Rules<T>, row: &Row<T>, j: T) -> (T, [T; 2]) {
    let (x, none) = (row.center - j, [T::ZERO; 2]);
    if !row.has_place() {
        return (T::ZERO, none);
    }
    if r.gaussian {
        let (m, g) = bell(x, row.width);
        let g = g / (row.width * row.width);
        return (m, if m > T::ZERO { [-g * x, g * x * x / row.width] } else { none });
    }
    let inverse = T::ONE / r.ramp;
    let m = slope(x.abs(), row.width, r.ramp, inverse);
    let side = if x > T::ZERO { -inverse } else { inverse };
    (m, if m > T::ZERO && m < T::ONE { [side, inverse] } else { none })
}
