//! Ranks that train by a codec: they learn, agree, say what they sent, and go on from a snapshot to the same bits.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use ringtape::attrs::Attrs;
use ringtape::comm::codec::{Codec, Entry, Param};
use ringtape::comm::{Communicator, Reduce, threads};
use ringtape::error::{Error, Result};
use ringtape::train::{Config, Metrics, Observer, Run, Stop, Team, metrics};
use std::fs;
use std::path::Path;

const BASE: &[&str] = &[
    "steps=20",
    "eval_batches=3",
    "eval_every=10",
    "snapshot_every=0",
    "log_every=1",
    "keep_snapshots=9",
    "schedule.warmup_steps=2",
    "tensorboard=false",
    "crossover=8192",
    "bucket_mb=0.02",
    "model.layers=1",
    "model.dim=32",
    "model.heads=2",
    "model.context=16",
    "batch_size=7",
];

const CODECS: [&[&str]; 5] = [
    &["codec.name=bf16"],
    &["codec.name=int8"],
    &["codec.name=one_bit", "codec.feedback=true"],
    &["codec.name=top_k", "codec.ratio=0.05", "codec.warmup_steps=8"],
    &["codec.name=power_sgd", "codec.rank=2"],
];

fn settings(parts: &[&[&str]]) -> Vec<String> {
    parts.iter().flat_map(|p| p.iter()).map(|s| s.to_string()).collect()
}

fn config(parts: &[&[&str]]) -> Config {
    Config::resolve(None, &settings(&[&[BASE], parts].concat())).unwrap()
}

/// Asks to stop after a step.
struct Until(Option<u64>, Stop);
impl Observer for Until {
    fn on_step(&mut self, m: &Metrics) {
        if self.0 == Some(m.step) {
            self.1.request(15);
        }
    }
}

/// A run's weights, or why there are none; and what it said.
type End = (Result<Vec<u8>>, Vec<String>);

fn train(run: Result<Run>, stop: Option<u64>) -> End {
    let mut run = match run {
        Ok(run) => run,
        Err(e) => return (Err(e), vec![]),
    };
    let never = Stop::never();
    let end = run.train(&never, &mut Until(stop, never.clone())).map(drop);
    let params = run.params();
    let bytes = (0..params.segments().len())
        .flat_map(|i| params.segment(i).to_host().unwrap().as_bytes().unwrap().to_vec())
        .collect();
    (end.map(|()| bytes), run.notices().to_vec())
}

/// `p` ranks start `config`, or go on with what is at `at` with settings `changed`.
fn by(p: usize, config: &Config, at: &Path, changed: &[&str], stop: Option<u64>) -> Vec<End> {
    let resumes = at.join("config.toml").exists();
    let ends = threads::run(p, |world| {
        let team = Team::of(world)?.with_codecs(&[&LOUD]);
        let change = |c: &mut Config| {
            *c = c.with(&settings(&[changed]))?;
            Ok(())
        };
        Ok(train(
            if resumes {
                Run::resume_by(at, change, |_| Ok(team))
            } else {
                Run::create_by(team, config.clone(), at)
            },
            stop,
        ))
    });
    ends.into_iter().map(Result::unwrap).collect()
}

fn weights(ends: Vec<End>) -> Vec<u8> {
    let all: Vec<Vec<u8>> = ends.into_iter().map(|(end, _)| end.unwrap()).collect();
    assert!(all.iter().all(|w| *w == all[0]), "ranks have different weights");
    all.into_iter().next().unwrap()
}

#[test]
fn they_learn_nearly_as_without_and_say_what_they_sent() {
    let d = tempfile::tempdir().unwrap();
    let plain = d.path().join("plain");
    weights(by(3, &config(&[]), &plain, &[], None));
    let plain = metrics::read(&plain).unwrap();
    let bytes = plain[0].bytes_sent.unwrap();
    assert!(plain.iter().all(|m| m.bytes_sent == Some(bytes) && m.compression.is_none()));
    for (codec, least, near) in CODECS
        .into_iter()
        .zip([1.9, 3.5, 15.0, 1.2, 3.0])
        .zip([0.002, 0.01, 0.3, 0.3, 0.3])
        .map(|((c, l), n)| (c, l, n))
    {
        let at = d.path().join(codec[0]);
        weights(by(3, &config(&[codec]), &at, &[], None));
        let lines = metrics::read(&at).unwrap();
        let (first, last, other) = (lines[0].loss, lines[19].loss, plain[19].loss);
        println!(
            "{codec:?}: loss {first:.3} to {last:.3}, plainly {other:.3}; {:.1} times fewer bytes",
            lines[19].compression.unwrap()
        );
        assert!(
            last < first - 0.1 && (last - other).abs() < near,
            "{codec:?}: {first} to {last}, plainly {other}"
        );
        for m in &lines {
            let (sent, compression) = (m.bytes_sent.unwrap() as f64, m.compression.unwrap());
            // What goes by the tree plainly costs more than round the ring.
            assert!(
                bytes as f64 / sent > least * 0.9 && compression > 0.9,
                "{codec:?}: {sent} of {bytes} bytes"
            );
        }
        assert!(lines[19].compression.unwrap() > least, "{codec:?}: {:?}", lines[19].compression);
    }
}

