//! The ladder of matrix products of the book's chapter "Kernels on the CPU", measured:
//!
//! ```sh
//! cargo run --release --example cpu_ladder
//! ```
//!
//! All rungs take turns, so that a busy machine slows all of them. GFLOP/s of the median of all turns, and of the best.

#[allow(unreachable_pub, reason = "written as a library of its own")]
#[path = "../book/listings/gemm_ladder.rs"]
mod gemm_ladder;

use gemm_ladder::{naive, packed, peak, rows, tiles, vectors};
use ringtape::kernel::Real;
use ringtape::kernel::gemm::{View, ViewMut, matmul};
use ringtape::rng::Key;
use std::hint::black_box;
use std::time::Instant;

/// Rounds for each size, and the size: what fits caches, and what does not.
const SIZES: [(usize, usize); 2] = [(101, 192), (15, 960)];
/// Turns of the peak's loop.
const TURNS: usize = 100_000;

type Product<'a> = Box<dyn FnMut(&mut [f32]) + 'a>;

fn main() {
    println!("| | {} |", SIZES.map(|(_, n)| format!("{n}³ | best")).join(" | "));
    let columns: Vec<Vec<(&str, [f64; 2])>> = SIZES.iter().map(|&(rounds, n)| column(rounds, n)).collect();
    for (i, (name, _)) in columns[0].iter().enumerate() {
        let figures: Vec<String> =
            columns.iter().map(|c| format!("{:.1} | {:.1}", c[i].1[0], c[i].1[1])).collect();
        println!("| {name} | {} |", figures.join(" | "));
    }
}

/// GFLOP/s of each rung, of the median and of the best turn.
fn column(rounds: usize, n: usize) -> Vec<(&'static str, [f64; 2])> {
    let mut rng = Key::named(1, "cpu ladder").rng();
    let mut random = || (0..n * n).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
    let (a, b) = (random(), random());
    let (a, b) = (&a[..], &b[..]);
    let (left, right) = (View::new(a, n, n), View::new(b, n, n));
    let mut rungs: Vec<(&str, Product<'_>)> = vec![
        ("naive", Box::new(|c| naive(a, b, c, n))),
        ("rows", Box::new(|c| rows(a, b, c, n))),
        ("vectors", Box::new(|c| vectors(a, b, c, n))),
        ("tiles", Box::new(|c| tiles(a, b, c, n))),
        ("packed", Box::new(|c| packed(a, b, c, n))),
        ("ringtape, one thread", Box::new(|c| f32::gemm(left, right, 1.0, false, ViewMut::new(c, n, n)))),
        ("ringtape, all threads", Box::new(|c| matmul(left, right, c, false))),
    ];
    let mut c = vec![0.0; n * n];
    let mut seconds = vec![Vec::new(); rungs.len() + 1];
    for _ in 0..rounds {
        for ((_, product), seconds) in rungs.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            product(&mut c);
            seconds.push(start.elapsed().as_secs_f64());
            black_box(&c);
        }
        let start = Instant::now();
        black_box(peak(black_box(TURNS)));
        seconds[rungs.len()].push(start.elapsed().as_secs_f64());
    }
    let both = |s: &mut Vec<f64>| {
        s.sort_by(f64::total_cmp);
        [s[s.len() / 2], s[0]]
    };
    let product = 2.0 * (n as f64).powi(3);
    let names =
        rungs.iter().map(|(name, _)| (*name, product)).chain([("peak, one thread", 384.0 * TURNS as f64)]);
    names.zip(&mut seconds).map(|((name, flops), s)| (name, both(s).map(|s| flops / s / 1e9))).collect()
}
