//! `cvt` (PTX ISA 9.0, section 9.7.9.21): between integers, floats, and pairs of narrow floats.

use super::plain_fun;
use crate::ptx::float::format::{self, BF16, Byte, F16, F32, TF32, bf16_bits, f16_bits, whole};
use crate::ptx::float::{Mode, Rm, Rn, Rna, Rp, Rz, flush};
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, put, run1, run2};
use crate::ptx::run::{Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::{Class, Type};

plain_fun! {
    // The conversions that kernels do most.
    IntFromFloat(a: f32) -> i32 = a as i32;
    WordFromFloat(a: f32) -> u32 = a as u32;
    FloatFromInt(a: i32) -> f32 = a as f32;
    FloatFromWord(a: u32) -> f32 = a as f32;
    DoubleFromFloat(a: f32) -> f64 = f64::from(a);
    FloatFromDouble(a: f64) -> f32 = a as f32;
    FloatFromHalf(a: half::f16) -> f32 = a.to_f32();
    FloatFromBrain(a: u16) -> f32 = f32::from_bits(u32::from(a) << 16);
}

/// Bits of `imm` behind the two types and the rounding.
const SAT: u32 = 20;
const FTZ: u32 = 21;
const RELU: u32 = 22;
const INTEGRAL: u32 = 23;
const WIDE_FROM: u32 = 24;
const WIDE_TO: u32 = 25;

const TYPES: [Type; 14] = [
    Type::U8,
    Type::S8,
    Type::U16,
    Type::S16,
    Type::U32,
    Type::S32,
    Type::U64,
    Type::S64,
    Type::F16,
    Type::Bf16,
    Type::Tf32,
    Type::F32,
    Type::F64,
    Type::Pred,
];
const MODES: [Mode; 5] = [Mode::Nearest, Mode::Away, Mode::Zero, Mode::Up, Mode::Down];

fn code(i: &Inst<'_, '_, '_>, ty: Type) -> Read<u64> {
    match TYPES.iter().position(|t| *t == ty) {
        Some(k) => Ok(k as u64),
        None => i.unsupported(),
    }
}

/// What the suffixes of a `cvt` say beside its types.
struct Ways {
    mode: Mode,
    rounds: bool,
    integral: bool,
    sat: bool,
    ftz: bool,
    relu: bool,
}

fn ways(i: &mut Inst<'_, '_, '_>) -> Ways {
    let to_integer = [("rni", Mode::Nearest), ("rzi", Mode::Zero), ("rmi", Mode::Down), ("rpi", Mode::Up)];
    let integral = i.pick(&to_integer);
    let plain = super::float::rounding(i).or_else(|| i.pick(&[("rna", Mode::Away)]));
    Ways {
        mode: integral.or(plain).unwrap_or(Mode::Nearest),
        rounds: plain.is_some(),
        integral: integral.is_some(),
        sat: i.take("sat"),
        ftz: i.take("ftz"),
        relu: i.take("relu"),
    }
}

/// Lowers a `cvt`.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let w = ways(i);
    let (to, from) = (i.ty()?, i.ty()?);
    if matches!(to, Type::F16x2 | Type::Bf16x2 | Type::E4m3x2 | Type::E5m2x2) {
        return pair(i, &w, to, from);
    }
    i.wants(2)?;
    let ((y, yt), (a, at)) = (i.dst_wide(0, to)?, i.src_wide(1, from)?);
    let (wide_to, wide_from) = (yt.bytes() == 8, at.bytes() == 8);
    let is_float = |t: Type| t.class() == Class::Float;
    if is_float(to) && !is_float(from) && !w.rounds {
        return i.refuse(format!("`{}` names no rounding: .rn, .rz, .rm or .rp", i.whole()));
    }
    if is_float(from) && !is_float(to) && !w.integral {
        return i.refuse(format!("`{}` names no rounding: .rni, .rzi, .rmi or .rpi", i.whole()));
    }
    let common: Option<Run> = match (to, from, w.mode) {
        _ if w.sat || w.ftz || w.relu || wide_to != (to.bytes() == 8) || wide_from != (from.bytes() == 8) => {
            None
        }
        (Type::S32, Type::F32, Mode::Zero) => Some(run1::<IntFromFloat>),
        (Type::U32, Type::F32, Mode::Zero) => Some(run1::<WordFromFloat>),
        (Type::F32, Type::S32, Mode::Nearest) => Some(run1::<FloatFromInt>),
        (Type::F32, Type::U32, Mode::Nearest) => Some(run1::<FloatFromWord>),
        (Type::F64, Type::F32, _) => Some(run1::<DoubleFromFloat>),
        (Type::F32, Type::F64, Mode::Nearest) if !w.integral => Some(run1::<FloatFromDouble>),
        (Type::F32, Type::F16, _) if !w.integral => Some(run1::<FloatFromHalf>),
        (Type::F32, Type::Bf16, _) if !w.integral => Some(run1::<FloatFromBrain>),
        (Type::Tf32, Type::F32, Mode::Away) => Some(run1::<super::half::TensorFromFloat>),
        _ => None,
    };
    let mode = MODES.iter().position(|m| *m == w.mode).unwrap_or(0) as u64;
    let flags = [
        (SAT, w.sat),
        (FTZ, w.ftz),
        (RELU, w.relu),
        (INTEGRAL, w.integral),
        (WIDE_FROM, wide_from),
        (WIDE_TO, wide_to),
    ];
    let imm = code(i, to)? | code(i, from)? << 8 | mode << 16;
    let imm = flags.iter().fold(imm, |n, (bit, on)| n | u64::from(*on) << bit);
    let run = match common {
        Some(run) => run,
        None if !is_float(to) && !is_float(from) && !w.sat => match (wide_from, wide_to) {
            (false, false) => extend::<u32, u32> as Run,
            (false, true) => extend::<u32, u64>,
            (true, false) => extend::<u64, u32>,
            (true, true) => extend::<u64, u64>,
        },
        None => general,
    };
    i.emit(run, Counts::Move, Slots { y, a, imm, ..Slots::default() });
    Ok(())
}

