//! The usual access: words of 32 bits, one or a vector of them a lane, all aligned and in bounds.
//! Everything is looked at once for the warp and then moved in plain loops; anything unusual goes the long way of
//! `memory.rs`, which says what is wrong.

use super::access::{Format, LONG_ADDRESS, STRONG, WIDE};
use crate::ptx::run::row::{Bits, LANES, put};
use crate::ptx::run::spaces::{SHARED, SHARED_WORDS};
use crate::ptx::run::{AccessKind, Cx, Op, Words};
use std::sync::atomic::Ordering::Relaxed;

crate::vectorized! {
    /// Addresses of 32 bits as words, 0 for lanes that are not in `mask`; the largest address, and the bits of all.
    fn near(a: &[u32; LANES], plus: u32, mask: u32, words: &mut [u32; LANES]) -> (u32, u32) {
        let (mut most, mut odd) = (0u32, 0u32);
        for l in 0..LANES {
            let x = a[l].wrapping_add(plus) & (mask >> l & 1).wrapping_neg();
            most = most.max(x);
            odd |= x;
            words[l] = x >> 2;
        }
        (most, odd)
    }
    /// The same of addresses of 64 bits.
    fn far(a: &[u64; LANES], plus: u64, mask: u32, words: &mut [u32; LANES]) -> (u64, u64) {
        let (mut most, mut odd) = (0u64, 0u64);
        for l in 0..LANES {
            let x = a[l].wrapping_add(plus) & u64::from(mask >> l & 1).wrapping_neg();
            most = most.max(x);
            odd |= x;
            words[l] = (x >> 2) as u32;
        }
        (most, odd)
    }
    /// True when lane l has word `at[0]` + l.
    fn side_by_side(at: &[u32; LANES]) -> bool {
        let mut off = 0;
        for l in 0..LANES {
            off |= at[l].wrapping_sub(at[0]) ^ l as u32;
        }
        off == 0
    }
}

/// Word by word: where processors gather behind a fence against leaks, as many do, their instruction for it is slower.
fn gather(words: &[u32; SHARED_WORDS], at: &[u32; LANES], plus: u32, y: &mut [u32; LANES]) {
    for l in 0..LANES {
        y[l] = words[at[l].wrapping_add(plus) as usize % SHARED_WORDS];
    }
}

/// The addresses of the active lanes as words from `base` on, 0 for the others, when all lie in `bytes` bytes and are
/// aligned for the whole access.
#[inline(always)]
fn places(cx: &Cx<'_>, op: &Op, base: u64, bytes: u64) -> Option<[u32; LANES]> {
    let f = Format(op.imm);
    if f.bytes() != 4 || f.has(WIDE) || f.has(STRONG) {
        return None;
    }
    let mut words = [0u32; LANES];
    let (most, odd) = if f.has(LONG_ADDRESS) {
        far(u64::read(cx.rows, op.a as usize), f.plus().wrapping_sub(base), cx.mask, &mut words)
    } else if base == 0 {
        let (most, odd) = near(&cx.rows[op.a as usize].0, f.plus() as u32, cx.mask, &mut words);
        (most.into(), odd.into())
    } else {
        return None;
    };
    let each = 4 * f.count() as u64;
    let fits = most.checked_add(each).is_some_and(|end| end <= bytes.min(1 << 34)); // words are counted in 32 bits
    (fits && odd & (each - 1) == 0).then_some(words)
}

/// Register of element `k`.
#[inline(always)]
fn slot(cx: &Cx<'_>, op: &Op, k: usize) -> usize {
    if Format(op.imm).count() == 1 { op.y as usize } else { cx.listed(op, k) }
}

/// Shows an access to words `at` behind `base` to whoever watches. False when it must be shown in parts.
#[inline(always)]
fn shown(cx: &mut Cx<'_>, op: &Op, kind: AccessKind, base: u64, at: &[u32; LANES]) -> bool {
    let count = Format(op.imm).count();
    // Some bytes of a load may not matter.
    if kind == AccessKind::Load && op.c != u32::MAX {
        return false;
    }
    let mut value = [at; 8];
    for (k, value) in value.iter_mut().enumerate().take(if kind == AccessKind::Load { 0 } else { count }) {
        *value = &cx.rows[slot(cx, op, k)].0;
    }
    let (launch, place, mask) = (cx.launch, cx.place, cx.mask);
    let words = Words { op, kind, base, at, count, value, mask };
    cx.watch.as_mut().is_none_or(|w| w.words(launch, place, &words))
}

