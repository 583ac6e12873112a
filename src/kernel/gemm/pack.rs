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
pub(crate) struct Line([f32; 16]);

/// Packing memory of a thread, kept from product to product.
pub(crate) type Scratch = Cell<Vec<Line>>;

thread_local! {
    pub(super) static LEFT: Scratch = const { Cell::new(Vec::new()) };
    pub(super) static RIGHT: Scratch = const { Cell::new(Vec::new()) };
}

/// Lends `f` the first `n` numbers of `memory`, with any contents.
pub(crate) fn scratch<T: Pod, R>(
    memory: &'static LocalKey<Scratch>,
    n: usize,
    f: impl FnOnce(&mut [T]) -> R,
) -> R {
    // Taken out while it is lent: a thread that waits inside `f` may run another product meanwhile.
    let (mut lines, count) = (memory.take(), (n * size_of::<T>()).div_ceil(size_of::<Line>()));
    if lines.len() < count {
        lines.resize(count, Line([0.0; 16]));
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

/// True when rows of A start in the same set of the L1 cache, a step of 4 KiB apart: it has 8 places for the lines that
/// the 12 rows of a tile need at once.
pub(super) fn rows_collide(a: View<'_, f32>) -> bool {
    a.rows > 8 && a.col == 1 && a.row.is_multiple_of(1024)
}

/// The rows of `a` for `f`, at a step that spreads them over the cache.
pub(super) fn spread(a: View<'_, f32>, f: impl FnOnce(View<'_, f32>)) {
    let pitch = a.cols.next_multiple_of(16) + 16;
    scratch(&LEFT, a.rows * pitch, |to| {
        copy_rows(a.data, a.rows, a.cols, a.row, pitch, to);
        f(View::strided(to, a.rows, a.cols, pitch, 1));
    });
}

/// `a` for `f` in units of bf16.
pub(super) fn converted(k: &Kernels, a: View<'_, f32>, f: impl FnOnce(View<'_, f32>)) {
    match &k.operands {
        Operands::Pairs(convert) => pairs::left(convert, a, f),
        _ => round::copied(a, &LEFT, round::all, f),
    }
}
