//! Forward on the CPU: a tile of 64 queries streams over the tiles of keys in its windows, then the queries of some tiles
//! together over the blocks that any of them is routed to.

use super::sight::{Routed, Rules, Seen, Sight, TILE, Windows};
use crate::kernel::gemm::{self, View, ViewMut};
use crate::kernel::{Real, lanes, par};
use crate::vectorized;
use rayon::prelude::*;

/// Every tile of `x` [heads, Tk, d] transposed, in its own place: [d, keys of the tile].
pub(super) fn turn<T: Real>(r: &Rules<T>, x: &[T], y: &mut [T]) {
    let (head, tile) = (r.tk * r.d, r.tile * r.d);
    let one = |x: &[T], y: &mut [T]| gemm::transpose(View::transposed(x, r.d, x.len() / r.d), y);
    let heads = x.chunks(head).zip(y.chunks_mut(head));
    if par::worthwhile(x.len() / 4) {
        let heads = x.par_chunks(head).zip(y.par_chunks_mut(head));
        heads.for_each(|(x, y)| {
            x.par_chunks(tile).zip(y.par_chunks_mut(tile)).for_each(|(x, y)| one(x, y));
        });
    } else {
        heads.for_each(|(x, y)| x.chunks(tile).zip(y.chunks_mut(tile)).for_each(|(x, y)| one(x, y)));
    }
}

/// A tile of keys or values with tokens as columns.
pub(super) fn columns<'a, T: Real>(r: &Rules<T>, turned: &'a [T], t: usize) -> View<'a, T> {
    let cols = r.cols(t);
    View::new(&turned[t * r.tile * r.d..][..cols * r.d], r.d, cols)
}

#[allow(clippy::too_many_arguments)]
pub(super) fn dynamic_attention_forward<T: Real>(
    q: &[T],
    k: &[T],
    v: &[T],
    span: &[T],
    blocks: &[i32],
    center: &[T],
    width: &[T],
    turned: &mut [T],
    o: &mut [T],
    log_sum: &mut [T],
    extents: &[usize],
    ramp: T,
    causal: bool,
    gaussian: bool,
) {
    let r = Rules::new(extents, ramp, causal, gaussian);
    if o.is_empty() {
        return;
    }
    let (nq, nk) = (r.tq * r.d, r.tk * r.d);
    if nk > 0 {
        turn(&r, k, turned);
    }
    let windows = Windows { span, blocks, center, width };
    let some = r.unit(o.len() / nq);
    let unit = some * r.d;
    let run = |h: usize, i: usize, o: &mut [T], sum: &mut [T]| {
        let (at, w) = (h / r.group * nk, windows.head(h, &r));
        let q = &q[h * nq + i * unit..][..o.len()];
        forward_queries(&r, &w, i * some, q, &turned[at..][..nk], &v[at..][..nk], o, sum);
    };
    if par::worthwhile(o.len() / nq * r.work()) {
        let jobs = o.par_chunks_mut(nq).zip(log_sum.par_chunks_mut(r.tq)).enumerate();
        jobs.for_each(|(h, (o, sum))| {
            let units = o.par_chunks_mut(unit).zip(sum.par_chunks_mut(some)).enumerate();
            units.for_each(|(i, (o, sum))| run(h, i, o, sum));
        });
    } else {
        for (h, (o, sum)) in o.chunks_mut(nq).zip(log_sum.chunks_mut(r.tq)).enumerate() {
            o.chunks_mut(unit).zip(sum.chunks_mut(some)).enumerate().for_each(|(i, (o, sum))| run(h, i, o, sum));
        }
    }
}

