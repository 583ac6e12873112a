//! The ladder of matrix products in PTX, rung by rung, on any device that runs PTX.

use super::Case;
use crate::device::{Call, Device};
use crate::error::Result;

macro_rules! text {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/", $file, ".ptx"))
    };
}

/// Entry, its text, rows and columns of c a block, threads of a block.
pub(super) type Rung = (&'static str, &'static str, [u32; 2], [u32; 3]);

pub(super) const RUNGS: [Rung; 7] = [
    ("matmul_naive", text!("matmul_ladder"), [16, 16], [16, 16, 1]),
    ("matmul_tiled", text!("matmul_ladder"), [16, 16], [16, 16, 1]),
    ("matmul_registers", text!("matmul_ladder"), [64, 64], [256, 1, 1]),
    ("matmul_vectors", text!("matmul_ladder"), [64, 64], [256, 1, 1]),
    ("matmul_async", text!("matmul_async"), [64, 64], [256, 1, 1]),
    ("matmul_tf32", text!("matmul_tensor"), [128, 128], [128, 1, 1]),
    ("matmul_bf16", text!("matmul_tensor"), [128, 128], [128, 1, 1]),
];
/// Rows, columns and depth of the products: one that fits caches, one that keeps a GPU busy.
const SIZES: [u32; 3] = [256, 1024, 4096];

/// Every rung on `device`. On the software device the smallest product alone: it takes a second where a GPU takes
/// microseconds.
pub(super) fn cases(device: &Device) -> Result<Vec<Case<'static>>> {
    let soft = device.name().starts_with("soft");
    let sizes = SIZES.into_iter().filter(|&n| !soft || n == SIZES[0]);
    sizes.flat_map(|n| RUNGS.map(|rung| product(device, rung, n))).collect()
}

/// One launch of a rung, c = a b with n rows, columns and depth, until the device has done it.
pub(super) fn product(device: &Device, (entry, text, tile, block): Rung, n: u32) -> Result<Case<'static>> {
    let driver = device.ptx_driver()?.clone();
    let stream = driver.default_stream();
    let module = driver.load(entry, text)?;
    let bytes = 4 * u64::from(n) * u64::from(n);
    let random: Vec<f32> = {
        let mut rng = crate::rng::Key::named(1, entry).rng();
        (0..n * n).map(|_| rng.normal() as f32).collect()
    };
    let at = [driver.alloc(bytes)?, driver.alloc(bytes)?, driver.alloc(bytes)?];
    at.iter().try_for_each(|&p| driver.copy_in(p, bytemuck::cast_slice(&random), stream))?;
    let mut params: Vec<u8> = at.iter().flat_map(|p| p.to_le_bytes()).collect();
    params.extend([n; 3].iter().flat_map(|e| e.to_le_bytes()));
    let grid = [n.div_ceil(tile[1]), n.div_ceil(tile[0]), 1];
    let run = move || {
        let call = Call { module, entry, grid, block, shared_bytes: 0, params: &params };
        driver.launch(&call, stream)?;
        driver.synchronize()
    };
    let case =
        Case::timed(device.name().split(':').next().unwrap_or("ptx"), &format!("{entry} {n}x{n}x{n}"), run);
    Ok(Case { flops: 2.0 * f64::from(n).powi(3), ..case })
}
