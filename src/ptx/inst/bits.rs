//! Logic, shifts, fields and permutations of bits (PTX ISA 9.0, sections 9.7.1 and 9.7.8).

use super::{fun1, fun2, plain_fun, plain_fun2, plain_fun3};
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Lane, put, run1, run2, run3};
use crate::ptx::run::{Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// Words of 16, 32 and 64 bits.
trait Word: Lane + Eq + Default + std::ops::BitAnd<Output = Self> + std::ops::BitOr<Output = Self> {
    fn xor(self, b: Self) -> Self;
    fn not(self) -> Self;
    fn is_zero(self) -> Self;
}
macro_rules! words { ($($t:ty)*) => { $(
    impl Word for $t {
        #[inline(always)]
        fn xor(self, b: $t) -> $t { self ^ b }
        #[inline(always)]
        fn not(self) -> $t { !self }
        #[inline(always)]
        fn is_zero(self) -> $t { (self == 0).into() }
    }
)* } }
words!(u16 u32 u64);

fun1! {
    Not<T: Word> -> T = |a| a.not();
    Cnot<T: Word> -> T = |a| a.is_zero();
}
fun2! {
    And<T: Word> = |a, b| a & b;
    Or<T: Word> = |a, b| a | b;
    Xor<T: Word> = |a, b| a.xor(b);
}
plain_fun! {
    Clz32(a: u32) -> u32 = a.leading_zeros();
    Clz64(a: u64) -> u32 = a.leading_zeros();
    Popc32(a: u32) -> u32 = a.count_ones();
    Popc64(a: u64) -> u32 = a.count_ones();
    Brev32(a: u32) -> u32 = a.reverse_bits();
    Brev64(a: u64) -> u64 = a.reverse_bits();
}
// Shifts by the width or more clamp: zeros, or copies of the sign.
plain_fun2! {
    Shl16(a: u16, b: u32) -> u16 = if b > 15 { 0 } else { a << b };
    Shl32(a: u32, b: u32) -> u32 = if b > 31 { 0 } else { a << b };
    Shl64(a: u64, b: u32) -> u64 = if b > 63 { 0 } else { a << b };
    ShrU16(a: u16, b: u32) -> u16 = if b > 15 { 0 } else { a >> b };
    ShrU32(a: u32, b: u32) -> u32 = if b > 31 { 0 } else { a >> b };
    ShrU64(a: u64, b: u32) -> u64 = if b > 63 { 0 } else { a >> b };
    ShrS16(a: i16, b: u32) -> i16 = a >> b.min(15);
    ShrS32(a: i32, b: u32) -> i32 = a >> b.min(31);
    ShrS64(a: i64, b: u32) -> i64 = a >> b.min(63);
    MaskClamp(a: u32, b: u32) -> u32 = if a > 31 { 0 } else { ones(b.min(32)) << a };
    MaskWrap(a: u32, b: u32) -> u32 = ones(b & 31) << (a & 31);
    ExtendUClamp(a: u32, b: u32) -> u32 = a & ones(b.min(32));
    ExtendUWrap(a: u32, b: u32) -> u32 = a & ones(b & 31);
    ExtendSClamp(a: i32, b: u32) -> i32 = sign_extend(a, b.min(32));
    ExtendSWrap(a: i32, b: u32) -> i32 = sign_extend(a, b & 31);
}
#[inline(always)]
fn ones(n: u32) -> u32 {
    ((1u64 << n) - 1) as u32
}
#[inline(always)]
fn sign_extend(a: i32, n: u32) -> i32 {
    if n == 0 { 0 } else { a << (32 - n) >> (32 - n) }
}
#[inline(always)]
pub(super) fn pair(a: u32, b: u32) -> u64 {
    u64::from(b) << 32 | u64::from(a)
}
plain_fun3! {
    FunnelLeftClamp(a: u32, b: u32, c: u32) -> u32 = ((pair(a, b) << c.min(32)) >> 32) as u32;
    FunnelLeftWrap(a: u32, b: u32, c: u32) -> u32 = ((pair(a, b) << (c & 31)) >> 32) as u32;
    FunnelRightClamp(a: u32, b: u32, c: u32) -> u32 = (pair(a, b) >> c.min(32)) as u32;
    FunnelRightWrap(a: u32, b: u32, c: u32) -> u32 = (pair(a, b) >> (c & 31)) as u32;
    FieldU32(a: u32, b: u32, c: u32) -> u32 = field(a.into(), b, c, 32, false) as u32;
    FieldS32(a: i32, b: u32, c: u32) -> i32 = field(a as i64 as u64, b, c, 32, true) as i32;
    FieldU64(a: u64, b: u32, c: u32) -> u64 = field(a, b, c, 64, false);
    FieldS64(a: i64, b: u32, c: u32) -> i64 = field(a as u64, b, c, 64, true) as i64;
}

/// `bfe`: c bits from bit b on; beyond the top, copies of the sign or zeros.
#[inline(always)]
fn field(a: u64, b: u32, c: u32, width: u32, signed: bool) -> u64 {
    let (at, n) = (b & 255, c & 255);
    if n == 0 {
        return 0;
    }
    let shift = at.min(63);
    let low = if signed {
        (a as i64 >> shift) as u64
    } else if at > 63 {
        0
    } else {
        a >> shift
    };
    let top = at + n;
    if n >= 64 || top >= width {
        // An `a` of 32 bits comes sign- or zero-extended.
        return low;
    }
    match signed {
        true => ((low << (64 - n)) as i64 >> (64 - n)) as u64,
        false => low & ((1 << n) - 1),
    }
}

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if i.peek() == Some(Type::Pred) {
        return predicates(i);
    }
    match i.opcode() {
        "shl" | "shr" => shift(i),
        "shf" | "bmsk" | "szext" | "bfe" => table(i),
        "bfi" => insert(i),
        "bfind" => find(i),
        "prmt" => super::permute::permute(i),
        "lop3" => super::permute::lookup(i),
        "fns" => nth(i),
        _ => logic(i),
    }
}

