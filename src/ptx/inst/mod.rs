//! The instructions: one family a file, each of which takes suffixes and operands from an [`Inst`] and names the function
//! that runs them. Whatever a family does not take is an error that names it.
//!
//! | file | holds |
//! |---|---|
//! | `integer.rs` | arithmetic of integers, with carry |
//! | `bits.rs` | logic, shifts, fields, permutations |
//! | `permute.rs` | bytes picked and truth tables |
//! | `float.rs` | arithmetic of f32 and f64 |
//! | `approx.rs` | approximate functions |
//! | `half.rs` | arithmetic of f16 and bf16, alone and in pairs |
//! | `compare.rs` | `setp`, `set`, `selp`, `slct`, `testp` |
//! | `convert.rs` | `cvt` |
//! | `moves.rs` | `mov`, `cvta`, clocks |
//! | `access.rs` | addresses, spaces and bounds of all accesses |
//! | `memory.rs` | loads and stores |
//! | `atomic.rs` | `atom`, `red` |
//! | `control.rs` | branches, calls, barriers, fences |
//! | `warp.rs` | shuffles, votes, matches, reductions of a warp |
//! | `matrix.rs` | `mma`, `wmma.mma` |
//! | `tile.rs` | types and shapes of tiles |
//! | `usual.rs` | the usual loads and stores, without a look at each lane |
//! | `fragment.rs` | `wmma.load`, `wmma.store` |
//! | `ldmatrix.rs` | `ldmatrix`, `stmatrix`, `movmatrix` |
//! | `copy.rs` | `cp.async` |
//! | `mbarrier.rs` | `mbarrier` |

mod access;
mod approx;
mod atomic;
mod bits;
mod compare;
mod control;
mod convert;
mod copy;
mod float;
mod fragment;
mod half;
mod integer;
mod ldmatrix;
mod matrix;
mod mbarrier;
mod memory;
mod moves;
mod permute;
mod print;
mod tile;
mod usual;
mod warp;

pub(super) use control::exit;
pub(super) use memory::local;
pub(super) use moves::{clock, set_pred};

use super::lower::Inst;
use super::text::Read;
use super::types::{Class, Type};

/// A function of one register, for each type that its bound names.
macro_rules! fun1 { ($($name:ident<$t:ident: $bound:path> -> $y:ty = |$a:ident| $e:expr;)*) => { $(
    struct $name<$t>(std::marker::PhantomData<$t>);
    impl<$t: $bound> crate::ptx::run::row::Fun1 for $name<$t> {
        type A = $t;
        type Y = $y;
        #[inline(always)]
        fn of($a: $t) -> $y { $e }
    }
)* } }
/// A function of two registers of one type.
macro_rules! fun2 { ($($name:ident<$t:ident: $bound:path> = |$a:ident, $b:ident| $e:expr;)*) => { $(
    struct $name<$t>(std::marker::PhantomData<$t>);
    impl<$t: $bound> crate::ptx::run::row::Fun2 for $name<$t> {
        type A = $t;
        type B = $t;
        type Y = $t;
        #[inline(always)]
        fn of($a: $t, $b: $t) -> $t { $e }
    }
)* } }
/// A function of three registers of one type.
macro_rules! fun3 { ($($name:ident<$t:ident: $bound:path> = |$a:ident, $b:ident, $c:ident| $e:expr;)*) => { $(
    struct $name<$t>(std::marker::PhantomData<$t>);
    impl<$t: $bound> crate::ptx::run::row::Fun3 for $name<$t> {
        type A = $t;
        type B = $t;
        type C = $t;
        type Y = $t;
        #[inline(always)]
        fn of($a: $t, $b: $t, $c: $t) -> $t { $e }
    }
)* } }
/// A function of given types: `Name: a: A, b: B => Y = e;`.
macro_rules! plain_fun { ($(
    $name:ident($a:ident: $ta:ty) -> $y:ty = $e:expr;
)*) => { $(
    struct $name;
    impl crate::ptx::run::row::Fun1 for $name {
        type A = $ta;
        type Y = $y;
        #[inline(always)]
        fn of($a: $ta) -> $y { $e }
    }
)* } }
/// A function of two registers of given types.
macro_rules! plain_fun2 { ($( $name:ident($a:ident: $ta:ty, $b:ident: $tb:ty) -> $y:ty = $e:expr; )*) => { $(
    struct $name;
    impl crate::ptx::run::row::Fun2 for $name {
        type A = $ta;
        type B = $tb;
        type Y = $y;
        #[inline(always)]
        fn of($a: $ta, $b: $tb) -> $y { $e }
    }
)* } }
/// A function of three registers of given types.
macro_rules! plain_fun3 { ($( $name:ident($a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty) -> $y:ty = $e:expr; )*) => { $(
    struct $name;
    impl crate::ptx::run::row::Fun3 for $name {
        type A = $ta;
        type B = $tb;
        type C = $tc;
        type Y = $y;
        #[inline(always)]
        fn of($a: $ta, $b: $tb, $c: $tc) -> $y { $e }
    }
)* } }
/// `$run::<$F<t>>` for the integer type `ty`; other types are not supported.
macro_rules! by_int {
    ($i:expr, $ty:expr, $run:ident, $F:ident) => {
        match $ty {
            Type::U16 | Type::B16 => $run::<$F<u16>> as Run,
            Type::S16 => $run::<$F<i16>>,
            Type::U32 | Type::B32 => $run::<$F<u32>>,
            Type::S32 => $run::<$F<i32>>,
            Type::U64 | Type::B64 => $run::<$F<u64>>,
            Type::S64 => $run::<$F<i64>>,
            _ => return $i.unsupported(),
        }
    };
}
use {by_int, fun1, fun2, fun3, plain_fun, plain_fun2, plain_fun3};

