//! What the lanes of a warp do with one another (PTX ISA 9.0, sections 9.7.9.6 and 9.7.13). Each lane names in a mask the
//! lanes that take part with it; all of them come together first.

use super::control::together;
use crate::ptx::ast::Operand;
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{LANES, put};
use crate::ptx::run::{Counts, Cx, FaultKind, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if i.opcode() == "activemask" {
        i.ty()?;
        i.wants(1)?;
        let y = i.dst(0, Type::B32)?;
        let run: Run = |cx, op| {
            put::<u32>(cx.rows, op.y as usize, [cx.mask; LANES], cx.mask);
            Flow::Next
        };
        i.emit(run, Counts::Warp, Slots { y, ..Slots::default() });
        return Ok(());
    }
    if !i.take("sync") {
        return i.refuse(format!(
            "`{}` without .sync is not supported: sm_70 and later have no such instruction",
            i.whole()
        ));
    }
    match i.opcode() {
        "shfl" => shuffle(i),
        "vote" => vote(i),
        "match" => matching(i),
        "redux" => reduce(i),
        _ => elect(i),
    }
}

/// The register and the predicate of a destination `d|p`.
fn two(i: &mut Inst<'_, '_, '_>) -> Read<(u32, Option<u32>)> {
    match i.operand(0)? {
        Operand::Pair(d, p, at) => {
            let p = i.pred_named(p)?;
            Ok((i.register(d, Type::B32, *at)?, Some(p)))
        }
        _ => Ok((i.dst(0, Type::B32)?, None)),
    }
}

/// `shfl.sync.mode.b32 d|p, a, b, c, mask`.
fn shuffle(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let Some(mode) = i.pick(&[("up", 0), ("down", 1), ("bfly", 2), ("idx", 3)]) else {
        return i.unsupported();
    };
    if i.ty()? != Type::B32 {
        return i.unsupported();
    }
    i.wants(5)?;
    let (y, p) = two(i)?;
    let (a, b, c) = (i.src(1, Type::B32)?, i.src(2, Type::B32)?, i.src(3, Type::B32)?);
    let mask = i.src(4, Type::B32)?;
    let list = i.list(&[mask, p.unwrap_or(0)]);
    i.emit(shuffled, Counts::Warp, Slots { y, a, b, c, list, imm: mode });
    Ok(())
}

fn shuffled(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, cx.listed(op, 0) as u32) {
        return flow;
    }
    let [a, b, c] = [op.a, op.b, op.c].map(|slot| cx.rows[slot as usize].0);
    let (mut y, mut found, mut absent) = (a, 0, None);
    for l in super::memory::active(cx.mask) {
        let (lane, b, c) = (l as u32, b[l] & 31, c[l]);
        let segment = c >> 8 & 31;
        let (low, most) = (lane & segment, (lane & segment) | (c & 31 & !segment));
        let (from, inside) = match op.imm {
            0 => (lane.wrapping_sub(b), lane as i32 - b as i32 >= most as i32),
            1 => (lane + b, lane + b <= most),
            2 => (lane ^ b, lane ^ b <= most),
            _ => {
                let from = low | (b & !segment);
                (from, from <= most)
            }
        };
        if !inside {
            continue;
        }
        found |= 1 << l;
        let from = (from & 31) as usize;
        y[l] = a[from];
        if cx.mask >> from & 1 == 0 {
            absent = Some((l, from));
        }
    }
    if let (Some((l, from)), true) = (absent, cx.watch.is_some()) {
        let what = format!("reads from lane {from}, which does not take part");
        let fault = cx.found(op, FaultKind::AbsentLane, l, 0, what);
        if let Some(watch) = cx.watch.as_mut() {
            watch.fault(fault);
        }
    }
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    let p = cx.listed(op, 1) as u32;
    cx.set_pred(p, found);
    Flow::Next
}

const ALL: u64 = 0;
const ANY: u64 = 1;
const UNI: u64 = 2;
const BALLOT: u64 = 3;

/// `vote.sync.mode d, p, mask`.
fn vote(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let Some(mode) = i.pick(&[("all", ALL), ("any", ANY), ("uni", UNI), ("ballot", BALLOT)]) else {
        return i.unsupported();
    };
    let ty = i.ty()?;
    i.wants(3)?;
    let y = match (mode, ty) {
        (BALLOT, Type::B32) => i.dst(0, ty)?,
        (ALL | ANY | UNI, Type::Pred) => i.pred(0)?.0,
        _ => return i.unsupported(),
    };
    let ((a, not), b) = (i.pred(1)?, i.src(2, Type::B32)?);
    i.emit(voted, Counts::Warp, Slots { y, a, b, imm: mode | u64::from(not) << 8, ..Slots::default() });
    Ok(())
}

/// The lanes that take part with each lane.
fn members(cx: &Cx<'_>, mask: u32) -> [u32; LANES] {
    cx.rows[mask as usize].0.map(|m| m & cx.mask)
}

