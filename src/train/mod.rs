//! Training: from a config file to a folder with snapshots, metrics and a report.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Observer`], [`Summary`], [`Trained`] |
//! | `config.rs`, `keys.rs`, `settings.rs` | [`Config`]: TOML, its keys, what they must be, how they are read |
//! | `task.rs`, `fields.rs` | [`Task`]: which fields of which data, under which loss |
//! | `run.rs`, `step.rs`, `pass.rs` | [`Run`]: the loop; one step of it; forward and backward over one batch |
//! | `team.rs`, `sums.rs`, `agree.rs`, `states.rs`, `buckets.rs`, `sent.rs` | [`Team`]: ranks that train together; what they sum, and how it travels |
//! | `mesh/` | ranks that share one model |
//! | `zero.rs` | a part of the optimizer's state on each rank |
//! | `balance.rs` | micro-shards that go to the ranks that are fast |
//! | `compare.rs` | weights of ranks held against each other |
//! | `codecs.rs` | gradients that are sent in fewer bytes |
//! | `asynchronous/` | ranks that do not wait for each other at every step |
//! | `slow.rs` | a rank that is made slow, for experiments |
//! | `trace.rs`, `journal.rs` | the timeline of a step, and what each rank notes |
//! | `evaluate.rs`, `ngram.rs` | held-out loss; the opponent that counts |
//! | `modalities.rs` | a model with some of its modalities missing |
//! | `maps.rs`, `plot_maps.rs` | where it looks in them |
//! | `retrieval.rs` | one modality finds another |
//! | `own.rs` | a user's own picture, recording or text |
//! | `records.rs` | what a run writes |
//! | `share.rs` | a snapshot for all ranks |
//! | `snapshot.rs`, `state.rs` | `step-N/`: saved whole or not at all, checked when loaded; what in it is no tensor |
//! | `init.rs` | beginning with the weights of another run |
//! | `folder.rs`, `metrics.rs` | the run folder and its lock; `metrics.jsonl` |
//! | `tensorboard.rs` | event files for TensorBoard |
//! | `stop.rs` | signals |

mod agree;
pub mod asynchronous;
mod balance;
mod buckets;
mod changes;
mod codecs;
mod compare;
pub mod config;
mod evaluate;
mod fields;
mod folder;
mod init;
mod journal;
mod keys;
pub mod maps;
mod mesh;
mod meter;
pub mod metrics;
pub mod modalities;
pub mod ngram;
mod own;
mod pass;
pub(crate) mod plot;
mod plot_maps;
mod records;
mod report;
pub mod retrieval;
mod run;
mod sent;
mod settings;
mod share;
mod slow;
pub mod snapshot;
mod state;
mod states;
mod step;
mod stop;
mod sums;
mod task;
mod team;
pub mod tensorboard;
mod text;
mod trace;
mod zero;

pub use config::Config;
pub use evaluate::{Evaluation, Losses, activity, attention, evaluate, losses};
pub use folder::write_whole;
pub use keys::KEYS;
pub use mesh::MeshConfig;
pub use metrics::Metrics;
pub use own::{Own, Verdict};
pub use run::Run;
pub use stop::Stop;
pub use task::{Objective, Task};
pub use team::Team;
pub use text::Alphabet;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::attention::inspect::HeadReport;
use crate::nn::{self, DeadUnits, Io, LayerActivity, Model, Sampler};
use crate::optim::{self, ControllerName, Optimizer};
use crate::shape::DType;
use crate::tape::{Params, ParamsBuilder};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Told what happens while a run trains: the command line draws from it.
pub trait Observer {
    /// Training begins.
    fn on_start(&mut self, _: &Run) {}
    /// A step is done.
    fn on_step(&mut self, _: &Metrics) {}
    /// A line was logged; speed, stall and, after an evaluation, `val_loss` are filled in.
    fn on_log(&mut self, _: &Metrics) {}
    /// Losses of the n-gram opponents with 0, 1, … characters of context are known.
    fn on_baselines(&mut self, _: &[f64]) {}
    /// A snapshot was written.
    fn on_snapshot(&mut self, _: &Path) {}
}

/// An observer that looks away.
pub struct Silent;
impl Observer for Silent {}

