//! `.approx` functions: the f32 nearest to a result with 40 correct bits, in arithmetic that the loops over lanes vectorise
//! and that gives the same bits everywhere.
//!
//! What hardware gives is only bounded by its documentation. With `worst`, each result errs by all of that bound, up or
//! down by a bit of the operand, so that a kernel that leans on exact rounding is found.

/// What the ISA says of an approximate function: errors relative to the result, and absolute.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Relative error.
    pub relative: f64,
    /// Absolute error.
    pub absolute: f64,
}

/// 2^-k, k a small multiple of 0.1: `2f64.powf(-22.9)` is not const.
const ULP: f64 = 1.0 / 8388608.0; // 2^-23
/// `rcp.approx`: 1 ulp.
pub const RCP: Bound = Bound { relative: ULP, absolute: 0.0 };
/// `sqrt.approx`: relative 2^-23.
pub const SQRT: Bound = Bound { relative: ULP, absolute: 0.0 };
/// `rsqrt.approx`: relative 2^-22.9.
pub const RSQRT: Bound = Bound { relative: 1.0717734625362931 * ULP, absolute: 0.0 };
/// `ex2.approx`: relative 2^-22.
pub const EX2: Bound = Bound { relative: 2.0 * ULP, absolute: 0.0 };
/// `lg2.approx`: absolute 2^-22 between 0.5 and 2, relative 2^-22 elsewhere.
pub const LG2: Bound = Bound { relative: 2.0 * ULP, absolute: 2.0 * ULP };
/// `sin.approx` and `cos.approx`: absolute 2^-20.5 for arguments up to 2π.
pub const SIN: Bound = Bound { relative: 0.0, absolute: 5.656854249492381 * ULP };
/// `tanh.approx`: relative 2^-11.
pub const TANH: Bound = Bound { relative: 4096.0 * ULP, absolute: 0.0 };
/// `div.approx` and `div.full`: 2 ulp.
pub const DIV: Bound = Bound { relative: 2.0 * ULP, absolute: 0.0 };

/// `y` with all the error that `bound` allows; its sign hangs on a bit of the operand `x`.
#[inline(always)]
pub fn err(bound: Bound, x: f32, y: f64) -> f64 {
    let sign = if (x.to_bits() ^ x.to_bits() >> 7) & 1 == 0 { 1.0 } else { -1.0 };
    // The rounding to f32 that follows adds up to half an ulp of its own.
    let relative = if bound.relative > 0.0 { bound.relative - 0.5 * ULP } else { 0.0 };
    y + sign * y.mul_add(relative, bound.absolute * 0.9)
}

#[inline(always)]
fn horner<const N: usize>(c: &[f64; N], x: f64) -> f64 {
    let mut y = c[N - 1];
    for k in (0..N - 1).rev() {
        y = y.mul_add(x, c[k]);
    }
    y
}

/// ln(2)^k / k!
const EXP: [f64; 12] = [
    1.0,
    std::f64::consts::LN_2,
    0.2402265069591007,
    0.05550410866482157,
    0.009618129107628475,
    0.0013333558146428441,
    0.00015403530393381606,
    1.525273380405984e-05,
    1.3215486790144305e-06,
    1.0178086009239699e-07,
    7.054911620801121e-09,
    4.4455382718708106e-10,
];

/// 2^x.
#[inline(always)]
pub fn ex2(x: f32) -> f64 {
    let x = f64::from(x);
    let x = if x > 200.0 { 200.0 } else { x };
    let x = if x < -200.0 { -200.0 } else { x };
    let whole = x.round_ties_even();
    let scale = f64::from_bits((((whole as i32) + 1023) as u64) << 52);
    // NaN passes through x; the conversion above makes 2^0 of it.
    horner(&EXP, x - whole) * scale
}

/// 2 / (ln 2 · (2k+1))
const LOG: [f64; 11] = [
    2.8853900817779268,
    0.9617966939259756,
    0.5770780163555854,
    0.41219858311113244,
    0.3205988979753252,
    0.26230818925253883,
    0.2219530832136867,
    0.19235933878519512,
    0.16972882833987805,
    0.15186263588304877,
    0.1373995277037108,
];

/// log2(x).
#[inline(always)]
pub fn lg2(x: f32) -> f64 {
    let bits = f64::from(x).to_bits();
    // x = m 2^e with m in [√½, √2): s = (m - 1) / (m + 1) is at most 0.172.
    const ROOT: u64 = 0x3FE6_A09E_667F_3BCD;
    let e = (bits.wrapping_sub(ROOT) as i64) >> 52;
    let m = f64::from_bits(bits.wrapping_sub((e as u64) << 52));
    let s = (m - 1.0) / (m + 1.0);
    let y = (s * horner(&LOG, s * s)) + e as i32 as f64;
    if x > 0.0 && x < f32::INFINITY {
        y
    } else if x == 0.0 {
        f64::NEG_INFINITY
    } else if x == f32::INFINITY {
        f64::INFINITY
    } else {
        f64::NAN
    }
}

