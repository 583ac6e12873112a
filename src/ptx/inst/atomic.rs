//! `atom` and `red` (PTX ISA 9.0, sections 9.7.13.7 and 9.7.13.8): lanes in order, each of them indivisible.

use super::half::pack;
use super::memory::{self, Format, LONG_ADDRESS, STRONG, Where};
use crate::ptx::ast::Operand;
use crate::ptx::float::flush;
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, put};
use crate::ptx::run::{AccessKind, Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::{Class, Type};

/// What is done.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Change {
    Add,
    Exch,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    Min,
    Max,
    Cas,
}
const CHANGES: [(&str, Change); 10] = [
    ("add", Change::Add),
    ("exch", Change::Exch),
    ("inc", Change::Inc),
    ("dec", Change::Dec),
    ("and", Change::And),
    ("or", Change::Or),
    ("xor", Change::Xor),
    ("min", Change::Min),
    ("max", Change::Max),
    ("cas", Change::Cas),
];

const TYPES: [Type; 13] = [
    Type::B16,
    Type::B32,
    Type::B64,
    Type::U32,
    Type::U64,
    Type::S32,
    Type::S64,
    Type::F16,
    Type::Bf16,
    Type::F16x2,
    Type::Bf16x2,
    Type::F32,
    Type::F64,
];

/// True when the ISA has this operation on this type.
fn exists(change: Change, ty: Type) -> bool {
    use Change::*;
    let bits = matches!(ty, Type::B32 | Type::B64);
    match change {
        Cas => bits || ty == Type::B16,
        Exch | And | Or | Xor => bits,
        Inc | Dec => ty == Type::U32,
        Add => {
            ty.class() == Class::Float && ty != Type::Tf32
                || matches!(ty, Type::U32 | Type::U64 | Type::S32 | Type::S64)
        }
        Min | Max => {
            let halves = matches!(ty, Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2);
            halves || matches!(ty, Type::U32 | Type::U64 | Type::S32 | Type::S64)
        }
    }
}

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let red = i.opcode() == "red";
    memory::hints(i);
    i.take("noftz");
    let Some(change) = i.pick(&CHANGES) else {
        return i.refuse(format!("`{}` names no operation: .add, .cas, .exch and so on", i.whole()));
    };
    let count = i.pick(&[("v2", 2usize), ("v4", 4), ("v8", 8)]).unwrap_or(1);
    let address = i.address(usize::from(!red))?;
    let space = memory::space(i, &address)?;
    if !matches!(space, Where::Global | Where::Shared | Where::Generic) {
        return i.unsupported();
    }
    let ty = i.ty()?;
    let Some(code) = TYPES.iter().position(|t| *t == ty).filter(|_| exists(change, ty)) else {
        return i.unsupported();
    };
    let operands = 2 + usize::from(!red) + usize::from(change == Change::Cas);
    i.wants(operands)?;
    // What a lane gets back, and a rounded sum, hangs on the order of blocks.
    if !red || ty.class() == Class::Float {
        i.keep_order();
    }
    let b = parts(i, usize::from(!red) + 1, ty, count, false)?;
    let y = if red { vec![0; count] } else { parts(i, 0, ty, count, true)? };
    let c = if change == Change::Cas { i.src(3, ty)? } else { b[0] };
    let (a, plus, long) = memory::near(i, address);
    let list = i.list(&[&[change as u32, code as u32, u32::from(!red)], &b[..], &y[..]].concat());
    let format = Format::new(ty.bytes(), plus).with(LONG_ADDRESS, long).with(STRONG, true);
    let run: Run = match space {
        Where::Shared => |cx, op| run(cx, op, Where::Shared),
        Where::Global => |cx, op| run(cx, op, Where::Global),
        _ => |cx, op| run(cx, op, Where::Generic),
    };
    i.emit(run, Counts::Atomic, Slots { y: count as u32, a, c, list, imm: format.0, ..Slots::default() });
    Ok(())
}

/// The registers of operand `k`: one, or the elements of a vector.
fn parts(i: &mut Inst<'_, '_, '_>, k: usize, ty: Type, count: usize, write: bool) -> Read<Vec<u32>> {
    let all: Vec<&Operand<'_>> = match i.operand(k)? {
        Operand::Vector(all, _) => all.iter().collect(),
        one => vec![one],
    };
    if all.len() != count {
        return i.refuse(format!("`{}` takes {count} values and has {}", i.whole(), all.len()));
    }
    let slot = |o| if write { i.write(o, ty, false) } else { i.read(o, ty, false) };
    all.into_iter().map(slot).map(|r| r.map(|(s, _)| s)).collect()
}

