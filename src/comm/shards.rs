//! Sums over one fixed binary tree of shards, whichever rank has which of them: the same bits, however they are dealt out.
//!
//! A rank has the shards from one number to another, and sums those of whole subtrees by itself: of shards 1 to 6 it has the
//! subtrees 1, 23, 45 and 6. All ranks know who has which, so nothing is said of it. Each rank owns a part of the elements;
//! every rank sends it that part of all its subtrees, and the owner climbs from them to the root. Then all parts go round.
//!
//! With k subtrees on a rank it sends (k + 1)(p − 1)N/p bytes: as many as the ring where k is 1.

use super::cx::{Cx, part};
use super::number::Number;
use super::ring;
use crate::error::Result;
use std::ops::Range;

/// A node of the tree: shards `index`·2^`level` to (`index` + 1)·2^`level`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Node {
    level: u32,
    index: usize,
}

/// Sums of subtrees that lie side by side, the first ones first.
#[derive(Debug)]
pub struct Climb<T>(Vec<(Node, T)>);

impl<T> Default for Climb<T> {
    fn default() -> Climb<T> {
        Climb(Vec::new())
    }
}

impl<T> Climb<T> {
    /// Adds `x` of shard `leaf`, the one behind those that are there. `add` makes one of two that complete a node.
    ///
    /// # Errors
    /// Those of `add`.
    pub fn push(&mut self, leaf: usize, x: T, add: impl FnMut(T, T) -> Result<T>) -> Result<()> {
        self.join(Node { level: 0, index: leaf }, x, add)
    }

    // ANCHOR: climb
    fn join(&mut self, mut node: Node, mut x: T, mut add: impl FnMut(T, T) -> Result<T>) -> Result<()> {
        let completes = |left: &mut (Node, T), node: Node| {
            left.0.level == node.level && node.index % 2 == 1 && left.0.index + 1 == node.index
        };
        while let Some((_, left)) = self.0.pop_if(|left| completes(left, node)) {
            x = add(left, x)?;
            node = Node { level: node.level + 1, index: node.index / 2 };
        }
        self.0.push((node, x));
        Ok(())
    }
    // ANCHOR_END: climb

    /// The sums, the first ones first.
    pub fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.0).into_iter().map(|(_, x)| x).collect()
    }
}

/// The largest subtrees of which `shards` has all, in order: those that [`Climb`] ends with.
fn subtrees(shards: Range<usize>) -> Vec<Node> {
    let mut climb = Climb::default();
    for leaf in shards {
        // Nothing is added that could fail.
        let _ = climb.push(leaf, (), |(), ()| Ok(()));
    }
    climb.0.into_iter().map(|(node, ())| node).collect()
}

/// A number for `dealt`, which ranks that disagree would not have alike.
pub(super) fn name(dealt: &[Range<usize>]) -> u32 {
    dealt.iter().fold(7, |h: u32, r| h.wrapping_mul(0x9E37_79B1).wrapping_add(r.end as u32))
}

