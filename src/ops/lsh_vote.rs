//! lsh_vote: the blocks of keys that most share a bucket with a query. With C_r[b][c] the number of keys of block b in
//! bucket c of round r, and h_r(i) the bucket of query i in that round,
//!
//! votes(i, b) = Σ_r C_r[b][h_r(i)];  the `count` blocks of most votes (of equal ones the latest), ascending, then -1.
//!
//! There is no table of every block: each bucket of a round has the list of the blocks that hold any of its keys, and a query
//! reads at most `reach` entries of one list a round: the last ones before its own block (`is_causal`: only blocks that end
//! before it are candidates, and none of the `skip` nearest, which a window sees), or those around it. So a query costs the
//! same whatever the length, and a list of a causal query depends on nothing after it. Query i stands at position
//! i + offset. Buckets come from `lsh_hash`. No gradient. Cost: Tk steps a round for the lists, rounds·reach a query.

use super::elementwise::expect_inputs;
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

kernel! {
    ptx "lsh_vote", LISTS = "lists";
    /// lists [B·Hk·R, 2·buckets + 1 + 2·Tk] of keys [B·Hk, Tk, R]: where the list of each bucket begins, and the end of the
    /// last; where it ends (memory of the kernel); the blocks of all lists, ascending in each; the keys of each of those
    /// blocks. `extents` = [Tk, R, buckets, block].
    pub static LISTS = lsh_lists(keys: in i32, lists: out i32, extents: val dims) blocks(lists.div_ceil(8 * (2 * extents[2] + 1 + 2 * extents[0])));
    /// blocks [B·H, Tq, count] of queries [B·H, Tq, R]. `extents` = [Tq, Tk, R, buckets, block, query heads of a key head,
    /// reach, skip, offset, count].
    pub static VOTE = lsh_vote(queries: in i32, lists: in i32, blocks: out i32, extents: val dims, causal: val flag) blocks((blocks / extents[9].max(1)).div_ceil(4));
}

#[allow(clippy::extra_unused_type_parameters, reason = "kernel! calls every body with the type of reals")]
fn lsh_lists<T: Real>(keys: &[i32], lists: &mut [i32], extents: &[usize]) {
    let &[tk, rounds, buckets, block] = extents else { panic!("the op gives four extents") };
    let one = 2 * buckets + 1 + 2 * tk;
    par::chunks_mut(lists, one, 4 * keys.len(), |n, lists| {
        let keys = &keys[n / rounds * tk * rounds..][..tk * rounds];
        let bucket = |j: usize| keys[j * rounds + n % rounds] as usize;
        let (starts, rest) = lists.split_at_mut(buckets + 1);
        let (last, entries) = rest.split_at_mut(buckets);
        let (blocks, counts) = entries.split_at_mut(tk);
        // A key begins an entry unless the key before it of its bucket lies in the same block.
        last.fill(-1);
        starts.fill(0);
        for j in 0..tk {
            let (c, b) = (bucket(j), (j / block) as i32);
            starts[c + 1] += i32::from(last[c] != b);
            last[c] = b;
        }
        (0..buckets).for_each(|c| starts[c + 1] += starts[c]);
        last.copy_from_slice(&starts[..buckets]); // from here on where the next entry goes
        for j in 0..tk {
            let (c, b) = (bucket(j), (j / block) as i32);
            let at = last[c] as usize;
            if at > starts[c] as usize && blocks[at - 1] == b {
                counts[at - 1] += 1;
            } else {
                (blocks[at], counts[at], last[c]) = (b, 1, at as i32 + 1);
            }
        }
    });
}

/// Extents of [`lsh_vote`].
struct Votes<'a> {
    queries: &'a [i32],
    lists: &'a [i32],
    extents: [usize; 10],
    causal: bool,
}

/// Queries of one chunk of work.
const CHUNK: usize = 64;

#[allow(clippy::extra_unused_type_parameters, reason = "kernel! calls every body with the type of reals")]
fn lsh_vote<T: Real>(queries: &[i32], lists: &[i32], blocks: &mut [i32], extents: &[usize], causal: bool) {
    let extents = <[usize; 10]>::try_from(extents).expect("the op gives ten extents");
    let [tq, tk, rounds, _, block, .., reach, _, _, count] = extents;
    let votes = Votes { queries, lists, extents, causal };
    par::chunks_mut(blocks, CHUNK * count, queries.len() / rounds.max(1) * (rounds * reach.min(64) + 64), |i, blocks| {
        let mut board = vec![0; tk.div_ceil(block)];
        for (k, list) in blocks.chunks_exact_mut(count).enumerate() {
            let n = i * CHUNK + k;
            votes.elect(n / tq, n % tq, &mut board, list);
        }
    });
}

