//! What a rank notes of a run: its timeline, and a journal of its own.

use super::Team;
use super::sent::Ring;
use super::trace::{self, Lane};
use super::write_whole;
use crate::comm::Communicator;
use crate::error::{Error, Result};
use std::io::Write;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Instant;

impl Team {
    /// Notes that this rank computed `name` since `from`, if a timeline is drawn.
    pub(super) fn mark(&mut self, name: &str, from: Instant) {
        self.note(Lane::Compute, name, from, Instant::now());
    }

    /// Notes an event, if a timeline is drawn.
    pub(super) fn note(&mut self, lane: Lane, name: &str, from: Instant, to: Instant) {
        if let Some(trace) = &mut self.trace {
            trace.note(lane, name, from, to);
        }
    }

    /// Notes that this rank waited for others since `from`.
    pub(super) fn idled(&mut self, from: Instant) {
        self.waited += from.elapsed();
        self.mark("wait", from);
    }

    /// Counts a step; writes the timeline into `dir` after the last that is drawn, or at once where the run `ends`.
    pub(super) fn traced(&mut self, dir: &Path, ends: bool) -> Result<()> {
        let over = self.trace.as_mut().is_some_and(|t| if ends { true } else { t.step() });
        let Some(trace) = self.trace.take_if(|_| over) else { return Ok(()) };
        let (mine, mut all) = (trace.lines(), Vec::new());
        let (me, size) = (self.rank(), self.size());
        if size > 1 {
            let bytes = mine.clone().into_bytes();
            let others = self.patiently(move |c| collect(c, me, size, bytes))?;
            all = others.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        }
        if self.leads() {
            all.insert(0, mine);
            write_whole(&dir.join("trace.json"), trace::file(&all).as_bytes())?;
        }
        Ok(())
    }

    /// A line of this rank's own journal.
    pub(super) fn log(&mut self, step: u64, loss: f64) -> Result<()> {
        let Some((mut file, path)) = self.journal.take() else { return Ok(()) };
        let copied = |ring: Ring| ring.lock().unwrap_or_else(PoisonError::into_inner).copied();
        let copied: u64 = self.rings().into_iter().map(copied).sum();
        let sent = self.call(|c| Ok(c.sent()))? + copied;
        let waited = std::mem::take(&mut self.waited).as_secs_f64();
        let pace = self
            .pace()
            .map_or_else(String::new, |(shards, speed)| format!("  shards {shards}  samples/s {speed:.1}"));
        writeln!(file, "step {step}  loss {loss:.6}  waited {waited:.3} s  sent {sent} bytes{pace}")
            .map_err(|e| Error::io(&path, e))?;
        self.journal = Some((file, path));
        Ok(())
    }
}

/// Brings the bytes of the other ranks to rank 0, in order.
pub(super) fn collect(c: &mut Communicator, me: usize, size: usize, mine: Vec<u8>) -> Result<Vec<Vec<u8>>> {
    const TAG: u32 = 1;
    if me > 0 {
        c.send(0, TAG, &(mine.len() as u64).to_le_bytes())?;
        return c.send(0, TAG, &mine).map(|()| vec![]);
    }
    let one = |from: usize| {
        let mut len = [0; 8];
        c.recv(from, TAG, &mut len)?;
        let mut bytes = vec![0; u64::from_le_bytes(len) as usize];
        c.recv(from, TAG, &mut bytes)?;
        Ok(bytes)
    };
    (1..size).map(one).collect()
}
