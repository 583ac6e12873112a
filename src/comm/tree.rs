//! Collectives by doubling distances: ⌈log₂ p⌉ waits, each of the whole message. For messages so short that a wait costs
//! more than their bytes.

use super::cx::Cx;
use super::number::{self, Number};
use super::tag::Reduce;
use crate::error::Result;
use crate::tensor::Element;

/// Recursive doubling: ⌈log₂ p⌉(α + Nβ), two more when p is no power of two. With four ranks each pair (0 1), (2 3) adds
/// both ways, then (0 2), (1 3): everybody has (x₀ + x₁) + (x₂ + x₃), of which each sum was made on both sides alike, as
/// a + b = b + a bit by bit. Ranks beyond the largest power of two give theirs to a rank below first, and get the result.
pub(super) fn all_reduce<T: Number>(cx: &mut Cx<'_>, x: &mut [T], reduce: Reduce) -> Result<()> {
    let (p, r) = (cx.ranks.len(), cx.me);
    let combine = Some(number::combine::<T>(reduce));
    let core = 1 << p.ilog2();
    if r >= core {
        cx.send(r - core, x)?;
        return cx.recv(r - core, x, None);
    }
    let beyond = (r + core < p).then_some(r + core);
    if let Some(other) = beyond {
        cx.recv(other, x, combine)?;
    }
    // ANCHOR: tree
    let mut mine = Vec::with_capacity(x.len());
    let mut distance = 1;
    while distance < core {
        // What is sent must stay as it is while sums come in.
        mine.clear();
        mine.extend_from_slice(x);
        cx.exchange(r ^ distance, &mine, r ^ distance, x, combine)?;
        distance *= 2;
    }
    // ANCHOR_END: tree
    number::finish(reduce, x, p);
    match beyond {
        Some(other) => cx.send(other, x),
        None => Ok(()),
    }
}

/// A binomial tree towards `root`: in round k whoever has bit k set (counted from the root) sends and is done.
pub(super) fn reduce<T: Number>(cx: &mut Cx<'_>, x: &mut [T], reduce: Reduce, root: usize) -> Result<()> {
    let p = cx.ranks.len();
    let place = (cx.me + p - root) % p;
    let rank = |place: usize| (place + root) % p;
    let mut bit = 1;
    while bit < p {
        if place & bit != 0 {
            return cx.send(rank(place - bit), x);
        }
        if place + bit < p {
            cx.recv(rank(place + bit), x, Some(number::combine::<T>(reduce)))?;
        }
        bit *= 2;
    }
    number::finish(reduce, x, p);
    Ok(())
}

/// The same tree from `root` on: the number of ranks that have it doubles in each round.
pub(super) fn broadcast<T: Element>(cx: &mut Cx<'_>, x: &mut [T], root: usize) -> Result<()> {
    let p = cx.ranks.len();
    let place = (cx.me + p - root) % p;
    let rank = |place: usize| (place + root) % p;
    // The lowest set bit is the round in which it arrives, counted from the last.
    let mut bit = 1;
    while bit < p && place & bit == 0 {
        bit *= 2;
    }
    if place > 0 {
        cx.recv(rank(place - bit), x, None)?;
    }
    while bit > 1 {
        bit /= 2;
        if place + bit < p {
            cx.send(rank(place + bit), x)?;
        }
    }
    Ok(())
}

/// In round k every rank tells the one 2ᵏ ahead; after ⌈log₂ p⌉ rounds each has heard of all.
pub(super) fn barrier(cx: &mut Cx<'_>) -> Result<()> {
    let (p, r) = (cx.ranks.len(), cx.me);
    let mut distance = 1;
    while distance < p {
        cx.exchange::<u8>((r + distance) % p, &[], (r + p - distance) % p, &mut [], None)?;
        distance *= 2;
    }
    Ok(())
}
