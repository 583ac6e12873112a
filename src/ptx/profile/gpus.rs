//! What a launch would cost on a GPU at the least: occupancy and a roofline, from public figures. Estimates, not
//! measurements: nothing here knows latency, caches of a chip, or what its compiler makes of the PTX.

use super::Profile;
use super::traffic::SECTOR;

/// A GPU in public figures.
#[derive(Clone, Copy, Debug)]
pub struct Gpu {
    /// Name.
    pub name: &'static str,
    /// Multiprocessors.
    pub sms: u32,
    /// Boost clock in GHz.
    pub clock: f64,
    /// Most warps of a multiprocessor.
    pub warps: u32,
    /// Most blocks of a multiprocessor.
    pub blocks: u32,
    /// Shared memory of a multiprocessor in bytes.
    pub shared: u32,
    /// Memory bandwidth in GB/s.
    pub bandwidth: f64,
    /// TFLOP/s by type of arithmetic, as `Profile::flops` names them; dense for matrix products.
    pub peaks: [(&'static str, f64); 8],
}

/// 32-bit registers of a multiprocessor.
const REGISTERS: u32 = 65_536;
/// Schedulers of a multiprocessor, each with its share of registers and warps; each issues an instruction a clock.
const SCHEDULERS: u32 = 4;
/// Registers are given to a warp in pieces of so many.
const PIECE: u32 = 256;
/// Shared memory that the system keeps of each block.
const KEPT: u32 = 1024;
/// Results of special functions a clock and multiprocessor.
const SPECIAL: f64 = 16.0;
/// Bytes a clock and multiprocessor between the first cache, or shared memory, and the registers.
const LOAD_STORE: f64 = 128.0;

/// The GPUs that estimates are given for. Sources: "NVIDIA A100 Tensor Core GPU Architecture" (2020; 40 GB, SXM), "NVIDIA
/// H100 Tensor Core GPU Architecture" (2022; SXM), "NVIDIA Ada GPU Architecture" (2023) with the clock and the memory of
/// the laptop part at its highest power; limits of a multiprocessor: CUDA C++ Programming Guide, "Compute Capabilities".
pub const GPUS: [Gpu; 3] = [
    Gpu {
        name: "A100 SXM 40 GB",
        sms: 108,
        clock: 1.41,
        warps: 64,
        blocks: 32,
        shared: 164 << 10,
        bandwidth: 1555.0,
        peaks: [
            ("f32", 19.5),
            ("f64", 9.7),
            ("f16", 78.0),
            ("tf32 matrix", 156.0),
            ("bf16 matrix", 312.0),
            ("f16 matrix", 312.0),
            ("f64 matrix", 19.5),
            ("integer matrix", 624.0),
        ],
    },
    Gpu {
        name: "H100 SXM",
        sms: 132,
        clock: 1.83,
        warps: 64,
        blocks: 32,
        shared: 228 << 10,
        bandwidth: 3350.0,
        peaks: [
            ("f32", 66.9),
            ("f64", 33.5),
            ("f16", 133.8),
            ("tf32 matrix", 494.7),
            ("bf16 matrix", 989.4),
            ("f16 matrix", 989.4),
            ("f64 matrix", 66.9),
            ("integer matrix", 1978.9),
        ],
    },
    Gpu {
        name: "RTX 4060 laptop",
        sms: 24,
        clock: 2.37,
        warps: 48,
        blocks: 24,
        shared: 100 << 10,
        bandwidth: 256.0,
        peaks: [
            ("f32", 14.6),
            ("f64", 0.23),
            ("f16", 14.6),
            ("tf32 matrix", 14.6),
            ("bf16 matrix", 29.1),
            ("f16 matrix", 29.1),
            ("f64 matrix", 0.23),
            ("integer matrix", 116.5),
        ],
    },
];

/// How many blocks fit a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Occupancy {
    /// Blocks of a multiprocessor at a time.
    pub blocks: u32,
    /// Warps of a multiprocessor at a time.
    pub warps: u32,
    /// Share of the warps that could be there.
    pub share: f64,
    /// What allows no more: `warps`, `blocks`, `registers` or `shared memory`.
    pub limit: &'static str,
}

impl Gpu {
    /// Blocks of `threads` threads with `registers` each and `shared` bytes that a multiprocessor can hold (CUDA C++ Best
    /// Practices Guide, section 11.1).
    pub fn occupancy(&self, threads: u32, registers: u32, shared: u32) -> Occupancy {
        let warps = threads.div_ceil(32).max(1);
        let of_a_warp = (registers.max(1) * 32).next_multiple_of(PIECE);
        let limits = [
            (self.warps / warps, "warps"),
            (self.blocks, "blocks"),
            (REGISTERS / SCHEDULERS / of_a_warp * SCHEDULERS / warps, "registers"),
            (self.shared / (shared + KEPT).next_multiple_of(128), "shared memory"),
        ];
        let (blocks, limit) = limits.into_iter().min_by_key(|(n, _)| *n).unwrap_or((0, ""));
        Occupancy {
            blocks,
            warps: blocks * warps,
            share: f64::from(blocks * warps) / f64::from(self.warps),
            limit,
        }
    }
}

/// The least time of a launch on a GPU.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Estimate {
    /// GPU.
    pub gpu: &'static str,
    /// Says what this is.
    pub is: &'static str,
    /// Blocks that a multiprocessor holds.
    pub occupancy: Occupancy,
    /// Microseconds that the launch takes at least.
    pub least_us: f64,
    /// What takes that long.
    pub bound: &'static str,
    /// Microseconds of everything that may bound it.
    pub parts: Vec<(&'static str, f64)>,
    /// Floating-point operations for each byte of memory.
    pub intensity: f64,
    /// Intensity from which on arithmetic takes longer than memory, for the type of arithmetic that takes longest.
    pub ridge: f64,
}

impl Estimate {
    /// Of a launch on `gpu`, each thread with `registers` registers.
    pub fn of(profile: &Profile, gpu: &Gpu, registers: u32) -> Estimate {
        let occupancy = gpu.occupancy(profile.block_threads, registers, profile.shared_bytes);
        // With fewer blocks than multiprocessors the others idle.
        let sms = profile.blocks.clamp(1, gpu.sms.into()) as f64;
        let (cycles, part) = (sms * gpu.clock * 1e3, sms / f64::from(gpu.sms));
        let mut arithmetic: (f64, f64) = (0.0, gpu.peaks[0].1);
        for (kind, peak) in gpu.peaks {
            let us = profile.flops.get(kind).map_or(0.0, |n| *n as f64 / (peak * 1e6 * part));
            if us > arithmetic.0 {
                arithmetic = (us, peak);
            }
        }
        let moved = (profile.global().sectors * SECTOR) as f64 + profile.shared().passes as f64 * LOAD_STORE;
        let parts = vec![
            ("memory", profile.footprint() as f64 / (gpu.bandwidth * 1e3)),
            ("arithmetic", arithmetic.0),
            ("instruction issue", profile.warp_instructions as f64 / (f64::from(SCHEDULERS) * cycles)),
            ("caches and shared memory", moved / (LOAD_STORE * cycles)),
            ("special functions", profile.special as f64 / (SPECIAL * cycles)),
        ];
        let (bound, least_us) =
            parts.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a }).unwrap_or(("memory", 0.0));
        Estimate {
            gpu: gpu.name,
            is: "an estimate from public figures, not a measurement",
            occupancy,
            least_us,
            bound,
            parts,
            intensity: profile.all_flops() as f64 / profile.footprint().max(1) as f64,
            ridge: arithmetic.1 * 1e3 / gpu.bandwidth,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occupancy_is_that_of_the_published_calculator() {
        let [a100, _, laptop] = GPUS;
        // Values of NVIDIA's occupancy calculator for compute capability 8.0 and 8.9.
        let seen = |gpu: Gpu, t, r, s| {
            let o = gpu.occupancy(t, r, s);
            (o.blocks, o.limit)
        };
        assert_eq!(seen(a100, 256, 32, 0), (8, "warps"));
        assert_eq!(seen(a100, 256, 64, 0), (4, "registers"));
        assert_eq!(seen(a100, 128, 255, 0), (2, "registers"));
        assert_eq!(seen(a100, 32, 16, 0), (32, "blocks"));
        assert_eq!(seen(a100, 128, 32, 48 << 10), (3, "shared memory"));
        assert_eq!(seen(laptop, 1024, 32, 0), (1, "warps"));
    }

    #[test]
    fn a_copy_is_bound_by_memory_and_a_product_by_arithmetic() {
        let mut p =
            Profile { blocks: 10_000, block_threads: 256, footprint_read: 1 << 30, ..Profile::default() };
        let copy = Estimate::of(&p, &GPUS[0], 16);
        assert_eq!(copy.bound, "memory");
        assert!((copy.least_us - 690.5).abs() < 0.1, "{}", copy.least_us);
        p.flops.insert("f32", 195_000_000_000);
        let product = Estimate::of(&p, &GPUS[0], 16);
        assert_eq!(product.bound, "arithmetic");
        assert!((product.least_us - 10_000.0).abs() < 1e-6);
    }
}
