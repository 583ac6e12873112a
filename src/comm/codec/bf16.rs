//! bf16: every number is rounded to the nearest bf16, ties to even: sign, 8 bits of exponent, 7 of fraction. Half the bytes.
//!
//! The relative error of a rounding is at most 2⁻⁸, and as often up as down, so that no error feedback is kept.

use super::{Entry, OnDevice, Quantiser, TwoPhase};
use crate::kernel::Real;
use crate::{kernel, vectorized};

/// The upper half of an f32.
struct Bf16;

kernel! {
    ptx "bf16";
    /// bytes [2n] of the upper halves of x [n].
    pub(super) static ENCODE = bf16_encode(x: in T, bytes: out u8) blocks(x.div_ceil(256));
    /// Back.
    pub(super) static DECODE = bf16_decode(bytes: in u8, x: out T);
}

fn bf16_encode<T: Real>(x: &[T], bytes: &mut [u8]) {
    let x: Vec<f32> = x.iter().map(|x| x.f64() as f32).collect();
    Bf16.encode(&x, bytes);
}

fn bf16_decode<T: Real>(bytes: &[u8], x: &mut [T]) {
    let mut back = vec![0.0; x.len()];
    Bf16.decode(bytes, &mut back);
    x.iter_mut().zip(back).for_each(|(x, back)| *x = T::of(f64::from(back)));
}

vectorized! {
    fn round(x: &[f32], halves: &mut [[u8; 2]]) {
        for (half, x) in halves.iter_mut().zip(x) {
            let bits = x.to_bits();
            // A NaN stays one, also where only its lower half said so. The sum does not overflow: larger bits are NaNs.
            let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
            *half = (if x.is_nan() { bits >> 16 | 0x40 } else { nearest >> 16 } as u16).to_le_bytes();
        }
    }
    fn widen(halves: &[[u8; 2]], x: &mut [f32]) {
        for (x, &half) in x.iter_mut().zip(halves) {
            *x = f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16);
        }
    }
}

impl Quantiser for Bf16 {
    fn bytes(&self, n: usize) -> usize {
        2 * n
    }
    fn encode(&self, x: &[f32], bytes: &mut [u8]) {
        round(x, bytes.as_chunks_mut().0);
    }
    fn decode(&self, bytes: &[u8], x: &mut [f32]) {
        widen(bytes.as_chunks().0, x);
    }
    fn on_device(&self) -> Option<OnDevice> {
        Some(OnDevice { encode: &ENCODE, decode: &DECODE, chunk: None })
    }
}

/// bf16 in the table of codecs.
pub(super) static ENTRY: Entry = Entry {
    name: "bf16",
    doc: "rounds to bf16: half the bytes, relative errors of at most 2^-8 a rounding",
    attrs: &[],
    build: |_| Ok(Box::new(TwoPhase::new(Bf16, false))),
};

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn numbers_are_rounded_as_by_the_crate_half() {
        let edges = (0..=u16::MAX).flat_map(|upper| {
            [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|lower| f32::from_bits(u32::from(upper) << 16 | lower))
        });
        let x: Vec<f32> = edges.collect();
        let (mut bytes, mut back) = (vec![0; 2 * x.len()], vec![0.0; x.len()]);
        Bf16.encode(&x, &mut bytes);
        Bf16.decode(&bytes, &mut back);
        for (x, back) in x.iter().zip(back) {
            assert_eq!(back.to_bits(), bf16::from_f32(*x).to_f32().to_bits(), "{x} ({:x})", x.to_bits());
        }
    }
}
