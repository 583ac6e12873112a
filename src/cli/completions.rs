//! `completions SHELL`: a script that teaches the shell ringtape's verbs and options.

use super::session::Session;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  ringtape completions bash > ~/.local/share/bash-completion/completions/ringtape
  ringtape completions zsh  > ~/.zfunc/_ringtape        (with fpath+=~/.zfunc before compinit)
  ringtape completions fish > ~/.config/fish/completions/ringtape.fish";

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    // Into memory first: the generator panics where its writer fails, and a closed pipe is no reason to panic.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "ringtape", &mut script);
    session.raw(&script)
}
