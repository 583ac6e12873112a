//! ZeRO-1: ranks that keep the optimizer's state of their part of the weights train as those that keep all of it, bit by bit.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use ringtape::comm::{device_ring, threads};
use ringtape::device::soft::{self, Machine, Settings};
use ringtape::error::{Error, Result};
use ringtape::train::{Config, Metrics, Observer, Run, Stop, Team};
use std::path::Path;
use std::sync::{Arc, Mutex};

const BASE: &[&str] = &[
    "steps=12",
    "eval_batches=2",
    "eval_every=6",
    "snapshot_every=0",
    "log_every=1",
    "keep_snapshots=9",
    "schedule.warmup_steps=2",
    "tensorboard=false",
    "clip=0.5",
    "bucket_mb=0.01",
    "crossover=2000",
    "model.layers=1",
    "model.dim=16",
    "model.heads=2",
    "model.context=16",
    "batch_size=7",
];

fn config(more: &[&str]) -> Config {
    let all: Vec<String> = BASE.iter().chain(more).map(|s| s.to_string()).collect();
    Config::resolve(None, &all).unwrap()
}

/// Every step's numbers; asks to stop after a step, where it is told to.
struct Seen(Vec<Metrics>, Option<(u64, Stop)>);
impl Observer for Seen {
    fn on_step(&mut self, m: &Metrics) {
        self.0.push(m.clone());
        if let Some((step, stop)) = &self.1
            && *step == m.step
        {
            stop.request(15);
        }
    }
}

/// What a rank ended with.
struct End {
    done: Result<()>,
    seen: Vec<Metrics>,
    weights: Vec<u8>,
    state: usize,
}

fn go(run: Result<Run>, stop_at: Option<u64>) -> End {
    let mut run = match run {
        Ok(run) => run,
        Err(e) => return End { done: Err(e), seen: vec![], weights: vec![], state: 0 },
    };
    let stop = Stop::never();
    let mut seen = Seen(vec![], stop_at.map(|step| (step, stop.clone())));
    let done = run.train(&stop, &mut seen).map(drop);
    let params = run.params();
    let bytes = |i| params.segment(i).to_host().unwrap().as_bytes().unwrap().to_vec();
    let weights = (0..params.segments().len()).flat_map(bytes).collect();
    End { done, seen: seen.0, weights, state: run.state_bytes() }
}

fn by(p: usize, config: &Config, at: &Path) -> Vec<End> {
    let ranks = threads::run(p, |world| Ok(go(Run::create_by(Team::of(world)?, config.clone(), at), None)));
    ranks.into_iter().map(Result::unwrap).collect()
}

/// The files of the snapshot of `step`.
fn files(at: &Path, step: u64) -> [Vec<u8>; 2] {
    let snapshot = at.join(format!("step-{step}"));
    ["model.safetensors", "optimizer.safetensors"].map(|f| std::fs::read(snapshot.join(f)).unwrap())
}

/// `p` ranks with parts and `p` without end with the same weights and the same file of state, and saw the same losses.
fn same_bits(p: usize, more: &[&str]) -> [Vec<End>; 2] {
    let d = tempfile::tempdir().unwrap();
    let runs = ["zero=0", "zero=1"].map(|zero| {
        let ends = by(p, &config(&[more, &[zero]].concat()), &d.path().join(zero));
        for (rank, end) in ends.iter().enumerate() {
            assert!(end.done.is_ok(), "{more:?}, {zero}, rank {rank} of {p}: {:?}", end.done);
            assert!(end.weights == ends[0].weights, "{more:?}, {zero}: rank {rank} of {p} has other weights");
        }
        ends
    });
    let [plain, parts] = &runs;
    let losses = |ends: &[End]| ends[0].seen.iter().map(|m| m.loss.to_bits()).collect::<Vec<_>>();
    assert_eq!(losses(plain), losses(parts), "{more:?} by {p}");
    for (a, b) in plain[0].seen.iter().zip(&parts[0].seen) {
        assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-12, "{a:?} {b:?}");
        assert!(a.grad_norm > 0.5, "it is clipped");
    }
    assert!(plain[0].weights == parts[0].weights, "{more:?} by {p}: weights");
    let [a, b] = ["zero=0", "zero=1"].map(|zero| files(&d.path().join(zero), 12));
    assert!(a == b, "{more:?} by {p}: the files of the snapshot");
    runs
}

