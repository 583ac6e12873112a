//! `state.bin`: what a snapshot holds that is no tensor. Magic `RTSNAP\x00\x03`, u64 length, SHA-256 of what follows, then
//! [`State`] in the wire format. Files of version 1, which end with the checksums, and 2, which know of no codec, are read too.

use super::Config;
use crate::data::Cursor;
use crate::error::Result;
use crate::optim::{gvc, noise};
use crate::wire;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"RTSNAP\x00\x03";
/// Magic of version 1.
const FIRST: &[u8; 8] = b"RTSNAP\x00\x01";
/// Magic of version 2.
const SECOND: &[u8; 8] = b"RTSNAP\x00\x02";
/// Largest `state.bin` that is decoded.
const LIMIT: u64 = 1 << 20;

/// What a run needs besides weights and optimizer arrays to go on bit by bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done. Random numbers are keyed by it, so it is all the state that they have.
    pub step: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Where the data go on.
    pub cursor: Cursor,
    /// Bytes of metrics.jsonl that belong to the steps done.
    pub metrics_bytes: u64,
    /// Step and value of the lowest held-out loss so far.
    pub best: Option<(u64, f64)>,
    /// Name of the optimizer.
    pub optimizer: String,
    /// Steps that the optimizer counts.
    pub optimizer_steps: u64,
    /// SHA-256 of the two files of tensors.
    pub(super) sums: [[u8; 32]; 2],
    /// Numbers that the optimizer remembers.
    pub numbers: Vec<f64>,
    /// What the controller of the learning rate remembers.
    pub controller: Option<gvc::State>,
    /// Averages of the gradient noise scale.
    pub noise: Option<noise::State>,
    /// Whose the file of what each rank keeps is, where there is one.
    pub codec: Option<Kept>,
}

/// What each rank keeps: a codec, of what it has not sent yet, or ranks that step apart, of their optimizers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The codec, or the mode.
    pub name: String,
    /// Number of ranks.
    pub ranks: u64,
    /// SHA-256 of the file.
    pub(super) sum: [u8; 32],
}

impl Kept {
    /// What `ranks` ranks keep under `name`.
    pub(super) fn new(name: &str, ranks: u64) -> Kept {
        Kept { name: name.into(), ranks, sum: [0; 32] } // the sum is filled in by save
    }
}

impl State {
    /// The state after `step` steps.
    pub fn new(
        step: u64,
        config: &Config,
        cursor: Cursor,
        metrics_bytes: u64,
        best: Option<(u64, f64)>,
    ) -> State {
        let optimizer = config.optimizer.name.clone();
        let (optimizer_steps, sums) = (0, [[0; 32]; 2]); // filled in by save
        let (seed, numbers, controller, noise, codec) = (config.seed, vec![], None, None, None);
        State {
            step,
            seed,
            cursor,
            metrics_bytes,
            best,
            optimizer,
            optimizer_steps,
            sums,
            numbers,
            controller,
            noise,
            codec,
        }
    }
}

pub(super) fn encode(state: &State) -> Result<Vec<u8>> {
    let body = wire::encode(state)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(Sha256::digest(&body));
    bytes.extend(body);
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8]) -> std::result::Result<State, String> {
    let version = [FIRST, SECOND, MAGIC].into_iter().position(|magic| bytes.starts_with(magic));
    let version = version.ok_or("is not a state.bin of this version of ringtape")?;
    let rest = &bytes[MAGIC.len()..];
    let (length, rest) = rest.split_at_checked(8).ok_or("is cut short")?;
    let (sum, body) = rest.split_at_checked(32).ok_or("is cut short")?;
    if length != (body.len() as u64).to_le_bytes() {
        return Err("is cut short or has bytes too many".into());
    }
    if Sha256::digest(body)[..] != *sum {
        return Err("is damaged (its checksum differs)".into());
    }
    // Version 1 had nothing behind the checksums: no number of an optimizer, no controller, no noise scale; version 2 no codec.
    let nothing = (Vec::<f64>::new(), None::<gvc::State>, None::<noise::State>);
    let added = [wire::encode(&nothing), wire::encode(&None::<Kept>)];
    let added = added.into_iter().skip(version).collect::<Result<Vec<_>>>().map_err(|e| e.to_string())?;
    wire::decode(&[body, &added.concat()].concat(), LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_all_versions_are_read() {
        let cursor = Cursor { seed: 1, epoch: 2, sample_in_epoch: 3, dataset: [4; 32] };
        let plain = State::new(7, &Config::default(), cursor, 99, Some((5, 1.5)));
        let kept = Kept { name: "int8".into(), ranks: 4, sum: [3; 32] };
        let now = State { codec: Some(kept), ..plain.clone() };
        assert_eq!(decode(&encode(&now).unwrap()).unwrap(), now);
        let bytes = encode(&plain).unwrap();
        let whole = &bytes[48..];
        // Each None is one byte, and so is each of the 8 of the length of no numbers.
        for (magic, cut) in [(SECOND, 1), (FIRST, 1 + 2 + 8)] {
            let body = &whole[..whole.len() - cut];
            let mut old = magic.to_vec();
            old.extend((body.len() as u64).to_le_bytes());
            old.extend(Sha256::digest(body));
            old.extend(body);
            assert_eq!(decode(&old).unwrap(), plain, "{magic:?}");
        }
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
