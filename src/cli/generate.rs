//! `generate RUN`: text from a trained language model, as it is drawn.

use super::session::{Session, note};
use crate::error::{Error, Result};
use crate::nn::Sampler;
use crate::train::Trained;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ringtape generate runs/gpt-1 --prompt \"Call me \" --tokens 400
  ringtape generate runs/gpt-1 --prompt \"The whale\" --temperature 0         always the likeliest symbol
  ringtape generate runs/gpt-1 --prompt \"The whale\" --top-k 5 --seed 3

The same seed writes the same text. Every character of the prompt must be one that the model was trained on.";

/// Write text with a trained language model
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Run folder, as `train` made it
    run: PathBuf,
    /// Text to go on from
    #[arg(long, default_value = "\n", hide_default_value = true)]
    prompt: String,
    /// Symbols to write
    #[arg(long, default_value_t = 300)]
    tokens: usize,
    /// Divides the logits: lower is safer, 0 always takes the likeliest
    #[arg(long, default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f64,
    /// Draw only among the K likeliest symbols; 0 allows all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Seed of the draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Device to run on [default: of the run]
    #[arg(long)]
    device: Option<String>,
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    let trained = Trained::load(&args.run, args.device.as_deref())?;
    trained.notices.iter().for_each(|n| note!(session, "note: {n}"));
    let sampler = Sampler { temperature: args.temperature, top_k: args.top_k, seed: args.seed };
    // The prompt is shown with the first symbol, so that a prompt that is refused prints nothing.
    let mut before = args.prompt.trim_start_matches('\n');
    let mut refused: Option<Error> = None;
    trained.generate(&args.prompt, args.tokens, &sampler, |symbol| {
        let text = std::mem::take(&mut before).to_string() + symbol;
        // Symbol by symbol to the reader; one who went away ends it.
        let sent = session.raw(text.as_bytes()).and_then(|()| session.flush());
        refused = sent.err();
        refused.is_none()
    })?;
    refused.map_or_else(|| session.raw(b"\n"), Err)
}
