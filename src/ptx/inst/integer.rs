//! Arithmetic of integers (PTX ISA 9.0, sections 9.7.1 and 9.7.2).

use super::{by_int, fun1, fun2, fun3, plain_fun2, plain_fun3};
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, Lane, put, run1, run2, run3};
use crate::ptx::run::{Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// Predicate of a frame that holds the carry.
const CARRY: usize = 1;

/// Integers of 16, 32 and 64 bits.
trait Int: Lane + Ord {
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn high(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    fn rem(self, b: Self) -> Self;
    fn abs(self) -> Self;
    fn neg(self) -> Self;
    fn distance(self, b: Self) -> Self;
}
macro_rules! int { ($($t:ty, $wide:ty, $abs:expr;)*) => { $(
    impl Int for $t {
        #[inline(always)]
        fn add(self, b: $t) -> $t { self.wrapping_add(b) }
        #[inline(always)]
        fn sub(self, b: $t) -> $t { self.wrapping_sub(b) }
        #[inline(always)]
        fn mul(self, b: $t) -> $t { self.wrapping_mul(b) }
        #[inline(always)]
        fn high(self, b: $t) -> $t { ((<$wide>::from(self) * <$wide>::from(b)) >> <$t>::BITS) as $t }
        // Division by zero gives all ones, as hardware does.
        #[inline(always)]
        fn div(self, b: $t) -> $t { if b == 0 { !0 } else { self.wrapping_div(b) } }
        #[inline(always)]
        fn rem(self, b: $t) -> $t { if b == 0 { self } else { self.wrapping_rem(b) } }
        #[inline(always)]
        fn abs(self) -> $t { $abs(self) }
        #[inline(always)]
        fn neg(self) -> $t { self.wrapping_neg() }
        #[inline(always)]
        fn distance(self, b: $t) -> $t { self.abs_diff(b) as $t }
    }
)* } }
int! {
    u16, u32, |x| x;
    i16, i32, i16::wrapping_abs;
    u32, u64, |x| x;
    i32, i64, i32::wrapping_abs;
    u64, u128, |x| x;
    i64, i128, i64::wrapping_abs;
}

fun1! {
    Abs<T: Int> -> T = |a| a.abs();
    Neg<T: Int> -> T = |a| a.neg();
}
fun2! {
    Add<T: Int> = |a, b| a.add(b);
    Sub<T: Int> = |a, b| a.sub(b);
    Mul<T: Int> = |a, b| a.mul(b);
    High<T: Int> = |a, b| a.high(b);
    Div<T: Int> = |a, b| a.div(b);
    Rem<T: Int> = |a, b| a.rem(b);
    Min<T: Int> = |a, b| Ord::min(a, b);
    Max<T: Int> = |a, b| Ord::max(a, b);
}
fun3! {
    Mad<T: Int> = |a, b, c| a.mul(b).add(c);
    MadHigh<T: Int> = |a, b, c| a.high(b).add(c);
    Sad<T: Int> = |a, b, c| c.add(a.distance(b));
}
/// The low 24 bits.
#[inline(always)]
fn u24(x: u32) -> u64 {
    u64::from(x & 0xff_ffff)
}
#[inline(always)]
fn s24(x: i32) -> i64 {
    i64::from(x << 8 >> 8)
}
plain_fun2! {
    AddSat(a: i32, b: i32) -> i32 = a.saturating_add(b);
    SubSat(a: i32, b: i32) -> i32 = a.saturating_sub(b);
    WideU16(a: u16, b: u16) -> u32 = u32::from(a) * u32::from(b);
    WideS16(a: i16, b: i16) -> i32 = i32::from(a) * i32::from(b);
    WideU32(a: u32, b: u32) -> u64 = u64::from(a) * u64::from(b);
    WideS32(a: i32, b: i32) -> i64 = i64::from(a) * i64::from(b);
    Mul24LoU(a: u32, b: u32) -> u32 = (u24(a) * u24(b)) as u32;
    Mul24LoS(a: i32, b: i32) -> i32 = (s24(a) * s24(b)) as i32;
    Mul24HiU(a: u32, b: u32) -> u32 = ((u24(a) * u24(b)) >> 16) as u32;
    Mul24HiS(a: i32, b: i32) -> i32 = ((s24(a) * s24(b)) >> 16) as i32;
}
plain_fun3! {
    MadHighSat(a: i32, b: i32, c: i32) -> i32 = a.high(b).saturating_add(c);
    MadWideU16(a: u16, b: u16, c: u32) -> u32 = (u32::from(a) * u32::from(b)).wrapping_add(c);
    MadWideS16(a: i16, b: i16, c: i32) -> i32 = (i32::from(a) * i32::from(b)).wrapping_add(c);
    MadWideU32(a: u32, b: u32, c: u64) -> u64 = (u64::from(a) * u64::from(b)).wrapping_add(c);
    MadWideS32(a: i32, b: i32, c: i64) -> i64 = (i64::from(a) * i64::from(b)).wrapping_add(c);
    Mad24HiSat(a: i32, b: i32, c: i32) -> i32 = (((s24(a) * s24(b)) >> 16) as i32).saturating_add(c);
}

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let op = i.opcode();
    match op {
        "dp4a" | "dp2a" => return dot(i),
        "mul" | "mad" | "madc" | "mul24" | "mad24" => return product(i),
        _ => {}
    }
    let ty = i.ty()?;
    if matches!(op, "addc" | "subc") || matches!(op, "add" | "sub") && i.take("cc") {
        return carried(i, ty);
    }
    if matches!(op, "add" | "sub") && ty == Type::S32 && i.take("sat") {
        let run = if op == "add" { run2::<AddSat> } else { run2::<SubSat> };
        return two(i, run, ty);
    }
    let run = match op {
        "add" => by_int!(i, ty, run2, Add),
        "sub" => by_int!(i, ty, run2, Sub),
        "div" => by_int!(i, ty, run2, Div),
        "rem" => by_int!(i, ty, run2, Rem),
        "min" => by_int!(i, ty, run2, Min),
        "max" => by_int!(i, ty, run2, Max),
        "abs" => by_int!(i, ty, run1, Abs),
        "neg" => by_int!(i, ty, run1, Neg),
        "sad" => by_int!(i, ty, run3, Sad),
        _ => return i.unsupported(),
    };
    match op {
        "abs" | "neg" => {
            i.wants(2)?;
            let (y, a) = (i.dst(0, ty)?, i.src(1, ty)?);
            i.emit(run, Counts::Integer, Slots { y, a, ..Slots::default() });
            Ok(())
        }
        "sad" => three(i, run, ty, ty),
        _ => two(i, run, ty),
    }
}

fn two(i: &mut Inst<'_, '_, '_>, run: Run, ty: Type) -> Read<()> {
    i.wants(3)?;
    let (y, a, b) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, ty)?);
    i.emit(run, Counts::Integer, Slots { y, a, b, ..Slots::default() });
    Ok(())
}

