//! Shared attention on the CPU: a job is some heads with memory of its own, in which the scores of 64 rows of one head lie while
//! rows and columns are weighed. Rows are whole there; columns go on from block to block with a running maximum and sum.

use crate::kernel::gemm::{View, ViewMut};
use crate::kernel::lanes::{self, LANES};
use crate::kernel::{Real, par};
use crate::vectorized;
use rayon::prelude::*;

/// Rows of the scores that are made at a time.
const ROWS: usize = 64;

/// Extents of the heads.
#[derive(Clone, Copy)]
struct Extents {
    ta: usize,
    tb: usize,
    d: usize,
    e: usize,
    heads: usize,
}

impl Extents {
    fn new(x: &[usize]) -> Extents {
        Extents { ta: x[0], tb: x[1], d: x[2], e: x[3], heads: x[4].max(1) }
    }
    /// Numbers from row to row of the scores: whole lanes.
    fn pitch(&self) -> usize {
        self.tb.next_multiple_of(LANES)
    }
    /// Work of a head forward in about nanoseconds.
    fn work(&self) -> usize {
        self.ta * self.tb * (self.d + 2 * self.e + 32) / 32
    }
    /// Tokens of both sides that head `h` has.
    fn counts(&self, h: usize, query_count: &[i32], key_count: &[i32]) -> [usize; 2] {
        let of = |count: &[i32], all| count.get(h / self.heads).map_or(all, |&n| n as usize);
        [of(query_count, self.ta), of(key_count, self.tb)]
    }
}

/// Numbers of a job's memory, forward and backward.
pub(super) fn scratch(extents: &[usize]) -> [usize; 2] {
    let x = Extents::new(extents);
    let some = x.ta.min(ROWS);
    [(2 * some + 3) * x.pitch(), (3 * some + 2) * x.pitch()]
}

/// Heads of a job: as many jobs as `scratch` has memory for.
fn jobs(scratch: &[impl Sized], words: usize, heads: usize) -> usize {
    heads.div_ceil((scratch.len() / words).max(1)).max(1)
}

#[allow(clippy::too_many_arguments)]
pub(super) fn shared_attention_forward<T: Real>(
    q: &[T],
    k: &[T],
    qv: &[T],
    kv: &[T],
    query_count: &[i32],
    key_count: &[i32],
    scratch_memory: &mut [T],
    query_output: &mut [T],
    key_output: &mut [T],
    row_sum: &mut [T],
    col_sum: &mut [T],
    extents: &[usize],
) {
    let x = Extents::new(extents);
    if query_output.is_empty() {
        return;
    }
    let (heads, words) = (row_sum.len() / x.ta, scratch(extents)[0]);
    let some = jobs(scratch_memory, words, heads);
    let job = |(j, (memory, (oq, (ok, (rows, cols))))): (usize, Job<'_, T>)| {
        let outs = oq.chunks_mut(x.ta * x.e).zip(ok.chunks_mut(x.tb * x.e));
        let sums = rows.chunks_mut(x.ta).zip(cols.chunks_mut(x.tb));
        for (i, ((oq, ok), (rows, cols))) in outs.zip(sums).enumerate() {
            let h = j * some + i;
            let [na, nb] = x.counts(h, query_count, key_count);
            let q = (&q[h * x.ta * x.d..][..na * x.d], &qv[h * x.ta * x.e..][..na * x.e]);
            let k = (&k[h * x.tb * x.d..][..nb * x.d], &kv[h * x.tb * x.e..][..nb * x.e]);
            forward_head(x, q, k, memory, (oq, rows), (ok, cols));
        }
    };
    let (ta, tb) = (x.ta * some, x.tb * some);
    if par::worthwhile(heads * x.work()) {
        let sums = row_sum.par_chunks_mut(ta).zip(col_sum.par_chunks_mut(tb));
        let outs = key_output.par_chunks_mut(tb * x.e).zip(sums);
        let all = scratch_memory.par_chunks_mut(words).zip(query_output.par_chunks_mut(ta * x.e).zip(outs));
        all.enumerate().for_each(job);
    } else {
        let sums = row_sum.chunks_mut(ta).zip(col_sum.chunks_mut(tb));
        let outs = key_output.chunks_mut(tb * x.e).zip(sums);
        let all = scratch_memory.chunks_mut(words).zip(query_output.chunks_mut(ta * x.e).zip(outs));
        all.enumerate().for_each(job);
    }
}

