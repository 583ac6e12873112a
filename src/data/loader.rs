//! Batches as tensors, made ahead on a thread, the same whatever the thread does.

use crate::data::convert::Out;
use crate::data::dataset::{Column, Dataset, Pass};
use crate::data::sampler::{Cursor, Last, Plan, Sampler};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::shape::{DType, Spec};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Which batches, and how they are made. What a batch holds depends on all of these but `prefetch`.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Samples of a batch over all ranks.
    pub batch: usize,
    /// Seed of the order; ignored by [`Loader::resume`], whose cursor has one.
    pub seed: u64,
    /// A new permutation each epoch, or file order.
    pub shuffle: bool,
    /// What happens to samples that do not fill a batch.
    pub last: Last,
    /// Which share of each batch is made here.
    pub rank: usize,
    /// Of how many shares.
    pub world: usize,
    /// How many shares, from that of number `rank` on.
    pub width: usize,
    /// Which batches are made: of every `turns`, that of number `turn`. The others are passed over unread. A cursor is
    /// then that of the batches passed over too.
    pub turn: u64,
    /// Of how many batches one is made.
    pub turns: u64,
    /// Batches made ahead on a thread; 0 makes each when it is asked for.
    pub prefetch: usize,
    /// Stop before this epoch; `None` goes on for ever.
    pub epochs: Option<u64>,
}

impl Default for LoaderOptions {
    fn default() -> LoaderOptions {
        LoaderOptions {
            batch: 32,
            seed: 0,
            shuffle: true,
            last: Last::Drop,
            rank: 0,
            world: 1,
            width: 1,
            turn: 0,
            turns: 1,
            prefetch: 2,
            epochs: None,
        }
    }
}

impl LoaderOptions {
    /// One pass in file order, each sample exactly once: for evaluation.
    pub fn evaluation(batch: usize) -> LoaderOptions {
        LoaderOptions { batch, shuffle: false, last: Last::Short, epochs: Some(1), ..Default::default() }
    }
}

/// Samples of one batch: a tensor `[samples, …]` a field.
#[derive(Clone)]
pub struct Batch {
    columns: Arc<[Column]>,
    pub(super) tensors: SmallList<Tensor>,
    /// Epoch that the samples belong to.
    pub epoch: u64,
    /// Samples of the batch over all ranks.
    pub global: u64,
    /// Where a run that has used this batch is resumed.
    pub cursor: Cursor,
}

impl Batch {
    /// The tensor of field `name`.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        let at = self.columns.iter().position(|c| c.name == name);
        at.map(|k| &self.tensors[k]).ok_or_else(|| {
            let known: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
            Error::config("data", format!("batches have no field `{name}`; they have {}", known.join(", ")))
        })
    }
    /// Names and tensors, in the order of [`Dataset::fields`].
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.columns.iter().map(|c| c.name.as_str()).zip(&self.tensors)
    }
    /// Samples `at` of these, sharing the memory.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn part(&self, at: std::ops::Range<usize>) -> Result<Batch> {
        let rows = |t: &Tensor| t.rows(at.start, at.len());
        Ok(Batch { tensors: self.tensors.iter().map(rows).collect::<Result<_>>()?, ..self.clone() })
    }
    fn moved_to(mut self, device: &Device) -> Result<Batch> {
        if !device.is_host() {
            self.tensors = self.tensors.iter().map(|t| t.to_device(device)).collect::<Result<_>>()?;
        }
        Ok(self)
    }
    /// Samples in this rank's share.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.tensors.first().and_then(|t| t.dims().first().copied()).unwrap_or(0)
    }
}

/// How much was loaded, and how long the caller waited for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoaderStats {
    /// Batches given out.
    pub batches: u64,
    /// Samples in them (of this rank).
    pub samples: u64,
    /// Time that the caller spent waiting; near zero while loading keeps up.
    pub stall: Duration,
}

/// Makes the batches one after the other.
struct Maker<D> {
    dataset: D,
    device: Device,
    sampler: Sampler,
    columns: Arc<[Column]>,
    epochs: Option<u64>,
    turn: u64,
    turns: u64,
    /// Batches behind, passed over or made.
    behind: u64,
    at: Cursor,
    checked: Option<u64>,
    rows: usize,
    /// Tensors that are filled again once the caller has dropped the batch that lent them. A fixed number,
    /// taken at the start, so that how far the thread happens to be ahead does not decide how much memory is
    /// taken, or when.
    slots: Vec<SmallList<Tensor>>,
}

