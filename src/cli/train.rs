//! `train`: from a configuration, or none, to a run folder.

use super::progress::Progress;
use super::session::{Session, note, say};
use crate::comm::{Meeting, Place};
use crate::error::{Error, Result};
use crate::train::{Config, KEYS, Run, Silent, Stop, Summary, Task, Team};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  ringtape train                                         a small GPT on Moby-Dick, into runs/gpt-1
  ringtape train --steps 500 --set model.dim=64          the same, smaller
  ringtape train datasets/mnist/cnn.toml --out runs/a    a recipe; the folder must be new or empty
  ringtape train --set data.path=my.rtd                  a text of your own: see `ringtape help data`
  ringtape train --resume runs/gpt-1 --steps 4000        go on from the last snapshot, to more steps
  ringtape launch -n 2 -- train                          by two processes, each with half of every batch

Ctrl-C (or SIGTERM) finishes the step and saves a snapshot; a second one leaves at once. The run folder holds config.toml
(every key, resolved), metrics.jsonl, step-N/ (snapshots), summary.json, report.html, and events for TensorBoard.
Flags win over --set, --set over the file. Under `ringtape launch`, torchrun, Slurm or mpirun the ranks train one model, each
with a part of every batch; rank 0 writes the folder, and ranks/rank-R.log is each one's own (steps that a resume makes again
stand in it twice). Exit code 6: the loss or a gradient is NaN or infinite.";

/// The examples, and every key of a configuration.
fn help() -> String {
    let width = KEYS.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 2;
    let keys: Vec<String> = KEYS.iter().map(|(key, what)| format!("  {key:<width$}{what}")).collect();
    format!("{EXAMPLES}\n\nKeys of a configuration:\n{}", keys.join("\n"))
}

/// Train a model; without CONFIG a small character-level GPT on the bundled text
#[derive(clap::Args)]
#[command(after_help = help())]
pub(super) struct Args {
    /// Configuration in TOML
    config: Option<PathBuf>,
    /// Device to train on [default: of the configuration]
    #[arg(long)]
    device: Option<String>,
    /// Optimizer steps in all
    #[arg(long)]
    steps: Option<u64>,
    /// Seed of weights, order of samples and dropout
    #[arg(long, conflicts_with = "resume")]
    seed: Option<u64>,
    /// Run folder, new or empty [default: runs/NAME-N]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    resume: Option<PathBuf>,
    /// Set a key of the configuration; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = super::key_value)]
    sets: Vec<(String, String)>,
}

impl Args {
    /// The run folder, where they name it.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.resume.as_deref().or(self.out.as_deref())
    }

    /// True where they go on with a run.
    pub(super) fn resumes(&self) -> bool {
        self.resume.is_some()
    }

    /// The configuration that they describe.
    pub(super) fn config(&self) -> Result<Config> {
        match &self.resume {
            Some(dir) => Run::configuration(dir)?.with(&settings(self)),
            None => Config::resolve(self.config.as_deref(), &settings(self)),
        }
    }

    /// Makes a folder for a run of `config`, which they describe without naming one.
    pub(super) fn choose(&self, config: &Config) -> Result<PathBuf> {
        let stem = self.config.as_ref().and_then(|f| f.file_stem()).map(|s| s.to_string_lossy().into_owned());
        fresh(Path::new("runs"), &stem.unwrap_or_else(|| config.model.kind.to_string()))
    }
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    // Before anything is made, so that no signal finds a run without a way to save it.
    let stop = Stop::on_signals()?;
    work(Some(session), &args, &stop, |config| team(session, config))
}

/// Trains as the rank that `join` makes of this thread. Where that is rank 0 it speaks for all, in `session`.
pub(super) fn work(
    session: Option<&Session<'_>>,
    args: &Args,
    stop: &Stop,
    join: impl Fn(&Config) -> Result<Team>,
) -> Result<()> {
    let mut run = match &args.resume {
        Some(dir) => resume(dir, args, join)?,
        None => create(args, join)?,
    };
    let folder = run.path().to_path_buf();
    let Some(session) = session.filter(|_| run.team().leads()) else {
        return run.train(stop, &mut Silent).map(drop);
    };
    run.notices().iter().for_each(|n| note!(session, "note: {n}"));
    let mut progress = Progress::new(session);
    let outcome = run.train(stop, &mut progress);
    progress.finish();
    match outcome {
        Ok(summary) => report(session, &folder, &summary),
        Err(e) => {
            if matches!(e, Error::Interrupted { .. }) {
                note!(session, "go on with `ringtape train --resume {}`", folder.display());
            }
            Err(e)
        }
    }
}

