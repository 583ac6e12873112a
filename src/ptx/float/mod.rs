//! Floating point as PTX has it: every rounding and every format, as functions of single numbers.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the roundings, and how a nearest result becomes a directed one |
//! | `directed.rs` | `+ × ÷ √` and fma of f32 and f64 in each rounding |
//! | `format.rs` | f16, bf16, tf32 and 8-bit floats: rounding to them, arithmetic in them; integers to floats |
//! | `approx.rs` | the `.approx` functions, with the error that is documented on request |
//! | `tensor.rs` | products of matrices in the registers of a warp |
//!
//! The processor rounds to nearest only. The others come from its result r and the sign of (exact - r), which is found
//! without error: r is then right, or its neighbour is.

pub mod approx;
pub mod directed;
pub mod format;
pub mod tensor;

/// A rounding, as a type: the loops over lanes are compiled for each.
pub trait Rounding: Copy + 'static {
    /// Which one.
    const MODE: Mode;
}

/// The roundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `.rn`: to the nearest, ties to even.
    Nearest,
    /// `.rna`: to the nearest, ties away from zero.
    Away,
    /// `.rz`: towards zero.
    Zero,
    /// `.rp`: towards +∞.
    Up,
    /// `.rm`: towards -∞.
    Down,
}

macro_rules! roundings { ($($name:ident $mode:ident $text:literal;)*) => { $(
    #[doc = $text]
    #[derive(Clone, Copy)]
    pub struct $name;
    impl Rounding for $name {
        const MODE: Mode = Mode::$mode;
    }
)* } }
roundings! {
    Rn Nearest "`.rn`";
    Rna Away "`.rna`";
    Rz Zero "`.rz`";
    Rp Up "`.rp`";
    Rm Down "`.rm`";
}

/// What the roundings need of f32 and f64.
pub trait Real: Copy + PartialOrd + Default + 'static {
    /// The next number above.
    fn next_up(self) -> Self;
    /// The next number below.
    fn next_down(self) -> Self;
    /// True with the sign bit.
    fn negative(self) -> bool;
    /// -0.
    fn minus_zero() -> Self;
}

macro_rules! real { ($($t:ty)*) => { $(
    impl Real for $t {
        #[inline(always)]
        fn next_up(self) -> $t { <$t>::next_up(self) }
        #[inline(always)]
        fn next_down(self) -> $t { <$t>::next_down(self) }
        #[inline(always)]
        fn negative(self) -> bool { self.is_sign_negative() }
        #[inline(always)]
        fn minus_zero() -> $t { -0.0 }
    }
)* } }
real!(f32 f64);

/// The exact value in rounding R, from the nearest number `r` and the sign of (exact - r).
#[inline(always)]
pub fn settle<R: Rounding, T: Real>(r: T, side: f64) -> T {
    match R::MODE {
        Mode::Up if side > 0.0 => r.next_up(),
        Mode::Down if side < 0.0 => r.next_down(),
        // Towards zero is down above it and up below it. An r of zero has the sign of the exact value.
        Mode::Zero if side < 0.0 && !r.negative() => r.next_down(),
        Mode::Zero if side > 0.0 && r.negative() => r.next_up(),
        _ => r,
    }
}

/// `0.0` with `.ftz`: a subnormal becomes a zero of its sign.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0f32.copysign(x) } else { x }
}

/// `.sat`: into 0 … 1, NaN becomes 0.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// `.sat` of f64.
#[inline(always)]
pub fn saturate64(x: f64) -> f64 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}
