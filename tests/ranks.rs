//! Several ranks, as threads, train one model: what one rank computes, they compute.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod rank_support;

use rank_support::{GPT, alone, by, config, leg, near, on_devices, spoilt};
use ringtape::data::Permutation;
use ringtape::error::Error;
use ringtape::train::{Config, Metrics, metrics};
use std::path::Path;

const MLP: &[&str] = &[
    "data.path=digits",
    "model.kind=mlp",
    "model.layers=2",
    "model.dim=24",
    "batch_size=9",
    "optimizer.lr=0.003",
];
const CNN: &[&str] = &["data.path=digits", "model.kind=cnn", "model.layers=1", "model.dim=4", "batch_size=6"];

fn same_numbers(parts: &[&[&str]]) {
    let d = tempfile::tempdir().unwrap();
    let config = config(parts);
    let (one, _) = alone(&config, &d.path().join("1"));
    assert!(one[0].loss > one[19].loss, "it learns");
    for p in [2, 3, 4] {
        let ends = by(p, &config, &d.path().join(p.to_string()));
        let failed: Vec<String> =
            ends.iter().filter_map(|(end, _)| end.as_ref().err().map(|e| e.to_string())).collect();
        assert!(failed.is_empty(), "{parts:?} by {p}: {failed:?}");
        let weights = &ends[0].1.1;
        for (rank, (_, (seen, bytes))) in ends.iter().enumerate() {
            assert_eq!(bytes, weights, "rank {rank} of {p} has other weights");
            assert_eq!(seen.len(), 20);
            for (a, b) in one.iter().zip(seen) {
                near(a.loss, b.loss, &format!("{parts:?}: loss of step {} by {p}", a.step));
                assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-3, "{a:?} {b:?}");
                assert_eq!(a.val_loss.is_some(), b.val_loss.is_some());
                near(a.val_loss.unwrap_or(0.0), b.val_loss.unwrap_or(0.0), "held-out loss");
            }
        }
    }
}

#[test]
fn uneven_shares_of_a_gpt_give_the_losses_of_one_rank() {
    same_numbers(&[GPT]);
}

#[test]
fn so_do_micro_batches_recomputed_blocks_and_small_buckets() {
    same_numbers(&[GPT, &["accumulate=3", "checkpoint=true", "bucket_mb=0.001", "model.layers=2"]]);
}

#[test]
fn so_do_thresholds_that_follow_what_the_batch_shows() {
    for rule in ["running_mean", "homeostatic"] {
        let rule = format!("model.sparse.rule={rule}");
        same_numbers(&[GPT, &["model.activation=sparse", "model.sparse.density=0.3", &rule]]);
    }
}

#[test]
fn so_do_a_cnn_a_second_gradient_and_a_controller() {
    same_numbers(&[CNN]);
    same_numbers(&[MLP, &["optimizer.name=vsgd_fd", "optimizer.lr=1"]]);
    same_numbers(&[MLP, &["controller.name=gvc", "controller.window=20"]]);
}

#[test]
fn targets_that_do_not_count_have_no_weight() {
    // Few targets of a sequence count, and not as many in each.
    same_numbers(&[
        &[
            "data.path=recall",
            "model.layers=1",
            "model.dim=16",
            "model.heads=2",
            "model.context=256",
            "batch_size=5",
        ],
        &["eval_batches=1"],
    ]);
}

/// Metrics without times, and the files of the last snapshot.
fn fingerprint(at: &Path, step: u64) -> Vec<Vec<u8>> {
    let files = ["model.safetensors", "optimizer.safetensors"];
    let snapshot = at.join(format!("step-{step}"));
    let mut all: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(snapshot.join(f)).unwrap()).collect();
    let timeless =
        |m: Metrics| Metrics { tokens_per_s: None, samples_per_s: None, stall: 0.0, wall_s: 0.0, ..m };
    let lines: Vec<Metrics> = metrics::read(at).unwrap().into_iter().map(timeless).collect();
    all.push(serde_json::to_vec(&lines).unwrap());
    all
}

#[test]
fn micro_shards_give_the_same_bits_for_one_two_and_four_ranks() {
    for extra in [
        &["model.dropout=0.2", "accumulate=2"][..],
        &["model.activation=sparse", "model.sparse.rule=running_mean", "model.sparse.density=0.3"],
        &["checkpoint=true", "bucket_mb=0.001", "optimizer.name=vsgd_fd", "optimizer.lr=1"],
    ] {
        let d = tempfile::tempdir().unwrap();
        let config = config(&[GPT, &["micro_shards=4"], extra]);
        alone(&config, &d.path().join("1"));
        let one = fingerprint(&d.path().join("1"), 20);
        for p in [2, 4] {
            let at = d.path().join(p.to_string());
            by(p, &config, &at).into_iter().for_each(|(end, _)| end.unwrap());
            let found = fingerprint(&at, 20);
            assert_eq!(
                String::from_utf8_lossy(&found[2]),
                String::from_utf8_lossy(&one[2]),
                "{extra:?}: metrics by {p}"
            );
            assert!(found == one, "{extra:?}: weights or state by {p} ranks differ");
        }
    }
}

