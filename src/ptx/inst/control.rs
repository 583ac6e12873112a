//! Branches, calls, barriers and fences (PTX ISA 9.0, sections 9.7.12 and 9.7.13).

use super::print;
use crate::ptx::ast::Operand;
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, put};
use crate::ptx::run::spaces::FUNCTIONS;
use crate::ptx::run::{Counts, Cx, Event, FaultKind, Flow, Op, Run, Wait};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// The function that ends an entry, or returns from another function.
pub(crate) fn exit(entry: bool) -> Run {
    if entry { |_, _| Flow::Exit } else { |_, _| Flow::Return }
}

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    match i.opcode() {
        "bra" => branch(i),
        "brx" => indexed(i),
        "call" => call(i),
        "ret" | "exit" => {
            i.take("uni");
            i.wants(0)?;
            if i.opcode() == "ret" {
                i.leave();
            }
            let run = exit(i.opcode() == "exit" || i.in_entry());
            i.emit(run, Counts::Control, Slots::default());
            Ok(())
        }
        "trap" | "brkpt" => {
            i.wants(0)?;
            let run: Run = trapped;
            i.emit(run, Counts::Control, Slots::default());
            Ok(())
        }
        "bar" | "barrier" => barrier(i),
        "alloca" => allocate(i),
        "nanosleep" => {
            i.ty()?;
            i.src(0, Type::U32)?;
            Ok(())
        }
        _ => fence(i),
    }
}

/// Jumps to the place in `imm`.
fn jump(_: &mut Cx<'_>, op: &Op) -> Flow {
    Flow::Jump(op.imm as u32)
}

fn branch(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    i.take("uni");
    i.wants(1)?;
    let Operand::Name(name, at) = i.operand(0)? else { return i.refuse("`bra` takes a label") };
    let label = i.label(name, *at)?;
    i.emit_jump(jump, label);
    Ok(())
}

/// `brx.idx i, targets`.
fn indexed(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    i.take("uni");
    if !i.take("idx") {
        return i.unsupported();
    }
    i.wants(2)?;
    let a = i.src(0, Type::U32)?;
    let Operand::Name(name, at) = i.operand(1)? else {
        return i.refuse("`brx.idx` takes the name of a target list");
    };
    let labels = i.targets(name, *at)?;
    let list = i.list_labels(&labels);
    i.emit(scatter, Counts::Control, Slots { a, list, imm: labels.len() as u64, ..Slots::default() });
    Ok(())
}

fn scatter(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let index = cx.rows[op.a as usize].0;
    for l in super::memory::active(cx.mask) {
        if u64::from(index[l]) >= op.imm {
            let what = format!("branch target {} of {}", index[l], op.imm);
            return cx.fail(op, FaultKind::Trap, l, 0, what);
        }
        cx.targets[l] = cx.listed(op, index[l] as usize) as u32;
    }
    Flow::Scatter
}

/// `call (returned), function, (arguments)[, prototype]`.
fn call(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    i.take("uni");
    let (returned, rest) = listed(i.operands());
    let Some((callee @ Operand::Name(name, _), rest)) = rest.split_first() else {
        return i.refuse("`call` takes the name of a function, or a register with its address");
    };
    let (given, _) = listed(rest);
    let function = i.function(name);
    if let Some((f, _)) = function
        && i.arity(f) != (given.len(), returned.len())
    {
        let (takes, gives) = i.arity(f);
        return i.refuse(format!(
            "`{name}` takes {takes} arguments and returns {gives} values; the call has {} and {}",
            given.len(),
            returned.len()
        ));
    }
    let mut late = Vec::new();
    let mut all = vec![given.len() as u32];
    for (k, o) in given.iter().enumerate() {
        all.push(argument(i, function, k, o, None)?);
    }
    all.push(returned.len() as u32);
    for (k, o) in returned.iter().enumerate() {
        all.push(argument(i, function, k, o, Some(&mut late))?);
    }
    let list = i.list(&all);
    let class = Counts::Control;
    match function {
        Some((target, true)) => i.emit(direct, class, Slots { list, imm: target.into(), ..Slots::default() }),
        Some(_) if *name == "vprintf" && given.len() == 2 => {
            i.emit(print::run, class, Slots { list, ..Slots::default() });
        }
        Some(_) if *name == "__assertfail" => {
            i.emit(stop_asserted, class, Slots { list, ..Slots::default() })
        }
        Some(_) => {
            return i.refuse(format!("`{name}` has no body, and is no function that this device knows"));
        }
        None => {
            let a = i.read(callee, Type::U64, false)?.0;
            i.emit(indirect, class, Slots { a, list, ..Slots::default() });
        }
    }
    late.into_iter().for_each(|result| i.fetch_result(result));
    Ok(())
}

