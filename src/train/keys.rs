//! The keys of a config: one table, from which come the check for unknown keys, `--set`, and the list that help prints.

/// Every key with what it means; types and defaults are those of [`Config`](super::Config)'s default.
pub const KEYS: &[(&str, &str)] = &[
    ("steps", "optimizer steps"),
    ("batch_size", "samples (windows of text) of a batch, over all ranks"),
    ("accumulate", "batches whose gradients are averaged for one step"),
    (
        "micro_shards",
        "parts of a batch that are summed over one fixed tree: the same bits for any number of ranks that divides it; 0: one a rank",
    ),
    ("balance", "micro-shards move to the ranks that are fast while they train; the bits stay"),
    (
        "zero",
        "1: each rank keeps the optimizer's state of its part of the weights alone, and updates that part (ZeRO-1); 0: of all",
    ),
    (
        "crossover",
        "sums of ranks of up to so many bytes go by the tree, longer ones round the ring; 0: as is measured at the start",
    ),
    ("seed", "keys initial weights, order of samples and dropout"),
    ("clip", "largest norm of the gradient; 0: no limit"),
    ("freeze", "weights that stay as they begin: names or last parts of names, such as \"lag, width\""),
    (
        "init",
        "folders of runs, with commas between, whose weights these begin as, where names agree; empty: all are drawn",
    ),
    ("checkpoint", "recompute transformer blocks during backward to save memory"),
    ("log_every", "steps between lines of metrics.jsonl"),
    ("eval_every", "steps between evaluations; 0: only at the end"),
    ("eval_batches", "batches of an evaluation; 0: the whole held-out split"),
    ("snapshot_every", "steps between snapshots; 0: only at the end"),
    ("keep_snapshots", "snapshots kept: the newest, and the best beside them"),
    ("threads", "threads; 0: one for each processor"),
    ("device", "cpu, soft:0 (the software CUDA device), cuda:0"),
    (
        "precision",
        "f32; tf32, bf16: matrix products round their operands and sum in f32; weights, gradients and the rest stay f32",
    ),
    ("tensorboard", "write TensorBoard event files too"),
    ("bucket_mb", "megabytes of gradients that ranks sum in one call, while backward goes on"),
    ("trace", "steps whose timeline is written to trace.json, for a trace viewer; 0: none"),
    ("data.path", "a packed file *.rtd, or the name of a bundled set (`data list`)"),
    ("data.map", "how it is read: mmap; read; sealed: copied to memory, immune to changes of the file"),
    (
        "data.input",
        "field that the model reads, or several with commas between; empty: the first real one, for fusion all",
    ),
    ("data.target", "field that is predicted; empty: the last labelled one"),
    ("model.kind", "gpt, mlp, cnn, fusion, pair"),
    ("model.layers", "blocks of a gpt, hidden layers of an mlp, convolutions of a cnn"),
    ("model.dim", "width; channels of a cnn's first convolution"),
    ("model.heads", "attention heads"),
    ("model.context", "longest sequence, in symbols"),
    ("model.attention", "dense, window, dynamic"),
    (
        "model.router",
        "blocks beyond the windows of dynamic attention: none, lsh, gate, sort, indexer, random",
    ),
    (
        "model.dynamic.window",
        "keys that a query sees in full, its own among them; of a learned window at first",
    ),
    ("model.dynamic.limit", "largest span that can be learned, in tokens; 0: the context"),
    ("model.dynamic.ramp", "keys over which a window falls from 1 to 0"),
    ("model.dynamic.span", "what the size of the window depends on: fixed, head, token"),
    ("model.dynamic.penalty", "added to the loss: this times the mean span, in shares of the limit"),
    ("model.dynamic.place", "where a second window stands: none, lag, predicted"),
    ("model.dynamic.form", "form of the second window: ramp, gaussian"),
    ("model.dynamic.width", "half width of the second window at first, in tokens"),
    ("model.dynamic.block", "keys of a routed block"),
    ("model.dynamic.blocks", "routed blocks of a query, at most"),
    ("model.dynamic.rounds", "lsh, sort: rounds of hashing"),
    ("model.dynamic.hashes", "lsh, sort: hashes that together make the bucket of a round"),
    ("model.dynamic.buckets", "lsh, sort: values of each hash"),
    ("model.dynamic.reach", "lsh: entries of a bucket's list that a query reads"),
    ("model.dynamic.chunk", "sort: tokens of a chunk of the row sorted by bucket; a query reads two"),
    (
        "model.dynamic.shared_keys",
        "keys are queries scaled to one length, so that hashing finds what a query looks for",
    ),
    ("model.dynamic.lengths", "lsh: hash lengths of keys too, not only directions"),
    ("model.dynamic.index_heads", "indexer: heads of the scores of blocks"),
    ("model.dynamic.index_width", "indexer: width of each of them"),
    (
        "model.dynamic.index_loss",
        "indexer: added to the loss, this times the divergence of its scores from where attention goes",
    ),
    (
        "model.dynamic.dense",
        "dense attention instead: auto (where the context is so short that it is faster), never",
    ),
    ("model.fusion", "where modalities of kind fusion meet: early, late, hybrid, experts"),
    (
        "model.fused.cross",
        "how they attend to each other in early fusion and the joint expert: joint, affinity, projections",
    ),
    (
        "model.fused.cut",
        "an ablation: modalities take nothing from each other before their logits are added or averaged",
    ),
    (
        "model.fused.weights",
        "how much each modality's own logits count in late fusion and among experts: equal, learned",
    ),
    ("model.fused.bottleneck", "tokens through which modalities speak in hybrid fusion"),
    (
        "model.fused.modality_dropout",
        "probability that training drops a modality of a sample; at least one stays",
    ),
    ("model.fused.head_loss", "added to the loss: this times the loss of each modality's own head"),
    ("model.fused.own_layers", "blocks in which each modality is by itself before early fusion"),
    ("model.fused.image", "how an image becomes tokens: patches, cnn"),
    ("model.fused.patch", "side of an image's patches, in pixels"),
    ("model.fused.frames", "frames of sound that make a token"),
    ("model.activation", "gelu, gelu_tanh, relu, silu, sparse"),
    ("model.sparse.rule", "sparse: what thresholds follow from: top_k, running_mean, homeostatic, learned"),
    (
        "model.sparse.mode",
        "sparse: what is left of a unit: soft, what exceeds its threshold; hard, all of it",
    ),
    ("model.sparse.density", "sparse: share of units that are to be active"),
    ("model.sparse.memory", "running_mean: share of the old mean that a step keeps"),
    ("model.sparse.gain", "homeostatic: how fast a threshold follows its unit's firing rate"),
    ("model.sparse.bandwidth", "learned: width of the straight-through estimate around the threshold"),
    ("model.sparse.penalty", "learned: added to the loss, this times (density / configured density - 1)^2"),
    (
        "model.sparse.kernels",
        "of a gpt's MLP: sparse, which skip inactive units; dense; auto, whichever measured faster",
    ),
    ("model.positions", "learned, rotary, none"),
    ("model.norm", "layer, rms"),
    ("model.dropout", "share of activations dropped in training"),
    ("model.shift", "each token carries linear maps of this many before it; 0: of none"),
    ("model.qk_norm", "queries and keys have length 1 times a learned scale"),
    (
        "model.recall_heads",
        "heads whose key is the query of the token before: they find what followed upon contexts like this",
    ),
    ("model.tied", "use the token embedding as output layer too"),
    (
        "optimizer.name",
        "adamw, adam, adabelief, lion, schedule_free_adamw, prodigy, muon, adafactor, sgd, m_svag, vsgd_fd (`optim list`)",
    ),
    ("optimizer.lr", "peak learning rate"),
    ("optimizer.weight_decay", "decay of matrices"),
    ("optimizer.beta", "m_svag: memory of both moments"),
    ("optimizer.beta1", "adam, adamw, adabelief: memory of the mean; lion: its share in the sign"),
    ("optimizer.beta2", "adam, adamw, adabelief: memory of the mean square; lion: of the mean"),
    (
        "optimizer.eps",
        "adam and its kin: added to the root; adabelief: under it; vsgd_fd: least shift of a weight",
    ),
    ("optimizer.momentum", "sgd: share of the last step that goes on; muon: memory of the mean of a matrix"),
    ("optimizer.dampening", "sgd: share of the gradient held back"),
    ("optimizer.ns_steps", "muon: turns of Newton-Schulz"),
    ("optimizer.adjust_lr_fn", "muon: how long a matrix steps: match_rms_adamw, original"),
    ("optimizer.beta2_decay", "adafactor: power of the step by which the memory of squares grows"),
    ("optimizer.eps1", "adafactor: least root of a mean square; 0: the relative precision of f32"),
    ("optimizer.eps2", "adafactor: least size of a slot that its steps are relative to"),
    ("optimizer.d", "adafactor: largest rms of an update"),
    ("optimizer.d0", "prodigy: estimate of the learning rate at the start"),
    ("optimizer.d_coef", "prodigy: what each estimate is multiplied by"),
    ("optimizer.growth_rate", "prodigy: largest growth of the estimate in a step"),
    ("optimizer.slow_start", "vsgd_fd: what the first squares are multiplied by"),
    ("optimizer.nesterov", "sgd, muon: look ahead along the momentum"),
    ("schedule.name", "constant, cosine, linear"),
    ("schedule.warmup_steps", "steps of linear rise at the start"),
    ("schedule.min_lr", "learning rate at the last step"),
    (
        "controller.name",
        "none; gvc: cuts the learning rate when gradients have become noise and losses do not fall",
    ),
    ("controller.window", "gvc: blocks of a window; a block is a step, of more steps as the rate falls"),
    (
        "controller.threshold",
        "gvc: the rate is cut where z, how surely the loss falls along the updates, is below this",
    ),
    ("controller.fall", "gvc: and f, how surely the losses of the window fall, is below this"),
    ("controller.factor", "gvc: what a cut multiplies the rate by"),
    ("controller.raise", "gvc: the rate is raised when z is above this; 0: never"),
    (
        "codec.name",
        "how ranks send gradients in fewer bytes, nearly right: none, bf16, int8, one_bit, power_sgd, top_k",
    ),
    (
        "codec.reset",
        "at a resume: begin without what the codec of each rank had not sent yet, so that other ranks or another codec go on",
    ),
    ("codec.ratio", "top_k: share of a matrix's elements that is sent"),
    ("codec.warmup_steps", "top_k: steps in which the share falls from a quarter to the ratio"),
    ("codec.momentum", "top_k: momentum of what waits to be sent, instead of sgd's own"),
    ("codec.rank", "power_sgd: columns of the two factors of a matrix"),
    ("codec.chunk", "int8, one_bit: elements that share a scale"),
    ("codec.feedback", "what a step does not send is added to the next"),
    ("mesh.data", "replicas of the model, each with its share of a batch; 0: as many as the ranks make"),
    ("mesh.tensor", "ranks that share each layer of a gpt: heads of attention, hidden units, symbols"),
    ("mesh.context", "ranks that share each sequence of a gpt, with a stretch of its tokens each"),
    ("mesh.pipeline", "stages of a gpt, each with some of its layers; its micro-batches are `accumulate`"),
    (
        "mesh.stages",
        "layers of each stage, such as \"3,2\"; auto: as makes stages cost alike, which is measured at the start",
    ),
    (
        "asynchronous.mode",
        "how ranks wait for each other: none (at every step), local_sgd, diloco (every so many steps), server (s steps at most)",
    ),
    ("asynchronous.inner_steps", "local_sgd, diloco: steps that a rank takes by itself between two meetings"),
    ("asynchronous.outer_lr", "diloco: what the mean way of the ranks between two meetings is multiplied by"),
    ("asynchronous.outer_momentum", "diloco: share of the last outer step that goes on (Nesterov)"),
    ("asynchronous.staleness", "server: steps that the fastest rank may be ahead of the slowest (s)"),
    (
        "asynchronous.reset",
        "at a resume: all go on with what the optimizer of rank 0 remembers, so that another number of ranks can",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use toml::{Table, Value};

    #[test]
    fn the_table_lists_exactly_the_keys_of_a_config() {
        fn leaves(t: &Table, prefix: &str, out: &mut Vec<String>) {
            for (k, v) in t {
                let key = if prefix.is_empty() { k.clone() } else { format!("{prefix}.{k}") };
                if let Value::Table(t) = v { leaves(t, &key, out) } else { out.push(key) }
            }
        }
        let mut have = Vec::new();
        leaves(&Table::try_from(Config::default()).unwrap(), "", &mut have);
        for key in &have {
            assert!(KEYS.iter().any(|(k, _)| k == key), "{key} is not in the table");
        }
        let optimizers =
            crate::optim::ALL.iter().flat_map(|e| e.attrs).map(|a| format!("optimizer.{}", a.name));
        let codecs =
            crate::comm::codec::ALL.iter().flat_map(|e| e.attrs).map(|a| format!("codec.{}", a.name));
        let attrs: Vec<String> = optimizers.chain(codecs).collect();
        for key in &attrs {
            assert!(KEYS.iter().any(|(k, _)| k == key), "{key} is not in the table");
        }
        for (key, _) in KEYS {
            let known = |k: &String| k == key;
            assert!(have.iter().chain(&attrs).any(known), "{key} is in the table only");
        }
    }
}