/// (-1)^k / (2k+1)!
const SINE: [f64; 8] = [
    1.0,
    -0.16666666666666666,
    0.008333333333333333,
    -0.0001984126984126984,
    2.7557319223985893e-06,
    -2.505210838544172e-08,
    1.6059043836821613e-10,
    -7.647163731819816e-13,
];
/// (-1)^k / (2k)!
const COSINE: [f64; 8] = [
    1.0,
    -0.5,
    0.041666666666666664,
    -0.001388888888888889,
    2.48015873015873e-05,
    -2.755731922398589e-07,
    2.08767569878681e-09,
    -1.1470745597729725e-11,
];

/// sin(x + quarter π/2).
#[inline(always)]
fn turned(x: f32, quarter: i64) -> f64 {
    if x.is_nan() || x.abs() >= 1e6 {
        // Slow and right for any size; not finite gives NaN.
        let x = f64::from(x);
        return if quarter == 0 { libm::sin(x) } else { libm::cos(x) };
    }
    let x = f64::from(x);
    let n = (x * std::f64::consts::FRAC_2_PI).round_ties_even();
    // π/2 in two parts: the product with the first, of 33 bits, is exact.
    let r = n.mul_add(-1.5707963267341256, x);
    let r = n.mul_add(-6.077100506506192e-11, r);
    let q = (n as i64 + quarter) & 3;
    let s = r * r;
    let y = if q & 1 == 0 { r * horner(&SINE, s) } else { horner(&COSINE, s) };
    if q & 2 == 0 { y } else { -y }
}

/// sin(x).
#[inline(always)]
pub fn sin(x: f32) -> f64 {
    // Keeps -0.
    if x == 0.0 { f64::from(x) } else { turned(x, 0) }
}

/// cos(x).
#[inline(always)]
pub fn cos(x: f32) -> f64 {
    turned(x, 1)
}

/// tanh(x).
#[inline(always)]
pub fn tanh(x: f32) -> f64 {
    if x.abs() < 1e-3 {
        let y = f64::from(x);
        return y * (y * y).mul_add(-1.0 / 3.0, 1.0); // the next term is below 2^-41
    }
    // 1 - 2 / (e^2x + 1); beyond 20 it is ±1 to f32.
    let e = ex2_wide(f64::from(x.clamp(-20.0, 20.0)) * (2.0 * std::f64::consts::LOG2_E));
    1.0 - 2.0 / (e + 1.0)
}

#[inline(always)]
fn ex2_wide(x: f64) -> f64 {
    let whole = x.round_ties_even();
    horner(&EXP, x - whole) * f64::from_bits((((whole as i32) + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest relative error over many x, against the slow library.
    fn worst(low: f32, high: f32, f: impl Fn(f32) -> f64, g: impl Fn(f64) -> f64) -> f64 {
        let mut most = 0.0f64;
        for k in 0..100_000 {
            let x = low + (high - low) * (k as f32 / 100_000.0);
            let (y, z) = (f(x), g(f64::from(x)));
            most = most.max(((y - z) / z).abs().min((y - z).abs() * 1e6));
        }
        most
    }

    #[test]
    fn forty_bits_are_right() {
        let bits40 = 2f64.powi(-40);
        assert!(worst(-140.0, 127.0, ex2, libm::exp2) < bits40);
        assert!(worst(1e-30, 1e30, lg2, libm::log2) < bits40);
        assert!(worst(0.3, 3.0, lg2, libm::log2) < bits40);
        assert!(worst(-50.0, 50.0, sin, libm::sin) < bits40);
        assert!(worst(-1e5, 1e5, cos, libm::cos) < 1e-9);
        assert!(worst(-9.0, 9.0, tanh, libm::tanh) < 1e-11);
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!([ex2(f32::INFINITY) as f32, ex2(f32::NEG_INFINITY) as f32], [f32::INFINITY, 0.0]);
        assert_eq!(ex2(-149.0) as f32, f32::from_bits(1));
        assert_eq!([lg2(0.0), lg2(-0.0)], [f64::NEG_INFINITY; 2]);
        assert_eq!(lg2(f32::from_bits(1)), -149.0);
        assert_eq!([lg2(f32::INFINITY), lg2(8.0)], [f64::INFINITY, 3.0]);
        assert!(lg2(-1.0).is_nan() && lg2(f32::NAN).is_nan() && ex2(f32::NAN).is_nan());
        assert!(sin(f32::INFINITY).is_nan() && cos(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!([sin(-0.0).to_bits(), tanh(-0.0).to_bits()], [1 << 63; 2]);
        assert_eq!([tanh(1e9), tanh(f32::NEG_INFINITY)], [1.0, -1.0]);
        assert_eq!(cos(0.0), 1.0);
    }

    #[test]
    fn the_worst_error_is_what_is_allowed_and_goes_both_ways() {
        let (mut up, mut down) = (0, 0);
        for k in 1..1000u32 {
            let x = k as f32 * 0.01;
            let (exact, y) = (1.0 / f64::from(x), err(RCP, x, 1.0 / f64::from(x)) as f32);
            let off = (f64::from(y) - exact) / exact;
            assert!(off.abs() <= 1.01 * RCP.relative, "{x} {off}");
            up += i32::from(off > 0.3 * RCP.relative);
            down += i32::from(off < -0.3 * RCP.relative);
        }
        assert!(up > 200 && down > 200);
    }
}
