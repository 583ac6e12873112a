//! Unary elementwise ops: y_i = f(x_i; c0, c1), dx_i = dy_i · f'(…).

use super::super::{AttrDoc, Attrs, Entry, Port, Sample};
use super::{expect_inputs, expect_real};
use crate::error::Result;
use crate::kernel::{Arg, Kernel, Param, Real, Source, par, real_type, take};
use crate::shape::{DType, Spec};
use crate::tape::{Adjoint, Cx, Op};
use crate::tensor::{SmallList, Tensor};
use crate::vectorized;
use std::fmt::Debug;
use std::sync::Arc;

/// What the slope is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// The input.
    Input,
    /// The output: the input's memory can go back to the pool.
    Output,
    /// Neither: the slope is constant.
    Nothing,
}

/// A function of one number with up to two constants.
pub trait Unary: Debug + Copy + Send + Sync + 'static {
    /// Name of the op.
    const NAME: &'static str;
    /// Entries of the forward and the backward kernel.
    const ENTRIES: [&'static str; 2];
    /// What the slope is computed from.
    const KEEPS: Keeps;
    /// About how many nanoseconds a value costs one thread: decides when threads pay.
    const COST: f64 = 0.25;
    /// The constants.
    fn constants(&self) -> [f64; 2] {
        [0.0; 2]
    }
    /// PTX of f and of its slope: instructions that make `%y` from `%x`, `%c0` and `%c1`, with registers of their own, and
    /// the functions of `ptx/math.ptx` to call. None: the op runs on the CPU alone.
    const PTX: Option<[&'static str; 2]> = None;
    /// f(x). Mark it `#[inline(always)]`.
    fn value<T: Real>(x: T, c: [T; 2]) -> T;
    /// f'(x), from what [`Unary::KEEPS`] says. Mark it `#[inline(always)]`.
    fn slope<T: Real>(kept: T, c: [T; 2]) -> T;
}

/// A [`Unary`] function as an [`Op`].
#[derive(Debug, Clone, Copy)]
pub struct Map<U>(pub U);

const INPUTS: &[Port] = &[Port::real("input")];

const fn val(name: &'static str) -> Param {
    Param { name, role: "val", ty: "T" }
}

impl<U: Unary> Map<U> {
    /// The op in the table of ops: one input, one output, these two kernels.
    pub const fn entry(
        doc: &'static str,
        attrs: &'static [AttrDoc],
        build: fn(&Attrs) -> Result<Arc<dyn Op>>,
        samples: fn() -> Vec<Sample>,
    ) -> Entry {
        let kernels = const { &[&Map::<U>::FORWARD, &Map::<U>::BACKWARD] };
        Entry { name: U::NAME, doc, inputs: INPUTS, outputs: &["output"], attrs, build, kernels, samples }
    }

    const SOURCE: Option<&'static Source> = match U::PTX {
        None => None,
        Some([value, slope]) => Some(&Source {
            file: "ptx/elementwise_unary.ptx",
            text: include_str!("../../../ptx/elementwise_unary.ptx"),
            splice: &[
                ("MATH", include_str!("../../../ptx/math.ptx")),
                ("NAME", U::NAME),
                ("FORWARD", U::ENTRIES[0]),
                ("BACKWARD", U::ENTRIES[1]),
                ("VALUE", value),
                ("SLOPE", slope),
            ],
        }),
    };

    /// y = f(x).
    pub const FORWARD: Kernel = Kernel {
        entry: U::ENTRIES[0],
        params: &[
            Param { name: "x", role: "in", ty: "T" },
            Param { name: "y", role: "out", ty: "T" },
            val("c0"),
            val("c1"),
        ],
        cpu: |args| match real_type(U::NAME, args)? {
            DType::F64 => forward::<U, f64>(args),
            _ => forward::<U, f32>(args),
        },
        source: Map::<U>::SOURCE,
        blocks: None,
    };
    /// dx = dy · f', or dx += when `accumulate`.
    pub const BACKWARD: Kernel = Kernel {
        entry: U::ENTRIES[1],
        params: &[
            Param { name: "kept", role: "in", ty: "T" },
            Param { name: "dy", role: "in", ty: "T" },
            Param { name: "dx", role: "out", ty: "T" },
            val("c0"),
            val("c1"),
            Param { name: "accumulate", role: "val", ty: "flag" },
        ],
        cpu: |args| match real_type(U::NAME, args)? {
            DType::F64 => backward::<U, f64>(args),
            _ => backward::<U, f32>(args),
        },
        source: Map::<U>::SOURCE,
        blocks: None,
    };
}

