//! Formats narrower than f32: rounding to them, and arithmetic in them through f64.
//!
//! A sum or product in f64 that is not exact is made odd in its last bit (rounding to odd): the second rounding, to the
//! narrow format, is then the rounding of the exact value.

use super::{Mode, Rounding};

/// A binary format: bits of precision (with the leading one), smallest and largest exponent of a normal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of precision.
    pub precision: i32,
    /// Exponent of the smallest normal number.
    pub least: i32,
    /// Exponent of the largest number.
    pub most: i32,
}

/// IEEE half.
pub const F16: Format = Format { precision: 11, least: -14, most: 15 };
/// Upper half of an f32.
pub const BF16: Format = Format { precision: 8, least: -126, most: 127 };
/// f32 with 10 bits of fraction.
pub const TF32: Format = Format { precision: 11, least: -126, most: 127 };
/// f32.
pub const F32: Format = Format { precision: 24, least: -126, most: 127 };

/// 2^k, k within the normal range of f64.
fn two(k: i32) -> f64 {
    f64::from_bits(((1023 + k) as u64) << 52)
}

impl Format {
    /// The largest finite number.
    pub fn largest(self) -> f64 {
        (2.0 - two(1 - self.precision)) * two(self.most)
    }

    /// `x` rounded to this format.
    pub fn round<R: Rounding>(self, x: f64) -> f64 {
        if x == 0.0 || !x.is_finite() {
            return x;
        }
        let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(self.least);
        // x in units of the last place: below 2^53, so the steps below are exact.
        let unit = two(exponent - self.precision + 1);
        let units = x / unit;
        let whole = match R::MODE {
            Mode::Nearest => units.round_ties_even(),
            Mode::Away => units.round(),
            Mode::Zero => units.trunc(),
            Mode::Up => units.ceil(),
            Mode::Down => units.floor(),
        };
        let y = (whole * unit).copysign(x);
        if y.abs() <= self.largest() {
            return y;
        }
        let outward = match R::MODE {
            Mode::Nearest | Mode::Away => true,
            Mode::Zero => false,
            Mode::Up => x > 0.0,
            Mode::Down => x < 0.0,
        };
        (if outward { f64::INFINITY } else { self.largest() }).copysign(x)
    }
}

/// An inexact f64 made odd: `e` is what it lacks.
#[inline(always)]
fn odd(s: f64, e: f64) -> f64 {
    if e == 0.0 || !e.is_finite() || s.to_bits() & 1 == 1 {
        return s;
    }
    // The neighbour on the side of the exact value: it is odd, since s is even.
    if e > 0.0 { s.next_up() } else { s.next_down() }
}

/// a + b, to be rounded again.
#[inline(always)]
pub fn add(a: f64, b: f64) -> f64 {
    let s = a + b;
    let v = s - a;
    odd(s, (a - (s - v)) + (b - v))
}

/// a · b + c, to be rounded again; a · b must be exact in f64, as it is for two numbers of 26 bits.
#[inline(always)]
pub fn fma(a: f64, b: f64, c: f64) -> f64 {
    add(a * b, c)
}

/// An integer as an f64, to be rounded again.
pub fn integer(v: i128) -> f64 {
    let near = v as f64;
    odd(near, (v - near as i128) as f64)
}

/// An integer as an f64 in rounding R.
pub fn integer64<R: Rounding>(v: i128) -> f64 {
    let near = v as f64;
    super::settle::<R, f64>(near, (v - near as i128) as f64)
}

/// A float as an integer in rounding R, as an f64 without fraction.
#[inline(always)]
pub fn whole<R: Rounding>(x: f64) -> f64 {
    match R::MODE {
        Mode::Nearest => x.round_ties_even(),
        Mode::Away => x.round(),
        Mode::Zero => x.trunc(),
        Mode::Up => x.ceil(),
        Mode::Down => x.floor(),
    }
}

/// Bits of f16 of a number that the format holds. NaN is the canonical one.
#[inline(always)]
pub fn f16_bits(x: f64) -> u16 {
    if x.is_nan() { 0x7fff } else { half::f16::from_f64(x).to_bits() }
}

/// Bits of bf16 of a number that the format holds. NaN is the canonical one.
#[inline(always)]
pub fn bf16_bits(x: f64) -> u16 {
    if x.is_nan() { 0x7fff } else { ((x as f32).to_bits() >> 16) as u16 }
}

/// An 8-bit float: e4m3 (no infinities, NaN is s1111111) or e5m2 (an f16 cut short).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Byte {
    /// 4 bits of exponent, 3 of fraction.
    E4m3,
    /// 5 bits of exponent, 2 of fraction.
    E5m2,
}

