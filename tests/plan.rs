//! The planner against closed forms, numbers worked out by hand, and steps that were measured.

use ringtape::device::Device;
use ringtape::nn::{Io, ModelConfig, Norm, Positions};
use ringtape::plan::{Cluster, Cost, Group, Job, Layout, Link, Model, Risk, Width, cost, search};
use ringtape::train::{Config, Task, build};
use std::process::{Command, Output};

fn model(layers: usize, dim: usize, heads: usize, context: usize, vocabulary: usize) -> Model {
    Model::of(&ModelConfig { layers, dim, heads, context, ..ModelConfig::default() }, vocabulary).unwrap()
}

fn job(batch: usize) -> Job {
    Job { batch, tokens: 1e12, bucket: 25e6, codec_ratio: 1.0, local_steps: 1, late: false }
}

fn named(name: &str, devices: usize) -> Cluster {
    Cluster { devices, ..Cluster::named(name).unwrap().unwrap() }
}

fn layout(text: &str) -> Layout {
    text.parse().unwrap()
}

/// Models count as many parameters as they have.
#[test]
fn parameters_are_those_of_the_model() {
    let device = Device::cpu();
    let base = Config::default();
    let changed = [
        base.model.clone(),
        ModelConfig {
            tied: true,
            norm: Norm::Rms,
            positions: Positions::Rotary,
            layers: 3,
            ..base.model.clone()
        },
        ModelConfig { dim: 48, heads: 6, context: 32, positions: Positions::None, ..base.model.clone() },
    ];
    for model in changed {
        let config = Config { model, ..base.clone() };
        let task = Task::open(&config).unwrap();
        let Io::Tokens { vocabulary } = task.io() else { panic!("a text") };
        let counted = Model::of(&config.model, *vocabulary).unwrap().parameters();
        let (_, params) = build(&config, &task, &device).unwrap();
        assert_eq!(params.trained_len() as f64, counted, "{:?}", config.model);
    }
}

/// Two layers of width 4 on two nodes of two devices, on paper.
#[test]
fn a_step_worked_out_by_hand() {
    let cluster = Cluster {
        name: "paper".into(),
        devices: 4,
        devices_per_node: 2,
        flops: 1e9,
        utilisation: 0.5,
        memory: 1e9,
        precision: Width::F32,
        update: 1e-9,
        gamma: 0.0,
        within: Link { alpha: 1e-6, beta: 1e-9 },
        between: Link { alpha: 1e-5, beta: 1e-8 },
        failures: None,
    };
    // Parameters: blocks of 12·16 + 9·4 + 4·4 = 244, embeddings (10 + 8)·4 = 72, norm and head 8 + 40 = 48.
    let model = model(2, 4, 2, 8, 10);
    assert_eq!(model.parameters(), 608.0);
    // Forward, a token: 24·16 + 2·8·4 = 448 a block, 2·10·4 = 80 at the end.
    assert_eq!(model.training(), 2928.0);
    let c = cost(&cluster, &model, &job(4), layout("dp=2,tp=2")).unwrap();
    let close =
        |seen: f64, told: f64| assert!((seen / told - 1.0).abs() < 1e-12, "{seen}, not {told}: {c:?}");
    // Two micro-batches of 8 tokens · 2,928 / 2 devices / 5e8.
    close(c.compute, 2.0 * 8.0 * 2928.0 / 2.0 / 5e8);
    // 128 bytes of the stream ten times a micro-batch: 2 a block each way, 1 behind the embeddings, 1 before the head. By the tree.
    close(c.tensor, 2.0 * 10.0 * (1e-6 + 128e-9));
    // 304 parameters on a device, as one bucket between two nodes.
    close(c.data, 1e-5 + 1216.0 * 1e-8);
    close(c.update, 304e-9);
    assert!(c.bubble.abs() < 1e-15);
    close(c.step, 46.848e-6 + 22.56e-6 + 22.16e-6 + 0.304e-6);
    // 16 bytes a parameter, 16·128 bytes for each of two blocks and f32 logits with their gradients, halved by tp.
    close(c.memory, 304.0 * 16.0 + 2.0 * 1024.0 + 8.0 * 8.0 * 10.0 / 2.0);
    close(c.efficiency, 2928.0 * 32.0 / 4.0 / 5e8 / c.step);
    // ZeRO: gradients half a ring, weights the other half, and a half of the 8 bytes of state.
    let zero = cost(&cluster, &model, &job(4), layout("dp=2,tp=2,zero")).unwrap();
    close(zero.data, 2.0 * (1e-5 + 608.0 * 1e-8));
    close(zero.update, 152e-9);
    close(c.memory - zero.memory, 304.0 * 8.0 / 2.0);
}