/// A register read as 64 bits.
#[inline(always)]
fn long(cx: &Cx<'_>, slot: usize, wide: bool) -> [u64; LANES] {
    if wide { *u64::read(cx.rows, slot) } else { u32::read(cx.rows, slot).map(u64::from) }
}

/// Bits of a value of type `ty`, sign- or zero-extended.
#[inline(always)]
fn extended(v: u64, bits: u32, signed: bool) -> u64 {
    let shift = 64 - bits;
    if signed { ((v << shift) as i64 >> shift) as u64 } else { v << shift >> shift }
}

/// Narrower or low bits of a register of 32 or 64.
trait Word: Bits {
    fn wide(self) -> u64;
    fn low(v: u64) -> Self;
}
impl Word for u32 {
    #[inline(always)]
    fn wide(self) -> u64 {
        self.into()
    }
    #[inline(always)]
    fn low(v: u64) -> u32 {
        v as u32
    }
}
impl Word for u64 {
    #[inline(always)]
    fn wide(self) -> u64 {
        self
    }
    #[inline(always)]
    fn low(v: u64) -> u64 {
        v
    }
}

/// Integer to integer: cut to the narrower, then extended as the signs say.
fn extend<A: Word, Y: Word>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let (to, from) = types(op);
    let (n, m) = (from.bytes() * 8, to.bytes() * 8);
    let a = A::read(cx.rows, op.a as usize);
    let y = a.map(|v| Y::low(extended(extended(v.wide(), n, from.is_signed()), m, to.is_signed())));
    put(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}

fn types(op: &Op) -> (Type, Type) {
    (TYPES[(op.imm & 255) as usize % TYPES.len()], TYPES[(op.imm >> 8 & 255) as usize % TYPES.len()])
}

/// A value between decoding and encoding.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

fn decode(bits: u64, ty: Type, ftz: bool) -> Number {
    let f32_of = |b: u64| {
        let x = f32::from_bits(b as u32);
        f64::from(if ftz { flush(x) } else { x })
    };
    match ty {
        Type::F64 => Number::Float(f64::from_bits(bits)),
        Type::F32 | Type::Tf32 => Number::Float(f32_of(bits)),
        Type::F16 => Number::Float(half::f16::from_bits(bits as u16).to_f64()),
        Type::Bf16 => Number::Float(half::bf16::from_bits(bits as u16).to_f64()),
        _ if ty.is_signed() => Number::Int((extended(bits, ty.bytes() * 8, true) as i64).into()),
        _ => Number::Int(extended(bits, ty.bytes() * 8, false).into()),
    }
}

