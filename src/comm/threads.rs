//! Ranks that are threads of one process. A message is read where its sender holds it, and summed from there: no copy.

use super::communicator::Communicator;
use super::lend::{Lender, Place};
use super::transport::{Incoming, Job, Outgoing, Transport, Wait, misfit, spins};
use super::watch::Watch;
use crate::error::Result;
use std::sync::Arc;

/// One rank among threads.
pub struct Threads {
    rank: usize,
    world: usize,
    watch: Watch,
    /// `from * world + to`.
    places: Arc<[Place]>,
    lender: Lender,
    sent: u64,
    spins: u32,
}

/// A transport for each of `world` ranks, to be moved to its thread.
pub fn open(world: usize) -> Vec<Threads> {
    let watch = Watch::new(world);
    let places: Arc<[Place]> = (0..world * world).map(|_| Place::new()).collect();
    let spins = spins(world);
    let one = |rank| Threads {
        rank,
        world,
        watch: watch.clone(),
        places: places.clone(),
        lender: Lender(()),
        sent: 0,
        spins,
    };
    (0..world).map(one).collect()
}

/// Runs `body` as each of `world` ranks, and gives what each returned, in order.
///
/// # Panics
/// When `body` does, after all ranks have ended.
pub fn run<R: Send>(world: usize, body: impl Fn(Communicator) -> Result<R> + Sync) -> Vec<Result<R>> {
    std::thread::scope(|s| {
        let start = |transport| {
            let body = &body;
            s.spawn(move || body(Communicator::new(transport)))
        };
        let ranks: Vec<_> = open(world).into_iter().map(start).collect();
        ranks.into_iter().map(|r| r.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    })
}

impl Threads {
    fn receive(
        place: &Place,
        watch: &Watch,
        rank: usize,
        job: &Job,
        into: &mut Incoming<'_>,
    ) -> Option<Result<()>> {
        place.take(|tag, data| {
            if *tag != job.tag || data.len() != into.data.len() {
                let len = (into.data.len(), data.len() as u64);
                return Err(misfit(watch, rank, job, into.from, tag, len));
            }
            match into.combine {
                Some(combine) => combine(into.data, data),
                None => into.data.copy_from_slice(data),
            }
            Ok(())
        })
    }
}

impl Transport for Threads {
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

    fn exchange(
        &mut self,
        job: &Job,
        out: Option<Outgoing<'_>>,
        mut into: Option<Incoming<'_>>,
    ) -> Result<()> {
        let (watch, rank, world) = (&self.watch, self.rank, self.world);
        let mut wait = Wait::new(watch, rank, job, self.spins);
        (wait.from, wait.to) = (into.as_ref().map(|i| i.from), out.as_ref().map(|o| o.to));
        let mut receive = |wait: &mut Wait<'_>, read: &dyn Fn() -> bool| -> Result<()> {
            let Some(into) = &mut into else { return Ok(()) };
            let place = &self.places[into.from * world + rank];
            loop {
                match Threads::receive(place, watch, rank, job, into) {
                    Some(done) => break done?,
                    None => {
                        // Whoever has read what it waited for may leave.
                        wait.to = wait.to.filter(|_| !read());
                        wait.pause()?;
                    }
                }
            }
            wait.from = None;
            wait.progress();
            Ok(())
        };
        let Some(out) = out else { return receive(&mut wait, &|| true) };
        let place = &self.places[rank * world + out.to];
        place.lend(&mut self.lender, job.tag, out.data, |read| {
            receive(&mut wait, read)?;
            while !read() {
                wait.pause()?;
            }
            Ok(())
        })?;
        // Read it was, but perhaps with the verdict that it is not what was expected.
        self.watch.check()?;
        self.sent += out.data.len() as u64;
        Ok(())
    }
}

impl Drop for Threads {
    /// Whoever still waits for this rank learns that it is gone.
    fn drop(&mut self) {
        self.watch
            .leave(self.rank, if std::thread::panicking() { "its thread panicked" } else { "it has left" });
    }
}
