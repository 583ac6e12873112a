//! The news of a job, beside its data: every rank has a connection to rank 0, over which it says ten times a second that
//! it lives and in which collective it is. Rank 0 judges, once, and tells all, so that every rank names the same culprit.
//!
//! | happens | seen as |
//! |---|---|
//! | a process dies | its connection closes without a word: at once |
//! | a process is stopped, a wire cut | silence, of both sides: after [`super::Meeting::silence`] |
//! | a rank is slow | nothing: its beats come from a thread of their own |
//! | a rank ends, or gives up | it says so, and why |
//!
//! Round a ring of which one rank is stopped all wait, each for its neighbour; who is silent is known here alone.

use super::link::{Got, LARGE, Link};
use super::tag::Tag;
use super::watch::{Failure, Suspicion, Watch};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(100);
/// Time to say goodbye: what was sent should arrive before the connection is gone.
const GOODBYE: Duration = Duration::from_millis(500);

/// What a rank says that ends of itself.
const FAREWELL: &str = "it has left";

#[derive(Serialize, Deserialize)]
enum News {
    /// I live, and am in this collective.
    Beat(Option<Tag>),
    /// To rank 0: judge.
    Suspect(Suspicion),
    /// From rank 0: it is over.
    Verdict(Failure),
    /// I send nothing more.
    Bye(String),
    /// From rank 0: another sends nothing more.
    Left(u32, String),
}

/// Keeps a rank in touch. Dropped, it says goodbye.
pub(super) struct Control {
    watch: Watch,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What all threads of a control share.
#[derive(Clone)]
struct Common {
    watch: Watch,
    rank: usize,
    stop: Arc<AtomicBool>,
    silence: Duration,
}

type Writers = Arc<Mutex<Vec<Link>>>;

impl Control {
    /// Of `rank`: rank 0 with a link to each other, in order, others with theirs to rank 0.
    pub(super) fn start(
        watch: &Watch,
        rank: usize,
        links: Vec<Link>,
        silence: Duration,
    ) -> std::io::Result<Control> {
        let stop = Arc::new(AtomicBool::new(false));
        let common = Common { watch: watch.clone(), rank, stop: stop.clone(), silence };
        let writers: Vec<Link> = links.iter().map(Link::writer).collect::<std::io::Result<_>>()?;
        let writers = Arc::new(Mutex::new(writers));
        let mut control = Control { watch: watch.clone(), stop, threads: Vec::new() };
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).stack_size(256 << 10).spawn(body)
        };
        for (i, link) in links.into_iter().enumerate() {
            let (c, w) = (common.clone(), writers.clone());
            let peer = if rank == 0 { i + 1 } else { 0 };
            control.threads.push(spawn("ringtape-hear", Box::new(move || c.hear(peer, link, &w)))?);
        }
        let beat: Box<dyn FnOnce() + Send> = if rank == 0 {
            Box::new(move || common.preside(&writers))
        } else {
            let (judge, suspicions) = channel();
            watch.ask(Some(judge));
            Box::new(move || common.report(&writers, &suspicions))
        };
        control.threads.push(spawn("ringtape-beat", beat)?);
        Ok(control)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread that waits for suspicions.
        self.watch.ask(None);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Common {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sends to every link that still takes it.
    fn tell(writers: &Writers, news: &News) {
        for link in writers.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            // Who cannot be reached is found out by its reader.
            let _ = link.send(news);
        }
    }

    fn hang_up(writers: &Writers) {
        writers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(Link::finish);
    }

    /// Listens to `peer` until it has closed.
    fn hear(&self, peer: usize, mut link: Link, writers: &Writers) {
        let mut heard = Instant::now();
        let mut leaving = None;
        let mut left = false;
        loop {
            if self.stopped() {
                let since = *leaving.get_or_insert_with(Instant::now);
                if since.elapsed() > GOODBYE {
                    return;
                }
            }
            match link.receive(LARGE, BEAT) {
                Got::Value(news) => {
                    heard = Instant::now();
                    left |= matches!(news, News::Bye(_));
                    self.learn(peer, news, writers);
                }
                Got::Nothing if !left && heard.elapsed() > self.silence => {
                    let seconds = self.silence.as_secs_f64();
                    let what =
                        format!("nothing was heard of it for {seconds:.1} s: it is stopped, or cut off");
                    self.fail(peer, what);
                    return;
                }
                Got::Nothing => {}
                Got::Closed(why) => {
                    if !left && !self.stopped() {
                        self.fail(peer, format!("{why}: its process has ended"));
                    }
                    // Only now may this side close: before, the other might lose what it was sent.
                    match self.rank {
                        0 => link.finish(),
                        _ => Common::hang_up(writers),
                    }
                    return;
                }
            }
        }
    }

    fn fail(&self, peer: usize, what: String) {
        self.watch.fail(Failure::Rank { rank: peer as u32, what });
    }

    fn learn(&self, peer: usize, news: News, writers: &Writers) {
        match news {
            News::Beat(Some(tag)) if self.rank == 0 => {
                self.watch.enter(peer, tag);
                if let Some(failure) = self.watch.disagreement() {
                    self.watch.fail(failure);
                }
            }
            News::Suspect(suspicion) if self.rank == 0 => {
                self.watch.fail(self.watch.judge(suspicion));
            }
            News::Verdict(failure) if self.rank > 0 => {
                self.watch.fail(failure);
            }
            News::Left(rank, why) if self.rank > 0 && (rank as usize) < self.watch.world() => {
                self.watch.leave(rank as usize, &why);
            }
            News::Bye(why) => {
                self.watch.leave(peer, &why);
                if self.rank == 0 {
                    Common::tell(writers, &News::Left(peer as u32, why));
                } else {
                    // No judge is left.
                    self.watch.ask(None);
                }
            }
            _ => {}
        }
    }

    /// Rank 0: beats, and the verdict as soon as there is one.
    fn preside(&self, writers: &Writers) {
        let mut told = false;
        while !self.stopped() {
            let verdict = self.watch.wait(if told { None } else { Some(BEAT) });
            match verdict {
                Some(failure) if !told => {
                    Common::tell(writers, &News::Verdict(failure));
                    told = true;
                }
                _ => Common::tell(writers, &News::Beat(None)),
            }
            if told {
                std::thread::sleep(BEAT / 4);
            }
        }
        if let Some(failure) = self.watch.verdict().filter(|_| !told) {
            Common::tell(writers, &News::Verdict(failure));
        }
        Common::tell(writers, &News::Bye(FAREWELL.into()));
        Common::hang_up(writers);
    }

    /// Others: beats with the collective that they are in, and suspicions as soon as there are any.
    fn report(&self, writers: &Writers, suspicions: &Receiver<Suspicion>) {
        loop {
            match suspicions.recv_timeout(BEAT) {
                Ok(suspicion) => Common::tell(writers, &News::Suspect(suspicion)),
                Err(RecvTimeoutError::Timeout) => {
                    Common::tell(writers, &News::Beat(self.watch.post(self.rank)))
                }
                // The judge is gone; beats are of no use then.
                Err(RecvTimeoutError::Disconnected) if !self.stopped() => std::thread::sleep(BEAT),
                Err(RecvTimeoutError::Disconnected) => {}
            }
            if self.stopped() {
                break;
            }
        }
        self.watch.ask(None);
        Common::tell(writers, &News::Bye(FAREWELL.into()));
        Common::hang_up(writers);
    }
}
