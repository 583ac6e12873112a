//! Muon (Jordan et al. 2024): matrices step along an orthogonal matrix near their momentum, in the order of torch.optim.Muon; the rest
//! steps by AdamW with the same rate:
//!
//!   m ← μm + (1 − μ)g;   X = (1 − μ)g + μm (Nesterov) or m;   X ← X / max(‖X‖, 1e-7)
//!   `ns_steps` times:  A = XXᵀ;  X ← aX + (bA + cA²)X,  a, b, c = 3.4445, −4.7750, 2.0315       (Newton-Schulz)
//!   w ← w·(1 − lr·λ) − lr·f·X
//!
//! The singular values of X come to lie near 1 (between about 0.7 and 1.2), whatever those of m are. Where a matrix has more rows than columns
//! A = XᵀX, on the other side. f is 0.2·√max(rows, columns) with `match_rms_adamw`, the default here, so that one rate serves
//! both parts; √max(1, rows/columns) with `original`. Arrays with more than two axes are matrices of their first axis by the
//! rest; vectors with decay count as one row. The slope is that along m, and of AdamW's part along its update.
//!
//! State: 1 number a weight of a matrix, 2 of any other.

use super::adamw::AdamW;
use super::attributes::{BETA1, BETA2, EPS, Moments, real, weight_decay};
use super::clip::{PARTS, SQUARES};
use super::rule::Each;
use super::slope::{PIECE, Sum};
use super::{Entry, Optimizer, Step, named, within, zeros_for};
use crate::attrs::{AttrDoc, Kind};
use crate::error::{Error, Result};
use crate::kernel::gemm::{self, View};
use crate::kernel::{Arg, Real, launch, par, reduce};
use crate::shape::Spec;
use crate::tape::{Grads, Params, Role};
use crate::tensor::Tensor;
use crate::{kernel, vectorized};

kernel! {
    ptx "muon";
    /// m = momentum·m + (1 − momentum)·g; mixed = of_g·g + of_m·m; partial[first + p] = Σ m·g, m from before, over piece p of 4,096
    /// weights, where there is a `partial`.
    static MIX = muon_mix(
        mixed: out T, m: out T, g: in T, partial: out T, first: val size, momentum: val T, of_g: val T, of_m: val T,
    ) blocks(mixed.div_ceil(4096));
    /// y = x / max(√Σ squares, least).
    static NORMALISE = muon_normalise(y: out T, x: in T, squares: in T, least: val T);
    /// y = a·x + b·y.
    static COMBINE = muon_combine(y: out T, x: in T, a: val T, b: val T);
}

kernel! {
    ptx "matmul";
    /// The product of the op matmul, of one pair of matrices.
    static PRODUCT = matmul_batched(
        a: in T, b: in T, c: out T, extents: val dims, lead: val dims, a_step: val dims, b_step: val dims,
        c_step: val dims, transpose_a: val flag, transpose_b: val flag, accumulate: val flag,
    ) blocks(extents[0] * extents[1].div_ceil(64) * extents[2].div_ceil(64));
}

#[allow(clippy::too_many_arguments)]
fn matmul_batched<T: Real>(
    a: &[T],
    b: &[T],
    c: &mut [T],
    extents: &[usize],
    _lead: &[usize],
    _a_step: &[usize],
    _b_step: &[usize],
    _c_step: &[usize],
    transpose_a: bool,
    transpose_b: bool,
    accumulate: bool,
) {
    let (m, n, k) = (extents[1], extents[2], extents[3]);
    let a = if transpose_a { View::transposed(a, m, k) } else { View::new(a, m, k) };
    let b = if transpose_b { View::transposed(b, k, n) } else { View::new(b, k, n) };
    gemm::matmul(a, b, c, accumulate);
}

#[allow(clippy::too_many_arguments)]
fn muon_mix<T: Real>(
    mixed: &mut [T],
    m: &mut [T],
    g: &[T],
    partial: &mut [T],
    first: usize,
    momentum: T,
    of_g: T,
    of_m: T,
) {
    let (work, pieces) = (mixed.len(), mixed.len().div_ceil(PIECE));
    let watch = !partial.is_empty();
    let cells = if watch { &mut partial[first..first + pieces] } else { partial };
    par::chunks_of([mixed, m], cells, work, |i, [mixed, m], sum| {
        let g = &g[i * par::CHUNK..][..m.len()];
        if watch {
            *sum = slope_chunk(m, g);
        }
        mix_chunk(mixed, m, g, momentum, of_g, of_m);
    });
}

