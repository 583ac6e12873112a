//! `metrics.jsonl`: one JSON object a logged step, appended and flushed, so that a killed run loses at most a line. A
//! resumed run cuts the file where its snapshot was taken and goes on, so the file is that of an uninterrupted run.

use crate::error::{Error, Result};
use crate::nn::LayerActivity;
use crate::nn::attention::inspect::HeadReport;
use crate::optim::gvc::Decision;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How fast a rank is, and what it has to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// Samples a second while it computes, the mean of the last steps.
    pub samples_per_s: f64,
    /// Micro-shards of each batch.
    pub shards: usize,
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Optimizer steps done, this one included.
    pub step: u64,
    /// Loss of this step's batch (nats for classes, mean squared error for numbers).
    pub loss: f64,
    /// Loss over the held-out split, when this step ended with an evaluation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val_loss: Option<f64>,
    /// Share of held-out targets predicted rightly, for classes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val_accuracy: Option<f64>,
    /// What the heads of windowed or dynamic attention saw then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attention: Option<Vec<HeadReport>>,
    /// Which hidden units were at work then, where they can be 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub activity: Option<Vec<LayerActivity>>,
    /// Learning rate of this step.
    pub lr: f64,
    /// What the controller of the learning rate decided after this step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub controller: Option<Decision>,
    /// Samples whose gradient is as large as its noise, where a step has several micro-batches.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub noise_scale: Option<f64>,
    /// Steps of one micro-batch that a step of all is worth (AdaScale's gain).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gain: Option<f64>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Bytes of gradients that rank 0 sent in this step, where there are several ranks (and no micro-shards).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes_sent: Option<u64>,
    /// Bytes that the ring sends of uncompressed gradients, over those: where a codec is on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub compression: Option<f64>,
    /// How fast each rank was and how many micro-shards it had until then, at steps at which they may move.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub balance: Option<Vec<Pace>>,
    /// Steps that a rank was ahead of the slowest at most when it was let go on, since all met last: with a parameter server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lead: Option<u64>,
    /// Passes over the training split that were complete.
    pub epoch: u64,
    /// Tokens trained on a second since the line before, for text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens_per_s: Option<f64>,
    /// Samples trained on a second since the line before, for samples.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub samples_per_s: Option<f64>,
    /// Share of the time spent waiting for data since the line before.
    pub stall: f64,
    /// Seconds of training so far, in this process.
    pub wall_s: f64,
}

/// The file, open for appending.
pub struct Log {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Log {
    /// Opens `dir/metrics.jsonl`, cut to its first `keep` bytes.
    pub fn open(dir: &Path, keep: u64) -> Result<Log> {
        let path = dir.join("metrics.jsonl");
        let io = |e| Error::io(&path, e);
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        let have = file.metadata().map_err(io)?.len();
        if have < keep {
            let what = format!(
                "has {have} bytes, but the snapshot was taken after {keep}; the folder is not as the run left it"
            );
            return Err(Error::data(&path, None, what));
        }
        file.set_len(keep).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Log { file, path, bytes: keep })
    }

    /// Appends one line.
    pub fn write(&mut self, m: &Metrics) -> Result<()> {
        let mut line = serde_json::to_string(m).map_err(|e| Error::io(&self.path, e.into()))?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.flush())
            .map_err(|e| Error::io(&self.path, e))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Bytes written so far: what a snapshot notes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Reads a whole `metrics.jsonl`. A last line that was cut short by a kill is left out.
pub fn read(dir: &Path) -> Result<Vec<Metrics>> {
    let path = dir.join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let lines: Vec<&str> = text.split_inclusive('\n').filter(|l| l.ends_with('\n')).collect();
    let parse = |(i, l): (usize, &&str)| {
        serde_json::from_str(l)
            .map_err(|e| Error::data(&path, None, format!("line {} is damaged: {e}", i + 1)))
    };
    lines.iter().enumerate().map(parse).collect()
}
