//! Paths that lead elsewhere, and files that are none: refused by name, and never waited for.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli_support;

use cli_support::{Ran, finish, program, ringtape_in, wait_for};
use ringtape::data::{check_folder, check_regular_file, open_regular};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// `work/`, where the program runs, with `my.rtd` and a run in `run/`; beside it `outside/` with a set and a text.
fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (work, outside) = (dir.path().join("work"), dir.path().join("outside"));
    fs::create_dir(&work).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(work.join("my.txt"), "the cat sat on the mat; the dog sat on the log.\n".repeat(20)).unwrap();
    ringtape_in(&work, &["data", "pack", "my.txt"]).ok();
    fs::copy(work.join("my.rtd"), outside.join("secret.rtd")).unwrap();
    fs::write(outside.join("precious.txt"), "to be left as it is").unwrap();
    recipe(&work, "my.rtd");
    ringtape_in(&work, &["train", "r.toml", "--out", "run"]).ok();
    (dir, work, outside)
}

fn recipe(work: &Path, data: &str) {
    let text = format!(
        "steps = 2\nbatch_size = 4\neval_every = 0\ntensorboard = false\n[data]\npath = {data:?}\n[model]\nlayers = 1\n\
         dim = 16\nheads = 2\ncontext = 8\n"
    );
    fs::write(work.join("r.toml"), text.replace("\\0", "\\u0000")).unwrap();
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Runs the program, which must not wait for anything: a pipe that is opened has nobody at its other end.
fn quickly(dir: &Path, args: &[&str]) -> Ran {
    let mut child =
        program().current_dir(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&format!("{args:?}"), Duration::from_secs(20), || child.try_wait().unwrap().is_some());
    finish(child)
}

#[test]
fn a_recipe_reaches_only_what_is_below_this_folder() {
    let (_dir, work, outside) = place();
    let absolute = outside.join("secret.rtd");
    symlink(&absolute, work.join("link.rtd")).unwrap();
    symlink(&outside, work.join("folder")).unwrap();
    symlink("/dev/zero", work.join("zero.rtd")).unwrap();
    pipe(&work.join("pipe.rtd"));
    fs::create_dir(work.join("sub")).unwrap();
    let cases = [
        ("../outside/secret.rtd", "`..`"),
        ("sub/../../outside/secret.rtd", "`..`"),
        (absolute.to_str().unwrap(), "absolute"),
        ("/dev/zero", "absolute"),
        ("my.rtd\0", "NUL"),
        ("", "empty"),
        ("link.rtd", "leads out"),
        ("folder/secret.rtd", "leads out"),
        ("zero.rtd", "leads out"),
        ("pipe.rtd", "a pipe"),
        ("sub", "a folder"),
    ];
    for (data, why) in cases {
        recipe(&work, data);
        quickly(&work, &["train", "r.toml", "--out", "no"]).fails(2, &["data.path", why]);
        assert!(!work.join("no").exists(), "{data:?}");
    }
    // What the user types wins, and may be anywhere; so may what it is a link to. The run goes on with it.
    let typed = format!("data.path={}", absolute.display());
    quickly(&work, &["train", "r.toml", "--out", "typed", "--set", &typed]).ok();
    quickly(&work, &["eval", "typed"]).ok();
    quickly(&work, &["train", "r.toml", "--out", "link", "--set", "data.path=link.rtd"]).ok();
    // Links that stay inside are fine, and what is not there is said to be so.
    symlink("my.rtd", work.join("inner.rtd")).unwrap();
    recipe(&work, "inner.rtd");
    quickly(&work, &["train", "r.toml", "--out", "inner"]).ok();
    recipe(&work, "sub/absent.rtd");
    quickly(&work, &["train", "r.toml", "--out", "no"]).fails(4, &["absent.rtd"]);
}

#[test]
fn a_run_folder_from_elsewhere_reaches_nothing_else() {
    let (_dir, work, outside) = place();
    let precious = outside.join("precious.txt");
    let run = work.join("run");
    let swapped = |name: &str, put: &dyn Fn(&Path), words: &[&str]| {
        let (path, kept) = (run.join(name), work.join("kept"));
        let had = path.exists();
        if had {
            fs::rename(&path, &kept).unwrap();
        }
        put(&path);
        quickly(&work, &["train", "--resume", "run", "--steps", "3"]).fails(2, words);
        quickly(&work, &["eval", "run"]).fails(2, words);
        fs::remove_file(&path).unwrap();
        if had {
            fs::rename(&kept, &path).unwrap();
        }
    };
    let out = |to: &'static str| {
        let to = outside.join(to);
        move |path: &Path| symlink(&to, path).unwrap()
    };
    for name in
        ["metrics.jsonl", "lock", "tensorboard", "step-2/model.safetensors", "step-2/state.bin", "step-9"]
    {
        swapped(name, &out("precious.txt"), &[name, "leads out"]);
    }
    swapped("step-2", &out(""), &["step-2", "leads out"]);
    swapped("metrics.jsonl", &out("absent.txt"), &["metrics.jsonl", "leads out"]);
    swapped("metrics.jsonl", &|p| symlink("../../outside/precious.txt", p).unwrap(), &["metrics.jsonl"]);
    for name in ["metrics.jsonl", "lock", "step-2/state.bin"] {
        swapped(name, &pipe, &[name, "neither a file nor a folder"]);
        swapped(name, &|p| symlink("/dev/full", p).unwrap(), &[name, "leads out"]);
    }
    assert_eq!(fs::read_to_string(precious).unwrap(), "to be left as it is");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 2, "nothing was made there");
    quickly(&work, &["train", "--resume", "run", "--steps", "3"]).ok();
}