/// Calls `f` with the rounding as a type.
macro_rules! in_mode { ($mode:expr, $f:ident $(, $a:expr)*) => {
    match $mode {
        Mode::Nearest => $f::<Rn>($($a),*),
        Mode::Away => $f::<Rna>($($a),*),
        Mode::Zero => $f::<Rz>($($a),*),
        Mode::Up => $f::<Rp>($($a),*),
        Mode::Down => $f::<Rm>($($a),*),
    }
} }

fn rounded<R: crate::ptx::float::Rounding>(f: format::Format, x: f64) -> f64 {
    f.round::<R>(x)
}
fn integer64<R: crate::ptx::float::Rounding>(v: i128) -> f64 {
    format::integer64::<R>(v)
}

fn general(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let has = |bit: u32| op.imm >> bit & 1 == 1;
    let (to, from) = types(op);
    let mode = MODES[(op.imm >> 16 & 15) as usize % MODES.len()];
    let a = long(cx, op.a as usize, has(WIDE_FROM));
    let ftz = has(FTZ);
    let y = a.map(|bits| {
        let mut v = decode(bits, from, ftz && from == Type::F32);
        if let Number::Float(x) = v
            && has(INTEGRAL)
        {
            v = Number::Float(in_mode!(mode, whole, x));
        }
        match to.class() {
            Class::Float => encode(v, to, mode, has(SAT), has(RELU), ftz),
            _ => extended(to_integer(v, to, from, has(SAT)), to.bytes() * 8, to.is_signed()),
        }
    });
    match has(WIDE_TO) {
        true => put(cx.rows, op.y as usize, y, cx.mask),
        false => put(cx.rows, op.y as usize, y.map(|v| v as u32), cx.mask),
    }
    Flow::Next
}

/// A float without fraction, or an integer, clamped to the range of `to`.
fn to_integer(v: Number, to: Type, from: Type, sat: bool) -> u64 {
    let bits = to.bytes() * 8;
    let (least, most) = match to.is_signed() {
        true => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        false => (0, (1i128 << bits) - 1),
    };
    match v {
        Number::Int(v) if sat => v.clamp(least, most) as u64,
        Number::Int(v) => v as u64,
        // What hardware gives for NaN: zero, or the sign bit alone where f64 or 64 bits take part.
        Number::Float(x) if x.is_nan() && (from == Type::F64 || bits == 64) => 1 << (bits - 1),
        Number::Float(x) => (x as i128).clamp(least, most) as u64,
    }
}

/// The bits of a float of type `to`.
fn encode(v: Number, to: Type, mode: Mode, sat: bool, relu: bool, ftz: bool) -> u64 {
    let x = match v {
        Number::Float(x) => x,
        Number::Int(v) if to == Type::F64 => in_mode!(mode, integer64, v),
        Number::Int(v) => format::integer(v),
    };
    let x = match to {
        Type::F64 => x,
        Type::F16 => in_mode!(mode, rounded, F16, x),
        Type::Bf16 => in_mode!(mode, rounded, BF16, x),
        Type::Tf32 => in_mode!(mode, rounded, TF32, x),
        _ => in_mode!(mode, rounded, F32, x),
    };
    let x = match (sat, relu) {
        (true, _) => crate::ptx::float::saturate64(x),
        (_, true) if x <= 0.0 => 0.0,
        _ => x,
    };
    match to {
        Type::F64 => x.to_bits(),
        Type::F16 => f16_bits(x).into(),
        Type::Bf16 => bf16_bits(x).into(),
        _ if x.is_nan() => 0x7fff_ffff,
        Type::Tf32 => u64::from((x as f32).to_bits()),
        _ => u64::from(if ftz { flush(x as f32) } else { x as f32 }.to_bits()),
    }
}

