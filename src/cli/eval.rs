//! `eval RUN`: the held-out loss of a run's last snapshot.

use super::session::{Session, note, say, table};
use super::tensors;
use crate::error::Result;
use crate::nn::LayerActivity;
use crate::nn::attention::inspect::HeadReport;
use crate::train::modalities::Through;
use crate::train::retrieval::Recall;
use crate::train::{Losses, Own, Trained, Verdict, modalities, write_whole};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ringtape eval runs/gpt-1
  ringtape eval runs/cnn-1 --json
  ringtape eval runs/gpt-1 --set model.router=none     the same weights without routed blocks
  ringtape eval runs/fusion-1 --image 7.png --audio seven.wav    a sample of your own; what is not given is missing
  ringtape eval runs/fusion-1 --set model.fused.cut=true    the same weights, modalities kept from each other
  ringtape eval runs/fusion-1 --maps looks.svg         where the model looks in pictures, sounds and words
  ringtape eval runs/gpt-1 --losses a.safetensors      `input`, `target` and `loss` of every position, [sequences, length]

The whole held-out split is read, in order. The loss is in nats a target for classes and symbols, the mean squared error
for numbers. Of windowed and dynamic attention the heads are shown: what they see of the first held-out
sequence, as a share of all keys (density) and of the mass that dense attention would give to them (recall). Of relu and
sparse activations the hidden units of the first batches are counted: active, never active, always active.";

/// Evaluate the last snapshot of a run on its held-out data
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Run folder, as `train` made it
    run: PathBuf,
    /// Device to evaluate on [default: of the run]
    #[arg(long)]
    device: Option<String>,
    /// Set a key of the configuration otherwise, with the same weights; again for more
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Write the held-out sequences and the loss at each of their positions
    #[arg(long, value_name = "FILE.safetensors")]
    losses: Option<PathBuf>,
    /// Draw where a model of several modalities looks in some held-out samples
    #[arg(long, value_name = "FILE.svg", conflicts_with = "losses")]
    maps: Option<PathBuf>,
    /// A picture of your own (PNG): what does the model hold it to be?
    #[arg(long, value_name = "FILE.png", conflicts_with = "losses")]
    image: Option<PathBuf>,
    /// A recording of your own (WAV)
    #[arg(long, value_name = "FILE.wav", conflicts_with = "losses")]
    audio: Option<PathBuf>,
    /// A text of your own
    #[arg(long, conflicts_with = "losses")]
    text: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    let trained = Trained::load_with(&args.run, args.device.as_deref(), &args.settings)?;
    trained.notices.iter().for_each(|n| note!(session, "note: {n}"));
    let own = Own { image: args.image, audio: args.audio, text: args.text };
    if !own.is_empty() {
        return verdict(session, &trained.classify(&own)?, args.json);
    }
    if let Some(path) = &args.maps {
        write_whole(path, (trained.maps()? + "\n").as_bytes())?;
        note!(session, "{}", path.display());
        return Ok(());
    }
    // Losses are of sequences, which have no modalities.
    let through = if args.losses.is_some() { None } else { trained.modalities()? };
    let found = match (&args.losses, &through) {
        (Some(path), _) => {
            let (found, Losses { input, target, loss }) = trained.losses()?;
            let all = [("input", input), ("target", target), ("loss", loss)];
            tensors::write(path, &args.run, &all.map(|(name, t)| (name.to_string(), t)))?;
            found
        }
        (None, Some((found, _))) => *found,
        (None, None) => trained.evaluate()?,
    };
    let through = through.map(|(_, all)| all);
    let (heads, units) = (trained.attention()?, trained.activity()?);
    let split = trained.task.held_out();
    if args.json {
        let all = serde_json::json!({
            "step": trained.step, "split": split, "loss": found.loss, "accuracy": found.accuracy, "targets": found.targets,
            "attention": heads, "activity": units, "modalities": through, "retrieval": trained.retrieval()?,
        });
        return say!(session, "{}", super::json(&all)?);
    }
    say!(session, "step {}, {} targets of the split `{split}`", trained.step, found.targets)?;
    say!(session, "loss      {:.4}", found.loss)?;
    if trained.task.is_text() {
        say!(session, "bits      {:.4} a symbol", found.loss / std::f64::consts::LN_2)?;
    }
    if let Some(accuracy) = found.accuracy {
        say!(session, "accuracy  {:.2} %", 100.0 * accuracy)?;
    }
    details(session, &trained, through.as_deref(), heads.as_deref(), units.as_deref())
}

