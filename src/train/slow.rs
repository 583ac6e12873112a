//! A rank that is made slow, for experiments: `RINGTAPE_SLOW=RANK:FACTOR` (several with commas between) has that rank sleep after each
//! forward and backward pass, until it has taken FACTOR times as long.

use super::Team;
use crate::error::{Error, Result};
use std::time::Instant;

/// The variable.
const VARIABLE: &str = "RINGTAPE_SLOW";

/// How much longer this rank takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slow(f64);

impl Slow {
    /// For `rank`, from the environment by `get` of a variable's name.
    ///
    /// # Errors
    /// A text that says no ranks and factors.
    pub(super) fn from_variables(rank: usize, get: impl Fn(&str) -> Option<String>) -> Result<Slow> {
        let Some(text) = get(VARIABLE).filter(|text| !text.trim().is_empty()) else { return Ok(Slow(0.0)) };
        let one = |word: &str| {
            let (at, factor) = word.split_once(':')?;
            let factor = factor.trim().parse::<f64>().ok().filter(|f| (1.0..=1000.0).contains(f))?;
            Some((at.trim().parse::<usize>().ok()?, factor))
        };
        let mut own = 1.0;
        for word in text.split(',') {
            let what = || {
                format!("{VARIABLE}={text}: write it as RANK:FACTOR, with a factor of 1 to 1000, such as 1:3")
            };
            let (at, factor) = one(word).ok_or_else(|| Error::Usage(what()))?;
            own = if at == rank { factor } else { own };
        }
        Ok(Slow(own - 1.0))
    }
}

impl Team {
    /// Makes work that this rank did since `from` take as long as it is told to take.
    pub(super) fn lag(&self, from: Instant) {
        if self.slow.0 > 0.0 {
            std::thread::sleep(from.elapsed().mul_f64(self.slow.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_ranks_and_factors() {
        let of = |rank, text: &str| Slow::from_variables(rank, |_| Some(text.into()));
        assert_eq!(of(1, "1:3").unwrap(), Slow(2.0));
        assert_eq!(of(0, "1:3").unwrap(), Slow(0.0));
        assert_eq!(of(2, "1:3, 2:1.5").unwrap(), Slow(0.5));
        assert_eq!(Slow::from_variables(0, |_| None).unwrap(), Slow::default());
        for bad in ["3", "1:", "x:3", "1:0.5", "1:nan", "1:3,"] {
            let e = of(0, bad).unwrap_err().to_string();
            assert!(e.contains("RINGTAPE_SLOW") && e.contains("1:3"), "{bad}: {e}");
        }
    }
}
