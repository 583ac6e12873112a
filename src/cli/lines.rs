//! The lines by which `launch` has ranks begin a training run, and go on with it.

use super::{Cli, Verb, train};
use crate::error::{Error, Result};
use crate::train::{Config, Run, snapshot};
use clap::Parser;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A line of `train` whose run folder is known before a rank is started, so that the run can be taken up again.
pub(super) struct Lines {
    first: Vec<OsString>,
    again: Vec<OsString>,
    args: train::Args,
    folder: PathBuf,
    /// It was made here.
    made: bool,
}

impl Lines {
    /// Reads `verb`, a verb and its arguments, as this program would. Gives None where it asked for help, which is then printed.
    ///
    /// # Errors
    /// Another verb than `train`, wrong arguments, a configuration that cannot be used.
    pub(super) fn read(verb: &[OsString]) -> Result<Option<Lines>> {
        let what = "only `train` can be restarted: leave out --max-restarts and --elastic";
        let Some((quiet, args)) = train_of(verb, what)? else { return Ok(None) };
        let made = args.folder().is_none();
        let config = args.config()?;
        if let (false, Some(folder)) = (args.resumes(), args.folder()) {
            // Or the first start would go on with what is there.
            Run::expect_new(folder)?;
        }
        let resets = [("codec.reset", config.codec.reset), ("asynchronous.reset", config.asynchronous.reset)];
        if let Some((key, _)) = resets.into_iter().find(|(_, asked)| *asked && args.resumes()) {
            let what = "is granted once, and each restart would ask for it again: resume without --max-restarts, until there \
                        is a new snapshot";
            return Err(Error::config(key, what));
        }
        let folder = match args.folder() {
            Some(folder) => folder.to_path_buf(),
            None => args.choose(&config)?,
        };
        let mut first = verb.to_vec();
        if made {
            // Behind the verb's name; a `--` at the end may make words of what follows.
            let at = verb.iter().position(|word| word == "train").map_or(verb.len(), |i| i + 1);
            first.insert(at, flag("--out=", &folder));
        }
        // A line that goes on may do so as it is; of one that begins, config.toml keeps all that it sets.
        let again = match args.resumes() {
            true => first.clone(),
            false => {
                let quiet = quiet.then(|| "--quiet".into());
                quiet.into_iter().chain(["train".into(), flag("--resume=", &folder)]).collect()
            }
        };
        Ok(Some(Lines { first, again, args, folder, made }))
    }

    /// The line for the next start: it begins the run where there is none yet.
    pub(super) fn next(&self) -> &[OsString] {
        if self.began() { &self.again } else { &self.first }
    }

    fn began(&self) -> bool {
        self.folder.join("config.toml").is_file()
    }

    /// What the next start goes by.
    pub(super) fn config(&self) -> Result<Config> {
        match self.began() && !self.args.resumes() {
            true => Config::load(&self.folder.join("config.toml")),
            false => self.args.config(),
        }
    }

    /// Where the next start begins, for people.
    pub(super) fn from(&self) -> String {
        let steps = snapshot::steps(&self.folder).unwrap_or_default();
        match steps.first() {
            Some(step) => format!("from {}", self.folder.join(snapshot::name(*step)).display()),
            None => format!("from the beginning of {}", self.folder.display()),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Only an empty folder can be removed so: what a run wrote stays.
        let _ = self.made.then(|| std::fs::remove_dir(&self.folder));
    }
}

/// What `verb` (its name and arguments) asks of `train`, and whether it wants silence. Gives None where it asked for help, which
/// is then printed.
///
/// # Errors
/// Another verb, for which `other` says what to do; wrong arguments.
pub(super) fn train_of(verb: &[OsString], other: &str) -> Result<Option<(bool, train::Args)>> {
    let name = OsString::from("ringtape");
    match Cli::try_parse_from([&[name], verb].concat()) {
        Ok(Cli { quiet, verb: Verb::Train(args) }) => Ok(Some((quiet, args))),
        Ok(_) => Err(Error::Usage(other.into())),
        Err(e) if e.use_stderr() => {
            let text = e.to_string();
            Err(Error::Usage(text.trim_start_matches("error: ").trim_end().into()))
        }
        Err(e) => {
            // Help. A closed pipe is the reader's choice, not an error.
            let _ = e.print();
            Ok(None)
        }
    }
}

fn flag(name: &str, value: &Path) -> OsString {
    [OsStr::new(name), value.as_os_str()].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn read(line: &str) -> Lines {
        Lines::read(&words(line)).unwrap().unwrap()
    }

    #[test]
    fn a_run_that_began_is_taken_up_by_what_its_folder_says() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        let begin = format!("-q train --seed 3 --set model.dim=16 --out {} --steps 60", out.display());
        let lines = read(&begin);
        assert_eq!(lines.next(), words(&begin));
        assert_eq!((lines.config().unwrap().steps, lines.config().unwrap().model.dim), (60, 16));
        assert_eq!(lines.from(), format!("from the beginning of {}", out.display()));
        std::fs::create_dir_all(out.join("step-9")).unwrap();
        std::fs::create_dir_all(out.join("step-10")).unwrap();
        std::fs::create_dir_all(out.join("step-11.tmp")).unwrap();
        let config = Config { batch_size: 5, ..Config::default() };
        std::fs::write(out.join("config.toml"), config.to_toml()).unwrap();
        assert_eq!(lines.next(), words(&format!("--quiet train --resume={}", out.display())));
        assert_eq!(lines.config().unwrap().batch_size, 5);
        assert_eq!(lines.from(), format!("from {}", out.join("step-10").display()));
        let resume = format!("train --resume {} --set batch_size=7", out.display());
        let lines = read(&resume);
        assert_eq!(lines.next(), words(&resume));
        assert_eq!(lines.config().unwrap().batch_size, 7);
        drop(lines);
        assert!(out.join("config.toml").exists());
    }

    #[test]
    fn what_cannot_be_taken_up_is_refused() {
        let refused = |line: &str| Lines::read(&words(line)).err().unwrap();
        assert!(refused("bench gemm").to_string().contains("only `train`"));
        assert!(refused("train --no-such-flag").to_string().starts_with("unexpected argument"));
        assert!(refused("train --set model.dum=3").to_string().contains("model.dum"));
        for line in ["bench gemm", "train --no-such-flag", "train --set model.dum=3", "train nowhere.toml"] {
            assert!([2, 4].contains(&refused(line).exit_code()), "{line}");
        }
    }
}
