//! The usual access: words of 32 bits, one or a vector of them a lane, that nobody watches, all aligned and in bounds.
//! Everything is looked at once for the warp and then moved in plain loops; anything unusual goes the long way of
//! `memory.rs`, which says what is wrong.

use super::access::{Format, STRONG, WIDE, addresses};
use crate::ptx::run::row::{Bits, LANES, put};
use crate::ptx::run::spaces::SHARED_WORDS;
use crate::ptx::run::{Cx, Op};
use std::sync::atomic::Ordering::Relaxed;

/// The addresses of the active lanes as words from `base` on, 0 for the others, when all lie in `bytes` bytes and are
/// aligned for the whole access.
#[inline(always)]
fn places(cx: &Cx<'_>, op: &Op, base: u64, bytes: u64) -> Option<[u32; LANES]> {
    let f = Format(op.imm);
    if cx.watch.is_some() || f.bytes() != 4 || f.has(WIDE) || f.has(STRONG) {
        return None;
    }
    let at = addresses(cx, op);
    let each = 4 * f.count() as u64;
    let (mut most, mut odd, mut words) = (0u64, 0u64, [0u32; LANES]);
    for l in 0..LANES {
        let on = u64::from(cx.mask >> l & 1).wrapping_neg();
        let a = at[l].wrapping_sub(base) & on;
        most = most.max(a);
        odd |= a;
        words[l] = (a >> 2) as u32;
    }
    let fits = most.checked_add(each).is_some_and(|end| end <= bytes.min(1 << 34)); // words are counted in 32 bits
    (fits && odd & (each - 1) == 0).then_some(words)
}

crate::vectorized! {
    fn gather(words: &[u32; SHARED_WORDS], at: &[u32; LANES], plus: u32, y: &mut [u32; LANES]) {
        for l in 0..LANES {
            y[l] = words[at[l].wrapping_add(plus) as usize % SHARED_WORDS];
        }
    }
}

/// Register of element `k`.
#[inline(always)]
fn slot(cx: &Cx<'_>, op: &Op, k: usize) -> usize {
    if Format(op.imm).count() == 1 { op.y as usize } else { cx.listed(op, k) }
}

/// Loads from shared memory. False when anything is unusual.
pub(super) fn load_shared(cx: &mut Cx<'_>, op: &Op) -> bool {
    let Some(at) = places(cx, op, 0, cx.shared.bytes.into()) else { return false };
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

/// Stores to shared memory. False when anything is unusual.
pub(super) fn store_shared(cx: &mut Cx<'_>, op: &Op) -> bool {
    let Some(at) = places(cx, op, 0, cx.shared.bytes.into()) else { return false };
    for k in 0..Format(op.imm).count() {
        let value = *u32::read(cx.rows, slot(cx, op, k));
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
