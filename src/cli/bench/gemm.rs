//! Matrix products of a GPT training step: 4096 tokens of 128 channels, and the transposed forms that backward needs.

use super::Case;
use crate::error::Result;
use crate::kernel::gemm::{View, matmul};
use crate::rng::Key;

const TOKENS: usize = 4096;
const DIM: usize = 128;

/// Which operand is read transposed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Forward: x·W.
    Plain,
    /// Gradient of the input: dy·Wᵀ.
    Other,
    /// Gradient of the weight: xᵀ·dy.
    Input,
}

/// What it is for, rows, inner extent, columns, form.
const PRODUCTS: [(&str, usize, usize, usize, Form); 8] = [
    ("query, key, value", TOKENS, DIM, 3 * DIM, Form::Plain),
    ("projection", TOKENS, DIM, DIM, Form::Plain),
    ("up", TOKENS, DIM, 4 * DIM, Form::Plain),
    ("down", TOKENS, 4 * DIM, DIM, Form::Plain),
    ("d input of up", TOKENS, 4 * DIM, DIM, Form::Other),
    ("d weight of up", DIM, TOKENS, 4 * DIM, Form::Input),
    ("one head's scores", 256, 32, 256, Form::Other),
    ("square", 512, 512, 512, Form::Plain),
];

pub(super) fn cases() -> Result<Vec<Case<'static>>> {
    Ok(PRODUCTS.iter().map(case).collect())
}

fn case(&(name, m, k, n, form): &(&'static str, usize, usize, usize, Form)) -> Case<'static> {
    let mut rng = Key::named(1, name).rng();
    let mut random = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
    let (a, b, mut c) = (random(m * k), random(k * n), vec![0.0f32; m * n]);
    let case = Case::timed("gemm", &format!("{name} {m}x{k}x{n}"), move || {
        let a = if form == Form::Input { View::transposed(&a, m, k) } else { View::new(&a, m, k) };
        let b = if form == Form::Other { View::transposed(&b, k, n) } else { View::new(&b, k, n) };
        matmul(a, b, &mut c, false);
        std::hint::black_box(&c);
        Ok(())
    });
    Case { flops: 2.0 * (m * n * k) as f64, bytes: 4.0 * (m * k + k * n + m * n) as f64, ..case }
}
