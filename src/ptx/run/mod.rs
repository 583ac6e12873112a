//! The executor: warps of 32 lanes kept as structure of arrays, blocks over the thread pool.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Op`], what an instruction is when it runs, and [`Cx`], what it may touch |
//! | `row.rs` | registers of a warp, and the loops over lanes |
//! | `warp.rs` | lanes that went apart and come together again |
//! | `copies.rs` | copies under way to shared memory |
//! | `calls.rs` | frames of calls |
//! | `constants.rs` | registers that are filled when a frame begins |
//! | `steps.rs` | the loop that runs instructions |
//! | `block.rs` | warps of a block, barriers |
//! | `launch.rs` | blocks of a grid over the thread pool |
//! | `memory.rs` | memory of a device |
//! | `loaded.rs` | a program's variables in that memory |
//! | `spaces.rs` | shared and local memory, and where the spaces lie in the 64-bit address space |
//! | `watch.rs` | what watches a launch |
//! | `fault.rs` | what a kernel did wrong, and where |

mod block;
mod calls;
mod constants;
pub mod copies;
pub mod fault;
mod launch;
mod loaded;
pub mod memory;
pub mod row;
pub mod spaces;
mod steps;
mod warp;
mod watch;

pub use fault::{Fault, FaultKind};
pub use launch::{Launch, Options, Report, launch};
pub use loaded::Loaded;
pub use memory::Memory;
pub use row::{LANES, Row};
pub use watch::{Access, AccessKind, Event, Watch, Watchers, Words};

use super::program::{Function, Program};
use block::Shared;
use copies::Copies;
use spaces::Local;

/// What happens after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next one.
    Next,
    /// All active lanes go to this place in the code.
    Jump(u32),
    /// Active lanes go to the places in `Cx::targets`, one each.
    Scatter,
    /// The active lanes are done.
    Exit,
    /// Active lanes call the functions in `Cx::targets`.
    Call,
    /// The active lanes return.
    Return,
    /// The active lanes wait at the barrier in `Cx::barrier`.
    Barrier,
    /// More lanes must come here first.
    Gather,
    /// The next one, after other lanes and warps had their turn.
    Yield,
    /// `Cx::fault` says what went wrong.
    Fault,
}

/// The body of an instruction: all active lanes at once.
pub type Run = fn(&mut Cx<'_>, &Op) -> Flow;

/// An instruction, ready to run. What its fields mean is a matter between the lowering that fills them and `run`.
#[derive(Clone, Copy)]
pub struct Op {
    /// The body.
    pub run: Run,
    /// Register that is written.
    pub y: u32,
    /// First operand.
    pub a: u32,
    /// Second operand.
    pub b: u32,
    /// Third operand.
    pub c: u32,
    /// Start in `Program::lists`, for more operands than three.
    pub list: u32,
    /// An immediate: an offset, a target, a mode.
    pub imm: u64,
    /// Guard: 0 runs always, else predicate `guard / 2 - 1`, negated when odd.
    pub guard: u32,
    /// Byte of the source at which it stands.
    pub at: u32,
    /// What it counts as.
    pub class: Counts,
}

impl Op {
    /// What ends a function whose text has no `ret`.
    pub fn exit(entry: bool, at: u32) -> Op {
        let (run, class) = (super::inst::exit(entry), Counts::Control);
        Op { run, y: 0, a: 0, b: 0, c: 0, list: 0, imm: 0, guard: 0, at, class }
    }
}

/// Classes of instructions, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Counts {
    /// Integer and logic.
    Integer,
    /// f32.
    Float,
    /// f32 fused multiply-add.
    Fma,
    /// f64.
    Double,
    /// f64 fused multiply-add.
    DoubleFma,
    /// f16 and bf16.
    Half,
    /// Approximate functions.
    Special,
    /// Conversions and moves.
    Move,
    /// Matrix products.
    Matrix,
    /// Loads and stores.
    Memory,
    /// Atomics.
    Atomic,
    /// Branches, calls, exits.
    Control,
    /// Barriers and fences.
    Sync,
    /// Shuffles and votes.
    Warp,
}

