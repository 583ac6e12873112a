//! Copies from global to shared memory that run on their own: `cp.async` (PTX ISA 9.0, section 9.7.9.25). Copies of whole
//! tensors (`cp.async.bulk`) are not supported.

use super::mbarrier;
use super::memory::{Format, LONG_ADDRESS, Where, active, addresses, fetch, keep, near, resolve, watched};
use crate::ptx::ast::Operand;
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::LANES;
use crate::ptx::run::{AccessKind, Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if i.suffixed("bulk") || !i.take("async") {
        return i.unsupported();
    }
    if i.take("commit_group") {
        i.wants(0)?;
        let run: Run = |cx, _| {
            cx.copies.commit(cx.mask);
            Flow::Next
        };
        i.emit(run, Counts::Sync, Slots::default());
        return Ok(());
    }
    if i.take("wait_group") {
        i.wants(1)?;
        let keep = i.literal(0)?.min(u64::from(u32::MAX) - 1);
        i.emit(|cx, op| wait(cx, Some(op.imm as u32)), Counts::Sync, Slots { imm: keep, ..Slots::default() });
        return Ok(());
    }
    if i.take("wait_all") {
        i.wants(0)?;
        i.emit(|cx, _| wait(cx, None), Counts::Sync, Slots::default());
        return Ok(());
    }
    if i.take("mbarrier") { arrival_of_copies(i) } else { copy(i) }
}

/// Parts of a copy's list: what is added to the source's address, whether that has 64 bits, bytes, and what may make the
/// source shorter: nothing, a register, or a predicate.
const PLUS: usize = 0;
const LONG: usize = 1;
const BYTES: usize = 2;
const SHORTER: usize = 3;
const WHOLE: u32 = 0;
const BY_SIZE: u32 = 1;
const BY_PREDICATE: u32 = 2;
const BY_NEGATED: u32 = 3;

/// `cp.async.ca.shared.global [to], [from], bytes[, size or predicate][, policy]`.
fn copy(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let policy = i.suffixed("L2::cache_hint");
    i.ignore_prefixed("L2::");
    let whole = i.take("cg");
    let shared = i.take("shared") || i.take("shared::cta");
    if !(whole || i.take("ca")) || !shared || !i.take("global") {
        return i.unsupported();
    }
    let (to, from, bytes) = (i.address(0)?, i.address(1)?, i.literal(2)?);
    if !matches!((whole, bytes), (false, 4 | 8) | (_, 16)) {
        return i.refuse(format!("`{}` copies 16 bytes, or with .ca 4 or 8, and not {bytes}", i.whole()));
    }
    let n = i.count() - usize::from(policy && i.count() > 3);
    i.wants(n.clamp(3, 4) + (i.count() - n))?;
    let (c, shorter) = if n == 3 { (0, WHOLE) } else { shortened(i)? };
    let (a, plus, long) = near(i, to);
    let (b, plus_from, long_from) = near(i, from);
    let list = i.list(&[plus_from as u32, long_from.into(), bytes as u32, shorter]);
    let format = Format::new(bytes.min(8) as u32, plus).with(LONG_ADDRESS, long);
    i.emit(run_copy, Counts::Memory, Slots { a, b, c, list, imm: format.0, ..Slots::default() });
    Ok(())
}

/// The operand after the size: how many bytes of the source count, or whether none does.
fn shortened(i: &mut Inst<'_, '_, '_>) -> Read<(u32, u32)> {
    if let Ok((p, not)) = i.pred(3).and_then(|found| match i.operand(3)? {
        Operand::Value(..) => i.unsupported(),
        _ => Ok(found),
    }) {
        return Ok((p, if not { BY_NEGATED } else { BY_PREDICATE }));
    }
    Ok((i.src(3, Type::U32)?, BY_SIZE))
}

/// Bytes of the source that count in each lane.
fn sizes(cx: &Cx<'_>, op: &Op, bytes: u32) -> [u32; LANES] {
    let kind = cx.listed(op, SHORTER) as u32;
    match kind {
        WHOLE => [bytes; LANES],
        BY_SIZE => cx.rows[op.c as usize].0.map(|n| n.min(bytes)),
        _ => {
            let p = cx.preds[op.c as usize] ^ if kind == BY_NEGATED { u32::MAX } else { 0 };
            std::array::from_fn(|l| if p >> l & 1 == 1 { 0 } else { bytes })
        }
    }
}

