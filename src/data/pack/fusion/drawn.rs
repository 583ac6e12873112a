//! Digits that are drawn and tones that stand for digits: never mistaken, so that the best possible is known exactly.

use super::sources::SIDE;
use super::{byte, noise};
use crate::data::audio::Recipe;
use crate::rng::{Key, Rng};
use std::f64::consts::PI;

/// Rows of 5 pixels, of 7 rows a digit.
const FONT: [[u8; 7]; 10] = [
    [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110],
    [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111],
    [0b11110, 0b00001, 0b00001, 0b01110, 0b00001, 0b00001, 0b11110],
    [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
    [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
    [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
    [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
    [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
    [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
];
/// Deviation of the noise on a pixel.
const PIXEL_NOISE: f32 = 24.0;
/// Samples of a pixel along each axis, for soft edges.
const FINE: usize = 2;

/// A picture with `digit` in it, of a size, slant, place and brightness by chance, or of noise alone.
pub(crate) fn picture(key: Key, digit: Option<u8>, out: &mut [u8]) {
    let mut rng = key.rng();
    let mut between = |from: f32, to: f32| from + (to - from) * (rng.uniform() as f32);
    let ink = between(150.0, 230.0);
    // Pixels of the picture to one of the font, across and down; the middle; how far the top leans.
    let (across, down) = (between(2.4, 3.6), between(2.4, 3.2));
    let (x, y) = (14.0 + between(-3.0, 3.0), 14.0 + between(-2.5, 2.5));
    let slant = between(-0.2, 0.2);
    let inked = |px: f32, py: f32| {
        let row = (py - y) / down + 3.5;
        let column = (px - x + (py - y) * slant) / across + 2.5;
        let inside = (0.0..7.0).contains(&row) && (0.0..5.0).contains(&column);
        inside && digit.is_some_and(|d| FONT[usize::from(d)][row as usize] >> (4 - column as usize) & 1 == 1)
    };
    let fine = |k: usize| (k as f32 + 0.5) / FINE as f32;
    let noise = noise(Key { stream: key.stream ^ 1, ..key });
    for ((k, out), noise) in out.iter_mut().enumerate().zip(noise) {
        let places = (0..FINE * FINE).map(|f| (k % SIDE, k / SIDE, fine(f % FINE), fine(f / FINE)));
        let covered = places.filter(|&(px, py, fx, fy)| inked(px as f32 + fx, py as f32 + fy)).count();
        *out = byte(24.0 + ink * covered as f32 / (FINE * FINE) as f32 + PIXEL_NOISE * noise);
    }
}

/// Samples a second of the tones.
const RATE: u32 = 8000;
/// Samples of a sound: 24 frames.
const SAMPLES: usize = 200 + 23 * 80;
/// Frames of a sound.
pub(crate) const FRAMES: usize = 24;
/// Bands of the front end.
pub(crate) const MELS: usize = 20;
/// The two tones of a digit: a low one of four and a high one of three, as telephones pair them (ITU-T Q.23).
const LOW: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
const HIGH: [f64; 3] = [1209.0, 1336.0, 1477.0];
/// Deviation of the noise in a sound.
const HISS: f32 = 0.05;

/// What makes frames of the tones.
pub(crate) fn recipe() -> Recipe {
    Recipe { low: 200.0, high: 2000.0, ..Recipe::log_mel(RATE, MELS as u32) }
}

/// A sound of the two tones of `digit`, of phases, loudness, beginning and end by chance, or of noise alone.
pub(crate) fn sound(key: Key, digit: Option<u8>) -> Vec<f32> {
    let mut rng = key.rng();
    let start = rng.below(SAMPLES as u64 / 4) as usize;
    let end = SAMPLES - rng.below(SAMPLES as u64 / 4) as usize;
    let mut samples: Vec<f32> =
        noise(Key { stream: key.stream ^ 1, ..key }).take(SAMPLES).map(|n| HISS * n).collect();
    let digit = digit.map(usize::from);
    // 1 to 9 by rows, 0 below the 8: the keys of a telephone.
    let key = digit.map(|d| if d == 0 { (3, 1) } else { ((d - 1) / 3, (d - 1) % 3) });
    if let Some((low, high)) = key {
        for hertz in [LOW[low], HIGH[high]] {
            let loudness = 0.1 + 0.2 * rng.uniform();
            add_tone(&mut rng, hertz, loudness, &mut samples[start..end]);
        }
    }
    samples
}

/// Adds a tone of any phase. The next sample of a tone follows from two before: x'' = 2 cos(ω) x' − x.
fn add_tone(rng: &mut Rng, hertz: f64, loudness: f64, out: &mut [f32]) {
    let (step, phase) = (2.0 * PI * hertz / f64::from(RATE), 2.0 * PI * rng.uniform());
    let (mut before, mut now) = (loudness * libm::sin(phase - step), loudness * libm::sin(phase));
    let turn = 2.0 * libm::cos(step);
    for sample in out {
        *sample += now as f32;
        (before, now) = (now, turn * now - before);
    }
}
