//! `ptx check FILE…`: reads PTX files and says what is wrong with them, or what is in them.

use super::session::{Session, say};
use crate::error::{Error, Result};
use crate::ptx::{self, ast::Function};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ringtape ptx check kernel.ptx            its entries and their parameters, or the first error with its line
  ringtape ptx check build/*.ptx --json

What is checked: the grammar, and that every name is declared once in a scope that is open. The types of operands are
not checked, and this version runs no PTX. Any file will do: what nvcc, Triton and people write.";

/// Look at PTX files
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Check the grammar and the names of PTX files, and list their entries
    Check {
        /// PTX files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    let What::Check { files, json } = args.what;
    let mut first = None;
    let mut all = Vec::new();
    for file in files {
        match check(session, &file, json) {
            Ok(found) => all.push(found),
            // Every file is looked at; the first error is the one that ends the program.
            Err(e) if first.is_none() => first = Some(e),
            Err(e) => session.report(&e),
        }
    }
    if json {
        say!(session, "{}", super::json(&all)?)?;
    }
    first.map_or(Ok(()), Err)
}

fn check(session: &Session<'_>, file: &PathBuf, json: bool) -> Result<serde_json::Value> {
    let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        Error::data(
            file,
            Some(e.utf8_error().valid_up_to() as u64),
            "this byte is no UTF-8, so the file is no PTX text",
        )
    })?;
    let name = file.display().to_string();
    let tree = ptx::parse(&name, &text)?;
    let (major, minor) = tree.version;
    let entries: Vec<&Function<'_>> = tree.functions.iter().filter(|f| f.entry).collect();
    if !json {
        say!(session, "{name}: PTX {major}.{minor} for {}, entries: {}", tree.target, entries.len())?;
        for f in &entries {
            let params: Vec<String> = f.params.iter().map(|p| format!("{} {}", p.ty, p.name)).collect();
            say!(session, "  {}({})", f.name, params.join(", "))?;
        }
    }
    let listed: Vec<_> = entries
        .iter()
        .map(|f| {
            let params: Vec<_> = f
                .params
                .iter()
                .map(|p| serde_json::json!({ "name": p.name, "type": p.ty.name(), "bytes": p.bytes() }))
                .collect();
            serde_json::json!({ "name": f.name, "params": params })
        })
        .collect();
    let version = format!("{major}.{minor}");
    Ok(serde_json::json!({ "file": name, "version": version, "target": tree.target, "entries": listed }))
}
