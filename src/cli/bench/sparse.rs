//! Sparse activations: the two layers of a transformer's MLP with kernels that skip inactive units, at several densities, and
//! with products of matrices beside them; generation with an MLP that no cache holds.

use super::Case;
use crate::device::Device;
use crate::error::Result;
use crate::ops::sparse_mlp::{Path, SparseMlp};
use crate::ops::threshold_relu::{ThresholdRelu, normal_quantile};
use crate::rng::Key;
use crate::shape::{DType, Spec};
use crate::tape::{Grads, Params, Tape, Var};
use crate::tensor::Tensor;
use std::rc::Rc;

/// Shares of active units.
const DENSITIES: [f64; 7] = [0.02, 0.05, 0.08, 0.15, 0.3, 0.5, 0.8];
/// Rows (tokens) and width of the MLPs that are trained; the hidden layer is four times as wide.
const TRAINED: [[usize; 2]; 6] = [[1, 128], [4, 128], [16, 128], [64, 128], [2048, 128], [2048, 512]];
/// Width of the MLP that generates: 2 x 64 MiB of weights.
const LARGE: usize = 2048;

/// An MLP whose hidden units hold standard normal numbers.
struct Mlp {
    /// x, up, its bias, down, its bias.
    all: Vec<Tensor>,
    seed: Tensor,
    what: String,
    rows: usize,
    dim: usize,
}

impl Mlp {
    fn new(rows: usize, dim: usize) -> Result<Mlp> {
        let device = Device::cpu();
        let hidden = 4 * dim;
        let normal = |dims: &[usize], name: &str, std: f64| -> Result<Tensor> {
            let mut rng = Key::named(dim as u64, name).rng();
            let v: Vec<f32> = (0..dims.iter().product()).map(|_| (std * rng.normal()) as f32).collect();
            Tensor::from_slice(&device, &v, dims)
        };
        let zeros = |n: usize| Tensor::zeros(&device, Spec::new(DType::F32, &[n])?);
        let narrow = 1.0 / (dim as f64).sqrt();
        let all = vec![
            normal(&[rows, dim], "x", 1.0)?,
            normal(&[hidden, dim], "up", narrow)?,
            zeros(hidden)?,
            normal(&[hidden, dim], "down", narrow)?,
            zeros(dim)?,
        ];
        let what = format!("{dim}-{hidden}-{dim}, {rows} {}", if rows == 1 { "row" } else { "rows" });
        Ok(Mlp { all, seed: normal(&[rows, dim], "dy", 1.0)?, what, rows, dim })
    }

    /// Floating-point operations of a dense forward pass.
    fn flops(&self) -> f64 {
        16.0 * (self.rows * self.dim * self.dim) as f64
    }

    /// Forward, and backward if `trains`; with one given threshold for all, or one that each row computes.
    fn run(&self, op: SparseMlp, given: bool, trains: bool) -> Result<()> {
        let params = Params::none(&Device::cpu());
        let tape = if trains { Tape::new(&params) } else { Tape::eval(&params) };
        let leaves: Vec<Var<'_>> = self.all.iter().map(|t| tape.leaf(t.clone())).collect::<Result<_>>()?;
        let theta =
            Tensor::full(&Device::cpu(), Spec::new(DType::F32, &[1])?, -normal_quantile(op.relu.density))?;
        let theta = tape.constant(theta);
        let weights = [&leaves[1], &leaves[2], &leaves[3], &leaves[4]];
        let (y, _) = leaves[0].sparse_mlp(weights, given.then_some(&theta), op)?;
        if trains {
            let found = tape.backward_from(&[(&y, self.seed.clone())], &mut Grads::new(&params)?)?;
            std::hint::black_box(found);
        }
        Ok(())
    }
}

/// What a model without thresholds does: gelu between two linear layers, whose weights have a row for each output.
fn gelu(mlp: &Mlp, trains: bool) -> Result<()> {
    let params = Params::none(&Device::cpu());
    let tape = if trains { Tape::new(&params) } else { Tape::eval(&params) };
    let leaves: Vec<Var<'_>> = mlp.all.iter().map(|t| tape.leaf(t.clone())).collect::<Result<_>>()?;
    let down = tape.leaf(mlp.all[3].reshape(&[mlp.dim, 4 * mlp.dim])?)?;
    let h = leaves[0].linear(&leaves[1], Some(&leaves[2]))?.gelu_tanh()?;
    let y = h.linear(&down, Some(&leaves[4]))?;
    if trains {
        std::hint::black_box(tape.backward_from(&[(&y, mlp.seed.clone())], &mut Grads::new(&params)?)?);
    }
    Ok(())
}

pub(super) fn cases() -> Result<Vec<Case<'static>>> {
    let mut cases = Vec::new();
    for [rows, dim] in TRAINED {
        let mlp = Rc::new(Mlp::new(rows, dim)?);
        pair(&mut cases, &mlp, true);
    }
    pair(&mut cases, &Rc::new(Mlp::new(1, LARGE)?), false);
    Ok(cases)
}

/// Dense kernels, then those that skip at each density; with thresholds of the rows too where rows are many.
fn pair(cases: &mut Vec<Case<'static>>, mlp: &Rc<Mlp>, trains: bool) {
    let name = if trains { "mlp train" } else { "mlp decode" };
    let mut add = |path: Path, density: f64, given: bool, text: String, flops: f64| {
        let (body, what) = (mlp.clone(), format!("{}, {text}", mlp.what));
        let op = SparseMlp { relu: ThresholdRelu { density, ..ThresholdRelu::default() }, path };
        cases.push(Case { flops, ..Case::timed(name, &what, move || body.run(op, given, trains)) });
    };
    let dense = mlp.flops() * if trains { 3.0 } else { 1.0 };
    add(Path::Dense, 0.08, true, "dense".into(), dense);
    let (body, what) = (mlp.clone(), format!("{}, gelu", mlp.what));
    let gelu = Case { flops: dense, ..Case::timed(name, &what, move || gelu(&body, trains)) };
    for density in DENSITIES {
        // The layer up to the hidden units is dense; the rest is done, or read, for those that are active.
        let ceiling = if trains { 6.0 / (1.0 + 5.0 * density) } else { 2.0 / (1.0 + density) };
        let text = |what: &str| format!("{what} {:.0} %, at most {ceiling:.2} x", 100.0 * density);
        add(Path::Sparse, density, true, text("active"), 0.0);
        if trains && mlp.rows > 1000 {
            add(Path::Sparse, density, false, text("each row its own threshold,"), 0.0);
        }
    }
    cases.push(gelu);
}
