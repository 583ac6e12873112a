//! What a run does, as a TOML file says it. Every key has a default; the resolved file is saved with the run.

use super::asynchronous::AsyncConfig;
use super::mesh::MeshConfig;
use super::settings;
use crate::data::Access;
use crate::error::{Error, Result};
use crate::kernel::gemm::Precision;
use crate::nn::ModelConfig;
use crate::optim::{ControllerConfig, ScheduleConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Where the data are and what is predicted from what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A packed file `*.rtd`, or the name of a bundled set.
    pub path: String,
    /// How the file is read.
    #[serde(with = "access")]
    pub map: Access,
    /// Field that the model reads; empty: the first real one.
    pub input: String,
    /// Field that is predicted; empty: the last labelled one.
    pub target: String,
}

/// Which optimizer, with its attributes; those that the optimizer does not have must not be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimizerConfig {
    /// Name, as `optim list` shows it.
    pub name: String,
    /// Peak learning rate.
    pub lr: f64,
    /// Attributes that are given, as `optim list` names them.
    #[serde(flatten)]
    pub attrs: BTreeMap<String, toml::Value>,
}

impl OptimizerConfig {
    /// The attributes that are given, as text.
    pub fn attrs(&self) -> Vec<(&str, String)> {
        texts(&self.attrs)
    }
}

fn texts(attrs: &BTreeMap<String, toml::Value>) -> Vec<(&str, String)> {
    let text = |v: &toml::Value| match v {
        toml::Value::String(s) => s.clone(),
        v => v.to_string(),
    };
    attrs.iter().map(|(name, v)| (name.as_str(), text(v))).collect()
}

/// What gradients are sent by, with its attributes; those that the codec does not have must not be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CodecConfig {
    /// Name, as [`codec::ALL`](crate::comm::codec::ALL) has it; `none`: gradients are summed as they are.
    pub name: String,
    /// Begin without what a snapshot says was not sent yet: asked for once, at a resume.
    pub reset: bool,
    /// Attributes that are given.
    #[serde(flatten)]
    pub attrs: BTreeMap<String, toml::Value>,
}

impl CodecConfig {
    /// True where gradients are summed as they are.
    pub fn is_none(&self) -> bool {
        self.name == "none"
    }

    /// The attributes that are given, as text.
    pub fn attrs(&self) -> Vec<(&str, String)> {
        texts(&self.attrs)
    }

