//! Ranks that do not wait for each other at every step: they learn, agree where they meet, and say what they sent.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod rank_support;

use rank_support::spoilt;
use ringtape::comm::threads;
use ringtape::error::{Error, Result};
use ringtape::train::{Config, Metrics, Observer, Run, Stop, Team, metrics};
use std::fs;
use std::path::Path;

const BASE: &[&str] = &[
    "steps=24",
    "eval_batches=3",
    "eval_every=8",
    "snapshot_every=0",
    "log_every=1",
    "keep_snapshots=9",
    "schedule.warmup_steps=2",
    "tensorboard=false",
    "crossover=8192",
    "model.layers=1",
    "model.dim=32",
    "model.heads=2",
    "model.context=16",
    "batch_size=7",
];
const LOCAL: &[&str] = &["asynchronous.mode=local_sgd", "asynchronous.inner_steps=4"];
const SERVER: &[&str] = &["asynchronous.mode=server"];
const DILOCO: &[&str] = &["asynchronous.mode=diloco", "asynchronous.inner_steps=4"];

fn settings(parts: &[&[&str]]) -> Vec<String> {
    parts.iter().flat_map(|p| p.iter()).map(|s| s.to_string()).collect()
}

fn config(parts: &[&[&str]]) -> Config {
    Config::resolve(None, &settings(&[&[BASE], parts].concat())).unwrap()
}

/// Every line; asks to stop after a step.
struct Seen(Vec<Metrics>, Option<u64>, Stop);
impl Observer for Seen {
    fn on_step(&mut self, m: &Metrics) {
        self.0.push(m.clone());
        if self.1 == Some(m.step) {
            self.2.request(15);
        }
    }
}

/// How a rank ended, with its lines, its weights, and what it said.
struct End(Result<()>, Vec<Metrics>, Vec<f32>, Vec<String>);

fn go(run: Result<Run>, stop: Option<u64>) -> End {
    let mut run = match run {
        Ok(run) => run,
        Err(e) => return End(Err(e), vec![], vec![], vec![]),
    };
    let never = Stop::never();
    let mut seen = Seen(vec![], stop, never.clone());
    let end = run.train(&never, &mut seen).map(drop);
    let params = run.params();
    let weights = (0..params.segments().len())
        .flat_map(|i| params.segment(i).to_host().unwrap().as_slice::<f32>().unwrap().to_vec())
        .collect();
    End(end, seen.0, weights, run.notices().to_vec())
}

/// `p` ranks start `config`, or go on with what is at `at` with settings `changed`; rank p − 1 is asked to stop.
fn by(p: usize, config: &Config, at: &Path, changed: &[&str], stop: Option<u64>) -> Vec<End> {
    let resumes = at.join("config.toml").exists();
    let ends = threads::run(p, |world| {
        let team = Team::of(world)?;
        let stop = stop.filter(|_| team.rank() == p - 1);
        let change = |c: &mut Config| {
            *c = c.with(&settings(&[changed]))?;
            Ok(())
        };
        let run = match resumes {
            true => Run::resume_by(at, change, |_| Ok(team)),
            false => Run::create_by(team, config.clone(), at),
        };
        Ok(go(run, stop))
    });
    ends.into_iter().map(Result::unwrap).collect()
}

fn done(ends: Vec<End>) -> Vec<End> {
    for end in &ends {
        assert!(end.0.is_ok(), "{:?}", end.0);
        assert!(end.2 == ends[0].2, "ranks have different weights");
    }
    ends
}

#[test]
fn with_a_meeting_after_each_step_plain_sgd_is_the_synchronous_run() {
    // Targets that count differ between ranks, so their weights matter.
    let recall: &[&str] = &["data.path=recall", "model.context=256", "batch_size=5", "eval_batches=1"];
    for task in [&[][..], recall] {
        let plain: &[&str] = &["optimizer.name=sgd", "optimizer.lr=0.3", "clip=0", "eval_every=0"];
        for p in [2, 3] {
            let d = tempfile::tempdir().unwrap();
            let each: &[&str] = &["asynchronous.mode=local_sgd", "asynchronous.inner_steps=1"];
            let whole = done(by(p, &config(&[plain, task]), &d.path().join("sync"), &[], None));
            let met = done(by(p, &config(&[plain, task, each]), &d.path().join("met"), &[], None));
            for (a, b) in whole[0].1.iter().zip(&met[0].1) {
                assert!(
                    (a.loss - b.loss).abs() <= 1e-5 * a.loss,
                    "step {}: {} and {}",
                    a.step,
                    a.loss,
                    b.loss
                );
            }
            assert!(whole[0].1[0].loss > whole[0].1[23].loss + 0.1, "it learns");
            let off = whole[0].2.iter().zip(&met[0].2).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-5, "weights by {p} ranks differ by {off}");
        }
    }
}

