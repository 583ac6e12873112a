//! Layout of a packed dataset, and the checks that bytes from outside must pass before any is trusted.
//!
//! ```text
//! 0        preamble, 64 bytes: magic, version, where the header is, file length, CRC32C of all that
//! 64       payload: each field's elements, little-endian, each field starting at a multiple of 64, gaps zero
//! …        header (bincode): fields, splits, vocabulary, licence, CRC32C of each 1 MiB block of the payload;
//!          in version 2 followed by the front ends of fields
//! ```
//!
//! The header stands last so that a set larger than memory is written in one pass. Every byte of the file is
//! under one checksum: the preamble's own, the header's, or that of the payload block it lies in, gaps
//! included.

use crate::data::front_end::FrontEnd;
use crate::error::{Error, Result};
use crate::shape::{DType, MAX_RANK};
use crate::wire;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// First bytes of the file. The high bit and the line ends catch transfers in text mode, as PNG's do.
pub const MAGIC: [u8; 8] = *b"\x93RTD\r\n\x1a\n";
/// Newest version of the layout. A set without front ends is written as version 1, so that its bytes and its identity
/// are what they were before there was a version 2.
pub const VERSION: u32 = 2;
/// Bytes before the payload.
pub const PREAMBLE: u64 = 64;
/// Bytes of payload under one checksum.
pub const BLOCK: u64 = 1 << 20;
/// Alignment of each field's first element in the file.
pub const ALIGN: u64 = 64;
/// Largest header accepted: room for the checksums of 16 TiB.
pub const HEADER_LIMIT: u64 = 64 << 20;
const MAX_FIELDS: usize = 64;

/// What the elements of a field are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `count` samples of one shape.
    Samples,
    /// One stream of `count` tokens, from which windows are drawn.
    Tokens,
}

/// One named array of the set.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Field {
    /// Name, as batches carry it.
    pub name: String,
    /// Samples or a token stream.
    pub kind: Kind,
    /// Element type as stored.
    pub dtype: DType,
    /// Extents of one sample; empty for scalars and token streams.
    pub shape: Vec<u64>,
    /// Number of samples or tokens.
    pub count: u64,
    /// Where the first element is in the file.
    pub offset: u64,
    /// Values must be below this (classes, vocabulary); 0 = any. Checked as they are read.
    pub bound: u32,
    /// With `std`: a batch holds `(stored - mean) / std` as f32. Empty (as stored), one value, or one for
    /// each element of the last axis.
    pub mean: Vec<f32>,
    /// See `mean`. Images have mean 0 and std 255.
    pub std: Vec<f32>,
}

impl Field {
    /// A field of `Kind::Samples`, any values, batched as stored.
    pub fn samples(name: &str, dtype: DType, shape: &[usize]) -> Field {
        Field {
            name: name.into(),
            kind: Kind::Samples,
            dtype,
            shape: shape.iter().map(|&d| d as u64).collect(),
            count: 0,
            offset: 0,
            bound: 0,
            mean: vec![],
            std: vec![],
        }
    }
    /// A token stream whose ids are below `bound`.
    pub fn tokens(dtype: DType, bound: u32) -> Field {
        Field { kind: Kind::Tokens, bound, ..Field::samples("tokens", dtype, &[]) }
    }
    /// Values must be below `bound`.
    pub fn below(self, bound: u32) -> Field {
        Field { bound, ..self }
    }
    /// Batches hold `(stored - mean) / std` as f32.
    pub fn normalised(self, mean: Vec<f32>, std: Vec<f32>) -> Field {
        Field { mean, std, ..self }
    }
    /// True when this field says which samples have a value of the field `name`: see [`Rtd::presence`](super::Rtd::presence).
    pub fn is_presence_of(&self, name: &str) -> bool {
        self.name.strip_suffix("_present") == Some(name)
    }
    /// Extents of one sample.
    pub fn dims(&self) -> Vec<usize> {
        self.shape.iter().map(|&d| d as usize).collect()
    }
    /// Elements of one sample. Never overflows once [`Header::check`] has passed.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
    /// Bytes of one sample.
    pub fn stride(&self) -> u64 {
        self.elements() * self.dtype.size() as u64
    }
    /// Bytes of all samples.
    pub fn bytes(&self) -> u64 {
        self.stride() * self.count
    }

