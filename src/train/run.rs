//! The loop: batch, tape, forward, loss, backward, clip, step, log.

use super::build;
use super::changes;
use super::evaluate::{Evaluation, activity, attention, evaluate, ngrams};
use super::folder::Folder;
use super::init;
use super::metrics::{Log, Metrics};
use super::pass::Pass;
use super::snapshot::{self, State};
use super::tensorboard::EventWriter;
use super::{Config, Observer, Stop, Summary, Task, report};
use crate::data::{Dataset, Loader};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{self, DeadUnits, Model};
use crate::optim::noise::NoiseScale;
use crate::optim::{self, Gvc, Optimizer, clip};
use crate::tape::{Grads, Params};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Instant;

/// A run in progress: everything that a step reads and changes.
pub struct Run {
    config: Config,
    folder: Folder,
    task: Task,
    device: Device,
    model: Model,
    params: Params,
    grads: Grads,
    optimizer: Box<dyn Optimizer>,
    schedule: optim::Schedule,
    controller: Option<Gvc>,
    noise: Option<NoiseScale>,
    loader: Loader<Box<dyn Dataset>>,
    log: Log,
    events: Option<EventWriter>,
    step: u64,
    best: Option<(u64, f64)>,
    /// Hidden units that were dead at the last evaluation.
    silent: DeadUnits,
    notices: Vec<String>,
    ngrams: Option<Receiver<Vec<f64>>>,
    baselines: Vec<f64>,
    meter: Meter,
}

/// Time and work since the last logged step, evaluations and snapshots left out.
struct Meter {
    started: Instant,
    excluded: f64,
    wall: f64,
    stall: f64,
    units: u64,
}

impl Run {
    /// A new run of `config` in the empty or missing folder `dir`.
    pub fn create(config: Config, dir: &Path) -> Result<Run> {
        config.validate()?;
        // What can be refused is refused before the folder is made.
        let (task, device) = (Task::open(&config)?, Device::open(&config.device)?);
        let (model, params) = build(&config, &task, &device)?;
        super::optimizer(&config, &params)?;
        task.train(&device, None)?;
        let folder = Folder::create(dir)?;
        folder.write("config.toml", &config.to_toml())?;
        Run::assemble(config, folder, task, device, model, params, None)
    }

    /// Goes on with the run in `dir` from its last complete snapshot, or from the start if it has none. `change` may alter
    /// the configuration (more steps, say) first; a change that the steps already done depend on is an error.
    pub fn resume(dir: &Path, change: impl FnOnce(&mut Config) -> Result<()>) -> Result<Run> {
        let folder = Folder::resume(dir)?;
        let started = Config::load(&dir.join("config.toml"))?;
        let mut config = started.clone();
        change(&mut config)?;
        config.validate()?;
        let changed = changes::between(&started, &config)?;
        let (task, device) = (Task::open(&config)?, Device::open(&config.device)?);
        let (model, params) = build(&config, &task, &device)?;
        snapshot::sweep(dir)?;
        let found = snapshot::load_latest(dir)?;
        let mut run = Run::assemble(config, folder, task, device, model, params, Some(found))?;
        run.notices.extend(changed);
        // Only once the snapshot fits it.
        run.folder.write("config.toml", &run.config.to_toml())?;
        Ok(run)
    }

