//! What a step costs in one layout, and what a run does.

use super::failures::Failures;
use super::model::KEPT;
use super::{Cluster, Group, Job, Layout, Model, Pipeline};
use crate::error::Result;
use serde::Serialize;

/// A layout with its price. Seconds of a step, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Who has what.
    pub layout: Layout,
    /// Micro-batches of a step.
    pub micro_batches: usize,
    /// Products, on the stage that has most to do.
    pub compute: f64,
    /// Its sums of tensor parallelism and gathers of context parallelism.
    pub tensor: f64,
    /// Where it waits for other stages.
    pub bubble: f64,
    /// Sums of gradients and gathers of weights, as far as they hide behind nothing.
    pub data: f64,
    /// The optimizer's step.
    pub update: f64,
    /// All of it, where nothing fails.
    pub step: f64,
    /// Seconds for each step that failures and snapshots take besides.
    pub failing: f64,
    /// Failures of the run.
    pub failures: Failures,
    /// Bytes on the device that holds most.
    pub memory: f64,
    /// Tokens a second, failures counted.
    pub tokens_per_second: f64,
    /// Share of all devices' time in which they do the model's own products at `utilisation`.
    pub efficiency: f64,
    /// Share of their peak that is the model's own products.
    pub model_utilisation: f64,
    /// Seconds of the run.
    pub run: f64,
}

/// Costs `layout`. Errors where it does not fit model, batch or devices; memory is not looked at.
pub fn cost(cluster: &Cluster, model: &Model, job: &Job, layout: Layout) -> Result<Cost> {
    layout.validate(cluster, model, job)?;
    Ok(Plan::new(cluster, model, job, layout).cost())
}

/// A stage, as each of its devices sees it.
struct Stage {
    /// Parameters.
    parameters: f64,
    /// Blocks.
    blocks: usize,
    /// Seconds of its products for a micro-batch, both ways.
    products: f64,
}

