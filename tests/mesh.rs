//! Ranks that share one model: what one rank computes, they compute, and a run folder knows nothing of their layout.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod rank_support;

use rank_support::{GPT, alone, by, config, leg, near, on_devices, same_numbers};
use ringtape::train::{Config, Run, metrics};

#[test]
fn ranks_that_share_layers_give_the_losses_of_one() {
    // 4 heads, and a number of symbols that no number of ranks divides.
    let heads = ["model.heads=4", "model.layers=2"];
    same_numbers(2, &["mesh.tensor=2"], &[GPT, &heads]);
    same_numbers(4, &["mesh.tensor=4"], &[GPT, &heads]);
    same_numbers(4, &["mesh.tensor=2", "mesh.data=2"], &[GPT, &heads]);
}

#[test]
fn so_do_tied_symbols_recomputed_blocks_earlier_tokens_and_turned_positions() {
    let more =
        ["model.tied=true", "checkpoint=true", "accumulate=2", "model.shift=1", "model.positions=rotary"];
    same_numbers(2, &["mesh.tensor=2"], &[GPT, &more]);
    same_numbers(
        2,
        &["mesh.tensor=2"],
        &[GPT, &["model.norm=rms", "model.activation=silu", "model.dropout=0.1"]],
    );
}

#[test]
fn targets_that_do_not_count_have_no_weight_among_ranks_that_share_symbols() {
    let recall = [
        "data.path=recall",
        "model.layers=1",
        "model.dim=16",
        "model.heads=2",
        "model.context=256",
        "batch_size=5",
    ];
    same_numbers(4, &["mesh.tensor=2"], &[&recall, &["eval_batches=1"]]);
}

#[test]
fn ranks_that_share_sequences_give_the_losses_of_one() {
    same_numbers(2, &["mesh.context=2"], &[GPT, &["model.layers=2", "checkpoint=true"]]);
    same_numbers(
        4,
        &["mesh.context=4"],
        &[GPT, &["model.positions=rotary", "model.qk_norm=true", "accumulate=2"]],
    );
    same_numbers(
        4,
        &["mesh.context=2", "mesh.data=2"],
        &[GPT, &["model.activation=sparse", "model.sparse.density=0.3"]],
    );
    same_numbers(4, &["mesh.context=2", "mesh.tensor=2"], &[GPT]);
    same_numbers(
        2,
        &["mesh.context=2"],
        &[GPT, &["controller.name=gvc", "controller.window=20", "optimizer.name=muon"]],
    );
    // Its state is not by weight.
    same_numbers(2, &["mesh.context=2"], &[GPT, &["optimizer.name=adafactor", "optimizer.lr=0.01"]]);
}

#[test]
fn ranks_on_devices_share_layers_by_rings_between_them() {
    let d = tempfile::tempdir().unwrap();
    let tiny: &[&str] =
        &["eval_every=0", "eval_batches=1", "model.dim=8", "steps=6", "batch_size=4", "bucket_mb=0.0005"];
    let (one, _) = alone(&Config { device: "soft:0".into(), ..config(&[GPT, tiny]) }, &d.path().join("1"));
    for (p, mesh) in [(2, "mesh.tensor=2"), (4, "mesh.tensor=2"), (2, "mesh.context=2")] {
        // Without rings the host sums: other orders, the same losses.
        for ring in [true, false] {
            let at = d.path().join(format!("{p}-{mesh}-{ring}"));
            let ends = on_devices(p, ring, &config(&[GPT, tiny, &[mesh]]), &at);
            for (end, (seen, bytes)) in &ends {
                end.as_ref().unwrap();
                assert_eq!(seen.len(), 6);
                one.iter().zip(seen).for_each(|(a, b)| near(a.loss, b.loss, &format!("{p} by {mesh}: loss")));
                assert!(*bytes == ends[0].1.1);
            }
        }
    }
}

#[test]
fn a_run_goes_on_in_any_layout() {
    let d = tempfile::tempdir().unwrap();
    let (whole, parts) = (d.path().join("whole"), d.path().join("parts"));
    for optimizer in ["adamw", "schedule_free_adamw"] {
        let (whole, parts) = (whole.with_extension(optimizer), parts.with_extension(optimizer));
        let base = config(&[GPT, &[&format!("optimizer.name={optimizer}")]]);
        let (one, _) = alone(&base, &whole);
        let tensor = Config { mesh: config(&[&["mesh.tensor=2"]]).mesh, ..base.clone() };
        leg(4, &tensor, &parts, Some(6)).into_iter().for_each(|end| assert!(end.is_err()));
        leg(2, &tensor, &parts, Some(12)).into_iter().for_each(|end| assert!(end.is_err()));
        let change = |c: &mut Config| {
            c.mesh = base.mesh.clone();
            Ok(())
        };
        let mut last = Run::resume(&parts, change).unwrap();
        last.train(&ringtape::train::Stop::never(), &mut ringtape::train::Silent).unwrap();
        let lines = metrics::read(&parts).unwrap();
        assert_eq!(lines.len(), 20);
        one.iter().zip(&lines).for_each(|(a, b)| near(a.loss, b.loss, "loss"));
    }
}

#[test]
fn what_is_no_grid_is_refused_by_key_with_the_remedy() {
    let d = tempfile::tempdir().unwrap();
    let at = d.path().join("none");
    let refused = |p: usize, mesh: &[&str], words: &[&str]| {
        for (end, _) in by(p, &config(&[GPT, mesh]), &at) {
            let e = end.unwrap_err();
            assert_eq!(e.exit_code(), 2, "{e}");
            words.iter().for_each(|w| assert!(e.to_string().contains(w), "{w}: {e}"));
        }
        assert!(!at.exists(), "nothing was made");
    };
    refused(3, &["mesh.tensor=2"], &["mesh.tensor", "3 ranks", "start 2"]);
    refused(4, &["mesh.tensor=2", "mesh.data=3"], &["mesh.data", "= 6", "4 ranks", "start 6"]);
    refused(1, &["mesh.tensor=2"], &["mesh.tensor", "1 ranks"]);
    for (settings, key) in [
        (&["mesh.tensor=4"][..], "model.heads"),
        (&["mesh.context=3"], "model.context"),
        (&["mesh.context=2", "model.shift=1"], "model.shift"),
        (&["mesh.context=0"], "mesh.context"),
        (&["mesh.tensor=0"], "mesh.tensor"),
        (&["mesh.tensor=2", "optimizer.name=muon"], "optimizer.name"),
        (&["mesh.tensor=2", "model.activation=sparse"], "model.activation"),
        (&["mesh.tensor=2", "micro_shards=4"], "micro_shards"),
        (&["mesh.tensor=2", "data.path=digits", "model.kind=mlp"], "model.kind"),
    ] {
        let all: Vec<String> = GPT.iter().chain(settings).map(|s| s.to_string()).collect();
        let e = Config::resolve(None, &all).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(key), "{e}");
    }
}

#[test]
fn other_stages_are_cut_anew_unless_somebody_says_how() {
    let d = tempfile::tempdir().unwrap();
    let base = config(&[GPT, &["model.layers=2", "accumulate=2", "mesh.pipeline=2", "mesh.stages=1,1"]]);
    leg(2, &base, &d.path().join("run"), Some(6)).into_iter().for_each(|end| assert!(end.is_err()));
    let change = |c: &mut Config| {
        *c = c.with(&["mesh.pipeline=1".into()])?;
        Ok(())
    };
    let run = Run::resume(&d.path().join("run"), change).unwrap();
    assert_eq!((run.step(), run.config().mesh.stages.as_str()), (7, "auto"));
}
