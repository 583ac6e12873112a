//! A function: its scopes, slots, constants and labels.

use super::super::ast::{self, Statement, Variable};
use super::super::program::{Constant, Function, Value};
use super::super::run::{Op, spaces::SHARED_WORDS};
use super::super::text::{Read, wrong};
use super::super::types::{Space, Type};
use super::{Inst, Module, layout, mentioned, open};
use std::collections::HashMap;

/// Rows that `_` stands for as a destination.
pub(super) const SINK: u32 = 0;
/// Predicate that `_` stands for as a destination.
pub(super) const SINK_PRED: u32 = 0;

/// What a name means.
#[derive(Clone, Debug)]
pub(super) enum Symbol<'a> {
    /// A register: first slot (predicate number for `.pred`), type, elements.
    Register(u32, Type, u32),
    /// `%r<n>`: first slot, type, n.
    Family(u32, Type, u32),
    /// A byte of static shared memory.
    Shared(u32),
    /// The dynamic shared memory.
    Dynamic,
    /// A byte of the frame's local memory; `true` for a parameter.
    Local(u32, bool),
    /// A byte of the entry's parameters, and the bytes of the parameter that begins there.
    Param(u32, u32),
    /// A label.
    Label(u32),
    /// `.branchtargets`.
    Targets(&'a [&'a str]),
    /// `.callprototype`.
    Prototype,
}

/// A function being lowered.
pub(super) struct Body<'a, 'm> {
    pub module: &'m Module<'a>,
    pub code: &'m mut Vec<Op>,
    pub lists: &'m mut Vec<u32>,
    pub entry: bool,
    pub ordered: bool,
    scopes: Vec<HashMap<&'a str, Symbol<'a>>>,
    /// Families of registers `%r<n>`, as `scopes`: one may have the name of a register.
    families: Vec<HashMap<&'a str, Symbol<'a>>>,
    /// Bytes of an element of each variable.
    elements: HashMap<&'a str, u32>,
    rows: u32,
    preds: u32,
    local: u32,
    shared: u32,
    constants: Vec<Constant>,
    known: HashMap<(Value, bool), u32>,
    labels: Vec<u32>,
    /// Bytes of the next load that matter.
    pub used: Option<u32>,
    /// Registers that a `.func` returns: slot, type, and where in its local memory they go.
    results: Vec<(u32, Type, u32)>,
    /// Ops whose `imm` is a label.
    pub jumps: Vec<usize>,
    /// Places in `lists` that hold a label.
    pub listed: Vec<usize>,
}

/// Lowers one function.
pub(super) fn function<'a>(
    module: &Module<'a>,
    code: &mut Vec<Op>,
    lists: &mut Vec<u32>,
    f: &'a ast::Function<'a>,
) -> Read<Function> {
    let start = code.len() as u32;
    let (first, jumps, listed) = (lists.len(), Vec::new(), Vec::new());
    debug_assert!(first <= u32::MAX as usize);
    let mut b = Body {
        module,
        code,
        lists,
        entry: f.entry,
        ordered: false,
        scopes: vec![HashMap::new()],
        families: vec![HashMap::new()],
        elements: HashMap::new(),
        rows: 2,
        // `_`, and the carry of `.cc`.
        preds: 2,
        local: 0,
        shared: module.common_bytes,
        constants: Vec::new(),
        known: HashMap::new(),
        labels: Vec::new(),
        used: None,
        results: Vec::new(),
        jumps,
        listed,
    };
    let (params, returns, param_bytes) = b.parameters(f);
    if let Some(body) = &f.body {
        b.module_shared(body, f.entry);
        b.block(body)?;
        b.leave(f.at);
        let end = Op::exit(f.entry, f.at);
        b.code.push(end);
        b.patch();
    }
    Ok(Function {
        name: f.name.into(),
        entry: f.entry,
        start,
        end: b.code.len() as u32,
        rows: b.rows,
        preds: b.preds,
        constants: b.constants,
        local_bytes: b.local.next_multiple_of(16),
        params,
        param_bytes,
        returns,
        shared_bytes: b.shared,
        required_block: f.required_block,
        most_threads: f.most_threads,
        ordered: b.ordered,
    })
}

type Params = Vec<super::super::program::Param>;