/// A layout that fits.
pub(super) struct Plan<'a> {
    cluster: &'a Cluster,
    model: &'a Model,
    job: &'a Job,
    layout: Layout,
    stages: Vec<Stage>,
    pipeline: Pipeline,
    micro_batches: usize,
    /// Who sums gradients each step.
    sharing: Group,
    /// Replicas that sum weights now and then.
    replicas: Option<Group>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(cluster: &'a Cluster, model: &'a Model, job: &'a Job, layout: Layout) -> Plan<'a> {
        let (node, l) = (cluster.devices_per_node, layout);
        let replica = l.tp * l.cp * l.pp;
        let (sharing, replicas) = match job.local_steps {
            1 if replica <= node => (Group::new(l.dp * l.cp, l.cp * (node / replica)), None),
            1 => (Group::new(l.dp * l.cp, l.cp.min(node / l.tp)), None),
            _ => (Group::new(l.cp, node / l.tp), Some(Group::new(l.dp, node / replica))),
        };
        let micro_batches = l.micro_batches(job.batch);
        let (stages, pipeline) = (vec![], Pipeline::default());
        let mut plan =
            Plan { cluster, model, job, layout, stages, pipeline, micro_batches, sharing, replicas };
        plan.cut();
        plan
    }

    /// Tokens of a micro-batch on a device.
    fn tokens(&self) -> f64 {
        (self.layout.micro * self.model.context) as f64 / self.layout.cp as f64
    }

    /// Bytes of a micro-batch's residual stream, whole.
    fn stream(&self) -> f64 {
        self.tokens() * self.model.dim as f64 * self.cluster.precision.number()
    }

    /// Seconds of what a block says forward and backward: two sums each way of tensor parallelism (Shoeybi et al. 2019); keys
    /// and values of all tokens, and the way back of their gradients, of context parallelism.
    fn block_sums(&self) -> [f64; 2] {
        let (c, l) = (self.cluster, self.layout);
        // ANCHOR: block_sums
        let tensor = 2.0 * self.tensor_sum();
        let (keys, bytes) =
            (Group::new(l.cp, c.devices_per_node / l.tp), 2.0 * self.stream() * l.cp as f64 / l.tp as f64);
        let forward = tensor + keys.gather(c, bytes);
        let backward = forward + keys.reduce_scatter(c, bytes);
        [forward, if l.recompute { backward + tensor } else { backward }]
        // ANCHOR_END: block_sums
    }

    /// Seconds of one sum of tensor parallelism.
    fn tensor_sum(&self) -> f64 {
        Group::new(self.layout.tp, self.cluster.devices_per_node).all_reduce(self.cluster, self.stream())
    }

    /// Cuts the model into stages: blocks in equal numbers, what is left over to the first ones; embeddings to the first, the
    /// output layer to the last.
    fn cut(&mut self) {
        let (m, l) = (self.model, self.layout);
        let (tp, seconds) = (l.tp as f64, self.tokens() / l.tp as f64 / self.cluster.rate());
        let again = if l.recompute { 1.0 } else { 0.0 };
        let ([forward, backward], sum) = (self.block_sums(), self.tensor_sum());
        for r in 0..l.pp {
            let (is_first, is_last) = (r == 0, r + 1 == l.pp);
            let blocks = m.layers / l.pp + usize::from(r < m.layers % l.pp);
            let n = blocks as f64;
            let inside = n * m.block_forward() * seconds;
            let head = if is_last { m.head_forward() * seconds } else { 0.0 };
            let ends = [if is_first { m.first } else { 0.0 }, if is_last { m.last } else { 0.0 }];
            let parameters = (n * m.block + ends[0] + ends[1]) / tp;
            self.stages.push(Stage { parameters, blocks, products: (3.0 + again) * inside + 3.0 * head });
            // Embeddings are summed once forward, the gradient of the output layer's input once backward.
            let [embedded, returned] = [is_first, is_last].map(|there| if there { sum } else { 0.0 });
            self.pipeline.forward.push(inside + head + n * forward + embedded);
            self.pipeline.backward.push((2.0 + again) * inside + 2.0 * head + n * backward + returned);
            if !is_last {
                let (width, node) = (l.tp * l.cp, self.cluster.devices_per_node);
                let is_near = (r * width) / node == ((r + 2) * width - 1) / node;
                let link = if is_near { self.cluster.within } else { self.cluster.between };
                self.pipeline.transfer.push(link.alpha + self.stream() / tp * link.beta);
            }
        }
    }

    /// Ranks that a parameter's optimizer state is dealt out over.
    fn shards(&self) -> f64 {
        if self.layout.zero { self.sharing.size as f64 } else { 1.0 }
    }

    /// Seconds of the sums of a stage's gradients: those beyond its last backward, and all.
    fn sums(&self, r: usize) -> [f64; 2] {
        let (c, ratio) = (self.cluster, if self.replicas.is_some() { 1.0 } else { self.job.codec_ratio });
        buckets(self.gradient(r), self.job.bucket, self.pipeline.backward[r], |bytes| {
            match self.layout.zero {
                _ if self.sharing.size == 1 => 0.0,
                true => self.sharing.reduce_scatter(c, bytes / ratio),
                false => self.sharing.all_reduce(c, bytes / ratio),
            }
        })
    }

    /// Seconds in which its weights come back from those who changed them: beyond the first forward, and all. The last bucket to
    /// come is the mirror of the first to go.
    fn gathers(&self, r: usize) -> [f64; 2] {
        if !self.layout.zero || self.sharing.size == 1 {
            return [0.0; 2];
        }
        buckets(self.gradient(r), self.job.bucket, self.pipeline.forward[r], |bytes| {
            self.sharing.gather(self.cluster, bytes)
        })
    }

    fn gradient(&self, r: usize) -> f64 {
        self.stages[r].parameters * self.cluster.precision.number()
    }

    /// Of each step the share of what replicas sum now and then.
    fn outer(&self) -> f64 {
        let Some(group) = self.replicas else { return 0.0 };
        let all = (0..self.stages.len())
            .map(|r| group.all_reduce(self.cluster, self.gradient(r) / self.job.codec_ratio));
        all.fold(0.0, f64::max) / self.job.local_steps as f64
    }

    fn update(&self) -> f64 {
        let most = self.stages.iter().map(|s| s.parameters).fold(0.0, f64::max);
        most * self.cluster.update / self.shards()
    }

    /// Seconds that its step takes at least: what can be said without playing it.
    pub(super) fn bound(&self) -> f64 {
        let seen = if self.job.late { 0.0 } else { self.sums(0)[0] + self.gathers(0)[0] };
        self.pipeline.bound(self.micro_batches) + seen + self.update() + self.outer()
    }

    /// Bytes on the device that holds most: of the first stage, which has most micro-batches under way, or of the last, which has
    /// the logits.
    pub(super) fn memory(&self) -> f64 {
        let (l, w) = (self.layout, self.cluster.precision);
        let last = self.stages.len() - 1;
        let of = |r: usize| {
            let s = &self.stages[r];
            // ANCHOR: memory
            let anchor = if self.replicas.is_some() { 8.0 } else { 0.0 }; // where they last agreed, and outer momentum
            let weights = s.parameters * (2.0 * w.number() + w.state() / self.shards() + anchor);
            let live = (l.pp - r).min(self.micro_batches) as f64;
            let block = KEPT * self.stream() / l.tp as f64;
            let blocks = live * s.blocks as f64;
            let kept = if l.recompute { blocks * block / KEPT + block } else { blocks * block };
            let logits = 8.0 * self.tokens() * self.model.vocabulary as f64 / l.tp as f64; // f32, and their gradients
            weights + kept + if r == last { logits } else { 0.0 }
            // ANCHOR_END: memory
        };
        of(0).max(of(last))
    }

    /// Plays the step, and counts all of it.
    pub(super) fn cost(&self) -> Cost {
        let (m, p) = (self.micro_batches as f64, &self.pipeline);
        let work = |r: usize| p.forward[r] + p.backward[r];
        let busiest = (0..p.stages()).fold(0, |best, r| if work(r) > work(best) { r } else { best });
        let schedule = p.play(self.micro_batches);
        let update = self.update();
        let (mut summed, mut came, mut behind, mut all) = (schedule.end, 0.0f64, 0.0, 0.0f64);
        for r in 0..p.stages() {
            let ([sums, every], [gathers, each]) = (self.sums(r), self.gathers(r));
            // Stages behind the first end earlier, and begin later.
            summed = summed.max(schedule.ends[r] + sums);
            came = came.max(gathers - behind);
            all = all.max(every + each);
            behind += p.forward[r] + p.transfer.get(r).copied().unwrap_or(0.0);
        }
        let seen = match self.job.late {
            true => (all - schedule.end - update).max(0.0),
            false => summed - schedule.end + came,
        };
        let data = seen + self.outer();
        let compute = m * self.stages[busiest].products;
        let step = schedule.end + data + update;
        let failures = self.failures();
        let tokens = (self.job.batch * self.model.context) as f64;
        let tokens_per_second = tokens / step * failures.goodput;
        let rate = tokens_per_second * self.model.training() / self.layout.devices() as f64;
        Cost {
            layout: self.layout,
            micro_batches: self.micro_batches,
            compute,
            tensor: m * work(busiest) - compute,
            bubble: schedule.end - m * work(busiest),
            data,
            update,
            step,
            failing: step / failures.goodput - step,
            failures,
            memory: self.memory(),
            tokens_per_second,
            efficiency: rate / self.cluster.rate(),
            model_utilisation: rate / self.cluster.flops,
            run: self.job.tokens / tokens_per_second,
        }
    }

    /// A snapshot has weights and optimizer state once, written by all; one is read after each failure.
    fn failures(&self) -> Failures {
        let w = self.cluster.precision;
        let Some(risk) = self.cluster.failures else { return Failures::new(f64::INFINITY, 0.0, 0.0) };
        let snapshot = self.model.parameters() * (w.number() + w.state()) / risk.snapshot_bandwidth;
        Failures::new(risk.mtbf / self.layout.devices() as f64, snapshot, risk.restart + snapshot)
    }
}

