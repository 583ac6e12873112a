//! Codecs: sums over ranks of which fewer bytes are sent, and which are therefore not exact.
//!
//! | file | codec | what travels | bytes a rank sends, n elements among p ranks |
//! |---|---|---|---|
//! | `bf16.rs` | `bf16` | the upper half of each f32 | 4(p−1)⌈n/p⌉ |
//! | `int8.rs` | `int8` | a signed byte for each element, an f32 for each chunk | 2(p−1)(m + 4⌈m/chunk⌉), m = ⌈n/p⌉ |
//! | `one_bit.rs` | `one_bit` | the sign of each element, an f32 for each chunk | 2(p−1)(⌈m/8⌉ + 4⌈m/chunk⌉) |
//! | `top_k.rs` | `top_k` | the k largest elements of each matrix, with their places | 8(p−1)k |
//! | `power_sgd.rs` | `power_sgd` | two factors of rank r of each matrix | 2(p−1)/p · 4r(rows + columns) |
//!
//! Uncompressed, the ring sends 2(p−1)/p · 4n. `two_phase.rs` is what the first three share, here and, by kernels, on
//! devices (`on_device.rs`), `memory.rs` what is kept from step to step.
//!
//! # Error feedback
//!
//! What a step does not send is not lost: it is added to the gradient of the next. With g the gradient and C the codec,
//!
//! ```text
//! v = g + e;   send C(v);   e ← v − C(v)
//! ```
//!
//! so that over many steps all of g arrives, only later. Without it a codec that rounds always in the same way (a
//! coordinate that is never among the largest, say) can keep weights where they are for ever. e belongs to its rank, and is
//! part of a run's snapshots. Each codec but `bf16`, whose rounding errors are small and go either way, has it; `feedback =
//! false` takes it away, to see what it is for, and is the default of `one_bit`, to whose usual company, Adam, it does harm.
//!
//! Every rank gets the same bits: each sum is made once and copied, or made by all from the same numbers in the same order. A
//! NaN or an infinity of any rank reaches all. One rank alone has nothing to send: a codec then does nothing.
//!
//! ```
//! use ringtape::comm::{codec, threads};
//! let entry = codec::find("int8", &[])?;
//! let sums = threads::run(2, |mut world| {
//!     let mut x = vec![world.rank() as f32 + 1.0; 1000];
//!     let params = [codec::Param { name: "w".into(), at: 0, dims: vec![10, 100] }];
//!     entry.build_with::<&str, &str>(&[])?.all_reduce(&mut world, &params, &mut x)?;
//!     Ok(x[999])
//! });
//! assert!(sums.into_iter().all(|s| (s.unwrap() - 3.0).abs() < 0.02));
//! # Ok::<(), ringtape::error::Error>(())
//! ```

mod bf16;
mod int8;
mod memory;
mod on_device;
mod one_bit;
mod orthonormal;
mod power_sgd;
mod top_k;
mod two_phase;

pub use memory::Memory;
pub use on_device::OnDevice;
pub use two_phase::{Quantiser, TwoPhase};

use super::communicator::Communicator;
use crate::attrs::{AttrDoc, Attrs, Kind, nearest};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::tensor::Tensor;
use std::ops::Range;

/// A parameter whose gradient lies in what is summed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name, by which a codec knows it from step to step.
    pub name: String,
    /// Its first element.
    pub at: usize,
    /// Extents.
    pub dims: Vec<usize>,
}

impl Param {
    /// Where its elements lie.
    pub fn range(&self) -> Range<usize> {
        self.at..self.at + self.dims.iter().product::<usize>()
    }

    /// The matrix that it is: first extent, product of the others. None for what has fewer than two.
    pub fn matrix(&self) -> Option<[usize; 2]> {
        match self.dims[..] {
            [] | [_] => None,
            [rows, ref rest @ ..] => Some([rows, rest.iter().product()]),
        }
    }
}

/// Sums over ranks, approximately. All ranks have one of the same name and attributes, and make the same calls.
pub trait Codec: Send {
    /// `x`, the gradients of `params` on this rank, becomes nearly their sum over ranks: the same bits on all. Called for two
    /// ranks and more; `params` lie in `x` without gaps.
    fn sum(&mut self, world: &mut Communicator, params: &[Param], x: &mut [f32]) -> Result<()>;

    /// The sums from now on are those of step `step`, counted from 0.
    fn begin(&mut self, _step: u64) {}

    /// True where [`Codec::sum_on_device`] has kernels of its own.
    fn works_on_devices(&self) -> bool {
        false
    }

    /// [`Codec::sum`] of gradients on a device, f32: the same bits. A codec sees its parameters either on a device or on the host.
    fn sum_on_device(&mut self, world: &mut Communicator, params: &[Param], x: &mut Tensor) -> Result<()> {
        let mut here = x.to_host()?.as_slice::<f32>()?.to_vec();
        self.sum(world, params, &mut here)?;
        x.write_bytes(0, bytemuck::cast_slice(&here))
    }

