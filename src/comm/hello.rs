//! The handshake of one connection: who is there, and does it belong to the job?
//!
//! ```text
//! rank 0 → rank r   RINGTAPE, a number drawn by rank 0
//! rank r → rank 0   RINGTAPE, a number drawn by rank r, length, Hello, HMAC(secret; "join", both numbers, Hello)
//! rank 0 → rank r   Reply, HMAC(secret; "reply", both numbers, Reply)
//! ```
//!
//! Before the secret is proved, a connection costs rank 0 a thread and at most 1 KiB.

use super::link::{SMALL, read_within, refused};
use super::secret::{Secret, random};
use crate::error::Result;
use crate::wire;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Version of what goes between ranks. In every version a [`Hello`] begins with the version, the rank and the number of
/// ranks, and a [`Reply`] is what it is here: so that versions can tell each other that they differ.
pub(super) const PROTOCOL: u32 = 1;
const MAGIC: &[u8; 8] = b"RINGTAPE";
/// Time for the handshake of a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a rank says of itself.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    pub(super) rank: u32,
    pub(super) world: u32,
    pub(super) config: String,
    pub(super) dataset: String,
    /// The running system: ranks of one may share memory.
    pub(super) host: String,
    /// Where it listens for data.
    pub(super) port: u16,
}

impl Hello {
    /// From what somebody sent who knows the secret. Of another version only the numbers are read that all begin with.
    fn decode(body: &[u8]) -> std::result::Result<Hello, String> {
        let first = body.get(..12).unwrap_or(body);
        let [protocol, rank, world]: [u32; 3] = wire::decode(first, SMALL as u64)?;
        if protocol == PROTOCOL {
            return wire::decode(body, SMALL as u64);
        }
        let nothing = String::new;
        Ok(Hello { protocol, rank, world, config: nothing(), dataset: nothing(), host: nothing(), port: 0 })
    }

    /// Where this rank runs something else than rank 0: `rank 2 has config a, rank 0 has b`.
    pub(super) fn differences(&self, zero: &Hello) -> Vec<String> {
        let fields = [
            ("protocol version", self.protocol.to_string(), zero.protocol.to_string()),
            ("world size", self.world.to_string(), zero.world.to_string()),
            ("config hash", self.config.clone(), zero.config.clone()),
            ("dataset hash", self.dataset.clone(), zero.dataset.clone()),
        ];
        // Of another version no more is known.
        let known = if self.protocol == zero.protocol { fields.len() } else { 1 };
        let unlike = fields.into_iter().take(known).filter(|(_, a, b)| a != b);
        unlike.map(|(name, a, b)| format!("rank {} has {name} {a}, rank 0 has {b}", self.rank)).collect()
    }
}

/// What rank 0 answers.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(super) enum Reply {
    Joined,
    Refused(String),
}

/// Signs and sends a body: length, body, signature.
fn send_signed(
    stream: &mut TcpStream,
    head: &[u8],
    secret: &Secret,
    parts: [&[u8]; 3],
    body: &[u8],
) -> Result<()> {
    let signature = secret.sign(&[parts[0], parts[1], parts[2], body]);
    let bytes = [head, &(body.len() as u16).to_le_bytes(), body, &signature].concat();
    let sent = stream.set_write_timeout(Some(PATIENCE)).and_then(|()| stream.write_all(&bytes));
    sent.map_err(|e| refused(e.to_string()))
}

/// Receives a body; the flag says whether its signature is right.
fn receive_signed(
    stream: &mut TcpStream,
    secret: &Secret,
    parts: [&[u8]; 3],
    until: Instant,
) -> Result<(Vec<u8>, bool)> {
    let mut len = [0; 2];
    read_within(stream, &mut len, until)?;
    let len = u16::from_le_bytes(len) as usize;
    if len > SMALL {
        return Err(refused("the other side sent what is no greeting"));
    }
    let (mut body, mut signature) = (vec![0; len], [0; 32]);
    read_within(stream, &mut body, until)?;
    read_within(stream, &mut signature, until)?;
    let right = secret.verify(&[parts[0], parts[1], parts[2], &body], &signature);
    Ok((body, right))
}

/// A connection whose other side proved the secret, waiting for an answer.
pub(super) struct Known {
    stream: TcpStream,
    secret: Secret,
    numbers: [[u8; 32]; 2],
    pub(super) hello: Hello,
}

impl Known {
    /// Rank 0's side. Errors say what the stranger did.
    pub(super) fn accept(mut stream: TcpStream, secret: &Secret) -> Result<Known> {
        let until = Instant::now() + PATIENCE;
        let ours = random::<32>()?;
        let sent = stream
            .set_write_timeout(Some(PATIENCE))
            .and_then(|()| stream.write_all(&[&MAGIC[..], &ours].concat()));
        sent.map_err(|e| refused(e.to_string()))?;
        let (mut magic, mut theirs) = ([0; 8], [0; 32]);
        read_within(&mut stream, &mut magic, until)?;
        if magic != *MAGIC {
            return Err(refused("it does not speak ringtape's protocol"));
        }
        read_within(&mut stream, &mut theirs, until)?;
        let (body, right) = receive_signed(&mut stream, secret, [b"join", &ours, &theirs], until)?;
        if !right {
            // Unsigned words would be worth nothing: who has another secret learns just that.
            return Err(refused("it does not know the secret"));
        }
        let hello = Hello::decode(&body).map_err(refused)?;
        Ok(Known { stream, secret: secret.clone(), numbers: [ours, theirs], hello })
    }

    /// Answers, and gives the connection.
    pub(super) fn answer(mut self, reply: &Reply) -> Result<TcpStream> {
        let [ours, theirs] = &self.numbers;
        let mut body = wire::encode(reply)?;
        if body.len() > SMALL {
            body = wire::encode(&Reply::Refused("see what rank 0 says".into()))?;
        }
        send_signed(&mut self.stream, &[], &self.secret, [b"reply", ours, theirs], &body)?;
        Ok(self.stream)
    }
}

/// The other side: the number that rank 0 drew for this connection.
pub(super) fn number_of(stream: &mut TcpStream, until: Instant) -> Result<[u8; 32]> {
    let (mut magic, mut number) = ([0; 8], [0; 32]);
    read_within(stream, &mut magic, until)?;
    if magic != *MAGIC {
        return Err(refused("what listens there does not speak ringtape's protocol"));
    }
    read_within(stream, &mut number, until)?;
    Ok(number)
}

/// Greets rank 0, which drew the number `theirs`, and waits for its answer until `until`.
pub(super) fn greet(
    stream: &mut TcpStream,
    theirs: &[u8; 32],
    secret: &Secret,
    hello: &Hello,
    until: Instant,
) -> Result<Reply> {
    let ours = random::<32>()?;
    let body = wire::encode(hello)?;
    send_signed(stream, &[&MAGIC[..], &ours].concat(), secret, [b"join", theirs, &ours], &body)?;
    let answer = receive_signed(stream, secret, [b"reply", theirs, &ours], until);
    let (body, right) = answer.map_err(|e| match e.to_string() {
        text if text.contains("the connection closed") || text.contains("reset") => {
            refused("rank 0 closed the connection: is its secret another, or the rank taken?")
        }
        _ => e,
    })?;
    if !right {
        return Err(refused("what listens there does not know the secret"));
    }
    wire::decode(&body, SMALL as u64).map_err(refused)
}
