//! Barriers in shared memory: `mbarrier` (PTX ISA 9.0, section 9.7.13.15).
//!
//! An mbarrier is 64 bits: arrivals that its phase still awaits, arrivals of a phase, bytes that the phase still awaits
//! (with a sign), and the phase's parity on top. The state that an arrival returns is that word, of which a wait needs
//! the parity.

use super::memory::{
    Format, LONG_ADDRESS, STRONG, Where, active, addresses, fetch, keep, near, resolve, space, watched,
};
use crate::ptx::ast::Operand;
use crate::ptx::lower::{Address, Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, put};
use crate::ptx::run::{AccessKind, Counts, Cx, FaultKind, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// Space of an mbarrier, in an op's list.
pub(super) fn home(i: &mut Inst<'_, '_, '_>, address: &Address) -> Read<u32> {
    match space(i, address)? {
        Where::Shared => Ok(1),
        Where::Generic => Ok(0),
        _ => i.unsupported(),
    }
}

/// What happens to a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Init,
    Inval,
    /// Arrivals are counted; those that are dropped are not awaited any more.
    Arrive,
    Drop,
    /// Bytes that are awaited, or that came.
    Expect,
    Complete,
    /// Bytes that are awaited, then one arrival.
    ExpectAndArrive,
}

const ACTS: [Act; 7] =
    [Act::Init, Act::Inval, Act::Arrive, Act::Drop, Act::Expect, Act::Complete, Act::ExpectAndArrive];

/// `mbarrier.…`.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    i.ignore(&["acquire", "release", "relaxed", "cta", "cluster"]);
    if i.take("pending_count") {
        i.wants(2)?;
        let (ty, y, a) = (i.ty()?, i.dst(0, Type::U32)?, i.src(1, Type::B64)?);
        let run: Run = |cx, op| {
            let y = u64::read(cx.rows, op.a as usize).map(|s| Word(s).get(PENDING) as u32);
            put(cx.rows, op.y as usize, y, cx.mask);
            Flow::Next
        };
        i.emit(run, Counts::Integer, Slots { y, a, ..Slots::default() });
        return if ty == Type::B64 { Ok(()) } else { i.unsupported() };
    }
    if let Some(patient) = i.pick(&[("test_wait", false), ("try_wait", true)]) {
        return test(i, patient);
    }
    let arrives = i.take("arrive") || i.suffixed("arrive_drop");
    let act = match (i.take("expect_tx"), arrives) {
        (true, true) if i.suffixed("arrive_drop") => return i.unsupported(),
        (true, true) => Act::ExpectAndArrive,
        (true, false) => Act::Expect,
        (false, true) if i.take("arrive_drop") => Act::Drop,
        (false, true) => Act::Arrive,
        _ => match i.pick(&[("init", Act::Init), ("inval", Act::Inval), ("complete_tx", Act::Complete)]) {
            Some(act) => act,
            None => return i.unsupported(),
        },
    };
    // Where more arrivals are sure to come this arrival completes nothing: a hint.
    i.ignore(&["noComplete"]);
    let first = usize::from(arrives && !matches!(i.operand(0)?, Operand::Address(..)));
    let address = i.address(first)?;
    let home = home(i, &address)?;
    if i.ty()? != Type::B64 {
        return i.unsupported();
    }
    let y = if first == 1 { i.dst(0, Type::B64)? } else { i.temporary(true) };
    let given = i.count() > first + 1;
    if given != (act != Act::Inval) && !matches!(act, Act::Arrive | Act::Drop) {
        return i.refuse(format!("`{}` lacks an operand or has one too many", i.whole()));
    }
    let b = if given { i.src(first + 1, Type::U32)? } else { i.constant(1, false) };
    i.wants(first + 1 + usize::from(given))?;
    emit(i, (y, b, address), act, home);
    Ok(())
}

/// Adds an arrival at the barrier at an address, of as many as register `b` says.
pub(super) fn arrive(i: &mut Inst<'_, '_, '_>, at: (u32, u32, Address), home: u32) {
    emit(i, at, Act::Arrive, home);
}

