//! Times C = A·B by ringtape, `matrixmultiply` and `gemm`, in turns: `compare THREADS SECONDS NAME:MxKxN:FORM ...` prints
//! one JSON object, names to libraries to the median and the least seconds. FORM is nn, nt (B given transposed) or tn (A).
#![allow(unsafe_code, reason = "both crates take raw pointers")]

use rayon::prelude::*;
use ringtape::kernel::Real;
use ringtape::kernel::gemm::{View, ViewMut, matmul};
use std::time::Instant;

struct Case {
    m: usize,
    k: usize,
    n: usize,
    form: String,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    threads: usize,
}

impl Case {
    fn new(text: &str, threads: usize) -> Option<(String, Case)> {
        let mut parts = text.split(':');
        let (name, dims, form) = (parts.next()?, parts.next()?, parts.next()?);
        let dims: Vec<usize> = dims.split('x').map(|d| d.parse().ok()).collect::<Option<_>>()?;
        let [m, k, n] = dims[..] else { return None };
        let fill = |n: usize, step: usize| {
            (0..n).map(|i| (i % step) as f32 / step as f32 - 0.5).collect::<Vec<f32>>()
        };
        let (a, b, c) = (fill(m * k, 97), fill(k * n, 89), vec![0.0; m * n]);
        Some((name.into(), Case { m, k, n, form: form.into(), a, b, c, threads }))
    }

    /// Steps between rows and between columns of A and B.
    fn steps(&self) -> ([usize; 2], [usize; 2]) {
        let a = if self.form == "tn" { [1, self.m] } else { [self.k, 1] };
        let b = if self.form == "nt" { [1, self.k] } else { [self.n, 1] };
        (a, b)
    }

    fn ringtape(&mut self) {
        let ([ar, ac], [br, bc]) = self.steps();
        let a = View::strided(&self.a, self.m, self.k, ar, ac);
        let b = View::strided(&self.b, self.k, self.n, br, bc);
        if self.threads == 1 {
            f32::gemm(a, b, 1.0, false, ViewMut::new(&mut self.c, self.m, self.n));
        } else {
            matmul(a, b, &mut self.c, false);
        }
    }

    /// Rows split over the threads by hand: measured better than its own feature `threading`.
    fn matrixmultiply(&mut self) {
        let ([ar, ac], [br, bc]) = self.steps();
        let (m, k, n) = (self.m, self.k, self.n);
        let (a, b) = (&self.a, &self.b);
        let rows = m.div_ceil(self.threads);
        self.c.par_chunks_mut(rows * n).enumerate().for_each(|(i, c)| {
            let a = &a[i * rows * ar..];
            // SAFETY: the extents and steps are those of the three vectors.
            unsafe {
                let (pa, pb, pc) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
                let [ar, ac, br, bc, cr] = [ar, ac, br, bc, n].map(|s| s as isize);
                matrixmultiply::sgemm(c.len() / n, k, n, 1.0, pa, ar, ac, pb, br, bc, 0.0, pc, cr, 1);
            }
        });
    }

    fn gemm(&mut self) {
        let ([ar, ac], [br, bc]) = self.steps();
        let [ar, ac, br, bc, cr] = [ar, ac, br, bc, self.n].map(|s| s as isize);
        let how =
            if self.threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(self.threads) };
        let (a, b, c) = (self.a.as_ptr(), self.b.as_ptr(), self.c.as_mut_ptr());
        // SAFETY: as above.
        unsafe {
            gemm::gemm(
                self.m, self.n, self.k, c, 1, cr, false, a, ac, ar, b, bc, br, 0.0f32, 1.0f32, false, false,
                false, how,
            );
        }
    }
}

/// Median and least seconds of each of three ways, which take turns.
fn measure(case: &mut Case, seconds: f64) -> serde_json::Value {
    let ways: [(&str, fn(&mut Case)); 3] =
        [("ringtape", Case::ringtape), ("matrixmultiply", Case::matrixmultiply), ("gemm", Case::gemm)];
    // Short products are timed in bundles of about 50 µs.
    let bundle = (2.5e6 / (case.m * case.k * case.n) as f64).ceil() as usize;
    let mut times = [vec![], vec![], vec![]];
    let start = Instant::now();
    while times[0].len() < 5 || start.elapsed().as_secs_f64() < seconds {
        for (times, (_, run)) in times.iter_mut().zip(&ways) {
            let start = Instant::now();
            (0..bundle).for_each(|_| run(case));
            times.push(start.elapsed().as_secs_f64() / bundle as f64);
        }
    }
    let of = |times: &mut Vec<f64>| {
        times.drain(..2);
        times.sort_by(f64::total_cmp);
        serde_json::json!({ "median": times[times.len() / 2], "min": times[0] })
    };
    times
        .iter_mut()
        .zip(ways)
        .map(|(t, (name, _))| (name.to_string(), of(t)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [threads, seconds, cases @ ..] = &args[..] else {
        return Err("compare THREADS SECONDS NAME:MxKxN:FORM ...".into());
    };
    let (threads, seconds) = (threads.parse()?, seconds.parse()?);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let mut out = serde_json::Map::new();
    for text in cases {
        let (name, mut case) =
            Case::new(text, threads).ok_or_else(|| format!("{text} is not NAME:MxKxN:FORM"))?;
        out.insert(name, measure(&mut case, seconds));
    }
    println!("{}", serde_json::Value::from(out));
    Ok(())
}
