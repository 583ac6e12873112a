//! int8: chunks of numbers as signed bytes, x ≈ s·q with q = round(x/s) from −127 to 127 and s = max|x| / 127 of the chunk.
//!
//! The error of a number is at most s/2, evenly spread: s/√12 by root mean square. Of 256 normal numbers the largest is 3.07 standard
//! deviations, by root mean square, which makes .0070 of the numbers' own. Bytes: 1 + 4/256 for each, 3.94 times fewer than f32 has.

use super::{Entry, FEEDBACK, OnDevice, Quantiser, TwoPhase, chunk, chunks_of};
use crate::kernel::Real;
use crate::{kernel, vectorized};

/// Chunks of so many numbers.
struct Int8 {
    chunk: usize,
}

kernel! {
    ptx "int8";
    /// bytes of x [n]: scales, then codes.
    pub(super) static ENCODE = int8_encode(x: in T, bytes: out u8, chunk: val size) blocks(x.div_ceil(chunk.max(1)).div_ceil(8));
    /// Back.
    pub(super) static DECODE = int8_decode(bytes: in u8, x: out T, chunk: val size);
}

fn int8_encode<T: Real>(x: &[T], bytes: &mut [u8], chunk: usize) {
    let x: Vec<f32> = x.iter().map(|x| x.f64() as f32).collect();
    Int8 { chunk }.encode(&x, bytes);
}

fn int8_decode<T: Real>(bytes: &[u8], x: &mut [T], chunk: usize) {
    let mut back = vec![0.0; x.len()];
    Int8 { chunk }.decode(bytes, &mut back);
    x.iter_mut().zip(back).for_each(|(x, back)| *x = T::of(f64::from(back)));
}

vectorized! {
    /// The scale of a chunk: NaN where a number is NaN, infinite where one is infinite.
    fn scale(x: &[f32]) -> f32 {
        // Magnitudes are in the order of their bits, infinity and then NaN last.
        let top = x.iter().fold(0, |top: u32, x| top.max(x.to_bits() & 0x7fff_ffff));
        f32::from_bits(top) / 127.0
    }
    fn codes(x: &[f32], scale: f32, codes: &mut [u8]) {
        for (code, x) in codes.iter_mut().zip(x) {
            // 0/0, and what a NaN makes of a chunk, is code 0; a scale that underflowed to 0 loses the chunk to the feedback.
            *code = (x / scale).round_ties_even().clamp(-127.0, 127.0) as i32 as u8;
        }
    }
    fn numbers(codes: &[u8], scale: f32, x: &mut [f32]) {
        for (x, &code) in x.iter_mut().zip(codes) {
            *x = code as i8 as f32 * scale;
        }
    }
}

impl Quantiser for Int8 {
    fn bytes(&self, n: usize) -> usize {
        n + 4 * n.div_ceil(self.chunk)
    }
    fn encode(&self, x: &[f32], bytes: &mut [u8]) {
        let (scales, all) = bytes.split_at_mut(4 * x.len().div_ceil(self.chunk));
        let chunks = x.chunks(self.chunk).zip(all.chunks_mut(self.chunk));
        for ((x, all), bytes) in chunks.zip(scales.as_chunks_mut::<4>().0) {
            let scale = scale(x);
            *bytes = scale.to_le_bytes();
            codes(x, scale, all);
        }
    }
    fn decode(&self, bytes: &[u8], x: &mut [f32]) {
        let (scales, all) = bytes.split_at(4 * x.len().div_ceil(self.chunk));
        let chunks = x.chunks_mut(self.chunk).zip(all.chunks(self.chunk));
        for ((x, all), &bytes) in chunks.zip(scales.as_chunks::<4>().0) {
            numbers(all, f32::from_le_bytes(bytes), x);
        }
    }
    fn on_device(&self) -> Option<OnDevice> {
        Some(OnDevice { encode: &ENCODE, decode: &DECODE, chunk: Some(self.chunk) })
    }
}

/// int8 in the table of codecs.
pub(super) static ENTRY: Entry = Entry {
    name: "int8",
    doc: "a byte for each number and a scale for each chunk: a quarter of the bytes",
    attrs: &[chunks_of("256"), FEEDBACK],
    build: |a| Ok(Box::new(TwoPhase::new(Int8 { chunk: chunk(a, "int8")? }, a.flag("feedback")?))),
};
