//! Forward on the CPU: a tile of 64 queries streams over the tiles of keys that any of them sees.

use super::sight::{Rules, Sight, TILE, Windows};
use crate::kernel::gemm::{self, View, ViewMut};
use crate::kernel::{Real, lanes, par};
use crate::vectorized;
use rayon::prelude::*;

/// Tiles of queries of one unit of work.
const TILES: usize = 4;

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
    let (unit, some) = (TILES * TILE * r.d, TILES * TILE);
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

/// Output and log-sum of the queries from `first` on, at most [`TILES`] tiles of them.
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
    let (d, tile) = (r.d, TILE * r.d);
    let (mut scores, mut rows, mut sum) = ([T::ZERO; TILE * TILE], vec![T::ZERO; tile], vec![T::ZERO; tile]);
    let mut sight = Sight::new(r);
    o.fill(T::ZERO);
    let tiles = q.chunks(tile).zip(o.chunks_mut(tile)).zip(log_sum.chunks_mut(TILE));
    for (n, ((q, o), log_sum)) in tiles.enumerate() {
        let mut state = State::new();
        sight.begin(r, w, first + n * TILE, log_sum.len());
        while let Some(t) = sight.next(r) {
            let (count, cols) = (sight.rows.len(), r.cols(t));
            let q = gather(q, &sight.rows, d, &mut rows);
            score(&sight.seen, q, columns(r, keys, t), r.scale, &mut scores);
            state.stream(&mut scores, &sight);
            let values = View::new(&v[t * r.tile * d..][..cols * d], cols, d);
            let p = View::strided(&scores, count, cols, TILE, 1);
            if let Some(start) = consecutive(&sight.rows) {
                let o = &mut o[start * d..][..count * d];
                o.chunks_exact_mut(d).zip(&state.factor).for_each(|(o, &c)| scale_row(o, c));
                T::gemm(p, values, T::ONE, true, ViewMut::new(o, count, d));
            } else {
                T::gemm(p, values, T::ONE, false, ViewMut::new(&mut sum[..count * d], count, d));
                for ((sum, &i), &c) in sum.chunks_exact(d).zip(&sight.rows).zip(&state.factor) {
                    scale_add(&mut o[i * d..][..d], c, sum);
                }
            }
        }
        for (i, (o, log_sum)) in o.chunks_exact_mut(d).zip(log_sum).enumerate() {
            // A query that sees nothing gives 0.
            let sum = state.sum[i];
            scale_row(o, if sum == T::ZERO { T::ZERO } else { T::ONE / sum });
            *log_sum = if sum == T::ZERO { T::NEG_INFINITY } else { state.max[i] + sum.ln() };
        }
    }
}

/// The first of `rows` when they are consecutive.
pub(super) fn consecutive(rows: &[usize]) -> Option<usize> {
    let (first, last) = (*rows.first()?, *rows.last()?);
    (last - first + 1 == rows.len()).then_some(first)
}

/// Rows of `x` side by side: as they lie where they are consecutive, else copied to `memory`.
pub(super) fn gather<'a, T: Real>(x: &'a [T], rows: &[usize], d: usize, memory: &'a mut [T]) -> &'a [T] {
    if let Some(start) = consecutive(rows) {
        return &x[start * d..][..rows.len() * d];
    }
    for (to, &i) in memory.chunks_exact_mut(d).zip(rows) {
        to.copy_from_slice(&x[i * d..][..d]);
    }
    &memory[..rows.len() * d]
}

/// scale·X·Y for rows X and a tile Y of columns, into rows of [`TILE`] numbers. Where no row sees the whole tile, only
/// what sixteen rows together see is computed.
pub(super) fn score<T: Real>(seen: &[(usize, usize)], x: &[T], y: View<'_, T>, scale: T, s: &mut [T]) {
    let (rows, cols) = (seen.len(), y.cols());
    let d = x.len() / rows.max(1);
    let step = if seen.iter().all(|s| *s == (0, cols)) { TILE } else { 16 };
    for i in (0..rows).step_by(step) {
        let seen = &seen[i..rows.min(i + step)];
        let start = seen.iter().map(|s| s.0).min().unwrap_or(0) / 16 * 16;
        let end = seen.iter().map(|s| s.1).max().unwrap_or(0).next_multiple_of(16).min(cols);
        let x = View::new(&x[i * d..][..seen.len() * d], seen.len(), d);
        let to = ViewMut::pitched(&mut s[i * TILE + start..], seen.len(), end - start, TILE);
        T::gemm(x, y.columns(start, end - start), scale, false, to);
    }
}

/// The running softmax of a tile of queries.
struct State<T> {
    max: [T; TILE],
    sum: [T; TILE],
    /// By what the last tile of keys shrank what was summed before, of each row that saw it.
    factor: [T; TILE],
}

impl<T: Real> State<T> {
    fn new() -> State<T> {
        State { max: [T::NEG_INFINITY; TILE], sum: [T::ZERO; TILE], factor: [T::ONE; TILE] }
    }

    /// Turns the scores of one tile of keys into μ·e^{s − max'}, 0 where nothing is seen.
    fn stream(&mut self, s: &mut [T], sight: &Sight<T>) {
        let count = sight.rows.len();
        let (mut max, mut sum) = ([T::NEG_INFINITY; TILE], [T::ZERO; TILE]);
        for (k, &i) in sight.rows.iter().enumerate() {
            (max[k], sum[k]) = (self.max[i], self.sum[i]);
        }
        let (max_now, sum_now) = (&mut max[..count], &mut sum[..count]);
        stream(s, &sight.seen, &sight.weights, max_now, sum_now, &mut self.factor);
        for (k, &i) in sight.rows.iter().enumerate() {
            (self.max[i], self.sum[i]) = (max[k], sum[k]);
        }
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