/// `summary.json`: what a finished run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Steps trained.
    pub steps: u64,
    /// Trained parameters.
    pub parameters: usize,
    /// Held-out loss at the end.
    pub val_loss: f64,
    /// Held-out accuracy at the end, for classes.
    pub val_accuracy: Option<f64>,
    /// Lowest held-out loss of all evaluations.
    pub best_val_loss: f64,
    /// Name of the split that `val_loss` is over.
    pub split: String,
    /// Targets in it.
    pub targets: u64,
    /// Held-out losses of n-gram models with 0, 1, … characters of context, for text.
    pub ngram_losses: Vec<f64>,
    /// Seconds of training in the last process, evaluations left out.
    pub wall_s: f64,
    /// Text that the model wrote, for text.
    pub sample: Option<String>,
    /// The held-out split with some modalities missing, for models of several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub modalities: Option<Vec<modalities::Through>>,
    /// How often one modality of a held-out sample finds the other, for models of retrieval.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retrieval: Option<Vec<retrieval::Recall>>,
    /// Where the model looks in some held-out samples, for models whose modalities meet; drawn in the report alone.
    #[serde(skip)]
    pub maps: Option<Vec<maps::Looked>>,
}

impl Summary {
    fn new(run: &Run, found: Evaluation, sample: Option<String>) -> Result<Summary> {
        let (task, model, used) = (run.task(), run.model(), run.used()?);
        let (batches, leads) = (run.config().eval_batches, run.team().leads());
        Ok(Summary {
            steps: run.step(),
            parameters: run.params().trained_len(),
            val_loss: found.loss,
            val_accuracy: found.accuracy,
            best_val_loss: run.best().map_or(found.loss, |b| b.min(found.loss)),
            split: run.task().held_out().into(),
            targets: found.targets,
            ngram_losses: run.baselines().to_vec(),
            wall_s: run.wall(),
            sample,
            modalities: if leads {
                modalities::modalities(task, model, &used, used.device(), batches)?.map(|(_, all)| all)
            } else {
                None
            },
            retrieval: if leads { retrieval::retrieval(task, model, &used, used.device())? } else { None },
            maps: if leads { maps::maps(task, model, &used, used.device())? } else { None },
        })
    }
}

/// The optimizer of `config`, which the controller of the rate must be able to read.
fn optimizer(config: &Config, params: &Params) -> Result<Box<dyn Optimizer>> {
    let built = optim::find(&config.optimizer.name, &[])?.build_with(&config.optimizer.attrs(), params)?;
    if config.controller.name != ControllerName::None && !built.slopes() {
        let what = format!(
            "reads the slope along the last update, which {} does not remember; set it to none, or take another \
             optimizer.name",
            built.name()
        );
        return Err(Error::config("controller.name", what));
    }
    if config.zero > 0 && !built.by_weight() {
        let name = built.name();
        let why =
            if built.probes() { "asks for two gradients a step" } else { "looks beyond single weights" };
        let what = format!(
            "is {}, which gives each rank a part of the weights to update, but {name} {why}; set it to 0, or take another \
             optimizer.name",
            config.zero
        );
        return Err(Error::config("zero", what));
    }
    if built.probes() && !config.codec.is_none() {
        let what = format!(
            "is {}, which keeps for the next step what a gradient lacks, but {} asks for two gradients a step; set it to none, or \
             take another optimizer.name",
            config.codec.name,
            built.name()
        );
        return Err(Error::config("codec.name", what));
    }
    asynchronous::allows(config, built.as_ref(), params)?;
    Ok(built)
}

/// Symbols that the sample of a summary has.
const SAMPLE: usize = 300;

/// What `model` writes after a line break (or the first symbol), for text whose symbols are known and a model that can write.
fn sample(task: &Task, model: &Model, params: &Params, seed: u64) -> Result<Option<String>> {
    let (Model::Gpt(gpt), Some(alphabet)) = (model, Alphabet::of(task)) else { return Ok(None) };
    if gpt.router().is_some_and(|r| !r.is_causal) {
        return Ok(None);
    }
    let prompt = alphabet.encode("\n").unwrap_or_else(|_| vec![0]);
    let mut ids = Vec::new();
    let sampler = Sampler { temperature: 0.8, top_k: 0, seed };
    gpt.generate(params, &prompt, SAMPLE, &sampler, |id| {
        ids.push(id);
        true
    })?;
    Ok(Some(alphabet.decode(&ids)))
}

/// A run's model with the weights of its last complete snapshot: for evaluation and generation.
pub struct Trained {
    /// The run's configuration.
    pub config: Config,
    /// What was learned.
    pub task: Task,
    /// The model.
    pub model: Model,
    /// Its weights.
    pub params: Params,
    /// Steps that they were trained for.
    pub step: u64,
    /// What the user should know, such as a damaged snapshot that was passed over.
    pub notices: Vec<String>,
}

