//! `launch -- train`: processes that train one model, seen from outside.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

#[path = "cli_support/mod.rs"]
mod support;

use ringtape::train::{Metrics, metrics};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::late::Late;
use support::{finish, program, ringtape_in, wait_for};

const MLP: &[&str] = &[
    "data.path=digits",
    "model.kind=mlp",
    "model.layers=1",
    "model.dim=16",
    "batch_size=7",
    "optimizer.lr=0.003",
    "eval_every=0",
    "log_every=1",
    "tensorboard=false",
];

/// `train` into `out` with these settings over [`MLP`].
fn train(out: &str, settings: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = ["train", "--out", out].map(String::from).into();
    for setting in MLP.iter().chain(settings) {
        args.extend(["--set".into(), setting.to_string()]);
    }
    args
}

/// The same by `n` ranks, whose data go by `way`.
fn launch(dir: &Path, n: usize, way: &str, verb: &[String]) -> Command {
    let mut c = program();
    c.current_dir(dir).env("RINGTAPE_TRANSPORT", way).env("RINGTAPE_SILENCE", "10");
    c.args(["launch", "-n", &n.to_string(), "--"]).args(verb).stdout(Stdio::piped()).stderr(Stdio::piped());
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

fn losses(dir: &Path) -> Vec<f64> {
    metrics::read(dir).unwrap().iter().map(|m| m.loss).collect()
}

#[test]
fn processes_give_the_losses_of_one_by_shared_memory_and_tcp_and_rank_0_speaks() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    ringtape_in(d, &train("one", &["steps=20"])).ok();
    let one = losses(&d.join("one"));
    assert_eq!(one.len(), 20);
    for (n, way) in [(2, "shm"), (3, "shm"), (4, "tcp")] {
        let out = format!("{way}-{n}");
        let ran = finish(launch(d, n, way, &train(&out, &["steps=20"])).spawn().unwrap()).ok();
        assert!(ran.out.contains("loss") && !ran.out.contains("[1]") && !ran.err.contains("[1]"), "{ran:?}");
        let found = losses(&d.join(&out));
        assert_eq!(found.len(), 20);
        for (i, (a, b)) in one.iter().zip(&found).enumerate() {
            assert!((a - b).abs() <= 1e-5 * a.abs(), "{way} {n}: step {}: {a} {b}", i + 1);
        }
        for rank in 0..n {
            let log = std::fs::read_to_string(d.join(&out).join(format!("ranks/rank-{rank}.log"))).unwrap();
            assert_eq!(log.lines().count(), 20, "{log}");
        }
        assert!(d.join(&out).join("step-20").is_dir() && d.join(&out).join("report.html").is_file());
    }
    // What messages cost is measured once, and kept: it decides in which order sums of three ranks or more are made.
    let crossover = |run: &str| -> u64 {
        let config: toml::Table =
            std::fs::read_to_string(d.join(run).join("config.toml")).unwrap().parse().unwrap();
        config["crossover"].as_integer().unwrap().try_into().unwrap()
    };
    let measured = crossover("tcp-4");
    assert!(measured > 0 && crossover("one") == 0);
    // The folder is free again, and one process goes on with what four began.
    ringtape_in(d, &["train", "--resume", "tcp-4", "--steps", "25"]).ok();
    assert_eq!(crossover("tcp-4"), measured);
}

#[test]
fn micro_shards_give_the_bits_of_one_process() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let settings = ["steps=20", "micro_shards=2", "model.dropout=0.1", "batch_size=9"];
    ringtape_in(d, &train("one", &settings)).ok();
    finish(launch(d, 2, "auto", &train("two", &settings)).spawn().unwrap()).ok();
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let of = |run: &str| std::fs::read(d.join(run).join("step-20").join(file)).unwrap();
        assert!(of("one") == of("two"), "{file}");
    }
    let timeless = |m: Metrics| (m.step, m.loss, m.val_loss, m.grad_norm, m.noise_scale, m.gain);
    let lines = |run: &str| -> Vec<_> {
        metrics::read(&d.join(run)).unwrap().into_iter().map(timeless).map(|l| format!("{l:?}")).collect()
    };
    let mut one: Vec<String> = lines("one");
    let two: Vec<String> = lines("two");
    assert_eq!(std::mem::take(&mut one), two);
}

/// A job that goes on for long, once it has saved a snapshot.
fn long(dir: &Path, out: &str, n: usize, settings: &[&str]) -> Child {
    let job = launch(dir, n, "auto", &train(out, settings)).spawn().unwrap();
    wait_for("a snapshot", Duration::from_secs(60), || {
        let saved = |e: std::fs::DirEntry| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.starts_with("step-") && !name.ends_with(".tmp")
        };
        std::fs::read_dir(dir.join(out)).is_ok_and(|d| d.flatten().any(saved))
    });
    job
}

#[test]
fn a_signal_to_the_launcher_or_to_one_rank_stops_all_at_one_step_with_one_snapshot() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    for (out, name, code) in [("all", "TERM", 143), ("one", "INT", 130)] {
        let late = Late::new();
        let job = long(d, out, 2, &["steps=1000000", "snapshot_every=20", "keep_snapshots=1"]);
        signal(if out == "all" { job.id() } else { rank_of(&job, 1) }, name);
        let start = Instant::now();
        let ran = finish(job).fails(code, &["interrupted"]);
        let (took, limit) = (start.elapsed(), late.allow(Duration::from_secs(5)));
        assert!(took < limit, "{took:?}, not {limit:?}: {ran:?}");
        let last = |rank: usize| {
            let log = std::fs::read_to_string(d.join(out).join(format!("ranks/rank-{rank}.log"))).unwrap();
            log.lines().last().unwrap().split_whitespace().nth(1).unwrap().to_string()
        };
        assert_eq!(last(0), last(1), "{ran:?}");
        assert!(d.join(out).join(format!("step-{}", last(0))).is_dir());
        let more = (last(0).parse::<u64>().unwrap() + 3).to_string();
        ringtape_in(d, &["train", "--resume", out, "--steps", &more]).ok();
    }
}

