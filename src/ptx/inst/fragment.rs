//! Fragments of `wmma` between memory and registers: `wmma.load`, `wmma.store` (PTX ISA 9.0, section 9.7.15).

use super::control::together;
use super::memory::{
    Format, LONG_ADDRESS, Where, active, addresses, fetch, keep, near, resolve, space, watched,
};
use super::tile::{KINDS, Kind, Shape, registers};
use crate::ptx::float::tensor::{Element, Lanes, place};
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, put};
use crate::ptx::run::{AccessKind, Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// The space of an access, as the last part of a list; only global and shared memory hold matrices.
pub(super) fn numbered(i: &Inst<'_, '_, '_>, space: Where) -> Read<u32> {
    match space {
        Where::Global => Ok(0),
        Where::Shared => Ok(1),
        Where::Generic => Ok(2),
        _ => i.unsupported(),
    }
}
pub(super) fn which(code: usize) -> Where {
    [Where::Global, Where::Shared, Where::Generic][code % 3]
}

/// Which operand of a product a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    A,
    B,
    Sums,
}

/// `wmma.load` and `wmma.store`. The op's list is what [`Fragment`] reads, and the registers.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    const LOADS: [(&str, Role); 4] = [("a", Role::A), ("b", Role::B), ("c", Role::Sums), ("d", Role::Sums)];
    let load = i.take("load");
    let store = i.take("store");
    if load == store || !i.take("sync") {
        return i.unsupported();
    }
    i.ignore(&["aligned"]);
    if i.suffixed(if load { "d" } else { "c" }) {
        return i.unsupported();
    }
    let (role, shape) = (i.pick(&LOADS), Shape::take(i)?);
    let (by_row, kind) = (i.pick(&[("row", true), ("col", false)]), i.pick(&KINDS));
    let (Some(role), Some(by_row), Some(kind)) = (role, by_row, kind) else { return i.unsupported() };
    let fits = match (role, kind) {
        (_, Kind::F64) => shape.holds(Kind::F64, true),
        (Role::Sums, Kind::F32) => shape.m * shape.n == 256,
        (Role::Sums, Kind::S32 | Kind::Of(Element::F16)) => shape.holds(Kind::Of(Element::F16), true),
        (Role::Sums, _) => false,
        // Elements of 4 bits have no address of their own.
        _ => kind.each() < 8 && shape.holds(kind, true),
    };
    if !fits || store && role != Role::Sums {
        return i.unsupported();
    }
    let used = match role {
        Role::A => shape.left(kind),
        Role::B => shape.right(kind),
        Role::Sums => shape.sums(kind),
    };
    let f16 = kind == Kind::Of(Element::F16);
    let n = if f16 && role != Role::Sums { 8 } else { used };
    let address = i.address(usize::from(load))?;
    let space = space(i, &address)?;
    let value = registers(i, usize::from(!load), n, kind, load)?;
    let across = match role {
        Role::A => shape.k,
        _ => shape.n,
    };
    let down = if role == Role::B { shape.k } else { shape.m };
    let stride = match i.count() {
        2 => i.constant(u64::from(if by_row { across } else { down }), false),
        _ => i.src(2, Type::U32)?,
    };
    i.wants(i.count().clamp(2, 3))?;
    let (a, plus, long) = near(i, address);
    let shaped = [role as u32, shape.m, shape.n, shape.k, by_row.into(), kind.each()];
    let mut list = vec![numbered(i, space)?, n, used];
    list.extend(shaped);
    list.extend(value);
    let (list, c) = (i.list(&list), i.constant(u32::MAX.into(), false));
    let bytes = kind.register().bytes() / kind.each();
    let format = Format::new(bytes, plus).with(LONG_ADDRESS, long);
    let run: Run = if load { load_fragment } else { store_fragment };
    i.emit(run, Counts::Memory, Slots { a, b: stride, c, list, imm: format.0, ..Slots::default() });
    Ok(())
}

/// A fragment in memory, as the op's list has it.
struct Fragment {
    space: Where,
    /// Registers, and how many of them come before they repeat.
    n: usize,
    used: usize,
    role: u32,
    shape: [usize; 3],
    by_row: bool,
    each: usize,
}

/// Entries of the list before the registers.
const HEAD: usize = 9;