    /// Errors on attributes of nothing, and on parts of batches that sum to the same bits for any number of ranks: a codec rounds
    /// what a rank has.
    fn validate(&self, micro_shards: usize) -> Result<()> {
        if self.is_none() {
            return match self.attrs.keys().next() {
                Some(key) => {
                    let what = "is given, but codec.name is none; name a codec that has it, or leave it out";
                    Err(Error::config(format!("codec.{key}"), what))
                }
                None => Ok(()),
            };
        }
        if micro_shards > 0 {
            let what = format!(
                "is {}, which rounds the sums of each rank, but micro_shards = {micro_shards} asks for the same bits for any \
                 number of ranks; set codec.name = none or micro_shards = 0",
                self.name
            );
            return Err(Error::config("codec.name", what));
        }
        Ok(())
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Optimizer steps.
    pub steps: u64,
    /// Samples (windows of text) of a batch, over all ranks.
    pub batch_size: usize,
    /// Batches whose gradients are averaged for one step.
    pub accumulate: u64,
    /// Keys the initial weights, the order of samples and dropout.
    pub seed: u64,
    /// Parts of each batch whose gradients are computed apart and summed over one fixed tree, so that any number of ranks
    /// gives the same bits; 0: one part a rank.
    pub micro_shards: usize,
    /// Micro-shards move to the ranks that are fast, while they train.
    pub balance: bool,
    /// 1: each rank keeps the optimizer's state of its part of the weights alone, and updates that part; 0: of all.
    pub zero: usize,
    /// Sums of ranks of up to this many bytes go by the tree, longer ones round the ring; 0: as is measured at the start.
    pub crossover: u64,
    /// Largest norm of the gradient; 0: no limit.
    pub clip: f64,
    /// Weights that stay as they begin, by name or by the last part of it, with commas between.
    pub freeze: String,
    /// Folders of runs, with commas between, whose weights these begin as, where names agree; empty: all are drawn.
    pub init: String,
    /// Keep only the inputs of transformer blocks and recompute their inside during backward.
    pub checkpoint: bool,
    /// Steps between lines of metrics.jsonl.
    pub log_every: u64,
    /// Steps between evaluations on the held-out split; 0: only at the end.
    pub eval_every: u64,
    /// Batches of an evaluation; 0: the whole split.
    pub eval_batches: usize,
    /// Steps between snapshots; 0: only at the end.
    pub snapshot_every: u64,
    /// Snapshots kept, the newest.
    pub keep_snapshots: usize,
    /// Threads; 0: one for each processor.
    pub threads: usize,
    /// Device.
    pub device: String,
    /// To what matrix products round their operands; all else is f32.
    pub precision: Precision,
    /// Write TensorBoard event files too.
    pub tensorboard: bool,
    /// Megabytes of gradients that ranks sum in one call.
    pub bucket_mb: f64,
    /// Steps whose timeline is written to trace.json; 0: none.
    pub trace: u64,
    /// Data.
    pub data: DataConfig,
    /// Model.
    pub model: ModelConfig,
    /// Optimizer.
    pub optimizer: OptimizerConfig,
    /// Learning rate over the steps.
    pub schedule: ScheduleConfig,
    /// What changes it beside the schedule.
    pub controller: ControllerConfig,
    /// What gradients are sent by.
    pub codec: CodecConfig,
    /// How ranks are laid out.
    pub mesh: MeshConfig,
    /// How ranks train without waiting for each other at every step.
    pub asynchronous: AsyncConfig,
}

impl Default for DataConfig {
    fn default() -> DataConfig {
        DataConfig {
            path: "moby-dick".into(),
            map: Access::Mmap,
            input: String::new(),
            target: String::new(),
        }
    }
}

impl Default for OptimizerConfig {
    fn default() -> OptimizerConfig {
        OptimizerConfig { name: "adamw".into(), lr: 2e-3, attrs: BTreeMap::new() }
    }
}

impl Default for CodecConfig {
    fn default() -> CodecConfig {
        CodecConfig { name: "none".into(), reset: false, attrs: BTreeMap::new() }
    }
}

impl Default for Config {
    /// The main job: a small character-level GPT on Moby-Dick, within five minutes on two cores.
    fn default() -> Config {
        Config {
            steps: 1500,
            batch_size: 32,
            accumulate: 1,
            seed: 1,
            micro_shards: 0,
            balance: false,
            zero: 0,
            crossover: 0,
            clip: 1.0,
            freeze: String::new(),
            init: String::new(),
            checkpoint: false,
            log_every: 10,
            eval_every: 250,
            eval_batches: 0,
            snapshot_every: 250,
            keep_snapshots: 2,
            threads: 0,
            device: "cpu".into(),
            precision: Precision::F32,
            tensorboard: true,
            bucket_mb: 25.0,
            trace: 0,
            data: DataConfig::default(),
            model: ModelConfig { context: 64, ..ModelConfig::default() },
            optimizer: OptimizerConfig {
                attrs: [("beta2", 0.99), ("weight_decay", 0.1)]
                    .map(|(name, v)| (name.to_string(), toml::Value::Float(v)))
                    .into(),
                ..OptimizerConfig::default()
            },
            schedule: ScheduleConfig::default(),
            controller: ControllerConfig::default(),
            codec: CodecConfig::default(),
            mesh: MeshConfig::default(),
            asynchronous: AsyncConfig::default(),
        }
    }
}

mod access {
    use super::Access;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(a: &Access, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(match a {
            Access::Mmap => "mmap",
            Access::Read => "read",
            Access::Sealed => "sealed",
        })
    }
    pub(super) fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<Access, D::Error> {
        let word = String::deserialize(d)?;
        word.parse()
            .map_err(|_| serde::de::Error::custom(format!("`{word}` is not one of mmap, read, sealed")))
    }
}

impl Config {
    /// Reads a file. Unknown keys, wrong types and impossible values are errors that name file, key, value and remedy.
    pub fn load(path: &Path) -> Result<Config> {
        crate::data::check_regular_file(path)?;
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Config::parse(&text, &path.display().to_string())
    }

