//! Kernels: one name, one argument list, a body per device.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Kernel`], its arguments, [`launch`], and the [`kernel!`](crate::kernel!) macro that makes the CPU body callable |
//! | `real.rs` | [`Real`]: f32 and f64 as kernels see them |
//! | `math.rs` | branch-free f32 exp, log, tanh, erf that compilers vectorise |
//! | `lanes.rs` | sums and maxima over sixteen lanes, the same bits on every instruction set |
//! | `par.rs` | fixed chunks over the thread pool, above a measured work threshold |
//! | `gemm/` | matrix products |
//! | `reduce.rs` | sums and maxima over an axis |
//! | `basic.rs` | the kernels that the tape itself needs: accumulate, copy, scale |

pub mod basic;
pub mod gemm;
pub mod lanes;
mod math;
pub mod par;
mod real;
pub mod reduce;

pub use real::Real;

use crate::error::{Error, Result};
use crate::shape::DType;
use crate::tensor::{Element, Tensor};

/// A device function: its entry name, the arguments it takes, and its body for the CPU.
pub struct Kernel {
    /// Entry name, `<op>_<what>`.
    pub entry: &'static str,
    /// Parameters in order.
    pub params: &'static [Param],
    /// Body for the CPU. Takes the arguments in the order of `params`.
    pub cpu: fn(&mut [Arg<'_>]) -> Result<()>,
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name, the same in every body.
    pub name: &'static str,
    /// Direction: `in`, `out` (written, or updated in place) or `val` (a number).
    pub role: &'static str,
    /// Element or number type; `T` stands for the real type of the launch (f32, or f64 when gradients are checked).
    pub ty: &'static str,
}

/// One argument of a launch.
pub enum Arg<'a> {
    /// A tensor that is read.
    In(&'a Tensor),
    /// An optional tensor that is absent: its slice is empty.
    Absent,
    /// A tensor that is written; it must have one holder.
    Out(&'a mut Tensor),
    /// A number in the real type of the launch.
    Real(f64),
    /// A count or an extent.
    Size(usize),
    /// A 64-bit word (seeds, streams).
    Word(u64),
    /// A switch.
    Flag(bool),
    /// Extents or strides, one per axis.
    Dims(&'a [usize]),
}

/// Runs `kernel` on the device that holds its tensors. Every `Out` must have one holder.
pub fn launch(kernel: &Kernel, args: &mut [Arg<'_>]) -> Result<()> {
    if args.len() != kernel.params.len() {
        let what = format!("{} arguments given, {} wanted", args.len(), kernel.params.len());
        return Err(Error::shape(kernel.entry, what));
    }
    (kernel.cpu)(args)
}

/// How a kernel body takes one argument: used by [`kernel!`](crate::kernel!).
#[doc(hidden)]
pub mod take {
    use super::*;

    fn wrong<R>(entry: &str, name: &str, want: &str) -> Result<R> {
        Err(Error::dtype(entry, format!("argument `{name}` is not {want}")))
    }
    pub fn input<'b, T: Element>(a: &'b mut Arg<'_>, entry: &str, name: &str) -> Result<&'b [T]> {
        match a {
            Arg::In(t) => t.as_slice::<T>().map_err(|e| Error::dtype(entry, format!("`{name}` {e}"))),
            Arg::Absent => Ok(&[]),
            _ => wrong(entry, name, "an input tensor"),
        }
    }
    pub fn output<'b, T: Element>(a: &'b mut Arg<'_>, entry: &str, name: &str) -> Result<&'b mut [T]> {
        match a {
            Arg::Out(t) => t.as_mut_slice::<T>().map_err(|e| match e {
                Error::Shared { shape, holders, .. } => Error::Shared { who: entry.into(), shape, holders },
                e => Error::dtype(entry, format!("`{name}` {e}")),
            }),
            Arg::Absent => Ok(&mut []),
            _ => wrong(entry, name, "an output tensor"),
        }
    }
    pub fn real(a: &Arg<'_>, entry: &str, name: &str) -> Result<f64> {
        if let Arg::Real(v) = a { Ok(*v) } else { wrong(entry, name, "a real number") }
    }
    pub fn size(a: &Arg<'_>, entry: &str, name: &str) -> Result<usize> {
        if let Arg::Size(v) = a { Ok(*v) } else { wrong(entry, name, "a size") }
    }
    pub fn word(a: &Arg<'_>, entry: &str, name: &str) -> Result<u64> {
        if let Arg::Word(v) = a { Ok(*v) } else { wrong(entry, name, "a word") }
    }
    pub fn dims<'b>(a: &'b Arg<'_>, entry: &str, name: &str) -> Result<&'b [usize]> {
        if let Arg::Dims(v) = a { Ok(v) } else { wrong(entry, name, "a list of extents") }
    }
    pub fn flag(a: &Arg<'_>, entry: &str, name: &str) -> Result<bool> {
        if let Arg::Flag(v) = a { Ok(*v) } else { wrong(entry, name, "a flag") }
    }
}

/// The real type of a launch: that of the first real tensor among the arguments.
pub fn real_type(entry: &str, args: &[Arg<'_>]) -> Result<DType> {
    args.iter()
        .filter_map(|a| match a {
            Arg::In(t) => Some(t.dtype()),
            Arg::Out(t) => Some(t.dtype()),
            _ => None,
        })
        .find(|d| d.is_real())
        .ok_or_else(|| Error::dtype(entry, "no f32 or f64 tensor among the arguments"))
}

/// Declares kernels: a static [`Kernel`] whose CPU body is the function of the same name in scope, generic over the real
/// type `T` (an `f32` and an `f64` copy are compiled, the launch chooses by its tensors).
///
/// Parameter forms: `x: in T`, `ids: in i32`, `y: out T`, `n: val size`, `eps: val T`, `seed: val word`, `add: val flag`
/// and `dims: val dims`. The function takes `&[T]`, `&[i32]`, `&mut [T]`, `usize`, `T`, `u64`, `bool`, `&[usize]`.
#[macro_export]
macro_rules! kernel {
    ($( $(#[$doc:meta])* $vis:vis static $NAME:ident = $f:ident ( $($p:ident : $role:tt $ty:tt),* $(,)? ); )*) => { $(
        $(#[$doc])*
        $vis static $NAME: $crate::kernel::Kernel = {
            fn body<T: $crate::kernel::Real>(args: &mut [$crate::kernel::Arg<'_>]) -> $crate::error::Result<()> {
                let mut it = args.iter_mut();
                $( let $p = $crate::kernel!(@take $role $ty, it.next().expect("launch counted the arguments"), stringify!($f), stringify!($p)); )*
                $f::<T>($($p),*);
                Ok(())
            }
            fn cpu(args: &mut [$crate::kernel::Arg<'_>]) -> $crate::error::Result<()> {
                match $crate::kernel::real_type(stringify!($f), args)? {
                    $crate::shape::DType::F64 => body::<f64>(args),
                    _ => body::<f32>(args),
                }
            }
            $crate::kernel::Kernel {
                entry: stringify!($f),
                params: &[$($crate::kernel::Param { name: stringify!($p), role: stringify!($role), ty: stringify!($ty) }),*],
                cpu,
            }
        };
    )* };
    (@take in $ty:ident, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::input::<$ty>($a, $f, $p)? };
    (@take out $ty:ident, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::output::<$ty>($a, $f, $p)? };
    (@take val T, $a:expr, $f:expr, $p:expr) => { <T as $crate::kernel::Real>::of($crate::kernel::take::real($a, $f, $p)?) };
    (@take val size, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::size($a, $f, $p)? };
    (@take val word, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::word($a, $f, $p)? };
    (@take val dims, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::dims($a, $f, $p)? };
    (@take val flag, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::flag($a, $f, $p)? };
}
