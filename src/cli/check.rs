//! `check [OP]`: the examiner, as a table.

use super::session::{Session, note, say, table};
use crate::check::{self, Verdict};
use crate::device::Device;
use crate::device::soft::{self, Machine};
use crate::error::{Error, Result};
use crate::ops::{self, Entry};

const EXAMPLES: &str = "\
Examples:
  ringtape check                every op
  ringtape check softmax        one op, with every sample
  ringtape check --json         every verdict, for programs
  ringtape check --device soft:0   the PTX of every op against the CPU, on the software CUDA device

Exams: gradient (f64, backward against central differences, to 1e-6), precision (f32 against f64), contract
(errors name op and shapes, backward adds, unwanted inputs cost nothing, the same bits twice). On another device than
the CPU: parity (outputs and gradients as the CPU has them); on soft with its checks on (bounds, uninitialised reads,
races) and every approximate instruction as wrong as its documentation allows.
Exit code 1 when an exam fails.";

/// Examine ops: gradient, precision, contract
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Op to examine; every op when left out
    op: Option<String>,
    /// Device to examine on
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print every verdict as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    let device = device(&args.device)?;
    let entries: Vec<&'static Entry> = match &args.op {
        Some(name) => vec![ops::find(name, session.extensions.ops)?],
        None => session.extensions.ops.iter().chain(ops::ALL).copied().collect(),
    };
    let started = std::time::Instant::now();
    let exam =
        |e: &&'static Entry| if device.is_host() { check::all(e) } else { check::on_device(e, &device) };
    let verdicts: Vec<Verdict> = entries.iter().flat_map(exam).collect();
    let failed = verdicts.iter().filter(|v| v.failure.is_some()).count();
    if args.json {
        say!(session, "{}", super::json(&verdicts)?)?;
    } else if args.op.is_some() {
        print(
            session,
            &["sample", "exam", "worst error", "verdict"],
            verdicts.iter().map(by_sample).collect(),
        )?;
    } else {
        let exams: &[&str] =
            if device.is_host() { &["gradient", "precision", "contract"] } else { &["parity"] };
        let rows = entries.iter().map(|e| by_op(e.name, exams, &verdicts)).collect();
        let head: Vec<&str> = ["op", "samples"].iter().chain(exams).chain(&["verdict"]).copied().collect();
        print(session, &head, rows)?;
    }
    for v in verdicts.iter().filter(|v| !args.json && v.failure.is_some()) {
        say!(
            session,
            "FAILED {} / {} / {}: {}",
            v.op,
            v.exam,
            v.sample,
            v.failure.as_deref().unwrap_or_default()
        )?;
    }
    if failed > 0 {
        return Err(Error::Differs(format!("{failed} of {} exams failed", verdicts.len())));
    }
    note!(session, "{} exams passed in {:.1} s", verdicts.len(), started.elapsed().as_secs_f64());
    Ok(())
}

/// The device to examine on. A software device is one of its own, with all its checks.
fn device(name: &str) -> Result<Device> {
    let device = Device::open(name)?;
    let Some(ordinal) = name.strip_prefix("soft").map(|rest| rest.trim_start_matches(':')) else {
        return Ok(device);
    };
    soft::device(&Machine::strict(), ordinal.parse().unwrap_or(0))
}

fn print(session: &Session<'_>, head: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    table(head, &rows).iter().try_for_each(|line| say!(session, "{line}"))
}

fn by_sample(v: &Verdict) -> Vec<String> {
    vec![v.sample.into(), v.exam.into(), error_text(v.error), word(v.failure.is_none())]
}

/// One line for an op: the worst error of each exam over its samples.
fn by_op(name: &str, exams: &[&str], verdicts: &[Verdict]) -> Vec<String> {
    let of = |exam: &str| verdicts.iter().filter(move |v| v.op == name && v.exam == exam).collect::<Vec<_>>();
    // NaN marks a failed exam: f64::max would hide it.
    let worst = |exam: &str| {
        of(exam)
            .iter()
            .fold(0.0f64, |m: f64, v| if v.error.is_nan() || m.is_nan() { f64::NAN } else { v.error.max(m) })
    };
    let samples = exams.last().map_or(0, |exam| of(exam).len()).to_string();
    let mut row = vec![name.to_string(), samples];
    row.extend(exams.iter().map(|exam| error_text(worst(exam))));
    row.push(word(verdicts.iter().all(|v| v.op != name || v.failure.is_none())));
    row
}

fn error_text(e: f64) -> String {
    if e.is_nan() {
        "-".into()
    } else if e == 0.0 {
        "0".into()
    } else {
        format!("{e:.1e}")
    }
}

fn word(passed: bool) -> String {
    if passed { "pass" } else { "FAILED" }.into()
}
