//! [`Precision`] of products, and rounding to bf16 and tf32 where no instruction does it.

use super::View;
use super::pack::{LEFT, RIGHT, Scratch, scratch};
use crate::vectorized;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::thread::LocalKey;

/// To what a product of f32 rounds its operands. Sums, results, and all products of f64 keep their type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To tf32: the 8 bits of exponent of an f32, and 11 bits of precision instead of 24, ties away from zero: what the
    /// tensor cores of GPUs since Ampere make of an f32 (PTX ISA 9.0, `cvt.rna.tf32.f32`). No faster on a processor.
    Tf32,
    /// To bfloat16: the 8 bits of exponent of an f32, and 8 bits of precision instead of 24.
    Bf16,
}

impl Precision {
    /// Bf16 when `flag`, else tf32: as kernels that round take it.
    pub fn rounded(bf16: bool) -> Precision {
        if bf16 { Precision::Bf16 } else { Precision::Tf32 }
    }
    /// True for bf16.
    pub fn is_bf16(self) -> bool {
        self == Precision::Bf16
    }
}

/// The nearest bf16, ties to even; too large is infinite, NaN stays NaN.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    let bits = x.to_bits();
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    f32::from_bits(if x.is_nan() { bits | 0x0040_0000 } else { up } & 0xffff_0000)
}

/// The nearest tf32, ties away from zero.
#[inline(always)]
fn nearest_tf32(x: f32) -> f32 {
    let bits = x.to_bits();
    let up = bits.wrapping_add(0x1000);
    f32::from_bits(if x.is_nan() { bits | 0x0040_0000 } else { up } & !0x1fff)
}

thread_local! {
    /// Rounded copies of both operands; the product itself has memory of its own.
    static LEFT_COPY: Scratch = const { Cell::new(Vec::new()) };
    static RIGHT_COPY: Scratch = const { Cell::new(Vec::new()) };
}

/// Two numbers as a pair of bf16 in the place of one f32, the first in the lower half.
pub(super) fn pair(x: f32, y: f32) -> f32 {
    f32::from_bits(nearest(x).to_bits() >> 16 | nearest(y).to_bits())
}

vectorized! {
    /// Every number of `x` to the nearest bf16.
    pub(super) fn all(x: &mut [f32]) {
        for x in x {
            *x = nearest(*x);
        }
    }

    /// Every number of `x` to the nearest tf32.
    fn all_tf32(x: &mut [f32]) {
        for x in x {
            *x = nearest_tf32(*x);
        }
    }
}

/// Hands both operands to `f`, rounded in copies when `precision` asks for it.
pub(super) fn operands<R>(
    precision: Precision,
    a: View<'_, f32>,
    b: View<'_, f32>,
    f: impl FnOnce(View<'_, f32>, View<'_, f32>) -> R,
) -> R {
    match precision {
        Precision::F32 => f(a, b),
        Precision::Bf16 => copied(a, &LEFT, all, |a| copied(b, &RIGHT, all, |b| f(a, b))),
        Precision::Tf32 => copied(a, &LEFT_COPY, all_tf32, |a| copied(b, &RIGHT_COPY, all_tf32, |b| f(a, b))),
    }
}

