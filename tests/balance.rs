//! Micro-shards that move to the ranks that are fast: the bits are those of one rank, and the report says who was slow.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

#[path = "cli_support/mod.rs"]
mod support;

use ringtape::train::metrics::Pace;
use ringtape::train::{Config, Metrics, metrics};
use std::path::Path;
use std::process::Stdio;
use support::{finish, program, ringtape_in};

const BASE: &[&str] = &[
    "steps=40",
    "schedule.name=constant",
    "schedule.warmup_steps=2",
    "eval_batches=2",
    "eval_every=20",
    "log_every=1",
    "tensorboard=false",
    "threads=1",
    "batch_size=17",
    "bucket_mb=0.02",
    "model.layers=1",
    "model.dim=32",
    "model.heads=2",
    "model.context=32",
    "model.dropout=0.1",
    "model.activation=sparse",
    "model.sparse.rule=running_mean",
    "model.sparse.density=0.3",
];

fn train(out: &str, settings: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = ["train", "--out", out].map(String::from).into();
    for setting in BASE.iter().chain(settings) {
        args.extend(["--set".into(), setting.to_string()]);
    }
    args
}

/// By `n` ranks, of which one is `slow`, as `RINGTAPE_SLOW` says.
fn launch(dir: &Path, n: usize, slow: &str, verb: &[String]) {
    let mut c = program();
    c.current_dir(dir).env("RINGTAPE_SLOW", slow).env("RINGTAPE_SILENCE", "20");
    c.args(["launch", "-n", &n.to_string(), "--"]).args(verb).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(c.spawn().unwrap()).ok();
}

fn files(at: &Path) -> [Vec<u8>; 2] {
    ["model.safetensors", "optimizer.safetensors"].map(|f| std::fs::read(at.join("step-40").join(f)).unwrap())
}

fn losses(at: &Path) -> Vec<String> {
    let line = |m: Metrics| format!("{:?}", (m.step, m.loss, m.val_loss, m.grad_norm, m.noise_scale));
    metrics::read(at).unwrap().into_iter().map(line).collect()
}

/// At each look how fast ranks were and what they had.
fn looks(at: &Path) -> Vec<Vec<Pace>> {
    metrics::read(at).unwrap().into_iter().filter_map(|m| m.balance).collect()
}

#[test]
fn shards_leave_a_slow_rank_and_the_bits_stay_those_of_one() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    ringtape_in(d, &train("one", &["micro_shards=8"])).ok();
    launch(d, 2, "1:10", &train("two", &["micro_shards=8", "balance=true"]));
    assert_eq!(losses(&d.join("one")), losses(&d.join("two")));
    assert!(files(&d.join("one")) == files(&d.join("two")), "weights or state");
    let looks = looks(&d.join("two"));
    assert_eq!(looks.len(), 4);
    let shards = |look: &[Pace]| look.iter().map(|p| p.shards).collect::<Vec<_>>();
    assert_eq!(shards(&looks[0]), [4, 4]);
    assert!(looks.iter().all(|look| shards(look).iter().sum::<usize>() == 8));
    assert!(looks.iter().any(|look| look[1].shards < 3), "none left the slow rank: {looks:?}");
    assert!(looks[3][1].samples_per_s < looks[3][0].samples_per_s, "{looks:?}");
    let report = std::fs::read_to_string(d.join("two/report.html")).unwrap();
    assert!(report.contains("Who did how much") && report.contains("Slow: rank 1 ("), "the report names it");
    let log = std::fs::read_to_string(d.join("two/ranks/rank-1.log")).unwrap();
    assert!(log.starts_with("step 1 ") && log.contains("  shards 4  samples/s "), "{log}");
    let alone = std::fs::read_to_string(d.join("one/report.html")).unwrap();
    assert!(!alone.contains("Who did how much"));
}

#[test]
fn three_ranks_with_parts_of_the_state_are_gone_on_with_by_one() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let settings = ["micro_shards=8", "accumulate=2"];
    ringtape_in(d, &train("one", &settings)).ok();
    let more = ["balance=true", "zero=1", "steps=30"];
    launch(d, 3, "0:8", &train("three", &[&settings[..], &more].concat()));
    let looks = looks(&d.join("three"));
    assert!(looks.iter().any(|look| look[0].shards == 1), "{looks:?}");
    ringtape_in(d, &["train", "--resume", "three", "--steps", "40"]).ok();
    assert!(files(&d.join("one")) == files(&d.join("three")), "weights or state");
}

#[test]
fn what_cannot_be_balanced_is_refused_by_key() {
    let d = tempfile::tempdir().unwrap();
    let all: Vec<String> = BASE.iter().chain(&["balance=true"]).map(|s| s.to_string()).collect();
    let e = Config::resolve(None, &all).unwrap_err();
    assert!(
        e.exit_code() == 2 && ["balance", "micro_shards"].iter().all(|w| e.to_string().contains(w)),
        "{e}"
    );
    for (slow, settings, words) in [
        ("1:1", &["balance=true", "micro_shards=2"][..], "each of 3 ranks"),
        ("1:0", &["balance=true", "micro_shards=4"], "RINGTAPE_SLOW"),
    ] {
        let mut c = program();
        c.current_dir(d.path()).env("RINGTAPE_SLOW", slow).args(["launch", "-n", "3", "--"]);
        let job = c.args(train("none", settings)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        finish(job.unwrap()).fails(2, &[words]);
        assert!(!d.path().join("none").exists(), "nothing was made");
    }
}
