//! Which accesses come before which: vector clocks of warps (Lamport 1978; Mattern 1989).
//!
//! A block counts times, and a warp takes the next one at each act of order. Of each other warp of its block it knows up to which time
//! its accesses come before; of warps of other blocks likewise, in a map that only fences and atomics fill; and of its
//! own lanes by pairs, because lanes of a warp are ordered by warp barriers alone. Where a lane learns something from
//! another warp, its whole warp is taken to know it: that may miss a race and invents none.

use std::collections::HashMap;
use std::sync::Arc;

/// Who accessed, when and where in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Number of the block.
    pub(super) block: u32,
    /// Time of its warp; 0 for nobody.
    pub(super) time: u32,
    /// Byte of the source.
    pub(super) at: u32,
    /// Thread in the block.
    pub(super) thread: u16,
    /// Volatile, relaxed or atomic.
    pub(super) strong: bool,
}

impl Stamp {
    /// The same thread?
    pub(super) fn same(&self, other: &Stamp) -> bool {
        self.block == other.block && self.thread == other.thread
    }
    fn warp(&self) -> usize {
        usize::from(self.thread / 32)
    }
}

/// Up to which time each warp's accesses come before, by block and warp.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(HashMap<(u32, u32), u32>);

impl Known {
    fn learn(&mut self, other: &Known) {
        for (&who, &time) in &other.0 {
            let mine = self.0.entry(who).or_default();
            *mine = time.max(*mine);
        }
    }
}

/// Adds what `other` knows.
fn join(mine: &mut Arc<Known>, other: &Arc<Known>) {
    if mine.0.is_empty() {
        *mine = Arc::clone(other);
    } else if !Arc::ptr_eq(mine, other) && !other.0.is_empty() {
        Arc::make_mut(mine).learn(other);
    }
}

#[derive(Clone)]
struct Warp {
    time: u32,
    /// Accesses of own lanes up to here come before, for every lane.
    floor: u32,
    /// Accesses of any warp of the block up to here come before, for every lane. May lag behind what is known.
    horizon: u32,
    /// What lane l knows of lane m, when some lanes have met without the others.
    pairs: Option<Box<[[u32; 32]; 32]>>,
    /// Of the warps of this block.
    row: [u32; 32],
    /// Of warps of other blocks.
    others: Arc<Known>,
    /// What was known at the last fence: strong writes hand it on.
    fenced: Option<Arc<Known>>,
    /// What strong reads have seen since the last fence: the next one makes it known.
    seen: Option<Arc<Known>>,
}

/// What has been handed on through each location: strong writes that follow a fence, or release.
#[derive(Default)]
pub(super) struct Locations(HashMap<(u32, u64), Arc<Known>>);

/// What every lane of a warp knows of the warps of its block.
pub(super) struct View<'a> {
    block: u32,
    warp: usize,
    floor: u32,
    horizon: u32,
    row: &'a [u32; 32],
}

impl View<'_> {
    /// True when what a warp did at a time comes before what any lane does now. False may also mean: not for all lanes.
    #[inline(always)]
    pub(super) fn covers(&self, block: u32, warp: u16, time: u32) -> bool {
        let v = usize::from(warp) % 32;
        let known = || if v == self.warp { self.floor } else { self.row[v] };
        block == self.block && (time <= self.horizon || time <= known())
    }
}

/// The clocks of a block.
pub(super) struct Clocks {
    block: u32,
    /// The last time that was taken.
    time: u32,
    warps: Vec<Warp>,
    arrived: [Arc<Known>; 16],
}

impl Clocks {
    /// Of the block with this number.
    pub(super) fn new(block: u32) -> Clocks {
        Clocks { block, time: 0, warps: Vec::new(), arrived: Default::default() }
    }

    #[inline(always)]
    fn warp(&mut self, w: u32) -> &mut Warp {
        let w = w as usize % 32;
        if self.warps.len() <= w {
            self.grow(w);
        }
        &mut self.warps[w]
    }

    /// Makes warps up to `w`. Their first time is later than the horizon of any other.
    #[cold]
    fn grow(&mut self, w: usize) {
        self.time += 1;
        let new = Warp {
            time: self.time,
            floor: 0,
            horizon: 0,
            pairs: None,
            row: [0; 32],
            others: Arc::default(),
            fenced: None,
            seen: None,
        };
        self.warps.resize(w + 1, new);
    }

    /// Warp `w` takes the next time.
    fn go_on(&mut self, w: u32) {
        self.time += 1;
        let time = self.time;
        self.warp(w).time = time;
    }

    /// The present time of warp `w`.
    pub(super) fn now(&mut self, w: u32) -> u32 {
        self.warp(w).time
    }

