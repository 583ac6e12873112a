//! Tree to program: registers become slots, labels places in the code, names addresses, and each instruction the function
//! that runs it.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | variables of module scope, and the functions one after the other |
//! | `body.rs` | a function: its scopes, slots, constants and labels |
//! | `names.rs` | what an instruction may name: labels, functions, variables, special registers |
//! | `inst.rs` | one instruction, whose suffixes and operands `super::inst` takes from it |

mod body;
mod inst;
mod names;

pub(super) use inst::{Address, Inst, Slots};

use super::ast::{self, Init, Literal, Operand, Statement, Tree, Variable};
use super::program::{Global, Program};
use super::text::{Lines, Read, wrong};
use super::types::Space;
use std::collections::{BTreeSet, HashMap};

/// What functions see of the module.
pub(super) struct Module<'a> {
    /// `.global` and `.const` variables: their index.
    pub globals: HashMap<&'a str, u32>,
    /// Functions: their index.
    pub functions: HashMap<&'a str, u32>,
    /// `.shared` variables of module scope.
    pub shared: Vec<&'a Variable<'a>>,
    /// Those that functions other than entries name: they lie at the same place in each launch.
    pub common: HashMap<&'a str, u32>,
    /// Bytes of the common ones.
    pub common_bytes: u32,
    /// The tree's functions.
    pub tree: &'a Tree<'a>,
}

/// Lowers `tree`, whose text is `text`.
pub(super) fn lower(name: &str, text: &str, tree: &Tree<'_>) -> Read<Program> {
    let is_global = |v: &&Variable<'_>| matches!(v.space, Space::Global | Space::Const);
    let globals: Vec<&Variable<'_>> = tree.variables.iter().filter(is_global).collect();
    let mut module = Module {
        globals: globals.iter().enumerate().map(|(i, v)| (v.name, i as u32)).collect(),
        functions: HashMap::new(),
        shared: tree.variables.iter().filter(|v| v.space == Space::Shared).collect(),
        common: HashMap::new(),
        common_bytes: 0,
        tree,
    };
    // A declaration and its definition are one function: the one with a body.
    for (i, f) in tree.functions.iter().enumerate() {
        if f.body.is_some() || !module.functions.contains_key(f.name) {
            module.functions.insert(f.name, i as u32);
        }
    }
    let plain = tree.functions.iter().filter(|f| !f.entry);
    let named: BTreeSet<&str> = plain.flat_map(|f| f.body.iter()).flat_map(|b| mentioned(b)).collect();
    for v in module.shared.iter().filter(|v| named.contains(v.name) && !open(v)) {
        let at = module.common_bytes.next_multiple_of(v.align.max(1));
        module.common.insert(v.name, at);
        module.common_bytes = at + v.bytes() as u32;
    }
    let mut program = Program {
        name: name.into(),
        text: text.into(),
        lines: Lines::of(text),
        code: Vec::new(),
        lists: Vec::new(),
        functions: Vec::new(),
        variables: Vec::new(),
    };
    for v in globals {
        program.variables.push(variable(&module, v)?);
    }
    for f in &tree.functions {
        let lowered = body::function(&module, &mut program.code, &mut program.lists, f)?;
        program.functions.push(lowered);
    }
    // An entry may call any function.
    let ordered = program.functions.iter().any(|f| !f.entry && f.ordered);
    program.functions.iter_mut().for_each(|f| f.ordered |= ordered);
    Ok(program)
}

/// An `.extern .shared` array, whose size the launch gives.
pub(super) fn open(v: &Variable<'_>) -> bool {
    v.external || v.extents.first() == Some(&0)
}

/// Every name in the operands of `body`.
pub(super) fn mentioned<'a>(body: &[Statement<'a>]) -> BTreeSet<&'a str> {
    fn operand<'a>(o: &Operand<'a>, to: &mut BTreeSet<&'a str>) {
        match o {
            Operand::Name(n, _)
            | Operand::Offset(n, ..)
            | Operand::Element(n, ..)
            | Operand::Address(Some(n), ..) => {
                to.insert(n);
            }
            Operand::Vector(all, _) | Operand::List(all, _) => all.iter().for_each(|o| operand(o, to)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    for s in body {
        match s {
            Statement::Instruction(i) => i.operands.iter().for_each(|o| operand(o, &mut found)),
            Statement::Block(inner) => found.extend(mentioned(inner)),
            Statement::Variable(v) => v.init.iter().for_each(|i| {
                if let Init::Address(n, ..) = i {
                    found.insert(n);
                }
            }),
            _ => {}
        }
    }
    found
}

/// A variable in device memory, with its first bytes.
fn variable(module: &Module<'_>, v: &Variable<'_>) -> Read<Global> {
    let size = v.ty.bytes() as usize;
    let mut init = Vec::new();
    let mut relocations = Vec::new();
    for value in &v.init {
        match value {
            Init::Value(l) => {
                let bits = bits(*l, v.ty, v.at)?;
                init.extend((0..size).map(|i| if i < 8 { (bits >> (8 * i)) as u8 } else { 0 }));
            }
            Init::Address(n, plus, at) => {
                let address = match (module.globals.get(n), module.functions.get(n)) {
                    (Some(&of), _) => {
                        relocations.push((init.len() as u64, of, *plus));
                        0
                    }
                    (None, Some(&f)) => super::run::spaces::FUNCTIONS + u64::from(f) * 16,
                    _ => {
                        return wrong(
                            *at,
                            format!("the address of `{n}` is not supported as an initial value"),
                        );
                    }
                };
                init.extend((0..size).map(|i| if i < 8 { (address >> (8 * i)) as u8 } else { 0 }));
            }
            Init::Text(t) => init.extend(t.bytes()),
        }
    }
    Ok(Global {
        name: v.name.into(),
        space: v.space,
        bytes: v.bytes().max(init.len() as u64),
        align: v.align,
        initialised: !v.init.is_empty(),
        init,
        relocations,
    })
}

/// The bits of a literal as a value of type `ty`.
pub(super) fn bits(l: Literal, ty: super::types::Type, at: u32) -> Read<u64> {
    use super::types::{Class, Type};
    let ones = if ty.bytes() >= 8 { u64::MAX } else { (1 << (8 * ty.bytes())) - 1 };
    Ok(match (l, ty) {
        (Literal::Int(_), t)
            if t.class() == Class::Float && t.bytes() > 2 && t != Type::F16x2 && t != Type::Bf16x2 =>
        {
            return wrong(
                at,
                format!("an integer where a value of type {ty} is wanted: write it as 0f…, 0d… or 1.0"),
            );
        }
        (Literal::Int(v), _) => v & ones,
        (Literal::F32(v), Type::F64) => f64::from(f32::from_bits(v)).to_bits(),
        (Literal::F32(v), _) => u64::from(v) & ones,
        (Literal::F64(v), Type::F32 | Type::B32 | Type::Tf32) => u64::from((v as f32).to_bits()),
        (Literal::F64(v), Type::F64 | Type::B64) => v.to_bits(),
        (Literal::F64(_), _) => return wrong(at, format!("a fraction where a value of type {ty} is wanted")),
    })
}

/// Where a function declares its parameters.
pub(super) fn layout(params: &[ast::Variable<'_>], mut at: u32) -> (Vec<super::program::Param>, u32) {
    let mut all = Vec::new();
    for p in params {
        at = at.next_multiple_of(p.align.max(p.ty.bytes()).max(1));
        let bytes = p.bytes() as u32;
        all.push(super::program::Param { name: p.name.into(), offset: at, bytes });
        at += bytes;
    }
    (all, at)
}