    /// What lasts from step to step on this rank, by name.
    ///
    /// # Errors
    /// Those of the device that holds it.
    fn state(&mut self) -> Result<Vec<(String, Vec<f32>)>>;

    /// Takes up what [`Codec::state`] gave; `params` are all that there will be.
    ///
    /// # Errors
    /// State of another codec, or of parameters of other extents.
    fn restore(&mut self, params: &[Param], state: Vec<(String, Vec<f32>)>) -> Result<()>;
}

impl dyn Codec + '_ {
    /// [`Codec::sum`] of however many ranks: of one rank nothing is sent, and `x` stays as it is.
    ///
    /// # Errors
    /// Those of the calls between ranks; parameters that do not fill `x`.
    pub fn all_reduce(&mut self, world: &mut Communicator, params: &[Param], x: &mut [f32]) -> Result<()> {
        expect_full(params, x.len())?;
        if world.size() == 1 { Ok(()) } else { self.sum(world, params, x) }
    }

    /// The same of gradients wherever they are.
    ///
    /// # Errors
    /// Those of [`Codec::all_reduce`](trait.Codec.html#method.all_reduce), and of the device.
    pub fn all_reduce_of(
        &mut self,
        world: &mut Communicator,
        params: &[Param],
        x: &mut Tensor,
    ) -> Result<()> {
        if x.device().is_host() {
            return self.all_reduce(world, params, x.as_mut_slice::<f32>()?);
        }
        expect_full(params, x.len())?;
        if world.size() == 1 { Ok(()) } else { self.sum_on_device(world, params, x) }
    }
}

fn expect_full(params: &[Param], n: usize) -> Result<()> {
    let end = params.iter().try_fold(0, |end, p| (p.at == end).then(|| p.range().end));
    if end == Some(n) {
        return Ok(());
    }
    Err(Error::shape("codec", format!("parameters that fill {end:?} of {n} elements")))
}

/// Kernels of codecs.
pub static KERNELS: &[&Kernel] =
    &[&bf16::ENCODE, &bf16::DECODE, &int8::ENCODE, &int8::DECODE, &one_bit::ENCODE, &one_bit::DECODE];

/// A codec as a row of the table of codecs.
pub struct Entry {
    /// Name, as `codec.name` takes it.
    pub name: &'static str,
    /// What it does, in one line.
    pub doc: &'static str,
    /// Attributes, which a config has as `codec.…`.
    pub attrs: &'static [AttrDoc],
    /// The codec with these.
    pub build: fn(&Attrs) -> Result<Box<dyn Codec>>,
}

impl Entry {
    /// The codec with attributes given as text; errors name them as keys of a config.
    pub fn build_with<N: AsRef<str>, V: AsRef<str>>(&self, given: &[(N, V)]) -> Result<Box<dyn Codec>> {
        let built = Attrs::new(self.name, self.attrs, given).and_then(|attrs| (self.build)(&attrs));
        built.map_err(|e| match e {
            Error::Attr { attr, what, .. } => Error::config(format!("codec.{attr}"), what),
            e => e,
        })
    }
}

/// Every codec of ringtape.
pub static ALL: &[&Entry] = &[&bf16::ENTRY, &int8::ENTRY, &one_bit::ENTRY, &power_sgd::ENTRY, &top_k::ENTRY];

/// The codec of this name among `extra` and [`ALL`], or an error that lists them.
pub fn find(name: &str, extra: &[&'static Entry]) -> Result<&'static Entry> {
    let all = || extra.iter().chain(ALL).copied();
    all().find(|e| e.name == name).ok_or_else(|| {
        let names = || all().map(|e| e.name).chain(["none"]);
        let list = names().collect::<Vec<_>>().join(", ");
        Error::config("codec.name", format!("is `{name}`{}; there are: {list}", nearest(name, names())))
    })
}

/// Elements that share a scale.
const fn chunks_of(default: &'static str) -> AttrDoc {
    AttrDoc { name: "chunk", kind: Kind::Int, default: Some(default), doc: "elements that share a scale" }
}

/// Whether there is error feedback.
const FEEDBACK: AttrDoc = feedback("true");

/// The same, with a default of one's own.
const fn feedback(default: &'static str) -> AttrDoc {
    let doc = "what a step does not send is added to the next";
    AttrDoc { name: "feedback", kind: Kind::Bool, default: Some(default), doc }
}

/// The attribute `chunk`.
fn chunk(attrs: &Attrs, codec: &str) -> Result<usize> {
    let chunk = attrs.size("chunk")?;
    if (8..=1 << 20).contains(&chunk) && chunk.is_multiple_of(8) {
        return Ok(chunk);
    }
    Err(Error::attr(codec, "chunk", format!("is {chunk}, but must be a multiple of 8 from 8 to 1048576")))
}
