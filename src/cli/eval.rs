//! `eval RUN`: the held-out loss of a run's last snapshot.

use super::session::{Session, note, say};
use crate::error::Result;
use crate::train::Trained;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ringtape eval runs/gpt-1
  ringtape eval runs/cnn-1 --json

The whole held-out split is read, in order. The loss is in nats a target for classes and symbols, the mean squared error
for numbers.";

/// Evaluate the last snapshot of a run on its held-out data
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Run folder, as `train` made it
    run: PathBuf,
    /// Device to evaluate on [default: of the run]
    #[arg(long)]
    device: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    let trained = Trained::load(&args.run, args.device.as_deref())?;
    trained.notices.iter().for_each(|n| note!(session, "note: {n}"));
    let found = trained.evaluate()?;
    let split = trained.task.held_out();
    if args.json {
        let all = serde_json::json!({
            "step": trained.step, "split": split, "loss": found.loss, "accuracy": found.accuracy, "targets": found.targets,
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
    Ok(())
}
