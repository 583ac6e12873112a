//! Sets that are seen, heard and read.

use super::Set;
use crate::data::pack::fusion::{paired, relation, scenes, senses};

const MNIST_AND_FSDD: &str =
    "MNIST as the set `mnist` has it, FSDD as the set `fsdd` has it, combined by ringtape";
const MNIST_AND_FSDD_LICENCE: &str = "A derivative of two sets, whose notices stay with every copy. Pictures: MNIST, \
     copyright Yann LeCun and Corinna Cortes, a derivative work from original NIST datasets, Creative Commons \
     Attribution-Share Alike 3.0. Sound: Free Spoken Digit Dataset, Zohar Jackson and contributors, CC BY-SA 4.0 \
     (https://creativecommons.org/licenses/by-sa/4.0/). The combination is under CC BY-SA 4.0; the choice of pairs and the \
     noise are ringtape's and CC0-1.0.";

pub(super) const SENSES: Set = Set {
    name: "senses",
    title: "made of real digits: seen, heard and read, each badly; 20,000 and 20,000",
    recipe: "senses/1",
    files: &[],
    uses: &["mnist", "fsdd"],
    source: MNIST_AND_FSDD,
    licence: MNIST_AND_FSDD_LICENCE,
    changes: "A sample is a picture, a recording and a number word of one class, drawn independently. A random window of \
     12 x 12 pixels is replaced by random bytes, and noise is added everywhere; 8 of the 24 frames of the recording are \
     kept, the others are the mean, and noise is added; each letter of the word, of one of eight languages, is lost with \
     probability 5/8. train is made of the first 10,000 training images and the first 2,700 recordings, test of the 10,000 \
     test images and the last 300 recordings.",
    pack: senses::pack,
    fetch: "",
};

pub(super) const RELATION: Set = Set {
    name: "relation",
    title: "made of real digits: words say what is done with a digit seen and a digit heard",
    recipe: "relation/2",
    files: &[],
    uses: &["mnist", "fsdd"],
    source: MNIST_AND_FSDD,
    licence: MNIST_AND_FSDD_LICENCE,
    changes: "A sample is a picture of a, a recording of b and words: `a plus b`, `a minus b` or `b minus a plus five`; the \
     label is what they say, mod 10. All 300 triples are equally frequent in both splits. Recordings are cut to 32 frames \
     or filled up with the mean frame. train is made of the first 10,000 training images and the first 2,700 recordings, \
     test of the 10,000 test images and the last 300 recordings.",
    pack: relation::pack,
    fetch: "",
};

pub(super) const AV_ERASE: Set = Set {
    name: "av-erase",
    title: "made: a drawn digit and its two tones, each noise alone now and then; best possible .774",
    recipe: "av-erase/1",
    files: &[],
    uses: &[],
    source: "made by ringtape from its random numbers",
    licence: "CC0-1.0",
    changes: "None.",
    pack: paired::erase,
    fetch: "",
};

pub(super) const AV_XOR10: Set = Set {
    name: "av-xor10",
    title: "made: a drawn digit and two tones of another; the label is their sum mod 10",
    recipe: "av-xor10/1",
    files: &[],
    uses: &[],
    source: "made by ringtape from its random numbers",
    licence: "CC0-1.0",
    changes: "None.",
    pack: paired::xor10,
    fetch: "",
};

pub(super) const SCENES: Set = Set {
    name: "scenes",
    title: "made of real pictures: two to four digits and garments, and a sentence that says what is where",
    recipe: "scenes/1",
    files: &[],
    uses: &["mnist", "fashion"],
    source: "MNIST as the set `mnist` has it, Fashion-MNIST as the set `fashion` has it, combined by ringtape",
    licence: "A derivative of two sets, whose notices stay with every copy. Digits: MNIST, copyright Yann LeCun and Corinna \
     Cortes, a derivative work from original NIST datasets, Creative Commons Attribution-Share Alike 3.0. Garments: \
     Fashion-MNIST, MIT, © 2017 Zalando SE (text in datasets/fashion/README.md). The combination is under Creative Commons \
     Attribution-Share Alike 3.0; the choice of scenes and the sentences are ringtape's and CC0-1.0.",
    changes: "A scene is two to four pictures in the quarters of one of 56 x 56 pixels, and a sentence. There is no label: \
     the set is for retrieval. One combination of things in five is held out: it stands in test alone, in whatever order. \
     No two scenes of test have the same sentence. train is made of the first 10,000 training images of both sets, test of \
     their test images.",
    pack: scenes::pack,
    fetch: "",
};