/// Output and log-sum of the queries from `first` on.
#[allow(clippy::too_many_arguments)]
fn forward_queries<T: Real>(
    r: &Rules<T>,
    w: &Windows<'_, T>,
    first: usize,
    q: &[T],
    keys: &[T],
    v: &[T],
    o: &mut [T],
    log_sum: &mut [T],
) {
    let n = log_sum.len();
    // ANCHOR: unit
    let mut unit = Unit::new(r, [q, keys, v], o, n);
    let mut sight = Sight::new(r);
    for start in (0..n).step_by(TILE) {
        sight.begin(r, w, first, start, TILE.min(n - start));
        while let Some(t) = sight.next(r, w) {
            unit.see(r, t, &sight.seen());
        }
    }
    Routed::new(r, w, first, n).each(r, first, |t, seen| unit.see(r, t, seen));
    // ANCHOR_END: unit
    let Unit { max, sum, .. } = unit;
    for (i, (o, log_sum)) in o.chunks_exact_mut(r.d).zip(log_sum).enumerate() {
        // A query that sees nothing gives 0.
        scale_row(o, if sum[i] == T::ZERO { T::ZERO } else { T::ONE / sum[i] });
        *log_sum = if sum[i] == T::ZERO { T::NEG_INFINITY } else { max[i] + sum[i].ln() };
    }
}

/// The running softmax of a unit of queries.
struct Unit<'a, T> {
    q: &'a [T],
    /// Keys with tokens as columns, and values as they lie.
    keys: &'a [T],
    v: &'a [T],
    o: &'a mut [T],
    max: Vec<T>,
    sum: Vec<T>,
    scores: [T; TILE * TILE],
    /// Rows gathered, and sums of rows that do not lie side by side.
    rows: Vec<T>,
    sums: Vec<T>,
}

impl<'a, T: Real> Unit<'a, T> {
    fn new(r: &Rules<T>, [q, keys, v]: [&'a [T]; 3], o: &'a mut [T], n: usize) -> Unit<'a, T> {
        o.fill(T::ZERO);
        let (rows, sums, scores) = (vec![T::ZERO; TILE * r.d], vec![T::ZERO; TILE * r.d], [T::ZERO; TILE * TILE]);
        Unit { q, keys, v, o, max: vec![T::NEG_INFINITY; n], sum: vec![T::ZERO; n], scores, rows, sums }
    }

    /// Adds what rows see of tile `t` of the keys.
    fn see(&mut self, r: &Rules<T>, t: usize, seen: &Seen<'_, T>) {
        let (d, count, cols) = (r.d, seen.rows.len(), r.cols(t));
        let q = gather(self.q, seen.rows, d, &mut self.rows);
        score(seen.keys, q, d, columns(r, self.keys, t), r.scale, &mut self.scores);
        let (mut max, mut sum) = ([T::NEG_INFINITY; TILE], [T::ZERO; TILE]);
        for (k, &i) in seen.rows.iter().enumerate() {
            (max[k], sum[k]) = (self.max[i], self.sum[i]);
        }
        // By what each row's sums so far shrink.
        let mut factor = [T::ONE; TILE];
        stream(&mut self.scores, seen.keys, seen.weights, &mut max[..count], &mut sum[..count], &mut factor);
        for (k, &i) in seen.rows.iter().enumerate() {
            (self.max[i], self.sum[i]) = (max[k], sum[k]);
        }
        let values = View::new(&self.v[t * r.tile * d..][..cols * d], cols, d);
        if let Some(start) = consecutive(seen.rows).filter(|_| count > 1) {
            let o = &mut self.o[start * d..][..count * d];
            o.chunks_exact_mut(d).zip(&factor).for_each(|(o, &c)| scale_row(o, c));
            let p = View::strided(&self.scores, count, cols, TILE, 1);
            T::gemm(p, values, T::ONE, true, ViewMut::new(o, count, d));
            return;
        }
        // Two rows at least: see `gather`.
        self.scores[count * TILE..].iter_mut().take(if count == 1 { TILE } else { 0 }).for_each(|p| *p = T::ZERO);
        let wide = count.max(2);
        let p = View::strided(&self.scores, wide, cols, TILE, 1);
        T::gemm(p, values, T::ONE, false, ViewMut::new(&mut self.sums[..wide * d], wide, d));
        for ((sum, &i), &c) in self.sums.chunks_exact(d).zip(seen.rows).zip(&factor) {
            scale_add(&mut self.o[i * d..][..d], c, sum);
        }
    }
}

/// The first of `rows` when they are consecutive.
pub(super) fn consecutive(rows: &[usize]) -> Option<usize> {
    let (first, last) = (*rows.first()?, *rows.last()?);
    (last - first + 1 == rows.len()).then_some(first)
}

