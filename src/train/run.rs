//! The loop: batch, tape, forward, loss, backward, clip, step, log.

use super::asynchronous::{self, Apart, Turn};
use super::build;
use super::changes;
use super::evaluate::{Evaluation, activity, attention, evaluate_together};
use super::folder::Folder;
use super::init;
use super::mesh::division::Division;
use super::meter::{Meter, watchers};
use super::records::Records;
use super::snapshot;
use super::{Config, Observer, Stop, Summary, Task, Team};
use crate::data::{Dataset, Loader};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{self, DeadUnits, Model};
use crate::optim::noise::NoiseScale;
use crate::optim::{self, Gvc, Optimizer};
use crate::tape::{Grads, Params};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A run in progress: everything that a step reads and changes.
pub struct Run {
    pub(super) config: Config,
    pub(super) records: Records,
    pub(super) team: Team,
    pub(super) task: Task,
    pub(super) device: Device,
    pub(super) model: Model,
    pub(super) params: Params,
    pub(super) grads: Grads,
    pub(super) optimizer: Box<dyn Optimizer>,
    /// Where ranks share the model: the whole of it.
    pub(super) division: Option<Division>,
    pub(super) schedule: optim::Schedule,
    pub(super) controller: Option<Gvc>,
    pub(super) noise: Option<NoiseScale>,
    pub(super) loader: Loader<Box<dyn Dataset>>,
    pub(super) step: u64,
    pub(super) best: Option<(u64, f64)>,
    /// Hidden units that were dead at the last evaluation.
    pub(super) silent: DeadUnits,
    pub(super) notices: Vec<String>,
    pub(super) meter: Meter,
    /// Where ranks step apart.
    pub(super) apart: Option<Apart>,
}

impl Run {
    /// A new run of `config` in the empty or missing folder `dir`.
    pub fn create(config: Config, dir: &Path) -> Result<Run> {
        Run::create_by(Team::alone(), config, dir)
    }

    /// [`Run::create`] by all ranks of `team`, each with its part.
    pub fn create_by(mut team: Team, mut config: Config, dir: &Path) -> Result<Run> {
        config.validate()?;
        // What can be refused is refused before the folder is made.
        team.check(&config)?;
        let (task, device) = (Task::open(&config)?, team.device(&config)?);
        let (model, params) = build(&config, &task, &device)?;
        super::optimizer(&config, &params)?;
        task.train(&device, None)?;
        let folder = if team.leads() { Folder::create(dir)? } else { Folder::visit(dir) };
        let fit = team.fit(&mut config)?;
        let cut = team.cut_stages(&mut config, &task, &device)?;
        (config.codec.reset, config.asynchronous.reset) = (false, false); // nothing is kept yet
        if team.leads() {
            folder.write("config.toml", &config.to_toml())?;
        }
        let mut run = Run::assemble(team, config, folder, (task, device), (model, params), None)?;
        run.notices.extend(fit.into_iter().chain(cut));
        Ok(run)
    }

    /// Goes on with the run in `dir` from its last complete snapshot, or from the start if it has none. `change` may alter
    /// the configuration (more steps, say) first; a change that the steps already done depend on is an error.
    pub fn resume(dir: &Path, change: impl FnOnce(&mut Config) -> Result<()>) -> Result<Run> {
        Run::resume_by(dir, change, |_| Ok(Team::alone()))
    }

    /// Errors where a new run in `dir` would be refused because something is there.
    pub fn expect_new(dir: &Path) -> Result<()> {
        if dir.exists() { Folder::expect_empty(dir) } else { Ok(()) }
    }

    /// The configuration of the run in `dir`.
    ///
    /// # Errors
    /// When there is no run.
    pub fn configuration(dir: &Path) -> Result<Config> {
        Folder::expect_run(dir)?;
        Config::load(&dir.join("config.toml"))
    }

