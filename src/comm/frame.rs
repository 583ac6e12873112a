//! A piece of a message on its way between processes: 64 bytes of head, then the bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `RTF1` |
//! | 4..36 | [`Tag`] |
//! | 36..44 | bytes of the whole message |
//! | 44..52 | where in it this piece begins |
//! | 52..56 | bytes of this piece |
//! | 56..60 | CRC-32 of them |
//! | 60..64 | CRC-32 of the 60 bytes before |
//!
//! TCP's own sum does not see two 16-bit words that changed places; a CRC does.

use super::tag::Tag;

/// Bytes of a head.
pub(super) const HEAD: usize = 64;
const MAGIC: [u8; 4] = *b"RTF1";

/// What a head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) tag: Tag,
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
}

impl Head {
    /// Of `piece`, which begins at `offset` of a message of `total` bytes.
    pub(super) fn of(tag: Tag, total: usize, offset: usize, piece: &[u8]) -> Head {
        let (total, offset, len) = (total as u64, offset as u64, piece.len() as u32);
        Head { tag, total, offset, len, crc: crc32fast::hash(piece) }
    }

    /// As bytes.
    pub(super) fn encode(&self) -> [u8; HEAD] {
        let mut b = [0; HEAD];
        b[..4].copy_from_slice(&MAGIC);
        b[4..36].copy_from_slice(&self.tag.encode());
        b[36..44].copy_from_slice(&self.total.to_le_bytes());
        b[44..52].copy_from_slice(&self.offset.to_le_bytes());
        b[52..56].copy_from_slice(&self.len.to_le_bytes());
        b[56..60].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32fast::hash(&b[..60]);
        b[60..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// From bytes; None where they were damaged.
    pub(super) fn decode(b: &[u8; HEAD]) -> Option<Head> {
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if b[..4] != MAGIC || u32_at(60) != crc32fast::hash(&b[..60]) {
            return None;
        }
        let tag = Tag::decode(b[4..36].try_into().ok()?)?;
        Some(Head { tag, total: u64_at(36), offset: u64_at(44), len: u32_at(52), crc: u32_at(56) })
    }

    /// Whether `piece` arrived as it was sent.
    pub(super) fn fits(&self, piece: &[u8]) -> bool {
        piece.len() == self.len as usize && crc32fast::hash(piece) == self.crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Algorithm, Call, Reduce};
    use crate::shape::DType;

    #[test]
    fn every_flipped_bit_and_every_two_words_that_change_places_are_seen() {
        let (call, dtype, reduce) = (Call::AllReduce, DType::F32, Some(Reduce::Sum));
        let tag = Tag {
            context: 1,
            sequence: 2,
            call,
            dtype,
            reduce,
            algorithm: Algorithm::Ring,
            root: 0,
            count: 9,
        };
        let piece: Vec<u8> = (0..100).map(|i| (i * 37 + 11) as u8).collect();
        let head = Head::of(tag, 400, 200, &piece);
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Some(head));
        for bit in 0..8 * HEAD {
            let mut b = bytes;
            b[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&b), None, "bit {bit}");
        }
        assert!(head.fits(&piece) && !head.fits(&piece[1..]));
        for at in (0..96).step_by(2) {
            let mut p = piece.clone();
            p.swap(at, at + 2);
            p.swap(at + 1, at + 3);
            assert!(!head.fits(&p), "words at {at}");
        }
    }
}
