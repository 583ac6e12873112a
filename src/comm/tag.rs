//! What a rank is doing, in 40 bytes: carried by every message, so that a rank that does something else is told at once.

use crate::shape::DType;

/// A call of MPI's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
#[allow(missing_docs)] // the names say it
pub enum Call {
    Send,
    Barrier,
    Broadcast,
    Reduce,
    AllReduce,
    ReduceScatter,
    AllGather,
    AllToAll,
    Split,
}

const CALLS: [(Call, &str); 9] = [
    (Call::Send, "send"),
    (Call::Barrier, "barrier"),
    (Call::Broadcast, "broadcast"),
    (Call::Reduce, "reduce"),
    (Call::AllReduce, "all_reduce"),
    (Call::ReduceScatter, "reduce_scatter"),
    (Call::AllGather, "all_gather"),
    (Call::AllToAll, "all_to_all"),
    (Call::Split, "split"),
];
const DTYPES: [DType; 7] =
    [DType::F32, DType::F64, DType::I32, DType::U8, DType::U16, DType::Bf16, DType::F16];

/// How numbers of ranks become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Reduce {
    /// x₀ + x₁ + …
    Sum,
    /// The largest; NaN where there is one.
    Max,
    /// The sum over the number of ranks; of real numbers only.
    Mean,
}

const REDUCES: [(Reduce, &str); 3] = [(Reduce::Sum, "sum"), (Reduce::Max, "max"), (Reduce::Mean, "mean")];

/// The way that data take between ranks. It changes the order of a sum, and so its last bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Algorithm {
    /// Round the ring: least bytes, 2(p−1) waits.
    Ring,
    /// By doubling distances: least waits, more bytes.
    Tree,
}

/// Which call, of which communicator, on what: equal on every rank that takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Tag {
    /// The communicator.
    pub context: u32,
    /// Number of the collective in its communicator; 0 for a message between two ranks.
    pub sequence: u64,
    /// The call.
    pub call: Call,
    /// Type of the elements.
    pub dtype: DType,
    /// How they are reduced; None where nothing is.
    pub reduce: Option<Reduce>,
    /// The way.
    pub algorithm: Algorithm,
    /// Root of a broadcast or reduce, tag of a message; else 0.
    pub root: u32,
    /// Elements that each rank passed.
    pub count: u64,
}

impl Tag {
    /// Bytes of a tag in a message.
    pub(super) const BYTES: usize = 32;

    /// As bytes, little-endian.
    pub(super) fn encode(&self) -> [u8; Tag::BYTES] {
        let mut b = [0; Tag::BYTES];
        b[0..4].copy_from_slice(&self.context.to_le_bytes());
        b[4..12].copy_from_slice(&self.sequence.to_le_bytes());
        b[12] = self.call as u8;
        b[13] = self.dtype as u8;
        b[14] = self.reduce.map_or(0, |r| r as u8 + 1);
        b[15] = self.algorithm as u8;
        b[16..20].copy_from_slice(&self.root.to_le_bytes());
        b[20..28].copy_from_slice(&self.count.to_le_bytes());
        b
    }

    /// From bytes; None where they are no tag.
    pub(super) fn decode(b: &[u8; Tag::BYTES]) -> Option<Tag> {
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let reduce = match b[14] {
            0 => None,
            n => Some(REDUCES.get(n as usize - 1)?.0),
        };
        Some(Tag {
            context: u32_at(0),
            sequence: u64_at(4),
            call: CALLS.get(b[12] as usize)?.0,
            dtype: *DTYPES.get(b[13] as usize)?,
            reduce,
            algorithm: *[Algorithm::Ring, Algorithm::Tree].get(b[15] as usize)?,
            root: u32_at(16),
            count: u64_at(20),
        })
    }

    /// Two ranks stand at the same place of one communicator and do different things.
    pub(super) fn contradicts(&self, other: &Tag) -> bool {
        self.context == other.context && self.sequence == other.sequence && self != other
    }
}

impl std::fmt::Display for Tag {
    /// `all_reduce(sum) of 100 f32 by ring, the 7th call of communicator 0`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(CALLS[self.call as usize].1)?;
        if let Some(r) = self.reduce {
            write!(f, "({})", REDUCES[r as usize].1)?;
        }
        match self.call {
            Call::Barrier => {}
            Call::Split => write!(f, " of {} ranks", self.count)?,
            _ => write!(f, " of {} {}", self.count, self.dtype)?,
        }
        match self.call {
            Call::Broadcast | Call::Reduce => write!(f, " with root {}", self.root)?,
            Call::Send => write!(f, " with tag {}", self.root)?,
            _ => {}
        }
        if matches!(self.call, Call::Broadcast | Call::Reduce | Call::AllReduce) {
            write!(f, " by {}", if self.algorithm == Algorithm::Ring { "ring" } else { "tree" })?;
        }
        if self.call != Call::Send {
            write!(f, ", call {}", self.sequence)?;
        }
        if self.context != 0 {
            write!(f, " of communicator {:08x}", self.context)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_and_garbage_does_not() {
        for (call, _) in CALLS {
            for dtype in DTYPES {
                for reduce in [None, Some(Reduce::Sum), Some(Reduce::Max), Some(Reduce::Mean)] {
                    let tag = Tag {
                        context: 0x8123_4567,
                        sequence: 0x8123_4567_89ab_cdef,
                        call,
                        dtype,
                        reduce,
                        algorithm: Algorithm::Tree,
                        root: 0xfedc_ba98,
                        count: 0xfedc_ba98_7654_3210,
                    };
                    assert_eq!(Tag::decode(&tag.encode()), Some(tag));
                }
            }
        }
        assert_eq!(Tag::decode(&[0xff; Tag::BYTES]), None);
    }

    #[test]
    fn names_stand_in_the_order_of_their_codes() {
        for (i, (call, _)) in CALLS.iter().enumerate() {
            assert_eq!(*call as usize, i);
        }
        for (i, d) in DTYPES.iter().enumerate() {
            assert_eq!(*d as usize, i);
        }
        for (i, (r, _)) in REDUCES.iter().enumerate() {
            assert_eq!(*r as usize, i);
        }
    }
}
