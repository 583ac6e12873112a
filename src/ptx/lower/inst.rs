//! One instruction being lowered: `super::super::inst` takes its suffixes and operands from here, one by one, so that
//! whatever nobody takes is an error that names it.

use super::super::ast::{Instruction, Operand};
use super::super::inst;
use super::super::program::Value;
use super::super::run::{Counts, Op, Run};
use super::super::text::{Read, wrong};
use super::super::types::{Class, Type};
use super::bits;
use super::body::{Body, SINK, SINK_PRED, Symbol};

/// Registers and immediates of an [`Op`].
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "fields of `Op`")]
pub(crate) struct Slots {
    pub y: u32,
    pub a: u32,
    pub b: u32,
    pub c: u32,
    pub list: u32,
    pub imm: u64,
}

/// An address operand: a register plus bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    /// Slot of the register.
    pub slot: u32,
    /// It has 64 bits.
    pub wide: bool,
    /// Bytes that are added.
    pub plus: i64,
    /// The space that the name itself tells: the frame's local memory for parameters of functions and calls.
    pub local: bool,
    /// Bytes of the entry's parameter that is named.
    pub room: Option<u32>,
}

/// An instruction being lowered.
pub(crate) struct Inst<'a, 'm, 'b> {
    pub(super) body: &'b mut Body<'a, 'm>,
    pub(super) from: &'a Instruction<'a>,
    suffixes: Vec<&'a str>,
    pub(super) guard: u32,
}

impl<'a, 'm, 'b> Inst<'a, 'm, 'b> {
    /// Lowers `from`.
    pub(super) fn lower(body: &'b mut Body<'a, 'm>, from: &'a Instruction<'a>) -> Read<()> {
        let guard = match from.guard {
            None => 0,
            Some((name, not)) => match body.find(name) {
                Some(Symbol::Register(p, Type::Pred, _)) => (p + 1) * 2 + u32::from(not),
                _ => return wrong(from.at, format!("the guard `{name}` is no predicate")),
            },
        };
        let mut i = Inst { body, from, suffixes: from.suffixes.clone(), guard };
        inst::lower(&mut i)?;
        match i.suffixes.first() {
            None => Ok(()),
            Some(s) => wrong(from.at, format!("`.{s}` of `{}` is not supported", i.whole())),
        }
    }