/// Equal stages without transfers have the bubble of the closed form; 1F1B holds p − r micro-batches.
#[test]
fn the_bubble_of_a_plan() {
    let mut cluster = named("small", 4);
    (cluster.within, cluster.update) = (Link { alpha: 0.0, beta: 0.0 }, 0.0);
    let mut model = model(16, 64, 4, 128, 2);
    (model.first, model.last, model.vocabulary) = (0.0, 0.0, 0);
    let c = cost(&cluster, &model, &job(8), layout("pp=4")).unwrap();
    assert!((c.bubble / c.step - 3.0 / 11.0).abs() < 1e-9, "{c:?}");
    // Four live micro-batches of four blocks of 16 numbers of 2 bytes for 64 · 128.
    let weights = 16.0 * 4.0 * model.block;
    assert!((c.memory - weights - 4.0 * 4.0 * 16.0 * 2.0 * 64.0 * 128.0).abs() < 1e-6);
    let again = cost(&cluster, &model, &job(8), layout("pp=4,recompute")).unwrap();
    assert!(again.memory < c.memory && (again.compute / c.compute - 4.0 / 3.0).abs() < 1e-9);
}

/// The steps of `benches/slow_link.py`, as the chapter "Many that compute as one" has them: four ranks, the default GPT, buckets of 1 MiB.
/// Nothing is known to the plan but what the link that is not shaped gives: a step of 102 ms, all-reduces of 1 MiB in 3.7 and of
/// 64 MiB in 133 ms.
#[test]
fn measured_steps_over_slow_links_are_foretold() {
    const MEASURED: [(f64, f64); 6] =
        [(1000.0, 124.0), (400.0, 158.0), (200.0, 263.0), (100.0, 468.0), (50.0, 889.0), (25.0, 1725.0)];
    let (step, short, long) = (0.102, 3.7e-3, 133e-3);
    let mib = f64::from(1 << 20);
    // 6α + 1.5·Nβ of four ranks.
    let beta = (long - short) / (1.5 * 63.0 * mib);
    let link = Link { alpha: (short - 1.5 * mib * beta) / 6.0, beta };
    let config = Config::default();
    let Io::Tokens { vocabulary } = *Task::open(&config).unwrap().io() else { panic!("a text") };
    let model = Model::of(&config.model, vocabulary).unwrap();
    let job = Job { bucket: mib, ..job(config.batch_size) };
    let operations = model.training() * (config.batch_size * config.model.context) as f64 / 4.0;
    let of = |between: Link, flops: f64| {
        let base = named("small", 4);
        let base =
            Cluster { devices_per_node: 1, utilisation: 1.0, precision: Width::F32, update: 0.0, ..base };
        cost(&Cluster { between, flops, ..base }, &model, &job, layout("dp=4,micro=8")).unwrap()
    };
    // What the free step is without its sums.
    let sums = of(link, operations / step).data;
    let flops = operations / (step - sums);
    assert!((of(link, flops).step / step - 1.0).abs() < 0.01);
    for (mbit, measured) in MEASURED {
        // Of 1,514 bytes on the wire 1,448 are payload.
        let beta = 8.0 * 1514.0 / 1448.0 / (mbit * 1e6);
        let told = 1e3 * of(Link { beta, ..link }, flops).step;
        println!(
            "{mbit} Mbit/s: {told:.0} ms foretold, {measured} measured: {:+.1} %",
            100.0 * (told / measured - 1.0)
        );
        assert!((told / measured - 1.0).abs() < 0.15, "{mbit} Mbit/s: {told} ms, {measured} measured");
    }
}

