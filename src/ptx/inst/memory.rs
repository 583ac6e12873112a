//! Loads and stores (PTX ISA 9.0, section 9.7.9).

use crate::ptx::ast::Operand;
use crate::ptx::lower::{Address, Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, put};
use crate::ptx::run::spaces::{LOCAL, PARAM, SHARED, WINDOW};
use crate::ptx::run::{Access, AccessKind, Counts, Cx, FaultKind, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::{Space, Type};

/// What an access is, in the upper half of an op's `imm`; the lower half is added to the address.
#[derive(Clone, Copy)]
pub(super) struct Format(pub u64);

impl Format {
    pub(super) fn new(bytes: u32, plus: i32) -> Format {
        Format(u64::from(bytes.trailing_zeros()) << 32 | u64::from(plus as u32))
    }
    pub(super) fn with(self, bit: u32, on: bool) -> Format {
        Format(self.0 | u64::from(on) << bit)
    }
    fn counted(self, count: u32) -> Format {
        Format(self.0 | u64::from(count.trailing_zeros()) << 36)
    }
    #[inline(always)]
    pub(super) fn bytes(self) -> u32 {
        1 << (self.0 >> 32 & 3)
    }
    #[inline(always)]
    fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
    #[inline(always)]
    fn count(self) -> usize {
        1 << (self.0 >> 36 & 3)
    }
    #[inline(always)]
    fn plus(self) -> u64 {
        self.0 as u32 as i32 as i64 as u64
    }
}
/// Bits of a [`Format`].
pub(super) const SIGNED: u32 = 34;
pub(super) const WIDE: u32 = 35;
pub(super) const STRONG: u32 = 38;
pub(super) const LONG_ADDRESS: u32 = 39;

/// Where an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Where {
    Global,
    Shared,
    Local,
    Param,
    /// The address tells.
    Generic,
}

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
    // A cache policy may follow; it moves no data.
    i.wants(if i.count() == 3 { 3 } else { 2 })?;
    let value = i.operand(usize::from(!load))?;
    let parts = registers(i, value, ty, load)?;
    if parts.len() != count as usize {
        return i.refuse(format!("`{}` moves {count} values and has registers for {}", i.whole(), parts.len()));
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
    i.emit(run, Counts::Memory, Slots { y: slots[0], a, list, imm: format.0, ..Slots::default() });
    Ok(())
}

/// The registers that an access moves: one, the elements of a vector, or a vector register.
fn registers<'a>(i: &mut Inst<'a, '_, '_>, value: &'a Operand<'a>, ty: Type, load: bool) -> Read<Vec<(u32, Type)>> {
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
pub fn local(load: bool, ty: Type, slot: u32, a: u32) -> (Run, Slots) {
    let format = Format::new(ty.bytes(), 0).with(SIGNED, ty.is_signed()).with(WIDE, ty.bytes() == 8);
    let imm = format.with(LONG_ADDRESS, true).0;
    (if load { load_local } else { store_local }, Slots { y: slot, a, imm, ..Slots::default() })
}

/// The address of each lane.
#[inline(always)]
pub(super) fn addresses(cx: &Cx<'_>, op: &Op) -> [u64; LANES] {
    let f = Format(op.imm);
    let plus = f.plus();
    if f.has(LONG_ADDRESS) {
        let a = u64::read(cx.rows, op.a as usize);
        std::array::from_fn(|l| a[l].wrapping_add(plus))
    } else {
        let (a, plus) = (&cx.rows[op.a as usize].0, plus as u32);
        std::array::from_fn(|l| u64::from(a[l].wrapping_add(plus)))
    }
}

macro_rules! entries { ($($load:ident $store:ident $space:ident;)*) => { $(
    fn $load(cx: &mut Cx<'_>, op: &Op) -> Flow { load(cx, op, Where::$space) }
    fn $store(cx: &mut Cx<'_>, op: &Op) -> Flow { store(cx, op, Where::$space) }
)* } }
entries! {
    load_global store_global Global;
    load_local store_local Local;
    load_generic store_generic Generic;
}
fn load_shared(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if cx.mask == u32::MAX && cx.watch.is_none() && Format(op.imm).0 >> 32 & 0x3f == 2 && gathered(cx, op) {
        return Flow::Next;
    }
    load(cx, op, Where::Shared)
}
fn store_shared(cx: &mut Cx<'_>, op: &Op) -> Flow {
    store(cx, op, Where::Shared)
}

crate::vectorized! {
    /// The words at `at`, when all are aligned and below `end`.
    fn gather_words(words: &[u32; crate::ptx::run::spaces::SHARED_WORDS], at: &[u32; LANES], end: u32, y: &mut [u32; LANES]) -> bool {
        let (mut most, mut odd) = (0, 0);
        for l in 0..LANES {
            most = at[l].max(most);
            odd |= at[l] & 3;
        }
        if odd != 0 || most >= end || end - most < 4 {
            return false;
        }
        for l in 0..LANES {
            y[l] = words[at[l] as usize / 4 % crate::ptx::run::spaces::SHARED_WORDS];
        }
        true
    }
}

/// The usual load from shared memory: a word in each of 32 lanes. False when anything is unusual.
fn gathered(cx: &mut Cx<'_>, op: &Op) -> bool {
    let at = addresses(cx, op);
    if at.iter().any(|a| *a >= u64::from(cx.shared.bytes)) {
        return false;
    }
    let at = at.map(|a| a as u32);
    let y = u32::write(cx.rows, op.y as usize);
    gather_words(&cx.shared.words.0, &at, cx.shared.bytes, y)
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
                let what = format!("byte {from} is beyond the {} bytes of parameters", cx.launch.params.len());
                return cx.fail(op, FaultKind::GlobalOutOfBounds, l, from, what);
            };
            let raw = &cx.launch.params[from as usize..end as usize];
            y[l] = raw.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
        }
        deliver(cx, op, f, k, y);
    }
    Flow::Next
}

