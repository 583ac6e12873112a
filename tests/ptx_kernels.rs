//! Our own PTX: every kernel has its entry with the parameters that its `kernel!` block names, and ptxas assembles all of
//! it for real chips without a spill.

use ringtape::kernel::{Kernel, Source};
use ringtape::{comm::codec, ops, optim};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Chips that ptxas assembles for: Turing, Ampere, Hopper, Blackwell of servers and of desktops.
const CHIPS: [u32; 5] = [75, 80, 90, 100, 120];
/// The chip whose machine code is counted.
const COUNTED: u32 = 90;

fn kernels() -> Vec<&'static Kernel> {
    let all = ops::ALL.iter().flat_map(|e| e.kernels).chain(optim::ALL.iter().flat_map(|e| e.kernels));
    let mut seen = BTreeSet::new();
    all.chain(codec::KERNELS).copied().filter(|k| seen.insert(k.entry)).collect()
}

/// Every module that kernels name, by a name that tells spliced ones apart.
fn modules() -> BTreeMap<String, String> {
    let name = |s: &Source| {
        let file = s.file.trim_start_matches("ptx/").trim_end_matches(".ptx");
        let spliced = s.splice.iter().find(|(n, _)| matches!(*n, "FORWARD" | "STEP"));
        spliced.map_or(file.into(), |(_, entry)| {
            format!("{file}.{}", entry.trim_end_matches("_forward").trim_end_matches("_step"))
        })
    };
    let mut all: BTreeMap<String, String> =
        kernels().iter().filter_map(|k| k.source).map(|s| (name(s), s.ptx())).collect();
    // Files that no op's entry names: those that the tape and clipping launch.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if path.extension().is_some_and(|e| e == "ptx") && !text.contains("{{") && text.contains(".version") {
            all.insert(path.file_stem().unwrap().to_str().unwrap().into(), text);
        }
    }
    all
}

#[test]
fn every_kernel_has_its_entry_with_its_parameters() {
    let modules: BTreeMap<String, Vec<String>> = modules()
        .iter()
        .flat_map(|(name, text)| ringtape::ptx::load(name, text).unwrap().functions)
        .filter(|f| f.entry)
        .map(|f| {
            assert!(f.required_block.is_some(), "{} says no .reqntid", f.name);
            (f.name, f.params.into_iter().map(|p| p.name).collect())
        })
        .collect();
    for k in kernels() {
        assert!(k.source.is_some(), "{} has no PTX", k.entry);
        let wants = k.params.iter().flat_map(|p| match p.role {
            "val" => vec![p.name.to_string()],
            _ => vec![p.name.to_string(), format!("{}_len", p.name)],
        });
        assert_eq!(modules.get(k.entry), Some(&wants.collect()), "{}", k.entry);
    }
}

fn tool(name: &str) -> PathBuf {
    let bin = std::env::var_os("CUDA_BIN")
        .expect("CUDA_BIN is the folder of ptxas and nvdisasm; `.ci/run ptxas` sets it");
    Path::new(&bin).join(name)
}

/// What ptxas says of each entry: registers, bytes of shared memory.
fn resources(said: &str) -> BTreeMap<String, (u32, u32)> {
    let mut all = BTreeMap::new();
    let mut entry = String::new();
    let number = |text: &str, unit: &str| {
        let before = text.split(unit).next()?;
        before.trim_end().rsplit(' ').next()?.parse().ok()
    };
    for line in said.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            entry = name.split('\'').next().unwrap().into();
        }
        if line.contains("Used ") && line.contains(" registers") {
            let shared = if line.contains("bytes smem") { number(line, " bytes smem").unwrap() } else { 0 };
            all.insert(entry.clone(), (number(line, " registers").unwrap(), shared));
        }
    }
    all
}