fn muon_normalise<T: Real>(y: &mut [T], x: &[T], squares: &[T], least: T) {
    let norm = squares.iter().fold(T::ZERO, |sum, &s| sum + s).sqrt();
    let norm = if norm > least { norm } else { least };
    par::chunks_mut(y, par::CHUNK, x.len() / 2, |i, y| {
        let x = &x[i * par::CHUNK..];
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x / norm);
    });
}

fn muon_combine<T: Real>(y: &mut [T], x: &[T], a: T, b: T) {
    par::chunks_mut(y, par::CHUNK, x.len() / 2, |i, y| {
        let x = &x[i * par::CHUNK..];
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = a * x + b * *y);
    });
}

vectorized! {
    fn mix_chunk<T: Real>(mixed: &mut [T], m: &mut [T], g: &[T], momentum: T, of_g: T, of_m: T) {
        for ((mixed, m), &g) in mixed.iter_mut().zip(m).zip(g) {
            *m = momentum * *m + (T::ONE - momentum) * g;
            *mixed = of_g * g + of_m * *m;
        }
    }

    fn slope_chunk<T: Real>(m: &[T], g: &[T]) -> T {
        reduce::sum_of([m, g], |[m, g]| m * g)
    }
}

/// Coefficients of the polynomial whose iteration draws singular values to 1.
const POLYNOMIAL: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Least norm that a matrix is divided by.
const LEAST: f64 = 1e-7;

/// Muon and its state.
struct Muon {
    momentum: f64,
    nesterov: bool,
    steps: usize,
    weight_decay: f64,
    matches_adamw: bool,
    m: Vec<Tensor>,
    /// Biases, norms.
    rest: Each<AdamW>,
}

impl Muon {
    /// w ← w·(1 − lr·λ) − lr·f·X for the matrices of segment `i`.
    fn matrices(
        &mut self,
        w: &mut Params,
        i: usize,
        g: &Tensor,
        lr: f64,
        slope: Option<(&mut Tensor, usize)>,
    ) -> Result<()> {
        let mut mixed = Tensor::empty(g.device(), g.spec())?;
        let [of_g, of_m] = if self.nesterov { [1.0 - self.momentum, self.momentum] } else { [0.0, 1.0] };
        let numbers = [self.momentum, of_g, of_m].map(Arg::Real);
        let [momentum, of_g, of_m] = numbers;
        let (partial, first) = slope.map_or((Arg::Absent, 0), |(t, first)| (Arg::Out(t), first));
        let m = Arg::Out(&mut self.m[i]);
        launch(
            &MIX,
            &mut [Arg::Out(&mut mixed), m, Arg::In(g), partial, Arg::Size(first), momentum, of_g, of_m],
        )?;
        for slot in w.slots().iter().filter(|s| s.segment == i && s.shape.len() > 0) {
            let dims = slot.shape.dims();
            let rows = if dims.len() < 2 { 1 } else { dims[0] };
            // The window is gone when its memory is written.
            let x = self.orthogonal(&mixed.window(slot.offset, &[rows, slot.shape.len() / rows])?)?;
            mixed.copy_from(slot.offset, &x)?;
        }
        let [a, b] = [-lr, 1.0 - lr * self.weight_decay].map(Arg::Real);
        launch(&COMBINE, &mut [Arg::Out(w.segment_mut(i)), Arg::In(&mixed), a, b])
    }

    /// f·X after Newton-Schulz.
    fn orthogonal(&self, mixed: &Tensor) -> Result<Tensor> {
        let (rows, columns) = (mixed.dims()[0], mixed.dims()[1]);
        let (device, dtype, tall) = (mixed.device(), mixed.dtype(), rows > columns);
        let least = rows.min(columns);
        let empty = |dims: &[usize]| Tensor::empty(device, Spec::new(dtype, dims)?);
        let (mut x, mut moved) = (empty(mixed.dims())?, empty(mixed.dims())?);
        let (mut gram, mut square) = (empty(&[least, least])?, empty(&[least, least])?);
        let mut squares = empty(&[PARTS])?;
        let (first, parts) = (Arg::Size(0), Arg::Size(PARTS));
        launch(&SQUARES, &mut [Arg::In(mixed), Arg::Out(&mut squares), first, parts])?;
        let args = &mut [Arg::Out(&mut x), Arg::In(mixed), Arg::In(&squares), Arg::Real(LEAST)];
        launch(&NORMALISE, args)?;
        let ratio = match self.matches_adamw {
            true => 0.2 * (rows.max(columns) as f64).sqrt(),
            false => (rows as f64 / columns as f64).max(1.0).sqrt(),
        };
        let [a, b, c] = POLYNOMIAL;
        for step in 1..=self.steps {
            product([&x, &x], &mut gram, [tall, !tall])?;
            product([&gram, &gram], &mut square, [false; 2])?;
            combine(&mut square, &gram, b, c)?;
            let pair = if tall { [&x, &square] } else { [&square, &x] };
            product(pair, &mut moved, [false; 2])?;
            let scale = if step == self.steps { ratio } else { 1.0 };
            combine(&mut x, &moved, scale, a * scale)?;
        }
        Ok(x)
    }
}

