//! Small messages over a TCP connection: a length, a CRC-32C, and a value by [`crate::wire`].

use crate::error::{Error, Result};
use crate::wire;
use serde::{Serialize, de::DeserializeOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Longest message of a stranger, and of a known rank.
pub(super) const SMALL: usize = 1 << 10;
pub(super) const LARGE: usize = 64 << 10;

/// What reading gave.
pub(super) enum Got<T> {
    Value(T),
    /// Nothing whole yet.
    Nothing,
    /// The other side closed, or the connection broke; why.
    Closed(String),
}

/// One side of a connection.
pub(super) struct Link {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> Link {
        // Small messages should not wait for more; a system that cannot do so is only slower.
        let _ = stream.set_nodelay(true);
        Link { stream, buffer: Vec::new() }
    }

    /// Another handle of the connection, to write to while this one is read.
    pub(super) fn writer(&self) -> std::io::Result<Link> {
        Ok(Link { stream: self.stream.try_clone()?, buffer: Vec::new() })
    }

    pub(super) fn send(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        let body = wire::encode(value).map_err(|e| std::io::Error::other(e.to_string()))?;
        let mut bytes = Vec::with_capacity(8 + body.len());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        self.stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        self.stream.write_all(&bytes)
    }

    /// A value of at most `limit` bytes that is there, or comes within `patience`.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, limit: usize, patience: Duration) -> Got<T> {
        let until = Instant::now() + patience;
        loop {
            match self.whole(limit) {
                Ok(Some(value)) => return Got::Value(value),
                Ok(None) => {}
                Err(why) => return Got::Closed(why),
            }
            let left = until.saturating_duration_since(Instant::now());
            let mut piece = [0; 1024];
            // A timeout of zero is refused.
            let timeout = self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))));
            match timeout.and_then(|()| self.stream.read(&mut piece)) {
                Ok(0) => return Got::Closed("its connection closed".into()),
                Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return Got::Nothing;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Got::Closed(format!("its connection broke ({e})")),
            }
        }
    }

    /// A value, by `patience`; what else happens is a text.
    pub(super) fn expect<T: DeserializeOwned>(
        &mut self,
        limit: usize,
        patience: Duration,
    ) -> std::result::Result<T, String> {
        match self.receive(limit, patience) {
            Got::Value(v) => Ok(v),
            Got::Nothing => Err(format!("nothing came within {:.1} s", patience.as_secs_f64())),
            Got::Closed(why) => Err(why),
        }
    }

    /// The first value in the buffer. A length is looked at before memory is taken for it.
    fn whole<T: DeserializeOwned>(&mut self, limit: usize) -> std::result::Result<Option<T>, String> {
        let Some(head) = self.buffer.first_chunk::<8>() else { return Ok(None) };
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if len > limit {
            return Err("it sent what is no message".into());
        }
        let Some(body) = self.buffer.get(8..8 + len) else { return Ok(None) };
        if crc32c::crc32c(body) != crc {
            return Err("what it sent was damaged on the way".into());
        }
        let value = wire::decode(body, limit as u64)?;
        self.buffer.drain(..8 + len);
        Ok(Some(value))
    }

    /// Says that nothing more comes; the other side may still send.
    pub(super) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// A rendezvous that failed, in words.
pub(super) fn refused(what: impl Into<String>) -> Error {
    Error::Rendezvous(what.into())
}

/// A rendezvous that the system refused.
pub(super) fn broken(what: &str) -> impl Fn(std::io::Error) -> Error + '_ {
    move |e| Error::Rendezvous(format!("{what}: {e}"))
}

/// Exactly `bytes`, within `patience` in all: who sends byte by byte gets no more time than others.
pub(super) fn read_within(stream: &mut TcpStream, bytes: &mut [u8], until: Instant) -> Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(refused("the other side is too slow"));
        }
        let read = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut bytes[at..]));
        match read {
            Ok(0) => return Err(refused("the connection closed")),
            Ok(n) => at += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(refused(e.to_string())),
        }
    }
    Ok(())
}
