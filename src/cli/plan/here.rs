//! This machine as a cluster: ranks as processes of it, whose messages and training steps are timed, all at once.

use super::super::bench::step::Step;
use super::super::devices::Machine;
use super::super::ranks::{Children, Job, start};
use super::super::restart::{End, Ended};
use super::super::round::how;
use super::Args;
use crate::cli::session::{Session, note};
use crate::comm::{Communicator, Fit, Meeting, Place, Reduce};
use crate::error::{Error, Result};
use crate::plan::{Cluster, Link, Model, Width};
use crate::train::Config;
use std::io::Read;
use std::process::Stdio;

/// Steps of which the median counts, and those before that warm up.
const STEPS: usize = 15;
const WARM: usize = 3;

/// The cluster; of the ranks that a launcher started, or of as many as are asked for. None for those that do not lead.
pub(super) fn cluster(session: &Session<'_>, args: &Args, config: &Config) -> Result<Option<Cluster>> {
    let get = |name: &str| std::env::var(name).ok();
    if let Some(place) = Place::from_variables(get)?.filter(|p| p.world > 1) {
        let world = Meeting::from_variables(&place, "plan", "", get)?.join()?;
        return measure(world, config, super::vocabulary(args, config)?);
    }
    let job = Job::new(args.ranks as usize, None)?;
    note!(session, "measuring {} ranks here …", job.world);
    let words = words(args);
    let mut children = Children::default();
    for rank in 0..job.world {
        let mut command = job.command(rank, &words)?;
        command.stdout(if rank == 0 { Stdio::piped() } else { Stdio::null() });
        children.0.push(start(&mut command, rank)?);
    }
    let mut text = String::new();
    if let Some(mut out) = children.0[0].stdout.take() {
        out.read_to_string(&mut text).map_err(|e| Error::io("rank 0", e))?;
    }
    let mut ended = Ended::default();
    for (rank, child) in children.0.iter_mut().enumerate() {
        let status = child.wait().map_err(|e| Error::io(format!("rank {rank}"), e))?;
        ended.ends.push(End { rank, how: how(status), sent: None });
    }
    if let Some(End { rank, how, .. }) = ended.first() {
        return Err(Error::Launched { rank: *rank, code: how.code() });
    }
    Cluster::parse(&text, "of the ranks here").map(Some)
}

/// The verb that has a rank measure and describe what it saw.
fn words(args: &Args) -> Vec<String> {
    let mut words: Vec<String> = ["--quiet", "plan", "--describe"].map(String::from).into();
    let mut add = |flag: &str, value: String| words.extend([flag.to_string(), value]);
    if let Some(path) = &args.model {
        add("--model", path.display().to_string());
    }
    args.sets.iter().for_each(|(k, v)| add("--set", format!("{k}={v}")));
    args.batch.iter().for_each(|n| add("--batch", n.to_string()));
    args.vocabulary.iter().for_each(|n| add("--vocabulary", n.to_string()));
    words
}

/// Messages, then steps of each rank's part of the batch: what the slowest takes counts.
fn measure(mut world: Communicator, config: &Config, vocabulary: usize) -> Result<Option<Cluster>> {
    let (p, me) = (world.size(), world.rank());
    let fit = Fit::measure(&mut world)?;
    let samples = (config.batch_size / p).max(1);
    let config = Config { batch_size: samples, ..config.clone() };
    let model = Model::of(&config.model, vocabulary)?;
    let mut step = Step::new(config.clone())?;
    let (mut both, mut updates) = (Vec::new(), Vec::new());
    world.barrier()?;
    for turn in 0..WARM + STEPS {
        let [batch, forward, backward, update] = step.run()?;
        if turn >= WARM {
            both.push((batch + forward + backward).as_secs_f64());
            updates.push(update.as_secs_f64());
        }
    }
    let mut slowest = [median(&mut both), median(&mut updates)];
    world.all_reduce(&mut slowest, Reduce::Max)?;
    if me > 0 {
        return Ok(None);
    }
    let operations = model.training() * (samples * config.model.context) as f64;
    let machine = Machine::look();
    let memory = machine.available_bytes.or(machine.memory_bytes).unwrap_or(1 << 30) as f64;
    let link = Link { alpha: fit.alpha, beta: fit.beta };
    Ok(Some(Cluster {
        name: "here".into(),
        devices: p,
        devices_per_node: p,
        flops: operations / slowest[0],
        // The rate is that of whole steps already.
        utilisation: 1.0,
        memory: memory / p as f64,
        precision: Width::F32,
        update: slowest[1] / model.parameters(),
        gamma: fit.gamma,
        within: link,
        between: link,
        failures: None,
    }))
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
