//! Registers of a warp: a row of 32 lanes each, and the loops over lanes that all arithmetic shares.
//!
//! A 32-bit register is one row. A 64-bit register is two rows, read as 32 lanes of 64 bits. Narrower values lie in a
//! 32-bit row, zero-extended. A predicate is a mask of 32 bits, kept in lane 0 of a row of its own kind (see `Cx::preds`).

use super::Cx;
use crate::vectorized;
use bytemuck::{Pod, Zeroable};

/// Lanes of a warp.
pub const LANES: usize = 32;

/// One 32-bit register of every lane.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(128))]
pub struct Row(pub [u32; LANES]);

/// How the bits of a register are read.
pub trait Lane: Copy + 'static {
    /// Bits as they lie in a row: `u32`, or `u64` for two rows.
    type Bits: Bits;
    /// Value of bits.
    fn of(bits: Self::Bits) -> Self;
    /// Bits of a value.
    fn bits(self) -> Self::Bits;
}

/// `u32` or `u64`: what one lane of a register holds.
pub trait Bits: Pod + Default {
    /// Rows of such a register.
    const ROWS: usize;
    /// The lanes of register `slot`.
    fn read(rows: &[Row], slot: usize) -> &[Self; LANES];
    /// The lanes of register `slot`, to be written.
    fn write(rows: &mut [Row], slot: usize) -> &mut [Self; LANES];
}

impl Bits for u32 {
    const ROWS: usize = 1;
    #[inline(always)]
    fn read(rows: &[Row], slot: usize) -> &[u32; LANES] {
        &rows[slot].0
    }
    #[inline(always)]
    fn write(rows: &mut [Row], slot: usize) -> &mut [u32; LANES] {
        &mut rows[slot].0
    }
}

impl Bits for u64 {
    const ROWS: usize = 2;
    #[inline(always)]
    fn read(rows: &[Row], slot: usize) -> &[u64; LANES] {
        let pair: &[Row; 2] = rows[slot..slot + 2].try_into().expect("two rows");
        bytemuck::cast_ref(pair)
    }
    #[inline(always)]
    fn write(rows: &mut [Row], slot: usize) -> &mut [u64; LANES] {
        let pair: &mut [Row; 2] = (&mut rows[slot..slot + 2]).try_into().expect("two rows");
        bytemuck::cast_mut(pair)
    }
}

macro_rules! lanes { ($($t:ty : $b:ty = |$x:ident| $of:expr, $bits:expr;)*) => { $(
    impl Lane for $t {
        type Bits = $b;
        #[inline(always)]
        fn of($x: $b) -> $t { $of }
        #[inline(always)]
        fn bits(self) -> $b { let $x = self; $bits }
    }
)* } }
lanes! {
    u32: u32 = |x| x, x;
    i32: u32 = |x| x as i32, x as u32;
    u16: u32 = |x| x as u16, u32::from(x);
    i16: u32 = |x| x as u16 as i16, u32::from(x as u16);
    u8: u32 = |x| x as u8, u32::from(x);
    i8: u32 = |x| x as u8 as i8, u32::from(x as u8);
    f32: u32 = |x| f32::from_bits(x), x.to_bits();
    u64: u64 = |x| x, x;
    i64: u64 = |x| x as i64, x as u64;
    f64: u64 = |x| f64::from_bits(x), x.to_bits();
    half::f16: u32 = |x| half::f16::from_bits(x as u16), u32::from(x.to_bits());
    half::bf16: u32 = |x| half::bf16::from_bits(x as u16), u32::from(x.to_bits());
    [half::f16; 2]: u32 = |x| [half::f16::from_bits(x as u16), half::f16::from_bits((x >> 16) as u16)],
        u32::from(x[0].to_bits()) | u32::from(x[1].to_bits()) << 16;
    [half::bf16; 2]: u32 = |x| [half::bf16::from_bits(x as u16), half::bf16::from_bits((x >> 16) as u16)],
        u32::from(x[0].to_bits()) | u32::from(x[1].to_bits()) << 16;
}

/// A function of one register.
pub trait Fun1: 'static {
    /// Operand.
    type A: Lane;
    /// Result.
    type Y: Lane;
    /// y of one lane. Mark it `#[inline(always)]`.
    fn of(a: Self::A) -> Self::Y;
}

