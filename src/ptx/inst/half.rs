//! Arithmetic of f16 and bf16, alone and in pairs (PTX ISA 9.0, section 9.7.4): in f64, whose one rounding to the format
//! is then the only one.

use crate::ptx::ast::Operand;
use crate::ptx::float::approx;
use crate::ptx::float::format::{self, BF16, F16, bf16_bits, f16_bits};
use crate::ptx::float::{Rn, saturate64};
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Fun1, Fun2, LANES, put};
use crate::ptx::run::{Counts, Cx, Flow, Op};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// What is computed, in the low byte of an op's `imm`.
const ADD: u64 = 0;
const SUB: u64 = 1;
const MUL: u64 = 2;
const FMA: u64 = 3;
const MIN: u64 = 4;
const MAX: u64 = 5;
const ABS: u64 = 6;
const NEG: u64 = 7;
const EX2: u64 = 8;
const TANH: u64 = 9;
/// How, in further bits.
const BF: u64 = 1 << 8;
const PAIR: u64 = 1 << 9;
const FTZ: u64 = 1 << 10;
const SAT: u64 = 1 << 11;
const RELU: u64 = 1 << 12;
const NAN: u64 = 1 << 13;
const SIGN: u64 = 1 << 14;

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let what = match i.opcode() {
        "add" => ADD,
        "sub" => SUB,
        "mul" => MUL,
        "fma" => FMA,
        "min" => MIN,
        "max" => MAX,
        "abs" => ABS,
        "neg" => NEG,
        "ex2" => EX2,
        "tanh" => TANH,
        _ => return i.unsupported(),
    };
    let rounds = i.take("rn");
    if what == FMA && !rounds {
        return i.refuse(format!("`{}` names no rounding: .rn is the only one here", i.whole()));
    }
    if matches!(what, EX2 | TANH) && !i.take("approx") {
        return i.unsupported();
    }
    let ty = i.ty()?;
    let mut imm = what;
    if matches!(ty, Type::Bf16 | Type::Bf16x2) {
        imm |= BF;
    }
    if matches!(ty, Type::F16x2 | Type::Bf16x2) {
        imm |= PAIR;
    }
    for (name, bit) in [("ftz", FTZ), ("sat", SAT), ("relu", RELU), ("NaN", NAN)] {
        imm |= if i.take(name) { bit } else { 0 };
    }
    if i.take("xorsign") {
        i.take("abs");
        imm |= SIGN;
    }
    let n = match what {
        FMA => 3,
        ABS | NEG | EX2 | TANH => 1,
        _ => 2,
    };
    i.wants(n + 1)?;
    let (y, a) = (i.dst(0, ty)?, operand(i, 1, ty)?);
    let b = if n > 1 { operand(i, 2, ty)? } else { a };
    let c = if n > 2 { operand(i, 3, ty)? } else { a };
    i.emit(run, Counts::Half, Slots { y, a, b, c, imm, ..Slots::default() });
    Ok(())
}

/// A register, or bits written as an integer.
fn operand(i: &mut Inst<'_, '_, '_>, k: usize, ty: Type) -> Read<u32> {
    match i.operand(k)? {
        Operand::Value(..) => i.src(k, if ty.bytes() == 4 { Type::B32 } else { Type::B16 }),
        _ => i.src(k, ty),
    }
}

fn run(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let [a, b, c] = [op.a, op.b, op.c].map(|slot| cx.rows[slot as usize].0);
    let worst = cx.launch.options.worst;
    let half = |x: u32, y: u32, z: u32| u32::from(single(op.imm, worst, [x as u16, y as u16, z as u16]));
    let mut y = [0; LANES];
    for l in super::memory::active(cx.mask) {
        y[l] = half(a[l], b[l], c[l]);
        if op.imm & PAIR != 0 {
            y[l] |= half(a[l] >> 16, b[l] >> 16, c[l] >> 16) << 16;
        }
    }
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}

fn value(bits: u16, imm: u64) -> f64 {
    let x = match imm & BF {
        0 => half::f16::from_bits(bits).to_f64(),
        _ => half::bf16::from_bits(bits).to_f64(),
    };
    if imm & FTZ != 0 && x.abs() < smallest(imm) { 0.0f64.copysign(x) } else { x }
}

/// The smallest normal number.
fn smallest(imm: u64) -> f64 {
    if imm & BF == 0 { 6.103515625e-5 } else { f64::from(f32::MIN_POSITIVE) }
}

