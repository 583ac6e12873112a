//! All layouts of a job on a cluster, the fastest first.

use super::cost::Plan;
use super::{Cluster, Cost, Job, Layout, Model};
use crate::error::{Error, Result};
use serde::Serialize;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// The fastest, in order: of each dp, tp, pp and cp one, with the micro-batches that suit it best.
    pub best: Vec<Cost>,
    /// Layouts that model, batch and devices allow.
    pub layouts: usize,
    /// Those of them that fit the memory.
    pub fit: usize,
    /// Those that had to be played: all others are slower even at their best.
    pub played: usize,
}

/// The `keep` fastest layouts that fit the memory. Exact: a layout is left out only when a bound says that it is slower. Errors
/// when none fits, and says what would help.
pub fn search(cluster: &Cluster, model: &Model, job: &Job, keep: usize) -> Result<Found> {
    let all = layouts(cluster, model, job);
    if all.is_empty() {
        let what = format!(
            "{} devices cannot be cut for {} blocks, {} heads and a batch of {}: change --devices (a number with many \
             factors) or raise --batch",
            cluster.devices, model.layers, model.heads, job.batch
        );
        return Err(Error::Usage(format!("layout: {what}")));
    }
    let (mut fitting, mut least) = (Vec::new(), f64::INFINITY);
    for layout in &all {
        let plan = Plan::new(cluster, model, job, *layout);
        let memory = plan.memory();
        least = least.min(memory);
        if memory <= cluster.memory {
            fitting.push((plan.bound(), memory, *layout));
        }
    }
    if fitting.is_empty() {
        let (least, there) = (least / 1e9, cluster.memory / 1e9);
        let what = format!(
            "none fits {there:.1} GB of a device; the least takes {least:.1}: more --devices, or a smaller model"
        );
        return Err(Error::Usage(format!("layout: {what}")));
    }
    // Of those that are as fast the smallest comes first.
    fitting.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let (mut best, mut played): (Vec<Cost>, _) = (Vec::new(), 0);
    for (bound, _, layout) in &fitting {
        if best.len() == keep && best[keep - 1].step < *bound {
            break;
        }
        played += 1;
        let cost = Plan::new(cluster, model, job, *layout).cost();
        match best.iter_mut().find(|c| degrees(&c.layout) == degrees(layout)) {
            Some(known) if known.step <= cost.step => {}
            Some(known) => *known = cost,
            None => best.push(cost),
        }
        // Failures take the same share of all of them.
        best.sort_by(|a, b| a.step.total_cmp(&b.step));
        best.truncate(keep);
    }
    Ok(Found { best, layouts: all.len(), fit: fitting.len(), played })
}

/// Every layout that can be.
fn layouts(cluster: &Cluster, model: &Model, job: &Job) -> Vec<Layout> {
    let mut all = Vec::new();
    for tp in divisors(cluster.devices).filter(|n| model.heads.is_multiple_of(*n)) {
        for pp in divisors(cluster.devices / tp).filter(|n| *n <= model.layers) {
            for cp in divisors(cluster.devices / tp / pp).filter(|n| model.context.is_multiple_of(*n)) {
                let dp = cluster.devices / tp / pp / cp;
                if dp > job.batch {
                    continue;
                }
                let share = job.batch.div_ceil(dp);
                for micro in (0..).map(|i| 1 << i).take_while(|n| *n <= share) {
                    for recompute in [false, true] {
                        let plain = Layout { dp, tp, pp, cp, micro, zero: false, recompute };
                        if !plain.is_playable(job.batch) {
                            continue;
                        }
                        all.push(plain);
                        let shared = if job.local_steps == 1 { dp * cp } else { cp };
                        all.extend((shared > 1).then_some(Layout { zero: true, ..plain }));
                    }
                }
            }
        }
    }
    all
}

fn degrees(layout: &Layout) -> [usize; 4] {
    [layout.dp, layout.tp, layout.pp, layout.cp]
}

fn divisors(n: usize) -> impl Iterator<Item = usize> {
    (1..=n).filter(move |d| n.is_multiple_of(*d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ModelConfig;

    fn model() -> Model {
        let c = ModelConfig { layers: 6, dim: 512, heads: 8, context: 1024, ..ModelConfig::default() };
        Model::of(&c, 32000).unwrap()
    }

    fn job() -> Job {
        Job { batch: 96, tokens: 1e9, bucket: 25e6, codec_ratio: 1.0, local_steps: 1, late: false }
    }

    #[test]
    fn the_search_finds_what_trying_all_finds() {
        let (mut cluster, model, job) = (Cluster::named("small").unwrap().unwrap(), model(), job());
        cluster.between.beta *= 40.0;
        for devices in [24, 64] {
            cluster.devices = devices;
            let found = search(&cluster, &model, &job, 5).unwrap();
            let mut all: Vec<Cost> = layouts(&cluster, &model, &job)
                .into_iter()
                .map(|l| super::super::cost(&cluster, &model, &job, l).unwrap())
                .filter(|c| c.memory <= cluster.memory)
                .collect();
            all.sort_by(|a, b| a.step.total_cmp(&b.step));
            assert_eq!((found.layouts >= all.len(), found.fit), (true, all.len()));
            let mut seen = std::collections::BTreeSet::new();
            all.retain(|c| seen.insert(degrees(&c.layout)));
            let steps = |c: &[Cost]| c[..5].iter().map(|c| c.step).collect::<Vec<_>>();
            assert_eq!(steps(&found.best), steps(&all), "{devices}");
            assert!(found.played < found.fit / 2, "{} of {} were played", found.played, found.fit);
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let cluster = Cluster { memory: 1e6, ..Cluster::named("small").unwrap().unwrap() };
        let e = search(&cluster, &model(), &job(), 5).unwrap_err();
        assert!(e.to_string().contains("none fits") && e.exit_code() == 2, "{e}");
        let prime = Cluster { devices: 100_003, ..cluster };
        let e = search(&prime, &model(), &job(), 5).unwrap_err();
        assert!(e.to_string().contains("--batch"), "{e}");
    }
}
