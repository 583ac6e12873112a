//! The one place that knows bincode: small metadata to bytes and back, always with a limit.
//!
//! bincode is frozen at 1.3.3 (3.0.0 is a tombstone that does not compile), so whoever swaps it touches this
//! file alone; the golden bytes below say what must not change. Two rules keep hostile bytes harmless: they
//! are decoded from a slice under a limit, and no type on the wire has zero-sized elements, since a `Vec<()>`
//! of 2^60 announced items slips past any limit. Bulk data (tensors, samples) never pass through here.

use crate::error::{Error, Result};
use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

fn options(limit: u64) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(limit).reject_trailing_bytes()
}

/// Bytes of `value`: little-endian, fixed-width integers, lengths as u64.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    options(u64::MAX).serialize(value).map_err(|e| Error::Usage(format!("metadata cannot be encoded: {e}")))
}

/// The value that `bytes` hold, all of them. A length that claims more than `limit` bytes is an error before
/// any memory is taken for it. The error is a text: the caller knows the file and adds it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: u64) -> std::result::Result<T, String> {
    if bytes.len() as u64 > limit {
        return Err(format!("metadata of {} bytes, at most {limit} are accepted", bytes.len()));
    }
    options(limit).deserialize(bytes).map_err(|e| format!("metadata does not decode: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Sample {
        name: String,
        count: u64,
        shape: Vec<u32>,
        kind: Option<bool>,
    }

    fn sample() -> Sample {
        Sample { name: "ab".into(), count: 7, shape: vec![3, 4], kind: Some(true) }
    }

    /// What files hold. If this fails, old files no longer open.
    #[test]
    fn golden_bytes() {
        let bytes = encode(&sample()).unwrap();
        #[rustfmt::skip]
        let want = [
            2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', 7, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 1, 1,
        ];
        assert_eq!(bytes, want);
        assert_eq!(decode::<Sample>(&bytes, 1024).unwrap(), sample());
    }

    #[test]
    fn truncated_and_trailing_bytes_are_errors() {
        let bytes = encode(&sample()).unwrap();
        for n in 0..bytes.len() {
            assert!(decode::<Sample>(&bytes[..n], 1024).is_err(), "{n}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(decode::<Sample>(&longer, 1024).is_err());
    }

    #[test]
    fn absurd_lengths_are_errors_before_memory_is_taken() {
        let mut bytes = encode(&sample()).unwrap();
        for at in [0, 18] {
            for huge in [u64::MAX, 1 << 60, 1 << 40, 1025] {
                let saved: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
                bytes[at..at + 8].copy_from_slice(&huge.to_le_bytes());
                assert!(decode::<Sample>(&bytes, 1024).is_err(), "{huge} at {at}");
                bytes[at..at + 8].copy_from_slice(&saved);
            }
        }
        assert!(decode::<Sample>(&bytes, 8).unwrap_err().contains("at most 8"));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(0u8.., 0..200)) {
            let _ = decode::<Sample>(&bytes, 1 << 20);
        }
    }
}