/// Rounds to the format and packs.
pub(super) fn pack(x: f64, bf: bool) -> u16 {
    if bf { bf16_bits(BF16.round::<Rn>(x)) } else { f16_bits(F16.round::<Rn>(x)) }
}

fn single(imm: u64, worst: bool, [a, b, c]: [u16; 3]) -> u16 {
    let what = imm & 255;
    let sign = 0x8000;
    match what {
        // Signs change without a look at the rest; `.ftz` flushes.
        ABS | NEG if imm & FTZ == 0 => return if what == ABS { a & !sign } else { a ^ sign },
        _ => {}
    }
    let [x, y, z] = [a, b, c].map(|bits| value(bits, imm));
    let bf = imm & BF != 0;
    let exact = match what {
        ADD => format::add(x, y),
        SUB => format::add(x, -y),
        MUL => x * y,
        FMA => format::fma(x, y, z),
        MIN | MAX => return least_most(imm, what == MAX, x, y),
        ABS => x.abs(),
        NEG => -x,
        EX2 => bounded(approx::ex2(x as f32), x, worst, if bf { 2f64.powi(-7) } else { 2f64.powi(-10) }),
        _ => bounded(approx::tanh(x as f32), x, worst, if bf { 2f64.powi(-8) } else { 2f64.powi(-10) }),
    };
    finish(imm, exact, bf)
}

/// `.approx` results with the error that is documented, when it is asked for.
fn bounded(y: f64, x: f64, worst: bool, relative: f64) -> f64 {
    if !worst || !y.is_finite() {
        return y;
    }
    let up = x.to_bits() >> 42 & 1 == 0;
    y + y * if up { relative } else { -relative } * 0.5
}

fn finish(imm: u64, exact: f64, bf: bool) -> u16 {
    let format = if bf { BF16 } else { F16 };
    let mut y = format.round::<Rn>(exact);
    if imm & FTZ != 0 && y.abs() < smallest(imm) {
        y = 0.0f64.copysign(y);
    }
    if imm & SAT != 0 {
        y = saturate64(y);
    }
    if imm & RELU != 0 && y <= 0.0 {
        y = 0.0;
    }
    if bf { bf16_bits(y) } else { f16_bits(y) }
}

fn least_most(imm: u64, most: bool, x: f64, y: f64) -> u16 {
    let negative = x.is_sign_negative() != y.is_sign_negative();
    let (x, y) = if imm & SIGN != 0 { (x.abs(), y.abs()) } else { (x, y) };
    let none = x.is_nan() && y.is_nan() || imm & NAN != 0 && (x.is_nan() || y.is_nan());
    let first =
        if most { x > y || x == y && y.is_sign_negative() } else { x < y || x == y && x.is_sign_negative() };
    let z = match (none, x.is_nan(), y.is_nan()) {
        (true, ..) => f64::NAN,
        (_, true, _) => y,
        (_, _, true) => x,
        _ if first => x,
        _ => y,
    };
    let z = if imm & SIGN != 0 && !none && negative { -z } else { z };
    finish(imm & !SAT, z, imm & BF != 0)
}
/// `cvt.rna.tf32.f32`: ten bits of fraction, halves away from zero. On the bits: half of the last place is added to the
/// magnitude, and what lies below it cut off; a carry goes on into the exponent, as it should.
pub(super) struct TensorFromFloat;
impl Fun1 for TensorFromFloat {
    type A = u32;
    type Y = u32;
    #[inline(always)]
    fn of(a: u32) -> u32 {
        let nan = a & 0x7fff_ffff > 0x7f80_0000;
        if nan { 0x7fff_ffff } else { a.wrapping_add(0x1000) & 0xffff_e000 }
    }
}

/// `cvt.rn.bf16x2.f32`: two numbers as bf16, ties to even.
pub(super) struct BrainPair;
impl Fun2 for BrainPair {
    type A = u32;
    type B = u32;
    type Y = u32;
    #[inline(always)]
    fn of(a: u32, b: u32) -> u32 {
        let half = |x: u32| {
            let nan = x & 0x7fff_ffff > 0x7f80_0000;
            if nan { 0x7fff } else { x.wrapping_add(0x7fff + (x >> 16 & 1)) >> 16 }
        };
        half(a) << 16 | half(b)
    }
}
