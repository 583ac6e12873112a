//! One call of dynamic_attention, on the tape and by plain loops in f64: every μ, a softmax over all keys, and gradients
//! term by term.
#![allow(unreachable_pub, reason = "a module of one test file")]

use ringtape::device::Device;
use ringtape::error::Result;
use ringtape::ops::dynamic_attention::{DynamicAttention, Sights};
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, Tape, Var};
use ringtape::tensor::Tensor;

/// Inputs, and `w`, the gradient that the output gets.
#[derive(Clone)]
pub struct Case {
    pub op: DynamicAttention,
    /// Sequences, query heads, key heads, queries, keys, width.
    pub size: [usize; 6],
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub span: Vec<f64>,
    /// Entries of each list, and the lists.
    pub blocks: Option<(usize, Vec<i32>)>,
    pub place: Option<[Vec<f64>; 2]>,
    pub w: Vec<f64>,
}

/// The output, and the gradients of query, key, value, span, center and width.
pub struct Outcome {
    pub o: Vec<f64>,
    pub grads: Vec<Vec<f64>>,
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

impl Case {
    /// Normal queries, keys and values, spans of 0..`span`; all of them numbers of f32.
    pub fn new(op: DynamicAttention, size: [usize; 6], span: f64) -> Case {
        let [b, h, g, tq, tk, d] = size;
        let mut rng = Key::new(3, 5).rng();
        let mut normal = |n: usize| (0..n).map(|_| f64::from(rng.normal() as f32)).collect::<Vec<_>>();
        let [q, k, v, w] = [h * tq, g * tk, g * tk, h * tq].map(|n| normal(b * n * d));
        let span = (0..b * h * tq).map(|_| f64::from((rng.uniform() * span) as f32)).collect();
        Case { op, size, q, k, v, span, blocks: None, place: None, w }
    }
    /// Up to `count` blocks for each query, of the past when causal.
    pub fn routed(mut self, count: usize) -> Case {
        let [b, h, _, tq, tk, _] = self.size;
        let (mut rng, op) = (Key::new(4, 6).rng(), self.op);
        let lists = (0..b * h * tq).flat_map(|n| {
            let limit = if op.is_causal { tk.min(n % tq + op.offset + 1) } else { tk };
            let blocks = 0..limit.div_ceil(op.block) as i32;
            let mut list: Vec<i32> = blocks.filter(|_| rng.below(3) == 0).take(count).collect();
            list.resize(count, -1);
            list
        });
        self.blocks = Some((count, lists.collect()));
        self
    }
    /// A second window somewhere, of width -1..`width`.
    pub fn placed(mut self, width: f64) -> Case {
        let mut rng = Key::new(5, 7).rng();
        let mut of = |low: f64, high: f64| -> Vec<f64> {
            self.span.iter().map(|_| f64::from((low + rng.uniform() * (high - low)) as f32)).collect()
        };
        self.place = Some([of(-3.0, self.size[4] as f64), of(-1.0, width)]);
        self
    }
    pub fn dims(&self, of_keys: bool) -> [usize; 4] {
        let [b, h, g, tq, tk, d] = self.size;
        if of_keys { [b, g, tk, d] } else { [b, h, tq, d] }
    }

    /// On the tape.
    pub fn run(&self, device: &Device, dtype: DType) -> Result<Outcome> {
        self.run_with(device, dtype, |x, sights| x[0].dynamic_attention(&x[1], &x[2], sights, self.op))
    }
    /// The same with another op.
    pub fn run_with(
        &self,
        device: &Device,
        dtype: DType,
        f: impl for<'t> Fn(&[Var<'t>], &Sights<'t>) -> Result<Var<'t>>,
    ) -> Result<Outcome> {
        let params = Params::none(device);
        let tape = Tape::new(&params);
        let (own, keys) = (self.dims(false), self.dims(true));
        let leaf = |v: &[f64], dims: &[usize]| tape.leaf(Tensor::from_f64(device, dtype, v, dims)?);
        let mut x = vec![leaf(&self.q, &own)?, leaf(&self.k, &keys)?, leaf(&self.v, &keys)?];
        x.push(leaf(&self.span, &own[..3])?);
        for v in self.place.iter().flatten() {
            x.push(leaf(v, &own[..3])?);
        }
        let blocks = self.blocks.as_ref().map(|(count, lists)| {
            Tensor::from_slice(device, lists, &[own[0], own[1], own[2], *count]).map(|t| tape.constant(t))
        });
        let place = x.get(4).cloned().zip(x.get(5).cloned());
        let o = f(&x, &Sights { span: x[3].clone(), blocks: blocks.transpose()?, place })?;
        let w = Tensor::from_f64(device, dtype, &self.w, &own)?;
        let found = tape.backward_from(&[(&o, w)], &mut Grads::new(&params)?)?;
        let zeros = |x: &Var<'_>| vec![0.0; x.value().len()];
        let grads = x.iter().map(|x| found.get(x).map_or_else(|| Ok(zeros(x)), Tensor::to_f64));
        Ok(Outcome { o: o.value().to_f64()?, grads: grads.collect::<Result<_>>()? })
    }

