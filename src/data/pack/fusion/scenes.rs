//! `scenes`: two to four digits and garments in the quarters of a picture, and a sentence that says what is where.
//!
//! For retrieval: which sentence belongs to which picture? So there is no field `label`. A combination is which things are
//! there, wherever they are; the combinations of the held-out scenes stand in no scene for training, in whatever order.

use super::sources::{Halves, SIDE, pictures};
use super::words::vocabulary;
use super::{Counts, splits, texts};
use crate::data::pack::Inputs;
use crate::data::write::Writer;
use crate::error::Result;
use crate::rng::{Key, Rng};
use std::collections::HashSet;

/// Samples for training, held out.
pub(crate) const COUNTS: Counts = [20_000, 2_000];
/// One combination in so many is held out.
const HELD_OUT: u64 = 5;
/// What can be in a scene: the classes of MNIST, then those of Fashion-MNIST.
pub(crate) const THINGS: [&str; 20] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "t-shirt", "trouser",
    "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
];
const WORDS: [&str; 11] = ["a", "above", "an", "at", "bottom", "left", "of", "on", "right", "the", "top"];
/// Words of the longest sentence: four things.
pub(crate) const LONGEST: usize = 13;

/// What is in the quarters: top left, top right, bottom left, bottom right.
pub(crate) type Scene = [Option<u8>; 4];

/// What the set is made of.
pub(crate) struct Sources {
    pub(crate) digits: Halves<u8>,
    pub(crate) garments: Halves<u8>,
}

/// Packs the set.
pub(crate) fn pack(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    let sources = Sources { digits: pictures(inputs, "mnist")?, garments: pictures(inputs, "fashion")? };
    write(&sources, COUNTS, w)
}

pub(crate) fn write(s: &Sources, counts: Counts, w: &mut Writer) -> Result<()> {
    let scenes = plan(counts);
    let image = |n: u64, out: &mut [u8]| {
        let mut rng = Key::named(n, "scenes.image").rng();
        for (quarter, thing) in scenes[n as usize].iter().enumerate() {
            let Some(thing) = *thing else { continue };
            let source = if thing < 10 { &s.digits } else { &s.garments };
            let picture = source.of(n, counts[0]).draw(&mut rng, thing % 10);
            let corner = quarter / 2 * SIDE * 2 * SIDE + quarter % 2 * SIDE;
            for (y, row) in picture.chunks_exact(SIDE).enumerate() {
                out[corner + y * 2 * SIDE..][..SIDE].copy_from_slice(row);
            }
        }
    };
    super::pictures(2 * SIDE, image).write(counts, w)?;
    let words = vocabulary(WORDS.into_iter().chain(THINGS));
    let text = |n: u64, out: &mut [u8]| {
        // Every word is in the vocabulary, and no sentence is longer than the field.
        if let Ok(ids) = words.encode(&caption(&scenes[n as usize]), LONGEST) {
            out.copy_from_slice(&ids);
        }
    };
    texts(LONGEST, words.clone(), text).write(counts, w)?;
    splits(counts, w);
    Ok(())
}

/// The scenes of all samples; no two held out are the same.
pub(crate) fn plan(counts: Counts) -> Vec<Scene> {
    let mut seen = HashSet::new();
    let one = |n: u64| {
        let mut rng = Key::named(n, "scenes").rng();
        loop {
            let scene = draw(&mut rng);
            let test = n >= counts[0];
            if is_held_out(&scene) == test && (!test || seen.insert(scene)) {
                return scene;
            }
        }
    };
    (0..counts[0] + counts[1]).map(one).collect()
}

/// Two to four things in quarters by chance.
fn draw(rng: &mut Rng) -> Scene {
    let mut left = 2 + rng.below(3);
    let mut scene = [None; 4];
    for (k, place) in scene.iter_mut().enumerate() {
        if rng.below(4 - k as u64) < left {
            *place = Some(rng.below(THINGS.len() as u64) as u8);
            left -= 1;
        }
    }
    scene
}

/// Whether scenes of these things are held out, wherever the things are.
pub(crate) fn is_held_out(scene: &Scene) -> bool {
    let mut things: Vec<u8> = scene.iter().flatten().copied().collect();
    things.sort_unstable();
    let number = things.iter().fold(0, |n, &t| n * (THINGS.len() as u64 + 1) + u64::from(t) + 1);
    Key::named(number, "scenes.combination").rng().below(HELD_OUT) == 0
}

/// What is where, row by row.
pub(crate) fn caption(&[a, b, c, d]: &Scene) -> String {
    match (row(a, b), row(c, d)) {
        (Some(top), Some(bottom)) => format!("{top} above {bottom}"),
        (Some(top), None) => format!("{top} at the top"),
        (None, Some(bottom)) => format!("{bottom} at the bottom"),
        (None, None) => String::new(),
    }
}

fn row(left: Option<u8>, right: Option<u8>) -> Option<String> {
    let name = |thing: u8| {
        let name = THINGS[usize::from(thing)];
        format!("{} {name}", if name == "eight" { "an" } else { "a" })
    };
    match (left, right) {
        (Some(l), Some(r)) => Some(format!("{} left of {}", name(l), name(r))),
        (Some(l), None) => Some(format!("{} on the left", name(l))),
        (None, Some(r)) => Some(format!("{} on the right", name(r))),
        (None, None) => None,
    }
}
