//! The tree that the parser builds: PTX as it was written, names and modifiers still text.

use super::types::{Space, Type};

/// A source file: its directives, variables and functions.
#[derive(Debug, Default)]
pub struct Tree<'a> {
    /// `.version` as (major, minor).
    pub version: (u32, u32),
    /// `.target`, such as `sm_80`.
    pub target: &'a str,
    /// Variables of module scope: `.global`, `.const`, `.shared`.
    pub variables: Vec<Variable<'a>>,
    /// Functions, in order. A declaration has no body.
    pub functions: Vec<Function<'a>>,
}

/// `.entry` or `.func`.
#[derive(Debug)]
pub struct Function<'a> {
    /// Where its name stands.
    pub at: u32,
    /// Name.
    pub name: &'a str,
    /// True for `.entry`.
    pub entry: bool,
    /// Return parameters of a `.func`.
    pub returns: Vec<Variable<'a>>,
    /// Parameters.
    pub params: Vec<Variable<'a>>,
    /// `.reqntid`, when given.
    pub required_block: Option<[u32; 3]>,
    /// `.maxntid`, when given.
    pub most_threads: Option<[u32; 3]>,
    /// Body; none for a declaration.
    pub body: Option<Vec<Statement<'a>>>,
}

/// A declared variable or register, or `n` registers of a numbered family.
#[derive(Debug, Clone)]
pub struct Variable<'a> {
    /// Where its name stands.
    pub at: u32,
    /// State space.
    pub space: Space,
    /// Element type.
    pub ty: Type,
    /// Elements of a vector type: 1, 2 or 4.
    pub lanes: u32,
    /// Alignment in bytes.
    pub align: u32,
    /// Name.
    pub name: &'a str,
    /// `%r<5>`: five registers `%r0` … `%r4`.
    pub family: Option<u32>,
    /// Extents of an array, outermost first; 0 stands for an open extent. Empty for a scalar.
    pub extents: Vec<u64>,
    /// Initial value.
    pub init: Vec<Init<'a>>,
    /// `.extern`.
    pub external: bool,
}

impl Variable<'_> {
    /// Bytes of the whole variable.
    pub fn bytes(&self) -> u64 {
        let n = self.extents.iter().fold(1u64, |n, &e| n.saturating_mul(e));
        n.saturating_mul(u64::from(self.ty.bytes() * self.lanes))
    }
}

/// One element of an initial value.
#[derive(Debug, Clone, PartialEq)]
pub enum Init<'a> {
    /// A number.
    Value(Literal),
    /// The address of a variable or function, plus bytes, and where it stands.
    Address(&'a str, i64, u32),
    /// Text, one byte an element.
    Text(&'a str),
}

/// A number as written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Literal {
    /// An integer; negative ones in two's complement.
    Int(u64),
    /// `0f…`: the bits of an f32.
    F32(u32),
    /// `0d…` or a decimal fraction.
    F64(f64),
}

/// What a body is made of.
#[derive(Debug)]
pub enum Statement<'a> {
    /// `name:`
    Label(&'a str, u32),
    /// An instruction.
    Instruction(Instruction<'a>),
    /// A declaration.
    Variable(Variable<'a>),
    /// `{ … }`: a scope of its own.
    Block(Vec<Statement<'a>>),
    /// `name: .branchtargets a, b;`
    Targets(&'a str, Vec<&'a str>),
    /// `.pragma "used_bytes_mask n"`: of the bytes that the next load reads, those in this mask matter.
    Used(u32),
    /// `name: .callprototype …;` or `.calltargets`: what an indirect call may look like. Only the name matters here.
    Prototype(&'a str),
}

/// An instruction: `@guard opcode.suffixes operands;`
#[derive(Debug)]
pub struct Instruction<'a> {
    /// Where its opcode stands.
    pub at: u32,
    /// Guard predicate, and whether it is negated.
    pub guard: Option<(&'a str, bool)>,
    /// Opcode, such as `ld`.
    pub opcode: &'a str,
    /// What follows it, without dots: `global`, `v4`, `f32`.
    pub suffixes: Vec<&'a str>,
    /// Operands.
    pub operands: Vec<Operand<'a>>,
}

/// One operand.
#[derive(Debug, Clone)]
pub enum Operand<'a> {
    /// A register, label, variable, function or special register.
    Name(&'a str, u32),
    /// A name with a component: `%tid.x`, `%v.y`.
    Part(&'a str, &'a str, u32),
    /// `!p`
    Not(&'a str, u32),
    /// `p|q`
    Pair(&'a str, &'a str, u32),
    /// A number.
    Value(Literal, u32),
    /// `name+4` outside brackets.
    Offset(&'a str, i64, u32),
    /// `name[4]`: the address of an element.
    Element(&'a str, i64, u32),
    /// `[base+offset]`; base is a name or, without one, the offset is the address itself.
    Address(Option<&'a str>, i64, u32),
    /// `{a, b, …}`
    Vector(Vec<Operand<'a>>, u32),
    /// `(a, b, …)` of a call.
    List(Vec<Operand<'a>>, u32),
}

impl Operand<'_> {
    /// Where it stands.
    pub fn at(&self) -> u32 {
        match self {
            Operand::Name(_, at) | Operand::Not(_, at) | Operand::Value(_, at) | Operand::Vector(_, at) => {
                *at
            }
            Operand::Part(_, _, at) | Operand::Pair(_, _, at) | Operand::Offset(_, _, at) => *at,
            Operand::Address(_, _, at) | Operand::Element(_, _, at) | Operand::List(_, at) => *at,
        }
    }
}
