//! `mov`, `cvta`, `isspacep`, and the clocks (PTX ISA 9.0, section 9.7.9).

use super::fun1;
use crate::ptx::ast::Operand;
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, Lane, put, run1};
use crate::ptx::run::spaces::{LOCAL, PARAM, SHARED, WINDOW};
use crate::ptx::run::{Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::{Class, Type};

fun1! {
    Copy32<T: Lane> -> T = |a| a;
}

/// The function that reads a clock into a register; `imm` 1 reads the upper half.
pub(crate) fn clock(wide: bool) -> Run {
    if wide { read_clock::<u64> } else { read_clock::<u32> }
}
fn read_clock<T: Bits + TryFrom<u64>>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    // A warp-instruction stands for one cycle.
    let now = if op.imm == 1 { cx.clock >> 32 } else { cx.clock };
    let now = if T::ROWS == 1 { now & u64::from(u32::MAX) } else { now };
    put(cx.rows, op.y as usize, [T::try_from(now).unwrap_or_default(); LANES], cx.mask);
    Flow::Next
}

/// The function that gives predicate `y` the value `imm`.
pub(crate) fn set_pred() -> Run {
    fn set(cx: &mut Cx<'_>, op: &Op) -> Flow {
        cx.set_pred(op.y, if op.imm == 1 { u32::MAX } else { 0 });
        Flow::Next
    }
    set
}

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    match i.opcode() {
        "cvta" => cvta(i),
        "isspacep" => isspacep(i),
        _ => mov(i),
    }
}

fn mov(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let ty = i.ty()?;
    i.wants(2)?;
    if ty == Type::Pred {
        let (y, _) = i.pred(0)?;
        let (a, not) = i.pred(1)?;
        let imm = u64::from(not);
        i.emit(copy_pred, Counts::Move, Slots { y, a, imm, ..Slots::default() });
        return Ok(());
    }
    match (i.operand(0)?, i.operand(1)?) {
        (Operand::Vector(parts, _), _) => unpack(i, parts, ty),
        (_, Operand::Vector(parts, _)) => pack(i, parts, ty),
        _ => {
            let (y, a) = (i.dst(0, ty)?, i.src(1, ty)?);
            let run = if ty.bytes() == 8 { run1::<Copy32<u64>> as Run } else { run1::<Copy32<u32>> };
            i.emit(run, Counts::Move, Slots { y, a, ..Slots::default() });
            Ok(())
        }
    }
}

fn copy_pred(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let a = cx.preds[op.a as usize];
    cx.set_pred(op.y, if op.imm == 1 { !a } else { a });
    Flow::Next
}

/// The type of each of `n` parts of a value of type `ty`.
fn part_of(i: &Inst<'_, '_, '_>, ty: Type, n: usize) -> Read<Type> {
    let whole = ty.class() != Class::Float || ty.bytes() == 8;
    match ty.bytes() as usize / n.max(1) {
        1 if whole && n > 1 => Ok(Type::B8),
        2 if n > 1 => Ok(Type::B16),
        4 if n > 1 => Ok(Type::B32),
        _ => i.unsupported(),
    }
}

/// `mov.b64 y, {a, b}`: the list holds the parts.
fn pack<'a>(i: &mut Inst<'a, '_, '_>, parts: &'a [Operand<'a>], ty: Type) -> Read<()> {
    let each = part_of(i, ty, parts.len())?;
    let y = i.dst(0, ty)?;
    let mut slots = Vec::new();
    for p in parts {
        slots.push(i.read(p, each, each == Type::B8)?.0);
    }
    let list = i.list(&slots);
    let imm = parts.len() as u64 | u64::from(each.bytes()) << 8 | u64::from(ty.bytes()) << 16;
    i.emit(packed, Counts::Move, Slots { y, list, imm, ..Slots::default() });
    Ok(())
}

