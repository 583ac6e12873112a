//! `bench`: how fast things are here. All cases of a run take turns, round after round, so that a slow moment of the
//! machine falls on all alike; medians are what is compared, with the extremes beside them.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the verb: what to run, the table, JSON |
//! | `harness.rs` | [`Case`], taking turns, medians |
//! | `machine.rs` | the ceilings, measured in the same run: multiply-adds and memory |
//! | `gemm.rs` | matrix products of a GPT training step |
//! | `step.rs` | a training step of the default GPT, whole and in parts; the loader |
//! | `attention.rs` | dense, windowed and dynamic attention over long sequences |
//! | `fusion.rs` | two sides that attend to each other, by one matrix of scores and by two |
//! | `all_reduce.rs` | all-reduce between threads, processes and devices |
//! | `codec.rs` | all-reduce by every codec |
//! | `ladder.rs` | matrix products in PTX, version by version, on a device |
//! | `soft.rs` | the software CUDA device |
//! | `sparse.rs` | an MLP whose inactive units are skipped, by density |
//! | `tiny.rs` | a training step that is mostly machinery |
//! | `op.rs` | every op's large samples, forward and backward |

mod all_reduce;
mod attention;
mod codec;
mod fusion;
mod gemm;
mod harness;
mod ladder;
mod machine;
mod op;
mod soft;
mod sparse;
pub(super) mod step;
mod tiny;

pub use harness::{Case, Timing, measure};

use super::devices::Machine;
use super::session::{Session, note, say, table};
use crate::comm::Place;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::{self, Entry};

const EXAMPLES: &str = "\
Examples:
  ringtape bench                    everything: some minutes
  ringtape bench step               a training step of the default GPT, whole and in parts
  ringtape bench tiny               a step of a network so small that the machinery is most of it
  ringtape bench gemm               matrix products of a GPT step, beside this machine's peak
  ringtape bench attention          dense, windowed and dynamic attention over 1,024 to 65,536 tokens
  ringtape bench sparse             an MLP whose inactive units are skipped, by share of active ones
  ringtape bench fusion             cross-attention by one matrix of scores, and by two
  ringtape bench soft               the software CUDA device: launches, PTX read, matrix products
  ringtape bench ladder --device cuda:0   the versions of the matrix product in PTX
  ringtape bench op softmax         one op, forward and backward
  ringtape bench elementwise        the ops of one real input
  ringtape bench all-reduce --ranks 2   the ring between threads, through shared memory, over TCP: GB/s is bus bandwidth
  ringtape bench all-reduce --ranks 4 --device soft   the ring between devices, a thread each
  ringtape bench codec --ranks 4    what each codec of gradients costs, and the bytes that it sends
  ringtape bench gemm --json        numbers for programs

Cases take turns round after round (same run, interleaved); the median is printed with the extremes. The ceilings `peak`
(multiply-adds) and `copy` (memory) are measured in the same run. Close other programs first.";

/// Measure how fast kernels and training are here
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// gemm, elementwise, op NAME, step, attention, fusion, sparse, tiny, loader, soft, all-reduce, codec, ladder, all
    #[arg(default_value = "all")]
    target: String,
    /// Op to measure, after `op`; every op when left out
    op: Option<String>,
    /// Device of `op`, `elementwise`, `step`, `attention`, `fusion` and `ladder`; `all-reduce` takes devices 0 to N − 1 of its kind
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Ranks of `codec`, and of `all-reduce` where no launcher has started it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    ranks: u32,
    /// Seconds to spend on each case
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

