//! `+ × ÷ √` and fma in each rounding.
//!
//! The sign of (exact - r) of f32 comes from f64: a product of two f32 is exact there, and a sum is a pair (s, e) of the
//! rounded sum and its error (Knuth's two-sum). Of f64 the error of a product is one fma. Where that would underflow or
//! overflow, operands are scaled by a power of two first, which changes no sign.

use super::{Mode, Real, Rounding, settle};

/// s + e = a + b exactly, s the nearest f64.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let v = s - a;
    (s, (a - (s - v)) + (b - v))
}

/// The sign of (s + e - r), where r is s rounded to fewer bits, or s itself: their difference is exact.
#[inline(always)]
fn beyond(s: f64, e: f64, r: f64) -> f64 {
    if r.is_infinite() {
        return -r;
    }
    let d = s - r;
    if d != 0.0 { d } else { e }
}

/// A sum that is exactly zero is -0 when rounding down, unless both terms are +0.
#[inline(always)]
fn zero_sum<R: Rounding, T: Real>(r: T, exact: bool, plus: bool) -> T {
    if R::MODE == Mode::Down && exact && !plus && r == T::default() { T::minus_zero() } else { r }
}

/// a + b.
#[inline(always)]
pub fn add<R: Rounding>(a: f32, b: f32) -> f32 {
    let r = a + b;
    if R::MODE == Mode::Nearest || !a.is_finite() || !b.is_finite() {
        return r;
    }
    let (s, e) = two_sum(f64::from(a), f64::from(b));
    let side = beyond(s, e, f64::from(r));
    zero_sum::<R, f32>(settle::<R, f32>(r, side), side == 0.0, !a.negative() && !b.negative())
}

/// a · b.
#[inline(always)]
pub fn mul<R: Rounding>(a: f32, b: f32) -> f32 {
    let r = a * b;
    if R::MODE == Mode::Nearest || !a.is_finite() || !b.is_finite() {
        return r;
    }
    settle::<R, f32>(r, beyond(f64::from(a) * f64::from(b), 0.0, f64::from(r)))
}

/// a · b + c with one rounding.
#[inline(always)]
pub fn fma<R: Rounding>(a: f32, b: f32, c: f32) -> f32 {
    let r = a.mul_add(b, c);
    if R::MODE == Mode::Nearest || !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return r;
    }
    let p = f64::from(a) * f64::from(b);
    let (s, e) = two_sum(p, f64::from(c));
    let side = beyond(s, e, f64::from(r));
    zero_sum::<R, f32>(settle::<R, f32>(r, side), side == 0.0, !p.negative() && !c.negative())
}

/// a / b.
#[inline(always)]
pub fn div<R: Rounding>(a: f32, b: f32) -> f32 {
    let r = a / b;
    if R::MODE == Mode::Nearest || !a.is_finite() || !b.is_finite() || b == 0.0 {
        return r;
    }
    if r.is_infinite() {
        return settle::<R, f32>(r, f64::from(-r));
    }
    // a - r b has the sign of the exact quotient's distance, times that of b.
    let rest = f64::from(a) - f64::from(r) * f64::from(b);
    settle::<R, f32>(r, if b < 0.0 { -rest } else { rest })
}

/// √a.
#[inline(always)]
pub fn sqrt<R: Rounding>(a: f32) -> f32 {
    let r = a.sqrt();
    if R::MODE == Mode::Nearest || !r.is_finite() {
        return r;
    }
    settle::<R, f32>(r, f64::from(a) - f64::from(r) * f64::from(r))
}

/// Below this a product's error may not be a number any more.
const TINY: f64 = f64::from_bits((1023 - 900) << 52);
/// Above this a product may overflow although the sum with it does not.
const HUGE: f64 = f64::from_bits((1023 + 1000) << 52);

/// 2^k.
const fn two(k: i64) -> f64 {
    f64::from_bits(((1023 + k) as u64) << 52)
}