#[test]
fn parts_give_the_bits_of_the_whole_for_every_rule_by_weight() {
    for (p, more) in [
        (2, &["optimizer.name=adamw", "model.dropout=0.1", "accumulate=2"][..]),
        (3, &["optimizer.name=adamw", "checkpoint=true"]),
        (2, &["optimizer.name=sgd", "optimizer.momentum=0.9"]),
        (3, &["optimizer.name=lion", "optimizer.lr=0.001"]),
        (2, &["optimizer.name=adabelief"]),
        (4, &["optimizer.name=m_svag"]),
        (2, &["optimizer.name=adam", "model.activation=sparse", "model.sparse.rule=running_mean"]),
    ] {
        same_bits(p, more);
    }
}

#[test]
fn a_part_of_the_state_is_a_pth_and_bytes_sent_are_those_of_the_whole() {
    for p in [2, 3, 4] {
        // All sums go round the ring.
        let [plain, parts] = same_bits(p, &["crossover=1"]);
        let whole = plain[0].state;
        for (rank, end) in parts.iter().enumerate() {
            // Of each of some thirty buckets a rank may have an element more, and each of four arrays is padded to 16.
            let slack = 2 * 4 * 30 + 4 * 64;
            let (most, least) = (whole / p + slack, whole / p - slack - whole / 50);
            assert!((least..=most).contains(&end.state), "rank {rank} of {p}: {} of {whole}", end.state);
        }
        let sent = |ends: &[End]| ends[0].seen.iter().map(|m| m.bytes_sent.unwrap()).collect::<Vec<_>>();
        assert_eq!(sent(&plain), sent(&parts));
        assert!(sent(&parts)[0] > 0);
    }
}

#[test]
fn parts_and_micro_shards_give_the_bits_of_one_rank() {
    let d = tempfile::tempdir().unwrap();
    let all = config(&["micro_shards=4", "zero=1", "model.dropout=0.1"]);
    let one = go(Run::create(all.clone(), &d.path().join("1")), None);
    one.done.unwrap();
    for p in [2, 4] {
        let at = d.path().join(p.to_string());
        for end in by(p, &all, &at) {
            end.done.unwrap();
            assert!(end.weights == one.weights && end.state < one.state);
        }
        assert!(files(&at, 12) == files(&d.path().join("1"), 12));
    }
}

#[test]
fn a_run_goes_on_with_other_ranks_with_parts_and_without() {
    let d = tempfile::tempdir().unwrap();
    let (whole, legs) = (d.path().join("whole"), d.path().join("legs"));
    let all = config(&["micro_shards=4", "model.dropout=0.1"]);
    go(Run::create(all.clone(), &whole), None).done.unwrap();
    for (p, zero, stop) in [(4, 1, Some(2)), (2, 0, Some(4)), (2, 1, Some(6)), (1, 0, Some(8)), (4, 1, None)]
    {
        let resumes = legs.join("config.toml").exists();
        let ends = threads::run(p, |world| {
            let team = Team::of(world)?;
            let run = if resumes {
                let change = |c: &mut Config| {
                    c.zero = zero;
                    Ok(())
                };
                Run::resume_by(&legs, change, |_| Ok(team))
            } else {
                Run::create_by(team, Config { zero, ..all.clone() }, &legs)
            };
            Ok(go(run, stop))
        });
        for end in ends {
            match (stop, end.unwrap().done) {
                (Some(_), Err(Error::Interrupted { .. })) | (None, Ok(())) => {}
                (_, other) => panic!("{p} ranks, zero = {zero}: {other:?}"),
            }
        }
    }
    assert!(files(&whole, 12) == files(&legs, 12));
}

