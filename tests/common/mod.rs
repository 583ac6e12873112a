//! Small ops that tests need in order to ask the tape hard questions. They compute on the host, in f64.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use ringtape::device::Device;
use ringtape::error::{Error, Result};
use ringtape::rng::Key;
use ringtape::shape::{DType, Spec};
use ringtape::tape::{Adjoint, Cx, Grads, Op, Params, Var};
use ringtape::tensor::{SmallList, Tensor};
use smallvec::smallvec;

/// A tensor of f64 on the process-wide device.
pub fn tensor(v: &[f64], dims: &[usize]) -> Tensor {
    Tensor::from_slice(&Device::cpu(), v, dims).unwrap()
}

/// Normal values, the same each time.
pub fn normal(device: &Device, dims: &[usize], stream: u64) -> Tensor {
    let mut rng = Key::new(11, stream).rng();
    let v: Vec<f64> = (0..dims.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_slice(device, &v, dims).unwrap()
}

/// Σ_i x_i as a value of shape [1, 1].
pub fn total<'t>(x: &Var<'t>) -> Result<Var<'t>> {
    x.tape().apply1(Total, &[x])
}

/// x + y of equal shapes.
pub fn add<'t>(x: &Var<'t>, y: &Var<'t>) -> Result<Var<'t>> {
    x.tape().apply1(Add, &[x, y])
}

/// Each element doubled or dropped, by the tape's next key.
pub fn dropout<'t>(x: &Var<'t>) -> Result<Var<'t>> {
    let key = x.tape().next_key();
    if x.tape().is_training() { x.tape().apply1(Drop(key), &[x]) } else { Ok(x.clone()) }
}

/// Compares the gradient of each slot that has one with central differences of `loss` at three of its elements, in f64. `step`
/// is their half width and `off` what they may differ by.
pub fn compare_gradients(
    what: &str,
    params: &mut Params,
    grads: &Grads,
    [step, off]: [f64; 2],
    loss: impl Fn(&Params) -> f64,
) {
    for slot in params.all().filter(|&s| grads.get(s).is_some()) {
        let value = params.get(slot).deep_clone().unwrap();
        let analytic = grads.get(slot).unwrap().to_f64().unwrap();
        for j in [0, analytic.len() / 3, analytic.len() - 1] {
            let mut at = |delta: f64| {
                let mut x = value.to_f64().unwrap();
                x[j] += delta;
                params.set(slot, &tensor(&x, value.dims())).unwrap();
                loss(params)
            };
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            at(0.0);
            let name = &params.info(slot).name;
            assert!(
                (analytic[j] - numeric).abs() < off,
                "{what}: {name}[{j}]: {} but differences say {numeric}",
                analytic[j]
            );
        }
    }
}

fn map(cx: &Cx<'_>, x: &Tensor, f: impl Fn(usize, f64) -> f64) -> Result<Tensor> {
    let v: Vec<f64> = x.as_slice::<f64>()?.iter().enumerate().map(|(i, &x)| f(i, x)).collect();
    Tensor::from_slice(cx.device(), &v, x.dims())
}

fn same(x: &[Spec]) -> Result<SmallList<Spec>> {
    Ok(smallvec![x[0]])
}

#[derive(Debug)]
struct Add;
impl Op for Add {
    fn name(&self) -> &'static str {
        "test_add"
    }
    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        if x[0] == x[1] { same(x) } else { Err(Error::shape("test_add", format!("{} and {}", x[0], x[1]))) }
    }
    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        let y = x[1].as_slice::<f64>()?;
        Ok(smallvec![map(cx, x[0], |i, x| x + y[i])?])
    }
    fn backward(
        &self,
        cx: &mut Cx<'_>,
        _: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let dy = dy[0].as_ref().unwrap();
        dx.iter_mut().try_for_each(|d| d.add(cx, dy.clone()))
    }
}

#[derive(Debug)]
struct Total;
impl Op for Total {
    fn name(&self) -> &'static str {
        "test_total"
    }
    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        Ok(smallvec![Spec::new(x[0].dtype, &[1, 1])?])
    }
    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        cx.keep(x[0]);
        Ok(smallvec![Tensor::from_slice(
            cx.device(),
            &[x[0].as_slice::<f64>()?.iter().sum::<f64>()],
            &[1, 1]
        )?])
    }
    fn backward(
        &self,
        cx: &mut Cx<'_>,
        kept: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let d = dy[0].as_ref().unwrap().item()?;
        dx[0].add(cx, map(cx, &kept[0], |_, _| d)?)
    }
}

#[derive(Debug)]
struct Drop(Key);
impl Op for Drop {
    fn name(&self) -> &'static str {
        "test_drop"
    }
    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        same(x)
    }
    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        Ok(smallvec![map(cx, x[0], |i, x| x * f64::from(self.0.word(i as u64) & 1) * 2.0)?])
    }
    fn backward(
        &self,
        cx: &mut Cx<'_>,
        _: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let dy = dy[0].as_ref().unwrap();
        dx[0].add(cx, map(cx, dy, |i, d| d * f64::from(self.0.word(i as u64) & 1) * 2.0)?)
    }
}

/// What [`Odd`] does in backward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Oddity {
    /// Says nothing to its second input.
    Forgets,
    /// Says that the gradient of its second input is zero.
    Zero,
    /// Gives both inputs a gradient of NaN.
    Nan,
    /// Gives its first input a gradient of another shape.
    Misshapen,
}

/// x + y with a backward that does something odd.
#[derive(Debug)]
pub struct Odd(pub Oddity);
impl Op for Odd {
    fn name(&self) -> &'static str {
        "test_odd"
    }
    fn infer(&self, x: &[Spec]) -> Result<SmallList<Spec>> {
        same(x)
    }
    fn forward(&self, cx: &mut Cx<'_>, x: &[&Tensor]) -> Result<SmallList<Tensor>> {
        Add.forward(cx, x)
    }
    fn backward(
        &self,
        cx: &mut Cx<'_>,
        _: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut [Adjoint],
    ) -> Result<()> {
        let dy = dy[0].as_ref().unwrap();
        match self.0 {
            Oddity::Forgets => dx[0].add(cx, dy.clone()),
            Oddity::Zero => {
                dx[1].zero();
                dx[0].add(cx, dy.clone())
            }
            Oddity::Nan => {
                let nan = Tensor::full(cx.device(), dy.spec(), f64::NAN)?;
                dx.iter_mut().try_for_each(|d| d.add(cx, nan.clone()))
            }
            Oddity::Misshapen => dx[0].add(cx, Tensor::zeros(cx.device(), Spec::new(DType::F64, &[9])?)?),
        }
    }
}
