//! [`Sample`]: one example call of an op, described rather than stored, so that it can be made in f32 or f64, with any seed.

use crate::device::Device;
use crate::error::Result;
use crate::rng::{Key, Rng};
use crate::shape::{DType, Shape};
use crate::tensor::Tensor;

/// How the values of one input are made.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between two bounds.
    Uniform(f64, f64),
    /// Normal, but no value within `gap` of one of `points`: keeps finite differences off kinks.
    Away {
        /// Standard deviation.
        std: f64,
        /// Where the op has a kink.
        points: &'static [f64],
        /// Distance to keep.
        gap: f64,
    },
    /// Distinct values at least `gap` apart, shuffled: no two compete for a maximum.
    Apart(f64),
    /// Integers in `0..n`, as i32.
    Ids(usize),
    /// Zeros and ones, as u8.
    Mask,
    /// These values, as reals.
    Values(Vec<f64>),
    /// These integers, as i32.
    Ints(Vec<i32>),
}

/// One example call.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What this example is about.
    pub note: &'static str,
    /// Attributes that differ from their defaults.
    pub attrs: Vec<(&'static str, String)>,
    /// Inputs in order: extents and values.
    pub inputs: Vec<(Vec<usize>, Fill)>,
    /// True for sizes that only the benchmark runs.
    pub large: bool,
    /// True where products round what other products gave, so that a last bit more or less there becomes a unit of the
    /// rounding here.
    pub chained: bool,
}

impl Sample {
    /// An example without inputs so far.
    pub fn new(note: &'static str) -> Sample {
        Sample { note, attrs: vec![], inputs: vec![], large: false, chained: false }
    }
    /// Sets an attribute.
    pub fn attr(mut self, name: &'static str, value: impl ToString) -> Sample {
        self.attrs.push((name, value.to_string()));
        self
    }
    /// Appends an input.
    pub fn input(mut self, dims: &[usize], fill: Fill) -> Sample {
        self.inputs.push((dims.to_vec(), fill));
        self
    }
    /// Appends a standard normal input.
    pub fn normal(self, dims: &[usize]) -> Sample {
        self.input(dims, Fill::Normal(1.0))
    }
    /// Marks the example as large: for the benchmark only.
    pub fn large(mut self) -> Sample {
        self.large = true;
        self
    }
    /// Says that products round what other products gave.
    pub fn chained(mut self) -> Sample {
        self.chained = true;
        self
    }
    /// Makes the input tensors, reals as `dtype`. The same seed gives the same values in every type, up to rounding.
    pub fn tensors(&self, device: &Device, dtype: DType, seed: u64) -> Result<Vec<Tensor>> {
        let make = |(i, (dims, fill)): (usize, &(Vec<usize>, Fill))| {
            let mut rng = Key::new(seed, i as u64).rng();
            let n = Shape::new(dims)?.len();
            match fill {
                Fill::Ids(limit) => {
                    let v: Vec<i32> = (0..n).map(|_| rng.below(*limit as u64) as i32).collect();
                    Tensor::from_slice(device, &v, dims)
                }
                Fill::Mask => {
                    let v: Vec<u8> = (0..n).map(|_| rng.below(2) as u8).collect();
                    Tensor::from_slice(device, &v, dims)
                }
                Fill::Ints(v) => Tensor::from_slice(device, v, dims),
                fill => Tensor::from_f64(device, dtype, &reals(fill, n, &mut rng), dims),
            }
        };
        self.inputs.iter().enumerate().map(make).collect()
    }
}

fn reals(fill: &Fill, n: usize, rng: &mut Rng) -> Vec<f64> {
    let mut v: Vec<f64> = match fill {
        Fill::Normal(std) => (0..n).map(|_| rng.normal() * std).collect(),
        Fill::Uniform(lo, hi) => (0..n).map(|_| lo + (hi - lo) * rng.uniform()).collect(),
        Fill::Away { std, points, gap } => {
            let far = |x: &f64| points.iter().all(|p| (x - p).abs() >= *gap);
            (0..n)
                .map(|_| std::iter::repeat_with(|| rng.normal() * std).find(far).expect("endless"))
                .collect()
        }
        Fill::Apart(gap) => {
            let mut v: Vec<f64> = (0..n).map(|i| (i as f64 - n as f64 / 2.0) * gap).collect();
            for i in (1..n).rev() {
                v.swap(i, rng.below(i as u64 + 1) as usize);
            }
            v
        }
        Fill::Values(v) => v.clone(),
        Fill::Ids(_) | Fill::Mask | Fill::Ints(_) => vec![],
    };
    // Through f32, so that both types start from the same numbers.
    v.iter_mut().for_each(|x| *x = *x as f32 as f64);
    v
}