/// Factors of type `ty`; addend and result of type `wide`.
fn three(i: &mut Inst<'_, '_, '_>, run: Run, ty: Type, wide: Type) -> Read<()> {
    i.wants(4)?;
    let (y, a, b, c) = (i.dst(0, wide)?, i.src(1, ty)?, i.src(2, ty)?, i.src(3, wide)?);
    i.emit(run, Counts::Integer, Slots { y, a, b, c, ..Slots::default() });
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Half {
    Low,
    High,
    Wide,
}

/// `mul`, `mad`, `madc`, `mul24`, `mad24`.
fn product(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let op = i.opcode();
    let Some(half) = i.pick(&[("lo", Half::Low), ("hi", Half::High), ("wide", Half::Wide)]) else {
        return i.refuse(format!("`{}` says neither .lo nor .hi nor .wide", i.whole()));
    };
    let ty = i.ty()?;
    if op.ends_with("24") {
        return short(i, half, ty);
    }
    if half == Half::Wide {
        let (wide, mul, mad): (Type, Run, Run) = match ty {
            Type::U16 => (Type::U32, run2::<WideU16>, run3::<MadWideU16>),
            Type::S16 => (Type::S32, run2::<WideS16>, run3::<MadWideS16>),
            Type::U32 => (Type::U64, run2::<WideU32>, run3::<MadWideU32>),
            Type::S32 => (Type::S64, run2::<WideS32>, run3::<MadWideS32>),
            _ => return i.unsupported(),
        };
        if op == "mul" {
            i.wants(3)?;
            let (y, a, b) = (i.dst(0, wide)?, i.src(1, ty)?, i.src(2, ty)?);
            i.emit(mul, Counts::Integer, Slots { y, a, b, ..Slots::default() });
            return Ok(());
        }
        return three(i, mad, ty, wide);
    }
    let mul = if half == Half::Low { by_int!(i, ty, run2, Mul) } else { by_int!(i, ty, run2, High) };
    if op == "mul" {
        return two(i, mul, ty);
    }
    if op == "madc" || i.suffixed("cc") {
        i.wants(4)?;
        let (a, b, c) = (i.src(1, ty)?, i.src(2, ty)?, i.src(3, ty)?);
        let t = i.temporary(ty.bytes() == 8);
        i.emit(mul, Counts::Integer, Slots { y: t, a, b, ..Slots::default() });
        let y = i.dst(0, ty)?;
        return carry(i, ty, (y, t, c), false);
    }
    if half == Half::High && ty == Type::S32 && i.take("sat") {
        return three(i, run3::<MadHighSat>, ty, ty);
    }
    let run = if half == Half::Low { by_int!(i, ty, run3, Mad) } else { by_int!(i, ty, run3, MadHigh) };
    three(i, run, ty, ty)
}

/// `mul24`, `mad24`: bits 0…31 or 16…47 of the product of the low 24 bits.
fn short(i: &mut Inst<'_, '_, '_>, half: Half, ty: Type) -> Read<()> {
    let mul: Run = match (ty, half) {
        (Type::U32, Half::Low) => run2::<Mul24LoU>,
        (Type::S32, Half::Low) => run2::<Mul24LoS>,
        (Type::U32, Half::High) => run2::<Mul24HiU>,
        (Type::S32, Half::High) => run2::<Mul24HiS>,
        _ => return i.unsupported(),
    };
    if i.opcode() == "mul24" {
        return two(i, mul, ty);
    }
    if half == Half::High && ty == Type::S32 && i.take("sat") {
        return three(i, run3::<Mad24HiSat>, ty, ty);
    }
    i.wants(4)?;
    let (a, b, c) = (i.src(1, ty)?, i.src(2, ty)?, i.src(3, ty)?);
    let t = i.temporary(false);
    i.emit(mul, Counts::Integer, Slots { y: t, a, b, ..Slots::default() });
    let y = i.dst(0, ty)?;
    i.emit(run2::<Add<u32>>, Counts::Integer, Slots { y, a: t, b: c, ..Slots::default() });
    Ok(())
}

/// `add.cc`, `addc`, `sub.cc`, `subc`.
fn carried(i: &mut Inst<'_, '_, '_>, ty: Type) -> Read<()> {
    i.wants(3)?;
    let (y, a, b) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, ty)?);
    let minus = i.opcode().starts_with("sub");
    // Whoever came here by `add.cc` has taken the suffix.
    carry(i, ty, (y, a, b), minus)
}

