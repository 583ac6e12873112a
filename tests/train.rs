//! Whole runs on tiny models: they learn, repeat with their seed, do not depend on threads, and resume to the bit.

use ringtape::error::Error;
use ringtape::train::{Config, Metrics, Observer, Run, Silent, Stop, Trained, metrics};
use std::path::{Path, PathBuf};

fn text(extra: &[&str]) -> Config {
    let base = [
        "steps=12",
        "batch_size=4",
        "model.layers=1",
        "model.dim=16",
        "model.heads=2",
        "model.context=16",
        "model.dropout=0.1",
        "eval_batches=3",
        "eval_every=6",
        "snapshot_every=4",
        "keep_snapshots=9",
        "log_every=1",
        "schedule.warmup_steps=2",
        "tensorboard=false",
    ];
    let all: Vec<String> = base.iter().chain(extra).map(|s| s.to_string()).collect();
    Config::resolve(None, &all).unwrap()
}

fn digits(extra: &[&str]) -> Config {
    let base = [
        "data.path=digits",
        "model.kind=mlp",
        "model.layers=1",
        "model.dim=48",
        "model.activation=relu",
        "steps=300",
        "batch_size=32",
        "eval_every=0",
        "snapshot_every=0",
        "optimizer.lr=0.003",
        "schedule.warmup_steps=5",
        "schedule.min_lr=0",
        "tensorboard=false",
    ];
    let all: Vec<String> = base.iter().chain(extra).map(|s| s.to_string()).collect();
    Config::resolve(None, &all).unwrap()
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn train(config: Config, at: &Path) -> ringtape::train::Summary {
    Run::create(config, at).unwrap().train(&Stop::never(), &mut Silent).unwrap()
}

/// Bytes of everything in a run folder that must repeat: all of the last snapshot, and metrics without times.
fn fingerprint(at: &Path, step: u64) -> Vec<Vec<u8>> {
    let snapshot = at.join(format!("step-{step}"));
    let files = ["model.safetensors", "optimizer.safetensors"];
    let mut all: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(snapshot.join(f)).unwrap()).collect();
    let timeless =
        |m: Metrics| Metrics { tokens_per_s: None, samples_per_s: None, stall: 0.0, wall_s: 0.0, ..m };
    let lines: Vec<Metrics> = metrics::read(at).unwrap().into_iter().map(timeless).collect();
    all.push(serde_json::to_vec(&lines).unwrap());
    all
}

#[test]
fn a_run_learns_and_its_folder_is_complete() {
    let d = dir();
    let at = d.path().join("run");
    let summary = train(digits(&[]), &at);
    assert!(summary.val_accuracy.unwrap() > 0.85, "{summary:?}");
    assert_eq!(summary.targets, 360);
    for file in ["config.toml", "metrics.jsonl", "summary.json", "step-300/model.safetensors"] {
        assert!(at.join(file).is_file(), "{file} is missing");
    }
    let trained = Trained::load(&at, None).unwrap();
    let again = trained.evaluate().unwrap();
    assert_eq!(
        (again.loss, again.accuracy),
        (summary.val_loss, summary.val_accuracy),
        "eval repeats the summary"
    );
}

#[test]
fn regression_on_a_table_beats_the_mean() {
    let d = dir();
    let config = digits(&["data.path=penguins", "data.target=mass", "model.dim=16", "steps=200"]);
    let summary = train(config, &d.path().join("run"));
    // Masses are standardised, so predicting the mean has a loss near 1.
    assert!(summary.val_loss < 0.3 && summary.val_accuracy.is_none(), "{summary:?}");
}

