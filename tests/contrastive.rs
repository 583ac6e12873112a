//! The symmetric contrastive loss (InfoNCE, as in CLIP) is composed of ops: normalised rows, e^s·X·Yᵀ, cross-entropy of rows
//! and of columns with the diagonal as targets. Values by PyTorch 2.15 in float64:
//!
//! ```python
//! i = torch.arange(15, dtype=torch.float64).reshape(5, 3)
//! a, b = torch.sin(1.7 * i + 0.3).requires_grad_(), torch.cos(0.9 * i - 1.1).requires_grad_()
//! s = torch.tensor(1.5, dtype=torch.float64).requires_grad_()
//! logits = s.exp() * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
//! loss = (F.cross_entropy(logits, torch.arange(5)) + F.cross_entropy(logits.T, torch.arange(5))) / 2
//! loss.backward()
//! ```

use ringtape::device::Device;
use ringtape::device::soft::{self, Machine};
use ringtape::error::Result;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, Tape, Var};
use ringtape::tensor::Tensor;

const LOSS: f64 = 4.15224626197706;
const D_SCALE: f64 = 3.4315212794545706;
const DA: [f64; 15] = [
    0.029561232492003604,
    -0.31893915258842703,
    -0.5308709382208749,
    0.5836229347070734,
    0.12043308597809521,
    0.620961550444963,
    -0.16820072829531857,
    -0.3036006405017138,
    -0.26411741336427047,
    -0.728307246991015,
    -0.031246368636592636,
    0.3151809774075675,
    0.054353084631716175,
    0.38643882580488653,
    -0.11807209640829541,
];
const DB: [f64; 15] = [
    -0.24736889684538568,
    -0.1682432176618759,
    0.3622905892953796,
    0.7314061918784258,
    -0.27412890789658195,
    0.20506855981823757,
    0.03959127131548798,
    0.43368505368375365,
    -0.19050802573964054,
    -0.06025569438798889,
    0.8203075525260667,
    -0.10253176083226578,
    0.05432963845981109,
    0.4499533510807106,
    0.4669292866204643,
];

/// Rows of length 1.
fn normalize<'t>(x: &Var<'t>) -> Result<Var<'t>> {
    x.div(&x.mul(x)?.sum_over(&[-1], true)?.sqrt()?)
}

fn loss<'t>(a: &Var<'t>, b: &Var<'t>, log_scale: &Var<'t>, targets: &Var<'t>) -> Result<Var<'t>> {
    let (x, y) = (normalize(a)?, normalize(b)?);
    let scale = log_scale.exp()?;
    let rows = x.matmul_transposed(&y)?.mul(&scale)?.cross_entropy(targets)?;
    let cols = y.matmul_transposed(&x)?.mul(&scale)?.cross_entropy(targets)?;
    rows.add(&cols)?.scale(0.5)
}

#[test]
fn the_symmetric_contrastive_loss_is_pytorchs() {
    let soft = soft::device(&Machine::strict(), 0).unwrap();
    for (device, dtype, tolerance) in
        [(Device::cpu(), DType::F64, 1e-12), (Device::cpu(), DType::F32, 2e-6), (soft, DType::F32, 5e-6)]
    {
        let params = Params::none(&device);
        let tape = Tape::new(&params);
        let leaf = |f: fn(f64) -> f64| {
            let v: Vec<f64> = (0..15).map(|i| f(i as f64)).collect();
            tape.leaf(Tensor::from_f64(&device, dtype, &v, &[5, 3]).unwrap()).unwrap()
        };
        let (a, b) = (leaf(|i| (1.7 * i + 0.3).sin()), leaf(|i| (0.9 * i - 1.1).cos()));
        let scale = tape.leaf(Tensor::from_f64(&device, dtype, &[1.5], &[]).unwrap()).unwrap();
        let targets = tape.constant(Tensor::from_slice(&device, &[0, 1, 2, 3, 4], &[5]).unwrap());
        let loss = loss(&a, &b, &scale, &targets).unwrap();
        let seed = Tensor::full(&device, loss.value().spec(), 1.0).unwrap();
        let found = tape.backward_from(&[(&loss, seed)], &mut Grads::new(&params).unwrap()).unwrap();
        let host = |t: &Tensor| t.to_host().unwrap().to_f64().unwrap();
        let near = |what: &str, got: &Tensor, want: &[f64]| {
            let off = host(got).iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(off < tolerance, "{} {dtype}: {what} is off by {off:e}", device.name());
        };
        near("the loss", loss.value(), &[LOSS]);
        near("da", found.get(&a).unwrap(), &DA);
        near("db", found.get(&b).unwrap(), &DB);
        near("ds", found.get(&scale).unwrap(), &[D_SCALE]);
    }
}