/// Lowers an instruction.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    match i.opcode() {
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "abs" | "neg" | "min" | "max" => numeric(i),
        "vabsdiff4" => integer::absolute_differences(i),
        "addc" | "subc" | "madc" | "mul24" | "mad24" | "sad" | "dp4a" | "dp2a" => integer::lower(i),
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "shl" | "shr" | "shf" | "bfe" | "bfi" | "bfind"
        | "brev" | "clz" | "popc" | "prmt" | "szext" | "bmsk" | "fns" => bits::lower(i),
        "rcp" | "sqrt" | "copysign" if !approximate(i) => float::lower(i),
        "copysign" => float::lower(i),
        "ex2" | "tanh" if i.peek().is_some_and(is_half) => half::lower(i),
        "atom" | "red" => atomic::lower(i),
        "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => warp::lower(i),
        "cvt" => convert::lower(i),
        "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => approx::lower(i),
        "setp" | "set" | "selp" | "slct" | "testp" => compare::lower(i),
        "mov" | "cvta" | "isspacep" => moves::lower(i),
        "ld" | "ldu" | "st" | "prefetch" | "prefetchu" | "discard" | "applypriority" => memory::lower(i),
        "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" | "bar" | "barrier" | "membar"
        | "fence" | "nanosleep" | "alloca" | "griddepcontrol" | "setmaxnreg" => control::lower(i),
        "mma" => matrix::lower(i),
        "wmma" if i.suffixed("mma") => matrix::lower(i),
        "wmma" => fragment::lower(i),
        "ldmatrix" | "stmatrix" | "movmatrix" => ldmatrix::lower(i),
        "cp" => copy::lower(i),
        "mbarrier" => mbarrier::lower(i),
        _ => i.unsupported(),
    }
}

fn is_half(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2)
}

fn approximate(i: &mut Inst<'_, '_, '_>) -> bool {
    i.whole().contains(".approx")
}

/// Opcodes that mean different arithmetic for different types.
fn numeric(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    match i.peek() {
        Some(Type::F32 | Type::F64) if i.opcode() == "div" => float::div(i),
        Some(Type::F32 | Type::F64) => float::lower(i),
        Some(t) if is_half(t) => half::lower(i),
        Some(t) if matches!(t.class(), Class::Signed | Class::Unsigned) => integer::lower(i),
        _ => i.unsupported(),
    }
}