#[test]
fn a_wish_of_one_rank_stops_all_at_one_step_and_fewer_or_more_go_on_to_the_same_bits() {
    let d = tempfile::tempdir().unwrap();
    let (whole, parts) = (d.path().join("whole"), d.path().join("parts"));
    let config = config(&[GPT, &["micro_shards=4", "model.dropout=0.1"]]);
    alone(&config, &whole);
    for (p, stop, saved) in [(4, 5, 6), (2, 9, 10), (4, 12, 13)] {
        for end in leg(p, &config, &parts, Some(stop)) {
            match end {
                Err(Error::Interrupted { signal: 15, saved: Some(path) }) => {
                    assert!(path.ends_with(format!("step-{saved}")), "{path:?}");
                }
                other => panic!("not interrupted: {other:?}"),
            }
        }
    }
    leg(1, &config, &parts, None).into_iter().for_each(|end| end.unwrap());
    assert!(fingerprint(&whole, 20) == fingerprint(&parts, 20));
    for rank in 0..4 {
        let log = std::fs::read_to_string(parts.join(format!("ranks/rank-{rank}.log"))).unwrap();
        assert!(log.starts_with("step 1 ") && log.contains("loss ") && log.contains("waited "), "{log}");
    }
}

#[test]
fn a_run_by_some_is_gone_on_with_by_others() {
    let d = tempfile::tempdir().unwrap();
    let (whole, parts) = (d.path().join("whole"), d.path().join("parts"));
    let config = config(&[GPT]);
    let (one, _) = alone(&config, &whole);
    leg(3, &config, &parts, Some(6)).into_iter().for_each(|end| assert!(end.is_err()));
    leg(2, &config, &parts, None).into_iter().for_each(|end| end.unwrap());
    let lines = metrics::read(&parts).unwrap();
    assert_eq!(lines.len(), 20);
    one.iter().zip(&lines).for_each(|(a, b)| near(a.loss, b.loss, "loss"));
}

