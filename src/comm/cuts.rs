//! Tests of the network between ranks: relays stand between all of them, and hold up, or lose, what goes one way or both.
//! A way that is cut is not closed: nobody is told.

use super::faults::{here, meeting};
use super::link::Link;
use super::plane::Plane;
use super::rendezvous::{Party, Table, Way};
use super::tcp::Tcp;
use super::{Algorithm, Communicator, Reduce};
use crate::error::{Error, Result};
use crate::rng::Key;
use late::Late;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

#[path = "../../tests/cli_support/late.rs"]
mod late;

const WORLD: usize = 3;
/// What a relay takes at once: a segment of an Ethernet.
const SEGMENT: usize = 1448;

/// What the relays do.
struct Net {
    /// Whether what goes from the first to the second is lost from now on.
    cut: Box<dyn Fn(usize, usize) -> bool + Send + Sync>,
    now: AtomicBool,
    /// How long every segment is on its way.
    delay: Duration,
    /// Of a hundred segments so many are sent again, which takes `again`; those behind them wait, as TCP has it.
    lost: u64,
    again: Duration,
}

impl Default for Net {
    fn default() -> Net {
        let (zero, cut) = (Duration::ZERO, Box::new(|_, _| false));
        Net { cut, now: AtomicBool::new(false), delay: zero, lost: 0, again: zero }
    }
}

impl Net {
    fn loses(&self, from: usize, to: usize) -> bool {
        self.now.load(Ordering::Acquire) && (self.cut)(from, to)
    }
}

/// Carries what comes from `from` to `to`, the end of it too.
fn carry(net: &Arc<Net>, (a, b): (usize, usize), mut from: TcpStream, mut to: TcpStream) {
    let (queue, due) = channel::<(Instant, Vec<u8>)>();
    let of_net = net.clone();
    std::thread::spawn(move || {
        for (when, bytes) in due {
            std::thread::sleep(when.saturating_duration_since(Instant::now()));
            if !of_net.loses(a, b) && to.write_all(&bytes).is_err() {
                return;
            }
        }
        if !of_net.loses(a, b) {
            let _ = to.shutdown(Shutdown::Write);
        }
        // Closes only with this process: the other side hears nothing more.
        std::mem::forget(to);
    });
    let net = net.clone();
    std::thread::spawn(move || {
        let mut luck = Key::named(9, &format!("{a} to {b}")).rng();
        let mut piece = [0; SEGMENT];
        while let Ok(n) = from.read(&mut piece) {
            let again = if luck.below(100) < net.lost { net.again } else { Duration::ZERO };
            let sent = queue.send((Instant::now() + net.delay + again, piece[..n].to_vec()));
            if n == 0 || sent.is_err() {
                break;
            }
        }
        std::mem::forget(from);
    });
}

/// Where rank `a` finds `b`, who listens at `at`.
fn relay(net: &Arc<Net>, a: usize, b: usize, at: SocketAddr) -> SocketAddr {
    let (front, front_at) = here();
    let net = net.clone();
    std::thread::spawn(move || {
        while let Ok((near, _)) = front.accept() {
            let far = TcpStream::connect(at).unwrap();
            for s in [&near, &far] {
                s.set_nodelay(true).unwrap();
            }
            carry(&net, (a, b), near.try_clone().unwrap(), far.try_clone().unwrap());
            carry(&net, (b, a), far, near);
        }
    });
    front_at
}

/// Ranks that have met, with a relay in every connection.
fn ranks(net: &Arc<Net>, silence: Duration) -> Vec<Communicator> {
    let doors: Vec<_> = (0..WORLD).map(|_| here()).collect();
    let (mut of_zero, mut of_others) = (Vec::new(), Vec::new());
    for r in 1..WORLD {
        let (door, at) = here();
        of_others.push(vec![Link::new(TcpStream::connect(relay(net, r, 0, at)).unwrap())]);
        of_zero.push(Link::new(door.accept().unwrap().0));
    }
    let addresses: Vec<SocketAddr> = doors.iter().map(|(_, at)| *at).collect();
    let links = std::iter::once(of_zero).chain(of_others);
    let all = doors.into_iter().zip(links).enumerate().map(|(rank, ((listener, _), links))| {
        listener.set_nonblocking(true).unwrap();
        let addresses = addresses.iter().enumerate().map(|(b, at)| relay(net, rank, b, *at)).collect();
        let table = Table { session: [5; 32], addresses, plane: Plane::Tcp };
        let mut meeting = meeting(rank, Way::Tcp);
        (meeting.world, meeting.silence) = (WORLD, silence);
        let party = Party { table, listener, links, shared: None };
        Communicator::new(Tcp::new(&meeting, party).unwrap())
    });
    all.collect()
}

