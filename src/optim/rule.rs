//! Optimizers that treat each weight by itself: a [`Rule`] says what one step makes of one weight, and [`Each`] is the
//! optimizer that it makes. What all of them share stands here once: the arrays of state and their names, the pass over
//! a segment, the kernels, and the slope along the last update.
//!
//! One kernel, one pass: it reads w, g and the state and writes w and the state. Where the slope is asked for
//! ([`Step::slope`]), a second kernel does the same and also sums Σ u·g, with u the direction of the last update as the
//! state from before this step has it, over pieces of [`PIECE`] weights in a fixed order.

use super::slope::{self, PIECE};
use super::{Optimizer, Step, named, zeros_for};
use crate::error::Result;
use crate::kernel::{Arg, Kernel, Param, Real, Source, launch, par, real_type, reduce, take};
use crate::shape::DType;
use crate::tape::{Grads, Params, Role};
use crate::tensor::Tensor;
use crate::vectorized;
use smallvec::SmallVec;

/// Most arrays of state.
pub const STATES: usize = 5;
/// Most numbers of a step.
pub const NUMBERS: usize = 10;
/// Numbers of the last step that [`Rule::direction`] reads.
pub const TRAIL: usize = 4;

/// What one step makes of one weight.
pub trait Rule: Send + 'static {
    /// Name of the optimizer.
    const NAME: &'static str;
    /// Entries of the kernel of a step, and of the one that measures the slope too.
    const ENTRIES: [&'static str; 2];
    /// Names of the arrays of state, [`STATES`] at most.
    const STATE: &'static [&'static str];
    /// A step reads a second gradient.
    const PROBES: bool = false;
    /// Number of the array of state that begins as the weights; the others begin as zeros.
    const COPIES: Option<usize> = None;
    /// About how many nanoseconds a weight costs one thread: decides when threads pay.
    const COST: f64 = 1.0;
    /// PTX of [`Rule::next`]: instructions that change `%w` and the state `%s0`, `%s1`, … given the gradient `%g`, the
    /// second one `%h`, and the numbers `%c0`, `%c1`, …; and of [`Rule::direction`]: those that make `%u` from `%w`,
    /// `%s0`, … and `%p0` to `%p3`. They may have registers of their own.
    const PTX: [&'static str; 2];
    /// Told of each step before its numbers are asked for: rules that remember numbers change them here.
    fn begin(&mut self, _t: u64, _lr: f64) {}
    /// Numbers that the rule remembers from step to step.
    fn remembered(&mut self) -> &mut [f64] {
        &mut []
    }
    /// Numbers of step `t` (from 1) with learning rate `lr` in a segment whose decay is `decay`.
    fn numbers(&self, t: u64, lr: f64, decay: f64) -> [f64; NUMBERS];
    /// Decay of segments that decay.
    fn decay(&self) -> f64;
    /// Numbers of the step before step `t`, for the direction.
    fn trail(&self, t: u64, decay: f64) -> [f64; TRAIL];
    /// The weight after a step; `s` holds its state, which is brought up to date. Mark it `#[inline(always)]`.
    fn next<T: Real>(w: T, g: [T; 2], s: &mut [T; STATES], c: &[T; NUMBERS]) -> T;
    /// Direction of the last update of a weight, up to a positive factor that is the same for all, from its value and its
    /// state after it: what was subtracted. Mark it `#[inline(always)]`.
    fn direction<T: Real>(w: T, s: [T; STATES], p: [T; TRAIL]) -> T;
}

/// PTX by the number of arrays of state: their addresses, their loads, their stores.
macro_rules! splices {
    ($($k:literal)*) => {
        [
            concat!($("    ld.param.u64    %at", $k, ", [s", $k, "];\n"),*),
            concat!($("    add.u64         %at, %at", $k, ", %offset;\n    ld.global.f32   %s", $k, ", [%at];\n"),*),
            concat!($("    add.u64         %at, %at", $k, ", %offset;\n    st.global.f32   [%at], %s", $k, ";\n"),*),
        ]
    };
}
const ARRAYS: [[&str; 3]; STATES + 1] = [
    splices!(),
    splices!("0"),
    splices!("0" "1"),
    splices!("0" "1" "2"),
    splices!("0" "1" "2" "3"),
    splices!("0" "1" "2" "3" "4"),
];
/// The same of the second gradient: its address, its load.
const SECOND: [[&str; 2]; 2] = [
    ["", ""],
    [
        "    ld.param.u64    %h_at, [h];\n",
        "    add.u64         %at, %h_at, %offset;\n    ld.global.f32   %h, [%at];\n",
    ],
];

