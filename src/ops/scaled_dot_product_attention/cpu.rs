//! Attention on the CPU: tiles of 64 queries against tiles of 64 keys, whose scores never leave the cache.

use crate::kernel::gemm::{self, View, ViewMut};
use crate::kernel::{Real, par, lanes};
use crate::vectorized;
use rayon::prelude::*;

/// Queries and keys of one tile: its scores fit the L1 cache. Where there are at most 16 or 32 keys a tile is that wide, which
/// changes no bit: what it leaves out is 0.
const TILE: usize = 64;
/// Tiles of queries that share one pass over the keys, at most.
const TILES: usize = 4;

/// Extents of one head.
#[derive(Clone, Copy)]
struct Head<'a, T> {
    tq: usize,
    tk: usize,
    d: usize,
    causal: bool,
    scale: T,
    /// How many keys each query sees, none fewer than the query before; empty without a mask.
    limits: &'a [i32],
}

impl<'a, T: Real> Head<'a, T> {
    fn new(extents: &[usize], causal: bool) -> (Head<'a, T>, usize) {
        let (tq, tk, d, group) = (extents[0], extents[1], extents[2], extents[3]);
        (Head { tq, tk, d, causal, scale: T::of(1.0 / (d as f64).sqrt()), limits: &[] }, group)
    }
    /// The same for head `h`, whose part of `seen` says what its queries see.
    fn of(self, h: usize, seen: &'a [i32]) -> Head<'a, T> {
        Head { limits: if seen.is_empty() { seen } else { &seen[h * self.tq..][..self.tq] }, ..self }
    }
    /// Keys of a tile, and numbers from row to row of its scores.
    fn width(&self) -> usize {
        self.tk.next_power_of_two().clamp(16, TILE)
    }
    /// Keys from `start` on, at most a tile, that query `i` sees.
    fn seen(&self, i: usize, start: usize) -> usize {
        let all = TILE.min(self.tk - start);
        match self.limits.get(i) {
            Some(&limit) => (limit as usize).saturating_sub(start).min(all),
            None if self.causal => (i + 1).saturating_sub(start).min(all),
            None => all,
        }
    }
    /// Work of one head in about nanoseconds.
    fn work(&self) -> usize {
        self.tq * self.tk * self.d / if self.causal { 32 } else { 16 }
    }
    /// scale·X·Yᵀ for queries X from `first` on and a tile of keys or values as `y`, into rows of `width` numbers. Where
    /// the diagonal crosses the tile, only as much of it as queries see is computed.
    fn scores(&self, x: &[T], y: &Columns<'_, T>, (first, start): (usize, usize), scale: T, s: &mut [T]) {
        let (rows, width) = (x.len() / self.d, self.width());
        let step = if self.seen(first, start) < y.cols { 16 } else { TILE };
        for i in (0..rows).step_by(step) {
            let high = step.min(rows - i);
            let cols = self.seen(first + i + high - 1, start).next_multiple_of(16).min(y.cols);
            let x = View::new(&x[i * self.d..][..high * self.d], high, self.d);
            T::gemm(x, y.view(cols), scale, false, ViewMut::pitched(&mut s[i * width..], high, cols, width));
        }
    }
}

/// A tile of keys or values with tokens as columns: transposed once for all queries that meet it, where it is small.
struct Columns<'a, T> {
    rows: &'a [T],
    turned: &'a [T],
    cols: usize,
    d: usize,
}

/// Widest rows of a tile that is transposed beforehand.
const TURNED: usize = 128;