impl Trained {
    /// Loads from the run folder `dir`, onto the device that the configuration or `device` names.
    pub fn load(dir: &Path, device: Option<&str>) -> Result<Trained> {
        Trained::load_with(dir, device, &[])
    }

    /// [`Trained::load`] with `key=value` settings over the run's configuration: a model of other settings with the same
    /// weights, such as one without its router.
    pub fn load_with(dir: &Path, device: Option<&str>, settings: &[String]) -> Result<Trained> {
        let file = dir.join("config.toml");
        if !file.is_file() {
            return Err(Error::Usage(format!("{} is no run folder: it has no config.toml", dir.display())));
        }
        crate::data::check_folder(dir)?;
        let config = Config::load(&file)?.with(settings)?;
        config.validate()?;
        let found = snapshot::load_latest(dir)?;
        let Some(snapshot) = found.snapshot else {
            let what = "the run has no complete snapshot yet; train it further with `train --resume`";
            return Err(Error::snapshot(dir, what));
        };
        let device = Device::open(device.unwrap_or(&config.device))?;
        let task = Task::open(&config)?;
        let (model, mut params) = build(&config, &task, &device)?;
        snapshot.restore_params(&mut params)?;
        Ok(Trained { config, task, model, params, step: snapshot.state.step, notices: found.notices })
    }

    /// What every head of windowed or dynamic attention sees; None for other models.
    pub fn attention(&self) -> Result<Option<Vec<HeadReport>>> {
        attention(&self.task, &self.model, &self.params, self.params.device())
    }

    /// Which hidden units are at work; None for models whose units are never 0.
    pub fn activity(&self) -> Result<Option<Vec<LayerActivity>>> {
        activity(&self.task, &self.model, &self.params, self.params.device(), &mut DeadUnits::new())
    }

    /// Held-out loss and accuracy.
    pub fn evaluate(&self) -> Result<Evaluation> {
        evaluate(&self.task, &self.model, &self.params, self.params.device(), 0)
    }

    /// The held-out split with all modalities, and with some missing; None for models of one input.
    pub fn modalities(&self) -> Result<Option<(Evaluation, Vec<modalities::Through>)>> {
        modalities::modalities(&self.task, &self.model, &self.params, self.params.device(), 0)
    }

    /// Where the model looks in some held-out samples, drawn as SVG.
    ///
    /// # Errors
    /// A model whose modalities do not meet.
    pub fn maps(&self) -> Result<String> {
        match maps::maps(&self.task, &self.model, &self.params, self.params.device())? {
            Some(all) => Ok(plot_maps::svg(&all)),
            None => {
                let what = "maps of attention are drawn of models whose modalities meet (model.kind = \"fusion\", and model.fusion \
                            early, hybrid or experts); this run's do not";
                Err(Error::Usage(what.into()))
            }
        }
    }

    /// How often one modality of a held-out sample finds the other; None for models that do not retrieve.
    pub fn retrieval(&self) -> Result<Option<Vec<retrieval::Recall>>> {
        retrieval::retrieval(&self.task, &self.model, &self.params, self.params.device())
    }

    /// [`Trained::evaluate`], and the loss of every target of the held-out sequences.
    pub fn losses(&self) -> Result<(Evaluation, Losses)> {
        losses(&self.task, &self.model, &self.params, self.params.device())
    }

    /// Goes on from `prompt` by `count` symbols, handing each to `emit`; `emit` may stop with false.
    pub fn generate(
        &self,
        prompt: &str,
        count: usize,
        sampler: &Sampler,
        mut emit: impl FnMut(&str) -> bool,
    ) -> Result<()> {
        let Model::Gpt(gpt) = &self.model else {
            return Err(Error::Usage(format!(
                "the run trained a `{}`, which writes no text",
                self.config.model.kind
            )));
        };
        let Io::Tokens { .. } = self.task.io() else { unreachable!("a gpt is built for tokens only") };
        let alphabet = Alphabet::of(&self.task).ok_or_else(|| {
            Error::Usage("the data hold token ids without their text, so there is nothing to print".into())
        })?;
        let ids = alphabet.encode(prompt)?;
        gpt.generate(&self.params, &ids, count, sampler, |id| emit(alphabet.symbol(id)))
    }
}

/// The model of `config` for `task`, with its initial parameters.
pub fn build(config: &Config, task: &Task, device: &Device) -> Result<(Model, Params)> {
    let mut params = ParamsBuilder::new(device, DType::F32, config.seed);
    let model = nn::build(&config.model, task.io(), config.checkpoint, &mut params)?;
    params.freeze(&config.freeze)?;
    Ok((model, params.build()?))
}
