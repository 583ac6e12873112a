//! vSGD-fd (Schaul, Zhang and LeCun 2013; Schaul and LeCun 2013): each weight has the learning rate that is best for it on a
//! noisy quadratic, from running means of its gradient, its square and its curvature. The curvature k comes from a second
//! gradient of the same batch at w + δ, a finite difference:
//!
//!   δ = ḡ (g at t = 1), but at least ε in size;   k = |g − g_fd| / |δ|
//!   τ ← τ + 1 where g or k lies more than two deviations from its mean     (outliers make the memory longer)
//!   ḡ, v̄, k̄, q̄ ← means of g, g², k, k² with memory τ                    (at t = 1 the values, v̄ and q̄ times `slow_start`)
//!   η = (k̄/q̄) · (ḡ²/v̄);   τ ← (1 − ḡ²/v̄)τ + 1
//!   w ← w − lr·η·g                        (lr is 1 where no other factor is wanted)
//!
//! On ½h(w − c)², c with mean w* and variance σ²/h², the error falls as σ²/(h²t), as that of the mean of all samples does. The
//! slope is that along η·ḡ: the last gradient is gone.
//!
//! State: 5 numbers a weight; a copy of the weights and a second gradient are scratch. A step takes two backward passes.

use super::attributes::real;
use super::rule::{Each, NUMBERS, Rule, STATES, TRAIL};
use super::{Entry, Optimizer, Step, within};
use crate::error::{Error, Result};
use crate::kernel::{Arg, Real, launch, par};
use crate::tape::{Grads, Params};
use crate::tensor::Tensor;
use crate::{kernel, vectorized};

kernel! {
    ptx "vsgd_fd";
    /// shifted = w + δ, δ = mean, or g when `first`; at least `eps` in size.
    static SHIFT = vsgd_fd_shift(shifted: out T, w: in T, g: in T, mean: in T, first: val flag, eps: val T);
}

/// How far a weight is moved: `by`, or ε with its sign where that is smaller.
#[inline(always)]
fn shift<T: Real>(by: T, eps: T) -> T {
    let least = if by < T::ZERO { -eps } else { eps };
    if by.abs() < eps { least } else { by }
}

fn vsgd_fd_shift<T: Real>(shifted: &mut [T], w: &[T], g: &[T], mean: &[T], first: bool, eps: T) {
    let by = if first { g } else { mean };
    par::chunks_mut(shifted, par::CHUNK, w.len() / 2, |i, shifted| {
        let (from, n) = (i * par::CHUNK, shifted.len());
        shift_chunk(shifted, &w[from..][..n], &by[from..][..n], eps);
    });
}

vectorized! {
    fn shift_chunk<T: Real>(shifted: &mut [T], w: &[T], by: &[T], eps: T) {
        for ((y, &w), &by) in shifted.iter_mut().zip(w).zip(by) {
            *y = w + shift(by, eps);
        }
    }
}

/// What a step does, with its attributes.
struct Rates {
    eps: f64,
    slow_start: f64,
}

/// η from the means: 0 where nothing is known.
#[inline(always)]
fn rate<T: Real>([g, v, k, q]: [T; 4]) -> T {
    let signal = if v > T::ZERO { g * g / v } else { T::ZERO };
    let curve = if q > T::ZERO { k / q } else { T::ZERO };
    curve * signal
}