impl Counts {
    /// All, in the order of their numbers, with their names.
    pub const ALL: [&str; 14] = [
        "integer",
        "f32",
        "f32 fma",
        "f64",
        "f64 fma",
        "f16 and bf16",
        "special functions",
        "moves and conversions",
        "matrix products",
        "loads and stores",
        "atomics",
        "control",
        "barriers and fences",
        "shuffles and votes",
    ];
    /// Its name.
    pub fn name(self) -> &'static str {
        Counts::ALL[self as usize]
    }
}

/// Which block and warp is running.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Block index in the grid.
    pub block: [u32; 3],
    /// Index of the warp in its block.
    pub warp: u32,
}

/// What an instruction may touch: the registers of its warp's current frame, and memory.
pub struct Cx<'a> {
    /// Registers of the frame.
    pub rows: &'a mut [Row],
    /// Predicates of the frame, a bit a lane.
    pub preds: &'a mut [u32],
    /// Lanes for which the instruction runs.
    pub mask: u32,
    /// Lanes of the warp that have not exited.
    pub live: u32,
    /// Lanes with which the warp began.
    pub began: u32,
    /// Local memory of the warp.
    pub local: &'a mut Local,
    /// Where the frame's local variables begin.
    pub local_base: u32,
    /// Shared memory of the block.
    pub shared: &'a mut Shared,
    /// Copies of the warp that it has not waited for.
    pub copies: &'a mut Copies,
    /// The launch.
    pub launch: &'a Launch<'a>,
    /// Which block and warp this is.
    pub place: Place,
    /// Watcher of the block, when the launch checks or counts.
    pub watch: Option<&'a mut (dyn Watch + 'static)>,
    /// Warp-instructions that this block has run.
    pub clock: u64,
    /// Where [`Flow::Scatter`] leads, and the functions of [`Flow::Call`].
    pub targets: [u32; LANES],
    /// Barrier of [`Flow::Barrier`].
    pub barrier: Wait,
    /// What went wrong, after [`Flow::Fault`].
    pub fault: Option<Box<Fault>>,
    /// Set by a barrier that reduces, when it has been passed: (lanes that were true, threads that came).
    pub reduced: (u32, u32),
    /// True on the second run of an instruction that waited at a barrier.
    pub resumed: bool,
}

/// A wait at a barrier of the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Barrier 0 … 15.
    pub id: u32,
    /// Threads that must come, 0 for all of the block.
    pub threads: u32,
    /// `.arrive`: does not wait.
    pub arrive: bool,
    /// `.aligned`, as `bar.sync` is: the whole warp must come at once.
    pub aligned: bool,
    /// Lanes whose predicate held, for `.red`.
    pub holds: u32,
}

impl Cx<'_> {
    /// Stops the block with this fault.
    #[cold]
    pub fn fail(&mut self, op: &Op, kind: FaultKind, lane: usize, address: u64, what: String) -> Flow {
        self.fault = Some(Box::new(self.found(op, kind, lane, address, what)));
        Flow::Fault
    }
    /// A fault of `lane` at `op`.
    #[cold]
    pub fn found(&self, op: &Op, kind: FaultKind, lane: usize, address: u64, what: String) -> Fault {
        Fault::new(self.launch, self.place, op.at, kind, lane, address, what)
    }
    /// Writes a predicate in the active lanes.
    #[inline(always)]
    pub fn set_pred(&mut self, p: u32, lanes: u32) {
        let p = &mut self.preds[p as usize];
        *p = *p & !self.mask | lanes & self.mask;
    }
    /// The program.
    pub fn program(&self) -> &Program {
        self.launch.program
    }
    /// Operand `i` of the op's list.
    #[inline(always)]
    pub fn listed(&self, op: &Op, i: usize) -> usize {
        self.launch.program.lists[op.list as usize + i] as usize
    }
    /// The entry that runs.
    pub fn entry(&self) -> &Function {
        self.launch.entry
    }
}