/// A function of two registers.
pub trait Fun2: 'static {
    /// First operand.
    type A: Lane;
    /// Second operand.
    type B: Lane;
    /// Result.
    type Y: Lane;
    /// y of one lane. Mark it `#[inline(always)]`.
    fn of(a: Self::A, b: Self::B) -> Self::Y;
}

/// A function of three registers.
pub trait Fun3: 'static {
    /// First operand.
    type A: Lane;
    /// Second operand.
    type B: Lane;
    /// Third operand.
    type C: Lane;
    /// Result.
    type Y: Lane;
    /// y of one lane. Mark it `#[inline(always)]`.
    fn of(a: Self::A, b: Self::B, c: Self::C) -> Self::Y;
}

/// A relation of two registers, for predicates.
pub trait Test2: 'static {
    /// Operands.
    type A: Lane;
    /// Whether it holds in one lane. Mark it `#[inline(always)]`.
    fn of(a: Self::A, b: Self::A) -> bool;
}

/// Writes `y` to the active lanes of register `slot`.
#[inline(always)]
pub fn put<B: Bits>(rows: &mut [Row], slot: usize, y: [B; LANES], mask: u32) {
    let out = B::write(rows, slot);
    if mask == u32::MAX {
        *out = y;
    } else {
        for i in 0..LANES {
            out[i] = if mask >> i & 1 == 1 { y[i] } else { out[i] };
        }
    }
}

vectorized! {
    fn lanes1<F: Fun1>(rows: &mut [Row], y: usize, a: usize, mask: u32) {
        let a = <F::A as Lane>::Bits::read(rows, a);
        let mut v = [<F::Y as Lane>::Bits::default(); LANES];
        for i in 0..LANES {
            v[i] = F::of(F::A::of(a[i])).bits();
        }
        put(rows, y, v, mask);
    }

    fn lanes2<F: Fun2>(rows: &mut [Row], y: usize, a: usize, b: usize, mask: u32) {
        let (a, b) = (<F::A as Lane>::Bits::read(rows, a), <F::B as Lane>::Bits::read(rows, b));
        let mut v = [<F::Y as Lane>::Bits::default(); LANES];
        for i in 0..LANES {
            v[i] = F::of(F::A::of(a[i]), F::B::of(b[i])).bits();
        }
        put(rows, y, v, mask);
    }

    fn lanes3<F: Fun3>(rows: &mut [Row], y: usize, a: usize, b: usize, c: usize, mask: u32) {
        let (a, b) = (<F::A as Lane>::Bits::read(rows, a), <F::B as Lane>::Bits::read(rows, b));
        let c = <F::C as Lane>::Bits::read(rows, c);
        let mut v = [<F::Y as Lane>::Bits::default(); LANES];
        for i in 0..LANES {
            v[i] = F::of(F::A::of(a[i]), F::B::of(b[i]), F::C::of(c[i])).bits();
        }
        put(rows, y, v, mask);
    }

    fn holds<F: Test2>(rows: &[Row], a: usize, b: usize) -> u32 {
        let (a, b) = (<F::A as Lane>::Bits::read(rows, a), <F::A as Lane>::Bits::read(rows, b));
        let mut found = 0;
        for i in 0..LANES {
            found |= u32::from(F::of(F::A::of(a[i]), F::A::of(b[i]))) << i;
        }
        found
    }
}

/// `y = f(a)` in the active lanes.
pub fn run1<F: Fun1>(cx: &mut Cx<'_>, op: &super::Op) -> super::Flow {
    lanes1::<F>(cx.rows, op.y as usize, op.a as usize, cx.mask);
    super::Flow::Next
}

/// `y = f(a, b)` in the active lanes.
pub fn run2<F: Fun2>(cx: &mut Cx<'_>, op: &super::Op) -> super::Flow {
    lanes2::<F>(cx.rows, op.y as usize, op.a as usize, op.b as usize, cx.mask);
    super::Flow::Next
}

/// `y = f(a, b, c)` in the active lanes.
pub fn run3<F: Fun3>(cx: &mut Cx<'_>, op: &super::Op) -> super::Flow {
    lanes3::<F>(cx.rows, op.y as usize, op.a as usize, op.b as usize, op.c as usize, cx.mask);
    super::Flow::Next
}

/// The lanes in which `f(a, b)` holds, active or not.
pub fn test2<F: Test2>(cx: &Cx<'_>, op: &super::Op) -> u32 {
    holds::<F>(cx.rows, op.a as usize, op.b as usize)
}
