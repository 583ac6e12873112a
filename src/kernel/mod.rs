//! Kernels: one name, one argument list, a body per device.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Kernel`], its arguments, [`launch`], and the [`kernel!`](crate::kernel!) macro that makes the CPU body callable |
//! | `dispatch.rs` | launches on devices that run PTX |
//! | `real.rs` | [`Real`]: f32 and f64 as kernels see them |
//! | `math.rs` | branch-free f32 exp, log, tanh, erf that compilers vectorise |
//! | `lanes.rs` | sums and maxima over sixteen lanes, the same bits on every instruction set |
//! | `par.rs` | fixed chunks over the thread pool, above a measured work threshold |
//! | `gemm/` | matrix products |
//! | `reduce.rs` | sums and maxima over an axis |
//! | `basic.rs` | the kernels that the tape itself needs: accumulate, copy, scale |

pub mod basic;
mod dispatch;
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

/// The blocks of a grid along x, y and z, from the arguments of a launch.
pub type Grid = fn(&[Arg<'_>]) -> [usize; 3];

/// A device function: its entry name, the arguments it takes, and its body for the CPU.
pub struct Kernel {
    /// Entry name, `<op>_<what>`.
    pub entry: &'static str,
    /// Parameters in order.
    pub params: &'static [Param],
    /// Body for the CPU. Takes the arguments in the order of `params`.
    pub cpu: fn(&mut [Arg<'_>]) -> Result<()>,
    /// Its PTX, for devices that run that.
    pub source: Option<&'static Source>,
    /// Blocks of the grid along x, y and z; None asks for a thread for each element of the first output. Every kernel is
    /// right for any grid, so this only tunes.
    pub blocks: Option<Grid>,
}

/// The PTX of kernels: the text of a file, and what is spliced into it.
#[derive(Debug)]
pub struct Source {
    /// File, as errors name it.
    pub file: &'static str,
    /// PTX text, in which `{{NAME}}` stands for a spliced text.
    pub text: &'static str,
    /// Names and their texts.
    pub splice: &'static [(&'static str, &'static str)],
}

impl Source {
    /// The PTX that a device is given.
    pub fn ptx(&self) -> String {
        let put = |text: String, (name, with): &(&str, &str)| text.replace(&format!("{{{{{name}}}}}"), with);
        self.splice.iter().fold(self.text.to_owned(), put)
    }
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

impl Arg<'_> {
    /// The tensor of a tensor argument that is there.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Arg::In(t) => Some(t),
            Arg::Out(t) => Some(t),
            _ => None,
        }
    }
}

/// Runs `kernel` on the device that holds its tensors. Every `Out` must have one holder.
pub fn launch(kernel: &Kernel, args: &mut [Arg<'_>]) -> Result<()> {
    if args.len() != kernel.params.len() {
        let what = format!("{} arguments given, {} wanted", args.len(), kernel.params.len());
        return Err(Error::shape(kernel.entry, what));
    }
    let driver =
        dispatch::device(kernel, args)?.and_then(|d| d.driver().map(|driver| (d.clone(), driver.clone())));
    match driver {
        None => (kernel.cpu)(args),
        Some((device, driver)) => dispatch::launch(kernel, args, &device, driver.as_ref()),
    }
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
    /// Elements of a tensor, or a size.
    pub fn extent(a: &Arg<'_>) -> usize {
        match a {
            Arg::In(t) => t.len(),
            Arg::Out(t) => t.len(),
            Arg::Size(n) => *n,
            _ => 0,
        }
    }
    /// Up to three extents of a grid.
    pub fn grid(blocks: &[usize]) -> [usize; 3] {
        std::array::from_fn(|i| blocks.get(i).copied().unwrap_or(1))
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
/// type `T` (an `f32` and an `f64` copy are compiled, the launch chooses by its tensors), and whose PTX is the entry of
/// that name in `ptx/<file>.ptx` of the crate, when the block begins with `ptx "<file>";`. With `ptx "<file>", NAME = "<part>";`
/// `{{NAME}}` in it stands for the text of `ptx/<part>.ptx`.
///
/// Parameter forms: `x: in T`, `ids: in i32`, `y: out T`, `n: val size`, `eps: val T`, `seed: val word`, `add: val flag`
/// and `dims: val dims`. The function takes `&[T]`, `&[i32]`, `&mut [T]`, `usize`, `T`, `u64`, `bool`, `&[usize]`.
/// `blocks(x)`, `blocks(x, y)` or `blocks(x, y, z)` behind them is the grid: expressions over the parameters, in which a
/// tensor stands for its number of elements. Without it there is a thread for each element of the first output.
#[macro_export]
macro_rules! kernel {
    (@take in $ty:ident, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::input::<$ty>($a, $f, $p)? };
    (@take out $ty:ident, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::output::<$ty>($a, $f, $p)? };
    (@take val T, $a:expr, $f:expr, $p:expr) => { <T as $crate::kernel::Real>::of($crate::kernel::take::real($a, $f, $p)?) };
    (@take val size, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::size($a, $f, $p)? };
    (@take val word, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::word($a, $f, $p)? };
    (@take val dims, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::dims($a, $f, $p)? };
    (@take val flag, $a:expr, $f:expr, $p:expr) => { $crate::kernel::take::flag($a, $f, $p)? };
    (@extent in $ty:ident, $a:expr) => { $crate::kernel::take::extent($a) };
    (@extent out $ty:ident, $a:expr) => { $crate::kernel::take::extent($a) };
    (@extent val T, $a:expr) => { $crate::kernel::take::real($a, "", "").unwrap_or_default() };
    (@extent val size, $a:expr) => { $crate::kernel::take::extent($a) };
    (@extent val word, $a:expr) => { $crate::kernel::take::word($a, "", "").unwrap_or_default() };
    (@extent val dims, $a:expr) => { $crate::kernel::take::dims($a, "", "").unwrap_or_default() };
    (@extent val flag, $a:expr) => { $crate::kernel::take::flag($a, "", "").unwrap_or_default() };
    (@grid $($p:ident : $role:tt $ty:tt),* ;) => { None };
    (@grid $($p:ident : $role:tt $ty:tt),* ; $($g:expr),+) => {
        Some(|args: &[$crate::kernel::Arg<'_>]| {
            let mut it = args.iter();
            $(
                #[allow(unused_variables)]
                let $p = $crate::kernel!(@extent $role $ty, it.next().expect("launch counted the arguments"));
            )*
            $crate::kernel::take::grid(&[$($g),+])
        })
    };
    (@all $source:expr; $( $(#[$doc:meta])* $vis:vis static $NAME:ident = $f:ident ( $($p:ident : $role:tt $ty:tt),* $(,)? ) $(blocks($($g:expr),+))? ; )*) => { $(
        $(#[$doc])*
        $vis static $NAME: $crate::kernel::Kernel = {
            fn body<T: $crate::kernel::Real>(args: &mut [$crate::kernel::Arg<'_>]) -> $crate::error::Result<()> {
                let mut it = args.iter_mut();
                $( let $p = $crate::kernel!(@take $role $ty, it.next().expect("launch counted the arguments"), stringify!($f), stringify!($p)); )*
                $f::<T>($($p),*);
                Ok(())
            }
            fn cpu(args: &mut [$crate::kernel::Arg<'_>]) -> $crate::error::Result<()> {
                // Kernels of integers alone run their f32 copy.
                match $crate::kernel::real_type(stringify!($f), args).unwrap_or($crate::shape::DType::F32) {
                    $crate::shape::DType::F64 => body::<f64>(args),
                    _ => body::<f32>(args),
                }
            }
            $crate::kernel::Kernel {
                entry: stringify!($f),
                params: &[$($crate::kernel::Param { name: stringify!($p), role: stringify!($role), ty: stringify!($ty) }),*],
                cpu,
                source: $source,
                blocks: $crate::kernel!(@grid $($p : $role $ty),* ; $($($g),+)?),
            }
        };
    )* };
    (ptx $file:literal $(, $NAME:ident = $part:literal)*; $($rest:tt)*) => {
        $crate::kernel!(@all Some(&$crate::kernel::Source {
            file: concat!("ptx/", $file, ".ptx"),
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/", $file, ".ptx")),
            splice: &[
                $((stringify!($NAME), include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/", $part, ".ptx")))),*
            ],
        }); $($rest)*);
    };
    ($($rest:tt)*) => { $crate::kernel!(@all None; $($rest)*); };
}