#[test]
fn they_learn_apart_and_send_only_where_they_meet() {
    let d = tempfile::tempdir().unwrap();
    let dense = done(by(3, &config(&[]), &d.path().join("sync"), &[], None));
    let bytes = dense[0].1[0].bytes_sent.unwrap() as f64;
    for mode in [LOCAL, DILOCO] {
        let at = d.path().join(mode[0]);
        let ends = done(by(3, &config(&[mode]), &at, &[], None));
        let lines = metrics::read(&at).unwrap();
        assert!(lines[0].loss > lines[23].loss + 0.3, "{mode:?}: {} {}", lines[0].loss, lines[23].loss);
        for m in &lines {
            let meets = m.step.is_multiple_of(4);
            assert_eq!(m.bytes_sent == Some(0), !meets, "{m:?}");
            assert_eq!(m.compression.is_some(), meets);
            assert_eq!(m.val_loss.is_some(), m.step.is_multiple_of(8));
            if meets {
                // What goes by the tree costs more than round the ring.
                let (sent, told) = (m.bytes_sent.unwrap() as f64, m.compression.unwrap());
                assert!((0.8..=1.05).contains(&(sent / bytes)), "{sent} bytes, at every step {bytes}");
                assert!(told > 3.0 && told <= 4.0, "{told}");
            }
        }
        // Between meetings each has the loss of its own share.
        assert_ne!(ends[0].1[5].loss, ends[1].1[5].loss);
        assert_eq!(ends[0].1[7].loss, ends[1].1[7].loss);
    }
}

#[test]
fn ranks_of_a_parameter_server_learn_and_meet_where_something_looks_at_weights() {
    let d = tempfile::tempdir().unwrap();
    for p in [2, 3] {
        let at = d.path().join(p.to_string());
        let ends = done(by(p, &config(&[SERVER, &["snapshot_every=12"]]), &at, &[], None));
        let lines = metrics::read(&at).unwrap();
        let looked: Vec<u64> = lines.iter().filter(|m| m.val_loss.is_some()).map(|m| m.step).collect();
        assert_eq!(looked, [8, 16, 24]);
        assert!(at.join("step-12").exists() && lines[0].loss > lines.last().unwrap().loss + 0.3);
        assert!(lines.iter().all(|m| m.lead.is_some_and(|lead| lead <= 8) && m.bytes_sent > Some(0)));
        // Any number of ranks goes on with it, and so does one alone.
        for more in [4, 1] {
            let steps = format!("steps={}", 24 + 8 / more);
            done(by(more, &config(&[]), &at, &[&steps], None));
        }
        assert!(ends[0].1.iter().all(|m| m.step <= 24));
    }
}

#[test]
fn a_parameter_server_without_delay_takes_the_steps_of_the_gradients_it_gets() {
    // One weight's worth of check by hand is in the server's own tests; here: as good as a synchronous run.
    let d = tempfile::tempdir().unwrap();
    let sgd: &[&str] = &["optimizer.name=sgd", "optimizer.lr=0.3", "steps=40", "eval_every=0"];
    let whole = done(by(2, &config(&[sgd]), &d.path().join("sync"), &[], None));
    let bound: &[&str] = &["asynchronous.staleness=0"];
    let served = done(by(2, &config(&[sgd, SERVER, bound]), &d.path().join("served"), &[], None));
    let end = |ends: &[End]| ends[0].1.last().unwrap().val_loss.unwrap();
    let (a, b) = (end(&whole), end(&served));
    assert!((a - b).abs() < 0.02 * a, "{a} and {b}");
    assert!(whole[0].1[0].loss > a + 0.3, "it learns");
}

