//! Attention over a sequence that ranks share, each with a stretch of its tokens (context parallelism; Liu, Zaharia, Abbeel
//! 2023, "Ring Attention"): keys and values go round the ring, and each rank merges what each stretch gives its own queries by
//! their log-sums. No rank ever has the keys of all tokens.
//!
//! Rank i has tokens iT/n to (i+1)T/n. After s turns of the ring it holds the keys of rank j = i − s mod n: those of j < i its
//! queries see all, those of j = i up to themselves, and those of j > i not at all. (So the last rank works n times as long as the
//! first, and the ring goes at its pace.) Backward, keys and values go round once more, and with them the gradients that they
//! have gathered; after n turns both are home.

use crate::comm::{Communicator, Group};
use crate::error::{Error, Result};
use crate::kernel::basic::ADD_INTO;
use crate::kernel::{Arg, launch};
use crate::ops::elementwise::expect_inputs;
use crate::ops::scaled_dot_product_attention::parts::{attend, attend_backward, delta, merge};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op};
use crate::tensor::{Element, SmallList, Tensor};

const NAME: &str = "ring_attention";
/// Of messages to the next rank.
const TAG: u32 = 2;

/// Causal attention of this rank's queries to the keys of all ranks before it and its own: query, key and value
/// [B, H, T/n, d].
#[derive(Debug, Clone)]
pub struct RingAttention(pub Group);

impl RingAttention {
    /// What the rank before in the ring has, for what this one has: all ranks send at once.
    fn turn(&self, mine: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let (rank, size) = (self.0.rank(), self.0.size());
        let (to, from) = ((rank + 1) % size, (rank + size - 1) % size);
        let one = |t: Tensor| match t.dtype() {
            DType::F64 => self.exchange::<f64>(t, to, from),
            _ => self.exchange::<f32>(t, to, from),
        };
        mine.into_iter().map(one).collect()
    }

    fn exchange<T: Element + Default>(&self, t: Tensor, to: usize, from: usize) -> Result<Tensor> {
        let out = t.to_host()?.as_slice::<T>()?.to_vec();
        let swap = move |c: &mut Communicator| {
            let mut into = vec![T::default(); out.len()];
            c.exchange(to, &out, from, &mut into, TAG).map(|()| into)
        };
        Tensor::from_slice(t.device(), &self.0.call(swap)?, t.dims())
    }

    /// Whose keys this rank holds after `turns`, where its queries see them; and whether up to themselves only.
    fn seen(&self, turns: usize) -> Option<bool> {
        let (rank, size) = (self.0.rank(), self.0.size());
        let of = (rank + size - turns) % size;
        (of <= rank).then_some(of == rank)
    }
}

