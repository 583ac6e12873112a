//! A module ready to run: instructions with their registers numbered, functions, variables.

use super::run::Op;
use super::text::Lines;
use super::types::Space;

/// A lowered module.
pub struct Program {
    /// File, or another name of the text.
    pub name: String,
    /// The PTX text.
    pub text: String,
    /// Its lines.
    pub(in crate::ptx) lines: Lines,
    /// Instructions of all functions, one function behind the other.
    pub code: Vec<Op>,
    /// Operands that do not fit an [`Op`].
    pub lists: Vec<u32>,
    /// Functions.
    pub functions: Vec<Function>,
    /// Variables that lie in a device's memory: `.global` and `.const` of module scope.
    pub variables: Vec<Global>,
}

/// A function.
pub struct Function {
    /// Name.
    pub name: String,
    /// True for `.entry`.
    pub entry: bool,
    /// First instruction.
    pub start: u32,
    /// One past the last instruction.
    pub end: u32,
    /// Rows of a frame.
    pub rows: u32,
    /// Predicates of a frame.
    pub preds: u32,
    /// Registers with a value that is known before the first instruction.
    pub constants: Vec<Constant>,
    /// Bytes of local memory of a frame, parameters of calls included.
    pub local_bytes: u32,
    /// Parameters.
    pub params: Vec<Param>,
    /// Bytes of all parameters.
    pub param_bytes: u32,
    /// Where a `.func` finds its return values in its local memory.
    pub returns: Vec<Param>,
    /// Bytes of static shared memory.
    pub shared_bytes: u32,
    /// `.reqntid`.
    pub required_block: Option<[u32; 3]>,
    /// `.maxntid`.
    pub most_threads: Option<[u32; 3]>,
    /// An atomic whose result depends on the order of blocks: the blocks run one after the other.
    pub ordered: bool,
}

/// A parameter of a function.
#[derive(Clone, Debug)]
pub struct Param {
    /// Name.
    pub name: String,
    /// Offset in the parameter bytes (of an entry) or in the frame's local memory (of a `.func`).
    pub offset: u32,
    /// Size in bytes.
    pub bytes: u32,
}

/// A register that is filled when a frame begins.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// First row.
    pub slot: u32,
    /// 64 bits a lane over two rows; else 32 bits.
    pub wide: bool,
    /// What it holds.
    pub value: Value,
}

/// What a constant register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// The same bits in each lane.
    Bits(u64),
    /// Address of variable `0` plus `1` bytes.
    Address(u32, i64),
    /// Address of function `0`, for indirect calls.
    Function(u32),
    /// Address in local memory of byte `0` of the frame.
    Local(i64),
    /// Address in shared memory of byte `0` of the dynamic part.
    Dynamic(i64),
    /// A special register.
    Special(Special),
}

/// Special registers that do not change while a warp runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as in PTX; the number is the axis")]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    Warps,
    Sm,
    Sms,
    GridId,
    Below,
    UpTo,
    Equal,
    From,
    Above,
    DynamicShared,
    TotalShared,
    Zero,
    One,
}

/// A variable of module scope in device memory.
pub struct Global {
    /// Name.
    pub name: String,
    /// `.global` or `.const`.
    pub space: Space,
    /// Size in bytes.
    pub bytes: u64,
    /// Alignment in bytes.
    pub align: u32,
    /// First bytes; the rest is zero.
    pub init: Vec<u8>,
    /// Places in `init` that hold the address of another variable plus bytes: (offset, variable, plus).
    pub relocations: Vec<(u64, u32, i64)>,
    /// True when an initial value was written.
    pub initialised: bool,
}

impl Program {
    /// The entry named so.
    pub fn entry(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.entry && f.name == name)
    }
    /// The line at byte `at` of the source: its number, from 1, and its text.
    pub fn line(&self, at: u32) -> (u32, &str) {
        let (line, column) = self.lines.place(at);
        let start = (at - (column - 1)) as usize;
        let text = self.text.get(start..).unwrap_or_default();
        (line, text.lines().next().unwrap_or_default().trim())
    }
    /// The instruction at byte `at`, with its suffixes and without guard and operands: `ld.global.f32`.
    pub fn opcode(&self, at: u32) -> &str {
        let text = self.text.get(at as usize..).unwrap_or_default();
        let text = match text.strip_prefix('@') {
            Some(guarded) => {
                guarded.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start())
            }
            None => text,
        };
        text.split(|c: char| c.is_whitespace() || c == ';').next().unwrap_or_default()
    }
}
