//! `train`, `eval` and `generate` as a user runs them: what a run leaves, and what bad input, signals and kills get.

mod cli_support;

use cli_support::{Ran, contents, finish, program, ringtape_in, wait_for};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A model and text so small that a run takes a moment, even unoptimised.
const SMALL: &str = r#"
batch_size = 4
steps = 6
log_every = 1
eval_every = 3
eval_batches = 2
snapshot_every = 2
threads = 1
data.path = "my.rtd"
[model]
layers = 1
dim = 16
heads = 2
context = 8
"#;

/// A folder with a packed text and a configuration for it.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("my.txt"), "the cat sat on the mat; the dog sat on the log.\n".repeat(40))
        .unwrap();
    fs::write(dir.path().join("small.toml"), SMALL).unwrap();
    ringtape_in(dir.path(), &["data", "pack", "my.txt", "--val", "0.2"]).ok();
    dir
}

fn train(dir: &Path, more: &[&str]) -> Ran {
    ringtape_in(dir, &[&["train", "small.toml"], more].concat())
}

/// A run that would go on for ever, with its standard error readable.
fn endless(dir: &Path, more: &[&str]) -> Child {
    let args = [&["train", "small.toml", "--steps", "100000000", "--set", "eval_every=0"], more].concat();
    program().current_dir(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Numbers of the complete snapshots of a run, sorted.
fn snapshots(run: &Path) -> Vec<u64> {
    let names =
        fs::read_dir(run).into_iter().flatten().flatten().map(|e| e.file_name().into_string().unwrap());
    let mut steps: Vec<u64> = names.filter_map(|n| n.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
}

#[test]
fn a_run_leaves_all_that_is_promised_and_others_take_it_up() {
    let dir = folder();
    let d = dir.path();
    let ran = train(d, &[]).ok();
    assert!(ran.out.contains("val loss") && ran.out.contains("runs/small-1"), "{ran:?}");
    assert!(ran.err.contains("step 6/6"), "{ran:?}");
    let run = d.join("runs/small-1");
    for file in ["config.toml", "metrics.jsonl", "summary.json", "step-6/model.safetensors", "report.html"] {
        assert!(
            run.join(file).is_file(),
            "no {file} in {:?}",
            fs::read_dir(&run).unwrap().collect::<Vec<_>>()
        );
    }
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert!(lines[2]["val_loss"].is_f64() && lines[5]["loss"].is_f64() && lines[0]["lr"].is_f64());
    let json = ringtape_in(d, &["eval", "runs/small-1", "--json"]).ok().out;
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found["step"], 6);
    // The same seed writes the same text; the prompt comes first.
    let write = |seed: &str| {
        ringtape_in(d, &["generate", "runs/small-1", "--prompt", "the cat", "--tokens", "20", "--seed", seed])
            .ok()
            .out
    };
    assert!(
        write("1").starts_with("the cat") && write("1").chars().count() == 7 + 20 + 1,
        "{:?}",
        write("1")
    );
    assert_eq!(write("1"), write("1"));
    assert_ne!(write("1"), write("2"));
    // A second run takes a folder of its own; the quiet one says nothing but the result.
    let quiet = train(d, &["--quiet", "--steps", "1"]).ok();
    assert!(quiet.err.is_empty() && quiet.out.contains("runs/small-2"), "{quiet:?}");
}

#[test]
fn wrong_keys_values_and_shapes_are_named_before_anything_is_made() {
    let dir = folder();
    let d = dir.path();
    let before = contents(d);
    train(d, &["--set", "model.dmi=8"]).fails(2, &["model.dmi", "did you mean `model.dim`"]);
    train(d, &["--set", "model.dim=wide"]).fails(2, &["model.dim", "wide", "integer"]);
    train(d, &["--set", "model.dim=9"]).fails(2, &["model.dim", "9", "model.heads"]);
    train(d, &["--set", "model.kind=cnn"]).fails(2, &["model.kind", "cnn", "gpt"]);
    train(d, &["--set", "model.context=100000"]).fails(2, &["100000"]);
    train(d, &["--set", "optimizer.name=adamx"]).fails(2, &["adamx", "did you mean `adam`"]);
    train(d, &["--set", "optimizer.lr=-1"]).fails(2, &["optimizer.lr", "-1"]);
    train(d, &["--set", "optimizer.lr=0"]).fails(2, &["optimizer.lr", "above 0", "such as 0.001"]);
    train(d, &["--set", "optimizer.lr=nan"]).fails(2, &["optimizer.lr", "NaN", "such as 0.001"]);
    train(d, &["--set", "optimizer.momentum=0.9"]).fails(2, &["adamw", "momentum", "takes beta1, beta2"]);
    train(d, &["--set", "optimizer.beta3=0.9"])
        .fails(2, &["optimizer.beta3", "did you mean `optimizer.beta"]);
    train(d, &["--set", "optimizer.eps=small"]).fails(2, &["optimizer.eps", "small", "a number"]);
    train(d, &["--set", "controller.name=gcv"]).fails(2, &["controller.name", "gcv", "gvc"]);
    let both = ["--set", "optimizer.name=adafactor", "--set", "controller.name=gvc"];
    train(d, &both).fails(2, &["controller.name", "adafactor", "none"]);
    train(d, &["--set", "controller.factor=1.5"]).fails(2, &["controller.factor", "1.5", "below 1"]);
    train(d, &["--set", "batch_size=1000000"]).fails(2, &["batch_size"]);
    train(d, &["--set", "steps"]).fails(2, &["steps", "key=value"]);
    train(d, &["--steps", "0"]).fails(2, &["steps", "at least 1"]);
    train(d, &["--steps", "many"]).fails(2, &["--steps", "many"]);
    train(d, &["--device", "cuda"]).fails(2, &["cuda", "--device cpu"]);
    train(d, &["--device", "cuda:0"]).fails(2, &["cuda:0"]);
    train(d, &["--resume", "runs/x"]).fails(2, &["--resume"]);
    ringtape_in(d, &["train", "--resume", "absent"]).fails(2, &["absent", "no run folder"]);
    ringtape_in(d, &["train", "absent.toml"]).fails(4, &["absent.toml"]);
    ringtape_in(d, &["eval", "absent"]).fails(2, &["absent"]);
    ringtape_in(d, &["generate", "."]).fails(2, &["no run folder"]);
    let with = |text: &str| {
        fs::write(d.join("small.toml"), text).unwrap();
        let ran = train(d, &[]);
        fs::write(d.join("small.toml"), SMALL).unwrap();
        ran
    };
    with("stpes = 5").fails(2, &["stpes", "did you mean `steps`"]);
    with("steps = \"five\"").fails(2, &["steps", "five"]);
    with("steps = 5\nsteps = 6").fails(2, &["small.toml"]);
    with("[model\ndim = 5").fails(2, &["small.toml"]);
    assert_eq!(contents(d), before, "a refused run makes nothing");
}

#[test]
fn damaged_data_are_refused_by_name() {
    let dir = folder();
    let d = dir.path();
    let good = fs::read(d.join("my.rtd")).unwrap();
    train(d, &["--set", "data.path=absent.rtd"]).fails(4, &["absent.rtd"]);
    train(d, &["--set", "data.path=moby-dik"]).fails(2, &["moby-dik", "did you mean `moby-dick`"]);
    train(d, &["--set", "data.path=."]).fails(4, &["folder"]);
    let mut big = good.clone();
    big[16..24].fill(0xff);
    for (what, bytes) in [("empty", vec![]), ("cut", good[..good.len() - 50].to_vec()), ("absurd sizes", big)]
    {
        fs::write(d.join("my.rtd"), bytes).unwrap();
        let ran = train(d, &[]);
        assert_eq!(ran.code, Some(4), "{what}: {ran:?}");
        assert!(ran.err.contains("my.rtd"), "{what}: {ran:?}");
    }
    // Token ids that the vocabulary does not have, in a file whose checksums agree.
    let ids: Vec<u8> = (0..4000u16).flat_map(|i| (i % 60).to_le_bytes()).collect();
    fs::write(d.join("ids.bin"), ids).unwrap();
    let packed = ringtape_in(d, &["data", "pack", "ids.bin", "--vocabulary", "50"]);
    let ran = if packed.code == Some(0) { train(d, &["--set", "data.path=ids.rtd"]) } else { packed };
    ran.fails(4, &["50"]);
    assert!(!d.join("runs").exists() || fs::read_dir(d.join("runs")).unwrap().count() == 0);
}

#[test]
fn a_second_run_into_the_same_folder_changes_nothing() {
    let dir = folder();
    let d = dir.path();
    train(d, &["--out", "a"]).ok();
    let before = contents(d);
    train(d, &["--out", "a"]).fails(2, &["a is not empty", "--resume a"]);
    train(d, &["--out", "."]).fails(2, &["not empty", "--out"]);
    train(d, &["--out", "my.rtd"]).fails(4, &["my.rtd"]);
    assert_eq!(contents(d), before);
    // While a run is going, another neither starts there nor resumes it.
    let mut child = endless(d, &["--out", "b"]);
    wait_for("the run to start", Duration::from_secs(60), || d.join("b/metrics.jsonl").exists());
    train(d, &["--out", "b"]).fails(2, &["b", "in use"]);
    ringtape_in(d, &["train", "--resume", "b"]).fails(2, &["b", "in use"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn prompts_outside_the_vocabulary_and_wild_temperatures_are_refused() {
    let dir = folder();
    let d = dir.path();
    train(d, &["--out", "a", "--steps", "1"]).ok();
    let generate = |more: &[&str]| ringtape_in(d, &[&["generate", "a"], more].concat());
    let refused = generate(&["--prompt", "the ☃"]);
    assert_eq!(refused.out, "", "a refused prompt prints nothing");
    refused.fails(2, &["'☃'", "the model knows"]);
    generate(&["--prompt", ""]).fails(2, &["prompt"]);
    generate(&["--temperature", "-1"]).fails(2, &["--temperature", "-1"]);
    generate(&["--temperature", "nan"]).fails(2, &["--temperature"]);
    generate(&["--tokens", "-5"]).fails(2, &["-5"]);
    assert_eq!(
        generate(&["--prompt", "the", "--tokens", "3", "--temperature", "0", "--top-k", "1000"])
            .ok()
            .out
            .len(),
        7
    );
}

/// A learning rate that no model survives: the error names step and op or tensor, and the snapshot before stays.
#[test]
fn a_loss_that_is_no_number_stops_the_run_with_six() {
    let dir = folder();
    let d = dir.path();
    let wild = ["--out", "a", "--steps", "200", "--set", "optimizer.lr=1e30", "--set", "clip=0"];
    let ran = train(
        d,
        &[&wild[..], &["--set", "schedule.name=constant", "--set", "schedule.warmup_steps=0"]].concat(),
    );
    ran.fails(6, &["step ", "optimizer.lr"]);
    assert!(fs::read_to_string(d.join("a/metrics.jsonl")).is_ok(), "what was logged stays");
}

/// A dataset that is cut short or changed while a run reads it ends the run by name, not by SIGBUS.
#[test]
#[cfg(unix)]
fn data_that_change_under_a_run_end_it_by_name() {
    for cut in [true, false] {
        let dir = folder();
        let d = dir.path();
        let child = endless(d, &["--out", "a", "--set", "log_every=10"]);
        wait_for("some steps", Duration::from_secs(60), || {
            fs::read_to_string(d.join("a/metrics.jsonl")).is_ok_and(|t| t.lines().count() > 1)
        });
        let file = fs::OpenOptions::new().write(true).open(d.join("my.rtd")).unwrap();
        if cut {
            file.set_len(100).unwrap();
        } else {
            use std::os::unix::fs::FileExt;
            file.write_all_at(b"other bytes than those", 200).unwrap();
        }
        drop(file);
        finish(child).fails(4, &["my.rtd"]);
    }
}

/// Every length that a snapshot file can be cut to, and bits flipped all over: an error, or the run as it was.
#[test]
fn damaged_snapshots_are_never_believed() {
    let dir = folder();
    let d = dir.path();
    train(d, &["--out", "a", "--steps", "2", "--set", "keep_snapshots=1"]).ok();
    let truth = ringtape_in(d, &["eval", "a", "--json"]).ok().out;
    for name in ["model.safetensors", "optimizer.safetensors", "state.bin"] {
        let file = d.join("a/step-2").join(name);
        let good = fs::read(&file).unwrap();
        let refused = |what: String, bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            let ran = ringtape_in(d, &["eval", "a", "--json"]);
            let same = ran.code == Some(0) && ran.out == truth;
            assert!(ran.code == Some(4) || same, "{name} {what}: {ran:?}");
            assert!(same || ran.err.contains("step-2") || ran.err.contains(name), "{name} {what}: {ran:?}");
        };
        refused("empty".into(), &[]);
        refused("of zeros".into(), &vec![0; good.len()]);
        for i in (0..40).map(|k| k * good.len() / 40) {
            refused(format!("cut to {i}"), &good[..i]);
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            refused(format!("flipped at {i}"), &bad);
        }
        fs::write(&file, good).unwrap();
    }
    assert_eq!(ringtape_in(d, &["eval", "a", "--json"]).ok().out, truth);
    fs::remove_file(d.join("a/step-2/state.bin")).unwrap();
    ringtape_in(d, &["eval", "a"]).fails(4, &["a"]);
}

/// A damaged newest snapshot is passed over, aloud, for the one before.
#[test]
fn the_snapshot_before_a_damaged_one_is_taken() {
    let dir = folder();
    let d = dir.path();
    // Without evaluations, which would save the best on the way too.
    train(d, &["--out", "a", "--set", "keep_snapshots=3", "--set", "eval_every=0"]).ok();
    assert_eq!(snapshots(&d.join("a")), [2, 4, 6]);
    fs::write(d.join("a/step-6/model.safetensors"), b"garbage").unwrap();
    let ran = ringtape_in(d, &["eval", "a", "--json"]).ok();
    assert!(ran.out.contains("\"step\": 4") && ran.err.contains("step-6"), "{ran:?}");
    let ran = ringtape_in(d, &["train", "--resume", "a", "--steps", "8"]).ok();
    assert!(ran.err.contains("from step 4"), "{ran:?}");
}

#[test]
#[cfg(unix)]
fn signals_save_a_snapshot_and_say_how_to_go_on() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = folder();
        let d = dir.path();
        let child = endless(d, &["--out", "a", "--set", "snapshot_every=0"]);
        wait_for("some steps", Duration::from_secs(60), || {
            fs::read_to_string(d.join("a/metrics.jsonl")).is_ok_and(|t| t.lines().count() > 3)
        });
        assert!(snapshots(&d.join("a")).is_empty(), "no snapshot before the signal");
        kill(child.id(), signal);
        let start = std::time::Instant::now();
        let ran = finish(child).fails(code, &["snapshot saved in", "train --resume a"]);
        assert!(start.elapsed() < Duration::from_secs(5), "{ran:?}");
        let step = snapshots(&d.join("a"))[0];
        assert!(ran.err.contains(&format!("step-{step}")), "{ran:?}");
        let more = (step + 2).to_string();
        let ran = ringtape_in(d, &["train", "--resume", "a", "--steps", &more]).ok();
        assert!(ran.err.contains(&format!("from step {step}")), "{ran:?}");
    }
}

#[cfg(unix)]
fn kill(process: u32, signal: &str) {
    let status =
        std::process::Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
    assert!(status.unwrap().success());
}

/// Killed at random moments while it saves every step or two, a run always leaves a snapshot that loads, and goes on to
/// the same bits as one that was never killed. RINGTAPE_TRIALS sets how often (CI: 200).
#[test]
fn kills_leave_a_snapshot_that_loads() {
    let trials: u64 = std::env::var("RINGTAPE_TRIALS").ok().and_then(|t| t.parse().ok()).unwrap_or(6);
    let dir = folder();
    let d = dir.path();
    // The two runs are told other numbers of steps, so the rate must not depend on it.
    // A constant learning rate, since the others depend on the number of steps, which the end of the test sets.
    let often = ["--set", "snapshot_every=1", "--set", "log_every=1000", "--set", "schedule.name=constant"];
    let mut rng = ringtape::rng::Key::named(5, "kills").rng();
    let mut last = 0;
    for trial in 0..trials {
        // The same run goes on from kill to kill, so that each lands on another state of the folder.
        let args: Vec<&str> = if trial == 0 {
            [
                &["train", "small.toml", "--out", "a", "--steps", "100000000", "--set", "eval_every=0"],
                &often[..],
            ]
            .concat()
        } else {
            vec!["train", "--resume", "a"]
        };
        let mut child = program()
            .current_dir(d)
            .args(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for("a new snapshot", Duration::from_secs(60), || {
            snapshots(&d.join("a")).last().is_some_and(|s| *s > last)
        });
        std::thread::sleep(Duration::from_micros(rng.below(30_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let newest = *snapshots(&d.join("a")).last().unwrap();
        let ran = ringtape_in(d, &["eval", "a", "--json"]).ok();
        let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(
            found["step"], newest,
            "trial {trial}: the newest complete snapshot is the one that loads: {ran:?}"
        );
        let litter = fs::read_dir(d.join("a")).unwrap().flatten();
        let litter: Vec<_> = litter.filter(|e| e.file_name().to_string_lossy().ends_with(".tmp")).collect();
        assert!(litter.len() <= 1, "trial {trial}: {litter:?}");
        last = newest;
    }
    // To a common end: the run that was killed again and again, and one that was not.
    let end = (last + 3).to_string();
    ringtape_in(d, &["train", "--resume", "a", "--steps", &end]).ok();
    ringtape_in(
        d,
        &[&["train", "small.toml", "--out", "b", "--steps", &end, "--set", "eval_every=0"], &often[..]]
            .concat(),
    )
    .ok();
    let weights =
        |run: &str| fs::read(d.join(run).join(format!("step-{end}")).join("model.safetensors")).unwrap();
    assert!(
        weights("a") == weights("b"),
        "after {trials} kills the weights differ from the undisturbed run's"
    );
}

/// The threads that read data and count n-grams must not wait for a pool whose only thread waits for them.
#[test]
fn one_thread_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["model.dim=16", "model.layers=1", "model.heads=2", "model.context=32", "eval_batches=1"];
    let args = ["train", "--steps", "3"].into_iter().chain(sets.iter().flat_map(|s| ["--set", s]));
    let mut child = program()
        .current_dir(dir.path())
        .env("RAYON_NUM_THREADS", "1")
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("a run on one thread", Duration::from_secs(120), || child.try_wait().unwrap().is_some());
    finish(child).ok();
}
