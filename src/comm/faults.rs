//! Tests of what happens to data on their way: a relay between two ranks damages, cuts and holds them up; memory is changed
//! under the reader.

use super::frame::{HEAD, Head};
use super::link::Link;
use super::plane::{Plane, Shared};
use super::rendezvous::{Meeting, Party, Table, Way};
use super::secret::Secret;
use super::segment::{self, SLOT};
use super::shm::Shm;
use super::tcp::Tcp;
use super::{Algorithm, Communicator, Reduce, Transport};
use crate::error::{Error, Result};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub(super) fn meeting(rank: usize, way: Way) -> Meeting {
    Meeting {
        rank,
        world: 2,
        address: String::new(),
        secret: Secret::new(b"a secret of tests").unwrap(),
        config: String::new(),
        dataset: String::new(),
        timeout: Duration::from_secs(5),
        plane: Some(way),
        silence: Duration::from_secs(2),
    }
}

pub(super) fn here() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Two ranks that have met. Data of rank 0 to rank 1 go by `relay`, if there is one.
fn parties(relay: Option<fn(TcpStream, TcpStream)>) -> [Party; 2] {
    let (door, zero_at) = here();
    let one = TcpStream::connect(zero_at).unwrap();
    let zero = door.accept().unwrap().0;
    let ((a, a_at), (b, b_at)) = (here(), here());
    let mut seen = b_at;
    if let Some(relay) = relay {
        let (front, front_at) = here();
        seen = front_at;
        std::thread::spawn(move || relay(front.accept().unwrap().0, TcpStream::connect(b_at).unwrap()));
    }
    [(a, zero), (b, one)].map(|(listener, stream)| {
        listener.set_nonblocking(true).unwrap();
        let table = Table { session: [5; 32], addresses: vec![a_at, seen], plane: Plane::Tcp };
        Party { table, listener, links: vec![Link::new(stream)], shared: None }
    })
}

/// Runs both ranks, each with what `body` does.
fn run<T: Transport + 'static>(all: [T; 2], body: fn(Communicator) -> Result<()>) -> [Result<()>; 2] {
    all.map(|t| std::thread::spawn(move || body(Communicator::new(t)))).map(|t| t.join().unwrap())
}

fn over_tcp(relay: fn(TcpStream, TcpStream), body: fn(Communicator) -> Result<()>) -> [Result<()>; 2] {
    let mut rank = 0;
    let all = parties(Some(relay)).map(|party| {
        rank += 1;
        Tcp::new(&meeting(rank - 1, Way::Tcp), party).unwrap()
    });
    run(all, body)
}

/// The sum of 1 and 2 everywhere; one that is wrong would be seen.
fn sums(mut world: Communicator) -> Result<()> {
    world.set_algorithm(Some(Algorithm::Ring));
    let mut x: Vec<f32> = (0..400_000).map(|i| (world.rank() * 7 + i) as f32).collect();
    world.all_reduce(&mut x, Reduce::Sum)?;
    assert!(x.iter().enumerate().all(|(i, v)| *v == (7 + 2 * i) as f32), "a wrong sum");
    world.barrier()
}

/// Passes bytes on, changed by `change`, which is told where in the stream they begin.
fn pass(mut from: TcpStream, mut to: TcpStream, mut change: impl FnMut(usize, &mut [u8]) -> bool) {
    let (mut at, mut piece) = (0, vec![0; 50_000]);
    while let Ok(n) = from.read(&mut piece) {
        if n == 0 || !change(at, &mut piece[..n]) || to.write_all(&piece[..n]).is_err() {
            return;
        }
        at += n;
    }
}

#[test]
fn two_words_that_change_places_are_found_wherever_they_are() {
    static TRIAL: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    for trial in 0..100 {
        TRIAL.store(trial, std::sync::atomic::Ordering::Relaxed);
        let swap = |from: TcpStream, to: TcpStream| {
            // After the ticket, in the heads (which stand every 256 KiB) and in numbers; two words that differ.
            let target = 36
                + 64 * (TRIAL.load(std::sync::atomic::Ordering::Relaxed) % 4)
                + 7919 * TRIAL.load(std::sync::atomic::Ordering::Relaxed);
            let mut done = false;
            pass(from, to, |at, bytes| {
                let mut i = target.saturating_sub(at) & !1;
                while !done && at + bytes.len() > target && i + 4 <= bytes.len() {
                    if bytes[i..i + 2] != bytes[i + 2..i + 4] {
                        bytes.swap(i, i + 2);
                        bytes.swap(i + 1, i + 3);
                        done = true;
                    }
                    i += 2;
                }
                true
            });
        };
        for r in over_tcp(swap, sums) {
            let e = r.expect_err("damage was not seen");
            assert!(e.to_string().contains("rank 0 failed: what it sent to rank 1"), "trial {trial}: {e}");
            assert!(e.to_string().contains("checksum") && e.exit_code() == 17, "{e}");
        }
    }
}

