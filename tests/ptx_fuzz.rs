//! Hostile PTX: programs of the corpus and our own, damaged so that most still load, launched with arguments that may be
//! anything. Whatever they do is a result or a fault, never a panic, and each ends.
//!
//! A second's worth by default; `RINGTAPE_FUZZ_SECONDS=60 cargo test --release --test ptx_fuzz` goes on, from a place that
//! the seed in RINGTAPE_FUZZ_SEED says (0 by default), and a failure names the case to repeat.

use ringtape::ptx::checks::{Checker, Record};
use ringtape::ptx::program::{Function, Program};
use ringtape::ptx::run::{Launch, Loaded, Memory, Options, Watch, launch};
use ringtape::rng::{Key, Rng};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Cases of the default run.
const CASES: u64 = 300;

fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        "tests/ptx/cuda",
        "tests/ptx/triton",
        "tests/ptx/faults",
        "tests/ptx/syntax",
        "tests/ptx/forms",
        "ptx",
    ];
    let mut all: Vec<PathBuf> = folders
        .iter()
        .flat_map(|f| std::fs::read_dir(root.join(f)).unwrap())
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "ptx"))
        .collect();
    all.sort();
    let read = |p: PathBuf| Some((std::fs::read_to_string(&p).ok()?, p)).map(|(text, p)| (p, text));
    all.into_iter().filter_map(read).filter(|(_, t)| t.len() < 30_000 && !t.contains("{{")).collect()
}

fn pick<'a, T: ?Sized>(rng: &mut Rng, all: &[&'a T]) -> &'a T {
    all[rng.below(all.len() as u64) as usize]
}

/// One small change to a program: lines moved, dropped or doubled; a type, register or number exchanged.
fn damage(text: &str, rng: &mut Rng) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let body: Vec<usize> = (0..lines.len()).filter(|&i| lines[i].trim_end().ends_with(';')).collect();
    if body.is_empty() {
        return text.to_owned();
    }
    let any = |rng: &mut Rng| body[rng.below(body.len() as u64) as usize];
    let (at, other) = (any(rng), any(rng));
    match rng.below(6) {
        0 => lines.swap(at, other),
        1 => lines[at].clear(),
        2 => lines.insert(other, lines[at].clone()),
        3 => {
            let types = [
                ".u32", ".s32", ".f32", ".b32", ".u64", ".s64", ".f64", ".b64", ".u16", ".f16", ".u8",
                ".pred",
            ];
            let (from, to) = (pick(rng, &types), pick(rng, &types));
            lines[at] = lines[at].replacen(from, to, 1);
        }
        4 => {
            let words = |l: &str| {
                l.split(|c: char| !(c.is_alphanumeric() || "%_$".contains(c)))
                    .filter(|w| w.starts_with('%'))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            let (mine, theirs) = (words(&lines[at]), words(&lines[other]));
            if let (Some(a), Some(b)) = (mine.first(), theirs.last()) {
                lines[at] = lines[at].replacen(a.as_str(), b, 1);
            }
        }
        _ => {
            let numbers = [
                "0",
                "1",
                "-1",
                "31",
                "32",
                "33",
                "4096",
                "2147483647",
                "-2147483648",
                "4294967295",
                "0x7ff8000000000000",
            ];
            let number = |w: &&str| w.starts_with(|c: char| c.is_ascii_digit()) && w.len() < 8;
            let found = lines[at].split(|c: char| !c.is_alphanumeric()).find(number).map(str::to_owned);
            if let Some(old) = found {
                lines[at] = lines[at].replacen(&old, pick(rng, &numbers), 1);
            }
        }
    }
    lines.join("\n")
}

/// Parameters that may be anything: addresses of a buffer, near it, of nothing; numbers small, large, negative.
fn parameters(entry: &Function, buffer: u64, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![0; entry.param_bytes as usize];
    for p in &entry.params {
        let value = match (p.bytes, rng.below(8)) {
            (8, 0) => 0,
            (8, 1) => rng.u64(),
            (8, 2) => buffer + rng.below(5000),
            (8, _) => buffer + 256 * rng.below(8),
            (_, 0) => u64::from(u32::MAX),
            (_, 1) => rng.u64(),
            _ => rng.below(70),
        };
        let at = p.offset as usize;
        for (i, b) in bytes[at..at + p.bytes as usize].iter_mut().enumerate() {
            *b = value.to_le_bytes()[i % 8];
        }
    }
    bytes
}

/// Launches every entry; the number that ran to their end.
fn run(program: &Program, rng: &mut Rng) -> u64 {
    let memory = Memory::new(0, 1 << 24).unwrap();
    let buffer = memory.alloc(4096).unwrap();
    memory.fill(buffer, rng.u32() & 63, 4, 1024);
    let Ok(loaded) = Loaded::new(program, &memory) else { return 0 };
    let mut done = 0;
    for (index, entry) in program.functions.iter().enumerate().filter(|(_, f)| f.entry).take(4) {
        let params = parameters(entry, buffer, rng);
        let block = entry.required_block.map_or([1 + rng.below(70) as u32, 1, 1], |b| b.map(|n| n.max(1)));
        let printed = Mutex::default();
        let options = Options { most_steps: 3000, worst: rng.below(2) == 1 };
        let to_run = Launch {
            program,
            entry,
            entry_index: index as u32,
            grid: [1 + rng.below(3) as u32, 1, 1],
            block,
            dynamic_shared: (rng.below(4) * 1024) as u32,
            params: &params,
            variables: &loaded.variables,
            memory: &[&memory],
            printed: &printed,
            options,
        };
        if to_run.validate().is_err() {
            continue;
        }
        let checked = rng.below(2) == 1;
        let record = Arc::new(Mutex::new(Record::default()));
        let mut watch = checked.then(|| Box::new(Checker::new(record)) as Box<dyn Watch>);
        done += u64::from(launch(&to_run, &mut watch).is_ok());
    }
    done
}

#[test]
fn hostile_programs_end_in_a_result_or_a_fault() {
    let var = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let (until, seed) =
        (var("RINGTAPE_FUZZ_SECONDS").map(Duration::from_secs), var("RINGTAPE_FUZZ_SEED").unwrap_or(0));
    let files = files();
    assert!(files.len() > 100, "{} files", files.len());
    let (start, mut loaded, mut done, mut case) = (Instant::now(), 0, 0, 0);
    while until.map_or(case < CASES, |u| start.elapsed() < u) {
        let mut rng = Key::new(seed, case).rng();
        let (path, text) = &files[rng.below(files.len() as u64) as usize];
        let mut text = text.clone();
        for _ in 0..1 + rng.below(3) {
            text = damage(&text, &mut rng);
        }
        let name = path.display();
        let result = std::panic::catch_unwind(|| {
            let program = ringtape::ptx::load("hostile.ptx", &text).ok()?;
            Some(run(&program, &mut rng.clone()))
        });
        let outcome = result.unwrap_or_else(|_| panic!("case {case} of seed {seed} ({name}) panicked"));
        loaded += u64::from(outcome.is_some());
        done += outcome.unwrap_or(0);
        case += 1;
    }
    println!("{case} programs, {loaded} loaded, {done} launches ran to their end");
    assert!(loaded * 4 > case && done > 0, "{case} programs, {loaded} loaded, {done} ran");
}
