//! How the accesses of a warp are served: sectors of global memory, banks of shared memory.

use crate::ptx::run::spaces::{LOCAL, PARAM, SHARED, WINDOW};
use crate::ptx::run::{Access, AccessKind, LANES, Place};
use std::collections::HashMap;
use std::ops::{Add, AddAssign};

/// Bytes that move between memory, the caches and a multiprocessor at once.
pub const SECTOR: u64 = 32;
/// Banks of shared memory, a word of 4 bytes wide each.
const BANKS: usize = 32;

/// Accesses of global memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sectors {
    /// Requests of warps.
    pub requests: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
    /// Different bytes of a request that lanes asked for.
    pub used: u64,
    /// Sectors of 32 bytes that were moved.
    pub sectors: u64,
}

/// Accesses of shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Banks {
    /// Requests of warps.
    pub requests: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
    /// Passes over the banks.
    pub passes: u64,
    /// Passes that it would take without bank conflicts.
    pub least: u64,
}

impl Sectors {
    /// True when there were none.
    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }
    /// Share of the bytes moved that someone asked for.
    pub fn efficiency(&self) -> f64 {
        self.used as f64 / (SECTOR * self.sectors.max(1)) as f64
    }
}

impl Banks {
    /// True when there were none.
    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }
    /// Passes lost to bank conflicts.
    pub fn conflicts(&self) -> u64 {
        self.passes - self.least
    }
}

impl Add for Sectors {
    type Output = Sectors;
    fn add(mut self, other: Sectors) -> Sectors {
        self += other;
        self
    }
}
impl AddAssign for Sectors {
    fn add_assign(&mut self, o: Sectors) {
        self.requests += o.requests;
        self.bytes += o.bytes;
        self.used += o.used;
        self.sectors += o.sectors;
    }
}
impl Add for Banks {
    type Output = Banks;
    fn add(mut self, other: Banks) -> Banks {
        self += other;
        self
    }
}
impl AddAssign for Banks {
    fn add_assign(&mut self, o: Banks) {
        self.requests += o.requests;
        self.bytes += o.bytes;
        self.passes += o.passes;
        self.least += o.least;
    }
}

/// Sectors of the whole launch that were touched, 64 of them a word.
#[derive(Default)]
pub(super) struct Footprint {
    words: HashMap<u64, u64>,
    /// The word that was touched last.
    last: (u64, u64),
}

impl Footprint {
    pub(super) fn add(&mut self, sector: u64) {
        let (word, bit) = (sector / 64, 1 << (sector % 64));
        if self.last.0 != word {
            let before = std::mem::replace(&mut self.last, (word, 0));
            *self.words.entry(before.0).or_default() |= before.1;
        }
        self.last.1 |= bit;
    }
    pub(super) fn bytes(&mut self) -> u64 {
        let (word, bits) = std::mem::take(&mut self.last);
        *self.words.entry(word).or_default() |= bits;
        SECTOR * self.words.values().map(|w| u64::from(w.count_ones())).sum::<u64>()
    }
}

/// What a warp asks for with one instruction.
pub(super) struct Request {
    pub(super) kind: AccessKind,
    place: Place,
    mask: u32,
    start: [u64; LANES],
    /// Bytes of a lane.
    bytes: u32,
}

/// Most bytes of a lane that one request moves.
const MOST: u32 = 16;

impl Request {
    pub(super) fn new(place: Place, access: &Access<'_>) -> Request {
        let &Access { kind, mask, bytes, .. } = access;
        Request { kind, place, mask, start: *access.address, bytes }
    }

    /// Takes the next element of a vector in; false when `access` is none.
    pub(super) fn extend(&mut self, place: Place, access: &Access<'_>) -> bool {
        let follows = |l: usize| access.address[l] == self.start[l] + u64::from(self.bytes);
        let fits = access.kind == self.kind
            && access.mask == self.mask
            && (place.block, place.warp) == (self.place.block, self.place.warp)
            && self.bytes + access.bytes <= MOST
            && self.lanes().all(follows);
        self.bytes += if fits { access.bytes } else { 0 };
        fits
    }

    fn lanes(&self) -> impl Iterator<Item = usize> + use<> {
        let mask = self.mask;
        (0..LANES).filter(move |l| mask >> l & 1 == 1)
    }

    /// Sectors of global memory that it needs; `each` is told of every one.
    pub(super) fn sectors(&self, mut each: impl FnMut(u64)) -> Sectors {
        // Every sector once, with a bit for each byte that someone wants.
        let mut seen: Vec<(u64, u32)> = Vec::with_capacity(2 * LANES);
        let mut found = Sectors::default();
        for l in self.lanes().filter(|l| self.start[*l] < SHARED) {
            found.bytes += u64::from(self.bytes);
            for at in self.start[l]..self.start[l] + u64::from(self.bytes) {
                let (sector, bit) = (at / SECTOR, 1 << (at % SECTOR));
                match seen.iter_mut().rev().find(|(s, _)| *s == sector) {
                    Some((_, bits)) => *bits |= bit,
                    None => seen.push((sector, bit)),
                }
            }
        }
        for (sector, bits) in &seen {
            found.used += u64::from(bits.count_ones());
            each(*sector);
        }
        found.sectors = seen.len() as u64;
        found.requests = u64::from(found.sectors > 0);
        found
    }

    /// Passes over the banks of shared memory: lanes that want different words of one bank wait for each other. Lanes of
    /// 8 bytes are served half a warp at a time, of 16 bytes a quarter.
    pub(super) fn banks(&self) -> Banks {
        let mut found = Banks::default();
        let together = LANES / (self.bytes as usize).div_ceil(4).max(1).next_power_of_two().min(4);
        for part in 0..LANES / together {
            let lanes = self.lanes().filter(|l| l / together == part);
            let mut words: Vec<u64> = Vec::with_capacity(LANES);
            for l in lanes.filter(|l| self.start[*l].wrapping_sub(SHARED) < WINDOW) {
                found.bytes += u64::from(self.bytes);
                let start = self.start[l] - SHARED;
                // Atomics on one word wait for each other; loads and stores of one word are served at once.
                words.extend(start / 4..(start + u64::from(self.bytes)).div_ceil(4));
            }
            if words.is_empty() {
                continue;
            }
            if self.kind != AccessKind::Atomic {
                words.sort_unstable();
                words.dedup();
            }
            let mut deep = [0u64; BANKS];
            words.iter().for_each(|w| deep[(*w % BANKS as u64) as usize] += 1);
            found.passes += deep.into_iter().max().unwrap_or(0);
            found.least += 1;
        }
        found.requests = u64::from(found.passes > 0);
        found
    }

    /// Bytes of local memory.
    pub(super) fn local_bytes(&self) -> u64 {
        let local = |l: &usize| (LOCAL..PARAM).contains(&self.start[*l]);
        self.lanes().filter(local).count() as u64 * u64::from(self.bytes)
    }
}
