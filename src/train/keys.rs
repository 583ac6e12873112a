//! The keys of a config: one table, from which come the check for unknown keys, `--set`, and the list that help prints.

use super::Config;
use crate::attrs::{Kind, nearest};
use crate::error::{Error, Result};
use toml::{Table, Value};

/// Every key with what it means; types and defaults are those of [`Config`]'s default.
pub const KEYS: &[(&str, &str)] = &[
    ("steps", "optimizer steps"),
    ("batch_size", "samples (windows of text) of a batch, over all ranks"),
    ("accumulate", "batches whose gradients are averaged for one step"),
    (
        "micro_shards",
        "parts of a batch that are summed over one fixed tree: the same bits for any number of ranks that divides it; 0: one a rank",
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
];

/// A config from TOML texts (with their origins, later ones win) and `key=value` settings, over the defaults. Texts that name
/// another optimizer do not inherit the attributes of the default one.
pub(super) fn read(texts: &[(String, String)], settings: &[String]) -> Result<Config> {
    let mut whole = Table::try_from(Config::default()).expect("a config is plain data");
    let name = |t: &Table| get(t, "optimizer.name").cloned();
    let default = name(&whole);
    let mut given = Table::new();
    for (text, origin) in texts {
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            Error::config("toml", format!("{origin} cannot be read: {}", e.to_string().trim_end()))
        })?;
        known(&table, "", text, origin)?;
        merge(&mut given, table);
    }
    for setting in settings {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("--set {setting}: write it as key=value")))?;
        let (key, value) = (key.trim(), value.trim());
        if !KEYS.iter().any(|(k, _)| *k == key) {
            return Err(unknown(key, "--set"));
        }
        merge(&mut given, nested(key, parse_value(value)));
    }
    if name(&given).is_some_and(|n| Some(n) != default)
        && let Some(Value::Table(o)) = whole.get_mut("optimizer")
    {
        o.retain(|k, _| k == "name" || k == "lr");
    }
    merge(&mut whole, given);
    check_types(&whole)?;
    Config::deserialize_whole(whole)
}

impl Config {
    fn deserialize_whole(whole: Table) -> Result<Config> {
        // Key by key, so that an error names its key: serde's own message knows the value only.
        for (key, _) in KEYS {
            if let Some(value) = get(&whole, key) {
                let mut one = Table::try_from(Config::default()).expect("a config is plain data");
                merge(&mut one, nested(key, value.clone()));
                if let Err(e) = one.try_into::<Config>() {
                    let text = e.to_string();
                    let text =
                        text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default().trim().to_string();
                    return Err(Error::config(*key, format!("is {value}: {text}")));
                }
            }
        }
        whole.try_into::<Config>().map_err(|e| Error::config("toml", e.to_string()))
    }
}

/// Error on the first key that is not in [`KEYS`].
fn known(table: &Table, prefix: &str, text: &str, origin: &str) -> Result<()> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let section = KEYS.iter().any(|(k, _)| k.starts_with(&format!("{key}.")));
        match value {
            Value::Table(t) if section => known(t, &key, text, origin)?,
            _ if KEYS.iter().any(|(k, _)| *k == key) => {}
            _ => {
                let line = text
                    .lines()
                    .position(|l| l.trim_start().trim_start_matches('[').starts_with(name.as_str()));
                let place = line.map_or(origin.to_string(), |l| format!("{origin}, line {}", l + 1));
                return Err(unknown(&key, &place));
            }
        }
    }
    Ok(())
}

fn unknown(key: &str, place: &str) -> Error {
    let near = nearest(key, KEYS.iter().map(|(k, _)| *k));
    Error::config(key, format!("is unknown ({place}){near}; `train --help` lists all keys"))
}