    /// [`Run::resume`] by all ranks of the team that `join` gives for the configuration: as many as one likes, whatever their
    /// number was before. Rank 0 reads the snapshot.
    pub fn resume_by(
        dir: &Path,
        change: impl FnOnce(&mut Config) -> Result<()>,
        join: impl FnOnce(&Config) -> Result<Team>,
    ) -> Result<Run> {
        let started = Run::configuration(dir)?;
        let mut config = started.clone();
        change(&mut config)?;
        config.mesh.recut(&started.mesh);
        config.validate()?;
        let mut changed = changes::between(&started, &config)?;
        let mut team = join(&config)?;
        team.check(&config)?;
        changed.extend(team.fit(&mut config)?);
        let folder = if team.leads() { Folder::resume(dir)? } else { Folder::visit(dir) };
        let (task, device) = (Task::open(&config)?, team.device(&config)?);
        changed.extend(team.cut_stages(&mut config, &task, &device)?);
        let (model, params) = build(&config, &task, &device)?;
        let found = snapshot::Found::from_first(&team, || {
            snapshot::sweep(dir)?;
            snapshot::load_latest(dir)
        })?;
        let mut run = Run::assemble(team, config, folder, (task, device), (model, params), Some(found))?;
        run.notices.extend(changed);
        // Only once the snapshot fits it.
        run.records.write("config.toml", &run.config.to_toml())?;
        Ok(run)
    }

