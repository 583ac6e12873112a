//! `devices`: what can be used here.

use super::session::{Session, say};
use crate::device::{Device, soft};
use crate::error::Result;
use crate::simd::{self, Isa};

const EXAMPLES: &str = "\
Examples:
  ringtape devices
  ringtape devices --json

RINGTAPE_SIMD=plain|avx2|avx512 uses a narrower instruction set (avx512: without BF16), RAYON_NUM_THREADS=N fewer threads;
results keep their bits, but for matrix products on another instruction set.";

/// Show what can be used here: processor, threads, instruction set, memory
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// The machine, as far as the operating system tells.
#[derive(serde::Serialize)]
pub(super) struct Machine {
    /// Model of the processor.
    pub(super) cpu: String,
    /// Threads that may run at once.
    pub(super) cores: usize,
    /// Threads in ringtape's pool.
    pub(super) threads: usize,
    /// Instruction set of the vectorised kernels.
    pub(super) simd: &'static str,
    /// Bytes of memory; None where the system does not say.
    pub(super) memory_bytes: Option<u64>,
    /// Bytes of it that are free for use.
    pub(super) available_bytes: Option<u64>,
    /// Operating system and architecture.
    pub(super) system: String,
}

impl Machine {
    pub(super) fn look() -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let simd = match simd::isa() {
            Isa::Avx512 if simd::bf16() => "AVX-512 with BF16",
            Isa::Avx512 => "AVX-512",
            Isa::Avx2 => "AVX2 + FMA",
            Isa::Plain if cfg!(target_arch = "x86_64") => "plain (SSE2)",
            Isa::Plain if cfg!(target_arch = "aarch64") => "plain (NEON)",
            Isa::Plain => "plain",
        };
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Machine {
            cpu: model(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cores,
            threads: rayon::current_num_threads(),
            simd,
            memory_bytes: kibibytes(&memory, "MemTotal:"),
            available_bytes: kibibytes(&memory, "MemAvailable:"),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

fn model(cpuinfo: &str) -> String {
    let named = cpuinfo.lines().find_map(|l| l.strip_prefix("model name"));
    let named = named.and_then(|l| l.split_once(':')).map(|(_, name)| name.trim().to_string());
    named.filter(|n| !n.is_empty()).unwrap_or_else(|| format!("unnamed {}", std::env::consts::ARCH))
}

fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|k| k * 1024)
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    let m = Machine::look();
    if args.json {
        let soft = serde_json::json!({ "devices": soft::DEVICES });
        let cuda = serde_json::json!({ "built_in": cfg!(feature = "cuda"), "driver": driver(), "devices": cuda_devices() });
        return say!(
            session,
            "{}",
            super::json(&serde_json::json!({ "cpu": m, "soft": soft, "cuda": cuda }))?
        );
    }
    let gib =
        |b: Option<u64>| b.map_or("unknown".into(), |b| format!("{:.1} GiB", b as f64 / (1u64 << 30) as f64));
    say!(session, "cpu    {}, {}", m.cpu, m.system)?;
    say!(session, "       {} cores, {} threads in the pool, {}", m.cores, m.threads, m.simd)?;
    say!(session, "       {} of memory, {} free for use", gib(m.memory_bytes), gib(m.available_bytes))?;
    say!(
        session,
        "soft   soft:0 to soft:{}, the software CUDA device: runs PTX on {} threads",
        soft::DEVICES - 1,
        m.threads
    )?;
    match driver() {
        None => say!(session, "cuda   not built into this program: `cargo build --release --features cuda`"),
        Some("none") => say!(
            session,
            "cuda   no driver (libcuda.so.1) on this machine; RUNTIME_CUDA=soft lets the software device answer"
        ),
        Some(who) => {
            say!(session, "cuda   answered by {who}")?;
            cuda_devices().iter().try_for_each(|d| say!(session, "       {d}"))
        }
    }
}

/// Who answers the CUDA driver's functions; None without the feature.
fn driver() -> Option<&'static str> {
    #[cfg(feature = "cuda")]
    {
        use crate::device::shim::{Answers, answers};
        let asked = std::env::var("RUNTIME_CUDA").is_ok_and(|v| v == "soft");
        Some(match answers() {
            Answers::Hardware => "the machine's driver",
            Answers::Software if asked => "the software device",
            Answers::Software | Answers::Nobody => "none",
        })
    }
    #[cfg(not(feature = "cuda"))]
    None
}

/// CUDA devices that can be opened, with what they call themselves.
fn cuda_devices() -> Vec<String> {
    if matches!(driver(), None | Some("none")) {
        return Vec::new();
    }
    let open = |i: usize| Device::open(&format!("cuda:{i}")).ok();
    (0..)
        .map_while(open)
        .filter_map(|d| Some(format!("{}  {}", d.name(), d.driver()?.description())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_files_are_read_as_they_are_written() {
        assert_eq!(model("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t: x\n"), "AMD EPYC");
        assert!(model("").starts_with("unnamed"));
        assert_eq!(kibibytes("MemTotal:       2048 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(2 << 20));
        assert_eq!(kibibytes("", "MemTotal:"), None);
    }
}