macro_rules! by_word {
    ($i:expr, $ty:expr, $run:ident, $F:ident) => {
        match $ty {
            Type::B16 => $run::<$F<u16>> as Run,
            Type::B32 => $run::<$F<u32>>,
            Type::B64 => $run::<$F<u64>>,
            _ => return $i.unsupported(),
        }
    };
}

fn logic(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let ty = i.ty()?;
    let run = match i.opcode() {
        "and" => by_word!(i, ty, run2, And),
        "or" => by_word!(i, ty, run2, Or),
        "xor" => by_word!(i, ty, run2, Xor),
        "not" => by_word!(i, ty, run1, Not),
        "cnot" => by_word!(i, ty, run1, Cnot),
        op => {
            let (narrow, wide): (Run, Run) = match op {
                "clz" => (run1::<Clz32>, run1::<Clz64>),
                "popc" => (run1::<Popc32>, run1::<Popc64>),
                _ => (run1::<Brev32>, run1::<Brev64>),
            };
            let run = match ty {
                Type::B32 => narrow,
                Type::B64 => wide,
                _ => return i.unsupported(),
            };
            i.wants(2)?;
            let y = i.dst(0, if op == "brev" { ty } else { Type::U32 })?;
            let a = i.src(1, ty)?;
            i.emit(run, Counts::Integer, Slots { y, a, ..Slots::default() });
            return Ok(());
        }
    };
    let unary = matches!(i.opcode(), "not" | "cnot");
    i.wants(3 - usize::from(unary))?;
    let (y, a) = (i.dst(0, ty)?, i.src(1, ty)?);
    let b = if unary { a } else { i.src(2, ty)? };
    i.emit(run, Counts::Integer, Slots { y, a, b, ..Slots::default() });
    Ok(())
}