/// What a job of forward writes: (memory, (query_output, (key_output, (row_sum, col_sum)))).
type Job<'a, T> = (&'a mut [T], (&'a mut [T], (&'a mut [T], (&'a mut [T], &'a mut [T]))));

/// One head: tokens that are there as (query, query_value) and (key, key_value); outputs and log-sums of all.
fn forward_head<T: Real>(
    x: Extents,
    (q, qv): (&[T], &[T]),
    (k, kv): (&[T], &[T]),
    memory: &mut [T],
    (oq, row_sum): (&mut [T], &mut [T]),
    (ok, col_sum): (&mut [T], &mut [T]),
) {
    let (na, nb, pitch, e) = (q.len() / x.d, k.len() / x.d, x.pitch(), x.e);
    let (here, absent) = if na * nb == 0 { (0, 0) } else { (na, nb) };
    oq[here * e..].fill(T::ZERO);
    ok[absent * e..].fill(T::ZERO);
    row_sum[here..].fill(T::ZERO);
    col_sum[absent..].fill(T::ZERO);
    if here == 0 {
        return;
    }
    let some = x.ta.min(ROWS) * pitch;
    let (s, memory) = memory.split_at_mut(some);
    let (p, memory) = memory.split_at_mut(some);
    let (max, memory) = memory.split_at_mut(pitch);
    let (sum, factor) = memory.split_at_mut(pitch);
    let scale = T::of(1.0 / (x.d as f64).sqrt());
    let (keys, values) = (View::transposed(k, x.d, nb), View::new(kv, nb, e));
    let mut row = [T::ZERO; ROWS];
    max.fill(T::NEG_INFINITY);
    sum.fill(T::ZERO);
    let (ok, oq) = (&mut ok[..nb * e], &mut oq[..na * e]);
    let blocks = q.chunks(ROWS * x.d).zip(qv.chunks(ROWS * e)).zip(oq.chunks_mut(ROWS * e)).zip(row_sum.chunks_mut(ROWS));
    for (i, (((q, qv), oq), log_sum)) in blocks.enumerate() {
        let rows = q.len() / x.d;
        T::gemm(View::new(q, rows, x.d), keys, scale, false, ViewMut::pitched(s, rows, nb, pitch));
        let s = &mut s[..rows * pitch];
        factor.copy_from_slice(max);
        weigh_rows(s, p, max, &mut row, log_sum, nb, pitch);
        T::gemm(View::strided(p, rows, nb, pitch, 1), values, T::ONE, false, ViewMut::new(oq, rows, e));
        scale_rows(oq, &row, e);
        weigh_columns(s, max, factor, sum, pitch);
        if i > 0 {
            scale_rows(ok, factor, e);
        }
        let turned = View::strided(s, nb, rows, 1, pitch);
        T::gemm(turned, View::new(qv, rows, e), T::ONE, i > 0, ViewMut::new(ok, nb, e));
    }
    for (b, log_sum) in col_sum[..nb].iter_mut().enumerate() {
        *log_sum = max[b] + sum[b].ln();
        sum[b] = T::ONE / sum[b];
    }
    scale_rows(ok, sum, e);
}