/// Loads from shared memory. False when anything is unusual.
pub(super) fn load_shared(cx: &mut Cx<'_>, op: &Op) -> bool {
    let Some(at) = places(cx, op, 0, cx.shared.bytes.into()) else { return false };
    if cx.watch.is_some() && !shown(cx, op, AccessKind::Load, SHARED, &at) {
        return false;
    }
    for k in 0..Format(op.imm).count() {
        let slot = slot(cx, op, k);
        if cx.mask == u32::MAX {
            gather(&cx.shared.words.0, &at, k as u32, u32::write(cx.rows, slot));
        } else {
            let mut y = [0; LANES];
            gather(&cx.shared.words.0, &at, k as u32, &mut y);
            put(cx.rows, slot, y, cx.mask);
        }
    }
    true
}

/// Four words of shared memory from the address of each lane in `mask` on; none when anything is unusual or watched.
pub(super) fn load_rows(cx: &Cx<'_>, op: &Op, mask: u32) -> Option<[[u32; 4]; LANES]> {
    let f = Format(op.imm);
    if cx.watch.is_some() || f.has(LONG_ADDRESS) {
        return None;
    }
    let mut at = [0; LANES];
    let (most, odd) = near(&cx.rows[op.a as usize].0, f.plus() as u32, mask, &mut at);
    let fits = u64::from(most) + 16 <= u64::from(cx.shared.bytes) && odd & 15 == 0;
    let quads = cx.shared.words.0.as_chunks::<4>().0;
    fits.then(|| at.map(|word| quads[(word / 4) as usize % (SHARED_WORDS / 4)]))
}

/// Stores to shared memory. False when anything is unusual.
pub(super) fn store_shared(cx: &mut Cx<'_>, op: &Op) -> bool {
    let Some(at) = places(cx, op, 0, cx.shared.bytes.into()) else { return false };
    if cx.watch.is_some() && !shown(cx, op, AccessKind::Store, SHARED, &at) {
        return false;
    }
    for k in 0..Format(op.imm).count() {
        let value = u32::read(cx.rows, slot(cx, op, k));
        let start = (at[0] as usize + k) % SHARED_WORDS;
        if cx.mask == u32::MAX && start + LANES <= SHARED_WORDS && side_by_side(&at) {
            cx.shared.words.0[start..start + LANES].copy_from_slice(value);
            continue;
        }
        for l in 0..LANES {
            if cx.mask >> l & 1 == 1 {
                cx.shared.words.0[(at[l] as usize + k) % SHARED_WORDS] = value[l];
            }
        }
    }
    true
}

/// Loads from the device's own memory. False when anything is unusual.
pub(super) fn load_global(cx: &mut Cx<'_>, op: &Op) -> bool {
    let memory = cx.launch.memory[0];
    let Some(at) = places(cx, op, memory.base(), memory.bytes()) else { return false };
    if cx.watch.is_some() && !shown(cx, op, AccessKind::Load, memory.base(), &at) {
        return false;
    }
    let words = memory.words(0, memory.bytes() / 4);
    for k in 0..Format(op.imm).count() {
        let mut y = [0; LANES];
        for l in 0..LANES {
            // Lanes that are not active read the first word, which nobody sees.
            y[l] = words[at[l] as usize + k].load(Relaxed);
        }
        put(cx.rows, slot(cx, op, k), y, cx.mask);
    }
    true
}

/// Stores to the device's own memory. False when anything is unusual.
pub(super) fn store_global(cx: &mut Cx<'_>, op: &Op) -> bool {
    let memory = cx.launch.memory[0];
    let Some(at) = places(cx, op, memory.base(), memory.bytes()) else { return false };
    if cx.watch.is_some() && !shown(cx, op, AccessKind::Store, memory.base(), &at) {
        return false;
    }
    let words = memory.words(0, memory.bytes() / 4);
    for k in 0..Format(op.imm).count() {
        let value = *u32::read(cx.rows, slot(cx, op, k));
        for l in 0..LANES {
            if cx.mask >> l & 1 == 1 {
                words[at[l] as usize + k].store(value[l], Relaxed);
            }
        }
    }
    true
}