fn packed(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let (n, each, bytes) = (op.imm & 255, (op.imm >> 8 & 255) as u32 * 8, op.imm >> 16);
    let ones = (1u64 << each) - 1;
    let mut y = [0u64; LANES];
    for k in 0..n as usize {
        let part = &cx.rows[cx.listed(op, k)].0;
        for l in 0..LANES {
            y[l] |= (u64::from(part[l]) & ones) << (each * k as u32);
        }
    }
    match bytes {
        8 => put(cx.rows, op.y as usize, y, cx.mask),
        _ => put(cx.rows, op.y as usize, y.map(|v| v as u32), cx.mask),
    }
    Flow::Next
}

/// `mov.b64 {a, b}, x`.
fn unpack<'a>(i: &mut Inst<'a, '_, '_>, parts: &'a [Operand<'a>], ty: Type) -> Read<()> {
    let each = part_of(i, ty, parts.len())?;
    let a = i.src(1, ty)?;
    let mut slots = Vec::new();
    for p in parts {
        slots.push(i.write(p, each, each == Type::B8)?.0);
    }
    let list = i.list(&slots);
    let imm = parts.len() as u64 | u64::from(each.bytes()) << 8 | u64::from(ty.bytes()) << 16;
    i.emit(unpacked, Counts::Move, Slots { a, list, imm, ..Slots::default() });
    Ok(())
}

fn unpacked(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let (n, each, bytes) = (op.imm & 255, (op.imm >> 8 & 255) as u32 * 8, op.imm >> 16);
    let a: [u64; LANES] = match bytes {
        8 => *u64::read(cx.rows, op.a as usize),
        _ => cx.rows[op.a as usize].0.map(u64::from),
    };
    let ones = (1u64 << each) - 1;
    for k in 0..n as usize {
        let to = cx.listed(op, k);
        put::<u32>(cx.rows, to, a.map(|v| (v >> (each * k as u32) & ones) as u32), cx.mask);
    }
    Flow::Next
}

/// Where a space begins in the generic address space, and whether it is one window.
fn window(i: &mut Inst<'_, '_, '_>) -> Option<u64> {
    i.pick(&[
        ("global", 0),
        ("const", 0),
        ("shared", SHARED),
        ("shared::cta", SHARED),
        ("shared::cluster", SHARED),
        ("local", LOCAL),
        ("param", PARAM),
        ("param::entry", PARAM),
    ])
}

fn cvta(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let to = i.take("to");
    let Some(start) = window(i) else { return i.unsupported() };
    let ty = i.ty()?;
    if ty != Type::U64 {
        return i.refuse("addresses have 64 bits here: `cvta` takes .u64");
    }
    i.wants(2)?;
    let (y, a) = (i.dst(0, ty)?, i.src(1, ty)?);
    let imm = if to { start.wrapping_neg() } else { start };
    i.emit(moved, Counts::Move, Slots { y, a, imm, ..Slots::default() });
    Ok(())
}

fn moved(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let a = u64::read(cx.rows, op.a as usize).map(|a| a.wrapping_add(op.imm));
    put(cx.rows, op.y as usize, a, cx.mask);
    Flow::Next
}

fn isspacep(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let constant = i.suffixed("const");
    let Some(start) = window(i) else { return i.unsupported() };
    i.wants(2)?;
    let ((y, _), a) = (i.pred(0)?, i.src(1, Type::U64)?);
    let imm = start | u64::from(constant);
    i.emit(lies_in, Counts::Move, Slots { y, a, imm, ..Slots::default() });
    Ok(())
}

fn lies_in(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let start = op.imm & !1;
    let mut found = 0;
    for (l, &a) in u64::read(cx.rows, op.a as usize).iter().enumerate() {
        let inside = match (start, op.imm & 1) {
            (0, 1) => constant(cx, a),
            (0, _) => a < SHARED && !constant(cx, a),
            _ => a.wrapping_sub(start) < WINDOW,
        };
        found |= u32::from(inside) << l;
    }
    cx.set_pred(op.y, found);
    Flow::Next
}

/// True for an address in a `.const` variable of the program.
fn constant(cx: &Cx<'_>, a: u64) -> bool {
    use crate::ptx::types::Space;
    let all = cx.program().variables.iter().zip(cx.launch.variables);
    all.filter(|(v, _)| v.space == Space::Const).any(|(v, &at)| a.wrapping_sub(at) < v.bytes)
}