    fn assemble(
        mut team: Team,
        mut config: Config,
        folder: Folder,
        (task, device): (Task, Device),
        (model, mut params): (Model, Params),
        found: Option<snapshot::Found>,
    ) -> Result<Run> {
        let resumed = found.is_some();
        let mut optimizer = super::optimizer(&config, &params)?;
        let (snapshot, mut notices) = found.map_or((None, vec![]), |f| (f.snapshot, f.notices));
        notices.extend(model.notice().into_iter().chain(nn::attention::notice(&config.model)));
        let state = snapshot.as_ref().map(|s| s.state.clone());
        state.as_ref().map_or(Ok(()), |s| expect_seed(s, &config))?;
        // Other data are refused before other weights: that is the error that helps.
        let cursor = state.as_ref().map(|s| s.cursor);
        let (share, shares) = team.first_share(&config);
        let loader = task.train_shares(&device, cursor, share, shares)?;
        match &snapshot {
            Some(snapshot) => snapshot.restore(&mut params, optimizer.as_mut())?,
            None if team.leads() => notices.extend(init::begin(&config, resumed, &mut params)?),
            None => {}
        }
        team.arrange(&config.mesh, config.model.tied)?;
        notices.extend(config.mesh.notice(config.accumulate));
        team.prepare(&config, &mut params, folder.path())?;
        let (division, model, params, mut optimizer) =
            team.divide(&config, &task, (model, params), optimizer)?;
        team.sum_gradients_of(&config, &params)?;
        let coded = snapshot.as_ref().filter(|s| !s.state.codec.as_ref().is_some_and(asynchronous::belongs));
        notices.extend(team.encode(&mut config, &params, coded)?);
        notices.extend(team.cut(&config, &params, &mut optimizer)?);
        let step = state.as_ref().map_or(0, |s| s.step);
        let (apart, told) =
            asynchronous::begin(&mut config, &team, (&params, step), &mut optimizer, snapshot.as_ref())?;
        notices.extend(told);
        let (controller, noise) = watchers(&config, &team, state.as_ref())?;
        Ok(Run {
            schedule: config.schedule.build(config.optimizer.lr, config.steps)?,
            controller,
            noise,
            grads: Grads::new(&params)?,
            records: Records::open(folder, team.leads(), &config, &task, state.as_ref())?,
            step,
            apart,
            best: state.as_ref().and_then(|s| s.best),
            silent: DeadUnits::new(),
            meter: Meter::new(),
            config,
            team,
            task,
            device,
            model,
            params,
            optimizer,
            division,
            loader,
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
    /// The parameters; where ranks share the model, as they were when they were last put together.
    pub fn params(&self) -> &Params {
        self.division.as_ref().map_or(&self.params, |d| &d.params)
    }
    /// The model.
    pub fn model(&self) -> &Model {
        self.division.as_ref().map_or(&self.model, |d| &d.model)
    }
    /// Optimizer steps done.
    pub fn step(&self) -> u64 {
        self.step
    }
    /// The run folder.
    pub fn path(&self) -> &Path {
        self.records.path()
    }
    /// What the user should know of the run and of how it was taken up.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }
    /// Bytes of the optimizer's state on this rank.
    pub fn state_bytes(&self) -> usize {
        self.optimizer.state().iter().map(|(_, t)| t.spec().bytes()).sum()
    }
    /// The ranks that train, this one among them.
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// Trains to the last step. A request to stop ends in a snapshot and [`Error::Interrupted`].
    pub fn train(&mut self, stop: &Stop, observer: &mut dyn Observer) -> Result<Summary> {
        observer.on_start(self);
        self.meter.start();
        let mut evaluation = None;
        while self.step < self.config.steps {
            // A step that was asked to be the last is finished with all that belongs to it, so the log is the same.
            let mut turn = self.turn(stop)?;
            let ends = self.step == self.config.steps || turn.stop.is_some();
            let found = self.close(&mut turn, observer)?;
            evaluation = found.or(evaluation);
            self.team.traced(self.records.path(), ends)?;
            if let Some(signal) = turn.stop {
                let saved = Some(self.path().join(snapshot::name(self.step)));
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

    /// Does what is due after a step: evaluation, log, snapshot, report. One that a signal made the last is saved.
    fn close(&mut self, turn: &mut Turn, observer: &mut dyn Observer) -> Result<Option<Evaluation>> {
        let due = |every: u64| turn.is_due(self.step, every);
        let last = self.step == self.config.steps;
        let evaluates = due(self.config.eval_every) || last;
        let (logs, compares) =
            (turn.passes(self.step, self.config.log_every), due(self.team.compare_every()));
        let mut saves = due(self.config.snapshot_every) || last || turn.stop.is_some();
        let m = &mut turn.metrics;
        let found = evaluates.then(|| self.pause(|run| run.judge(m))).transpose()?;
        if let Some(found) = found.filter(|f| self.best.is_none_or(|(_, b)| f.loss < b)) {
            self.best = Some((self.step, found.loss));
            saves = true;
        }
        observer.on_step(m);
        if logs || evaluates || m.controller.is_some() || m.balance.is_some() {
            self.meter.fill(m, &self.task, &self.loader);
            self.records.log(m)?;
            self.team.log(self.step, turn.own)?;
            observer.on_log(m);
        }
        self.records.poll(false, observer);
        let saved = if saves { self.pause(|run| run.save())? } else { None };
        saved.iter().for_each(|path| observer.on_snapshot(path));
        if evaluates {
            self.pause(|run| run.records.report(&run.config, None))?;
        }
        if evaluates || saves || compares {
            self.pause(|run| run.team.meet().and_then(|()| run.team.compare(run.step, &run.params)))?;
        }
        Ok(found)
    }

    fn finish(&mut self, found: Evaluation, observer: &mut dyn Observer) -> Result<Summary> {
        self.records.poll(true, observer);
        // The first may come late.
        self.team.meet()?;
        let (leads, used) = (self.team.leads(), self.used()?);
        let sample = leads.then(|| super::sample(&self.task, self.model(), &used, self.config.seed));
        if let Some(division) = &mut self.division {
            division.refresh(&self.params)?;
        }
        let summary = Summary::new(self, found, sample.transpose()?.flatten())?;
        let text = serde_json::to_string_pretty(&summary).expect("a summary is plain data");
        self.records.write("summary.json", &(text + "\n"))?;
        self.records.report(&self.config, Some(&summary))?;
        Ok(summary)
    }

    /// The weights that are evaluated and used: those in training, or what the optimizer makes of them.
    /// All ranks that share a model call it.
    pub(super) fn used(&self) -> Result<Params> {
        let mine = self.optimizer.averaged(&self.params)?.unwrap_or_else(|| self.params.clone());
        self.division.as_ref().map_or(Ok(mine.clone()), |d| d.whole(&mine))
    }

    fn evaluate(&self) -> Result<Evaluation> {
        self.evaluate_at(&self.used()?)
    }

    fn evaluate_at(&self, used: &Params) -> Result<Evaluation> {
        let batches = self.config.eval_batches;
        evaluate_together(&self.team, &self.task, self.model(), used, &self.device, batches)
    }

    /// Evaluates, and puts into `m` what was found; the rank that leads looks closer.
    fn judge(&mut self, m: &mut super::Metrics) -> Result<Evaluation> {
        let used = self.used()?;
        let found = self.evaluate_at(&used)?;
        (m.val_loss, m.val_accuracy) = (Some(found.loss), found.accuracy);
        if self.team.leads() {
            let model = self.division.as_ref().map_or(&self.model, |d| &d.model);
            m.attention = attention(&self.task, model, &used, &self.device)?;
            m.activity = activity(&self.task, model, &used, &self.device, &mut self.silent)?;
        }
        Ok(found)
    }

    /// n-gram losses, as far as they are known.
    pub fn baselines(&self) -> &[f64] {
        self.records.baselines()
    }
    /// Best held-out loss of all evaluations so far.
    pub fn best(&self) -> Option<f64> {
        self.best.map(|(_, loss)| loss)
    }
    /// Seconds of training in this process.
    pub fn wall(&self) -> f64 {
        self.meter.wall()
    }

    /// Runs something that is not training, without counting its time.
    fn pause<R>(&mut self, f: impl FnOnce(&mut Run) -> Result<R>) -> Result<R> {
        let t = Instant::now();
        let result = f(self);
        self.meter.exclude(t.elapsed());
        result
    }

    fn save(&mut self) -> Result<Option<PathBuf>> {
        let mut state = self.records.state(self.step, &self.config, self.loader.cursor(), self.best);
        state.controller = self.controller.as_ref().map(|c| c.state().clone());
        state.noise = self.noise.as_ref().map(NoiseScale::state);
        let kept = match &self.apart {
            Some(Apart::Local(local)) => local.kept(&self.team, self.optimizer.as_mut())?,
            _ => self.team.kept()?,
        };
        let (codec, arrays) = kept.unzip();
        state.codec = codec;
        let (kept, keep) = (&arrays.unwrap_or_default()[..], self.config.keep_snapshots);
        // Of ranks that keep the state of a part, one has the whole.
        let mut own = self.team.whole(&self.config, &self.params, self.optimizer.as_mut())?;
        let (has, own) =
            (own.is_some() || !self.team.is_sharded(), own.as_deref_mut().unwrap_or(self.optimizer.as_mut()));
        let Some(division) = &mut self.division else {
            return self.records.save(&self.params, own, (&state, kept), keep);
        };
        self.team.meet()?;
        division.refresh(&self.params)?;
        let mut whole = super::optimizer(&self.config, &division.params)?;
        if has {
            division.whole_state(own, whole.as_mut(), &self.params)?;
        }
        self.records.save(&division.params, whole.as_mut(), (&state, kept), keep)
    }
}

/// Error where somebody has edited the seed in config.toml.
fn expect_seed(state: &snapshot::State, config: &Config) -> Result<()> {
    if state.seed == config.seed {
        return Ok(());
    }
    let (now, then) = (config.seed, state.seed);
    let what = format!("is {now}, but the run was started with {then}; set it back, or start a new run");
    Err(Error::config("seed", what))
}
