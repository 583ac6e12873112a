//! How many registers a thread needs at once: values that are alive together.
//!
//! PTX has as many registers as one likes; `ptxas` gives values the registers of a chip. What it needs at the least is
//! the largest number of values that are alive at one place (Aho, Lam, Sethi, Ullman: "Compilers", section 9.2.5).
//! Parameters and numbers take none: instructions read them from constant memory. It may need fewer, since it computes
//! values again, and more, since it moves loads up.

use crate::ptx::ast::{Function, Instruction, Operand, Statement, Tree};
use std::collections::HashMap;

/// Registers that `ptxas` keeps beside the values of the program, and the fewest that it gives.
const BESIDE: u32 = 6;
const FEWEST: u32 = 10;
/// Most calls inside calls that are followed.
const DEPTH: u32 = 8;

/// An estimate of the 32-bit registers of a thread of `function`.
pub fn registers(tree: &Tree<'_>, function: &Function<'_>) -> u32 {
    (alive(tree, function, 0) + BESIDE).max(FEWEST)
}

/// One instruction, as liveness sees it.
struct Step<'a> {
    defines: Vec<u32>,
    uses: Vec<u32>,
    /// A definition under a guard leaves the old value in some lanes.
    keeps: bool,
    target: Vec<&'a str>,
    falls: bool,
    /// A `.func` that is called.
    calls: Option<&'a str>,
}

#[derive(Default)]
struct Reader<'a> {
    scopes: Vec<HashMap<&'a str, Declared>>,
    weights: Vec<u32>,
    steps: Vec<Step<'a>>,
    labels: HashMap<&'a str, usize>,
    lists: HashMap<&'a str, Vec<&'a str>>,
    /// Registers that hold a parameter or a number, and those that are ever given something else.
    fixed: Vec<u32>,
    computed: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Declared {
    first: u32,
    family: Option<u32>,
}

/// The most 32-bit values that are alive at once.
fn alive(tree: &Tree<'_>, function: &Function<'_>, depth: u32) -> u32 {
    let Some(body) = &function.body else { return 0 };
    let mut reader = Reader { scopes: vec![HashMap::new()], ..Reader::default() };
    reader.read(body);
    let mut computed = Bits::new(reader.weights.len());
    reader.computed.iter().for_each(|r| computed.insert(*r));
    for r in reader.fixed.iter().filter(|r| !computed.has(**r)) {
        reader.weights[*r as usize] = 0;
    }
    let after = reader.after();
    let mut most = 0;
    for (step, live) in reader.steps.iter().zip(&after) {
        let weigh = |r: u32| reader.weights[r as usize];
        let mut sum: u32 = live.iter().map(weigh).sum();
        sum += step.defines.iter().filter(|r| !live.has(**r)).map(|r| weigh(*r)).sum::<u32>();
        let callee = step.calls.filter(|_| depth < DEPTH);
        let callee = callee.and_then(|name| tree.functions.iter().find(|f| f.name == name && !f.entry));
        sum += callee.map_or(0, |f| alive(tree, f, depth + 1));
        most = most.max(sum);
    }
    most
}