/// `from` for `f`, rounded in a copy in which lies together what does so in `from`.
pub(super) fn copied<R>(
    from: View<'_, f32>,
    memory: &'static LocalKey<Scratch>,
    round: fn(&mut [f32]),
    f: impl FnOnce(View<'_, f32>) -> R,
) -> R {
    let turn = from.row == 1 && from.col != 1;
    let seen = if turn { from.flipped() } else { from };
    // A step that spreads the rows over the cache.
    let pitch = (seen.cols.div_ceil(16) | 1) * 16;
    scratch(memory, seen.rows * pitch, |to| {
        for (i, to) in to.chunks_exact_mut(pitch).enumerate() {
            super::copy(seen.block(i, 0, 1, seen.cols), &mut to[..seen.cols]);
        }
        round(to);
        let view = View::strided(to, seen.rows, seen.cols, pitch, 1);
        f(if turn { view.flipped() } else { view })
    })
}

#[cfg(test)]
mod tests {
    use super::super::{ViewMut, blocked, matmul_rows, matmul_then, micro, sgemm, sgemm_portable};
    use super::*;
    use crate::rng::Key;

    type Single = dyn Fn(View<'_, f32>, View<'_, f32>, bool, ViewMut<'_, f32>);
    type Split = dyn Fn(View<'_, f32>, View<'_, f32>, bool, &mut [f32]) + Sync;

    /// One way to compute `C = A·B` or `C +=` on the calling thread, and one on the thread pool.
    struct Way {
        name: String,
        single: Box<Single>,
        split: Box<Split>,
    }

    /// Every path to a product of bf16 that this processor can take, forced; and the one that it takes.
    fn ways() -> Vec<Way> {
        let tiles = micro::all_bf16().into_iter().enumerate().map(|(i, k)| Way {
            name: format!("tiles {i}, {} rows, units of {}", k.height, k.depth()),
            single: Box::new(|a, b, add, c| blocked::product(k, a, b, 1.0, add, c)),
            split: Box::new(|a, b, add, c| {
                if !c.is_empty() {
                    blocked::parallel(k, a, b, c, add, &|_| {});
                }
            }),
        });
        let plain = Way {
            name: "plain".into(),
            single: Box::new(|a, b, add, c| {
                operands(Precision::Bf16, a, b, |a, b| sgemm_portable(a, b, 1.0, add, c));
            }),
            split: Box::new(|a, b, add, c| {
                if !c.is_empty() {
                    operands(Precision::Bf16, a, b, |a, b| {
                        matmul_rows(sgemm_portable, a, b, c, add, &|_| {});
                    });
                }
            }),
        };
        let chosen = Way {
            name: "chosen".into(),
            single: Box::new(|a, b, add, c| sgemm(Precision::Bf16, a, b, 1.0, add, c)),
            split: Box::new(|a, b, add, c| matmul_then(Precision::Bf16, a, b, c, add, |_| {})),
        };
        tiles.chain([plain, chosen]).collect()
    }

    /// Every way with a switch off, then on.
    fn both() -> impl Iterator<Item = (Way, bool)> {
        [false, true].into_iter().flat_map(|on| ways().into_iter().map(move |way| (way, on)))
    }

    /// Σ a·b and Σ |a·b| of rounded operands, in f64.
    fn reference(a: View<'_, f32>, b: View<'_, f32>, i: usize, j: usize) -> (f64, f64) {
        let at = |m: View<'_, f32>, i: usize, j: usize| nearest(m.data[i * m.row + j * m.col]) as f64;
        let products = (0..a.cols).map(|p| at(a, i, p) * at(b, p, j));
        products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()))
    }

    /// Sizes from 10⁻² to 10², some zeros, and numbers that are no longer normal.
    fn numbers(n: usize, stream: u64) -> Vec<f32> {
        let mut rng = Key::new(9, stream).rng();
        let mut one = |i: usize| match i % 23 {
            0 => 0.0,
            1 => 1e-39,
            r => rng.normal() as f32 * [0.01, 1.0, 100.0][r % 3],
        };
        (0..n).map(&mut one).collect()
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        let step = 2f32.powi(-7);
        let cases = [
            (1.0, 1.0),
            (1.0 + step / 2.0, 1.0),
            (1.0 + step * 0.51, 1.0 + step),
            (1.0 + step * 1.5, 1.0 + 2.0 * step),
            (-1.0 - step * 1.49, -1.0 - step),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
            (3.389e38, 3.3895314e38),
        ];
        for (x, want) in cases {
            assert_eq!(nearest(x), want, "{x}");
        }
        assert!(nearest(-0.0).is_sign_negative() && nearest(f32::from_bits(0x7f80_0001)).is_nan());
        let step = 2f32.powi(-10);
        for (x, want) in
            [(1.0 + step / 2.0, 1.0 + step), (-1.0 - step * 0.49, -1.0), (f32::MAX, f32::INFINITY)]
        {
            assert_eq!(nearest_tf32(x), want, "{x}");
        }
        assert!(
            nearest_tf32(f32::from_bits(0xff80_0001)).is_nan()
                && nearest_tf32(f32::INFINITY) == f32::INFINITY
        );
        assert_eq!(pair(1.0, -2.0).to_bits(), 0xc000_3f80);
    }

    #[test]
    fn every_path_and_layout_is_within_the_stated_bound() {
        // Tile edges, odd inner extents, several blocks of k, several parts of B, no extent at all.
        let extents = [
            (1, 1, 1),
            (1, 50, 7),
            (1, 35, 0),
            (5, 7, 3),
            (13, 16, 17),
            (130, 71, 90),
            (25, 1301, 48),
            (96, 33, 1100),
            (3, 9001, 600),
            (2, 0, 3),
        ];
        for ((m, k, n), form) in extents.iter().flat_map(|&e| (0..4).map(move |form| (e, form))) {
            let (x, y) = (numbers(m * k, 1), numbers(k * n, 2));
            let a = if form & 1 == 0 { View::new(&x, m, k) } else { View::transposed(&x, m, k) };
            let b = if form & 2 == 0 { View::new(&y, k, n) } else { View::transposed(&y, k, n) };
            let wanted: Vec<_> = (0..m * n).map(|at| reference(a, b, at / n, at % n)).collect();
            for (way, add) in both() {
                let start = if add { 1.0 } else { f32::NAN };
                let (mut split, mut single) = (vec![start; m * n], vec![start; m * (n + 1)]);
                (way.split)(a, b, add, &mut split);
                (way.single)(a, b, add, ViewMut::pitched(&mut single, m, n, n + 1));
                for (at, &(sum, size)) in wanted.iter().enumerate() {
                    let want = sum + if add { 1.0 } else { 0.0 };
                    let bound = k as f64 * (2f64.powi(-23) * (size + 1.0) + 2f64.powi(-126));
                    for got in [split[at], single[at / n * (n + 1) + at % n]] {
                        let error = (got as f64 - want).abs();
                        assert!(
                            error <= bound,
                            "{}: {m} {k} {n} form {form}: {got} {want} {bound}",
                            way.name
                        );
                    }
                }
                let beyond = single.chunks(n + 1).all(|row| row[n] == start || row[n].is_nan());
                assert!(beyond, "{}: wrote beyond its columns", way.name);
            }
        }
    }

    #[test]
    fn any_strides_are_read() {
        let (x, y) = (numbers(700, 3), numbers(700, 4));
        let (a, b) = (View::strided(&x, 14, 9, 30, 3), View::strided(&y, 9, 11, 60, 5));
        for way in ways() {
            let mut c = vec![0.0; 14 * 11];
            (way.split)(a, b, false, &mut c);
            for (at, &got) in c.iter().enumerate() {
                let (want, size) = reference(a, b, at / 11, at % 11);
                assert!((got as f64 - want).abs() <= 9.0 * 2f64.powi(-23) * (size + 1e-30), "{}", way.name);
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        for (m, k, n) in [(301, 1350, 75), (513, 260, 96), (97, 600, 33)] {
            let (x, y) = (numbers(m * k, 5), numbers(k * n, 6));
            for (way, turn) in both() {
                let a = if turn { View::transposed(&x, m, k) } else { View::new(&x, m, k) };
                let b = if turn { View::new(&y, k, n) } else { View::transposed(&y, k, n) };
                let of = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                    let mut c = vec![0.0; m * n];
                    pool.install(|| (way.split)(a, b, false, &mut c));
                    c
                };
                let one = of(1);
                assert!([2, 3, 8].into_iter().all(|t| of(t) == one), "{}", way.name);
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_that() {
        let x = [1.0, f32::INFINITY, f32::NAN, 1.0, 3e38, 2.0];
        let y = [1.0, 1.0];
        for way in ways() {
            let mut c = [0.0; 3];
            (way.split)(View::new(&x, 3, 2), View::new(&y, 2, 1), false, &mut c);
            assert!(
                c[0] == f32::INFINITY && c[1].is_nan() && c[2] == nearest(3e38) + 2.0,
                "{}: {c:?}",
                way.name
            );
        }
    }
}
