//! f32 products by our own micro-kernel: which part of the operands is packed, in what order the tiles are visited.
//!
//! After Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), with a difference that pays as
//! long as matrices have hundreds of columns, not thousands: A is read where it lies in either orientation (only single
//! elements of it are broadcast, so a stride costs no instruction), and so are rows of B. What remains is that the processor
//! does not foresee such strides; the next block is asked for while this one is computed.
#![allow(unsafe_code, reason = "hands the micro-kernel pointers into checked slices")]

use super::micro::{HEIGHT, Kernels, LONG, Operands, Tile, WIDTH};
use super::pack::{self, RIGHT};
use super::{View, ViewMut, reach};
use crate::kernel::par;
use std::ops::Range;

/// Inner extent of a block in units: 320 rows of a panel of 32 columns take 40 KiB, read in order from L1 and L2.
const BLOCK: usize = 320;
/// Columns of B that one sweep over the rows of A covers: 320 × 512 numbers stay in a L2 cache of 1 MiB.
const SWEEP: usize = 512;
/// Rows of C that one job of the thread pool computes, a multiple of all tile heights.
const ROWS: usize = 96;
/// Rows of C that one thread computes block after block of k: with 256 columns they take 192 KiB of the L2 cache.
const STRETCH: usize = 192;
/// Numbers of B packed at a time: 16 MiB.
const PACKED: usize = 4 << 20;
/// Step from row to row of a B read where it lies: 320 rows of 512 span as many pages as the translation cache holds well.
const IN_PLACE: usize = 512;

/// The right operand as the micro-kernel reads it.
#[derive(Clone, Copy)]
enum Right<'a> {
    /// Panels of `width` columns, each over all rows, in units.
    Packed(&'a [f32]),
    /// In place: rows contiguous, columns a multiple of half a width.
    Direct,
}

// ANCHOR: blocks
/// Equal blocks of `k` units, none above [`BLOCK`]. They depend on `k` alone, and so do the bits of the result.
fn blocks(k: usize) -> impl Iterator<Item = Range<usize>> {
    cut(k, k.div_ceil(k.div_ceil(BLOCK).max(1)))
}
// ANCHOR_END: blocks

/// 0..n in stretches of `step`; one empty stretch when there is nothing.
fn cut(n: usize, step: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    (0..n.max(1)).step_by(step.max(1)).map(move |i| i..n.min(i + step))
}

/// C = alpha·A·B, or C += , on the calling thread.
pub(super) fn product(
    k: &Kernels,
    a: View<'_, f32>,
    b: View<'_, f32>,
    alpha: f32,
    add: bool,
    mut c: ViewMut<'_, f32>,
) {
    if reads_in_place(k, a.rows, b) {
        return sweep(k, a, b, Right::Direct, Store { alpha, add }, &mut c);
    }
    for part in parts(b) {
        pack::scratch(&RIGHT, packed_len(k, &part), |to| {
            let b = part.of(b);
            to.chunks_mut(packed_panel(k, b)).enumerate().for_each(|(j, to)| pack_panel(k, b, j, to));
            let (a, add) = (a.block(0, part.rows.start, a.rows, b.rows), add || part.rows.start > 0);
            sweep(k, a, b, Right::Packed(to), Store { alpha, add }, &mut c.columns(&part.cols));
        });
    }
}

