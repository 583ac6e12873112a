//! `launch --max-restarts` and `--elastic`: training that goes on when ranks die, seen from outside.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

#[path = "cli_support/mod.rs"]
mod support;

use ringtape::train::metrics;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Ran, finish, program, ringtape_in, wait_for};

/// Time for what takes a second on a machine that has nothing else to do.
const LONG: Duration = Duration::from_secs(120);
/// Two runs of three ranks have the same bits where neither measures which sums go by the tree.
const MLP: &[&str] = &[
    "data.path=digits",
    "model.kind=mlp",
    "model.layers=1",
    "model.dim=16",
    "model.dropout=0.1",
    "batch_size=9",
    "optimizer.lr=0.003",
    "eval_every=0",
    "log_every=1",
    "snapshot_every=50",
    "crossover=8192",
    "tensorboard=false",
];

/// `train` with these settings over [`MLP`].
fn train(out: &[&str], settings: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = ["train"].iter().chain(out).map(|s| s.to_string()).collect();
    for setting in MLP.iter().chain(settings) {
        args.extend(["--set".into(), setting.to_string()]);
    }
    args
}

fn launch(dir: &Path, flags: &[&str], verb: &[String]) -> Child {
    let mut c = program();
    // Ranks that are killed are seen at once; that one is silent says little on a machine that is busy.
    c.current_dir(dir).env("RINGTAPE_SILENCE", "60").arg("launch").args(flags).arg("--").args(verb);
    c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap().success());
}

/// The process that is `rank` of the job that `launcher` started, if it runs.
fn rank_of(launcher: &Child, rank: usize) -> Option<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", launcher.id())).ok()?;
    let is = |id: &&str| {
        let variables = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&variables).split('\0').any(|v| v == format!("RANK={rank}"))
    };
    listed.split_whitespace().find(is)?.parse().ok()
}

/// Step of the newest snapshot; 0 where there is none.
fn newest(run: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(run) else { return 0 };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    names.filter_map(|n| n.strip_prefix("step-")?.parse().ok()).max().unwrap_or(0)
}

/// Waits until the run has a snapshot that it has not now.
#[track_caller]
fn advances(run: &Path) {
    let before = newest(run);
    wait_for("a snapshot", LONG, || newest(run) > before);
}

/// Kills the process that is `rank`, and waits until all are others and the run goes on.
#[track_caller]
fn kill_and_wait(launcher: &Child, rank: usize, run: &Path) {
    let first = rank_of(launcher, 0).expect("it runs");
    signal(rank_of(launcher, rank).expect("it runs"), "KILL");
    wait_for("a restart", LONG, || rank_of(launcher, 0).is_some_and(|id| id != first));
    advances(run);
}

fn gone(id: u32) -> bool {
    !Path::new(&format!("/proc/{id}")).exists()
}

#[track_caller]
fn same_bits(dir: &Path, a: &str, b: &str, step: u64) {
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let of = |run: &str| std::fs::read(dir.join(run).join(format!("step-{step}")).join(file)).unwrap();
        assert!(of(a) == of(b), "{file} of {a} and {b}");
    }
    let steps: Vec<u64> = metrics::read(&dir.join(b)).unwrap().iter().map(|m| m.step).collect();
    assert!(steps.into_iter().eq(1..=step), "metrics.jsonl has every step once");
}

/// How often the rank made step `step`.
fn made(run: &Path, rank: usize, step: u64) -> usize {
    let log = std::fs::read_to_string(run.join(format!("ranks/rank-{rank}.log"))).unwrap();
    log.lines().filter(|l| l.split_whitespace().nth(1) == Some(&step.to_string())).count()
}

#[track_caller]
fn not_restarted(ran: &Ran) {
    assert!(!ran.err.contains("restart "), "{ran:?}");
}

