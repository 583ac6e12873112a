//! The software CUDA device: an empty launch, reading PTX, and every rung of the ladder of matrix products beside
//! the CPU's own product. What the table calls elements are thread-instructions here.

use super::Case;
use crate::device::soft::{self, Machine, Settings};
use crate::device::{Call, Driver};
use crate::error::{Error, Result};
use crate::kernel::gemm::{Precision, View, matmul_in};
use crate::ptx;
use std::sync::Arc;

macro_rules! text {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/", $file, ".ptx"))
    };
}

/// Entry, its text, rows and columns of c a block, threads of a block.
type Rung = (&'static str, &'static str, [u32; 2], [u32; 3]);

const RUNGS: [Rung; 7] = [
    ("matmul_naive", text!("matmul_ladder"), [16, 16], [16, 16, 1]),
    ("matmul_tiled", text!("matmul_ladder"), [16, 16], [16, 16, 1]),
    ("matmul_registers", text!("matmul_ladder"), [64, 64], [256, 1, 1]),
    ("matmul_vectors", text!("matmul_ladder"), [64, 64], [256, 1, 1]),
    ("matmul_async", text!("matmul_async"), [64, 64], [256, 1, 1]),
    ("matmul_tf32", text!("matmul_tensor"), [128, 128], [128, 1, 1]),
    ("matmul_bf16", text!("matmul_tensor"), [128, 128], [128, 1, 1]),
];

const EMPTY: &str =
    ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry empty()\n{\n    ret;\n}\n";

pub(super) fn cases() -> Result<Vec<Case<'static>>> {
    let mut all = vec![empty()?, reading()?, here(256)];
    for rung in RUNGS {
        all.push(product(rung, 256, false)?);
    }
    all.push(product(RUNGS[1], 256, true)?);
    Ok(all)
}

fn machine(check: bool) -> Arc<Machine> {
    Arc::new(Machine::new(Settings { check, ..Settings::default() }))
}

fn driver(machine: &Arc<Machine>) -> Result<Arc<dyn Driver>> {
    let device = soft::device(machine, 0)?;
    device
        .driver()
        .cloned()
        .ok_or_else(|| Error::Device { device: device.name().into(), what: "has no driver".into() })
}

fn empty() -> Result<Case<'static>> {
    let driver = driver(&machine(false))?;
    let module = driver.load("empty.ptx", EMPTY)?;
    Ok(Case::timed("soft", "empty launch", move || {
        let call = Call { module, entry: "empty", grid: [1; 3], block: [1; 3], shared_bytes: 0, params: &[] };
        driver.launch(&call, driver.default_stream())
    }))
}

fn reading() -> Result<Case<'static>> {
    let text = text!("matmul_ladder");
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

fn product((entry, text, tile, block): Rung, n: u32, check: bool) -> Result<Case<'static>> {
    let machine = machine(check);
    let driver = driver(&machine)?;
    let stream = driver.default_stream();
    let module = driver.load(entry, text)?;
    let bytes = 4 * u64::from(n * n);
    let at = [driver.alloc(bytes)?, driver.alloc(bytes)?, driver.alloc(bytes)?];
    at.iter().try_for_each(|&p| driver.fill(p, 0.5f32.to_bits(), 4, bytes / 4, stream))?;
    let mut params: Vec<u8> = at.iter().flat_map(|p| p.to_le_bytes()).collect();
    params.extend([n; 3].iter().flat_map(|e| e.to_le_bytes()));
    let grid = [n.div_ceil(tile[1]), n.div_ceil(tile[0]), 1];
    let run = move || {
        let call = Call { module, entry, grid, block, shared_bytes: 0, params: &params };
        driver.launch(&call, stream)
    };
    run()?;
    let what = format!("{entry} {n}x{n}x{n}{}", if check { ", all checks" } else { "" });
    let case = Case::timed("soft", &what, run);
    let elements = machine.thread_instructions() as f64;
    Ok(Case { flops: 2.0 * f64::from(n).powi(3), elements, ..case })
}