/// C = A·B or C +=, rows of C split over the thread pool; `finish` sees every stretch of whole rows once it is complete.
pub(super) fn parallel(
    k: &Kernels,
    a: View<'_, f32>,
    b: View<'_, f32>,
    c: &mut [f32],
    add: bool,
    finish: &(dyn Fn(&mut [f32]) + Sync),
) {
    let (m, n) = (a.rows, b.cols);
    let work = super::work(m, a.cols, n);
    // As many jobs for each thread, and equal ones, whose part of C stays in the L2 cache until `finish`. With several
    // blocks of k a job is tall, since each reads all of B.
    let most = if a.cols > BLOCK { 4 * STRETCH } else { ROWS };
    let threads = rayon::current_num_threads();
    let rows = m.div_ceil(threads * m.div_ceil(threads * most)).next_multiple_of(4);
    let job = |part: &Part, right: Right<'_>, add: bool, i: usize, c: &mut [f32]| {
        let high = c.len() / n;
        let a = a.block(i * rows, part.rows.start, high, part.rows.len());
        sweep(
            k,
            a,
            part.of(b),
            right,
            Store { alpha: 1.0, add },
            &mut ViewMut::new(c, high, n).columns(&part.cols),
        );
    };
    let all = Part { rows: 0..b.rows, cols: 0..n };
    if reads_in_place(k, m, b) {
        return par::chunks_mut(c, rows * n, work, |i, c| {
            job(&all, Right::Direct, add, i, c);
            finish(c);
        });
    }
    let whole = b.rows * n <= PACKED;
    for part in parts(b) {
        let add = add || part.rows.start > 0;
        pack::scratch(&RIGHT, packed_len(k, &part), |to| {
            let b = part.of(b);
            par::chunks_mut(to, packed_panel(k, b), b.rows * b.cols / 4, |j, to| pack_panel(k, b, j, to));
            par::chunks_mut(c, rows * n, work, |i, c| {
                job(&part, Right::Packed(to), add, i, c);
                if whole {
                    finish(c);
                }
            });
        });
    }
    if !whole {
        par::chunks_mut(c, rows * n, work, |_, c| finish(c));
    }
}

/// True when packing B would not pay: its rows are short enough for the caches to serve them where they lie, or few rows
/// of A use it.
fn reads_in_place(k: &Kernels, rows: usize, b: View<'_, f32>) -> bool {
    let short = b.row <= IN_PLACE || rows <= 2 * k.height;
    k.reads_f32() && b.col == 1 && b.cols.is_multiple_of(k.width / 2) && short
}

/// A rectangle of B that is packed at once.
struct Part {
    rows: Range<usize>,
    cols: Range<usize>,
}

impl Part {
    fn of<'a>(&self, b: View<'a, f32>) -> View<'a, f32> {
        b.block(self.rows.start, self.cols.start, self.rows.len(), self.cols.len())
    }
}

/// All of B when it may be packed at once; else columns of it, and for each the rows in turn.
fn parts(b: View<'_, f32>) -> impl Iterator<Item = Part> {
    let (tall, wide) = if b.rows * b.cols <= PACKED { (b.rows, b.cols) } else { (PACKED / SWEEP, SWEEP) };
    cut(b.cols, wide)
        .flat_map(move |cols| cut(b.rows, tall).map(move |rows| Part { rows, cols: cols.clone() }))
}

/// Units of a packed panel: `width` columns over all rows of `b`.
fn packed_panel(k: &Kernels, b: View<'_, f32>) -> usize {
    (b.rows.div_ceil(k.depth()) * k.width).max(1)
}

fn packed_len(k: &Kernels, part: &Part) -> usize {
    part.rows.len().div_ceil(k.depth()) * part.cols.len().next_multiple_of(k.width)
}

/// Panel `j` of `b`.
fn pack_panel(k: &Kernels, b: View<'_, f32>, j: usize, to: &mut [f32]) {
    let from = j * k.width;
    pack::panel(k, b, from, k.width.min(b.cols - from), to);
}

/// What a sweep does with the product.
#[derive(Clone, Copy)]
struct Store {
    alpha: f32,
    add: bool,
}

/// All of C from a part of B: rows in stretches whose C stays in cache from one block of k to the next.
fn sweep(
    k: &Kernels,
    a: View<'_, f32>,
    b: View<'_, f32>,
    right: Right<'_>,
    store: Store,
    c: &mut ViewMut<'_, f32>,
) {
    assert!(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "gemm extents disagree");
    for rows in cut(a.rows, STRETCH) {
        for p in blocks(b.rows.div_ceil(k.depth())) {
            let store = Store { add: store.add || p.start > 0, ..store };
            let steps = p.start * k.depth()..b.rows.min(p.end * k.depth());
            let block = a.block(rows.start, steps.start, rows.len(), steps.len());
            let soon = Soon::new(a, b, right, rows.clone(), steps);
            let mut strips = |left: View<'_, f32>| {
                for cols in cut(b.cols, SWEEP) {
                    for i in (0..rows.len()).step_by(k.height) {
                        if cols.start == 0 {
                            soon.fetch(i..rows.len().min(i + k.height), rows.len());
                        }
                        let high = k.height.min(rows.len() - i);
                        let at = At { i: rows.start + i, p: p.start, cols: cols.clone() };
                        strip(k, left.block(i, 0, high, p.len()), b, right, store, c, at);
                    }
                }
            };
            match k.operands {
                Operands::F32 if b.cols > 2 * k.width && pack::rows_collide(block) => {
                    pack::spread(block, strips)
                }
                Operands::F32 => strips(block),
                _ => pack::converted(k, block, strips),
            }
        }
    }
}

