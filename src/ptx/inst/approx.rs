//! Approximate functions of f32, and `.approx.ftz.f64`.

use super::float::{flush_result, flushed, saturate_result};
use super::{plain_fun, plain_fun2};
use crate::ptx::float::approx::{self as f, Bound, err};
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Fun1, Fun2, run1, run2};
use crate::ptx::run::{Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// A function twice: as exact as it comes, and with all the error that is documented.
macro_rules! approximated { ($($exact:ident $worst:ident $bound:expr, |$x:ident| $e:expr;)*) => { $(
    plain_fun! { $exact($x: f32) -> f32 = $e as f32; }
    plain_fun! { $worst($x: f32) -> f32 = {
        let y: f64 = $e;
        if y.is_finite() && y != 0.0 { bounded($bound, $x, y) } else { y as f32 }
    }; }
)* } }
/// `y` with its full error, which may not turn it into an infinity.
#[inline(always)]
fn bounded(bound: Bound, x: f32, y: f64) -> f32 {
    let z = err(bound, x, y) as f32;
    if z.is_finite() { z } else { y as f32 }
}
approximated! {
    Rcp RcpWorst f::RCP, |x| 1.0 / f64::from(x);
    Sqrt SqrtWorst f::SQRT, |x| f64::from(x).sqrt();
    Rsqrt RsqrtWorst f::RSQRT, |x| 1.0 / f64::from(x).sqrt();
    Ex2 Ex2Worst f::EX2, |x| f::ex2(x);
    Lg2 Lg2Worst f::LG2, |x| f::lg2(x);
    Sin SinWorst f::SIN, |x| f::sin(x);
    Cos CosWorst f::SIN, |x| f::cos(x);
    Tanh TanhWorst f::TANH, |x| f::tanh(x);
}
plain_fun2! {
    Div(a: f32, b: f32) -> f32 = (f64::from(a) / f64::from(b)) as f32;
    DivWorst(a: f32, b: f32) -> f32 = {
        let y = f64::from(a) / f64::from(b);
        if y.is_finite() && y != 0.0 { bounded(f::DIV, a, y) } else { y as f32 }
    };
}
plain_fun! {
    // The upper 32 bits of the result, the lower ones zero, from the upper 32 bits of the operand.
    Rcp64(a: f64) -> f64 = top(1.0 / top(a));
    Rsqrt64Ftz(a: f64) -> f64 = top(1.0 / top(a).sqrt());
    Rsqrt64(a: f64) -> f64 = 1.0 / a.sqrt();
}
/// The upper half of an f64, with subnormals flushed.
#[inline(always)]
fn top(x: f64) -> f64 {
    if x.abs() < f64::MIN_POSITIVE {
        return 0.0f64.copysign(x);
    }
    if x.is_nan() {
        f64::from_bits(0x7fff_ffff_0000_0000)
    } else {
        f64::from_bits(x.to_bits() & !0xffff_ffff)
    }
}

/// Runs the exact function, or the worst one if the launch asks for it.
fn either<E: Fun1, W: Fun1>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if cx.launch.options.worst { run1::<W>(cx, op) } else { run1::<E>(cx, op) }
}
fn either2<E: Fun2, W: Fun2>(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if cx.launch.options.worst { run2::<W>(cx, op) } else { run2::<E>(cx, op) }
}

/// Lowers an instruction of this family.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    if !i.take("approx") {
        return i.unsupported();
    }
    let flushes = i.take("ftz");
    let ty = i.ty()?;
    let run: Run = match (i.opcode(), ty) {
        ("rcp", Type::F32) => either::<Rcp, RcpWorst>,
        ("sqrt", Type::F32) => either::<Sqrt, SqrtWorst>,
        ("rsqrt", Type::F32) => either::<Rsqrt, RsqrtWorst>,
        ("ex2", Type::F32) => either::<Ex2, Ex2Worst>,
        ("lg2", Type::F32) => either::<Lg2, Lg2Worst>,
        ("sin", Type::F32) => either::<Sin, SinWorst>,
        ("cos", Type::F32) => either::<Cos, CosWorst>,
        ("tanh", Type::F32) => either::<Tanh, TanhWorst>,
        ("rcp", Type::F64) if flushes => run1::<Rcp64>,
        ("rsqrt", Type::F64) if flushes => run1::<Rsqrt64Ftz>,
        ("rsqrt", Type::F64) => run1::<Rsqrt64>,
        _ => return i.unsupported(),
    };
    i.wants(2)?;
    let (y, mut a) = (i.dst(0, ty)?, i.src(1, ty)?);
    let flushes = flushes && ty == Type::F32;
    if flushes {
        a = flushed(i, a);
    }
    i.emit(run, Counts::Special, Slots { y, a, ..Slots::default() });
    if flushes {
        flush_result(i, y);
    }
    Ok(())
}

/// `div.approx` and `div.full`.
pub(super) fn divide(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let _ = i.take("approx") || i.take("full");
    let (flushes, unit) = (i.take("ftz"), i.take("sat"));
    if i.ty()? != Type::F32 {
        return i.unsupported();
    }
    i.wants(3)?;
    let ty = Type::F32;
    let (y, mut a, mut b) = (i.dst(0, ty)?, i.src(1, ty)?, i.src(2, ty)?);
    if flushes {
        (a, b) = (flushed(i, a), flushed(i, b));
    }
    i.emit(either2::<Div, DivWorst>, Counts::Special, Slots { y, a, b, ..Slots::default() });
    if flushes {
        flush_result(i, y);
    }
    if unit {
        saturate_result(i, y, ty);
    }
    Ok(())
}