impl Votes<'_> {
    /// The blocks elected by query `i` of head `h`; `board` is all 0 before and after.
    fn elect(&self, h: usize, i: usize, board: &mut [u32], list: &mut [i32]) {
        let [tq, tk, rounds, buckets, _, group, ..] = self.extents;
        let one = 2 * buckets + 1 + 2 * tk;
        let query = &self.queries[(h * tq + i) * rounds..][..rounds];
        let mut found: Vec<u64> = Vec::with_capacity(64);
        for (r, &c) in query.iter().enumerate() {
            let (starts, rest) = self.lists[(h / group * rounds + r) * one..][..one].split_at(buckets + 1);
            let entries = &rest[buckets..];
            let (start, end) = (starts[c as usize] as usize, starts[c as usize + 1] as usize);
            let (blocks, counts) = (&entries[start..end], &entries[tk + start..tk + end]);
            let (from, to) = self.candidates(i, blocks);
            for (&b, &n) in blocks[from..to].iter().zip(&counts[from..to]) {
                if self.skips(i, b as usize) {
                    continue;
                }
                if board[b as usize] == 0 {
                    found.push(b as u64);
                }
                board[b as usize] += n as u32;
            }
        }
        for f in &mut found {
            *f |= u64::from(std::mem::take(&mut board[*f as usize])) << 32;
        }
        super::lists::elect(&mut found, list);
    }

    /// The part of a bucket's list that query `i` reads.
    fn candidates(&self, i: usize, blocks: &[i32]) -> (usize, usize) {
        let [.., block, _, reach, skip, offset, _] = self.extents;
        let own = (i + offset) / block;
        if self.causal {
            let to = blocks.partition_point(|b| *b as usize + skip.max(1) <= own);
            return (to.saturating_sub(reach), to);
        }
        let middle = blocks.partition_point(|b| (*b as usize) < own);
        let from = middle.saturating_sub(reach / 2).min(blocks.len().saturating_sub(reach));
        (from, blocks.len().min(from + reach))
    }

    /// True for the blocks around the query that it leaves to its window.
    fn skips(&self, i: usize, b: usize) -> bool {
        let [.., block, _, _, skip, offset, _] = self.extents;
        !self.causal && b.abs_diff((i + offset) / block) < skip
    }
}

/// Blocks that share buckets with a query.
#[derive(Debug, Clone, Copy)]
pub struct LshVote {
    /// Buckets of a round: (2n)^hashes for rotations [rounds, hashes, d, n].
    pub buckets: usize,
    /// Keys of a block.
    pub block: usize,
    /// Blocks elected by a query, at most.
    pub count: usize,
    /// Entries of a bucket's list that a query reads, at most.
    pub reach: usize,
    /// Blocks nearest to the query, its own included, that are no candidates.
    pub skip: usize,
    /// Position of the first query among the keys.
    pub offset: usize,
    /// Only blocks that end before the query's own are candidates.
    pub is_causal: bool,
}

impl Default for LshVote {
    fn default() -> LshVote {
        LshVote { buckets: 1, block: 64, count: 8, reach: 64, skip: 1, offset: 0, is_causal: true }
    }
}

const NAME: &str = "lsh_vote";
/// Entries that one query reads in all rounds, at most.
const MOST_READ: usize = 512;

impl LshVote {
    fn check(&self, rounds: usize) -> Result<()> {
        let ranges = [
            ("buckets", self.buckets, 1, 1 << 20),
            ("block", self.block, 1, 1 << 16),
            ("count", self.count, 1, 32),
            ("reach", self.reach, 1, MOST_READ / rounds.max(1)),
            ("skip", self.skip, 0, 1 << 20),
            ("offset", self.offset, 0, 1 << 30),
        ];
        for (name, value, least, most) in ranges {
            if value < least || value > most {
                let why = if name == "reach" { format!(" with {rounds} rounds") } else { String::new() };
                return Err(Error::attr(NAME, name, format!("is {value}, but must be {least} to {most}{why}")));
            }
        }
        Ok(())
    }
}

