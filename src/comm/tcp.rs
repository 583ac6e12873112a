//! Ranks that are processes, on one host or many, and send over TCP.
//!
//! Each pair of ranks that talks has a connection for each direction, made when the first message is sent. Sockets do not
//! block: an exchange writes what can be written and reads what is there, so no order of sending can hang it.

use super::control::Control;
use super::frame::{HEAD, Head};
use super::pieces::{Arriving, Leaving, Pieces, Side, carry};
use super::rendezvous::{Meeting, Party, Table};
use super::secret::Secret;
use super::transport::{Incoming, Job, Outgoing, Transport, Wait, spins};
use super::watch::Watch;
use crate::error::{Error, Result};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Bytes of a piece: large enough that heads and sums of pieces do not count, small enough for a core's cache.
const PIECE: usize = 256 << 10;
/// Time to reach a rank, and for what a rank sent before it left to arrive.
const REACH: Duration = Duration::from_secs(2);
/// Bytes with which a data connection begins: who comes, and that it was at the rendezvous.
const TICKET: usize = 4 + 32;
/// Data connections whose ticket has not come yet.
const PENDING: usize = 64;

/// One rank among processes.
pub(super) struct Tcp {
    /// First, so that dropping says goodbye before connections close.
    _control: Control,
    rank: usize,
    world: usize,
    watch: Watch,
    table: Table,
    key: Secret,
    listener: TcpListener,
    pending: Vec<(TcpStream, Vec<u8>)>,
    outbound: Vec<Option<Outbound>>,
    inbound: Vec<Option<Inbound>>,
    /// A piece that is to be summed; words, so that elements are aligned.
    staging: Vec<u64>,
    sent: u64,
    spins: u32,
}

struct Outbound {
    stream: TcpStream,
    head: [u8; HEAD],
    /// Bytes of the piece in progress, its head included, that are gone; None between pieces.
    at: Option<usize>,
}

struct Inbound {
    stream: TcpStream,
    head: [u8; HEAD],
    have: usize,
    /// Of the piece in progress, once its head is whole, and the bytes of it that came.
    piece: Option<(Head, usize)>,
}

/// What an attempt to move bytes gave.
enum Moved {
    Some,
    Nothing,
    Closed(String),
}

fn moved(result: std::io::Result<usize>) -> std::result::Result<usize, Moved> {
    match result {
        Ok(0) => Err(Moved::Closed("its connection closed".into())),
        Ok(n) => Ok(n),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Err(Moved::Nothing),
        Err(e) => Err(Moved::Closed(format!("its connection broke ({e})"))),
    }
}

impl Tcp {
    pub(super) fn new(m: &Meeting, party: Party) -> Result<Tcp> {
        let watch = Watch::new(m.world);
        let control = Control::start(&watch, m.rank, party.links, m.silence)
            .map_err(|e| Error::no_thread("the control of ranks", &e))?;
        Ok(Tcp {
            _control: control,
            rank: m.rank,
            world: m.world,
            watch,
            key: Secret::of(&party.table.session),
            table: party.table,
            listener: party.listener,
            pending: Vec::new(),
            outbound: (0..m.world).map(|_| None).collect(),
            inbound: (0..m.world).map(|_| None).collect(),
            staging: vec![0; PIECE / 8],
            sent: 0,
            spins: spins(m.world).min(50),
        })
    }

    fn ticket(&self, from: usize, to: usize) -> [u8; TICKET] {
        let who = (from as u32).to_le_bytes();
        let mut bytes = [0; TICKET];
        bytes[..4].copy_from_slice(&who);
        bytes[4..].copy_from_slice(&self.key.sign(&[b"data", &who, &(to as u32).to_le_bytes()]));
        bytes
    }

    /// The connection to `to`, made at its first use.
    fn reach(&mut self, to: usize, side: &Side<'_>) -> Result<()> {
        if self.outbound[to].is_some() {
            return Ok(());
        }
        let connected = TcpStream::connect_timeout(&self.table.addresses[to], REACH).and_then(|mut s| {
            s.set_nodelay(true)?;
            s.set_write_timeout(Some(REACH))?;
            s.write_all(&self.ticket(self.rank, to))?;
            s.set_nonblocking(true)?;
            Ok(s)
        });
        let stream = connected.map_err(|e| side.blame(to, format!("it cannot be reached ({e})")))?;
        self.outbound[to] = Some(Outbound { stream, head: [0; HEAD], at: None });
        Ok(())
    }

