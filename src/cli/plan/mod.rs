//! `plan`: what training on many devices would cost, and which layout is fastest.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the verb: what is asked |
//! | `here.rs` | this machine as a cluster, measured |
//! | `show.rs` | the table, JSON, the chart |

mod here;
mod show;

use super::session::{Session, note, say};
use crate::error::{Error, Result};
use crate::nn::Io;
use crate::plan::{self, Cluster, Job, Layout, Model};
use crate::train::{Config, Task};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  ringtape plan                                      two ranks on this machine, measured now, and the default GPT
  ringtape plan --cluster small --set model.layers=24 --set model.dim=2048 --set model.heads=16 --set model.context=2048
      --vocabulary 50257 --batch 512                 1.3 billion parameters on 64 GPUs
  ringtape plan --cluster large --devices 100000 --model gpt.toml --tokens 15e12 --out plan.svg
  ringtape plan --cluster large --model gpt.toml --layout dp=128,tp=8,pp=16,zero   this layout, and no other
  ringtape plan --cluster small --describe           a description to start from; `--cluster mine.toml` reads it
  ringtape plan --devices 64 --local-steps 100       64 such devices, which sum their weights every hundredth step

A model of costs, not a run; what it assumes stands below its table. Layouts: dp replicas with a part of the batch each, tp
parts of each product, pp stages of blocks, cp parts of each sample, samples of a micro-batch; `zero` deals out optimizer
state, `recompute` keeps inputs of blocks alone. Model, batch_size, bucket_mb, steps and data (for the vocabulary) are those of
a training configuration.";

/// Plan training on many devices: the fastest layouts by a model of their costs
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// here (measured now), small, large, or a file such as `--describe` prints
    #[arg(long, value_name = "NAME|FILE", default_value = "here")]
    cluster: String,
    /// Training configuration in TOML, for the model [default: that of `train`]
    #[arg(long, value_name = "CONFIG.toml")]
    model: Option<PathBuf>,
    /// Set a key of it; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = super::key_value)]
    sets: Vec<(String, String)>,
    /// Symbols [default: those of the configuration's data]
    #[arg(long, value_name = "N")]
    vocabulary: Option<usize>,
    /// Devices in all [default: of the cluster]
    #[arg(long, value_name = "N")]
    devices: Option<usize>,
    /// Ranks that `--cluster here` measures, each of which stands for a device
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=256))]
    ranks: u32,
    /// Samples of a step, over all devices [default: batch_size]
    #[arg(long, value_name = "SAMPLES")]
    batch: Option<usize>,
    /// Tokens to train on, as 15e12 [default: steps × batch]
    #[arg(long, value_name = "TOKENS")]
    tokens: Option<f64>,
    /// Cost this layout alone: dp=..,tp=..,pp=..,cp=..,micro=..,zero,recompute; 1 or off where not said
    #[arg(long)]
    layout: Option<Layout>,
    /// How many times fewer bytes a codec sends of a gradient
    #[arg(long, value_name = "RATIO", default_value_t = 1.0)]
    codec_ratio: f64,
    /// Steps of a replica between sums of weights (DiLoCo); 1: gradients are summed each step
    #[arg(long, value_name = "H", default_value_t = 1)]
    local_steps: usize,
    /// Sums of gradients may come a step late
    #[arg(long)]
    late: bool,
    /// Layouts to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    top: u32,
    /// Draw efficiency over the number of devices into this file, too
    #[arg(long, value_name = "PLAN.svg")]
    out: Option<PathBuf>,
    /// Print the cluster as TOML, and no plan
    #[arg(long)]
    describe: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    let sets: Vec<String> = args.sets.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut config = Config::resolve(args.model.as_deref(), &sets)?;
    config.batch_size = args.batch.unwrap_or(config.batch_size);
    config.validate()?;
    let Some(mut cluster) = find(session, &args, &config)? else { return Ok(()) };
    cluster.devices = args.devices.unwrap_or(cluster.devices);
    cluster.validate()?;
    if args.describe {
        return say!(session, "{}", describe(&cluster)?);
    }
    let model = Model::of(&config.model, vocabulary(&args, &config)?)?;
    let job = job(&args, &config)?;
    let found = match args.layout {
        Some(layout) => {
            let best = vec![plan::cost(&cluster, &model, &job, layout)?];
            plan::Found {
                fit: best.iter().filter(|c| c.memory <= cluster.memory).count(),
                best,
                layouts: 1,
                played: 1,
            }
        }
        None => plan::search(&cluster, &model, &job, args.top as usize)?,
    };
    if let Some(path) = &args.out {
        show::draw(path, &cluster, &model, &job, args.layout)?;
        note!(session, "{}", path.display());
    }
    match args.json {
        true => show::json(session, &cluster, &model, &job, &found),
        false => show::table(session, &cluster, &model, &job, &found),
    }
}

