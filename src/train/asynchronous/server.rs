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
use std::time::Duration;

/// Bytes of the word.
const WORD: usize = 32;
/// How long a stranger may take to say it.
const HELLO: Duration = Duration::from_secs(10);
/// Between two looks of who waits whether the job has failed.
const LOOK: Duration = Duration::from_millis(100);

/// What the threads share.
pub(super) struct Desk {
    central: Mutex<Central>,
    changed: Condvar,
    watch: Watch,
    /// Each rank's part of a batch.
    shares: Vec<f64>,
}

impl Desk {
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
        match self.central().ended {
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
    let desk = Arc::new(Desk { central: Mutex::new(central), changed: Condvar::new(), watch, shares });
    let (shared, expected) = (desk.clone(), word.clone());
    let listen = move || {
        // Nobody needs the door any more once the desk is left by all others.
        while Arc::strong_count(&shared) > 1 && shared.watch.check().is_ok() {
            match door.accept() {
                Ok((stream, _)) => greet(stream, &expected, &shared),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    };
    let thread = std::thread::Builder::new().name("server".into()).spawn(listen);
    thread.map_err(|e| Error::no_thread("the parameter server", &e))?;
    Ok((address, word, desk))
}

/// Serves who knows the word; a stranger's connection is closed without one.
fn greet(mut stream: TcpStream, word: &str, desk: &Arc<Desk>) {
    let (word, desk) = (word.to_string(), desk.clone());
    let body = move || {
        let mut hello = [0; WORD + 4];
        let heard = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(HELLO)))
            .and_then(|()| stream.read_exact(&mut hello));
        let (said, rank) = hello.split_at(WORD);
        let rank = u32::from_le_bytes([rank[0], rank[1], rank[2], rank[3]]) as usize;
        // In a time that does not depend on where it differs.
        let differs = said.iter().zip(word.as_bytes()).fold(0, |d, (a, b)| d | (a ^ b));
        if heard.is_err() || differs != 0 || rank >= desk.shares.len() {
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
    let mut stream = TcpStream::connect(address).map_err(refused)?;
    let mut hello = word.as_bytes().to_vec();
    hello.extend((rank as u32).to_le_bytes());
    stream.write_all(&hello).map_err(refused)?;
    Wire::new(stream, watch, 0, most).map_err(refused)
}