/// Instructions of each entry in the output of nvdisasm.
fn instructions(code: &str) -> BTreeMap<String, [u32; 6]> {
    let mut all: BTreeMap<String, [u32; 6]> = BTreeMap::new();
    let mut entry = String::new();
    for line in code.lines() {
        if let Some(name) = line.trim().strip_prefix(".text.").and_then(|l| l.strip_suffix(':')) {
            entry = name.into();
        }
        let Some(text) = line.trim().strip_prefix("/*").and_then(|l| l.split("*/").nth(1)) else { continue };
        let words = text.split_whitespace().find(|w| !w.starts_with('@') && !w.starts_with('{'));
        let op = words.unwrap_or_default().trim_end_matches(';');
        let wide = op.contains(".128");
        let kind = match op.split('.').next().unwrap_or_default() {
            "FFMA" => 0,
            "HMMA" => 1,
            "MUFU" => 2,
            "LDG" if wide => 3,
            "LDS" if wide => 4,
            "BAR" => 5,
            _ => continue,
        };
        all.entry(entry.clone()).or_default()[kind] += 1;
    }
    all
}

/// The table, and what is wrong.
fn assembled() -> (String, Vec<String>) {
    let scratch = tempfile::tempdir().unwrap();
    let (mut table, mut wrong) = (String::from(HEAD), Vec::new());
    for (name, text) in modules() {
        let file = scratch.path().join(format!("{name}.ptx"));
        std::fs::write(&file, &text).unwrap();
        let own: u32 = text.split(".target sm_").nth(1).unwrap()[..2].parse().unwrap();
        let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut shared = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for chip in CHIPS {
            if chip < own {
                continue;
            }
            let cubin = scratch.path().join("out.cubin");
            let mut ptxas = Command::new(tool("ptxas"));
            ptxas.args(["-v", "--warn-on-spills", "--warn-on-local-memory-usage", "-Werror"]);
            let out =
                ptxas.arg(format!("-arch=sm_{chip}")).arg(&file).arg("-o").arg(&cubin).output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            if !out.status.success() {
                wrong.push(format!("{name} for sm_{chip}: {said}"));
                continue;
            }
            for (entry, (registers, bytes)) in resources(&said) {
                rows.entry(entry.clone()).or_default().push(registers.to_string());
                shared.insert(entry, bytes);
            }
            if chip == COUNTED {
                let out = Command::new(tool("nvdisasm")).arg("-c").arg(&cubin).output().unwrap();
                counts = instructions(&String::from_utf8_lossy(&out.stdout));
            }
        }
        for (entry, mut registers) in rows {
            while registers.len() < CHIPS.len() {
                registers.insert(0, "–".into());
            }
            let [ffma, hmma, mufu, ldg, lds, bar] = counts.get(&entry).copied().unwrap_or_default();
            let registers = registers.join(" | ");
            let bytes = shared[&entry];
            writeln!(table, "| {name} | `{entry}` | {registers} | {bytes} | {ffma} | {hmma} | {mufu} | {ldg} | {lds} | {bar} |").unwrap();
        }
    }
    (table, wrong)
}

const HEAD: &str = "\
# What ptxas makes of the kernels

Registers a thread on each chip, bytes of shared memory a block, and instructions in the machine code for sm_90: fused
multiply-adds, tensor-core products, special functions, 128-bit loads from global and from shared memory, barriers. No
kernel spills or uses local memory. `.ci/run ptxas` compares this table; `UPDATE=1 .ci/run ptxas` writes it anew.

| module | entry | sm_75 | sm_80 | sm_90 | sm_100 | sm_120 | shared | FFMA | HMMA | MUFU | LDG.128 | LDS.128 | BAR |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
";

#[test]
#[ignore = "needs ptxas and nvdisasm, which .ci/run ptxas installs"]
fn ptxas_takes_every_kernel_without_a_spill_and_makes_of_it_what_the_table_says() {
    let (table, wrong) = assembled();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx/README.md");
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(path, table).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    for (new, old) in table.lines().zip(stored.lines()) {
        assert_eq!(new, old, "ptx/README.md is not what ptxas makes");
    }
    assert_eq!(table.lines().count(), stored.lines().count());
}