/// Lanes of a mask.
#[inline(always)]
pub(super) fn active(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |l| mask >> l & 1 == 1)
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

/// Sees that the active lanes may access `bytes` at their addresses, and says in which space.
#[inline(always)]
pub(super) fn resolve(
    cx: &mut Cx<'_>,
    op: &Op,
    at: &mut [u64; LANES],
    space: Where,
    bytes: u64,
) -> Result<[Where; LANES], Flow> {
    let mut all = [space; LANES];
    for l in active(cx.mask) {
        if space == Where::Generic {
            all[l] = match at[l] {
                a if a.wrapping_sub(SHARED) < WINDOW => Where::Shared,
                a if a.wrapping_sub(LOCAL) < WINDOW => Where::Local,
                a if a.wrapping_sub(PARAM) < WINDOW => Where::Param,
                _ => Where::Global,
            };
            at[l] = at[l].wrapping_sub(match all[l] {
                Where::Shared => SHARED,
                Where::Local => LOCAL,
                Where::Param => PARAM,
                _ => 0,
            });
        }
        if at[l] & (bytes - 1) != 0 {
            return Err(misaligned(cx, op, l, at[l], bytes));
        }
        let end = match all[l] {
            Where::Shared => u64::from(cx.shared.bytes),
            Where::Local => cx.local.bytes(),
            Where::Param => cx.launch.params.len() as u64,
            _ if device(cx, at[l], bytes).is_some() => continue,
            _ => return Err(outside(cx, op, l, at[l], bytes)),
        };
        if at[l] >= end || end - at[l] < bytes {
            return Err(beyond(cx, op, l, (all[l], at[l]), end, bytes));
        }
    }
    Ok(all)
}

/// The memory that holds an address, and the offset there.
#[inline(always)]
pub(super) fn device<'m>(cx: &Cx<'m>, at: u64, bytes: u64) -> Option<(&'m crate::ptx::run::Memory, u64)> {
    cx.launch.memory.iter().find_map(|m| Some((*m, m.offset(at, bytes)?)))
}

#[cold]
fn misaligned(cx: &mut Cx<'_>, op: &Op, l: usize, at: u64, bytes: u64) -> Flow {
    let what = format!("address {at:#x} is no multiple of the {bytes} bytes that are accessed");
    cx.fail(op, FaultKind::Misaligned, l, at, what)
}
#[cold]
fn outside(cx: &mut Cx<'_>, op: &Op, l: usize, at: u64, bytes: u64) -> Flow {
    let kind = if at < 4096 { FaultKind::Null } else { FaultKind::GlobalOutOfBounds };
    let what = format!("{bytes} bytes at {at:#x}, which is no memory of this device");
    cx.fail(op, kind, l, at, what)
}
#[cold]
fn beyond(cx: &mut Cx<'_>, op: &Op, l: usize, (space, at): (Where, u64), end: u64, bytes: u64) -> Flow {
    let (kind, name) = match space {
        Where::Shared => (FaultKind::SharedOutOfBounds, "shared memory of the block"),
        Where::Local => (FaultKind::LocalOutOfBounds, "local memory of the thread"),
        _ => (FaultKind::GlobalOutOfBounds, "parameters of the entry"),
    };
    let what = format!("{bytes} bytes at {at:#x}, but the {name} ends at {end:#x}");
    cx.fail(op, kind, l, at, what)
}

/// Shows an access to the watcher; returns the lanes that may.
pub(super) fn watched(
    cx: &mut Cx<'_>,
    op: &Op,
    kind: AccessKind,
    spaces: &[Where; LANES],
    at: &[u64; LANES],
    value: Option<&[u64; LANES]>,
) -> u32 {
    let f = Format(op.imm);
    let address = std::array::from_fn(|l| {
        at[l].wrapping_add(match spaces[l] {
            Where::Shared => SHARED,
            Where::Local => LOCAL,
            Where::Param => PARAM,
            _ => 0,
        })
    });
    let access =
        Access { op, kind, bytes: f.bytes(), address: &address, value, mask: cx.mask, strong: f.has(STRONG) };
    let (launch, place) = (cx.launch, cx.place);
    cx.watch.as_mut().map_or(cx.mask, |w| w.access(launch, place, &access))
}

/// One value; the caller has checked.
#[inline(always)]
pub(super) fn fetch(cx: &Cx<'_>, space: Where, at: u64, bytes: u32, lane: usize) -> u64 {
    match space {
        Where::Shared => cx.shared.words.load(at as u32, bytes),
        Where::Local => cx.local.load(at as u32, bytes, lane),
        Where::Param => {
            let raw = &cx.launch.params[at as usize..][..bytes as usize];
            raw.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))
        }
        _ => device(cx, at, bytes.into()).map_or(0, |(m, o)| m.load(o, bytes)),
    }
}

/// Writes one value; the caller has checked.
#[inline(always)]
pub(super) fn keep(cx: &mut Cx<'_>, space: Where, at: u64, bytes: u32, lane: usize, value: u64) {
    match space {
        Where::Shared => cx.shared.words.store(at as u32, bytes, value),
        Where::Local => cx.local.store(at as u32, bytes, lane, value),
        _ => {
            if let Some((m, o)) = device(cx, at, bytes.into()) {
                m.store(o, bytes, value);
            }
        }
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
        if cx.watch.is_some() {
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
