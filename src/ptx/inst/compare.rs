//! Comparison and selection (PTX ISA 9.0, sections 9.7.6 and 9.7.7).

use super::plain_fun;
use crate::ptx::ast::Operand;
use crate::ptx::float::flush;
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Bits, Fun1, Lane, Test2, put, run1, test2};
use crate::ptx::run::{Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::{Class, Type};
use std::marker::PhantomData;

/// Relations. The ones from EQU on also hold where an operand is NaN.
const EQ: u8 = 0;
const NE: u8 = 1;
const LT: u8 = 2;
const LE: u8 = 3;
const GT: u8 = 4;
const GE: u8 = 5;
const EQU: u8 = 6;
const NEU: u8 = 7;
const LTU: u8 = 8;
const LEU: u8 = 9;
const GTU: u8 = 10;
const GEU: u8 = 11;
const NUM: u8 = 12;
const NAN: u8 = 13;

const NAMES: [(&str, u8); 18] = [
    ("eq", EQ),
    ("ne", NE),
    ("lt", LT),
    ("le", LE),
    ("gt", GT),
    ("ge", GE),
    ("lo", LT),
    ("ls", LE),
    ("hi", GT),
    ("hs", GE),
    ("equ", EQU),
    ("neu", NEU),
    ("ltu", LTU),
    ("leu", LEU),
    ("gtu", GTU),
    ("geu", GEU),
    ("num", NUM),
    ("nan", NAN),
];

/// Relation K of two values of type T; floats compare flushed when FTZ.
struct Relation<T, const K: u8, const FTZ: bool>(PhantomData<T>);

/// What a relation compares: for floats, their value.
trait Value: Lane {
    type As: PartialOrd + Copy;
    fn value<const FTZ: bool>(self) -> Self::As;
}
macro_rules! values { ($($t:ty: $as:ty = |$x:ident| $e:expr;)*) => { $(
    impl Value for $t {
        type As = $as;
        #[inline(always)]
        fn value<const FTZ: bool>(self) -> $as { let $x = self; $e }
    }
)* } }
values! {
    u16: u16 = |x| x;
    i16: i16 = |x| x;
    u32: u32 = |x| x;
    i32: i32 = |x| x;
    u64: u64 = |x| x;
    i64: i64 = |x| x;
    f32: f32 = |x| if FTZ { flush(x) } else { x };
    f64: f64 = |x| x;
    half::f16: f32 = |x| x.to_f32();
    half::bf16: f32 = |x| x.to_f32();
}

impl<T: Value, const K: u8, const FTZ: bool> Test2 for Relation<T, K, FTZ> {
    type A = T;
    #[inline(always)]
    #[allow(clippy::eq_op, reason = "only NaN differs from itself")]
    fn of(a: T, b: T) -> bool {
        let (a, b) = (a.value::<FTZ>(), b.value::<FTZ>());
        let none = a != a || b != b;
        match K {
            EQ => a == b,
            NE => a != b && !none,
            LT => a < b,
            LE => a <= b,
            GT => a > b,
            GE => a >= b,
            EQU => a == b || none,
            NEU => a != b || none,
            LTU => a < b || none,
            LEU => a <= b || none,
            GTU => a > b || none,
            GEU => a >= b || none,
            NUM => !none,
            _ => none,
        }
    }
}

fn test<F: Test2>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let found = test2::<F>(cx, op);
    cx.set_pred(op.y, found);
    Flow::Next
}

