//! The secret that the ranks of a job share: who knows it belongs to the job. It never goes over the wire; what goes is an
//! HMAC-SHA-256 (RFC 2104) of numbers that both sides drew for this one connection, so that a recorded answer is worth
//! nothing. It proves who is there at the start. What follows is neither encrypted nor signed: on a network where others
//! can change packets, run the job inside a tunnel.

use crate::error::{Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::io::Read;

/// Variable that holds the secret.
pub const VARIABLE: &str = "RINGTAPE_SECRET";
/// Variable that names a file with the secret.
pub const FILE: &str = "RINGTAPE_SECRET_FILE";
/// Fewer bytes could be guessed.
const SHORTEST: usize = 8;

/// The job's secret.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// The secret `text`, of at least 8 bytes.
    pub fn new(text: &[u8]) -> Result<Secret> {
        let text = text.trim_ascii();
        if text.len() < SHORTEST {
            let n = text.len();
            return Err(Error::Usage(format!("the secret has {n} bytes, and needs at least {SHORTEST}")));
        }
        Ok(Secret(text.to_vec()))
    }

    /// A key that was drawn.
    pub(super) fn of(key: &[u8; 32]) -> Secret {
        Secret(key.to_vec())
    }

    /// A new one, as text for [`VARIABLE`].
    pub fn draw() -> Result<String> {
        Ok(random::<16>()?.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// From the environment, by `get` of a variable's name.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Secret> {
        match (get(VARIABLE), get(FILE)) {
            (Some(text), _) => Secret::new(text.as_bytes()),
            (None, Some(path)) => Secret::new(&std::fs::read(&path).map_err(|e| Error::io(path, e))?),
            (None, None) => Err(Error::Usage(format!(
                "ranks share a secret, so that no stranger joins: set {VARIABLE} or {FILE} alike on all of them \
                 (`ringtape launch` does)"
            ))),
        }
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        // HMAC takes keys of any length.
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).unwrap_or_else(|_| unreachable!());
        for part in parts {
            // Lengths go in too, so that no two lists of parts give the same bytes.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }

    /// What only who knows the secret can make of `parts`.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Whether `signature` is that of `parts`, in a time that does not depend on where it differs.
    pub fn verify(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.mac(parts).verify_slice(signature).is_ok()
    }
}

/// Bytes that nobody can guess, from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    const SOURCE: &str = "/dev/urandom";
    let mut bytes = [0; N];
    let read = std::fs::File::open(SOURCE).and_then(|mut f| f.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|e| Error::io(SOURCE, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2, but for the lengths: so the parts are checked against each other only.
    #[test]
    fn signatures_tell_parts_and_keys_apart() {
        let (a, b) = (Secret::new(b"long enough").unwrap(), Secret::new(b"another one").unwrap());
        let s = a.sign(&[b"x", b"yz"]);
        assert!(a.verify(&[b"x", b"yz"], &s));
        assert!(!a.verify(&[b"xy", b"z"], &s) && !b.verify(&[b"x", b"yz"], &s));
        assert!(!a.verify(&[b"x", b"yz"], &s[..31]));
        assert!(Secret::new(b" short \n").is_err());
        assert_ne!(Secret::draw().unwrap(), Secret::draw().unwrap());
        assert_eq!(format!("{a:?}"), "Secret(…)");
    }

    #[test]
    fn hmac_is_that_of_the_rfc() {
        // RFC 4231, test case 2: key "Jefe", data "what do ya want for nothing?".
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(b"Jefe").unwrap();
        mac.update(b"what do ya want for nothing?");
        let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
