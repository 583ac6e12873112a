//! Copies of operands in the order in which the micro-kernel reads them.
#![allow(unsafe_code, reason = "hands the transposing kernel pointers into checked slices")]

use super::micro::{Kernels, Operands};
use super::{View, pairs, round};
use crate::vectorized;
use bytemuck::{Pod, Zeroable};
use std::cell::Cell;
use std::thread::LocalKey;

/// A cache line: the unit of packed memory, so that no vector load straddles two.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([f32; 16]);

/// Packing memory of a thread, kept from product to product.
pub(super) type Scratch = Cell<Vec<Line>>;

thread_local! {
    pub(super) static LEFT: Scratch = const { Cell::new(Vec::new()) };
    pub(super) static RIGHT: Scratch = const { Cell::new(Vec::new()) };
}

/// Lends `f` the first `n` numbers of `memory`, with any contents.
pub(super) fn scratch<R>(memory: &'static LocalKey<Scratch>, n: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out while it is lent: a thread that waits inside `f` may run another product meanwhile.
    let mut lines = memory.take();
    if lines.len() < n.div_ceil(16) {
        lines.resize(n.div_ceil(16), Line([0.0; 16]));
    }
    let out = f(&mut bytemuck::cast_slice_mut(&mut lines)[..n]);
    memory.set(lines);
    out
}

/// Columns `from..from + cols` of `b` as one panel: `k.width` units a row, zeros beyond `cols`.
pub(super) fn panel(k: &Kernels, b: View<'_, f32>, from: usize, cols: usize, to: &mut [f32]) {
    let b = b.block(0, from, b.rows, cols);
    if let Operands::Pairs(convert) = &k.operands {
        return pairs::panel(k, convert, b, to);
    }
    if b.col == 1 {
        copy_rows(b.data, b.rows, cols, b.row, k.width, to);
    } else {
        transpose(k, b, k.width, to);
    }
    if let Operands::Rounded = k.operands {
        round::all(to);
    }
}

/// Rows of `b` to rows of `width` numbers, zeros beyond, where a row of `b` does not lie together: in squares of 8 where a column does.
pub(super) fn transpose(k: &Kernels, b: View<'_, f32>, width: usize, to: &mut [f32]) {
    let whole = if b.row == 1 { (b.rows / 8 * 8, b.cols / 8 * 8) } else { (0, 0) };
    for p in (0..whole.0).step_by(8) {
        for j in (0..whole.1).step_by(8) {
            let from = &b.data[p + j * b.col..][..7 * b.col + 8];
            let to = &mut to[p * width + j..][..7 * width + 8];
            // SAFETY: `kernels` chose the function by the processor, and the slices span 8 rows of 8 at these steps.
            unsafe { (k.transpose)((from.as_ptr(), b.col), (to.as_mut_ptr(), width)) };
        }
    }
    for (p, to) in to.chunks_exact_mut(width).enumerate().take(b.rows) {
        let start = if p < whole.0 { whole.1 } else { 0 };
        for (j, x) in to[..b.cols].iter_mut().enumerate().skip(start) {
            *x = b.data[p * b.row + j * b.col];
        }
        to[b.cols..].fill(0.0);
    }
}

vectorized! {
    /// Rows of `cols` numbers, `pitch` apart, to rows of `width`.
    fn copy_rows(from: &[f32], rows: usize, cols: usize, pitch: usize, width: usize, to: &mut [f32]) {
        if cols == 32 && width == 32 {
            // The common case with an extent that the compiler knows: four loads and stores instead of a call.
            for (p, to) in to.as_chunks_mut::<32>().0.iter_mut().enumerate().take(rows) {
                *to = *from[p * pitch..].first_chunk().expect("the view reaches its last row");
            }
            return;
        }
        for (p, to) in to.chunks_exact_mut(width).enumerate().take(rows) {
            to[..cols].copy_from_slice(&from[p * pitch..][..cols]);
            to[cols..].fill(0.0);
        }
    }
}

