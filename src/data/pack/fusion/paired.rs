//! `av-erase` and `av-xor10`: a drawn digit and two tones, of which the best possible is known exactly.

use super::drawn::{FRAMES, MELS, picture, recipe, sound};
use super::sources::SIDE;
use super::{Column, Counts, Statistics, halves};
use crate::data::audio::Features;
use crate::data::front_end::FrontEnd;
use crate::data::header::Field;
use crate::data::pack::Inputs;
use crate::data::write::Writer;
use crate::error::Result;
use crate::rng::Key;
use crate::shape::DType;

/// Samples for training, held out, of both sets.
pub(crate) const COUNTS: Counts = [20_000, 20_000];

/// Share of pictures of `av-erase` that hold the digit; the others are noise.
const SEEN: f64 = 0.611;
/// Share of sounds of `av-erase` that hold the tones; the others are noise.
const HEARD: f64 = 0.355;

/// Picture and sound of a digit, each noise alone now and then: the best possible sees .650, hears .419, and by both is
/// right 1 − (1 − .611)(1 − .355)(1 − 1/10) = .774 of the time.
pub(crate) fn erase(_: &Inputs, w: &mut Writer) -> Result<()> {
    let digit = |n: u64| (n % 10) as u8;
    let kept = |name: &'static str, share: f64| {
        move |n: u64| (Key::named(n, name).rng().uniform() < share).then(|| digit(n))
    };
    write("av-erase", kept("av-erase.seen", SEEN), kept("av-erase.heard", HEARD), digit, COUNTS, w)
}

/// Picture and sound of two digits whose sum mod 10 is the label: all 100 pairs are equally frequent, so that each alone
/// says exactly nothing.
pub(crate) fn xor10(_: &Inputs, w: &mut Writer) -> Result<()> {
    let (seen, heard) = (|n: u64| Some((n % 10) as u8), |n: u64| Some((n / 10 % 10) as u8));
    write("av-xor10", seen, heard, |n| ((n % 10 + n / 10 % 10) % 10) as u8, COUNTS, w)
}

/// Writes a set of pictures of `seen(n)` and sounds of `heard(n)`.
pub(crate) fn write(
    name: &str,
    seen: impl Fn(u64) -> Option<u8> + Sync,
    heard: impl Fn(u64) -> Option<u8> + Sync,
    label: impl Fn(u64) -> u8,
    counts: Counts,
    w: &mut Writer,
) -> Result<()> {
    let (image, audio) = (format!("{name}.image"), format!("{name}.audio"));
    super::pictures(SIDE, |n, out| picture(Key::named(n, &image), seen(n), out)).write(counts, w)?;
    let features = Features::new(&recipe())?;
    let make = |n: u64, out: &mut [u8]| {
        // A sound is made as long as its frames, so there is no error.
        if let Ok(frames) = features.frames(&sound(Key::named(n, &audio), heard(n))) {
            halves(frames.values.into_iter(), out);
        }
    };
    let field = Field::samples("audio", DType::F16, &[FRAMES, MELS]);
    let front_end = Some(FrontEnd::Audio(recipe()));
    Column { field, front_end, statistics: Statistics::Columns, make }.write(counts, w)?;
    super::labels(counts, label, w)
}
