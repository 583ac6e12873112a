//! bf16: every number is rounded to the nearest bf16, ties to even: sign, 8 bits of exponent, 7 of fraction. Half the bytes.
//!
//! The relative error of a rounding is at most 2⁻⁸, and as often up as down, so that no error feedback is kept.

use super::{Entry, Quantiser, TwoPhase};
use half::bf16;

/// The upper half of an f32.
struct Bf16;

impl Quantiser for Bf16 {
    fn bytes(&self, n: usize) -> usize {
        2 * n
    }
    fn encode(&self, x: &[f32], bytes: &mut [u8]) {
        let halves = bytes.as_chunks_mut::<2>().0;
        halves.iter_mut().zip(x).for_each(|(b, &x)| *b = bf16::from_f32(x).to_le_bytes());
    }
    fn decode(&self, bytes: &[u8], x: &mut [f32]) {
        let halves = bytes.as_chunks::<2>().0;
        x.iter_mut().zip(halves).for_each(|(x, &b)| *x = bf16::from_le_bytes(b).to_f32());
    }
}

/// bf16 in the table of codecs.
pub(super) static ENTRY: Entry = Entry {
    name: "bf16",
    doc: "rounds to bf16: half the bytes, relative errors of at most 2^-8 a rounding",
    attrs: &[],
    build: |_| Ok(Box::new(TwoPhase::new(Bf16, false))),
};
