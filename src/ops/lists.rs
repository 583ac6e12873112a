//! What the ops that choose blocks of keys share: which blocks a query may choose, and the list of those that it chose.

use crate::error::{Error, Result};
use crate::kernel::Real;

/// Which blocks a query may choose. Query i stands at position i + offset.
#[derive(Clone, Copy)]
pub(super) struct Candidates {
    /// Keys of a block.
    pub(super) block: usize,
    /// Blocks nearest to the query, its own included, that are left out.
    pub(super) skip: usize,
    /// Position of the first query.
    pub(super) offset: usize,
    /// Only blocks that end before the query's own.
    pub(super) is_causal: bool,
}

impl Candidates {
    /// Says of each block whether query `i` may choose it.
    pub(super) fn of(self, i: usize) -> impl Fn(usize) -> bool {
        let own = (i + self.offset) / self.block;
        move |b| if self.is_causal { b + self.skip.max(1) <= own } else { b.abs_diff(own) >= self.skip }
    }
}

/// The blocks of most votes, of equal ones the latest, ascending and filled up with -1. `found` holds
/// votes·2³² + block, each block once.
pub(super) fn elect(found: &mut Vec<u64>, list: &mut [i32]) {
    if found.len() > list.len() {
        found.select_nth_unstable_by(list.len() - 1, |a, b| b.cmp(a));
        found.truncate(list.len());
    }
    found.iter_mut().for_each(|f| *f &= 0xffff_ffff);
    found.sort_unstable();
    list.fill(-1);
    list.iter_mut().zip(found).for_each(|(to, f)| *to = *f as i32);
}

/// The blocks of `order` of largest score, of equal ones the latest, ascending and filled up with -1. A score that is no
/// number above -inf is no choice.
pub(super) fn best<T: Real>(scores: &[T], order: &mut Vec<usize>, list: &mut [i32]) {
    order.retain(|&b| scores[b] > T::NEG_INFINITY);
    let better = |a: &usize, b: &usize| scores[*b].f64().total_cmp(&scores[*a].f64()).then(b.cmp(a));
    if order.len() > list.len() {
        order.select_nth_unstable_by(list.len() - 1, better);
        order.truncate(list.len());
    }
    order.sort_unstable();
    list.fill(-1);
    list.iter_mut().zip(order).for_each(|(to, b)| *to = *b as i32);
}

/// Error on the first attribute (name, value, least, most) that is out of its range.
pub(super) fn check_ranges(op: &'static str, ranges: &[(&str, usize, usize, usize)]) -> Result<()> {
    match ranges.iter().find(|(_, v, least, most)| v < least || v > most) {
        None => Ok(()),
        Some((name, value, least, most)) => {
            Err(Error::attr(op, *name, format!("is {value}, but must be {least} to {most}")))
        }
    }
}