#[test]
fn a_controller_reads_the_slope_over_all_parts() {
    let d = tempfile::tempdir().unwrap();
    let more = ["controller.name=gvc", "controller.window=20", "steps=24"];
    let seen = ["zero=0", "zero=1"].map(|zero| {
        let ends = by(3, &config(&[&more[..], &[zero]].concat()), &d.path().join(zero));
        ends.into_iter().next().map(|end| end.done.map(|()| end.seen)).unwrap().unwrap()
    });
    let z = |all: &[Metrics]| all.iter().filter_map(|m| m.controller.map(|c| c.z)).collect::<Vec<_>>();
    assert!(!z(&seen[0]).is_empty(), "it decided");
    assert_eq!(z(&seen[0]), z(&seen[1]));
}

#[test]
fn devices_have_parts_too() {
    let d = tempfile::tempdir().unwrap();
    let more =
        ["data.path=digits", "model.kind=mlp", "model.layers=1", "model.dim=8", "steps=4", "eval_batches=1"];
    let run = |zero: &str| {
        let machine = Arc::new(Machine::new(Settings { seed: 3, ..Settings::default() }));
        let devices: Vec<_> = (0..2).map(|r| soft::device(&machine, r).unwrap()).collect();
        let rings: Vec<_> =
            device_ring::open(&devices).unwrap().into_iter().map(|r| Mutex::new(Some(r))).collect();
        let all = config(&[&more[..], &[zero]].concat());
        let ranks = threads::run(2, |world| {
            let (rank, at) = (world.rank(), d.path().join(zero));
            let config = Config { device: format!("soft:{rank}"), ..all.clone() };
            let ring = rings[rank].lock().unwrap().take().unwrap();
            Ok(go(Run::create_by(Team::on_device(world, ring)?, config, &at), None))
        });
        let ends: Vec<End> = ranks.into_iter().map(Result::unwrap).collect();
        ends.into_iter().map(|end| end.done.map(|()| (end.seen, end.state)).unwrap()).collect::<Vec<_>>()
    };
    let (plain, parts) = (run("zero=0"), run("zero=1"));
    for (a, b) in plain[0].0.iter().zip(&parts[1].0) {
        assert!((a.loss / b.loss - 1.0).abs() < 1e-5, "{a:?} {b:?}");
    }
    assert!(parts.iter().all(|(_, state)| *state < plain[0].1 * 6 / 10));
}

#[test]
fn what_cannot_be_cut_is_refused_by_key() {
    let d = tempfile::tempdir().unwrap();
    for name in ["muon", "adafactor", "prodigy", "schedule_free_adamw", "vsgd_fd"] {
        let all = config(&["zero=1", &format!("optimizer.name={name}")]);
        for end in by(2, &all, &d.path().join("none")) {
            let e = end.done.unwrap_err();
            let text = e.to_string();
            assert_eq!(e.exit_code(), 2, "{text}");
            assert!(["zero", name, "optimizer.name"].iter().all(|w| text.contains(w)), "{text}");
        }
        assert!(!d.path().join("none").exists(), "nothing was made");
    }
    for (bad, words) in [
        (&["zero=2"][..], &["zero", "2", "0 or 1"][..]),
        (&["zero=1", "codec.name=int8"], &["zero", "int8", "codec.name = none"]),
    ] {
        let all: Vec<String> = BASE.iter().chain(bad).map(|s| s.to_string()).collect();
        let e = Config::resolve(None, &all).unwrap_err();
        assert!(e.exit_code() == 2 && words.iter().all(|w| e.to_string().contains(w)), "{e}");
    }
    let alone = Run::create(config(&["zero=1"]), &d.path().join("alone")).unwrap();
    assert!(
        alone.notices().iter().any(|n| n.contains("zero = 1") && n.contains("one rank")),
        "{:?}",
        alone.notices()
    );
}