impl Rule for Rates {
    const NAME: &'static str = "vsgd_fd";
    const ENTRIES: [&'static str; 2] = ["vsgd_fd_step", "vsgd_fd_watched"];
    const STATE: &'static [&'static str] = &["g", "v", "k", "q", "tau"];
    const PROBES: bool = true;
    const COST: f64 = 2.0;
    const PTX: [&'static str; 2] = [
        "\
        .reg .pred %p, %q;
        .reg .f32 %k, %d, %e, %z, %share, %v, %m; // c: lr, first (1 or 0), eps, slow_start
        mov.f32         %z, 0f00000000;
        setp.ne.f32     %p, %c1, %z;
        selp.f32        %d, %g, %s0, %p;
        abs.f32         %d, %d;
        max.f32         %d, %d, %c2;
        sub.f32         %k, %g, %h;
        abs.f32         %k, %k;
        div.rn.f32      %k, %k, %d;
        mul.f32         %v, %s0, %s0;           // outliers
        sub.f32         %v, %s1, %v;
        max.f32         %v, %v, %z;
        sqrt.rn.f32     %v, %v;
        add.f32         %v, %v, %v;
        sub.f32         %d, %g, %s0;
        abs.f32         %d, %d;
        setp.gt.f32     %p, %d, %v;
        mul.f32         %v, %s2, %s2;
        sub.f32         %v, %s3, %v;
        max.f32         %v, %v, %z;
        sqrt.rn.f32     %v, %v;
        add.f32         %v, %v, %v;
        sub.f32         %d, %k, %s2;
        abs.f32         %d, %d;
        setp.gt.f32     %q, %d, %v;
        or.pred         %p, %p, %q;
        selp.f32        %d, 0f3F800000, %z, %p;
        add.f32         %d, %s4, %d;
        setp.ne.f32     %p, %c1, %z;
        selp.f32        %s4, 0f3F800000, %d, %p;
        rcp.rn.f32      %share, %s4;            // means
        sub.f32         %m, 0f3F800000, %share;
        selp.f32        %e, %c3, 0f3F800000, %p;
        mul.f32         %d, %share, %g;
        fma.rn.f32      %s0, %m, %s0, %d;
        mul.f32         %d, %g, %g;
        mul.f32         %d, %share, %d;
        mul.f32         %d, %d, %e;
        fma.rn.f32      %s1, %m, %s1, %d;
        mul.f32         %d, %share, %k;
        fma.rn.f32      %s2, %m, %s2, %d;
        mul.f32         %d, %k, %k;
        mul.f32         %d, %share, %d;
        mul.f32         %d, %d, %e;
        fma.rn.f32      %s3, %m, %s3, %d;
        setp.gt.f32     %p, %s1, %z;            // rate
        mul.f32         %d, %s0, %s0;
        div.rn.f32      %d, %d, %s1;
        selp.f32        %d, %d, %z, %p;
        setp.gt.f32     %p, %s3, %z;
        div.rn.f32      %e, %s2, %s3;
        selp.f32        %e, %e, %z, %p;
        mul.f32         %e, %e, %d;
        sub.f32         %d, 0f3F800000, %d;
        fma.rn.f32      %s4, %d, %s4, 0f3F800000;
        mul.f32         %e, %e, %g;
        mul.f32         %e, %e, %c0;
        sub.f32         %w, %w, %e;",
        "\
        .reg .pred %p;
        .reg .f32 %d, %e, %z;
        mov.f32         %z, 0f00000000;
        setp.gt.f32     %p, %s1, %z;
        mul.f32         %d, %s0, %s0;
        div.rn.f32      %d, %d, %s1;
        selp.f32        %d, %d, %z, %p;
        setp.gt.f32     %p, %s3, %z;
        div.rn.f32      %e, %s2, %s3;
        selp.f32        %e, %e, %z, %p;
        mul.f32         %u, %e, %d;
        mul.f32         %u, %u, %s0;",
    ];

