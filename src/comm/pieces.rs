//! Messages between processes go in pieces, so that what arrives is summed while the rest is on its way.

use super::frame::Head;
use super::transport::{Incoming, Job, Outgoing, Wait, misfit};
use super::watch::{Failure, Suspicion, Watch};
use crate::error::{Error, Result};
use std::time::Instant;

/// A message that leaves.
pub(super) struct Leaving<'a> {
    pub(super) to: usize,
    data: &'a [u8],
    at: usize,
    /// A message of no bytes is one piece of no bytes.
    pub(super) done: bool,
}

impl<'a> Leaving<'a> {
    pub(super) fn new(out: Outgoing<'a>) -> Leaving<'a> {
        Leaving { to: out.to, data: out.data, at: 0, done: false }
    }
    /// Bytes of the whole.
    pub(super) fn total(&self) -> usize {
        self.data.len()
    }
    /// Where the next piece begins, and its bytes: at most `most`, a multiple of every element's size.
    pub(super) fn piece(&self, most: usize) -> (usize, &'a [u8]) {
        (self.at, &self.data[self.at..self.data.len().min(self.at + most)])
    }
    /// The next piece, of `len` bytes, has gone.
    pub(super) fn gone(&mut self, len: usize) {
        self.at += len;
        self.done = self.at == self.data.len();
    }
}

/// A message that arrives.
pub(super) struct Arriving<'a> {
    pub(super) from: usize,
    into: Incoming<'a>,
    at: usize,
    pub(super) done: bool,
}

/// What moves pieces. Neither call waits; each says whether anything moved.
pub(super) trait Pieces {
    /// Sends something of the next piece of `l`.
    fn push(&mut self, side: &Side<'_>, l: &mut Leaving<'_>) -> Result<bool>;
    /// Takes something of the next piece of `a`.
    fn pull(&mut self, side: &Side<'_>, a: &mut Arriving<'_>) -> Result<bool>;
}

/// Both messages of an exchange, by turns, until they are through. Gives the bytes sent.
pub(super) fn carry(
    pieces: &mut impl Pieces,
    side: &Side<'_>,
    wait: &mut Wait<'_>,
    out: Option<Outgoing<'_>>,
    into: Option<Incoming<'_>>,
) -> Result<u64> {
    let bytes = out.as_ref().map_or(0, |o| o.data.len());
    let (mut leaving, mut arriving) = (out.map(Leaving::new), into.map(Arriving::new));
    loop {
        let mut progress = false;
        if let Some(l) = leaving.as_mut().filter(|l| !l.done) {
            progress |= pieces.push(side, l)?;
        }
        if let Some(a) = arriving.as_mut().filter(|a| !a.done) {
            progress |= pieces.pull(side, a)?;
        }
        wait.to = leaving.as_ref().filter(|l| !l.done).map(|l| l.to);
        wait.from = arriving.as_ref().filter(|a| !a.done).map(|a| a.from);
        if wait.to.is_none() && wait.from.is_none() {
            return Ok(bytes as u64);
        }
        if progress {
            wait.progress();
            if Instant::now() < side.job.until {
                continue;
            }
        }
        wait.pause()?;
    }
}

/// Who waits, for what.
pub(super) struct Side<'a> {
    pub(super) watch: &'a Watch,
    pub(super) rank: usize,
    pub(super) job: &'a Job,
}

impl Side<'_> {
    /// `peer` is at fault, certainly.
    pub(super) fn blame(&self, peer: usize, what: impl Into<String>) -> Error {
        self.watch.suspect(Suspicion::Sure(Failure::Rank { rank: peer as u32, what: what.into() }))
    }
    /// Bytes of `peer` are not those that it sent.
    pub(super) fn damaged(&self, peer: usize) -> Error {
        let rank = self.rank;
        self.blame(
            peer,
            format!("what it sent to rank {rank} in {} was damaged on the way (checksum)", self.job.tag),
        )
    }
}

impl<'a> Arriving<'a> {
    pub(super) fn new(into: Incoming<'a>) -> Arriving<'a> {
        Arriving { from: into.from, into, at: 0, done: false }
    }

    /// Errors when `head` is not that of the next piece, of at most `most` bytes.
    pub(super) fn check(&self, side: &Side<'_>, head: &Head, most: usize) -> Result<()> {
        let (want, len) = (self.into.data.len(), head.len as usize);
        if head.tag != side.job.tag || head.total != want as u64 {
            return Err(misfit(side.watch, side.rank, side.job, self.from, &head.tag, (want, head.total)));
        }
        if head.offset != self.at as u64 || len > most || len > want - self.at {
            return Err(side.damaged(self.from));
        }
        Ok(())
    }

    /// Where the next piece may be put at once, if it overwrites.
    pub(super) fn place(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.into.combine.is_some() { None } else { Some(&mut self.into.data[self.at..][..len]) }
    }

    /// The next piece lies in its place.
    pub(super) fn placed(&mut self, len: usize) {
        self.at += len;
        self.done = self.at == self.into.data.len();
    }

    /// The next piece is `piece`.
    pub(super) fn take(&mut self, piece: &[u8]) {
        let to = &mut self.into.data[self.at..][..piece.len()];
        match self.into.combine {
            Some(combine) => combine(to, piece),
            None => to.copy_from_slice(piece),
        }
        self.placed(piece.len());
    }
}
