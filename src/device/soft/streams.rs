//! Streams of the software devices. Work is really deferred: it runs when someone waits for it, in an order that a seed
//! draws among all streams whose next work may run. A program that forgot to wait for an event sees what it would see on a
//! busy GPU, and sees it again with the same seed.

use super::Machine;
use crate::error::{Error, Result};
use crate::rng::{Key, Rng};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// What a stream is given to do.
type Run = Box<dyn FnOnce(&Machine) -> Result<()> + Send>;

/// A place in a stream: so many pieces of work of that stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    stream: u64,
    count: u64,
}

struct Work {
    run: Run,
    after: Vec<Ticket>,
}

struct Queue {
    device: u32,
    /// Waits for the default stream of its device, and is waited for by it.
    blocking: bool,
    queued: VecDeque<Work>,
    issued: u64,
    done: u64,
    busy: bool,
    /// What the next work waits for besides.
    after: Vec<Ticket>,
}

#[derive(Default)]
struct Point {
    ticket: Option<Ticket>,
    passed: Arc<OnceLock<Instant>>,
}

struct State {
    queues: HashMap<u64, Queue>,
    events: HashMap<u64, Point>,
    next: u64,
    draw: Rng,
    /// First error of each device that no call has returned yet.
    errors: HashMap<u32, Error>,
}

/// All streams and events of a machine.
pub struct Streams {
    state: Mutex<State>,
    changed: Condvar,
}

