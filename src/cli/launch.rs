//! `launch`: a verb as several ranks, each a process of this host.

use super::lines::Lines;
use super::ranks::Job;
use super::restart::{End, Next, Policy, most};
use super::round::{self, Signals};
use super::session::{Session, note};
use crate::error::{Error, Result};
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  ringtape launch -n 2 -- train                     one model, half of every batch each
  ringtape launch -n 2 -- train --resume runs/gpt-1 goes on with a run, by however many it was begun
  ringtape launch -n 2 --max-restarts 3 -- train    when a rank dies, both go on from the last snapshot
  ringtape launch -n 4 --elastic -- train           when a rank dies, the others go on without it
  ringtape launch -n 2 -- bench all-reduce          two processes, through shared memory and over TCP
  ringtape launch -n 2 --threads -- train --device soft:0
                                                    rank r on device r of this process
  ringtape launch -n 4 --tag -- bench all-reduce    every line with the rank that printed it

The ranks find each other by the variables RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT and RINGTAPE_SECRET, which launch sets.
Under torchrun, srun or mpirun the verb is started by them instead, with the same variables or their own (RINGTAPE_SECRET you
set then); no launch is needed. RINGTAPE_TRANSPORT=auto|shm|tcp chooses the way of the data (a build with
--features mpi also knows mpi, our ring by MPI's messages, and mpi-sums, MPI's own all-reduce), RINGTAPE_TIMEOUT the seconds to
meet in, RINGTAPE_SILENCE the seconds after which a silent rank counts as dead.

When a rank fails the others end by themselves, with exit code 17, or are ended; launch gives the code of the first failure.

With --max-restarts K, or --elastic, `train` is started again then, from its last snapshot, up to K times: after a rank was
killed, crashed or was cut off, not after an error that would come again (exit codes 1 to 6), nor after your Ctrl-C or SIGTERM.
The weights become those of a run that nobody disturbed, bit by bit: with --max-restarts alone always, as N stays; with
--elastic where micro_shards says so. --elastic goes on with as many of the ranks that are left as can share a batch, up to
N - 1 times without --max-restarts; SIGUSR1 to launch says that the lost ones are back: all save a snapshot, end, and N go on
from it. A second Ctrl-C or SIGTERM leaves at once. Steps after a snapshot that are made again stand twice in ranks/rank-R.log.";

/// Run a verb as several ranks that work together
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Number of ranks
    #[arg(short = 'n', long = "ranks", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    ranks: u32,
    /// Port of this host at which they meet; one that is free when left out
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Begin the lines of rank 0 with its number too
    #[arg(long)]
    tag: bool,
    /// Threads of this process instead of processes, for `train`: rank r on device r, counted from --device, where gradients
    /// are summed by a ring between the devices
    #[arg(long, conflicts_with_all = ["port", "tag", "max_restarts", "elastic"])]
    threads: bool,
    /// Start `train` again from its last snapshot when a rank has died, so often [default: 0]
    #[arg(long, value_name = "K")]
    max_restarts: Option<u32>,
    /// Go on with the ranks that are left (`train` only)
    #[arg(long)]
    elastic: bool,
    /// The verb and its arguments
    #[arg(last = true, required = true, value_name = "VERB …")]
    verb: Vec<OsString>,
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    if args.verb.first().is_some_and(|v| v == "launch") {
        return Err(Error::Usage("launch starts ranks; a rank cannot launch others".into()));
    }
    if args.threads {
        return super::seats::run(session, args.ranks as usize, &args.verb);
    }
    // Before anything is made or started.
    let signals = Signals::new(args.elastic)?;
    let ranks = args.ranks as usize;
    if !args.elastic && args.max_restarts.unwrap_or(0) == 0 {
        let job = Job::new(ranks, args.port)?;
        let ended = round::run(&job, &args.verb, args.tag, false, &signals)?;
        return match Policy::new(ranks, None, false).next(&ended) {
            Next::Stop(end) => Err(launched(&end)),
            _ => Ok(()),
        };
    }
    match Lines::read(&args.verb)? {
        Some(lines) => supervise(session, &args, &lines, &signals),
        None => Ok(()),
    }
}

fn launched(end: &End) -> Error {
    Error::Launched { rank: end.rank, code: end.how.code() }
}

/// Starts the ranks of a run until it is done, or cannot go on.
fn supervise(session: &Session<'_>, args: &Args, lines: &Lines, signals: &Signals) -> Result<()> {
    let ranks = args.ranks as usize;
    if args.elastic && lines.config()?.asynchronous.mode.keeps() {
        let what = "cannot go on with other ranks, as the optimizer of each remembers its own steps: use --max-restarts, or none";
        return Err(Error::config("asynchronous.mode", what));
    }
    if args.elastic && !lines.config()?.codec.is_none() {
        let what = "cannot go on with other ranks, as each keeps what it has not sent: use --max-restarts, or no codec";
        return Err(Error::config("codec.name", what));
    }
    let mut policy = Policy::new(ranks, args.max_restarts, args.elastic);
    let mut world = ranks;
    loop {
        let job = Job::new(world, args.port)?;
        let ended = round::run(&job, lines.next(), args.tag, policy.short(), signals)?;
        let (why, cause) = match policy.next(&ended) {
            Next::Done => return Ok(()),
            Next::Stop(end) => return Err(launched(&end)),
            Next::Again(end) => {
                let ((done, limit), End { rank, how, .. }) = (policy.count(), &end);
                (format!("rank {rank} {how}; restart {done} of {limit}"), Some(end))
            }
            Next::Gathered => ("the lost ranks are back; going on".into(), None),
        };
        if signals.back() {
            policy.back();
        }
        world = match policy.short() {
            true => match (most(policy.there(), &lines.config()?), cause) {
                (Some(world), _) => world,
                // What the mesh wants is more than are left.
                (None, Some(end)) => return Err(launched(&end)),
                (None, None) => ranks,
            },
            false => ranks,
        };
        let with = if args.elastic { format!(" with {world} of {ranks} ranks") } else { String::new() };
        note!(session, "{why}{with} {}", lines.from());
        if let Some(signal) = signals.stop() {
            return Err(Error::Interrupted { signal: signal.as_raw(), saved: None });
        }
    }
}