fn shift(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let ty = i.ty()?;
    let run: Run = match (i.opcode(), ty) {
        ("shl", Type::B16) => run2::<Shl16>,
        ("shl", Type::B32) => run2::<Shl32>,
        ("shl", Type::B64) => run2::<Shl64>,
        ("shr", Type::B16 | Type::U16) => run2::<ShrU16>,
        ("shr", Type::B32 | Type::U32) => run2::<ShrU32>,
        ("shr", Type::B64 | Type::U64) => run2::<ShrU64>,
        ("shr", Type::S16) => run2::<ShrS16>,
        ("shr", Type::S32) => run2::<ShrS32>,
        ("shr", Type::S64) => run2::<ShrS64>,
        _ => return i.unsupported(),
    };
    i.wants(3)?;
    let (y, a, b) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, Type::U32)?);
    i.emit(run, Counts::Integer, Slots { y, a, b, ..Slots::default() });
    Ok(())
}

/// `shf`, `bmsk`, `szext`, `bfe`.
fn table(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let op = i.opcode();
    let left = op == "shf" && i.pick(&[("l", true), ("r", false)]).unwrap_or(true);
    let clamp = op != "bfe" && i.pick(&[("clamp", true), ("wrap", false)]).unwrap_or(true);
    let ty = i.ty()?;
    let run: Run = match (op, left, clamp, ty) {
        ("shf", true, true, Type::B32) => run3::<FunnelLeftClamp>,
        ("shf", true, false, Type::B32) => run3::<FunnelLeftWrap>,
        ("shf", false, true, Type::B32) => run3::<FunnelRightClamp>,
        ("shf", false, false, Type::B32) => run3::<FunnelRightWrap>,
        ("bmsk", _, true, Type::B32) => run2::<MaskClamp>,
        ("bmsk", _, false, Type::B32) => run2::<MaskWrap>,
        ("szext", _, true, Type::U32) => run2::<ExtendUClamp>,
        ("szext", _, false, Type::U32) => run2::<ExtendUWrap>,
        ("szext", _, true, Type::S32) => run2::<ExtendSClamp>,
        ("szext", _, false, Type::S32) => run2::<ExtendSWrap>,
        ("bfe", .., Type::U32) => run3::<FieldU32>,
        ("bfe", .., Type::S32) => run3::<FieldS32>,
        ("bfe", .., Type::U64) => run3::<FieldU64>,
        ("bfe", .., Type::S64) => run3::<FieldS64>,
        _ => return i.unsupported(),
    };
    let three = matches!(op, "shf" | "bfe");
    i.wants(3 + usize::from(three))?;
    let (y, a) = (i.dst(0, ty)?, i.src(1, ty)?);
    let b = i.src(2, Type::U32)?;
    let c = if three { i.src(3, Type::U32)? } else { b };
    i.emit(run, Counts::Integer, Slots { y, a, b, c, ..Slots::default() });
    Ok(())
}

/// `bfi y, a, b, at, n`: the low n bits of a into b from bit `at` on.
fn insert(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let ty = i.ty()?;
    if !matches!(ty, Type::B32 | Type::B64) {
        return i.unsupported();
    }
    i.wants(5)?;
    let (y, a, b) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, ty)?);
    let (c, n) = (i.src(3, Type::U32)?, i.src(4, Type::U32)?);
    let list = i.list(&[n]);
    let run = if ty == Type::B32 { inserted::<u32> } else { inserted::<u64> };
    i.emit(run, Counts::Integer, Slots { y, a, b, c, list, ..Slots::default() });
    Ok(())
}

fn inserted<T: crate::ptx::run::row::Bits + Into<u64> + Truncate>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let (a, b) = (*T::read(cx.rows, op.a as usize), *T::read(cx.rows, op.b as usize));
    let (at, n) = (cx.rows[op.c as usize].0, cx.rows[cx.listed(op, 0)].0);
    let y = std::array::from_fn(|l| {
        let (at, n) = (at[l] & 255, (n[l] & 255).min(64));
        let mask = if n == 64 { u64::MAX } else { (1 << n) - 1 };
        let (mask, a) = if at > 63 { (0, 0) } else { (mask << at, a[l].into() << at) };
        T::low(b[l].into() & !mask | a & mask)
    });
    put::<T>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}

