//! One start of a job's ranks: from their processes to the end of the last.

use super::ranks::{Children, Job, start};
use super::restart::{End, Ended, How};
use crate::error::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time for the others to find out themselves that one has failed, and to save what they have.
const GRACE: Duration = Duration::from_secs(5);
/// Time to leave at once.
const AT_ONCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(5);
const STOP: [(i32, Signal); 2] =
    [(signal_hook::consts::SIGINT, Signal::INT), (signal_hook::consts::SIGTERM, Signal::TERM)];

/// What the user tells the launcher by signals.
#[derive(Default)]
pub(super) struct Signals {
    stop: [Arc<AtomicBool>; STOP.len()],
    back: Arc<AtomicBool>,
}

impl Signals {
    /// Listens to SIGINT and SIGTERM, and to SIGUSR1 where ranks may come `back`.
    pub(super) fn new(back: bool) -> Result<Signals> {
        let signals = Signals::default();
        let stop = STOP.iter().map(|(number, _)| *number).zip(&signals.stop);
        let back = back.then_some((signal_hook::consts::SIGUSR1, &signals.back));
        for (number, flag) in stop.chain(back) {
            signal_hook::flag::register(number, flag.clone())
                .map_err(|e| Error::Usage(format!("signal {number} cannot be handled: {e}")))?;
        }
        Ok(signals)
    }

    /// A wish to stop that came since the last call.
    pub(super) fn stop(&self) -> Option<Signal> {
        let mut came = STOP.iter().zip(&self.stop).filter(|(_, flag)| flag.swap(false, Ordering::Relaxed));
        came.next().map(|((_, signal), _)| *signal)
    }

    /// True when lost ranks came back since the last call.
    pub(super) fn back(&self) -> bool {
        self.back.swap(false, Ordering::Relaxed)
    }
}

/// Runs `verb` as the ranks of `job` to the end of all; `tag` marks the lines of rank 0 too. Where the job is `short` of ranks,
/// it is ended gently when they are back.
pub(super) fn run(job: &Job, verb: &[OsString], tag: bool, short: bool, signals: &Signals) -> Result<Ended> {
    let mut children = Children::default();
    let mut printers = Vec::new();
    for rank in 0..job.world {
        let mut command = job.command(rank, verb)?;
        if tag || rank > 0 {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = start(&mut command, rank)?;
        printers.extend(child.stdout.take().and_then(|pipe| pass_on(rank, pipe, std::io::stdout())));
        printers.extend(child.stderr.take().and_then(|pipe| pass_on(rank, pipe, std::io::stderr())));
        children.0.push(child);
    }
    let mut watch =
        Watch { children, ended: Ended::default(), sent: None, failed: None, stops: 0, leave: None };
    while watch.ended.ends.len() < job.world {
        watch.listen(signals, short);
        watch.look()?;
        watch.hurry();
        std::thread::sleep(TICK);
    }
    for printer in printers {
        let _ = printer.join();
    }
    Ok(watch.ended)
}

/// Passes lines on, each with the rank before it and in one piece.
fn pass_on(
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

/// The ranks that run, and what is known of their ends.
struct Watch {
    children: Children,
    ended: Ended,
    /// The last signal that was our own idea.
    sent: Option<Signal>,
    /// When the first failed.
    failed: Option<Instant>,
    /// How often the user has asked to stop.
    stops: u32,
    /// When the user asked to leave at once.
    leave: Option<Instant>,
}

impl Watch {
    /// Passes on what the user says.
    fn listen(&mut self, signals: &Signals, short: bool) {
        if let Some(signal) = signals.stop() {
            self.stops += 1;
            // Ranks that are ending gently take the next signal for the second.
            if self.stops > 1 || !self.ended.back {
                self.send(signal);
            }
            if self.stops > 1 {
                self.leave.get_or_insert_with(Instant::now);
            }
            self.ended.stop = true;
        }
        // After a failure all begin again anyway: then it is left for whoever starts them.
        if self.failed.is_none() && signals.back() && short && !self.ended.stop {
            self.tell(Signal::TERM);
            self.ended.back = true;
        }
    }

    /// Notes who has ended.
    fn look(&mut self) -> Result<()> {
        for (rank, child) in self.children.0.iter_mut().enumerate() {
            if self.ended.ends.iter().any(|end| end.rank == rank) {
                continue;
            }
            if let Some(status) = child.try_wait().map_err(|e| Error::io(format!("rank {rank}"), e))? {
                self.ended.ends.push(End { rank, how: how(status), sent: self.sent.map(Signal::as_raw) });
                if !status.success() {
                    self.failed.get_or_insert_with(Instant::now);
                }
            }
        }
        Ok(())
    }

    /// Ends the rest some time after the first failure, or soon when the user is in a hurry.
    fn hurry(&mut self) {
        let over = |since: Option<Instant>, time| since.is_some_and(|since| since.elapsed() > time);
        if over(self.failed, 2 * GRACE) || over(self.leave, AT_ONCE) {
            self.tell(Signal::KILL);
        } else if over(self.failed, GRACE) && self.sent.is_none() {
            self.tell(Signal::TERM);
        }
    }

    /// Sends a signal of our own.
    fn tell(&mut self, signal: Signal) {
        self.sent = Some(signal);
        self.send(signal);
    }

    fn send(&self, signal: Signal) {
        for (rank, child) in self.children.0.iter().enumerate() {
            if self.ended.ends.iter().all(|end| end.rank != rank) {
                // It has not been waited for, so its number is still its own.
                let _ = kill_process(Pid::from_child(child), signal);
            }
        }
    }
}

pub(super) fn how(status: ExitStatus) -> How {
    status.signal().map(How::Signal).unwrap_or_else(|| How::Code(status.code().unwrap_or(1)))
}
