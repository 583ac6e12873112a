//! `senses`: a digit that is seen, heard and read, each badly.
//!
//! Picture, recording and word are drawn by class, independently, so that given the digit they know nothing of each other:
//! the product of three experts is near the best that can be done. Each sense by itself is right three times in four.

use super::sources::{Halves, SIDE, Voices, pictures, voices};
use super::words::{LONGEST, LOST, NUMBERS, letters};
use super::{Column, Counts, Statistics, byte, halves, noise};
use crate::data::front_end::FrontEnd;
use crate::data::header::Field;
use crate::data::pack::Inputs;
use crate::data::write::Writer;
use crate::error::Result;
use crate::rng::{Key, Rng};
use crate::shape::DType;

/// Samples for training, held out.
pub(crate) const COUNTS: Counts = [20_000, 20_000];
/// Side of the window of a picture that is lost.
const WINDOW: usize = 12;
/// Deviation of the noise on a pixel.
const PIXEL_NOISE: f32 = 140.0;
/// Frames of a recording.
pub(crate) const FRAMES: usize = 24;
/// Frames of these that are heard.
const HEARD: usize = 8;
/// Deviation of the noise on a coefficient, in deviations of that coefficient.
const SOUND_NOISE: f32 = 0.55;
/// Share of letters lost.
const LETTERS_LOST: f64 = 0.625;

/// What the set is made of.
pub(crate) struct Sources {
    pub(crate) pictures: Halves<u8>,
    pub(crate) voices: Voices,
}

/// Packs the set.
pub(crate) fn pack(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    let sources = Sources { pictures: pictures(inputs, "mnist")?, voices: voices(inputs, FRAMES)? };
    write(&sources, COUNTS, w)
}

/// The digit of sample `n`.
fn digit(n: u64) -> u8 {
    (n % 10) as u8
}

pub(crate) fn write(s: &Sources, counts: Counts, w: &mut Writer) -> Result<()> {
    let train = counts[0];
    let image = |n: u64, out: &mut [u8]| {
        let mut rng = Key::named(n, "senses.image").rng();
        out.copy_from_slice(s.pictures.of(n, train).draw(&mut rng, digit(n)));
        spoil(&mut rng, noise(Key::named(n, "senses.pixels")), out);
    };
    super::pictures(SIDE, image).write(counts, w)?;
    let (mean, std, width) = (&s.voices.mean, &s.voices.std, s.voices.width);
    let audio = |n: u64, out: &mut [u8]| {
        let mut rng = Key::named(n, "senses.audio").rng();
        let recording = s.voices.recordings.of(n, train).draw(&mut rng, digit(n));
        let heard = some(&mut rng, HEARD, FRAMES);
        let noise = noise(Key::named(n, "senses.hiss"));
        let value = |(k, noise): (usize, f32)| {
            let (frame, c) = (k / width, k % width);
            let clean = if heard[frame] { recording[k] } else { mean[c] };
            clean + SOUND_NOISE * std[c] * noise
        };
        halves((0..recording.len()).zip(noise).map(value), out);
    };
    let field = Field::samples("audio", DType::F16, &[FRAMES, width]).normalised(mean.clone(), std.clone());
    let front_end = Some(FrontEnd::Audio(crate::data::audio::Recipe::fsdd()));
    Column { field, front_end, statistics: Statistics::Given, make: audio }.write(counts, w)?;
    let letters = letters();
    let text = |n: u64, out: &mut [u8]| {
        let mut rng = Key::named(n, "senses.text").rng();
        let word = NUMBERS[rng.below(NUMBERS.len() as u64) as usize][usize::from(digit(n))];
        let left: String =
            word.chars().map(|c| if rng.uniform() < LETTERS_LOST { LOST } else { c }).collect();
        // Every letter of a number is in the alphabet, and no number is longer than the field.
        if let Ok(ids) = letters.encode(&left, LONGEST) {
            out.copy_from_slice(&ids);
        }
    };
    super::texts(LONGEST, letters.clone(), text).write(counts, w)?;
    super::labels(counts, digit, w)
}

/// Fills a window of the picture with uniform bytes, and adds noise everywhere.
fn spoil(rng: &mut Rng, noise: impl Iterator<Item = f32>, picture: &mut [u8]) {
    let [top, left] = [0; 2].map(|_: usize| rng.below((SIDE - WINDOW + 1) as u64) as usize);
    for y in top..top + WINDOW {
        for x in left..left + WINDOW {
            picture[y * SIDE + x] = rng.u32() as u8;
        }
    }
    for (p, noise) in picture.iter_mut().zip(noise) {
        *p = byte(f32::from(*p) + PIXEL_NOISE * noise);
    }
}

/// Which of `among` are chosen: `n` of them, by chance.
fn some(rng: &mut Rng, n: usize, among: usize) -> Vec<bool> {
    let mut chosen = vec![false; among];
    let mut left = n;
    for k in 0..among {
        if (rng.below((among - k) as u64) as usize) < left {
            chosen[k] = true;
            left -= 1;
        }
    }
    chosen
}