/// The first signal waits for the end of the step, which is far; the second does not.
#[test]
fn a_second_signal_leaves_at_once() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    // A million batches for a step.
    let slow = ["steps=10", "accumulate=1000000", "snapshot_every=0"];
    let late = Late::new();
    let mut job = launch(d, 2, "auto", &train("slow", &slow)).spawn().unwrap();
    // It is there when all ranks have met.
    wait_for("the run", Duration::from_secs(60), || d.join("slow/config.toml").exists());
    std::thread::sleep(Duration::from_secs(1));
    signal(job.id(), "TERM");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(job.try_wait().unwrap().is_none(), "the step was no long one");
    signal(job.id(), "TERM");
    // Else the step would take hours.
    wait_for("the end", late.allow(Duration::from_secs(1)), || job.try_wait().unwrap().is_some());
    let ran = finish(job).fails(143, &[]);
    let log = std::fs::read_to_string(d.join("slow/ranks/rank-0.log")).unwrap_or_default();
    assert!(log.is_empty() && !ran.err.contains("interrupted"), "{log} {ran:?}");
}

#[test]
fn when_a_rank_is_killed_the_others_name_it_and_a_resume_ends_with_the_same_bits() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    // Two runs of three ranks have the same bits where neither measures which sums go by the tree.
    let settings = ["steps=3000", "snapshot_every=50", "model.dropout=0.1", "crossover=8192"];
    finish(launch(d, 3, "auto", &train("whole", &settings)).spawn().unwrap()).ok();
    let job = long(d, "parts", 3, &settings);
    signal(rank_of(&job, 1), "KILL");
    let ran = finish(job).fails(137, &["error: rank 1 failed", "[2] error: rank 1 failed"]);
    assert!(!d.join("parts/step-3000").exists(), "it was killed in time: {ran:?}");
    let again = ["train", "--resume", "parts"].map(String::from);
    finish(launch(d, 3, "auto", &again).spawn().unwrap()).ok();
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let of = |run: &str| std::fs::read(d.join(run).join("step-3000").join(file)).unwrap();
        assert!(of("whole") == of("parts"), "{file}");
    }
}

#[test]
fn ranks_that_differ_or_cannot_share_a_batch_are_refused() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let small = launch(d, 3, "auto", &train("none", &["batch_size=2"])).spawn().unwrap();
    finish(small).fails(2, &["batch_size", "3 ranks"]);
    assert!(!d.join("none").exists());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let rank = |r: &str, setting: &str| {
        let mut c = program();
        c.current_dir(d).args(train("none", &["steps=5", setting]));
        c.env("RANK", r).env("WORLD_SIZE", "2").env("MASTER_PORT", &port).env("RINGTAPE_SECRET", "of a test");
        c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for (ours, theirs, word) in [
        ("optimizer.lr=0.003", "optimizer.lr=0.004", "config hash"),
        ("data.path=digits", "data.path=penguins", "dataset hash"),
    ] {
        let (zero, one) = (rank("0", ours), rank("1", theirs));
        for end in [finish(zero), finish(one)] {
            end.fails(3, &["rank 1 has", word]);
        }
        assert!(!d.join("none").exists());
    }
}

#[test]
fn a_rank_without_a_world_is_refused_and_a_world_without_a_rank_is_nobody() {
    let d = tempfile::tempdir().unwrap();
    let with = |name: &str, out: &str| {
        let mut c = program();
        c.current_dir(d.path()).env(name, "2").args(train(out, &["steps=1"]));
        finish(c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    };
    with("RANK", "half").fails(2, &["RANK is set, but WORLD_SIZE is not"]);
    assert!(!d.path().join("half").exists());
    with("SLURM_NTASKS", "alone").ok();
}

#[test]
fn ranks_as_threads_train_on_a_device_each() {
    let d = tempfile::tempdir().unwrap();
    let settings = ["steps=4", "model.dim=8", "eval_batches=1", "device=soft"];
    let launched = |n: &str, verb: &[String]| {
        let mut c = program();
        c.current_dir(d.path()).args(["launch", "-n", n, "--threads", "--"]).args(verb);
        finish(c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    };
    let done = launched("3", &train("three", &settings));
    assert_eq!(done.code, Some(0), "{}", done.err);
    let mut alone = program();
    alone.current_dir(d.path()).args(train("one", &settings)).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(alone.status().unwrap().success());
    let (three, one) = (losses(&d.path().join("three")), losses(&d.path().join("one")));
    assert_eq!(three.len(), 4);
    one.iter().zip(&three).for_each(|(a, b)| assert!((a - b).abs() < 1e-5 * a, "{a} {b}"));
    let log = std::fs::read_to_string(d.path().join("three/ranks/rank-2.log")).unwrap();
    assert!(log.contains("step 4 "), "{log}");

    let refused = launched("9", &train("nine", &settings));
    let text = refused.err;
    assert!(refused.code == Some(2) && text.contains("soft:8") && text.contains("9 ranks"), "{text}");
    let verb = ["bench", "all-reduce"].map(String::from);
    assert_eq!(launched("2", &verb).code, Some(2));
}