/// True when the rows of `a` cannot be read well where they lie: an element of each of 12 rows is then 12 lines of memory
/// that the L1 cache has no place for, since a step of 4 KiB maps all to one set of 8, or that are used once each.
pub(super) fn left_helps(a: View<'_, f32>) -> bool {
    a.cols > 1 && (a.col != 1 || a.row.is_multiple_of(1024))
}

/// Rows of A as the micro-kernel reads them, a strip at a time.
pub(super) struct Left<'a> {
    data: &'a [f32],
    cols: usize,
    /// Steps from row to row and column to column of a strip, and from row to row between strips.
    row: usize,
    col: usize,
    strip_row: usize,
}

impl<'a> Left<'a> {
    /// Read where it lies.
    pub(super) fn in_place(a: View<'a, f32>) -> Self {
        Left { data: a.data, cols: a.cols, row: a.row, col: a.col, strip_row: a.row }
    }
    /// Rows of `cols` units, `pitch` apart.
    pub(super) fn rows(data: &'a [f32], cols: usize, pitch: usize) -> Self {
        Left { data, cols, row: pitch, col: 1, strip_row: pitch }
    }
    /// Strips of `height` rows, column after column.
    pub(super) fn strips(data: &'a [f32], cols: usize, height: usize) -> Self {
        Left { data, cols, row: 1, col: height, strip_row: cols }
    }
    /// The strip of `rows` rows that starts at row `i`, a multiple of the height of a tile.
    pub(super) fn strip(&self, i: usize, rows: usize) -> View<'a, f32> {
        View::strided(&self.data[i * self.strip_row..], rows, self.cols, self.row, self.col)
    }
}

/// Packs `a` for `f`: strips as high as a tile, column after column; or rows at a step that spreads them over the cache.
pub(super) fn left(k: &Kernels, a: View<'_, f32>, f: impl FnOnce(Left<'_>)) {
    let pitch = a.cols.div_ceil(k.depth()).next_multiple_of(16) + 16;
    scratch(&LEFT, a.rows.next_multiple_of(k.height) * pitch, |to| {
        if let Operands::Pairs(convert) = &k.operands {
            return pairs::left(convert, a, pitch, to, f);
        }
        let rows = a.col == 1;
        match (a.row, k.height) {
            _ if rows => copy_rows(a.data, a.rows, a.cols, a.row, pitch, to),
            (1, 12) => strips_12(a.data, a.col, a.rows, a.cols, to),
            (1, 6) => strips_6(a.data, a.col, a.rows, a.cols, to),
            (_, height) => strips_of(a, height, to),
        }
        if let Operands::Rounded = k.operands {
            round::all(to);
        }
        f(if rows { Left::rows(to, a.cols, pitch) } else { Left::strips(to, a.cols, k.height) });
    });
}

/// Strips of `height` rows, column after column: any strides.
fn strips_of(a: View<'_, f32>, height: usize, to: &mut [f32]) {
    for i in 0..a.rows {
        for p in 0..a.cols {
            to[i / height * height * a.cols + p * height + i % height] = a.data[i * a.row + p * a.col];
        }
    }
}

vectorized! {
    /// [`strips_of`] 12 rows for columns that lie together, `step` apart.
    fn strips_12(from: &[f32], step: usize, rows: usize, cols: usize, to: &mut [f32]) {
        strips::<12>(from, step, rows, cols, to);
    }
    /// [`strips_of`] 6 rows likewise.
    fn strips_6(from: &[f32], step: usize, rows: usize, cols: usize, to: &mut [f32]) {
        strips::<6>(from, step, rows, cols, to);
    }
}

#[inline(always)]
fn strips<const H: usize>(from: &[f32], step: usize, rows: usize, cols: usize, to: &mut [f32]) {
    for p in 0..cols {
        let (whole, rest) = from[p * step..][..rows].as_chunks::<H>();
        let to = &mut to[p * H..];
        for (i, x) in whole.iter().enumerate() {
            *to[i * H * cols..].first_chunk_mut().expect("room for whole strips") = *x;
        }
        if !rest.is_empty() {
            to[whole.len() * H * cols..][..rest.len()].copy_from_slice(rest);
        }
    }
}