    /// lr, 1 at the first step, ε, what the first squares are multiplied by.
    fn numbers(&self, t: u64, lr: f64, _: f64) -> [f64; NUMBERS] {
        let first = if t == 1 { 1.0 } else { 0.0 };
        [lr, first, self.eps, self.slow_start, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    fn decay(&self) -> f64 {
        0.0
    }
    fn trail(&self, _: u64, _: f64) -> [f64; TRAIL] {
        [0.0; TRAIL]
    }
    #[inline(always)]
    fn next<T: Real>(w: T, [g, g_fd]: [T; 2], s: &mut [T; STATES], c: &[T; NUMBERS]) -> T {
        let [lr, first, eps, slow_start, ..] = *c;
        let [mean, square, curve, curve_square, tau] = *s;
        let first = first != T::ZERO;
        let k = (g - g_fd).abs() / shift(if first { g } else { mean }, eps).abs();
        let two = T::ONE + T::ONE;
        let far = |x: T, mean: T, square: T| {
            (x - mean).abs() > two * (square - mean * mean).max_nan(T::ZERO).sqrt()
        };
        let outlier = far(g, mean, square) | far(k, curve, curve_square);
        let tau = tau + if outlier { T::ONE } else { T::ZERO };
        let tau = if first { T::ONE } else { tau };
        let share = T::ONE / tau;
        let keep = T::ONE - share;
        let slow = if first { slow_start } else { T::ONE };
        s[0] = keep * mean + share * g;
        s[1] = keep * square + share * (g * g) * slow;
        s[2] = keep * curve + share * k;
        s[3] = keep * curve_square + share * (k * k) * slow;
        let signal = if s[1] > T::ZERO { s[0] * s[0] / s[1] } else { T::ZERO };
        s[4] = (T::ONE - signal) * tau + T::ONE;
        w - lr * (rate([s[0], s[1], s[2], s[3]]) * g)
    }
    #[inline(always)]
    fn direction<T: Real>(_: T, [g, v, k, q, _]: [T; STATES], _: [T; TRAIL]) -> T {
        rate([g, v, k, q]) * g
    }
}

/// vSGD-fd, its state, and the scratch of the second gradient.
struct VsgdFd {
    each: Each<Rates>,
    scratch: Option<(Params, Grads)>,
}

impl Optimizer for VsgdFd {
    fn name(&self) -> &'static str {
        self.each.name()
    }
    fn advance(&mut self, w: &mut Params, g: &Grads, mut how: Step<'_>) -> Result<Option<f64>> {
        let Some(probe) = how.probe.take() else {
            let what =
                "reads a second gradient of the same batch: give Step::probe, or `g_fd` to the verb `optim`";
            return Err(Error::Usage(format!("{} {what}", self.name())));
        };
        let scratch = match &mut self.scratch {
            Some(scratch) => scratch,
            None => self.scratch.insert((w.deep_clone()?, Grads::new(w)?)),
        };
        let (shifted, second) = scratch;
        for i in 0..w.segments().len() {
            let out = shifted.segment_mut(i);
            let Some(g) = g.flat(i) else {
                out.copy_from(0, w.segment(i))?;
                continue;
            };
            let (first, eps) = (Arg::Flag(self.each.steps() == 0), Arg::Real(self.each.rule.eps));
            let mean = Arg::In(self.each.array(0, i));
            launch(&SHIFT, &mut [Arg::Out(out), Arg::In(w.segment(i)), Arg::In(g), mean, first, eps])?;
        }
        probe(shifted, second)?;
        self.each.advance_with(w, g, Some(second), &how)
    }
    fn steps(&self) -> u64 {
        self.each.steps()
    }
    fn state(&self) -> Vec<(String, &Tensor)> {
        self.each.state()
    }
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64) {
        self.each.state_mut()
    }
    fn probes(&self) -> bool {
        true
    }
}

/// vsgd_fd in the table of optimizers.
pub(super) static ENTRY: Entry = Entry {
    name: "vsgd_fd",
    doc: "the best rate for each weight from its gradient's variance and its curvature; takes two gradients a step",
    state: "5 numbers a weight",
    attrs: &[
        real("eps", "1e-6", "least shift of a weight for the second gradient"),
        real("slow_start", "10", "what the first squares are multiplied by"),
    ],
    build: |a, p| {
        let eps = within("vsgd_fd", "eps", a.real("eps")?, f64::MIN_POSITIVE, f64::INFINITY)?;
        let slow_start = within("vsgd_fd", "slow_start", a.real("slow_start")?, 1.0, f64::INFINITY)?;
        Ok(Box::new(VsgdFd { each: Each::new(Rates { eps, slow_start }, p)?, scratch: None }))
    },
    kernels: &[&SHIFT, Each::<Rates>::KERNELS[0], Each::<Rates>::KERNELS[1]],
};
