//! exp, ln, tanh and the normal distribution in f32: straight-line code (selects, no branches, no tables), so a loop over it becomes vector
//! instructions. Polynomials are minimax fits (weighted least squares, Lawson's iteration) of relative error below 1e-8;
//! what is left is rounding. The tests hold every function against f64 over its whole range.
#![allow(
    clippy::excessive_precision,
    reason = "coefficients are printed as the exact f32 values that were fitted"
)]

/// Horner's rule, coefficients from the constant term up.
#[inline(always)]
fn poly<const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut y = c[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        y = y * x + c[i];
    }
    y
}

/// Adding then subtracting 1.5·2^23 rounds to the nearest integer and leaves it in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;
/// 2^64.
const SHIFT: f32 = 18_446_744_073_709_551_616.0;

/// e^x = 2^n · e^r with n = round(x / ln 2), |r| <= ln(2)/2.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Outside this range the result is 0 or inf in f32; clamping keeps n within what two exponent fields can hold.
    let c = if x > 89.0 { 89.0 } else { x };
    let c = if c < -104.0 { -104.0 } else { c };
    let shifted = c * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts: the first has trailing zeros, so n times it is exact.
    let r = (c - n * 0.693_359_375) + n * 2.121_944_4e-4;
    let p =
        poly(r, [0.5, 0.16666512191295624, 0.0416661873459816, 0.008369598537683487, 0.0013951717410236597]);
    let e = (p * (r * r) + r) + 1.0;
    // 2^n in two factors, 2^(n + 64)·2^−64 below 0 and 2^(n − 64)·2^64 above: the first stays a normal number, so that results
    // below the smallest come out right. n stands in the low bits of `shifted`. A NaN passes both selects and the products.
    let (offset, last) = if c < 0.0 { (127 + 64, 1.0 / SHIFT) } else { (127 - 64, SHIFT) };
    e * f32::from_bits((shifted.to_bits() << 23).wrapping_add(offset << 23)) * last
}

/// [`exp`] for x ≤ 0 in three quarters of the operations: what would lie below the smallest normal number is 0.
#[inline(always)]
pub(super) fn exp_nonpositive(x: f32) -> f32 {
    const LEAST: f32 = -87.336_54; // ln of 2^-126
    let c = if x < LEAST { LEAST } else { x };
    let shifted = c * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (c - n * 0.693_359_375) + n * 2.121_944_4e-4;
    let p =
        poly(r, [0.5, 0.16666512191295624, 0.0416661873459816, 0.008369598537683487, 0.0013951717410236597]);
    let e = (p * (r * r) + r) + 1.0;
    // n ≥ -126, so one exponent field holds it: the low bits of `shifted`, moved there, less those of ROUND.
    let y = e * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < LEAST { 0.0 } else { y }
}

/// ln x = k·ln 2 + ln m with m in [√½, √2).
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let s = if tiny { x * 8_388_608.0 } else { x }; // 2^23 lifts subnormals
    let bits = s.to_bits() as i32;
    let k = bits.wrapping_sub(0x3f35_04f3) >> 23; // 0x3f3504f3 = √½
    let f = f32::from_bits((bits - (k << 23)) as u32) - 1.0;
    let k = k as f32 - if tiny { 23.0 } else { 0.0 };
    let p = poly(
        f,
        [
            0.33333316445350647,
            -0.25000810623168945,
            0.2000228613615036,
            -0.16624553501605988,
            0.14181196689605713,
            -0.13128767907619476,
            0.12881621718406677,
            -0.07859545946121216,
        ],
    );
    let f2 = f * f;
    let y = (p * (f2 * f) - k * 2.121_944_4e-4) - 0.5 * f2 + f + k * 0.693_359_375;
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 || x.is_nan() { f32::NAN } else { y }
}

/// Small |x|: x + x³P(x²); else 1 − 2/(e^{2|x|} + 1).
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let p = poly(
        s,
        [
            -0.3333328366279602,
            0.13331490755081177,
            -0.05374349653720856,
            0.020650578662753105,
            -0.005717036779969931,
        ],
    );
    let small = x + x * s * p;
    let large = (1.0 - 2.0 / (exp(2.0 * a) + 1.0)).copysign(x);
    if a < 0.625 { small } else { large }
}