fn carry(i: &mut Inst<'_, '_, '_>, ty: Type, (y, a, b): (u32, u32, u32), minus: bool) -> Read<()> {
    let takes = i.opcode().ends_with('c');
    let gives = i.take("cc") || matches!(i.opcode(), "add" | "sub");
    let imm = u64::from(takes) | u64::from(gives) << 1;
    let run: Run = match (ty.bytes(), minus) {
        (4, false) => add_carry::<u32>,
        (4, true) => sub_borrow::<u32>,
        (8, false) => add_carry::<u64>,
        (8, true) => sub_borrow::<u64>,
        _ => return i.unsupported(),
    };
    i.emit(run, Counts::Integer, Slots { y, a, b, imm, ..Slots::default() });
    Ok(())
}

/// `u32` or `u64` with carry.
trait Carry: Bits {
    fn add(self, b: Self, carry: bool) -> (Self, bool);
    fn sub(self, b: Self, borrow: bool) -> (Self, bool);
}
macro_rules! carries { ($($t:ty)*) => { $(
    impl Carry for $t {
        fn add(self, b: $t, carry: bool) -> ($t, bool) {
            let (s, x) = self.overflowing_add(b);
            let (s, y) = s.overflowing_add(carry.into());
            (s, x | y)
        }
        fn sub(self, b: $t, borrow: bool) -> ($t, bool) {
            let (s, x) = self.overflowing_sub(b);
            let (s, y) = s.overflowing_sub(borrow.into());
            (s, x | y)
        }
    }
)* } }
carries!(u32 u64);