impl Op for RingAttention {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(NAME, x, 3, 3)?;
        if x[0].shape.rank() != 4 || x[0] != x[1] || x[0] != x[2] {
            let what = format!(
                "query is {}, key {} and value {}, but they must be alike, [batch, heads, tokens, width]",
                x[0], x[1], x[2]
            );
            return Err(Error::shape(NAME, what));
        }
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        // ANCHOR: forward
        let (q, mut held) = (x[0], vec![x[1].clone(), x[2].clone()]);
        let mut found = attend(cx, [q, x[1], x[2]], None, true)?;
        for turns in 1..self.0.size() {
            held = self.turn(held)?;
            if let Some(causal) = self.seen(turns) {
                let more = attend(cx, [q, &held[0], &held[1]], None, causal)?;
                found = merge(cx, found.each_ref(), more.each_ref())?;
            }
        }
        // ANCHOR_END: forward
        let [o, log_sum] = found;
        [q, x[1], x[2], &o, &log_sum].into_iter().for_each(|t| cx.keep(t));
        Ok(smallvec::smallvec![o])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let [q, k, v, o, log_sum] = kept else { unreachable!("forward kept five") };
        let delta = delta(cx, o, dy)?;
        let [mut dq, dk, dv] = attend_backward(cx, [q, k, v], None, [log_sum, &delta, dy], true)?;
        // Keys, values, and their gradients so far.
        let mut held = vec![k.clone(), v.clone(), dk, dv];
        for turns in 1..self.0.size() {
            held = self.turn(held)?;
            if let Some(causal) = self.seen(turns) {
                let from = [log_sum, &delta, dy];
                let found = attend_backward(cx, [q, &held[0], &held[1]], None, from, causal)?;
                for (from, to) in found.iter().zip([&mut dq].into_iter().chain(&mut held[2..])) {
                    launch(&ADD_INTO, &mut [Arg::In(from), Arg::Out(to)])?;
                }
            }
        }
        // Home.
        let home = if self.0.size() > 1 { self.turn(held.split_off(2))? } else { held.split_off(2) };
        dx[0].add(cx, dq)?;
        for (dx, home) in dx[1..].iter_mut().zip(home) {
            dx.add(cx, home)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::device::Device;
    use crate::tape::{Params, Tape};

    const DIMS: [usize; 4] = [2, 3, 12, 8];

    /// Something like normal numbers, each call others.
    fn values(seed: u64) -> Vec<f64> {
        let mut rng = crate::rng::Key::named(seed, "ring").rng();
        (0..DIMS.iter().product::<usize>()).map(|_| rng.normal()).collect()
    }

    /// Tokens `at` of [B, H, T, d].
    fn tokens(x: &[f64], at: std::ops::Range<usize>) -> Vec<f64> {
        let (t, d) = (DIMS[2], DIMS[3]);
        x.chunks(t * d).flat_map(|head| head[at.start * d..at.end * d].to_vec()).collect()
    }

    /// Output and gradients of query, key and value, for dy = `dy`.
    fn run(
        device: &Device,
        dtype: DType,
        parts: [Vec<f64>; 4],
        t: usize,
        op: impl Op + 'static,
    ) -> Result<Vec<Vec<f64>>> {
        let params = Params::none(device);
        let tape = Tape::new(&params);
        let dims = [DIMS[0], DIMS[1], t, DIMS[3]];
        let tensor = |x: &[f64]| Tensor::from_f64(device, dtype, x, &dims);
        let [q, k, v] = [0, 1, 2].map(|i| tape.leaf(tensor(&parts[i])?));
        let (q, k, v) = (q?, k?, v?);
        let y = tape.apply1(op, &[&q, &k, &v])?;
        let mut grads = crate::tape::Grads::new(&params)?;
        let seed = tensor(&parts[3])?;
        let leaves = tape.backward_from(&[(&y, seed)], &mut grads)?;
        let mut all = vec![y.value().to_f64()?];
        for x in [&q, &k, &v] {
            all.push(leaves.get(x).map_or(Ok(vec![]), Tensor::to_f64)?);
        }
        Ok(all)
    }

    #[test]
    fn stretches_on_a_ring_of_ranks_give_the_attention_of_the_whole_and_its_gradients() {
        let whole = [1, 2, 3, 4].map(values);
        let causal = crate::ops::scaled_dot_product_attention::ScaledDotProductAttention { is_causal: true };
        let want = run(&Device::new_cpu(), DType::F64, whole.clone(), DIMS[2], causal).unwrap();
        for (dtype, device, tolerance) in
            [(DType::F64, "cpu", 1e-12), (DType::F32, "cpu", 2e-5), (DType::F32, "soft:0", 2e-5)]
        {
            for n in [1, 2, 3, 4] {
                let found = threads::run(n, |world| {
                    let group = Group::of(world)?;
                    let t = DIMS[2] / n;
                    let at = group.rank() * t..(group.rank() + 1) * t;
                    let parts = [0, 1, 2, 3].map(|i| tokens(&whole[i], at.clone()));
                    run(&Device::open(device)?, dtype, parts, t, RingAttention(group))
                });
                for (rank, found) in found.into_iter().enumerate() {
                    let at = rank * DIMS[2] / n..(rank + 1) * DIMS[2] / n;
                    for (what, (found, want)) in found.unwrap().iter().zip(&want).enumerate() {
                        let want = tokens(want, at.clone());
                        assert_eq!(found.len(), want.len());
                        let off = found.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                        assert!(off < tolerance, "{dtype} on {device}, rank {rank} of {n}, {what}: {off}");
                    }
                }
            }
        }
    }
}
