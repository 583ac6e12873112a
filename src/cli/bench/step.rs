//! A training step of the default GPT on the bundled text, whole and in parts; and the loader alone.

use super::Case;
use crate::data::{self, Access};
use crate::data::{Batch, Dataset, Loader, LoaderOptions, Samples, Windows};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::Model;
use crate::optim::{self, Optimizer, clip};
use crate::tape::{Grads, Params, Tape};
use crate::train::{Config, Task, build};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The parts of a step, in order.
const PARTS: [&str; 4] = ["batch", "forward and loss", "backward", "clip and optimizer"];

/// All that a step reads and changes.
pub(in crate::cli) struct Step {
    device: Device,
    config: Config,
    task: Task,
    model: Model,
    params: Params,
    grads: Grads,
    optimizer: Box<dyn Optimizer>,
    loader: Loader<Box<dyn Dataset>>,
    steps: u64,
}

/// The whole step and each part of it as cases: each runs whole steps, and counts its part.
pub(super) fn step(device: &str) -> Result<Vec<Case<'static>>> {
    let step = Step::new(Config { device: device.into(), ..Config::default() })?;
    let c = &step.config;
    let what = format!(
        "{} layers of {}, {} x {} tokens of {}",
        c.model.layers, c.model.dim, c.batch_size, c.model.context, c.data.path
    );
    let tokens = (c.batch_size * c.model.context) as f64;
    // Two for each weight and token forward, four backward; attention's own products are left out.
    let flops = 6.0 * step.params.trained_len() as f64 * tokens;
    let step = Rc::new(RefCell::new(step));
    let mut cases = Vec::new();
    for part in 0..=PARTS.len() {
        let step = step.clone();
        let name = PARTS.get(part).map_or(format!("whole: {what}"), |p| p.to_string());
        let case = Case::timed("step", &name, || Ok(()));
        let run = Box::new(move || {
            let times = step.borrow_mut().run()?;
            Ok(times.get(part).copied().unwrap_or_else(|| times.iter().sum()))
        });
        let whole = part == PARTS.len();
        cases.push(Case { elements: tokens, flops: if whole { flops } else { 0.0 }, run, ..case });
    }
    Ok(cases)
}

impl Step {
    pub(in crate::cli) fn new(config: Config) -> Result<Step> {
        let device = Device::open(&config.device)?;
        let task = Task::open(&config)?;
        let (model, params) = build(&config, &task, &device)?;
        let entry = optim::find(&config.optimizer.name, &[])?;
        let optimizer = entry.build_with(&config.optimizer.attrs(), &params)?;
        let (grads, loader) = (Grads::new(&params)?, task.train(&device, None)?);
        Ok(Step { device, config, task, model, params, grads, optimizer, loader, steps: 0 })
    }

    /// One step; gives the time of each part: batch, forward, backward, optimizer.
    pub(in crate::cli) fn run(&mut self) -> Result<[Duration; 4]> {
        let mut times = [Duration::ZERO; 4];
        let mut mark = Instant::now();
        let device = self.device.clone();
        let mut lap = |part: usize| -> Result<()> {
            device.synchronize()?;
            let now = Instant::now();
            times[part] = now - std::mem::replace(&mut mark, now);
            Ok(())
        };
        let batch = next(&mut self.loader)?;
        lap(0)?;
        let (_, target) = self.task.parts(&batch)?;
        let tape = Tape::train(&self.params, self.config.seed, self.steps);
        let tape = tape.with_precision(self.config.precision);
        let y = self.task.predict(&self.model, &batch, &tape)?.output;
        let loss = self.task.loss(&y, &target, false)?;
        drop(y);
        lap(1)?;
        self.grads.accumulate(false);
        tape.backward(&loss, &mut self.grads)?;
        // Tensors go back to the pool here; the weights have one holder again.
        drop(loss);
        drop(tape);
        lap(2)?;
        std::hint::black_box(clip::by_global_norm(&mut self.grads, self.config.clip)?);
        self.optimizer.step(&mut self.params, &self.grads, self.config.optimizer.lr)?;
        lap(3)?;
        self.steps += 1;
        Ok(times)
    }
}

/// Batches made on the calling thread, so that making them is what is timed.
pub(super) fn loader() -> Result<Vec<Case<'static>>> {
    let device = Device::cpu();
    let options = LoaderOptions { batch: 32, prefetch: 0, ..LoaderOptions::default() };
    let text = Arc::new(data::open("moby-dick", Access::Mmap)?);
    let digits = Arc::new(data::open("mnist", Access::Mmap)?);
    let windows = Loader::new(Windows::training(text, "train", 256)?, &device, &options)?;
    let images = Loader::new(Samples::new(digits, "train")?, &device, &options)?;
    Ok(vec![draws("32 windows of 256 of moby-dick", windows)?, draws("32 images of mnist", images)?])
}

fn draws<D: Dataset + 'static>(what: &str, mut loader: Loader<D>) -> Result<Case<'static>> {
    let first = next(&mut loader)?;
    let elements: usize = first.fields().map(|(_, t)| t.len()).sum();
    let bytes: usize = first.fields().map(|(_, t)| t.spec().bytes()).sum();
    let case = Case::timed("loader", what, move || {
        std::hint::black_box(next(&mut loader)?);
        Ok(())
    });
    Ok(Case { elements: elements as f64, bytes: bytes as f64, ..case })
}

fn next<D: Dataset>(loader: &mut Loader<D>) -> Result<Batch> {
    loader.next().unwrap_or_else(|| Err(Error::Usage("the data ended".into())))
}