    /// Takes in connections that came, once their tickets are right.
    fn welcome(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                if self.pending.len() == PENDING {
                    self.pending.remove(0);
                }
                self.pending.push((stream, Vec::new()));
            }
        }
        let mut i = 0;
        while i < self.pending.len() {
            let (stream, bytes) = &mut self.pending[i];
            let mut more = [0; TICKET];
            match moved(stream.read(&mut more[bytes.len()..])) {
                Ok(n) => {
                    let start = bytes.len();
                    bytes.extend_from_slice(&more[start..start + n]);
                }
                Err(Moved::Closed(_)) => {
                    self.pending.remove(i);
                    continue;
                }
                Err(_) => {}
            }
            if self.pending[i].1.len() < TICKET {
                i += 1;
                continue;
            }
            let (stream, bytes) = self.pending.remove(i);
            let from = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let right = self
                .key
                .verify(&[b"data", &from.to_le_bytes(), &(self.rank as u32).to_le_bytes()], &bytes[4..]);
            if let Some(place) = self.inbound.get_mut(from as usize).filter(|p| right && p.is_none()) {
                *place = Some(Inbound { stream, head: [0; HEAD], have: 0, piece: None });
            }
        }
    }
}

impl Pieces for Tcp {
    fn push(&mut self, side: &Side<'_>, l: &mut Leaving<'_>) -> Result<bool> {
        self.reach(l.to, side)?;
        let Some(out) = &mut self.outbound[l.to] else { return Ok(false) };
        let (offset, piece) = l.piece(PIECE);
        let at = match out.at {
            Some(at) => at,
            None => {
                out.head = Head::of(side.job.tag, l.total(), offset, piece).encode();
                0
            }
        };
        out.at = Some(at);
        let (head, body) = (&out.head[at.min(HEAD)..], &piece[at.saturating_sub(HEAD)..]);
        match moved(out.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])) {
            Ok(n) if at + n == HEAD + piece.len() => {
                out.at = None;
                l.gone(piece.len());
                Ok(true)
            }
            Ok(n) => {
                out.at = Some(at + n);
                Ok(true)
            }
            Err(Moved::Closed(why)) => Err(side.blame(l.to, format!("{why}: its process has ended"))),
            Err(_) => Ok(false),
        }
    }

    fn pull(&mut self, side: &Side<'_>, a: &mut Arriving<'_>) -> Result<bool> {
        if self.inbound[a.from].is_none() {
            self.welcome();
        }
        let Some(link) = &mut self.inbound[a.from] else { return Ok(false) };
        match link.pull(side, a, bytemuck::cast_slice_mut(&mut self.staging))? {
            Moved::Some => Ok(true),
            Moved::Nothing => Ok(false),
            Moved::Closed(_) if self.watch.has_left(a.from) => {
                Err(side.watch.suspect(super::watch::Suspicion::Sure(self.watch.why_left(a.from))))
            }
            Moved::Closed(why) => Err(side.blame(a.from, format!("{why}: its process has ended"))),
        }
    }
}

impl Inbound {
    fn pull(&mut self, side: &Side<'_>, a: &mut Arriving<'_>, staging: &mut [u8]) -> Result<Moved> {
        let (head, got) = match self.piece {
            Some(piece) => piece,
            None => {
                match moved(self.stream.read(&mut self.head[self.have..])) {
                    Ok(n) => self.have += n,
                    Err(why) => return Ok(why),
                }
                if self.have < HEAD {
                    return Ok(Moved::Some);
                }
                self.have = 0;
                let head = Head::decode(&self.head).ok_or_else(|| side.damaged(a.from))?;
                a.check(side, &head, PIECE)?;
                self.piece = Some((head, 0));
                (head, 0)
            }
        };
        let len = head.len as usize;
        let body = match a.place(len) {
            Some(place) => place,
            None => &mut staging[..len],
        };
        let now = match moved(if got < len { self.stream.read(&mut body[got..]) } else { Ok(usize::MAX) }) {
            Ok(usize::MAX) => len,
            Ok(n) => got + n,
            Err(why) => return Ok(why),
        };
        self.piece = Some((head, now));
        if now < len {
            return Ok(Moved::Some);
        }
        if !head.fits(body) {
            return Err(side.damaged(a.from));
        }
        self.piece = None;
        if a.place(len).is_some() {
            a.placed(len);
        } else {
            a.take(&staging[..len]);
        }
        Ok(Moved::Some)
    }
}

impl Transport for Tcp {
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
        wait.patience = REACH;
        self.sent += carry(self, &side, &mut wait, out, into)?;
        Ok(())
    }
}