const TARGETS: [&str; 14] = [
    "all",
    "gemm",
    "elementwise",
    "op",
    "step",
    "attention",
    "fusion",
    "sparse",
    "tiny",
    "loader",
    "soft",
    "all-reduce",
    "codec",
    "ladder",
];
/// Those that `all` leaves out: on the CPU there is no ladder, and `soft` holds the software device's; ranks want processors of
/// their own.
const APART: [&str; 3] = ["ladder", "all-reduce", "codec"];
/// Makes the cases of a target.
type Group<'a> = &'a dyn Fn() -> Result<Vec<Case<'static>>>;
/// Those that run on any device.
const ANYWHERE: [&str; 7] = ["elementwise", "op", "step", "attention", "fusion", "ladder", "all-reduce"];

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Error::Usage(format!("--seconds {} is not between 0 and 3600", args.seconds)));
    }
    if args.op.is_some() && args.target != "op" {
        return Err(Error::Usage(format!("`bench {}` takes no name; `bench op NAME` does", args.target)));
    }
    let device = Device::open(&args.device)?;
    let target = args.target.as_str();
    if !device.is_host() && !ANYWHERE.contains(&target) {
        let all = ANYWHERE.join(", ");
        return Err(Error::Usage(format!("`bench {target}` runs on the CPU; {all} take a --device")));
    }
    let entries = || session.extensions.ops.iter().chain(ops::ALL).copied();
    let chosen: Vec<&'static Entry> = match (target, &args.op) {
        ("op", Some(name)) => vec![ops::find(name, session.extensions.ops)?],
        ("op" | "all", None) => entries().collect(),
        ("elementwise", _) => entries().filter(|e| e.inputs.len() == 1 && is_elementwise(e)).collect(),
        (known, _) if TARGETS.contains(&known) => vec![],
        (other, _) => {
            let all = TARGETS.join(", ");
            return Err(Error::Usage(format!("no benchmark is named `{other}`; there are {all}")));
        }
    };
    let place = match target {
        "all-reduce" if device.is_host() => Place::from_variables(|name| std::env::var(name).ok())?,
        _ => None,
    };
    if let Some(place) = place.as_ref().filter(|p| p.rank > 0) {
        return all_reduce::serve(place);
    }
    let mut cases = machine::cases()?;
    let groups: [(&str, Group<'_>); 11] = [
        ("gemm", &gemm::cases),
        ("step", &|| step::step(&args.device)),
        ("attention", &|| attention::cases(&device)),
        ("fusion", &|| fusion::cases(&device)),
        ("sparse", &sparse::cases),
        ("tiny", &tiny::cases),
        ("loader", &step::loader),
        ("soft", &soft::cases),
        ("all-reduce", &|| match device.is_host() {
            true => all_reduce::cases(place.clone(), args.ranks as usize),
            false => all_reduce::between(&device, args.ranks as usize),
        }),
        ("codec", &|| codec::cases(args.ranks as usize)),
        ("ladder", &|| ladder::cases(&device)),
    ];
    for (name, group) in groups {
        if target == name || target == "all" && !APART.contains(&name) {
            cases.extend(group()?);
        }
    }
    for entry in chosen {
        cases.extend(op::cases(entry, &device)?);
    }
    note!(session, "{} cases, about {:.0} s …", cases.len(), cases.len() as f64 * args.seconds);
    print(session, &args, &measure(cases, args.seconds)?)
}

/// An op whose output has the shape of its only input, told from its first sample.
fn is_elementwise(entry: &Entry) -> bool {
    let shapes = || -> Result<bool> {
        let Some(sample) = (entry.samples)().into_iter().next() else { return Ok(false) };
        let op = entry.build_with(&sample.attrs)?;
        let x = sample.tensors(&Device::cpu(), crate::shape::DType::F32, 1)?;
        let specs: Vec<_> = x.iter().map(|t| t.spec()).collect();
        let y = op.infer(&specs)?;
        Ok(y.len() == 1 && y[0] == specs[0])
    };
    shapes().unwrap_or(false)
}

fn print(session: &Session<'_>, args: &Args, timings: &[Timing]) -> Result<()> {
    let machine = Machine::look();
    if args.json {
        let all = serde_json::json!({ "machine": machine, "seconds_a_case": args.seconds, "cases": timings });
        return say!(session, "{}", super::json(&all)?);
    }
    let peak = machine::ceiling(timings, "peak");
    let copy = machine::ceiling(timings, "copy");
    say!(
        session,
        "{}, {} threads, {}; {} {}",
        machine.cpu,
        machine.threads,
        machine.simd,
        machine.system,
        build()
    )?;
    say!(session)?;
    let head = [
        "case",
        "what",
        "median ms",
        "min",
        "max",
        "rounds",
        "ns/element",
        "GB/s",
        "of copy",
        "GFLOP/s",
        "of peak",
        "MiB",
    ];
    let rows: Vec<Vec<String>> = timings.iter().map(|t| row(t, peak, copy)).collect();
    table(&head, &rows).iter().try_for_each(|line| say!(session, "{line}"))?;
    fusion::shares(timings).iter().try_for_each(|line| say!(session, "{line}"))
}

fn build() -> &'static str {
    if cfg!(debug_assertions) { "(debug build: use --release for numbers to report)" } else { "" }
}

fn row(t: &Timing, peak: f64, copy: f64) -> Vec<String> {
    let ms = |s: f64| format!("{:.3}", s * 1e3);
    let or_none = |there: bool, text: String| if there { text } else { "-".into() };
    let (gflops, gbs) = (t.flops / t.median / 1e9, t.bytes / t.median / 1e9);
    let share = |x: f64, of: f64| or_none(x > 0.0 && of > 0.0, format!("{:.0} %", 100.0 * x / of));
    vec![
        t.name.clone(),
        t.what.clone(),
        ms(t.median),
        ms(t.min),
        ms(t.max),
        t.rounds.to_string(),
        or_none(t.elements > 0.0, format!("{:.3}", t.median * 1e9 / t.elements)),
        or_none(gbs > 0.0, format!("{gbs:.1}")),
        share(gbs, copy),
        or_none(gflops > 0.0, format!("{gflops:.1}")),
        share(gflops, peak),
        t.memory.map_or("-".into(), |bytes| format!("{:.1}", bytes as f64 / 1048576.0)),
    ]
}
