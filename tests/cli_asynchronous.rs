//! Ranks that do not wait for each other at every step, seen from outside: one is slow, one dies, one stops.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

#[path = "cli_support/mod.rs"]
mod support;

use ringtape::train::{Metrics, metrics};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{finish, program, wait_for};

const MLP: &[&str] = &[
    "data.path=digits",
    "model.kind=mlp",
    "model.layers=1",
    "model.dim=16",
    "batch_size=8",
    "optimizer.lr=0.003",
    "eval_every=0",
    "log_every=1",
    "tensorboard=false",
];
const SERVER: &[&str] = &["asynchronous.mode=server"];
const DILOCO: &[&str] = &["asynchronous.mode=diloco", "asynchronous.inner_steps=20"];

/// `n` ranks that train into `out`.
fn launch(dir: &Path, n: usize, how: &[&str], out: &str, settings: &[&[&str]]) -> Command {
    let mut c = program();
    c.current_dir(dir).env("RINGTAPE_SILENCE", "10").args(["launch", "-n", &n.to_string()]).args(how);
    c.args(["--", "train", "--out", out]).stdout(Stdio::piped()).stderr(Stdio::piped());
    for setting in MLP.iter().chain(settings.iter().flat_map(|s| s.iter())) {
        c.args(["--set", setting]);
    }
    c
}

fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap().success());
}

/// The process that is `rank` of the job that `launcher` started.
fn rank_of(launcher: &Child, rank: usize) -> u32 {
    let listed = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", launcher.id())).unwrap();
    let is = |id: &&str| {
        let variables = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&variables).split('\0').any(|v| v == format!("RANK={rank}"))
    };
    listed.split_whitespace().find(is).expect("it runs").parse().unwrap()
}

/// Once it has saved a snapshot.
fn underway(dir: &Path, out: &str, job: Child) -> Child {
    wait_for("a snapshot", Duration::from_secs(60), || {
        let saved = |e: std::fs::DirEntry| e.path().join("state.bin").exists();
        std::fs::read_dir(dir.join(out)).is_ok_and(|d| d.flatten().any(saved))
    });
    job
}

#[test]
fn the_fastest_rank_gets_ahead_of_a_slow_one_up_to_the_bound_and_never_further() {
    let d = tempfile::tempdir().unwrap();
    for (bound, how) in [(0, &[][..]), (3, &[]), (3, &["--threads"])] {
        let (out, staleness) = (format!("{bound}-{}", how.len()), format!("asynchronous.staleness={bound}"));
        let settings: &[&[&str]] = &[SERVER, &["steps=60", "schedule.warmup_steps=5", &staleness]];
        let mut job = launch(d.path(), 2, how, &out, settings);
        finish(job.env("RINGTAPE_SLOW", "1:20").spawn().unwrap()).ok();
        let lines: Vec<Metrics> = metrics::read(&d.path().join(out)).unwrap();
        let leads: Vec<u64> = lines.iter().map(|m| m.lead.unwrap()).collect();
        assert_eq!(leads.iter().max(), Some(&bound), "{leads:?}");
        let last = lines.last().unwrap();
        assert!(last.step == 60 && last.val_loss.is_some_and(|loss| loss < lines[0].loss), "{lines:?}");
    }
}

#[test]
fn a_killed_rank_ends_the_others_with_its_name() {
    let d = tempfile::tempdir().unwrap();
    for (out, mode) in [("server", SERVER), ("diloco", DILOCO)] {
        let long: &[&str] = &["steps=1000000", "snapshot_every=20", "keep_snapshots=1"];
        let job = launch(d.path(), 3, &[], out, &[mode, long]).spawn().unwrap();
        let job = underway(d.path(), out, job);
        signal(rank_of(&job, 1), "KILL");
        let ran = finish(job).fails(137, &["rank 1"]);
        // The others end by themselves.
        assert!(ran.err.contains("rank 1 failed"), "{ran:?}");
    }
}

#[test]
fn a_signal_stops_all_with_a_snapshot_and_others_go_on() {
    let d = tempfile::tempdir().unwrap();
    let long: &[&str] = &["steps=1000000", "snapshot_every=20", "keep_snapshots=1"];
    let job = underway(d.path(), "run", launch(d.path(), 2, &[], "run", &[SERVER, long]).spawn().unwrap());
    signal(rank_of(&job, 1), "INT");
    finish(job).fails(130, &["interrupted"]);
    let run = d.path().join("run");
    let step = metrics::read(&run).unwrap().last().unwrap().step + 30;
    let mut more = program();
    let steps = step.to_string();
    more.current_dir(d.path())
        .args(["launch", "-n", "3", "--", "train", "--resume", "run", "--steps", &steps]);
    finish(more.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).ok();
    assert_eq!(metrics::read(&run).unwrap().last().unwrap().step, step);
}

#[test]
fn a_slow_rank_has_to_be_said_so_that_it_is_understood() {
    let d = tempfile::tempdir().unwrap();
    let mut job = launch(d.path(), 2, &[], "run", &[&["steps=3"]]);
    let ran = finish(job.env("RINGTAPE_SLOW", "often").spawn().unwrap());
    ran.fails(2, &["RINGTAPE_SLOW", "1:3"]);
}