#[test]
fn looking_waits_for_a_meeting_and_changes_nothing() {
    let d = tempfile::tempdir().unwrap();
    let run = |name: &str, extra: &[&str]| {
        let at = d.path().join(name);
        let ends = done(by(2, &config(&[DILOCO, &["steps=10"], extra]), &at, &[], None));
        let seen: Vec<u64> =
            metrics::read(&at).unwrap().iter().filter(|m| m.val_loss.is_some()).map(|m| m.step).collect();
        (ends.into_iter().next().unwrap().2, seen)
    };
    let (never, last) = run("never", &["eval_every=0"]);
    let (often, seen) = run("often", &["eval_every=3", "snapshot_every=5"]);
    assert_eq!((last, seen), (vec![10], vec![4, 8, 10]), "the last round is shorter");
    assert!(never == often);
    assert!(d.path().join("often/step-8").exists() && !d.path().join("often/step-5").exists());
}

/// The files of the last snapshot, and the metrics without times.
fn fingerprint(at: &Path) -> Vec<Vec<u8>> {
    let read = |name: &str| fs::read(at.join("step-24").join(name)).unwrap();
    let files = ["model.safetensors", "optimizer.safetensors", "ranks.safetensors"];
    let timeless = |m: Metrics| Metrics { tokens_per_s: None, stall: 0.0, wall_s: 0.0, ..m };
    let lines: Vec<Metrics> = metrics::read(at).unwrap().into_iter().map(timeless).collect();
    files.iter().map(|f| read(f)).chain([serde_json::to_vec(&lines).unwrap()]).collect()
}

#[test]
fn a_run_that_was_stopped_and_resumed_ends_with_the_bits_of_one_that_was_not() {
    for optimizer in [&[][..], &["optimizer.name=prodigy", "optimizer.lr=1"]] {
        let d = tempfile::tempdir().unwrap();
        let (whole, parts) = (d.path().join("whole"), d.path().join("parts"));
        let config = config(&[DILOCO, optimizer, &["model.dropout=0.1"]]);
        done(by(3, &config, &whole, &[], None));
        for End(end, lines, ..) in by(3, &config, &parts, &[], Some(9)) {
            // Asked for after step 9, granted where all meet.
            let Err(Error::Interrupted { signal: 15, saved: Some(path) }) = end else { panic!("{end:?}") };
            assert!(path.ends_with("step-12") && lines.len() == 12, "{path:?}");
        }
        done(by(3, &config, &parts, &[], None));
        let (a, b) = (fingerprint(&whole), fingerprint(&parts));
        assert!(a == b, "{:?}", a.iter().zip(&b).map(|(a, b)| a == b).collect::<Vec<_>>());
    }
}

#[test]
fn other_ranks_go_on_only_where_that_is_wished() {
    let d = tempfile::tempdir().unwrap();
    let at = d.path().join("run");
    let begun = config(&[DILOCO]);
    by(3, &begun, &at, &[], Some(6)).iter().for_each(|end| assert!(end.0.is_err()));
    let saved = fs::read_to_string(at.join("config.toml")).unwrap();
    for End(end, ..) in by(2, &begun, &at, &[], None) {
        let e = end.unwrap_err();
        assert_eq!(e.exit_code(), 2, "{e}");
        for words in ["asynchronous.reset", "3 ranks", "2 would", "start 3", "asynchronous.reset = true"] {
            assert!(e.to_string().contains(words), "{words} is not in {e}");
        }
    }
    assert_eq!(fs::read_to_string(at.join("config.toml")).unwrap(), saved);
    for End(end, _, _, notices) in by(2, &begun, &at, &["asynchronous.reset=true"], Some(14)) {
        assert!(matches!(end, Err(Error::Interrupted { .. })));
        assert!(notices.iter().any(|n| n.contains("asynchronous.reset")), "{notices:?}");
    }
    assert!(!Config::load(&at.join("config.toml")).unwrap().asynchronous.reset, "granted once");
    // Synchronously any number of ranks can.
    let ends = done(by(1, &begun, &at, &["asynchronous.mode=none"], None));
    assert!(ends[0].3.iter().any(|n| n.contains("left behind")), "{:?}", ends[0].3);
    assert_eq!(metrics::read(&at).unwrap().len(), 24);
}

#[test]
fn states_are_merged_where_ranks_meet() {
    let d = tempfile::tempdir().unwrap();
    let sparse = ["model.activation=sparse", "model.sparse.density=0.3", "model.sparse.rule=running_mean"];
    let lsh =
        ["model.attention=dynamic", "model.router=lsh", "model.dynamic.lengths=true", "model.context=64"];
    let lsh = [&lsh[..], &["model.dynamic.block=16", "model.dynamic.window=8", "model.dynamic.dense=never"]]
        .concat();
    for (name, model) in [("sparse", &sparse[..]), ("lsh", &lsh)] {
        let ends = done(by(3, &config(&[LOCAL, model]), &d.path().join(name), &[], None));
        assert!(ends[0].1[0].loss > ends[0].1[23].loss, "{name}");
    }
}