impl<D: Dataset> Maker<D> {
    fn tensors(&self) -> Result<SmallList<Tensor>> {
        let one = |c: &Column| {
            let dims: SmallList<usize> =
                std::iter::once(self.rows).chain(c.spec.shape.dims().iter().copied()).collect();
            Tensor::empty(&self.device, Spec::new(c.spec.dtype, &dims)?)
        };
        self.columns.iter().map(one).collect()
    }

    fn next(&mut self) -> Option<Result<Batch>> {
        let plan = loop {
            let plan = self.sampler.plan(self.at);
            if self.epochs.is_some_and(|n| plan.epoch >= n) {
                return None;
            }
            self.behind += 1;
            if (self.behind - 1) % self.turns == self.turn {
                break plan;
            }
            self.at = plan.next;
        };
        if self.checked != Some(plan.epoch) {
            if let Err(e) = self.dataset.still_intact() {
                return Some(Err(e));
            }
            self.checked = Some(plan.epoch);
        }
        self.at = plan.next;
        Some(self.fill(&plan))
    }

    fn fill(&mut self, plan: &Plan) -> Result<Batch> {
        // ANCHOR: slot
        let free = self.slots.iter().position(|s| s.iter().all(Tensor::is_sole_holder));
        let mut slot = match free {
            Some(k) => self.slots.swap_remove(k),
            // The caller keeps many batches: these are from the pool, and stay the caller's.
            None => self.tensors()?,
        };
        // ANCHOR_END: slot
        let pass = Pass { seed: plan.next.seed, epoch: plan.epoch };
        {
            let mut rows: SmallList<Rows<'_>> = slot.iter_mut().map(Rows::new).collect::<Result<_>>()?;
            for &index in &plan.indices {
                let mut out: SmallList<Out<'_>> = rows.iter_mut().map(Rows::take).collect();
                self.dataset.read(pass, index, &mut out)?;
            }
        }
        let n = plan.indices.len();
        let lend = |t: &Tensor| if n == self.rows { Ok(t.clone()) } else { t.rows(0, n) };
        let tensors = slot.iter().map(lend).collect::<Result<_>>()?;
        if free.is_some() {
            self.slots.push(slot);
        }
        let columns = self.columns.clone();
        Ok(Batch { columns, tensors, epoch: plan.epoch, global: plan.global, cursor: plan.next })
    }
}

/// The rows of a tensor that are still to be filled.
struct Rows<'a> {
    rest: Out<'a>,
    row: usize,
}

impl<'a> Rows<'a> {
    fn new(t: &'a mut Tensor) -> Result<Rows<'a>> {
        let row = t.len() / t.dims()[0];
        let rest = match t.dtype() {
            DType::F32 => Out::F32(t.as_mut_slice()?),
            DType::I32 => Out::I32(t.as_mut_slice()?),
            d => return Err(Error::dtype("loader", format!("a field of {d}; batches hold f32 and i32"))),
        };
        Ok(Rows { rest, row })
    }

    /// The next row.
    fn take(&mut self) -> Out<'a> {
        match std::mem::replace(&mut self.rest, Out::I32(&mut [])) {
            Out::F32(rest) => {
                let (row, rest) = rest.split_at_mut(self.row);
                self.rest = Out::F32(rest);
                Out::F32(row)
            }
            Out::I32(rest) => {
                let (row, rest) = rest.split_at_mut(self.row);
                self.rest = Out::I32(rest);
                Out::I32(row)
            }
        }
    }
}

/// What a loader gives out and where it stands, with or without a thread.
enum Source<D> {
    Here(Box<Maker<D>>),
    Thread { queue: Option<Receiver<Result<Batch>>>, thread: Option<JoinHandle<()>> },
}

/// An endless (or `epochs` long) iterator of batches. After an error it ends. Dropping it ends its thread.
pub struct Loader<D> {
    source: Source<D>,
    device: Device,
    cursor: Cursor,
    batches_per_epoch: u64,
    stats: LoaderStats,
    done: bool,
}

