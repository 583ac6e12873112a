//! `book` runs what the book's figures and tables show, and writes them anew.

mod attention;
mod loader;
mod map;
mod numbers;
mod ptx;
mod tape;

use super::session::{Session, note, say};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  ringtape book                 write book/figures anew
  ringtape book --check         compare only: exit code 1 when a figure is not what the program makes
  mdbook build book             then build the pages";

/// Run what the book's figures and tables show, and write them anew
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Folder of the book
    #[arg(long, value_name = "DIR", default_value = "book")]
    dir: PathBuf,
    /// Write nothing; say which figures would change
    #[arg(long)]
    check: bool,
}

/// Figures by file name, each ready to be included by a page.
type Figures = BTreeMap<String, String>;

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    if !args.dir.join("book.toml").is_file() {
        let what =
            "no book.toml there; run it from the folder of the sources, or name the book's folder with --dir";
        return Err(Error::Usage(format!("{}: {what}", args.dir.display())));
    }
    let mut figures = ptx::figures(&args.dir)?;
    figures.append(&mut loader::figures());
    figures.append(&mut map::figures(&args.dir)?);
    figures.append(&mut numbers::figures()?);
    figures.append(&mut tape::figures()?);
    figures.append(&mut attention::figures()?);
    let folder = args.dir.join("figures");
    let old = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let changed: Vec<_> = figures.iter().filter(|(name, new)| old(name).as_ref() != Some(new)).collect();
    if args.check {
        return match changed.is_empty() {
            true => say!(session, "{} figures are what the program makes", figures.len()),
            false => {
                let names: Vec<&str> = changed.iter().map(|(n, _)| n.as_str()).collect();
                let what = "not what the program makes; `ringtape book` writes them anew";
                Err(Error::Fault(format!("{}: {} {what}", folder.display(), names.join(", "))))
            }
        };
    }
    fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    for (name, new) in &changed {
        write(&folder.join(name), new)?;
        note!(session, "{}", folder.join(name).display());
    }
    say!(session, "{} figures, {} of them changed", figures.len(), changed.len())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| Error::io(path, e))
}