/// Φ and φ of the standard normal distribution. With a = |x|: φ = e^(−a²/2) / √(2π) and Φ(−a) = e^(−a²/2)·P(a)/Q(a), so one
/// exponential serves both and no digits are lost in either tail; the fit is closest around 0, where Φ is large. e^(−a²/2)
/// is 2^n·2^f with n + f = −a²/(2 ln 2). Beyond 13 both stay at about 1e-38.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let a = x.abs();
    let a = if a > 13.0 { 13.0 } else { a };
    let t = a * a * (-0.5 * std::f32::consts::LOG2_E);
    let shifted = t + ROUND;
    let f = t - (shifted - ROUND);
    let e = poly(
        f,
        [
            1.0,
            0.6931469775445093,
            0.24022242093696897,
            0.0555073389263768,
            0.009671512595347913,
            0.0013264665369771638,
        ],
    );
    let e = f32::from_bits(e.to_bits().wrapping_add(shifted.to_bits() << 23));
    let p = poly(a, [0.4999999931477952, 0.324856520039395, 0.09932193889250467, 0.012507187427542168]);
    let q = poly(a, [1.0, 1.4475965836643907, 0.853670938142368, 0.24825312149229445, 0.03137918727303296]);
    let tail = e * (p / q);
    let below = if x > 0.0 { 1.0 - tail } else { tail };
    (below, e * 0.398_942_28)
}

#[cfg(test)]
mod tests {
    /// Largest error in units of the last place over a grid that covers the range, against f64.
    fn worst_ulp(f: fn(f32) -> f32, exact: fn(f64) -> f64, lo: f32, hi: f32) -> f64 {
        (0..400_000)
            .map(|i| {
                let x = lo + (hi - lo) * (i as f32 / 400_000.0);
                let want = exact(x as f64);
                let rounded = (want as f32).abs().max(f32::MIN_POSITIVE);
                let ulp = (f32::from_bits(rounded.to_bits() + 1) - rounded) as f64;
                ((f(x) as f64 - want) / ulp).abs()
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn errors_stay_within_the_promised_ulps() {
        assert!(worst_ulp(super::exp, f64::exp, -87.3, 88.7) <= 2.0);
        assert!(worst_ulp(super::exp_nonpositive, f64::exp, -87.336, 0.0) <= 2.0);
        assert!(worst_ulp(super::ln, f64::ln, 1e-6, 4.0) <= 2.0);
        assert!(worst_ulp(super::ln, f64::ln, 4.0, 1e30) <= 2.0);
        assert!(worst_ulp(super::tanh, f64::tanh, -10.0, 10.0) <= 3.0);
        let exact = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        assert!(worst_ulp(|x| super::normal(x).0, exact, -1.0, 9.0) <= 6.0);
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        assert!(worst_ulp(|x| super::normal(x).1, density, -1.0, 1.0) <= 6.0);
    }

    /// a² is rounded before it becomes an exponent, which costs the far tail digits: up to a²/2 units in the last place.
    #[test]
    fn the_tails_of_the_normal_distribution_lose_few_digits() {
        for i in 0..70_000 {
            let x = -1.0 - i as f32 * 1e-4;
            let want = 0.5 * libm::erfc(-x as f64 * std::f64::consts::FRAC_1_SQRT_2);
            let error = (super::normal(x).0 as f64 / want - 1.0).abs();
            assert!(error < 3e-7 * (1.0 + (x * x / 2.0) as f64), "{x}: {error:e}");
        }
        assert_eq!((super::normal(30.0).0, super::normal(f32::INFINITY).0), (1.0, 1.0));
        assert!(super::normal(f32::NEG_INFINITY).0 < 1e-37 && super::normal(f32::NAN).0.is_nan());
    }

    #[test]
    fn limits_and_nan() {
        assert_eq!(super::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(super::exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(super::exp(0.0), 1.0);
        assert!(super::exp(-100.0) > 0.0, "subnormal results are kept");
        assert_eq!([f32::NEG_INFINITY, -1e30, -87.34, 0.0].map(super::exp_nonpositive), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(super::ln(0.0), f32::NEG_INFINITY);
        assert_eq!(super::ln(f32::INFINITY), f32::INFINITY);
        assert_eq!(super::ln(1.0), 0.0);
        assert!(super::ln(-1.0).is_nan());
        assert_eq!((super::tanh(40.0), super::tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        for f in [super::exp, super::exp_nonpositive, super::ln, super::tanh] {
            assert!(f(f32::NAN).is_nan());
        }
    }
}