impl<D: Dataset + 'static> Loader<D> {
    /// Batches from the start of epoch 0.
    pub fn new(dataset: D, device: &Device, options: &LoaderOptions) -> Result<Loader<D>> {
        let cursor = Cursor { seed: options.seed, epoch: 0, sample_in_epoch: 0, dataset: dataset.hash() };
        Loader::resume(dataset, device, options, cursor)
    }

    /// Batches from `cursor` on, exactly those that an uninterrupted loader would give. Rank, world size and
    /// prefetch may differ from those before; the data must not.
    pub fn resume(dataset: D, device: &Device, options: &LoaderOptions, cursor: Cursor) -> Result<Loader<D>> {
        let o = options;
        if cursor.dataset != dataset.hash() {
            let what = "the data are not those that the run was started with (their SHA-256 differs); give \
                        the original file, or start a new run";
            return Err(Error::config("data.path", what));
        }
        let sampler =
            Sampler::new(dataset.len(), o.batch, o.shuffle, o.last, o.rank, o.world)?.taking(o.width)?;
        if cursor.sample_in_epoch > dataset.len() {
            let what = format!("sample {} of {} cannot be resumed at", cursor.sample_in_epoch, dataset.len());
            return Err(Error::config("data.cursor", what));
        }
        if o.turn >= o.turns {
            return Err(Error::config("data.turn", format!("turn {} of {} cannot be", o.turn, o.turns)));
        }
        let columns: Arc<[Column]> = dataset.fields().into();
        let batches_per_epoch = sampler.batches();
        let mut maker = Maker {
            columns,
            sampler,
            epochs: o.epochs,
            turn: o.turn,
            turns: o.turns,
            behind: 0,
            at: cursor,
            checked: None,
            rows: (o.batch * o.width).div_ceil(o.world),
            slots: vec![],
            // Batches are made on the host; those for another device are copied there when they are given out.
            device: if device.is_host() { device.clone() } else { Device::cpu() },
            dataset,
        };
        // In the queue, in the thread's hands, and two batches with the caller.
        maker.slots = (0..o.prefetch + 3).map(|_| maker.tensors()).collect::<Result<_>>()?;
        let source = if o.prefetch == 0 { Source::Here(Box::new(maker)) } else { spawn(maker, o.prefetch)? };
        let device = device.clone();
        Ok(Loader { source, device, cursor, batches_per_epoch, stats: LoaderStats::default(), done: false })
    }
}

fn spawn<D: Dataset + 'static>(mut maker: Maker<D>, prefetch: usize) -> Result<Source<D>> {
    let (send, queue) = sync_channel(prefetch);
    let body = move || {
        while let Some(batch) = maker.next() {
            let failed = batch.is_err();
            // An error here means that the loader was dropped.
            if send.send(batch).is_err() || failed {
                break;
            }
        }
    };
    let thread = std::thread::Builder::new().name("loader".into()).spawn(body);
    let thread = thread.map_err(|e| Error::no_thread("the loader", &e))?;
    Ok(Source::Thread { queue: Some(queue), thread: Some(thread) })
}

impl<D> Loader<D> {
    /// Where a run that has used every batch given out so far is resumed.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }
    /// Batches of one epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        self.batches_per_epoch
    }
    /// Counts on from what another loader has loaded.
    pub fn counting_from(mut self, stats: LoaderStats) -> Loader<D> {
        self.stats = stats;
        self
    }
    /// What was loaded so far, and the time spent waiting for it.
    pub fn stats(&self) -> LoaderStats {
        self.stats
    }
}

impl<D: Dataset> Iterator for Loader<D> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.done {
            return None;
        }
        let start = Instant::now();
        let batch = match &mut self.source {
            Source::Here(maker) => maker.next(),
            Source::Thread { queue, .. } => queue.as_ref().and_then(|q| q.recv().ok()),
        };
        let batch = batch.map(|b| b.and_then(|b| b.moved_to(&self.device)));
        self.stats.stall += start.elapsed();
        match &batch {
            Some(Ok(b)) => {
                self.stats.batches += 1;
                self.stats.samples += b.len() as u64;
                self.cursor = b.cursor;
            }
            // The thread is done too, and if it panicked, so does its owner.
            _ => {
                self.done = true;
                self.source.close();
            }
        }
        batch
    }
}

impl<D> Source<D> {
    fn close(&mut self) {
        let Source::Thread { queue, thread } = self else { return };
        // First the queue: a thread that waits for room in it wakes up and ends.
        queue.take();
        let Some(Err(panic)) = thread.take().map(JoinHandle::join) else { return };
        if !std::thread::panicking() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl<D> Drop for Loader<D> {
    fn drop(&mut self) {
        self.source.close();
    }
}
