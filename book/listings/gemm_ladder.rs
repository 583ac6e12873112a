//! c = a·b with n rows, columns and depth, n a multiple of 96: the same sums, in better and better order. Each rung
//! changes one thing of the rung before.

use ringtape::vectorized;

// ANCHOR: naive
/// As it is defined: each element of c is a sum over p.
pub fn naive(a: &[f32], b: &[f32], c: &mut [f32], n: usize) {
    for i in 0..n {
        for j in 0..n {
            let mut sum = 0.0;
            for p in 0..n {
                sum += a[i * n + p] * b[p * n + j];
            }
            c[i * n + j] = sum;
        }
    }
}
// ANCHOR_END: naive

// ANCHOR: rows
/// Loops exchanged: a row of c gathers rows of b, whose numbers lie one behind the other.
#[inline(always)]
fn rows_of(a: &[f32], b: &[f32], c: &mut [f32], n: usize) {
    c.fill(0.0);
    for (a, c) in a.chunks_exact(n).zip(c.chunks_exact_mut(n)) {
        for (a, b) in a.iter().zip(b.chunks_exact(n)) {
            for (c, b) in c.iter_mut().zip(b) {
                *c += a * b;
            }
        }
    }
}
// ANCHOR_END: rows

/// [`rows_of`] for the processor that every binary may count on.
pub fn rows(a: &[f32], b: &[f32], c: &mut [f32], n: usize) {
    rows_of(a, b, c, n);
}

vectorized! {
    /// The same lines, compiled for the widest vectors that the processor has.
    pub fn vectors(a: &[f32], b: &[f32], c: &mut [f32], n: usize) {
        rows_of(a, b, c, n);
    }
}

// ANCHOR: tile
/// Rows and columns of c whose sums stay in registers.
const HIGH: usize = 6;
const WIDE: usize = 32;

/// One step of all sums of a tile: each of HIGH numbers of a with each of WIDE of b.
#[inline(always)]
fn step(sums: &mut [[f32; WIDE]; HIGH], a: impl Fn(usize) -> f32, b: &[f32]) {
    let b = &b[..WIDE];
    for (i, sums) in sums.iter_mut().enumerate() {
        let a = a(i);
        for (sum, b) in sums.iter_mut().zip(b) {
            *sum = a.mul_add(*b, *sum);
        }
    }
}
// ANCHOR_END: tile

vectorized! {
    /// Tiles of c in registers; b is read where it lies.
    pub fn tiles(a: &[f32], b: &[f32], c: &mut [f32], n: usize) {
        for i in (0..n).step_by(HIGH) {
            for j in (0..n).step_by(WIDE) {
                let mut sums = [[0.0; WIDE]; HIGH];
                for p in 0..n {
                    step(&mut sums, |r| a[(i + r) * n + p], &b[p * n + j..]);
                }
                for (r, sums) in sums.iter().enumerate() {
                    c[(i + r) * n + j..][..WIDE].copy_from_slice(sums);
                }
            }
        }
    }
}

/// Depth of a block of b: with WIDE columns it takes 32 KiB.
const DEPTH: usize = 256;

vectorized! {
    // ANCHOR: packed
    /// Blocks of b are copied in the order in which tiles read them, and used by all rows of a while they are in cache.
    pub fn packed(a: &[f32], b: &[f32], c: &mut [f32], n: usize) {
        let mut panel = vec![0.0; DEPTH * WIDE];
        c.fill(0.0);
        for j in (0..n).step_by(WIDE) {
            for start in (0..n).step_by(DEPTH) {
                let rows = start..n.min(start + DEPTH);
                for (p, to) in rows.clone().zip(panel.chunks_exact_mut(WIDE)) {
                    to.copy_from_slice(&b[p * n + j..][..WIDE]);
                }
                for i in (0..n).step_by(HIGH) {
                    let mut sums = [[0.0; WIDE]; HIGH];
                    for (p, b) in rows.clone().zip(panel.chunks_exact(WIDE)) {
                        step(&mut sums, |r| a[(i + r) * n + p], b);
                    }
                    for (r, sums) in sums.iter().enumerate() {
                        c[(i + r) * n + j..][..WIDE].iter_mut().zip(sums).for_each(|(c, sum)| *c += sum);
                    }
                }
            }
        }
    }
    // ANCHOR_END: packed
}

vectorized! {
    /// What the processor can do at most: multiply-adds of numbers that never leave registers, 384 a turn.
    pub fn peak(turns: usize) -> f32 {
        let (mut sums, x) = ([[0.5f32; 32]; 6], [0.999f32; 32]);
        for _ in 0..turns {
            for sums in &mut sums {
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = sum.mul_add(x, 1e-3);
                }
            }
        }
        sums.iter().flatten().sum()
    }
}