/// The files of the last snapshot, and the metrics without times.
fn fingerprint(at: &Path) -> Vec<Vec<u8>> {
    let read = |name: &str| fs::read(at.join("step-20").join(name)).unwrap();
    let files = ["model.safetensors", "optimizer.safetensors", "codec.safetensors"];
    let timeless = |m: Metrics| Metrics { tokens_per_s: None, stall: 0.0, wall_s: 0.0, ..m };
    let lines: Vec<Metrics> = metrics::read(at).unwrap().into_iter().map(timeless).collect();
    files.iter().map(|f| read(f)).chain([serde_json::to_vec(&lines).unwrap()]).collect()
}

#[test]
fn a_run_that_was_stopped_and_resumed_ends_with_the_bits_of_one_that_was_not() {
    let momentum: &[&str] = &["codec.momentum=0.9", "optimizer.name=sgd", "optimizer.lr=0.1"];
    for codec in [CODECS[1], CODECS[2], &[CODECS[3], momentum].concat()[..], CODECS[4]] {
        let d = tempfile::tempdir().unwrap();
        let (whole, parts) = (d.path().join("whole"), d.path().join("parts"));
        let config = config(&[codec]);
        weights(by(3, &config, &whole, &[], None));
        for (end, _) in by(3, &config, &parts, &[], Some(6)) {
            assert!(matches!(end, Err(Error::Interrupted { .. })));
        }
        let names: Vec<String> = {
            let bytes = fs::read(parts.join("step-7/codec.safetensors")).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            tensors.names().into_iter().map(|n| n.to_string()).collect()
        };
        for rank in 0..3 {
            assert!(names.iter().any(|n| n.starts_with(&format!("rank/{rank}/error/"))), "{names:?}");
        }
        weights(by(3, &config, &parts, &[], None));
        let (a, b) = (fingerprint(&whole), fingerprint(&parts));
        assert!(a == b, "{codec:?}: {:?}", a.iter().zip(&b).map(|(a, b)| a == b).collect::<Vec<_>>());
    }
}

#[test]
fn other_ranks_or_another_codec_go_on_only_where_that_is_wished() {
    let d = tempfile::tempdir().unwrap();
    let at = d.path().join("run");
    let begun = config(&[CODECS[1]]);
    for (end, _) in by(3, &begun, &at, &[], Some(6)) {
        end.unwrap_err();
    }
    let saved = fs::read_to_string(at.join("config.toml")).unwrap();
    let refused = |p: usize, changed: &[&str], words: &[&str]| {
        for (end, _) in by(p, &begun, &at, changed, None) {
            let e = end.unwrap_err();
            assert_eq!(e.exit_code(), 2, "{e}");
            words.iter().for_each(|w| assert!(e.to_string().contains(w), "{w} is not in {e}"));
        }
        assert_eq!(fs::read_to_string(at.join("config.toml")).unwrap(), saved);
    };
    refused(2, &[], &["codec.reset", "3 ranks", "2 would", "start 3", "codec.reset = true"]);
    refused(1, &[], &["codec.reset", "3 ranks", "start 3", "codec.reset = true"]);
    refused(3, &["codec.name=top_k"], &["codec.name", "top_k", "int8", "codec.reset = true"]);
    refused(3, &["codec.name=none"], &["codec.name", "none", "int8", "codec.reset = true"]);
    refused(3, &["codec.feedback=false"], &["codec.reset", "error/", "codec.reset = true"]);
    let ends = by(2, &begun, &at, &["codec.name=top_k", "codec.reset=true"], Some(9));
    for (end, notices) in ends {
        assert!(matches!(end, Err(Error::Interrupted { .. })));
        assert!(notices.iter().any(|n| n.contains("codec.reset") && n.contains("int8")), "{notices:?}");
    }
    // The wish is granted once.
    let config = Config::load(&at.join("config.toml")).unwrap();
    assert_eq!((&config.codec.name[..], config.codec.reset), ("top_k", false));
    weights(by(2, &begun, &at, &[], None));
    assert_eq!(metrics::read(&at).unwrap().len(), 20);
}