impl<'a> Body<'a, '_> {
    /// Parameters of an entry lie in its parameter bytes, those of other functions in local memory.
    fn parameters(&mut self, f: &'a ast::Function<'a>) -> (Params, Params, u32) {
        let (params, bytes) = layout(&f.params, 0);
        let (returns, all) = layout(&f.returns, if f.entry { 0 } else { bytes.next_multiple_of(16) });
        for (v, p) in f.params.iter().zip(&params).chain(f.returns.iter().zip(&returns)) {
            let symbol = match f.entry {
                true => Symbol::Param(p.offset, p.bytes),
                false => Symbol::Local(p.offset, true),
            };
            self.scopes[0].insert(v.name, symbol);
        }
        if !f.entry {
            self.local = all.next_multiple_of(16);
            for (v, p) in f.params.iter().zip(&params).filter(|(v, _)| v.space == Space::Reg) {
                let slot = self.register_parameter(v);
                self.move_local(true, v.ty, slot, p.offset, v.at);
            }
            for (v, p) in f.returns.iter().zip(&returns).filter(|(v, _)| v.space == Space::Reg) {
                let slot = self.register_parameter(v);
                self.results.push((slot, v.ty, p.offset));
            }
        }
        (params, returns, bytes)
    }

    fn register_parameter(&mut self, v: &'a Variable<'a>) -> u32 {
        let slot = self.temporary(v.ty.bytes() == 8);
        self.scopes[0].insert(v.name, Symbol::Register(slot, v.ty, 1));
        slot
    }

    /// Adds an instruction that moves a register to or from byte `to` of the frame's local memory.
    pub(super) fn move_local(&mut self, load: bool, ty: Type, slot: u32, to: u32, at: u32) {
        let a = self.constant(Value::Local(to.into()), true);
        let (run, s) = super::super::inst::local(load, ty, slot, a);
        let class = super::super::run::Counts::Memory;
        self.code.push(Op { run, y: s.y, a: s.a, b: 0, c: 0, list: 0, imm: s.imm, guard: 0, at, class });
    }

    /// Puts what the function returns in registers where the caller finds it.
    pub(super) fn leave(&mut self, at: u32) {
        for (slot, ty, to) in self.results.clone() {
            self.move_local(false, ty, slot, to, at);
        }
    }

    /// Room in the frame's local memory.
    pub(super) fn take_local(&mut self, bytes: u32) -> u32 {
        let at = self.local.next_multiple_of(8);
        self.local = at + bytes;
        at
    }

    /// Gives shared variables of module scope that this function names their place.
    fn module_shared(&mut self, body: &'a [Statement<'a>], entry: bool) {
        let named = mentioned(body);
        for v in self.module.shared.iter().filter(|v| named.contains(v.name)) {
            let symbol = match self.module.common.get(v.name) {
                _ if open(v) => Symbol::Dynamic,
                Some(&at) => Symbol::Shared(at),
                None => {
                    debug_assert!(entry);
                    self.take_shared(v)
                }
            };
            self.scopes[0].insert(v.name, symbol);
        }
    }

    fn take_shared(&mut self, v: &Variable<'a>) -> Symbol<'a> {
        let at = self.shared.next_multiple_of(v.align.max(v.ty.bytes()).max(1));
        self.shared = at.saturating_add(v.bytes().min(u64::from(u32::MAX / 2)) as u32);
        Symbol::Shared(at)
    }

    fn block(&mut self, body: &'a [Statement<'a>]) -> Read<()> {
        let mut scope = HashMap::new();
        for s in body {
            match s {
                Statement::Label(name, _) => {
                    scope.insert(*name, Symbol::Label(self.labels.len() as u32));
                    self.labels.push(u32::MAX);
                }
                Statement::Targets(name, all) => {
                    scope.insert(*name, Symbol::Targets(all));
                }
                Statement::Prototype(name) => {
                    scope.insert(*name, Symbol::Prototype);
                }
                _ => {}
            }
        }
        self.scopes.push(scope);
        self.families.push(HashMap::new());
        for s in body {
            match s {
                Statement::Label(name, _) => {
                    if let Some(Symbol::Label(id)) = self.scopes.last().and_then(|s| s.get(name)) {
                        self.labels[*id as usize] = self.code.len() as u32;
                    }
                }
                Statement::Variable(v) => self.declare(v)?,
                Statement::Block(inner) => self.block(inner)?,
                Statement::Instruction(i) => {
                    Inst::lower(self, i)?;
                    self.used = None;
                }
                Statement::Used(mask) => self.used = Some(*mask),
                Statement::Targets(..) | Statement::Prototype(_) => {}
            }
        }
        self.scopes.pop();
        self.families.pop();
        Ok(())
    }

    fn declare(&mut self, v: &'a Variable<'a>) -> Read<()> {
        let symbol = match v.space {
            Space::Reg => {
                let n = v.family.unwrap_or(1);
                let (lanes, ty) = (v.lanes.max(1), v.ty);
                let first = match ty {
                    Type::Pred => {
                        self.preds += n;
                        self.preds - n
                    }
                    _ => {
                        self.rows += n * lanes * rows_of(ty);
                        self.rows - n * lanes * rows_of(ty)
                    }
                };
                match v.family {
                    Some(n) => Symbol::Family(first, ty, n),
                    None => Symbol::Register(first, ty, lanes),
                }
            }
            Space::Shared if open(v) => Symbol::Dynamic,
            Space::Shared => {
                let symbol = self.take_shared(v);
                if self.shared as usize > SHARED_WORDS * 4 {
                    return wrong(
                        v.at,
                        format!("{} bytes of shared memory are too many: 256 KiB at most", self.shared),
                    );
                }
                symbol
            }
            Space::Local | Space::Param => {
                let at = self.local.next_multiple_of(v.align.max(v.ty.bytes()).max(4));
                self.local = at.saturating_add(v.bytes().min(1 << 30) as u32);
                Symbol::Local(at, v.space == Space::Param)
            }
            _ => return wrong(v.at, "a variable of this space is not supported inside a function"),
        };
        self.elements.insert(v.name, v.ty.bytes());
        let scopes = if v.family.is_some() { &mut self.families } else { &mut self.scopes };
        scopes.last_mut().expect("a body has a scope").insert(v.name, symbol);
        Ok(())
    }

    /// Bytes of an element of the variable `name`, 1 of what is none.
    pub(super) fn element(&self, name: &str) -> i64 {
        let global = || self.module.tree.variables.iter().find(|v| v.name == name).map(|v| v.ty.bytes());
        self.elements.get(name).copied().or_else(global).unwrap_or(1).into()
    }

    /// What `name` means here. Registers of families come as single registers.
    pub(super) fn find(&self, name: &str) -> Option<Symbol<'a>> {
        for (scope, families) in self.scopes.iter().zip(&self.families).rev() {
            if let Some(s) = scope.get(name) {
                return Some(s.clone());
            }
            let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
            for d in 1..=digits {
                let (family, number) = name.split_at(name.len() - d);
                if let Some(Symbol::Family(first, ty, n)) = families.get(family)
                    && let Some(i) = number.parse::<u32>().ok().filter(|i| i < n)
                {
                    let each = if *ty == Type::Pred { 1 } else { rows_of(*ty) };
                    return Some(Symbol::Register(first + i * each, *ty, 1));
                }
            }
        }
        None
    }

    /// Slot of a register with this value.
    pub(super) fn constant(&mut self, value: Value, wide: bool) -> u32 {
        if let Some(&slot) = self.known.get(&(value, wide)) {
            return slot;
        }
        let slot = self.temporary(wide);
        self.known.insert((value, wide), slot);
        self.constants.push(Constant { slot, wide, value });
        slot
    }

    /// A fresh register.
    pub(super) fn temporary(&mut self, wide: bool) -> u32 {
        let rows = 1 + u32::from(wide);
        self.rows += rows;
        self.rows - rows
    }

    /// A fresh predicate.
    pub(super) fn temporary_pred(&mut self) -> u32 {
        self.preds += 1;
        self.preds - 1
    }

    /// Labels become places.
    fn patch(&mut self) {
        for &j in &self.jumps {
            let label = self.code[j].imm as usize;
            self.code[j].imm = self.labels[label].into();
        }
        for &l in &self.listed {
            self.lists[l] = self.labels[self.lists[l] as usize];
        }
    }
}

/// Rows of a register of this type.
pub(super) fn rows_of(ty: Type) -> u32 {
    ty.bytes().div_ceil(4)
}
