//! Training on the software CUDA device: everything on the device, the losses of the CPU, and only they come back.

use ringtape::device::soft;
use ringtape::train::{Config, Metrics, Observer, Run, Stop, Trained, metrics};
use std::path::Path;

fn config(device: &str, steps: u32, extra: &[&str]) -> Config {
    let base = [
        "batch_size=4",
        "model.layers=2",
        "model.dim=32",
        "model.heads=2",
        "model.context=32",
        "optimizer.lr=0.01",
        "schedule.warmup_steps=2",
        "eval_every=0",
        "eval_batches=2",
        "snapshot_every=0",
        "log_every=1",
        "tensorboard=false",
    ];
    let own = [format!("device={device}"), format!("steps={steps}")];
    let all: Vec<String> = base.iter().chain(extra).map(|s| s.to_string()).chain(own).collect();
    Config::resolve(None, &all).unwrap()
}

/// Bytes that had come back from soft:4 and soft:6 when each step was reported.
#[derive(Default)]
struct Traffic(Vec<[u64; 2]>);

impl Observer for Traffic {
    fn on_step(&mut self, _: &Metrics) {
        self.0.push([4, 6].map(|device| soft::machine().bytes_to_host(device)));
    }
}

impl Traffic {
    /// Bytes of each step after the first.
    fn steps(&self, which: usize) -> Vec<u64> {
        self.0.windows(2).map(|w| w[1][which] - w[0][which]).collect()
    }
}

fn losses(at: &Path) -> Vec<f64> {
    metrics::read(at).unwrap().iter().map(|m| m.loss).collect()
}

fn train(config: Config, at: &Path) -> Traffic {
    let mut traffic = Traffic::default();
    Run::create(config, at).unwrap().train(&Stop::never(), &mut traffic).unwrap();
    traffic
}

/// Trains on the CPU and on `device`; gives the losses there, which differ by at most a share `by` from those here.
fn as_here(device: &str, steps: u32, extra: &[&str], by: f64) -> Vec<f64> {
    let [here, there] = ["cpu", device].map(|device| {
        let at = tempfile::tempdir().unwrap();
        train(config(device, steps, extra), at.path());
        losses(at.path())
    });
    assert_eq!((here.len(), there.len()), (steps as usize, steps as usize));
    for (step, (a, b)) in here.iter().zip(&there).enumerate() {
        assert!((a - b).abs() <= by * a, "step {}: {a} on the CPU, {b} on {device}", step + 1);
    }
    there
}

/// The same code on a GPU, or with RUNTIME_CUDA=soft on the software device behind `cust`.
#[cfg(feature = "cuda")]
#[test]
fn small_gpts_learn_through_cust_too() {
    as_here("cuda:0", 10, &[], 1e-4);
    as_here("cuda:0", 12, &IDEAS, 1e-3);
}

#[test]
fn a_small_gpt_learns_on_the_device_what_it_learns_on_the_cpu() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let extra = ["model.dropout=0.1", "clip=0.5"];
    train(config("cpu", 20, &extra), here.path());
    let traffic = train(config("soft:4", 20, &extra), there.path());
    let (a, b) = (losses(here.path()), losses(there.path()));
    assert_eq!((a.len(), b.len()), (20, 20));
    for (step, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= 1e-4 * a, "step {}: {a} on the CPU, {b} on the device", step + 1);
    }
    assert!(b[19] <= 0.9 * b[0], "{b:?}");
    // Of each step its loss and the norm of its gradient, 4 bytes each.
    assert_eq!(traffic.steps(0)[..18], [8; 18]); // the last report follows an evaluation
    // What was trained there is used here.
    let trained = Trained::load(there.path(), Some("cpu")).unwrap();
    let on_cpu = trained.evaluate().unwrap();
    let on_device = Trained::load(there.path(), Some("soft:1")).unwrap().evaluate().unwrap();
    assert!((on_cpu.loss - on_device.loss).abs() <= 1e-5 * on_cpu.loss);
    assert_eq!(on_cpu.targets, on_device.targets);
}

