//! What watches the launch of a manifest: the checks, the counters, the timeline.

use super::ptx::Exam;
use crate::ptx::checks::{Checker, Record};
use crate::ptx::profile::gpus::{Estimate, GPUS};
use crate::ptx::profile::lanes::{Microscope, Step};
use crate::ptx::profile::trace::Tracer;
use crate::ptx::profile::{Profile, Profiler};
use crate::ptx::program::Program;
use crate::ptx::run::{Fault, Watch, Watchers};
use crate::ptx::{self, cost};
use std::sync::{Arc, Mutex, PoisonError};

/// What a launch cost.
#[derive(Debug, serde::Serialize)]
pub struct Spent {
    /// What was counted.
    pub counted: Profile,
    /// Registers of a thread that the estimates assume.
    pub registers: u32,
    /// What it would take on GPUs at the least.
    pub estimates: Vec<Estimate>,
}

/// Where the watchers of one launch leave what they see.
#[derive(Default)]
pub(super) struct Watched {
    record: Option<Arc<Mutex<Record>>>,
    profile: Option<Arc<Mutex<Profile>>>,
    trace: Option<Arc<Mutex<Vec<serde_json::Value>>>>,
    lanes: Option<Arc<Mutex<Vec<Step>>>>,
}

impl Watched {
    /// Watchers as `exam` wants them; the checks begin with `record`.
    pub(super) fn new(exam: Exam, record: impl FnOnce() -> Record) -> (Watched, Option<Box<dyn Watch>>) {
        let mut all: Vec<Box<dyn Watch>> = Vec::new();
        let mut into = Watched::default();
        if exam.check {
            let record = into.record.insert(Arc::new(Mutex::new(record())));
            all.push(Box::new(Checker::new(Arc::clone(record))));
        }
        if exam.profile {
            all.push(Box::new(Profiler::new(Arc::clone(into.profile.insert(Arc::default())))));
        }
        if let Some(launch) = exam.trace {
            all.push(Box::new(Tracer::new(Arc::clone(into.trace.insert(Arc::default())), launch)));
        }
        if exam.lanes {
            all.push(Box::new(Microscope::new(Arc::clone(into.lanes.insert(Arc::default())))));
        }
        (into, Watchers::of(all))
    }

    /// What the checks found; the watchers are gone.
    pub(super) fn faults(&self) -> Vec<Fault> {
        self.record.as_ref().map_or(Vec::new(), |r| std::mem::take(&mut locked(r).findings))
    }

    /// What the first warp ran.
    pub(super) fn lanes(&self) -> Vec<Step> {
        self.lanes.as_ref().map_or(Vec::new(), |l| std::mem::take(&mut locked(l)))
    }

    /// The timeline.
    pub(super) fn trace(&self) -> Vec<serde_json::Value> {
        self.trace.as_ref().map_or(Vec::new(), |t| std::mem::take(&mut locked(t)))
    }

    /// What was counted, and what it means for GPUs; each thread with `registers` or as many as its text seems to need.
    ///
    /// # Errors
    /// None that `program` did not give when it was loaded.
    pub(super) fn spent(
        &self,
        program: &Program,
        entry: &str,
        registers: Option<u32>,
    ) -> crate::error::Result<Option<Spent>> {
        let Some(profile) = &self.profile else { return Ok(None) };
        let tree = ptx::parse(&program.name, &program.text)?;
        let written = tree.functions.iter().find(|f| f.entry && f.name == entry);
        let registers = registers.or(written.map(|f| cost::registers(&tree, f))).unwrap_or(32);
        let counted = std::mem::take(&mut *locked(profile));
        let estimates = GPUS.iter().map(|gpu| Estimate::of(&counted, gpu, registers)).collect();
        Ok(Some(Spent { counted, registers, estimates }))
    }
}

fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