/// The operands of a leading list, and what follows it.
fn listed<'a>(all: &'a [Operand<'a>]) -> (&'a [Operand<'a>], &'a [Operand<'a>]) {
    match all.split_first() {
        Some((Operand::List(args, _), rest)) => (args, rest),
        _ => (&[], all),
    }
}

/// Where operand `k` of a call lies in local memory: a .param variable, or a copy of a register or number. Results in
/// registers are fetched `late`, behind the call.
fn argument<'a>(
    i: &mut Inst<'a, '_, '_>,
    function: Option<(u32, bool)>,
    k: usize,
    o: &'a Operand<'a>,
    late: Option<&mut Vec<(u32, u32, Type)>>,
) -> Read<u32> {
    if let Operand::Name(n, at) = o
        && let Ok(place) = i.argument(n, *at)
    {
        return Ok(place);
    }
    let Some((f, _)) = function else {
        return i
            .refuse("calls by address pass .param variables; registers and numbers are not supported there");
    };
    let result = i.register_argument(f, k, o, late.is_some())?;
    let place = result.0;
    if let Some(late) = late {
        late.push(result);
    }
    Ok(place)
}

fn stop_asserted(cx: &mut Cx<'_>, op: &Op) -> Flow {
    cx.fail(op, FaultKind::Trap, cx.mask.trailing_zeros() as usize, 0, "an assertion failed".into())
}

fn direct(cx: &mut Cx<'_>, op: &Op) -> Flow {
    cx.targets = [op.imm as u32; LANES];
    Flow::Call
}

fn indirect(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let all = *u64::read(cx.rows, op.a as usize);
    for l in super::memory::active(cx.mask) {
        let index = all[l].wrapping_sub(FUNCTIONS) / 16;
        let callee = usize::try_from(index).ok().and_then(|k| cx.program().functions.get(k));
        if !callee.is_some_and(|f| f.start < f.end && !f.entry) {
            let what = format!("{:#x} is the address of no function", all[l]);
            return cx.fail(op, FaultKind::Trap, l, all[l], what);
        }
        cx.targets[l] = index as u32;
    }
    Flow::Call
}

/// What a barrier does with the predicates that come.
const POPC: u64 = 1;
const AND: u64 = 2;
const OR: u64 = 3;
/// Bits of a barrier's `imm`.
const ARRIVE: u64 = 1 << 8;
const ALIGNED: u64 = 1 << 9;
/// The barrier's instruction runs again when it is passed, to take its result.
const AGAIN: u64 = 1 << 32;

fn barrier(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    i.take("cta");
    if i.take("warp") {
        return if i.take("sync") { warp_barrier(i) } else { i.unsupported() };
    }
    let aligned = i.take("aligned") || i.opcode() == "bar";
    let flags = if aligned { ALIGNED } else { 0 };
    let Some(kind) = i.pick(&[("sync", 0), ("arrive", ARRIVE), ("red", AGAIN)]) else {
        return i.unsupported();
    };
    if kind == AGAIN {
        return reducing(i, flags);
    }
    let a = i.src(0, Type::U32)?;
    let all = i.count() < 2;
    if all && kind == ARRIVE {
        return i.refuse(format!("`{}` takes the number of threads as its second operand", i.whole()));
    }
    let b = if all { i.constant(0, false) } else { i.src(1, Type::U32)? };
    i.wants(if all { 1 } else { 2 })?;
    i.emit(wait, Counts::Sync, Slots { a, b, imm: flags | kind, ..Slots::default() });
    Ok(())
}

/// `bar.red y, id[, threads], p`.
fn reducing(i: &mut Inst<'_, '_, '_>, flags: u64) -> Read<()> {
    let Some(kind) = i.pick(&[("popc", POPC), ("and", AND), ("or", OR)]) else { return i.unsupported() };
    let ty = i.ty()?;
    let a = i.src(1, Type::U32)?;
    let some = i.count() == 4;
    let b = if some { i.src(2, Type::U32)? } else { i.constant(0, false) };
    let (c, not) = i.pred(2 + usize::from(some))?;
    i.wants(3 + usize::from(some))?;
    let y = match (kind, ty) {
        (POPC, Type::U32) => i.dst(0, ty)?,
        (AND | OR, Type::Pred) => i.pred(0)?.0,
        _ => return i.unsupported(),
    };
    let imm = flags | AGAIN | kind | u64::from(not) << 10;
    i.emit(wait, Counts::Sync, Slots { y, a, b, c, imm, ..Slots::default() });
    Ok(())
}

fn wait(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let kind = op.imm & 255;
    if cx.resumed && op.imm & AGAIN != 0 {
        let (holds, came) = cx.reduced;
        match kind {
            POPC => put(cx.rows, op.y as usize, [holds; LANES], cx.mask),
            AND => cx.set_pred(op.y, if holds == came { u32::MAX } else { 0 }),
            _ => cx.set_pred(op.y, if holds > 0 { u32::MAX } else { 0 }),
        }
        return Flow::Next;
    }
    let first = cx.mask.trailing_zeros() as usize;
    let (id, threads) = (cx.rows[op.a as usize].0[first], cx.rows[op.b as usize].0[first]);
    if id > 15 || !threads.is_multiple_of(32) {
        let what = format!("barrier {id} of {threads} threads: there are barriers 0 to 15, of whole warps");
        return cx.fail(op, FaultKind::BarrierDivergence, first, 0, what);
    }
    let holds = match kind {
        0 => 0,
        _ => cx.preds[op.c as usize] ^ if op.imm >> 10 & 1 == 1 { u32::MAX } else { 0 },
    };
    let (arrive, aligned) = (op.imm & ARRIVE != 0, op.imm & ALIGNED != 0);
    cx.barrier = Wait { id, threads, arrive, aligned, holds: holds & cx.mask };
    Flow::Barrier
}

/// `bar.warp.sync mask`.
fn warp_barrier(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    i.wants(1)?;
    let a = i.src(0, Type::B32)?;
    i.emit(warp_wait, Counts::Sync, Slots { a, ..Slots::default() });
    Ok(())
}

fn warp_wait(cx: &mut Cx<'_>, op: &Op) -> Flow {
    match together(cx, op, op.a) {
        Some(flow) => flow,
        None => Flow::Next,
    }
}

/// Waits for the lanes that register `mask` names; none when they are all here, or never come.
pub(super) fn together(cx: &mut Cx<'_>, op: &Op, mask: u32) -> Option<Flow> {
    // All lanes are here: nobody waits, whatever the masks.
    if cx.mask == u32::MAX && cx.watch.is_none() {
        return None;
    }
    // Lanes may name different masks: each waits for those that it names.
    let masks = &cx.rows[mask as usize].0;
    let wanted = super::memory::active(cx.mask).fold(0, |m, l| m | masks[l]);
    let outside = super::memory::active(cx.mask).find(|&l| masks[l] >> l & 1 == 0);
    if let (Some(l), true) = (outside, cx.watch.is_some()) {
        missing(cx, op, 1 << l);
    }
    let absent = wanted & cx.live & !cx.mask;
    if absent == 0 {
        let gone = wanted & !cx.live & cx.began;
        if cx.watch.is_some() && gone != 0 {
            missing(cx, op, gone);
        }
        told(cx, wanted & cx.mask | !cx.live, Event::Met);
        return None;
    }
    if !cx.resumed {
        return Some(Flow::Gather);
    }
    if cx.watch.is_some() {
        missing(cx, op, absent);
    }
    told(cx, wanted & cx.mask | !cx.live, Event::Met);
    None
}

/// `trap`: what its line's comment says is why.
#[cold]
fn trapped(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let why = cx.program().line(op.at).1.split_once("//").map(|(_, why)| why.trim());
    let what = match why {
        Some(why) if !why.is_empty() => format!("the kernel stopped itself, because {why},"),
        _ => "the kernel stopped itself".into(),
    };
    cx.fail(op, FaultKind::Trap, cx.mask.trailing_zeros() as usize, 0, what)
}

/// Tells the watcher.
pub(super) fn told(cx: &mut Cx<'_>, lanes: u32, event: Event) {
    let place = cx.place;
    if let Some(watch) = cx.watch.as_mut() {
        watch.event(place, lanes, event);
    }
}

#[cold]
fn missing(cx: &mut Cx<'_>, op: &Op, lanes: u32) {
    let what = format!("lanes {lanes:#010x} are named by the mask and do not come");
    let fault = cx.found(op, FaultKind::AbsentLane, cx.mask.trailing_zeros() as usize, 0, what);
    if let Some(watch) = cx.watch.as_mut() {
        watch.fault(fault);
    }
}

/// `membar`, `fence`, `griddepcontrol`: memory is in order here, so only a watcher cares.
fn fence(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    i.ignore(&["gl", "cta", "sys", "gpu", "cluster", "sc", "acq_rel", "acquire", "release"]);
    i.ignore(&["mbarrier_init", "proxy", "async", "alias", "wait", "launch_dependents"]);
    i.ignore_prefixed("sync_restrict");
    i.ignore_prefixed("async::");
    i.wants(0)?;
    let run: Run = |cx, _| {
        told(cx, cx.mask, Event::Fence);
        Flow::Next
    };
    i.emit(run, Counts::Sync, Slots { imm: 1, ..Slots::default() });
    Ok(())
}

/// `alloca.u64 address, size[, align]`: local memory until the kernel ends.
fn allocate(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if i.ty()? != Type::U64 {
        return i.unsupported();
    }
    i.wants(if i.count() == 3 { 3 } else { 2 })?;
    let (y, a) = (i.dst(0, Type::U64)?, i.src(1, Type::U64)?);
    let imm = if i.count() == 3 { i.literal(2)? } else { 8 };
    if !imm.is_power_of_two() || imm > 1024 {
        return i.refuse(format!("`{}` asks for an alignment of {imm} bytes", i.whole()));
    }
    i.emit(allocated, Counts::Control, Slots { y, a, imm, ..Slots::default() });
    Ok(())
}

fn allocated(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let sizes = *u64::read(cx.rows, op.a as usize);
    let mut y = [0u64; LANES];
    for l in super::memory::active(cx.mask) {
        match cx.local.allocate(l, sizes[l], op.imm as u32) {
            Some(at) => y[l] = at.into(),
            None => {
                let what = format!("{} bytes of local memory are not there", sizes[l]);
                return cx.fail(op, FaultKind::StackOverflow, l, 0, what);
            }
        }
    }
    put(cx.rows, op.y as usize, y, cx.mask);
    Flow::Next
}
