//! Ranks that should have the same weights do have them: their hashes are compared now and then.

use super::Team;
use crate::error::{Error, Result};
use crate::tape::Params;
use sha2::{Digest, Sha256};

/// Steps between comparisons of weights.
const COMPARE: u64 = 100;

impl Team {
    /// Steps between comparisons of weights; 0: never.
    pub(super) fn compare_every(&self) -> u64 {
        if self.size() > 1 { COMPARE } else { 0 }
    }

    /// Errors, on all ranks and with exit code 17, when ranks have different weights.
    pub(super) fn compare(&self, step: u64, params: &Params) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let mut hash = Sha256::new();
        for i in 0..params.segments().len() {
            hash.update(params.segment(i).to_host()?.as_bytes()?);
        }
        let all = self.gather(hash.finalize().to_vec())?;
        let all: Vec<&[u8]> = all.chunks(32).collect();
        // Ranks that share a model have different parts of it.
        let other: Vec<String> =
            (0..self.size()).filter(|&r| all[r] != all[self.first_like(r)]).map(|r| r.to_string()).collect();
        if other.is_empty() {
            return Ok(());
        }
        let what =
            format!("after step {step} the weights of rank {} are not those of rank 0", other.join(", "));
        Err(Error::RanksDisagree(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::device::Device;
    use crate::shape::DType;
    use crate::tape::{Init, ParamsBuilder, Role};

    #[test]
    fn other_weights_on_a_rank_are_noticed_by_all_and_rank_0_has_the_last_word_at_the_start() {
        let ends = threads::run(3, |world| {
            let team = Team::of(world)?;
            let mut b = ParamsBuilder::new(&Device::new_cpu(), DType::F32, 1);
            let value = if team.rank() == 2 { 3.0 } else { 1.0 };
            b.add("w", &[4], Init::Constant(value), Role::Decay)?;
            let mut params = b.build()?;
            let unlike = team.compare(100, &params).unwrap_err();
            assert_eq!(unlike.exit_code(), 17);
            let text = unlike.to_string();
            assert!(text.contains("step 100") && text.contains("rank 2 are not"), "{text}");
            team.spread(&mut params)?;
            team.compare(101, &params)?;
            params.segment(0).to_f64()
        });
        for end in ends {
            assert_eq!(end.unwrap()[..4], [1.0; 4]);
        }
    }
}
