//! [`DeviceRing`]: the ring between devices, driven by a thread each. The host sees no element.
//!
//! Rank r takes from the memory of rank r − 1 what `ring.rs` would have it receive. A chunk goes in two halves, and a rank
//! has two streams: while one half is summed, the other is copied.
//!
//! ```text
//! copies   | copy half 0 | copy half 1 | copy half 0 of the next chunk …
//! sums                   | sum half 0  | sum half 1 …
//! ```
//!
//! A half may be copied when the rank before has it (its event comes with the message) and the last sum from the same half
//! of the scratch memory is done; it may be summed when it has arrived. What is sent last round the ring holds all sums, so
//! no rank writes over a chunk that another still has to copy.

use super::communicator::DEADLINE;
use super::cx::part;
use crate::device::{Call, Device, Driver, Event, Loaded, Stream};
use crate::error::{Error, Result};
use crate::kernel::basic::ADD_INTO;
use crate::shape::{DType, Spec};
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of an f32.
const F32: usize = 4;
/// Blocks of a launch at most; the kernel strides.
const BLOCKS: usize = 1 << 16;

/// A half that the next rank may copy once `event` has passed.
struct Ready {
    event: Event,
    address: u64,
    n: usize,
}

/// What joins a rank with its neighbours; dropped, it tells them that this rank has failed.
struct Links {
    next: Sender<Ready>,
    before: Receiver<Ready>,
    /// The rank before hears that all is copied.
    thanks: Sender<()>,
    thanked: Receiver<()>,
}

/// One rank's part in a ring of devices.
pub struct DeviceRing {
    rank: usize,
    world: usize,
    device: Device,
    driver: Arc<dyn Driver>,
    add: Arc<Loaded>,
    copies: Stream,
    sums: Stream,
    /// Made when first needed; from `used` on they are free.
    events: Vec<Event>,
    used: usize,
    /// Two halves of a chunk.
    scratch: Option<Tensor>,
    links: Option<Links>,
    copied: u64,
    deadline: Duration,
    siblings: Arc<Siblings>,
}

/// The devices of all ranks, and rings of some of them that not all of these have taken yet, by their ranks.
struct Siblings {
    devices: Vec<Device>,
    opened: Mutex<HashMap<Vec<usize>, Vec<Option<DeviceRing>>>>,
}

/// A ring of these devices, rank by rank. Each part goes to a thread of its own.
///
/// # Errors
/// When a device runs no PTX, or they are not all of one kind.
pub fn open(devices: &[Device]) -> Result<Vec<DeviceRing>> {
    let p = devices.len();
    let (mut next, mut before): (Vec<_>, Vec<_>) = (0..p).map(|_| channel()).unzip();
    let (mut thanks, mut thanked): (Vec<_>, Vec<_>) = (0..p).map(|_| channel()).unzip();
    // Channel r leads from rank r to rank r + 1, and thanks from rank r + 1 to rank r.
    before.rotate_right(1.min(p));
    thanks.rotate_right(1.min(p));
    let mut links: Vec<Links> = Vec::new();
    while let (Some(next), Some(before), Some(thanks), Some(thanked)) =
        (next.pop(), before.pop(), thanks.pop(), thanked.pop())
    {
        links.push(Links { next, before, thanks, thanked });
    }
    let siblings = Arc::new(Siblings { devices: devices.to_vec(), opened: Mutex::default() });
    let all = devices.iter().zip(links.into_iter().rev()).enumerate();
    let all = all.map(|(rank, (device, links))| DeviceRing::new((rank, p), device, links, siblings.clone()));
    let all: Vec<DeviceRing> = all.collect::<Result<_>>()?;
    match all.iter().find(|ring| ring.driver.kind() != all[0].driver.kind()) {
        Some(other) => Err(other.error(format!("no peer of {}", all[0].device.name()))),
        None => Ok(all),
    }
}

impl DeviceRing {
    fn new(
        (rank, world): (usize, usize),
        device: &Device,
        links: Links,
        siblings: Arc<Siblings>,
    ) -> Result<DeviceRing> {
        let driver = Arc::clone(device.ptx_driver()?);
        let no = || Error::Device { device: device.name().into(), what: "no kernel adds here".into() };
        let source = ADD_INTO.source.ok_or_else(no)?;
        let key = (source.text.as_ptr().addr(), source.splice.as_ptr().addr());
        let add = device.module(key, source.file, || source.ptx())?.ok_or_else(no)?;
        let (copies, sums) = (driver.side_stream()?, driver.side_stream()?);
        Ok(DeviceRing {
            rank,
            world,
            device: device.clone(),
            driver,
            add,
            copies,
            sums,
            events: Vec::new(),
            used: 0,
            scratch: None,
            links: Some(links),
            copied: 0,
            deadline: DEADLINE,
            siblings,
        })
    }

