//! Ranks that are processes of one host, and send through memory that they share: a copy in, and a sum out of the cache.

use super::control::Control;
use super::frame::Head;
use super::pieces::{Arriving, Leaving, Pieces, Side, carry};
use super::plane::Shared;
use super::rendezvous::{Meeting, Party};
use super::segment::{self, Lanes, SLOT};
use super::transport::{Incoming, Job, Outgoing, Transport, Wait, spins};
use super::watch::Watch;
use crate::error::{Error, Result};

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
}

impl Pieces for Shm {
    fn push(&mut self, side: &Side<'_>, l: &mut Leaving<'_>) -> Result<bool> {
        let Some(lane) = self.lanes.to[l.to].as_mut().filter(|lane| lane.has_room()) else {
            return Ok(false);
        };
        let (offset, piece) = l.piece(SLOT);
        lane.put(piece, |piece| Head::of(side.job.tag, l.total(), offset, piece).encode());
        l.gone(piece.len());
        Ok(true)
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
        self.sent += carry(self, &side, &mut wait, out, into)?;
        Ok(())
    }
}
