//! lsh_hash: the bucket of each vector in each round of locality-sensitive hashing by random rotations (cross-polytopes;
//! Andoni et al. 2015, "Practical and Optimal LSH for Angular Distance"): with z = x·R for a rotation R [d, n],
//!
//! h(x) = argmax of (z, −z), one of 2n values;  bucket = Σ_c h_c(x)·(2n)^c over the `hashes` rotations of a round.
//!
//! For Gaussian R, two vectors at angle θ share one h with probability 1 − θ/π (n = 1) or (1 − θ/π)² (n = 2). Only the
//! direction of x counts. With `bound` = M the length counts too: x is extended by √(M² − ‖x‖²) (0 where ‖x‖ > M), which
//! meets the last row of rotations [d + 1, n]; a query, which is not extended, is nearest in angle to the key with the
//! largest product (Neyshabur and Srebro 2015, "Simple-LSH"). Products are summed in the order of d, without fused
//! multiply-add, and the first of equal maxima wins: every device finds the same buckets. No gradient.
//! Cost: 2·d·rounds·hashes·n flops a vector.

use super::elementwise::{expect_inputs, expect_real};
use super::{Entry, Fill, Port, Sample};
use crate::error::{Error, Result};
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use crate::{kernel, vectorized};
use std::sync::Arc;

kernel! {
    ptx "lsh_hash";
    /// buckets [count, rounds] of x [count, d] by rotations [rounds, hashes, rows, n], rows d or d + 1; `bound` [1] may be
    /// absent. `extents` = [d, rounds, hashes, rows, n].
    pub static HASH = lsh_hash(
        x: in T, rotations: in T, bound: in T, buckets: out i32, extents: val dims,
    ) blocks(buckets.div_ceil(8));
}

/// Vectors of one chunk of work.
const CHUNK: usize = 256;

fn lsh_hash<T: Real>(x: &[T], rotations: &[T], bound: &[T], buckets: &mut [i32], extents: &[usize]) {
    let &[d, rounds, hashes, rows, n] = extents else { panic!("the op gives five extents") };
    let columns = rounds * hashes * n;
    // Row i of all rotations side by side: one walk over a vector makes all its products.
    let mut side = vec![T::ZERO; rows * columns];
    for (c, r) in rotations.chunks_exact(rows * n).enumerate() {
        for (i, r) in r.chunks_exact(n).enumerate() {
            side[i * columns + c * n..][..n].copy_from_slice(r);
        }
    }
    let work = x.len() * columns / 16;
    par::chunks_mut(buckets, CHUNK * rounds, work, |i, buckets| {
        let x = &x[i * CHUNK * d..][..buckets.len() / rounds * d];
        hash_rows(x, &side, bound, buckets, [d, rounds, hashes, n]);
    });
}

vectorized! {
    fn hash_rows<T: Real>(x: &[T], side: &[T], bound: &[T], buckets: &mut [i32], extents: [usize; 4]) {
        let [d, rounds, hashes, n] = extents;
        let columns = rounds * hashes * n;
        let mut z = vec![T::ZERO; columns];
        for (x, buckets) in x.chunks_exact(d).zip(buckets.chunks_exact_mut(rounds)) {
            z.fill(T::ZERO);
            for (&x, r) in x.iter().zip(side.chunks_exact(columns)) {
                for (z, &r) in z.iter_mut().zip(r) {
                    *z += x * r;
                }
            }
            if let Some(&m) = bound.first() {
                let mut square = T::ZERO;
                for &x in x {
                    square += x * x;
                }
                let rest = m * m - square;
                let rest = if rest > T::ZERO { rest.sqrt() } else { T::ZERO };
                for (z, &r) in z.iter_mut().zip(&side[d * columns..]) {
                    *z += rest * r;
                }
            }
            for (bucket, z) in buckets.iter_mut().zip(z.chunks_exact(hashes * n)) {
                let (mut sum, mut place) = (0, 1);
                for z in z.chunks_exact(n) {
                    sum += place * largest(z);
                    place *= 2 * n as i32;
                }
                *bucket = sum;
            }
        }
    }
}

// ANCHOR: largest
/// Index of the first largest of (z, −z).
#[inline(always)]
fn largest<T: Real>(z: &[T]) -> i32 {
    let (mut best, mut at) = (z[0], 0);
    for (i, &z) in z.iter().enumerate() {
        if z > best {
            (best, at) = (z, i);
        }
    }
    for (i, &y) in z.iter().enumerate() {
        if -y > best {
            (best, at) = (-y, z.len() + i);
        }
    }
    at as i32
}
// ANCHOR_END: largest

/// Buckets by random rotations.
#[derive(Debug, Clone, Copy)]
pub struct LshHash;

const NAME: &str = "lsh_hash";

