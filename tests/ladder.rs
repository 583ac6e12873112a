//! The ladder of matrix products in `ptx/`: every rung multiplies, for sizes with every kind of edge, with all checks on.

use ringtape::device::soft::{self, Machine};
use ringtape::device::{Call, Device};
use ringtape::rng::Key;

/// Entry, its file, rows and columns of c a block, threads of a block, rounding of an operand.
type Rung = (&'static str, &'static str, [usize; 2], [u32; 3], f64);

const LADDER: &str = include_str!("../ptx/matmul_ladder.ptx");
const ASYNC: &str = include_str!("../ptx/matmul_async.ptx");
const TENSOR: &str = include_str!("../ptx/matmul_tensor.ptx");
const RUNGS: [Rung; 7] = [
    ("matmul_naive", LADDER, [16, 16], [16, 16, 1], 0.0),
    ("matmul_tiled", LADDER, [16, 16], [16, 16, 1], 0.0),
    ("matmul_registers", LADDER, [64, 64], [256, 1, 1], 0.0),
    ("matmul_vectors", LADDER, [64, 64], [256, 1, 1], 0.0),
    ("matmul_async", ASYNC, [64, 64], [256, 1, 1], 0.0),
    ("matmul_tf32", TENSOR, [128, 128], [128, 1, 1], 1.0 / 2048.0),
    ("matmul_bf16", TENSOR, [128, 128], [128, 1, 1], 1.0 / 256.0),
];

fn numbers(n: usize, stream: u64) -> Vec<f32> {
    let mut rng = Key::new(5, stream).rng();
    (0..n).map(|_| rng.normal() as f32).collect()
}

#[test]
fn every_rung_multiplies_matrices_of_any_size() {
    multiply(&soft::device(&Machine::strict(), 0).unwrap());
}

/// The same on a GPU, or with RUNTIME_CUDA=soft on the software device behind `cust`.
#[cfg(feature = "cuda")]
#[test]
fn every_rung_multiplies_through_cust_too() {
    multiply(&Device::open("cuda:0").unwrap());
}

fn multiply(device: &Device) {
    let driver = device.driver().unwrap();
    let stream = driver.default_stream();
    for (entry, text, tile, block, rounding) in RUNGS {
        let module = driver.load(entry, text).unwrap();
        for [m, n, k] in [[64, 64, 64], [1, 1, 1], [65, 33, 17], [16, 100, 50], [130, 7, 0], [3, 70, 49]] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let at = [m * k, k * n, m * n].map(|len| driver.alloc(4 * len.max(1) as u64).unwrap());
            driver.copy_in(at[0], bytemuck::cast_slice(&a), stream).unwrap();
            driver.copy_in(at[1], bytemuck::cast_slice(&b), stream).unwrap();
            let mut params: Vec<u8> = at.iter().flat_map(|p| p.to_le_bytes()).collect();
            params.extend([m, n, k].iter().flat_map(|&e| (e as u32).to_le_bytes()));
            let grid = [n.div_ceil(tile[1]) as u32, m.div_ceil(tile[0]) as u32, 1];
            let call = Call { module, entry, grid, block, shared_bytes: 0, params: &params };
            driver.launch(&call, stream).unwrap_or_else(|e| panic!("{entry} {m}x{n}x{k}: {e}"));
            let mut c = vec![0.0f32; m * n];
            driver.copy_out(at[2], bytemuck::cast_slice_mut(&mut c), stream).unwrap();
            for (i, c) in c.iter().enumerate() {
                let pairs = (0..k).map(|l| (f64::from(a[i / n * k + l]), f64::from(b[l * n + i % n])));
                let (want, size) = pairs.fold((0.0, 0.0), |(w, s), (x, y)| (w + x * y, s + (x * y).abs()));
                // Both operands are rounded; sums of k numbers in f32.
                let bound = size * (2.5 * rounding + 1e-6) + 1e-30;
                assert!(
                    (f64::from(*c) - want).abs() <= bound,
                    "{entry} {m}x{n}x{k}: c[{i}] is {c}, not {want}"
                );
            }
            at.into_iter().for_each(|p| driver.free(p));
        }
    }
}

/// Rounding is real: a tensor-core product of numbers that tf32 or bf16 cannot hold differs from that in f32.
#[test]
fn tensor_cores_round_their_operands() {
    round(&soft::device(&Machine::strict(), 0).unwrap());
}

#[cfg(feature = "cuda")]
#[test]
fn tensor_cores_round_their_operands_through_cust_too() {
    round(&Device::open("cuda:0").unwrap());
}

fn round(device: &Device) {
    let driver = device.driver().unwrap();
    let stream = driver.default_stream();
    let fine = 1.0 + 1.0 / 4096.0f32; // 12 bits of fraction
    let one = |entry, text| {
        let module = driver.load(entry, text).unwrap();
        let at = [fine, 1.0, 0.0].map(|v| {
            let p = driver.alloc(4).unwrap();
            driver.copy_in(p, &v.to_le_bytes(), stream).unwrap();
            p
        });
        let mut params: Vec<u8> = at.iter().flat_map(|p| p.to_le_bytes()).collect();
        params.extend([1u32; 3].iter().flat_map(|e| e.to_le_bytes()));
        let block = if text == TENSOR { [128, 1, 1] } else { [256, 1, 1] };
        driver
            .launch(&Call { module, entry, grid: [1; 3], block, shared_bytes: 0, params: &params }, stream)
            .unwrap();
        let mut c = [0.0f32];
        driver.copy_out(at[2], bytemuck::cast_slice_mut(&mut c), stream).unwrap();
        c[0]
    };
    assert_eq!(one("matmul_vectors", LADDER), fine);
    assert_eq!(one("matmul_tf32", TENSOR), 1.0);
    assert_eq!(one("matmul_bf16", TENSOR), 1.0);
}