fn emit(i: &mut Inst<'_, '_, '_>, (y, b, address): (u32, u32, Address), act: Act, home: u32) {
    let (a, plus, long) = near(i, address);
    let format = Format::new(8, plus).with(LONG_ADDRESS, long).with(STRONG, true);
    let list = i.list(&[home, act as u32]);
    i.emit(run_act, Counts::Atomic, Slots { y, a, b, list, imm: format.0, ..Slots::default() });
}

/// A field of a barrier: where it begins, and its bits.
type Field = (u32, u32);
const PENDING: Field = (0, 20);
const EXPECTED: Field = (20, 20);
const BYTES_AWAITED: Field = (40, 22);
const PHASE: Field = (63, 1);

/// The 64 bits of a barrier.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn get(self, (at, bits): Field) -> u64 {
        self.0 >> at & ((1 << bits) - 1)
    }
    fn set(self, (at, bits): Field, v: u64) -> Word {
        let ones = (1u64 << bits) - 1;
        Word(self.0 & !(ones << at) | (v & ones) << at)
    }
    /// The barrier after `act` with `n`; none where it cannot be.
    fn after(self, act: Act, n: u32) -> Option<Word> {
        let n = u64::from(n);
        if act != Act::Init && self.get(EXPECTED) == 0 {
            return None;
        }
        let counts = |v: u64| (1..1 << 20).contains(&v);
        let bytes = |w: Word, n: u64| w.set(BYTES_AWAITED, w.get(BYTES_AWAITED).wrapping_add(n));
        let arrived = |w: Word, n: u64| Some(w.set(PENDING, w.get(PENDING).checked_sub(n)?));
        let next = match act {
            Act::Init => return counts(n).then(|| Word(0).set(PENDING, n).set(EXPECTED, n)),
            Act::Inval => return Some(Word(0)),
            Act::Arrive => arrived(self, n)?,
            Act::Drop => arrived(self, n)?.set(EXPECTED, self.get(EXPECTED).checked_sub(n)?),
            Act::Expect => bytes(self, n),
            Act::Complete => bytes(self, n.wrapping_neg()),
            Act::ExpectAndArrive => arrived(bytes(self, n), 1)?,
        };
        Some(match (next.get(PENDING), next.get(BYTES_AWAITED)) {
            (0, 0) => next.set(PENDING, next.get(EXPECTED)).set(PHASE, self.get(PHASE) ^ 1),
            _ => next,
        })
    }
}

/// Lanes act one after the other.
fn run_act(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let act = ACTS[cx.listed(op, 1) % ACTS.len()];
    let n = cx.rows[op.b as usize].0;
    let kind = if act == Act::Init { AccessKind::Store } else { AccessKind::Atomic };
    let (at, may) = match shared(cx, op, kind) {
        Ok(found) => found,
        Err(fault) => return fault,
    };
    let mut before = [0u64; LANES];
    for l in active(may) {
        before[l] = fetch(cx, Where::Shared, at[l], 8, l);
        let Some(after) = Word(before[l]).after(act, n[l]) else {
            let what = match act {
                Act::Init => format!("an mbarrier cannot await {} arrivals", n[l]),
                _ => "no mbarrier is here, or it does not await so many arrivals".into(),
            };
            return cx.fail(op, FaultKind::Trap, l, at[l], what);
        };
        keep(cx, Where::Shared, at[l], 8, l, after.0);
    }
    put(cx.rows, op.y as usize, before, cx.mask);
    Flow::Next
}

/// Offsets in shared memory of the barriers of the active lanes, and the lanes that may go there.
fn shared(cx: &mut Cx<'_>, op: &Op, kind: AccessKind) -> Result<([u64; LANES], u32), Flow> {
    let mut at = addresses(cx, op);
    let generic = cx.listed(op, 0) == 0;
    let spaces = resolve(cx, op, &mut at, if generic { Where::Generic } else { Where::Shared }, 8)?;
    if let Some(l) = active(cx.mask).find(|l| spaces[*l] != Where::Shared) {
        let what = format!("{:#x} is no address in shared memory, where mbarriers are", at[l]);
        return Err(cx.fail(op, FaultKind::SharedOutOfBounds, l, at[l], what));
    }
    let may = if cx.watch.is_some() { watched(cx, op, kind, &spaces, &at, None) } else { cx.mask };
    Ok((at, may))
}

