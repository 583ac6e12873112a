//! one_bit: of every number its sign, of every chunk the mean magnitude: x ≈ ±mean|x|. A thirtieth of the bytes.
//!
//! So coarse that plain SGD needs error feedback with it. Adam does not: signs are nearly all that it uses, while what waits in the
//! feedback makes the magnitude of its whole chunk larger, and with it the second moment by which Adam divides. So `feedback` is
//! false unless it is asked for. Source: Seide et al., "1-bit stochastic gradient descent", Interspeech 2014; the magnitude is that
//! of Karimireddy et al., "Error feedback fixes SignSGD", ICML 2019: among all numbers of these signs ±m has the least square error
//! with m the mean magnitude.

use super::{Entry, OnDevice, Quantiser, TwoPhase, chunk, chunks_of, feedback};
use crate::kernel::Real;
use crate::{kernel, vectorized};

/// Chunks of so many numbers.
struct OneBit {
    chunk: usize,
}

kernel! {
    ptx "one_bit";
    /// bytes of x [n]: magnitudes, then signs.
    pub(super) static ENCODE = one_bit_encode(x: in T, bytes: out u8, chunk: val size) blocks(x.div_ceil(chunk.max(1)).div_ceil(8));
    /// Back.
    pub(super) static DECODE = one_bit_decode(bytes: in u8, x: out T, chunk: val size);
}

fn one_bit_encode<T: Real>(x: &[T], bytes: &mut [u8], chunk: usize) {
    let x: Vec<f32> = x.iter().map(|x| x.f64() as f32).collect();
    OneBit { chunk }.encode(&x, bytes);
}

fn one_bit_decode<T: Real>(bytes: &[u8], x: &mut [T], chunk: usize) {
    let mut back = vec![0.0; x.len()];
    OneBit { chunk }.decode(bytes, &mut back);
    x.iter_mut().zip(back).for_each(|(x, back)| *x = T::of(f64::from(back)));
}

vectorized! {
    /// The mean magnitude, in an order of sums that is the same on every processor.
    fn mean(x: &[f32]) -> f32 {
        let (rows, rest) = x.as_chunks::<16>();
        let mut lanes = [0.0f32; 16];
        for row in rows {
            for (lane, x) in lanes.iter_mut().zip(row) {
                *lane += x.abs();
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += x.abs();
        }
        lanes.iter().sum::<f32>() / x.len() as f32
    }
    fn signs(x: &[f32], bits: &mut [u8]) {
        for (byte, x) in bits.iter_mut().zip(x.chunks(8)) {
            *byte = x.iter().enumerate().fold(0, |byte, (i, x)| byte | ((x.to_bits() >> 31) as u8) << i);
        }
    }
    fn numbers(bits: &[u8], scale: f32, x: &mut [f32]) {
        for (x, &byte) in x.chunks_mut(8).zip(bits) {
            for (i, x) in x.iter_mut().enumerate() {
                *x = f32::from_bits(scale.to_bits() | (byte as u32 >> i & 1) << 31);
            }
        }
    }
}

impl Quantiser for OneBit {
    fn bytes(&self, n: usize) -> usize {
        n.div_ceil(8) + 4 * n.div_ceil(self.chunk)
    }
    fn encode(&self, x: &[f32], bytes: &mut [u8]) {
        let (scales, all) = bytes.split_at_mut(4 * x.len().div_ceil(self.chunk));
        let chunks = x.chunks(self.chunk).zip(all.chunks_mut(self.chunk / 8));
        for ((x, all), bytes) in chunks.zip(scales.as_chunks_mut::<4>().0) {
            *bytes = mean(x).to_le_bytes();
            signs(x, all);
        }
    }
    fn decode(&self, bytes: &[u8], x: &mut [f32]) {
        let (scales, all) = bytes.split_at(4 * x.len().div_ceil(self.chunk));
        let chunks = x.chunks_mut(self.chunk).zip(all.chunks(self.chunk / 8));
        for ((x, all), &bytes) in chunks.zip(scales.as_chunks::<4>().0) {
            numbers(all, f32::from_le_bytes(bytes), x);
        }
    }
    fn on_device(&self) -> Option<OnDevice> {
        Some(OnDevice { encode: &ENCODE, decode: &DECODE, chunk: Some(self.chunk) })
    }
}

/// one_bit in the table of codecs.
pub(super) static ENTRY: Entry = Entry {
    name: "one_bit",
    doc: "a sign for each number and a magnitude for each chunk: a thirtieth of the bytes",
    attrs: &[chunks_of("1024"), feedback("false")],
    build: |a| Ok(Box::new(TwoPhase::new(OneBit { chunk: chunk(a, "one_bit")? }, a.flag("feedback")?))),
};
