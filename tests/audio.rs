//! The audio front ends against values computed by numpy in f64 (tests/golden/audio.py), and files as users have them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ringtape::data::audio::{Features, Log, Recipe, Scale};
use ringtape::data::readers::{read_any_wav, read_safetensors, read_wav};
use ringtape::data::{Access, Rtd, foreign, open};
use ringtape::tensor::Tensor;
use std::path::{Path, PathBuf};

fn voice(digit: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("datasets/allison/{digit}.wav"))
}

fn slaney() -> Recipe {
    let (window, hop, scale) = (256, 64, Scale::Slaney);
    Recipe { window, hop, scale, centred: true, low: 50.0, high: 3500.0, ..Recipe::log_mel(8000, 40) }
}

/// Largest difference from the golden array `name`, and largest golden magnitude.
fn apart(digit: u32, name: &str, recipe: &Recipe) -> (f64, f64) {
    let wave = read_wav(&voice(digit), &std::fs::read(voice(digit)).unwrap()).unwrap();
    let made = Features::new(recipe).unwrap().frames(&wave.samples).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/audio/{digit}.safetensors"));
    let arrays = read_safetensors(&path, &std::fs::read(&path).unwrap()).unwrap();
    let golden = &arrays.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(golden.shape, [made.count(), made.width], "{digit} {name}");
    let want: Vec<f64> = golden.data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect();
    let differences = made.values.iter().zip(&want).map(|(&a, b)| (f64::from(a) - b).abs());
    (differences.fold(0.0, f64::max), want.iter().fold(0.0, |m, v| v.abs().max(m)))
}

#[test]
fn log_mel_is_numpys() {
    for digit in [0, 3, 7] {
        for (name, recipe) in [("htk", Recipe::log_mel(8000, 20)), ("slaney", slaney())] {
            let (difference, _) = apart(digit, name, &recipe);
            assert!(difference < 1e-5, "{digit} {name}: {difference}");
        }
        let other = Recipe { scale: Scale::Htk, ..slaney() };
        assert!(apart(digit, "slaney", &other).0 > 0.1, "the scale is not a matter of taste");
    }
}

/// Coefficients go up to 600, where f32 has steps of 6e-5.
#[test]
fn coefficients_of_fsdd_are_numpys() {
    for digit in [0, 3, 7] {
        let (difference, most) = apart(digit, "mfcc", &Recipe::fsdd());
        assert!(difference < 1e-7 * most, "{digit}: {difference} of {most}");
        let wider = Recipe { log: Log::Decibel { range: 120.0 }, ..Recipe::fsdd() };
        assert!(apart(digit, "mfcc", &wider).0 > 1.0, "the range shows");
    }
}

/// A WAV of 16 bits.
fn wav(folder: &Path, rate: u32, channels: u16, samples: impl Iterator<Item = f32>) -> PathBuf {
    let path = folder.join("own.wav");
    let sample_format = hound::SampleFormat::Int;
    let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format };
    let mut w = hound::WavWriter::create(&path, spec).unwrap();
    samples.for_each(|s| w.write_sample((s * 32767.0).round() as i16).unwrap());
    w.finalize().unwrap();
    path
}

fn tone(rate: u32, seconds: f32) -> impl Iterator<Item = f32> {
    let n = (rate as f32 * seconds) as usize;
    (0..n).map(move |k| 0.5 * (std::f32::consts::TAU * 440.0 * k as f32 / rate as f32).sin())
}

#[test]
fn recordings_of_other_kinds_are_made_to_fit_and_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let read = |path: &Path| read_any_wav(path, &std::fs::read(path).unwrap(), 8000);
    let plain = read(&wav(dir.path(), 8000, 1, tone(8000, 0.5))).unwrap();
    assert_eq!((plain.0.samples.len(), plain.1.len()), (4000, 0));
    let (stereo, notices) =
        read(&wav(dir.path(), 44_100, 2, tone(44_100, 0.5).flat_map(|s| [2.0 * s, 0.0]))).unwrap();
    assert_eq!((stereo.rate, stereo.samples.len()), (8000, 4000));
    assert!(notices[0].contains("2 channels, mixed down") && notices[1].contains("44100"), "{notices:?}");
    let inner = 100..3900;
    let apart = |(a, b): (&f32, &f32)| (a - b).abs();
    let worst =
        stereo.samples[inner.clone()].iter().zip(&plain.0.samples[inner]).map(apart).fold(0.0, f32::max);
    assert!(worst < 2e-3, "the same tone: {worst}");
    let e = read(&wav(dir.path(), 8000, 1, std::iter::empty())).unwrap_err();
    assert!(e.to_string().contains("own.wav") && e.to_string().contains("no samples (0)"), "{e}");
    assert_eq!(e.exit_code(), 4);
    let e = read(&wav(dir.path(), 10, 1, tone(10, 1.0))).unwrap_err().to_string();
    assert!(e.contains("10 samples a second"), "{e}");
    let good = std::fs::read(wav(dir.path(), 8000, 1, tone(8000, 0.1))).unwrap();
    for n in 0..good.len() {
        let _ = read_any_wav(Path::new("cut.wav"), &good[..n], 8000);
    }
}

