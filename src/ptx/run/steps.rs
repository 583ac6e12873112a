//! The loop that runs instructions.

use super::{Cx, Flow, Op};

/// Runs instructions from `pc` on, until one is not followed by another for all lanes. Returns what ended it, where, and
/// how many lanes ran instructions.
#[inline(always)]
pub(super) fn steps(
    cx: &mut Cx<'_>,
    code: &[Op],
    mut pc: u32,
    meet: u32,
    limit: &mut u64,
) -> (Flow, u32, u64) {
    let (lanes, mut run_lanes) = (cx.mask, 0);
    loop {
        let op = &code[pc as usize];
        *limit -= 1;
        let mask = match op.guard {
            0 => lanes,
            guard => {
                let p = cx.preds[(guard / 2 - 1) as usize];
                lanes & if guard % 2 == 1 { !p } else { p }
            }
        };
        if let Some(watch) = cx.watch.as_mut() {
            watch.step(cx.launch, cx.place, op, mask, lanes);
        }
        cx.clock += 1;
        let mut flow = Flow::Next;
        if mask != 0 {
            cx.mask = mask;
            run_lanes += u64::from(mask.count_ones());
            flow = (op.run)(cx, op);
            cx.resumed = false;
        }
        match flow {
            Flow::Next => pc += 1,
            Flow::Jump(to) if mask == lanes => pc = to,
            other => return (other, pc, run_lanes),
        }
        if pc >= meet || *limit == 0 {
            return (Flow::Next, pc, run_lanes);
        }
    }
}
