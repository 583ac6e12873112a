//! What a run writes into its folder. The rank that leads writes; the others have records that keep nothing.

use super::evaluate::ngrams;
use super::folder::Folder;
use super::metrics::{Log, Metrics};
use super::snapshot::{self, State};
use super::tensorboard::EventWriter;
use super::{Config, Observer, Summary, Task, report};
use crate::data::Cursor;
use crate::error::Result;
use crate::optim::Optimizer;
use crate::tape::Params;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

/// The folder of a run, and what is open in it.
pub(super) struct Records {
    folder: Folder,
    open: Option<Open>,
}

struct Open {
    log: Log,
    events: Option<EventWriter>,
    ngrams: Option<Receiver<Vec<f64>>>,
    baselines: Vec<f64>,
}

impl Records {
    /// Goes on where the state `from` was taken. Keeps nothing unless this rank `leads`.
    pub(super) fn open(
        folder: Folder,
        leads: bool,
        config: &Config,
        task: &Task,
        from: Option<&State>,
    ) -> Result<Records> {
        if !leads {
            return Ok(Records { folder, open: None });
        }
        let dir = folder.path();
        let (first, bytes) = from.map_or((0, 0), |s| (s.step, s.metrics_bytes));
        let events = config.tensorboard.then(|| EventWriter::create(&dir.join("tensorboard"), first));
        let (log, events) = (Log::open(dir, bytes)?, events.transpose()?);
        let open = Open { log, events, ngrams: ngrams(task)?, baselines: vec![] };
        Ok(Records { folder, open: Some(open) })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a whole file of the folder.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        if self.open.is_some() { self.folder.write(name, text) } else { Ok(()) }
    }

    /// Appends the line of a step.
    pub(super) fn log(&mut self, m: &Metrics) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.log.write(m)?;
        open.events.as_mut().map_or(Ok(()), |e| e.write(m))
    }

    /// Draws the report anew.
    pub(super) fn report(&self, config: &Config, summary: Option<&Summary>) -> Result<()> {
        match &self.open {
            Some(open) => report::write(self.path(), config, &open.baselines, summary),
            None => Ok(()),
        }
    }

    /// n-gram losses, as far as they are known.
    pub(super) fn baselines(&self) -> &[f64] {
        self.open.as_ref().map_or(&[], |open| &open.baselines)
    }

    /// Looks whether n-gram losses have come, or waits for them, and tells the observer of those that have.
    pub(super) fn poll(&mut self, wait: bool, observer: &mut dyn Observer) {
        let Some(open) = &mut self.open else { return };
        let found = match &open.ngrams {
            Some(ngrams) if wait => Some(ngrams.recv().unwrap_or_default()),
            Some(ngrams) => ngrams.try_recv().ok(),
            None => None,
        };
        if let Some(found) = found {
            open.ngrams = None;
            open.baselines = found;
            observer.on_baselines(&open.baselines);
        }
    }

    /// The state of `step` as far as the folder and the data tell it.
    pub(super) fn state(
        &self,
        step: u64,
        config: &Config,
        cursor: Cursor,
        best: Option<(u64, f64)>,
    ) -> State {
        let bytes = self.open.as_ref().map_or(0, |open| open.log.bytes());
        State::new(step, config, cursor, bytes, best)
    }

    /// Saves a snapshot, and removes those that are not kept. Gives its path where one was written.
    pub(super) fn save(
        &self,
        params: &Params,
        optimizer: &mut dyn Optimizer,
        (state, kept): (&State, &[(String, Vec<f32>)]),
        keep: usize,
    ) -> Result<Option<PathBuf>> {
        if self.open.is_none() {
            return Ok(None);
        }
        let path = snapshot::save(self.path(), params, optimizer, state, kept)?;
        snapshot::prune(self.path(), state.step, keep, state.best.map(|(step, _)| step))?;
        Ok(Some(path))
    }
}
