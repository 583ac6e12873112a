//! What goes between ranks and their parameter server: a head of 40 bytes, numbers, words, with a CRC-32 over all of it.

use crate::comm::{Failure, Suspicion, Watch};
use crate::error::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How often who waits for bytes looks whether the job has failed.
const LOOK: Duration = Duration::from_millis(100);
/// Longest text.
const WORDS: u32 = 1 << 16;

/// A message.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    /// Steps of the whole team; unused by ranks.
    pub(super) step: u64,
    /// The most steps that a rank was ahead.
    pub(super) lead: u32,
    /// All ranks meet.
    pub(super) meets: bool,
    /// A signal that asks to stop.
    pub(super) stop: i32,
    /// A rank is in trouble.
    pub(super) words: String,
    /// Weights or gradients.
    pub(super) numbers: Vec<f32>,
}

/// One end of a connection.
pub(super) struct Wire {
    stream: TcpStream,
    watch: Watch,
    /// Who is at the other end, for the verdict.
    peer: usize,
    /// Numbers of a message; more are refused before memory is taken.
    most: usize,
}

impl Wire {
    /// Over `stream`, whose other end is rank `peer`; messages have up to `most` numbers.
    pub(super) fn new(stream: TcpStream, watch: Watch, peer: usize, most: usize) -> std::io::Result<Wire> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        Ok(Wire { stream, watch, peer, most })
    }

    pub(super) fn send(&mut self, m: &Message) -> Result<()> {
        let numbers: &[u8] = bytemuck::cast_slice(&m.numbers);
        let mut bytes = Vec::with_capacity(40 + numbers.len() + m.words.len());
        bytes.extend(m.step.to_le_bytes());
        bytes.extend(m.lead.to_le_bytes());
        bytes.extend(u32::from(m.meets).to_le_bytes());
        bytes.extend(m.stop.to_le_bytes());
        bytes.extend((m.words.len() as u32).to_le_bytes());
        bytes.extend((m.numbers.len() as u64).to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        [&bytes[..], m.words.as_bytes(), numbers].iter().for_each(|part| crc.update(part));
        bytes.extend(crc.finalize().to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(m.words.as_bytes());
        bytes.extend(numbers);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(self.gone("its connection to the parameter server was closed")),
                Ok(n) => rest = &rest[n..],
                Err(e) => self.patient(&e)?,
            }
        }
        Ok(())
    }

    /// None where the other end has ended in order, between two messages.
    pub(super) fn receive(&mut self) -> Result<Option<Message>> {
        let mut head = [0; 40];
        if !self.fill(&mut head, true)? {
            return Ok(None);
        }
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let (words, numbers) = (u32_at(20), u64_at(24));
        if words > WORDS || numbers > self.most as u64 {
            return Err(self.gone("what it sent to the parameter server has an impossible length"));
        }
        let (mut text, mut values) = (vec![0; words as usize], vec![0f32; numbers as usize]);
        self.fill(&mut text, false)?;
        self.fill(bytemuck::cast_slice_mut(&mut values), false)?;
        let mut crc = crc32fast::Hasher::new();
        [&head[..32], &text, bytemuck::cast_slice(&values)].iter().for_each(|part| crc.update(part));
        if crc.finalize() != u32_at(32) {
            return Err(self.gone("what it sent to the parameter server has a wrong checksum"));
        }
        Ok(Some(Message {
            step: u64_at(0),
            lead: u32_at(8),
            meets: u32_at(12) != 0,
            stop: u32_at(16) as i32,
            words: String::from_utf8_lossy(&text).into_owned(),
            numbers: values,
        }))
    }

    /// Fills `into`; false where the stream ended before its first byte, and may.
    fn fill(&mut self, into: &mut [u8], may_end: bool) -> Result<bool> {
        let mut at = 0;
        while at < into.len() {
            match self.stream.read(&mut into[at..]) {
                Ok(0) if at == 0 && may_end => return Ok(false),
                Ok(0) => return Err(self.gone("its connection with the parameter server was closed")),
                Ok(n) => at += n,
                Err(e) => self.patient(&e)?,
            }
        }
        Ok(true)
    }

    /// Nothing came or went for a while: that is an error once the job has failed.
    fn patient(&self, e: &std::io::Error) -> Result<()> {
        self.watch.check()?;
        match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
            _ => Err(self.gone(&format!("its connection with the parameter server broke: {e}"))),
        }
    }

    /// The verdict, after who is at the other end has gone.
    pub(super) fn gone(&self, what: &str) -> Error {
        let failure = Failure::Rank { rank: self.peer as u32, what: what.into() };
        self.watch.suspect(Suspicion::Sure(failure))
    }
}
