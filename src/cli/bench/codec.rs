//! All-reduce by every codec between threads: the time, and the bytes that a rank sends. GB/s is what the ring would have sent, over
//! the time, so that codecs and the plain all-reduce stand side by side. Between threads bytes cost next to nothing: what a codec
//! saves on a slower way is its share of the bytes, what it costs is the time here.

use super::Case;
use crate::comm::codec::{self, Codec, Param};
use crate::comm::{Communicator, Reduce, threads};
use crate::error::{Error, Result};
use crate::rng::Key;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lengths in MiB.
const SIZES: [usize; 2] = [1, 16];
/// Rows and columns of each matrix of the gradient: one MiB.
const SIDE: usize = 512;
/// While other cases have their turn the ranks wait.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// One rank, with every codec and a gradient.
struct Rank {
    world: Communicator,
    codecs: Vec<Box<dyn Codec>>,
    gradient: Vec<f32>,
    work: Vec<f32>,
}

impl Rank {
    fn new(mut world: Communicator) -> Result<Rank> {
        world.set_deadline(PATIENCE);
        let built = codec::ALL.iter().map(|entry| entry.build_with::<&str, &str>(&[]));
        let mut rng = Key::named(world.rank() as u64, "bench.codec").rng();
        let gradient = (0..SIZES[SIZES.len() - 1] << 18).map(|_| rng.normal() as f32).collect();
        Ok(Rank { world, codecs: built.collect::<Result<_>>()?, gradient, work: vec![] })
    }

    /// The time from when all are there, and the bytes sent; by codec `which`, plainly where there is none.
    fn turn(&mut self, which: usize, mib: usize) -> Result<(Duration, u64)> {
        let one = |i| Param { name: format!("{mib}.{i}"), at: i * SIDE * SIDE, dims: vec![SIDE, SIDE] };
        let params: Vec<Param> = (0..mib).map(one).collect();
        self.work.clear();
        self.work.extend_from_slice(&self.gradient[..mib << 18]);
        self.world.barrier()?;
        let (start, before) = (Instant::now(), self.world.sent());
        match self.codecs.get_mut(which) {
            Some(codec) => codec.all_reduce(&mut self.world, &params, &mut self.work)?,
            None => self.world.all_reduce(&mut self.work, Reduce::Sum)?,
        }
        Ok((start.elapsed(), self.world.sent() - before))
    }

    /// Follows rank 0 until it says stop.
    fn follow(mut self) -> Result<()> {
        loop {
            let mut order = [0; 2];
            self.world.broadcast(&mut order, 0)?;
            match (usize::try_from(order[0]), usize::try_from(order[1])) {
                (Ok(which), Ok(mib)) => self.turn(which, mib)?,
                _ => return Ok(()),
            };
        }
    }
}

/// Rank 0, which the other threads follow.
struct Zero(Mutex<Rank>);

impl Zero {
    fn turn(&self, which: usize, mib: usize) -> Result<(Duration, u64)> {
        let mut rank = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rank.world.broadcast(&mut [which as i32, mib as i32], 0)?;
        rank.turn(which, mib)
    }
}

impl Drop for Zero {
    fn drop(&mut self) {
        let rank = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Others that are gone already need no order to stop.
        let _ = rank.world.broadcast(&mut [-1, -1], 0);
    }
}

/// All cases among `ranks` threads.
pub(super) fn cases(ranks: usize) -> Result<Vec<Case<'static>>> {
    let mut all = threads::open(ranks).into_iter();
    let zero = all.next().map(Communicator::new);
    for transport in all {
        let body = move || Rank::new(Communicator::new(transport)).and_then(Rank::follow);
        std::thread::Builder::new().spawn(body).map_err(|e| Error::no_thread("a rank", &e))?;
    }
    let zero = zero.ok_or_else(|| Error::Usage("codecs need a rank".into()))?;
    let zero = Arc::new(Zero(Mutex::new(Rank::new(zero)?)));
    let mut cases = Vec::new();
    for mib in SIZES {
        for (which, name) in codec::ALL.iter().map(|e| e.name).chain(["none"]).enumerate() {
            let (_, sent) = zero.turn(which, mib)?;
            let bus = 2.0 * (ranks - 1) as f64 / ranks as f64 * (mib << 20) as f64;
            let fewer = if sent > 0 { bus / sent as f64 } else { 1.0 };
            let sent = sent as f64 / f64::from(1 << 20);
            let what = format!("{name}, {ranks} ranks, {mib} MiB: sends {sent:.2} MiB, 1/{fewer:.1}");
            let zero = zero.clone();
            let run = move || zero.turn(which, mib).map(|(time, _)| time);
            cases.push(Case { run: Box::new(run), bytes: bus, ..Case::timed("codec", &what, || Ok(())) });
        }
    }
    Ok(cases)
}
