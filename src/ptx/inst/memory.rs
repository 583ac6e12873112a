//! Loads and stores (PTX ISA 9.0, section 9.7.9).

pub(super) use super::access::*;
use super::usual;
use crate::ptx::ast::Operand;
use crate::ptx::lower::{Address, Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, put};
use crate::ptx::run::{AccessKind, Counts, Cx, FaultKind, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::{Space, Type};

/// Takes the suffixes of an access that say how it is cached and ordered; true for one that cannot race.
pub(super) fn hints(i: &mut Inst<'_, '_, '_>) -> bool {
    i.ignore(&["ca", "cg", "cs", "lu", "cv", "nc", "wb", "wt", "weak", "cta", "gpu", "sys", "cluster"]);
    i.ignore_prefixed("L1::");
    i.ignore_prefixed("L2::");
    i.ignore_prefixed("level::");
    let mut strong = false;
    for order in ["volatile", "relaxed", "acquire", "release", "acq_rel", "sc", "mmio"] {
        strong |= i.take(order);
    }
    strong
}

/// Takes the suffix that names the space.
pub(super) fn space(i: &mut Inst<'_, '_, '_>, address: &Address) -> Read<Where> {
    const SPACES: [(&str, Space); 10] = [
        ("global", Space::Global),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("shared::cluster", Space::Shared),
        ("const", Space::Const),
        ("local", Space::Local),
        ("param", Space::Param),
        ("param::entry", Space::Param),
        ("param::func", Space::Param),
        ("generic", Space::Generic),
    ];
    Ok(match i.pick(&SPACES).unwrap_or(Space::Generic) {
        Space::Shared => Where::Shared,
        Space::Local => Where::Local,
        Space::Param if address.local || !i.in_entry() => Where::Local,
        Space::Param => Where::Param,
        Space::Generic => Where::Generic,
        _ => Where::Global,
    })
}

/// An address whose offset fits the op.
pub(super) fn near(i: &mut Inst<'_, '_, '_>, a: Address) -> (u32, i32, bool) {
    if let Ok(plus) = i32::try_from(a.plus) {
        return (a.slot, plus, a.wide);
    }
    let y = i.temporary(true);
    let b = i.constant(a.plus as u64, true);
    i.emit(super::integer::add64(), Counts::Integer, Slots { y, a: a.slot, b, ..Slots::default() });
    (y, 0, true)
}

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if matches!(i.opcode(), "prefetch" | "prefetchu" | "discard" | "applypriority") {
        // They move no data that a program can see.
        i.ignore(&["global", "local", "L1", "L2", "const", "param", "tensormap"]);
        i.ignore_prefixed("L2::");
        i.address(0)?;
        return Ok(());
    }
    let load = i.opcode() != "st";
    let strong = hints(i);
    let count = i.pick(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
    let address = i.address(usize::from(load))?;
    let space = space(i, &address)?;
    let ty = i.ty()?;
    if ty.bytes() > 8 || ty == Type::Pred {
        return i.unsupported();
    }
    inside(i, &address, count * ty.bytes())?;
    // A cache policy may follow; it moves no data.
    i.wants(if i.count() == 3 { 3 } else { 2 })?;
    let value = i.operand(usize::from(!load))?;
    let parts = registers(i, value, ty, load)?;
    if parts.len() != count as usize {
        return i.refuse(format!(
            "`{}` moves {count} values and has registers for {}",
            i.whole(),
            parts.len()
        ));
    }
    let (a, plus, long) = near(i, address);
    let wide = parts.iter().any(|(_, t)| t.bytes() == 8);
    let slots: Vec<u32> = parts.iter().map(|(slot, _)| *slot).collect();
    let format = Format::new(ty.bytes(), plus).counted(count).with(SIGNED, ty.is_signed());
    let format = format.with(WIDE, wide).with(STRONG, strong).with(LONG_ADDRESS, long);
    let list = if slots.len() > 1 { i.list(&slots) } else { 0 };
    let run: Run = match (load, space) {
        (true, Where::Global) => load_global,
        (true, Where::Shared) => load_shared,
        (true, Where::Local) => load_local,
        (true, Where::Param) => load_param,
        (true, Where::Generic) => load_generic,
        (false, Where::Global) => store_global,
        (false, Where::Shared) => store_shared,
        (false, Where::Local) => store_local,
        (false, Where::Generic) => store_generic,
        (false, Where::Param) => return i.refuse("the parameters of an entry cannot be written"),
    };
    let c = i.used_bytes();
    i.emit(run, Counts::Memory, Slots { y: slots[0], a, c, list, imm: format.0, ..Slots::default() });
    Ok(())
}

/// Refuses an access that leaves the parameter which it names.
fn inside(i: &Inst<'_, '_, '_>, address: &Address, bytes: u32) -> Read<()> {
    let Some(room) = address.room else { return Ok(()) };
    let from = address.plus;
    match from >= 0 && from.saturating_add(bytes.into()) <= room.into() {
        true => Ok(()),
        false => {
            i.refuse(format!("`{}` reads {bytes} bytes at byte {from} of a parameter of {room}", i.whole()))
        }
    }
}

/// The registers that an access moves: one, the elements of a vector, or a vector register.
fn registers<'a>(
    i: &mut Inst<'a, '_, '_>,
    value: &'a Operand<'a>,
    ty: Type,
    load: bool,
) -> Read<Vec<(u32, Type)>> {
    if let Some(parts) = i.vector(value) {
        return Ok(parts);
    }
    let parts = match value {
        Operand::Vector(all, _) => &all[..],
        one => std::slice::from_ref(one),
    };
    parts.iter().map(|p| if load { i.write(p, ty, true) } else { i.read(p, ty, true) }).collect()
}

