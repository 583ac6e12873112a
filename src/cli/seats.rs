//! `launch --threads`: `train` by ranks that are threads of this process, rank r on device r.

use super::lines::train_of;
use super::restart::ECHO;
use super::session::Session;
use super::train;
use crate::comm::{self, Communicator, DeviceRing, codec, device_ring};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::train::{Config, Stop, Team};
use std::ffi::OsString;
use std::sync::Mutex;

/// What one rank starts with.
struct Seat {
    world: Communicator,
    /// Where its device runs PTX.
    ring: Option<DeviceRing>,
}

impl Seat {
    fn team(self) -> Result<Team> {
        match self.ring {
            Some(ring) => Team::on_device(self.world, ring),
            None => Team::of(self.world),
        }
    }
}

/// Runs `verb` (its name and arguments) as `n` ranks.
pub(super) fn run(session: &Session<'_>, n: usize, verb: &[OsString]) -> Result<()> {
    let what = "only ranks of `train` can be threads: leave out --threads";
    let Some((quiet, args)) = train_of(verb, what)? else { return Ok(()) };
    let session = Session::new(session.extensions, session.quiet || quiet);
    let stop = Stop::on_signals()?;
    let config = args.config()?;
    // Rank 0 is this thread, which works in the pool too.
    super::threads(config.threads)?;
    let mut seats = seats(&config.device, n)?.into_iter();
    let first = seats.next();
    let codecs = session.extensions.codecs;
    std::thread::scope(|scope| {
        let others: Vec<_> = seats
            .map(|seat| {
                let (args, stop) = (&args, &stop);
                scope.spawn(move || train::work(None, args, stop, once(seat, codecs)))
            })
            .collect();
        let mut ends: Vec<Result<()>> = Vec::new();
        ends.extend(first.map(|seat| train::work(Some(&session), &args, &stop, once(seat, codecs))));
        let gone = || Err(Error::RanksDisagree("the thread of a rank has ended early".into()));
        ends.extend(others.into_iter().map(|t| t.join().unwrap_or_else(|_| gone())));
        session.flush()?;
        outcome(ends)
    })
}

/// The team of a seat, for the one who asks first.
fn once(seat: Seat, codecs: &[&'static codec::Entry]) -> impl Fn(&Config) -> Result<Team> {
    let seat = Mutex::new(Some(seat));
    move |_| {
        let taken = seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let team = taken.ok_or_else(|| Error::Usage("a rank joins once".into()))?.team()?;
        Ok(team.with_codecs(codecs))
    }
}

/// `n` ranks: on the CPU all of them, else each on a device of its own, counted from the one that is named.
fn seats(name: &str, n: usize) -> Result<Vec<Seat>> {
    let worlds = comm::threads::open(n).into_iter().map(Communicator::new);
    let first = Device::open(name)?;
    if first.is_host() {
        return Ok(worlds.map(|world| Seat { world, ring: None }).collect());
    }
    let (kind, from) = first.name().split_once(':').unwrap_or((first.name(), "0"));
    let from: usize = from.parse().unwrap_or(0);
    let open = |rank: usize| {
        Device::open(&format!("{kind}:{}", from + rank)).map_err(|e| match e {
            Error::Device { device, what } => Error::Device {
                device,
                what: format!("{what}; each of the {n} ranks of --threads takes a device of its own, from {kind}:{from} on"),
            },
            e => e,
        })
    };
    let devices: Vec<Device> = (0..n).map(open).collect::<Result<_>>()?;
    let rings = device_ring::open(&devices)?;
    Ok(worlds.zip(rings).map(|(world, ring)| Seat { world, ring: Some(ring) }).collect())
}

/// The first failure that was no echo of another's.
fn outcome(ends: Vec<Result<()>>) -> Result<()> {
    let (mut bad, mut echo) = (None, None);
    for e in ends.into_iter().filter_map(Result::err) {
        if e.exit_code() == ECHO {
            echo.get_or_insert(e)
        } else {
            bad.get_or_insert(e)
        };
    }
    bad.or(echo).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_before_its_echoes() {
        let echo = || Err(Error::RanksDisagree("rank 1 has left".into()));
        assert_eq!(outcome(vec![echo(), Ok(()), Err(Error::Usage("x".into()))]).unwrap_err().exit_code(), 2);
        assert_eq!(outcome(vec![Ok(()), echo()]).unwrap_err().exit_code(), 17);
        assert!(outcome(vec![Ok(()), Ok(())]).is_ok());
    }

    #[test]
    fn every_rank_has_a_device_of_its_own() {
        let names = |name: &str, n| -> Vec<String> {
            let seats = seats(name, n).unwrap();
            seats.iter().map(|s| s.ring.as_ref().map_or("cpu".into(), |r| r.device().name().into())).collect()
        };
        assert_eq!(names("cpu", 2), ["cpu", "cpu"]);
        assert_eq!(names("soft", 2), ["soft:0", "soft:1"]);
        assert_eq!(names("soft:3", 2), ["soft:3", "soft:4"]);
        let too_many = seats("soft:6", 3).err().unwrap().to_string();
        assert!(too_many.contains("soft:8") && too_many.contains("from soft:6 on"), "{too_many}");
    }
}
