//! The parameter server: threads in rank 0's process, beside its own training, one for each rank.
//!
//! Ranks find it by an address that rank 0 tells them, and prove that they belong to the job by a word that it told them too.

use super::central::{Answer, Central};
use super::wire::{Message, Wire};
use crate::comm::{Failure, Secret, Watch};
use crate::error::{Error, Result};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of the word, and of the numbers that are drawn for a connection.
const WORD: usize = 32;
/// Bytes of the proof that somebody knows the word.
const PROOF: usize = 32;
/// Connections at a time, with two that the job holds itself.
const CROWD: usize = 1 << 10;
/// How long a stranger may take to give it.
const HELLO: Duration = Duration::from_secs(10);
/// How long rank 0 stays for others to hear of trouble.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks of who waits whether the job has failed.
const LOOK: Duration = Duration::from_millis(100);

/// What the threads share.
pub(super) struct Desk {
    central: Mutex<Central>,
    changed: Condvar,
    watch: Watch,
    /// Each rank's part of a batch.
    shares: Vec<f64>,
    /// Which ranks have come, and how many have left.
    came: Mutex<(Vec<bool>, usize)>,
}

impl Desk {
    fn came(&self) -> MutexGuard<'_, (Vec<bool>, usize)> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rank `rank` comes; false where it is here already.
    fn comes(&self, rank: usize) -> bool {
        !std::mem::replace(&mut self.came().0[rank], true)
    }

    /// Where there is trouble, waits until all ranks but this one have heard of it: the server ends with the process.
    pub(super) fn see_off(&self) {
        let (others, from) = (self.shares.len() - 1, Instant::now());
        while from.elapsed() < PATIENCE
            && self.central().trouble.is_some()
            && self.came().1 < others
            && self.watch.check().is_ok()
        {
            std::thread::sleep(LOOK);
        }
    }

    pub(super) fn central(&self) -> MutexGuard<'_, Central> {
        self.central.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody may go on.
    pub(super) fn tell(&self) {
        self.changed.notify_all();
    }

    fn wait<'a>(&self, central: MutexGuard<'a, Central>) -> Result<MutexGuard<'a, Central>> {
        self.watch.check()?;
        Ok(self.changed.wait_timeout(central, LOOK).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Serves `rank` until it ends.
    fn serve(&self, rank: usize, wire: &mut Wire) -> Result<()> {
        let segments = self.central().params.segments().to_vec();
        let expected: usize =
            segments.iter().filter(|s| s.role != crate::tape::Role::State).map(|s| s.len).sum();
        while let Some(m) = wire.receive()? {
            let mut central = self.central();
            if m.words.is_empty() {
                if m.numbers.len() != expected {
                    return Err(wire.gone("its gradient is not that of the model"));
                }
                while central.is_meeting() {
                    central = self.wait(central)?;
                }
                central.push(rank, &m.numbers, self.shares[rank], m.stop)?;
            } else {
                central.fail(rank, &m.words);
            }
            self.tell();
            let answer = loop {
                match central.answer(rank) {
                    Answer::Wait => central = self.wait(central)?,
                    answer => break answer,
                }
            };
            // Others may have waited for this one to come to a meeting.
            self.tell();
            let answer = match answer {
                Answer::Go { step, lead, meets, stop } => {
                    let (numbers, lead) = (weights(&central)?, lead as u32);
                    Message { step, lead, meets, stop, numbers, ..Message::default() }
                }
                Answer::End(words) => Message { words, ..Message::default() },
                Answer::Wait => continue,
            };
            drop(central);
            wire.send(&answer)?;
        }
        let central = self.central();
        // In trouble ranks leave one after the other, each when it has heard of it.
        match central.ended || central.trouble.is_some() {
            true => Ok(()),
            false => Err(wire.gone("it left before the end")),
        }
    }
}

/// The weights and states of all segments, one after the other.
fn weights(central: &Central) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for i in 0..central.params.segments().len() {
        all.extend_from_slice(central.params.segment(i).as_slice::<f32>()?);
    }
    Ok(all)
}