    fn assemble(
        config: Config,
        folder: Folder,
        task: Task,
        device: Device,
        model: Model,
        mut params: Params,
        found: Option<snapshot::Found>,
    ) -> Result<Run> {
        let resumed = found.is_some();
        let mut optimizer = super::optimizer(&config, &params)?;
        let (snapshot, mut notices) = found.map_or((None, vec![]), |f| (f.snapshot, f.notices));
        notices.extend(model.notice().into_iter().chain(nn::attention::notice(&config.model)));
        let state = snapshot.as_ref().map(|s| s.state.clone());
        // Somebody may have edited config.toml.
        if let Some(seed) = state.as_ref().map(|s| s.seed).filter(|s| *s != config.seed) {
            let what = format!(
                "is {}, but the run was started with {seed}; set it back, or start a new run",
                config.seed
            );
            return Err(Error::config("seed", what));
        }
        // Other data are refused before other weights: that is the error that helps.
        let loader = task.train(&device, state.as_ref().map(|s| s.cursor))?;
        match &snapshot {
            Some(snapshot) => snapshot.restore(&mut params, optimizer.as_mut())?,
            None => notices.extend(init::begin(&config, resumed, &mut params)?),
        }
        let (controller, noise) = watchers(&config, state.as_ref())?;
        let first = state.as_ref().map_or(0, |s| s.step);
        let events =
            config.tensorboard.then(|| EventWriter::create(&folder.path().join("tensorboard"), first));
        let log = Log::open(folder.path(), state.as_ref().map_or(0, |s| s.metrics_bytes))?;
        Ok(Run {
            schedule: config.schedule.build(config.optimizer.lr, config.steps)?,
            controller,
            noise,
            grads: Grads::new(&params)?,
            ngrams: ngrams(&task)?,
            step: state.as_ref().map_or(0, |s| s.step),
            best: state.as_ref().and_then(|s| s.best),
            silent: DeadUnits::new(),
            baselines: vec![],
            meter: Meter { started: Instant::now(), excluded: 0.0, wall: 0.0, stall: 0.0, units: 0 },
            config,
            folder,
            task,
            device,
            model,
            params,
            optimizer,
            loader,
            log,
            events: events.transpose()?,
            notices,
        })
    }

    /// The configuration, resolved.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// What is learned.
    pub fn task(&self) -> &Task {
        &self.task
    }
    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
    /// Optimizer steps done.
    pub fn step(&self) -> u64 {
        self.step
    }
    /// The run folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
    /// What the user should know of the run and of how it was taken up.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Trains to the last step. A request to stop ends in a snapshot and [`Error::Interrupted`].
    pub fn train(&mut self, stop: &Stop, observer: &mut dyn Observer) -> Result<Summary> {
        observer.on_start(self);
        self.meter.started = Instant::now();
        let mut evaluation = None;
        while self.step < self.config.steps {
            let mut m = self.one_step()?;
            let due = |every: u64| every > 0 && self.step.is_multiple_of(every);
            let last = self.step == self.config.steps;
            let (evaluates, saves, logs) = (
                due(self.config.eval_every) || last,
                due(self.config.snapshot_every),
                due(self.config.log_every),
            );
            // A step that was asked to be the last is finished with all that belongs to it, so the log is the same.
            let stopped = stop.signal();
            let mut improved = false;
            if evaluates {
                let found = self.pause(|run| run.evaluate())?;
                (m.val_loss, m.val_accuracy) = (Some(found.loss), found.accuracy);
                m.attention =
                    self.pause(|run| attention(&run.task, &run.model, &run.used()?, &run.device))?;
                let mut silent = std::mem::take(&mut self.silent);
                m.activity = self
                    .pause(|run| activity(&run.task, &run.model, &run.used()?, &run.device, &mut silent))?;
                self.silent = silent;
                evaluation = Some(found);
                improved = self.best.is_none_or(|(_, b)| found.loss < b);
                if improved {
                    self.best = Some((self.step, found.loss));
                }
            }
            observer.on_step(&m);
            if logs || m.val_loss.is_some() || m.controller.is_some() {
                self.meter.fill(&mut m, &self.task, &self.loader);
                self.log.write(&m)?;
                self.events.as_mut().map_or(Ok(()), |e| e.write(&m))?;
                observer.on_log(&m);
            }
            self.poll_baselines(observer);
            if saves || last || improved || stopped.is_some() {
                let path = self.pause(|run| run.save())?;
                observer.on_snapshot(&path);
            }
            if m.val_loss.is_some() {
                self.pause(|run| report::write(run.folder.path(), &run.config, &run.baselines, None))?;
            }
            if let Some(signal) = stopped {
                let saved = Some(self.folder.path().join(snapshot::name(self.step)));
                return Err(Error::Interrupted { signal, saved });
            }
        }
        let found = match evaluation {
            Some(found) => found,
            // A run that was complete already when it was taken up.
            None => self.evaluate()?,
        };
        self.finish(found, observer)
    }

