//! One error type. Every text says who (op, file, key), what was seen and what was wanted, and where it can, the remedy.

use std::path::PathBuf;

/// Result with ringtape's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong because of something from outside: a shape, a file, a key, a device.
/// Broken invariants of ringtape itself are panics; nothing that a user types or stores is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Operand shapes do not fit the op.
    #[error("{op}: {what}")]
    Shape {
        /// Name of the op.
        op: String,
        /// Which operand, the shape seen, the shape wanted.
        what: String,
    },
    /// An operand has an element type that the op or kernel does not take.
    #[error("{op}: {what}")]
    DType {
        /// Name of the op or kernel.
        op: String,
        /// Which operand, the type seen, the types taken.
        what: String,
    },
    /// An attribute of an op is missing, unknown or out of range.
    #[error("{op}: attribute `{attr}` {what}")]
    Attr {
        /// Name of the op.
        op: String,
        /// Name of the attribute.
        attr: String,
        /// What is wrong and what would be right.
        what: String,
    },
    /// An id or label points outside the table that it indexes.
    #[error("{op}: id {value} at {at:?} is not in 0..{limit}")]
    Id {
        /// Name of the op.
        op: String,
        /// Index of the id along each axis of its tensor.
        at: Vec<usize>,
        /// The id.
        value: i64,
        /// Rows of the table, or classes.
        limit: usize,
    },
    /// A buffer must have one holder to be written, and has more.
    #[error(
        "{who}: buffer of {shape} is shared by {holders} holders, so it cannot be written in place (drop the tape and other clones first)"
    )]
    Shared {
        /// Who wanted to write.
        who: String,
        /// Shape of the tensor.
        shape: String,
        /// Number of holders seen.
        holders: usize,
    },
    /// A gradient would be lost without a word.
    #[error("{op}: {what}; call detach() on that input if no gradient should flow there")]
    LostGradient {
        /// Name of the op.
        op: String,
        /// Which input lost its gradient, and why.
        what: String,
    },
    /// A configuration key is unknown, of the wrong type or out of range.
    #[error("config key `{key}`: {what}")]
    Config {
        /// Dotted key.
        key: String,
        /// What is wrong, and the remedy.
        what: String,
    },
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A dataset or other input file is missing, damaged or of another kind.
    #[error("{}{}: {what}", path.display(), offset.map(|o| format!(" at byte {o}")).unwrap_or_default())]
    Data {
        /// File.
        path: PathBuf,
        /// Where in the file, if known.
        offset: Option<u64>,
        /// What was seen and what was wanted.
        what: String,
    },
    /// A snapshot cannot be loaded.
    #[error("snapshot {}: {what}", path.display())]
    Snapshot {
        /// Snapshot folder or file.
        path: PathBuf,
        /// What was seen and what was wanted.
        what: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's own word.
        source: std::io::Error,
    },
    /// The device named by the user cannot be used.
    #[error("device {device}: {what}")]
    Device {
        /// As the user wrote it.
        device: String,
        /// Why not, and the remedy.
        what: String,
    },
    /// The system has no memory of this size.
    #[error("out of memory: {bytes} bytes asked for {what}")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// What they were for.
        what: String,
    },
    /// PTX text is wrong, or uses what the software device does not support.
    #[error("{file}:{line}:{column}: {what}\n  | {text}")]
    Ptx {
        /// File, or another name of the text.
        file: String,
        /// Line, from 1.
        line: u32,
        /// Column in bytes, from 1.
        column: u32,
        /// What was seen and what was wanted.
        what: String,
        /// The line itself.
        text: String,
    },
    /// A kernel did on the software device what hardware forbids or gets wrong.
    #[error("{0}")]
    Fault(String),
    /// A NaN or an infinity where training needs a number.
    #[error("step {step}: {what}")]
    Numeric {
        /// Training step.
        step: u64,
        /// First op or tensor that was not finite.
        what: String,
    },
    /// A comparison that the user asked for failed.
    #[error("{0}")]
    Differs(String),
    /// The ranks of a job could not meet: one is missing, a stranger, or runs something else.
    #[error("rendezvous: {0}")]
    Rendezvous(String),
    /// Another rank of the job is gone, stopped, cut off or late.
    #[error("rank {rank} failed: {what}")]
    RankFailed {
        /// Number of the rank among all ranks of the job.
        rank: usize,
        /// What was seen of it.
        what: String,
    },
    /// Two ranks called different collectives, or one with different sizes or types.
    #[error("ranks disagree: {0}")]
    RanksDisagree(String),
    /// A process that was started as a rank ended badly, and has said why.
    #[error("rank {rank} of the job ended with exit code {code}")]
    Launched {
        /// Its number.
        rank: usize,
        /// Its exit code, which becomes ours.
        code: i32,
    },
    /// Stopped by a signal, after saving what could be saved.
    #[error("interrupted by signal {signal}{}", saved.as_ref().map(|p| format!("; snapshot saved in {}", p.display())).unwrap_or_default())]
    Interrupted {
        /// Signal number (2 or 15).
        signal: i32,
        /// Snapshot written on the way out.
        saved: Option<PathBuf>,
    },
}

impl Error {
    /// Shape error of `op`.
    pub fn shape(op: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Shape { op: op.into(), what: what.into() }
    }
    /// Element-type error of `op`.
    pub fn dtype(op: impl Into<String>, what: impl Into<String>) -> Error {
        Error::DType { op: op.into(), what: what.into() }
    }
    /// Attribute error of `op`.
    pub fn attr(op: impl Into<String>, attr: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Attr { op: op.into(), attr: attr.into(), what: what.into() }
    }
    /// Configuration error at `key`.
    pub fn config(key: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Config { key: key.into(), what: what.into() }
    }
    /// Data error in the file `path`.
    pub fn data(path: impl Into<PathBuf>, offset: Option<u64>, what: impl Into<String>) -> Error {
        Error::Data { path: path.into(), offset, what: what.into() }
    }
    /// Snapshot error in `path`.
    pub fn snapshot(path: impl Into<PathBuf>, what: impl Into<String>) -> Error {
        Error::Snapshot { path: path.into(), what: what.into() }
    }
    /// The system's error for `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::Io { path: path.into(), source }
    }

    /// The system starts no more threads, for want of memory for a stack (or of a number for one).
    pub fn no_thread(who: &str, e: &std::io::Error) -> Error {
        const STACK: usize = 2 << 20;
        Error::OutOfMemory { bytes: STACK, what: format!("the stack of a thread of {who} ({e})") }
    }

    /// The process exit code for this error: 1 a comparison failed or a kernel faulted, 2 usage or config, 3 rendezvous, 4 bad data, ids,
    /// snapshot or PTX, 5 out of disk or memory, 6 numeric, 17 another rank failed, 130 SIGINT, 143 SIGTERM.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Differs(_) | Error::Fault(_) => 1,
            Error::Ptx { .. } | Error::Id { .. } | Error::Data { .. } | Error::Snapshot { .. } => 4,
            Error::OutOfMemory { .. } => 5,
            // A full disk, quota or memory is 5 wherever it strikes; any other refusal concerns a file that the user named.
            Error::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::OutOfMemory
                | std::io::ErrorKind::FileTooLarge => 5,
                _ => 4,
            },
            Error::Numeric { .. } => 6,
            Error::Rendezvous(_) => 3,
            Error::Launched { code, .. } => *code,
            Error::RankFailed { .. } | Error::RanksDisagree(_) => 17,
            Error::Interrupted { signal, .. } => 128 + signal,
            _ => 2,
        }
    }
}
