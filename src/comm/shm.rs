//! Ranks that are processes of one host, and send through memory that they share: a copy in, and a sum out of the cache.

use super::control::Control;
use super::frame::Head;
use super::pieces::{Arriving, Leaving, Side};
use super::plane::Shared;
use super::rendezvous::{Meeting, Party};
use super::segment::{self, Lanes, SLOT};
use super::transport::{Incoming, Job, Outgoing, Transport, Wait, spins};
use super::watch::Watch;
use crate::error::{Error, Result};
use std::time::Instant;

/// One rank among processes of a host.
pub(super) struct Shm {
    rank: usize,
    world: usize,
    watch: Watch,
    lanes: Lanes,
    sent: u64,
    spins: u32,
    _control: Control,
}

impl Shm {
    pub(super) fn new(m: &Meeting, party: Party, shared: Shared) -> Result<Shm> {
        let lanes = segment::map(&shared.0, m.rank, m.world)
            .map_err(|e| Error::Rendezvous(format!("shared memory cannot be mapped: {e}")))?;
        let watch = Watch::new(m.world);
        let control = Control::start(&watch, m.rank, party.links, m.silence)
            .map_err(|e| Error::no_thread("the control of ranks", &e))?;
        let spins = spins(m.world);
        Ok(Shm { rank: m.rank, world: m.world, watch, lanes, sent: 0, spins, _control: control })
    }

    fn push(&mut self, side: &Side<'_>, l: &mut Leaving<'_>) -> bool {
        let Some(lane) = self.lanes.to[l.to].as_mut().filter(|lane| lane.has_room()) else { return false };
        let (offset, piece) = l.piece(SLOT);
        lane.put(piece, |piece| Head::of(side.job.tag, l.total(), offset, piece).encode());
        l.gone(piece.len());
        true
    }

    fn pull(&mut self, side: &Side<'_>, a: &mut Arriving<'_>) -> Result<bool> {
        let Some(lane) = &mut self.lanes.from[a.from] else { return Ok(false) };
        let took = lane.take(|head, slot| {
            let head = Head::decode(head).ok_or_else(|| side.damaged(a.from))?;
            a.check(side, &head, SLOT)?;
            let piece = &slot[..head.len as usize];
            if !head.fits(piece) {
                return Err(side.damaged(a.from));
            }
            a.take(piece);
            Ok(())
        });
        match took {
            Some(done) => done.map(|()| true),
            None => Ok(false),
        }
    }
}

impl Transport for Shm {
    fn rank(&self) -> usize {
        self.rank
    }
    fn world(&self) -> usize {
        self.world
    }
    fn watch(&self) -> &Watch {
        &self.watch
    }
    fn sent(&self) -> u64 {
        self.sent
    }

    fn exchange(&mut self, job: &Job, out: Option<Outgoing<'_>>, into: Option<Incoming<'_>>) -> Result<()> {
        let watch = self.watch.clone();
        let side = Side { watch: &watch, rank: self.rank, job };
        let mut wait = Wait::new(&watch, self.rank, job, self.spins);
        let bytes = out.as_ref().map_or(0, |o| o.data.len());
        let (mut leaving, mut arriving) = (out.map(Leaving::new), into.map(Arriving::new));
        loop {
            let mut progress = false;
            if let Some(l) = leaving.as_mut().filter(|l| !l.done) {
                progress |= self.push(&side, l);
            }
            if let Some(a) = arriving.as_mut().filter(|a| !a.done) {
                progress |= self.pull(&side, a)?;
            }
            wait.to = leaving.as_ref().filter(|l| !l.done).map(|l| l.to);
            wait.from = arriving.as_ref().filter(|a| !a.done).map(|a| a.from);
            if wait.to.is_none() && wait.from.is_none() {
                self.sent += bytes as u64;
                return Ok(());
            }
            if progress {
                wait.progress();
                if Instant::now() < job.until {
                    continue;
                }
            }
            wait.pause()?;
        }
    }
}