/// What the next block of k will read line by line, in strides that the processor does not foresee: a share of it is asked
/// for with each strip of this block, so that it is in the L2 cache by then.
struct Soon<'a> {
    left: Option<View<'a, f32>>,
    right: Option<View<'a, f32>>,
}

impl<'a> Soon<'a> {
    fn new(
        a: View<'a, f32>,
        b: View<'a, f32>,
        right: Right<'_>,
        rows: Range<usize>,
        p: Range<usize>,
    ) -> Self {
        let next = p.end..b.rows.min(p.end + p.len());
        let left = (!next.is_empty() && a.row == 1)
            .then(|| a.block(rows.start, next.start, rows.len(), next.len()).flipped());
        let in_place = !next.is_empty() && matches!(right, Right::Direct);
        Soon { left, right: in_place.then(|| b.block(next.start, 0, next.len(), b.cols)) }
    }
    /// The share of strip rows `part` of `all`.
    fn fetch(&self, part: Range<usize>, all: usize) {
        for view in [self.left, self.right].into_iter().flatten() {
            let (from, to) = (part.start * view.rows / all, part.end * view.rows / all);
            for row in from..to {
                let row = &view.data[row * view.row..][..view.cols];
                row.iter().step_by(16).for_each(fetch_line);
            }
        }
    }
}

/// Asks for the cache line of `x`.
#[inline(always)]
fn fetch_line(x: &f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that a program could see; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(x).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}

/// Where a strip lies: its first row of C, first unit of the rows of B, and columns.
struct At {
    i: usize,
    p: usize,
    cols: Range<usize>,
}

/// The tiles of one strip of C, as high as one tile.
fn strip(
    k: &Kernels,
    a: View<'_, f32>,
    b: View<'_, f32>,
    right: Right<'_>,
    store: Store,
    c: &mut ViewMut<'_, f32>,
    at: At,
) {
    let (high, inner, pitch) = (a.rows, a.cols, c.pitch);
    let mut next = at.cols.start;
    while next < at.cols.end {
        let (j, left) = (next, at.cols.end - next);
        let long = LONG * k.width;
        let one = std::slice::from_ref(&k.long);
        let (tiles, full) = match right {
            Right::Direct if high == 1 && left >= long => (one, long),
            _ if left <= k.width / 2 => (k.narrow, k.width / 2),
            _ => (k.wide, k.width),
        };
        let wide = full.min(left);
        next += wide;
        let (b, b_row) = match right {
            Right::Direct => (&b.data[at.p * b.row + j..][..reach(a.cols, wide, b.row, 1)], b.row),
            Right::Packed(to) => {
                let panel = &to[j * b.rows.div_ceil(k.depth())..];
                (&panel[at.p * k.width..][..a.cols * k.width], k.width)
            }
        };
        let out = &mut c.data[at.i * pitch + j..][..reach(high, wide, pitch, 1)];
        let run = |c: *mut f32, c_row: usize, accumulate: bool| {
            let (a, b, c) = ((a.data.as_ptr(), a.row, a.col), (b.as_ptr(), b_row), (c, c_row));
            let tile = Tile { k: inner, a, b, c, alpha: store.alpha, accumulate };
            // SAFETY: `kernels` chose the tiles by the processor. The view of A reaches all its elements, the slice of B
            // goes as far as a tile of this width reads (a narrower product has zeros packed after it; one that is read
            // in place is a multiple of half a width; a long one is whole), and C is `out` or `edge`, both of `high` rows
            // of `full` columns.
            unsafe { tiles[high - 1](&tile) };
        };
        if wide == full {
            run(out.as_mut_ptr(), pitch, store.add);
            continue;
        }
        let mut edge = [0.0f32; HEIGHT * WIDTH];
        run(edge.as_mut_ptr(), full, false);
        for (out, edge) in out.chunks_mut(pitch).zip(edge.chunks(full)) {
            for (y, &x) in out[..wide].iter_mut().zip(edge) {
                *y = if store.add { *y + x } else { x };
            }
        }
    }
}