/// a + b.
#[inline(always)]
pub fn add64<R: Rounding>(a: f64, b: f64) -> f64 {
    let r = a + b;
    if R::MODE == Mode::Nearest || !a.is_finite() || !b.is_finite() {
        return r;
    }
    let side = if r.is_infinite() { -r } else { two_sum(a, b).1 };
    zero_sum::<R, f64>(settle::<R, f64>(r, side), side == 0.0, !a.negative() && !b.negative())
}

/// a · b.
pub fn mul64<R: Rounding>(a: f64, b: f64) -> f64 {
    let r = a * b;
    if R::MODE == Mode::Nearest || !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return r;
    }
    let side = if r.is_infinite() {
        -r
    } else if r.abs() >= TINY {
        a.mul_add(b, -r)
    } else if r == 0.0 {
        a.signum() * b.signum()
    } else {
        let (small, other) = if a.abs() < b.abs() { (a, b) } else { (b, a) };
        (small * two(500)).mul_add(other, -r * two(500))
    };
    settle::<R, f64>(r, side)
}

/// a / b.
pub fn div64<R: Rounding>(a: f64, b: f64) -> f64 {
    let r = a / b;
    if R::MODE == Mode::Nearest || !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return r;
    }
    let side = if r.is_infinite() {
        -r
    } else if r == 0.0 {
        a.signum() * b.signum()
    } else {
        // r scale · b stays below a scale, and a is small where it is scaled up.
        let scale = if a.abs() < TINY { two(600) } else { 1.0 };
        (-r * scale).mul_add(b, a * scale) * b.signum()
    };
    settle::<R, f64>(r, side)
}

/// √a.
pub fn sqrt64<R: Rounding>(a: f64) -> f64 {
    let r = a.sqrt();
    if R::MODE == Mode::Nearest || !r.is_finite() {
        return r;
    }
    let (up, root) = if a < TINY { (two(600), two(300)) } else { (1.0, 1.0) };
    settle::<R, f64>(r, (-r * root).mul_add(r * root, a * up))
}

/// a · b + c with one rounding.
pub fn fma64<R: Rounding>(a: f64, b: f64, c: f64) -> f64 {
    let r = a.mul_add(b, c);
    if R::MODE == Mode::Nearest || !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return r;
    }
    if r.is_infinite() {
        return settle::<R, f64>(r, -r);
    }
    if a == 0.0 || b == 0.0 {
        return zero_sum::<R, f64>(r, true, !(a * b).negative() && !c.negative());
    }
    let side = product_and_sum(a, b, c, r);
    zero_sum::<R, f64>(settle::<R, f64>(r, side), side == 0.0, false)
}

/// The sign of (a b + c - r), where r is the nearest f64 to a b + c.
fn product_and_sum(a: f64, b: f64, c: f64, r: f64) -> f64 {
    let (small, large) = if a.abs() < b.abs() { (a, b) } else { (b, a) };
    let p = a * b;
    let (small, large, c, r) = if p.abs() < TINY {
        if c.abs() > two(-400) {
            return small.signum() * large.signum(); // r = c
        }
        (small * two(500), large, c * two(500), r * two(500))
    } else if p.abs() > HUGE {
        // What c loses here is far below the product's last bit; its sign is kept.
        let less = c * two(-200);
        let less = if less.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE.copysign(c) } else { less };
        (small, large * two(-200), if c == 0.0 { c } else { less }, r * two(-200))
    } else {
        (small, large, c, r)
    };
    let p = small * large;
    if p == 0.0 {
        // The product is below half of the smallest subnormal even after scaling.
        return if c == r { small.signum() * large.signum() } else { c - r };
    }
    let e = small.mul_add(large, -p);
    // p + e + c - r: s - r is exact, then the two small parts are added without losing their sign.
    let (s, t) = two_sum(p, c);
    let (u, v) = two_sum(t, e);
    let (w, x) = two_sum(s - r, u);
    if w != 0.0 { w } else { x + v }
}

#[cfg(test)]
mod tests {
    use super::super::{Rm, Rn, Rp, Rz};
    use super::*;

    fn bits(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *seed ^ *seed >> 29
    }

