//! What a kernel costs, read from its text, without a run: instructions by class, registers, loops, occupancy.

mod live;

pub use live::registers;

use super::ast::{Function, Instruction, Operand, Statement, Tree};
use super::profile::arithmetic::Work;
use super::profile::gpus::{GPUS, Occupancy};
use super::program::Program;
use std::collections::{BTreeMap, HashMap};

/// Threads of a block, where a kernel does not say.
const THREADS: u32 = 256;

/// What an entry costs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Cost {
    /// Entry.
    pub entry: String,
    /// Instructions of the text by class.
    pub instructions: BTreeMap<&'static str, u64>,
    /// Estimate of the registers of a thread, see [`registers`].
    pub registers: u32,
    /// Bytes of static shared memory.
    pub shared_bytes: u32,
    /// Bytes of local memory of a thread, parameters of calls included.
    pub local_bytes: u32,
    /// Threads of a block: `.reqntid`, else `.maxntid`, else 256.
    pub threads: u32,
    /// Blocks and warps that fit a multiprocessor of each GPU.
    pub occupancy: Vec<(&'static str, Occupancy)>,
    /// Its loops, in the order of the text; a loop inside another is counted in both.
    pub loops: Vec<Loop>,
}

/// A loop: from a label to a branch back to it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Loop {
    /// Line of the label, from 1.
    pub from: u32,
    /// Line of the branch.
    pub to: u32,
    /// Instructions of its text.
    pub instructions: u32,
    /// Floating-point operations a thread and turn by type; of a matrix product a 32nd.
    pub flops: BTreeMap<&'static str, u64>,
    /// Bytes that a thread loads and stores in global memory a turn.
    pub global_bytes: u64,
    /// Bytes that a thread loads and stores in shared memory a turn.
    pub shared_bytes: u64,
    /// Barriers a turn.
    pub barriers: u32,
}

/// What the entries of a module cost.
pub fn costs(program: &Program, tree: &Tree<'_>) -> Vec<Cost> {
    let entries = program.functions.iter().filter(|f| f.entry);
    let of = |f: &super::program::Function| {
        let written = tree.functions.iter().find(|w| w.entry && w.name == f.name)?;
        let mut instructions = BTreeMap::new();
        // The last instruction is the exit that ends a text without `ret`.
        let code = &program.code[f.start as usize..f.end as usize];
        let mut last = None;
        for op in code.iter().filter(|op| last.replace(op.at) != Some(op.at)) {
            *instructions.entry(op.class.name()).or_default() += 1;
        }
        let volume = |b: [u32; 3]| b.iter().map(|n| (*n).max(1)).product();
        let threads = f.required_block.or(f.most_threads).map_or(THREADS, volume);
        let registers = registers(tree, written);
        let occupancy =
            GPUS.iter().map(|g| (g.name, g.occupancy(threads, registers, f.shared_bytes))).collect();
        Some(Cost {
            entry: f.name.clone(),
            instructions,
            registers,
            shared_bytes: f.shared_bytes,
            local_bytes: f.local_bytes,
            threads,
            occupancy,
            loops: loops(program, written),
        })
    };
    entries.filter_map(of).collect()
}

/// The instructions of a body in order, and the labels: before which instruction they stand.
fn flat<'a>(
    body: &'a [Statement<'a>],
    all: &mut Vec<&'a Instruction<'a>>,
    labels: &mut HashMap<&'a str, (usize, u32)>,
) {
    for statement in body {
        match statement {
            Statement::Label(name, at) => {
                labels.insert(name, (all.len(), *at));
            }
            Statement::Instruction(i) => all.push(i),
            Statement::Block(inner) => flat(inner, all, labels),
            _ => {}
        }
    }
}

fn loops(program: &Program, function: &Function<'_>) -> Vec<Loop> {
    let (mut all, mut labels) = (Vec::new(), HashMap::new());
    flat(function.body.as_deref().unwrap_or_default(), &mut all, &mut labels);
    let mut found: BTreeMap<u32, Loop> = BTreeMap::new();
    for (k, i) in all.iter().enumerate() {
        let ("bra", Some(Operand::Name(name, _))) = (i.opcode, i.operands.first()) else { continue };
        let Some(&(start, at)) = labels.get(name).filter(|(start, _)| *start <= k) else { continue };
        let (from, to) = (program.line(at).0, program.line(i.at).0);
        // Of several branches to one label the last one closes the loop.
        found.insert(from, one_loop(&all[start..=k], from, to));
    }
    found.into_values().collect()
}

fn one_loop(body: &[&Instruction<'_>], from: u32, to: u32) -> Loop {
    let mut l = Loop {
        from,
        to,
        instructions: body.len() as u32,
        flops: BTreeMap::new(),
        global_bytes: 0,
        shared_bytes: 0,
        barriers: 0,
    };
    for i in body {
        let work = Work::of(&format!("{}.{}", i.opcode, i.suffixes.join(".")));
        if let Some((kind, n)) = work.flops {
            *l.flops.entry(kind).or_default() += if work.whole_warp { n / 32 } else { n };
        }
        match i.opcode {
            "ld" | "st" | "ldu" | "atom" | "red" => {
                let bytes = moved(&i.suffixes);
                l.global_bytes += if i.suffixes.contains(&"global") { bytes } else { 0 };
                l.shared_bytes += if i.suffixes.iter().any(|s| s.starts_with("shared")) { bytes } else { 0 };
            }
            "cp" if i.suffixes.contains(&"shared") => {
                let Some(Operand::Value(super::ast::Literal::Int(n), _)) = i.operands.get(2) else {
                    continue;
                };
                l.global_bytes += n;
                l.shared_bytes += n;
            }
            // Eight rows of 16 bytes a matrix, for the warp.
            "ldmatrix" | "stmatrix" => {
                let n = if i.suffixes.contains(&"x4") {
                    4
                } else if i.suffixes.contains(&"x2") {
                    2
                } else {
                    1
                };
                l.shared_bytes += 4 * n;
            }
            "bar" | "barrier" => l.barriers += 1,
            _ => {}
        }
    }
    l
}

/// Bytes of one thread's access: those of its type, times the length of a vector.
fn moved(suffixes: &[&str]) -> u64 {
    let lanes = suffixes.iter().find_map(|s| s.strip_prefix('v')?.parse::<u64>().ok()).unwrap_or(1);
    let bits = suffixes
        .iter()
        .rev()
        .find_map(|s| s.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().ok());
    lanes * bits.unwrap_or(0) / 8
}