fn run(cx: &mut Cx<'_>, op: &Op, space: Where) -> Flow {
    let count = op.y as usize;
    let change = CHANGES[cx.listed(op, 0) % CHANGES.len()].1;
    let (ty, gives) = (TYPES[cx.listed(op, 1) % TYPES.len()], cx.listed(op, 2) == 1);
    let mut at = memory::addresses(cx, op);
    let bytes = ty.bytes();
    let spaces = match memory::resolve(cx, op, &mut at, space, u64::from(bytes) * count as u64) {
        Ok(spaces) => spaces,
        Err(fault) => return fault,
    };
    let wide = bytes == 8;
    let read = |cx: &Cx<'_>, slot: usize| match wide {
        true => *u64::read(cx.rows, slot),
        false => u32::read(cx.rows, slot).map(u64::from),
    };
    for k in 0..count {
        let (b, c) = (read(cx, cx.listed(op, 3 + k)), read(cx, op.c as usize));
        let mask = match cx.watch.is_some() {
            true => memory::watched(cx, op, AccessKind::Atomic, &spaces, &at, Some(&b)),
            false => cx.mask,
        };
        let mut old = [0u64; LANES];
        for l in memory::active(mask) {
            old[l] = match spaces[l] {
                Where::Global => {
                    let change = |v| changed(change, ty, v, b[l], c[l], true);
                    memory::device(cx, at[l], bytes.into()).map_or(0, |(m, o)| m.update(o, bytes, change))
                }
                space => {
                    let v = memory::fetch(cx, space, at[l], bytes, l);
                    memory::keep(cx, space, at[l], bytes, l, changed(change, ty, v, b[l], c[l], false));
                    v
                }
            };
        }
        if gives {
            let y = cx.listed(op, 3 + count + k);
            match wide {
                true => put(cx.rows, y, old, cx.mask),
                false => put(cx.rows, y, old.map(|v| v as u32), cx.mask),
            }
        }
        at.iter_mut().for_each(|a| *a = a.wrapping_add(bytes.into()));
    }
    Flow::Next
}

/// What a cell that holds `v` holds afterwards. f32 sums in global memory flush subnormals, as the ISA says.
fn changed(change: Change, ty: Type, v: u64, b: u64, c: u64, global: bool) -> u64 {
    let signed = |x: u64| if ty == Type::S32 { i64::from(x as u32 as i32) } else { x as i64 };
    match (change, ty) {
        (Change::Cas, _) if v == b & ones(ty) => c & ones(ty),
        (Change::Cas, _) => v,
        (Change::Exch, _) => b,
        (Change::And, _) => v & b,
        (Change::Or, _) => v | b,
        (Change::Xor, _) => v ^ b,
        (Change::Inc, _) => {
            if v >= b {
                0
            } else {
                v + 1
            }
        }
        (Change::Dec, _) => {
            if v == 0 || v > b {
                b
            } else {
                v - 1
            }
        }
        (Change::Add, Type::F32) => {
            let [x, y] = [v, b].map(|bits| f32::from_bits(bits as u32));
            let sum = if global { flush(flush(x) + flush(y)) } else { x + y };
            u64::from(if sum.is_nan() { 0x7fff_ffff } else { sum.to_bits() })
        }
        (Change::Add, Type::F64) => (f64::from_bits(v) + f64::from_bits(b)).to_bits(),
        (_, Type::F16 | Type::Bf16) => half(change, ty == Type::Bf16, v as u16, b as u16).into(),
        (_, Type::F16x2 | Type::Bf16x2) => {
            let bf = ty == Type::Bf16x2;
            let high = half(change, bf, (v >> 16) as u16, (b >> 16) as u16);
            u64::from(half(change, bf, v as u16, b as u16)) | u64::from(high) << 16
        }
        (Change::Add, _) => v.wrapping_add(b) & ones(ty),
        (Change::Min, Type::S32 | Type::S64) => {
            if signed(v) <= signed(b) {
                v
            } else {
                b
            }
        }
        (Change::Max, Type::S32 | Type::S64) => {
            if signed(v) >= signed(b) {
                v
            } else {
                b
            }
        }
        (Change::Min, _) => v.min(b),
        (Change::Max, _) => v.max(b),
    }
}

fn ones(ty: Type) -> u64 {
    if ty.bytes() == 8 { u64::MAX } else { (1 << (8 * ty.bytes())) - 1 }
}

fn half(change: Change, bf: bool, v: u16, b: u16) -> u16 {
    let value = |bits: u16| match bf {
        true => half::bf16::from_bits(bits).to_f64(),
        false => half::f16::from_bits(bits).to_f64(),
    };
    let (x, y) = (value(v), value(b));
    match change {
        Change::Min => {
            if x.is_nan() || y < x {
                b
            } else {
                v
            }
        }
        Change::Max => {
            if x.is_nan() || y > x {
                b
            } else {
                v
            }
        }
        _ => pack(crate::ptx::float::format::add(x, y), bf),
    }
}