    /// Mantissa and exponent: x = m · 2^e.
    fn parts(x: f32) -> (i128, i32) {
        let b = x.to_bits();
        let (e, f) = ((b >> 23 & 255) as i32, i128::from(b & 0x7f_ffff));
        let m = if e == 0 { f } else { f | 1 << 23 };
        (if x.is_sign_negative() { -m } else { m }, e.max(1) - 150)
    }

    /// The sign of (m · 2^e - x).
    fn versus((m, e): (i128, i32), x: f32) -> i32 {
        if x.is_infinite() {
            return -x.signum() as i32;
        }
        let (mx, ex) = parts(x);
        let low = e.min(ex);
        ((m << (e - low)) - (mx << (ex - low))).signum() as i32
    }

    /// Does each rounding stand where it must around the exact value m · 2^e?
    fn around(exact: (i128, i32), rn: f32, rz: f32, rp: f32, rm: f32) {
        assert!(versus(exact, rm) >= 0 && versus(exact, rp) <= 0, "{exact:?} {rm} {rp}");
        if versus(exact, rn) == 0 {
            assert!(rz == rn && rp == rn && rm == rn, "{exact:?} {rn} {rz} {rp} {rm}");
        } else {
            assert_eq!(rm.next_up(), if rp == 0.0 { 0.0 } else { rp }, "{exact:?}");
            assert!(rn == rm || rn == rp);
            assert_eq!(rz, if exact.0 < 0 { rp } else { rm });
        }
    }

    /// Operands whose exponents are near enough for 128 bits.
    fn operand(seed: &mut u64, spread: u64) -> f32 {
        let b = bits(seed);
        let e = 127 - spread / 2 + (b >> 40) % spread;
        let zeros = if b >> 60 == 0 { 0xffff_f000 } else { !0 };
        f32::from_bits((b as u32 & 0x807f_ffff & zeros) | (e as u32) << 23)
    }

    #[test]
    fn f32_stands_around_the_exact_value() {
        let s = &mut 7;
        for _ in 0..20_000 {
            let (a, b, c) = (operand(s, 60), operand(s, 60), operand(s, 60));
            let ((ma, ea), (mb, eb), (mc, ec)) = (parts(a), parts(b), parts(c));
            let sum =
                |m: i128, e: i32, n: i128, f: i32| ((m << (e - e.min(f))) + (n << (f - e.min(f))), e.min(f));
            around(sum(ma, ea, mb, eb), add::<Rn>(a, b), add::<Rz>(a, b), add::<Rp>(a, b), add::<Rm>(a, b));
            around((ma * mb, ea + eb), mul::<Rn>(a, b), mul::<Rz>(a, b), mul::<Rp>(a, b), mul::<Rm>(a, b));
            let d = operand(s, 16);
            let (md, ed) = parts(d);
            let exact = sum(ma * md, ea + ed, mc, ec);
            around(exact, fma::<Rn>(a, d, c), fma::<Rz>(a, d, c), fma::<Rp>(a, d, c), fma::<Rm>(a, d, c));
            // Quotient and root: the exact value is between q and q + 1 units of 2^-40 of its last place.
            let near = div::<Rn>(a, b);
            let q = [near, div::<Rz>(a, b), div::<Rp>(a, b), div::<Rm>(a, b)];
            let low = |x: f32| {
                let (m, e) = parts(x);
                sum(m * mb, e + eb, -ma, ea).0 * mb.signum()
            };
            assert!(low(q[3]) <= 0 && low(q[2]) >= 0 && (low(near) != 0 || q == [near; 4]), "{a} / {b}");
            assert!(low(near) == 0 || q[3].next_up() == q[2] && q[1] == if near < 0.0 { q[2] } else { q[3] });
            let (r, down, up) = (sqrt::<Rn>(a.abs()), sqrt::<Rm>(a.abs()), sqrt::<Rp>(a.abs()));
            assert!(
                f64::from(down).powi(2) <= f64::from(a.abs()) && f64::from(up).powi(2) >= f64::from(a.abs())
            );
            assert!(r == down && r == up || down.next_up() == up, "sqrt {a}");
        }
    }

