//! Matrices of 8 × 8 halves between shared memory and registers: `ldmatrix`, `stmatrix`, `movmatrix` (PTX ISA 9.0,
//! section 9.7.15).

use super::control::together;
use super::fragment::{numbered, which};
use super::memory::{
    Format, LONG_ADDRESS, Where, active, addresses, fetch, keep, near, resolve, space, watched,
};
use super::tile::{Kind, registers};
use super::usual;
use crate::ptx::float::tensor::{Element, Lanes};
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{LANES, put};
use crate::ptx::run::{AccessKind, Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if i.opcode() == "movmatrix" { transposition(i) } else { matrices(i) }
}

/// `ldmatrix` and `stmatrix`. The op's list: n, transposed, space, n registers.
fn matrices(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let load = i.opcode() == "ldmatrix";
    let whole = ["sync", "aligned", "m8n8", "b16"].iter().all(|s| i.take(s));
    let Some(n) = i.pick(&[("x1", 1), ("x2", 2), ("x4", 4)]).filter(|_| whole) else {
        return i.unsupported();
    };
    let transposed = i.take("trans");
    let address = i.address(usize::from(load))?;
    let space = space(i, &address)?;
    if !matches!(space, Where::Shared | Where::Generic) {
        return i.unsupported();
    }
    i.wants(2)?;
    let value = registers(i, usize::from(!load), n, Kind::Of(Element::F16), load)?;
    let mut list = vec![n, transposed.into(), numbered(i, space)?];
    list.extend(value);
    let (a, plus, long) = near(i, address);
    let (list, c) = (i.list(&list), i.constant(u32::MAX.into(), false));
    let format = Format::new(8, plus).with(LONG_ADDRESS, long);
    let run: Run = if load { load_matrices } else { store_matrices };
    i.emit(run, Counts::Memory, Slots { a, c, list, imm: format.0, ..Slots::default() });
    Ok(())
}

/// Words of the rows of up to 4 matrices: row g of matrix q is that of lane 8 q + g.
type Tiles = [[u32; 4]; LANES];

/// The register that lanes have of matrix `q`.
#[inline(always)]
fn taken(rows: &Tiles, q: usize, transposed: bool) -> Lanes {
    std::array::from_fn(|l| {
        let (g, t) = (l / 4, l % 4);
        if !transposed {
            return rows[8 * q + g][t];
        }
        let half = |row: usize| rows[8 * q + row][g / 2] >> (16 * (g % 2)) & 0xffff;
        half(2 * t) | half(2 * t + 1) << 16
    })
}

/// The rows of matrix `q` out of the register that lanes have of it.
#[inline(always)]
fn spread(register: &Lanes, q: usize, transposed: bool, rows: &mut Tiles) {
    for (l, v) in register.iter().enumerate() {
        let (g, t) = (l / 4, l % 4);
        if transposed {
            let shift = 16 * (g % 2);
            for (row, half) in [(2 * t, v & 0xffff), (2 * t + 1, v >> 16)] {
                let word = &mut rows[8 * q + row][g / 2];
                *word = *word & !(0xffff << shift) | half << shift;
            }
        } else {
            rows[8 * q + g][t] = *v;
        }
    }
}

/// Lanes whose addresses count: 8 for each matrix.
fn addressing(n: usize) -> u32 {
    if n >= 4 { u32::MAX } else { (1 << (8 * n)) - 1 }
}

fn load_matrices(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.c) {
        return flow;
    }
    let (n, transposed, space) = (cx.listed(op, 0), cx.listed(op, 1) == 1, which(cx.listed(op, 2)));
    let mask = cx.mask;
    let usual = if space == Where::Shared { usual::load_rows(cx, op, addressing(n)) } else { None };
    let rows = match usual {
        Some(rows) => rows,
        None => match long_way(cx, op, addressing(n), space) {
            Ok(rows) => rows,
            Err(fault) => return fault,
        },
    };
    for q in 0..n {
        put(cx.rows, cx.listed(op, 3 + q), taken(&rows, q, transposed), mask);
    }
    Flow::Next
}

