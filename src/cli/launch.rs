//! `launch`: a verb as several ranks, each a process of this host.

use super::ranks::{Children, Job, start};
use super::session::Session;
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  ringtape launch -n 2 -- train                     one model, half of every batch each
  ringtape launch -n 2 -- train --resume runs/gpt-1 goes on with a run, by however many it was begun
  ringtape launch -n 2 -- bench all-reduce          two processes, through shared memory and over TCP
  ringtape launch -n 2 --threads -- train --device soft:0
                                                    rank r on device r of this process
  ringtape launch -n 4 --tag -- bench all-reduce    every line with the rank that printed it

The ranks find each other by the variables RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT and RINGTAPE_SECRET, which launch sets.
Under torchrun, srun or mpirun the verb is started by them instead, with the same variables or their own (RINGTAPE_SECRET you
set then); no launch is needed. RINGTAPE_TRANSPORT=auto|shm|tcp chooses the way of the data (a build with
--features mpi also knows mpi, our ring by MPI's messages, and mpi-sums, MPI's own all-reduce), RINGTAPE_TIMEOUT the seconds to
meet in, RINGTAPE_SILENCE the seconds after which a silent rank counts as dead.

When a rank fails the others end by themselves, with exit code 17, or are ended; launch gives the code of the first failure.";

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
    #[arg(long, conflicts_with_all = ["port", "tag"])]
    threads: bool,
    /// The verb and its arguments
    #[arg(last = true, required = true, value_name = "VERB …")]
    verb: Vec<OsString>,
}

/// Time for the others to find out themselves that one has failed, and to save what they have.
const GRACE: Duration = Duration::from_secs(5);
const SIGNALS: [(i32, rustix::process::Signal); 2] = [
    (signal_hook::consts::SIGINT, rustix::process::Signal::INT),
    (signal_hook::consts::SIGTERM, rustix::process::Signal::TERM),
];

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    if args.verb.first().is_some_and(|v| v == "launch") {
        return Err(Error::Usage("launch starts ranks; a rank cannot launch others".into()));
    }
    if args.threads {
        return super::seats::run(session, args.ranks as usize, &args.verb);
    }
    let flags: Vec<Arc<AtomicBool>> = SIGNALS.iter().map(|_| Arc::default()).collect();
    for ((number, _), flag) in SIGNALS.iter().zip(&flags) {
        signal_hook::flag::register(*number, flag.clone())
            .map_err(|e| Error::Usage(format!("signal {number} cannot be handled: {e}")))?;
    }
    let job = Job::new(args.ranks as usize, args.port)?;
    let mut children = Children::default();
    let mut printers = Vec::new();
    for rank in 0..job.world {
        let mut command = job.command(rank, &args.verb)?;
        let tagged = args.tag || rank > 0;
        if tagged {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = start(&mut command, rank)?;
        printers.extend(child.stdout.take().and_then(|pipe| tag(rank, pipe, std::io::stdout())));
        printers.extend(child.stderr.take().and_then(|pipe| tag(rank, pipe, std::io::stderr())));
        children.0.push(child);
    }
    let ends = wait(&mut children, &flags)?;
    for printer in printers {
        let _ = printer.join();
    }
    outcome(&ends)
}

/// Passes lines on, each with the rank before it and in one piece.
fn tag(
    rank: usize,
    pipe: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> Option<JoinHandle<()>> {
    let body = move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let end = if line.ends_with(b"\n") { "" } else { "\n" };
            let text = [format!("[{rank}] ").as_bytes(), &line, end.as_bytes()].concat();
            // Nobody may be there to read it; the rank goes on.
            let _ = to.write_all(&text).and_then(|()| to.flush());
            line.clear();
        }
    };
    std::thread::Builder::new().spawn(body).ok()
}

/// Waits for all, in the order in which they end. Passes signals on; ends the rest some time after the first failure.
fn wait(children: &mut Children, flags: &[Arc<AtomicBool>]) -> Result<Vec<(usize, ExitStatus)>> {
    let mut ends: Vec<(usize, ExitStatus)> = Vec::new();
    let (mut failed, mut asked): (Option<Instant>, bool) = (None, false);
    while ends.len() < children.0.len() {
        for ((_, signal), flag) in SIGNALS.iter().zip(flags) {
            if flag.swap(false, Ordering::Relaxed) {
                send(children, &ends, *signal);
            }
        }
        for (rank, child) in children.0.iter_mut().enumerate() {
            if ends.iter().any(|(r, _)| *r == rank) {
                continue;
            }
            if let Some(status) = child.try_wait().map_err(|e| Error::io(format!("rank {rank}"), e))? {
                ends.push((rank, status));
                if !status.success() {
                    failed.get_or_insert_with(Instant::now);
                }
            }
        }
        match failed {
            Some(since) if since.elapsed() > 2 * GRACE => {
                send(children, &ends, rustix::process::Signal::KILL)
            }
            Some(since) if since.elapsed() > GRACE && !asked => {
                asked = true;
                send(children, &ends, rustix::process::Signal::TERM);
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(ends)
}

fn send(children: &Children, ends: &[(usize, ExitStatus)], signal: rustix::process::Signal) {
    for (rank, child) in children.0.iter().enumerate() {
        if ends.iter().all(|(r, _)| *r != rank) {
            // It has not been waited for, so its number is still its own.
            let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), signal);
        }
    }
}

/// What a shell would say of an end.
fn code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(1)
}

/// The first failure that was no echo of another's.
fn outcome(ends: &[(usize, ExitStatus)]) -> Result<()> {
    const ECHO: i32 = 17;
    let bad = || ends.iter().map(|(rank, s)| (*rank, code(*s))).filter(|(_, c)| *c != 0);
    let Some((rank, code)) = bad().find(|(_, c)| *c != ECHO).or(bad().next()) else { return Ok(()) };
    Err(Error::Launched { rank, code })
}
