//! A packed set that somebody changes while it is in use.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli_support;

use cli_support::{finish, program, ringtape_in, wait_for};
use ringtape::data::{Access, Field, Loader, LoaderOptions, Rtd, Samples, Writer};
use ringtape::device::Device;
use ringtape::shape::DType;
use std::fs::{self, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// A set of 40 samples that may be written.
fn set(dir: &Path) -> PathBuf {
    let path = dir.join("set.rtd");
    let mut w = Writer::create(&path, Default::default()).unwrap();
    w.field(Field::samples("x", DType::U8, &[100])).unwrap();
    (0..40).for_each(|k| w.write(&[k; 100]).unwrap());
    w.split("train", 0, 40);
    w.finish().unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    path
}

/// Reads epochs of four batches; after the first batch `change` is made. Gives how many batches came, and the error.
fn batches(path: &Path, access: Access, change: impl FnOnce()) -> (usize, Option<String>) {
    let data = Samples::new(Arc::new(Rtd::open(path, access).unwrap()), "train").unwrap();
    let options = LoaderOptions { batch: 10, prefetch: 0, epochs: Some(3), ..LoaderOptions::default() };
    let mut loader = Loader::new(data, &Device::cpu(), &options).unwrap();
    loader.next().unwrap().unwrap();
    change();
    let mut n = 1;
    for batch in loader {
        match batch {
            Ok(_) => n += 1,
            Err(e) => {
                assert_eq!(e.exit_code(), 4);
                return (n, Some(e.to_string()));
            }
        }
    }
    (n, None)
}

fn change_a_byte(path: &Path) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&[99], 1000).unwrap();
}

#[test]
fn a_changed_byte_is_reported_at_the_next_epoch() {
    let dir = tempfile::tempdir().unwrap();
    for access in [Access::Mmap, Access::Read] {
        let path = set(dir.path());
        let (n, e) = batches(&path, access, || change_a_byte(&path));
        let e = e.unwrap();
        assert!(
            n == 4 && e.contains("set.rtd") && e.contains("changed") && e.contains("data.map=sealed"),
            "{e}"
        );
    }
}

/// Who puts the time of the file back is found out by the checksums.
#[test]
fn a_changed_byte_is_reported_although_the_time_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    for access in [Access::Mmap, Access::Read] {
        let path = set(dir.path());
        let (n, e) = batches(&path, access, || {
            let before = fs::metadata(&path).unwrap().modified().unwrap();
            change_a_byte(&path);
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_times(FileTimes::new().set_modified(before)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        });
        let e = e.unwrap();
        assert!(n == 4 && e.contains("set.rtd") && e.contains("damaged"), "{e}");
    }
}

#[test]
fn what_leaves_the_contents_alone_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    for access in [Access::Mmap, Access::Read, Access::Sealed] {
        let path = set(dir.path());
        let changes = || {
            fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
            fs::rename(&path, dir.path().join("other.rtd")).unwrap();
            fs::write(&path, "another file of the name").unwrap();
            fs::remove_file(dir.path().join("other.rtd")).unwrap();
        };
        assert_eq!(batches(&path, access, changes), (12, None), "{access:?}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_copy_in_memory_is_immune() {
    let dir = tempfile::tempdir().unwrap();
    let path = set(dir.path());
    assert_eq!(batches(&path, Access::Sealed, || change_a_byte(&path)), (12, None));
    let path = set(dir.path());
    let cut = || OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(batches(&path, Access::Sealed, cut), (12, None));
}

const MODEL: [&str; 12] = [
    "data.path=my.rtd",
    "model.layers=1",
    "model.dim=16",
    "model.heads=2",
    "model.context=8",
    "batch_size=4",
    "eval_every=0",
    "snapshot_every=0",
    "log_every=1",
    "tensorboard=false",
    "schedule.warmup_steps=2",
    "steps=400",
];

/// The whole program: a run on a copy in memory ends with the bits of one that nobody disturbed.
#[test]
fn a_run_with_sealed_data_ends_as_if_nothing_had_happened() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    fs::write(d.join("my.txt"), "the cat sat on the mat; the dog sat on the log.\n".repeat(20)).unwrap();
    ringtape_in(d, &["data", "pack", "my.txt"]).ok();
    let args = |out: &'static str, map: &'static str| {
        let sets = MODEL.iter().copied().chain([map]).flat_map(|s| ["--set", s]);
        ["--quiet", "train", "--out", out].into_iter().chain(sets).collect::<Vec<_>>()
    };
    ringtape_in(d, &args("whole", "data.map=mmap")).ok();
    let mut run = program();
    run.current_dir(d).args(args("changed", "data.map=sealed")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = run.spawn().unwrap();
    wait_for("a step", Duration::from_secs(60), || {
        fs::read_to_string(d.join("changed/metrics.jsonl")).is_ok_and(|t| t.lines().count() > 1)
    });
    fs::set_permissions(d.join("my.rtd"), Permissions::from_mode(0o644)).unwrap();
    let file = OpenOptions::new().write(true).open(d.join("my.rtd")).unwrap();
    file.write_all_at(&[0; 200], 64).unwrap();
    file.set_len(300).unwrap();
    let done = fs::read_to_string(d.join("changed/metrics.jsonl")).unwrap().lines().count();
    assert!(done < 400, "the run was over before the file was changed");
    finish(child).ok();
    let weights = |run: &str| fs::read(d.join(run).join("step-400/model.safetensors")).unwrap();
    assert!(weights("whole") == weights("changed"));
    ringtape_in(d, &["train", "--out", "no", "--set", "data.map=floating"]).fails(2, &["data.map", "sealed"]);
}