fn run_copy(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let bytes = cx.listed(op, BYTES) as u32;
    let size = sizes(cx, op, bytes);
    let mut to = addresses(cx, op);
    if let Err(fault) = resolve(cx, op, &mut to, Where::Shared, bytes.into()) {
        return fault;
    }
    let mut value = [[0u64; LANES]; 2];
    if let Err(fault) = source(cx, op, &size, bytes, &mut value) {
        return fault;
    }
    if cx.watch.is_some() {
        cx.copies.begin(*op, cx.mask, to, value);
        return Flow::Next;
    }
    let (step, mask) = (bytes.min(8), cx.mask);
    for l in active(mask) {
        for (k, value) in value.iter().enumerate().take((bytes / step) as usize) {
            keep(cx, Where::Shared, to[l].wrapping_add(8 * k as u64), step, l, value[l]);
        }
    }
    Flow::Next
}

/// Reads the source: whole, or byte by byte in lanes where less of it counts. The rest is zero.
fn source(
    cx: &mut Cx<'_>,
    op: &Op,
    size: &[u32; LANES],
    bytes: u32,
    value: &mut [[u64; LANES]; 2],
) -> Result<(), Flow> {
    let (plus, long) = (cx.listed(op, PLUS) as u32 as i32, cx.listed(op, LONG) == 1);
    let lanes = |f: &dyn Fn(u32) -> bool| (0..LANES).fold(0, |m, l| m | u32::from(f(size[l])) << l) & cx.mask;
    let (full, part) = (lanes(&|n| n == bytes), lanes(&|n| n > 0 && n < bytes));
    let mask = cx.mask;
    for (lanes, each) in [(full, bytes.min(8)), (part, 1)] {
        if lanes == 0 {
            continue;
        }
        let from = Op { a: op.b, imm: Format::new(each, plus).with(LONG_ADDRESS, long).0, ..*op };
        cx.mask = lanes;
        let mut at = addresses(cx, &from);
        // Where nothing is left out, the whole source must be aligned and there.
        let least = if each == 1 { 1 } else { bytes };
        for k in 0..bytes / each {
            cx.mask = (0..LANES).fold(0, |m, l| m | u32::from(k * each < size[l]) << l) & lanes;
            let need = if k == 0 { least } else { each };
            let spaces = resolve(cx, &from, &mut at, Where::Global, need.into())?;
            let may = match cx.watch.is_some() {
                true => watched(cx, &from, AccessKind::Load, &spaces, &at, None),
                false => cx.mask,
            };
            for l in active(may) {
                let v = fetch(cx, Where::Global, at[l], each, l);
                value[(k * each / 8) as usize][l] |= v << (8 * (k * each % 8));
            }
            at.iter_mut().for_each(|a| *a = a.wrapping_add(each.into()));
        }
    }
    cx.mask = mask;
    Ok(())
}

/// Delivers what the active lanes wait for.
fn wait(cx: &mut Cx<'_>, keep_last: Option<u32>) -> Flow {
    if cx.watch.is_none() {
        return Flow::Next;
    }
    let mask = cx.mask;
    for mut copy in cx.copies.take(mask, keep_last) {
        cx.mask = copy.mask;
        let bytes = cx.listed(&copy.op, BYTES) as u32;
        for value in copy.value.iter().take(bytes.div_ceil(8) as usize) {
            let may =
                watched(cx, &copy.op, AccessKind::Store, &[Where::Shared; LANES], &copy.at, Some(value));
            for l in active(may) {
                keep(cx, Where::Shared, copy.at[l], bytes.min(8), l, value[l]);
            }
            copy.at.iter_mut().for_each(|a| *a = a.wrapping_add(8));
        }
    }
    cx.mask = mask;
    Flow::Next
}

/// `cp.async.mbarrier.arrive[.noinc].b64 [barrier]`: this lane's copies, when they are done, arrive at a barrier.
fn arrival_of_copies(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if !i.take("arrive") {
        return i.unsupported();
    }
    let counted = i.take("noinc");
    let address = i.address(0)?;
    let home = mbarrier::home(i, &address)?;
    i.wants(1)?;
    if i.ty()? != Type::B64 {
        return i.unsupported();
    }
    i.emit(|cx, _| wait(cx, None), Counts::Sync, Slots::default());
    // Without .noinc one arrival more is awaited, and comes: nothing changes.
    let (y, b) = (i.temporary(true), i.constant(counted.into(), false));
    mbarrier::arrive(i, (y, b, address), home);
    Ok(())
}
