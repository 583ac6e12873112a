//! Binary elementwise ops with NumPy broadcasting: y = f(a, b), da = dy·∂f/∂a, db = dy·∂f/∂b, each summed over the axes
//! along which its operand was stretched.

use super::super::axes;
use super::{Plan, expect_inputs, expect_real, walk};
use crate::error::{Error, Result};
use crate::kernel::{Arg, Kernel, Param, Real, Source, par, real_type, take};
use crate::shape::{DType, Shape, Spec};
use crate::tape::{Adjoint, Cx, Op};
use crate::tensor::{SmallList, Tensor};
use crate::vectorized;
use std::fmt::Debug;

/// A function of two numbers.
pub trait Binary: Debug + Copy + Send + Sync + 'static {
    /// Name of the op.
    const NAME: &'static str;
    /// Entries of the forward kernel and of the kernels of both gradients.
    const ENTRIES: [&'static str; 3];
    /// ∂f/∂a and ∂f/∂b where both are the same number everywhere (add, sub): nothing is kept then.
    const CONSTANT: Option<[f64; 2]> = None;
    /// PTX of f, ∂f/∂a and ∂f/∂b: instructions that make `%y` from `%x` (of a) and `%z` (of b), with registers of their own.
    /// None: the op runs on the CPU alone.
    const PTX: Option<[&'static str; 3]> = None;
    /// f(a, b). Mark it `#[inline(always)]`.
    fn value<T: Real>(a: T, b: T) -> T;
    /// ∂f/∂a and ∂f/∂b at (a, b). Mark it `#[inline(always)]`.
    fn slopes<T: Real>(a: T, b: T) -> [T; 2];
}

/// A [`Binary`] function as an [`Op`].
#[derive(Debug, Clone, Copy)]
pub struct Zip<B>(pub B);

const fn param(name: &'static str, role: &'static str, ty: &'static str) -> Param {
    Param { name, role, ty }
}

impl<B: Binary> Zip<B> {
    const SOURCE: Option<&'static Source> = match B::PTX {
        None => None,
        Some([value, slope_a, slope_b]) => Some(&Source {
            file: "ptx/elementwise_binary.ptx",
            text: include_str!("../../../ptx/elementwise_binary.ptx"),
            splice: &[
                ("NAME", B::NAME),
                ("FORWARD", B::ENTRIES[0]),
                ("BACKWARD_A", B::ENTRIES[1]),
                ("BACKWARD_B", B::ENTRIES[2]),
                ("VALUE", value),
                ("SLOPE_A", slope_a),
                ("SLOPE_B", slope_b),
            ],
        }),
    };

    /// y, row-major over `dims`, = f of the elements of a and b at Σ index·`a_steps` and Σ index·`b_steps`.
    pub const FORWARD: Kernel = Kernel {
        entry: B::ENTRIES[0],
        params: &[
            param("a", "in", "T"),
            param("b", "in", "T"),
            param("y", "out", "T"),
            param("dims", "val", "dims"),
            param("a_steps", "val", "dims"),
            param("b_steps", "val", "dims"),
        ],
        cpu: |args| match real_type(B::NAME, args)? {
            DType::F64 => forward::<B, f64>(args),
            _ => forward::<B, f32>(args),
        },
        source: Zip::<B>::SOURCE,
        blocks: None,
    };
    /// The gradient of a, before it is summed over stretched axes.
    pub const BACKWARD_A: Kernel = Zip::<B>::backward_kernel(1, |args| match real_type(B::NAME, args)? {
        DType::F64 => backward::<B, Input, f64>(args),
        _ => backward::<B, Input, f32>(args),
    });
    /// The gradient of b, before it is summed over stretched axes.
    pub const BACKWARD_B: Kernel = Zip::<B>::backward_kernel(2, |args| match real_type(B::NAME, args)? {
        DType::F64 => backward::<B, Other, f64>(args),
        _ => backward::<B, Other, f32>(args),
    });

    const fn backward_kernel(which: usize, cpu: fn(&mut [Arg<'_>]) -> Result<()>) -> Kernel {
        const PARAMS: &[Param] = &[
            param("a", "in", "T"),
            param("b", "in", "T"),
            param("dy", "in", "T"),
            param("d", "out", "T"),
            param("dims", "val", "dims"),
            param("a_steps", "val", "dims"),
            param("b_steps", "val", "dims"),
            param("accumulate", "val", "flag"),
        ];
        Kernel { entry: B::ENTRIES[which], params: PARAMS, cpu, source: Zip::<B>::SOURCE, blocks: None }
    }
}

fn forward<B: Binary, T: Real>(args: &mut [Arg<'_>]) -> Result<()> {
    let [a, b, y, dims, a_steps, b_steps] = args else { unreachable!("launch counted the arguments") };
    let e = B::ENTRIES[0];
    let (a, b) = (take::input::<T>(a, e, "a")?, take::input::<T>(b, e, "b")?);
    let dims = take::dims(dims, e, "dims")?;
    let (sa, sb) = (take::dims(a_steps, e, "a_steps")?, take::dims(b_steps, e, "b_steps")?);
    let (la, lb) = (sa[sa.len() - 1], sb[sb.len() - 1]);
    let y = take::output::<T>(y, e, "y")?;
    par::chunks_mut(y, par::CHUNK, y_work(y.len()), |i, y| {
        let start = i * par::CHUNK;
        walk(start..start + y.len(), dims, [sa, sb], |at, [ia, ib], n| {
            value_run::<B, T>(&a[ia..], la, &b[ib..], lb, &mut y[at..at + n]);
        });
    });
    Ok(())
}

/// Which operand a gradient is for, as a type, so that each loop is compiled for one.
trait Side {
    const INDEX: usize;
}
struct Input;
struct Other;
impl Side for Input {
    const INDEX: usize = 0;
}
impl Side for Other {
    const INDEX: usize = 1;
}

fn backward<B: Binary, S: Side, T: Real>(args: &mut [Arg<'_>]) -> Result<()> {
    let [a, b, dy, d, dims, a_steps, b_steps, accumulate] = args else {
        unreachable!("launch counted the arguments")
    };
    let e = B::ENTRIES[1 + S::INDEX];
    let (a, b) = (take::input::<T>(a, e, "a")?, take::input::<T>(b, e, "b")?);
    let dy = take::input::<T>(dy, e, "dy")?;
    let dims = take::dims(dims, e, "dims")?;
    let (sa, sb) = (take::dims(a_steps, e, "a_steps")?, take::dims(b_steps, e, "b_steps")?);
    let (la, lb) = (sa[sa.len() - 1], sb[sb.len() - 1]);
    let add = take::flag(accumulate, e, "accumulate")?;
    let d = take::output::<T>(d, e, "d")?;
    par::chunks_mut(d, par::CHUNK, y_work(dy.len()), |i, d| {
        let start = i * par::CHUNK;
        walk(start..start + d.len(), dims, [sa, sb], |at, [ia, ib], n| {
            let dy = &dy[start + at..][..n];
            slope_run::<B, S, T>(&a[ia..], la, &b[ib..], lb, dy, &mut d[at..at + n], add);
        });
    });
    Ok(())
}

fn y_work(n: usize) -> usize {
    n / 3
}

vectorized! {
    fn value_run<B: Binary, T: Real>(a: &[T], a_step: usize, b: &[T], b_step: usize, y: &mut [T]) {
        match (a_step, b_step) {
            (1, 1) => y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = B::value(a, b)),
            (1, _) => y.iter_mut().zip(a).for_each(|(y, &a)| *y = B::value(a, b[0])),
            (_, 1) => y.iter_mut().zip(b).for_each(|(y, &b)| *y = B::value(a[0], b)),
            _ => y.fill(B::value(a[0], b[0])),
        }
    }

    fn slope_run<B: Binary, S: Side, T: Real>(
        a: &[T], a_step: usize, b: &[T], b_step: usize, dy: &[T], d: &mut [T], add: bool,
    ) {
        let (n, i) = (d.len(), S::INDEX);
        match (a_step, b_step) {
            (1, 1) => {
                let (a, b) = (&a[..n], &b[..n]);
                put(d, dy, add, |j| B::slopes(a[j], b[j])[i]);
            }
            (1, _) => {
                let (a, b) = (&a[..n], b[0]);
                put(d, dy, add, |j| B::slopes(a[j], b)[i]);
            }
            (_, 1) => {
                let (a, b) = (a[0], &b[..n]);
                put(d, dy, add, |j| B::slopes(a, b[j])[i]);
            }
            _ => {
                let slope = B::slopes(a[0], b[0])[i];
                put(d, dy, add, |_| slope);
            }
        }
    }
}

/// d_j = dy_j · slope(j), or d_j += when `add`. The branch is outside the loops: inside, it kept them from becoming vectors.
#[inline(always)]
fn put<T: Real>(d: &mut [T], dy: &[T], add: bool, slope: impl Fn(usize) -> T) {
    let dy = &dy[..d.len()];
    if add {
        for j in 0..d.len() {
            d[j] += dy[j] * slope(j);
        }
    } else {
        for j in 0..d.len() {
            d[j] = dy[j] * slope(j);
        }
    }
}

impl<B: Binary> Op for Zip<B> {
    fn name(&self) -> &'static str {
        B::NAME
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs(B::NAME, x, 2, 2)?;
        expect_real(B::NAME, "input", &x[0])?;
        if x[1].dtype != x[0].dtype {
            return Err(Error::dtype(B::NAME, format!("input is {} but other is {}", x[0], x[1])));
        }
        Ok(smallvec::smallvec![x[0].with_shape(Shape::broadcast(B::NAME, x[0].shape, x[1].shape)?)])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let out = Shape::broadcast(B::NAME, x[0].shape(), x[1].shape())?;
        let mut y = cx.empty(x[0].spec().with_shape(out))?;
        let plan = Plan::new([&x[0].shape(), &x[1].shape()], &out);
        let (dims, sa, sb) = (plan.dims(), plan.steps(0), plan.steps(1));
        let kernel = const { &Zip::<B>::FORWARD };
        cx.launch(kernel, &mut [Arg::In(x[0]), Arg::In(x[1]), Arg::Out(&mut y), dims, sa, sb])?;
        if B::CONSTANT.is_none() {
            cx.keep(x[0]);
            cx.keep(x[1]);
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
        for side in (0..2).filter(|&s| dx[s].wanted()).collect::<SmallList<usize>>() {
            let full = dx[side].spec().shape == dy.shape();
            if let Some(slopes) = B::CONSTANT {
                constant(cx, dy, slopes[side], full, &mut dx[side])?;
                continue;
            }
            let (a, b) = (&kept[0], &kept[1]);
            let plan = Plan::new([&a.shape(), &b.shape()], &dy.shape());
            let kernel =
                if side == 0 { const { &Zip::<B>::BACKWARD_A } } else { const { &Zip::<B>::BACKWARD_B } };
            let run = |cx: &Cx<'_>, out: &mut Tensor, add: bool| {
                let (dims, sa, sb) = (plan.dims(), plan.steps(0), plan.steps(1));
                let flag = Arg::Flag(add);
                cx.launch(
                    kernel,
                    &mut [Arg::In(a), Arg::In(b), Arg::In(dy), Arg::Out(out), dims, sa, sb, flag],
                )
            };
            if full {
                dx[side].write(cx, run)?;
            } else {
                let mut wide = cx.empty(dy.spec())?;
                run(cx, &mut wide, false)?;
                axes::sum_to(cx, &wide, 1.0, &mut dx[side])?;
            }
        }
        Ok(())
    }
}

/// The gradient where the slope is the same number everywhere: dy itself, dy scaled, or a sum of either.
fn constant(cx: &Cx<'_>, dy: &Tensor, slope: f64, full: bool, dx: &mut Adjoint) -> Result<()> {
    if !full {
        return axes::sum_to(cx, dy, slope, dx);
    }
    if slope == 1.0 {
        return dx.add(cx, dy.clone());
    }
    dx.write(cx, |cx, out, add| {
        let args = &mut [Arg::In(dy), Arg::Out(out), Arg::Real(slope), Arg::Flag(add)];
        cx.launch(&crate::kernel::basic::SCALE, args)
    })
}