fn relation() -> Rtd {
    open("relation", Access::Mmap).unwrap()
}

fn f32s(t: &Tensor) -> Vec<f32> {
    t.as_slice::<f32>().unwrap().to_vec()
}

#[test]
fn a_users_recording_goes_through_the_front_end_of_the_set() {
    let dir = tempfile::tempdir().unwrap();
    let set = relation();
    let field = set.field("audio").unwrap();
    let one = |path: &Path| foreign::audio(field, set.header().front_end("audio"), path);
    let made = one(&voice(3)).unwrap();
    assert_eq!(made.value.dims(), [1, 32, 13]);
    let wave = read_wav(&voice(3), &std::fs::read(voice(3)).unwrap()).unwrap();
    let values = f32s(&made.value);
    // Silence before and after makes no difference but a notice.
    let quiet = |n: usize| std::iter::repeat_n(0.0, n);
    let padded = quiet(3200).chain(wave.samples.iter().copied()).chain(quiet(4000));
    let again = one(&wav(dir.path(), 8000, 1, padded)).unwrap();
    let worst = f32s(&again.value).iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 0.1, "{worst}");
    assert!(again.notices.iter().any(|n| n.contains("silence")), "{:?}", again.notices);
    // A short one is filled up with the mean, which is 0 in a batch; a long one is cut, and that is said.
    let short = one(&wav(dir.path(), 8000, 1, tone(8000, 0.2))).unwrap();
    let filled = f32s(&short.value);
    assert!(filled[..9 * 13].iter().any(|&v| v != 0.0) && filled[9 * 13..].iter().all(|&v| v == 0.0));
    let long = one(&wav(dir.path(), 8000, 1, tone(8000, 2.0))).unwrap();
    assert!(long.notices[0].contains("81 frames, the model takes 32"), "{:?}", long.notices);
    let e = foreign::audio(field, None, &voice(3)).unwrap_err().to_string();
    assert!(e.contains("does not say how"), "{e}");
}

/// A PNG of 8 bits.
fn png(folder: &Path, size: [u32; 2], colour: png::ColorType, pixels: &[u8]) -> PathBuf {
    let path = folder.join("own.png");
    let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), size[0], size[1]);
    encoder.set_color(colour);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    path
}

#[test]
fn a_users_picture_becomes_what_a_batch_has() {
    let dir = tempfile::tempdir().unwrap();
    let set = relation();
    let field = set.field("image").unwrap();
    let one = |path: &Path| foreign::image(field, set.header().front_end("image"), path);
    let stored = set.samples(field, 5, 1, &mut vec![]).unwrap().to_vec();
    let want: Vec<f32> = stored.iter().map(|&p| (f32::from(p) - field.mean[0]) / field.std[0]).collect();
    let same = one(&png(dir.path(), [28, 28], png::ColorType::Grayscale, &stored)).unwrap();
    assert_eq!((f32s(&same.value), same.value.dims().to_vec()), (want.clone(), vec![1, 1, 28, 28]));
    assert!(same.notices.is_empty(), "{:?}", same.notices);
    // Three times the size, and grey in three channels: the same picture.
    let large: Vec<u8> = (0..84 * 84).flat_map(|k| [stored[k / 84 / 3 * 28 + k % 84 / 3]; 3]).collect();
    let shrunk = one(&png(dir.path(), [84, 84], png::ColorType::Rgb, &large)).unwrap();
    let worst = f32s(&shrunk.value).iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1.0, "a deviation at sharp edges, {worst}");
    assert!(shrunk.notices.len() == 1 && shrunk.notices[0].contains("84×84"), "{:?}", shrunk.notices);
    let paper: Vec<u8> = (0..28 * 28).flat_map(|k| [255 - stored[k], 255, 255]).collect();
    let light = one(&png(dir.path(), [28, 28], png::ColorType::Rgb, &paper)).unwrap();
    assert!(light.notices[0].contains("brightness") && light.notices[1].contains("invert it"));
    let path = dir.path().join("own.png");
    let mut broken = std::fs::read(&path).unwrap();
    broken.truncate(90);
    std::fs::write(&path, broken).unwrap();
    let e = one(&path).unwrap_err();
    assert!(e.to_string().contains("not a sound PNG") && e.exit_code() == 4, "{e}");
}

#[test]
fn a_users_text_is_encoded_or_refused_with_what_is_wrong() {
    let set = relation();
    let field = set.field("text").unwrap();
    let one = |text: &str| foreign::text(field, set.header().front_end("text"), text);
    let made = one("a minus b").unwrap().value;
    assert_eq!((made.as_slice::<i32>().unwrap(), made.dims()), (&[1, 4, 2, 0, 0][..], &[1, 5][..]));
    let e = one("a minus b minus b minus b").unwrap_err().to_string();
    assert!(e.contains("7 words, the model takes at most 5"), "{e}");
    let e = one("a times b").unwrap_err().to_string();
    assert!(e.contains("\"times\"") && e.contains("plus"), "{e}");
    assert!(foreign::text(field, None, "a").is_err());
}
