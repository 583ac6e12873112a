//! `data` as a user runs it: packing, looking, and what damaged files get.

mod cli_support;

use cli_support::{contents, ringtape, ringtape_in};
use std::fs;

const TEXT: &str = "It was the best of times, it was the worst of times.\n";

/// A folder with `my.txt` and `my.rtd` packed from it.
fn packed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("my.txt"), TEXT.repeat(40)).unwrap();
    ringtape_in(dir.path(), &["data", "pack", "my.txt", "--val", "0.25"]).ok();
    dir
}

#[test]
fn a_text_is_packed_inspected_and_verified() {
    let dir = packed();
    let ran = ringtape_in(dir.path(), &["data", "inspect", "my.rtd"]).ok();
    assert!(ran.out.contains("val") && ran.out.contains("the best of times"), "{ran:?}");
    let json = ringtape_in(dir.path(), &["data", "inspect", "my.rtd", "--json"]).ok().out;
    let info: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(info["count"], (TEXT.len() * 40) as u64);
    assert!(ringtape_in(dir.path(), &["data", "verify", "my.rtd"]).ok().out.contains("every checksum holds"));
}

#[test]
fn the_list_names_every_set_with_its_licence() {
    let out = ringtape(&["data", "list"]).ok().out;
    for name in ["moby-dick", "digits", "mnist", "mnist-full"] {
        assert!(out.contains(name), "{out}");
    }
    let sets: serde_json::Value =
        serde_json::from_str(&ringtape(&["data", "list", "--json"]).ok().out).unwrap();
    assert!(sets.as_array().unwrap().iter().all(|s| s["licence"].as_str().is_some_and(|l| !l.is_empty())));
    assert!(ringtape(&["data", "inspect", "digits"]).ok().out.contains("1797"));
}

#[test]
fn nothing_is_overwritten_and_wrong_names_are_named() {
    let dir = packed();
    let d = dir.path();
    let before = contents(d);
    ringtape_in(d, &["data", "pack", "my.txt"]).fails(2, &["my.rtd", "exists already"]);
    ringtape_in(d, &["data", "pack", "absent.txt"]).fails(4, &["absent.txt"]);
    ringtape_in(d, &["data", "pack", "my.txt", "--val", "1.5", "--out", "o.rtd"]).fails(2, &["1.5"]);
    ringtape_in(d, &["data", "pack", "my.txt", "--val", "x"]).fails(2, &["--val", "x"]);
    ringtape_in(d, &["data", "pack", "digits", "--val", "0.5"]).fails(2, &["digits", "fixed recipe"]);
    ringtape_in(d, &["data", "pack", "mnist-full"]).fails(2, &["mnist-full", "--from"]);
    ringtape_in(d, &["data", "pack", "mnist-full", "--from", "my.txt"]).fails(4, &["my.txt"]);
    ringtape_in(d, &["data", "inspect", "digit"]).fails(2, &["digit", "did you mean `digits`"]);
    ringtape_in(d, &["data", "inspect", "./absent.rtd"]).fails(4, &["absent.rtd"]);
    ringtape_in(d, &["data", "inspect", "."]).fails(4, &["folder"]);
    assert_eq!(contents(d), before, "a refused run writes nothing");
}

/// Every way of cutting a packed set, and garbage of every kind in its place.
#[test]
fn damaged_sets_are_refused_by_name() {
    let dir = packed();
    let d = dir.path();
    let good = fs::read(d.join("my.rtd")).unwrap();
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), vec![]),
        ("zeros".into(), vec![0; good.len()]),
        ("text".into(), TEXT.repeat(10).into_bytes()),
        ("header length absurd".into(), [&good[..8], &[0xff; 56], &good[64..]].concat()),
        ("longer than it says".into(), [&good[..], &[0; 100]].concat()),
    ];
    let cuts = (0..64).chain((64..good.len()).step_by(97));
    cases.extend(cuts.map(|n| (format!("cut to {n} bytes"), good[..n].to_vec())));
    for (what, bytes) in cases {
        fs::write(d.join("bad.rtd"), bytes).unwrap();
        let start = std::time::Instant::now();
        let ran = ringtape_in(d, &["data", "verify", "bad.rtd"]);
        assert_eq!(ran.code, Some(4), "{what}: {ran:?}");
        assert!(ran.err.contains("bad.rtd"), "{what}: {ran:?}");
        assert!(start.elapsed().as_secs() < 5, "{what} took {:?}", start.elapsed());
    }
}

