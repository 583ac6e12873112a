//! Every name that is used is declared, once, in a scope that is open (PTX ISA 9.0, sections 4.4 and 5.3).
//!
//! Registers and variables are visible from their declaration to the end of their braces; labels in all of theirs.

use super::ast::{Function, Init, Operand, Statement, Tree, Variable};
use super::text::{Read, wrong};
use super::types::Space;
use std::collections::HashMap;

/// Special registers: `%name`, or `%name.x` and so on.
const SPECIAL: &[&str] = &[
    "tid",
    "ntid",
    "laneid",
    "warpid",
    "nwarpid",
    "ctaid",
    "nctaid",
    "smid",
    "nsmid",
    "gridid",
    "clusterid",
    "nclusterid",
    "cluster_ctaid",
    "cluster_nctaid",
    "cluster_ctarank",
    "cluster_nctarank",
    "is_explicit_cluster",
    "lanemask_eq",
    "lanemask_le",
    "lanemask_lt",
    "lanemask_ge",
    "lanemask_gt",
    "clock",
    "clock_hi",
    "clock64",
    "globaltimer",
    "globaltimer_lo",
    "globaltimer_hi",
    "total_smem_size",
    "dynamic_smem_size",
    "aggr_smem_size",
    "current_graph_exec",
];

/// Most registers of one family: the largest number that ptxas was seen to take is far below.
const FAMILY: u32 = 1 << 20;

/// Most bytes of one variable, and of one in shared memory: more than any device has.
const LARGEST: u64 = 1 << 39;
const LARGEST_SHARED: u64 = 1 << 20;

#[derive(Default)]
struct Scope<'a> {
    names: HashMap<&'a str, ()>,
    /// Of a family `%r<n>` its n. It may have the name of a register: `%r` is none of `%r0`, `%r1`, ….
    families: HashMap<&'a str, u32>,
    labels: HashMap<&'a str, ()>,
}

/// Checks all names of `tree`.
pub(super) fn check(tree: &Tree<'_>) -> Read<()> {
    let mut module = Scope::default();
    for v in &tree.variables {
        declare(&mut module, v)?;
    }
    let mut bodies = HashMap::new();
    for f in &tree.functions {
        module.names.insert(f.name, ());
        if f.body.is_some() && bodies.insert(f.name, ()).is_some() {
            return wrong(f.at, format!("`{}` has a body already", f.name));
        }
    }
    let mut scopes = vec![module];
    for init in tree.variables.iter().flat_map(|v| &v.init) {
        if let Init::Address(n, _, at) = init {
            name(&scopes, n, *at)?;
        }
    }
    tree.functions.iter().try_for_each(|f| function(&mut scopes, f))
}

fn function<'a>(scopes: &mut Vec<Scope<'a>>, f: &'a Function<'a>) -> Read<()> {
    let Some(body) = &f.body else { return Ok(()) };
    let mut own = Scope::default();
    f.returns.iter().chain(&f.params).try_for_each(|v| declare(&mut own, v))?;
    scopes.push(own);
    block(scopes, body)?;
    scopes.pop();
    Ok(())
}

fn declare<'a>(scope: &mut Scope<'a>, v: &Variable<'a>) -> Read<()> {
    if v.name == "_" {
        return Ok(());
    }
    if v.family.is_some_and(|n| n > FAMILY) {
        return wrong(v.at, format!("`{}` are more registers than {FAMILY}", v.name));
    }
    if v.space == Space::Shared && !v.init.is_empty() {
        return wrong(v.at, format!("`{}` is shared memory, which takes no initial value", v.name));
    }
    if v.bytes() > if v.space == Space::Shared { LARGEST_SHARED } else { LARGEST } {
        return wrong(v.at, format!("`{}` takes {} bytes, more than any device has", v.name, v.bytes()));
    }
    let room = v.extents.iter().fold(u64::from(v.lanes), |n, &e| n.saturating_mul(e));
    if v.init.iter().any(|i| matches!(i, Init::Address(n, ..) if *n == v.name)) {
        return wrong(v.at, format!("`{}` is its own initial value, which ptxas refuses", v.name));
    }
    let texts = v.init.iter().any(|i| matches!(i, Init::Text(_)));
    if !texts && v.init.len() as u64 > room {
        return wrong(v.at, format!("`{}` has room for {room} values and is given {}", v.name, v.init.len()));
    }
    let known = match v.family {
        Some(n) => scope.families.insert(v.name, n).is_some(),
        None => scope.names.insert(v.name, ()).is_some(),
    };
    if known && !v.external {
        return wrong(v.at, format!("`{}` is declared already in this scope", v.name));
    }
    Ok(())
}

