//! How the ranks of a job find each other: rank 0 listens, the others come, and all go when all are there.
//!
//! Rank 0 hands every rank the table of addresses and the number of this meeting. Whoever does not know the secret is sent
//! away without a word and without harm; a rank that runs another configuration ends the meeting, and every rank is told
//! which field differs on which rank.

use super::hello::{Hello, Known, PROTOCOL, Reply, greet, number_of};
use super::link::{LARGE, Link, broken, refused};
use super::plane::Plane;
use super::secret::{Secret, random};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// What a rank needs to know to meet the others.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// This rank.
    pub rank: usize,
    /// All ranks.
    pub world: usize,
    /// Where rank 0 listens, as `host:port`.
    pub address: String,
    /// What they share.
    pub secret: Secret,
    /// Hash of what all must have configured alike.
    pub config: String,
    /// Hash of the data that all must have.
    pub dataset: String,
    /// Time for all to come.
    pub timeout: Duration,
    /// Which way data take; None: shared memory where all ranks run on one system, else TCP.
    pub plane: Option<Way>,
    /// Silence of a rank after which it counts as stopped or cut off.
    pub silence: Duration,
}

/// Which way data take between processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Way {
    /// Memory that the processes of one host share.
    Shm,
    /// Sockets.
    Tcp,
    /// Messages of the MPI that started the ranks (feature `mpi`).
    Mpi,
    /// The same, and sums of all ranks by MPI's own all-reduce.
    MpiSums,
}

/// What rank 0 tells everybody at the end.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Table {
    /// Drawn for this meeting: proves to a rank that a data connection comes from another.
    pub(super) session: [u8; 32],
    /// Where each rank listens for data; of rank 0 the port counts.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) plane: Plane,
}

/// A meeting that took place.
pub(super) struct Party {
    pub(super) table: Table,
    pub(super) listener: TcpListener,
    /// Rank 0 has one to each other rank, in order; the others one to rank 0.
    pub(super) links: Vec<Link>,
    pub(super) shared: Option<super::plane::Shared>,
}

/// Between two looks for who has come.
const LOOK: Duration = Duration::from_millis(3);
/// Once something differs: time for the others to come and hear of it.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that may be in their handshake at once.
const CROWD: usize = 512;

pub(super) fn meet(m: &Meeting) -> Result<Party> {
    if m.rank == 0 { receive_all(m) } else { join(m) }
}

fn resolve(address: &str) -> Result<SocketAddr> {
    let what = format!("{address} is no address");
    address.to_socket_addrs().map_err(broken(&what))?.next().ok_or_else(|| refused(what.clone()))
}

fn hello(m: &Meeting, port: u16) -> Hello {
    Hello {
        protocol: PROTOCOL,
        rank: m.rank as u32,
        world: m.world as u32,
        config: m.config.clone(),
        dataset: m.dataset.clone(),
        host: host(),
        port,
    }
}

/// Names the running system: its boot's number where there is one.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()
}

fn listen(ip: IpAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind((ip, 0)).map_err(broken("cannot listen for data"))?;
    listener.set_nonblocking(true).map_err(broken("cannot listen for data"))?;
    Ok(listener)
}

/// Rank 0's open door. Each visitor is greeted in a thread of its own, so that a slow one keeps nobody waiting.
struct Door {
    listener: TcpListener,
    secret: Secret,
    sender: Sender<Result<Known>>,
    greeted: Receiver<Result<Known>>,
    /// Cloned into each thread: their number is that of the visitors.
    crowd: Arc<()>,
}

impl Door {
    fn open(address: SocketAddr, secret: &Secret) -> Result<Door> {
        let listener = TcpListener::bind(address).map_err(broken(&format!("cannot listen at {address}")))?;
        listener.set_nonblocking(true).map_err(broken("cannot listen"))?;
        let (sender, greeted) = channel();
        Ok(Door { listener, secret: secret.clone(), sender, greeted, crowd: Arc::new(()) })
    }

    /// The next visitor that was greeted, if there is one soon.
    fn next(&self) -> Option<Result<Known>> {
        while let Ok((stream, _)) = self.listener.accept() {
            if Arc::strong_count(&self.crowd) > CROWD {
                // Those that belong here come again.
                continue;
            }
            let (sender, secret, guest) = (self.sender.clone(), self.secret.clone(), self.crowd.clone());
            // Where no thread can be started the connection closes, and a rank comes again.
            let _ = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
                let greeted = stream.set_nonblocking(false).map_err(broken("a connection"));
                let _ = sender.send(greeted.and_then(|()| Known::accept(stream, &secret)));
                drop(guest);
            });
        }
        self.greeted.recv_timeout(LOOK).ok()
    }
}

/// Rank 0's part.
fn receive_all(m: &Meeting) -> Result<Party> {
    let address = resolve(&m.address)?;
    let door = Door::open(address, &m.secret)?;
    let listener = listen(address.ip())?;
    let own = hello(m, listener.local_addr().map_err(broken("no address"))?.port());
    let mut guests = gather(m, &own, &door)?;
    let mut addresses = vec![SocketAddr::new(address.ip(), own.port)];
    let mut links = Vec::new();
    let together = guests.iter().flatten().all(|g| g.hello.host == own.host);
    for guest in guests.iter_mut().skip(1) {
        let Some(guest) = guest.take() else { continue }; // all have come
        let port = guest.hello.port;
        let stream = guest.answer(&Reply::Joined)?;
        let ip = stream.peer_addr().map_err(broken("a rank has left"))?.ip();
        addresses.push(SocketAddr::new(ip, port));
        links.push(Link::new(stream));
    }
    let way = m.plane.unwrap_or(if together && !own.host.is_empty() { Way::Shm } else { Way::Tcp });
    let (plane, shared) = Plane::open(way, m.world)?;
    let table = Table { session: random()?, addresses, plane };
    let ready = agree(&mut links, &table, m.timeout);
    table.plane.unlink();
    ready?;
    Ok(Party { table, listener, links, shared })
}