vectorized! {
    /// For each row of scores s: e^{s − max} into p, 1/Σ into `row`, the logarithm of Σe^s; the maxima of columns. Beyond `n` scores
    /// become −inf. Rows are whole lanes, so that the loops have an extent known to the compiler.
    fn weigh_rows<T: Real>(s: &mut [T], p: &mut [T], max: &mut [T], row: &mut [T], log_sum: &mut [T], n: usize, pitch: usize) {
        for (i, (s, p)) in s.chunks_exact_mut(pitch).zip(p.chunks_exact_mut(pitch)).enumerate() {
            s[n..].fill(T::NEG_INFINITY);
            let (s, _) = s.as_chunks::<LANES>();
            for (max, s) in max.as_chunks_mut::<LANES>().0.iter_mut().zip(s) {
                for l in 0..LANES {
                    max[l] = if s[l] > max[l] { s[l] } else { max[l] };
                }
            }
            let m = lanes::max_number(s.as_flattened());
            let m = if m == T::NEG_INFINITY { T::ZERO } else { m };
            let mut sum = [T::ZERO; LANES];
            for (p, s) in p.as_chunks_mut::<LANES>().0.iter_mut().zip(s) {
                for l in 0..LANES {
                    p[l] = (s[l] - m).exp_nonpositive();
                    sum[l] += p[l];
                }
            }
            let sum = lanes::sum_by(LANES, |l| sum[l]);
            row[i] = T::ONE / sum;
            log_sum[i] = m + sum.ln();
        }
    }

    /// e^{s − max} of each column in place, and its sum, which goes on; `factor` holds the maxima before, and then e^{before − max}.
    fn weigh_columns<T: Real>(s: &mut [T], max: &[T], factor: &mut [T], sum: &mut [T], pitch: usize) {
        for ((max, factor), sum) in max.iter().zip(factor.iter_mut()).zip(sum.iter_mut()) {
            // A column that saw nothing yet keeps -inf: its factor is 0, not e^{-inf + inf}.
            *factor = if *max == T::NEG_INFINITY { T::ZERO } else { (*factor - *max).exp_nonpositive() };
            *sum *= *factor;
        }
        let (max, sum) = (max.as_chunks::<LANES>().0, sum.as_chunks_mut::<LANES>().0);
        for s in s.chunks_exact_mut(pitch) {
            for ((s, max), sum) in s.as_chunks_mut::<LANES>().0.iter_mut().zip(max).zip(sum.iter_mut()) {
                for l in 0..LANES {
                    let max = if max[l] == T::NEG_INFINITY { T::ZERO } else { max[l] };
                    s[l] = (s[l] - max).exp_nonpositive();
                    sum[l] += s[l];
                }
            }
        }
    }

    fn scale_rows<T: Real>(x: &mut [T], c: &[T], n: usize) {
        for (x, &c) in x.chunks_exact_mut(n).zip(c) {
            for x in x {
                *x *= c;
            }
        }
    }

    /// From scores s, the slopes r of row probabilities and c of column probabilities: in place of s the row probabilities, of c
    /// the column probabilities, of r dS. `cols` holds the log-sums and the D of columns, a pitch each.
    fn slopes<T: Real>(s: &mut [T], r: &mut [T], c: &mut [T], row_sum: &[T], row_delta: &[T], cols: &[T], pitch: usize) {
        let (log, delta) = cols.split_at(pitch);
        let cols = || log.as_chunks::<LANES>().0.iter().zip(delta.as_chunks::<LANES>().0);
        let rows = s.chunks_exact_mut(pitch).zip(r.chunks_exact_mut(pitch)).zip(c.chunks_exact_mut(pitch));
        for (((s, r), c), (&row_sum, &row_delta)) in rows.zip(row_sum.iter().zip(row_delta)) {
            let (s, r, c) = (s.as_chunks_mut::<LANES>().0, r.as_chunks_mut::<LANES>().0, c.as_chunks_mut::<LANES>().0);
            for (((s, r), c), (log, delta)) in s.iter_mut().zip(r).zip(c).zip(cols()) {
                for l in 0..LANES {
                    let row = (s[l] - row_sum).exp_nonpositive();
                    let col = (s[l] - log[l]).exp_nonpositive();
                    r[l] = row * (r[l] - row_delta) + col * (c[l] - delta[l]);
                    s[l] = row;
                    c[l] = col;
                }
            }
        }
    }
}

/// What backward reads of one side: its rows, its values, the gradient of its output, its log-sums, its D.
struct Side<'a, T> {
    x: &'a [T],
    value: &'a [T],
    d_out: &'a [T],
    log_sum: &'a [T],
    delta: &'a [T],
}