impl<'a, T: Real> Columns<'a, T> {
    fn new(rows: &'a [T], d: usize, memory: &'a mut [T]) -> Self {
        let cols = rows.len() / d;
        let fits = rows.len() <= memory.len();
        if fits {
            gemm::transpose(View::transposed(rows, d, cols), &mut memory[..rows.len()]);
        }
        Columns { rows, turned: &memory[..if fits { rows.len() } else { 0 }], cols, d }
    }
    /// The first `cols` tokens, as columns.
    fn view(&self, cols: usize) -> View<'a, T> {
        match self.turned {
            [] => View::transposed(&self.rows[..cols * self.d], self.d, cols),
            turned => View::strided(turned, self.d, cols, self.cols, 1),
        }
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn attention_forward<T: Real>(
    q: &[T],
    k: &[T],
    v: &[T],
    seen: &[i32],
    o: &mut [T],
    log_sum: &mut [T],
    extents: &[usize],
    causal: bool,
) {
    let (head, group) = Head::new(extents, causal);
    let (nq, nk) = (head.tq * head.d, head.tk * head.d);
    if o.is_empty() {
        return;
    }
    let heads = o.len() / nq;
    let parallel = par::worthwhile(heads * head.work());
    // One unit of work is some tiles of queries of one head: enough units for any number of threads, whatever B and H.
    let wanted = if parallel { 4 * rayon::current_num_threads() } else { 1 };
    let tiles = (heads * head.tq.div_ceil(TILE) / wanted).clamp(1, TILES);
    let (unit, some) = (tiles * TILE * head.d, tiles * TILE);
    let run = |h: usize, i: usize, o: &mut [T], sum: &mut [T]| {
        let (q, kv) = (&q[h * nq + i * unit..][..o.len()], h / group * nk);
        let (head, k, v) = (head.of(h, seen), &k[kv..][..nk], &v[kv..][..nk]);
        match head.width() {
            16 => forward_queries::<T, { TILE * 16 }, { TURNED * 16 }>(head, i * some, q, k, v, o, sum),
            32 => forward_queries::<T, { TILE * 32 }, { TURNED * 32 }>(head, i * some, q, k, v, o, sum),
            _ => forward_queries::<T, { TILE * TILE }, { TURNED * TILE }>(head, i * some, q, k, v, o, sum),
        }
    };
    if parallel {
        let jobs = o.par_chunks_mut(nq).zip(log_sum.par_chunks_mut(head.tq)).enumerate();
        jobs.for_each(|(h, (o, sum))| {
            let units = o.par_chunks_mut(unit).zip(sum.par_chunks_mut(some)).enumerate();
            units.for_each(|(i, (o, sum))| run(h, i, o, sum));
        });
    } else {
        for (h, (o, sum)) in o.chunks_mut(nq).zip(log_sum.chunks_mut(head.tq)).enumerate() {
            o.chunks_mut(unit).zip(sum.chunks_mut(some)).enumerate().for_each(|(i, (o, sum))| run(h, i, o, sum));
        }
    }
}

/// Output and log-sum of the queries from `first` on, at most [`TILES`] tiles of them, with memory for a tile of scores and one
/// that is transposed.
fn forward_queries<T: Real, const SCORES: usize, const MEMORY: usize>(
    h: Head<'_, T>,
    first: usize,
    q: &[T],
    k: &[T],
    v: &[T],
    o: &mut [T],
    log_sum: &mut [T],
) {
    let (d, width) = (h.d, h.width());
    let (mut scores, mut memory) = ([T::ZERO; SCORES], [T::ZERO; MEMORY]);
    let (mut max, mut sum) = ([T::NEG_INFINITY; TILES * TILE], [T::ZERO; TILES * TILE]);
    let mut factor = [T::ZERO; TILE];
    o.fill(T::ZERO);
    for start in (0..h.tk).step_by(TILE) {
        if h.seen(first + log_sum.len() - 1, start) == 0 {
            break;
        }
        let cols = TILE.min(h.tk - start);
        let columns = Columns::new(&k[start * d..][..cols * d], d, &mut memory);
        let values = View::new(&v[start * d..][..cols * d], cols, d);
        for (t, (q, o)) in q.chunks(TILE * d).zip(o.chunks_mut(TILE * d)).enumerate() {
            let (rows, at) = (q.len() / d, first + t * TILE);
            if h.seen(at + rows - 1, start) == 0 {
                continue;
            }
            h.scores(q, &columns, (at, start), h.scale, &mut scores);
            let (max, sum) = (&mut max[t * TILE..][..rows], &mut sum[t * TILE..][..rows]);
            let seen: [usize; TILE] = std::array::from_fn(|i| h.seen(at + i, start));
            stream(&mut scores, width, &seen, max, sum, &mut factor);
            for (o, &c) in o.chunks_exact_mut(d).zip(&factor).filter(|(_, c)| **c != T::ONE) {
                scale_row(o, c);
            }
            T::gemm(View::strided(&scores, rows, cols, width, 1), values, T::ONE, true, ViewMut::new(o, rows, d));
        }
    }
    for (i, (o, log_sum)) in o.chunks_exact_mut(d).zip(log_sum).enumerate() {
        if h.seen(first + i, 0) == 0 {
            // o is 0; with a finite log-sum its probabilities are 0 in backward too.
            *log_sum = T::ZERO;
            continue;
        }
        scale_row(o, T::ONE / sum[i]);
        *log_sum = max[i] + sum[i].ln();
    }
}

/// For each row turns scores into e^{s − max'} (0 beyond what it saw), updates the running maximum and sum, and puts
/// e^{max − max'} into `factor`. Rows are always `W` wide, so that the loops have an extent known to the compiler.
#[inline(always)]
fn stream_rows<T: Real, const W: usize>(
    s: &mut [T],
    seen: &[usize; TILE],
    max: &mut [T],
    sum: &mut [T],
    factor: &mut [T; TILE],
) {
    let rows = &mut s.as_chunks_mut::<W>().0[..max.len()];
    for (i, row) in rows.iter_mut().enumerate() {
        if seen[i] < W {
            row[seen[i]..].fill(T::NEG_INFINITY);
        }
        let m = lanes::max_number(row);
        let m = if m > max[i] { m } else { max[i] };
        // A row that saw nothing yet keeps -inf: its factor is 0, not e^{-inf + inf}.
        factor[i] = if m == T::NEG_INFINITY { T::NEG_INFINITY } else { max[i] - m };
        max[i] = m;
    }
    for c in factor.iter_mut() {
        *c = c.exp_nonpositive();
    }
    for (i, row) in rows.iter_mut().enumerate() {
        let m = if max[i] == T::NEG_INFINITY { T::ZERO } else { max[i] };
        for x in row.iter_mut() {
            *x = (*x - m).exp_nonpositive();
        }
        sum[i] = sum[i] * factor[i] + lanes::sum_by(W, |l| row[l]);
    }
}

/// P = e^{S − L} in place (0 beyond what a row saw), and dS = P∘(dP − D) in place of dP, in rows `W` wide.
#[inline(always)]
fn slopes<T: Real, const W: usize>(p: &mut [T], dp: &mut [T], seen: &[usize; TILE], log_sum: &[T], delta: &[T]) {
    let rows = p.as_chunks_mut::<W>().0.iter_mut().zip(dp.as_chunks_mut::<W>().0);
    for (i, (p, dp)) in rows.enumerate().take(delta.len()) {
        if seen[i] < W {
            p[seen[i]..].fill(T::NEG_INFINITY);
            dp[seen[i]..].fill(T::ZERO);
        }
        for l in 0..W {
            p[l] = (p[l] - log_sum[i]).exp_nonpositive();
            dp[l] = p[l] * (dp[l] - delta[i]);
        }
    }
}

vectorized! {
    /// [`stream_rows`] of rows `width` wide.
    fn stream<T: Real>(s: &mut [T], width: usize, seen: &[usize; TILE], max: &mut [T], sum: &mut [T], factor: &mut [T; TILE]) {
        match width {
            16 => stream_rows::<T, 16>(s, seen, max, sum, factor),
            32 => stream_rows::<T, 32>(s, seen, max, sum, factor),
            _ => stream_rows::<T, TILE>(s, seen, max, sum, factor),
        }
    }

    fn scale_row<T: Real>(x: &mut [T], c: T) {
        for x in x {
            *x *= c;
        }
    }

    /// [`slopes`] of rows `width` wide.
    fn backward_rows<T: Real>(p: &mut [T], dp: &mut [T], width: usize, seen: &[usize; TILE], log_sum: &[T], delta: &[T]) {
        match width {
            16 => slopes::<T, 16>(p, dp, seen, log_sum, delta),
            32 => slopes::<T, 32>(p, dp, seen, log_sum, delta),
            _ => slopes::<T, TILE>(p, dp, seen, log_sum, delta),
        }
    }

    fn dot<T: Real>(x: &[T], y: &[T]) -> T {
        lanes::sum_by(x.len(), |i| x[i] * y[i])
    }
}

pub(super) fn attention_delta<T: Real>(o: &[T], d_o: &[T], delta: &mut [T]) {
    let Some(d) = o.len().checked_div(delta.len()) else { return };
    par::chunks_mut(delta, TILE, o.len(), |i, delta| {
        for (i, delta) in (i * TILE..).zip(delta) {
            *delta = dot(&d_o[i * d..][..d], &o[i * d..][..d]);
        }
    });
}

#[allow(clippy::too_many_arguments)]
pub(super) fn attention_backward<T: Real>(
    q: &[T],
    k: &[T],
    v: &[T],
    seen: &[i32],
    log_sum: &[T],
    delta: &[T],
    d_o: &[T],
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
    extents: &[usize],
    causal: bool,
) {
    let (head, group) = Head::new(extents, causal);
    let (nq, nk) = (head.tq * head.d, head.tk * head.d);
    dq.fill(T::ZERO);
    dk.fill(T::ZERO);
    dv.fill(T::ZERO);
    if nq == 0 || nk == 0 {
        return;
    }
    // One job is one key head with the query heads that share it: it alone writes their gradients.
    let job = |j: usize, (dq, (dk, dv)): Gradients<'_, T>| {
        for (g, dq) in dq.chunks_mut(nq).enumerate() {
            let h = j * group + g;
            let queries = Queries {
                q: &q[h * nq..][..nq],
                d_o: &d_o[h * nq..][..nq],
                log_sum: &log_sum[h * head.tq..][..head.tq],
                delta: &delta[h * head.tq..][..head.tq],
            };
            let (head, k, v) = (head.of(h, seen), &k[j * nk..][..nk], &v[j * nk..][..nk]);
            match head.width() {
                16 => backward_head::<T, { TILE * 16 }, { TURNED * 16 }>(head, &queries, k, v, dq, dk, dv),
                32 => backward_head::<T, { TILE * 32 }, { TURNED * 32 }>(head, &queries, k, v, dq, dk, dv),
                _ => backward_head::<T, { TILE * TILE }, { TURNED * TILE }>(head, &queries, k, v, dq, dk, dv),
            }
        }
    };
    if par::worthwhile(2 * head.work() * (dq.len() / nq)) {
        let jobs = dq.par_chunks_mut(nq * group).zip(dk.par_chunks_mut(nk).zip(dv.par_chunks_mut(nk))).enumerate();
        jobs.for_each(|(j, gradients)| job(j, gradients));
    } else {
        let jobs = dq.chunks_mut(nq * group).zip(dk.chunks_mut(nk).zip(dv.chunks_mut(nk))).enumerate();
        jobs.for_each(|(j, gradients)| job(j, gradients));
    }
}