/// A bit flipped anywhere is found by `verify`, which covers every byte.
#[test]
fn every_flipped_bit_is_found() {
    let dir = packed();
    let d = dir.path();
    let good = fs::read(d.join("my.rtd")).unwrap();
    let mut silent = Vec::new();
    for i in (0..good.len()).step_by(13) {
        let mut bad = good.clone();
        bad[i] ^= 1 << (i % 8);
        fs::write(d.join("bad.rtd"), bad).unwrap();
        if ringtape_in(d, &["data", "verify", "bad.rtd"]).code != Some(4) {
            silent.push(i);
        }
    }
    assert!(silent.is_empty(), "flips at bytes {silent:?} of {} passed", good.len());
}

/// A WAV file of 16 bits.
fn wav(path: &std::path::Path, rate: u32, channels: u16, samples: &[i16]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let sample_format = hound::SampleFormat::Int;
    let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format };
    let mut w = hound::WavWriter::create(path, spec).unwrap();
    samples.iter().for_each(|&s| w.write_sample(s).unwrap());
    w.finalize().unwrap();
}

#[test]
fn a_folder_of_recordings_is_packed() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for k in 0..6 {
        wav(&d.join(format!("words/yes/{k}.wav")), 8000, 1, &vec![1000 * k; 20 + k as usize]);
        wav(&d.join(format!("words/no/{k}.wav")), 8000, 1, &vec![-1000 * k; 10 + k as usize]);
    }
    ringtape_in(d, &["data", "pack", "words", "--val", "0.25"]).ok();
    let json = ringtape_in(d, &["data", "inspect", "words.rtd", "--json"]).ok().out;
    let info: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(info["count"], 12);
    assert_eq!(info["classes"], serde_json::json!([["no", 6], ["yes", 6]]));
    assert_eq!(info["fields"][0]["shape"], serde_json::json!([25]), "as long as the longest");
    assert!(info["changes"].as_str().unwrap().contains("8000"), "{json}");
    ringtape_in(d, &["data", "verify", "words.rtd"]).ok();
    let model = ["model.kind=mlp", "model.layers=1", "model.dim=8", "batch_size=4", "eval_every=0"];
    let mut args = vec!["train", "--steps", "2", "--out", "run", "--set", "data.path=words.rtd"];
    args.extend(model.iter().flat_map(|s| ["--set", s]));
    ringtape_in(d, &args).ok();
}

#[test]
fn a_recording_that_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let good = || {
        let _ = fs::remove_dir_all(d.join("words"));
        wav(&d.join("words/no/a.wav"), 8000, 1, &[5; 30]);
        wav(&d.join("words/yes/b.wav"), 8000, 1, &[7; 30]);
    };
    let refused = |words: &[&str]| {
        ringtape_in(d, &["data", "pack", "words"]).fails(4, words);
        assert!(!d.join("words.rtd").exists());
        good();
    };
    good();
    wav(&d.join("words/yes/fast.wav"), 16000, 1, &[7; 30]);
    refused(&["yes/fast.wav", "16000", "8000", "sox"]);
    wav(&d.join("words/yes/stereo.wav"), 8000, 2, &[7; 30]);
    refused(&["yes/stereo.wav", "2 channels", "sox"]);
    wav(&d.join("words/yes/silent.wav"), 8000, 1, &[]);
    refused(&["yes/silent.wav", "without samples"]);
    fs::write(d.join("words/yes/text.wav"), TEXT).unwrap();
    refused(&["yes/text.wav", "not a sound WAV"]);
    fs::write(d.join("words/yes/empty.wav"), "").unwrap();
    refused(&["yes/empty.wav", "not a sound WAV"]);
    let whole = fs::read(d.join("words/yes/b.wav")).unwrap();
    fs::write(d.join("words/yes/cut.wav"), &whole[..60]).unwrap();
    refused(&["yes/cut.wav"]);
    fs::create_dir(d.join("words/maybe")).unwrap();
    refused(&["words/maybe", "without"]);
    fs::write(d.join("words/yes/picture.png"), "").unwrap();
    refused(&["yes/picture.png", "among recordings"]);
    std::process::Command::new("mkfifo").arg(d.join("words/yes/pipe.wav")).status().unwrap();
    refused(&["yes/pipe.wav", "a pipe"]);
    (0..300).for_each(|k| wav(&d.join(format!("words/no/{k}.wav")), 8000, 1, &[1; 2]));
    wav(&d.join("words/no/long.wav"), 8000, 1, &[1; 60_000]);
    refused(&["no/long.wav", "60000 samples", "trim"]);
    ringtape_in(d, &["data", "pack", "words"]).ok();
}