fn voted(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.b) {
        return flow;
    }
    let p = cx.preds[op.a as usize] ^ if op.imm >> 8 == 1 { u32::MAX } else { 0 };
    let members = members(cx, op.b);
    if op.imm & 255 == BALLOT {
        put::<u32>(cx.rows, op.y as usize, members.map(|m| p & m), cx.mask);
        return Flow::Next;
    }
    let holds = members.iter().enumerate().fold(0, |all, (l, &m)| {
        let holds = match op.imm & 255 {
            ALL => p & m == m,
            ANY => p & m != 0,
            _ => p & m == m || p & m == 0,
        };
        all | u32::from(holds) << l
    });
    cx.set_pred(op.y, holds);
    Flow::Next
}

/// `match.any.sync d, a, mask`, `match.all.sync d|p, a, mask`.
fn matching(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let Some(all) = i.pick(&[("all", true), ("any", false)]) else { return i.unsupported() };
    let ty = i.ty()?;
    if !matches!(ty, Type::B32 | Type::B64) {
        return i.unsupported();
    }
    i.wants(3)?;
    let (y, p) = two(i)?;
    let (a, b) = (i.src(1, ty)?, i.src(2, Type::B32)?);
    let imm = u64::from(all) | u64::from(ty == Type::B64) << 1;
    i.emit(matched, Counts::Warp, Slots { y, a, b, c: p.unwrap_or(0), imm, ..Slots::default() });
    Ok(())
}

fn matched(cx: &mut Cx<'_>, op: &Op) -> Flow {
    use crate::ptx::run::row::Bits;
    if let Some(flow) = together(cx, op, op.b) {
        return flow;
    }
    let a: [u64; LANES] = match op.imm & 2 {
        0 => cx.rows[op.a as usize].0.map(u64::from),
        _ => *u64::read(cx.rows, op.a as usize),
    };
    let members = members(cx, op.b);
    let same = |l: usize| super::memory::active(members[l]).fold(0, |m, k| m | u32::from(a[k] == a[l]) << k);
    let (mut y, mut found) = ([0; LANES], 0);
    for l in super::memory::active(cx.mask) {
        let alike = same(l);
        let all = alike == members[l];
        found |= u32::from(all) << l;
        y[l] = if op.imm & 1 == 0 || all { alike } else { 0 };
    }
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    cx.set_pred(op.c, found);
    Flow::Next
}

/// `redux.sync.op.type d, a, mask`.
fn reduce(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let ops = [("add", 0), ("min", 1), ("max", 2), ("and", 3), ("or", 4), ("xor", 5)];
    let Some(kind) = i.pick(&ops) else { return i.unsupported() };
    let ty = i.ty()?;
    let fits = match kind {
        0..=2 => matches!(ty, Type::U32 | Type::S32),
        _ => ty == Type::B32,
    };
    if !fits {
        return i.unsupported();
    }
    i.wants(3)?;
    let (y, a, b) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, Type::B32)?);
    let imm = kind | u64::from(ty == Type::S32) << 8;
    i.emit(reduced, Counts::Warp, Slots { y, a, b, imm, ..Slots::default() });
    Ok(())
}

fn reduced(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.b) {
        return flow;
    }
    let a = cx.rows[op.a as usize].0;
    let members = members(cx, op.b);
    let signed = op.imm >> 8 == 1;
    let two = |x: u32, y: u32| match op.imm & 255 {
        0 => x.wrapping_add(y),
        1 if signed => (x as i32).min(y as i32) as u32,
        1 => x.min(y),
        2 if signed => (x as i32).max(y as i32) as u32,
        2 => x.max(y),
        3 => x & y,
        4 => x | y,
        _ => x ^ y,
    };
    let of = |m: u32| super::memory::active(m).map(|l| a[l]).reduce(two).unwrap_or(0);
    let mut y = [0; LANES];
    let mut last = (0, 0);
    for l in super::memory::active(cx.mask) {
        if members[l] != last.0 {
            last = (members[l], of(members[l]));
        }
        y[l] = last.1;
    }
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}

/// `elect.sync d|p, mask`: the lowest lane of the mask.
fn elect(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    i.wants(2)?;
    let (y, p) = two(i)?;
    let a = i.src(1, Type::B32)?;
    i.emit(elected, Counts::Warp, Slots { y, a, c: p.unwrap_or(0), ..Slots::default() });
    Ok(())
}

fn elected(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.a) {
        return flow;
    }
    let members = members(cx, op.a);
    let leader = members.map(|m| m.trailing_zeros());
    let found = leader.iter().enumerate().fold(0, |m, (l, &k)| m | u32::from(k == l as u32) << l);
    put::<u32>(cx.rows, op.y as usize, leader, cx.mask);
    cx.set_pred(op.c, found);
    Flow::Next
}
