//! Nothing of the held-out sources reaches what training sees: neither samples nor statistics.

use super::sources::{Halves, Pool, Voices};
use super::{Counts, noise, paired, relation, scenes, senses};
use crate::data::header::{About, Header};
use crate::data::map::Access;
use crate::data::rtd::Rtd;
use crate::data::write::Writer;
use crate::error::Result;
use crate::rng::Key;

const COUNTS: Counts = [300, 300];

/// Twenty random items of `each` values, two a class.
fn pool<T>(name: &str, each: usize, value: impl Fn(f64) -> T) -> Pool<T> {
    let mut rng = Key::named(0, name).rng();
    let labels: Vec<u8> = (0..20).map(|k| k % 10).collect();
    Pool::new((0..20 * each).map(|_| value(rng.uniform())).collect(), &labels)
}

fn halves<T>(name: &str, each: usize, value: impl Fn(f64) -> T + Copy) -> Halves<T> {
    let half = |part: &str| pool(&format!("{name}.{part}"), each, value);
    Halves { train: half("train"), test: half("test") }
}

fn pictures() -> Halves<u8> {
    halves("picture", 784, |u| (u * 256.0) as u8)
}

fn voices(frames: usize) -> Voices {
    let recordings = halves("voice", frames * 13, |u| (u * 100.0) as f32);
    Voices { recordings, width: 13, mean: vec![50.0; 13], std: vec![29.0; 13] }
}

/// The header of what `write` writes, and the bytes of every field.
fn packed(write: impl Fn(&mut Writer) -> Result<()>) -> (Header, Vec<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let mut w = Writer::create(dir.path().join("set.rtd"), About::default()).unwrap();
    write(&mut w).unwrap();
    let set = Rtd::open(w.finish().unwrap(), Access::Read).unwrap();
    let bytes = |f| set.samples(f, 0, f.count, &mut vec![]).unwrap().to_vec();
    (set.header().clone(), set.header().fields.iter().map(bytes).collect())
}

/// Packs with other held-out sources, which must change the second split of each field of `touched`, and else nothing.
fn assert_sealed(
    first: (Header, Vec<Vec<u8>>),
    other: (Header, Vec<Vec<u8>>),
    counts: Counts,
    touched: &[&str],
) {
    assert_eq!(first.0.fields, other.0.fields, "statistics stay");
    assert_eq!(first.0.front_ends, other.0.front_ends);
    for (field, (a, b)) in first.0.fields.iter().zip(first.1.iter().zip(&other.1)) {
        let cut = (field.stride() * counts[0]) as usize;
        assert!(a[..cut] == b[..cut], "training of `{}` stays", field.name);
        assert_eq!(
            a[cut..] != b[cut..],
            touched.contains(&field.name.as_str()),
            "held out of `{}`",
            field.name
        );
    }
}

#[test]
fn held_out_sources_change_no_statistics_and_no_training_sample_of_senses() {
    let mut s = senses::Sources { pictures: pictures(), voices: voices(senses::FRAMES) };
    let first = packed(|w| senses::write(&s, COUNTS, w));
    s.pictures.test.values.iter_mut().for_each(|p| *p = 255 - *p);
    s.voices.recordings.test.values.iter_mut().for_each(|v| *v += 1000.0);
    assert_sealed(first, packed(|w| senses::write(&s, COUNTS, w)), COUNTS, &["image", "audio"]);
    let first = packed(|w| senses::write(&s, COUNTS, w));
    s.pictures.train.values.iter_mut().for_each(|p| *p = 255 - *p);
    let other = packed(|w| senses::write(&s, COUNTS, w));
    assert_ne!(first.0.fields[0].mean, other.0.fields[0].mean, "those of training are what it is about");
}

#[test]
fn held_out_sources_change_no_statistics_and_no_training_sample_of_relation() {
    let mut s = relation::Sources { pictures: pictures(), voices: voices(relation::FRAMES) };
    let first = packed(|w| relation::write(&s, COUNTS, w));
    s.pictures.test.values.iter_mut().for_each(|p| *p = 255 - *p);
    s.voices.recordings.test.values.iter_mut().for_each(|v| *v += 1000.0);
    assert_sealed(first, packed(|w| relation::write(&s, COUNTS, w)), COUNTS, &["image", "audio"]);
}

#[test]
fn held_out_sources_change_no_statistics_and_no_training_sample_of_scenes() {
    let mut s = scenes::Sources { digits: pictures(), garments: pictures() };
    let first = packed(|w| scenes::write(&s, COUNTS, w));
    s.digits.test.values.iter_mut().for_each(|p| *p = 255 - *p);
    s.garments.test.values.iter_mut().for_each(|p| *p = 255 - *p);
    assert_sealed(first, packed(|w| scenes::write(&s, COUNTS, w)), COUNTS, &["image"]);
}

#[test]
fn held_out_samples_change_no_statistics_and_no_training_sample_of_drawn_pairs() {
    let make = |tested: u8| {
        let digit = move |n: u64| Some(if n < COUNTS[0] { (n % 10) as u8 } else { tested });
        packed(|w| paired::write("test", digit, digit, |n| (n % 10) as u8, COUNTS, w))
    };
    assert_sealed(make(1), make(8), COUNTS, &["image", "audio"]);
}

#[test]
fn sentences_say_what_is_where() {
    let says = |scene, want: &str| assert_eq!(scenes::caption(&scene), want);
    says([Some(7), Some(14), None, Some(2)], "a seven left of a coat above a two on the right");
    says([None, None, Some(8), Some(10)], "an eight left of a t-shirt at the bottom");
    says([Some(0), None, Some(1), None], "a zero on the left above a one on the left");
    assert_eq!(scenes::is_held_out(&[Some(3), Some(12), None, None]), {
        scenes::is_held_out(&[None, Some(12), None, Some(3)])
    });
}

#[test]
fn noise_has_mean_0_and_deviation_1() {
    let v: Vec<f32> = noise(Key::named(1, "test")).take(100_000).collect();
    let mean = v.iter().sum::<f32>() / 1e5;
    let std = (v.iter().map(|x| x * x).sum::<f32>() / 1e5 - mean * mean).sqrt();
    assert!(mean.abs() < 0.013 && (std - 1.0).abs() < 0.009, "{mean} {std}");
}
