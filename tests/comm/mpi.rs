//! Ranks that mpirun starts and that send by MPI (feature `mpi`).

use super::processes::{BODY, SECRET, port};
use ringtape::train::metrics;
use std::path::Path;
use std::process::{Command, Output};

/// `world` ranks of this program that do `body`.
fn mpirun(body: &str, way: &str, world: usize) -> Output {
    let mut command = started(way, world);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", "processes::rank", "--nocapture"]);
    command.env(BODY, body).output().expect(MPI)
}

const MPI: &str = "mpirun is installed with an MPI";

/// mpirun, which will start `world` ranks that send by `way`.
fn started(way: &str, world: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &world.to_string()]);
    command.env("RINGTAPE_SECRET", SECRET).env("RINGTAPE_TRANSPORT", way);
    command.env("MASTER_PORT", port().to_string()).env("RINGTAPE_TIMEOUT", "30");
    command
}

#[test]
fn collectives_by_messages_of_mpi() {
    for world in [1, 2, 3] {
        let out = mpirun("everything", "mpi", world);
        assert!(out.status.success(), "{world}: {out:?}");
    }
}

#[test]
fn sums_by_mpi_itself_are_right_to_rounding() {
    let out = mpirun("sums", "mpi-sums", 3);
    assert!(out.status.success(), "{out:?}");
}

/// Whoever does something else ends the job, with both calls named.
#[test]
fn ranks_that_disagree_end_the_job() {
    let out = mpirun("differ", "mpi", 3);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(17) && text.contains("4000") && text.contains("3000"), "{out:?}");
}

/// 20 steps on uneven shares of a batch, into `out`.
fn train(mut command: Command, out: &Path) {
    let settings = "data.path=digits model.kind=mlp model.layers=1 model.dim=16 batch_size=7 optimizer.lr=0.003 eval_every=0 \
                    eval_batches=1 log_every=1 tensorboard=false steps=20 crossover=2048 bucket_mb=0.001";
    command.args(["train", "-q", "--out"]).arg(out);
    for s in settings.split_whitespace() {
        command.args(["--set", s]);
    }
    let ran = command.env("RAYON_NUM_THREADS", "1").output().expect(MPI);
    assert!(ran.status.success(), "{ran:?}");
}

#[test]
fn training_by_mpi_gives_the_losses_of_one_rank() {
    let d = tempfile::tempdir().unwrap();
    let losses = |name: &str| -> Vec<f64> {
        metrics::read(&d.path().join(name)).unwrap().iter().map(|m| m.loss).collect()
    };
    let program = env!("CARGO_BIN_EXE_ringtape");
    train(Command::new(program), &d.path().join("one"));
    let one = losses("one");
    assert!(one.len() == 20 && one[0] != one[19]);
    for (way, world) in [("mpi", 2), ("mpi", 3), ("mpi-sums", 3)] {
        let name = format!("{way}-{world}");
        let mut command = started(way, world);
        command.arg(program);
        train(command, &d.path().join(&name));
        for (a, b) in one.iter().zip(losses(&name)) {
            assert!((a - b).abs() <= 1e-5 * a.abs(), "{name}: {a} and {b}");
        }
    }
    // The ring by MPI's messages has the bits of any other way.
    let mut launched = Command::new(program);
    launched.args(["launch", "-n", "3", "--"]);
    let weights = |name: &str| std::fs::read(d.path().join(name).join("step-20/model.safetensors")).unwrap();
    train(launched, &d.path().join("launched"));
    assert!(weights("launched") == weights("mpi-3"));
}