fn add_carry<T: Carry>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    with_carry::<T>(cx, op, T::add)
}
fn sub_borrow<T: Carry>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    with_carry::<T>(cx, op, T::sub)
}
fn with_carry<T: Carry>(cx: &mut Cx<'_>, op: &Op, f: fn(T, T, bool) -> (T, bool)) -> Flow {
    let (a, b) = (*T::read(cx.rows, op.a as usize), *T::read(cx.rows, op.b as usize));
    let before = if op.imm & 1 == 1 { cx.preds[CARRY] } else { 0 };
    let (mut y, mut after) = ([T::default(); LANES], 0);
    for l in 0..LANES {
        let (v, c) = f(a[l], b[l], before >> l & 1 == 1);
        (y[l], after) = (v, after | u32::from(c) << l);
    }
    put(cx.rows, op.y as usize, y, cx.mask);
    if op.imm & 2 == 2 {
        cx.preds[CARRY] = cx.preds[CARRY] & !cx.mask | after & cx.mask;
    }
    Flow::Next
}

/// `dp4a`: c plus the products of four bytes; `dp2a`: of two half-words of a and two bytes of b.
fn dot(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let two = i.opcode() == "dp2a";
    let high = two && i.pick(&[("lo", false), ("hi", true)]).unwrap_or(false);
    let (ta, tb) = (i.ty()?, i.ty()?);
    if !matches!((ta, tb), (Type::U32 | Type::S32, Type::U32 | Type::S32)) {
        return i.unsupported();
    }
    i.wants(4)?;
    let sum = if ta == Type::U32 && tb == Type::U32 { Type::U32 } else { Type::S32 };
    let (y, a, b, c) = (i.dst(0, sum)?, i.src(1, ta)?, i.src(2, tb)?, i.src(3, sum)?);
    let flags = [ta == Type::S32, tb == Type::S32, two, high];
    let imm = flags.iter().enumerate().fold(0, |n, (k, &f)| n | u64::from(f) << k);
    i.emit(products, Counts::Integer, Slots { y, a, b, c, imm, ..Slots::default() });
    Ok(())
}

fn products(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let on = |k: u32| op.imm >> k & 1 == 1;
    let byte = |x: u32, k: u32, signed| {
        let b = (x >> (8 * k)) as u8;
        if signed { i64::from(b as i8) } else { i64::from(b) }
    };
    let short = |x: u32, k: u32, signed| {
        let s = (x >> (16 * k)) as u16;
        if signed { i64::from(s as i16) } else { i64::from(s) }
    };
    let (a, b) = (cx.rows[op.a as usize].0, cx.rows[op.b as usize].0);
    let c = cx.rows[op.c as usize].0;
    let y = std::array::from_fn(|l| {
        let sum: i64 = match on(2) {
            false => (0..4).map(|k| byte(a[l], k, on(0)) * byte(b[l], k, on(1))).sum(),
            true => {
                let first = 2 * u32::from(on(3));
                (0..2).map(|k| short(a[l], k, on(0)) * byte(b[l], first + k, on(1))).sum()
            }
        };
        (sum as u32).wrapping_add(c[l])
    });
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}

/// `add.u64`.
pub(super) fn add64() -> Run {
    run2::<Add<u64>>
}

/// `vabsdiff4.u32.u32.u32[.add]`: |a - b| byte by byte, or their sum plus c (PTX ISA 9.0, section 9.7.17).
pub(super) fn absolute_differences(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let add = i.take("add");
    for _ in 0..3 {
        if i.ty()? != Type::U32 {
            return i.unsupported();
        }
    }
    i.wants(4)?;
    let ty = Type::U32;
    let (y, a, b, c) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, ty)?, i.src(3, ty)?);
    let run: Run = if add { run3::<ByteDistance> } else { run3::<ByteDistances> };
    i.emit(run, Counts::Integer, Slots { y, a, b, c, ..Slots::default() });
    Ok(())
}

#[inline(always)]
fn byte_distance(a: u32, b: u32, k: u32) -> u32 {
    (a >> (8 * k) & 255).abs_diff(b >> (8 * k) & 255)
}
plain_fun3! {
    ByteDistances(a: u32, b: u32, _c: u32) -> u32 = (0..4).fold(0, |y, k| y | byte_distance(a, b, k) << (8 * k));
    ByteDistance(a: u32, b: u32, c: u32) -> u32 = (0..4).fold(c, |y, k| y.wrapping_add(byte_distance(a, b, k)));
}