/// Runs `body` on each of `ranks`; gives its result and when the rank was done, goodbye and all.
fn run<T: Send + 'static>(
    ranks: Vec<Communicator>,
    body: fn(&mut Communicator) -> Result<T>,
) -> Vec<std::thread::JoinHandle<(Result<T>, Instant)>> {
    let one = |mut world: Communicator| {
        std::thread::spawn(move || {
            let done = body(&mut world);
            drop(world);
            (done, Instant::now())
        })
    };
    ranks.into_iter().map(one).collect()
}

/// Sums whose bits depend on the order in which ranks are added, by both ways.
fn sums(world: &mut Communicator) -> Result<Vec<u32>> {
    let mut bits = Vec::new();
    for (call, algorithm) in [Algorithm::Ring, Algorithm::Tree].into_iter().cycle().take(12).enumerate() {
        world.set_algorithm(Some(algorithm));
        let mut rng = Key::new(call as u64, world.rank() as u64).rng();
        let mut x: Vec<f32> =
            (0..3000).map(|_| (rng.normal() * 10f64.powf(6.0 * rng.uniform())) as f32).collect();
        world.all_reduce(&mut x, Reduce::Sum)?;
        bits.extend(x.iter().map(|v| v.to_bits()));
    }
    Ok(bits)
}

#[test]
fn delay_and_what_is_sent_again_change_no_bit() {
    let ms = Duration::from_millis;
    let mut seen: Vec<Vec<u32>> = Vec::new();
    let nets = [
        (Net::default(), ms(0)),
        // Six rings of four messages and six trees of three, one after the other, each at least so long on its way.
        (Net { delay: ms(20), ..Net::default() }, 6 * 4 * ms(20)),
        (Net { lost: 2, again: ms(150), ..Net::default() }, ms(150)),
    ];
    for (net, least) in nets {
        let start = Instant::now();
        let all = run(ranks(&Arc::new(net), ms(2000)), sums).into_iter();
        seen.extend(all.map(|rank| rank.join().unwrap().0.unwrap()));
        assert!(start.elapsed() >= least, "the network was not slow: {:?}", start.elapsed());
    }
    assert!(seen.iter().all(|bits| *bits == seen[0]));
}

/// Which ways are dead, and whom each rank names: those who hear each other name the one that is cut off; that one can
/// know only whom it hears no more.
type Cut = (&'static str, fn(usize, usize) -> bool, [usize; WORLD]);
const CUTS: [Cut; 4] = [
    ("nobody hears rank 2", |a, _| a == 2, [2, 2, 2]),
    ("rank 2 hears nobody", |_, b| b == 2, [2, 2, 0]),
    ("rank 2 is cut off", |a, b| a == 2 || b == 2, [2, 2, 0]),
    ("rank 0 does not hear rank 1", |a, b| (a, b) == (1, 0), [1, 1, 1]),
];

#[test]
fn a_cut_of_one_way_or_both_ends_all_ranks() {
    let silence = Duration::from_secs(1);
    let late = Late::new();
    for (what, cut, named) in CUTS {
        let net = Arc::new(Net { cut: Box::new(cut), ..Net::default() });
        let all = run(ranks(&net, silence), |world| -> Result<()> {
            loop {
                world.all_reduce(&mut [1f32; 5000], Reduce::Sum)?;
            }
        });
        std::thread::sleep(Duration::from_millis(200));
        let start = Instant::now();
        net.now.store(true, Ordering::Release);
        let ends: Vec<_> = all.into_iter().map(|rank| rank.join().unwrap()).collect();
        let limit = late.allow(silence + Duration::from_secs(1));
        for (rank, (end, when)) in ends.into_iter().enumerate() {
            let (e, took) = (end.unwrap_err(), when - start);
            eprintln!("{what}: rank {rank} after {took:?}: {e}");
            assert_eq!(e.exit_code(), 17, "{e}");
            let right = matches!(e, Error::RankFailed { rank: of, .. } if of == named[rank]);
            assert!(right, "{what}: rank {rank}: {e}");
            assert!(took < limit, "{what}: rank {rank} was out after {took:?}, not {limit:?}");
            assert!(took > silence / 2, "{what}: rank {rank} was out after {took:?}: nothing was silent");
        }
    }
}