#[test]
fn a_run_whose_ranks_are_killed_ends_with_the_bits_of_one_that_nobody_disturbed() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let settings = ["steps=2000"];
    finish(launch(d, &["-n", "3"], &train(&["--out", "whole"], &settings))).ok();
    let job = launch(d, &["-n", "3", "--max-restarts", "2"], &train(&["--out", "parts"], &settings));
    let run = d.join("parts");
    advances(&run);
    kill_and_wait(&job, 0, &run);
    signal(rank_of(&job, 2).expect("it runs"), "KILL");
    let ran = finish(job).ok();
    for words in ["rank 0 was killed by signal 9; restart 1 of 2 from parts/step-", "rank 2 was killed"] {
        assert!(ran.err.contains(words), "{words}: {ran:?}");
    }
    assert_eq!(ran.err.matches("restart ").count(), 2, "{ran:?}");
    same_bits(d, "whole", "parts", 2000);
    for rank in 0..3 {
        assert_eq!((made(&run, rank, 1), made(&run, rank, 50)), (1, 1), "rank {rank} went on, not back");
    }
}

#[test]
fn a_rank_that_dies_more_often_than_allowed_ends_the_job_with_its_code() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    // The folder is the one that train would choose.
    let job = launch(d, &["-n", "2", "--max-restarts", "1"], &train(&[], &["steps=1000000"]));
    let run = d.join("runs/mlp-1");
    advances(&run);
    kill_and_wait(&job, 1, &run);
    let last = rank_of(&job, 1).expect("it runs");
    signal(last, "KILL");
    let ran = finish(job).fails(137, &["rank 1 of the job ended with exit code 137"]);
    assert!(ran.err.contains("restart 1 of 1 from runs/mlp-1/step-"), "{ran:?}");
    assert!(gone(last) && !d.join("runs/mlp-2").exists());
    // A line that goes on does so again as it is.
    let more = (newest(&run) + 2000).to_string();
    let resume = ["train", "--resume", "runs/mlp-1", "--steps", &more].map(String::from);
    let job = launch(d, &["-n", "2", "--max-restarts", "1"], &resume);
    advances(&run);
    signal(rank_of(&job, 0).expect("it runs"), "KILL");
    let ran = finish(job).ok();
    assert!(ran.err.contains("rank 0 was killed by signal 9; restart 1 of 1"), "{ran:?}");
    assert_eq!(newest(&run).to_string(), more);
}

#[test]
fn what_would_fail_again_is_not_tried_again() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let flags = ["-n", "3", "--max-restarts", "3"];
    for (code, settings, word) in [
        (2, &["batch_size=2"][..], "batch_size"),
        (2, &["model.dum=3"], "model.dum"),
        (6, &["optimizer.name=sgd", "optimizer.lr=1e38", "steps=20"], "step "),
    ] {
        let ran = finish(launch(d, &flags, &train(&[], settings))).fails(code, &[word]);
        not_restarted(&ran);
        assert_eq!(d.join("runs/mlp-1").exists(), code == 6, "an empty folder is not left behind");
    }
    // A folder that holds a run is not gone on with by a line that begins one.
    let old = d.join("old");
    std::fs::create_dir_all(&old).unwrap();
    std::fs::write(old.join("config.toml"), "").unwrap();
    not_restarted(
        &finish(launch(d, &flags, &train(&["--out", "old"], &[]))).fails(2, &["old", "holds a run"]),
    );
    assert_eq!(std::fs::read_dir(&old).unwrap().count(), 1);
    let ran = finish(launch(d, &["-n", "2", "--elastic"], &train(&[], &["codec.name=int8"])));
    ran.fails(2, &["codec.name", "--max-restarts"]);
    let verb = |words: &str| words.split(' ').map(String::from).collect::<Vec<_>>();
    for flags in [&["-n", "2", "--max-restarts", "1"][..], &["-n", "2", "--elastic"]] {
        let ran = finish(launch(d, flags, &verb("bench all-reduce")));
        ran.fails(2, &["only `train` can be restarted"]);
        finish(launch(d, flags, &verb("train --help"))).ok();
    }
}

