//! Sets that are seen, heard and read.

use super::Set;
use crate::data::pack::fusion::{relation, senses};

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
    recipe: "relation/1",
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
