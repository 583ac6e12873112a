//! The command line: one file a verb. [`run`] is the whole of ringtape's own `main`; [`run_with`] gives another crate
//! every verb for its own ops by a one-line `main` of its own.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the verbs, exit codes, how errors are printed |
//! | `session.rs` | where results and notes go: standard output, standard error, quiet, colours |
//! | `tensors.rs` | safetensors files in and out, converted to what an op takes |
//! | `train.rs`, `progress.rs` | `train`: a run, and what is seen of it on the way |
//! | `eval.rs`, `generate.rs` | `eval`, `generate`: a trained model at work |
//! | `op.rs` | `op list`, `op NAME` |
//! | `optimizers.rs` | `optim list`, `optim NAME` |
//! | `check.rs` | `check`: the examiner |
//! | `data.rs` | `data`: packed datasets |
//! | `ptx.rs` | `ptx check`: PTX files |
//! | `launch.rs`, `ranks.rs`, `round.rs` | `launch`: a verb as many processes |
//! | `restart.rs`, `lines.rs` | what `launch` does when they have ended, and how a run is taken up again |
//! | `seats.rs` | `launch --threads`: ranks of one process |
//! | `plan/` | `plan`: what training on many devices would cost |
//! | `devices.rs` | `devices`: what can be used here |
//! | `bench/` | `bench`: how fast it is |
//! | `completions.rs` | `completions`: for shells |
//!
//! ```no_run
//! // main.rs of a crate with an op of its own: `op`, `check` and `bench` know it.
//! # use ringtape::{cli, ops::relu::ENTRY as CUBE};
//! fn main() {
//!     std::process::exit(cli::run_with(cli::Extensions { ops: &[&CUBE], ..Default::default() }, std::env::args_os()))
//! }
//! ```

pub mod bench;
mod book;
mod check;
mod completions;
mod data;
mod devices;
mod eval;
mod generate;
mod launch;
mod lines;
mod op;
mod optimizers;
mod plan;
mod progress;
mod ptx;
mod ranks;
mod restart;
mod round;
mod seats;
mod session;
mod tensors;
mod train;

use crate::comm::codec;
use crate::error::{Error, Result};
use crate::ops::Entry;
use crate::optim;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use session::Session;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What another crate adds to the verbs.
#[derive(Clone, Copy, Default)]
pub struct Extensions<'a> {
    /// Ops, found by `op`, `check` and `bench` before ringtape's own.
    pub ops: &'a [&'static Entry],
    /// Optimizers, found by `optim` before ringtape's own.
    pub optimizers: &'a [&'static optim::Entry],
    /// Codecs of gradients, found by `train` before ringtape's own.
    pub codecs: &'a [&'static codec::Entry],
}

const ABOUT: &str = "A machine-learning runtime written from scratch: train, look inside, extend.";

const EXAMPLES: &str = "\
Examples:
  ringtape train                      train a small GPT on Moby-Dick: some minutes on two cores
  ringtape generate runs/gpt-1        let it write
  ringtape op list                    every operation: inputs, attributes, formula
  ringtape check                      examine every operation: gradients, precision, contract
  ringtape bench gemm                 how fast matrix products run here, against this machine's peak
  ringtape plan --cluster large       how a GPT would train on thousands of GPUs
  ringtape devices                    what can be used here

Exit codes: 0 done, 1 a comparison that you asked for failed, 2 usage or configuration, 3 ranks did not meet, 4 bad data,
snapshot or PTX, 5 out of disk or memory, 6 NaN or infinity, 17 another rank failed, 130 and 143 interrupted (after saving a
snapshot).
NO_COLOR turns colours off; `ringtape help VERB` shows the examples of a verb.";

#[derive(Parser)]
#[command(name = "ringtape", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    /// Print results and errors only: no progress, no notes
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Train(train::Args),
    Eval(eval::Args),
    Generate(generate::Args),
    Op(op::Args),
    Optim(optimizers::Args),
    Check(check::Args),
    Data(data::Args),
    Ptx(ptx::Args),
    Bench(bench::Args),
    Launch(launch::Args),
    Plan(plan::Args),
    Book(book::Args),
    Devices(devices::Args),
    Completions(completions::Args),
}

/// Runs the command line of this process with ringtape's own ops. Gives the exit code.
pub fn run() -> i32 {
    run_with(Extensions::default(), std::env::args_os())
}