/// Statements of one pair of braces. The parser has limited how deep they nest.
fn block<'a>(scopes: &mut Vec<Scope<'a>>, body: &'a [Statement<'a>]) -> Read<()> {
    let mut own = Scope::default();
    for s in body {
        let (name, at) = match s {
            Statement::Label(name, at) => (name, Some(*at)),
            Statement::Targets(name, _) | Statement::Prototype(name) => (name, None),
            _ => continue,
        };
        if own.labels.insert(name, ()).is_some() {
            return wrong(at.unwrap_or_default(), format!("the label `{name}` stands already in this scope"));
        }
    }
    scopes.push(own);
    for s in body {
        match s {
            Statement::Variable(v) => declare(scopes.last_mut().expect("pushed above"), v)?,
            Statement::Block(inner) => block(scopes, inner)?,
            Statement::Instruction(i) => {
                if let Some((guard, _)) = i.guard {
                    name(scopes, guard, i.at)?;
                }
                i.operands.iter().try_for_each(|o| operand(scopes, o))?;
            }
            Statement::Label(..) | Statement::Targets(..) | Statement::Prototype(_) | Statement::Used(_) => {}
        }
    }
    scopes.pop();
    Ok(())
}

fn operand(scopes: &[Scope<'_>], o: &Operand<'_>) -> Read<()> {
    match o {
        Operand::Name(n, at)
        | Operand::Part(n, _, at)
        | Operand::Not(n, at)
        | Operand::Offset(n, _, at)
        | Operand::Element(n, _, at) => name(scopes, n, *at),
        Operand::Pair(a, b, at) => name(scopes, a, *at).and_then(|()| name(scopes, b, *at)),
        Operand::Address(Some(n), _, at) => name(scopes, n, *at),
        Operand::Vector(all, _) | Operand::List(all, _) => all.iter().try_for_each(|o| operand(scopes, o)),
        Operand::Address(None, ..) | Operand::Value(..) => Ok(()),
    }
}

fn name(scopes: &[Scope<'_>], n: &str, at: u32) -> Read<()> {
    let special = || {
        let plain = n.strip_prefix('%')?;
        let numbered =
            plain.starts_with("envreg") || plain.starts_with("pm") || plain.starts_with("reserved_smem");
        Some(SPECIAL.contains(&plain) || numbered)
    };
    let known =
        n == "_" || n == "WARP_SZ" || scopes.iter().rev().any(|s| has(s, n)) || special().unwrap_or(false);
    if known { Ok(()) } else { wrong(at, format!("`{n}` is declared nowhere that can be seen from here")) }
}

fn has(scope: &Scope<'_>, n: &str) -> bool {
    if scope.labels.contains_key(n) || scope.names.contains_key(n) {
        return true;
    }
    // `%r12` of the family `%r<20>`. A family may itself end in a digit: `%p1<4>` holds `%p10`.
    let digits = n.bytes().rev().take_while(u8::is_ascii_digit).count();
    (1..=digits).any(|d| {
        let (family, number) = n.split_at(n.len() - d);
        let plain = number.len() == 1 || !number.starts_with('0');
        let size = scope.families.get(family).copied();
        plain && size.is_some_and(|size| number.parse::<u32>().is_ok_and(|i| i < size))
    })
}