#[test]
fn a_nan_of_one_rank_ends_all_with_its_name() {
    let d = tempfile::tempdir().unwrap();
    let path = d.path().join("spoilt.rtd");
    spoilt(&path);
    let data = format!("data.path={}", path.display());
    let mlp = ["model.kind=mlp", "model.layers=1", "model.dim=8", "batch_size=8", "eval_every=0", &data];
    for mode in [DILOCO, SERVER] {
        let ends = by(3, &config(&[mode, &mlp]), &d.path().join(mode[0]), &[], None);
        let texts: Vec<String> = ends.iter().map(|end| end.0.as_ref().unwrap_err().to_string()).collect();
        assert!(ends.iter().all(|end| end.0.as_ref().unwrap_err().exit_code() == 6), "{texts:?}");
        let named = texts[0].find("rank ").map(|at| texts[0][at..at + 6].to_string()).unwrap();
        assert!(texts.iter().all(|t| t.contains(&named) && t.contains("the loss is NaN")), "{texts:?}");
        assert!(!texts[0].contains("not changed"), "they were: {texts:?}");
    }
}

#[test]
fn one_rank_has_nobody_to_wait_for_and_says_so() {
    let d = tempfile::tempdir().unwrap();
    let short: &[&str] = &["steps=3", "eval_every=0"];
    let one = |name: &str, mode: &[&str]| go(Run::create(config(&[short, mode]), &d.path().join(name)), None);
    let (plain, alone) = (one("plain", &[]), one("alone", DILOCO));
    assert!(plain.2 == alone.2 && alone.0.is_ok());
    assert!(alone.3.iter().any(|n| n.contains("asynchronous.mode") && n.contains("off")), "{:?}", alone.3);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let bad = |given: &[&str], words: &[&str]| {
        let e = Config::resolve(None, &settings(&[BASE, given])).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{e}");
        words.iter().for_each(|w| assert!(e.to_string().contains(w), "{w} is not in {e}"));
    };
    bad(&["asynchronous.mode=often"], &["asynchronous.mode", "often", "diloco"]);
    bad(&["asynchronous.inner_steps=0"], &["asynchronous.inner_steps", "at least 1"]);
    bad(&["asynchronous.outer_lr=0"], &["asynchronous.outer_lr", "0.7"]);
    bad(&["asynchronous.outer_momentum=1"], &["asynchronous.outer_momentum", "below 1"]);
    bad(&[DILOCO, &["micro_shards=4"]].concat(), &["asynchronous.mode", "micro_shards = 0"]);
    bad(&[DILOCO, &["codec.name=int8"]].concat(), &["codec.name", "diloco", "none"]);
    bad(&[LOCAL, &["controller.name=gvc"]].concat(), &["controller.name", "local_sgd", "none"]);
    bad(&[SERVER, &["trace=3"]].concat(), &["trace", "server", "set it to 0"]);
    bad(&[SERVER, &["device=soft:0"]].concat(), &["device", "server", "cpu"]);
    let d = tempfile::tempdir().unwrap();
    let states: &[&str] = &["model.activation=sparse", "model.sparse.rule=homeostatic"];
    for End(end, ..) in by(2, &config(&[SERVER, states]), &d.path().join("states"), &[], None) {
        let e = end.unwrap_err().to_string();
        assert!(e.contains("asynchronous.mode") && e.contains("threshold") && e.contains("diloco"), "{e}");
    }
    let at = d.path().join("none");
    for optimizer in ["vsgd_fd", "schedule_free_adamw"] {
        let name = format!("optimizer.name={optimizer}");
        let whole = config(&[DILOCO, &[&name, "optimizer.lr=1"]]);
        for End(end, ..) in by(2, &whole, &at, &[], None) {
            let e = end.unwrap_err();
            assert_eq!(e.exit_code(), 2, "{e}");
            assert!(e.to_string().contains("optimizer.name") && e.to_string().contains("diloco"), "{e}");
        }
        assert!(!at.exists());
    }
}