/// The function for relation `k` of type `ty`.
fn relation(k: u8, ty: Type, ftz: bool) -> Option<Run> {
    macro_rules! whole {
        ($t:ty) => {
            match k {
                EQ => test::<Relation<$t, EQ, false>> as Run,
                NE => test::<Relation<$t, NE, false>>,
                LT => test::<Relation<$t, LT, false>>,
                LE => test::<Relation<$t, LE, false>>,
                GT => test::<Relation<$t, GT, false>>,
                GE => test::<Relation<$t, GE, false>>,
                _ => return None,
            }
        };
    }
    macro_rules! float {
        ($t:ty, $ftz:literal) => {
            match k {
                EQ => test::<Relation<$t, EQ, $ftz>> as Run,
                NE => test::<Relation<$t, NE, $ftz>>,
                LT => test::<Relation<$t, LT, $ftz>>,
                LE => test::<Relation<$t, LE, $ftz>>,
                GT => test::<Relation<$t, GT, $ftz>>,
                GE => test::<Relation<$t, GE, $ftz>>,
                EQU => test::<Relation<$t, EQU, $ftz>>,
                NEU => test::<Relation<$t, NEU, $ftz>>,
                LTU => test::<Relation<$t, LTU, $ftz>>,
                LEU => test::<Relation<$t, LEU, $ftz>>,
                GTU => test::<Relation<$t, GTU, $ftz>>,
                GEU => test::<Relation<$t, GEU, $ftz>>,
                NUM => test::<Relation<$t, NUM, $ftz>>,
                _ => test::<Relation<$t, NAN, $ftz>>,
            }
        };
    }
    Some(match ty {
        Type::U16 => whole!(u16),
        Type::S16 => whole!(i16),
        Type::U32 => whole!(u32),
        Type::S32 => whole!(i32),
        Type::U64 => whole!(u64),
        Type::S64 => whole!(i64),
        Type::B16 if k <= NE => whole!(u16),
        Type::B32 if k <= NE => whole!(u32),
        Type::B64 if k <= NE => whole!(u64),
        Type::F32 if ftz => float!(f32, true),
        Type::F32 => float!(f32, false),
        Type::F64 => float!(f64, false),
        Type::F16 => float!(half::f16, false),
        Type::Bf16 => float!(half::bf16, false),
        _ => return None,
    })
}

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    match i.opcode() {
        "selp" => select(i),
        "slct" => select_by_sign(i),
        "testp" => classify(i),
        "set" => set(i),
        _ => setp(i),
    }
}

/// Relation, combination with a third predicate, `.ftz`.
fn kind(i: &mut Inst<'_, '_, '_>) -> Read<(u8, Option<u64>, bool)> {
    let Some(k) = i.pick(&NAMES) else {
        return i.refuse(format!("`{}` names no relation", i.whole()));
    };
    let with = i.pick(&[("and", 0), ("or", 1), ("xor", 2)]);
    Ok((k, with, i.take("ftz")))
}

/// Puts relation `k` of operands 1 and 2 into fresh predicates: one, or one for each half of a pair.
fn compared(i: &mut Inst<'_, '_, '_>, k: u8, ty: Type, ftz: bool) -> Read<Vec<u32>> {
    let (a, b) = (i.src(1, ty)?, i.src(2, ty)?);
    let (single, pair) = match ty {
        Type::F16x2 => (Type::F16, true),
        Type::Bf16x2 => (Type::Bf16, true),
        _ => (ty, false),
    };
    let Some(run) = relation(k, single, ftz) else { return i.unsupported() };
    let mut found = Vec::new();
    for high in 0..1 + u32::from(pair) {
        let (mut x, mut z) = (a, b);
        if pair {
            (x, z) = (half_of(i, a, high), half_of(i, b, high));
        }
        let y = i.temporary_pred();
        i.emit(run, class(ty), Slots { y, a: x, b: z, ..Slots::default() });
        found.push(y);
    }
    Ok(found)
}

plain_fun! {
    Low(a: u32) -> u32 = a & 0xffff;
    High(a: u32) -> u32 = a >> 16;
}
fn half_of(i: &mut Inst<'_, '_, '_>, a: u32, high: u32) -> u32 {
    let y = i.temporary(false);
    let run = if high == 1 { run1::<High> as Run } else { run1::<Low> };
    i.emit(run, Counts::Move, Slots { y, a, ..Slots::default() });
    y
}

