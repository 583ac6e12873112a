//! One collective under way: the ranks of its communicator, and typed messages between them.

use super::tag::Reduce;
use super::transport::{Combine, Incoming, Job, Outgoing, Transport};
use crate::error::Result;
use crate::tensor::Element;
use std::ops::Range;

/// What the algorithms see. Ranks here are those of the communicator.
pub(super) struct Cx<'a> {
    pub(super) transport: &'a mut dyn Transport,
    /// Rank in the world of each member.
    pub(super) ranks: &'a [usize],
    /// Which of them this is.
    pub(super) me: usize,
    pub(super) job: Job,
}

impl Cx<'_> {
    /// Sends `out` while `into` is filled.
    pub(super) fn exchange<T: Element>(
        &mut self,
        to: usize,
        out: &[T],
        from: usize,
        into: &mut [T],
        combine: Option<Combine>,
    ) -> Result<()> {
        let out = Outgoing { to: self.ranks[to], data: bytemuck::cast_slice(out) };
        let into = Incoming { from: self.ranks[from], data: bytemuck::cast_slice_mut(into), combine };
        self.transport.exchange(&self.job, Some(out), Some(into))
    }

    /// An all-reduce that the transport makes itself: of all ranks only.
    pub(super) fn by_the_transport<T: Element>(&mut self, x: &mut [T], reduce: Reduce) -> Option<Result<()>> {
        let all = self.ranks.len() == self.transport.world();
        all.then(|| self.transport.all_reduce(T::DTYPE, reduce, bytemuck::cast_slice_mut(x))).flatten()
    }

    pub(super) fn send<T: Element>(&mut self, to: usize, out: &[T]) -> Result<()> {
        let out = Outgoing { to: self.ranks[to], data: bytemuck::cast_slice(out) };
        self.transport.exchange(&self.job, Some(out), None)
    }

    pub(super) fn recv<T: Element>(
        &mut self,
        from: usize,
        into: &mut [T],
        combine: Option<Combine>,
    ) -> Result<()> {
        let into = Incoming { from: self.ranks[from], data: bytemuck::cast_slice_mut(into), combine };
        self.transport.exchange(&self.job, None, Some(into))
    }
}

/// Part `i` of `n` elements cut for `p` ranks: the first `n % p` parts have one more.
pub(super) fn part(i: usize, p: usize, n: usize) -> Range<usize> {
    let (each, more) = (n / p, n % p);
    let start = i * each + i.min(more);
    start..start + each + usize::from(i < more)
}

/// Two disjoint ranges of `x`: one to read, one to write.
pub(super) fn two<T>(x: &mut [T], read: Range<usize>, write: Range<usize>) -> (&[T], &mut [T]) {
    if read.end <= write.start {
        let (a, b) = x.split_at_mut(write.start);
        (&a[read], &mut b[..write.len()])
    } else {
        let (a, b) = x.split_at_mut(read.start);
        (&b[..read.len()], &mut a[write])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_in_order_and_differ_by_one() {
        for p in 1..9 {
            for n in 0..40 {
                let parts: Vec<_> = (0..p).map(|i| part(i, p, n)).collect();
                assert!(parts[0].start == 0 && parts[p - 1].end == n);
                assert!(parts.windows(2).all(|w| w[0].end == w[1].start));
                assert!(parts.iter().all(|r| r.len() == n / p || r.len() == n / p + 1));
            }
        }
    }
}