    /// True when what `past` did comes before what `now`, of this block, does.
    #[inline]
    pub(super) fn before(&self, past: &Stamp, now: &Stamp) -> bool {
        let (v, w) = (past.warp(), now.warp());
        let Some(warp) = self.warps.get(w) else { return true };
        if past.block != self.block {
            return warp.others.0.get(&(past.block, v as u32)).is_some_and(|t| *t >= past.time);
        }
        if v != w {
            return warp.row[v % 32] >= past.time;
        }
        let knows =
            |p: &[[u32; 32]; 32]| p[usize::from(now.thread % 32)][usize::from(past.thread % 32)] >= past.time;
        past.thread == now.thread || past.time <= warp.floor || warp.pairs.as_deref().is_some_and(knows)
    }

    /// The present time of warp `w`, and what every lane of it knows.
    pub(super) fn view(&mut self, w: u32) -> (u32, View<'_>) {
        let (block, at) = (self.block, w as usize % 32);
        let warp = self.warp(w);
        (warp.time, View { block, warp: at, floor: warp.floor, horizon: warp.horizon, row: &warp.row })
    }

    /// These lanes of warp `w` met.
    pub(super) fn met(&mut self, w: u32, lanes: u32) {
        let warp = self.warp(w);
        if lanes == u32::MAX {
            warp.floor = warp.time;
            let (w, warps) = (w as usize % 32, self.warps.len());
            let others = (0..warps).filter(|v| *v != w).map(|v| self.warps[w].row[v]).min();
            let warp = &mut self.warps[w];
            warp.horizon = warp.floor.min(others.unwrap_or(u32::MAX));
        } else {
            let pairs = warp.pairs.get_or_insert_with(|| Box::new([[0; 32]; 32]));
            let here = || (0..32).filter(|l| lanes >> l & 1 == 1);
            let mut all = [0; 32];
            for l in here() {
                all.iter_mut().zip(&pairs[l]).for_each(|(a, p)| *a = (*a).max(*p));
            }
            here().for_each(|l| all[l] = warp.time);
            here().for_each(|l| pairs[l] = all);
        }
        self.go_on(w);
    }

    /// What warp `w` knows now, with its own accesses. Its time goes on.
    fn publish(&mut self, w: u32) -> Arc<Known> {
        let block = self.block;
        let warp = self.warp(w);
        let mut known = Known::clone(&warp.others);
        for (v, &time) in warp.row.iter().enumerate().filter(|(_, t)| **t > 0) {
            known.0.insert((block, v as u32), time);
        }
        known.0.insert((block, w), warp.time);
        self.go_on(w);
        Arc::new(known)
    }

    fn acquire(&mut self, w: u32, known: &Arc<Known>) {
        let block = self.block;
        let warp = self.warp(w);
        for (&(_, v), &time) in known.0.iter().filter(|((b, _), _)| *b == block) {
            let mine = if v == w { &mut warp.floor } else { &mut warp.row[v as usize % 32] };
            *mine = time.max(*mine);
        }
        join(&mut warp.others, known);
    }

    /// A fence of warp `w`: hands on and takes.
    pub(super) fn fence(&mut self, w: u32) {
        if let Some(seen) = self.warp(w).seen.take() {
            self.acquire(w, &seen);
        }
        let known = self.publish(w);
        self.warp(w).fenced = Some(known);
    }

    /// Warp `w` comes to a barrier and does not wait.
    pub(super) fn arrive(&mut self, w: u32, id: u32) {
        let known = self.publish(w);
        join(&mut self.arrived[id as usize % 16], &known);
    }

    /// These warps pass a barrier together.
    pub(super) fn pass(&mut self, id: u32, warps: u64) {
        let here = || (0..32u32).filter(move |w| warps >> w & 1 == 1);
        let arrived = std::mem::take(&mut self.arrived[id as usize % 16]);
        let mut row = [0; 32];
        let mut others: Arc<Known> = Arc::default();
        for w in here() {
            self.acquire(w, &arrived);
            let warp = self.warp(w);
            row.iter_mut().zip(&warp.row).for_each(|(r, v)| *r = (*r).max(*v));
            join(&mut others, &warp.others);
        }
        // None of them goes on before the next time.
        here().for_each(|w| row[w as usize] = self.time);
        let horizon = row[..self.warps.len()].iter().copied().min().unwrap_or(0);
        let (floor, time) = (self.time, self.time + 1);
        self.time = time;
        for w in here() {
            let warp = self.warp(w);
            (warp.row, warp.floor, warp.others) = (row, floor, Arc::clone(&others));
            (warp.time, warp.horizon) = (time, horizon);
        }
    }