/// What one job of backward writes: (dq, (dk, dv)).
type Gradients<'a, T> = (&'a mut [T], (&'a mut [T], &'a mut [T]));

/// What backward reads of one query head.
struct Queries<'a, T> {
    q: &'a [T],
    d_o: &'a [T],
    log_sum: &'a [T],
    delta: &'a [T],
}

/// Keys outside, queries inside: a tile of keys and values is transposed once, and its gradients stay in cache.
fn backward_head<T: Real, const SCORES: usize, const MEMORY: usize>(
    h: Head<'_, T>,
    x: &Queries<'_, T>,
    k: &[T],
    v: &[T],
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
) {
    let (d, width) = (h.d, h.width());
    let (mut p, mut ds) = ([T::ZERO; SCORES], [T::ZERO; SCORES]);
    let (mut k_memory, mut v_memory) = ([T::ZERO; MEMORY], [T::ZERO; MEMORY]);
    for start in (0..h.tk).step_by(TILE) {
        let cols = TILE.min(h.tk - start);
        let tile = start * d..(start + cols) * d;
        let keys = Columns::new(&k[tile.clone()], d, &mut k_memory);
        let values = Columns::new(&v[tile.clone()], d, &mut v_memory);
        let (dk, dv) = (&mut dk[tile.clone()], &mut dv[tile.clone()]);
        for first in (0..h.tq).step_by(TILE) {
            let rows = TILE.min(h.tq - first);
            if h.seen(first + rows - 1, start) == 0 {
                continue;
            }
            let (q, d_o) = (&x.q[first * d..][..rows * d], &x.d_o[first * d..][..rows * d]);
            h.scores(q, &keys, (first, start), h.scale, &mut p);
            h.scores(d_o, &values, (first, start), T::ONE, &mut ds);
            let seen: [usize; TILE] = std::array::from_fn(|i| h.seen(first + i, start));
            backward_rows(&mut p, &mut ds, width, &seen, &x.log_sum[first..][..rows], &x.delta[first..][..rows]);
            let turned = |m| View::strided(m, cols, rows, 1, width);
            T::gemm(turned(&p), View::new(d_o, rows, d), T::ONE, true, ViewMut::new(dv, cols, d));
            T::gemm(turned(&ds), View::new(q, rows, d), h.scale, true, ViewMut::new(dk, cols, d));
            let (ds, keys) = (View::strided(&ds, rows, cols, width, 1), View::new(&k[tile.clone()], cols, d));
            T::gemm(ds, keys, h.scale, true, ViewMut::new(&mut dq[first * d..][..rows * d], rows, d));
        }
    }
}
