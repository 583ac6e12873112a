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
