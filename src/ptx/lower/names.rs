//! What an instruction may name beside registers: labels, functions, variables, special registers.

use super::super::ast::Operand;
use super::super::inst;
use super::super::program::{Special, Value};
use super::super::run::Counts;
use super::super::text::{Read, wrong};
use super::super::types::{Class, Type};
use super::body::Symbol;
use super::{Inst, Slots};

impl<'a> Inst<'a, '_, '_> {
    /// The address of a variable or function as a value.
    pub(super) fn address_of(&mut self, n: &str, plus: i64, ty: Type, at: u32) -> Read<(u32, Type)> {
        let value = match self.body.find(n) {
            Some(Symbol::Shared(to)) => Value::Bits(u64::from(to).wrapping_add_signed(plus)),
            Some(Symbol::Param(to, _)) => Value::Bits(u64::from(to).wrapping_add_signed(plus)),
            Some(Symbol::Dynamic) => Value::Dynamic(plus),
            Some(Symbol::Local(to, _)) => Value::Local(i64::from(to) + plus),
            Some(_) => return wrong(at, format!("`{n}` has no address")),
            None => match (self.body.module.globals.get(n), self.body.module.functions.get(n)) {
                (Some(&v), _) => Value::Address(v, plus),
                (None, Some(&f)) => Value::Function(f),
                (None, None) => return wrong(at, format!("`{n}` is not supported here")),
            },
        };
        match ty.bytes() {
            4 | 8 if ty.class() != Class::Float => Ok((self.body.constant(value, ty.bytes() == 8), ty)),
            _ => wrong(at, format!("the address of `{n}` is no value of type {ty}")),
        }
    }

    pub(super) fn special(&mut self, n: &str, part: &str, ty: Type, at: u32) -> Read<(u32, Type)> {
        if !matches!(ty.bytes(), 2 | 4 | 8) || ty.class() == Class::Float {
            return wrong(at, format!("`{n}` is no value of type {ty}"));
        }
        if !matches!(self.opcode(), "mov" | "cvt") {
            return wrong(at, format!("`{n}` may stand in mov and cvt alone: move it to a register first"));
        }
        let wide = ty.bytes() == 8;
        let axis = ["x", "y", "z", "w"].iter().position(|p| *p == part).unwrap_or(0) as u8;
        let s = match &n[1..] {
            "tid" => Special::Tid(axis),
            "ntid" | "cluster_nctaid" if axis == 3 => Special::One,
            "ntid" => Special::Ntid(axis),
            "ctaid" | "clusterid" => Special::Ctaid(axis),
            "nctaid" | "nclusterid" => Special::Nctaid(axis),
            "cluster_ctaid" | "cluster_ctarank" | "gridid" | "is_explicit_cluster" | "current_graph_exec" => {
                Special::Zero
            }
            "cluster_nctaid" | "cluster_nctarank" => Special::One,
            "laneid" => Special::Lane,
            "warpid" => Special::Warp,
            "nwarpid" => Special::Warps,
            "smid" => Special::Sm,
            "nsmid" => Special::Sms,
            "lanemask_eq" => Special::Equal,
            "lanemask_le" => Special::UpTo,
            "lanemask_lt" => Special::Below,
            "lanemask_ge" => Special::From,
            "lanemask_gt" => Special::Above,
            "dynamic_smem_size" => Special::DynamicShared,
            "total_smem_size" | "aggr_smem_size" => Special::TotalShared,
            _ if n.starts_with("%envreg") || n.starts_with("%pm") => Special::Zero,
            "clock" | "clock_hi" | "clock64" | "globaltimer" | "globaltimer_lo" | "globaltimer_hi" => {
                let y = self.body.temporary(wide);
                let high = u64::from(n.ends_with("_hi"));
                self.emit(inst::clock(wide), Counts::Move, Slots { y, imm: high, ..Slots::default() });
                return Ok((y, ty));
            }
            _ => return wrong(at, format!("the special register `{n}` is not supported")),
        };
        Ok((self.body.constant(Value::Special(s), wide), ty))
    }

    /// What `name` is, when it is a label: its number.
    pub(crate) fn label(&self, name: &str, at: u32) -> Read<u32> {
        match self.body.find(name) {
            Some(Symbol::Label(id)) => Ok(id),
            _ => wrong(at, format!("`{name}` is no label that can be reached from here")),
        }
    }
    /// Labels of `.branchtargets name`.
    pub(crate) fn targets(&self, name: &str, at: u32) -> Read<Vec<u32>> {
        match self.body.find(name) {
            Some(Symbol::Targets(all)) => all.iter().map(|n| self.label(n, at)).collect(),
            _ => wrong(at, format!("`{name}` is no list of branch targets")),
        }
    }
    /// Index of function `name`, and whether it has a body.
    pub(crate) fn function(&self, name: &str) -> Option<(u32, bool)> {
        let &k = self.body.module.functions.get(name)?;
        Some((k, self.body.module.tree.functions[k as usize].body.is_some()))
    }
    /// Where the `.param` variable `name` of a call lies in the frame's local memory.
    pub(crate) fn argument(&self, name: &str, at: u32) -> Read<u32> {
        match self.body.find(name) {
            Some(Symbol::Local(to, true)) => Ok(to),
            _ => wrong(at, format!("`{name}` is no .param variable; calls pass their arguments in such")),
        }
    }

    /// Place in local memory of argument `k` of function `f`, which is given as a register or number, or as where a
    /// register gets its result: (place, slot, type).
    pub(crate) fn register_argument(
        &mut self,
        f: u32,
        k: usize,
        o: &Operand<'a>,
        result: bool,
    ) -> Read<(u32, u32, Type)> {
        let callee = &self.body.module.tree.functions[f as usize];
        let all = if result { &callee.returns } else { &callee.params };
        let Some(p) = all.get(k).filter(|p| p.extents.is_empty() && p.ty.bytes() <= 8) else {
            return wrong(
                o.at(),
                format!("`{}` has no such parameter that a register could pass", callee.name),
            );
        };
        let (slot, _) = if result { self.write(o, p.ty, false)? } else { self.read(o, p.ty, false)? };
        let to = self.body.take_local(p.ty.bytes().max(4));
        if !result {
            self.body.move_local(false, p.ty, slot, to, self.from.at);
        }
        Ok((to, slot, p.ty))
    }
    /// Fetches a result that a call left in local memory.
    pub(crate) fn fetch_result(&mut self, (to, slot, ty): (u32, u32, Type)) {
        self.body.move_local(true, ty, slot, to, self.from.at);
        let guard = self.guard;
        if let Some(op) = self.body.code.last_mut() {
            op.guard = guard;
        }
    }
    /// Puts what the function returns in registers where the caller finds it.
    pub(crate) fn leave(&mut self) {
        self.body.leave(self.from.at);
    }
    /// The function's parameters and results number so many.
    pub(crate) fn arity(&self, f: u32) -> (usize, usize) {
        let callee = &self.body.module.tree.functions[f as usize];
        (callee.params.len(), callee.returns.len())
    }
}
