//! The sets that are seen, heard and read: what a second program counts in them, and the same bits everywhere.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ringtape::data::{self, Access, FrontEnd, Rtd};
use sha2::{Digest, Sha256};

fn open(name: &str) -> Rtd {
    let set = data::open(name, Access::Mmap).unwrap();
    set.verify().unwrap();
    set
}

/// The bytes of a field.
fn bytes(set: &Rtd, field: &str) -> Vec<u8> {
    let f = set.field(field).unwrap();
    set.samples(f, 0, f.count, &mut vec![]).unwrap().to_vec()
}

fn digest(set: &Rtd, field: &str) -> String {
    Sha256::digest(bytes(set, field)).iter().map(|b| format!("{b:02x}")).collect()
}

/// Bounds of a split.
fn split(set: &Rtd, name: &str) -> std::ops::Range<usize> {
    let s = set.split(name).unwrap();
    s.start as usize..(s.start + s.count) as usize
}

/// Names of all text symbols.
fn text(set: &Rtd) -> FrontEnd {
    set.header().front_end("text").unwrap().clone()
}

/// How often each of the ten labels stands in `labels`.
fn counts(labels: impl IntoIterator<Item = u8>) -> [usize; 10] {
    labels.into_iter().fold([0; 10], |mut n, label| {
        n[usize::from(label)] += 1;
        n
    })
}

#[test]
fn senses() {
    let set = open("senses");
    let labels = bytes(&set, "label");
    for name in ["train", "test"] {
        assert_eq!(counts(labels[split(&set, name)].to_vec()), [2_000; 10], "{name}");
    }
    // Five letters in eight are lost: 40,000 words of 4.1 letters, so within 0.0036 at three deviations.
    let words = bytes(&set, "text");
    let letters = words.iter().filter(|&&id| id != 0).count();
    let lost = words.iter().filter(|&&id| id == 1).count();
    let share = lost as f64 / letters as f64;
    assert!((share - 0.625).abs() < 0.0036, "{share}");
    assert_eq!(text(&set).encode("drei", 7).unwrap().len(), 7);
    // A batch of the training split has mean 0 and deviation 1.
    let image = set.field("image").unwrap();
    let pixels = bytes(&set, "image");
    let train = &pixels[..20_000 * 784];
    let mean = train.iter().map(|&p| f64::from(p)).sum::<f64>() / train.len() as f64;
    assert!((mean - f64::from(image.mean[0])).abs() < 1e-4, "{mean}");
    assert_eq!(digest(&set, "image"), "f4aff0c502f4025733670963aef088262aca6da0f40c173b6e7bb6dfcd70b5a2");
    assert_eq!(digest(&set, "audio"), "cf62707d2a14bff98a5b278b3183324d82956bf076a5dc4af62fc7501c5cbc89");
    assert_eq!(digest(&set, "text"), "24676b5830edfa875d8f1e26fd02406325d3445a537f460ec1509dcd67a1103b");
}

#[test]
fn relation() {
    let set = open("relation");
    let (labels, words) = (bytes(&set, "label"), bytes(&set, "text"));
    let text = text(&set);
    for name in ["train", "test"] {
        let range = split(&set, name);
        let n = range.len();
        assert_eq!(counts(labels[range.clone()].to_vec()), [n / 10; 10], "{name}");
        for rule in ["a plus b", "a minus b", "b minus a plus five"] {
            let ids = text.encode(rule, 5).unwrap();
            let of_rule = range.clone().filter(|&k| words[5 * k..][..5] == ids).map(|k| labels[k]);
            assert_eq!(counts(of_rule), [n / 30; 10], "{name}: {rule} alone says nothing");
        }
    }
    assert_eq!(digest(&set, "image"), "25df29791d686c0e18c21cfdcc515c8703e2f472da8dae4fcd8e166921d7bd64");
    assert_eq!(digest(&set, "audio"), "3e61ccfad0ed614585221228a968b3ae9af4a36db0ab69c5ec62ddc60aeb0fee");
    assert_eq!(digest(&set, "text"), "4ccac9bf7479948b4c9fb853e3ed1b7246b4d541867b9c2c37990ea1443de95a");
}