/// Rank r has the shards `dealt[r]`, and sums of the largest subtrees in them: `below`, the last of them `x`. Afterwards its
/// part of `x` is the sum over the tree, and where not `scattered` all of `x` is.
pub(super) fn all_reduce<T: Number>(
    cx: &mut Cx<'_>,
    dealt: &[Range<usize>],
    below: &[&[T]],
    x: &mut [T],
    scattered: bool,
) -> Result<()> {
    let (p, me, n) = (cx.ranks.len(), cx.me, x.len());
    let owned = |rank: usize| part((rank + 1) % p, p, n);
    let nodes: Vec<Vec<Node>> = dealt.iter().cloned().map(subtrees).collect();
    let (mine, len) = (owned(me), owned(me).len());
    let mut arrived: Vec<Vec<T>> = nodes.iter().map(|of| vec![T::zeroed(); of.len() * len]).collect();
    for step in 1..p {
        let (to, from) = ((me + step) % p, (me + p - step) % p);
        let all = below.iter().copied().chain([&*x]);
        let out: Vec<T> = all.flat_map(|sum| sum[owned(to)].iter().copied()).collect();
        cx.exchange(to, &out, from, &mut arrived[from], None)?;
    }
    let all = below.iter().copied().chain([&*x]);
    arrived[me] = all.flat_map(|sum| sum[mine.clone()].iter().copied()).collect();
    let mut climb = Climb::default();
    for (of, sums) in nodes.iter().zip(&arrived) {
        for (i, node) in of.iter().enumerate() {
            climb.join(*node, sums[i * len..][..len].to_vec(), |left, mut right| {
                right.iter_mut().zip(left).for_each(|(b, a)| *b = T::plus(a, *b));
                Ok(right)
            })?;
        }
    }
    if let Some(root) = climb.take().pop() {
        x[mine].copy_from_slice(&root);
    }
    if scattered { Ok(()) } else { ring::all_gather(cx, x, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::rng::Key;

    fn value(shard: usize, i: usize) -> f32 {
        let mut rng = Key::new(shard as u64, i as u64).rng();
        (rng.normal() * 10f64.powf(4.0 * rng.uniform())) as f32
    }

    fn sum(a: Vec<f32>, b: Vec<f32>) -> Result<Vec<f32>> {
        Ok(a.into_iter().zip(b).map(|(a, b)| a + b).collect())
    }

    #[test]
    fn subtrees_of_shards_1_to_6() {
        let found: Vec<_> = subtrees(1..7).iter().map(|n| (n.level, n.index)).collect();
        assert_eq!(found, [(0, 1), (1, 1), (1, 2), (0, 6)]);
        assert_eq!(subtrees(0..8), [Node { level: 3, index: 0 }]);
    }

    #[test]
    fn whoever_has_which_shards_the_bits_are_those_of_one() {
        const SHARDS: usize = 16;
        for n in [1, 2, 37] {
            // By hand: neighbours, then neighbours of those.
            let mut level: Vec<Vec<f32>> =
                (0..SHARDS).map(|s| (0..n).map(|i| value(s, i)).collect()).collect();
            while level.len() > 1 {
                level = level.chunks(2).map(|two| sum(two[0].clone(), two[1].clone()).unwrap()).collect();
            }
            for ends in
                [&[16][..], &[5, 16], &[1, 16], &[8, 16], &[3, 9, 16], &[1, 2, 3, 16], &[13, 14, 15, 16]]
            {
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let dealt: Vec<Range<usize>> = starts.zip(ends).map(|(a, &b)| a..b).collect();
                let p = dealt.len();
                let found = threads::run(p, |mut world| {
                    let (mut climb, me) = (Climb::default(), world.rank());
                    for s in dealt[me].clone() {
                        climb.push(s, (0..n).map(|i| value(s, i)).collect(), sum)?;
                    }
                    let mut sums: Vec<Vec<f32>> = climb.take();
                    let mut x = sums.pop().unwrap();
                    let below: Vec<&[f32]> = sums.iter().map(|s| &s[..]).collect();
                    let (mut part, before) = (x.clone(), world.sent());
                    world.all_reduce_shards(&dealt, &below, &mut x, false)?;
                    let sent = world.sent() - before;
                    world.all_reduce_shards(&dealt, &below, &mut part, true)?;
                    let own = crate::comm::Communicator::owned(me, p, n);
                    assert_eq!(part[own.clone()], x[own]);
                    Ok((x, sent, below.len() + 1))
                });
                for end in found {
                    let (x, sent, subtrees) = end.unwrap();
                    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&x), bits(&level[0]), "{dealt:?}");
                    let most = ((subtrees + 1) * (p - 1) * n.div_ceil(p) * 4) as u64;
                    assert!(sent <= most, "{sent} bytes, {most} at most");
                }
            }
        }
    }

    #[test]
    fn ranks_that_deal_otherwise_are_told() {
        let ends = threads::run(2, |mut world| {
            let cut = 2 + world.rank();
            world.all_reduce_shards(&[0..cut, cut..8], &[], &mut [1f32; 4], false)
        });
        assert!(ends.into_iter().all(|end| end.unwrap_err().exit_code() == 17));
    }
}
