//! Arithmetic of f32 and f64 (PTX ISA 9.0, section 9.7.3).

use super::{fun1, fun2};
use crate::ptx::float::{Mode, Rm, Rn, Rounding, Rp, Rz, directed, flush, saturate, saturate64};
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Fun1, Fun2, Fun3, Lane, run1, run2, run3};
use crate::ptx::run::{Counts, Run};
use crate::ptx::text::Read;
use crate::ptx::types::Type;
use std::marker::PhantomData;

/// The rounding that the suffixes name.
pub(super) fn rounding(i: &mut Inst<'_, '_, '_>) -> Option<Mode> {
    i.pick(&[("rn", Mode::Nearest), ("rz", Mode::Zero), ("rp", Mode::Up), ("rm", Mode::Down)])
}

/// `x`, flushed when FTZ.
#[inline(always)]
fn ftz<const FTZ: bool>(x: f32) -> f32 {
    if FTZ { flush(x) } else { x }
}
#[inline(always)]
fn finish<const FTZ: bool, const SAT: bool>(x: f32) -> f32 {
    let x = ftz::<FTZ>(x);
    if SAT { saturate(x) } else { x }
}

/// Functions of f32 in a rounding, with `.ftz` and `.sat`.
macro_rules! rounded { ($($name:ident: $trait:ident($($a:ident $ty:ident),*) = $f:path;)*) => { $(
    struct $name<R, const FTZ: bool, const SAT: bool>(PhantomData<R>);
    impl<R: Rounding, const FTZ: bool, const SAT: bool> $trait for $name<R, FTZ, SAT> {
        $(type $ty = f32;)*
        type Y = f32;
        #[inline(always)]
        fn of($($a: f32),*) -> f32 { finish::<FTZ, SAT>($f($(ftz::<FTZ>($a)),*)) }
    }
)* } }
rounded! {
    Add: Fun2(a A, b B) = directed::add::<R>;
    Mul: Fun2(a A, b B) = directed::mul::<R>;
    Div: Fun2(a A, b B) = directed::div::<R>;
    Fma: Fun3(a A, b B, c C) = directed::fma::<R>;
    Sqrt: Fun1(a A) = directed::sqrt::<R>;
}
struct Sub<R, const FTZ: bool, const SAT: bool>(PhantomData<R>);
impl<R: Rounding, const FTZ: bool, const SAT: bool> Fun2 for Sub<R, FTZ, SAT> {
    type A = f32;
    type B = f32;
    type Y = f32;
    #[inline(always)]
    fn of(a: f32, b: f32) -> f32 {
        Add::<R, FTZ, SAT>::of(a, -b)
    }
}
struct Rcp<R, const FTZ: bool, const SAT: bool>(PhantomData<R>);
impl<R: Rounding, const FTZ: bool, const SAT: bool> Fun1 for Rcp<R, FTZ, SAT> {
    type A = f32;
    type Y = f32;
    #[inline(always)]
    fn of(a: f32) -> f32 {
        Div::<R, FTZ, SAT>::of(1.0, a)
    }
}

/// Functions of f64 in a rounding.
macro_rules! rounded64 { ($($name:ident: $trait:ident($($a:ident $ty:ident),*) = $e:expr;)*) => { $(
    struct $name<R>(PhantomData<R>);
    impl<R: Rounding> $trait for $name<R> {
        $(type $ty = f64;)*
        type Y = f64;
        #[inline(always)]
        fn of($($a: f64),*) -> f64 { $e }
    }
)* } }
rounded64! {
    Add64: Fun2(a A, b B) = directed::add64::<R>(a, b);
    Sub64: Fun2(a A, b B) = directed::add64::<R>(a, -b);
    Mul64: Fun2(a A, b B) = directed::mul64::<R>(a, b);
    Div64: Fun2(a A, b B) = directed::div64::<R>(a, b);
    Fma64: Fun3(a A, b B, c C) = directed::fma64::<R>(a, b, c);
    Sqrt64: Fun1(a A) = directed::sqrt64::<R>(a);
    Rcp64: Fun1(a A) = directed::div64::<R>(1.0, a);
}

