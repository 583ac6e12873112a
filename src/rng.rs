//! Random numbers by counter: `value = f(seed, stream, index)`, with Philox4x32-10.
//!
//! Nothing is consumed and no state moves, so a recompute, another thread or a GPU gets the same bits, and a resumed
//! run needs only its step number. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
//! SC'11, section 4.3 (multipliers and Weyl constants).

/// Names one random sequence: which run (`seed`) and which use in it (`stream`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Seed of the run.
    pub seed: u64,
    /// Distinguishes the uses of one seed.
    pub stream: u64,
}

const MUL: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

impl Key {
    /// Key of `stream` under `seed`.
    pub const fn new(seed: u64, stream: u64) -> Key {
        Key { seed, stream }
    }
    /// A stream named by text (FNV-1a), so that adding a use elsewhere does not move this one.
    pub const fn named(seed: u64, name: &str) -> Key {
        let (mut h, mut i) = (0xcbf2_9ce4_8422_2325_u64, 0);
        while i < name.len() {
            h = (h ^ name.as_bytes()[i] as u64).wrapping_mul(0x0100_0000_01b3);
            i += 1;
        }
        Key { seed, stream: h }
    }
    /// Block `index` of the sequence: four independent uniform words.
    #[inline(always)]
    pub fn block(self, index: u64) -> [u32; 4] {
        let mut c = [index as u32, (index >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        let mut k = [self.seed as u32, (self.seed >> 32) as u32];
        for _ in 0..10 {
            let p0 = MUL[0] as u64 * c[0] as u64;
            let p1 = MUL[1] as u64 * c[2] as u64;
            c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        c
    }
    /// Blocks `first..first + N` side by side: word w of block `first + i` is at `[w][i]`. A vector of blocks costs what
    /// one does by [`Key::block`]. Words are held in 64 bits, whose upper halves may be anything until the end: products
    /// of the lower halves are then one instruction a vector, without widening and narrowing around it.
    #[inline(always)]
    pub fn blocks<const N: usize>(self, first: u64) -> [[u32; N]; 4] {
        let low = |word: u64| word & 0xffff_ffff;
        let mut c = [[0; N], [0; N], [self.stream; N], [self.stream >> 32; N]];
        for i in 0..N {
            let index = first.wrapping_add(i as u64);
            (c[0][i], c[1][i]) = (index, index >> 32);
        }
        let mut k = [self.seed as u32, (self.seed >> 32) as u32];
        for _ in 0..10 {
            for i in 0..N {
                let p0 = MUL[0] as u64 * low(c[0][i]);
                let p1 = MUL[1] as u64 * low(c[2][i]);
                let (a, b) = (p1 >> 32 ^ c[1][i] ^ k[0] as u64, p0 >> 32 ^ c[3][i] ^ k[1] as u64);
                (c[0][i], c[1][i], c[2][i], c[3][i]) = (a, p1, b, p0);
            }
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        let mut words = [[0; N]; 4];
        for w in 0..4 {
            for i in 0..N {
                words[w][i] = c[w][i] as u32;
            }
        }
        words
    }
    /// Word `index` of the sequence.
    #[inline(always)]
    pub fn word(self, index: u64) -> u32 {
        self.block(index / 4)[(index % 4) as usize]
    }
    /// A generator that walks this sequence from its start.
    pub const fn rng(self) -> Rng {
        Rng { key: self, next: 0 }
    }
}

/// Uniform in [0, 1) with 24 bits, from one word.
#[inline(always)]
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A cursor over one sequence: for host-side draws (initial weights, test samples). Its whole state is `(key, next)`.
#[derive(Clone, Debug)]
pub struct Rng {
    key: Key,
    next: u64,
}

impl Rng {
    /// The next 32 uniform bits.
    pub fn u32(&mut self) -> u32 {
        let w = self.key.word(self.next);
        self.next += 1;
        w
    }
    /// The next 64 uniform bits.
    pub fn u64(&mut self) -> u64 {
        (self.u32() as u64) << 32 | self.u32() as u64
    }
    /// Uniform in [0, 1) with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// Standard normal, by Box and Muller (1958).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }
    /// Uniform integer in `0..n` (`n` > 0), without bias: Lemire's multiply with rejection.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(0) has no value to give");
        let reject = n.wrapping_neg() % n;
        loop {
            let p = self.u64() as u128 * n as u128;
            if p as u64 >= reject {
                return (p >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Philox4x32-10 published with Random123 (kat_vectors).
    #[test]
    fn philox_known_answers() {
        assert_eq!(Key::new(0, 0).block(0), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(
            Key::new(u64::MAX, u64::MAX).block(u64::MAX),
            [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]
        );
        let key = Key::new(0x299f31d0_a4093822, 0x03707344_13198a2e);
        assert_eq!(key.block(0x85a308d3_243f6a88), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn blocks_side_by_side_are_the_blocks() {
        let key = Key::new(0x299f31d0_a4093822, 0x03707344_13198a2e);
        for first in [0, 7, u32::MAX as u64 - 3, u64::MAX - 2] {
            let words = key.blocks::<8>(first);
            for i in 0..8 {
                let block = key.block(first.wrapping_add(i as u64));
                assert_eq!([0, 1, 2, 3].map(|w| words[w][i]), block, "block {first} + {i}");
            }
        }
    }

    #[test]
    fn normal_has_unit_moments() {
        let mut r = Key::named(1, "test").rng();
        let v: Vec<f64> = (0..20_000).map(|_| r.normal()).collect();
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let var = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.04, "{mean} {var}");
    }
}