    /// What is wrong with this field, seen alone. Zero extents are refused: with them any count fits in no
    /// bytes.
    fn fault(&self) -> Option<String> {
        let sized = self.shape.iter().try_fold(self.dtype.size() as u64, |n, &d| n.checked_mul(d));
        let total = sized.and_then(|n| n.checked_mul(self.count)).filter(|&n| n <= i64::MAX as u64);
        let last = self.shape.last().copied().unwrap_or(1);
        let statistics = self.mean.len() as u64;
        if self.name.is_empty() {
            Some("has no name".into())
        } else if self.shape.len() >= MAX_RANK {
            Some(format!("has {} axes, at most {} fit beside the batch axis", self.shape.len(), MAX_RANK - 1))
        } else if self.shape.contains(&0) {
            Some(format!("has samples of shape {:?}, which hold nothing", self.shape))
        } else if total.is_none() {
            Some(format!(
                "claims {} samples of shape {:?}, more bytes than a file can hold",
                self.count, self.shape
            ))
        } else if self.kind == Kind::Tokens
            && !(self.shape.is_empty() && matches!(self.dtype, DType::U8 | DType::U16 | DType::I32))
        {
            Some(format!(
                "is a token stream of {} {:?}, but tokens are scalar u8, u16 or i32",
                self.dtype, self.shape
            ))
        } else if self.mean.len() != self.std.len() || !(statistics <= 1 || statistics == last) {
            Some(format!(
                "has {} means and {} deviations for a last axis of {last}",
                self.mean.len(),
                self.std.len()
            ))
        } else if !self.mean.iter().all(|m| m.is_finite())
            || !self.std.iter().all(|s| s.is_normal() && *s > 0.0)
        {
            Some(
                "has a mean or deviation that is not a finite number, or a deviation that is not above 0"
                    .into(),
            )
        } else {
            None
        }
    }
}

/// A named, contiguous range of samples (of tokens, in a token stream).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Split {
    /// `train`, `val` or `test`.
    pub name: String,
    /// First sample.
    pub start: u64,
    /// Number of samples.
    pub count: u64,
}

/// What the words around the numbers say: who made the data, what the ids mean.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct About {
    /// Name of the set.
    pub name: String,
    /// Which recipe packed it, with its version: a cached set of another recipe is packed anew.
    pub recipe: String,
    /// Where the data come from: package, version, file.
    pub source: String,
    /// Licence and the notice that goes with copies.
    pub licence: String,
    /// What was changed or left out on the way.
    pub changes: String,
    /// Text of each token id; empty unless the set is text packed by symbols.
    pub vocabulary: Vec<String>,
    /// Name of each class; empty unless labelled.
    pub classes: Vec<String>,
}

/// Everything but the samples.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Provenance and meaning.
    pub about: About,
    /// The arrays, in file order.
    pub fields: Vec<Field>,
    /// Named ranges of samples.
    pub splits: Vec<Split>,
    /// CRC32C of each [`BLOCK`] of payload.
    pub blocks: Vec<u32>,
    /// SHA-256 of the payload and of this header with `hash` zero: the identity of the set.
    pub hash: [u8; 32],
    /// How a user's own file or text becomes the values of a field: name of the field and what makes them. Behind all
    /// else on disk, and there in version 2 alone.
    #[serde(skip)]
    pub front_ends: Vec<(String, FrontEnd)>,
}

impl Header {
    /// The version that this header is written as.
    pub(crate) fn version(&self) -> u32 {
        if self.front_ends.is_empty() { 1 } else { VERSION }
    }
    /// Its bytes on disk.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        if self.front_ends.is_empty() { wire::encode(self) } else { wire::encode(&(self, &self.front_ends)) }
    }
    /// What makes values of the field `name` of a user's own file or text, where the set says it.
    pub fn front_end(&self, name: &str) -> Option<&FrontEnd> {
        self.front_ends.iter().find(|(field, _)| field == name).map(|(_, f)| f)
    }
    /// Samples (tokens) of the set.
    pub fn count(&self) -> u64 {
        self.fields.first().map_or(0, |f| f.count)
    }
    /// What is wrong with the front ends.
    fn front_end_fault(&self) -> Option<String> {
        self.front_ends.iter().find_map(|(name, front_end)| {
            let field = self.fields.iter().find(|f| f.name == *name);
            let fault = field.map_or_else(|| Some("is of no field".into()), |f| front_end.fault(f));
            fault.map(|fault| format!("the front end of `{name}` {fault}"))
        })
    }
    /// Every rule that the fields, splits and checksums of a set must keep, given the bytes of its payload.
    pub fn check(&self, path: &Path, payload: u64) -> Result<()> {
        let bad =
            |what: String| Err(Error::data(path, None, format!("{what}; pack the set anew from its source")));
        if self.fields.is_empty() || self.fields.len() > MAX_FIELDS {
            return bad(format!("{} fields, 1 to {MAX_FIELDS} are supported", self.fields.len()));
        }
        let mut end = PREAMBLE;
        for (k, f) in self.fields.iter().enumerate() {
            if let Some(fault) = f.fault() {
                return bad(format!("field `{}` {fault}", f.name));
            }
            if self.fields[..k].iter().any(|g| g.name == f.name) {
                return bad(format!("two fields are named `{}`", f.name));
            }
            if f.count != self.count() || (f.kind == Kind::Tokens && self.fields.len() > 1) {
                return bad(format!(
                    "field `{}` of {} samples stands beside one of {}",
                    f.name,
                    f.count,
                    self.count()
                ));
            }
            if !f.offset.is_multiple_of(ALIGN) || f.offset < end || f.offset - end >= ALIGN {
                return bad(format!(
                    "field `{}` begins at byte {}, after one that ends at {end}",
                    f.name, f.offset
                ));
            }
            end = f.offset.saturating_add(f.bytes());
        }
        if let Some(fault) = self.front_end_fault() {
            return bad(fault);
        }
        if end.checked_sub(PREAMBLE) != Some(payload) {
            return bad(format!(
                "the fields end at byte {end}, but the payload ends at {}",
                PREAMBLE + payload
            ));
        }
        if self.blocks.len() as u64 != payload.div_ceil(BLOCK) {
            return bad(format!("{} block checksums for {payload} bytes of payload", self.blocks.len()));
        }
        for (k, s) in self.splits.iter().enumerate() {
            if s.start.checked_add(s.count).is_none_or(|end| end > self.count()) {
                return bad(format!(
                    "split `{}` = {}+{} of {} samples",
                    s.name,
                    s.start,
                    s.count,
                    self.count()
                ));
            }
            if s.name.is_empty() || self.splits[..k].iter().any(|t| t.name == s.name) {
                return bad(format!("split name `{}` is empty or used twice", s.name));
            }
        }
        Ok(())
    }
}

