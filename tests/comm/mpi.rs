//! Ranks that mpirun starts and that send by MPI (feature `mpi`).

use super::processes::{BODY, SECRET, port};
use std::process::{Command, Output};

/// `world` ranks of this program that do `body`.
fn mpirun(body: &str, way: &str, world: usize) -> Output {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &world.to_string()]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", "processes::rank", "--nocapture"]);
    command.env(BODY, body).env("RINGTAPE_SECRET", SECRET).env("RINGTAPE_TRANSPORT", way);
    command.env("MASTER_PORT", port().to_string()).env("RINGTAPE_TIMEOUT", "30");
    command.output().expect("mpirun is installed with an MPI")
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