    #[test]
    fn zeros_infinities_and_the_ends_of_the_range() {
        assert_eq!(add::<Rm>(1.0, -1.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(add::<Rz>(1.0, -1.0).to_bits(), 0);
        assert_eq!(add::<Rm>(0.0, 0.0).to_bits(), 0);
        assert_eq!(fma64::<Rm>(1.0, 1.0, -1.0).to_bits(), (-0.0f64).to_bits());
        assert_eq!(mul::<Rz>(f32::MAX, 2.0), f32::MAX);
        assert_eq!(mul::<Rp>(f32::MAX, 2.0), f32::INFINITY);
        assert_eq!(mul::<Rm>(f32::MAX, -2.0), f32::NEG_INFINITY);
        assert_eq!(div::<Rm>(f32::MAX, 0.25), f32::MAX);
        assert_eq!(div::<Rm>(1.0, 0.0), f32::INFINITY);
        assert_eq!(mul::<Rp>(f32::from_bits(1), 0.25), f32::from_bits(1));
        assert_eq!(mul::<Rp>(-f32::from_bits(1), 0.25).to_bits(), 1 << 31);
        assert_eq!(mul64::<Rp>(5e-324, 5e-324), 5e-324);
        assert_eq!(div64::<Rm>(-5e-324, 4.0), -5e-324);
        assert_eq!(fma64::<Rp>(5e-324, 5e-324, 1.0), 1.0f64.next_up());
        assert_eq!(fma64::<Rm>(5e-324, -5e-324, 1.0), 1.0f64.next_down());
        assert_eq!(fma64::<Rz>(1e200, 1e200, -f64::MAX), f64::MAX);
        assert_eq!(fma64::<Rz>(2.0, f64::MAX, -f64::MAX), f64::MAX);
        assert_eq!(fma64::<Rp>(1e-170, 1e-170, -5e-324), 0.0);
        assert!(sqrt::<Rp>(-1.0).is_nan() && add::<Rz>(f32::INFINITY, f32::NEG_INFINITY).is_nan());
    }

    #[test]
    fn f64_agrees_with_products_and_sums_that_are_known() {
        // (1 + 2^-30)(1 + 2^-30) = 1 + 2^-29 + 2^-60: above the nearest f64 by 2^-60.
        let a = 1.0 + two(-30);
        assert_eq!(mul64::<Rz>(a, a), 1.0 + two(-29));
        assert_eq!(mul64::<Rp>(a, a), (1.0 + two(-29)).next_up());
        // The same near the smallest numbers: the exact product is between two subnormals.
        let b = a * two(-511);
        assert_eq!(mul64::<Rm>(b, b), two(-1022) + two(-1000) * two(-51));
        assert_eq!(mul64::<Rp>(b, b), (two(-1022) + two(-1000) * two(-51)).next_up());
        assert_eq!(fma64::<Rz>(a, a, -1.0), two(-29) + two(-60));
        assert_eq!(fma64::<Rp>(a, a, two(-120)), (1.0 + two(-29)).next_up());
        assert_eq!(fma64::<Rm>(a, a, -two(-60)), 1.0 + two(-29));
        assert_eq!(fma64::<Rm>(a, a, -two(-60) - two(-112)), (1.0 + two(-29)).next_down());
        assert_eq!(div64::<Rm>(1.0, 3.0).to_bits(), 0x3FD5_5555_5555_5555);
        assert_eq!(div64::<Rp>(1.0, 3.0).to_bits(), 0x3FD5_5555_5555_5556);
        assert_eq!(sqrt64::<Rm>(2.0).to_bits(), 0x3FF6_A09E_667F_3BCC);
        assert_eq!(sqrt64::<Rp>(2.0).to_bits(), 0x3FF6_A09E_667F_3BCD);
        assert_eq!(sqrt64::<Rp>(5e-324), 2.2227587494850775e-162);
        assert_eq!(add64::<Rp>(1.0, 1e-300), 1.0f64.next_up());
        assert_eq!(add64::<Rz>(-1.0, 1e-300), -(1.0f64.next_down()));
    }
}