/// Rows of `x` side by side: as they lie where they are consecutive, else copied to `memory`. A single row gets one of zeros
/// behind it: products of one row have an order of their own, and whether a row is alone may depend on later tokens.
pub(super) fn gather<'a, T: Real>(x: &'a [T], rows: &[usize], d: usize, memory: &'a mut [T]) -> &'a [T] {
    if let Some(start) = consecutive(rows).filter(|_| rows.len() > 1) {
        return &x[start * d..][..rows.len() * d];
    }
    for (to, &i) in memory.chunks_exact_mut(d).zip(rows) {
        to.copy_from_slice(&x[i * d..][..d]);
    }
    if rows.len() == 1 {
        memory[d..2 * d].fill(T::ZERO);
    }
    &memory[..rows.len().max(2) * d]
}

/// scale·X·Y for rows X, two at least, of `d` numbers, and a tile Y of columns, into rows of [`TILE`] numbers. Where no row sees
/// the whole tile, only what sixteen rows together see is computed.
pub(super) fn score<T: Real>(seen: &[(usize, usize)], x: &[T], d: usize, y: View<'_, T>, scale: T, s: &mut [T]) {
    let (rows, cols) = (x.len() / d, y.cols());
    let step = if seen.iter().all(|s| *s == (0, cols)) { TILE } else { 16 };
    for i in (0..rows).step_by(step) {
        // A last row alone is done together with the one before it.
        let i = if i > 0 && i + 1 == rows { i - 1 } else { i };
        let high = step.min(rows - i);
        let seen = &seen[i.min(seen.len())..seen.len().min(i + step)];
        let start = seen.iter().map(|s| s.0).min().unwrap_or(0) / 16 * 16;
        let end = seen.iter().map(|s| s.1).max().unwrap_or(0).next_multiple_of(16).min(cols);
        let x = View::new(&x[i * d..][..high * d], high, d);
        let to = ViewMut::pitched(&mut s[i * TILE + start..], high, end - start, TILE);
        T::gemm(x, y.columns(start, end - start), scale, false, to);
    }
}

vectorized! {
    fn stream<T: Real>(
        s: &mut [T], seen: &[(usize, usize)], weights: &[T], max: &mut [T], sum: &mut [T], factor: &mut [T; TILE],
    ) {
        let rows = &mut s.as_chunks_mut::<TILE>().0[..max.len()];
        let weights = weights.as_chunks::<TILE>().0;
        for (i, row) in rows.iter_mut().enumerate() {
            let (start, end) = seen[i];
            if start > 0 {
                row[..start].fill(T::NEG_INFINITY);
            }
            if end < TILE {
                row[end..].fill(T::NEG_INFINITY);
            }
            if let Some(weights) = weights.get(i) {
                for l in 0..TILE {
                    row[l] = if weights[l] == T::ZERO { T::NEG_INFINITY } else { row[l] };
                }
            }
            let m = lanes::max_number(row);
            let m = if m > max[i] { m } else { max[i] };
            // A row that saw nothing yet keeps -inf: its factor is 0, not e^{-inf + inf}.
            factor[i] = if m == T::NEG_INFINITY { T::NEG_INFINITY } else { max[i] - m };
            max[i] = m;
        }
        for c in factor[..max.len()].iter_mut() {
            *c = c.exp_nonpositive();
        }
        for (i, row) in rows.iter_mut().enumerate() {
            let m = if max[i] == T::NEG_INFINITY { T::ZERO } else { max[i] };
            for x in row.iter_mut() {
                *x = (*x - m).exp_nonpositive();
            }
            if let Some(weights) = weights.get(i) {
                for l in 0..TILE {
                    row[l] *= weights[l];
                }
            }
            sum[i] = sum[i] * factor[i] + lanes::sum_by(TILE, |l| row[l]);
        }
    }

    fn scale_row<T: Real>(x: &mut [T], c: T) {
        for x in x {
            *x *= c;
        }
    }

    fn scale_add<T: Real>(y: &mut [T], c: T, x: &[T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = *y * c + x;
        }
    }
}