/// Whatever becomes slower, or fails more often, makes no plan better.
#[test]
fn worse_clusters_never_have_better_plans() {
    let model = model(12, 768, 12, 1024, 50257);
    let base = named("small", 64);
    let risk = base.failures.unwrap();
    let worse: [(&str, Cluster); 9] = [
        ("within.alpha", Cluster { within: Link { alpha: 1e-4, ..base.within }, ..base.clone() }),
        ("within.beta", Cluster { within: Link { beta: 1e-9, ..base.within }, ..base.clone() }),
        ("between.alpha", Cluster { between: Link { alpha: 1e-3, ..base.between }, ..base.clone() }),
        ("between.beta", Cluster { between: Link { beta: 1e-8, ..base.between }, ..base.clone() }),
        ("gamma", Cluster { gamma: 1e-9, ..base.clone() }),
        ("flops", Cluster { flops: base.flops / 2.0, ..base.clone() }),
        ("mtbf", Cluster { failures: Some(Risk { mtbf: 1e6, ..risk }), ..base.clone() }),
        ("restart", Cluster { failures: Some(Risk { restart: 1e4, ..risk }), ..base.clone() }),
        ("snapshots", Cluster { failures: Some(Risk { snapshot_bandwidth: 1e8, ..risk }), ..base.clone() }),
    ];
    let layouts = [
        "dp=64,micro=2",
        "dp=8,tp=4,pp=2,zero",
        "dp=4,tp=2,pp=4,cp=2,recompute",
        "dp=16,pp=4,zero",
        "tp=4,cp=16",
    ];
    let mut changed = 0;
    for text in layouts {
        for job in [job(512), Job { late: true, ..job(512) }, Job { local_steps: 20, ..job(512) }] {
            let best = cost(&base, &model, &job, layout(text)).unwrap();
            for (what, cluster) in &worse {
                let c = cost(cluster, &model, &job, layout(text)).unwrap();
                assert!(c.run >= best.run, "{what}, {text}: {} s, {} s", c.run, best.run);
                changed += usize::from(c.run > best.run);
            }
        }
    }
    assert!(changed > 100, "{changed}");
    for (what, cluster) in &worse {
        let run = |c: &Cluster| search(c, &model, &job(512), 1).unwrap().best[0].run;
        assert!(run(cluster) >= run(&base), "{what}");
    }
}

/// What sends less takes less: a codec by its ratio, local steps by their number, late sums behind everything.
#[test]
fn sending_less_and_less_often() {
    let (cluster, model) = (named("small", 64), model(12, 768, 12, 1024, 50257));
    let slow = Cluster {
        between: Link { alpha: 0.0, beta: 1e-8 },
        within: Link { alpha: 0.0, beta: 0.0 },
        ..cluster
    };
    let of = |job: &Job| cost(&slow, &model, job, layout("dp=64")).unwrap();
    let one = Job { bucket: 1e12, ..job(64) };
    let whole = of(&one).data;
    let group = Group::new(64, 8).all_reduce(&slow, 2.0 * model.parameters());
    assert!((whole / group - 1.0).abs() < 1e-12);
    assert!((of(&Job { codec_ratio: 4.0, ..one }).data / whole - 0.25).abs() < 1e-12);
    assert!((of(&Job { local_steps: 50, ..one }).data / whole - 0.02).abs() < 1e-12);
    let late = of(&Job { late: true, ..one });
    assert!((late.step / whole - 1.0).abs() < 1e-12, "the link is all that counts: {late:?}");
}

/// A hundred thousand devices: few layouts must be played.
#[test]
fn a_hundred_thousand_devices() {
    let model = model(126, 16384, 128, 8192, 128_256);
    let found = search(&named("large", 100_000), &model, &job(8192), 10).unwrap();
    let best: &Cost = &found.best[0];
    assert!(best.layout.devices() == 100_000 && best.efficiency > 0.2 && best.efficiency < 1.0, "{best:?}");
    assert!(found.best.is_sorted_by(|a, b| a.step <= b.step) && found.best.len() == 10);
    assert!(found.played < 400, "{} of {} layouts were played", found.played, found.fit);
    // Parts of a step are all of it.
    for c in &found.best {
        let parts = c.compute + c.tensor + c.bubble + c.data + c.update;
        assert!((parts / c.step - 1.0).abs() < 1e-9, "{c:?}");
        assert!(c.memory <= 72e9);
    }
}

fn plan(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringtape")).arg("plan").args(args).output().unwrap()
}

