//! What every access of memory does first: addresses, spaces, bounds, and what a watcher sees.

use crate::ptx::run::row::{Bits, LANES};
use crate::ptx::run::spaces::{LOCAL, PARAM, SHARED, WINDOW};
use crate::ptx::run::{Access, AccessKind, Cx, FaultKind, Flow, Op};

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
    pub(super) fn counted(self, count: u32) -> Format {
        Format(self.0 | u64::from(count.trailing_zeros()) << 36)
    }
    #[inline(always)]
    pub(super) fn bytes(self) -> u32 {
        1 << (self.0 >> 32 & 3)
    }
    #[inline(always)]
    pub(super) fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
    #[inline(always)]
    pub(super) fn count(self) -> usize {
        1 << (self.0 >> 36 & 3)
    }
    #[inline(always)]
    pub(super) fn plus(self) -> u64 {
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

/// Lanes of a mask.
#[inline(always)]
pub(super) fn active(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |l| mask >> l & 1 == 1)
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