    fn finish(&mut self, found: Evaluation, observer: &mut dyn Observer) -> Result<Summary> {
        if let Some(waiting) = self.ngrams.take() {
            self.baselines = waiting.recv().unwrap_or_default();
            observer.on_baselines(&self.baselines);
        }
        let sample = super::sample(&self.task, &self.model, &self.used()?, self.config.seed)?;
        let summary = Summary::new(self, found, sample)?;
        let text = serde_json::to_string_pretty(&summary).expect("a summary is plain data");
        self.folder.write("summary.json", &(text + "\n"))?;
        report::write(self.folder.path(), &self.config, &self.baselines, Some(&summary))?;
        Ok(summary)
    }

    /// The weights that are evaluated and used: those in training, or what the optimizer makes of them.
    pub(super) fn used(&self) -> Result<Params> {
        Ok(self.optimizer.averaged(&self.params)?.unwrap_or_else(|| self.params.clone()))
    }

    fn evaluate(&self) -> Result<Evaluation> {
        evaluate(&self.task, &self.model, &self.used()?, &self.device, self.config.eval_batches)
    }

    /// n-gram losses, as far as they are known.
    pub fn baselines(&self) -> &[f64] {
        &self.baselines
    }
    /// Best held-out loss of all evaluations so far.
    pub fn best(&self) -> Option<f64> {
        self.best.map(|(_, loss)| loss)
    }
    /// Seconds of training in this process.
    pub fn wall(&self) -> f64 {
        self.meter.wall
    }

    fn poll_baselines(&mut self, observer: &mut dyn Observer) {
        if let Some(found) = self.ngrams.as_ref().and_then(|r| r.try_recv().ok()) {
            self.baselines = found;
            self.ngrams = None;
            observer.on_baselines(&self.baselines);
        }
    }

    /// Runs something that is not training, without counting its time.
    fn pause<R>(&mut self, f: impl FnOnce(&mut Run) -> Result<R>) -> Result<R> {
        let t = Instant::now();
        let result = f(self);
        self.meter.excluded += t.elapsed().as_secs_f64();
        result
    }

    fn save(&mut self) -> Result<PathBuf> {
        let (cursor, logged) = (self.loader.cursor(), self.log.bytes());
        let mut state = State::new(self.step, &self.config, cursor, logged, self.best);
        state.controller = self.controller.as_ref().map(|c| c.state().clone());
        state.noise = self.noise.as_ref().map(NoiseScale::state);
        let dir = self.folder.path();
        let path = snapshot::save(dir, &self.params, self.optimizer.as_mut(), &state)?;
        snapshot::prune(dir, self.step, self.config.keep_snapshots, self.best.map(|(step, _)| step))?;
        Ok(path)
    }

