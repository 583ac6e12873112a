//! Shared and local memory, and where the spaces lie in the 64-bit generic address space.

use super::row::{LANES, Row};

/// Generic address of byte 0 of shared memory.
pub const SHARED: u64 = 1 << 48;
/// Generic address of byte 0 of local memory.
pub const LOCAL: u64 = 2 << 48;
/// Generic address of byte 0 of an entry's parameters.
pub const PARAM: u64 = 3 << 48;
/// Address of function 0 of a program; they stand 16 bytes apart.
pub const FUNCTIONS: u64 = 4 << 48;
/// Size of each of these windows.
pub const WINDOW: u64 = 1 << 32;

/// Words of a block's shared memory: 256 KiB, more than any chip has. A power of two, so that a masked index needs no
/// bounds check.
pub const SHARED_WORDS: usize = 1 << 16;

/// Most bytes of local memory of a thread.
const LOCAL_MOST: usize = 512 << 10;

/// Local memory of a warp: word w of lane l is at row w, lane l, as on hardware, so that lanes that access the same
/// address touch one row.
#[derive(Default)]
pub struct Local {
    rows: Vec<Row>,
    /// Bytes that `alloca` has given to each lane.
    given: [u32; LANES],
}

/// Where `alloca` begins: frames of kernels that use it stay below.
const GIVEN_FROM: u32 = 64 << 10;

impl Local {
    /// Makes room for `bytes` a lane; false when that is too much.
    pub fn reserve(&mut self, bytes: u32) -> bool {
        if bytes as usize > LOCAL_MOST {
            return false;
        }
        let words = (bytes as usize).div_ceil(4);
        if self.rows.len() < words {
            self.rows.resize(words, Row([0; LANES]));
        }
        true
    }
    /// Forgets what `alloca` gave: a new block begins.
    pub fn restart(&mut self) {
        self.given = [0; LANES];
    }
    /// Address of `bytes` more for `lane`, at a multiple of `align`; none when that is too much.
    pub fn allocate(&mut self, lane: usize, bytes: u64, align: u32) -> Option<u32> {
        let at = (GIVEN_FROM + self.given[lane]).next_multiple_of(align.max(1));
        let end = u32::try_from(bytes).ok().and_then(|n| at.checked_add(n))?;
        if !self.reserve(end) {
            return None;
        }
        self.given[lane] = end - GIVEN_FROM;
        Some(at)
    }
    /// Bytes a lane.
    pub fn bytes(&self) -> u64 {
        self.rows.len() as u64 * 4
    }
    /// Byte, half-word, word or double-word of `lane`; the caller has checked bounds and alignment.
    #[inline(always)]
    pub fn load(&self, at: u32, bytes: u32, lane: usize) -> u64 {
        let w = at as usize / 4;
        let low = u64::from(self.rows[w].0[lane]);
        match bytes {
            1 | 2 => low >> (at % 4 * 8) & ((1 << (bytes * 8)) - 1),
            4 => low,
            _ => low | u64::from(self.rows[w + 1].0[lane]) << 32,
        }
    }
    /// Writes it.
    #[inline(always)]
    pub fn store(&mut self, at: u32, bytes: u32, lane: usize, value: u64) {
        let w = at as usize / 4;
        match bytes {
            1 | 2 => {
                let (shift, ones) = (at % 4 * 8, (1u32 << (bytes * 8)) - 1);
                let word = &mut self.rows[w].0[lane];
                *word = *word & !(ones << shift) | (value as u32 & ones) << shift;
            }
            4 => self.rows[w].0[lane] = value as u32,
            _ => {
                self.rows[w].0[lane] = value as u32;
                self.rows[w + 1].0[lane] = (value >> 32) as u32;
            }
        }
    }
    /// Copies `bytes` (whole words) of the lanes in `mask`.
    pub fn copy(&mut self, from: u32, to: u32, bytes: u32, mask: u32) {
        for w in 0..bytes.div_ceil(4) {
            let row = self.rows[(from / 4 + w) as usize];
            super::row::put::<u32>(&mut self.rows, (to / 4 + w) as usize, row.0, mask);
        }
    }
}

/// Words of shared memory, read and written at any width.
#[derive(Clone)]
pub struct Words(pub Box<[u32; SHARED_WORDS]>);

impl Words {
    /// Zeroed.
    pub fn new() -> Words {
        let words = vec![0u32; SHARED_WORDS].into_boxed_slice();
        Words(words.try_into().expect("the length is that of the array"))
    }
    /// The word that holds byte `at`.
    #[inline(always)]
    pub fn word(&self, at: u32) -> u32 {
        self.0[at as usize / 4 % SHARED_WORDS]
    }
    /// Byte, half-word, word or double-word; the caller has checked bounds and alignment.
    #[inline(always)]
    pub fn load(&self, at: u32, bytes: u32) -> u64 {
        let low = u64::from(self.word(at));
        match bytes {
            1 | 2 => low >> (at % 4 * 8) & ((1 << (bytes * 8)) - 1),
            4 => low,
            _ => low | u64::from(self.word(at + 4)) << 32,
        }
    }
    /// Writes it.
    #[inline(always)]
    pub fn store(&mut self, at: u32, bytes: u32, value: u64) {
        let w = at as usize / 4 % SHARED_WORDS;
        match bytes {
            1 | 2 => {
                let (shift, ones) = (at % 4 * 8, (1u32 << (bytes * 8)) - 1);
                self.0[w] = self.0[w] & !(ones << shift) | (value as u32 & ones) << shift;
            }
            4 => self.0[w] = value as u32,
            _ => {
                self.0[w] = value as u32;
                self.0[(w + 1) % SHARED_WORDS] = (value >> 32) as u32;
            }
        }
    }
}

impl Default for Words {
    fn default() -> Words {
        Words::new()
    }
}