fn class(ty: Type) -> Counts {
    match ty {
        Type::F64 => Counts::Double,
        Type::F32 => Counts::Float,
        t if t.class() == Class::Float => Counts::Half,
        _ => Counts::Integer,
    }
}

/// `to = from (with c)`, or of the negation of `from`.
fn combine(i: &mut Inst<'_, '_, '_>, to: u32, (from, not): (u32, bool), with: Option<(u64, (u32, bool))>) {
    let (kind, (b, nb)) = with.unwrap_or((1, (from, not)));
    let imm = kind | u64::from(not) << 8 | u64::from(nb) << 9;
    i.emit(super::bits::combined, Counts::Integer, Slots { y: to, a: from, b, imm, ..Slots::default() });
}

fn setp(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let (k, with, ftz) = kind(i)?;
    let ty = i.ty()?;
    i.wants(3 + usize::from(with.is_some()))?;
    let (p, q) = match i.operand(0)? {
        Operand::Pair(p, q, _) => (i.pred_named(p)?, Some(i.pred_named(q)?)),
        Operand::Name(p, _) => (i.pred_named(p)?, None),
        _ => return i.refuse("a predicate is wanted as the first operand"),
    };
    // The common form takes one instruction.
    if with.is_none() && q.is_none() && !matches!(ty, Type::F16x2 | Type::Bf16x2) {
        let (a, b) = (i.src(1, ty)?, i.src(2, ty)?);
        let Some(run) = relation(k, ty, ftz) else { return i.unsupported() };
        i.emit(run, class(ty), Slots { y: p, a, b, ..Slots::default() });
        return Ok(());
    }
    let c = match with {
        Some(kind) => Some((kind, i.pred(3)?)),
        None => None,
    };
    // What c holds must outlive a p or q of the same name.
    let c = c.map(|(kind, (c, not))| {
        let t = i.temporary_pred();
        combine(i, t, (c, not), None);
        (kind, (t, false))
    });
    let found = compared(i, k, ty, ftz)?;
    combine(i, p, (found[0], false), c);
    match (q, found.get(1)) {
        (Some(q), Some(&high)) => combine(i, q, (high, false), c),
        (Some(q), None) => combine(i, q, (found[0], true), c),
        _ => {}
    }
    Ok(())
}

/// `set`: all ones, or 1.0, where the relation holds.
fn set(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let (k, with, ftz) = kind(i)?;
    let (to, ty) = (i.ty()?, i.ty()?);
    i.wants(3 + usize::from(with.is_some()))?;
    let one: u64 = match to {
        Type::U32 | Type::S32 => u32::MAX.into(),
        Type::F32 => 1.0f32.to_bits().into(),
        Type::F16 | Type::F16x2 => 0x3c00,
        Type::Bf16 | Type::Bf16x2 => 0x3f80,
        Type::U16 | Type::S16 => 0xffff,
        _ => return i.unsupported(),
    };
    let c = match with {
        Some(kind) => Some((kind, i.pred(3)?)),
        None => None,
    };
    let found = compared(i, k, ty, ftz)?;
    let (b, y) = (i.constant(0, false), i.dst(0, to)?);
    if found.len() == 1 {
        let a = i.constant(one, false);
        combine(i, found[0], (found[0], false), c);
        i.emit(selected::<u32>, class(to), Slots { y, a, b, c: found[0], ..Slots::default() });
        return Ok(());
    }
    if !matches!(to, Type::F16x2 | Type::Bf16x2 | Type::U32 | Type::S32) {
        return i.unsupported();
    }
    let one = one & 0xffff;
    let mut halves = [0; 2];
    for (half, p) in found.into_iter().enumerate() {
        combine(i, p, (p, false), c);
        let a = i.constant(one << (16 * half), false);
        halves[half] = i.temporary(false);
        i.emit(selected::<u32>, class(to), Slots { y: halves[half], a, b, c: p, ..Slots::default() });
    }
    i.emit(super::bits::or32(), class(to), Slots { y, a: halves[0], b: halves[1], ..Slots::default() });
    Ok(())
}