    /// A ring of those of its ranks that `members` lists, this one among them, in that order. All of them ask for it, each once.
    ///
    /// # Errors
    /// Those of [`open`]; a rank that is no member, or asks again before all others have theirs.
    pub fn among(&self, members: &[usize]) -> Result<DeviceRing> {
        let Siblings { devices, opened } = &*self.siblings;
        let place = members.iter().position(|&rank| rank == self.rank);
        let known = || members.iter().map(|&rank| devices.get(rank).cloned()).collect::<Option<Vec<_>>>();
        let (Some(place), Some(devices)) = (place, known()) else {
            return Err(self.error(format!("rank {} has no ring of ranks {members:?}", self.rank)));
        };
        let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
        if !opened.contains_key(members) {
            opened.insert(members.to_vec(), open(&devices)?.into_iter().map(Some).collect());
        }
        let rings = opened.get_mut(members);
        let (ring, all_taken) = rings.map_or((None, false), |rings| {
            let ring = rings.get_mut(place).and_then(Option::take);
            (ring, rings.iter().all(Option::is_none))
        });
        if all_taken {
            opened.remove(members);
        }
        let twice = || self.error(format!("rank {} asks twice for a ring of {members:?}", self.rank));
        let mut ring = ring.ok_or_else(twice)?;
        ring.set_deadline(self.deadline);
        Ok(ring)
    }

    /// Number of this rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The device of this rank.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sets the time that this rank waits for its neighbours in each later call.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Bytes that this rank copied from the rank before it so far: over all ranks 2(p − 1)·N for each sum of N bytes.
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Sums `x`, f32 on this rank's device, over all ranks: the bits of the host's ring. Returns when no rank needs `x` any
    /// more. Every rank calls it with as many elements.
    ///
    /// # Errors
    /// Of the device; when `x` is not f32, lies elsewhere or is shared; when the rank before brings another length, has
    /// failed or does not come by the deadline. The ring is of no use afterwards.
    pub fn all_reduce(&mut self, x: &mut Tensor) -> Result<()> {
        x.expect_sole_holder("all_reduce")?;
        let address = match x.address() {
            Some(address) if x.device() == &self.device && x.dtype() == DType::F32 => address,
            _ => return Err(self.error(format!("all_reduce takes f32 on this device, not {}", x.spec()))),
        };
        let links = self
            .links
            .take()
            .ok_or_else(|| Error::RanksDisagree("the ring between devices has failed before".into()))?;
        let done = self.turn(&links, address, x.len());
        match done {
            Ok(()) => self.links = Some(links),
            Err(_) => self.give_up(links),
        }
        done
    }

    /// Tells the neighbours by leaving, and returns when none of the copies that are queued touches this rank's memory: the
    /// caller may free it.
    fn give_up(&self, links: Links) {
        // The error that led here counts, not one of these.
        let _ = self.driver.synchronize_stream(self.copies);
        let _ = self.driver.synchronize_stream(self.sums);
        let Links { next, before, thanks, thanked } = links;
        drop((next, before, thanks));
        // The next rank thanks, or leaves after its own copies.
        let _ = thanked.recv_timeout(self.deadline);
    }