impl Streams {
    /// The default streams of `devices` devices, numbered as the devices are; `seed` draws the order.
    pub(super) fn new(devices: u32, seed: u64) -> Streams {
        let queue = |device| (u64::from(device), Queue::new(device, false));
        let queues = (0..devices).map(queue).collect();
        // Streams and events have distinct numbers above those of the default streams, so that a mix-up is seen.
        let next = 1 << 16;
        let draw = Key::named(seed, "streams").rng();
        let state = State { queues, events: HashMap::new(), next, draw, errors: HashMap::new() };
        Streams { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Work runs with the lock given back; what happens under it are inserts and removes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new stream of a device.
    pub fn open(&self, device: u32, blocking: bool) -> u64 {
        let mut s = self.lock();
        s.next += 1;
        let id = s.next;
        s.queues.insert(id, Queue::new(device, blocking));
        id
    }

    /// Forgets a stream. Its work is done.
    pub fn close(&self, stream: u64) {
        self.lock().queues.remove(&stream);
    }

    /// True when the stream is there.
    pub fn knows(&self, stream: u64) -> bool {
        self.lock().queues.contains_key(&stream)
    }

    /// A new event.
    pub fn open_event(&self) -> u64 {
        let mut s = self.lock();
        s.next += 1;
        let id = s.next;
        s.events.insert(id, Point::default());
        id
    }

    /// Forgets an event. False when there is none.
    pub fn close_event(&self, event: u64) -> bool {
        self.lock().events.remove(&event).is_some()
    }

    /// Puts `event` at `ticket`, passed when `passed` is set.
    pub fn record(&self, event: u64, ticket: Ticket, passed: Arc<OnceLock<Instant>>) {
        self.lock().events.insert(event, Point { ticket: Some(ticket), passed });
    }

    /// Where `event` was recorded last: nowhere, or one place.
    pub fn recorded(&self, event: u64) -> Vec<Ticket> {
        self.lock().events.get(&event).and_then(|e| e.ticket).into_iter().collect()
    }

    /// When the event passed.
    pub fn passed_at(&self, event: u64) -> Option<Instant> {
        self.lock().events.get(&event)?.passed.get().copied()
    }

    /// Lets the next work of `stream` wait for where `event` stands now.
    pub fn wait(&self, stream: u64, event: u64) {
        let mut s = self.lock();
        let ticket = s.events.get(&event).and_then(|e| e.ticket);
        if let Some(q) = s.queues.get_mut(&stream) {
            q.after.extend(ticket);
        }
    }

    /// Queues work. The default stream of a device (number = device) waits for its blocking streams, and they for it.
    pub fn push(&self, device: u32, stream: u64, run: Run) -> Ticket {
        let mut s = self.lock();
        let default = u64::from(device);
        let mut after = Vec::new();
        if stream == default {
            let others =
                s.queues.iter().filter(|(id, q)| **id != default && q.blocking && q.device == device);
            after.extend(
                others
                    .filter(|(_, q)| q.done < q.issued)
                    .map(|(&id, q)| Ticket { stream: id, count: q.issued }),
            );
        } else if let Some(q) = s.queues.get(&default)
            && q.done < q.issued
            && s.queues.get(&stream).is_some_and(|q| q.blocking)
        {
            after.push(Ticket { stream: default, count: q.issued });
        }
        let queue = s.queues.entry(stream).or_insert_with(|| Queue::new(device, false));
        after.append(&mut queue.after);
        queue.queued.push_back(Work { run, after });
        queue.issued += 1;
        Ticket { stream, count: queue.issued }
    }

    /// The end of a stream as it is now.
    pub fn last(&self, stream: u64) -> Vec<Ticket> {
        self.lock().queues.get(&stream).map(|q| Ticket { stream, count: q.issued }).into_iter().collect()
    }

    /// The ends of all streams of a device as they are now.
    pub fn last_of(&self, device: u32) -> Vec<Ticket> {
        let s = self.lock();
        let of = s.queues.iter().filter(|(_, q)| q.device == device);
        of.map(|(&stream, q)| Ticket { stream, count: q.issued }).collect()
    }

    /// True when all that stands before these places has run.
    pub fn passed(&self, tickets: &[Ticket]) -> bool {
        let s = self.lock();
        tickets.iter().all(|t| s.done(t))
    }

    /// Keeps an error for the next call on `device` that can return one; the first one stays.
    pub fn keep(&self, device: u32, e: Error) {
        self.lock().errors.entry(device).or_insert(e);
    }

    /// The error that was kept.
    pub fn kept(&self, device: u32) -> Result<()> {
        self.lock().errors.remove(&device).map_or(Ok(()), Err)
    }

    /// Runs work until all that stands before `targets` has run. Other work that may run is drawn in between.
    ///
    /// # Errors
    /// The first error of the work that this call ran.
    pub fn drain(&self, machine: &Machine, targets: &[Ticket]) -> Result<()> {
        let mut first = Ok(());
        let mut s = self.lock();
        while !targets.iter().all(|t| s.done(t)) {
            let mut ready: Vec<u64> =
                s.queues.iter().filter(|(_, q)| s.ready(q)).map(|(&id, _)| id).collect();
            if ready.is_empty() {
                // Every wait points at work that was queued earlier, so someone else is at it.
                s = self.changed.wait(s).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            ready.sort_unstable();
            let id = ready[s.draw.below(ready.len() as u64) as usize];
            let Some(queue) = s.queues.get_mut(&id) else { continue };
            let Some(work) = queue.queued.pop_front() else { continue };
            queue.busy = true;
            drop(s);
            let result = (work.run)(machine);
            s = self.lock();
            if let Some(queue) = s.queues.get_mut(&id) {
                queue.busy = false;
                queue.done += 1;
            }
            self.changed.notify_all();
            if first.is_ok() {
                first = result;
            }
        }
        first
    }
}

impl State {
    fn done(&self, t: &Ticket) -> bool {
        // A stream that is closed has run all its work.
        self.queues.get(&t.stream).is_none_or(|q| q.done >= t.count)
    }

    fn ready(&self, q: &Queue) -> bool {
        !q.busy && q.queued.front().is_some_and(|w| w.after.iter().all(|t| self.done(t)))
    }
}

impl Queue {
    fn new(device: u32, blocking: bool) -> Queue {
        Queue {
            device,
            blocking,
            queued: VecDeque::new(),
            issued: 0,
            done: 0,
            busy: false,
            after: Vec::new(),
        }
    }
}