    /// Opcode.
    pub(crate) fn opcode(&self) -> &'a str {
        self.from.opcode
    }
    /// Opcode and suffixes as written.
    pub(crate) fn whole(&self) -> String {
        [&[self.from.opcode], &self.from.suffixes[..]].concat().join(".")
    }
    /// An error at this instruction.
    pub(crate) fn refuse<T>(&self, what: impl Into<String>) -> Read<T> {
        wrong(self.from.at, what)
    }
    /// "`add.foo` is not supported".
    pub(crate) fn unsupported<T>(&self) -> Read<T> {
        self.refuse(format!("`{}` is not supported", self.whole()))
    }

    /// Takes suffix `name`; false when it is not there.
    pub(crate) fn take(&mut self, name: &str) -> bool {
        let found = self.suffixes.iter().position(|s| *s == name);
        found.map(|k| self.suffixes.remove(k)).is_some()
    }
    /// True when suffix `name` has not been taken.
    pub(crate) fn suffixed(&self, name: &str) -> bool {
        self.suffixes.contains(&name)
    }
    /// Takes all of `names` that are there: hints that change nothing here.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        self.suffixes.retain(|s| !names.contains(s));
    }
    /// Takes suffixes that begin so.
    pub(crate) fn ignore_prefixed(&mut self, prefix: &str) {
        self.suffixes.retain(|s| !s.starts_with(prefix));
    }
    /// Takes the first suffix that the table names.
    pub(crate) fn pick<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        let (k, found) = self
            .suffixes
            .iter()
            .enumerate()
            .find_map(|(k, s)| table.iter().find(|(name, _)| name == s).map(|(_, t)| (k, *t)))?;
        self.suffixes.remove(k);
        Some(found)
    }
    /// The first suffix that is a type, which stays there.
    pub(crate) fn peek(&self) -> Option<Type> {
        self.suffixes.iter().find_map(|s| Type::named(s))
    }
    /// Takes the first suffix that is a type.
    pub(crate) fn ty(&mut self) -> Read<Type> {
        let found = self.suffixes.iter().enumerate().find_map(|(k, s)| Some((k, Type::named(s)?)));
        match found {
            Some((k, t)) => {
                self.suffixes.remove(k);
                Ok(t)
            }
            None => self.refuse(format!("`{}` names no type", self.whole())),
        }
    }

    /// Operands.
    pub(crate) fn operands(&self) -> &'a [Operand<'a>] {
        &self.from.operands
    }
    /// Number of operands.
    pub(crate) fn count(&self) -> usize {
        self.from.operands.len()
    }
    /// Asks for `n` operands.
    pub(crate) fn wants(&self, n: usize) -> Read<()> {
        match self.count() == n {
            true => Ok(()),
            false => self.refuse(format!("`{}` takes {n} operands and has {}", self.whole(), self.count())),
        }
    }
    /// Operand `k`.
    pub(crate) fn operand(&self, k: usize) -> Read<&'a Operand<'a>> {
        match self.from.operands.get(k) {
            Some(o) => Ok(o),
            None => self.refuse(format!("`{}` has no operand {}", self.whole(), k + 1)),
        }
    }

    /// Slot of operand `k`, read as `ty`.
    pub(crate) fn src(&mut self, k: usize, ty: Type) -> Read<u32> {
        let o = self.operand(k)?;
        self.read(o, ty, false).map(|(slot, _)| slot)
    }
    /// Slot and register type of operand `k`, whose register may be wider than `ty`, as in `st` and `cvt`.
    pub(crate) fn src_wide(&mut self, k: usize, ty: Type) -> Read<(u32, Type)> {
        let o = self.operand(k)?;
        self.read(o, ty, true)
    }
    /// Slot of the register that operand `k` names, to be written as `ty`.
    pub(crate) fn dst(&mut self, k: usize, ty: Type) -> Read<u32> {
        let o = self.operand(k)?;
        self.write(o, ty, false).map(|(slot, _)| slot)
    }
    /// Slot and type of the register that operand `k` names, which may be wider than `ty`, as in `ld` and `cvt`.
    pub(crate) fn dst_wide(&mut self, k: usize, ty: Type) -> Read<(u32, Type)> {
        let o = self.operand(k)?;
        self.write(o, ty, true)
    }

    /// Slot of `o`, read as `ty`, and the type of its register.
    pub(crate) fn read(&mut self, o: &Operand<'a>, ty: Type, wider: bool) -> Read<(u32, Type)> {
        let wide = ty.bytes() == 8;
        match o {
            Operand::Value(l, at) => {
                let v = bits(*l, ty, *at)?;
                Ok((self.body.constant(Value::Bits(v), wide), ty))
            }
            Operand::Name(n, at) => match self.body.find(n) {
                Some(Symbol::Register(slot, t, 1)) => self.fits(n, t, ty, wider, *at).map(|()| (slot, t)),
                Some(Symbol::Register(..)) => {
                    wrong(*at, format!("`{n}` is a vector: name a component, as in {n}.x"))
                }
                _ if *n == "WARP_SZ" => Ok((self.body.constant(Value::Bits(32), wide), ty)),
                _ if n.starts_with('%') => self.special(n, "", ty, *at),
                _ => self.address_of(n, 0, ty, *at),
            },
            Operand::Offset(n, plus, at) => self.address_of(n, *plus, ty, *at),
            Operand::Element(n, index, at) => {
                self.address_of(n, index.wrapping_mul(self.body.element(n)), ty, *at)
            }
            Operand::Part(n, part, at) => match self.body.find(n) {
                Some(Symbol::Register(..)) => {
                    let (slot, t) = self.part(n, part, *at)?;
                    self.fits(n, t, ty, wider, *at).map(|()| (slot, t))
                }
                _ => self.special(n, part, ty, *at),
            },
            other => wrong(other.at(), format!("a value of type {ty} is wanted here")),
        }
    }

    /// Slot of the register `o`, to be written as `ty`, and its type.
    pub(crate) fn write(&mut self, o: &Operand<'a>, ty: Type, wider: bool) -> Read<(u32, Type)> {
        let (n, at, slot, t) = match o {
            Operand::Name("_", _) => return Ok((SINK, ty)),
            Operand::Name(n, at) => match self.body.find(n) {
                Some(Symbol::Register(slot, t, 1)) => (n, *at, slot, t),
                _ => return wrong(*at, format!("`{n}` is no register that can be written")),
            },
            Operand::Part(n, part, at) => {
                let (slot, t) = self.part(n, part, *at)?;
                (n, *at, slot, t)
            }
            other => return wrong(other.at(), "a register to write is wanted here"),
        };
        self.fits(n, t, ty, wider, at)?;
        Ok((slot, t))
    }

    /// Slots and types of the components of `o`, when it is a vector register.
    pub(crate) fn vector(&self, o: &Operand<'a>) -> Option<Vec<(u32, Type)>> {
        match o {
            Operand::Name(n, _) => match self.body.find(n)? {
                Symbol::Register(slot, t, lanes @ 2..) => {
                    Some((0..lanes).map(|k| (slot + k * super::body::rows_of(t), t)).collect())
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Slot of register `n`, to be written as `ty`.
    pub(crate) fn register(&mut self, n: &'a str, ty: Type, at: u32) -> Read<u32> {
        self.write(&Operand::Name(n, at), ty, false).map(|(slot, _)| slot)
    }

    fn part(&self, n: &str, part: &str, at: u32) -> Read<(u32, Type)> {
        let k = ["x", "y", "z", "w"].iter().position(|p| *p == part);
        let k = k.or_else(|| ["r", "g", "b", "a"].iter().position(|p| *p == part));
        match (self.body.find(n), k) {
            (Some(Symbol::Register(slot, t, lanes)), Some(k)) if (k as u32) < lanes => {
                Ok((slot + k as u32 * super::body::rows_of(t), t))
            }
            _ => wrong(at, format!("`{n}` has no component `.{part}`")),
        }
    }

    fn fits(&self, name: &str, have: Type, want: Type, wider: bool, at: u32) -> Read<()> {
        let size = have.bytes() == want.bytes() || wider && have.bytes() > want.bytes();
        let mixed = |a: Type, b: Type| {
            a.class() == Class::Float && matches!(b.class(), Class::Signed | Class::Unsigned)
        };
        let kind = match (have.class(), want.class()) {
            (Class::Pred, b) => b == Class::Pred,
            (_, Class::Pred) => false,
            (Class::Float, Class::Float) => have == want || want == Type::Tf32 && have == Type::F32,
            _ if wider => true,
            _ => !mixed(have, want) && !mixed(want, have),
        };
        match size && kind && have != Type::B128 {
            true => Ok(()),
            false => {
                wrong(at, format!("`{name}` is of type {have}, and `{}` wants {want} here", self.whole()))
            }
        }
    }

    /// Predicate that operand `o` reads, and whether it is negated.
    pub(crate) fn pred_of(&mut self, o: &Operand<'a>) -> Read<(u32, bool)> {
        let (n, not, at) = match o {
            Operand::Name(n, at) => (n, false, at),
            Operand::Not(n, at) => (n, true, at),
            Operand::Value(l, at) => {
                let p = self.body.temporary_pred();
                let on = u64::from(bits(*l, Type::B32, *at)? != 0);
                self.emit(inst::set_pred(), Counts::Move, Slots { y: p, imm: on, ..Slots::default() });
                return Ok((p, false));
            }
            other => return wrong(other.at(), "a predicate is wanted here"),
        };
        match self.body.find(n) {
            Some(Symbol::Register(p, Type::Pred, _)) => Ok((p, not)),
            _ => wrong(*at, format!("`{n}` is no predicate")),
        }
    }
    /// Predicate of operand `k`, and whether it is negated.
    pub(crate) fn pred(&mut self, k: usize) -> Read<(u32, bool)> {
        let o = self.operand(k)?;
        self.pred_of(o)
    }
    /// Predicate named `n` as a destination.
    pub(crate) fn pred_named(&mut self, n: &str) -> Read<u32> {
        match self.body.find(n) {
            _ if n == "_" => Ok(SINK_PRED),
            Some(Symbol::Register(p, Type::Pred, _)) => Ok(p),
            _ => self.refuse(format!("`{n}` is no predicate")),
        }
    }
    /// A fresh register.
    pub(crate) fn temporary(&mut self, wide: bool) -> u32 {
        self.body.temporary(wide)
    }
    /// A fresh predicate.
    pub(crate) fn temporary_pred(&mut self) -> u32 {
        self.body.temporary_pred()
    }
    /// A register with these bits in every lane.
    pub(crate) fn constant(&mut self, bits: u64, wide: bool) -> u32 {
        self.body.constant(Value::Bits(bits), wide)
    }
    /// The integer that operand `k` must be.
    pub(crate) fn literal(&self, k: usize) -> Read<u64> {
        match self.operand(k)? {
            Operand::Value(l, at) => bits(*l, Type::B64, *at),
            other => wrong(other.at(), "a number is wanted here"),
        }
    }

    /// The address that operand `k` is.
    pub(crate) fn address(&mut self, k: usize) -> Read<Address> {
        let (base, plus, at) = match self.operand(k)? {
            Operand::Address(base, plus, at) => (base, *plus, *at),
            Operand::Element(n, index, at) => (&Some(*n), index.wrapping_mul(self.body.element(n)), *at),
            other => return wrong(other.at(), "an address in brackets is wanted here"),
        };
        let Some(n) = base else {
            let slot = self.body.constant(Value::Bits(plus as u64), true);
            return Ok(Address { slot, wide: true, plus: 0, local: false, room: None });
        };
        match self.body.find(n) {
            Some(Symbol::Register(slot, t, 1))
                if matches!(t.bytes(), 4 | 8) && t.class() != Class::Float && t != Type::Pred =>
            {
                Ok(Address { slot, wide: t.bytes() == 8, plus, local: false, room: None })
            }
            Some(Symbol::Register(..)) => wrong(at, format!("`{n}` is no register that can hold an address")),
            other => {
                let local = matches!(other, Some(Symbol::Local(..)));
                let room = if let Some(Symbol::Param(_, bytes)) = other { Some(bytes) } else { None };
                let (slot, _) = self.address_of(n, 0, Type::B64, at)?;
                Ok(Address { slot, wide: true, plus, local, room })
            }
        }
    }
    /// Of the bytes that this load reads, a mask of those that matter.
    pub(crate) fn used_bytes(&self) -> u32 {
        self.body.used.unwrap_or(u32::MAX)
    }
    /// True in an `.entry`.
    pub(crate) fn in_entry(&self) -> bool {
        self.body.entry
    }
    /// The blocks of this function's grids run in order.
    pub(crate) fn keep_order(&mut self) {
        self.body.ordered = true;
    }

    /// Adds operands to the lists; returns where they begin.
    pub(crate) fn list(&mut self, all: &[u32]) -> u32 {
        let at = self.body.lists.len() as u32;
        self.body.lists.extend_from_slice(all);
        at
    }
    /// Adds labels to the lists, which become places.
    pub(crate) fn list_labels(&mut self, all: &[u32]) -> u32 {
        let at = self.list(all);
        self.body.listed.extend((0..all.len()).map(|k| at as usize + k));
        at
    }
    /// Adds an instruction.
    pub(crate) fn emit(&mut self, run: Run, class: Counts, s: Slots) {
        let Slots { y, a, b, c, list, imm } = s;
        let (guard, at) = (self.guard, self.from.at);
        self.body.code.push(Op { run, y, a, b, c, list, imm, guard, at, class });
    }
    /// Adds a jump to `label`.
    pub(crate) fn emit_jump(&mut self, run: Run, label: u32) {
        self.body.jumps.push(self.body.code.len());
        self.emit(run, Counts::Control, Slots { imm: label.into(), ..Slots::default() });
    }
}