/// Opens a server on `host`. Gives where it is, the word, and its desk.
pub(super) fn open(
    host: &str,
    central: Central,
    shares: Vec<f64>,
    watch: Watch,
) -> Result<(SocketAddr, String, Arc<Desk>)> {
    let refused =
        |e: std::io::Error| Error::Rendezvous(format!("the parameter server cannot listen on {host}: {e}"));
    let door = TcpListener::bind((host, 0)).map_err(refused)?;
    let address = door.local_addr().map_err(refused)?;
    door.set_nonblocking(true).map_err(refused)?;
    let word = Secret::draw()?;
    let secret = Secret::new(word.as_bytes())?;
    let came = Mutex::new((vec![false; shares.len()], 0));
    let desk = Arc::new(Desk { central: Mutex::new(central), changed: Condvar::new(), watch, shares, came });
    let shared = desk.clone();
    let listen = move || {
        // Nobody needs the door any more once all are in, or the desk is left by all others.
        let waits = || shared.came().0.iter().any(|came| !came) && Arc::strong_count(&shared) > 1;
        while waits() && shared.watch.check().is_ok() {
            match door.accept() {
                Ok((stream, _)) if Arc::strong_count(&shared) < CROWD => greet(stream, &secret, &shared),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    };
    let thread = std::thread::Builder::new().name("server".into()).spawn(listen);
    thread.map_err(|e| Error::no_thread("the parameter server", &e))?;
    Ok((address, word, desk))
}

/// Who is there: what a rank makes of the numbers that the server drew for this connection, by the word that only ranks know.
fn hear(stream: &mut TcpStream, secret: &Secret) -> std::io::Result<Option<usize>> {
    let fresh = Secret::draw().map_err(std::io::Error::other)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HELLO))?;
    stream.write_all(fresh.as_bytes())?;
    let mut hello = [0; PROOF + 4];
    stream.read_exact(&mut hello)?;
    let (proof, rank) = hello.split_at(PROOF);
    let known = secret.verify(&[fresh.as_bytes(), rank], proof);
    Ok(known.then(|| u32::from_le_bytes([rank[0], rank[1], rank[2], rank[3]]) as usize))
}

/// Serves who knows the word; a stranger's connection is closed without one.
fn greet(mut stream: TcpStream, secret: &Secret, desk: &Arc<Desk>) {
    let (secret, desk) = (secret.clone(), desk.clone());
    let body = move || {
        let Ok(Some(rank)) = hear(&mut stream, &secret) else { return };
        if rank >= desk.shares.len() || !desk.comes(rank) {
            return;
        }
        let most = desk.central().params.segments().iter().map(|s| s.len).sum();
        if let Ok(mut wire) = Wire::new(stream, desk.watch.clone(), rank, most) {
            if let Err(e) = desk.serve(rank, &mut wire)
                && desk.watch.check().is_ok()
            {
                // All ranks hear of the verdict.
                desk.watch.fail(Failure::Rank { rank: 0, what: format!("its parameter server: {e}") });
            }
            if rank > 0 {
                desk.came().1 += 1;
            }
            desk.tell();
        }
    };
    // Without a thread the rank finds its connection closed.
    let _ = std::thread::Builder::new().name("server".into()).spawn(body);
}

/// Connects `rank` to the server.
pub(super) fn connect(address: &str, word: &str, rank: usize, watch: Watch, most: usize) -> Result<Wire> {
    let refused = |e: std::io::Error| {
        Error::Rendezvous(format!("the parameter server at {address} cannot be reached: {e}"))
    };
    let (secret, rank) = (Secret::new(word.as_bytes())?, (rank as u32).to_le_bytes());
    let at: SocketAddr = address.parse().map_err(|e| refused(std::io::Error::other(e)))?;
    let mut stream = TcpStream::connect_timeout(&at, HELLO).map_err(refused)?;
    let mut fresh = [0; WORD];
    stream.set_read_timeout(Some(HELLO)).and_then(|()| stream.read_exact(&mut fresh)).map_err(refused)?;
    let mut hello = secret.sign(&[&fresh, &rank]).to_vec();
    hello.extend(rank);
    stream.write_all(&hello).map_err(refused)?;
    Wire::new(stream, watch, 0, most).map_err(refused)
}