/// The ranks that train `config`: those of the launcher that started this process, or it alone.
fn team(session: &Session<'_>, config: &Config) -> Result<Team> {
    let get = |name: &str| std::env::var(name).ok();
    let Some(place) = Place::from_variables(get)?.filter(|place| place.world > 1) else {
        return Ok(Team::alone().with_codecs(session.extensions.codecs));
    };
    let hash = Task::open(config)?.set().hash();
    let data: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
    let world = Meeting::from_variables(&place, &Team::fingerprint(config), &data, get)?.join()?;
    Ok(Team::of(world)?.with_codecs(session.extensions.codecs))
}

/// The settings in the order in which later ones win: `--set`, then flags.
fn settings(args: &Args) -> Vec<String> {
    let mut all: Vec<String> = args.sets.iter().map(|(k, v)| format!("{k}={v}")).collect();
    all.extend(args.steps.map(|s| format!("steps={s}")));
    all.extend(args.seed.map(|s| format!("seed={s}")));
    all.extend(args.device.iter().map(|d| format!("device={d}")));
    all
}

fn resume(dir: &Path, args: &Args, join: impl Fn(&Config) -> Result<Team>) -> Result<Run> {
    let change = |c: &mut Config| {
        *c = c.with(&settings(args))?;
        super::threads(c.threads)
    };
    Run::resume_by(dir, change, join)
}

fn create(args: &Args, join: impl Fn(&Config) -> Result<Team>) -> Result<Run> {
    let config = args.config()?;
    super::threads(config.threads)?;
    let team = join(&config)?;
    if let Some(dir) = &args.out {
        return Run::create_by(team, config, dir);
    }
    let dir = team.share(|| args.choose(&config))?;
    let leads = team.leads();
    Run::create_by(team, config, &dir).inspect_err(|_| {
        // Only an empty folder can be removed so: what a run wrote stays.
        let _ = leads.then(|| std::fs::remove_dir(&dir));
    })
}

/// Makes `parent/name-N` with the first N that is free: making the folder is what decides, so two runs cannot take one.
fn fresh(parent: &Path, name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
    for n in 1.. {
        let dir = parent.join(format!("{name}-{n}"));
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io(dir, e)),
        }
    }
    unreachable!("there are more numbers than folders")
}

/// What came of it, and what to do next.
fn report(session: &Session<'_>, folder: &Path, s: &Summary) -> Result<()> {
    let accuracy = s.val_accuracy.map(|a| format!(", accuracy {:.2} %", 100.0 * a)).unwrap_or_default();
    say!(session, "{} loss {:.4}{accuracy} after {} steps, {:.0} s", s.split, s.val_loss, s.steps, s.wall_s)?;
    if !s.ngram_losses.is_empty() {
        say!(session, "n-gram baselines of the same split, by characters of context:")?;
        for (n, loss) in s.ngram_losses.iter().enumerate() {
            let beaten = if s.val_loss < *loss { "beaten" } else { "not beaten" };
            say!(session, "  {n}  {loss:.4}  {beaten}")?;
        }
    }
    if let Some(sample) = &s.sample {
        say!(session, "\nthe model writes:\n{}\n", sample.trim_matches('\n'))?;
    }
    let dir = folder.display();
    say!(session, "run folder {dir}: open {dir}/report.html")?;
    if s.sample.is_some() {
        note!(session, "next: ringtape generate {dir} --prompt \"The \" --tokens 400");
    }
    note!(session, "      ringtape eval {dir}");
    note!(session, "      ringtape train --resume {dir} --steps {}", s.steps * 2);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_folders_are_numbered_and_never_shared() {
        let dir = tempfile::tempdir().unwrap();
        let name = |p: PathBuf| p.file_name().unwrap().to_string_lossy().into_owned();
        let parent = dir.path().join("runs");
        assert_eq!(name(fresh(&parent, "gpt").unwrap()), "gpt-1");
        assert_eq!(name(fresh(&parent, "gpt").unwrap()), "gpt-2");
        assert_eq!(name(fresh(&parent, "cnn").unwrap()), "cnn-1");
        std::fs::remove_dir(parent.join("gpt-1")).unwrap();
        assert_eq!(name(fresh(&parent, "gpt").unwrap()), "gpt-1");
    }
}
