//! Attention over keys that come in parts, such as those that several ranks hold of one sequence. Each part gives its own
//! softmax, of which the log-sum L = ln Σ e^s remembers the size; two of them merge to what both together would have given:
//!   m = max(L, L'),  a = e^{L − m},  b = e^{L' − m}:   O ← (a·O + b·O')/(a + b),   L ← m + ln(a + b)
//! Backward needs nothing new: with L and D of the whole, P = e^{S − L} is right for the keys of any part.

use super::{BACKWARD, BACKWARD_TILED, DELTA, FORWARD, FORWARD_TILED, TILED, extents};
use crate::error::Result;
use crate::kernel;
use crate::kernel::{Arg, Real};
use crate::shape::Spec;
use crate::tape::Cx;
use crate::tensor::Tensor;

kernel! {
    ptx "attention_merge";
    /// y and y_sum of two sets of keys from o, o_sum of one and p, p_sum of the other; rows of `width`. Each set has a key that the
    /// row sees.
    pub static MERGE = attention_merge(
        o: in T, o_sum: in T, p: in T, p_sum: in T, y: out T, y_sum: out T, width: val size,
    );
}

fn attention_merge<T: Real>(
    o: &[T],
    o_sum: &[T],
    p: &[T],
    p_sum: &[T],
    y: &mut [T],
    y_sum: &mut [T],
    width: usize,
) {
    let rows = y.chunks_mut(width).zip(o.chunks(width).zip(p.chunks(width)));
    for ((y, (o, p)), (y_sum, (&l, &more))) in rows.zip(y_sum.iter_mut().zip(o_sum.iter().zip(p_sum))) {
        let m = if l > more { l } else { more };
        let (a, b) = ((l - m).exp(), (more - m).exp());
        for (y, (&o, &p)) in y.iter_mut().zip(o.iter().zip(p)) {
            *y = (a * o + b * p) / (a + b);
        }
        *y_sum = m + (a + b).ln();
    }
}

/// Attention of `q` [B, H, Tq, d] to keys `k` and values `v` [B, H, Tk, d], as o and its log-sums [B, H, Tq]. Where `seen`
/// [B, H, Tq] is given query i sees the first seen[i] keys.
///
/// # Errors
/// Those of the device.
pub fn attend(
    cx: &Cx<'_>,
    [q, k, v]: [&Tensor; 3],
    seen: Option<&Tensor>,
    is_causal: bool,
) -> Result<[Tensor; 2]> {
    let mut o = cx.empty(q.spec())?;
    let mut log_sum = cx.empty(Spec::new(q.dtype(), &q.dims()[..3])?)?;
    let extents = extents(&q.spec(), &k.spec());
    let args = &mut [
        Arg::In(q),
        Arg::In(k),
        Arg::In(v),
        seen.map_or(Arg::Absent, Arg::In),
        Arg::Out(&mut o),
        Arg::Out(&mut log_sum),
        Arg::Dims(&extents),
        Arg::Flag(is_causal),
    ];
    cx.launch(if extents[2] <= TILED { &FORWARD_TILED } else { &FORWARD }, args)?;
    Ok([o, log_sum])
}

/// The same query's attention to two sets of keys as one.
///
/// # Errors
/// Those of the device.
pub fn merge(cx: &Cx<'_>, [o, o_sum]: [&Tensor; 2], [p, p_sum]: [&Tensor; 2]) -> Result<[Tensor; 2]> {
    let (mut y, mut y_sum) = (cx.empty(o.spec())?, cx.empty(o_sum.spec())?);
    let width = Arg::Size(o.shape().last());
    let (y_out, sum_out) = (Arg::Out(&mut y), Arg::Out(&mut y_sum));
    cx.launch(&MERGE, &mut [Arg::In(o), Arg::In(o_sum), Arg::In(p), Arg::In(p_sum), y_out, sum_out, width])?;
    Ok([y, y_sum])
}

/// D [B, H, Tq] = Σ dO·O over each row.
///
/// # Errors
/// Those of the device.
pub fn delta(cx: &Cx<'_>, o: &Tensor, d_o: &Tensor) -> Result<Tensor> {
    let mut delta = cx.empty(Spec::new(o.dtype(), &o.dims()[..3])?)?;
    cx.launch(&DELTA, &mut [Arg::In(o), Arg::In(d_o), Arg::Out(&mut delta)])?;
    Ok(delta)
}

/// What the keys of one part add to dQ, and their own dK and dV, with log-sums and D of the whole.
///
/// # Errors
/// Those of the device.
pub fn attend_backward(
    cx: &Cx<'_>,
    [q, k, v]: [&Tensor; 3],
    seen: Option<&Tensor>,
    [log_sum, delta, d_o]: [&Tensor; 3],
    is_causal: bool,
) -> Result<[Tensor; 3]> {
    let [mut dq, mut dk, mut dv] = [cx.empty(q.spec())?, cx.empty(k.spec())?, cx.empty(v.spec())?];
    let extents = extents(&q.spec(), &k.spec());
    let args = &mut [
        Arg::In(q),
        Arg::In(k),
        Arg::In(v),
        seen.map_or(Arg::Absent, Arg::In),
        Arg::In(log_sum),
        Arg::In(delta),
        Arg::In(d_o),
        Arg::Out(&mut dq),
        Arg::Out(&mut dk),
        Arg::Out(&mut dv),
        Arg::Dims(&extents),
        Arg::Flag(is_causal),
    ];
    cx.launch(if extents[2] <= TILED { &BACKWARD_TILED } else { &BACKWARD }, args)?;
    Ok([dq, dk, dv])
}
