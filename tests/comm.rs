//! Ranks: what every transport must do, on each of them, and what each does when a rank fails.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panic")]

#[path = "comm/faults.rs"]
mod faults;
#[path = "cli_support/late.rs"]
mod late;
#[cfg(feature = "mpi")]
#[path = "comm/mpi.rs"]
mod mpi;
#[path = "comm/processes.rs"]
mod processes;
#[path = "comm/rendezvous.rs"]
mod rendezvous;
#[path = "comm/suite.rs"]
mod suite;
#[path = "comm/threads.rs"]
mod threads;
