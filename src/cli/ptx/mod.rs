//! `ptx check FILE…` says what is wrong with PTX files, or what is in them; `ptx run MANIFEST` runs kernels on the
//! software CUDA device; `ptx cost FILE…` reads what kernels cost; `ptx list` shows ringtape's own kernels.

pub(super) mod profile;

use super::session::{Session, say, table};
use crate::attrs::nearest;
use crate::check::ptx::{Exam, Manifest, Outcome, Programs, read, run as run_manifest, run_on};
use crate::comm::codec;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::{Kernel, basic};
use crate::ptx::profile::trace;
use crate::ptx::{self, run::Options};
use crate::{ops, optim};
use std::fs;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  ringtape ptx check kernel.ptx            its entries and their parameters, or the first error with its line
  ringtape ptx check build/*.ptx --json
  ringtape ptx run launch.json             run a kernel on the software CUDA device, compare what it writes
  ringtape ptx list                        every kernel of ringtape
  ringtape ptx list gelu_forward           the PTX that a device is given for it
  ringtape ptx run launch.json --check     and look for races, accesses out of bounds, uninitialised reads
  ringtape ptx run launch.json --device cuda:0   on a GPU
  ringtape ptx run launch.json --profile   and count: coalescing, bank conflicts, divergence, estimates for GPUs
  ringtape ptx cost kernel.ptx             registers, occupancy and loops, without a run

Any file will do: what nvcc, Triton and people write. Exit code 1: a difference or a fault was found; 4: wrong PTX.";

const MANIFEST: &str = "\
A manifest is one launch, or a list of launches; files are found from its folder:
  {\"ptx\": \"scale.ptx\", \"kernel\": \"scale\", \"grid\": [4, 1, 1], \"block\": [128, 1, 1], \"shared_bytes\": 0,
   \"args\": [{\"buffer\": \"x.npy\"},
            {\"buffer\": \"zeros.npy\", \"expect\": \"y.npy\", \"rtol\": 1e-6, \"atol\": 0},
            {\"f32\": 0.5}, {\"u32\": 500}]}
An argument is a buffer, {\"alloc\": bytes} that nobody has written, i32, u32, i64, u64, f32, f64, or {\"bytes\": […]}.
\"printed\" lists the lines that printf must write, in any order.";

/// Look at PTX files, and run them on the software CUDA device
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Check PTX files: grammar, names, instructions and the types of their operands; list their entries
    Check {
        /// PTX files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show ringtape's own kernels, or the PTX of one
    List {
        /// Entry whose PTX is printed; all kernels are listed when left out
        entry: Option<String>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// What kernels cost by their text: registers, occupancy on GPUs, what a turn of each loop computes and loads
    Cost {
        /// PTX files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run kernels as a manifest says, and compare what they write with what it expects
    #[command(after_help = MANIFEST)]
    Run {
        /// Manifest
        manifest: PathBuf,
        /// Run on this device, without checks and counts: cuda:0 for a GPU [default: a software CUDA device of its own]
        #[arg(long, value_name = "DEVICE", conflicts_with_all = ["check", "worst", "profile", "lanes", "trace", "most_steps"])]
        device: Option<String>,
        /// Look for races, accesses out of bounds, uninitialised reads, and barriers not reached by all
        #[arg(long)]
        check: bool,
        /// Give each approximate instruction all the error that its documentation allows
        #[arg(long)]
        worst: bool,
        /// Count instructions, sectors of memory, bank conflicts and divergence; estimate the least time on GPUs
        #[arg(long)]
        profile: bool,
        /// Registers a thread that the estimates assume, as ptxas reports them [default: read from the text]
        #[arg(long, value_name = "N", requires = "profile", value_parser = clap::value_parser!(u32).range(1..=255))]
        registers: Option<u32>,
        /// Show which lanes of the first warp take part in each of its instructions
        #[arg(long)]
        lanes: bool,
        /// Write a timeline of the warps, for chrome://tracing or ui.perfetto.dev
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
        /// Warp-instructions of a block after which it is said to hang
        #[arg(long, value_name = "N")]
        most_steps: Option<u64>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    match args.what {
        What::Check { files, json } => check_all(session, &files, json),
        What::List { entry: Some(entry), json: false } => show(session, &entry),
        What::List { entry, json } => list(session, entry.as_deref(), json),
        What::Cost { files, json } => profile::costs(session, &files, json),
        What::Run { manifest, device, check, worst, profile, registers, lanes, trace, most_steps, json } => {
            let mut options = Options { worst, ..Options::default() };
            options.most_steps = most_steps.unwrap_or(options.most_steps);
            let exam = Exam { options, check, profile, registers, lanes, trace: None };
            let device = device.map(|name| Device::open(&name)).transpose()?;
            run_all(session, &manifest, device.as_ref(), exam, trace.as_deref(), json)
        }
    }
}

/// Every kernel that ops, optimizers, the tape, clipping and codecs launch.
fn kernels(session: &Session<'_>) -> Vec<&'static Kernel> {
    let ops = session.extensions.ops.iter().chain(ops::ALL).flat_map(|e| e.kernels);
    let optimizers = session.extensions.optimizers.iter().chain(optim::ALL).flat_map(|e| e.kernels);
    let mut all: Vec<&Kernel> = ops
        .chain(optimizers)
        .chain(basic::ALL)
        .chain(optim::clip::KERNELS)
        .chain(codec::KERNELS)
        .copied()
        .collect();
    all.sort_by_key(|k| k.entry);
    all.dedup_by_key(|k| k.entry);
    all
}

fn list(session: &Session<'_>, only: Option<&str>, json: bool) -> Result<()> {
    let all: Vec<&Kernel> =
        kernels(session).into_iter().filter(|k| only.is_none_or(|e| e == k.entry)).collect();
    let params =
        |k: &Kernel| k.params.iter().map(|p| format!("{}: {} {}", p.name, p.role, p.ty)).collect::<Vec<_>>();
    let file = |k: &Kernel| k.source.map_or("none: CPU only", |s| s.file);
    if json {
        let row = |k: &&Kernel| serde_json::json!({ "entry": k.entry, "file": file(k), "params": params(k) });
        return say!(session, "{}", super::json(&all.iter().map(row).collect::<Vec<_>>())?);
    }
    let rows: Vec<Vec<String>> =
        all.iter().map(|k| vec![k.entry.into(), file(k).into(), params(k).join(", ")]).collect();
    table(&["kernel", "file", "parameters"], &rows).iter().try_for_each(|line| say!(session, "{line}"))
}

fn show(session: &Session<'_>, entry: &str) -> Result<()> {
    let all = kernels(session);
    let Some(kernel) = all.iter().find(|k| k.entry == entry) else {
        let near = nearest(entry, all.iter().map(|k| k.entry));
        return Err(Error::Usage(format!("no kernel is named `{entry}`{near}; `ptx list` shows all")));
    };
    match kernel.source {
        Some(source) => session.raw(source.ptx().as_bytes()),
        None => Err(Error::Usage(format!("`{entry}` has no PTX: it runs on the CPU alone"))),
    }
}

fn check_all(session: &Session<'_>, files: &[PathBuf], json: bool) -> Result<()> {
    let mut first = None;
    let mut all = Vec::new();
    for file in files {
        match check(session, file, json) {
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

fn check(session: &Session<'_>, file: &Path, json: bool) -> Result<serde_json::Value> {
    let text = crate::check::ptx::text(file)?;
    let name = file.display().to_string();
    // Loading finds what the device does not take; the tree says what is in the file.
    let program = ptx::load(&name, &text)?;
    let tree = ptx::parse(&name, &text)?;
    let (major, minor) = tree.version;
    let entries: Vec<_> = tree.functions.iter().filter(|f| f.entry).collect();
    if !json {
        say!(session, "{name}: PTX {major}.{minor} for {}, entries: {}", tree.target, entries.len())?;
        for f in &entries {
            let params: Vec<String> = f.params.iter().map(|p| format!("{} {}", p.ty, p.name)).collect();
            say!(session, "  {}({})", f.name, params.join(", "))?;
        }
    }
    let listed = entries.iter().map(|f| {
        let param = |p: &ptx::ast::Variable<'_>| {
            serde_json::json!({ "name": p.name, "type": p.ty.name(), "bytes": p.bytes() })
        };
        let params: Vec<_> = f.params.iter().map(param).collect();
        let shared = program.entry(f.name).map_or(0, |e| e.shared_bytes);
        serde_json::json!({ "name": f.name, "params": params, "shared_bytes": shared })
    });
    let (version, listed) = (format!("{major}.{minor}"), listed.collect::<Vec<_>>());
    Ok(serde_json::json!({ "file": name, "version": version, "target": tree.target, "entries": listed }))
}

/// Runs every launch of a manifest.
fn run_all(
    session: &Session<'_>,
    path: &Path,
    device: Option<&Device>,
    exam: Exam,
    to: Option<&Path>,
    json: bool,
) -> Result<()> {
    let manifests = read(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut programs = Programs::default();
    let (mut all, mut events) = (Vec::new(), Vec::new());
    for (k, m) in manifests.iter().enumerate() {
        let exam = Exam { trace: to.map(|_| k), ..exam };
        let mut outcome = match device {
            Some(device) => run_on(device, &mut programs, folder, m)?,
            None => run_manifest(&mut programs, folder, m, exam)?,
        };
        events.append(&mut outcome.trace);
        if !json {
            tell(session, m, &outcome)?;
            session.flush()?;
        }
        all.push(outcome);
    }
    if let Some(to) = to {
        let text = serde_json::to_vec(&trace::file(&events)).unwrap_or_default();
        fs::write(to, text).map_err(|e| Error::io(to, e))?;
    }
    if json {
        say!(session, "{}", super::json(&all)?)?;
    }
    let failed = all.iter().filter(|o| !o.passed()).count();
    match failed {
        0 => Ok(()),
        n => Err(Error::Fault(format!("{n} of {} launches did not do what they should", all.len()))),
    }
}

fn tell(session: &Session<'_>, m: &Manifest, o: &Outcome) -> Result<()> {
    if !o.printed.is_empty() {
        say!(session, "{}", o.printed.trim_end_matches('\n'))?;
    }
    for fault in &o.faults {
        say!(session, "{fault}")?;
    }
    for difference in &o.differences {
        say!(session, "{}: {difference}", o.kernel)?;
    }
    for step in &o.lanes {
        say!(session, "{:>5}  {}  {}", step.line, step.lanes, profile::code(&step.text))?;
    }
    let (steps, threads) = (o.report.warp_steps, o.report.thread_steps);
    let word = if o.passed() { "pass" } else { "FAIL" };
    let grid = format!("{:?} × {:?}", m.grid, m.block);
    let ran = match steps {
        0 => String::new(),
        _ => format!("{steps} warp-instructions, {threads} thread-instructions, "),
    };
    say!(session, "{word} {}  {grid}  {ran}{:.2} ms", o.kernel, o.seconds * 1e3)?;
    o.profile.as_ref().map_or(Ok(()), |spent| profile::tell(session, o, spent))
}