#[test]
fn a_damaged_file_of_what_was_not_sent_is_noticed() {
    let d = tempfile::tempdir().unwrap();
    let at = d.path().join("run");
    let config = config(&[CODECS[1], &["snapshot_every=5"]]);
    for (end, _) in by(2, &config, &at, &[], Some(9)) {
        end.unwrap_err();
    }
    let file = at.join("step-10/codec.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let (end, notices) = by(2, &config, &at, &[], None).remove(0);
    end.unwrap();
    let said = notices.iter().any(|n| n.contains("step-10/codec.safetensors") && n.contains("damaged"));
    assert!(said, "{notices:?}");
    assert_eq!(metrics::read(&at).unwrap().len(), 20);
}

#[test]
fn one_rank_sends_nothing_so_a_codec_is_off_and_says_so() {
    let d = tempfile::tempdir().unwrap();
    let short: &[&str] = &["steps=3", "eval_every=0"];
    let one = |name: &str, codec: &[&str]| {
        let (end, notices) = train(Run::create(config(&[short, codec]), &d.path().join(name)), None);
        (end.unwrap(), notices.iter().any(|n| n.contains("codec.name") && n.contains("off")))
    };
    let ((plain, quiet), (coded, told)) = (one("plain", &[]), one("coded", CODECS[2]));
    assert!(plain == coded && !quiet && told);
    assert!(metrics::read(&d.path().join("coded")).unwrap()[0].bytes_sent.is_none());
}

#[test]
fn what_cannot_be_is_refused_by_name_and_nothing_is_made() {
    let bad = |given: &[&str], words: &[&str]| {
        let e = Config::resolve(None, &settings(&[BASE, given])).unwrap_err();
        words.iter().for_each(|w| assert!(e.to_string().contains(w), "{w} is not in {e}"));
    };
    bad(&["codec.name=int8", "micro_shards=4"], &["codec.name", "micro_shards = 0", "none"]);
    bad(&["codec.ratio=0.1"], &["codec.ratio", "codec.name is none"]);
    bad(&["codec.name=top_k", "codec.ratio=many"], &["codec.ratio", "many"]);
    bad(&["codec.name=top_k", "codec.warmup_steps=-1"], &["codec.warmup_steps", "-1"]);
    bad(&["codec.ration=0.1"], &["codec.ration", "codec.ratio"]);
    let d = tempfile::tempdir().unwrap();
    let at = d.path().join("none");
    for (given, words) in [
        (&["codec.name=int4"][..], &["codec.name", "int8", "power_sgd"][..]),
        (&["codec.name=top_k", "codec.ratio=0"], &["codec.ratio"]),
        (&["codec.name=int8", "codec.rank=2"], &["codec.rank", "chunk"]),
        (&["codec.name=int8", "optimizer.name=vsgd_fd", "optimizer.lr=1"], &["codec.name", "vsgd_fd"]),
    ] {
        let whole = Config::resolve(None, &settings(&[BASE, given])).unwrap();
        for (end, _) in by(2, &whole, &at, &[], None) {
            let e = end.unwrap_err();
            assert_eq!(e.exit_code(), 2, "{e}");
            words.iter().for_each(|w| assert!(e.to_string().contains(w), "{w} is not in {e}"));
        }
        assert!(!at.exists());
    }
}

#[test]
fn gradients_of_devices_are_made_small_there_and_train_alike() {
    let d = tempfile::tempdir().unwrap();
    let short: &[&str] = &["steps=4", "eval_every=0", "eval_batches=1", "model.dim=16"];
    for codec in ["int8", "one_bit"] {
        let name = format!("codec.name={codec}");
        let losses = |at: &str, device: &str| -> Vec<f64> {
            let at = d.path().join(format!("{codec}-{at}"));
            weights(by(2, &config(&[short, &[&name, device]]), &at, &[], None));
            metrics::read(&at).unwrap().iter().map(|m| m.loss).collect()
        };
        let (here, there) = (losses("cpu", "device=cpu"), losses("soft", "device=soft:0"));
        here.iter()
            .zip(&there)
            .for_each(|(a, b)| assert!((a / b - 1.0).abs() < 1e-4, "{codec}: {here:?} {there:?}"));
    }
}

/// A codec of another crate: exact sums, of which it doubles each.
struct Loud;
impl Codec for Loud {
    fn sum(&mut self, world: &mut Communicator, _: &[Param], x: &mut [f32]) -> Result<()> {
        world.all_reduce(x, Reduce::Sum)?;
        x.iter_mut().for_each(|x| *x *= 2.0);
        Ok(())
    }
    fn state(&mut self) -> Result<Vec<(String, Vec<f32>)>> {
        Ok(vec![])
    }
    fn restore(&mut self, _: &[Param], _: Vec<(String, Vec<f32>)>) -> Result<()> {
        Ok(())
    }
}
static LOUD: Entry =
    Entry { name: "loud", doc: "doubles gradients", attrs: &[], build: |_: &Attrs| Ok(Box::new(Loud)) };

#[test]
fn a_codec_of_another_crate_is_found_by_its_name() {
    let d = tempfile::tempdir().unwrap();
    let short: &[&str] = &["steps=1", "eval_every=0"];
    let norm = |name: &str, codec: &[&str]| {
        let at = d.path().join(name);
        weights(by(2, &config(&[short, codec]), &at, &[], None));
        metrics::read(&at).unwrap()[0].grad_norm
    };
    let (plain, loud) = (norm("plain", &[]), norm("loud", &["codec.name=loud"]));
    assert!((loud / plain - 2.0).abs() < 1e-6, "{plain} and {loud}");
}
