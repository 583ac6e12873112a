//! Figures of the chapter on PTX: counts of the software CUDA device, the same on every machine.

use super::Figures;
use crate::check::ptx::{Arg, Exam, Manifest, Outcome, Programs, read, run};
use crate::cli::ptx::profile::code;
use crate::error::{Error, Result};
use crate::ptx::profile::Profile;
use crate::train::plot::{Chart, Line};
use std::fmt::Write;
use std::path::Path;

/// Rows, columns and depth of the ladder's products.
const SIZE: u32 = 128;

/// A rung of the ladder: name, file, entry, rows and columns of c a block, threads of a block along x and y.
type Rung = (&'static str, &'static str, &'static str, [u32; 2], [u32; 2]);

const RUNGS: [Rung; 7] = [
    ("naive", "matmul_ladder", "matmul_naive", [16, 16], [16, 16]),
    ("tiled", "matmul_ladder", "matmul_tiled", [16, 16], [16, 16]),
    ("registers", "matmul_ladder", "matmul_registers", [64, 64], [256, 1]),
    ("vectors", "matmul_ladder", "matmul_vectors", [64, 64], [256, 1]),
    ("asynchronous", "matmul_async", "matmul_async", [64, 64], [256, 1]),
    ("tensor cores, tf32", "matmul_tensor", "matmul_tf32", [128, 128], [128, 1]),
    ("tensor cores, bf16", "matmul_tensor", "matmul_bf16", [128, 128], [128, 1]),
];

/// All of them; `book` is the folder of the book, beside that of the kernels.
pub(super) fn figures(book: &Path) -> Result<Figures> {
    let mut all = Figures::new();
    all.insert("ptx_lanes.txt".into(), lanes(book)?);
    all.insert("ptx_sectors.svg".into(), strides(book, "strided")?);
    all.insert("ptx_banks.svg".into(), strides(book, "banks")?);
    all.insert("ptx_race.txt".into(), race(book)?);
    all.insert("ptx_ladder.md".into(), ladder(book)?);
    Ok(all)
}

/// Which lanes run which instruction.
fn lanes(book: &Path) -> Result<String> {
    let folder = book.join("kernels");
    let manifest = &read(&folder.join("warp.json"))?[0];
    let exam = Exam { lanes: true, ..Exam::default() };
    let o = passed(run(&mut Programs::default(), &folder, manifest, exam)?)?;
    let mut text = String::new();
    for step in &o.lanes {
        let _ = writeln!(text, "{:>4}  {}  {}", step.line, step.lanes, code(&step.text));
    }
    Ok(text)
}

/// What the checks say of the kernel with a race.
fn race(book: &Path) -> Result<String> {
    let folder = book.join("../tests/ptx/faults");
    let manifest = &read(&folder.join("race_shared.json"))?[0];
    let exam = Exam { check: true, ..Exam::default() };
    let o = run(&mut Programs::default(), &folder, manifest, exam)?;
    let mut text = String::new();
    for fault in &o.faults {
        let (line, kind, source) = (fault.line, fault.kind, code(&fault.text));
        let what = fault.what.replace(", where", ",\n    where").replace("; nothing", ";\n    nothing");
        let [x, ..] = fault.thread;
        let _ = writeln!(text, "race_shared.ptx:{line}: {kind}: {what}, thread ({x}, 0, 0)\n  | {source}");
    }
    Ok(text)
}

fn counted(folder: &Path, ptx: &str, kernel: &str, launch: [[u32; 2]; 2], args: Vec<Arg>) -> Result<Profile> {
    let [grid, block] = launch.map(|[x, y]| [x, y, 1]);
    let (ptx, kernel) = (ptx.into(), kernel.into());
    let manifest = Manifest { ptx, kernel, grid, block, shared_bytes: 0, args, printed: None, finds: None };
    let exam = Exam { profile: true, ..Exam::default() };
    let o = passed(run(&mut Programs::default(), folder, &manifest, exam)?)?;
    Ok(o.profile.map(|spent| spent.counted).unwrap_or_default())
}

/// Figures show kernels that work.
fn passed(o: Outcome) -> Result<Outcome> {
    match (o.faults.first(), o.differences.first()) {
        (Some(fault), _) => Err(Error::Fault(fault.to_string())),
        (_, Some(difference)) => Err(Error::Fault(format!("{}: {difference}", o.kernel))),
        _ => Ok(o),
    }
}

fn alloc(bytes: u64) -> Arg {
    Arg { alloc: Some(bytes), ..Arg::default() }
}

fn number(n: u32) -> Arg {
    Arg { u32: Some(n), ..Arg::default() }
}

/// What 32 loads cost by their stride.
fn strides(book: &Path, kernel: &str) -> Result<String> {
    let mut points = Vec::new();
    for stride in 1..=33 {
        let mut args = vec![alloc(128), number(stride)];
        if kernel == "strided" {
            args.insert(0, alloc(8192));
        }
        let p = counted(book, "kernels/memory.ptx", kernel, [[1, 1], [32, 1]], args)?;
        let cost = if kernel == "strided" { p.global_loads.sectors } else { p.shared_loads.passes };
        points.push((f64::from(stride), cost as f64));
    }
    let y = if kernel == "strided" { "sectors of 32 bytes a load" } else { "passes over the banks a load" };
    let line = Line { name: "a warp reads 32 words".into(), class: "a", points };
    let chart = Chart { x: "stride in words of 4 bytes", y: y.into(), lines: vec![line], levels: Vec::new() };
    Ok(format!("<figure class=\"chart\">{}</figure>\n", chart.svg()))
}

/// The ladder as a table.
fn ladder(book: &Path) -> Result<String> {
    let mut text = String::from(
        "| rung | instructions of warps | operations an instruction | asked of global memory | sectors a request | passes over shared memory | of these conflicts | barriers a block |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (name, file, entry, tile, block) in RUNGS {
        let bytes = u64::from(4 * SIZE * SIZE);
        let mut args = vec![alloc(bytes), alloc(bytes), alloc(bytes)];
        args.extend([SIZE; 3].map(number));
        let grid = [SIZE.div_ceil(tile[1]), SIZE.div_ceil(tile[0])];
        let p = counted(book, &format!("../ptx/{file}.ptx"), entry, [grid, block], args)?;
        let (loads, shared) = (p.global_loads, p.shared());
        let _ = writeln!(
            text,
            "| {name} | {} | {:.1} | {:.1} MB | {:.1} | {} | {} | {} |",
            p.warp_instructions,
            p.all_flops() as f64 / p.warp_instructions as f64,
            loads.bytes as f64 / 1e6,
            loads.sectors as f64 / loads.requests.max(1) as f64,
            shared.passes,
            shared.conflicts(),
            p.barriers / p.blocks.max(1),
        );
    }
    Ok(text)
}