impl<'a, T> Side<'a, T> {
    /// The `n` tokens that are there of head `h`, which has `t`.
    fn head(&self, h: usize, t: usize, n: usize, d: usize, e: usize) -> Side<'a, T> {
        Side {
            x: &self.x[h * t * d..][..n * d],
            value: &self.value[h * t * e..][..n * e],
            d_out: &self.d_out[h * t * e..][..n * e],
            log_sum: &self.log_sum[h * t..][..n],
            delta: &self.delta[h * t..][..n],
        }
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn shared_attention_backward<T: Real>(
    q: &[T],
    k: &[T],
    qv: &[T],
    kv: &[T],
    query_count: &[i32],
    key_count: &[i32],
    row_sum: &[T],
    col_sum: &[T],
    query_delta: &[T],
    key_delta: &[T],
    d_query_output: &[T],
    d_key_output: &[T],
    scratch_memory: &mut [T],
    dq: &mut [T],
    dk: &mut [T],
    dqv: &mut [T],
    dkv: &mut [T],
    extents: &[usize],
) {
    let x = Extents::new(extents);
    if dq.is_empty() {
        return;
    }
    let (heads, words) = (row_sum.len() / x.ta, scratch(extents)[1]);
    let some = jobs(scratch_memory, words, heads);
    let a = Side { x: q, value: qv, d_out: d_query_output, log_sum: row_sum, delta: query_delta };
    let b = Side { x: k, value: kv, d_out: d_key_output, log_sum: col_sum, delta: key_delta };
    let job = |(j, (memory, (dq, (dk, (dqv, dkv))))): (usize, Job<'_, T>)| {
        let queries = dq.chunks_mut(x.ta * x.d).zip(dqv.chunks_mut(x.ta * x.e));
        let keys = dk.chunks_mut(x.tb * x.d).zip(dkv.chunks_mut(x.tb * x.e));
        for (i, (queries, keys)) in queries.zip(keys).enumerate() {
            let h = j * some + i;
            let [na, nb] = x.counts(h, query_count, key_count);
            let (a, b) = (a.head(h, x.ta, na, x.d, x.e), b.head(h, x.tb, nb, x.d, x.e));
            backward_head(x, &a, &b, memory, queries, keys);
        }
    };
    let (ta, tb) = (x.ta * some, x.tb * some);
    if par::worthwhile(2 * heads * x.work()) {
        let values = dqv.par_chunks_mut(ta * x.e).zip(dkv.par_chunks_mut(tb * x.e));
        let rows = dq.par_chunks_mut(ta * x.d).zip(dk.par_chunks_mut(tb * x.d).zip(values));
        scratch_memory.par_chunks_mut(words).zip(rows).enumerate().for_each(job);
    } else {
        let values = dqv.chunks_mut(ta * x.e).zip(dkv.chunks_mut(tb * x.e));
        let rows = dq.chunks_mut(ta * x.d).zip(dk.chunks_mut(tb * x.d).zip(values));
        scratch_memory.chunks_mut(words).zip(rows).enumerate().for_each(job);
    }
}

/// The gradients of one head: (dq, dqv) and (dk, dkv).
fn backward_head<T: Real>(
    x: Extents,
    a: &Side<'_, T>,
    b: &Side<'_, T>,
    memory: &mut [T],
    (dq, dqv): (&mut [T], &mut [T]),
    (dk, dkv): (&mut [T], &mut [T]),
) {
    let (na, nb, pitch, d, e) = (a.log_sum.len(), b.log_sum.len(), x.pitch(), x.d, x.e);
    dk.fill(T::ZERO);
    dkv.fill(T::ZERO);
    let here = if nb == 0 { 0 } else { na };
    dq[here * d..].fill(T::ZERO);
    dqv[here * e..].fill(T::ZERO);
    let some = x.ta.min(ROWS) * pitch;
    let (cols, memory) = memory.split_at_mut(2 * pitch);
    let (s, memory) = memory.split_at_mut(some);
    let (r, c) = memory.split_at_mut(some);
    // What stands beyond the columns that are there is computed along and read by nobody.
    cols[..nb].copy_from_slice(b.log_sum);
    cols[pitch..][..nb].copy_from_slice(b.delta);
    let scale = T::of(1.0 / (d as f64).sqrt());
    let (keys, d_keys) = (View::new(b.x, nb, d), View::new(b.d_out, nb, e));
    for first in (0..here).step_by(ROWS) {
        let rows = ROWS.min(here - first);
        let q = View::new(&a.x[first * d..][..rows * d], rows, d);
        let qv = View::new(&a.value[first * e..][..rows * e], rows, e);
        let d_out = View::new(&a.d_out[first * e..][..rows * e], rows, e);
        let product = |x, y, n, alpha, to: &mut [T]| {
            T::gemm(x, View::transposed(y, n, nb), alpha, false, ViewMut::pitched(to, rows, nb, pitch));
        };
        product(q, b.x, d, scale, s);
        product(d_out, b.value, e, T::ONE, r);
        product(qv, b.d_out, e, T::ONE, c);
        slopes(s, r, c, &a.log_sum[first..][..rows], &a.delta[first..][..rows], cols, pitch);
        let [s, r, c] = [&*s, &*r, &*c];
        let view = |m| View::strided(m, rows, nb, pitch, 1);
        let turned = |m| View::strided(m, nb, rows, 1, pitch);
        T::gemm(view(r), keys, scale, false, ViewMut::new(&mut dq[first * d..][..rows * d], rows, d));
        T::gemm(view(c), d_keys, T::ONE, false, ViewMut::new(&mut dqv[first * e..][..rows * e], rows, e));
        T::gemm(turned(r), q, scale, true, ViewMut::new(&mut dk[..nb * d], nb, d));
        T::gemm(turned(s), d_out, T::ONE, true, ViewMut::new(&mut dkv[..nb * e], nb, e));
    }
}