    fn turn(&mut self, links: &Links, x: u64, n: usize) -> Result<()> {
        let p = self.world;
        let slot = n.div_ceil(p).div_ceil(2).max(1);
        if self.scratch.as_ref().is_none_or(|s| s.len() < 2 * slot) {
            self.scratch = Some(Tensor::empty(&self.device, Spec::new(DType::F32, &[2 * slot])?)?);
        }
        let scratch = self.scratch.as_ref().and_then(Tensor::address).unwrap_or(0);
        self.used = 0;
        // `x` was made on the default stream, and what used the scratch memory before ran there.
        let start = self.mark(self.driver.default_stream())?;
        self.driver.wait(self.copies, start)?;
        self.driver.wait(self.sums, start)?;
        let (mut ready, mut free) = ([start; 2], [None; 2]);
        // ANCHOR: device_ring
        let chunk = |step: usize| part((self.rank + 2 * p - step) % p, p, n);
        let plan: Vec<_> = (0..2 * (p - 1)).map(|step| (chunk(step), chunk(step + 1))).collect();
        for (step, (out, into)) in plan.into_iter().enumerate() {
            for (event, part) in ready.into_iter().zip(halves(&out)) {
                let address = x + (part.start * F32) as u64;
                // A neighbour that is gone is seen when this rank receives.
                let _ = links.next.send(Ready { event, address, n: part.len() });
            }
            for (h, part) in halves(&into).into_iter().enumerate() {
                let from = self.receive(&links.before)?;
                if from.n != part.len() {
                    let what = format!("the rank before brings {} elements, not {}", from.n, part.len());
                    return Err(self.error(what));
                }
                self.driver.wait(self.copies, from.event)?;
                let here = x + (part.start * F32) as u64;
                if step >= p - 1 {
                    self.copy(from.address, here, part.len())?;
                    ready[h] = self.mark(self.copies)?;
                    continue;
                }
                let slot = scratch + (h * slot * F32) as u64;
                free[h].map_or(Ok(()), |summed| self.driver.wait(self.copies, summed))?;
                self.copy(from.address, slot, part.len())?;
                let arrived = self.mark(self.copies)?;
                self.driver.wait(self.sums, arrived)?;
                self.add(slot, here, part.len())?;
                ready[h] = self.mark(self.sums)?;
                free[h] = Some(ready[h]);
            }
        }
        // ANCHOR_END: device_ring
        self.driver.synchronize_stream(self.copies)?;
        self.driver.synchronize_stream(self.sums)?;
        let _ = links.thanks.send(());
        self.receive(&links.thanked)
    }

    /// The next message of a neighbour.
    fn receive<T>(&self, from: &Receiver<T>) -> Result<T> {
        // An echo of what failed elsewhere, unless nobody says what.
        let gone =
            |e| format!("rank {} of the ring between devices: a neighbour has failed ({e})", self.rank);
        from.recv_timeout(self.deadline).map_err(|e| Error::RanksDisagree(gone(e)))
    }

    /// An event behind what is queued in `stream` now.
    fn mark(&mut self, stream: Stream) -> Result<Event> {
        if self.used == self.events.len() {
            self.events.push(self.driver.event()?);
        }
        let event = self.events[self.used];
        self.used += 1;
        self.driver.record(event, stream)?;
        Ok(event)
    }

    fn copy(&mut self, from: u64, to: u64, n: usize) -> Result<()> {
        let bytes = (n * F32) as u64;
        self.copied += bytes;
        if n == 0 { Ok(()) } else { self.driver.copy(from, to, bytes, self.copies) }
    }

    /// y[i] = y[i] + x[i] of `n` elements.
    fn add(&self, x: u64, y: u64, n: usize) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let behind =
            || self.error(format!("basic.ptx does not declare `{}` as it is called", ADD_INTO.entry));
        let entry = self.add.entry(ADD_INTO.entry).ok_or_else(behind)?;
        let block = entry.block.ok_or_else(behind)?;
        let len = u32::try_from(n).ok().filter(|n| *n < 1 << 31);
        let len = len.ok_or_else(|| self.error(format!("{n} elements; kernels count below 2^31")))?;
        let mut params = vec![0; entry.param_bytes as usize];
        for (name, value) in [("x", x), ("y", y), ("x_len", len.into()), ("y_len", len.into())] {
            let slot = entry.params.iter().find(|s| s.name == name).ok_or_else(behind)?;
            params[slot.offset as usize..][..slot.bytes as usize]
                .copy_from_slice(&value.to_le_bytes()[..slot.bytes as usize]);
        }
        let grid = [n.div_ceil(block[0] as usize).min(BLOCKS) as u32, 1, 1];
        let (module, params) = (self.add.module, &params[..]);
        let call = Call { module, entry: ADD_INTO.entry, grid, block, shared_bytes: 0, params };
        self.driver.launch(&call, self.sums)
    }

    fn error(&self, what: String) -> Error {
        Error::Device { device: self.device.name().into(), what }
    }
}

impl Drop for DeviceRing {
    fn drop(&mut self) {
        self.driver.close_stream(self.copies);
        self.driver.close_stream(self.sums);
        self.events.iter().for_each(|&event| self.driver.close_event(event));
    }
}

fn halves(range: &Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len().div_ceil(2);
    [range.start..middle, middle..range.end]
}
