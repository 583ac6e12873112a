//! Too little memory, as a user sees it: exit code 5 with the size that was asked for, alone and as one rank of several.
//! `tests/e2e/memory_limit.sh` tries a hundred limits.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod cli_support;

use cli_support::{Ran, contents, finish, program, ringtape_in, wait_for};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Address space of a program that is to run out of it: enough to start and to load a snapshot.
const LIMIT: u64 = 400 << 20;

/// One layer of 65,536 units: 17 MB of weights, and 262 kB of activations a sample.
const WIDE: &[&str] = &[
    "data.path=digits",
    "model.kind=mlp",
    "model.layers=1",
    "model.dim=65536",
    "eval_every=0",
    "snapshot_every=0",
    "threads=1",
    "tensorboard=false",
];
/// Takes the run up with a batch whose activations do not fit; for ever, were there memory.
const TOO_MUCH: &[&str] = &["train", "--resume", "run", "--set", "batch_size=1000", "--steps", "1000000"];

/// The program under [`LIMIT`], by the shell's own means.
fn limited() -> Command {
    let mut c = Command::new("sh");
    c.args(["-c", "ulimit -c 0; ulimit -v \"$0\" && exec \"$@\"", &(LIMIT >> 10).to_string()]);
    c.arg(program().get_program()).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    c
}

fn start(mut c: Command, dir: &Path, args: &[&str]) -> Child {
    c.current_dir(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// `train` with settings over [`WIDE`].
fn train<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    let sets = WIDE.iter().chain(settings).flat_map(|s| ["--set", s]);
    ["train", "--out", "run"].into_iter().chain(sets).collect()
}

/// The size that an error names.
#[track_caller]
fn asked(ran: &Ran) -> u64 {
    let after = ran.err.split("out of memory: ").nth(1).unwrap_or_else(|| panic!("no size: {ran:?}"));
    after.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("no size: {ran:?}"))
}

/// A run of one step, and what its snapshot holds.
fn one_step(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
    ringtape_in(dir, &train(&["steps=1", "batch_size=8"])).ok();
    contents(&dir.join("run/step-1"))
}

/// The snapshot is as it was, is the only one, and loads.
#[track_caller]
fn intact(dir: &Path, before: &[(std::path::PathBuf, u64)]) {
    assert_eq!(contents(&dir.join("run/step-1")), before);
    let steps = std::fs::read_dir(dir.join("run")).unwrap().flatten();
    assert_eq!(steps.filter(|e| e.file_name().to_string_lossy().starts_with("step-")).count(), 1);
    ringtape_in(dir, &["eval", "run"]).ok();
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_its_size() {
    let d = tempfile::tempdir().unwrap();
    // 2^30 weights between two layers.
    let args = train(&["model.dim=32768", "model.layers=2", "steps=1", "batch_size=8"]);
    let ran = finish(start(limited(), d.path(), &args)).fails(5, &["out of memory", "bytes asked for"]);
    assert!(asked(&ran) >= 4 << 30, "{ran:?}");
    assert!(!d.path().join("run/step-1").exists());
}

#[test]
fn a_batch_that_does_not_fit_leaves_the_snapshot_before() {
    let d = tempfile::tempdir().unwrap();
    let before = one_step(d.path());
    let ran = finish(start(limited(), d.path(), TOO_MUCH)).fails(5, &["out of memory"]);
    assert!(asked(&ran) > 100 << 20, "{ran:?}");
    intact(d.path(), &before);
}

#[test]
fn where_one_rank_runs_out_the_others_name_it() {
    let d = tempfile::tempdir().unwrap();
    let before = one_step(d.path());
    for way in ["shm", "tcp"] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let rank = |r: usize| {
            let mut c = if r == 1 { limited() } else { program() };
            c.env("RANK", r.to_string()).env("WORLD_SIZE", "3").env("MASTER_PORT", port.to_string());
            c.env("RINGTAPE_SECRET", "of a test").env("RINGTAPE_TRANSPORT", way);
            start(c, d.path(), TOO_MUCH)
        };
        let [zero, one, two] = [0, 1, 2].map(rank);
        let ran = finish(one).fails(5, &["out of memory"]);
        assert!(asked(&ran) > 1 << 20, "{way}: {ran:?}");
        for other in [zero, two] {
            finish(other).fails(17, &["rank 1 failed"]);
        }
        intact(d.path(), &before);
    }
}

/// The limit comes while the job runs, as that of a group of processes may.
#[test]
fn a_job_of_which_one_rank_runs_out_ends_with_five() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let d = tempfile::tempdir().unwrap();
    let before = one_step(d.path());
    let mut c = program();
    c.args(["launch", "-n", "2", "--"]);
    let job = start(c, d.path(), TOO_MUCH);
    let mut one = None;
    wait_for("rank 1", Duration::from_secs(60), || {
        let path = format!("/proc/{0}/task/{0}/children", job.id());
        let children = std::fs::read_to_string(path).unwrap();
        one = children.split_whitespace().find_map(|id| {
            let set = std::fs::read(format!("/proc/{id}/environ")).ok()?;
            set.split(|b| *b == 0).any(|v| v == b"RANK=1").then(|| id.parse::<i32>().unwrap())
        });
        one.is_some()
    });
    let limit = Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) };
    prlimit(one.and_then(Pid::from_raw), Resource::As, limit).unwrap();
    // What is refused first may be small, where the limit comes late.
    let ran = finish(job).fails(5, &["[1] error: out of memory: ", "error: rank 1 failed"]);
    assert!(asked(&ran) > 0, "{ran:?}");
    intact(d.path(), &before);
}