#[test]
fn the_timeline_shows_the_first_bucket_on_its_way_before_backward_ends() {
    let d = tempfile::tempdir().unwrap();
    let at = d.path().join("run");
    // Many buckets, and a backward pass of some length.
    let size = ["trace=6", "steps=8", "model.layers=4", "model.dim=64", "bucket_mb=0.1", "batch_size=16"];
    by(2, &config(&[GPT, &size]), &at).into_iter().for_each(|(end, _)| end.unwrap());
    let text = std::fs::read_to_string(at.join("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    let all = trace["traceEvents"].as_array().unwrap();
    // Every bucket says how much it is; together they are as long as the file of weights, for each of six steps and two ranks.
    let bytes = all.iter().filter_map(|e| e["args"]["bytes"].as_u64()).sum::<u64>();
    let file = std::fs::read(at.join("step-8/model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap());
    assert_eq!(bytes, 12 * (file.len() as u64 - header));
    for rank in [0, 1] {
        let of = |name: &str| -> Vec<(f64, f64)> {
            let mine = all.iter().filter(|e| e["pid"] == rank && e["ph"] == "X" && e["name"] == name);
            mine.map(|e| (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap())).collect()
        };
        let (backward, first) = (of("backward"), of("all-reduce bucket 0"));
        assert_eq!((backward.len(), first.len(), of("forward").len(), of("optimizer").len()), (6, 6, 6, 6));
        // Once is enough: on a machine that does something else the other thread may come late.
        let overlaps = backward
            .iter()
            .zip(&first)
            .any(|((from, long), (begins, _))| begins > from && *begins < from + long);
        assert!(overlaps, "{backward:?} {first:?}");
        assert!(of("all-reduce bucket 3").len() == 6, "there are several");
    }
}

#[test]
fn what_ranks_cannot_share_is_refused_by_all() {
    let d = tempfile::tempdir().unwrap();
    let refused = |p: usize, parts: &[&[&str]], words: &[&str]| {
        let at = d.path().join("none");
        for (end, _) in by(p, &config(parts), &at) {
            let e = end.unwrap_err();
            assert_eq!(e.exit_code(), 2, "{e}");
            words.iter().for_each(|w| assert!(e.to_string().contains(w), "{e}"));
        }
        assert!(!at.exists(), "nothing was made");
    };
    refused(4, &[GPT, &["batch_size=3"]], &["batch_size", "4 ranks"]);
    refused(3, &[GPT, &["micro_shards=4"]], &["micro_shards", "3 ranks"]);
    refused(2, &[GPT, &["micro_shards=1"]], &["micro_shards", "2 ranks"]);
    for bad in ["micro_shards=3", "micro_shards=8", "bucket_mb=0"] {
        let all: Vec<String> = GPT.iter().chain([&bad]).map(|s| s.to_string()).collect();
        let e = Config::resolve(None, &all).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(bad.split('=').next().unwrap()), "{e}");
    }
}

#[test]
fn noise_between_ranks_is_measured_for_free() {
    let d = tempfile::tempdir().unwrap();
    let (one, _) = alone(&config(&[MLP]), &d.path().join("1"));
    assert!(one.iter().all(|m| m.noise_scale.is_none()));
    let (end, (seen, _)) = by(3, &config(&[MLP]), &d.path().join("3")).remove(0);
    end.unwrap();
    assert!(seen.iter().any(|m| m.noise_scale.is_some_and(|s| s > 0.0)), "{seen:?}");
    assert!(seen.iter().filter_map(|m| m.gain).all(|g| (1.0..=3.0).contains(&g)));
}

#[test]
fn a_nan_of_one_rank_ends_all_in_the_same_step_with_the_weights_of_the_step_before() {
    let d = tempfile::tempdir().unwrap();
    let path = d.path().join("spoilt.rtd");
    spoilt(&path);
    let data = format!("data.path={}", path.display());
    let mlp = ["model.kind=mlp", "model.layers=1", "model.dim=8", "batch_size=8", "eval_every=0", &data];
    let at = (0..40).find(|&k| Permutation::new(1, 0, 40).index(k) == 17).unwrap();
    let (step, sample) = (at / 8 + 1, at % 8);
    for (p, shards) in [(2, "micro_shards=0"), (3, "micro_shards=0"), (2, "micro_shards=4")] {
        let rank = (0..p).rfind(|r| r * 8 / p <= sample).unwrap();
        let name = format!("{p}-{shards}");
        let clean = format!("steps={}", (step - 1).max(1));
        let before =
            by(p as usize, &config(&[&mlp, &[shards, &clean]]), &d.path().join(name.clone() + "-clean"));
        for (end, (seen, bytes)) in by(p as usize, &config(&[&mlp, &[shards]]), &d.path().join(name)) {
            let e = end.unwrap_err();
            assert_eq!(e.exit_code(), 6, "{e}");
            let text = e.to_string();
            assert!(text.contains(&format!("step {step}: rank {rank}: the loss is NaN")), "{text}");
            assert_eq!(seen.len() as u64, step - 1);
            assert!(step == 1 || bytes == before[0].1.1, "weights are those of the step before");
        }
    }
}

const TINY: &[&str] = &["eval_every=0", "eval_batches=1", "model.dim=8", "model.layers=1", "batch_size=5"];

#[test]
fn rings_between_devices_give_the_losses_of_one_rank_and_the_bits_of_the_hosts_ring() {
    let d = tempfile::tempdir().unwrap();
    // Buckets small enough that there are several, and none goes by the host's tree.
    let all = config(&[MLP, TINY, &["bucket_mb=0.0005", "crossover=1", "accumulate=2"]]);
    let (one, _) = alone(&Config { device: "soft:0".into(), ..all.clone() }, &d.path().join("1"));
    for p in [2, 3] {
        let by_host = on_devices(p, false, &all, &d.path().join(format!("{p}-host")));
        for (end, (seen, bytes)) in on_devices(p, true, &all, &d.path().join(p.to_string())) {
            end.unwrap();
            assert_eq!(seen.len(), 20);
            one.iter().zip(&seen).for_each(|(a, b)| near(a.loss, b.loss, "loss"));
            assert!(bytes == by_host[0].1.1, "{p} devices");
        }
    }
}

#[test]
fn micro_shards_on_devices_give_the_bits_of_one_rank_on_a_device() {
    let d = tempfile::tempdir().unwrap();
    let all = config(&[MLP, TINY, &["micro_shards=4", "steps=5"]]);
    let one = on_devices(1, true, &all, &d.path().join("1")).remove(0).1;
    for (end, (_, bytes)) in on_devices(2, true, &all, &d.path().join("2")) {
        end.unwrap();
        assert!(bytes == one.1);
    }
}

#[test]
fn a_nan_on_one_device_ends_all_and_names_rank_and_step() {
    let d = tempfile::tempdir().unwrap();
    // Its square is more than f32 holds, so the second loss is infinite on the rank whose share is larger or on both.
    let all = config(&[MLP, TINY, &["optimizer.lr=1e30", "schedule.warmup_steps=0", "clip=0"]]);
    for (end, _) in on_devices(2, true, &all, &d.path().join("2")) {
        let e = end.unwrap_err();
        assert_eq!(e.exit_code(), 6, "{e}");
        assert!(e.to_string().contains("rank ") && e.to_string().contains("step "), "{e}");
    }
}
