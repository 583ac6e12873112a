//! Who has which part of the work.

use super::{Cluster, Model};
use crate::error::{Error, Result};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// How devices share a step. Their number is dp·tp·pp·cp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Data parallel: replicas, each with its part of the batch.
    pub dp: usize,
    /// Tensor parallel: parts of each product.
    pub tp: usize,
    /// Pipeline parallel: stages, each with some of the blocks.
    pub pp: usize,
    /// Context parallel: parts of each sample.
    pub cp: usize,
    /// Samples of a micro-batch.
    pub micro: usize,
    /// Optimizer state is dealt out over the ranks that share gradients (ZeRO-1).
    pub zero: bool,
    /// Blocks keep their inputs alone, and compute their inside again in backward.
    pub recompute: bool,
}

/// What is to be trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Job {
    /// Samples of a step, over all replicas.
    pub batch: usize,
    /// Tokens to train on.
    pub tokens: f64,
    /// Bytes of gradients in one sum.
    pub bucket: f64,
    /// Bytes of a gradient over those that a codec sends.
    pub codec_ratio: f64,
    /// Steps that a replica makes by itself between sums of weights (DiLoCo); 1: gradients are summed each step.
    pub local_steps: usize,
    /// Sums may come a step late, and hide behind the whole of it.
    pub late: bool,
}

impl Default for Layout {
    /// One device.
    fn default() -> Layout {
        Layout { dp: 1, tp: 1, pp: 1, cp: 1, micro: 1, zero: false, recompute: false }
    }
}

impl Layout {
    /// Devices that it takes.
    pub fn devices(&self) -> usize {
        [self.dp, self.tp, self.pp, self.cp].iter().fold(1, |all, n| all.saturating_mul(*n))
    }

    /// Micro-batches that the replica with the largest share has in a step.
    pub fn micro_batches(&self, batch: usize) -> usize {
        batch.div_ceil(self.dp).div_ceil(self.micro)
    }

    /// Errors when the model, the batch or the devices cannot be cut like this.
    pub fn validate(&self, cluster: &Cluster, model: &Model, job: &Job) -> Result<()> {
        let degrees =
            [("dp", self.dp), ("tp", self.tp), ("pp", self.pp), ("cp", self.cp), ("micro", self.micro)];
        if let Some((key, _)) = degrees.iter().find(|(_, n)| *n == 0) {
            return Err(wrong(key, "is 0, but must be at least 1"));
        }
        let all = self.devices();
        if all != cluster.devices {
            let (n, rest) = (cluster.devices, all / self.dp);
            let remedy = match n % rest {
                0 => format!("dp={} makes them {n}", n / rest),
                _ => {
                    format!("tp·pp·cp = {rest} does not divide {n}: choose factors of it, or --devices {all}")
                }
            };
            return Err(wrong("dp·tp·pp·cp", &format!("is {all}, but there are {n} devices; {remedy}")));
        }
        if !model.heads.is_multiple_of(self.tp) {
            let what = format!(
                "= {} does not divide model.heads = {}: each rank has whole heads",
                self.tp, model.heads
            );
            return Err(wrong("tp", &what));
        }
        if self.pp > model.layers {
            let what = format!(
                "= {} stages are more than model.layers = {}: each has at least one",
                self.pp, model.layers
            );
            return Err(wrong("pp", &what));
        }
        if !model.context.is_multiple_of(self.cp) {
            return Err(wrong(
                "cp",
                &format!("= {} does not divide model.context = {}", self.cp, model.context),
            ));
        }
        if self.dp > job.batch {
            let what = format!(
                "= {} replicas are more than the {} samples of a batch: raise --batch",
                self.dp, job.batch
            );
            return Err(wrong("dp", &what));
        }
        if self.micro > job.batch.div_ceil(self.dp) {
            let what = format!(
                "= {} samples are more than a replica's share of {}",
                self.micro,
                job.batch.div_ceil(self.dp)
            );
            return Err(wrong("micro", &what));
        }
        if !self.is_playable(job.batch) {
            let what =
                format!("= {} makes more than {PLAYED} micro-batches of all stages: raise it", self.micro);
            return Err(wrong("micro", &what));
        }
        Ok(())
    }

    /// True where its schedule is short enough to be played.
    pub(super) fn is_playable(&self, batch: usize) -> bool {
        self.pp.saturating_mul(self.micro_batches(batch)) <= PLAYED
    }
}

/// Micro-batches of all stages that a schedule may have.
const PLAYED: usize = 1 << 22;

fn wrong(key: &str, what: &str) -> Error {
    Error::Usage(format!("layout: {key} {what}"))
}

impl FromStr for Layout {
    type Err = Error;

    /// Reads `dp=8,tp=4,pp=2,cp=1,micro=1,zero,recompute`; what is not said is 1, or off.
    fn from_str(text: &str) -> Result<Layout> {
        let mut layout = Layout::default();
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k.trim(), Some(v.trim())));
            match (key, value) {
                ("zero", None) => layout.zero = true,
                ("recompute", None) => layout.recompute = true,
                ("dp" | "tp" | "pp" | "cp" | "micro", Some(value)) => {
                    let n = value
                        .parse()
                        .map_err(|_| wrong(key, &format!("is `{value}`, but must be a whole number")))?;
                    *match key {
                        "dp" => &mut layout.dp,
                        "tp" => &mut layout.tp,
                        "pp" => &mut layout.pp,
                        "cp" => &mut layout.cp,
                        _ => &mut layout.micro,
                    } = n;
                }
                _ => return Err(wrong(word, "is unknown; as in dp=8,tp=4,pp=2,cp=1,micro=1,zero,recompute")),
            }
        }
        Ok(layout)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dp={},tp={},pp={},cp={},micro={}", self.dp, self.tp, self.pp, self.cp, self.micro)?;
        if self.zero {
            f.write_str(",zero")?;
        }
        if self.recompute {
            f.write_str(",recompute")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_text_and_back() {
        let layout = Layout { dp: 8, tp: 4, pp: 2, cp: 3, micro: 5, zero: true, recompute: true };
        assert_eq!(layout.to_string().parse::<Layout>().unwrap(), layout);
        assert_eq!("dp=2".parse::<Layout>().unwrap().to_string(), "dp=2,tp=1,pp=1,cp=1,micro=1");
        for bad in ["dp", "dp=x", "ddp=2", "zero=1", "dp=-1"] {
            assert_eq!(bad.parse::<Layout>().unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn the_largest_share_counts() {
        let layout = Layout { dp: 3, micro: 2, ..Layout::default() };
        assert_eq!(layout.micro_batches(10), 2, "shares of 4, 3, 3 samples");
        assert_eq!(layout.micro_batches(13), 3, "of 5, 4, 4");
    }
}
