//! What ops with padding masks share: which tokens a sample has. A mask is [B or 1, 1, 1, T] and holds 0 for a token that is
//! there and -inf for one that is not, as if it were added to scores.
//!
//! The tokens that are there are brought together at the front of a copy, on which an op then works, and what it finds goes
//! back to their places. So nothing of an absent token is read, a NaN included (0·NaN would be NaN), its gradient is exactly
//! 0, and time falls with the tokens that lack. Cost: a pass over each masked tensor, and its copy.

use super::elementwise::expect_real;
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::{Arg, Real, par};
use crate::shape::{DType, Spec};
use crate::tape::Cx;
use crate::tensor::Tensor;

kernel! {
    ptx "present";
    /// From mask [B or 1, T]: list [B, T], the tokens that are there, ascending, filled up with -1; rank [B, T], the place of
    /// each token in the list, or -1; seen [B, heads, Tq], how many of them query i may see: all, or those up to token i.
    /// `extents` = [T, heads, Tq].
    pub(super) static TOKENS = present_tokens(
        mask: in T, list: out i32, rank: out i32, seen: out i32, extents: val dims, causal: val flag,
    ) blocks((list / extents[0].max(1)).div_ceil(8));
    /// y [B, H, T, d]: token t of it is token index[b, t] of x, or 0 where that is -1. `extents` = [H, T, d].
    pub(super) static ROWS = present_rows(x: in T, index: in i32, y: out T, extents: val dims);
}

fn present_tokens<T: Real>(
    mask: &[T],
    list: &mut [i32],
    rank: &mut [i32],
    seen: &mut [i32],
    extents: &[usize],
    causal: bool,
) {
    let (tokens, heads, queries) = (extents[0].max(1), extents[1], extents[2]);
    for (b, (list, rank)) in list.chunks_exact_mut(tokens).zip(rank.chunks_exact_mut(tokens)).enumerate() {
        let mask = if mask.len() > tokens { &mask[b * tokens..][..tokens] } else { mask };
        let seen = &mut seen[b * heads * queries..][..heads * queries];
        let mut count = 0;
        for (t, m) in mask.iter().enumerate() {
            rank[t] = if *m == T::ZERO { count as i32 } else { -1 };
            if *m == T::ZERO {
                list[count] = t as i32;
                count += 1;
            }
            if causal && t < queries {
                seen.iter_mut().skip(t).step_by(queries).for_each(|s| *s = count as i32);
            }
        }
        list[count..].fill(-1);
        let rest = if causal { tokens.min(queries) } else { 0 };
        seen.chunks_exact_mut(queries.max(1)).for_each(|s| s[rest..].fill(count as i32));
    }
}

fn present_rows<T: Real>(x: &[T], index: &[i32], y: &mut [T], extents: &[usize]) {
    let (heads, tokens, d) = (extents[0].max(1), extents[1], extents[2]);
    let n = tokens * d;
    par::chunks_mut(y, n, x.len() / 4, |h, y| {
        let (x, index) = (&x[h * n..][..n], &index[h / heads * tokens..][..tokens]);
        for (y, &from) in y.chunks_exact_mut(d).zip(index) {
            match usize::try_from(from) {
                Ok(t) => y.copy_from_slice(&x[t * d..][..d]),
                Err(_) => y.fill(T::ZERO),
            }
        }
    });
}

/// Error of op `op` unless the input `name` is a mask over the tokens of a tensor like `x` [B, H, T, d].
pub(super) fn expect_mask(op: &'static str, name: &str, mask: &Spec, x: &Spec) -> Result<()> {
    expect_real(op, name, mask)?;
    if mask.dtype != x.dtype {
        return Err(Error::dtype(op, format!("{name} is {mask}, but must be {} as the others", x.dtype)));
    }
    let (b, t) = (x.shape.dims()[0], x.shape.dims()[2]);
    match mask.shape.dims() {
        &[n, 1, 1, m] if (n == b || n == 1) && m == t => Ok(()),
        _ => {
            let what = format!("{name} has shape {}, but must be [{b} or 1, 1, 1, {t}]", mask.shape);
            Err(Error::shape(op, what))
        }
    }
}

/// Which tokens each sample has.
pub(super) struct Present {
    /// [B, T]: those that are there, ascending, filled up with -1.
    pub(super) list: Tensor,
    /// [B, T]: the place of each token in the list, or -1.
    pub(super) rank: Tensor,
    /// [B, heads, Tq]: how many of them a query may see.
    pub(super) seen: Tensor,
}

impl Present {
    /// What `mask` says of the `tokens` of each sample; `queries` = [B, heads, Tq].
    pub(super) fn new(
        cx: &mut Cx<'_>,
        (op, name): (&'static str, &str),
        mask: &Tensor,
        queries: &[usize],
        causal: bool,
    ) -> Result<Present> {
        let tokens = mask.shape().last();
        check(op, name, mask)?;
        let ids = |dims: &[usize]| cx.empty(Spec::new(DType::I32, dims)?);
        let [mut list, mut rank] = [ids(&[queries[0], tokens])?, ids(&[queries[0], tokens])?];
        let mut seen = ids(queries)?;
        let outs = [&mut list, &mut rank, &mut seen].map(Arg::Out);
        let [list_out, rank_out, seen_out] = outs;
        let extents = [tokens, queries[1], queries[2]];
        let args = &mut [Arg::In(mask), list_out, rank_out, seen_out, Arg::Dims(&extents), Arg::Flag(causal)];
        cx.launch(&TOKENS, args)?;
        Ok(Present { list, rank, seen })
    }
}

/// The tokens of x [B, H, T, d] in the order of `index` [B, T]; 0 where that is -1.
pub(super) fn rows(cx: &mut Cx<'_>, x: &Tensor, index: &Tensor) -> Result<Tensor> {
    let mut y = cx.empty(x.spec())?;
    cx.launch(&ROWS, &mut [Arg::In(x), Arg::In(index), Arg::Out(&mut y), Arg::Dims(&x.dims()[1..])])?;
    Ok(y)
}

/// Error unless every element of `mask` is 0 or -inf.
fn check(op: &'static str, name: &str, mask: &Tensor) -> Result<()> {
    if !mask.device().is_host() {
        return Ok(()); // a look would bring it back at every step: the kernels of a GPU trap instead
    }
    let wrong = match mask.dtype() {
        DType::F64 => first_wrong(mask.as_slice::<f64>()?),
        _ => first_wrong(mask.as_slice::<f32>()?),
    };
    let Some((i, x)) = wrong else { return Ok(()) };
    let t = mask.shape().last();
    let what = format!("{name} is {x} for token {} of sample {}", i % t, i / t);
    Err(Error::shape(op, format!("{what}, but must be 0 where the token is there and -inf where it is not")))
}

fn first_wrong<T: Real>(mask: &[T]) -> Option<(usize, f64)> {
    let i = mask.iter().position(|m| !(*m == T::ZERO || *m == T::NEG_INFINITY))?;
    Some((i, mask[i].f64()))
}
