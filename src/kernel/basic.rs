//! The kernels that the tape itself needs: adding one gradient to another, copying, scaling.

use super::{Real, par};
use crate::{kernel, vectorized};

kernel! {
    ptx "basic";
    /// y += x.
    pub static ADD_INTO = add_into(x: in T, y: out T);
    /// y = x.
    pub static COPY = copy(x: in T, y: out T);
    /// y = c·x, or y += c·x when `accumulate`.
    pub static SCALE = scale(x: in T, y: out T, c: val T, accumulate: val flag);
}

/// All of them.
pub static ALL: &[&super::Kernel] = &[&ADD_INTO, &COPY, &SCALE];

fn add_into<T: Real>(x: &[T], y: &mut [T]) {
    scale(x, y, T::ONE, true);
}

fn copy<T: Real>(x: &[T], y: &mut [T]) {
    par::chunks_mut(y, par::CHUNK, x.len() / 4, |i, y| y.copy_from_slice(&x[i * par::CHUNK..][..y.len()]));
}

fn scale<T: Real>(x: &[T], y: &mut [T], c: T, accumulate: bool) {
    par::chunks_mut(y, par::CHUNK, x.len() / 4, |i, y| {
        scale_chunk(&x[i * par::CHUNK..][..y.len()], y, c, accumulate)
    });
}

vectorized! {
    fn scale_chunk<T: Real>(x: &[T], y: &mut [T], c: T, accumulate: bool) {
        if accumulate {
            for (y, &x) in y.iter_mut().zip(x) {
                *y += c * x;
            }
        } else {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = c * x;
            }
        }
    }

    /// Sum of squares, in f64, of one chunk.
    fn squares<T: Real>(x: &[T]) -> f64 {
        super::reduce::sum_of([x], |[x]| x.f64() * x.f64())
    }
}

/// Sum of squares of `x` in f64: fixed chunks, summed in order.
pub fn sum_of_squares<T: Real>(x: &[T]) -> f64 {
    use rayon::prelude::*;
    if par::worthwhile(x.len() / 2) {
        let parts: Vec<f64> = x.par_chunks(par::CHUNK).map(squares).collect();
        parts.iter().sum()
    } else {
        x.chunks(par::CHUNK).map(squares).sum()
    }
}