    /// One optimizer step over `accumulate` micro-batches.
    fn one_step(&mut self) -> Result<Metrics> {
        let pass = Pass { config: &self.config, task: &self.task, model: &self.model, step: self.step };
        let (mut loss, mut epoch, mut deferred, mut one) = (0.0, 0, Vec::new(), 0.0);
        // Kept for a second gradient, where there will be one.
        let (mut batches, keeps) = (Vec::new(), self.optimizer.probes());
        for i in 0..self.config.accumulate {
            let batch = self.loader.next().unwrap_or_else(|| Err(Error::Usage("the data ended".into())))?;
            let (value, changes) = pass.micro(i, &self.params, &mut self.grads, &batch)?;
            loss += value;
            deferred.extend(changes);
            epoch = batch.epoch;
            self.meter.units += batch.len() as u64 * self.task.units();
            batches.extend(keeps.then_some(batch));
            if i == 0 && self.noise.is_some() {
                one = clip::by_global_norm(&mut self.grads, 0.0)? * self.config.accumulate as f64;
            }
        }
        if self.step == 0 {
            self.all_reached()?;
        }
        let norm = clip::by_global_norm(&mut self.grads, self.config.clip)?;
        if !norm.is_finite() {
            return Err(self.bad_gradient(norm));
        }
        if let Some(noise) = &mut self.noise {
            noise.observe(one, norm);
        }
        let lr = self.schedule.lr(self.step) * self.controller.as_ref().map_or(1.0, Gvc::scale);
        let mut probe = |w: &Params, g: &mut Grads| pass.again(w, g, &batches, norm);
        let how = optim::Step { lr, slope: self.controller.is_some(), probe: Some(&mut probe) };
        let slope = self.optimizer.advance(&mut self.params, &self.grads, how)?;
        // While the rate still rises, slopes say nothing of where it leads.
        let settled = self.step >= self.config.schedule.warmup_steps;
        let controller = match (&mut self.controller, slope.filter(|_| settled)) {
            (Some(controller), Some(slope)) => controller.observe(slope, loss),
            _ => None,
        };
        for change in deferred {
            self.params.set(change.slot, &change.value)?;
        }
        self.step += 1;
        let (noise_scale, gain) = self.noise.map_or((None, None), |n| (n.scale(), n.gain()));
        let (step, grad_norm) = (self.step, norm);
        let rest = Metrics::default();
        Ok(Metrics { step, loss, lr, grad_norm, epoch, controller, noise_scale, gain, ..rest })
    }

    fn bad_gradient(&self, norm: f64) -> Error {
        let slot = self.params.all().find(|&s| {
            self.grads.get(s).is_some_and(|g| g.to_f64().is_ok_and(|g| g.iter().any(|x| !x.is_finite())))
        });
        let name = slot.map_or("the whole model", |s| &self.params.info(s).name);
        let what = format!("the norm of the gradient is {norm}: first in `{name}`; weights were not changed");
        Error::Numeric { step: self.step + 1, what }
    }

    /// After the first backward pass: a slot that no gradient reached will never learn.
    fn all_reached(&self) -> Result<()> {
        let missing = self.grads.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let what = format!("no gradient reached {}", missing.join(", "));
        Err(Error::LostGradient { op: "train".into(), what })
    }
}

impl Meter {
    /// Completes a line with speed and stall since the one before.
    fn fill(&mut self, m: &mut Metrics, task: &Task, loader: &Loader<Box<dyn Dataset>>) {
        let seconds = (self.started.elapsed().as_secs_f64() - self.excluded).max(1e-9);
        let speed = Some(self.units as f64 / seconds);
        (m.tokens_per_s, m.samples_per_s) = if task.is_tokens() { (speed, None) } else { (None, speed) };
        let stall = loader.stats().stall.as_secs_f64();
        m.stall = (stall - self.stall) / seconds;
        self.wall += seconds;
        m.wall_s = self.wall;
        *self = Meter { started: Instant::now(), excluded: 0.0, wall: self.wall, stall, units: 0 };
    }
}

/// What watches the gradients of a run: the controller of the rate and the noise scale, as a snapshot left them.
fn watchers(config: &Config, kept: Option<&State>) -> Result<(Option<Gvc>, Option<NoiseScale>)> {
    let mut controller = config.controller.build()?;
    if let (Some(c), Some(kept)) = (&mut controller, kept.and_then(|s| s.controller.clone())) {
        c.restore(kept);
    }
    let mut noise = NoiseScale::new(config.batch_size, config.accumulate);
    if let (Some(n), Some(kept)) = (&mut noise, kept.and_then(|s| s.noise)) {
        n.restore(kept);
    }
    Ok((controller, noise))
}