/// Runs `args` (the program's name first) with the additions of another crate. Gives the exit code.
pub fn run_with(extensions: Extensions<'_>, args: impl IntoIterator<Item = OsString>) -> i32 {
    let parsed = command().try_get_matches_from(args).and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version come this way too. A closed pipe is the reader's choice, not an error.
            let _ = e.print();
            return e.exit_code();
        }
    };
    let session = Session::new(extensions, cli.quiet);
    let outcome = dispatch(&session, cli.verb).and_then(|()| session.flush());
    match outcome {
        Ok(()) => {
            crate::comm::leave();
            0
        }
        Err(e) if session::is_closed_pipe(&e) => 0,
        Err(e) => {
            session.report(&e);
            e.exit_code()
        }
    }
}

/// The whole grammar: for parsing, completions, and tests that hold documents against it.
pub fn command() -> clap::Command {
    Cli::command()
}

fn dispatch(session: &Session<'_>, verb: Verb) -> Result<()> {
    // `train` decides how many; the others take the default.
    if !matches!(verb, Verb::Train(_) | Verb::Data(_) | Verb::Launch(_) | Verb::Completions(_)) {
        threads(0)?;
    }
    match verb {
        Verb::Train(a) => train::run(session, a),
        Verb::Eval(a) => eval::run(session, a),
        Verb::Generate(a) => generate::run(session, a),
        Verb::Op(a) => op::run(session, a),
        Verb::Optim(a) => optimizers::run(session, a),
        Verb::Check(a) => check::run(session, a),
        Verb::Data(a) => data::run(session, a),
        Verb::Ptx(a) => ptx::run(session, a),
        Verb::Bench(a) => bench::run(session, a),
        Verb::Launch(a) => launch::run(session, a),
        Verb::Plan(a) => plan::run(session, a),
        Verb::Book(a) => book::run(session, a),
        Verb::Devices(a) => devices::run(session, a),
        Verb::Completions(a) => completions::run(session, a),
    }
}

/// Gives the pool that many threads (0: one for each processor), which change no bit of the result. Left to itself it
/// would start at first use, where nobody can be told that it does not. This thread is one of them: it works on its part of
/// an operation at once, and wakes as many threads less. But it must not be the only one: while it waits for the thread that
/// reads data, that thread may wait for the pool. Asked again, by another rank of this process, it stays as it is.
fn threads(n: usize) -> Result<()> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    if ASKED.swap(true, Relaxed) {
        return Ok(());
    }
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|v| v.parse().ok()).filter(|&t| t > 0);
    let cores = || std::thread::available_parallelism().map_or(1, |c| c.get());
    let all = if n > 0 { n } else { asked.unwrap_or_else(cores) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(all);
    match if all > 1 { pool.use_current_thread() } else { pool }.build_global() {
        Ok(()) => Ok(()),
        // A program with ringtape inside may have a pool already; that one is used then.
        Err(e) => match std::error::Error::source(&e).and_then(|e| e.downcast_ref()) {
            Some(refused) => Err(Error::no_thread("the pool", refused)),
            None if n == 0 => Ok(()),
            None => Err(Error::config("threads", format!("{n} threads cannot be started: {e}"))),
        },
    }
}

/// One `key=value` of `--attr` and `--set`.
fn key_value(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((k, v)) if !k.trim().is_empty() => Ok((k.trim().into(), v.trim().into())),
        _ => Err("must be key=value, for example dim=-1".into()),
    }
}

/// `value` as indented JSON. Fails only for types that JSON cannot hold, which no verb prints.
fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Error::Usage(format!("cannot print as JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent_and_every_verb_has_examples() {
        command().debug_assert();
        for verb in command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("ringtape "), "`{}` shows no example", verb.get_name());
            assert!(verb.get_about().is_some(), "`{}` says nothing of itself", verb.get_name());
        }
    }

    #[test]
    fn attributes_are_key_and_value() {
        assert_eq!(key_value("dim=-1"), Ok(("dim".into(), "-1".into())));
        assert_eq!(key_value("kernel = 3,3"), Ok(("kernel".into(), "3,3".into())));
        assert!(key_value("dim").is_err() && key_value("=1").is_err());
    }

    #[test]
    fn usage_errors_are_two_and_help_is_zero() {
        let code = |a: &[&str]| run_with(Extensions::default(), a.iter().map(OsString::from));
        assert_eq!(code(&["ringtape", "--no-such-flag"]), 2);
        assert_eq!(code(&["ringtape", "fly"]), 2);
        assert_eq!(code(&["ringtape", "op", "relu"]), 2);
        assert_eq!(code(&["ringtape", "--help"]), 0);
    }
}