/// Every picture and recording of `relation` is one of its source's, of the split that it stands in, and with what the
/// sources say it is, each alone says nothing of the label.
#[test]
fn relation_is_made_of_its_sources_and_no_sense_knows_the_label() {
    let (set, mnist, fsdd) = (open("relation"), open("mnist"), open("fsdd"));
    let (labels, images) = (bytes(&set, "label"), bytes(&set, "image"));
    let pictures = bytes(&mnist, "image");
    let sources = by_digit(&pictures, &bytes(&mnist, "label"), 784, 10_000);
    for name in ["train", "test"] {
        let mut joint = vec![[0; 10]; 10];
        for k in split(&set, name) {
            let (class, half) = sources[&images[784 * k..][..784]];
            assert_eq!(half, name, "sample {k}");
            joint[usize::from(class)][usize::from(labels[k])] += 1;
        }
        let n = split(&set, name).len();
        assert_eq!(joint, vec![[n / 100; 10]; 10], "{name}: a alone says nothing");
    }
    // The stored halves of both sets' values: cut to f16 the recordings are still told apart by their frames.
    let f32s: Vec<f32> = bytes(&fsdd, "mfcc").as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let lengths = bytes(&fsdd, "length");
    let first = |k: usize| -> Vec<u8> {
        let frames = usize::from(lengths[k]).min(6) * 13;
        f32s[416 * k..][..frames].iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
    };
    let heads: Vec<Vec<u8>> = (0..3000).map(first).collect();
    let classes = bytes(&fsdd, "label");
    let known: std::collections::HashMap<&[u8], (u8, &str)> = (0..3000)
        .map(|k| (&heads[k][..156], (classes[k], if k < 2700 { "train" } else { "test" })))
        .collect();
    let audio = bytes(&set, "audio");
    for name in ["train", "test"] {
        let mut joint = vec![[0; 10]; 10];
        for k in split(&set, name) {
            let (class, half) = known[&audio[832 * k..][..156]];
            assert_eq!(half, name, "sample {k}");
            joint[usize::from(class)][usize::from(labels[k])] += 1;
        }
        let n = split(&set, name).len();
        assert_eq!(joint, vec![[n / 100; 10]; 10], "{name}: b alone says nothing");
    }
}

/// Class and split of each sample, of which the first `train` are for training.
fn by_digit<'a>(
    all: &'a [u8],
    labels: &[u8],
    each: usize,
    train: usize,
) -> std::collections::HashMap<&'a [u8], (u8, &'static str)> {
    let half = |k: usize| if k < train { "train" } else { "test" };
    all.chunks_exact(each).enumerate().map(|(k, v)| (v, (labels[k], half(k)))).collect()
}

#[test]
fn av_erase() {
    let set = open("av-erase");
    let labels = bytes(&set, "label");
    for name in ["train", "test"] {
        assert_eq!(counts(labels[split(&set, name)].to_vec()), [2_000; 10], "{name}");
    }
    // Ink: a picture without a digit has noise of deviation 24 around 24 alone. Within four deviations of .611.
    let images = bytes(&set, "image");
    let inked = |p: &[u8]| p.iter().filter(|&&v| v > 140).count() > 10;
    let share = images.chunks_exact(784).filter(|p| inked(p)).count() as f64 / 40_000.0;
    assert!((share - 0.611).abs() < 0.0098, "{share}");
    // Tones: bands 20 times as loud as the noise around them.
    let audio: Vec<f32> =
        bytes(&set, "audio").as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect();
    let loud = |p: &[f32]| p.iter().filter(|&&v| v > 2.0).count() > 5;
    let share = audio.chunks_exact(480).filter(|p| loud(p)).count() as f64 / 40_000.0;
    assert!((share - 0.355).abs() < 0.0096, "{share}");
    assert_eq!(digest(&set, "image"), "1e8ffbe1276cdb9f524f8039ae215b498f005af0613d00e93c4459fc4c248481");
    assert_eq!(digest(&set, "audio"), "a261fdb3e3eb9e52190217c206e2aec1d064bf66fda6e6383a9ee93e3fbb280a");
}

