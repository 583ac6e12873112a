//! Matrix products of a GPT training step in f32 and in bf16: 4096 tokens of 128 and of 256 channels, forward and both
//! gradients of each linear layer.

use super::Case;
use crate::error::Result;
use crate::kernel::gemm::{Precision, View, matmul_in};
use crate::rng::Key;

const TOKENS: usize = 4096;

/// What a product is of a linear layer.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// x·Wᵀ.
    Forward,
    /// dy·W.
    Input,
    /// dyᵀ·x.
    Weight,
}

/// Linear layers of a block: name, inputs and outputs in widths of the model.
const LAYERS: [(&str, usize, usize); 4] =
    [("query, key, value", 1, 3), ("projection", 1, 1), ("up", 1, 4), ("down", 4, 1)];

pub(super) fn cases() -> Result<Vec<Case<'static>>> {
    let mut all = Vec::new();
    for (dim, (name, i, o)) in [128, 256].into_iter().flat_map(|d| LAYERS.map(|layer| (d, layer))) {
        let (i, o) = (i * dim, o * dim);
        all.push((name.to_string(), TOKENS, i, o, Form::Forward));
        all.push((format!("d input of {name}"), TOKENS, o, i, Form::Input));
        all.push((format!("d weight of {name}"), o, TOKENS, i, Form::Weight));
    }
    all.push(("one head's scores".into(), 256, 32, 256, Form::Forward));
    all.push(("square".into(), 512, 512, 512, Form::Input));
    let both =
        |p: &(String, usize, usize, usize, Form)| [Precision::F32, Precision::Bf16].map(|x| case(p, x));
    Ok(all.iter().flat_map(both).collect())
}

fn case((name, m, k, n, form): &(String, usize, usize, usize, Form), precision: Precision) -> Case<'static> {
    let (m, k, n, form) = (*m, *k, *n, *form);
    let mut rng = Key::named(1, name).rng();
    let mut random = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
    let (a, b, mut c) = (random(m * k), random(k * n), vec![0.0f32; m * n]);
    let verb = if precision.is_bf16() { "gemm bf16" } else { "gemm" };
    let case = Case::timed(verb, &format!("{name} {m}x{k}x{n}"), move || {
        let a = if form == Form::Weight { View::transposed(&a, m, k) } else { View::new(&a, m, k) };
        let b = if form == Form::Forward { View::transposed(&b, k, n) } else { View::new(&b, k, n) };
        matmul_in(precision, a, b, &mut c, false);
        std::hint::black_box(&c);
        Ok(())
    });
    Case { flops: 2.0 * (m * n * k) as f64, bytes: 4.0 * (m * k + k * n + m * n) as f64, ..case }
}