    /// Reads TOML text that came from `origin`. Keys that are not given have their defaults.
    pub fn parse(text: &str, origin: &str) -> Result<Config> {
        settings::read(&[(text.to_string(), origin.to_string())], &[])
    }

    /// Reads the file (none: all defaults), then applies `key=value` settings, and checks the whole.
    pub fn resolve(path: Option<&Path>, settings: &[String]) -> Result<Config> {
        let mut texts = Vec::new();
        if let Some(path) = path {
            crate::data::check_regular_file(path)?;
            let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
            texts.push((text, path.display().to_string()));
        }
        let config = settings::read(&texts, settings)?;
        // What stands in a file that may come from elsewhere is kept to this folder; what is typed is not.
        let typed = |key: &str| settings.iter().any(|s| s.split('=').next().is_some_and(|k| k.trim() == key));
        let init = config.init.split(',').map(str::trim).filter(|path| !path.is_empty());
        for (key, path) in init.map(|path| ("init", path)).chain([("data.path", &config.data.path[..])]) {
            if !texts.is_empty() && !typed(key) {
                crate::data::check_written(key, path)?;
            }
        }
        config.validate()?;
        Ok(config)
    }

    /// This configuration with `key=value` settings applied.
    pub fn with(&self, settings: &[String]) -> Result<Config> {
        settings::read(&[(self.to_toml(), "the run's config.toml".into())], settings)
    }

    /// The whole as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a config is plain data")
    }

    /// Errors on values that no run can have.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("steps", self.steps),
            ("batch_size", self.batch_size as u64),
            ("accumulate", self.accumulate),
            ("log_every", self.log_every),
            ("keep_snapshots", self.keep_snapshots as u64),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(Error::config(key, "is 0, but must be at least 1"));
            }
        }
        if self.batch_size > 1 << 24
            || self.steps > 1 << 40
            || self.accumulate > 1 << 20
            || self.threads > 1024
        {
            let what = "steps, batch_size, accumulate or threads is larger than any machine can do";
            return Err(Error::config("batch_size", what));
        }
        if !(self.optimizer.lr > 0.0 && self.optimizer.lr.is_finite()) {
            return Err(Error::config(
                "optimizer.lr",
                format!("is {}, but must be a number above 0, such as 0.001", self.optimizer.lr),
            ));
        }
        if !(self.clip >= 0.0 && self.clip.is_finite()) {
            return Err(Error::config("clip", format!("is {}, but must be 0 or more", self.clip)));
        }
        if !(self.bucket_mb > 0.0 && self.bucket_mb <= 4096.0) {
            let what = format!("is {}, but must be above 0 and at most 4096", self.bucket_mb);
            return Err(Error::config("bucket_mb", what));
        }
        let shards = self.micro_shards;
        if shards > 0 && (!shards.is_power_of_two() || shards > self.batch_size) {
            let what = format!(
                "is {shards}, but must be 0 or a power of two that is at most batch_size = {}",
                self.batch_size
            );
            return Err(Error::config("micro_shards", what));
        }
        self.validate_ranks()?;
        self.schedule.build(self.optimizer.lr, self.steps)?;
        self.controller.build()?;
        self.codec.validate(shards)?;
        self.asynchronous.validate(self)?;
        self.model.validate()?;
        self.mesh.validate(self)
    }

    /// Errors on what ranks cannot do together.
    fn validate_ranks(&self) -> Result<()> {
        if self.balance && self.micro_shards == 0 {
            let what = "is true, but what moves between ranks are micro-shards, and micro_shards is 0; set it to a power of two, \
                        several times the number of ranks";
            return Err(Error::config("balance", what));
        }
        if self.zero > 1 {
            return Err(Error::config("zero", format!("is {}, but must be 0 or 1", self.zero)));
        }
        if self.zero > 0 && !self.codec.is_none() {
            let what = format!(
                "is {}, which gives each rank a part of the sums, but {} sums the whole on every rank; set it to 0, or codec.name = \
                 none",
                self.zero, self.codec.name
            );
            return Err(Error::config("zero", what));
        }
        Ok(())
    }
}
