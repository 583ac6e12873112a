//! Parallel loops that give the same bits for any number of threads: work is cut into fixed chunks, and each chunk
//! writes memory of its own. Small work stays on the calling thread, since waking another costs about 5 µs.

use rayon::prelude::*;

/// Work (about one nanosecond a unit) below which a loop is not worth waking the pool for.
pub const THRESHOLD: usize = 40_000;

/// Elements of one chunk of an elementwise loop: two fit the L1 data cache.
pub const CHUNK: usize = 4096;

/// True when `work` units are worth more than one thread.
pub fn worthwhile(work: usize) -> bool {
    work >= THRESHOLD && rayon::current_num_threads() > 1
}

/// Calls `f(i, chunk i of y)` for consecutive chunks of `size` elements; `work` estimates the whole.
pub fn chunks_mut<T: Send>(y: &mut [T], size: usize, work: usize, f: impl Fn(usize, &mut [T]) + Send + Sync) {
    let size = size.max(1);
    if worthwhile(work) && y.len() > size {
        y.par_chunks_mut(size).enumerate().for_each(|(i, c)| f(i, c));
    } else {
        y.chunks_mut(size).enumerate().for_each(|(i, c)| f(i, c));
    }
}

/// Calls `f(i, chunk i of y, chunk i of z)` for two outputs cut by their own sizes (the numbers of chunks must be equal).
pub fn chunks_mut2<T: Send, U: Send>(
    (y, ny): (&mut [T], usize),
    (z, nz): (&mut [U], usize),
    work: usize,
    f: impl Fn(usize, &mut [T], &mut [U]) + Send + Sync,
) {
    let (ny, nz) = (ny.max(1), nz.max(1));
    debug_assert_eq!(
        y.len().div_ceil(ny),
        z.len().div_ceil(nz),
        "both outputs have the same number of chunks"
    );
    if worthwhile(work) && y.len() > ny {
        y.par_chunks_mut(ny).zip(z.par_chunks_mut(nz)).enumerate().for_each(|(i, (a, b))| f(i, a, b));
    } else {
        y.chunks_mut(ny).zip(z.chunks_mut(nz)).enumerate().for_each(|(i, (a, b))| f(i, a, b));
    }
}

/// Calls `f(i, chunks i, cell i)` for outputs of equal length, or empty, cut alike into chunks of [`CHUNK`], each with one
/// of `cells` (none is handed out where there are none).
pub fn chunks_of<T: Send, C: Send + Default, const N: usize>(
    y: [&mut [T]; N],
    cells: &mut [C],
    work: usize,
    f: impl Fn(usize, [&mut [T]; N], &mut C) + Send + Sync,
) {
    halves(0, y, cells, worthwhile(work), &f);
}

/// Chunks of [`chunks_of`] that are not split over threads any more: a split costs as much as a tenth of a chunk.
const TOGETHER: usize = 8;

/// Splits at a chunk near the middle until one chunk is left.
fn halves<T: Send, C: Send + Default, const N: usize>(
    first: usize,
    y: [&mut [T]; N],
    cells: &mut [C],
    threads: bool,
    f: &(impl Fn(usize, [&mut [T]; N], &mut C) + Send + Sync),
) {
    let chunks = y[0].len().div_ceil(CHUNK);
    if chunks <= 1 {
        let mut none = C::default();
        return f(first, y, cells.first_mut().unwrap_or(&mut none));
    }
    let half = chunks / 2;
    let mut a: [&mut [T]; N] = std::array::from_fn(|_| Default::default());
    let mut i = 0;
    let b = y.map(|y| {
        let (left, right) = y.split_at_mut(y.len().min(half * CHUNK));
        a[i] = left;
        i += 1;
        right
    });
    let (ca, cb) = cells.split_at_mut(cells.len().min(half));
    if threads && chunks > TOGETHER {
        rayon::join(|| halves(first, a, ca, true, f), || halves(first + half, b, cb, true, f));
    } else {
        halves(first, a, ca, threads, f);
        halves(first + half, b, cb, threads, f);
    }
}

/// Calls `f(i)` for i in 0..n; `f` must not write shared memory.
pub fn each(n: usize, work: usize, f: impl Fn(usize) + Send + Sync) {
    if worthwhile(work) && n > 1 {
        (0..n).into_par_iter().for_each(f);
    } else {
        (0..n).for_each(f);
    }
}