/// What is the same for f32 and f64 and does not round.
trait Float: Lane + PartialOrd {
    fn abs(self) -> Self;
    fn neg(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    fn is_nan(self) -> bool;
    fn nan() -> Self;
    fn negative(self) -> bool;
    fn flushed(self) -> Self;
    fn into_unit(self) -> Self;
}
macro_rules! floats { ($($t:ident, $nan:expr, $flush:expr, $unit:expr;)*) => { $(
    impl Float for $t {
        #[inline(always)]
        fn abs(self) -> $t { <$t>::abs(self) }
        #[inline(always)]
        fn neg(self) -> $t { -self }
        #[inline(always)]
        fn copysign(self, sign: $t) -> $t { <$t>::copysign(self, sign) }
        #[inline(always)]
        fn is_nan(self) -> bool { <$t>::is_nan(self) }
        #[inline(always)]
        fn nan() -> $t { <$t>::from_bits($nan) }
        #[inline(always)]
        fn negative(self) -> bool { self.is_sign_negative() }
        #[inline(always)]
        fn flushed(self) -> $t { $flush(self) }
        #[inline(always)]
        fn into_unit(self) -> $t { $unit(self) }
    }
)* } }
floats! {
    f32, 0x7fff_ffff, flush, saturate;
    f64, 0x7fff_ffff_ffff_ffff, std::convert::identity, saturate64;
}

/// The smaller one; -0 is smaller than +0; NaN loses, or wins with `.NaN`.
#[inline(always)]
fn least<T: Float>(a: T, b: T, nan: bool) -> T {
    let number = if a < b || a == b && a.negative() { a } else { b };
    let number = if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else {
        number
    };
    let none = a.is_nan() && b.is_nan() || nan && (a.is_nan() || b.is_nan());
    if none { T::nan() } else { number }
}
/// The larger one.
#[inline(always)]
fn most<T: Float>(a: T, b: T, nan: bool) -> T {
    let number = if a > b || a == b && b.negative() { a } else { b };
    let number = if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else {
        number
    };
    let none = a.is_nan() && b.is_nan() || nan && (a.is_nan() || b.is_nan());
    if none { T::nan() } else { number }
}
/// `.xorsign.abs`: of the magnitudes, with the product of the signs.
#[inline(always)]
fn signed<T: Float>(y: T, a: T, b: T) -> T {
    if y.is_nan() {
        return y;
    }
    let y = y.abs();
    if a.negative() != b.negative() { y.neg() } else { y }
}

fun1! {
    Abs<T: Float> -> T = |a| a.abs();
    Neg<T: Float> -> T = |a| a.neg();
    Flush<T: Float> -> T = |a| a.flushed();
    Saturate<T: Float> -> T = |a| a.into_unit();
}
fun2! {
    Min<T: Float> = |a, b| least(a, b, false);
    Max<T: Float> = |a, b| most(a, b, false);
    MinNan<T: Float> = |a, b| least(a, b, true);
    MaxNan<T: Float> = |a, b| most(a, b, true);
    MinSign<T: Float> = |a, b| signed(least(a.abs(), b.abs(), false), a, b);
    MaxSign<T: Float> = |a, b| signed(most(a.abs(), b.abs(), false), a, b);
    MinNanSign<T: Float> = |a, b| signed(least(a.abs(), b.abs(), true), a, b);
    MaxNanSign<T: Float> = |a, b| signed(most(a.abs(), b.abs(), true), a, b);
    // The sign is the first operand's.
    Copysign<T: Float> = |a, b| b.copysign(a);
}

/// `$run::<$F<rounding, ftz, sat>>`.
macro_rules! with_modes {
    ($run:ident, $F:ident, $mode:expr, $ftz:expr, $sat:expr) => {{
        macro_rules! with {
            ($R:ty) => {
                match ($ftz, $sat) {
                    (false, false) => $run::<$F<$R, false, false>> as Run,
                    (true, false) => $run::<$F<$R, true, false>>,
                    (false, true) => $run::<$F<$R, false, true>>,
                    (true, true) => $run::<$F<$R, true, true>>,
                }
            };
        }
        match $mode {
            Mode::Zero => with!(Rz),
            Mode::Up => with!(Rp),
            Mode::Down => with!(Rm),
            _ => with!(Rn),
        }
    }};
}
macro_rules! with_mode {
    ($run:ident, $F:ident, $mode:expr) => {
        match $mode {
            Mode::Zero => $run::<$F<Rz>> as Run,
            Mode::Up => $run::<$F<Rp>>,
            Mode::Down => $run::<$F<Rm>>,
            _ => $run::<$F<Rn>>,
        }
    };
}

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    match i.opcode() {
        "abs" | "neg" | "min" | "max" | "copysign" => return plain(i),
        _ => {}
    }
    let written = rounding(i);
    let needs = matches!(i.opcode(), "fma" | "div" | "rcp" | "sqrt");
    if needs && written.is_none() {
        return i.refuse(format!("`{}` names no rounding: .rn, .rz, .rm or .rp", i.whole()));
    }
    let mode = written.unwrap_or(Mode::Nearest);
    let ty = i.ty()?;
    let (flushes, unit) = match ty {
        Type::F32 => (i.take("ftz"), i.take("sat")),
        _ => (false, false),
    };
    let run: Run = match (i.opcode(), ty) {
        ("add", Type::F32) => with_modes!(run2, Add, mode, flushes, unit),
        ("sub", Type::F32) => with_modes!(run2, Sub, mode, flushes, unit),
        ("mul", Type::F32) => with_modes!(run2, Mul, mode, flushes, unit),
        ("fma" | "mad", Type::F32) => with_modes!(run3, Fma, mode, flushes, unit),
        ("div", Type::F32) => with_modes!(run2, Div, mode, flushes, unit),
        ("sqrt", Type::F32) => with_modes!(run1, Sqrt, mode, flushes, unit),
        ("rcp", Type::F32) => with_modes!(run1, Rcp, mode, flushes, unit),
        ("add", Type::F64) => with_mode!(run2, Add64, mode),
        ("sub", Type::F64) => with_mode!(run2, Sub64, mode),
        ("mul", Type::F64) => with_mode!(run2, Mul64, mode),
        ("fma" | "mad", Type::F64) => with_mode!(run3, Fma64, mode),
        ("div", Type::F64) => with_mode!(run2, Div64, mode),
        ("sqrt", Type::F64) => with_mode!(run1, Sqrt64, mode),
        ("rcp", Type::F64) => with_mode!(run1, Rcp64, mode),
        _ => return i.unsupported(),
    };
    let n = match i.opcode() {
        "fma" | "mad" => 3,
        "sqrt" | "rcp" => 1,
        _ => 2,
    };
    emit(i, run, ty, n)
}