impl Op for LshVote {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 2, 2)?;
        for (s, name) in x.iter().zip(["query_buckets", "key_buckets"]) {
            if s.dtype != DType::I32 {
                return Err(Error::dtype(NAME, format!("{name} are {s}, but must be i32")));
            }
            if s.shape.rank() != 4 {
                let what = format!("{name} have shape {}, but must be [batch, heads, tokens, rounds]", s.shape);
                return Err(Error::shape(NAME, what));
            }
        }
        let (q, k) = (x[0].shape.dims(), x[1].shape.dims());
        if q[0] != k[0] || k[1] == 0 || !q[1].is_multiple_of(k[1]) || q[3] != k[3] || q[3] == 0 || q[3] > 64 {
            let what = format!(
                "query_buckets have shape {} and key_buckets {}: batch and rounds (1 to 64) must agree, and the query heads be a multiple of the key heads",
                x[0].shape, x[1].shape
            );
            return Err(Error::shape(NAME, what));
        }
        self.check(q[3])?;
        Ok(smallvec::smallvec![Spec::new(DType::I32, &[q[0], q[1], q[2], self.count])?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        x.iter().try_for_each(|t| super::ids::check_ids(NAME, t, self.buckets, None))?;
        let mut blocks = cx.empty(self.infer(&[x[0].spec(), x[1].spec()])?[0])?;
        let (q, k) = (x[0].dims(), x[1].dims());
        let (tq, tk, rounds) = (q[2], k[2], q[3]);
        let lists = Spec::new(DType::I32, &[k[0] * k[1] * rounds, 2 * self.buckets + 1 + 2 * tk])?;
        let mut lists = cx.empty(lists)?;
        let extents = [tk, rounds, self.buckets, self.block];
        cx.launch(&LISTS, &mut [Arg::In(x[1]), Arg::Out(&mut lists), Arg::Dims(&extents)])?;
        let group = q[1] / k[1];
        let LshVote { buckets, block, reach, skip, offset, count, .. } = *self;
        let extents = [tq, tk, rounds, buckets, block, group, reach, skip, offset, count];
        let out = Arg::Out(&mut blocks);
        let flag = Arg::Flag(self.is_causal);
        cx.launch(&VOTE, &mut [Arg::In(x[0]), Arg::In(&lists), out, Arg::Dims(&extents), flag])?;
        Ok(smallvec::smallvec![blocks])
    }

    fn backward(&self, _: &mut Cx<'_>, _: &[Tensor], _: &[Option<Tensor>], _: &mut [Adjoint]) -> Result<()> {
        Ok(()) // blocks are integers: no gradient arrives
    }
}

impl<'t> Var<'t> {
    /// Blocks i32 [B, H, Tq, count] for queries of buckets `self` [B, H, Tq, R] among keys of buckets `keys` [B, Hk, Tk, R].
    pub fn lsh_vote(&self, keys: &Var<'t>, op: LshVote) -> Result<Var<'t>> {
        self.tape().apply1(op, &[self, keys])
    }
}

/// lsh_vote in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "blocks of keys that most share buckets with a query",
    inputs: &[Port::ids("query_buckets"), Port::ids("key_buckets")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "buckets", kind: Kind::Int, default: None, doc: "buckets of a round" },
        AttrDoc { name: "block", kind: Kind::Int, default: Some("64"), doc: "keys of a block" },
        AttrDoc { name: "count", kind: Kind::Int, default: Some("8"), doc: "blocks of a query, at most" },
        AttrDoc { name: "reach", kind: Kind::Int, default: Some("64"), doc: "entries of a bucket's list that a query reads" },
        AttrDoc { name: "skip", kind: Kind::Int, default: Some("1"), doc: "blocks nearest to the query that are left out" },
        AttrDoc { name: "offset", kind: Kind::Int, default: Some("0"), doc: "position of the first query among the keys" },
        AttrDoc { name: "is_causal", kind: Kind::Bool, default: Some("true"), doc: "only blocks before the query's own" },
    ],
    build: |a| {
        Ok(Arc::new(LshVote {
            buckets: a.size("buckets")?,
            block: a.size("block")?,
            count: a.size("count")?,
            reach: a.size("reach")?,
            skip: a.size("skip")?,
            offset: a.size("offset")?,
            is_causal: a.flag("is_causal")?,
        }))
    },
    kernels: &[&LISTS, &VOTE],
    samples: || {
        let of = |note, q: [usize; 4], k: [usize; 4], n: usize| {
            Sample::new(note).input(&q, Fill::Ids(n)).input(&k, Fill::Ids(n)).attr("buckets", n)
        };
        vec![
            of("causal", [1, 2, 40, 3], [1, 2, 40, 3], 6).attr("block", 4).attr("count", 3),
            of("short lists", [1, 1, 90, 2], [1, 1, 90, 2], 4).attr("block", 4).attr("reach", 5).attr("skip", 3),
            of("grouped, later queries", [1, 4, 5, 2], [1, 2, 50, 2], 5).attr("block", 8).attr("offset", 45),
            of("both sides", [2, 1, 20, 2], [2, 1, 33, 2], 5)
                .attr("block", 4)
                .attr("is_causal", false)
                .attr("reach", 6)
                .attr("skip", 0),
            of("both sides but the nearest", [1, 1, 20, 2], [1, 1, 20, 2], 5)
                .attr("block", 4)
                .attr("is_causal", false)
                .attr("skip", 2),
            of("one token", [1, 1, 1, 1], [1, 1, 1, 1], 2),
            of("4 heads x 16384, 4 rounds, 1024 buckets", [1, 4, 16384, 4], [1, 4, 16384, 4], 1024).large(),
        ]
    },
};