/// `mbarrier.test_wait` and `.try_wait`: whether the phase of a state, or of a parity, is over.
fn test(i: &mut Inst<'_, '_, '_>, patient: bool) -> Read<()> {
    let parity = i.take("parity");
    let address = i.address(1)?;
    let home = home(i, &address)?;
    let y = i.pred(0)?.0;
    let b = i.src(2, if parity { Type::U32 } else { Type::B64 })?;
    // try_wait may say how long it waits at most.
    i.wants(if patient && i.count() == 4 { 4 } else { 3 })?;
    if i.ty()? != Type::B64 {
        return i.unsupported();
    }
    let (a, plus, long) = near(i, address);
    let format = Format::new(8, plus).with(LONG_ADDRESS, long).with(STRONG, true);
    let list = i.list(&[home, parity.into()]);
    i.emit(run_test, Counts::Sync, Slots { y, a, b, list, imm: format.0, ..Slots::default() });
    Ok(())
}

fn run_test(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let phases: [u64; LANES] = match cx.listed(op, 1) {
        1 => cx.rows[op.b as usize].0.map(|p| u64::from(p & 1)),
        _ => u64::read(cx.rows, op.b as usize).map(|s| Word(s).get(PHASE)),
    };
    let (at, may) = match shared(cx, op, AccessKind::Atomic) {
        Ok(found) => found,
        Err(fault) => return fault,
    };
    let over = active(may).filter(|&l| {
        let now = Word(fetch(cx, Where::Shared, at[l], 8, l));
        now.get(EXPECTED) != 0 && now.get(PHASE) != phases[l]
    });
    let over = over.fold(0, |m, l| m | 1 << l);
    cx.set_pred(op.y, over);
    // Who must wait asks again: the others get their turn first.
    if over == cx.mask { Flow::Next } else { Flow::Yield }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(acts: &[(Act, u32)]) -> Option<Word> {
        acts.iter().try_fold(Word(0), |w, (act, n)| w.after(*act, *n))
    }

    #[test]
    fn a_phase_ends_with_its_last_arrival_and_its_last_byte() {
        use Act::*;
        let phase = |acts: &[(Act, u32)]| run(acts).unwrap().get(PHASE);
        assert_eq!(phase(&[(Init, 3), (Arrive, 2)]), 0);
        assert_eq!(phase(&[(Init, 3), (Arrive, 2), (Arrive, 1)]), 1);
        assert_eq!(phase(&[(Init, 1), (Arrive, 1), (Arrive, 1)]), 0);
        assert_eq!(phase(&[(Init, 1), (ExpectAndArrive, 64)]), 0);
        assert_eq!(phase(&[(Init, 1), (ExpectAndArrive, 64), (Complete, 60)]), 0);
        assert_eq!(phase(&[(Init, 1), (ExpectAndArrive, 64), (Complete, 60), (Complete, 4)]), 1);
        // Bytes may come before they are awaited.
        assert_eq!(phase(&[(Init, 1), (Complete, 64), (ExpectAndArrive, 64)]), 1);
        // Two of three are awaited once one is dropped.
        assert_eq!(phase(&[(Init, 3), (Drop, 1), (Arrive, 2), (Arrive, 2)]), 0);
        assert_eq!(run(&[(Init, 3), (Arrive, 1)]).unwrap().get(PENDING), 2);
        assert_eq!(run(&[(Init, 3), (Drop, 1), (Arrive, 2)]).unwrap().get(PENDING), 2);
    }

    #[test]
    fn what_no_barrier_can_be_is_refused() {
        use Act::*;
        for wrong in
            [&[(Arrive, 1)][..], &[(Init, 0)], &[(Init, 1 << 20)], &[(Init, 1), (Inval, 0), (Arrive, 1)]]
        {
            assert!(run(wrong).is_none(), "{wrong:?}");
        }
        assert!(run(&[(Init, 2), (Arrive, 3)]).is_none());
    }
}
