//! Tables of the chapter on numbers: what types can tell apart, and what is left of a sum.

use super::Figures;
use crate::device::Device;
use crate::error::Result;
use crate::shape::DType;
use crate::tape::{Params, Tape};
use crate::tensor::Tensor;
use std::f64::consts::PI;
use std::fmt::Write;

pub(super) fn figures() -> Result<Figures> {
    let mut all = Figures::new();
    all.insert("numbers_types.md".into(), types()?);
    all.insert("numbers_sums.md".into(), sums()?);
    Ok(all)
}

/// `x` as it comes back from a tensor of `dtype`.
fn stored(dtype: DType, x: f64) -> Result<f64> {
    let host = Device::cpu();
    Ok(Tensor::from_slice(&host, &[x], &[])?.to_dtype(dtype)?.to_dtype(DType::F64)?.to_f64()?[0])
}

/// Each real type, by asking it.
fn types() -> Result<String> {
    let mut text = String::from(
        "| type | bytes | π in it | next after 1 | largest power of two | least |\n|---|--:|---|---|---|---|\n",
    );
    for dtype in [DType::F64, DType::F32, DType::Bf16, DType::F16] {
        let at = |x: f64| stored(dtype, x);
        let step = last(|n| Ok(at(1.0 + 0.5f64.powi(n))? > 1.0))?;
        let top = last(|n| Ok(at(2f64.powi(n))?.is_finite()))?;
        let least = last(|n| Ok(at(0.5f64.powi(n))? > 0.0))?;
        let digits = if dtype == DType::F64 { 15 } else { 8 };
        let _ = writeln!(
            text,
            "| `{dtype}` | {} | {:.digits$} | 1 + 2<sup>−{step}</sup> | 2<sup>{top}</sup> | 2<sup>−{least}</sup> |",
            dtype.size(),
            at(PI)?
        );
    }
    Ok(text)
}

/// The largest n from 1 on up to which `holds`.
fn last(holds: impl Fn(i32) -> Result<bool>) -> Result<i32> {
    let mut n = 1;
    while holds(n + 1)? {
        n += 1;
    }
    Ok(n)
}

/// n times the f32 next to 0.1, added from the left, by our op, and in f64.
fn sums() -> Result<String> {
    let mut text = String::from(
        "| numbers | exact | one after the other | off by | by `sum` | off by |\n|--:|--:|--:|--:|--:|--:|\n",
    );
    let params = Params::none(&Device::cpu());
    for n in [1_000, 100_000, 10_000_000] {
        let x = vec![0.1f32; n];
        let exact = f64::from(0.1f32) * n as f64;
        let plain = f64::from(x.iter().fold(0.0f32, |sum, x| sum + x));
        let tape = Tape::eval(&params);
        let ours = tape.constant(Tensor::from_slice(&Device::cpu(), &x, &[n])?).sum()?.value().item()?;
        let off = |sum: f64| 100.0 * (sum - exact).abs() / exact;
        let _ = writeln!(
            text,
            "| {n} | {exact:.3} | {plain:.3} | {:.5} % | {ours:.3} | {:.5} % |",
            off(plain),
            off(ours)
        );
    }
    Ok(text)
}
