//! pow: y = x^e for a constant exponent e;  dx = dy · e·x^(e−1), and 0 everywhere for e = 0.
//!
//! Cost: one pass over x and y forward, over x, dy and dx backward. The exponents −1, 0, 1/2, 1, 2, 3 and 4 are products,
//! quotients or a root; any other calls the power function once a number each way.

use super::elementwise::{Keeps, Unary, expect_inputs, expect_real, slopes, values};
use super::{AttrDoc, Entry, Fill, Kind, Port, Sample};
use crate::error::Result;
use crate::kernel;
use crate::kernel::{Arg, Real};
use crate::shape::Spec;
use crate::tape::{Adjoint, Cx, Op, Var};
use crate::tensor::{SmallList, Tensor};
use std::sync::Arc;

kernel! {
    ptx "pow";
    /// y = x^exponent.
    pub static FORWARD = pow_forward(x: in T, y: out T, exponent: val T);
    /// dx = dy · exponent · x^(exponent − 1), or dx += when `accumulate`.
    pub static BACKWARD = pow_backward(x: in T, dy: in T, dx: out T, exponent: val T, accumulate: val flag);
}

fn pow_forward<T: Real>(x: &[T], y: &mut [T], exponent: T) {
    let c = [exponent, exponent - T::ONE];
    match exponent.f64() {
        -1.0 => values::<Reciprocal, T>(x, y, c),
        0.0 => values::<Whole<0>, T>(x, y, c),
        0.5 => values::<Root, T>(x, y, c),
        1.0 => values::<Whole<1>, T>(x, y, c),
        2.0 => values::<Whole<2>, T>(x, y, c),
        3.0 => values::<Whole<3>, T>(x, y, c),
        4.0 => values::<Whole<4>, T>(x, y, c),
        _ => values::<Any, T>(x, y, c),
    }
}

fn pow_backward<T: Real>(x: &[T], dy: &[T], dx: &mut [T], exponent: T, accumulate: bool) {
    let c = [exponent, exponent - T::ONE];
    match exponent.f64() {
        -1.0 => slopes::<Reciprocal, T>(x, dy, dx, c, accumulate),
        0.0 => slopes::<Whole<0>, T>(x, dy, dx, c, accumulate),
        0.5 => slopes::<Root, T>(x, dy, dx, c, accumulate),
        1.0 => slopes::<Whole<1>, T>(x, dy, dx, c, accumulate),
        2.0 => slopes::<Whole<2>, T>(x, dy, dx, c, accumulate),
        3.0 => slopes::<Whole<3>, T>(x, dy, dx, c, accumulate),
        4.0 => slopes::<Whole<4>, T>(x, dy, dx, c, accumulate),
        _ => slopes::<Any, T>(x, dy, dx, c, accumulate),
    }
}

/// One way to compute a power: constants are [e, e − 1].
macro_rules! power {
    ($(#[$doc:meta])* $name:ident $(<const $n:ident>)?, $cost:expr, |$x:ident, $c:ident| $value:expr, $slope:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        struct $name $(<const $n: u32>)?;

        impl $(<const $n: u32>)? Unary for $name $(<$n>)? {
            const NAME: &'static str = "pow";
            const ENTRIES: [&'static str; 2] = ["pow_forward", "pow_backward"];
            const KEEPS: Keeps = Keeps::Input;
            const COST: f64 = $cost;
            #[inline(always)]
            fn value<T: Real>($x: T, $c: [T; 2]) -> T {
                let _ = $c;
                $value
            }
            #[inline(always)]
            fn slope<T: Real>($x: T, $c: [T; 2]) -> T {
                let _ = $c;
                $slope
            }
        }
    };
}

power!(
    /// 1/x.
    Reciprocal, 0.25, |x, c| T::ONE / x, -(T::ONE / (x * x))
);
power!(
    /// √x.
    Root, 0.25, |x, c| x.sqrt(), T::of(0.5) / x.sqrt()
);
power!(
    /// x^N as a product.
    Whole<const N>, 0.25, |x, c| product(x, N), if N == 0 { T::ZERO } else { c[0] * product(x, N - 1) }
);
power!(
    /// Any exponent.
    Any, 20.0, |x, c| x.powf(c[0]), c[0] * x.powf(c[1])
);

/// x^n for the small n of [`Whole`], where the compiler unrolls the loop; 1 for n = 0, also for NaN, as IEEE 754 has it.
#[inline(always)]
fn product<T: Real>(x: T, n: u32) -> T {
    let mut y = T::ONE;
    for i in 0..n {
        y = if i == 0 { x } else { y * x };
    }
    y
}

/// y = x^exponent.
#[derive(Debug, Clone, Copy)]
pub struct Pow {
    /// The exponent.
    pub exponent: f64,
}

impl Op for Pow {
    fn name(&self) -> &'static str {
        "pow"
    }

    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        expect_inputs("pow", x, 1, 1)?;
        expect_real("pow", "input", &x[0])?;
        Ok(smallvec::smallvec![x[0]])
    }

    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let mut y = cx.empty(x[0].spec())?;
        cx.launch(&FORWARD, &mut [Arg::In(x[0]), Arg::Out(&mut y), Arg::Real(self.exponent)])?;
        cx.keep(x[0]);
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
        dx[0].write(cx, |cx, out, accumulate| {
            let (exponent, flag) = (Arg::Real(self.exponent), Arg::Flag(accumulate));
            cx.launch(&BACKWARD, &mut [Arg::In(&kept[0]), Arg::In(dy), Arg::Out(out), exponent, flag])
        })
    }
}

impl<'t> Var<'t> {
    /// x^exponent, elementwise.
    pub fn pow(&self, exponent: f64) -> Result<Var<'t>> {
        self.tape().apply1(Pow { exponent }, &[self])
    }
}

/// pow in the table of ops.
pub static ENTRY: Entry = Entry {
    name: "pow",
    doc: "y = x^exponent",
    inputs: &[Port::real("input")],
    outputs: &["output"],
    attrs: &[AttrDoc { name: "exponent", kind: Kind::Real, default: None, doc: "the exponent" }],
    build: |a| Ok(Arc::new(Pow { exponent: a.real("exponent")? })),
    kernels: &[&FORWARD, &BACKWARD],
    samples: || {
        let to = |note, e: f64| Sample::new(note).attr("exponent", e);
        let edge = || Fill::Values(vec![-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]);
        vec![
            to("square", 2.0).normal(&[5, 7]),
            to("square, through zero", 2.0).input(&[6], edge()),
            to("cube, through zero", 3.0).input(&[6], edge()),
            to("fourth power", 4.0).input(&[6], edge()),
            to("seventh power", 7.0).input(&[6], Fill::Uniform(-1.5, 1.5)),
            to("to 0", 0.0).input(&[6], edge()),
            to("to 1", 1.0).input(&[6], edge()),
            to("root", 0.5).input(&[9], Fill::Uniform(0.1, 4.0)),
            to("reciprocal", -1.0).input(&[9], Fill::Away { std: 1.0, points: &[0.0], gap: 0.3 }),
            to("negative and broken", -1.5).input(&[9], Fill::Uniform(0.5, 3.0)),
            to("scalar", 2.5).input(&[], Fill::Values(vec![1.5])),
            to("no rows", 2.0).normal(&[0, 3]),
            to("4096 x 512 squared", 2.0).normal(&[4096, 512]).large(),
        ]
    },
};