#[test]
fn the_verb_shows_a_plan() {
    let small = ["--cluster", "small", "--batch", "256"];
    let out = plan(&[&small[..], &["--json"]].concat());
    assert!(out.status.success(), "{out:?}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["plan"]["best"].as_array().unwrap().len(), 10);
    let layout = "dp=64,tp=1,pp=1,cp=1,micro=4";
    let out = plan(&[&small[..], &["--layout", layout]].concat());
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains(layout) && text.contains("Assumed:") && text.contains("one failure in"), "{text}");
    // A description is read back, its comments and all.
    let folder = tempfile::tempdir().unwrap();
    let (file, chart) = (folder.path().join("mine.toml"), folder.path().join("plan.svg"));
    std::fs::write(&file, plan(&["--cluster", "small", "--describe"]).stdout).unwrap();
    let mine = ["--cluster", file.to_str().unwrap(), "--batch", "256", "--out", chart.to_str().unwrap()];
    let out = plan(&mine);
    assert!(
        out.status.success() && String::from_utf8_lossy(&out.stdout).starts_with("small: 64 devices"),
        "{out:?}"
    );
    assert!(std::fs::read_to_string(chart).unwrap().contains("where nothing fails"));
}

#[test]
fn this_machine_is_measured() {
    let out = plan(&["--set", "model.layers=1", "--set", "model.dim=32", "--batch", "4", "--devices", "8"]);
    assert!(out.status.success(), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("here: 8 devices, 2 a node"), "{out:?}");
}

#[test]
fn what_cannot_be_is_named_with_its_remedy() {
    let small = |more: &[&str]| plan(&[&["--cluster", "small", "--batch", "256"], more].concat());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    std::fs::write(&file, "devices = 4\nspeed = 3\n").unwrap();
    let cases = [
        (small(&["--layout", "dp=3"]), vec!["dp·tp·pp·cp is 3, but there are 64 devices", "dp=64"]),
        (small(&["--layout", "dp=8,tp=8"]), vec!["tp = 8 does not divide model.heads = 4"]),
        (small(&["--layout", "dp=8,pp=8"]), vec!["pp = 8 stages are more than model.layers = 4"]),
        (
            small(&["--layout", "dp=2,cp=32", "--set", "model.context=100"]),
            vec!["cp = 32", "model.context = 100"],
        ),
        (small(&["--layout", "dp=64,micro=5"]), vec!["micro = 5", "share of 4"]),
        (small(&["--layout", "dp=64", "--batch", "32"]), vec!["cannot be used multiple times"]),
        (small(&["--layout", "dq=64"]), vec!["dq=64 is unknown", "dp=8,tp=4"]),
        (small(&["--codec-ratio", "0.5"]), vec!["--codec-ratio 0.5"]),
        (small(&["--local-steps", "0"]), vec!["--local-steps 0"]),
        (small(&["--tokens", "nan"]), vec!["--tokens NaN"]),
        (small(&["--set", "model.attention=window"]), vec!["model.attention", "dense"]),
        (small(&["--devices", "0"]), vec!["devices"]),
        (plan(&["--cluster", "moon"]), vec!["--cluster moon", "small, large"]),
        (plan(&["--cluster", file.to_str().unwrap()]), vec!["x.toml", "speed"]),
        (plan(&["--ranks", "1"]), vec!["--ranks"]),
    ];
    for (out, said) in cases {
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{err}");
        assert!(said.iter().all(|s| err.contains(s)), "{said:?} in {err}");
    }
}

/// Of each command of the chapter that a text follows: what it prints is that text.
#[test]
fn plans_of_the_book_are_what_the_program_prints() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/book/src/plan.md")).unwrap();
    let blocks: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    let mut compared = 0;
    for pair in blocks.windows(2) {
        let [Some(line), Some(shown)] = [pair[0].strip_prefix("sh\n"), pair[1].strip_prefix("text\n")] else {
            continue;
        };
        let Some(words) = line.trim().strip_prefix("ringtape ") else { continue };
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_ringtape"))
            .args(words.split_whitespace())
            .output()
            .unwrap();
        let lines = |text: &str| -> Vec<String> {
            text.lines().map(|l| l.trim().to_string()).filter(|l| !l.is_empty()).collect()
        };
        let (printed, shown) = (lines(&String::from_utf8_lossy(&out.stdout)), lines(shown));
        // What it assumes comes after.
        assert_eq!(printed[..shown.len().min(printed.len())], shown, "{words}");
        compared += 1;
    }
    assert_eq!(compared, 3);
}