/// The first 64 bytes, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Preamble {
    pub(crate) version: u32,
    /// Where the payload ends and the header begins.
    pub(crate) header_at: u64,
    pub(crate) header_len: u64,
    pub(crate) header_crc: u32,
}

impl Preamble {
    pub(crate) fn encode(&self) -> [u8; PREAMBLE as usize] {
        let mut b = [0; PREAMBLE as usize];
        b[..8].copy_from_slice(&MAGIC);
        b[8..12].copy_from_slice(&self.version.to_le_bytes());
        b[12..16].copy_from_slice(&self.header_crc.to_le_bytes());
        b[16..24].copy_from_slice(&self.header_at.to_le_bytes());
        b[24..32].copy_from_slice(&self.header_len.to_le_bytes());
        let crc = crc32c::crc32c(&b[..60]);
        b[60..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Checks magic, version, checksum and that the parts make up a file of exactly `file_len` bytes.
    pub(crate) fn decode(path: &Path, b: &[u8; PREAMBLE as usize], file_len: u64) -> Result<Preamble> {
        let u32_at = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let u64_at = |i: usize| u32_at(i) as u64 | (u32_at(i + 4) as u64) << 32;
        if b[..8] != MAGIC {
            return Err(Error::data(
                path,
                Some(0),
                "not a packed dataset (*.rtd); make one with `data pack`",
            ));
        }
        let version = u32_at(8);
        if crc32c::crc32c(&b[..60]) != u32_at(60) {
            return Err(Error::data(path, Some(0), "the first 64 bytes are damaged; pack the set anew"));
        }
        if !(1..=VERSION).contains(&version) {
            let what =
                format!("format version {version}, this build reads 1 to {VERSION}; pack the set anew");
            return Err(Error::data(path, Some(8), what));
        }
        let p = Preamble { version, header_crc: u32_at(12), header_at: u64_at(16), header_len: u64_at(24) };
        if p.header_len > HEADER_LIMIT || p.header_at < PREAMBLE {
            let what = format!("a header of {} bytes at {} is out of range", p.header_len, p.header_at);
            return Err(Error::data(path, Some(16), what));
        }
        match p.header_at.checked_add(p.header_len) {
            Some(end) if end == file_len => Ok(p),
            end => Err(Error::data(
                path,
                Some(file_len),
                format!(
                    "the file ends here, but should hold {} bytes; copy it anew",
                    end.unwrap_or(u64::MAX)
                ),
            )),
        }
    }

    /// The header in `bytes`, after its checksum and rules are found right.
    pub(crate) fn header(&self, path: &Path, bytes: &[u8]) -> Result<Header> {
        let at = Some(self.header_at);
        if crc32c::crc32c(bytes) != self.header_crc {
            return Err(Error::data(path, at, "the header is damaged (checksum differs); pack the set anew"));
        }
        let decoded = if self.version == 1 {
            wire::decode::<Header>(bytes, HEADER_LIMIT)
        } else {
            wire::decode::<(Header, Vec<(String, FrontEnd)>)>(bytes, HEADER_LIMIT)
                .map(|(header, front_ends)| Header { front_ends, ..header })
        };
        let header = decoded.map_err(|e| Error::data(path, at, e))?;
        header.check(path, self.header_at - PREAMBLE)?;
        Ok(header)
    }
}
