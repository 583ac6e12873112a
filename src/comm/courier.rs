//! [`Courier`]: a thread that owns a [`Communicator`], so that ranks talk while they compute.
//!
//! Errands are done one after the other, in the order in which they were given. That order must be the same on all ranks,
//! as for the calls of a communicator.

use super::communicator::Communicator;
use crate::error::{Error, Result};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

type Errand = Box<dyn FnOnce(&mut Communicator) + Send>;

/// Runs calls of a communicator on a thread of its own. Dropping it waits for the errands that were given.
pub struct Courier {
    errands: Option<Sender<Errand>>,
    thread: Option<JoinHandle<()>>,
    rank: usize,
    size: usize,
}

/// What an errand will bring back.
#[must_use = "an error of the errand is in here"]
pub struct Promise<R>(Receiver<Result<R>>);

impl<R> Promise<R> {
    /// Waits for it.
    pub fn wait(self) -> Result<R> {
        self.0.recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// The thread ended before the errand was done: it panicked, and has said so.
fn gone() -> Error {
    Error::RanksDisagree("the thread that talks to the other ranks has ended".into())
}

impl Courier {
    /// Takes the communicator to a new thread.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn new(mut world: Communicator) -> Result<Courier> {
        let (rank, size) = (world.rank(), world.size());
        let (errands, queue) = channel::<Errand>();
        let body = move || queue.iter().for_each(|errand| errand(&mut world));
        let thread = std::thread::Builder::new().name("courier".into()).spawn(body);
        let thread = thread.map_err(|e| Error::no_thread("the courier", &e))?;
        Ok(Courier { errands: Some(errands), thread: Some(thread), rank, size })
    }

    /// Number of this rank in the group, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks in the group.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Has `errand` done after those before it, and returns at once.
    pub fn send<R: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Communicator) -> Result<R> + Send + 'static,
    ) -> Promise<R> {
        let (done, promise) = channel();
        // Nobody may wait for what it brings.
        let errand: Errand = Box::new(move |world| drop(done.send(errand(world))));
        if let Some(errands) = &self.errands {
            // A thread that has ended drops it, which the promise tells.
            let _ = errands.send(errand);
        }
        Promise(promise)
    }

    /// [`Courier::send`], and waits.
    pub fn call<R: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Communicator) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.send(errand).wait()
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.errands.take();
        // A panic of the thread was printed, and those who wait for it know.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
