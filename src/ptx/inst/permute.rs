//! Bytes and truth tables: `prmt` and `lop3` (PTX ISA 9.0, sections 9.7.8.7 and 9.7.9.7).

use super::bits::pair;
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{LANES, put};
use crate::ptx::run::{Counts, Cx, Flow, Op};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// `prmt`: bytes of (b, a) picked by c.
pub(super) fn permute(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let modes = [("f4e", 1), ("b4e", 2), ("rc8", 3), ("ecl", 4), ("ecr", 5), ("rc16", 6)];
    let imm = i.pick(&modes).unwrap_or(0);
    if i.ty()? != Type::B32 {
        return i.unsupported();
    }
    i.wants(4)?;
    let (y, a, b, c) =
        (i.dst(0, Type::B32)?, i.src(1, Type::B32)?, i.src(2, Type::B32)?, i.src(3, Type::B32)?);
    i.emit(permuted, Counts::Integer, Slots { y, a, b, c, imm, ..Slots::default() });
    Ok(())
}

fn permuted(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let (a, b, c) = (cx.rows[op.a as usize].0, cx.rows[op.b as usize].0, cx.rows[op.c as usize].0);
    let y = std::array::from_fn(|l| {
        let (bytes, s) = (pair(a[l], b[l]), c[l] & 3);
        (0..4u32).fold(0, |y, k| {
            let from = match op.imm {
                0 => c[l] >> (4 * k) & 15,
                1 => (s + k) & 7,
                2 => s.wrapping_sub(k) & 7,
                3 => s,
                4 => k.max(s),
                5 => k.min(s),
                _ => (s & 1) * 2 + (k & 1),
            };
            let byte = (bytes >> (8 * (from & 7))) as u8;
            let byte = if from & 8 == 8 { (byte as i8 >> 7) as u8 } else { byte };
            y | u32::from(byte) << (8 * k)
        })
    });
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}

/// `lop3`: any function of three bits, by its truth table.
pub(super) fn lookup(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if i.ty()? != Type::B32 {
        return i.unsupported();
    }
    i.wants(5)?;
    let (y, a, b, c) =
        (i.dst(0, Type::B32)?, i.src(1, Type::B32)?, i.src(2, Type::B32)?, i.src(3, Type::B32)?);
    let imm = i.literal(4)?;
    i.emit(looked_up, Counts::Integer, Slots { y, a, b, c, imm, ..Slots::default() });
    Ok(())
}

fn looked_up(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let (a, b, c) = (cx.rows[op.a as usize].0, cx.rows[op.b as usize].0, cx.rows[op.c as usize].0);
    let mut y = [0; LANES];
    for k in (0..8).filter(|k| op.imm >> k & 1 == 1) {
        let [x, z, w] = [4, 2, 1].map(|bit| if k & bit == 0 { u32::MAX } else { 0 });
        for l in 0..LANES {
            y[l] |= (a[l] ^ x) & (b[l] ^ z) & (c[l] ^ w);
        }
    }
    put::<u32>(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}