#[test]
fn av_xor10() {
    let set = open("av-xor10");
    let labels = bytes(&set, "label");
    for name in ["train", "test"] {
        let range = split(&set, name);
        assert_eq!(counts(labels[range.clone()].to_vec()), [2_000; 10], "{name}");
    }
    assert_eq!(digest(&set, "image"), "ef1b2728d3ae0e83d4531932e14633fb6eb423d09c1702df42e23c1a7aa63173");
    assert_eq!(digest(&set, "audio"), "8c48bea206eada5aae649101f5b627095844d1536cc0209dae17d312e7d7d3e3");
}

#[test]
fn scenes() {
    let set = open("scenes");
    let (front_end, text) = (text(&set), bytes(&set, "text"));
    let captions: Vec<String> = text.chunks_exact(13).map(|ids| front_end.decode(ids)).collect();
    let (train, test) = (&captions[split(&set, "train")], &captions[split(&set, "test")]);
    assert_eq!((train.len(), test.len()), (20_000, 2_000));
    let distinct: std::collections::HashSet<&String> = test.iter().collect();
    assert_eq!(distinct.len(), 2_000, "no two sentences of test are the same");
    // A combination: what stands after an article, sorted.
    let things = |caption: &String| {
        let words: Vec<&str> = caption.split(' ').collect();
        let of = words.windows(2).filter(|w| matches!(w[0], "a" | "an")).map(|w| w[1].to_string());
        let mut things: Vec<String> = of.collect();
        things.sort_unstable();
        things
    };
    let known: std::collections::HashSet<Vec<String>> = train.iter().map(things).collect();
    assert!(test.iter().all(|c| !known.contains(&things(c))), "no combination of test stands in train");
    assert!((2..=4).all(|n| test.iter().any(|c| things(c).len() == n)));
    // A quarter is dark if and only if the sentence has nothing there.
    let images = bytes(&set, "image");
    for (n, caption) in captions.iter().enumerate() {
        let image = &images[56 * 56 * n..][..56 * 56];
        let lit = |y: usize, x: usize| (0..784).any(|k| image[(28 * y + k / 28) * 56 + 28 * x + k % 28] > 0);
        let quarters = [lit(0, 0), lit(0, 1), lit(1, 0), lit(1, 1)];
        assert_eq!(quarters, places(caption), "{n}: {caption}");
    }
    assert!(set.field("label").is_err(), "a set for retrieval");
    assert_eq!(digest(&set, "image"), "4b07000c94b7aad001762f2b70f416b5f9f8e74be1bb62e291a2ca18c2d2207d");
    assert_eq!(digest(&set, "text"), "e457c863d1426ccb6b9dcafa5184b694d5a78b36b0251ba5524a5a0809e7792d");
}

/// Which quarters a sentence fills: a second reading of the grammar.
fn places(caption: &str) -> [bool; 4] {
    let row = |text: &str| match text {
        t if t.contains(" left of ") => [true, true],
        t if t.contains(" on the left") => [true, false],
        _ => [false, true],
    };
    let (top, bottom) = match caption.split_once(" above ") {
        Some((top, bottom)) => (row(top), row(bottom)),
        None if caption.ends_with(" at the top") => (row(caption), [false; 2]),
        None => ([false; 2], row(caption)),
    };
    [top[0], top[1], bottom[0], bottom[1]]
}