    /// A strong access of warp `w`. `orders`: it releases what it writes, and acquires what it reads.
    pub(super) fn strong(
        &mut self,
        w: u32,
        reads: bool,
        writes: bool,
        orders: bool,
        at: &[(u32, u64)],
        map: &mut Locations,
    ) {
        if reads {
            for known in at.iter().filter_map(|a| map.0.get(a)) {
                if orders {
                    self.acquire(w, known);
                } else {
                    let warp = self.warp(w);
                    join(warp.seen.get_or_insert_default(), known);
                }
            }
        }
        if !writes {
            return;
        }
        let given = if orders { Some(self.publish(w)) } else { self.warp(w).fenced.clone() };
        for &a in at {
            match (&given, reads) {
                // An atomic goes on with the chain of those before it.
                (Some(known), true) => join(map.0.entry(a).or_default(), known),
                (Some(known), false) => _ = map.0.insert(a, Arc::clone(known)),
                (None, true) => {}
                (None, false) => _ = map.0.remove(&a),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(c: &mut Clocks, thread: u16) -> Stamp {
        let (block, time) = (c.block, c.now(u32::from(thread / 32)));
        Stamp { block, time, at: 0, thread, strong: false }
    }

    /// Whether what `past` did comes before what the thread does now.
    fn sees(c: &mut Clocks, past: &Stamp, thread: u16) -> bool {
        let now = by(c, thread);
        c.before(past, &now)
    }

    #[test]
    fn lanes_are_ordered_by_meeting_and_warps_by_barriers() {
        let mut c = Clocks::new(0);
        let (a, b, far) = (by(&mut c, 0), by(&mut c, 1), by(&mut c, 40));
        assert!(!c.before(&a, &b) && !c.before(&a, &far) && c.before(&a, &a));
        c.met(0, 0b101);
        assert!(!sees(&mut c, &a, 1) && sees(&mut c, &a, 2));
        // What lane 2 knows of lane 0 reaches lane 1 through them, and what lane 0 did since does not.
        let late = by(&mut c, 0);
        c.met(0, 0b110);
        assert!(sees(&mut c, &a, 1) && !sees(&mut c, &late, 1));
        c.met(0, u32::MAX);
        assert!(sees(&mut c, &late, 31) && !sees(&mut c, &late, 40));
        c.pass(0, 0b11);
        assert!(sees(&mut c, &late, 40) && sees(&mut c, &far, 3));
        let again = by(&mut c, 3);
        assert!(!sees(&mut c, &again, 4));
    }

    #[test]
    fn a_warp_that_begins_late_is_beyond_the_horizon_of_others() {
        let mut c = Clocks::new(0);
        (0..5).for_each(|_| c.met(0, u32::MAX));
        let late = by(&mut c, 32);
        c.met(0, u32::MAX);
        let known = |c: &mut Clocks, w| c.view(w).1.covers(0, 1, late.time);
        assert!(!sees(&mut c, &late, 0) && !known(&mut c, 0) && !known(&mut c, 1));
        c.pass(0, 0b11);
        assert!(sees(&mut c, &late, 0) && known(&mut c, 0) && known(&mut c, 1));
        // A warp that does not come to the barrier holds the horizon back, and what is known of the others stays.
        let absent = by(&mut c, 64);
        let present = by(&mut c, 32);
        c.pass(1, 0b11);
        assert!(!c.view(0).1.covers(0, 2, absent.time) && c.view(0).1.covers(0, 1, present.time));
    }

    #[test]
    fn who_only_arrives_does_not_learn() {
        let mut c = Clocks::new(0);
        let (made, used) = (by(&mut c, 0), by(&mut c, 32));
        c.arrive(0, 3);
        let after = by(&mut c, 0);
        c.pass(3, 0b10);
        let consumer = by(&mut c, 32);
        assert!(c.before(&made, &consumer) && !c.before(&after, &consumer) && !c.before(&used, &after));
    }

    #[test]
    fn fences_and_strong_accesses_hand_on_across_blocks() {
        let (mut a, mut b, mut map) = (Clocks::new(0), Clocks::new(1), Locations::default());
        let flag = [(u32::MAX, 64)];
        let wrote = by(&mut a, 5);
        // Without a fence nothing is handed on.
        a.strong(0, false, true, false, &flag, &mut map);
        b.strong(0, true, false, false, &flag, &mut map);
        b.fence(0);
        assert!(!sees(&mut b, &wrote, 0));
        a.fence(0);
        let after = by(&mut a, 5);
        a.strong(0, true, true, false, &flag, &mut map);
        b.strong(0, true, false, false, &flag, &mut map);
        assert!(!sees(&mut b, &wrote, 0));
        b.fence(0);
        assert!(sees(&mut b, &wrote, 0) && !sees(&mut b, &after, 0));
        // Another warp of the block learns it at a barrier.
        assert!(!sees(&mut b, &wrote, 32));
        b.pass(0, 0b11);
        assert!(sees(&mut b, &wrote, 32));
    }

    #[test]
    fn release_and_acquire_need_no_fence() {
        let (mut a, mut b, mut map) = (Clocks::new(0), Clocks::new(1), Locations::default());
        let lock = [(u32::MAX, 8)];
        let wrote = by(&mut a, 0);
        a.strong(0, true, true, true, &lock, &mut map);
        b.strong(0, true, true, true, &lock, &mut map);
        assert!(sees(&mut b, &wrote, 0));
    }
}
