//! Stages of a pipeline: what one rank computes with as many micro-batches, they compute, in the order of 1F1B.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod rank_support;

use rank_support::{GPT, alone, by, config, leg, near, same_numbers};
use ringtape::train::{Config, Run, Silent, Stop, metrics};
use std::collections::BTreeMap;
use std::path::Path;

/// Five layers, which no number of stages above one divides, and three micro-batches.
const FIVE: &[&str] = &["model.layers=5", "accumulate=3", "batch_size=4"];

#[test]
fn stages_give_the_losses_of_one_rank() {
    same_numbers(2, &["mesh.pipeline=2"], &[GPT, FIVE]);
    same_numbers(3, &["mesh.pipeline=3", "mesh.stages=2,1,2"], &[GPT, FIVE]);
    // Fewer micro-batches than stages.
    same_numbers(4, &["mesh.pipeline=4"], &[GPT, FIVE, &["accumulate=1"]]);
}

#[test]
fn so_do_stages_of_replicas_and_of_ranks_that_share_layers() {
    same_numbers(4, &["mesh.pipeline=2", "mesh.data=2"], &[GPT, FIVE]);
    same_numbers(4, &["mesh.pipeline=2", "mesh.tensor=2"], &[GPT, FIVE]);
    same_numbers(
        8,
        &["mesh.pipeline=2", "mesh.tensor=2", "mesh.data=2", "mesh.stages=1,1"],
        &[GPT, &["model.layers=2", "accumulate=3"]],
    );
}

#[test]
fn first_and_last_stage_have_the_symbols_of_a_tied_model_between_them() {
    let tied = ["model.tied=true", "model.shift=1", "model.positions=rotary", "checkpoint=true"];
    same_numbers(3, &["mesh.pipeline=3"], &[GPT, FIVE, &tied]);
    same_numbers(4, &["mesh.pipeline=2", "mesh.data=2"], &[GPT, FIVE, &tied]);
    same_numbers(4, &["mesh.pipeline=2", "mesh.tensor=2"], &[GPT, FIVE, &tied]);
}

#[test]
fn masks_of_dropout_and_prices_of_layers_are_those_of_one_rank() {
    let drops = ["model.dropout=0.2", "model.qk_norm=true", "model.norm=rms"];
    same_numbers(3, &["mesh.pipeline=3"], &[GPT, FIVE, &drops]);
    let spans = [
        "model.attention=dynamic",
        "model.dynamic.dense=never",
        "model.dynamic.span=token",
        "model.dynamic.penalty=0.5",
        "model.dynamic.window=4",
        "model.dynamic.ramp=4",
    ];
    same_numbers(2, &["mesh.pipeline=2"], &[GPT, FIVE, &spans]);
}

#[test]
fn weights_that_stay_as_they_begin_may_be_those_of_one_stage() {
    same_numbers(2, &["mesh.pipeline=2"], &[GPT, FIVE, &["freeze=token, position"]]);
    // All of the first stage.
    let all = "freeze=token, position, blocks.0, blocks.1";
    same_numbers(2, &["mesh.pipeline=2", "mesh.stages=2,3"], &[GPT, FIVE, &[all]]);
}

#[test]
fn a_run_goes_on_in_any_layout() {
    let d = tempfile::tempdir().unwrap();
    let base = config(&[GPT, FIVE, &["optimizer.name=schedule_free_adamw", "freeze=token, blocks.1.mlp"]]);
    let (one, _) = alone(&base, &d.path().join("whole"));
    let at = d.path().join("parts");
    let with = |mesh: &[&str]| config(&[FIVE, mesh]).mesh;
    let stages = Config { mesh: with(&["mesh.pipeline=2"]), ..base.clone() };
    leg(4, &stages, &at, Some(5)).into_iter().for_each(|end| assert!(end.is_err()));
    let cut = Run::configuration(&at).unwrap().mesh.stages;
    assert!(["1,4", "2,3", "3,2", "4,1"].contains(&&cut[..]), "the cut stands in the config: {cut}");
    let change = |mesh: &[&str]| {
        let mesh = with(mesh);
        move |c: &mut Config| {
            c.mesh = mesh.clone();
            Ok(())
        }
    };
    let ends = ringtape::comm::threads::run(4, |world| {
        let team = ringtape::train::Team::of(world)?;
        let stop = (team.rank() == 0).then_some(11);
        let run =
            Run::resume_by(&at, change(&["mesh.pipeline=2", "mesh.tensor=2", "mesh.stages=4,1"]), |_| {
                Ok(team)
            });
        Ok(rank_support::go(run, stop).0)
    });
    ends.into_iter().for_each(|end| assert_eq!(end.unwrap().unwrap_err().exit_code(), 143));
    let mut last = Run::resume(&at, change(&[])).unwrap();
    last.train(&Stop::never(), &mut Silent).unwrap();
    let lines = metrics::read(&at).unwrap();
    assert_eq!(lines.len(), 20);
    one.iter().zip(&lines).for_each(|(a, b)| near(a.loss, b.loss, &format!("loss of step {}", a.step)));
}