/// A window of learned size, one of learned place and blocks by hashing; an MLP that skips. Votes and thresholds decide, so a
/// last bit more or less may show, rarely.
const IDEAS: [&str; 17] = [
    "model.attention=dynamic",
    "model.router=lsh",
    "model.shift=1",
    "model.qk_norm=true",
    "model.dynamic.dense=never",
    "model.dynamic.window=8",
    "model.dynamic.ramp=2",
    "model.dynamic.place=lag",
    "model.dynamic.form=gaussian",
    "model.dynamic.width=4",
    "model.dynamic.block=16",
    "model.dynamic.blocks=2",
    "model.dynamic.rounds=2",
    "model.dynamic.buckets=4",
    "model.activation=sparse",
    "model.sparse.density=0.2",
    "model.context=96",
];

#[test]
fn dynamic_attention_and_sparse_activations_learn_there_too() {
    let losses = as_here("soft:3", 12, &IDEAS, 1e-3);
    assert!(losses[11] <= 0.95 * losses[0], "{losses:?}");
}

#[test]
fn a_controller_decides_there_as_here_and_brings_back_one_number_more() {
    let extra = ["controller.name=gvc", "controller.window=20", "clip=0.5", "model.layers=1", "model.dim=16"];
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(config("cpu", 45, &extra), here.path());
    let traffic = train(config("soft:6", 45, &extra), there.path());
    assert_eq!(traffic.steps(1)[..43], [12; 43]);
    let decided = |at: &Path| -> Vec<_> {
        let lines = metrics::read(at).unwrap();
        lines.iter().filter_map(|m| Some((m.step, m.controller?))).collect()
    };
    let (a, b) = (decided(here.path()), decided(there.path()));
    // Two steps of warm-up, then two windows.
    assert_eq!(a.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [22, 42]);
    for ((s, a), (t, b)) in a.iter().zip(&b) {
        assert!(
            s == t && a.cut == b.cut && a.scale == b.scale && (a.z - b.z).abs() < 0.1,
            "{a:?}, there {b:?}"
        );
    }
    let report = std::fs::read_to_string(there.path().join("report.html")).unwrap();
    assert!(report.contains("What the controller decided"));
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    let (whole, halves) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(config("soft:2", 6, &["snapshot_every=3", "schedule.name=constant"]), whole.path());
    train(config("soft:2", 3, &["snapshot_every=3", "schedule.name=constant"]), halves.path());
    let mut run = Run::resume(halves.path(), |c| {
        c.steps = 6;
        Ok(())
    })
    .unwrap();
    run.train(&Stop::never(), &mut Traffic::default()).unwrap();
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let [a, b] = [&whole, &halves].map(|d| std::fs::read(d.path().join("step-6").join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
}

#[test]
fn images_train_on_the_device_too() {
    let runs = ["cpu", "soft:3"].map(|device| {
        let at = tempfile::tempdir().unwrap();
        let extra =
            ["data.path=digits", "model.kind=cnn", "model.layers=1", "model.dim=8", "batch_size=8", "clip=0"];
        train(config(device, 5, &extra), at.path());
        losses(at.path())
    });
    for (a, b) in runs[0].iter().zip(&runs[1]) {
        assert!((a - b).abs() <= 1e-4 * a.abs(), "{runs:?}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let weights: Vec<Vec<u8>> = [1, 2, 5]
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let at = tempfile::tempdir().unwrap();
            pool.install(|| {
                train(
                    config(
                        "soft:5",
                        3,
                        &["snapshot_every=3", "model.dropout=0.1", "model.layers=1", "model.dim=16"],
                    ),
                    at.path(),
                )
            });
            std::fs::read(at.path().join("step-3/model.safetensors")).unwrap()
        })
        .into();
    assert!(
        weights[0] == weights[1] && weights[0] == weights[2],
        "weights differ with the number of threads"
    );
}