/// The cluster that is named; None where this process was a rank that only measures.
fn find(session: &Session<'_>, args: &Args, config: &Config) -> Result<Option<Cluster>> {
    let name = args.cluster.as_str();
    if name == "here" {
        return here::cluster(session, args, config);
    }
    if let Some(cluster) = Cluster::named(name) {
        return cluster.map(Some);
    }
    if !(name.contains('/') || name.ends_with(".toml")) {
        let known: Vec<&str> = plan::NAMES.iter().map(|(n, _)| *n).collect();
        let what = format!("--cluster {name}: there are here, {}; a file ends in .toml", known.join(", "));
        return Err(Error::Usage(what));
    }
    let path = Path::new(name);
    crate::data::check_regular_file(path)?;
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let mut cluster = Cluster::parse(&text, name)?;
    if cluster.name.is_empty() {
        cluster.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    }
    Ok(Some(cluster))
}

fn describe(cluster: &Cluster) -> Result<String> {
    // Those that come along say where their numbers are from.
    if let Some((_, text)) = plan::NAMES.iter().find(|(name, _)| *name == cluster.name)
        && Cluster::parse(text, &cluster.name)? == *cluster
    {
        return Ok(text.trim_end().into());
    }
    let text = toml::to_string(cluster).map_err(|e| Error::Usage(format!("cannot print as TOML: {e}")))?;
    Ok(text.trim_end().into())
}

fn vocabulary(args: &Args, config: &Config) -> Result<usize> {
    if let Some(n) = args.vocabulary {
        return Ok(n);
    }
    match Task::open(config)?.io() {
        Io::Tokens { vocabulary } => Ok(*vocabulary),
        _ => Err(Error::Usage(format!("the data `{}` have no symbols: give --vocabulary", config.data.path))),
    }
}

fn job(args: &Args, config: &Config) -> Result<Job> {
    let tokens =
        args.tokens.unwrap_or(config.steps as f64 * (config.batch_size * config.model.context) as f64);
    for (flag, x, least) in [("--tokens", tokens, 1.0), ("--codec-ratio", args.codec_ratio, 1.0)] {
        if !(x >= least && x.is_finite()) {
            return Err(Error::Usage(format!("{flag} {x} must be a number of at least {least}")));
        }
    }
    if args.local_steps == 0 || args.local_steps > 1 << 20 {
        let what = format!("--local-steps {} must be between 1 and {}", args.local_steps, 1 << 20);
        return Err(Error::Usage(what));
    }
    if args.late && args.local_steps > 1 {
        return Err(Error::Usage(
            "--late is about sums of each step, which --local-steps does without: give one of them".into(),
        ));
    }
    Ok(Job {
        batch: config.batch_size,
        tokens,
        bucket: config.bucket_mb * f64::from(1 << 20),
        codec_ratio: args.codec_ratio,
        local_steps: args.local_steps,
        late: args.late,
    })
}
