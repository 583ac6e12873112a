//! How late this machine is: by what a time limit of a test may be passed when others use the processors too.
#![allow(unreachable_pub, reason = "shared by several tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Wake-ups of threads and processes, one after the other, between an event and the last thing that a test waits for.
const HOPS: u32 = 20;

/// Measures, until it is dropped, how late a thread wakes that asked to sleep for a moment.
pub struct Late {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    wakes: AtomicU64,
    /// Microseconds: of all wakes together, and of the latest one.
    sum: AtomicU64,
    worst: AtomicU64,
}

impl Late {
    /// Begins to measure.
    pub fn new() -> Late {
        let seen = Arc::new(Seen::default());
        let of_thread = seen.clone();
        let body = move || {
            const NAP: Duration = Duration::from_millis(5);
            while !of_thread.stop.load(Relaxed) {
                let start = Instant::now();
                std::thread::sleep(NAP);
                let late = start.elapsed().saturating_sub(NAP).as_micros() as u64;
                of_thread.wakes.fetch_add(1, Relaxed);
                of_thread.sum.fetch_add(late, Relaxed);
                of_thread.worst.fetch_max(late, Relaxed);
            }
        };
        Late { seen, thread: Some(std::thread::spawn(body)) }
    }

    /// `limit` of an idle machine, and what so much lateness may add: nothing to speak of where there is none.
    pub fn allow(&self, limit: Duration) -> Duration {
        let (sum, wakes) = (self.seen.sum.load(Relaxed), self.seen.wakes.load(Relaxed).max(1));
        let mean = Duration::from_micros(sum / wakes);
        limit + mean * HOPS + Duration::from_micros(self.seen.worst.load(Relaxed))
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.seen.stop.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