/// Moves register `slot` of type `ty` to or from the frame's local memory, whose address register `a` holds.
pub(crate) fn local(load: bool, ty: Type, slot: u32, a: u32) -> (Run, Slots) {
    let format = Format::new(ty.bytes(), 0).with(SIGNED, ty.is_signed()).with(WIDE, ty.bytes() == 8);
    let imm = format.with(LONG_ADDRESS, true).0;
    (if load { load_local } else { store_local }, Slots { y: slot, a, c: u32::MAX, imm, ..Slots::default() })
}

macro_rules! entries { ($($load:ident $store:ident $space:ident, $usual_load:expr, $usual_store:expr;)*) => { $(
    fn $load(cx: &mut Cx<'_>, op: &Op) -> Flow {
        if $usual_load(cx, op) { Flow::Next } else { load(cx, op, Where::$space) }
    }
    fn $store(cx: &mut Cx<'_>, op: &Op) -> Flow {
        if $usual_store(cx, op) { Flow::Next } else { store(cx, op, Where::$space) }
    }
)* } }
fn never(_: &mut Cx<'_>, _: &Op) -> bool {
    false
}
entries! {
    load_global store_global Global, usual::load_global, usual::store_global;
    load_shared store_shared Shared, usual::load_shared, usual::store_shared;
    load_local store_local Local, never, never;
    load_generic store_generic Generic, never, never;
}
/// From the entry's parameters.
fn load_param(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let f = Format(op.imm);
    let at = addresses(cx, op);
    let bytes = u64::from(f.bytes());
    for k in 0..f.count() {
        let mut y = [0u64; LANES];
        for l in active(cx.mask) {
            let from = at[l].wrapping_add(k as u64 * bytes);
            let end = from.checked_add(bytes).filter(|end| *end <= cx.launch.params.len() as u64);
            let Some(end) = end else {
                let what =
                    format!("byte {from} is beyond the {} bytes of parameters", cx.launch.params.len());
                return cx.fail(op, FaultKind::GlobalOutOfBounds, l, from, what);
            };
            let raw = &cx.launch.params[from as usize..end as usize];
            y[l] = raw.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
        }
        deliver(cx, op, f, k, y);
    }
    Flow::Next
}

/// Writes element `k` of a load to its register, extended to the register's width.
#[inline(always)]
fn deliver(cx: &mut Cx<'_>, op: &Op, f: Format, k: usize, mut y: [u64; LANES]) {
    let slot = if f.count() == 1 { op.y as usize } else { cx.listed(op, k) };
    if f.has(SIGNED) {
        let shift = 64 - 8 * f.bytes();
        y = y.map(|v| ((v << shift) as i64 >> shift) as u64);
    }
    if f.has(WIDE) {
        put(cx.rows, slot, y, cx.mask);
    } else {
        // A register of 16 bits holds no more than those.
        put(cx.rows, slot, y.map(|v| v as u32), cx.mask);
    }
}

#[inline(always)]
fn load(cx: &mut Cx<'_>, op: &Op, space: Where) -> Flow {
    let f = Format(op.imm);
    let mut at = addresses(cx, op);
    let (bytes, count) = (f.bytes(), f.count());
    let spaces = match resolve(cx, op, &mut at, space, u64::from(bytes) * count as u64) {
        Ok(spaces) => spaces,
        Err(fault) => return fault,
    };
    for k in 0..count {
        let mut mask = cx.mask;
        // Bytes that the compiler says do not matter are not looked at by checks.
        let matters =
            op.c >> ((k as u32 * bytes) & 31) & ((1u64 << bytes) - 1) as u32 == ((1u64 << bytes) - 1) as u32;
        if cx.watch.is_some() && matters {
            mask = watched(cx, op, AccessKind::Load, &spaces, &at, None);
        }
        let mut y = [0u64; LANES];
        for l in active(mask) {
            y[l] = fetch(cx, spaces[l], at[l], bytes, l);
        }
        at.iter_mut().for_each(|a| *a = a.wrapping_add(bytes.into()));
        deliver(cx, op, f, k, y);
    }
    Flow::Next
}

#[inline(always)]
fn store(cx: &mut Cx<'_>, op: &Op, space: Where) -> Flow {
    let f = Format(op.imm);
    let mut at = addresses(cx, op);
    let (bytes, count) = (f.bytes(), f.count());
    let spaces = match resolve(cx, op, &mut at, space, u64::from(bytes) * count as u64) {
        Ok(spaces) => spaces,
        Err(fault) => return fault,
    };
    for k in 0..count {
        let slot = if count == 1 { op.y as usize } else { cx.listed(op, k) };
        let value = match f.has(WIDE) {
            true => *u64::read(cx.rows, slot),
            false => u32::read(cx.rows, slot).map(u64::from),
        };
        let mut mask = cx.mask;
        if cx.watch.is_some() {
            mask = watched(cx, op, AccessKind::Store, &spaces, &at, Some(&value));
        }
        for l in active(mask) {
            keep(cx, spaces[l], at[l], bytes, l, value[l]);
        }
        at.iter_mut().for_each(|a| *a = a.wrapping_add(bytes.into()));
    }
    Flow::Next
}