/// y = a·x + b·y.
fn combine(y: &mut Tensor, x: &Tensor, a: f64, b: f64) -> Result<()> {
    launch(&COMBINE, &mut [Arg::Out(y), Arg::In(x), Arg::Real(a), Arg::Real(b)])
}

/// c = op(a)·op(b).
fn product([a, b]: [&Tensor; 2], c: &mut Tensor, [ta, tb]: [bool; 2]) -> Result<()> {
    let inner = if ta { a.dims()[0] } else { a.dims()[1] };
    let extents = [1, c.dims()[0], c.dims()[1], inner];
    let none = || Arg::Dims(&[]);
    let flags = [ta, tb, false].map(Arg::Flag);
    let [ta, tb, add] = flags;
    launch(
        &PRODUCT,
        &mut [
            Arg::In(a),
            Arg::In(b),
            Arg::Out(c),
            Arg::Dims(&extents),
            none(),
            none(),
            none(),
            none(),
            ta,
            tb,
            add,
        ],
    )
}

impl Optimizer for Muon {
    fn name(&self) -> &'static str {
        "muon"
    }
    fn advance(&mut self, w: &mut Params, g: &Grads, how: Step<'_>) -> Result<Option<f64>> {
        let later = self.rest.steps() > 0;
        let mut sum = if how.slope { Sum::<1>::new(g)? } else { None };
        for i in 0..w.segments().len() {
            if let (Role::Decay, Some(g)) = (w.segments()[i].role, g.flat(i)) {
                self.matrices(w, i, g, how.lr, sum.as_mut().map(|s| s.place(g.len())))?;
            }
        }
        let rest = self.rest.advance_with(w, g, None, &how)?;
        let [along] = sum.map(Sum::totals).transpose()?.unwrap_or_default();
        Ok((how.slope && later).then(|| along + rest.unwrap_or_default()))
    }
    fn steps(&self) -> u64 {
        self.rest.steps()
    }
    fn state(&self) -> Vec<(String, &Tensor)> {
        let rest = self.rest.state().into_iter().map(|(name, t)| (format!("adamw.{name}"), t));
        named("m", self.m.iter()).chain(rest).collect()
    }
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64) {
        let (rest, steps) = self.rest.state_mut();
        let rest = rest.into_iter().map(|(name, t)| (format!("adamw.{name}"), t));
        (named("m", self.m.iter_mut()).chain(rest).collect(), steps)
    }
}

const FORMS: Kind = Kind::Choice(&["match_rms_adamw", "original"]);

/// muon in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "muon",
    doc: "orthogonal steps of matrices, AdamW for the rest",
    state: "1 number a weight of a matrix, 2 of any other",
    attrs: &[
        real("momentum", "0.95", "memory of the mean of a matrix"),
        AttrDoc { name: "nesterov", kind: Kind::Bool, default: Some("true"), doc: "look ahead along it" },
        AttrDoc { name: "ns_steps", kind: Kind::Int, default: Some("5"), doc: "turns of Newton-Schulz" },
        AttrDoc {
            name: "adjust_lr_fn",
            kind: FORMS,
            default: Some("match_rms_adamw"),
            doc: "how long a matrix steps: as AdamW would, or as Muon's first program",
        },
        BETA1,
        BETA2,
        EPS,
        weight_decay("0.1"),
    ],
    build: |a, p| {
        let steps = a.size("ns_steps")?;
        if !(1..100).contains(&steps) {
            return Err(Error::attr("muon", "ns_steps", format!("is {steps}, but must be 1 to 99")));
        }
        let rest = AdamW::without_decay(Moments::of("muon", a)?);
        Ok(Box::new(Muon {
            momentum: within("muon", "momentum", a.real("momentum")?, 0.0, 1.0)?,
            nesterov: a.flag("nesterov")?,
            steps,
            weight_decay: within("muon", "weight_decay", a.real("weight_decay")?, 0.0, f64::INFINITY)?,
            matches_adamw: a.text("adjust_lr_fn") == "match_rms_adamw",
            m: zeros_for(p, |role| role == Role::Decay)?,
            rest: Each::new_for(rest, p, |role| role == Role::Plain)?,
        }))
    },
    kernels: &[
        &MIX,
        &NORMALISE,
        &COMBINE,
        &PRODUCT,
        &SQUARES,
        Each::<AdamW>::KERNELS[0],
        Each::<AdamW>::KERNELS[1],
    ],
};
