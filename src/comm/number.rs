//! Numbers that ranks reduce: sum, maximum, mean.

use super::tag::Reduce;
use super::transport::Combine;
use crate::error::{Error, Result};
use crate::shape::DType;
use crate::tensor::Element;
use crate::vectorized;

/// An element that can be reduced.
pub trait Number: Element {
    /// a + b; integers wrap.
    fn plus(a: Self, b: Self) -> Self;
    /// The larger. NaN where one is, +0 of two zeros, and the same bits whichever comes first.
    fn larger(a: Self, b: Self) -> Self;
    /// self / n, rounded once; an integer stays as it is.
    fn over(self, n: usize) -> Self;
}

macro_rules! real { ($($t:ty),*) => { $(
    impl Number for $t {
        #[inline(always)]
        fn plus(a: $t, b: $t) -> $t {
            a + b
        }
        #[inline(always)]
        fn larger(a: $t, b: $t) -> $t {
            if a > b {
                a
            } else if b > a {
                b
            } else if a == b {
                // Equal numbers have equal bits, but for the zeros.
                <$t>::from_bits(a.to_bits() & b.to_bits())
            } else {
                <$t>::NAN
            }
        }
        #[inline(always)]
        fn over(self, n: usize) -> $t {
            self / n as $t
        }
    }
)* } }
real!(f32, f64);

impl Number for i32 {
    #[inline(always)]
    fn plus(a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }
    #[inline(always)]
    fn larger(a: i32, b: i32) -> i32 {
        a.max(b)
    }
    fn over(self, _: usize) -> i32 {
        self
    }
}

vectorized! {
    fn add<T: Number>(into: &mut [T], arrived: &[T]) {
        for (x, y) in into.iter_mut().zip(arrived) {
            *x = T::plus(*y, *x);
        }
    }
    fn max<T: Number>(into: &mut [T], arrived: &[T]) {
        for (x, y) in into.iter_mut().zip(arrived) {
            *x = T::larger(*y, *x);
        }
    }
    fn divide<T: Number>(x: &mut [T], n: usize) {
        for x in x {
            *x = x.over(n);
        }
    }
}

/// How arrived bytes are combined: arrived + local, which makes a left fold of what goes round the ring.
pub(super) fn combine<T: Number>(reduce: Reduce) -> Combine {
    match reduce {
        Reduce::Sum | Reduce::Mean => |x, y| add::<T>(bytemuck::cast_slice_mut(x), bytemuck::cast_slice(y)),
        Reduce::Max => |x, y| max::<T>(bytemuck::cast_slice_mut(x), bytemuck::cast_slice(y)),
    }
}

/// The sum becomes the mean over `ranks`, where that is asked for.
pub(super) fn finish<T: Number>(reduce: Reduce, x: &mut [T], ranks: usize) {
    if reduce == Reduce::Mean {
        divide(x, ranks);
    }
}

/// Integers have no mean.
pub(super) fn allowed<T: Number>(call: &str, reduce: Reduce) -> Result<()> {
    match (reduce, T::DTYPE) {
        (Reduce::Mean, DType::I32) => {
            Err(Error::dtype(call, "the mean of i32 is no integer; take the sum, or convert to f32"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_has_the_same_bits_either_way() {
        let cases = [1.0, -1.0, 0.0, -0.0, f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        for a in cases {
            for b in cases {
                let (x, y) = (f32::larger(a, b), f32::larger(b, a));
                assert_eq!(x.to_bits(), y.to_bits(), "{a} {b}");
                assert!(x.is_nan() == (a.is_nan() || b.is_nan()) && (x.is_nan() || x == a.max(b)), "{a} {b}");
            }
        }
        assert_eq!(f32::larger(-0.0, 0.0).to_bits(), 0);
    }

    #[test]
    fn integers_wrap_and_have_no_mean() {
        assert_eq!(i32::plus(i32::MAX, 1), i32::MIN);
        assert!(
            allowed::<i32>("reduce", Reduce::Mean).is_err() && allowed::<i32>("reduce", Reduce::Sum).is_ok()
        );
    }
}