fn select(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let ty = i.ty()?;
    i.wants(4)?;
    let (y, a, b) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, ty)?);
    let (c, not) = i.pred(3)?;
    let run = if ty.bytes() == 8 { selected::<u64> as Run } else { selected::<u32> };
    i.emit(run, Counts::Move, Slots { y, a, b, c, imm: not.into(), ..Slots::default() });
    Ok(())
}

fn selected<T: Bits>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let p = cx.preds[op.c as usize] ^ if op.imm == 1 { u32::MAX } else { 0 };
    let (a, b) = (T::read(cx.rows, op.a as usize), T::read(cx.rows, op.b as usize));
    let y = std::array::from_fn(|l| if p >> l & 1 == 1 { a[l] } else { b[l] });
    put::<T>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}

/// `slct`: a where c ≥ 0, else b.
fn select_by_sign(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let ftz = i.take("ftz");
    let (ty, by) = (i.ty()?, i.ty()?);
    i.wants(4)?;
    let (y, a, b, c) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, ty)?, i.src(3, by)?);
    let zero = i.constant(0, false);
    let p = i.temporary_pred();
    let Some(run) = relation(GE, by, ftz).filter(|_| matches!(by, Type::S32 | Type::F32)) else {
        return i.unsupported();
    };
    i.emit(run, class(by), Slots { y: p, a: c, b: zero, ..Slots::default() });
    let run = if ty.bytes() == 8 { selected::<u64> as Run } else { selected::<u32> };
    i.emit(run, Counts::Move, Slots { y, a, b, c: p, ..Slots::default() });
    Ok(())
}

macro_rules! classes { ($($name:literal $t:ident $narrow:ident $wide:ident = |$x:ident| $e:expr;)*) => {
    $(
        plain_fun! { $narrow($x: f32) -> u32 = u32::from($e); }
        plain_fun! { $wide($x: f64) -> u32 = u32::from($e); }
    )*
    fn class_test(name: &str) -> Option<(Run, Run)> {
        match name {
            $($name => Some((in_class::<$narrow>, in_class::<$wide>)),)*
            _ => None,
        }
    }
    const CLASSES: &[(&str, &str)] = &[$(($name, $name)),*];
} }
classes! {
    "finite" f32 Finite32 Finite64 = |x| x.is_finite();
    "infinite" f32 Infinite32 Infinite64 = |x| x.is_infinite();
    "number" f32 Number32 Number64 = |x| !x.is_nan();
    "notanumber" f32 Nan32 Nan64 = |x| x.is_nan();
    // Zeros are normal here, unlike in C (an H200 agrees).
    "normal" f32 Normal32 Normal64 = |x| x.is_normal() || x == 0.0;
    "subnormal" f32 Subnormal32 Subnormal64 = |x| x.is_subnormal();
}

fn in_class<F: Fun1<Y = u32>>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let a = <F::A as Lane>::Bits::read(cx.rows, op.a as usize);
    let found = a.iter().enumerate().fold(0, |m, (l, &x)| m | F::of(F::A::of(x)) << l);
    cx.set_pred(op.y, found);
    Flow::Next
}

/// `testp`: finite, infinite, and so on.
fn classify(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let Some((narrow, wide)) = i.pick(CLASSES).and_then(class_test) else { return i.unsupported() };
    let ty = i.ty()?;
    i.wants(2)?;
    let ((y, _), a) = (i.pred(0)?, i.src(1, ty)?);
    let run = match ty {
        Type::F32 => narrow,
        Type::F64 => wide,
        _ => return i.unsupported(),
    };
    i.emit(run, class(ty), Slots { y, a, ..Slots::default() });
    Ok(())
}