/// Error on a value of another type than the default's. An integer is taken where a real is wanted.
fn check_types(whole: &Table) -> Result<()> {
    let mut full = Config::default();
    for attr in crate::optim::ALL.iter().flat_map(|e| e.attrs) {
        let sample = match attr.kind {
            Kind::Real => Value::Float(0.0),
            Kind::Bool => Value::Boolean(false),
            Kind::Int | Kind::Word => Value::Integer(0),
            Kind::Ints | Kind::Choice(_) => Value::String(String::new()),
        };
        full.optimizer.attrs.insert(attr.name.into(), sample);
    }
    let default = Table::try_from(full).expect("a config is plain data");
    for (key, _) in KEYS {
        let (Some(value), Some(want)) = (get(whole, key), get(&default, key)) else { continue };
        let fits = value.same_type(want) || (want.is_float() && value.is_integer());
        if !fits {
            let what = format!("is {value} ({}), but must be {}", value.type_str(), article(want));
            return Err(Error::config(*key, what));
        }
        if value.as_integer().is_some_and(|v| v < 0) && !want.is_float() {
            return Err(Error::config(*key, format!("is {value}, but must not be negative")));
        }
    }
    Ok(())
}

fn article(v: &Value) -> String {
    match v {
        Value::Integer(_) => "an integer, such as ".to_string() + &v.to_string(),
        Value::Float(_) => "a number, such as ".to_string() + &v.to_string(),
        Value::Boolean(_) => "true or false".into(),
        _ => "text, such as ".to_string() + &v.to_string(),
    }
}

fn get<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
    }
}

fn nested(key: &str, value: Value) -> Table {
    let mut table = Table::new();
    match key.split_once('.') {
        None => table.insert(key.into(), value),
        Some((section, rest)) => table.insert(section.into(), Value::Table(nested(rest, value))),
    };
    table
}

/// A value of the command line: TOML where it is TOML, else text.
fn parse_value(text: &str) -> Value {
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    parsed.unwrap_or_else(|| Value::String(text.into()))
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(a)), Value::Table(b)) => merge(a, b),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> String {
        Config::parse(text, "x.toml").and_then(|c| c.validate()).unwrap_err().to_string()
    }

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
        let attrs: Vec<String> =
            crate::optim::ALL.iter().flat_map(|e| e.attrs).map(|a| format!("optimizer.{}", a.name)).collect();
        for key in &attrs {
            assert!(KEYS.iter().any(|(k, _)| k == key), "{key} is not in the table");
        }
        for (key, _) in KEYS {
            let known = |k: &String| k == key;
            assert!(have.iter().chain(&attrs).any(known), "{key} is in the table only");
        }
    }

    #[test]
    fn a_config_round_trips_and_settings_win() {
        let c = Config::resolve(
            None,
            &["model.dim=64".into(), "optimizer.lr=0.01".into(), "data.path=digits".into()],
        );
        let c = c.unwrap();
        assert_eq!((c.model.dim, c.optimizer.lr, c.data.path.as_str()), (64, 0.01, "digits"));
        assert_eq!(Config::parse(&c.to_toml(), "again").unwrap(), c);
        let sgd = Config::parse("[optimizer]\nname = \"sgd\"\nmomentum = 0.9", "x").unwrap();
        let attrs: Vec<&String> = sgd.optimizer.attrs.keys().collect();
        assert_eq!(attrs, ["momentum"], "the attributes of the default optimizer are not inherited");
        let again = Config::parse(&sgd.to_toml(), "again").unwrap();
        assert_eq!(again, sgd);
    }

    #[test]
    fn wrong_keys_types_and_values_are_named() {
        let e = bad("steps = 5\n[model]\nlayer = 3");
        assert!(e.contains("model.layer") && e.contains("model.layers") && e.contains("line 3"), "{e}");
        assert!(
            bad("batch_size = \"many\"").contains("batch_size")
                && bad("batch_size = \"many\"").contains("many")
        );
        assert!(bad("[optimizer]\nlr = -1.0").contains("optimizer.lr"));
        assert!(bad("[optimizer]\nlr = nan").contains("optimizer.lr"));
        assert!(bad("steps = 0").contains("steps"));
        assert!(bad("steps = -3").contains("-3"));
        assert!(bad("[model]\nkind = \"gptt\"").contains("model.kind"));
        let e = bad("precision = \"bf15\"");
        assert!(e.contains("precision") && e.contains("bf15") && e.contains("bf16"), "{e}");
        assert!(bad("[model]\ndim = 130").contains("model.dim"));
        assert!(bad("steps = = 3").contains("x.toml"));
    }
}