/// Sends the table, and waits until all can use it.
fn agree(links: &mut [Link], table: &Table, timeout: Duration) -> Result<()> {
    let mut trouble = None;
    for (i, link) in links.iter_mut().enumerate() {
        let answer = match link.send(table) {
            Ok(()) => link.expect::<Option<String>>(LARGE, timeout.min(Duration::from_secs(10))),
            Err(e) => Err(e.to_string()),
        };
        if let Some(what) = answer.unwrap_or_else(Some) {
            trouble.get_or_insert(format!("rank {}: {what}", i + 1));
        }
    }
    for link in links.iter_mut() {
        let told = link.send(&trouble);
        if let Err(e) = told {
            trouble.get_or_insert(e.to_string());
        }
    }
    trouble.map_or(Ok(()), |what| Err(refused(what)))
}

/// Waits for all ranks, or for the first that differs and then a little for others to tell them.
fn gather(m: &Meeting, own: &Hello, door: &Door) -> Result<Vec<Option<Known>>> {
    let mut guests: Vec<Option<Known>> = (0..m.world).map(|_| None).collect();
    let mut until = Instant::now() + m.timeout;
    let (mut differences, mut strangers) = (Vec::new(), Vec::new());
    while guests.iter().skip(1).any(Option::is_none) && Instant::now() < until {
        match door.next() {
            Some(Ok(known)) => {
                let unlike = known.hello.differences(own);
                if differences.is_empty() && !unlike.is_empty() {
                    until = until.min(Instant::now() + LINGER);
                }
                differences.extend(unlike);
                match guests.get_mut(known.hello.rank as usize) {
                    Some(place) if place.is_none() && known.hello.rank > 0 => *place = Some(known),
                    _ => {
                        let what = format!("rank {} is taken, or not one of {}", known.hello.rank, m.world);
                        let _ = known.answer(&Reply::Refused(what));
                    }
                }
            }
            Some(Err(e)) => strangers.push(e.to_string()),
            None => {}
        }
    }
    let missing: Vec<usize> = (1..m.world).filter(|&r| guests[r].is_none()).collect();
    if differences.is_empty() && missing.is_empty() {
        return Ok(guests);
    }
    let mut what = differences.join("; ");
    if what.is_empty() {
        what = format!("after {:.1} s these ranks have not come: {missing:?}", m.timeout.as_secs_f64());
        if let Some(last) = strangers.last() {
            let (n, last) = (strangers.len(), last.trim_start_matches("rendezvous: "));
            what += &format!("; {n} connections were refused, the last because {last}");
        }
    }
    for guest in guests.into_iter().flatten() {
        let _ = guest.answer(&Reply::Refused(what.clone()));
    }
    Err(refused(what))
}

/// Everybody else's part.
fn join(m: &Meeting) -> Result<Party> {
    let until = Instant::now() + m.timeout;
    let address = resolve(&m.address)?;
    let (mut stream, number) = connect(address, until, m.timeout)?;
    let own = stream.local_addr().map_err(broken("no address"))?;
    let listener = listen(own.ip())?;
    let hello = hello(m, listener.local_addr().map_err(broken("no address"))?.port());
    // Rank 0 answers when all have come, and gives up by the same time.
    match greet(&mut stream, &number, &m.secret, &hello, until + LINGER + LINGER)? {
        Reply::Joined => {}
        Reply::Refused(what) => return Err(refused(what)),
    }
    let mut link = Link::new(stream);
    let patience = Duration::from_secs(20);
    let mut table: Table = link.expect(LARGE, patience).map_err(|e| refused(format!("rank 0: {e}")))?;
    if let Some(zero) = table.addresses.first_mut() {
        zero.set_ip(address.ip());
    }
    let (shared, trouble) = match table.plane.join(m.world) {
        Ok(shared) => (shared, None),
        Err(e) => (None, Some(e.to_string())),
    };
    link.send(&trouble).map_err(broken("rank 0"))?;
    match link.expect::<Option<String>>(LARGE, patience) {
        Ok(None) if table.addresses.len() == m.world => {
            Ok(Party { table, listener, links: vec![link], shared })
        }
        Ok(None) => Err(refused("rank 0 knows another number of ranks")),
        Ok(Some(what)) => Err(refused(what)),
        Err(e) => Err(refused(format!("rank 0: {e}"))),
    }
}

/// Connects as soon as rank 0 listens and has time. Gives the number that it drew.
fn connect(address: SocketAddr, until: Instant, timeout: Duration) -> Result<(TcpStream, [u8; 32])> {
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let try_once = || -> Result<_> {
            let mut stream = TcpStream::connect_timeout(&address, left).map_err(broken("no connection"))?;
            let number = number_of(&mut stream, until)?;
            Ok((stream, number))
        };
        match try_once() {
            Ok(met) => return Ok(met),
            Err(e) if Instant::now() >= until => {
                let (seconds, e) = (timeout.as_secs_f64(), e.to_string());
                let e = e.trim_start_matches("rendezvous: ");
                return Err(refused(format!("rank 0 was not at {address} within {seconds:.1} s: {e}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