// ANCHOR: buckets
/// Seconds of sums of `bytes` in equal buckets of at most `most`, the k-th of K of which is ready when k/K of `during` are over:
/// those after the end of it, and all. They go one after the other, so that the last is done at
/// d_K = max over k of ready_k + (K − k + 1)·t, which is largest for the first or the last.
fn buckets(bytes: f64, most: f64, during: f64, time: impl Fn(f64) -> f64) -> [f64; 2] {
    let n = (bytes / most).ceil().max(1.0);
    let each = time(bytes / n);
    let rest = during * (n - 1.0) / n; // of backward, when the first bucket is ready
    [each.max(n * each - rest), n * each]
}
// ANCHOR_END: buckets

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_when_their_timeline_does() {
        for (n, during, time) in
            [(1, 1.0, 0.2), (4, 1.0, 0.1), (4, 1.0, 0.3), (9, 0.0, 0.5), (300, 2.0, 0.0067)]
        {
            let (mut done, mut k) = (0.0f64, 0);
            while k < n {
                k += 1;
                done = done.max(during * k as f64 / n as f64) + time;
            }
            let [late, all] = buckets(n as f64 * 8.0, 8.0, during, |_| time);
            assert!(
                (late - (done - during)).abs() < 1e-9 && (all - n as f64 * time).abs() < 1e-9,
                "{n}: {late}"
            );
        }
    }
}
