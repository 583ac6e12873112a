//! Copies that `cp.async` began and that a warp has not waited for, kept only while a watcher looks: memory then gets
//! them when they are waited for, and a kernel that forgets to wait reads what was there before. Without a watcher they
//! are made at once, which no right program can tell.

use super::{LANES, Op};

/// One copy of the lanes of a warp, on its way to shared memory.
#[derive(Clone)]
pub struct Copy {
    /// The instruction.
    pub op: Op,
    /// Lanes whose bytes are still under way.
    pub mask: u32,
    /// Where they go.
    pub at: [u64; LANES],
    /// The bytes, 8 at a time.
    pub value: [[u64; LANES]; 2],
    /// Number of the group to which each lane's copy belongs.
    group: [u32; LANES],
}

/// The copies of a warp.
#[derive(Default)]
pub struct Copies {
    under_way: Vec<Copy>,
    /// Groups that each lane has committed.
    committed: [u32; LANES],
}

impl Copies {
    /// A new block begins.
    pub fn clear(&mut self) {
        self.under_way.clear();
        self.committed = [0; LANES];
    }
    /// A copy begins.
    pub fn begin(&mut self, op: Op, mask: u32, at: [u64; LANES], value: [[u64; LANES]; 2]) {
        self.under_way.push(Copy { op, mask, at, value, group: self.committed });
    }
    /// The lanes of `mask` close their group.
    pub fn commit(&mut self, mask: u32) {
        for (l, n) in self.committed.iter_mut().enumerate() {
            *n = n.wrapping_add(mask >> l & 1);
        }
    }
    /// What the lanes of `mask` wait for, in order: all but the `keep` groups that each of them committed last, or all
    /// copies, committed or not.
    pub fn take(&mut self, mask: u32, keep: Option<u32>) -> Vec<Copy> {
        let mut due = Vec::new();
        for copy in &mut self.under_way {
            let mut ready = mask & copy.mask;
            if let Some(keep) = keep {
                for l in 0..LANES {
                    // Groups begun since this copy's, it included; 0 for one that is still open.
                    let since = self.committed[l].wrapping_sub(copy.group[l]);
                    if since <= keep {
                        ready &= !(1 << l);
                    }
                }
            }
            if ready != 0 {
                due.push(Copy { mask: ready, ..copy.clone() });
                copy.mask &= !ready;
            }
        }
        self.under_way.retain(|c| c.mask != 0);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_takes_the_groups_before_the_last_ones() {
        let mut c = Copies::default();
        let op = Op::exit(true, 0);
        for k in 0..3 {
            c.begin(op, 3, [k; LANES], [[k; LANES]; 2]);
            c.commit(1);
        }
        let seen = |all: Vec<Copy>| all.iter().map(|c| (c.at[0], c.mask)).collect::<Vec<_>>();
        assert_eq!(seen(c.take(3, Some(2))), [(0, 1)]);
        assert_eq!(seen(c.take(3, Some(1))), [(1, 1)]);
        // Lane 1 has committed nothing: only waiting for all gets its copies.
        assert_eq!(seen(c.take(3, Some(0))), [(2, 1)]);
        assert_eq!(seen(c.take(3, None)), [(0, 2), (1, 2), (2, 2)]);
        assert!(c.take(3, None).is_empty());
    }
}