const fn param(name: &'static str, role: &'static str) -> Param {
    Param { name, role, ty: "T" }
}

/// Parameters of both kernels; that of a step alone takes the first ones.
const PARAMS: &[Param] = &[
    param("w", "out"),
    param("g", "in"),
    param("h", "in"),
    param("s0", "out"),
    param("s1", "out"),
    param("s2", "out"),
    param("s3", "out"),
    param("s4", "out"),
    param("c0", "val"),
    param("c1", "val"),
    param("c2", "val"),
    param("c3", "val"),
    param("c4", "val"),
    param("c5", "val"),
    param("c6", "val"),
    param("c7", "val"),
    param("c8", "val"),
    param("c9", "val"),
    param("partial", "out"),
    Param { name: "first", role: "val", ty: "size" },
    param("p0", "val"),
    param("p1", "val"),
    param("p2", "val"),
    param("p3", "val"),
];
const PLAIN: usize = 8 + NUMBERS;

/// The optimizer of a rule: its attributes and its state.
pub struct Each<R> {
    /// The rule with its attributes.
    pub rule: R,
    state: Vec<Vec<Tensor>>,
    t: u64,
}

impl<R: Rule> Each<R> {
    const SOURCE: &'static Source = &Source {
        file: "ptx/optimizer.ptx",
        text: include_str!("../../ptx/optimizer.ptx"),
        splice: &[
            ("NAME", R::NAME),
            ("STEP", R::ENTRIES[0]),
            ("WATCHED", R::ENTRIES[1]),
            ("ADDRESSES", ARRAYS[R::STATE.len()][0]),
            ("LOADS", ARRAYS[R::STATE.len()][1]),
            ("STORES", ARRAYS[R::STATE.len()][2]),
            ("SECOND_ADDRESS", SECOND[R::PROBES as usize][0]),
            ("SECOND_LOAD", SECOND[R::PROBES as usize][1]),
            ("NEXT", R::PTX[0]),
            ("DIRECTION", R::PTX[1]),
        ],
    };
    /// A step over one segment.
    pub const STEP: Kernel = Kernel {
        entry: R::ENTRIES[0],
        params: PARAMS.split_at(PLAIN).0,
        cpu: |args| match real_type(R::NAME, args)? {
            DType::F64 => body::<R, f64>(args, R::ENTRIES[0]),
            _ => body::<R, f32>(args, R::ENTRIES[0]),
        },
        source: Some(Each::<R>::SOURCE),
        blocks: None,
    };
    /// A step over one segment that also writes partial[first + p] = Σ u·g over piece p of it.
    pub const WATCHED: Kernel = Kernel {
        entry: R::ENTRIES[1],
        params: PARAMS,
        cpu: |args| match real_type(R::NAME, args)? {
            DType::F64 => body::<R, f64>(args, R::ENTRIES[1]),
            _ => body::<R, f32>(args, R::ENTRIES[1]),
        },
        source: Some(Each::<R>::SOURCE),
        blocks: Some(|args| [take::extent(&args[0]).div_ceil(PIECE), 1, 1]),
    };
    /// Both, for the table of optimizers.
    pub const KERNELS: &'static [&'static Kernel] = &[&Each::<R>::STEP, &Each::<R>::WATCHED];

    /// The optimizer of `rule` for `params`, with zeroed state.
    pub fn new(rule: R, params: &Params) -> Result<Each<R>> {
        Each::new_for(rule, params, |_| true)
    }

    /// The optimizer of `rule` for those segments of `params` whose role `which` takes; others are passed over.
    pub fn new_for(rule: R, params: &Params, which: impl Fn(Role) -> bool) -> Result<Each<R>> {
        let mut state = R::STATE.iter().map(|_| zeros_for(params, &which)).collect::<Result<Vec<_>>>()?;
        if let Some(kind) = R::COPIES {
            for (i, to) in state[kind].iter_mut().enumerate().filter(|(_, to)| to.len() > 0) {
                to.copy_from(0, params.segment(i))?;
            }
        }
        Ok(Each { rule, state, t: 0 })
    }

    /// True for segments that this optimizer changes.
    fn covers(&self, i: usize, g: &Tensor) -> bool {
        self.state.first().is_none_or(|arrays| arrays[i].len() == g.len())
    }

    /// Array of state number `kind` of segment `i`.
    pub fn array(&self, kind: usize, i: usize) -> &Tensor {
        &self.state[kind][i]
    }
    /// The same, writable.
    pub fn array_mut(&mut self, kind: usize, i: usize) -> &mut Tensor {
        &mut self.state[kind][i]
    }

    /// One step, with a second gradient for rules that read one. Gives the slope when `how` asks for it.
    pub fn advance_with(
        &mut self,
        w: &mut Params,
        g: &Grads,
        second: Option<&Grads>,
        how: &Step<'_>,
    ) -> Result<Option<f64>> {
        self.t += 1;
        self.rule.begin(self.t, how.lr);
        let mut slope = if how.slope { slope::Sum::<1>::new(g)? } else { None };
        for i in 0..w.segments().len() {
            let Some(gradient) = g.flat(i).filter(|g| self.covers(i, g)) else { continue };
            let decay = if w.segments()[i].role == Role::Decay { self.rule.decay() } else { 0.0 };
            let mut args: SmallVec<[Arg<'_>; PARAMS.len()]> = SmallVec::new();
            let numbers = self.rule.numbers(self.t, how.lr, decay).map(Arg::Real);
            let trail = self.rule.trail(self.t, decay).map(Arg::Real);
            args.extend([Arg::Out(w.segment_mut(i)), Arg::In(gradient)]);
            args.push(second.and_then(|h| h.flat(i)).map_or(Arg::Absent, Arg::In));
            args.extend(self.state.iter_mut().map(|kind| Arg::Out(&mut kind[i])));
            args.extend((R::STATE.len()..STATES).map(|_| Arg::Absent));
            args.extend(numbers);
            let Some(slope) = &mut slope else {
                launch(const { &Each::<R>::STEP }, &mut args)?;
                continue;
            };
            let (partial, first) = slope.place(gradient.len());
            args.extend([Arg::Out(partial), Arg::Size(first)]);
            args.extend(trail);
            launch(const { &Each::<R>::WATCHED }, &mut args)?;
        }
        // Before the first step there was no update.
        Ok(slope.filter(|_| self.t > 1).map(slope::Sum::totals).transpose()?.map(|[slope]| slope))
    }
}

