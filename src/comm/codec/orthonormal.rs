//! Columns made orthonormal, by Gram and Schmidt.

/// A column of which less than this is left is in the span of those before, but for rounding.
const DEPENDENT: f64 = 1e-6;

/// Makes the `r` columns of `a`, row-major [rows, r], orthonormal, from the first on; one that depends on those before becomes 0.
/// Computed in f64, in one order. A NaN or an infinity makes NaNs.
pub(super) fn columns(a: &mut [f32], r: usize) {
    if r == 0 {
        return;
    }
    let rows = a.len() / r;
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(r);
    for c in 0..r {
        let mut column: Vec<f64> = (0..rows).map(|i| f64::from(a[i * r + c])).collect();
        let whole = norm(&column);
        // Twice is enough: the second turn takes away what the first left by rounding.
        for _ in 0..2 {
            for before in &done {
                let along: f64 = before.iter().zip(&column).map(|(x, y)| x * y).sum();
                column.iter_mut().zip(before).for_each(|(y, x)| *y -= along * x);
            }
        }
        let left = norm(&column);
        // Not the other way round: a NaN goes on.
        let factor = if left <= DEPENDENT * whole { 0.0 } else { 1.0 / left };
        column.iter_mut().for_each(|y| *y *= factor);
        column.iter().enumerate().for_each(|(i, y)| a[i * r + c] = *y as f32);
        done.push(column);
    }
}

/// Length.
pub(super) fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn product(a: &[f32], r: usize, i: usize, j: usize) -> f64 {
        a.chunks(r).map(|row| f64::from(row[i]) * f64::from(row[j])).sum()
    }

    #[test]
    fn columns_become_orthonormal_even_nearly_equal_ones_and_dependent_ones_zero() {
        let mut rng = Key::named(1, "orthonormal").rng();
        let (rows, r) = (50, 4);
        let mut a: Vec<f32> = (0..rows * r).map(|_| rng.normal() as f32).collect();
        for row in a.chunks_mut(r) {
            row[1] = row[0] + 1e-3 * row[1]; // nearly the first
            row[2] = 2.0 * row[0]; // the first
        }
        columns(&mut a, r);
        for i in 0..r {
            for j in 0..=i {
                let want = if i == j && i != 2 { 1.0 } else { 0.0 };
                let found = product(&a, r, i, j);
                assert!((found - want).abs() < 1e-6, "columns {i} and {j}: {found}");
            }
        }
        let mut bad = vec![1.0, 2.0, f32::NAN, 1.0];
        columns(&mut bad, 2);
        assert!(bad.iter().all(|x| x.is_nan()), "{bad:?}");
    }
}