/// `cvt.rn.f16x2.f32 y, high, low` and the 8-bit pairs.
fn pair(i: &mut Inst<'_, '_, '_>, w: &Ways, to: Type, from: Type) -> Read<()> {
    let finite = i.take("satfinite");
    let single = |t: Type| match t {
        Type::F16x2 => Some(Type::F16),
        Type::Bf16x2 => Some(Type::Bf16),
        _ => None,
    };
    let byte = |t: Type| match t {
        Type::E4m3x2 => Some(0u64),
        Type::E5m2x2 => Some(1),
        _ => None,
    };
    let relu = u64::from(w.relu) << 8;
    let mode = (MODES.iter().position(|m| *m == w.mode).unwrap_or(0) as u64) << 16;
    match (single(to), from) {
        (Some(half), Type::F32) => {
            i.wants(3)?;
            let (y, a, b) = (i.dst(0, to)?, i.src(1, from)?, i.src(2, from)?);
            let imm = u64::from(half == Type::Bf16) | relu | mode;
            let usual = half == Type::Bf16 && !w.relu && w.mode == Mode::Nearest;
            let run = if usual { run2::<super::half::BrainPair> as Run } else { halves };
            i.emit(run, Counts::Move, Slots { y, a, b, imm, ..Slots::default() });
        }
        (Some(Type::F16), Type::E4m3x2 | Type::E5m2x2) => {
            i.wants(2)?;
            let (y, a) = (i.dst(0, to)?, i.src(1, from)?);
            let imm = byte(from).unwrap_or(0) | relu;
            i.emit(from_bytes, Counts::Move, Slots { y, a, imm, ..Slots::default() });
        }
        (None, Type::F32) if finite => {
            i.wants(3)?;
            let (y, a, b) = (i.dst(0, to)?, i.src(1, from)?, i.src(2, from)?);
            let imm = byte(to).unwrap_or(0) | relu;
            i.emit(to_bytes, Counts::Move, Slots { y, a, b, imm, ..Slots::default() });
        }
        (None, Type::F16x2) if finite => {
            i.wants(2)?;
            let (y, a) = (i.dst(0, to)?, i.src(1, from)?);
            let imm = byte(to).unwrap_or(0) | relu | 2;
            i.emit(to_bytes, Counts::Move, Slots { y, a, b: a, imm, ..Slots::default() });
        }
        _ => return i.unsupported(),
    }
    Ok(())
}

fn halves(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let to = if op.imm & 1 == 1 { Type::Bf16 } else { Type::F16 };
    let (relu, mode) = (op.imm >> 8 & 1 == 1, MODES[(op.imm >> 16 & 15) as usize % MODES.len()]);
    let half = |bits: u32| encode(decode(bits.into(), Type::F32, false), to, mode, false, relu, false) as u32;
    let (a, b) = (cx.rows[op.a as usize].0, cx.rows[op.b as usize].0);
    put::<u32>(cx.rows, op.y as usize, std::array::from_fn(|l| half(a[l]) << 16 | half(b[l])), cx.mask);
    Flow::Next
}

fn byte_kind(op: &Op) -> Byte {
    if op.imm & 1 == 1 { Byte::E5m2 } else { Byte::E4m3 }
}

fn from_bytes(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let relu = op.imm >> 8 & 1 == 1;
    let kind = byte_kind(op);
    let half = |code: u32| {
        let x = kind.value(code as u8);
        u32::from(f16_bits(if relu && x <= 0.0 { 0.0 } else { x }))
    };
    let a = cx.rows[op.a as usize].0;
    put::<u32>(cx.rows, op.y as usize, a.map(|v| half(v & 255) | half(v >> 8 & 255) << 16), cx.mask);
    Flow::Next
}

fn to_bytes(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let (kind, packed, relu) = (byte_kind(op), op.imm & 2 == 2, op.imm >> 8 & 1 == 1);
    let code = |x: f64| u32::from(kind.of(if relu && x <= 0.0 { 0.0 } else { x }));
    let (a, b) = (cx.rows[op.a as usize].0, cx.rows[op.b as usize].0);
    let half = |bits: u32| half::f16::from_bits(bits as u16).to_f64();
    let float = |bits: u32| f64::from(f32::from_bits(bits));
    let y = std::array::from_fn(|l| match packed {
        true => code(half(a[l])) | code(half(a[l] >> 16)) << 8,
        false => code(float(b[l])) | code(float(a[l])) << 8,
    });
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}