impl Byte {
    fn format(self) -> Format {
        match self {
            Byte::E4m3 => Format { precision: 4, least: -6, most: 8 },
            Byte::E5m2 => Format { precision: 3, least: -14, most: 15 },
        }
    }
    /// The largest finite number: 448 or 57344.
    fn largest(self) -> f64 {
        if self == Byte::E4m3 { 448.0 } else { self.format().largest() }
    }
    /// `.rn.satfinite`: the nearest, at most the largest finite one.
    pub fn of(self, x: f64) -> u8 {
        if x.is_nan() {
            return 0x7f;
        }
        let near = self.format().round::<super::Rn>(x);
        let y = near.abs().min(self.largest());
        let Format { precision, least, .. } = self.format();
        let sign = u8::from(x.is_sign_negative()) << 7;
        if y == 0.0 {
            return sign;
        }
        let exponent = ((y.to_bits() >> 52) as i32 - 1023).max(least);
        let fraction = (y / two(exponent - precision + 1)) as u8; // with the leading one, if normal
        // A subnormal has exponent field 0 and no leading one: the two encodings join without a gap.
        sign | ((((exponent - least) as u8) << (precision - 1)) + fraction)
    }
    /// Its value.
    pub fn value(self, code: u8) -> f64 {
        let Format { precision, least, most } = self.format();
        let (field, fraction) = ((code & 0x7f) >> (precision - 1), code & ((1 << (precision - 1)) - 1));
        let special = self == Byte::E5m2 && i32::from(field) > most - least + 1;
        let y = if special {
            if fraction == 0 { f64::INFINITY } else { f64::NAN }
        } else if self == Byte::E4m3 && code & 0x7f == 0x7f {
            f64::NAN
        } else {
            let lead = if field == 0 { 0 } else { 1u8 << (precision - 1) };
            f64::from(lead | fraction) * two(least + i32::from(field.max(1)) - 1 - (precision - 1))
        };
        if code & 0x80 != 0 { -y } else { y }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Rm, Rn, Rna, Rp, Rz};
    use super::*;

    #[test]
    fn rounding_to_f16_and_f32_agrees_with_the_processor() {
        let mut s = 1u64;
        for _ in 0..200_000 {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let x = f64::from_bits((s ^ s >> 31) & !(0x7ff << 52) | (1023 - 160 + (s >> 20) % 300) << 52);
            assert_eq!(F32.round::<Rn>(x) as f32, x as f32);
            // The crate's f64 to f16 goes through f32 and may round twice: it gets an f32.
            let y = x as f32;
            assert_eq!(F16.round::<Rn>(f64::from(y)), half::f16::from_f32(y).to_f64(), "{y}");
            let (down, up) = (BF16.round::<Rm>(x), BF16.round::<Rp>(x));
            assert!(down <= x && x <= up && (down == x) == (up == x));
            assert_eq!(BF16.round::<Rz>(x), if x < 0.0 { up } else { down });
        }
    }

    #[test]
    fn ties_and_overflow() {
        assert_eq!(F16.round::<Rn>(2049.0), 2048.0);
        assert_eq!(F16.round::<Rna>(2049.0), 2050.0);
        assert_eq!(F16.round::<Rn>(65520.0), f64::INFINITY);
        assert_eq!(F16.round::<Rz>(1e9), 65504.0);
        assert_eq!(F16.round::<Rp>(-1e9), -65504.0);
        assert_eq!(F16.round::<Rp>(1e-30), 2f64.powi(-24));
        assert_eq!(F16.round::<Rp>(-1e-30).to_bits(), (-0.0f64).to_bits());
        assert_eq!(TF32.round::<Rna>(1.0 + 2f64.powi(-11)), 1.0 + 2f64.powi(-10));
    }

    #[test]
    fn two_roundings_are_one() {
        // (1 + 2^-8) · 1 + 2^-100 lies just above the middle between 1 and 1 + 2^-7.
        let tie = 1.0 + 2f64.powi(-8);
        assert_eq!(BF16.round::<Rn>(fma(tie, 1.0, 2f64.powi(-100))), 1.0 + 2f64.powi(-7));
        assert_eq!(BF16.round::<Rn>(fma(tie, 1.0, -(2f64.powi(-100)))), 1.0);
        assert_eq!(BF16.round::<Rn>(tie), 1.0);
        // 2^60 + 2^36 is the middle between two f32; one more decides, which no f64 holds.
        let middle = (1i128 << 60) + (1 << 36);
        assert_eq!(F32.round::<Rn>(integer(middle)), 2f64.powi(60));
        assert_eq!(F32.round::<Rn>(integer(middle + 1)), 2f64.powi(60) + 2f64.powi(37));
        assert_eq!(integer64::<Rz>(i128::from(u64::MAX)), 18446744073709549568.0);
        assert_eq!(integer64::<Rp>(i128::from(u64::MAX)), 18446744073709551616.0);
    }

    #[test]
    fn every_byte_comes_back() {
        for kind in [Byte::E4m3, Byte::E5m2] {
            for code in 0..=255u8 {
                let v = kind.value(code);
                if v.is_finite() {
                    assert_eq!(kind.of(v), code, "{kind:?} {v}");
                    assert!(v == 0.0 || kind.of(v * 1.001) == code, "{kind:?} {v}");
                }
            }
        }
        assert_eq!([Byte::E4m3.value(0x7e), Byte::E5m2.value(0x7b)], [448.0, 57344.0]);
        assert_eq!(
            [Byte::E4m3.of(1e9), Byte::E4m3.of(-464.0), Byte::E5m2.of(f64::INFINITY)],
            [0x7e, 0xfe, 0x7b]
        );
        assert!(Byte::E4m3.value(0x7f).is_nan() && Byte::E5m2.value(0x7d).is_nan());
        assert_eq!(Byte::E4m3.of(2f64.powi(-10)), 0); // a tie between 0 and the smallest: even
    }
}
