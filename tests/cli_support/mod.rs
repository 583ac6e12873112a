//! Runs the real program and looks at what a user would see. Shared by the `cli_*` tests.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part; a test fails by panic"
)]

pub mod late;

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a run of the program gave.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; None when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        // Of an allocation that was refused Rust says so before the program can: that is no panic.
        let refused = ran.err.contains("memory allocation of");
        for word in ["panicked at", "internal error", if refused { "panicked at" } else { "RUST_BACKTRACE" }]
        {
            assert!(!ran.err.contains(word) && !ran.out.contains(word), "a panic reached the user: {ran:?}");
        }
        ran
    }
    /// Asserts success.
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
    /// Asserts this exit code and that the error names every one of `words`.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Ran {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains("error:"), "no `error:` line: {self:?}");
        for word in words {
            assert!(self.err.contains(word), "the error does not say `{word}`: {self:?}");
        }
        self
    }
}

/// The program, ready to be given arguments; colours and pools of the caller's shell do not reach it.
pub fn program() -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_ringtape"));
    c.env_remove("RINGTAPE_SIMD").env("NO_COLOR", "1").stdin(Stdio::null());
    c
}

/// Runs the program in `dir` to its end.
pub fn ringtape_in<S: AsRef<std::ffi::OsStr>>(dir: &Path, args: &[S]) -> Ran {
    Ran::of(program().current_dir(dir).args(args).output().unwrap())
}

/// Runs the program to its end.
pub fn ringtape<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Ran {
    Ran::of(program().args(args).output().unwrap())
}

/// The end of a program that was started already.
pub fn finish(child: std::process::Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap())
}

/// Waits until `there` is true; panics after `limit`.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every file under `dir` with a hash of its bytes: to see that nothing changed.
pub fn contents(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mut hash = std::hash::DefaultHasher::new();
                std::fs::read(&path).unwrap().hash(&mut hash);
                files.push((path, hash.finish()));
            }
        }
    }
    files.sort();
    files
}
