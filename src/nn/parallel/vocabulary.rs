//! A vocabulary that ranks share: the rows of its embedding, its logits, and the cross-entropy over them, without any rank
//! ever having the logits of all symbols.
//!
//! Of a token with logits z, of which rank i has z_i, and target t:
//!   loss = ln Σ_i Σ e^{z_i − M} + M − z_t,   M = max_i max z_i
//! so ranks exchange three numbers a token: the largest, the sum, and the target's own from the rank that has it.

use super::Share;
use crate::error::{Error, Result};
use crate::ops::ids::check_ids;
use crate::shape::DType;
use crate::tape::{Cut, Var};
use crate::tensor::Tensor;
use std::ops::Range;

/// A rank's part of the symbols.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// The ranks.
    pub share: Share,
    /// The symbols of this one.
    pub symbols: Range<usize>,
    /// Number of all.
    all: usize,
}

impl Vocabulary {
    /// Of `symbols` in all; None where no other rank has some of them.
    ///
    /// # Errors
    /// When there are fewer than ranks, or too many.
    pub fn shared(symbols: usize, share: &Share) -> Result<Option<Vocabulary>> {
        if share.size == 1 {
            return Ok(None);
        }
        if symbols < share.size {
            let what = format!(
                "is {}, but the data have {symbols} symbols only; take at most as many ranks",
                share.size
            );
            return Err(Error::config("mesh.tensor", what));
        }
        let all = symbols;
        let symbols = Cut::new(&[all], 0, 1, share.place())?.range();
        Ok(Some(Vocabulary { share: share.clone(), symbols, all }))
    }

    /// Which of `ids` [..] of `op` this rank has: as row among its own, 0 for others; and 1 or 0.
    fn own(&self, op: &'static str, ids: &Tensor, ignore: Option<i32>) -> Result<(Vec<i32>, Vec<f64>)> {
        let host = ids.to_host()?;
        check_ids(op, &host, self.all, ignore)?;
        let of = |id: &i32| {
            let own = usize::try_from(*id).ok().filter(|id| self.symbols.contains(id));
            (own.map_or(0, |id| (id - self.symbols.start) as i32), f64::from(u8::from(own.is_some())))
        };
        Ok(host.as_slice::<i32>()?.iter().map(of).unzip())
    }

    /// Rows of `weight` [symbols here, dim] for `ids` [..], those of other ranks' symbols taken from them: [.., dim].
    ///
    /// # Errors
    /// An id outside the vocabulary, and those of the group.
    pub fn embed<'t>(&self, ids: &Var<'t>, weight: &Var<'t>) -> Result<Var<'t>> {
        let (tape, device) = (ids.tape(), ids.value().device());
        let (rows, own) = self.own("embedding", ids.value(), None)?;
        let rows = tape.constant(Tensor::from_slice(device, &rows, ids.dims())?);
        let mut dims = ids.dims().to_vec();
        dims.push(1);
        let own = tape.constant(Tensor::from_f64(device, weight.value().dtype(), &own, &dims)?);
        self.share.reduce(&rows.embedding(weight)?.mul(&own)?)
    }

    /// The mean cross-entropy of `logits` [.., symbols here] against `target` [..], of all targets but `ignore`: the same number on
    /// every rank.
    ///
    /// # Errors
    /// A target of another type or count or outside the vocabulary, and those of the group.
    pub fn cross_entropy<'t>(&self, logits: &Var<'t>, target: &Tensor, ignore: i32) -> Result<Var<'t>> {
        let (tape, device, dtype) = (logits.tape(), logits.value().device(), logits.value().dtype());
        let classes = logits.shape().last();
        let n = logits.value().len() / classes.max(1);
        if target.dtype() != DType::I32 || target.len() != n {
            let what = format!("targets are {}, but {n} of type i32 are needed", target.spec());
            return Err(Error::shape("cross_entropy", what));
        }
        let (rows, own) = self.own("cross_entropy", target, Some(ignore))?;
        let host = target.to_host()?;
        let counts: Vec<f64> =
            host.as_slice::<i32>()?.iter().map(|t| f64::from(u8::from(*t != ignore))).collect();
        let of = counts.iter().sum::<f64>().max(1.0);
        let column = |x: Vec<f64>| -> Result<Var<'t>> {
            Ok(tape.constant(Tensor::from_f64(device, dtype, &x, &[n, 1])?))
        };
        let z = logits.reshape(&[n, classes])?;
        let top = self.share.largest(&z.detach().amax(&[-1], true)?)?;
        let z = z.sub(&top)?;
        let at = tape.constant(Tensor::from_slice(device, &rows, &[n, 1])?);
        let mine = z.gather(-1, &at)?.mul(&column(own)?)?;
        // One message for both.
        let both = Var::cat(&[&z.exp()?.sum_over(&[-1], true)?, &mine], 1)?;
        let both = self.share.reduce(&both)?;
        let loss = both.narrow(1, 0, 1)?.log()?.sub(&both.narrow(1, 1, 1)?)?;
        loss.mul(&column(counts.iter().map(|c| c / of).collect())?)?.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn every_rank_has_symbols_and_an_id_that_none_has_is_an_error() {
        let share = |rank, size| Share { rank, size, group: None };
        let e = Vocabulary::shared(3, &share(0, 4)).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains("mesh.tensor"), "{e}");
        assert!(Vocabulary::shared(3, &share(0, 1)).unwrap().is_none());
        let own = Vocabulary::shared(5, &share(1, 2)).unwrap().unwrap();
        assert_eq!(own.symbols, 2..5);
        let ids = |x: &[i32]| Tensor::from_slice(&Device::new_cpu(), x, &[x.len()]).unwrap();
        assert_eq!(own.own("embedding", &ids(&[1, 4, 2]), None).unwrap().0, [0, 2, 0]);
        for bad in [5, -1] {
            let e = own.own("embedding", &ids(&[0, bad]), None).unwrap_err();
            assert!(e.exit_code() == 4 && e.to_string().contains(&bad.to_string()), "{e}");
        }
        assert!(own.own("cross_entropy", &ids(&[0, -100]), Some(-100)).is_ok());
    }
}
