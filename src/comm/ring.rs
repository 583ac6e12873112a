//! Collectives round the ring: rank r sends to r + 1 and receives from r − 1, all at once.
//!
//! Three ranks with vectors a, b, c of three chunks each. Every arrow is a message of one chunk; all three of a row go at
//! the same time. `a0` is chunk 0 of rank 0's vector, `+` is done by the receiver.
//!
//! ```text
//!               rank 0 holds        rank 1 holds        rank 2 holds
//! start         a0    a1    a2      b0    b1    b2      c0    c1    c2
//! reduce-scatter
//!   0→1 a0, 1→2 b1, 2→0 c2
//!               a0    a1    c2+a2   a0+b0 b1    b2      c0    b1+c1 c2
//!   0→1 c2+a2, 1→2 a0+b0, 2→0 b1+c1
//!               a0    b1+c1+a1 …    …  …  c2+a2+b2      a0+b0+c0  …  …
//! all-gather    rank 0 owns 1       rank 1 owns 2       rank 2 owns 0
//!   0→1 [1], 1→2 [2], 2→0 [0], then each passes on what it got
//! ```
//!
//! Chunk c is the left fold ((x_c + x_{c+1}) + …) over the ranks from c on, whatever the timing; the all-gather copies it,
//! so all ranks end with the same bits. A chunk is sent p − 1 times in each half: 2(p − 1)·N bytes over all ranks.

use super::cx::{Cx, part, two};
use super::number::{self, Number};
use super::tag::Reduce;
use crate::error::Result;
use crate::tensor::Element;

/// Which chunk a rank ends up with: 1 gives rank r chunk r + 1, the fold from rank c on; 0 gives it chunk r.
type Shift = usize;

/// Sums chunk by chunk: afterwards rank r holds all of chunk r + `shift`, and its other chunks are scratch.
pub(super) fn reduce_scatter<T: Number>(
    cx: &mut Cx<'_>,
    x: &mut [T],
    reduce: Reduce,
    shift: Shift,
) -> Result<()> {
    let (p, r, n) = (cx.ranks.len(), cx.me, x.len());
    // ANCHOR: ring
    // Rank r begins with the chunk that is complete p − 1 steps later, one rank before.
    let chunk = |step: usize| part((r + shift + 2 * p - 1 - step) % p, p, n);
    for step in 0..p - 1 {
        let (out, into) = two(x, chunk(step), chunk(step + 1));
        cx.exchange((r + 1) % p, out, (r + p - 1) % p, into, Some(number::combine::<T>(reduce)))?;
    }
    // ANCHOR_END: ring
    let own = (r + shift) % p;
    number::finish(reduce, &mut x[part(own, p, n)], p);
    Ok(())
}

/// Passes round what each rank holds: chunk r + `shift` on rank r at the start, every chunk everywhere at the end.
pub(super) fn all_gather<T: Element>(cx: &mut Cx<'_>, x: &mut [T], shift: Shift) -> Result<()> {
    let (p, r, n) = (cx.ranks.len(), cx.me, x.len());
    let chunk = |step: usize| part((r + shift + p - step) % p, p, n);
    for step in 0..p - 1 {
        let (out, into) = two(x, chunk(step), chunk(step + 1));
        cx.exchange((r + 1) % p, out, (r + p - 1) % p, into, None)?;
    }
    Ok(())
}

/// Reduce-scatter, then all-gather: 2(p − 1)(α + Nβ/p).
pub(super) fn all_reduce<T: Number>(cx: &mut Cx<'_>, x: &mut [T], reduce: Reduce) -> Result<()> {
    reduce_scatter(cx, x, reduce, 1)?;
    all_gather(cx, x, 1)
}

/// Reduce-scatter, then every rank hands its chunk to `root`. The other ranks' `x` is scratch.
pub(super) fn reduce<T: Number>(cx: &mut Cx<'_>, x: &mut [T], reduce: Reduce, root: usize) -> Result<()> {
    let (p, r, n) = (cx.ranks.len(), cx.me, x.len());
    reduce_scatter(cx, x, reduce, 1)?;
    if r != root {
        return cx.send(root, &x[part((r + 1) % p, p, n)]);
    }
    for from in (0..p).filter(|&from| from != root) {
        cx.recv(from, &mut x[part((from + 1) % p, p, n)], None)?;
    }
    Ok(())
}

/// Bytes of a piece of a broadcast that goes down the line.
const PIECE: usize = 64 << 10;

/// A line from `root` round the ring, piece after piece: a rank passes one on while it receives the next.
/// (p − 2 + N/piece)(α + piece·β): for long messages N·β, whatever p.
pub(super) fn broadcast<T: Element>(cx: &mut Cx<'_>, x: &mut [T], root: usize) -> Result<()> {
    let (p, n) = (cx.ranks.len(), x.len());
    let (place, each) = ((cx.me + p - root) % p, PIECE / T::DTYPE.size());
    let (next, before) = ((cx.me + 1) % p, (cx.me + p - 1) % p);
    let pieces = n.div_ceil(each).max(1);
    let piece = |i: usize| i * each..((i + 1) * each).min(n);
    for i in 0..=pieces {
        let (arrives, leaves) = (place > 0 && i < pieces, place + 1 < p && i > 0);
        match (arrives, leaves) {
            (true, true) => {
                let (out, into) = two(x, piece(i - 1), piece(i));
                cx.exchange(next, out, before, into, None)?;
            }
            (true, false) => cx.recv(before, &mut x[piece(i)], None)?,
            (false, true) => cx.send(next, &x[piece(i - 1)])?,
            (false, false) => {}
        }
    }
    Ok(())
}