impl<R: Rule> Optimizer for Each<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }
    fn advance(&mut self, w: &mut Params, g: &Grads, how: Step<'_>) -> Result<Option<f64>> {
        self.advance_with(w, g, None, &how)
    }
    fn steps(&self) -> u64 {
        self.t
    }
    fn state(&self) -> Vec<(String, &Tensor)> {
        R::STATE.iter().zip(&self.state).flat_map(|(kind, arrays)| named(kind, arrays.iter())).collect()
    }
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64) {
        let kinds = R::STATE.iter().zip(&mut self.state);
        (kinds.flat_map(|(kind, arrays)| named(kind, arrays.iter_mut())).collect(), &mut self.t)
    }
    fn numbers(&mut self) -> &mut [f64] {
        self.rule.remembered()
    }
    fn by_weight(&self) -> bool {
        true
    }
}

fn body<R: Rule, T: Real>(args: &mut [Arg<'_>], e: &str) -> Result<()> {
    let (plain, watched) = args.split_at_mut(PLAIN);
    let (arrays, numbers) = plain.split_at_mut(3 + STATES);
    let [w, g, h, s0, s1, s2, s3, s4] = arrays else { unreachable!("launch counted the arguments") };
    let mut c = [T::ZERO; NUMBERS];
    for (k, (c, arg)) in c.iter_mut().zip(numbers.iter()).enumerate() {
        *c = T::of(take::real(arg, e, PARAMS[3 + STATES + k].name)?);
    }
    let w = take::output::<T>(w, e, "w")?;
    let (g, h) = (take::input::<T>(g, e, "g")?, take::input::<T>(h, e, "h")?);
    let (s0, s1) = (take::output::<T>(s0, e, "s0")?, take::output::<T>(s1, e, "s1")?);
    let (s2, s3) = (take::output::<T>(s2, e, "s2")?, take::output::<T>(s3, e, "s3")?);
    let s4 = take::output::<T>(s4, e, "s4")?;
    let work = (w.len() as f64 * R::COST) as usize;
    let outputs = [w, s0, s1, s2, s3, s4];
    let inputs = |i: usize, n: usize| {
        let h = if R::PROBES { &h[i * par::CHUNK..][..n] } else { &[][..] };
        (&g[i * par::CHUNK..][..n], h)
    };
    let [partial, first, trail @ ..] = watched else {
        par::chunks_of(outputs, &mut [] as &mut [T], work, |i, [w, s0, s1, s2, s3, s4], _| {
            let (g, h) = inputs(i, w.len());
            step_chunk::<R, T>(w, g, h, s0, s1, s2, s3, s4, &c);
        });
        return Ok(());
    };
    let mut p = [T::ZERO; TRAIL];
    for (k, (p, arg)) in p.iter_mut().zip(trail.iter()).enumerate() {
        *p = T::of(take::real(arg, e, PARAMS[PLAIN + 2 + k].name)?);
    }
    let first = take::size(first, e, "first")?;
    let pieces = outputs[0].len().div_ceil(PIECE);
    let partial = &mut take::output::<T>(partial, e, "partial")?[first..first + pieces];
    par::chunks_of(outputs, partial, work + work / 2, |i, [w, s0, s1, s2, s3, s4], sum| {
        let (g, h) = inputs(i, w.len());
        *sum = slope_chunk::<R, T>(w, g, s0, s1, s2, s3, s4, p);
        step_chunk::<R, T>(w, g, h, s0, s1, s2, s3, s4, &c);
    });
    Ok(())
}

/// The first `n` elements of array `k` of state, or none where the rule has no such array.
#[inline(always)]
fn used<R: Rule>(k: usize, n: usize) -> usize {
    if k < R::STATE.len() { n } else { 0 }
}

vectorized! {
    fn step_chunk<R: Rule, T: Real>(
        w: &mut [T], g: &[T], h: &[T], s0: &mut [T], s1: &mut [T], s2: &mut [T], s3: &mut [T], s4: &mut [T], c: &[T; NUMBERS],
    ) {
        let n = w.len();
        let (g, h) = (&g[..n], &h[..if R::PROBES { n } else { 0 }]);
        let (s0, s1) = (&mut s0[..used::<R>(0, n)], &mut s1[..used::<R>(1, n)]);
        let (s2, s3) = (&mut s2[..used::<R>(2, n)], &mut s3[..used::<R>(3, n)]);
        let s4 = &mut s4[..used::<R>(4, n)];
        let has = |k: usize| k < R::STATE.len();
        let c = *c;
        for i in 0..n {
            let mut s = [T::ZERO; STATES];
            if has(0) { s[0] = s0[i]; }
            if has(1) { s[1] = s1[i]; }
            if has(2) { s[2] = s2[i]; }
            if has(3) { s[3] = s3[i]; }
            if has(4) { s[4] = s4[i]; }
            w[i] = R::next(w[i], [g[i], if R::PROBES { h[i] } else { T::ZERO }], &mut s, &c);
            if has(0) { s0[i] = s[0]; }
            if has(1) { s1[i] = s[1]; }
            if has(2) { s2[i] = s[2]; }
            if has(3) { s3[i] = s[3]; }
            if has(4) { s4[i] = s[4]; }
        }
    }

    /// Σ u·g of one piece.
    fn slope_chunk<R: Rule, T: Real>(
        w: &[T], g: &[T], s0: &[T], s1: &[T], s2: &[T], s3: &[T], s4: &[T], p: [T; TRAIL],
    ) -> T {
        // An array that the rule does not have is never read: w stands in for it.
        let s = [s0, s1, s2, s3, s4];
        let at = |k: usize| if k < R::STATE.len() { s[k] } else { w };
        reduce::sum_of([w, g, at(0), at(1), at(2), at(3), at(4)], |[w, g, a, b, c, d, e]| {
            R::direction(w, [a, b, c, d, e], p) * g
        })
    }
}
