//! The software CUDA device: an empty launch, reading PTX, and every rung of the ladder of matrix products beside
//! the CPU's own product. What the table calls elements are thread-instructions here.

use super::Case;
use super::ladder::{self, RUNGS, Rung};
use crate::device::Call;
use crate::device::soft::{self, Machine, Settings};
use crate::error::Result;
use crate::kernel::gemm::{Precision, View, matmul_in};
use crate::ptx;
use std::sync::Arc;

const EMPTY: &str =
    ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry empty()\n{\n    ret;\n}\n";

pub(super) fn cases() -> Result<Vec<Case<'static>>> {
    let mut all = vec![empty()?, reading()?, here(256)];
    for rung in RUNGS {
        all.push(product(rung, false)?);
    }
    all.push(product(RUNGS[1], true)?);
    Ok(all)
}

fn machine(check: bool) -> Arc<Machine> {
    Arc::new(Machine::new(Settings { check, ..Settings::default() }))
}

fn empty() -> Result<Case<'static>> {
    let driver = soft::device(&machine(false), 0)?.ptx_driver()?.clone();
    let module = driver.load("empty.ptx", EMPTY)?;
    Ok(Case::timed("soft", "empty launch", move || {
        let call = Call { module, entry: "empty", grid: [1; 3], block: [1; 3], shared_bytes: 0, params: &[] };
        driver.launch(&call, driver.default_stream())
    }))
}

fn reading() -> Result<Case<'static>> {
    let text = RUNGS[0].1;
    let case = Case::timed("soft", &format!("read {} bytes of PTX", text.len()), move || {
        std::hint::black_box(ptx::load("matmul_ladder.ptx", text)?);
        Ok(())
    });
    Ok(Case { bytes: text.len() as f64, ..case })
}

/// The same product by the CPU's own kernels.
fn here(n: usize) -> Case<'static> {
    let (a, b, mut c) = (vec![0.5f32; n * n], vec![0.25f32; n * n], vec![0.0f32; n * n]);
    let case = Case::timed("cpu", &format!("{n}x{n}x{n}"), move || {
        matmul_in(Precision::F32, View::new(&a, n, n), View::new(&b, n, n), &mut c, false);
        std::hint::black_box(&c);
        Ok(())
    });
    Case { flops: 2.0 * (n * n * n) as f64, ..case }
}

fn product(rung: Rung, check: bool) -> Result<Case<'static>> {
    let machine = machine(check);
    let mut case = ladder::product(&soft::device(&machine, 0)?, rung, 256)?;
    // What one launch is, before the clock runs.
    (case.run)()?;
    if check {
        case.what += ", all checks";
    }
    Ok(Case { elements: machine.thread_instructions() as f64, ..case })
}