impl<'a> Reader<'a> {
    fn read(&mut self, body: &'a [Statement<'a>]) {
        for statement in body {
            match statement {
                Statement::Label(name, _) => {
                    self.labels.insert(name, self.steps.len());
                }
                Statement::Variable(v) if v.space == crate::ptx::types::Space::Reg => {
                    let weight = match v.ty.bytes() {
                        _ if v.ty == crate::ptx::types::Type::Pred => 0,
                        bytes => bytes.div_ceil(4) * v.lanes,
                    };
                    let first = self.weights.len() as u32;
                    let n = v.family.unwrap_or(1) as usize;
                    self.weights.resize(first as usize + n, weight);
                    let scope = self.scopes.last_mut().expect("the body's scope is never closed");
                    scope.insert(v.name, Declared { first, family: v.family });
                }
                Statement::Block(inner) => {
                    self.scopes.push(HashMap::new());
                    self.read(inner);
                    self.scopes.pop();
                }
                Statement::Targets(name, labels) => {
                    self.lists.insert(name, labels.clone());
                }
                Statement::Instruction(i) => self.instruction(i),
                _ => {}
            }
        }
    }

    /// The register that a name means.
    fn register(&self, name: &str) -> Option<u32> {
        let (stem, digits) = name.split_at(name.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        let number = digits.parse::<u32>().ok();
        self.scopes.iter().rev().find_map(|scope| {
            if let Some(d) = scope.get(name)
                && d.family.is_none()
            {
                return Some(d.first);
            }
            let d = scope.get(stem)?;
            number.filter(|n| d.family.is_some_and(|f| *n < f)).map(|n| d.first + n)
        })
    }

    /// Registers of an operand.
    fn registers(&self, o: &Operand<'_>, into: &mut Vec<u32>) {
        match o {
            Operand::Name(n, _) | Operand::Part(n, _, _) | Operand::Not(n, _) | Operand::Offset(n, _, _) => {
                into.extend(self.register(n));
            }
            Operand::Pair(p, q, _) => into.extend(self.register(p).into_iter().chain(self.register(q))),
            Operand::Address(Some(n), _, _) => into.extend(self.register(n)),
            Operand::Vector(all, _) | Operand::List(all, _) => {
                all.iter().for_each(|o| self.registers(o, into));
            }
            _ => {}
        }
    }

    fn instruction(&mut self, i: &'a Instruction<'a>) {
        let (mut defines, mut uses, mut target) = (Vec::new(), Vec::new(), Vec::new());
        let mut calls = None;
        let writes = match i.opcode {
            "st" | "red" | "bra" | "brx" | "ret" | "exit" | "trap" | "membar" | "fence" | "cp"
            | "prefetch" | "nanosleep" | "stmatrix" => 0,
            "bar" | "barrier" => usize::from(i.suffixes.contains(&"red")),
            "wmma" => usize::from(!i.suffixes.contains(&"store")),
            "call" => usize::from(matches!(i.operands.first(), Some(Operand::List(..)))),
            _ => 1,
        };
        for (k, o) in i.operands.iter().enumerate() {
            let to = if k < writes && !matches!(o, Operand::Address(..)) { &mut defines } else { &mut uses };
            self.registers(o, to);
        }
        match (i.opcode, i.operands.first(), i.operands.get(1)) {
            ("bra", Some(Operand::Name(n, _)), _) => target.push(*n),
            ("brx", _, Some(Operand::Name(n, _))) => target.extend(self.lists.get(n).into_iter().flatten()),
            ("call", ..) => {
                calls =
                    i.operands.iter().find_map(|o| if let Operand::Name(n, _) = o { Some(*n) } else { None });
            }
            _ => {}
        }
        uses.extend(i.guard.and_then(|(p, _)| self.register(p)));
        let fixed = match i.opcode {
            "ld" | "ldu" => i.suffixes.contains(&"param"),
            "mov" => match i.operands.get(1) {
                Some(Operand::Value(..)) => true,
                Some(Operand::Part(name, ..)) => matches!(*name, "%ntid" | "%nctaid"),
                _ => false,
            },
            "cvta" => uses.iter().all(|r| self.fixed.contains(r)),
            _ => false,
        };
        if fixed { &mut self.fixed } else { &mut self.computed }.extend(&defines);
        let ends = matches!(i.opcode, "bra" | "brx" | "ret" | "exit" | "trap");
        let falls = !ends || i.guard.is_some();
        self.steps.push(Step { defines, uses, keeps: i.guard.is_some(), target, falls, calls });
    }

    /// Registers that are alive after each instruction: those that some way from there reads before it writes them.
    fn after(&self) -> Vec<Bits> {
        let n = self.steps.len();
        let mut before = vec![Bits::new(self.weights.len()); n + 1];
        let mut after = vec![Bits::new(self.weights.len()); n];
        let next: Vec<Vec<usize>> = self.steps.iter().enumerate().map(|(k, s)| self.next(k, s)).collect();
        loop {
            let mut changed = false;
            for k in (0..n).rev() {
                let step = &self.steps[k];
                for &to in &next[k] {
                    changed |= after[k].join(&before[to]);
                }
                let mut live = after[k].clone();
                if !step.keeps {
                    step.defines.iter().for_each(|r| live.remove(*r));
                }
                step.uses.iter().for_each(|r| live.insert(*r));
                before[k] = live;
            }
            if !changed {
                return after;
            }
        }
    }

    fn next(&self, k: usize, step: &Step<'_>) -> Vec<usize> {
        let targets = step.target.iter().filter_map(|name| self.labels.get(name).copied());
        targets.chain(step.falls.then_some(k + 1)).collect()
    }
}

/// A set of registers.
#[derive(Clone)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(n: usize) -> Bits {
        Bits(vec![0; n.div_ceil(64)])
    }
    fn insert(&mut self, r: u32) {
        self.0[r as usize / 64] |= 1 << (r % 64);
    }
    fn remove(&mut self, r: u32) {
        self.0[r as usize / 64] &= !(1 << (r % 64));
    }
    fn has(&self, r: u32) -> bool {
        self.0[r as usize / 64] >> (r % 64) & 1 == 1
    }
    /// Adds all of `other`; true when one was new.
    fn join(&mut self, other: &Bits) -> bool {
        let mut new = 0;
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            new |= b & !*a;
            *a |= b;
        }
        new != 0
    }
    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let each = |(k, w): (usize, &u64)| {
            let (k, w) = (k as u32, *w);
            (0..64).filter(move |b| w >> b & 1 == 1).map(move |b| 64 * k + b)
        };
        self.0.iter().enumerate().filter(|(_, w)| **w != 0).flat_map(each)
    }
}