#[test]
fn a_user_who_asks_to_stop_is_obeyed() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let flags = ["-n", "2", "--max-restarts", "3"];
    for (out, name, code) in [("term", "TERM", 143), ("int", "INT", 130)] {
        let job = launch(d, &flags, &train(&["--out", out], &["steps=1000000"]));
        advances(&d.join(out));
        signal(job.id(), name);
        not_restarted(&finish(job).fails(code, &["interrupted"]));
    }
    // While a restart is on its way too, at whichever of its moments.
    let job = launch(d, &flags, &train(&["--out", "both"], &["steps=1000000"]));
    advances(&d.join("both"));
    signal(rank_of(&job, 1).expect("it runs"), "KILL");
    signal(job.id(), "TERM");
    let ran = finish(job);
    assert!(matches!(ran.code, Some(137 | 143)), "{ran:?}");
    // One that has stopped keeps the others from ending gently, and would never end by itself.
    let job = launch(d, &flags, &train(&["--out", "twice"], &["steps=1000000"]));
    advances(&d.join("twice"));
    let ids = [0, 1].map(|rank| rank_of(&job, rank).expect("it runs"));
    signal(ids[1], "STOP");
    signal(job.id(), "TERM");
    std::thread::sleep(Duration::from_millis(300));
    signal(job.id(), "INT");
    let start = Instant::now();
    not_restarted(&finish(job).fails(130, &[]));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(ids.iter().all(|id| gone(*id)));
}

#[test]
fn a_run_without_a_snapshot_begins_again_where_it_is() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let settings = ["steps=2000", "snapshot_every=0"];
    let flags = ["-n", "2", "--max-restarts", "1"];
    finish(launch(d, &["-n", "2"], &train(&["--out", "whole"], &settings))).ok();
    // Before there is a config.toml, as one of two cannot meet the other; and after.
    for (out, lines) in [("early", 0), ("late", 30)] {
        let job = launch(d, &flags, &train(&["--out", out], &settings));
        let run = d.join(out);
        wait_for("steps", LONG, || {
            rank_of(&job, 1).is_some() && (lines == 0 || metrics::read(&run).is_ok_and(|m| m.len() > lines))
        });
        signal(rank_of(&job, 1).expect("it runs"), "KILL");
        let ran = finish(job).ok();
        let words = format!("rank 1 was killed by signal 9; restart 1 of 1 from the beginning of {out}");
        assert!(ran.err.contains(&words), "{ran:?}");
        same_bits(d, "whole", out, 2000);
        assert!(lines == 0 || made(&run, 0, 1) == 2);
    }
}

#[test]
fn those_that_are_left_go_on_and_lost_ones_come_back_to_the_same_bits() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let settings = ["steps=1500", "micro_shards=4"];
    ringtape_in(d, &train(&["--out", "whole"], &settings)).ok();
    let job = launch(d, &["-n", "4", "--elastic"], &train(&["--out", "parts"], &settings));
    let run = d.join("parts");
    advances(&run);
    // Nobody is lost.
    signal(job.id(), "USR1");
    advances(&run);
    // Three are left, but shards are shared as a tree.
    kill_and_wait(&job, 3, &run);
    assert!(rank_of(&job, 1).is_some() && rank_of(&job, 2).is_none());
    signal(job.id(), "USR1");
    wait_for("four ranks", LONG, || rank_of(&job, 3).is_some());
    advances(&run);
    let ran = finish(job).ok();
    for words in [
        "rank 3 was killed by signal 9; restart 1 of 3 with 2 of 4 ranks from parts/step-",
        "the lost ranks are back; going on with 4 of 4 ranks from parts/step-",
    ] {
        assert_eq!(ran.err.matches(words).count(), 1, "{words}: {ran:?}");
    }
    same_bits(d, "whole", "parts", 1500);
    // It was missing for a while, and nobody went back behind a snapshot.
    let missed = (1..=1500).filter(|step| made(&run, 3, *step) == 0).count();
    assert!((1..1400).contains(&missed), "{missed}");
    assert!([0, 3].iter().all(|rank| (made(&run, *rank, 1), made(&run, *rank, 1500)) == (1, 1)));
}

#[test]
fn without_shards_any_number_of_ranks_that_are_left_goes_on_until_none_may_be_lost() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let job = launch(d, &["-n", "3", "--elastic"], &train(&["--out", "run"], &["steps=1000000"]));
    let run = d.join("run");
    advances(&run);
    kill_and_wait(&job, 1, &run);
    kill_and_wait(&job, 0, &run);
    signal(rank_of(&job, 0).expect("it runs"), "KILL");
    let ran = finish(job).fails(137, &["rank 0 of the job ended with exit code 137"]);
    for words in ["restart 1 of 2 with 2 of 3 ranks", "restart 2 of 2 with 1 of 3 ranks"] {
        assert!(ran.err.contains(words), "{words}: {ran:?}");
    }
}