#[test]
fn the_same_seed_gives_the_same_bits_for_any_number_of_threads() {
    let d = dir();
    let mut prints = Vec::new();
    for (i, threads) in [1, 1, 2, 3, 8].into_iter().enumerate() {
        let at = d.path().join(format!("run{i}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(text(&[]), &at));
        prints.push(fingerprint(&at, 12));
    }
    assert!(prints.iter().all(|p| *p == prints[0]), "weights, optimizer state or log differ");
    let other = d.path().join("other");
    train(text(&["seed=2"]), &other);
    assert_ne!(fingerprint(&other, 12)[0], prints[0][0], "another seed gives other weights");
}

/// Asks to stop after a given step.
struct StopAt(u64, Stop);
impl Observer for StopAt {
    fn on_step(&mut self, m: &Metrics) {
        if m.step == self.0 {
            self.1.request(2);
        }
    }
}

fn interrupted(config: Config, at: &Path, step: u64) -> PathBuf {
    let stop = Stop::never();
    let mut run = Run::create(config, at).unwrap();
    match run.train(&stop, &mut StopAt(step, stop.clone())) {
        Err(Error::Interrupted { signal: 2, saved: Some(path) }) => path,
        other => panic!("not interrupted: {other:?}"),
    }
}

#[test]
fn a_stopped_run_resumes_to_the_bit() {
    for extra in [
        &["model.positions=rotary"][..],
        &["accumulate=2", "checkpoint=true"],
        &["optimizer.name=sgd", "optimizer.momentum=0.9"],
        &["optimizer.name=schedule_free_adamw", "schedule.name=constant"],
        &["optimizer.name=prodigy", "optimizer.lr=1", "model.dropout=0.1"],
        &["optimizer.name=vsgd_fd", "optimizer.lr=1", "accumulate=2", "model.dropout=0.1"],
        &["optimizer.name=adafactor", "optimizer.lr=0.01"],
        &["optimizer.name=muon", "controller.name=gvc", "controller.window=20", "schedule.warmup_steps=1"],
    ] {
        let d = dir();
        let (whole, parts) = (d.path().join("whole"), d.path().join("parts"));
        train(text(extra), &whole);
        for (step, first) in [(5, true), (6, false), (9, false)] {
            if first {
                let saved = interrupted(text(extra), &parts, step - 1);
                assert!(saved.is_dir());
            } else {
                let stop = Stop::never();
                let mut run = Run::resume(&parts, |_| Ok(())).unwrap();
                assert!(run.train(&stop, &mut StopAt(step, stop.clone())).is_err());
            }
        }
        Run::resume(&parts, |_| Ok(())).unwrap().train(&Stop::never(), &mut Silent).unwrap();
        assert_eq!(fingerprint(&whole, 12), fingerprint(&parts, 12), "{extra:?}");
    }
}

#[test]
fn micro_batches_average() {
    let d = dir();
    // One epoch of 4 × 2 windows in the same order: the first step's mean loss is over the same eight windows.
    let loss = |extra: &[&str], name: &str| {
        let at = d.path().join(name);
        train(text(&[&["steps=1", "model.dropout=0"], extra].concat()), &at);
        let m = &metrics::read(&at).unwrap()[0];
        (m.loss, m.grad_norm)
    };
    let (a, b) = (loss(&["batch_size=8"], "a"), loss(&["batch_size=4", "accumulate=2"], "b"));
    assert!((a.0 - b.0).abs() < 1e-6 * a.0 && (a.1 - b.1).abs() < 1e-4 * a.1, "{a:?} {b:?}");
}

#[test]
fn micro_batches_tell_the_noise_of_gradients() {
    let d = dir();
    let run = |extra: &[&str], name: &str| {
        let at = d.path().join(name);
        train(text(extra), &at);
        let scales: Vec<_> = metrics::read(&at).unwrap().iter().map(|m| (m.noise_scale, m.gain)).collect();
        (scales, std::fs::read_to_string(at.join("report.html")).unwrap())
    };
    let (found, report) = run(&["batch_size=2", "accumulate=4", "steps=12"], "four");
    let (scale, gain) = found.iter().rev().find_map(|(s, g)| Some(((*s)?, (*g)?))).unwrap();
    assert!(scale > 0.0 && (1.0..=4.0).contains(&gain), "{scale}, {gain}");
    assert!(report.contains("Gradient noise scale"));
    let (found, report) = run(&["batch_size=8", "steps=3"], "one");
    assert!(found.iter().all(|m| *m == (None, None)) && !report.contains("Gradient noise scale"));
}

#[test]
fn folders_are_not_overwritten_and_damaged_snapshots_are_passed_over() {
    let d = dir();
    let at = d.path().join("run");
    train(text(&[]), &at);
    let e = Run::create(text(&[]), &at).err().unwrap().to_string();
    assert!(e.contains("not empty") && e.contains("--resume"), "{e}");
    let file = at.join("step-12/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let t = Trained::load(&at, None).unwrap();
    assert_eq!(t.step, 8);
    assert!(t.notices[0].contains("step-12") && t.notices[0].contains("damaged"), "{:?}", t.notices);
    for step in [4, 6, 8] {
        std::fs::remove_file(at.join(format!("step-{step}/state.bin"))).unwrap();
    }
    let e = Trained::load(&at, None).err().unwrap();
    assert_eq!(e.exit_code(), 4);
    let empty = d.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(Trained::load(&empty, None).err().unwrap().to_string().contains("config.toml"));
}

#[test]
fn old_snapshots_go_but_the_newest_and_the_best_stay() {
    let d = dir();
    let at = d.path().join("run");
    // A learning rate that spoils what the first steps learned: the best evaluation is an early one.
    let config = text(&[
        "eval_every=2",
        "snapshot_every=2",
        "keep_snapshots=2",
        "optimizer.lr=3",
        "schedule.name=constant",
        "schedule.min_lr=0",
    ]);
    let summary = train(config, &at);
    let lines = metrics::read(&at).unwrap();
    let best =
        lines.iter().filter(|m| m.val_loss == Some(summary.best_val_loss)).map(|m| m.step).next().unwrap();
    let mut steps: Vec<u64> = std::fs::read_dir(&at)
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.strip_prefix("step-")?.parse().ok())
        .collect();
    steps.sort();
    let mut want = vec![best, 10, 12];
    want.dedup();
    assert_eq!(steps, want);
}

#[test]
fn the_opponents_on_moby_dick_are_those_of_another_program() {
    let set = ringtape::data::open_named("moby-dick", ringtape::data::Access::Read).unwrap();
    let tokens = |split: &str| -> Vec<u16> {
        let s = set.split(split).unwrap();
        let mut scratch = Vec::new();
        let bytes = set.samples(&set.header().fields[0], s.start, s.count, &mut scratch).unwrap();
        bytes.iter().map(|&b| b.into()).collect()
    };
    let losses = ringtape::train::ngram::losses(&tokens("train"), &tokens("val"), 83);
    for (a, b) in losses.iter().zip([3.118, 2.462, 2.008, 1.675, 1.547, 1.556]) {
        assert!((a - b).abs() < 1e-3, "{losses:?}");
    }
}

#[test]
fn every_flip_and_truncation_of_a_snapshot_is_found() {
    let d = dir();
    let at = d.path().join("run");
    train(digits(&["steps=1", "model.dim=1"]), &at);
    let load = || ringtape::train::snapshot::Snapshot::load(&at.join("step-1"));
    load().unwrap();
    for name in ["state.bin", "model.safetensors", "optimizer.safetensors"] {
        let file = at.join("step-1").join(name);
        let good = std::fs::read(&file).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1 << (i % 8);
            std::fs::write(&file, &bad).unwrap();
            assert_eq!(load().err().unwrap().exit_code(), 4, "{name}, byte {i}");
            std::fs::write(&file, &good[..i]).unwrap();
            assert!(load().is_err(), "{name} cut to {i} bytes");
        }
        std::fs::write(&file, &good).unwrap();
    }
    load().unwrap();
}

#[test]
fn a_snapshot_of_another_model_or_optimizer_names_what_differs() {
    let d = dir();
    let at = d.path().join("run");
    train(text(&[]), &at);
    let resume = |setting: &str| {
        let settings = [setting.to_string(), "steps=20".into()];
        let change = |c: &mut Config| {
            *c = c.with(&settings)?;
            Ok(())
        };
        Run::resume(&at, change).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(resume("optimizer.name=sgd").contains("optimizer.name"));
    assert!(resume("model.dim=32").contains("model.dim"));
    assert!(resume("model.layers=2").contains("start a new run"));
    assert!(resume("data.path=tang-poems").contains("data"));
    assert!(resume("seed=5").contains("seed"));
    assert_eq!(resume("steps=20"), "");
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_the_op() {
    let d = dir();
    let at = d.path().join("run");
    let config = text(&[
        "optimizer.lr=1e30",
        "clip=0",
        "snapshot_every=1",
        "schedule.name=constant",
        "schedule.warmup_steps=0",
    ]);
    let e = Run::create(config, &at).unwrap().train(&Stop::never(), &mut Silent).unwrap_err();
    assert_eq!(e.exit_code(), 6);
    let text = e.to_string();
    assert!(text.contains("step") && (text.contains("op `") || text.contains("gradient")), "{text}");
}

#[test]
fn a_run_that_diverged_goes_on_from_its_last_snapshot() {
    let d = dir();
    let at = d.path().join("run");
    let settings = ["snapshot_every=4", "schedule.name=constant", "schedule.warmup_steps=0"];
    train(text(&[&settings[..], &["steps=4"]].concat()), &at);
    let before = fingerprint(&at, 4);
    let go_on = |settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
        let change = |c: &mut Config| {
            *c = c.with(&settings)?;
            Ok(())
        };
        Run::resume(&at, change)?.train(&Stop::never(), &mut Silent)
    };
    let e = go_on(&["steps=12", "optimizer.lr=1e30", "clip=0"]).unwrap_err();
    assert_eq!(e.exit_code(), 6, "{e}");
    assert!(fingerprint(&at, 4)[..2] == before[..2], "the snapshot is as it was");
    // With a rate that works the same folder is of use again.
    go_on(&["optimizer.lr=0.001", "clip=1"]).unwrap();
    assert!(fingerprint(&at, 12)[0] != before[0], "it learned on");
}

#[test]
fn a_run_whose_router_looks_ahead_says_so_trains_and_writes_nothing() {
    let d = dir();
    let sorted = [
        "model.attention=dynamic",
        "model.router=sort",
        "model.dynamic.dense=never",
        "model.dynamic.window=4",
    ];
    let mut run = Run::create(text(&[&sorted[..], &["model.dynamic.block=16"]].concat()), d.path()).unwrap();
    let said = run.notices().iter().filter(|n| n.contains("model.router") && n.contains("sort")).count();
    assert_eq!(said, 1, "{:?}", run.notices());
    let summary = run.train(&Stop::never(), &mut Silent).unwrap();
    assert!(summary.sample.is_none());
    let trained = Trained::load(d.path(), None).unwrap();
    assert!(trained.evaluate().unwrap().loss.is_finite());
    let sampler = ringtape::nn::Sampler { temperature: 0.0, top_k: 0, seed: 1 };
    let e = trained.generate("a", 3, &sampler, |_| true).unwrap_err();
    assert!(e.to_string().contains("model.router") && e.exit_code() == 2, "{e}");
}