impl Fragment {
    fn of(cx: &Cx<'_>, op: &Op) -> Fragment {
        let part = |k| cx.listed(op, k);
        let shape = [part(4), part(5), part(6)];
        let (role, by_row) = (part(3) as u32, part(7) == 1);
        Fragment { space: which(part(0)), n: part(1), used: part(2), role, shape, by_row, each: part(8) }
    }
    /// Row and column of element `j` of register `r` of lane `l`: blocks as in `matrix.rs`.
    fn spot(&self, r: usize, l: usize, j: usize) -> (usize, usize) {
        let ([m, n, k], each) = (self.shape, self.each);
        let high = if m >= 16 { 2 } else { 1 };
        let deep = each * (l % 4) + j;
        if self.role == Role::A as u32 {
            let block = 8 * high * k / (32 * each);
            let (block, r) = (r / block, r % block);
            (8 * high * block + 8 * (r % high) + l / 4, deep + 4 * each * (r / high))
        } else if self.role == Role::B as u32 {
            let block = k / (4 * each);
            (deep + 4 * each * (r % block), 8 * (r / block) + l / 4)
        } else {
            let block = 2 * high / each;
            let (down, across) = (r / block / (n / 8), r / block % (n / 8));
            let (row, column) = place(l, r % block * each + j);
            (8 * high * down + row, 8 * across + column)
        }
    }
    /// Address of each lane's element `j` of register `r`.
    fn address(&self, base: &[u64; LANES], stride: &Lanes, bytes: u32, r: usize, j: usize) -> [u64; LANES] {
        std::array::from_fn(|l| {
            let (row, column) = self.spot(r, l, j);
            let (outer, inner) = if self.by_row { (row, column) } else { (column, row) };
            let index = (outer as u64).wrapping_mul(stride[l].into()).wrapping_add(inner as u64);
            base[l].wrapping_add(index.wrapping_mul(bytes.into()))
        })
    }
}

fn load_fragment(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.c) {
        return flow;
    }
    let (f, bytes) = (Fragment::of(cx, op), Format(op.imm).bytes());
    let (base, stride) = (addresses(cx, op), cx.rows[op.b as usize].0);
    let mut all = [[0u64; LANES]; 8];
    for (r, y) in all.iter_mut().enumerate().take(f.used) {
        for j in 0..f.each {
            let mut at = f.address(&base, &stride, bytes, r, j);
            let spaces = match resolve(cx, op, &mut at, f.space, bytes.into()) {
                Ok(spaces) => spaces,
                Err(fault) => return fault,
            };
            let mut may = cx.mask;
            if cx.watch.is_some() {
                may = watched(cx, op, AccessKind::Load, &spaces, &at, None);
            }
            for l in active(may) {
                y[l] |= fetch(cx, spaces[l], at[l], bytes, l) << (8 * bytes as usize * j);
            }
        }
    }
    for r in 0..f.n {
        let (slot, y) = (cx.listed(op, HEAD + r), &all[r % f.used.max(1) % 8]);
        match bytes {
            8 => put(cx.rows, slot, *y, cx.mask),
            _ => put(cx.rows, slot, y.map(|v| v as u32), cx.mask),
        }
    }
    Flow::Next
}

fn store_fragment(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.c) {
        return flow;
    }
    let (f, bytes) = (Fragment::of(cx, op), Format(op.imm).bytes());
    let (base, stride) = (addresses(cx, op), cx.rows[op.b as usize].0);
    for r in 0..f.used {
        let slot = cx.listed(op, HEAD + r);
        for j in 0..f.each {
            let value = match bytes {
                8 => *u64::read(cx.rows, slot),
                _ => cx.rows[slot].0.map(|v| u64::from(v >> ((8 * bytes as usize * j) % 32))),
            };
            let value = if bytes == 2 { value.map(|v| v & 0xffff) } else { value };
            let mut at = f.address(&base, &stride, bytes, r, j);
            let spaces = match resolve(cx, op, &mut at, f.space, bytes.into()) {
                Ok(spaces) => spaces,
                Err(fault) => return fault,
            };
            let mut may = cx.mask;
            if cx.watch.is_some() {
                may = watched(cx, op, AccessKind::Store, &spaces, &at, Some(&value));
            }
            for l in active(may) {
                keep(cx, spaces[l], at[l], bytes, l, value[l]);
            }
        }
    }
    Flow::Next
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_element_of_a_fragment_has_one_place() {
        let half = Kind::Of(Element::F16);
        let byte = Kind::Of(Element::U8);
        for (m, n, k, kind) in [
            (16, 16, 16, half),
            (32, 8, 16, half),
            (8, 32, 16, half),
            (32, 8, 16, byte),
            (8, 32, 16, byte),
            (16, 16, 8, Kind::Of(Element::Tf32)),
            (8, 8, 4, Kind::F64),
        ] {
            let shape = Shape { m, n, k };
            let sums = if kind == byte { Kind::S32 } else { kind };
            let roles = [
                (Role::A, shape.left(kind), kind, (m, k)),
                (Role::B, shape.right(kind), kind, (k, n)),
                (Role::Sums, shape.sums(sums), sums, (m, n)),
            ];
            for (role, used, kind, (rows, columns)) in roles {
                let (used, each) = (used as usize, kind.each() as usize);
                let shape = [m, n, k].map(|v| v as usize);
                let f = Fragment {
                    space: Where::Global,
                    n: used,
                    used,
                    role: role as u32,
                    shape,
                    by_row: true,
                    each,
                };
                let spots =
                    (0..used).flat_map(|r| (0..LANES).flat_map(move |l| (0..each).map(move |j| (r, l, j))));
                let seen: BTreeSet<_> = spots.map(|(r, l, j)| f.spot(r, l, j)).collect();
                assert_eq!(seen.len(), (rows * columns) as usize, "{role:?} {m} {n} {k} {kind:?}");
                assert!(seen.iter().all(|(r, c)| *r < rows as usize && *c < columns as usize));
            }
        }
    }
}
