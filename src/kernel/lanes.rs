//! Sums and maxima over sixteen lanes in a fixed order: the same bits on every instruction set.

/// Lanes of the fixed accumulators below: the same on every instruction set, so sums have the same bits everywhere.
pub const LANES: usize = 16;

/// Sum of `f(i)` for i in 0..n in a fixed order: sixteen interleaved partial sums, then a tree.
#[inline(always)]
pub fn sum_by<T: super::Real>(n: usize, f: impl Fn(usize) -> T) -> T {
    let mut acc = [T::ZERO; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (l, a) in acc.iter_mut().enumerate() {
            *a += f(i + l);
        }
        i += LANES;
    }
    for l in 0..n - whole {
        acc[l] += f(whole + l);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            acc[l] += acc[l + width];
        }
        width /= 2;
    }
    acc[0]
}

/// Largest of `x`, NaN if any is NaN; -inf when empty.
#[inline(always)]
pub fn max_of<T: super::Real>(x: &[T]) -> T {
    let mut acc = [T::NEG_INFINITY; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for c in &mut chunks {
        for l in 0..LANES {
            acc[l] = c[l].max_nan(acc[l]);
        }
    }
    for (l, &v) in chunks.remainder().iter().enumerate() {
        acc[l] = v.max_nan(acc[l]);
    }
    acc.iter().fold(T::NEG_INFINITY, |m, &v| v.max_nan(m))
}

/// Largest number of `x`, NaN left out; -inf when there is none. For sums of e^(x − max), where a NaN comes back anyway:
/// one instruction a vector, where [`max_of`] needs four in a chain.
#[inline(always)]
pub fn max_number<T: super::Real>(x: &[T]) -> T {
    let mut acc = [T::NEG_INFINITY; LANES];
    let (whole, tail) = x.as_chunks::<LANES>();
    for c in whole {
        for l in 0..LANES {
            acc[l] = if c[l] > acc[l] { c[l] } else { acc[l] };
        }
    }
    // The tail is the last whole vector once more: what was seen already changes no maximum.
    if let Some(c) = x.last_chunk::<LANES>() {
        for l in 0..LANES {
            acc[l] = if c[l] > acc[l] { c[l] } else { acc[l] };
        }
    } else {
        for (a, &v) in acc.iter_mut().zip(tail) {
            *a = if v > *a { v } else { *a };
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            acc[l] = if acc[l + width] > acc[l] { acc[l + width] } else { acc[l] };
        }
        width /= 2;
    }
    acc[0]
}
