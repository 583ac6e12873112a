//! TensorBoard event files, written by hand: records of (length, checksum, protobuf, checksum), so that the curves of a run
//! open in TensorBoard with `tensorboard --logdir RUN/tensorboard`.
//!
//! A record is u64 length, u32 masked CRC32C of the length, the data, u32 masked CRC32C of the data, little-endian; the mask
//! is ((c >> 15) | (c << 17)) + 0xa282ead8. Data are `Event` messages: 1 wall_time (double), 2 step (int64),
//! 3 file_version (string), 5 summary { 1 value { 1 tag (string), 2 simple_value (float) } }.

use super::Metrics;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file, open for appending.
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

impl EventWriter {
    /// A new file in `dir` (made where it is missing). A resumed run writes a file of its own, with the first step in its
    /// name; TensorBoard reads all files of a folder in the order of their names.
    pub fn create(dir: &Path, first_step: u64) -> Result<EventWriter> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let name =
            format!("events.out.tfevents.{:010}.{first_step:010}.{}", now() as u64, std::process::id());
        let path = dir.join(name);
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        let mut w = EventWriter { file, path };
        let mut event = double(1, now());
        event.extend(bytes(3, b"brain.Event:2"));
        w.record(&event)?;
        Ok(w)
    }

    /// Appends the numbers of a logged step.
    pub fn write(&mut self, m: &Metrics) -> Result<()> {
        let all = [
            ("loss/train", Some(m.loss)),
            ("loss/held_out", m.val_loss),
            ("accuracy/held_out", m.val_accuracy),
            ("optimizer/lr", Some(m.lr)),
            ("optimizer/grad_norm", Some(m.grad_norm)),
            ("optimizer/noise_scale", m.noise_scale),
            ("optimizer/slope_z", m.controller.map(|d| d.z)),
            ("speed/tokens_per_s", m.tokens_per_s),
            ("speed/samples_per_s", m.samples_per_s),
        ];
        let mut summary = Vec::new();
        for (tag, value) in all.iter().filter_map(|(t, v)| Some((t, (*v)? as f32))) {
            let mut one = bytes(1, tag.as_bytes());
            one.push(2 << 3 | 5);
            one.extend(value.to_le_bytes());
            summary.extend(bytes(1, &one));
        }
        let mut event = double(1, now());
        event.push(2 << 3);
        event.extend(varint(m.step));
        event.extend(bytes(5, &summary));
        self.record(&event)
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut all = length.to_vec();
        all.extend(masked(&length).to_le_bytes());
        all.extend(data);
        all.extend(masked(data).to_le_bytes());
        self.file.write_all(&all).map_err(|e| Error::io(&self.path, e))
    }
}

fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Field `n` of wire type 1: a double.
fn double(n: u8, v: f64) -> Vec<u8> {
    let mut out = vec![n << 3 | 1];
    out.extend(v.to_le_bytes());
    out
}

/// Field `n` of wire type 2: a length and bytes.
fn bytes(n: u8, v: &[u8]) -> Vec<u8> {
    let mut out = vec![n << 3 | 2];
    out.extend(varint(v.len() as u64));
    out.extend(v);
    out
}

fn varint(mut v: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (field, wire type, payload) of each field of a message.
    fn fields(mut m: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
        let number = |m: &mut &[u8]| {
            let (mut v, mut shift) = (0u64, 0);
            loop {
                let b = m[0];
                *m = &m[1..];
                v |= ((b & 0x7f) as u64) << shift;
                shift += 7;
                if b < 0x80 {
                    return v;
                }
            }
        };
        let mut out = Vec::new();
        while !m.is_empty() {
            let key = number(&mut m);
            let (field, kind) = ((key >> 3) as u8, (key & 7) as u8);
            let payload = match kind {
                0 => number(&mut m).to_le_bytes().to_vec(),
                k => {
                    let n =
                        [0, 8, 0, 0, 0, 4][k as usize].max(if k == 2 { number(&mut m) as usize } else { 0 });
                    let (a, b) = m.split_at(n);
                    m = b;
                    a.to_vec()
                }
            };
            out.push((field, kind, payload));
        }
        out
    }

    #[test]
    fn records_read_back_with_their_checksums() {
        let d = std::env::temp_dir().join(format!("ringtape-events-{}", std::process::id()));
        let mut w = EventWriter::create(&d, 0).unwrap();
        w.write(&Metrics { step: 300, loss: 2.5, val_loss: Some(2.75), lr: 0.5, ..Metrics::default() })
            .unwrap();
        let data = std::fs::read(&w.path).unwrap();
        std::fs::remove_dir_all(&d).unwrap();
        let (mut rest, mut events) = (&data[..], Vec::new());
        while !rest.is_empty() {
            let n = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let unmask = |b: &[u8]| {
                u32::from_le_bytes(b.try_into().unwrap()).wrapping_sub(0xa282_ead8).rotate_left(15)
            };
            assert_eq!(unmask(&rest[8..12]), crc32c::crc32c(&rest[..8]));
            assert_eq!(unmask(&rest[12 + n..16 + n]), crc32c::crc32c(&rest[12..12 + n]));
            events.push(fields(&rest[12..12 + n]));
            rest = &rest[16 + n..];
        }
        assert_eq!(events[0][1], (3, 2, b"brain.Event:2".to_vec()));
        assert_eq!(events[1][1], (2, 0, 300u64.to_le_bytes().to_vec()));
        let values: Vec<_> = fields(&events[1][2].2).into_iter().map(|(_, _, v)| fields(&v)).collect();
        assert_eq!(values[1][0].2, b"loss/held_out");
        assert_eq!(values[1][1].2, 2.75f32.to_le_bytes());
        assert_eq!(values.len(), 4);
    }
}