fn forward<U: Unary, T: Real>(args: &mut [Arg<'_>]) -> Result<()> {
    let [x, y, c0, c1] = args else { unreachable!("launch counted the arguments") };
    let e = U::ENTRIES[0];
    let c = [T::of(take::real(c0, e, "c0")?), T::of(take::real(c1, e, "c1")?)];
    values::<U, T>(take::input::<T>(x, e, "x")?, take::output::<T>(y, e, "y")?, c);
    Ok(())
}

/// y_i = f(x_i), in chunks over the threads: the body of [`Map::FORWARD`].
pub fn values<U: Unary, T: Real>(x: &[T], y: &mut [T], c: [T; 2]) {
    let work = (x.len() as f64 * U::COST) as usize;
    par::chunks_mut(y, par::CHUNK, work, |i, y| value_chunk::<U, T>(&x[i * par::CHUNK..][..y.len()], y, c));
}

fn backward<U: Unary, T: Real>(args: &mut [Arg<'_>]) -> Result<()> {
    let [kept, dy, dx, c0, c1, accumulate] = args else { unreachable!("launch counted the arguments") };
    let e = U::ENTRIES[1];
    let (kept, dy) = (take::input::<T>(kept, e, "kept")?, take::input::<T>(dy, e, "dy")?);
    let c = [T::of(take::real(c0, e, "c0")?), T::of(take::real(c1, e, "c1")?)];
    let accumulate = take::flag(accumulate, e, "accumulate")?;
    slopes::<U, T>(kept, dy, take::output::<T>(dx, e, "dx")?, c, accumulate);
    Ok(())
}

/// dx_i = dy_i · f', or dx_i += when `accumulate`, in chunks over the threads: the body of [`Map::BACKWARD`].
pub fn slopes<U: Unary, T: Real>(kept: &[T], dy: &[T], dx: &mut [T], c: [T; 2], accumulate: bool) {
    let work = (dy.len() as f64 * U::COST) as usize;
    par::chunks_mut(dx, par::CHUNK, work, |i, dx| {
        let at = i * par::CHUNK..i * par::CHUNK + dx.len();
        // Where nothing is kept, the slope does not depend on the point: dy stands in for it.
        let kept = if U::KEEPS == Keeps::Nothing { &dy[at.clone()] } else { &kept[at.clone()] };
        slope_chunk::<U, T>(kept, &dy[at], dx, c, accumulate);
    });
}

vectorized! {
    fn value_chunk<U: Unary, T: Real>(x: &[T], y: &mut [T], c: [T; 2]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = U::value(x, c);
        }
    }

    fn slope_chunk<U: Unary, T: Real>(kept: &[T], dy: &[T], dx: &mut [T], c: [T; 2], accumulate: bool) {
        if accumulate {
            for ((dx, &k), &dy) in dx.iter_mut().zip(kept).zip(dy) {
                *dx += dy * U::slope(k, c);
            }
        } else {
            for ((dx, &k), &dy) in dx.iter_mut().zip(kept).zip(dy) {
                *dx = dy * U::slope(k, c);
            }
        }
    }
}

impl<U: Unary> Op for Map<U> {
    fn name(&self) -> &'static str {
        U::NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(U::NAME, x, 1, 1)?;
        expect_real(U::NAME, "input", &x[0])?;
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let [c0, c1] = self.0.constants();
        let mut y = cx.empty(x[0].spec())?;
        let kernel = const { &Map::<U>::FORWARD };
        cx.launch(kernel, &mut [Arg::In(x[0]), Arg::Out(&mut y), Arg::Real(c0), Arg::Real(c1)])?;
        match U::KEEPS {
            Keeps::Input => cx.keep(x[0]),
            Keeps::Output => cx.keep(&y),
            Keeps::Nothing => {}
        }
        Ok(smallvec::smallvec![y])
    }

    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let [c0, c1] = self.0.constants();
        dx[0].write(cx, |cx, out, accumulate| {
            let kept = kept.first().map_or(Arg::Absent, Arg::In);
            let kernel = const { &Map::<U>::BACKWARD };
            let flag = Arg::Flag(accumulate);
            cx.launch(kernel, &mut [kept, Arg::In(dy), Arg::Out(out), Arg::Real(c0), Arg::Real(c1), flag])
        })
    }
}