/// Buckets of a round, at most.
const MOST_BUCKETS: u128 = 1 << 20;

impl Op for LshHash {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 2, 3)?;
        for (s, name) in x.iter().zip(["input", "rotations", "bound"]) {
            expect_real(NAME, name, s)?;
            if s.dtype != x[0].dtype {
                return Err(Error::dtype(NAME, format!("{name} is {s}, but input is {}", x[0])));
            }
        }
        let (d, wrong) = (x[0].shape.last(), |what: String| Err(Error::shape(NAME, what)));
        if x[0].shape.rank() == 0 || d == 0 {
            return wrong(format!("input has shape {}, but must be [.., d] with d above 0", x[0].shape));
        }
        let &[rounds, hashes, rows, n] = x[1].shape.dims() else {
            return wrong(format!("rotations have shape {}, but must be [rounds, hashes, d, n]", x[1].shape));
        };
        if rounds == 0 || hashes == 0 || n == 0 || rounds * hashes > 64 || n > 128 {
            let what = "but need 1 or more of each, rounds·hashes up to 64 and n up to 128";
            return wrong(format!("rotations have shape {}, {what}", x[1].shape));
        }
        if (2 * n as u128).pow(hashes as u32) > MOST_BUCKETS {
            let what = format!("have shape {}: (2·{n})^{hashes} buckets are more than 2^20", x[1].shape);
            return wrong(format!("rotations {what}; use fewer hashes or columns"));
        }
        if !(rows == d + 1 || rows == d && x.len() == 2) {
            let want = if x.len() == 3 { "d + 1 rows for a bound" } else { "d or d + 1 rows" };
            return wrong(format!("rotations have shape {}, but d is {d}: need {want}", x[1].shape));
        }
        if x.get(2).is_some_and(|b| b.shape.len() != 1) {
            return wrong(format!("bound has shape {}, but must hold one number", x[2].shape));
        }
        let dims: SmallList<usize> = x[0].shape.dims()[..x[0].shape.rank() - 1].iter().copied().chain([rounds]).collect();
        Ok(smallvec::smallvec![Spec::new(DType::I32, &dims)?])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let specs: SmallList<Spec> = x.iter().map(|t| t.spec()).collect();
        let mut buckets = cx.empty(self.infer(&specs)?[0])?;
        let r = x[1].dims();
        let extents = [x[0].shape().last(), r[0], r[1], r[2], r[3]];
        let bound = x.get(2).map_or(Arg::Absent, |t| Arg::In(t));
        let args = &mut [Arg::In(x[0]), Arg::In(x[1]), bound, Arg::Out(&mut buckets), Arg::Dims(&extents)];
        cx.launch(&HASH, args)?;
        Ok(smallvec::smallvec![buckets])
    }

    fn backward(&self, _: &mut Cx<'_>, _: &[Tensor], _: &[Option<Tensor>], _: &mut [Adjoint]) -> Result<()> {
        Ok(()) // buckets are integers: no gradient arrives
    }
}

impl<'t> Var<'t> {
    /// Buckets i32 [.., rounds] of the vectors `self` [.., d] by `rotations` [rounds, hashes, d or d + 1, n].
    pub fn lsh_hash(&self, rotations: &Var<'t>, bound: Option<&Var<'t>>) -> Result<Var<'t>> {
        let inputs: SmallList<&Var<'t>> = [Some(self), Some(rotations), bound].into_iter().flatten().collect();
        self.tape().apply1(LshHash, &inputs)
    }
}

/// lsh_hash in the table of ops.
pub static ENTRY: Entry = Entry {
    name: NAME,
    doc: "buckets of vectors: argmax of (x·R, -x·R) in each round of random rotations R",
    inputs: &[Port::real("input"), Port::real("rotations"), Port::real("bound").optional()],
    outputs: &["output"],
    attrs: &[],
    build: |_| Ok(Arc::new(LshHash)),
    kernels: &[&HASH],
    samples: || {
        let of = |note, x: &[usize], r: [usize; 4]| Sample::new(note).normal(x).normal(&r);
        vec![
            of("two rounds of two hashes", &[2, 3, 5, 6], [2, 2, 6, 4]),
            of("two buckets", &[40, 8], [3, 1, 8, 1]),
            of("lengths count", &[2, 9, 4], [2, 1, 5, 3]).input(&[1], Fill::Values(vec![2.5])),
            of("queries beside them", &[2, 9, 4], [2, 1, 5, 3]),
            of("more columns than a warp", &[3, 5], [1, 1, 5, 40]),
            of("no vector", &[0, 4], [1, 1, 4, 2]),
            of("4 heads x 16384 x 64, 4 rounds of 2 x 32", &[4, 16384, 64], [4, 2, 64, 16]).large(),
        ]
    },
};