/// What was found besides, as tables.
fn details(
    session: &Session<'_>,
    trained: &Trained,
    through: Option<&[Through]>,
    heads: Option<&[HeadReport]>,
    units: Option<&[LayerActivity]>,
) -> Result<()> {
    if let Some(found) = trained.retrieval()? {
        say!(session)?;
        let share = |x: f64| format!("{:.2} %", 100.0 * x);
        let row = |r: &Recall| {
            let [first, five] = r.at.map(share);
            vec![r.from.clone(), r.to.clone(), first, five, share(1.0 / r.among.max(1) as f64)]
        };
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        for line in table(&["from", "finds", "first", "of five", "chance"], &rows) {
            say!(session, "{line}")?;
        }
    }
    if let Some(through) = through {
        say!(session)?;
        let rows: Vec<Vec<String>> = modalities::rows(through).iter().map(|r| r.to_vec()).collect();
        for line in table(&["given", "by", "loss", "accuracy"], &rows) {
            say!(session, "{line}")?;
        }
    }
    if let Some(heads) = heads {
        say!(session)?;
        for line in table(&HEAD, &heads.iter().map(row).collect::<Vec<_>>()) {
            say!(session, "{line}")?;
        }
    }
    if let Some(units) = units {
        say!(session)?;
        for line in table(&UNITS, &units.iter().map(units_row).collect::<Vec<_>>()) {
            say!(session, "{line}")?;
        }
    }
    Ok(())
}

/// Likeliest classes that are shown.
const SHOWN: usize = 5;

/// What the model holds a sample of the user's to be.
fn verdict(session: &Session<'_>, v: &Verdict, json: bool) -> Result<()> {
    v.notices.iter().for_each(|n| note!(session, "note: {n}"));
    if json {
        return say!(session, "{}", super::json(v)?);
    }
    say!(session, "by {}:", v.given.join(" + "))?;
    let row = |(class, p): &(String, f64)| vec![class.clone(), format!("{:.1} %", 100.0 * p)];
    let rows: Vec<Vec<String>> = v.classes.iter().take(SHOWN).map(row).collect();
    for line in table(&["class", "probability"], &rows) {
        say!(session, "{line}")?;
    }
    Ok(())
}

const UNITS: [&str; 11] = [
    "layer",
    "units",
    "active",
    "least",
    "a tenth",
    "half",
    "nine tenths",
    "most",
    "dead",
    "always on",
    "Gini",
];

fn units_row(l: &LayerActivity) -> Vec<String> {
    let share = |x: f64| format!("{:.1} %", 100.0 * x);
    let counts = [l.layer, l.units].map(|n| n.to_string());
    let [least, most] = l.range;
    let [tenth, half, nine] = l.tenths;
    let shares = [l.density, least, tenth, half, nine, most].map(share);
    let ends = [l.dead.to_string(), l.always_on.to_string(), format!("{:.2}", l.gini)];
    [counts.to_vec(), shares.to_vec(), ends.to_vec()].concat()
}

const HEAD: [&str; 8] = ["layer", "head", "span", "lag", "width", "blocks", "density", "recall"];

fn row(h: &HeadReport) -> Vec<String> {
    let real = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.1}"));
    let shares = [h.density, h.recall].map(|x| format!("{:.1} %", 100.0 * x));
    let [density, recall] = shares;
    let numbers = [real(Some(h.span)), real(h.lag), real(h.width), real(h.blocks)];
    [vec![h.layer.to_string(), h.head.to_string()], numbers.to_vec(), vec![density, recall]].concat()
}