/// The low bits of a `u64`.
trait Truncate {
    fn low(x: u64) -> Self;
}
impl Truncate for u32 {
    fn low(x: u64) -> u32 {
        x as u32
    }
}
impl Truncate for u64 {
    fn low(x: u64) -> u64 {
        x
    }
}

/// `bfind`: place of the highest bit that differs from the sign, or how far to shift it to the top.
fn find(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let amount = i.take("shiftamt");
    let ty = i.ty()?;
    i.wants(2)?;
    let (y, a) = (i.dst(0, Type::U32)?, i.src(1, ty)?);
    let width = ty.bytes() as u64 * 8;
    let imm = width | u64::from(ty.is_signed()) << 8 | u64::from(amount) << 9;
    i.emit(highest, Counts::Integer, Slots { y, a, imm, ..Slots::default() });
    Ok(())
}

fn highest(cx: &mut Cx<'_>, op: &Op) -> Flow {
    use crate::ptx::run::row::Bits;
    let width = (op.imm & 255) as u32;
    let lane = |l: usize| match width {
        32 => u64::from(u32::read(cx.rows, op.a as usize)[l]) << 32,
        _ => u64::read(cx.rows, op.a as usize)[l],
    };
    let y = std::array::from_fn(|l| {
        let a = lane(l);
        let a = if op.imm >> 8 & 1 == 1 && a >> 63 == 1 { !a & u64::MAX << (64 - width) } else { a };
        match a.leading_zeros() {
            64 => u32::MAX,
            zeros if op.imm >> 9 & 1 == 1 => zeros,
            zeros => width - 1 - zeros,
        }
    });
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}

/// `fns y, mask, base, offset`: place of the n-th set bit, from `base` up or down.
fn nth(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if i.ty()? != Type::B32 {
        return i.unsupported();
    }
    i.wants(4)?;
    let (y, a, b, c) =
        (i.dst(0, Type::B32)?, i.src(1, Type::B32)?, i.src(2, Type::U32)?, i.src(3, Type::S32)?);
    i.emit(nth_set, Counts::Integer, Slots { y, a, b, c, ..Slots::default() });
    Ok(())
}

fn nth_set(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let (a, b, c) = (cx.rows[op.a as usize].0, cx.rows[op.b as usize].0, cx.rows[op.c as usize].0);
    let y = std::array::from_fn(|l| {
        let (base, n) = (b[l], c[l] as i32);
        let set = |at: &u32| a[l] >> at & 1 == 1;
        let found = match n {
            0 => Some(base).filter(|at| *at < 32 && set(at)),
            1.. => (base..32).filter(set).nth(n as usize - 1),
            _ => (0..=base.min(31)).rev().filter(set).nth(n.unsigned_abs() as usize - 1),
        };
        found.unwrap_or(u32::MAX)
    });
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}

/// `and.pred` and so on.
fn predicates(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    i.ty()?;
    let kind = match i.opcode() {
        "and" => 0,
        "or" => 1,
        "xor" => 2,
        "not" => 3,
        _ => return i.unsupported(),
    };
    i.wants(if kind == 3 { 2 } else { 3 })?;
    let (y, _) = i.pred(0)?;
    let (a, na) = i.pred(1)?;
    let (b, nb) = if kind == 3 { (a, na) } else { i.pred(2)? };
    let imm = kind | u64::from(na) << 8 | u64::from(nb) << 9;
    i.emit(combined, Counts::Integer, Slots { y, a, b, imm, ..Slots::default() });
    Ok(())
}

/// `y = a op b`: the low byte of `imm` says which op, bits 8 and 9 negate a and b.
pub(super) fn combined(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let flip = |bit: u64| if op.imm >> bit & 1 == 1 { u32::MAX } else { 0 };
    let (a, b) = (cx.preds[op.a as usize] ^ flip(8), cx.preds[op.b as usize] ^ flip(9));
    let y = match op.imm & 255 {
        0 => a & b,
        1 => a | b,
        2 => a ^ b,
        _ => !a,
    };
    cx.set_pred(op.y, y);
    Flow::Next
}

/// `or.b32`.
pub(super) fn or32() -> Run {
    run2::<Or<u32>>
}