/// An instruction of `n` operands of one type.
fn emit(i: &mut Inst<'_, '_, '_>, run: Run, ty: Type, n: usize) -> Read<()> {
    i.wants(n + 1)?;
    let (y, a) = (i.dst(0, ty)?, i.src(1, ty)?);
    let b = if n > 1 { i.src(2, ty)? } else { a };
    let c = if n > 2 { i.src(3, ty)? } else { a };
    let class = match (ty, n) {
        (Type::F64, 3) => Counts::DoubleFma,
        (Type::F64, _) => Counts::Double,
        (_, 3) => Counts::Fma,
        _ => Counts::Float,
    };
    i.emit(run, class, Slots { y, a, b, c, ..Slots::default() });
    Ok(())
}

/// `div`: rounded, `.full` or `.approx`.
pub(super) fn div(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if i.suffixed("approx") || i.suffixed("full") {
        return super::approx::divide(i);
    }
    lower(i)
}

macro_rules! by_float {
    ($i:expr, $ty:expr, $run:ident, $F:ident) => {
        match $ty {
            Type::F32 => $run::<$F<f32>> as Run,
            Type::F64 => $run::<$F<f64>>,
            _ => return $i.unsupported(),
        }
    };
}

/// Puts the operand's register flushed into a fresh one.
pub(super) fn flushed(i: &mut Inst<'_, '_, '_>, a: u32) -> u32 {
    let y = i.temporary(false);
    i.emit(run1::<Flush<f32>>, Counts::Float, Slots { y, a, ..Slots::default() });
    y
}
/// Flushes a register in place.
pub(super) fn flush_result(i: &mut Inst<'_, '_, '_>, y: u32) {
    i.emit(run1::<Flush<f32>>, Counts::Float, Slots { y, a: y, ..Slots::default() });
}
/// Clamps a register in place.
pub(super) fn saturate_result(i: &mut Inst<'_, '_, '_>, y: u32, ty: Type) {
    let run = if ty == Type::F64 { run1::<Saturate<f64>> as Run } else { run1::<Saturate<f32>> };
    i.emit(run, Counts::Float, Slots { y, a: y, ..Slots::default() });
}

/// What does not round.
fn plain(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let ty = i.ty()?;
    let flushes = ty == Type::F32 && i.take("ftz");
    let class = if ty == Type::F64 { Counts::Double } else { Counts::Float };
    let run: Run = match i.opcode() {
        "abs" => by_float!(i, ty, run1, Abs),
        "neg" => by_float!(i, ty, run1, Neg),
        "copysign" => by_float!(i, ty, run2, Copysign),
        op => {
            let nan = i.take("NaN");
            let sign = i.take("xorsign") && i.take("abs");
            match (op, nan, sign) {
                ("min", false, false) => by_float!(i, ty, run2, Min),
                ("max", false, false) => by_float!(i, ty, run2, Max),
                ("min", true, false) => by_float!(i, ty, run2, MinNan),
                ("max", true, false) => by_float!(i, ty, run2, MaxNan),
                ("min", false, true) => by_float!(i, ty, run2, MinSign),
                ("max", false, true) => by_float!(i, ty, run2, MaxSign),
                ("min", true, true) => by_float!(i, ty, run2, MinNanSign),
                _ => by_float!(i, ty, run2, MaxNanSign),
            }
        }
    };
    if i.opcode() == "abs" || i.opcode() == "neg" {
        i.wants(2)?;
        let (y, mut a) = (i.dst(0, ty)?, i.src(1, ty)?);
        if flushes {
            a = flushed(i, a);
        }
        i.emit(run, class, Slots { y, a, ..Slots::default() });
        return Ok(());
    }
    // `min` and `max` take two operands, or three from PTX 8.8 on.
    if i.count() == 4 && i.opcode() != "copysign" {
        let (y, a, b, c) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, ty)?, i.src(3, ty)?);
        let t = i.temporary(ty == Type::F64);
        i.emit(run, class, Slots { y: t, a, b, ..Slots::default() });
        i.emit(run, class, Slots { y, a: t, b: c, ..Slots::default() });
        if flushes {
            flush_result(i, y);
        }
        return Ok(());
    }
    i.wants(3)?;
    let (y, mut a, mut b) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, ty)?);
    if flushes {
        (a, b) = (flushed(i, a), flushed(i, b));
    }
    i.emit(run, class, Slots { y, a, b, ..Slots::default() });
    Ok(())
}