    /// μ of the query of row `n` for key `j`, and its slopes along span, center and width.
    pub fn mu(&self, n: usize, j: usize) -> (f64, [f64; 3]) {
        let (op, tq, x) = (self.op, self.size[3], j as f64);
        let position = n % tq + op.offset;
        if op.is_causal && j > position {
            return (0.0, [0.0; 3]);
        }
        if self.lists(n).contains(&((j / op.block) as i32)) {
            return (1.0, [0.0; 3]);
        }
        let fall = |size: f64, distance: f64| {
            let m = ((op.ramp + size.max(0.0) - distance) / op.ramp).clamp(0.0, 1.0);
            (m, if m > 0.0 && m < 1.0 { 1.0 / op.ramp } else { 0.0 })
        };
        let span = self.span[n];
        let (size, slope) = fall(span, (position as f64 - x).abs());
        let first = (size, [if span > 0.0 { slope } else { 0.0 }, 0.0, 0.0]);
        let Some([center, width]) = &self.place else { return first };
        let (away, width) = (x - center[n], width[n]);
        let second = if op.gaussian {
            if width <= 0.0 {
                return first;
            }
            let (bell, floor) = ((-away * away / (2.0 * width * width)).exp(), (-4.5f64).exp());
            let top = bell / (1.0 - floor) / (width * width);
            let m = (bell - floor) / (1.0 - floor);
            (m, [0.0, top * away, top * away * away / width])
        } else {
            let (m, slope) = fall(width, away.abs());
            (m, [0.0, slope * away.signum(), if width > 0.0 { slope } else { 0.0 }])
        };
        if second.0 > first.0 { second } else { first }
    }
    /// The list of row `n`.
    pub fn lists(&self, n: usize) -> &[i32] {
        self.blocks.as_ref().map_or(&[], |(count, lists)| &lists[n * count..][..*count])
    }
    /// First element of the keys that row `n` attends to.
    pub fn head_of(&self, n: usize) -> usize {
        let [_, h, g, tq, tk, d] = self.size;
        n / tq / (h / g) * tk * d
    }
    /// q·k/√d.
    pub fn score(&self, n: usize, j: usize) -> f64 {
        let d = self.size[5];
        let k = &self.k[self.head_of(n) + j * d..][..d];
        dot(&self.q[n * d..][..d], k) / (d as f64).sqrt()
    }

    /// By plain loops.
    pub fn dense(&self) -> Outcome {
        let [_, _, _, _, tk, d] = self.size;
        let mut o = vec![0.0; self.q.len()];
        let mut grads: Vec<Vec<f64>> =
            [&self.q, &self.k, &self.v].iter().map(|x| vec![0.0; x.len()]).collect();
        grads.resize(if self.place.is_some() { 6 } else { 4 }, vec![0.0; self.span.len()]);
        for n in 0..self.span.len() {
            let (own, head) = (n * d..(n + 1) * d, self.head_of(n));
            let row = |x: usize| head + x * d..head + (x + 1) * d;
            let mu: Vec<_> = (0..tk).map(|j| self.mu(n, j)).collect();
            let seen: Vec<usize> = (0..tk).filter(|&j| mu[j].0 > 0.0).collect();
            let max = seen.iter().map(|&j| self.score(n, j)).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = seen.iter().map(|&j| mu[j].0 * (self.score(n, j) - max).exp()).sum();
            let p = |j: usize| (self.score(n, j) - max).exp() / sum;
            let dp = |j: usize| dot(&self.w[own.clone()], &self.v[row(j)]);
            let delta: f64 = seen.iter().map(|&j| mu[j].0 * p(j) * dp(j)).sum();
            for &j in &seen {
                let (m, slopes) = mu[j];
                let dm = p(j) * (dp(j) - delta);
                let ds = m * dm / (d as f64).sqrt();
                for c in 0..d {
                    let (i, r) = (own.start + c, row(j).start + c);
                    o[i] += m * p(j) * self.v[r];
                    grads[0][i] += ds * self.k[r];
                    grads[1][r] += ds * self.q[i];
                    grads[2][r] += m * p(j) * self.w[i];
                }
                for (g, slope) in grads[3..].iter_mut().zip(slopes) {
                    g[n] += dm * slope;
                }
            }
        }
        Outcome { o, grads }
    }
}

impl Outcome {
    /// Errors with the first array that is off by more than `most` of its largest number (or of 1).
    pub fn assert_near(&self, want: &Outcome, most: f64, what: &str) {
        let pairs = |x: &Outcome| [std::slice::from_ref(&x.o), &x.grads[..]].concat();
        let names = ["output", "query", "key", "value", "span", "center", "width"];
        for ((got, want), name) in pairs(self).iter().zip(&pairs(want)).zip(names) {
            assert_eq!(got.len(), want.len());
            let size = want.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
            for (i, (g, w)) in got.iter().zip(want).enumerate() {
                assert!((g - w).abs() <= most * size, "{what}: {name}[{i}] is {g}, but should be {w}");
            }
        }
    }
}