/// Of each rank what it computed of micro-batches in the first step: forward or not, and which, in order.
fn moves(at: &Path) -> Vec<Vec<(bool, usize)>> {
    let text = std::fs::read_to_string(at.join("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut found: BTreeMap<u64, Vec<(bool, usize)>> = BTreeMap::new();
    for event in trace["traceEvents"].as_array().unwrap() {
        let name = event["name"].as_str().unwrap();
        let number = |kind: &str| name.strip_prefix(kind).and_then(|n| n.parse::<usize>().ok());
        let (forward, backward) = (number("forward "), number("backward "));
        let all = found.entry(event["pid"].as_u64().unwrap()).or_default();
        all.extend(forward.map(|k| (true, k)).or(backward.map(|k| (false, k))));
    }
    found.into_values().collect()
}

/// Plays moves in slots, a forward taking one and a backward two: the share of slots in which a stage does nothing, the most
/// micro-batches that each holds, and what it does in each slot: digits are forwards, letters backwards.
fn play(stages: &[Vec<(bool, usize)>]) -> (f64, Vec<usize>, Vec<String>) {
    let (p, m) = (stages.len(), stages[0].len() / 2);
    let mut drawn = vec![String::new(); p];
    let mut done: BTreeMap<(usize, bool, usize), usize> = BTreeMap::new();
    let (mut at, mut free) = (vec![0; p], vec![0; p]);
    while at.iter().zip(stages).any(|(at, all)| *at < all.len()) {
        let before = at.clone();
        for r in 0..p {
            let Some(&(forward, k)) = stages[r].get(at[r]) else { continue };
            let needs = match (forward, r) {
                (true, 0) => Some(0),
                (true, r) => done.get(&(r - 1, true, k)).copied(),
                (false, r) if r + 1 == p => done.get(&(r, true, k)).copied(),
                (false, r) => done.get(&(r + 1, false, k)).copied(),
            };
            let Some(ready) = needs else { continue };
            drawn[r] += &".".repeat(free[r].max(ready) - free[r]);
            let (base, long) = if forward { (b'0', 1) } else { (b'a', 2) };
            drawn[r] += &char::from(base + k as u8).to_string().repeat(long);
            free[r] = free[r].max(ready) + long;
            done.insert((r, forward, k), free[r]);
            at[r] += 1;
        }
        assert_ne!(before, at, "nobody can go on: {stages:?}");
    }
    let end = *free.iter().max().unwrap();
    let held = |moves: &Vec<(bool, usize)>| {
        let mut live = 0usize;
        let count = |(forward, _): &(bool, usize)| {
            live = if *forward { live + 1 } else { live - 1 };
            live
        };
        moves.iter().map(count).max().unwrap()
    };
    drawn.iter_mut().for_each(|row| *row += &".".repeat(end - row.len()));
    (1.0 - (3 * m) as f64 / end as f64, stages.iter().map(held).collect(), drawn)
}

#[test]
fn the_timeline_shows_the_bubble_and_the_micro_batches_that_live() {
    let d = tempfile::tempdir().unwrap();
    for (p, m) in [(2, 3), (3, 2), (4, 8)] {
        let at = d.path().join(format!("{p}-{m}"));
        let (pipeline, accumulate) = (format!("mesh.pipeline={p}"), format!("accumulate={m}"));
        let short = ["steps=1", "trace=1", "model.layers=4", "batch_size=2", "eval_batches=1"];
        let c = config(&[GPT, &short, &[&pipeline, &accumulate]]);
        by(p, &c, &at).into_iter().for_each(|(end, _)| end.unwrap());
        let stages = moves(&at);
        assert_eq!(stages.len(), p);
        let (bubble, peaks, drawn) = play(&stages);
        let theory = (p - 1) as f64 / (m + p - 1) as f64;
        assert!((bubble - theory).abs() < 1e-12, "{p} stages, {m} micro-batches: {bubble}, not {theory}");
        assert_eq!(peaks, (0..p).map(|r| (p - r).min(m)).collect::<Vec<_>>(), "{p} stages, {m}");
        if (p, m) == (4, 8) {
            shown_in_the_book(&drawn);
        }
    }
    // The same count tells other schedules: all forwards first hold all micro-batches.
    let naive: Vec<Vec<(bool, usize)>> =
        vec![(0..8).map(|k| (true, k)).chain((0..8).map(|k| (false, k))).collect(); 4];
    let (bubble, peaks, drawn) = play(&naive);
    assert!((bubble - 3.0 / 11.0).abs() < 1e-12 && peaks == [8; 4], "{bubble} {peaks:?}");
    shown_in_the_book(&drawn);
}

fn shown_in_the_book(drawn: &[String]) {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/book/src/mesh.md")).unwrap();
    let figure: String = drawn.iter().enumerate().map(|(r, row)| format!("stage {r}  {row}\n")).collect();
    assert!(page.contains(&figure), "the book shows another schedule than\n{figure}");
}

#[test]
fn what_is_not_finite_is_named_by_the_stage_in_which_it_begins() {
    let d = tempfile::tempdir().unwrap();
    let at = d.path().join("run");
    let sick = ["optimizer.lr=1e30", "clip=0", "schedule.warmup_steps=0"];
    for (end, _) in by(3, &config(&[GPT, FIVE, &["mesh.pipeline=3"], &sick]), &at) {
        let e = end.unwrap_err();
        assert_eq!(e.exit_code(), 6, "{e}");
        let text = e.to_string();
        assert!(text.contains("step 2: rank ") && text.contains("op `"), "{text}");
    }
}

#[test]
fn every_rank_knows_the_loss_and_stops_after_the_same_step() {
    let d = tempfile::tempdir().unwrap();
    let at = d.path().join("run");
    let c = config(&[GPT, FIVE, &["mesh.pipeline=2", "mesh.data=2"]]);
    for end in leg(4, &c, &at, Some(3)) {
        assert_eq!(end.unwrap_err().exit_code(), 143);
    }
    let journal = |r: usize| std::fs::read_to_string(at.join(format!("ranks/rank-{r}.log"))).unwrap();
    let losses = |r: usize| -> Vec<String> {
        let text = journal(r);
        text.lines().map(|l| l.split_whitespace().nth(3).unwrap().to_string()).collect()
    };
    assert_eq!(losses(0).len(), 4, "it is asked in the third");
    assert_eq!((losses(0), losses(1)), (losses(2), losses(3)), "both stages of a replica say its loss");
    assert_ne!(losses(0), losses(1), "replicas have different samples");
}

#[test]
fn what_is_no_pipeline_is_refused_by_key_with_the_remedy() {
    let d = tempfile::tempdir().unwrap();
    let at = d.path().join("none");
    let refused = |p: usize, mesh: &[&str], words: &[&str]| {
        for (end, _) in by(p, &config(&[GPT, &["model.layers=2"], mesh]), &at) {
            let e = end.unwrap_err();
            assert_eq!(e.exit_code(), 2, "{e}");
            words.iter().for_each(|w| assert!(e.to_string().contains(w), "{w}: {e}"));
        }
        assert!(!at.exists(), "nothing was made");
    };
    refused(3, &["mesh.pipeline=2"], &["mesh.pipeline", "3 ranks", "start 2"]);
    refused(4, &["mesh.pipeline=2", "mesh.data=3"], &["mesh.data", "pipeline", "= 6", "4 ranks", "start 6"]);
    for (settings, key, word) in [
        (&["mesh.pipeline=3"][..], "mesh.pipeline", "model.layers is 2"),
        (&["mesh.pipeline=0"], "mesh.pipeline", "at least 1"),
        (&["mesh.pipeline=2", "mesh.stages=2,"], "mesh.stages", "1,1"),
        (&["mesh.pipeline=2", "mesh.stages=2,1"], "mesh.stages", "1,1"),
        (&["mesh.pipeline=2", "mesh.stages=2,0"], "mesh.stages", "1,1"),
        (&["mesh.pipeline=2", "mesh.stages=some"], "mesh.stages", "auto"),
        (&["mesh.stages=1,1"], "mesh.stages", "auto"),
        (&["mesh.pipeline=2", "accumulate=0"], "accumulate", "at least 1"),
        (&["mesh.pipeline=2", "optimizer.name=vsgd_fd"], "optimizer.name", "mesh.pipeline"),
        (&["mesh.pipeline=2", "optimizer.name=muon"], "optimizer.name", "mesh.pipeline"),
        (&["mesh.pipeline=2", "micro_shards=4"], "micro_shards", "mesh.pipeline"),
        (&["mesh.pipeline=2", "controller.name=gvc"], "controller.name", "mesh.pipeline"),
        (&["mesh.pipeline=2", "codec.name=bf16"], "codec.name", "mesh.pipeline"),
        (&["mesh.pipeline=2", "model.activation=sparse"], "model.activation", "mesh.pipeline"),
        (&["mesh.pipeline=2", "data.path=digits", "model.kind=mlp"], "mesh.pipeline", "model.kind is mlp"),
    ] {
        let all: Vec<String> =
            GPT.iter().chain(&["model.layers=2"]).chain(settings).map(|s| s.to_string()).collect();
        let e = Config::resolve(None, &all).unwrap_err();
        let text = e.to_string();
        assert!(e.exit_code() == 2 && text.contains(key) && text.contains(word), "{settings:?}: {text}");
    }
}