#[test]
fn a_connection_that_is_cut_ends_both_at_once() {
    let start = Instant::now();
    let cut = |from: TcpStream, to: TcpStream| pass(from, to, |at, _| at < 300_000);
    for r in over_tcp(cut, sums) {
        assert!(matches!(r, Err(Error::RankFailed { .. })), "{r:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// Both live and say so, but one direction of the data is dead: the deadline ends it.
#[test]
fn a_connection_that_stands_still_ends_by_the_deadline() {
    let start = Instant::now();
    let hold = |from: TcpStream, to: TcpStream| {
        pass(from, to, |at, _| {
            if at > 300_000 {
                std::thread::sleep(Duration::from_secs(4));
            }
            true
        });
    };
    let results = over_tcp(hold, |mut world| {
        world.set_deadline(Duration::from_secs(1));
        sums(world)
    });
    for r in results {
        let e = r.unwrap_err();
        assert!(matches!(e, Error::RankFailed { rank: 0 | 1, .. }), "{e}");
        assert!(e.to_string().contains("waited 1 s for its data in all_reduce"), "{e}");
    }
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
}

#[test]
fn a_slow_connection_gives_the_same_sum() {
    let slow = |from: TcpStream, to: TcpStream| {
        pass(from, to, |_, _| {
            std::thread::sleep(Duration::from_millis(3));
            true
        });
    };
    for r in over_tcp(slow, sums) {
        r.unwrap();
    }
}

/// Somebody who was not at the rendezvous connects to a rank's port for data.
#[test]
fn a_stranger_at_the_door_for_data_is_not_heard() {
    let [a, b] = parties(None);
    for address in [a.table.addresses[0], a.table.addresses[1]] {
        std::thread::spawn(move || {
            let mut idle = Vec::new();
            for i in 0..20u8 {
                let mut s = TcpStream::connect(address).unwrap();
                // A rank's number, and no signature that fits.
                let _ = s.write_all(&[[i % 2, 0, 0, 0].as_slice(), &[i; 40]].concat());
                idle.push(s);
            }
            std::thread::sleep(Duration::from_secs(2));
        });
    }
    std::thread::sleep(Duration::from_millis(100));
    let all = [Tcp::new(&meeting(0, Way::Tcp), a).unwrap(), Tcp::new(&meeting(1, Way::Tcp), b).unwrap()];
    for r in run(all, sums) {
        r.unwrap();
    }
}

#[test]
fn shared_memory_that_was_changed_is_found() {
    // What rank 0 would write, with one bit of the head, or of the bytes, changed after the sum was made.
    for place in [0, 5, 40, HEAD, HEAD + 777] {
        let file = tempfile::tempfile().unwrap();
        segment::reserve(&file, segment::bytes(2)).unwrap();
        let [zero, party] = parties(None);
        // Judges, and writes nothing itself.
        let _zero = Shm::new(&meeting(0, Way::Shm), zero, Shared(file.try_clone().unwrap())).unwrap();
        let mut world = Communicator::new(
            Shm::new(&meeting(1, Way::Shm), party, Shared(file.try_clone().unwrap())).unwrap(),
        );
        let mut lanes = segment::map(&file, 0, 2).unwrap();
        let data = vec![3u8; 1000];
        let tag = super::Tag {
            context: 0,
            sequence: 0,
            call: super::Call::Send,
            dtype: crate::shape::DType::U8,
            reduce: None,
            algorithm: Algorithm::Ring,
            root: 1,
            count: 1000,
        };
        let mut head = Head::of(tag, 1000, 0, &data).encode();
        let mut bytes = data.clone();
        match place.checked_sub(HEAD) {
            None => head[place] ^= 4,
            Some(at) => bytes[at] ^= 4,
        }
        lanes.to[1].as_mut().unwrap().put(&bytes, |_| head);
        let e = world.recv(0, 1, &mut vec![0u8; 1000]).unwrap_err().to_string();
        assert!(
            e.contains("rank 0 failed: what it sent to rank 1") && e.contains("checksum"),
            "{place}: {e}"
        );
    }
    const { assert!(SLOT.is_multiple_of(8), "elements are whole in a piece") };
}
