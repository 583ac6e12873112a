//! `relation`: what is to be done with a digit that is seen and one that is heard stands in words.
//!
//! The label is (a + b), (a − b) or (b − a + 5) mod 10. Every triple of a, b and words stands in the set equally often, so
//! that each sense by itself, and so any sum of opinions of single senses, knows exactly nothing of the label.

use super::sources::{Halves, SIDE, Voices, pictures, voices};
use super::words::vocabulary;
use super::{Column, Counts, Statistics, halves};
use crate::data::front_end::FrontEnd;
use crate::data::header::Field;
use crate::data::pack::Inputs;
use crate::data::write::Writer;
use crate::error::Result;
use crate::rng::Key;
use crate::shape::DType;

/// Samples for training, held out: whole numbers of times all 300 triples.
pub(crate) const COUNTS: Counts = [60_000, 21_000];
/// Frames of a recording.
pub(crate) const FRAMES: usize = 32;
/// What the words say is done with a, which is seen, and b, which is heard.
pub(crate) const RULES: [&str; 3] = ["a plus b", "a minus b", "b minus a plus five"];
/// Words of the longest of them.
const LONGEST: usize = 5;
const WORDS: [&str; 5] = ["a", "b", "five", "minus", "plus"];

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

/// a, b and the number of the rule of sample `n`.
fn triple(n: u64) -> (u8, u8, usize) {
    ((n % 10) as u8, (n / 10 % 10) as u8, (n / 100 % 3) as usize)
}

/// What the rule makes of a and b.
fn label(n: u64) -> u8 {
    let (a, b, rule) = triple(n);
    [a + b, a + 10 - b, b + 15 - a][rule] % 10
}

pub(crate) fn write(s: &Sources, counts: Counts, w: &mut Writer) -> Result<()> {
    let train = counts[0];
    let image = |n: u64, out: &mut [u8]| {
        let mut rng = Key::named(n, "relation.image").rng();
        out.copy_from_slice(s.pictures.of(n, train).draw(&mut rng, triple(n).0));
    };
    super::pictures(SIDE, image).write(counts, w)?;
    let audio = |n: u64, out: &mut [u8]| {
        let mut rng = Key::named(n, "relation.audio").rng();
        halves(s.voices.recordings.of(n, train).draw(&mut rng, triple(n).1).iter().copied(), out);
    };
    let (mean, std) = (s.voices.mean.clone(), s.voices.std.clone());
    let field = Field::samples("audio", DType::F16, &[FRAMES, s.voices.width]).normalised(mean, std);
    let front_end = Some(FrontEnd::Audio(crate::data::audio::Recipe::fsdd()));
    Column { field, front_end, statistics: Statistics::Given, make: audio }.write(counts, w)?;
    let words = vocabulary(WORDS.into_iter());
    let ids = RULES.map(|rule| words.encode(rule, LONGEST));
    let [plus, minus, turned] = ids;
    let ids = [plus?, minus?, turned?];
    let text = |n: u64, out: &mut [u8]| out.copy_from_slice(&ids[triple(n).2]);
    super::texts(LONGEST, words, text).write(counts, w)?;
    // For whoever wants to learn to see and to hear first; the label stays the last field.
    for (name, heard) in [("seen", false), ("heard", true)] {
        let digit = |n: u64| if heard { triple(n).1 } else { triple(n).0 };
        w.field(Field::samples(name, DType::U8, &[]).below(10))?;
        w.write(&(0..counts[0] + counts[1]).map(digit).collect::<Vec<_>>())?;
    }
    super::labels(counts, label, w)
}
