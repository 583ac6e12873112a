//! block_mass: which share of dense attention's mass on far keys lies in each block of them. With s_hij = q_hi·k_hj/√d and a_hij
//! its softmax over the keys that query i sees,
//!
//! m(i, b) = Σ_h Σ_{j ∈ b} a_hij;  mass(i, b) = m(i, b) / Σ_c m(i, c) over the candidates c of i, 0 for other blocks.
//!
//! With `is_causal` query i, at position p = i + offset, sees keys j ≤ p, and its candidates are the blocks that end before its
//! own, without the `skip` nearest; else it sees all keys, and its candidates are the blocks not within `skip` of its own. A row
//! without candidates, or without mass on them, is 0. This is what an indexer of blocks learns to foretell (DeepSeek-V3.2, sparse
//! attention, over blocks instead of tokens). It is an observation: no gradient.
//! Cost: as many products as dense attention's scores, 2·d flops for each query and key that it sees, so quadratic in the
//! length; scores are summed block by block as they come. Memory: B·H·Tq·Tk/block logarithms of those sums, no Tq × Tk.

use super::elementwise::{expect_inputs, expect_real};
use super::lists::{Candidates, check_ranges};
use super::{AttrDoc, Entry, Kind, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::gemm::{View, ViewMut};
use crate::kernel::{Arg, Real, lanes, par};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

kernel! {
    ptx "block_mass", MATH = "math";
    /// logs [B·H, Tq, n] of q [B·H, Tq, d] and k [B·H/group, Tk, d]: ln Σ e^s over the keys of each of the n blocks that a query
    /// sees, -inf where it sees none. `extents` = [Tq, Tk, d, block, n, group, offset].
    pub static LOGS = block_mass_logs(q: in T, k: in T, logs: out T, extents: val dims, causal: val flag) blocks((logs / extents[4].max(1)).div_ceil(8));
    /// mass [B, Tq, n] of logs. `extents` = [H, Tq, n, block, skip, offset].
    pub static SHARES = block_mass_shares(logs: in T, mass: out T, extents: val dims, causal: val flag) blocks((mass / extents[2].max(1)).div_ceil(8));
}

/// Queries of one tile, whose scores of [`KEYS`] keys stay in the L1 cache.
const QUERIES: usize = 64;
/// Keys of a block that are taken at a time.
const KEYS: usize = 64;

fn block_mass_logs<T: Real>(q: &[T], k: &[T], logs: &mut [T], extents: &[usize], causal: bool) {
    let &[tq, tk, d, block, n, group, offset] = extents else { panic!("the op gives seven extents") };
    let scale = T::of(1.0 / (d as f64).sqrt());
    par::chunks_mut(logs, tq * n, q.len() * tk / 16, |h, logs| {
        let (q, k) = (&q[h * tq * d..][..tq * d], &k[h / group * tk * d..][..tk * d]);
        let mut scores = vec![T::ZERO; QUERIES * KEYS];
        for (t, logs) in logs.chunks_mut(QUERIES * n).enumerate() {
            let rows = logs.len() / n;
            let last = t * QUERIES + rows - 1 + offset;
            let q = View::new(&q[t * QUERIES * d..][..rows * d], rows, d);
            logs.fill(T::NEG_INFINITY);
            for start in (0..n).flat_map(|b| (b * block..tk.min((b + 1) * block)).step_by(KEYS)) {
                if causal && start > last {
                    break;
                }
                let end = tk.min((start / block + 1) * block).min(start + KEYS);
                let keys = View::transposed(&k[start * d..end * d], d, end - start);
                T::gemm(q, keys, scale, false, ViewMut::pitched(&mut scores, rows, end - start, KEYS));
                for (i, log) in logs.iter_mut().skip(start / block).step_by(n).enumerate() {
                    let sees = if causal { (t * QUERIES + i + offset + 1).saturating_sub(start) } else { KEYS };
                    *log = joined(*log, &scores[i * KEYS..][..sees.min(end - start)]);
                }
            }
        }
    });
}

/// ln(e^log + Σ e^s).
fn joined<T: Real>(log: T, scores: &[T]) -> T {
    let most = lanes::max_number(scores);
    let most = if log > most { log } else { most };
    if most == T::NEG_INFINITY {
        return most;
    }
    let sum = lanes::sum_by(scores.len(), |j| (scores[j] - most).exp_nonpositive());
    most + (sum + (log - most).exp_nonpositive()).ln()
}

fn block_mass_shares<T: Real>(logs: &[T], mass: &mut [T], extents: &[usize], causal: bool) {
    let &[heads, tq, n, block, skip, offset] = extents else { panic!("the op gives six extents") };
    let candidates = Candidates { block, skip, offset, is_causal: causal };
    par::chunks_mut(mass, n, logs.len(), |row, mass| {
        let (batch, i) = (row / tq, row % tq);
        let may = candidates.of(i);
        mass.fill(T::ZERO);
        for h in 0..heads {
            let logs = &logs[((batch * heads + h) * tq + i) * n..][..n];
            let whole = joined(T::NEG_INFINITY, logs);
            for (b, (mass, &log)) in mass.iter_mut().zip(logs).enumerate() {
                if may(b) {
                    *mass += (log - whole).exp_nonpositive();
                }
            }
        }
        let whole = lanes::sum_by(n, |b| mass[b]);
        if whole > T::ZERO {
            mass.iter_mut().for_each(|m| *m /= whole);
        }
    });
}

/// Mass of attention on blocks.
#[derive(Debug, Clone, Copy)]
pub struct BlockMass {
    /// Keys of a block.
    pub block: usize,
    /// Blocks nearest to the query, its own included, that are no candidates.
    pub skip: usize,
    /// Position of the first query among the keys.
    pub offset: usize,
    /// Queries see keys of their own position and before only, and only whole blocks before their own are candidates.
    pub is_causal: bool,
}

impl Default for BlockMass {
    fn default() -> BlockMass {
        BlockMass { block: 64, skip: 1, offset: 0, is_causal: true }
    }
}

const NAME: &str = "block_mass";

impl Op for BlockMass {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 2, 2)?;
        for (s, name) in x.iter().zip(["query", "key"]) {
            expect_real(NAME, name, s)?;
            if s.shape.rank() != 4 || s.dtype != x[0].dtype {
                let what = format!("{name} is {s}, but must be {}[batch, heads, tokens, width]", x[0].dtype);
                return Err(Error::shape(NAME, what));
            }
        }
        let (q, k) = (x[0].shape.dims(), x[1].shape.dims());
        if q[0] != k[0] || k[1] == 0 || !q[1].is_multiple_of(k[1]) || q[3] != k[3] || q[3] == 0 {
            let what = format!(
                "query has shape {} and key {}: batch and width must agree, and the query heads be a multiple of the key heads",
                x[0].shape, x[1].shape
            );
            return Err(Error::shape(NAME, what));
        }
        let ranges =
            [("block", self.block, 1, 1 << 16), ("skip", self.skip, 0, 1 << 20), ("offset", self.offset, 0, 1 << 30)];
        check_ranges(NAME, &ranges)?;
        Ok(smallvec::smallvec![Spec::new(x[0].dtype, &[q[0], q[2], k[2].div_ceil(self.block)])?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let mut mass = cx.empty(self.infer(&[x[0].spec(), x[1].spec()])?[0])?;
        let (q, k, n) = (x[0].dims(), x[1].dims(), mass.shape().last());
        let mut logs = cx.empty(Spec::new(x[0].dtype(), &[q[0] * q[1], q[2], n])?)?;
        let BlockMass { block, skip, offset, is_causal } = *self;
        let extents = [q[2], k[2], q[3], block, n, q[1] / k[1], offset];
        let flag = || Arg::Flag(is_causal);
        let out = Arg::Out(&mut logs);
        cx.launch(&LOGS, &mut [Arg::In(x[0]), Arg::In(x[1]), out, Arg::Dims(&extents), flag()])?;
        let extents = [q[1], q[2], n, block, skip, offset];
        cx.launch(&SHARES, &mut [Arg::In(&logs), Arg::Out(&mut mass), Arg::Dims(&extents), flag()])?;
        Ok(smallvec::smallvec![mass])
    }

    fn backward(&self, _: &mut Cx<'_>, _: &[Tensor], _: &[Option<Tensor>], _: &mut [Adjoint]) -> Result<()> {
        Err(Error::Usage(format!("{NAME} has no gradient; detach() its inputs")))
    }
}

impl<'t> Var<'t> {
    /// Mass [B, Tq, blocks] of the attention of queries `self` [B, H, Tq, d] to blocks of `keys` [B, H or fewer, Tk, d]. No
    /// gradient flows through it.
    pub fn block_mass(&self, keys: &Var<'t>, op: BlockMass) -> Result<Var<'t>> {
        self.tape().apply1(op, &[&self.detach(), &keys.detach()])
    }
}

/// block_mass in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "share of dense attention's mass in each block of far keys, over all heads",
    inputs: &[Port::constant("query"), Port::constant("key")],
    outputs: &["output"],
    attrs: &[
        AttrDoc { name: "block", kind: Kind::Int, default: Some("64"), doc: "keys of a block" },
        AttrDoc { name: "skip", kind: Kind::Int, default: Some("1"), doc: "blocks nearest to the query that are left out" },
        AttrDoc { name: "offset", kind: Kind::Int, default: Some("0"), doc: "position of the first query among the keys" },
        AttrDoc { name: "is_causal", kind: Kind::Bool, default: Some("true"), doc: "queries see what is before them only" },
    ],
    build: |a| {
        Ok(Arc::new(BlockMass {
            block: a.size("block")?,
            skip: a.size("skip")?,
            offset: a.size("offset")?,
            is_causal: a.flag("is_causal")?,
        }))
    },
    kernels: &[&LOGS, &SHARES],
    samples: || {
        let of = |note, q: [usize; 4], k: [usize; 4]| Sample::new(note).normal(&q).normal(&k);
        vec![
            of("causal", [2, 2, 40, 3], [2, 2, 40, 3]).attr("block", 4),
            of("grouped, later queries", [1, 4, 5, 3], [1, 2, 53, 3]).attr("block", 8).attr("offset", 45).attr("skip", 2),
            of("both sides, many blocks", [1, 1, 7, 2], [1, 1, 150, 2])
                .attr("block", 2)
                .attr("is_causal", false)
                .attr("skip", 0),
            of("two tiles of queries, blocks of more keys than a tile", [1, 1, 230, 2], [1, 1, 230, 2]).attr("block", 70),
            of("no candidate", [1, 1, 3, 2], [1, 1, 3, 2]),
            of("no key", [1, 1, 3, 2], [1, 1, 0, 2]),
            of("1 x 4 heads x 8192 x 64", [1, 4, 8192, 64], [1, 4, 8192, 64]).large(),
        ]
    },
};
