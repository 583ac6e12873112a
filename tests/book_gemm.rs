//! The chapter "Kernels on the CPU": every rung of its ladder is the same product, and its counts are right.

#[allow(unreachable_pub, dead_code, reason = "written as a library of its own")]
#[path = "../book/listings/gemm_ladder.rs"]
mod gemm_ladder;

use gemm_ladder::{naive, packed, rows, tiles, vectors};
use ringtape::kernel::gemm::{View, matmul};
use ringtape::rng::Key;

type Product = fn(&[f32], &[f32], &mut [f32], usize);

#[test]
fn every_rung_is_the_same_product() {
    for n in [96, 288] {
        let mut rng = Key::named(1, "book, gemm").rng();
        let mut random = || (0..n * n).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let (a, b) = (random(), random());
        let exact = |i: usize, j: usize| {
            (0..n).map(|p| f64::from(a[i * n + p]) * f64::from(b[p * n + j])).sum::<f64>()
        };
        let rungs: [(&str, Product); 6] = [
            ("naive", naive),
            ("rows", rows),
            ("vectors", vectors),
            ("tiles", tiles),
            ("packed", packed),
            ("ringtape", |a, b, c, n| matmul(View::new(a, n, n), View::new(b, n, n), c, false)),
        ];
        for (name, product) in rungs {
            // What was there before is of no account.
            let mut c = vec![f32::NAN; n * n];
            product(&a, &b, &mut c, n);
            for (at, &c) in c.iter().enumerate() {
                let want = exact(at / n, at % n);
                assert!((f64::from(c) - want).abs() < 1e-4 * (n as f64).sqrt(), "{name}, {n}: {at}");
            }
        }
    }
}

/// Exercise 1: loads of a tile's step, for each multiply-add of a vector.
#[test]
fn exercise_1_the_tile_that_loads_least() {
    let loads = |high: usize, vectors: usize| (high + vectors) as f64 / (high * vectors) as f64;
    // Sums, the vectors of b and one of a must fit the registers: 16 of AVX2, 32 of AVX-512.
    let best = |registers: usize| {
        let tiles = (1..=registers).flat_map(|h| (1..=8).map(move |v| (h, v)));
        let fit = tiles.filter(|(h, v)| h * v + v < registers);
        fit.min_by(|&(a, b), &(c, d)| loads(a, b).total_cmp(&loads(c, d))).unwrap()
    };
    assert_eq!((best(16), best(32)), ((4, 3), (5, 5)));
    assert!((loads(12, 2) - 14.0 / 24.0).abs() < 1e-12 && loads(1, 1) == 2.0);
}