/// The rows that the lanes of `mask` name, lane by lane, shown to whoever watches.
fn long_way(cx: &mut Cx<'_>, op: &Op, mask: u32, space: Where) -> Result<Tiles, Flow> {
    let all = cx.mask;
    cx.mask &= mask;
    let mut rows: Tiles = [[0; 4]; LANES];
    let mut at = addresses(cx, op);
    let spaces = resolve(cx, op, &mut at, space, 16)?;
    for part in 0..2 {
        let mut may = cx.mask;
        if cx.watch.is_some() {
            may = watched(cx, op, AccessKind::Load, &spaces, &at, None);
        }
        for l in active(may) {
            let v = fetch(cx, spaces[l], at[l], 8, l);
            rows[l][2 * part..][..2].copy_from_slice(&[v as u32, (v >> 32) as u32]);
        }
        at.iter_mut().for_each(|a| *a = a.wrapping_add(8));
    }
    cx.mask = all;
    Ok(rows)
}

fn store_matrices(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.c) {
        return flow;
    }
    let (n, transposed, space) = (cx.listed(op, 0), cx.listed(op, 1) == 1, which(cx.listed(op, 2)));
    let mask = cx.mask;
    cx.mask &= addressing(n);
    let mut rows: Tiles = [[0; 4]; LANES];
    for q in 0..n {
        spread(&cx.rows[cx.listed(op, 3 + q)].0, q, transposed, &mut rows);
    }
    let mut at = addresses(cx, op);
    let spaces = match resolve(cx, op, &mut at, space, 16) {
        Ok(spaces) => spaces,
        Err(fault) => return fault,
    };
    for part in 0..2 {
        let value = rows.map(|r| u64::from(r[2 * part]) | u64::from(r[2 * part + 1]) << 32);
        let mut may = cx.mask;
        if cx.watch.is_some() {
            may = watched(cx, op, AccessKind::Store, &spaces, &at, Some(&value));
        }
        for l in active(may) {
            keep(cx, spaces[l], at[l], 8, l, value[l]);
        }
        at.iter_mut().for_each(|a| *a = a.wrapping_add(8));
    }
    cx.mask = mask;
    Flow::Next
}

/// `movmatrix.sync.aligned.m8n8.trans.b16 y, a`.
fn transposition(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if !["sync", "aligned", "m8n8", "trans", "b16"].iter().all(|s| i.take(s)) {
        return i.unsupported();
    }
    i.wants(2)?;
    let (y, a) = (i.dst(0, Type::B32)?, i.src(1, Type::B32)?);
    let c = i.constant(u32::MAX.into(), false);
    let run: Run = |cx, op| {
        if let Some(flow) = together(cx, op, op.c) {
            return flow;
        }
        let mut rows: Tiles = [[0; 4]; LANES];
        spread(&cx.rows[op.a as usize].0, 0, false, &mut rows);
        put(cx.rows, op.y as usize, taken(&rows, 0, true), cx.mask);
        Flow::Next
    };
    i.emit(run, Counts::Warp, Slots { y, a, c, ..Slots::default() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_transposed_twice_is_itself() {
        let first: Lanes = std::array::from_fn(|l| ((l as u32 * 2 + 1) << 16) | (l as u32 * 2));
        let mut rows: Tiles = [[0; 4]; LANES];
        spread(&first, 0, false, &mut rows);
        let turned = taken(&rows, 0, true);
        // Lane 1 holds rows 2 and 3 of column 0.
        assert_eq!(turned[1], 24 << 16 | 16);
        let mut back: Tiles = [[0; 4]; LANES];
        spread(&turned, 0, true, &mut back);
        assert_eq!(back, rows);
    }
}