/// One warp, c [16, 8] = a [16, k]·b [k, 8] by one `mma` of f64, whose lanes bring and take their elements as the tables of the
/// ISA say (PTX ISA 9.0, matrix fragments for mma.m16n8k4, k8 and k16 with .f64).
fn doubles(k: usize) -> String {
    let list = |name: &str, n: usize| (0..n).map(|i| format!("%{name}{i}")).collect::<Vec<_>>().join(", ");
    // Register i of a: row g (+ 8 where i is odd), column t + 4·(i/2); of b: row t + 4i, column g.
    let a: String = (0..k / 2)
        .map(|i| format!("ld.global.f64 %a{i}, [%pa+{}];\n", 8 * (8 * k * (i % 2) + 4 * (i / 2))))
        .collect();
    let b: String = (0..k / 4).map(|i| format!("ld.global.f64 %b{i}, [%pb+{}];\n", 8 * 8 * 4 * i)).collect();
    let c: String =
        (0..4).map(|i| format!("st.global.f64 [%pc+{}], %c{i};\n", 8 * (64 * (i / 2) + i % 2))).collect();
    format!(
        ".version 7.8\n.target sm_90\n.address_size 64\n.visible .entry doubles(.param .u64 a, .param .u64 b, .param .u64 c)\n{{\n\
         .reg .b32 %g, %t, %u;\n.reg .b64 %pa, %pb, %pc;\n.reg .f64 %a<8>, %b<4>, %c<4>;\n\
         ld.param.u64 %pa, [a];\nld.param.u64 %pb, [b];\nld.param.u64 %pc, [c];\n\
         mov.u32 %u, %tid.x;\nshr.u32 %g, %u, 2;\nand.b32 %t, %u, 3;\n\
         mad.lo.u32 %u, %g, {k}, %t;\nmad.wide.u32 %pa, %u, 8, %pa;\n\
         mad.lo.u32 %u, %t, 8, %g;\nmad.wide.u32 %pb, %u, 8, %pb;\n\
         mad.lo.u32 %u, %g, 4, %t;\nmad.wide.u32 %pc, %u, 16, %pc;\n{a}{b}\
         mov.f64 %c0, 0d3FF0000000000000;\nmov.f64 %c1, %c0;\nmov.f64 %c2, %c0;\nmov.f64 %c3, %c0;\n\
         mma.sync.aligned.m16n8k{k}.row.col.f64.f64.f64.f64 {{{}}}, {{{}}}, {{{}}}, {{{}}};\n{c}ret;\n}}\n",
        list("c", 4),
        list("a", k / 2),
        list("b", k / 4),
        list("c", 4),
    )
}

#[test]
fn products_of_doubles_have_every_depth() {
    multiply_doubles(&soft::device(&Machine::strict(), 0).unwrap());
}

/// PTX for compute capability 9.0.
#[cfg(feature = "cuda")]
#[test]
fn products_of_doubles_have_every_depth_through_cust_too() {
    multiply_doubles(&Device::open("cuda:0").unwrap());
}

fn multiply_doubles(device: &Device) {
    let driver = device.driver().unwrap();
    let stream = driver.default_stream();
    for k in [4, 8, 16] {
        let module = driver.load("doubles.ptx", &doubles(k)).unwrap();
        // Small integers: sums are exact.
        let a: Vec<f64> = (0..16 * k).map(|i| (i * 7 % 11) as f64 - 5.0).collect();
        let b: Vec<f64> = (0..k * 8).map(|i| (i * 5 % 13) as f64 - 6.0).collect();
        let at = [16 * k, k * 8, 128].map(|len| driver.alloc(8 * len as u64).unwrap());
        driver.copy_in(at[0], bytemuck::cast_slice(&a), stream).unwrap();
        driver.copy_in(at[1], bytemuck::cast_slice(&b), stream).unwrap();
        let params: Vec<u8> = at.iter().flat_map(|p| p.to_le_bytes()).collect();
        let (grid, block) = ([1; 3], [32, 1, 1]);
        let call = Call { module, entry: "doubles", grid, block, shared_bytes: 0, params: &params };
        driver.launch(&call, stream).unwrap();
        let mut c = vec![0.0f64; 128];
        driver.copy_out(at[2], bytemuck::cast_slice_mut(&mut c), stream).unwrap();
        for (i, c) in c.iter().enumerate() {
            let want = 1.0 + (0..k).map(|l| a[i / 8 * k + l] * b[l * 8 + i % 8]).sum::<f64>();
            assert_eq!(*c, want, "k {k}: c[{}, {}]", i / 8, i % 8);
        }
        at.into_iter().for_each(|p| driver.free(p));
    }
}