/// Whatever is typed must be a regular file: others are refused before they are opened.
#[test]
fn what_is_no_file_is_not_opened() {
    let (_dir, work, _) = place();
    for ending in ["txt", "csv", "npy", "bin", "rtd", "toml", "safetensors"] {
        pipe(&work.join(format!("pipe.{ending}")));
        fs::create_dir(work.join(format!("folder.{ending}"))).unwrap();
        symlink("/dev/zero", work.join(format!("device.{ending}"))).unwrap();
    }
    for (kind, what) in [("pipe", "a pipe"), ("device", "a device")] {
        for ending in ["txt", "csv", "npy", "bin"] {
            let name = format!("{kind}.{ending}");
            quickly(&work, &["data", "pack", &name]).fails(4, &[&name, what]);
        }
    }
    quickly(&work, &["data", "pack", "/dev/zero"]).fails(4, &["/dev/zero", "a device"]);
    for (kind, what) in [("pipe", "a pipe"), ("device", "a device"), ("folder", "a folder")] {
        let (set, config, labels) = (format!("{kind}.rtd"), format!("{kind}.toml"), format!("{kind}.npy"));
        quickly(&work, &["data", "inspect", &set]).fails(4, &[&set, what]);
        quickly(&work, &["data", "verify", &set]).fails(4, &[&set, what]);
        quickly(&work, &["train", "--set", &format!("data.path={set}")]).fails(4, &[&set, what]);
        quickly(&work, &["train", &config]).fails(4, &[&config, what]);
        fs::write(work.join("a-idx1"), [0, 0, 8, 1, 0, 0, 0, 1, 5]).unwrap();
        quickly(&work, &["data", "pack", "a-idx1", "--labels", &labels, "--out", "l.rtd"])
            .fails(4, &[&labels, what]);
        if kind != "folder" {
            quickly(&work, &["data", "pack", "mnist-full", "--from", &set]).fails(4, &[&set, what]);
        }
        let tensors = format!("{kind}.safetensors");
        quickly(&work, &["op", "relu", "--in", &tensors, "--out", "o.safetensors"]).fails(4, &[&tensors]);
    }
    quickly(&work, &["train", "--set", "data.path=a\\u0000b.rtd"]).fails(4, &["b.rtd"]);
    assert!(!work.join("l.rtd").exists() && !work.join("o.safetensors").exists());
}

#[test]
fn the_library_refuses_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    pipe(&d.join("pipe"));
    assert!(check_regular_file(&d.join("pipe")).unwrap_err().to_string().contains("pipe"));
    assert!(check_regular_file(Path::new("/dev/zero")).is_err() && open_regular(d).is_err());
    let nul = open_regular(Path::new("a\0b")).unwrap_err();
    assert!(nul.exit_code() == 2 && nul.to_string().contains("NUL"), "{nul}");
    assert_eq!(ringtape::data::check_written("data.path", "a\0b").unwrap_err().exit_code(), 2);
    assert!(ringtape::data::check_written("data.path", "moby-dick").is_ok());
    assert_eq!(check_folder(d).unwrap_err().exit_code(), 2);
    fs::remove_file(d.join("pipe")).unwrap();
    fs::write(d.join("a"), "").unwrap();
    symlink("a", d.join("b")).unwrap();
    symlink(".", d.join("loop")).unwrap();
    check_folder(d).unwrap();
}
