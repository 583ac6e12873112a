//! Front ends in the packed format: kept, checked, and absent from the bytes of sets that have none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ringtape::data::{About, Access, Field, FrontEnd, Rtd, Writer, audio::Recipe, open_named};
use ringtape::shape::DType;
use std::path::{Path, PathBuf};

fn text() -> FrontEnd {
    FrontEnd::Text { vocabulary: ["", "a", "plus"].map(String::from).to_vec(), words: true }
}

/// One sample of text and one of sound.
fn write(folder: &Path, text: FrontEnd, sound: FrontEnd) -> ringtape::error::Result<PathBuf> {
    let mut w = Writer::create(folder.join("set.rtd"), About::default())?;
    w.field(Field::samples("text", DType::U8, &[4]).below(3))?;
    w.front_end(text);
    w.write(&[1, 2, 1, 0])?;
    w.field(Field::samples("audio", DType::U8, &[2, 13]).normalised(vec![7.0; 13], vec![2.0; 13]))?;
    w.front_end(sound);
    w.write(&[7; 26])?;
    w.finish()
}

#[test]
fn front_ends_are_kept_and_each_changed_byte_of_them_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), text(), FrontEnd::Audio(Recipe::fsdd())).unwrap();
    let set = Rtd::open(&path, Access::Read).unwrap();
    set.verify().unwrap();
    assert_eq!(set.header().front_end("text"), Some(&text()));
    assert_eq!(set.header().front_end("audio"), Some(&FrontEnd::Audio(Recipe::fsdd())));
    assert_eq!(set.header().front_end("image"), None);
    let good = std::fs::read(&path).unwrap();
    assert_eq!(good[8], 2, "version");
    let changed = dir.path().join("changed.rtd");
    for k in 0..good.len() {
        let mut bytes = good.clone();
        bytes[k] ^= 0x40;
        std::fs::write(&changed, &bytes).unwrap();
        assert!(Rtd::open(&changed, Access::Read).and_then(|s| s.verify()).is_err(), "byte {k}");
        std::fs::write(&changed, &good[..k]).unwrap();
        assert!(Rtd::open(&changed, Access::Read).is_err(), "cut to {k}");
    }
}

#[test]
fn front_ends_that_do_not_fit_their_fields_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |text: FrontEnd, sound: FrontEnd, part: &str| {
        let e = write(dir.path(), text, sound).unwrap_err().to_string();
        assert!(e.contains(part), "{e}");
    };
    let sound = || FrontEnd::Audio(Recipe::fsdd());
    let more = FrontEnd::Text { vocabulary: ["", "a", "b", "c"].map(String::from).to_vec(), words: false };
    refused(more, sound(), "front end of `text`");
    refused(sound(), sound(), "front end of `text`");
    refused(text(), FrontEnd::Audio(Recipe { coefficients: 12, ..Recipe::fsdd() }), "rows of 12");
    refused(text(), FrontEnd::Audio(Recipe { high: 1e9, ..Recipe::fsdd() }), "cannot be");
    refused(text(), FrontEnd::Audio(Recipe { low: f32::NAN, ..Recipe::fsdd() }), "cannot be");
    refused(text(), FrontEnd::Image { white: 255 }, "front end of `audio`");
}

/// Sets of version 1 keep their bytes, and so the identity by which a snapshot knows its data.
#[test]
fn a_set_without_front_ends_is_what_it_was() {
    let set = open_named("digits", Access::Read).unwrap();
    set.verify().unwrap();
    let hex: String = set.hash().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "36e08ef7a29fa8a6c472545dd87cb5ec5252d71387093373e9891ff853a36f90");
    assert_eq!(std::fs::read(set.path()).unwrap()[8], 1, "version");
}
